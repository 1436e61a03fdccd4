// expect: each template argument of a server or client must be a policy
#include <ferry/grpc_server.hpp>

ferry::basic_grpc_server<ferry::no_retry, int> server({});
