// expect: more than one retry policy was given
#include <ferry/grpc_server.hpp>

ferry::basic_grpc_server<ferry::no_retry, ferry::bounded_retry> server({});
