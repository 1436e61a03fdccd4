// A retry policy of the user's own under ferry's suite for it.
#include <ferry/conformance/retry.hpp>
#include <ferry/retry.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <optional>

namespace {

struct three_times {
    using policy_category = ferry::retry_tag;

    std::optional<std::chrono::milliseconds> next(const ferry::failed_attempt& failed) const noexcept {
        if (failed.attempts > 3) return std::nullopt;
        return std::chrono::milliseconds(10);
    }
};

}  // namespace

// readme: conformance
namespace ferry::conformance {  // from <ferry/conformance/retry.hpp>
INSTANTIATE_TYPED_TEST_SUITE_P(consumer, retry_policy_suite, three_times);
}
// readme: end

int main(int count, char** arguments) {
    testing::InitGoogleTest(&count, arguments);
    return RUN_ALL_TESTS();
}
