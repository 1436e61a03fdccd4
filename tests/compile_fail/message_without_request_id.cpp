// expect: message_traits of the serializer's message_type needs `request_id\(m
#include <ferry/grpc_server.hpp>

#include <string>

struct note {};

template <>
struct ferry::message_traits<note> {
    static std::string node_id(const note&) { return {}; }
    static void set_request_id(note&, const std::string&) {}
    static void set_node_id(note&, const std::string&) {}
};

struct note_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = note;
    static constexpr const char* name = "notes";
    ferry::payload encode(note) const { return {}; }
    note decode(const ferry::bytes&) const { return {}; }
};

ferry::basic_grpc_server<note_serializer> server({});
