// expect: the retry policy needs `std::optional<std::chrono::milliseconds> next\(const failed_attempt
#include <ferry/grpc_client.hpp>

struct hopeful_retry {
    using policy_category = ferry::retry_tag;
};

ferry::basic_grpc_client<hopeful_retry> client({}, [](auto) {});
