// expect: the retry policy does not meet ferry::retry_policy
#include <ferry/grpc_server.hpp>

struct hopeful_retry {
    using policy_category = ferry::retry_tag;
};

ferry::basic_grpc_server<hopeful_retry> server({});
