// expect: a policy without a default constructor must be handed to the constructor
#include <ferry/grpc_server.hpp>

struct strict_retry : ferry::no_retry {
    explicit strict_retry(int) {}
};

ferry::basic_grpc_server<strict_retry> server({});
