// expect: the serializer needs `message_type decode\(const bytes&\) const`
#include <ferry/grpc_client.hpp>

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
    using policy_category = ferry::serializer_tag;
    using message_type = note;
    static constexpr const char* name = "notes";
    ferry::payload encode(note) const { return {}; }
};

ferry::basic_grpc_client<note_serializer> client({}, [](auto) {});
