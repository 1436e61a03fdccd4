// expect: the constructor was given an object that is no policy of this server or client
#include <ferry/grpc_client.hpp>

ferry::grpc_client client(
    {}, [](auto) {}, ferry::no_retry{});
