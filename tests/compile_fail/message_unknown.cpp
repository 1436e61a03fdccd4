// expect: message_traits of the serializer's message_type needs
#include <ferry/grpc_server.hpp>

struct note {};

struct note_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = note;
    static constexpr const char* name = "notes";
    ferry::payload encode(note) const { return {}; }
    note decode(const ferry::bytes&) const { return {}; }
};

ferry::basic_grpc_server<note_serializer> server({});
