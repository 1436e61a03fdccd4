// expect: every argument of basic_grpc_server must be a policy
#include <ferry/grpc_server.hpp>

struct nothing {};

ferry::basic_grpc_server<nothing> server({});
