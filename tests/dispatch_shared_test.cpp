#include <ferry/dispatch.hpp>

#include "shared_world.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using ferry_test::hub;
using ferry_test::shared_task;

ferry_test::shared_task request(std::string id) { return {.request_id = std::move(id), .wants_reply = true}; }

/// Two servers, over a hub that completes at once, or late and in any order.
class dispatch_shared : public testing::TestWithParam<bool> {
protected:
    /// Nothing is left of all that was sent.
    void expect_nothing_left() {
        EXPECT_EQ(w.shared->tasks(), 0U);
        EXPECT_EQ(w.shared->open_ends(), 0U);
        for (const auto& [name, s] : w.servers) EXPECT_EQ(s->pending(), 0U) << name;
    }

    ferry_test::shared_world w{ferry_test::hub_options{.late = GetParam()}};
    ferry_test::shared_server& a = w.start("a");
    ferry_test::shared_server& b = w.start("b");
};

INSTANTIATE_TEST_SUITE_P(stores, dispatch_shared, testing::Bool(),
                         [](const auto& late) { return std::string(late.param ? "late" : "inline"); });

TEST_P(dispatch_shared, a_task_sent_at_one_server_is_taken_at_the_other_one) {
    auto& n = w.node_at("n", b);
    const int t = a.send("n");
    w.settle();
    EXPECT_TRUE(a.accepted.contains(t));
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(n.ran.size(), 1U);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_request_is_answered_where_it_was_asked) {
    w.node_at("n", b);
    const int t = a.send("n", request("r"));
    const int own = b.send("n", request("s"));
    w.settle();
    EXPECT_EQ(a.ends.at(t).reply, "re:r");
    EXPECT_EQ(b.ends.at(own).reply, "re:s");
    EXPECT_TRUE(a.unclaimed.empty());
    EXPECT_TRUE(b.unclaimed.empty());
    expect_nothing_left();
}

}  // namespace
