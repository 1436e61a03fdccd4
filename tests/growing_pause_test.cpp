#include <ferry/growing_pause.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <set>

namespace {

using namespace std::chrono_literals;
using ferry::growing_pause;

TEST(growing_pause, grows_by_its_factor_up_to_its_cap) {
    const growing_pause pause{100ms, 2, 1s};
    EXPECT_EQ(pause.after(1), 100ms);
    EXPECT_EQ(pause.after(2), 200ms);
    EXPECT_EQ(pause.after(4), 800ms);
    EXPECT_EQ(pause.after(5), 1s);
    EXPECT_EQ(pause.after(std::numeric_limits<int>::max()), 1s);
}

TEST(growing_pause, of_nothing_stays_nothing) {
    EXPECT_EQ((growing_pause{0ms, std::numeric_limits<double>::infinity(), 1s}.after(1000)), 0ms);
}

TEST(random_bits, are_the_same_for_a_seed_and_never_come_twice) {
    ferry::detail::random_bits one(7), same(7), other(8);
    std::set<std::uint64_t> seen;
    for (int i = 0; i < 1000; ++i) {
        const auto drawn = one.next();
        EXPECT_EQ(drawn, same.next());
        EXPECT_NE(drawn, other.next());
        EXPECT_TRUE(seen.insert(drawn).second);
    }
}

TEST(random_part, is_at_least_0_and_below_1) {
    ferry::detail::random_part parts(1);
    double least = 1, most = 0;
    for (int i = 0; i < 10'000; ++i) {
        const auto drawn = parts.next();
        least = std::min(least, drawn);
        most = std::max(most, drawn);
    }
    EXPECT_GE(least, 0.0);
    EXPECT_LT(least, 0.01);
    EXPECT_LT(most, 1.0);
    EXPECT_GT(most, 0.99);
}

}  // namespace
