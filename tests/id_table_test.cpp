#include <ferry/detail/id_table.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

using ferry::detail::id_table;

TEST(id_table, an_empty_one_has_nothing) {
    const id_table<int> table;
    EXPECT_EQ(table.size(), 0U);
    EXPECT_EQ(table.find(""), nullptr);
    EXPECT_EQ(table.find("a"), nullptr);
    EXPECT_EQ(table.begin(), table.end());
}

TEST(id_table, what_is_there_is_not_added_again) {
    id_table<int> table;
    table.add("a").second = 7;
    EXPECT_EQ(table.add("a").second, 7);
    EXPECT_EQ(table.add("").second, 0);  // an empty id is one, too
    EXPECT_EQ(table.size(), 2U);
    ASSERT_NE(table.find("a"), nullptr);
    EXPECT_EQ(*table.find("a"), 7);
    EXPECT_EQ(table.find("b"), nullptr);
}

TEST(id_table, values_stay_where_they_are_and_come_in_the_order_of_their_adding) {
    id_table<std::size_t> table;
    std::vector<std::pair<const std::string, std::size_t>*> where;
    for (std::size_t i = 0; i < 10'000; ++i) {
        auto& added = table.add("node-" + std::to_string(i));
        added.second = i;
        where.push_back(&added);
    }
    std::size_t next = 0;
    for (auto& each : table) {
        EXPECT_EQ(&each, where[next]);
        EXPECT_EQ(each.first, "node-" + std::to_string(next));
        EXPECT_EQ(table.find(each.first), &each.second);
        EXPECT_EQ(each.second, next++);
    }
    EXPECT_EQ(next, table.size());
}

TEST(id_table, agrees_with_the_standard_library) {
    std::mt19937 random(1);
    id_table<int> table;
    std::unordered_map<std::string, int> same;
    for (int i = 0; i < 50'000; ++i) {
        const auto id = std::to_string(random() % 5'000);
        if (random() % 2 == 0) {
            table.add(id).second = same[id] = i;
        } else {
            const auto* const found = table.find(id);
            const auto expected = same.find(id);
            ASSERT_EQ(found != nullptr, expected != same.end()) << id;
            if (found) {
                EXPECT_EQ(*found, expected->second) << id;
            }
        }
    }
    EXPECT_EQ(table.size(), same.size());
}

}  // namespace
