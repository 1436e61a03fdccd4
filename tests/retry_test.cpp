#include <ferry/retry.hpp>

#include <gtest/gtest.h>

#include "virtual_world.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

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

TEST(bounded_retry, an_age_may_be_as_large_as_its_type_allows) {
    const ferry::bounded_retry ageless{.max_resends = 5, .max_age = std::chrono::seconds::max()};
    EXPECT_EQ(ageless.next(failure(1, std::chrono::steady_clock::duration::max())), 0ms);
    EXPECT_FALSE(ageless.next(failure(6, 0s)).has_value());
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

// --- may_succeed_later ---------------------------------------------------------------------------------------------------

constexpr auto last_errc = static_cast<int>(errc::deadline_exceeded);

TEST(may_succeed_later, is_false_where_the_same_would_fail_again_or_someone_has_ended_it) {
    const std::set<errc> hopeful{
        errc::connection_failed, errc::node_unknown, errc::node_disconnected, errc::superseded,
        errc::stream_broken,     errc::unconfirmed,  errc::idle_timeout,      errc::deadline_exceeded,
        errc::queue_full,        errc::store_failed, errc::source_failed,     errc::spool_failed,
        errc::refused_for_now,   errc::lease_lost,   errc::checksum_differs,  errc::stopped};
    for (int code = 0; code <= last_errc; ++code) {
        const auto reason = static_cast<errc>(code);
        EXPECT_EQ(ferry::may_succeed_later(reason), hopeful.contains(reason)) << to_string(reason);
    }
    ASSERT_EQ(to_string(static_cast<errc>(last_errc + 1)), "unknown") << "an enumerator that this test leaves out";
    EXPECT_FALSE(ferry::may_succeed_later(static_cast<errc>(last_errc + 1)));
}

// --- exponential_backoff ---------------------------------------------------------------------------------------------------

constexpr ferry::growing_pause some_pause{100ms, 2, 10s};
constexpr ferry::bounded_retry endless{std::numeric_limits<int>::max() - 1, std::chrono::seconds::max()};

/// The pauses that follow the first failures.
std::vector<std::optional<std::chrono::milliseconds>> first_pauses(ferry::exponential_backoff retry, int failures = 8) {
    std::vector<std::optional<std::chrono::milliseconds>> all;
    for (int n = 1; n <= failures; ++n) all.push_back(retry.next(failure(n, 0s)));
    return all;
}

errc refusal_of(ferry::growing_pause pause) {
    try {
        ferry::exponential_backoff retry(pause);
    } catch (const ferry::error& e) {
        return e.code();
    }
    return errc::ok;
}

TEST(exponential_backoff, pauses_lie_between_none_and_a_whole_that_grows_up_to_the_cap) {
    ferry::exponential_backoff retry(some_pause, endless, 1);
    const std::vector<std::chrono::milliseconds> wholes{100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 6400ms, 10s, 10s};
    for (int n = 1; n <= 9; ++n) {
        const auto whole = wholes[static_cast<std::size_t>(n - 1)];
        auto shortest = std::chrono::milliseconds::max(), longest = -1ms;
        for (int draw = 0; draw < 2000; ++draw) {
            const auto pause = retry.next(failure(n, 0s)).value();
            shortest = std::min(shortest, pause);
            longest = std::max(longest, pause);
        }
        EXPECT_GE(shortest, 0ms);
        EXPECT_LE(longest, whole) << n;
        EXPECT_LT(shortest, whole / 20) << n;
        EXPECT_GT(longest, whole * 19 / 20) << n;
    }
}

TEST(exponential_backoff, each_millisecond_is_as_likely_as_the_next_both_ends_included) {
    ferry::exponential_backoff retry({4ms, 1, 4ms}, endless, 1);
    std::map<std::int64_t, int> seen;
    for (int draw = 0; draw < 5000; ++draw) ++seen[retry.next(failure(1 + draw, 0s)).value().count()];
    ASSERT_EQ(seen.size(), 5U);
    EXPECT_EQ(seen.begin()->first, 0);
    EXPECT_EQ(seen.rbegin()->first, 4);
    for (const auto& [pause, times] : seen) {
        EXPECT_GT(times, 850) << pause;  // five deviations off 1000, for a seed that does not change
        EXPECT_LT(times, 1150) << pause;
    }
}

TEST(exponential_backoff, is_the_same_for_a_seed_and_differs_for_another) {
    const ferry::exponential_backoff retry(some_pause, endless, 7);
    EXPECT_EQ(first_pauses(retry), first_pauses(ferry::exponential_backoff(some_pause, endless, 7)));
    EXPECT_NE(first_pauses(retry), first_pauses(ferry::exponential_backoff(some_pause, endless, 8)));
    EXPECT_NE(first_pauses(ferry::exponential_backoff(some_pause)),
              first_pauses(ferry::exponential_backoff(some_pause)))
        << "objects without a seed pause alike";
}

TEST(exponential_backoff, copies_go_on_alike) {
    ferry::exponential_backoff retry(some_pause, endless, 7);
    retry.next(failure(1, 0s));
    EXPECT_EQ(first_pauses(retry), first_pauses(ferry::exponential_backoff(retry)));
}

TEST(exponential_backoff, does_not_retry_what_can_not_succeed) {
    ferry::exponential_backoff retry;
    for (int code = 0; code <= last_errc; ++code) {
        const auto reason = static_cast<errc>(code);
        EXPECT_EQ(retry.next(failure(1, 0s, reason)).has_value(), ferry::may_succeed_later(reason))
            << to_string(reason);
    }
}

TEST(exponential_backoff, ends_where_its_bounds_say) {
    ferry::exponential_backoff retry(some_pause, {.max_resends = 3, .max_age = 60s});
    EXPECT_TRUE(retry.next(failure(3, 60s - 1ns)).has_value());
    EXPECT_FALSE(retry.next(failure(4, 0s)).has_value());
    EXPECT_FALSE(retry.next(failure(1, 60s)).has_value());
    ferry::exponential_backoff usual;
    EXPECT_TRUE(usual.next(failure(10, std::chrono::steady_clock::duration::max())).has_value());
    EXPECT_FALSE(usual.next(failure(11, 0s)).has_value());
}

TEST(exponential_backoff, bears_what_its_types_allow) {
    constexpr auto most = std::chrono::milliseconds::max();
    constexpr auto last = std::numeric_limits<int>::max() - 1;
    ferry::exponential_backoff long_waits({1ms, 1e300, most}, endless, 1);
    ferry::exponential_backoff infinite({1ms, std::numeric_limits<double>::infinity(), most}, endless, 1);
    auto longest = 0ms;
    for (int draw = 0; draw < 1000; ++draw) {
        for (auto* retry : {&long_waits, &infinite}) {
            const auto pause = retry->next(failure(last, 0s)).value();
            EXPECT_GE(pause, 0ms);
            longest = std::max(longest, pause);
        }
    }
    EXPECT_GT(longest, most / 2);
    ferry::exponential_backoff none({0ms, std::numeric_limits<double>::infinity(), most}, endless, 1);
    for (const int attempts : {1, 2, last}) EXPECT_EQ(none.next(failure(attempts, 0s)), 0ms);
    ferry::exponential_backoff one_size({5ms, 1, 5ms}, endless, 1);
    for (int draw = 0; draw < 100; ++draw) EXPECT_LE(one_size.next(failure(last, 0s)).value(), 5ms);
}

TEST(exponential_backoff, refuses_what_makes_no_sense) {
    EXPECT_EQ(refusal_of({-1ms, 2, 1s}), errc::invalid_argument);
    EXPECT_EQ(refusal_of({1ms, 0.99, 1s}), errc::invalid_argument);
    EXPECT_EQ(refusal_of({1ms, -2, 1s}), errc::invalid_argument);
    EXPECT_EQ(refusal_of({1ms, std::numeric_limits<double>::quiet_NaN(), 1s}), errc::invalid_argument);
    EXPECT_EQ(refusal_of({1001ms, 2, 1s}), errc::invalid_argument);
    EXPECT_EQ(refusal_of({0ms, 1, 0ms}), errc::ok);
    EXPECT_EQ(refusal_of({1s, 1, 1s}), errc::ok);
}

using backing_off = ferry_test::virtual_world<ferry::memory_agent_store, ferry::exponential_backoff>;

TEST(exponential_backoff, its_pauses_are_really_waited_for) {
    const ferry::exponential_backoff retry({10s, 3, 1h}, {.max_resends = 3}, 42);
    const auto expected = first_pauses(retry, 3);
    backing_off w({}, retry);
    int call = w.poll();
    const int t = w.send();
    for (const auto& pause : expected) {
        ASSERT_GT(pause.value(), 0ms) << "a seed that shows nothing";
        w.break_off(call);
        call = w.poll();
        w.advance(*pause - 1ns);
        EXPECT_TRUE(w.is_parked(call));
        w.advance(1ns);
        EXPECT_EQ(w.carries(call), t);
    }
    w.break_off(call);
    EXPECT_EQ(w.kind_of(t), ferry::outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(t).how.attempts, 4);
}

TEST(exponential_backoff, what_can_not_succeed_ends_at_the_first_failure) {
    backing_off w;
    const int call = w.poll();
    const int t = w.send();
    w.break_off(call, errc::not_permitted);
    EXPECT_EQ(w.kind_of(t), ferry::outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(t).how.reason, errc::not_permitted);
    EXPECT_EQ(w.end_of(t).how.attempts, 1);
}

}  // namespace
