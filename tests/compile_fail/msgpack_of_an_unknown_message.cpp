// expect: message_traits of the serializer's message_type needs `request_id
#include <ferry/grpc_server.hpp>
#include <ferry/serializer/msgpack.hpp>

struct note {};

ferry::basic_grpc_server<ferry::msgpack_serializer<note>> server({});
