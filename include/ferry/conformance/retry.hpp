// What every retry policy must hold to, as a typed suite of GoogleTest:
//
//     #include <ferry/conformance/retry.hpp>
//     namespace ferry::conformance {
//     INSTANTIATE_TYPED_TEST_SUITE_P(patient, retry_policy_suite, patient_retry);
//     }
//
// Include only what you instantiate: GoogleTest fails a suite that is there and never instantiated.
//
// It doesn't ask that a policy ever gives up, nor for any particular pause: those are the policy's business.
#pragma once

#include <ferry/conformance/model_of.hpp>
#include <ferry/error.hpp>
#include <ferry/retry.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <exception>
#include <latch>
#include <limits>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// A pause beyond this counts as a slip of arithmetic. Any time of a clock and such a pause can be added.
inline constexpr std::chrono::hours longest_pause{24 * 365 * 100};

/// Runs over one retry policy. Uses the policy's `model_of`.
template <class Policy>
class retry_policy_suite : public testing::Test {
    static_assert(retry_policy<Policy>, "the suite runs over a retry policy: see ferry/retry.hpp");

protected:
    using decision = std::optional<std::chrono::milliseconds>;

    /// Every kind of failure, from the first to the last that can be counted.
    static std::vector<failed_attempt> failures() {
        using age = std::chrono::steady_clock::duration;
        using namespace std::chrono_literals;
        std::vector<failed_attempt> out;
        std::vector<int> numbers(100);
        std::iota(numbers.begin(), numbers.end(), 1);  // each bit that grows out of a pause is seen
        constexpr int last = std::numeric_limits<int>::max();
        numbers.insert(numbers.end(),
                       {127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 1100, 1'000'000, last - 1, last});
        for (const int attempts : numbers) {
            for (const age since : {age(0), age(1), age(1ms), age(1s), age(299s), age(300s), age(301s), age(24h),
                                    age(24h * 365 * 10), age::max() - age(1), age::max()}) {
                for (int code = 0; code <= static_cast<int>(errc::deadline_exceeded); ++code) {
                    out.push_back({attempts, since, static_cast<errc>(code)});
                }
            }
        }
        return out;
    }

    /// The life of one task that fails again and again, for a little of everything.
    static std::vector<failed_attempt> one_task() {
        std::vector<failed_attempt> out;
        for (int attempts = 1; attempts <= 40; ++attempts) {
            out.push_back({attempts, std::chrono::seconds(7) * attempts,
                           attempts % 3 == 0 ? errc::idle_timeout : errc::stream_broken});
        }
        return out;
    }

    static std::vector<decision> decisions(Policy& policy, const std::vector<failed_attempt>& of) {
        std::vector<decision> out;
        out.reserve(of.size());
        for (const auto& failed : of) out.push_back(policy.next(failed));
        return out;
    }

    /// For a failure's text.
    static testing::Message told(const failed_attempt& failed) {
        return testing::Message() << "attempt " << failed.attempts << ", " << failed.age.count()
                                  << " ticks old, failed with \"" << to_string(failed.reason) << "\"";
    }

    model_of<Policy> models;
};

TYPED_TEST_SUITE_P(retry_policy_suite);

TYPED_TEST_P(retry_policy_suite, decides_about_any_failure_without_throwing) {
    auto policy = this->models.make();
    for (const auto& failed : this->failures()) ASSERT_NO_THROW(policy.next(failed)) << this->told(failed);
}

TYPED_TEST_P(retry_policy_suite, a_pause_can_be_waited_for) {
    auto policy = this->models.make();
    for (const auto& failed : this->failures()) {
        const auto pause = policy.next(failed);
        ASSERT_LE(pause.value_or(std::chrono::milliseconds(0)), longest_pause) << this->told(failed);
    }
}

// A server copies or moves the policy that it is handed, perhaps in mid-sequence of its random numbers.
TYPED_TEST_P(retry_policy_suite, copies_decide_alike) {
    static_assert(std::movable<TypeParam>, "a server moves the policy that it is handed");
    if constexpr (std::copy_constructible<TypeParam>) {
        auto policy = this->models.make();
        const auto life = this->one_task();
        for (int round = 0; round < 3; ++round) {
            TypeParam copy = policy;
            TypeParam another = policy;
            const auto expected = this->decisions(policy, life);
            ASSERT_EQ(this->decisions(copy, life), expected) << "a copy, after " << round << " tasks";
            ASSERT_EQ(this->decisions(another, life), expected) << "another copy, after " << round << " tasks";
        }
        TypeParam copy = policy;
        TypeParam moved = std::move(policy);
        ASSERT_EQ(this->decisions(moved, life), this->decisions(copy, life)) << "the policy was moved";
    } else {
        auto policy = this->models.make();
        TypeParam moved = std::move(policy);
        ASSERT_EQ(this->decisions(moved, this->one_task()).size(), this->one_task().size());
    }
}

// The calls on one object never overlap; those on several servers' policies do.
TYPED_TEST_P(retry_policy_suite, concurrent_policies_know_nothing_of_each_other) {
    constexpr std::size_t threads = 4;
    constexpr int rounds = 50;
    const auto life = this->one_task();
    std::vector<std::vector<typename TestFixture::decision>> expected(threads), seen(threads);
    std::vector<TypeParam> policies, alone;
    for (std::size_t i = 0; i < threads; ++i) {
        policies.push_back(this->models.make());
        if constexpr (std::copy_constructible<TypeParam>) alone.push_back(policies.back());
    }
    const auto live = [&](TypeParam& policy, std::vector<typename TestFixture::decision>& out) {
        for (int round = 0; round < rounds; ++round) {
            for (auto& each : this->decisions(policy, life)) out.push_back(each);
        }
    };
    for (std::size_t i = 0; i < alone.size(); ++i) live(alone[i], expected[i]);
    std::latch start(threads);
    {
        std::vector<std::jthread> workers;
        for (std::size_t i = 0; i < threads; ++i) {
            workers.emplace_back([&, i] {
                start.arrive_and_wait();
                try {
                    live(policies[i], seen[i]);
                } catch (const std::exception& e) {
                    ADD_FAILURE() << "it threw: " << e.what();
                }
            });
        }
    }
    for (std::size_t i = 0; i < threads; ++i) {
        ASSERT_EQ(seen[i].size(), life.size() * rounds);
        if (alone.empty()) continue;
        ASSERT_EQ(seen[i], expected[i]) << "it decided otherwise than alone";
    }
}

REGISTER_TYPED_TEST_SUITE_P(retry_policy_suite, decides_about_any_failure_without_throwing, a_pause_can_be_waited_for,
                            copies_decide_alike, concurrent_policies_know_nothing_of_each_other);

}  // namespace ferry::conformance
