// expect: a client has no identity policy
#include <ferry/grpc_client.hpp>
#include <ferry/identity.hpp>

ferry::basic_grpc_client<ferry::open_identity> client({}, [](auto) {});
