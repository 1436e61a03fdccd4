// expect: each template argument of a server or client must be a policy
#include <ferry/grpc_server.hpp>

struct nothing {};

ferry::basic_grpc_server<nothing> server({});
