// expect: more than one identity policy was given
#include <ferry/grpc_server.hpp>

ferry::basic_grpc_server<ferry::open_identity, ferry::token_identity> server({});
