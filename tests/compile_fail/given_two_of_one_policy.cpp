// expect: the constructor was given two objects of one policy
#include <ferry/grpc_server.hpp>

ferry::grpc_server server({}, ferry::bounded_retry{}, ferry::bounded_retry{});
