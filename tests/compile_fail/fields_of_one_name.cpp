// expect: two fields of a struct have the same name
#include <ferry/fields.hpp>
#include <ferry/grpc_server.hpp>
#include <ferry/serializer/json.hpp>

#include <string>

struct note {
    std::string request_id, node_id;
    int epoch, rounds;
};

template <>
struct ferry::message_traits<note> : ferry::message_ids<&note::request_id, &note::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("request_id", &note::request_id), ferry::field("node_id", &note::node_id),
                      ferry::field("rounds", &note::epoch), ferry::field("rounds", &note::rounds));
};

void send(ferry::basic_grpc_server<ferry::json_serializer<note>>& server) { server.send({}, "node"); }
