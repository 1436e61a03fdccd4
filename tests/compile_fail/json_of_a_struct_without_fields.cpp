// expect: json_serializer<T> needs T's fields in ferry::message_traits<T>, or
#include <ferry/fields.hpp>
#include <ferry/grpc_server.hpp>
#include <ferry/serializer/json.hpp>

#include <string>

struct note {
    std::string request_id, node_id;
};

template <>
struct ferry::message_traits<note> : ferry::message_ids<&note::request_id, &note::node_id> {};

void send(ferry::basic_grpc_server<ferry::json_serializer<note>>& server) { server.send({}, "node"); }
