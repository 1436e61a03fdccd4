// expect: each template argument of a server or client must be a policy
#include <ferry/grpc_client.hpp>

ferry::basic_grpc_client<int> client({}, [](auto) {});
