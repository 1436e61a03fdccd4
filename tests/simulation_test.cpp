// The simulation over many seeds, in parts that may run at the same time. `ferry_simulator --seeds N --trace` shows one.
#include "simulation.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define FERRY_SLOW_BUILD
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FERRY_SLOW_BUILD
#endif
#endif

namespace {

#ifdef FERRY_SLOW_BUILD
constexpr std::uint64_t seeds_in_part = 25;
#else
constexpr std::uint64_t seeds_in_part = 500;
#endif
constexpr int parts = 20;

class simulation : public testing::TestWithParam<int> {};

TEST_P(simulation, holds_in_each_run) {
    const auto first = static_cast<std::uint64_t>(GetParam()) * seeds_in_part + 1;
    ferry_test::simulation_result all;
    for (auto seed = first; seed < first + seeds_in_part; ++seed) {
        for (const bool durable : {false, true}) {
            const auto result = ferry_test::simulation(seed, durable).run();
            for (const auto& text : result.violations) {
                ADD_FAILURE() << "seed " << seed << (durable ? ", durable: " : ", memory: ") << text;
            }
            all.runs += result.runs;
            for (std::size_t i = 0; i < all.faults.size(); ++i) all.faults[i] += result.faults[i];
        }
    }
    EXPECT_GT(all.runs, seeds_in_part * 10);
    if (seeds_in_part < 500) return;  // a rare fault may be missing
    for (std::size_t i = 0; i < all.faults.size(); ++i) EXPECT_GT(all.faults[i], 0U) << ferry_test::fault_names[i];
}

INSTANTIATE_TEST_SUITE_P(seeds, simulation, testing::Range(0, parts));

TEST(simulation_itself, is_the_same_for_a_seed) {
    for (const bool durable : {false, true}) {
        std::string first, second;
        ferry_test::simulation(7, durable, [&](const std::string& line) { first += line + "\n"; }).run();
        ferry_test::simulation(8, durable).run();
        ferry_test::simulation(7, durable, [&](const std::string& line) { second += line + "\n"; }).run();
        EXPECT_GT(first.size(), 1000U);
        EXPECT_TRUE(first == second);
    }
}

}  // namespace
