// The server's core over streams, rule by rule as proto/ferry/researcher.proto has them. Tasks of 25 bytes go in three chunks.
#include <ferry/dispatch.hpp>

#include <ferry/agent_store/memory.hpp>

#include "late_store.hpp"
#include "virtual_world.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using ferry::errc;
using ferry::outcome_kind;
using ferry::frames::verdict;
using ferry_test::request;
using ferry_test::task_options;
using tickets = std::vector<int>;

template <class Store>
class dispatch_stream : public testing::Test {};

struct store_names {
    template <class Store>
    static std::string GetName(int) {  // NOLINT(readability-identifier-naming): GoogleTest's name
        return std::is_same_v<Store, ferry_test::late_store> ? "late" : "memory";
    }
};

using stores = testing::Types<ferry::memory_agent_store, ferry_test::late_store>;
TYPED_TEST_SUITE(dispatch_stream, stores, store_names);

template <class Store>
using world = ferry_test::virtual_world<Store>;

task_options small(bool urgent = false) { return {.size = 5, .urgent = urgent}; }

ferry::frames::hello holding(std::vector<ferry::frames::held_task> held,
                             std::vector<ferry::frames::receipt> receipts = {}) {
    return {std::move(held), std::move(receipts), 4, 1000};
}

ferry::frames::hello window(std::uint32_t tasks, std::uint64_t bytes = 1000) { return {{}, {}, tasks, bytes}; }

/// The tickets of the parts that went out with the stream, deliveries only.
template <class World>
tickets sent_by(const World& w, int call) {
    tickets out;
    for (const auto& d : w.deliveries) {
        if (d.call == call) out.push_back(d.ticket);
    }
    return out;
}

// --- the window and the lanes --------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, is_welcomed_with_the_lease_before_anything_else) {
    world<TypeParam> w;
    w.hold_store();
    const int s = w.stream();
    EXPECT_FALSE(w.streams[s].welcomed) << "its journal isn't there yet";
    w.release_store();
    EXPECT_TRUE(w.streams[s].welcomed);
}

TYPED_TEST(dispatch_stream, carries_tasks_in_order_until_the_window_is_full_and_goes_on_with_each_receipt) {
    world<TypeParam> w;
    const int s = w.stream(window(2));
    for (int i = 0; i < 4; ++i) w.send(small());
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2}));
    w.receipt(s, w.id_of(1));
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2, 3}));
}

TYPED_TEST(dispatch_stream, counts_the_bytes_of_what_is_outstanding_but_always_sends_one_task) {
    world<TypeParam> w;
    const int s = w.stream(window(9, 8));
    for (int i = 0; i < 2; ++i) w.send();
    w.send_all(s);
    EXPECT_EQ(w.delivered(), tickets{1});
    w.receipt(s, w.id_of(1));
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2}));
}

TYPED_TEST(dispatch_stream, has_a_window_for_each_lane) {
    world<TypeParam> w;
    const int s = w.stream(window(1));
    w.send(small());
    w.send(small());
    w.send(small(true));
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 3}));
}

TYPED_TEST(dispatch_stream, lets_an_urgent_task_go_between_the_chunks_of_a_usual_one) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.part_sent(s);
    w.send({.size = 15, .urgent = true});
    w.send_all(s);
    std::vector<std::uint64_t> order;
    for (const auto& part : w.streams[s].parts) order.push_back(part.head.task);
    const auto usual = w.id_of(1), urgent = w.id_of(2);
    EXPECT_EQ(order, (std::vector<std::uint64_t>{usual, usual, urgent, urgent, usual}));
    EXPECT_TRUE(w.streams[s].parts[2].head.urgent);
}

TYPED_TEST(dispatch_stream, tells_with_each_delivery_what_it_is) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.send_all(s);
    ASSERT_EQ(w.streams[s].parts.size(), 3U);
    const auto& last = w.streams[s].parts[2];
    EXPECT_EQ(last.head.total, 25U);
    EXPECT_EQ(last.head.offset, 0U);
    EXPECT_EQ(last.head.attempt, 1);
    EXPECT_TRUE(last.part.last());
    EXPECT_EQ(w.progress[1], (std::vector<std::uint64_t>{10, 20, 25}));
}

TYPED_TEST(dispatch_stream, sends_small_tasks_whole_without_a_pause_as_far_as_the_window_goes) {
    world<TypeParam> w;
    const int s = w.stream(window(3));
    for (int i = 0; i < 4; ++i) w.send(small());
    const auto& whole = w.streams[s].whole;
    ASSERT_EQ(w.delivered(), (tickets{1, 2, 3}));
    EXPECT_TRUE(w.streams[s].parts.empty());
    EXPECT_FALSE(whole[0].may_wait) << "the node has nothing to do";
    EXPECT_TRUE(whole[1].may_wait && whole[2].may_wait) << "the node has one to do before";
    EXPECT_EQ(whole[1].head.total, 5U);
    EXPECT_EQ(whole[1].head.attempt, 1);
    EXPECT_EQ(w.progress[2], std::vector<std::uint64_t>{5});
    w.receipt(s, w.id_of(1));
    EXPECT_EQ(w.delivered(), (tickets{1, 2, 3, 4}));
}

TYPED_TEST(dispatch_stream, sends_a_small_task_after_the_large_one_before_it) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.send(small());
    w.part_sent(s);
    w.part_sent(s);
    EXPECT_TRUE(w.streams[s].whole.empty());
    w.part_sent(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2}));
    EXPECT_EQ(w.streams[s].whole.size(), 1U);
}

TYPED_TEST(dispatch_stream, sends_a_large_task_after_the_small_one_before_it) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.send();
    EXPECT_EQ(w.delivered(), (tickets{1, 2}));
    EXPECT_TRUE(w.streams[s].part) << "it is on its way";
}

TYPED_TEST(dispatch_stream, sends_a_small_urgent_task_at_once_in_the_midst_of_a_large_one) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.send(small(true));
    w.send(small(true));
    ASSERT_EQ(w.streams[s].whole.size(), 2U);
    EXPECT_TRUE(w.streams[s].whole[0].head.urgent);
    EXPECT_FALSE(w.streams[s].whole[1].may_wait);
    EXPECT_EQ(w.streams[s].parts.size(), 1U);
}

TYPED_TEST(dispatch_stream, sends_a_small_task_that_the_node_has_in_part_from_there) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.break_stream(s);
    const int next = w.stream(holding({{w.id_of(1), 3, false}}));
    EXPECT_TRUE(w.streams[next].whole.empty());
    ASSERT_EQ(w.streams[next].parts.size(), 1U);
    EXPECT_EQ(w.streams[next].parts[0].head.offset, 3U);
}

// --- receipts --------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, ends_a_task_when_the_callback_has_returned_or_refused_it) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.send(small());
    w.send_all(s);
    EXPECT_FALSE(w.has_ended(1)) << "the node only has it";
    w.receipt(s, w.id_of(1));
    w.receipt(s, w.id_of(2), verdict::refused, "too hard");
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
    EXPECT_EQ(w.kind_of(2), outcome_kind::refused);
    EXPECT_EQ(w.end_of(2).how.text, "too hard");
    EXPECT_TRUE(w.streams[s].withdrawn.empty());
}

TYPED_TEST(dispatch_stream, sends_what_is_refused_for_now_and_all_later_ones_again_after_the_pause) {
    world<TypeParam> w;
    const int s = w.stream();
    for (int i = 0; i < 3; ++i) w.send(small());
    w.send_all(s);
    w.receipt(s, w.id_of(1), verdict::not_now, "busy", 300ms);
    w.advance(299ms);
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2, 3}));
    w.advance(1ms);
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2, 3, 1, 2, 3}));
    EXPECT_EQ(w.begun.back().attempt, 2);
}

TYPED_TEST(dispatch_stream, withdraws_what_was_sent_after_a_task_that_is_refused_for_now_and_then_the_task) {
    world<TypeParam> w;
    const int s = w.stream(window(3));
    for (int i = 0; i < 4; ++i) w.send(small());
    w.send_all(s);
    w.receipt(s, w.id_of(1), verdict::not_now, "busy", 300ms);
    EXPECT_EQ(w.streams[s].withdrawn, (std::vector{w.id_of(2), w.id_of(3), w.id_of(1)}));
}

TYPED_TEST(dispatch_stream, withdraws_a_task_that_had_ended_before_it_was_refused_for_now) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(request("r"));
    w.send(small());
    w.send_all(s);
    w.reply("r");
    w.receipt(s, w.id_of(1), verdict::not_now, "busy", 300ms);
    EXPECT_EQ(w.streams[s].withdrawn, std::vector{w.id_of(1)}) << "the node waits for this";
    w.receipt(s, w.id_of(2));
    EXPECT_EQ(w.kind_of(2), outcome_kind::taken) << "the later one is still at the node";
}

TYPED_TEST(dispatch_stream, sends_what_is_given_back_again_to_the_next_stream_and_withdraws_nothing) {
    world<TypeParam> w;
    const int s = w.stream();
    for (int i = 0; i < 3; ++i) w.send(small());
    w.send_all(s);
    w.leave(s);
    w.receipt(s, w.id_of(2), verdict::given_back);
    w.send_all(s);
    EXPECT_TRUE(w.streams[s].withdrawn.empty()) << "the node may keep their bytes";
    EXPECT_EQ(w.delivered(), (tickets{1, 2, 3}));
    w.receipt(s, w.id_of(1));
    w.break_stream(s);
    w.send_all(w.stream());
    EXPECT_EQ(w.delivered(), (tickets{1, 2, 3, 2, 3}));
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
}

TYPED_TEST(dispatch_stream, counts_a_reply_as_the_receipt_of_its_task) {
    world<TypeParam> w;
    const int s = w.stream(window(1));
    w.send(request("r"));
    w.send(small());
    w.send_all(s);
    w.reply("r", "done", "n", 7);
    EXPECT_EQ(w.end_of(1).reply, "done");
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2}));
    EXPECT_TRUE(w.streams[s].withdrawn.empty()) << "its callback still runs";
}

TYPED_TEST(dispatch_stream, ends_a_request_that_was_taken_with_its_reply) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(request("r"));
    w.send_all(s);
    w.receipt(s, w.id_of(1));
    EXPECT_FALSE(w.has_ended(1));
    w.reply("r");
    EXPECT_EQ(w.kind_of(1), outcome_kind::replied);
}

TYPED_TEST(dispatch_stream, knows_the_receipts_of_the_newest_stream_only) {
    world<TypeParam> w;
    const int old = w.stream();
    w.send(small());
    w.send_all(old);
    w.stream(holding({{w.id_of(1), 5, true}}));
    w.receipt(old, w.id_of(1));
    EXPECT_FALSE(w.has_ended(1));
}

// --- the hello -------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, does_not_send_again_what_the_node_has_ready) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.send(small());
    w.send_all(s);
    w.break_stream(s);
    const int next = w.stream(holding({{w.id_of(1), 5, true}, {w.id_of(2), 5, true}}));
    w.send_all(next);
    EXPECT_EQ(sent_by(w, next), tickets{});
    w.receipt(next, w.id_of(1));
    w.receipt(next, w.id_of(2));
    EXPECT_EQ(w.end_of(1).how.attempts, 1);
    EXPECT_EQ(w.kind_of(2), outcome_kind::taken);
}

TYPED_TEST(dispatch_stream, takes_the_receipts_that_the_hello_repeats) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.send(small());
    w.send_all(s);
    w.break_stream(s);
    w.stream(holding({}, {{w.id_of(1)}, {w.id_of(2), verdict::refused, "no"}}));
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
    EXPECT_EQ(w.kind_of(2), outcome_kind::refused);
}

TYPED_TEST(dispatch_stream, takes_receipts_of_what_waits_behind_others_and_is_already_at_the_node) {
    world<TypeParam> w;
    const int s = w.stream(window(3));
    for (int i = 0; i < 3; ++i) w.send(small());
    w.send_all(s);
    w.break_stream(s);
    auto hello = holding({{w.id_of(2), 5, true}, {w.id_of(3), 5, true}});
    hello.window_tasks = 1;
    const int next = w.stream(std::move(hello));  // 1 goes first, and 2 and 3 wait for their turn
    w.receipt(next, w.id_of(2));
    w.receipt(next, w.id_of(3), verdict::refused, "no");
    EXPECT_EQ(w.kind_of(2), outcome_kind::taken);
    EXPECT_EQ(w.kind_of(3), outcome_kind::refused);
    EXPECT_TRUE(w.streams[next].withdrawn.empty());
    w.send_all(next);
    w.receipt(next, w.id_of(1));
    w.send_all(next);
    EXPECT_EQ(sent_by(w, next), tickets{1});
}

TYPED_TEST(dispatch_stream, goes_on_where_the_delivery_broke_off) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.part_sent(s);
    w.break_stream(s);
    const int next = w.stream(holding({{w.id_of(1), 12, false}}));
    w.send_all(next);
    const auto& parts = w.streams[next].parts;
    ASSERT_EQ(parts.size(), 2U);
    EXPECT_EQ(parts[0].head.offset, 12U);
    EXPECT_EQ(parts[0].part.offset, 12U);
    EXPECT_EQ(parts[0].part.size, 2);
    EXPECT_EQ(parts[1].part.offset, 22U);
    EXPECT_EQ(parts[0].head.attempt, 2);
}

TYPED_TEST(dispatch_stream, ends_with_an_empty_chunk_what_the_node_has_all_bytes_of) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.send_all(s);
    w.break_stream(s);
    const int next = w.stream(holding({{w.id_of(1), 25, false}}));
    w.send_all(next);
    ASSERT_EQ(w.streams[next].parts.size(), 1U);
    EXPECT_EQ(w.streams[next].parts[0].part.length, 0U);
    EXPECT_EQ(w.streams[next].parts[0].head.offset, 25U);
}

TYPED_TEST(dispatch_stream, begins_anew_where_the_node_says_that_it_has_more_than_there_is) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.send_all(s);
    w.break_stream(s);
    const int next = w.stream(holding({{w.id_of(1), 26, false}}));
    w.send_all(next);
    EXPECT_EQ(w.streams[next].parts[0].head.offset, 0U);
}

TYPED_TEST(dispatch_stream, withdraws_what_it_does_not_owe) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.send_all(s);
    w.break_stream(s);
    w.withdraw(1);
    const int next = w.stream(holding({{w.id_of(1), 5, true}, {77, 3, false}}));
    EXPECT_EQ(w.streams[next].withdrawn, (std::vector<std::uint64_t>{w.id_of(1), 77}));
    EXPECT_EQ(w.kind_of(1), outcome_kind::cancelled);
}

TYPED_TEST(dispatch_stream, asks_the_retry_policy_only_where_the_node_has_nothing_new) {
    world<TypeParam> w({}, {.max_resends = 1});
    int s = w.stream();
    w.send();
    w.part_sent(s);
    for (const std::uint64_t has : {10U, 20U, 25U}) {
        w.break_stream(s);
        s = w.stream(holding({{w.id_of(1), has, false}}));
        ASSERT_FALSE(w.has_ended(1)) << has;
    }
    w.break_stream(s);
    w.stream(holding({{w.id_of(1), 25, false}}));
    EXPECT_EQ(w.kind_of(1), outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(1).how.reason, errc::stream_broken);
}

TYPED_TEST(dispatch_stream, of_a_server_that_was_started_again_takes_what_the_node_holds_and_did) {
    const auto disk = std::make_shared<ferry_test::disk<TypeParam>>();
    std::vector<std::uint64_t> ids;
    {
        world<TypeParam> w({}, {}, disk);
        const int s = w.stream();
        for (int i = 0; i < 3; ++i) w.send(small());
        w.send_all(s);
        for (int i = 1; i <= 3; ++i) ids.push_back(w.id_of(i));
    }
    world<TypeParam> w({}, {}, disk);
    const int s = w.stream(holding({{ids[1], 5, true}}, {{ids[0]}}));
    w.send_all(s);
    EXPECT_EQ(w.delivered(), tickets{3}) << "the first is done, the second ready";
    ASSERT_EQ(w.streams[s].whole.size(), 1U);
    EXPECT_EQ(w.streams[s].whole[0].head.attempt, 2);
    EXPECT_EQ(w.streams[s].whole[0].head.task, ids[2]);
    w.receipt(s, ids[1]);
    w.receipt(s, ids[2]);
    EXPECT_EQ(w.core.open_tasks(), 0U);
    EXPECT_TRUE(w.steal().empty());
}

// --- leases ----------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, ends_where_a_lease_runs_out_and_keeps_what_is_renewed) {
    world<TypeParam> w({.lease = 10s});
    const int s = w.stream();
    w.send(small());
    w.send_all(s);
    w.advance(9s);
    w.renew(s, {w.id_of(1)});
    w.advance(9s);
    EXPECT_FALSE(w.streams[s].over);
    w.advance(1s);
    EXPECT_EQ(w.streams[s].ended, errc::lease_lost);
    EXPECT_FALSE(w.has_ended(1));
    w.send_all(w.stream());
    EXPECT_EQ(w.delivered(), (tickets{1, 1}));
}

TYPED_TEST(dispatch_stream, counts_a_lost_lease_as_a_delivery_in_vain) {
    world<TypeParam> w({.lease = 10s}, {.max_resends = 0});
    const int s = w.stream();
    w.send(small());
    w.send_all(s);
    w.advance(10s);
    EXPECT_EQ(w.kind_of(1), outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(1).how.reason, errc::lease_lost);
    const int next = w.stream(holding({{w.id_of(1), 5, true}}));
    EXPECT_EQ(w.streams[next].withdrawn, std::vector{w.id_of(1)});
}

TYPED_TEST(dispatch_stream, leases_for_ever_where_the_limit_is_zero) {
    world<TypeParam> w({.lease = 0ms});
    const int s = w.stream();
    w.send(small());
    w.send_all(s);
    const int before = w.wakes;
    w.advance(500h);
    EXPECT_FALSE(w.streams[s].over);
    EXPECT_LE(w.wakes, before + 1);
}

TYPED_TEST(dispatch_stream, ends_where_a_range_stands_still) {
    world<TypeParam> w({.idle_limit = 5s});
    const int s = w.stream();
    w.send();
    w.part_sent(s);
    w.advance(5s);
    EXPECT_EQ(w.streams[s].ended, errc::idle_timeout);
}

// --- withdrawals -----------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, withdraws_at_the_node_what_its_sender_withdraws) {
    world<TypeParam> w;
    const int s = w.stream(window(2));
    for (int i = 0; i < 3; ++i) w.send();
    w.part_sent(s);
    w.withdraw(1);
    w.withdraw(3);
    EXPECT_EQ(w.streams[s].withdrawn, std::vector{w.id_of(1)}) << "the node never heard of the third";
    w.send_all(s);
    EXPECT_EQ(w.delivered(), (tickets{1, 2}));
}

TYPED_TEST(dispatch_stream, withdraws_the_part_of_a_task_that_ends_before_it_is_sent_again) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.send();
    w.part_sent(s);
    w.part_sent(s);
    w.break_stream(s);
    const int next = w.stream({{{w.id_of(1), 5, true}, {w.id_of(2), 10, false}}, {}, 1, 1000});
    w.withdraw(2);
    EXPECT_EQ(sent_by(w, next), tickets{}) << "the window is full";
    EXPECT_EQ(w.streams[next].withdrawn, std::vector{w.id_of(2)});
}

TYPED_TEST(dispatch_stream, withdraws_what_is_being_sent_again_when_an_old_reply_ends_it) {
    world<TypeParam> w;
    int s = w.stream();
    w.send({.size = 25, .request_id = "r", .wants_reply = true});
    w.send_all(s);
    w.break_stream(s);
    s = w.stream();
    w.part_sent(s);
    w.reply("r");
    EXPECT_EQ(w.kind_of(1), outcome_kind::replied);
    EXPECT_EQ(w.streams[s].withdrawn, std::vector{w.id_of(1)}) << "else the node waits for the rest of it";
}

// --- streams and polls -----------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, that_is_newer_ends_the_older_one) {
    world<TypeParam> w;
    const int old = w.stream();
    w.send(small());
    w.send_all(old);
    const int next = w.stream(holding({{w.id_of(1), 5, true}}));
    EXPECT_EQ(w.streams[old].ended, errc::superseded);
    w.receipt(next, w.id_of(1));
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
}

TYPED_TEST(dispatch_stream, gives_way_to_a_poll_which_gets_what_was_outstanding) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send();
    w.send_all(s);
    const int poll = w.poll();
    EXPECT_EQ(w.streams[s].ended, errc::superseded);
    EXPECT_EQ(w.carries(poll), 1);
    w.carry(poll);
    w.poll();
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
    EXPECT_EQ(w.end_of(1).how.attempts, 2);
}

TYPED_TEST(dispatch_stream, that_breaks_off_has_delivered_in_vain_where_a_poll_follows) {
    world<TypeParam> w({}, {.max_resends = 0});
    const int s = w.stream();
    w.send();
    w.part_sent(s);
    w.break_stream(s);
    EXPECT_FALSE(w.has_ended(1)) << "the next stream may have it";
    w.poll();
    EXPECT_EQ(w.kind_of(1), outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(1).how.attempts, 1);
}

TYPED_TEST(dispatch_stream, takes_the_place_of_a_poll_whose_task_it_sends_again) {
    world<TypeParam> w;
    const int poll = w.poll();
    w.send();
    w.range_sent(poll);
    const int s = w.stream();
    EXPECT_EQ(w.poll_ended(poll), errc::superseded);
    w.send_all(s);
    EXPECT_EQ(w.streams[s].parts[0].head.attempt, 2);
    w.receipt(s, w.id_of(1));
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
}

TYPED_TEST(dispatch_stream, over_the_connection_of_the_last_poll_shows_that_its_task_has_come) {
    world<TypeParam> w;
    const int poll = w.poll();
    w.send();
    w.carry(poll);
    w.stream();
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
}

TEST(dispatch_stream_by_hand, leases_of_a_stream_that_is_over_start_nothing_over_a_poll) {
    world<ferry_test::late_store> w;
    const int s = w.stream();
    for (int i = 0; i < 3; ++i) w.send();
    ASSERT_EQ(sent_by(w, s), tickets{1});
    w.receipt(s, w.id_of(1));
    w.break_stream(s);
    w.stream();
    w.hold_store();
    w.send({.urgent = true});
    w.release_store();
    const int poll = w.poll();
    EXPECT_EQ(w.carries(poll), 4);
    w.carry(poll);
    EXPECT_EQ(w.carries(w.poll()), 2);
    EXPECT_EQ(w.kind_of(4), outcome_kind::taken);
}

// --- the stop --------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, of_a_server_that_stops_hands_over_nothing_more_and_waits_for_receipts) {
    world<TypeParam> w;
    const int s = w.stream(window(1));
    w.send(small());
    w.send(small());
    w.send_all(s);
    w.stop();
    EXPECT_EQ(w.drained, 0);
    w.receipt(s, w.id_of(1));
    w.send_all(s);
    EXPECT_EQ(w.drained, 1);
    EXPECT_EQ(w.delivered(), tickets{1});
    w.stop_now();
    EXPECT_EQ(w.kind_of(1), outcome_kind::taken);
    EXPECT_EQ(w.kind_of(2), outcome_kind::stopped);
    EXPECT_TRUE(w.streams[s].over);
}

TYPED_TEST(dispatch_stream, that_ends_lets_a_stop_come_to_its_end) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send(small());
    w.send_all(s);
    w.stop();
    w.break_stream(s);
    EXPECT_EQ(w.drained, 1);
}

TYPED_TEST(dispatch_stream, of_a_node_that_leaves_gets_nothing_more) {
    world<TypeParam> w;
    const int s = w.stream();
    w.leave(s);
    w.send(small());
    w.advance(1s);
    EXPECT_EQ(w.delivered(), tickets{});
    w.break_stream(s);
    w.send_all(w.stream());
    EXPECT_EQ(w.delivered(), tickets{1});
}

TYPED_TEST(dispatch_stream, lets_what_was_given_back_expire_in_time) {
    world<TypeParam> w;
    const int s = w.stream();
    w.send({.size = 5, .expires_after = 20s});
    w.send({.size = 5, .expires_after = 20s});
    w.send_all(s);
    w.advance(15s);
    w.leave(s);
    w.receipt(s, w.id_of(1), verdict::given_back);
    w.advance(5s);
    EXPECT_EQ(w.kind_of(1), outcome_kind::expired);
    EXPECT_EQ(w.kind_of(2), outcome_kind::expired);
}

// --- replies and bounds ----------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_stream, reports_a_reply_once_and_answers_each_time_that_it_comes) {
    world<TypeParam> w;
    w.stream();
    const int first = w.reply("x", "done", "n", 7);
    const int again = w.reply("x", "done", "n", 7);
    EXPECT_EQ(w.unclaimed.size(), 1U);
    EXPECT_EQ(w.answers[first], errc::ok);
    EXPECT_EQ(w.answers[again], errc::ok);
}

TYPED_TEST(dispatch_stream, remembers_the_last_1024_replies) {
    world<TypeParam> w;
    w.stream();
    for (std::uint64_t i = 1; i <= 1025; ++i) w.reply("x", "done", "n", i);
    w.reply("x", "done", "n", 2);
    EXPECT_EQ(w.unclaimed.size(), 1025U);
    w.reply("x", "done", "n", 1);
    EXPECT_EQ(w.unclaimed.size(), 1026U);
}

TEST(dispatch_stream_by_hand, a_reply_is_answered_when_its_task_is_settled_and_so_is_its_repetition) {
    world<ferry_test::late_store> w;
    const int s = w.stream();
    w.send(request("r"));
    w.send_all(s);
    w.leave_store_late();
    const int first = w.reply("r", "done", "n", 7);
    const int again = w.reply("r", "done", "n", 7);
    EXPECT_TRUE(w.answers.empty());
    EXPECT_FALSE(w.has_ended(1));
    while (w.kept->store.pending() > 0) w.complete(0);
    EXPECT_EQ(w.answers[first], errc::ok);
    EXPECT_EQ(w.answers[again], errc::ok);
    EXPECT_EQ(w.end_of(1).reply, "done");
    EXPECT_TRUE(w.unclaimed.empty());
}

TYPED_TEST(dispatch_stream, has_bounds_for_the_queues_of_all_nodes_together) {
    world<TypeParam> w({.max_all_queued_tasks = 2, .max_all_queued_bytes = 40});
    const int s = w.stream();
    w.stream(ferry_test::virtual_world<TypeParam>::usual_hello(), "m");
    w.send({.size = 5});
    w.send({.size = 5}, "m");
    EXPECT_EQ(w.kind_of(w.send({.size = 5}, "m")), outcome_kind::queue_full);
    w.send_all(s);
    w.receipt(s, w.id_of(1));
    EXPECT_EQ(w.kind_of(w.send({.size = 36}, "m")), outcome_kind::queue_full) << "too many bytes";
    EXPECT_FALSE(w.has_ended(w.send({.size = 35}, "m")));
}

}  // namespace
