// expect: basic_grpc_server takes at most one policy of each category
#include <ferry/grpc_server.hpp>

ferry::basic_grpc_server<ferry::no_retry, ferry::bounded_retry> server({});
