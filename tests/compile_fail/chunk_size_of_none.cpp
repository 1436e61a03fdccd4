// expect: the chunk size must be from 1 to 100 MiB - 64 bytes
#include <ferry/grpc_server.hpp>

ferry::basic_grpc_server<ferry::max_message_bytes_length<0>> server({});
