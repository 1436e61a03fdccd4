#include <ferry/outcome.hpp>

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace {

using ferry::errc;
using ferry::outcome;
using ferry::outcome_kind;

constexpr int kinds = static_cast<int>(outcome_kind::stopped) + 1;

TEST(outcome_kind, each_has_a_name_of_its_own) {
    std::set<std::string> names;
    for (int i = 0; i < kinds; ++i) names.insert(std::string(to_string(static_cast<outcome_kind>(i))));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(kinds));
    EXPECT_FALSE(names.contains("unknown"));
    EXPECT_FALSE(names.contains(""));
    EXPECT_EQ(to_string(outcome_kind::retries_exhausted), "retries exhausted");
    EXPECT_EQ(to_string(static_cast<outcome_kind>(kinds)), "unknown");
}

TEST(outcome, is_true_where_the_node_has_the_task) {
    for (int i = 0; i < kinds; ++i) {
        const auto kind = static_cast<outcome_kind>(i);
        const outcome how{kind, errc::ok, {}, 1};
        EXPECT_EQ(static_cast<bool>(how), kind == outcome_kind::taken || kind == outcome_kind::replied)
            << to_string(kind);
    }
}

}  // namespace
