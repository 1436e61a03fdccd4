#include <ferry/dispatch.hpp>

#include "shared_world.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
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

// --- one task, from beginning to end ---------------------------------------------------------------------------------

TEST_P(dispatch_shared, a_task_sent_at_one_server_is_taken_at_the_other_one) {
    auto& n = w.node_at("n", b);
    const int t = a.send("n");
    w.settle();
    EXPECT_TRUE(a.accepted.contains(t));
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(a.ends.at(t).how.attempts, 1);
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

TEST_P(dispatch_shared, a_poll_carries_what_the_other_server_was_given) {
    const int first = b.poll("n");
    w.settle();
    const int t = a.send("n");
    w.settle();
    ASSERT_EQ(b.streams.at(first).came.size(), 1U);
    b.poll_carried(first);
    w.settle();
    EXPECT_FALSE(a.has_ended(t));
    b.poll("n");
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
    expect_nothing_left();
}

TEST_P(dispatch_shared, tasks_keep_their_order) {
    auto& n = w.node_at("n", b);
    n.disconnect();
    w.settle();
    for (int i = 0; i < 6; ++i) {
        a.send("n", {.request_id = std::to_string(i), .size = i % 2 == 0 ? 0U : 3000U});
        w.settle();
    }
    n.connect(a);
    w.settle();
    for (int i = 6; i < 9; ++i) a.send("n", {.request_id = std::to_string(i)});
    w.settle();
    ASSERT_EQ(n.ran.size(), 9U);
    for (std::size_t i = 0; i < 9; ++i) EXPECT_NE(n.ran[i].find("|" + std::to_string(i) + "|"), std::string::npos);
}

TEST_P(dispatch_shared, senders_of_both_servers_join_by_the_request_id) {
    auto& n = w.node_at("n", b);
    n.replies_to_all = true;
    n.disconnect();
    w.settle();
    const int sent = a.send("n", {.request_id = "r"});
    w.settle();
    const int t = a.send("n", request("r"));
    const int other = b.send("n", request("r"));
    w.settle();
    EXPECT_EQ(a.pending(), 1U);
    n.connect(b);
    w.settle();
    EXPECT_EQ(n.ran.size(), 1U);
    for (const int each : {sent, t}) EXPECT_EQ(a.ends.at(each).reply, "re:r");
    EXPECT_EQ(b.ends.at(other).reply, "re:r");
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_request_that_joins_a_task_under_way_gets_its_reply) {
    auto& n = w.node_at("n", b);
    n.holds_replies = true;
    const int first = a.send("n", request("r"));
    w.settle();
    const int second = b.send("n", request("r"));
    w.settle();
    n.holds_replies = false;
    w.settle();
    EXPECT_EQ(n.ran.size(), 1U);
    EXPECT_EQ(a.ends.at(first).reply, "re:r");
    EXPECT_EQ(b.ends.at(second).reply, "re:r");
    expect_nothing_left();
}

// --- what is refused, and what ends ------------------------------------------------------------------------------------

TEST_P(dispatch_shared, a_node_that_no_server_knows_is_unknown) {
    EXPECT_EQ(a.kind_of(a.send("n")), outcome_kind::node_unknown);
    w.node_at("n", b);
    const int t = a.send("n");
    EXPECT_NE(t, 0);
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
}

TEST_P(dispatch_shared, the_room_of_the_store_is_a_bound) {
    ferry_test::shared_world small{ferry_test::hub_options{.late = GetParam(), .room = 100}};
    auto& s = small.start("s");
    small.node_at("n", s).disconnect();
    small.settle();
    const int fits = s.send("n", {.size = 80});
    small.settle();
    const int full = s.send("n", {.size = 80});
    small.settle();
    EXPECT_TRUE(s.accepted.contains(fits));
    EXPECT_EQ(s.kind_of(full), outcome_kind::queue_full);
}

TEST_P(dispatch_shared, a_server_bounds_what_it_owns_and_what_it_posts) {
    ferry::dispatch_limits limits;
    limits.max_queued_tasks = 3;
    auto& c = w.start("c", limits);
    w.node_at("n", c).disconnect();
    w.settle();
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(c.has_ended(c.send("n")));
    EXPECT_EQ(c.kind_of(c.send("n")), outcome_kind::queue_full) << "while they are posted";
    w.settle();
    EXPECT_EQ(c.kind_of(c.send("n")), outcome_kind::queue_full) << "when they are queued";
}

TEST_P(dispatch_shared, what_waits_too_long_expires_at_its_owner) {
    w.node_at("n", b).disconnect();
    w.settle();
    const int t = a.send("n", {.expires_after = 5s});
    w.advance(4s);
    EXPECT_FALSE(a.has_ended(t));
    w.advance(2s);
    EXPECT_EQ(a.kind_of(t), outcome_kind::expired);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_that_does_not_come_in_time_expires) {
    auto& n = w.node_at("n", b);
    n.holds_replies = true;
    const int t = a.send("n", {.request_id = "r", .wants_reply = true, .reply_within = 5s});
    const int longer = b.send("n", {.request_id = "s", .wants_reply = true, .reply_within = 5s});
    w.advance(3s);
    a.send("n", {.request_id = "s", .wants_reply = true, .reply_within = 5s});
    w.advance(3s);
    EXPECT_EQ(a.kind_of(t), outcome_kind::expired);
    EXPECT_FALSE(b.has_ended(longer)) << "the longest limit counts";
    w.advance(3s);
    EXPECT_EQ(b.kind_of(longer), outcome_kind::expired);
}

TEST_P(dispatch_shared, a_sender_withdraws_what_the_other_server_has_queued) {
    auto& n = w.node_at("n", b);
    n.disconnect();
    w.settle();
    const int t = a.send("n");
    w.settle();
    a.withdraw(t);
    EXPECT_FALSE(a.has_ended(t)) << "before the store says so";
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::cancelled);
    n.connect(b);
    w.settle();
    EXPECT_TRUE(n.ran.empty());
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_sender_withdraws_what_is_not_yet_posted) {
    w.node_at("n", b).disconnect();
    w.settle();
    const int t = a.send("n");
    a.withdraw(t);
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::cancelled);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_sender_withdraws_what_the_other_server_is_sending) {
    b.poll("n");
    w.settle();
    const int carried = a.send("n");
    w.settle();
    a.withdraw(carried);
    w.settle();
    EXPECT_EQ(a.kind_of(carried), outcome_kind::cancelled);
    EXPECT_EQ(b.streams.begin()->second.ended, errc::cancelled);
    const int call = b.connect("m", {{}, {}, 4, 100'000});
    w.settle();
    const int streamed = a.send("m", {.size = 5000});
    w.settle();
    ASSERT_FALSE(b.streams.at(call).parts.empty());
    a.withdraw(streamed);
    w.settle();
    EXPECT_EQ(a.kind_of(streamed), outcome_kind::cancelled);
    EXPECT_EQ(b.streams.at(call).withdrawn.size(), 1U);
    expect_nothing_left();
}

// --- replies -------------------------------------------------------------------------------------------------------------

TEST_P(dispatch_shared, a_node_moves_in_mid_work_and_its_reply_reaches_the_asker) {
    auto& n = w.node_at("n", a);
    n.holds_replies = true;
    const int t = a.send("n", request("r"));
    w.settle();
    EXPECT_EQ(n.ran.size(), 1U);
    n.connect(b);
    n.holds_replies = false;
    w.settle();
    EXPECT_EQ(a.ends.at(t).reply, "re:r");
    EXPECT_EQ(n.ran.size(), 1U);
    EXPECT_TRUE(b.unclaimed.empty());
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_that_nobody_waits_for_goes_to_the_handler) {
    w.node_at("n", b);
    const int call = b.reply("n", "nobody", "text", 7);
    EXPECT_FALSE(b.answers.contains(call)) << "before the store has it";
    w.settle();
    EXPECT_EQ(b.answers.at(call), errc::ok);
    ASSERT_EQ(b.unclaimed.size(), 1U);
    EXPECT_EQ(b.unclaimed[0].text, "text");
    EXPECT_EQ(b.unclaimed[0].request_id, "nobody");
    EXPECT_EQ(b.unclaimed[0].node, "n");
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_to_what_wants_none_ends_it_and_goes_to_the_handler) {
    auto& n = w.node_at("n", b);
    n.disconnect();
    w.settle();
    const int t = a.send("n", {.request_id = "r"});
    w.settle();
    const int call = b.connect("n", {{}, {}, 4, 100'000});
    w.settle();
    EXPECT_EQ(b.streams.at(call).came.size(), 1U);
    b.reply("n", "r", "text", 7);
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
    ASSERT_EQ(a.unclaimed.size(), 1U);
    EXPECT_EQ(a.unclaimed[0].text, "text");
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_that_comes_as_its_task_ends_is_stored_after_that) {
    if (!GetParam()) return;  // there nothing is ever late
    const int call = b.connect("n", {{}, {}, 4, 100'000});
    w.settle();
    const int t = a.send("n", {.request_id = "r"});
    w.settle();
    b.receipt(call, b.streams.at(call).came.front().first.task);
    const int early = b.reply("n", "r", "text", 7);
    const int twice = b.reply("n", "r", "text", 7);
    w.step_servers();
    EXPECT_EQ(w.shared->pending(), 1U) << "the end is first";
    ASSERT_TRUE(w.complete("b", hub::kind::end));
    EXPECT_FALSE(b.answers.contains(early));
    EXPECT_EQ(w.shared->tasks(), 0U);
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(b.answers.at(early), errc::ok);
    EXPECT_EQ(b.answers.at(twice), errc::ok);
    EXPECT_EQ(b.unclaimed.size(), 1U);
    const int joined = a.send("n", {.request_id = "s"});
    w.settle();
    b.receipt(call, b.streams.at(call).came.back().first.task);
    const int again = b.reply("n", "s", "text", 8);
    auto& n = w.add_node("n");
    n.connect(a);
    w.step_servers();
    ASSERT_TRUE(w.complete("a", hub::kind::acquire));
    w.settle();
    EXPECT_EQ(b.answers.at(again), errc::ownership_lost) << "its task may be asked for at the other server";
    EXPECT_EQ(a.kind_of(joined), outcome_kind::taken);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_that_comes_at_two_servers_is_handed_over_once) {
    w.node_at("n", b);
    const int t = a.send("n", request("r"));
    w.settle();
    EXPECT_TRUE(a.has_ended(t));
    b.reply("n", "other", "text", 7);
    w.settle();
    w.nodes.at("n")->connect(a);
    const int early = a.reply("n", "other", "text", 7);
    w.settle();
    const int late = a.reply("n", "other", "text", 7);
    w.settle();
    EXPECT_EQ(a.answers.at(early), errc::ok);
    EXPECT_EQ(a.answers.at(late), errc::ok);
    EXPECT_EQ(a.unclaimed.size() + b.unclaimed.size(), 1U);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_is_refused_for_now_where_the_journal_is_another_servers) {
    w.node_at("n", b);
    const int call = a.reply("n", "r", "text", 7);
    w.settle();
    EXPECT_EQ(a.answers.at(call), errc::ownership_lost);
    expect_nothing_left();
}

TEST_P(dispatch_shared, an_end_is_acknowledged_when_it_was_handled) {
    w.node_at("n", b);
    a.handles_at_once = b.handles_at_once = false;
    const int t = a.send("n", request("r"));
    b.reply("n", "nobody", "text", 7);
    w.settle();
    EXPECT_TRUE(a.has_ended(t));
    ASSERT_EQ(b.unclaimed.size(), 1U);
    EXPECT_EQ(w.shared->open_ends(), 2U);
    a.handle(t);
    w.settle();
    EXPECT_EQ(w.shared->open_ends(), 1U);
    b.handle_unclaimed(0);
    w.settle();
    EXPECT_EQ(w.shared->open_ends(), 0U);
}

TEST_P(dispatch_shared, a_reply_that_cant_be_read_ends_the_request) {
    w.node_at("n", b);
    a.fails_to_load = true;
    const int t = a.send("n", request("r"));
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::store_failed);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_that_cant_be_read_for_now_is_kept) {
    w.node_at("n", b);
    a.fails_to_load = a.fails_for_now = true;
    const int t = a.send("n", request("r"));
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::store_failed);
    EXPECT_EQ(w.shared->open_ends(), 1U);
    auto& again = w.start("a");
    ASSERT_EQ(again.unclaimed.size(), 1U);
    EXPECT_EQ(again.unclaimed[0].text, "re:r");
    expect_nothing_left();
}

TEST_P(dispatch_shared, some_replies_are_read_at_a_time) {
    w.node_at("n", b);
    a.loads_at_once = b.loads_at_once = a.handles_at_once = b.handles_at_once = false;
    for (int i = 0; i < 6; ++i) {
        a.send("n", request("r" + std::to_string(i)));
        b.reply("n", "nobody", "text", 70 + static_cast<std::uint64_t>(i));
    }
    w.settle();
    EXPECT_EQ(a.loads.size(), 4U);
    EXPECT_EQ(b.loads.size(), 4U);
    a.load_replies();
    b.load_replies();
    w.settle();
    EXPECT_EQ(a.loads.size(), 2U) << "a callback may wait for another reply";
    EXPECT_EQ(b.loads.size(), 0U) << "those that nobody waits for count until they were handled";
    b.handle_unclaimed(0);
    w.settle();
    EXPECT_EQ(b.loads.size(), 1U);
}

// --- servers that come and go --------------------------------------------------------------------------------------------

TEST_P(dispatch_shared, a_server_that_lives_takes_over_from_one_that_died) {
    auto& n = w.node_at("n", b);
    n.reconnects = false;
    n.disconnect();
    w.settle();
    const int t = a.send("n");
    w.settle();
    w.lose("b");
    w.shared->expire("b");
    w.settle();
    EXPECT_EQ(w.shared->owner("n"), "a");
    EXPECT_EQ(a.status("n"), node_status::waiting);
    n.connect(a);
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_node_of_a_server_that_died_has_some_time_to_come) {
    w.node_at("n", b);
    EXPECT_EQ(a.status("n"), node_status::active);
    w.lose("b");
    w.shared->expire("b");
    w.settle();
    EXPECT_EQ(a.status("n"), node_status::waiting);
    w.advance(11s);
    EXPECT_EQ(a.status("n"), node_status::disconnected);
}

TEST_P(dispatch_shared, a_task_waits_for_a_server_to_own_its_journal) {
    auto& n = w.node_at("n", b);
    w.lose("b");
    w.shared->expire("b");
    w.lose("a");
    auto& c = w.start("c");
    w.shared->expire("a");
    w.settle();
    EXPECT_EQ(w.shared->owner("n"), "c");
    const int t = c.send("n");
    n.connect(c);
    w.settle();
    EXPECT_EQ(c.kind_of(t), outcome_kind::taken);
}

TEST_P(dispatch_shared, a_reply_to_an_earlier_life_goes_to_the_handler) {
    auto& n = w.node_at("n", b);
    n.holds_replies = true;
    a.send("n", request("r"));
    w.settle();
    auto& again = w.start("a");
    n.holds_replies = false;
    w.settle();
    ASSERT_EQ(again.unclaimed.size(), 1U);
    EXPECT_EQ(again.unclaimed[0].text, "re:r");
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_reply_to_an_earlier_life_goes_to_who_asks_again) {
    auto& n = w.node_at("n", b);
    a.handles_at_once = false;
    a.send("n", request("r"));
    a.send("n", request("s"));
    w.settle();
    auto& again = w.start("a", {}, false);
    EXPECT_TRUE(again.core.has_recovered());
    const int t = again.send("n", request("r"));
    w.settle();
    EXPECT_EQ(again.kind_of(t), outcome_kind::replied);
    EXPECT_EQ(again.ends.at(t).reply, "re:r");
    EXPECT_EQ(n.ran.size(), 2U);
    EXPECT_TRUE(again.unclaimed.empty());
    again.serve();
    w.settle();
    ASSERT_EQ(again.unclaimed.size(), 1U);
    EXPECT_EQ(again.unclaimed[0].text, "re:s");
    const int later = again.send("n", request("s"));
    w.settle();
    EXPECT_EQ(again.kind_of(later), outcome_kind::replied);
    EXPECT_EQ(n.ran.size(), 3U) << "it was handled, and is a new request";
    expect_nothing_left();
}

TEST_P(dispatch_shared, what_was_not_handled_comes_again) {
    w.node_at("n", b);
    a.handles_at_once = false;
    const int t = a.send("n", request("r"));
    w.settle();
    EXPECT_TRUE(a.has_ended(t));
    auto& again = w.start("a");
    ASSERT_EQ(again.unclaimed.size(), 1U);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_server_that_was_taken_for_dead_and_lives_owns_its_journals_again) {
    w.lose("b");
    w.shared->expire("b");
    w.settle();
    auto& n = w.node_at("n", a);
    w.shared->expire("a");
    w.settle();
    const int t = a.send("n");
    w.settle();
    EXPECT_EQ(n.ran.size(), 1U);
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
    auto& c = w.start("c");
    const int other = c.send("n");
    w.advance(1s);
    EXPECT_EQ(c.kind_of(other), outcome_kind::taken) << "the node is sent to the one that owns its journal";
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_task_that_is_posted_while_the_owner_fetches_is_fetched_next) {
    if (!GetParam()) return;  // there nothing is ever late
    auto& n = w.node_at("n", b);
    a.send("n");
    ASSERT_TRUE(w.complete("a", hub::kind::post));
    ASSERT_TRUE(w.complete("b", hub::kind::note));
    ASSERT_TRUE(w.happen("b", hub::kind::fetch));
    a.send("n");
    ASSERT_TRUE(w.complete("a", hub::kind::post));
    ASSERT_TRUE(w.complete("b", hub::kind::note));
    w.settle();
    EXPECT_EQ(n.ran.size(), 2U);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_task_that_is_posted_while_the_journal_is_acquired_is_fetched_next) {
    if (!GetParam()) return;  // there nothing is ever late
    auto& n = w.node_at("n", b);
    n.connect(a);
    ASSERT_TRUE(w.happen("a", hub::kind::acquire));
    b.send("n");
    ASSERT_TRUE(w.complete("b", hub::kind::post));
    ASSERT_TRUE(w.complete("a", hub::kind::note));
    w.settle();
    EXPECT_EQ(n.ran.size(), 1U);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_task_that_the_store_has_lost_ends) {
    w.node_at("n", b).disconnect();
    w.settle();
    const int t = a.send("n");
    w.settle();
    EXPECT_FALSE(a.has_ended(t));
    w.shared->lose_tasks("n");
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::store_failed);
}

TEST_P(dispatch_shared, what_was_missed_is_fetched_when_the_store_is_back) {
    if (!GetParam()) return;  // there nothing is ever late
    auto& n = w.node_at("n", b);
    const int t = a.send("n");
    w.step_servers();
    ASSERT_TRUE(w.complete("a", hub::kind::post));
    w.shared->interrupt("b");
    w.settle();
    EXPECT_EQ(n.ran.size(), 1U);
    EXPECT_EQ(a.kind_of(t), outcome_kind::taken);
}

TEST_P(dispatch_shared, a_poll_that_carries_a_task_ends_where_the_journal_is_lost) {
    const int call = a.poll("n");
    w.settle();
    const int t = b.send("n");
    w.settle();
    ASSERT_EQ(a.streams.at(call).came.size(), 1U);
    auto& n = w.node_at("n", b);
    EXPECT_EQ(a.streams.at(call).ended, errc::ownership_lost);
    EXPECT_EQ(b.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(n.ran.size(), 1U);
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_slow_owner_writes_in_vain_and_forgets) {
    if (!GetParam()) return;  // there nothing is ever late
    const int call = a.connect("n", {{}, {}, 4, 100'000});
    w.settle();
    const int t = b.send("n", request("r"));
    w.settle();
    ASSERT_EQ(a.streams.at(call).came.size(), 1U);
    const auto task = a.streams.at(call).came.front().first.task;
    auto& n = w.add_node("n");
    n.connect(b);
    w.step_servers();
    ASSERT_TRUE(w.complete("b", hub::kind::acquire));
    a.receipt(call, task);
    const int reply = a.reply("n", "r", "late", 7);
    w.step_servers();
    EXPECT_FALSE(a.streams.at(call).over);
    ASSERT_TRUE(w.complete("a", hub::kind::update));
    EXPECT_EQ(a.streams.at(call).ended, errc::ownership_lost);
    EXPECT_EQ(a.answers.at(reply), errc::ownership_lost);
    EXPECT_EQ(a.core.get_node("n")->open_requests, 0U);
    w.settle();
    EXPECT_EQ(b.ends.at(t).reply, "re:r");
    EXPECT_EQ(n.ran.size(), 1U);
    EXPECT_EQ(a.status("n"), node_status::active) << "as the other server says";
    expect_nothing_left();
}

// --- who is there --------------------------------------------------------------------------------------------------------

TEST_P(dispatch_shared, each_server_knows_the_nodes_of_all) {
    auto& n = w.node_at("n", b);
    n.reconnects = false;
    EXPECT_EQ(a.status("n"), node_status::active);
    EXPECT_EQ(a.core.reachable_nodes(), 1U);
    n.disconnect();
    w.settle();
    EXPECT_EQ(a.status("n"), node_status::waiting);
    w.advance(11s);
    EXPECT_EQ(a.status("n"), node_status::disconnected);
    EXPECT_EQ(a.core.reachable_nodes(), 0U);
    EXPECT_EQ(a.kind_of(a.send("n", {.keep_while_disconnected = false})), outcome_kind::node_disconnected);
    auto& c = w.start("c");
    EXPECT_EQ(c.status("n"), node_status::disconnected);
    n.connect(b);
    w.settle();
    EXPECT_EQ(c.status("n"), node_status::active);
    const int t = c.send("n", {.keep_while_disconnected = false});
    w.settle();
    EXPECT_EQ(c.kind_of(t), outcome_kind::taken);
}

TEST_P(dispatch_shared, a_node_that_moves_is_active_for_all) {
    auto& n = w.node_at("n", a);
    n.connect(b);
    w.advance(30s);
    EXPECT_EQ(w.shared->owner("n"), "b");
    EXPECT_EQ(a.status("n"), node_status::active);
    EXPECT_EQ(b.status("n"), node_status::active);
    n.connect(a);
    w.advance(30s);
    EXPECT_EQ(w.shared->owner("n"), "a");
    EXPECT_EQ(a.status("n"), node_status::active);
    EXPECT_EQ(b.status("n"), node_status::active);
}

TEST_P(dispatch_shared, when_a_node_is_gone_the_server_tells_that_it_was_at_last) {
    auto& n = w.node_at("n", a);
    n.reconnects = false;
    n.connect(b);
    w.advance(5s);
    n.disconnect();
    w.advance(6s);
    EXPECT_EQ(a.status("n"), node_status::waiting);
    w.advance(5s);
    EXPECT_EQ(a.status("n"), node_status::disconnected);
}

TEST_P(dispatch_shared, pending_are_the_tasks_of_journals_and_of_senders) {
    w.node_at("n", b).disconnect();
    w.settle();
    a.send("n");
    a.send("n", request("r"));
    b.send("n", request("r"));
    EXPECT_EQ(a.pending(), 2U);
    w.settle();
    EXPECT_EQ(a.pending(), 2U);
    EXPECT_EQ(b.pending(), 2U);
    EXPECT_EQ(b.core.get_node("n")->queued_tasks, 2U);
    EXPECT_EQ(a.core.get_node("n")->queued_tasks, 0U);
    w.nodes.at("n")->connect(b);
    w.settle();
    expect_nothing_left();
}

// --- from node to node ---------------------------------------------------------------------------------------------------

TEST_P(dispatch_shared, a_message_of_a_node_is_answered_when_it_is_posted) {
    w.node_at("from", a);
    auto& n = w.node_at("n", b);
    const int call = a.forward("from", "n", 9);
    const int twice = a.forward("from", "n", 9);
    EXPECT_FALSE(a.answers.contains(call));
    w.settle();
    const int again = a.forward("from", "n", 9);
    w.settle();
    for (const int each : {call, twice, again}) EXPECT_EQ(a.answers.at(each), errc::ok);
    EXPECT_EQ(n.ran.size(), 1U);
    w.shared->fail_next(hub::kind::post, hub::fault::refused);
    const int failed = a.forward("from", "n", 10);
    w.settle();
    EXPECT_EQ(a.answers.at(failed), errc::store_failed);
    const int repeated = a.forward("from", "n", 10);
    w.settle();
    EXPECT_EQ(a.answers.at(repeated), errc::ok);
    EXPECT_EQ(n.ran.size(), 2U);
    EXPECT_EQ(a.answers.at(a.forward("from", "nobody")), errc::ok);
    ASSERT_EQ(a.forwards_ended.size(), 3U);
    EXPECT_EQ(a.forwards_ended[2].kind, outcome_kind::node_unknown);
    expect_nothing_left();
}

// --- an end of a server --------------------------------------------------------------------------------------------------

TEST_P(dispatch_shared, a_stop_ends_what_was_sent_and_leaves_it_to_the_others) {
    auto& n = w.node_at("n", a);
    n.holds_replies = true;
    const int t = a.send("n", request("r"));
    w.settle();
    n.disconnect();
    w.settle();
    const int queued = a.send("n", {});
    w.settle();
    const int posting = a.send("n", {});
    a.stop();
    EXPECT_EQ(a.drained, 0) << "it isn't known whether the store has it";
    EXPECT_EQ(a.kind_of(a.send("n")), outcome_kind::stopped);
    w.settle();
    EXPECT_EQ(a.drained, 1);
    a.stop_now();
    for (const int each : {t, queued, posting}) EXPECT_EQ(a.kind_of(each), outcome_kind::stopped);
    a.leave();
    w.settle();
    n.holds_replies = false;
    n.connect(b);
    w.settle();
    EXPECT_EQ(n.ran.size(), 3U);
    ASSERT_EQ(b.unclaimed.size(), 1U);
    EXPECT_EQ(b.unclaimed[0].text, "re:r");
    w.lose("a");
    expect_nothing_left();
}

TEST_P(dispatch_shared, a_stop_waits_for_handlers_and_hands_over_no_more_that_is_unclaimed) {
    w.node_at("n", a);
    a.handles_at_once = false;
    const int t = a.send("n", request("r"));
    w.settle();
    a.stop();
    w.settle();
    EXPECT_EQ(a.drained, 0);
    a.reply("n", "nobody", "text", 7);
    w.settle();
    EXPECT_TRUE(a.unclaimed.empty());
    a.handle(t);
    w.settle();
    EXPECT_EQ(a.drained, 1);
    a.stop_now();
    a.leave();
    w.settle();
    ASSERT_EQ(b.unclaimed.size(), 1U);
}

// --- a store that fails --------------------------------------------------------------------------------------------------

using failure = std::tuple<bool, hub::kind, hub::fault>;

/// One operation fails, of a request that goes from one server to a node of the other one.
class dispatch_shared_fails : public testing::TestWithParam<failure> {};

INSTANTIATE_TEST_SUITE_P(each, dispatch_shared_fails,
                         testing::Combine(testing::Bool(),
                                          testing::Values(hub::kind::acquire, hub::kind::update, hub::kind::post,
                                                          hub::kind::withdraw, hub::kind::fetch, hub::kind::end,
                                                          hub::kind::ends, hub::kind::acknowledge, hub::kind::announce),
                                          testing::Values(hub::fault::refused, hub::fault::unheard)));

TEST_P(dispatch_shared_fails, and_yet_nothing_is_lost) {
    const auto [late, kind, how] = GetParam();
    ferry_test::shared_world w{ferry_test::hub_options{.late = late}};
    auto& a = w.start("a");
    auto& b = w.start("b");
    auto& n = w.node_at("n", b);
    if (kind == hub::kind::acquire) n.disconnect();
    w.settle();
    w.shared->fail_next(kind, how);
    if (kind == hub::kind::acquire) n.connect(b);
    const int t = a.send("n", request("r"));
    if (kind == hub::kind::withdraw) {
        n.disconnect();
        a.withdraw(t);
    }
    w.advance(5s);
    if (!n.is_connected()) n.connect(b);
    w.advance(5s);
    ASSERT_TRUE(a.has_ended(t));
    if (kind == hub::kind::post || kind == hub::kind::withdraw) {
        EXPECT_EQ(a.kind_of(t), outcome_kind::store_failed);
        EXPECT_LE(n.ran.size(), 1U);
    } else {
        EXPECT_EQ(a.ends.at(t).reply, "re:r");
        EXPECT_EQ(n.ran.size(), 1U);
        EXPECT_TRUE(n.replies.empty());
    }
    w.start("a");  // what could not be acknowledged comes again
    w.advance(1s);
    EXPECT_EQ(w.shared->tasks(), 0U);
    EXPECT_EQ(w.shared->open_ends(), 0U);
}

TEST_P(dispatch_shared, a_journal_that_was_lost_to_a_failure_is_acquired_again) {
    auto& n = w.node_at("n", b);
    n.disconnect();
    w.settle();
    w.shared->fail_next(hub::kind::fetch, hub::fault::refused);
    const int t = a.send("n", {.expires_after = 20s});
    w.settle();
    w.shared->fail_next(hub::kind::acquire, hub::fault::refused);
    w.advance(30s);
    EXPECT_EQ(a.kind_of(t), outcome_kind::expired);
    expect_nothing_left();
}

// --- what owners and others know of each other may be old -------------------------------------------------------------------

struct dispatch_shared_late : testing::Test {
    ferry_test::shared_world w{ferry_test::hub_options{.late = true}};
    ferry_test::shared_server& a = w.start("a");
    ferry_test::shared_server& b = w.start("b");

    /// Somebody acquires the journal by this server's name, and it does not hear of it.
    void acquire_unheard(const std::string& name, const std::string& node) {
        ferry_test::hub_store other(w.shared, name);
        other.acquire(node, [](const ferry::acquired_journal&) {});
        for (std::size_t i = 0; i < w.shared->pending(); ++i) {
            if (w.shared->pending_step(i).what == hub::kind::acquire) return w.shared->advance(i);
        }
    }
    /// A node of this server's that is gone.
    ferry_test::shared_node& gone_from(ferry_test::shared_server& server) {
        auto& n = w.node_at("n", server);
        n.reconnects = false;
        n.disconnect();
        return n;
    }
};

TEST_F(dispatch_shared_late, what_another_server_told_before_does_not_keep_an_owner_from_trying_again) {
    auto& n = gone_from(b);
    w.step_servers();
    ASSERT_TRUE(w.happen("b", hub::kind::announce));
    n.connect(a);
    w.step_servers();
    ASSERT_TRUE(w.complete("a", hub::kind::note));  // b's of before
    ASSERT_TRUE(w.complete("a", hub::kind::acquire));
    n.disconnect();
    w.settle();
    const int t = a.send("n", {.expires_after = 20s});
    w.shared->fail_next(hub::kind::fetch, hub::fault::refused);
    w.advance(100s);
    EXPECT_EQ(a.kind_of(t), outcome_kind::expired);
}

TEST_F(dispatch_shared_late, a_journal_that_is_free_while_its_owner_has_an_old_epoch_is_acquired) {
    gone_from(a);
    w.settle();
    const int t = a.send("n", {.expires_after = 20s});
    w.settle();
    w.shared->expire("a");
    for (int i = 0; i < 20 && w.shared->owner("n") != "b"; ++i) {
        w.complete("b", hub::kind::note);
        w.complete("b", hub::kind::acquire);
    }
    w.lose("b");
    w.shared->expire("b");
    w.settle();
    w.advance(100s);
    EXPECT_EQ(a.kind_of(t), outcome_kind::expired);
}

TEST_F(dispatch_shared_late, a_journal_whose_acquisition_nobody_has_heard_of_is_acquired_again) {
    gone_from(a);
    w.settle();
    acquire_unheard("a", "n");
    const int t = b.send("n", {.expires_after = 20s});
    w.settle();
    w.advance(200s);
    EXPECT_EQ(b.kind_of(t), outcome_kind::expired);
}

TEST_F(dispatch_shared_late, a_status_that_could_not_be_told_is_told_again) {
    auto& n = w.add_node("n");
    w.shared->fail_next(hub::kind::announce, hub::fault::refused);
    n.connect(a);
    w.settle();
    w.advance(5s);
    EXPECT_EQ(b.status("n"), node_status::active);
    const int t = b.send("n");
    w.settle();
    EXPECT_EQ(b.kind_of(t), outcome_kind::taken);
}

TEST_F(dispatch_shared_late, a_message_of_a_node_is_posted_once_though_its_journal_was_lost) {
    w.node_at("n", a);
    auto& to = w.node_at("to", b);
    a.forward("n", "to", 42);
    w.settle();
    ASSERT_EQ(to.ran.size(), 1U);
    w.shared->fail_next(hub::kind::fetch, hub::fault::refused);
    b.send("n");
    w.settle();
    w.advance(5s);
    const int again = a.forward("n", "to", 42);
    w.settle();
    EXPECT_EQ(a.answers.at(again), errc::ok);
    EXPECT_EQ(to.ran.size(), 1U);
}

TEST_F(dispatch_shared_late, a_message_of_a_node_is_refused_while_the_server_stops) {
    w.node_at("n", a);
    a.stop();
    const int call = a.forward("n", "to", 42);
    w.settle();
    EXPECT_EQ(a.answers.at(call), errc::stopped);
}

TEST_F(dispatch_shared_late, a_stop_waits_for_a_reply_that_is_being_read) {
    w.node_at("n", b);
    a.loads_at_once = false;
    const int t = a.send("n", request("r"));
    w.settle();
    ASSERT_EQ(a.loads.size(), 1U);
    a.stop();
    EXPECT_EQ(a.drained, 0);
    a.load_replies();
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::replied);
    EXPECT_EQ(a.drained, 1);
}

TEST_F(dispatch_shared_late, a_handler_that_returns_after_a_forced_stop_is_heard) {
    w.node_at("n", b);
    a.handles_at_once = false;
    const int t = a.send("n", request("r"));
    w.settle();
    a.stop();
    a.stop_now();
    a.handle(t);
    w.settle();
    EXPECT_EQ(w.shared->open_ends(), 0U);
}

TEST_F(dispatch_shared_late, a_reply_that_can_be_read_again_goes_to_the_handler) {
    w.node_at("n", b);
    a.fails_to_load = a.fails_for_now = true;
    const int t = a.send("n", request("r"));
    w.settle();
    EXPECT_EQ(a.kind_of(t), outcome_kind::store_failed);
    a.fails_to_load = a.fails_for_now = false;
    w.advance(2s);
    ASSERT_EQ(a.unclaimed.size(), 1U);
    EXPECT_EQ(a.unclaimed[0].text, "re:r");
    EXPECT_EQ(w.shared->open_ends(), 0U);
}

// --- all at once ---------------------------------------------------------------------------------------------------------

/// Servers die and come back, nodes move, and the store completes late and fails.
class chance {
public:
    explicit chance(std::uint32_t seed)
        : random_(seed), w_(ferry_test::hub_options{.late = seed % 4 != 0, .seed = seed}), fails_(seed % 2 == 0) {
        w_.random.seed(seed + 1);
        for (const auto& name : names_) w_.start(name);
        for (const auto& id : ids_) {
            auto& n = w_.add_node(id);
            n.replies_to_all = true;  // a task that wants a reply may have been joined to one that wants none
            n.connect(any_server());
        }
        w_.settle();
    }

    void run() {
        if (fails_) w_.shared->fail_often(0.01);
        for (int i = 0; i < 3000; ++i) act();
        w_.shared->fail_often(0);
        for (auto& [id, n] : w_.nodes) {
            n->reconnects = true;
            if (!n->is_connected()) n->connect(any_server());
        }
        w_.advance(120s);
        check_living();
        for (const auto& name : names_) {  // what could not be acknowledged comes again
            note_end_of(name);
            w_.start(name);
        }
        w_.advance(10s);
        EXPECT_EQ(w_.shared->tasks(), 0U);
        EXPECT_EQ(w_.shared->open_ends(), 0U);
        for (auto& [id, n] : w_.nodes) EXPECT_TRUE(n->replies.empty()) << id;
        check_runs();
    }

private:
    int below(int n) { return static_cast<int>(random_() % static_cast<std::uint32_t>(n)); }
    ferry_test::shared_server& any_server() { return *w_.servers.at(names_[static_cast<std::size_t>(below(3))]); }
    const std::string& any_node() { return ids_[static_cast<std::size_t>(below(4))]; }

    void act() {
        const int what = below(1000);
        if (what < 60) return send();
        if (what < 70) return withdraw();
        if (what < 85) return w_.nodes.at(any_node())->connect(any_server());
        if (what < 90) return w_.nodes.at(any_node())->disconnect();
        if (what < 94) {
            const auto name = any_server().name();
            note_end_of(name);
            w_.lose(name);
            if (below(2) == 0) w_.shared->expire(name);
            w_.start_without_rest(name);
            return;
        }
        if (what < 97) return w_.shared->expire(any_server().name());
        if (what < 100) return w_.shared->interrupt(any_server().name());
        if (what < 110) return pass(std::chrono::milliseconds(below(1500)));
        w_.step_once(below(3) > 0);
    }

    void pass(std::chrono::milliseconds time) {
        w_.now.system += time;
        w_.now.steady += time;
    }

    void send() {
        auto& s = any_server();
        ferry_test::shared_task what;
        if (below(3) > 0)
            what.request_id = below(6) == 0 ? last_request_ : last_request_ = "r" + std::to_string(++requests_);
        what.wants_reply = !what.request_id.empty() && below(3) > 0;
        if (below(5) == 0) what.size = 4000;
        const auto& node = any_node();
        if (!what.wants_reply) sent_without_reply_.insert(what.request_id);
        sent_[s.send(node, what)] = what;
    }

    void withdraw() {
        auto& s = any_server();
        if (s.sent.empty()) return;
        auto which = s.sent.begin();
        std::advance(which, below(static_cast<int>(s.sent.size())));
        if (s.has_ended(*which)) return;
        s.withdraw(*which);
        withdrawn_.insert(name_of(*which));
    }

    /// What is known of its tickets when a server dies.
    void note_end_of(const std::string& name) {
        const auto& s = *w_.servers.at(name);
        for (const int t : s.accepted) accepted_.insert(t);
        for (const auto& [t, end] : s.ends) ends_.emplace(t, end.how.kind);
        unclaimed_ += s.unclaimed.size();
    }

    /// What each server knows, for a failure.
    std::string describe() {
        std::string out;
        for (const auto& [name, s] : w_.servers) {
            out += "server " + name + ":\n";
            for (const auto& [id, n] : w_.nodes) {
                out += "  node " + id + " of " + w_.shared->owner(id) + (n->at() ? ", at " + n->at()->name() : "") +
                       (n->is_connected() ? "" : ", not connected") + (s->core.owned_node(id) ? ", owned" : "") + "\n";
            }
            s->core.for_each_task([&](const ferry::pending_task& t) {
                out += "  task of " + t.node + " " + t.request_id + (t.taken ? ", taken" : "") + ", attempts " +
                       std::to_string(t.attempts) + "\n";
            });
        }
        return out;
    }

    void check_living() {
        for (const auto& name : names_) {
            auto& s = *w_.servers.at(name);
            EXPECT_EQ(s.pending(), 0U) << name << "\n" << describe();
            for (const int t : s.sent) {
                ASSERT_TRUE(s.has_ended(t)) << "ticket " << t << " of server " << name << " never ends\n" << describe();
                const auto& end = s.ends.at(t);
                const auto& what = sent_.at(t);
                EXPECT_EQ(end.reply.value_or("re:" + what.request_id), "re:" + what.request_id);
                const bool has_no_reply = what.wants_reply && end.how.kind == outcome_kind::taken;
                EXPECT_TRUE(!has_no_reply || sent_without_reply_.contains(what.request_id)) << t;
            }
        }
    }

    /// What was accepted is run once, or has ended otherwise.
    void check_runs() {
        std::map<std::string, int> runs;
        for (const auto& [id, n] : w_.nodes) {
            for (const auto& content : n->ran) ++runs[content];
        }
        std::set<std::string> ran_requests;
        for (const auto& [content, times] : runs) {
            EXPECT_EQ(times, 1) << content;
            const auto first = content.find('|');
            ran_requests.insert(content.substr(first + 1, content.find('|', first + 1) - first - 1));
        }
        int checked = 0;
        for (const int t : accepted_) {
            const auto& what = sent_.at(t);
            if (withdrawn_.contains(name_of(t))) continue;
            const auto end = ends_.find(t);
            if (end != ends_.end() && end->second != outcome_kind::taken && end->second != outcome_kind::replied &&
                end->second != outcome_kind::stopped) {
                continue;
            }
            ++checked;
            const bool ran = what.request_id.empty() ? runs.contains("S" + std::to_string(t) + "||")
                                                     : ran_requests.contains(what.request_id);
            EXPECT_TRUE(ran) << "ticket " << t << " was accepted and is not run";
        }
        EXPECT_GT(checked, 20);
    }

    std::string name_of(int ticket) const {
        const auto& id = sent_.at(ticket).request_id;
        return id.empty() ? std::to_string(ticket) : id;
    }

    std::mt19937 random_;
    ferry_test::shared_world w_;
    const bool fails_;
    const std::vector<std::string> names_{"a", "b", "c"}, ids_{"k", "l", "m", "n"};
    std::map<int, ferry_test::shared_task> sent_;
    std::set<std::string> withdrawn_, sent_without_reply_;
    std::set<int> accepted_;
    std::map<int, outcome_kind> ends_;
    std::size_t unclaimed_ = 0;
    std::string last_request_;
    int requests_ = 0;
};

TEST(dispatch_shared_chance, nothing_is_lost_or_run_twice) {
    const char* const from = std::getenv("FERRY_SEED");
    const std::uint32_t first = from ? static_cast<std::uint32_t>(std::atoi(from)) : 1;
    const char* const often = std::getenv("FERRY_SEEDS");
    const std::uint32_t count = often ? static_cast<std::uint32_t>(std::atoi(often)) : 60;
    for (std::uint32_t seed = first; seed < first + count && !testing::Test::HasFailure(); ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        chance(seed).run();
    }
}

}  // namespace
