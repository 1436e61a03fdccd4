// expect: each template argument of a server or client must be a policy
#include <ferry/grpc_server.hpp>

struct colour_tag;
struct red {
    using policy_category = colour_tag;
};

ferry::basic_grpc_server<red> server({});
