// expect: more than one chunk size was given
#include <ferry/grpc_server.hpp>

ferry::basic_grpc_server<ferry::max_message_bytes_length<1>, ferry::no_retry, ferry::max_message_bytes_length<2>>
    server({});
