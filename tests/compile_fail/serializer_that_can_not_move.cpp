// expect: a policy must be movable
#include <ferry/grpc_server.hpp>

#include <string>

struct note {};

template <>
struct ferry::message_traits<note> {
    static std::string request_id(const note&) { return {}; }
    static std::string node_id(const note&) { return {}; }
    static void set_request_id(note&, const std::string&) {}
    static void set_node_id(note&, const std::string&) {}
};

struct note_serializer {
    note_serializer() = default;
    note_serializer(note_serializer&&) = delete;
    using policy_category = ferry::serializer_tag;
    using message_type = note;
    static constexpr const char* name = "notes";
    ferry::payload encode(note) const { return {}; }
    note decode(const ferry::bytes&) const { return {}; }
};

ferry::basic_grpc_server<note_serializer> server({});
