#include <ferry/conformance/retry.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <random>

namespace {

/// Has state, as every policy with jitter.
struct jittered_retry {
    using policy_category = ferry::retry_tag;

    std::mt19937 random{std::random_device{}()};

    std::optional<std::chrono::milliseconds> next(const ferry::failed_attempt& failed) {
        const double cap = std::min(std::ldexp(100.0, std::min(failed.attempts, 100)), 60'000.0);
        return std::chrono::milliseconds(static_cast<int>(std::uniform_real_distribution<>(0, cap)(random)));
    }
};

/// Can only be moved, and made from something.
class moved_retry {
public:
    using policy_category = ferry::retry_tag;

    explicit moved_retry(std::chrono::milliseconds pause) : pause_(pause) {}
    moved_retry(moved_retry&&) = default;
    moved_retry& operator=(moved_retry&&) = default;

    std::optional<std::chrono::milliseconds> next(const ferry::failed_attempt&) { return pause_; }

private:
    std::chrono::milliseconds pause_;
};

}  // namespace

namespace ferry::conformance {

template <>
struct model_of<moved_retry> {
    static moved_retry make() { return moved_retry(std::chrono::seconds(5)); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(none_conformance, retry_policy_suite, no_retry);
INSTANTIATE_TYPED_TEST_SUITE_P(bounded_conformance, retry_policy_suite, bounded_retry);
INSTANTIATE_TYPED_TEST_SUITE_P(backoff_conformance, retry_policy_suite, exponential_backoff);
INSTANTIATE_TYPED_TEST_SUITE_P(jittered_conformance, retry_policy_suite, jittered_retry);
INSTANTIATE_TYPED_TEST_SUITE_P(moved_conformance, retry_policy_suite, moved_retry);

}  // namespace ferry::conformance
