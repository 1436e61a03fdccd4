#include <ferry/retry.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <limits>

namespace {

using namespace std::chrono_literals;
using ferry::errc;

ferry::failed_attempt failure(int attempts, std::chrono::steady_clock::duration age,
                              errc reason = errc::stream_broken) {
    return {attempts, age, reason};
}

TEST(no_retry, gives_up_at_the_first_failure) {
    ferry::no_retry retry;
    EXPECT_FALSE(retry.next(failure(1, 0s)).has_value());
    EXPECT_FALSE(retry.next(failure(100, 1h)).has_value());
}

TEST(bounded_retry, has_the_limits_of_the_original) {
    const ferry::bounded_retry retry;
    EXPECT_EQ(retry.max_resends, 5);
    EXPECT_EQ(retry.max_age, 300s);
}

TEST(bounded_retry, resends_at_once_as_often_as_it_may) {
    const ferry::bounded_retry retry;
    for (int attempts = 1; attempts <= 5; ++attempts) EXPECT_EQ(retry.next(failure(attempts, 1s)), 0ms) << attempts;
    EXPECT_FALSE(retry.next(failure(6, 1s)).has_value());
    EXPECT_FALSE(retry.next(failure(std::numeric_limits<int>::max(), 1s)).has_value());
}

TEST(bounded_retry, ends_exactly_at_its_age) {
    const ferry::bounded_retry retry;
    EXPECT_EQ(retry.next(failure(1, 300s - 1ns)), 0ms);
    EXPECT_FALSE(retry.next(failure(1, 300s)).has_value());
    EXPECT_FALSE(retry.next(failure(1, std::chrono::steady_clock::duration::max())).has_value());
}

TEST(bounded_retry, limits_can_be_chosen) {
    const ferry::bounded_retry never{.max_resends = 0, .max_age = 300s};
    EXPECT_FALSE(never.next(failure(1, 0s)).has_value());
    const ferry::bounded_retry once{.max_resends = 1, .max_age = 1s};
    EXPECT_EQ(once.next(failure(1, 999ms)), 0ms);
    EXPECT_FALSE(once.next(failure(1, 1s)).has_value());
    EXPECT_FALSE(once.next(failure(2, 0s)).has_value());
}

TEST(bounded_retry, does_not_look_at_the_reason) {
    const ferry::bounded_retry retry;
    for (const auto reason : {errc::idle_timeout, errc::unconfirmed, errc::superseded}) {
        EXPECT_EQ(retry.next(failure(5, 1s, reason)), 0ms);
        EXPECT_FALSE(retry.next(failure(6, 1s, reason)).has_value());
    }
}

TEST(bounded_retry, copies_decide_alike) {
    const ferry::bounded_retry retry{.max_resends = 2, .max_age = 10s};
    const auto copy = retry;
    for (int attempts = 1; attempts <= 4; ++attempts) {
        for (const auto age : {0s, 9s, 10s}) {
            EXPECT_EQ(copy.next(failure(attempts, age)), retry.next(failure(attempts, age)));
        }
    }
    EXPECT_EQ(copy.next(failure(2, 9s)), 0ms);
}

}  // namespace
