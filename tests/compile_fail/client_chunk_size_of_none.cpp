// expect: the chunk size must be from 1 to 100 MiB - 64 bytes
#include <ferry/grpc_client.hpp>

ferry::basic_grpc_client<ferry::max_message_bytes_length<0>> client({}, [](auto) {});
