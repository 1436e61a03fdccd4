// expect: the retry policy needs `std::optional<std::chrono::milliseconds> next\(const failed_attempt
// note: hopeful_retry
#include <ferry/grpc_server.hpp>

struct hopeful_retry {
    using policy_category = ferry::retry_tag;
};

ferry::basic_grpc_server<hopeful_retry> server({});
