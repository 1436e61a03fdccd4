// expect: the retry policy needs `std::optional<std::chrono::milliseconds> next\(const failed_attempt
#include <ferry/grpc_server.hpp>

#include <chrono>
#include <optional>

struct hopeful_retry {
    using policy_category = ferry::retry_tag;
    std::optional<std::chrono::milliseconds> next(ferry::errc) const { return {}; }
};

ferry::basic_grpc_server<hopeful_retry> server({});
