// expect: more than one serializer was given
#include <ferry/grpc_client.hpp>

struct own_serializer : ferry::msgpack_serializer<> {};

ferry::basic_grpc_client<own_serializer, ferry::msgpack_serializer<>> client({}, [](auto) {});
