#include <ferry/node_info.hpp>

#include <gtest/gtest.h>

namespace {

using ferry::node_status;

TEST(node_status, has_the_names_of_the_original) {
    static_assert(to_string(node_status::active) == "ACTIVE");
    static_assert(to_string(node_status::waiting) == "WAITING");
    static_assert(to_string(node_status::disconnected) == "DISCONNECTED");
    EXPECT_EQ(to_string(static_cast<node_status>(3)), "unknown");
}

TEST(node_info, knows_nothing_of_a_node_at_first) {
    const ferry::node_info node{};
    EXPECT_EQ(node.id, "");
    EXPECT_EQ(node.status, node_status::disconnected);
    EXPECT_EQ(node.queued_tasks, 0U);
    EXPECT_EQ(node.queued_bytes, 0U);
    EXPECT_EQ(node.open_requests, 0U);
}

}  // namespace
