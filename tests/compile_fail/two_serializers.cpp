// expect: more than one serializer was given
#include <ferry/grpc_server.hpp>

struct own_serializer : ferry::msgpack_serializer<> {};

ferry::basic_grpc_server<ferry::msgpack_serializer<>, ferry::no_retry, own_serializer> server({});
