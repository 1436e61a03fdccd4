// expect: the constructor was given an object that is no policy of this server or client
#include <ferry/grpc_server.hpp>

ferry::basic_grpc_server<ferry::no_retry> server({}, ferry::bounded_retry{});
