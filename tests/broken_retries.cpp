#include <ferry/conformance/retry.hpp>

#include "broken_models.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

namespace {

using ferry::failed_attempt;
using std::chrono::milliseconds;
using pause = std::optional<milliseconds>;

struct sound_retry : ferry::bounded_retry {
    static constexpr auto fails_in = ferry_test::nothing;
};

struct throws_at_the_last_number {
    using policy_category = ferry::retry_tag;
    static constexpr auto fails_in = "decides_about_any_failure_without_throwing";

    pause next(const failed_attempt& failed) const {
        if (failed.attempts == std::numeric_limits<int>::max()) throw std::overflow_error("too many attempts");
        return milliseconds(failed.attempts);
    }
};

struct throws_for_what_it_does_not_know {
    using policy_category = ferry::retry_tag;
    static constexpr auto fails_in = "decides_about_any_failure_without_throwing";

    pause next(const failed_attempt& failed) const {
        if (failed.reason == ferry::errc::store_failed) throw std::invalid_argument("what is that?");
        return {};
    }
};

struct doubles_for_ever {
    using policy_category = ferry::retry_tag;
    static constexpr auto fails_in = "a_pause_can_be_waited_for";

    pause next(const failed_attempt& failed) const {
        const double most = std::ldexp(1.0, 62);
        return milliseconds(static_cast<milliseconds::rep>(std::min(std::ldexp(100.0, failed.attempts), most)));
    }
};

/// The growth is bounded where all its bits have gone.
struct shifts_its_pauses_out {
    using policy_category = ferry::retry_tag;
    static constexpr auto fails_in = "a_pause_can_be_waited_for";

    pause next(const failed_attempt& failed) const {
        return milliseconds(static_cast<milliseconds::rep>(std::uint64_t{100} << std::min(failed.attempts, 62)));
    }
};

struct shares_its_count_with_copies {
    using policy_category = ferry::retry_tag;
    static constexpr auto fails_in = "copies_decide_alike";

    std::shared_ptr<int> count = std::make_shared<int>(0);

    pause next(const failed_attempt&) const { return milliseconds(++*count); }
};

struct begins_anew_when_copied {
    using policy_category = ferry::retry_tag;
    static constexpr auto fails_in = "copies_decide_alike";

    int count = 0;

    begins_anew_when_copied() = default;
    begins_anew_when_copied(const begins_anew_when_copied&) {}
    begins_anew_when_copied& operator=(const begins_anew_when_copied&) { return *this; }
    ~begins_anew_when_copied() = default;

    pause next(const failed_attempt&) { return milliseconds(++count); }
};

struct decides_by_thread {
    using policy_category = ferry::retry_tag;
    static constexpr auto fails_in = "concurrent_policies_know_nothing_of_each_other";

    std::thread::id home = std::this_thread::get_id();

    pause next(const failed_attempt&) const {
        if (std::this_thread::get_id() != home) return {};
        return milliseconds(1);
    }
};

}  // namespace

namespace ferry::conformance {

using ferry_test::meant_for;

INSTANTIATE_TYPED_TEST_SUITE_P(sound_retry, retry_policy_suite, sound_retry, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(throws_at_the_last_number, retry_policy_suite, throws_at_the_last_number, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(throws_for_what_it_does_not_know, retry_policy_suite, throws_for_what_it_does_not_know,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(doubles_for_ever, retry_policy_suite, doubles_for_ever, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(shifts_its_pauses_out, retry_policy_suite, shifts_its_pauses_out, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(shares_its_count_with_copies, retry_policy_suite, shares_its_count_with_copies,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(begins_anew_when_copied, retry_policy_suite, begins_anew_when_copied, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(decides_by_thread, retry_policy_suite, decides_by_thread, meant_for);

}  // namespace ferry::conformance
