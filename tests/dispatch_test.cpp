#include <ferry/dispatch.hpp>

#include <ferry/agent_store/memory.hpp>
#include <ferry/retry.hpp>

#include "late_store.hpp"
#include "virtual_world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace std::chrono_literals;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using ferry_test::request;
using ferry_test::task_options;
using store_op = ferry_test::late_store::kind;
using tickets = std::vector<int>;

/// Makes the node known, and leaves it without a poll.
template <class World>
void introduce(World& w, const std::string& node = "n") {
    w.break_off(w.poll(node));
    ASSERT_EQ(w.status(node), node_status::waiting);
}

bool holds(const std::vector<std::string>& texts, const std::string& part) {
    return std::any_of(texts.begin(), texts.end(),
                       [&](const std::string& text) { return text.find(part) != std::string::npos; });
}

template <class Store>
class dispatch_core : public testing::Test {};

struct store_names {
    template <class Store>
    static std::string GetName(int) {  // NOLINT(readability-identifier-naming): GoogleTest's name
        return std::is_same_v<Store, ferry_test::late_store> ? "late" : "memory";
    }
};

using stores = testing::Types<ferry::memory_agent_store, ferry_test::late_store>;
TYPED_TEST_SUITE(dispatch_core, stores, store_names);

template <class Store, class Retry = ferry::bounded_retry>
using world = ferry_test::virtual_world<Store, Retry>;

// --- one task, from beginning to end ---------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_parked_poll_carries_the_task_and_the_next_one_shows_that_it_is_taken) {
    world<TypeParam> w;
    const int first = w.poll();
    EXPECT_TRUE(w.is_parked(first));
    const int t = w.send();
    EXPECT_EQ(w.carries(first), t);
    w.carry(first);
    EXPECT_FALSE(w.has_ended(t));
    const int second = w.poll();
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.end_of(t).how.attempts, 1);
    EXPECT_EQ(w.end_of(t).node, "n");
    EXPECT_TRUE(w.is_parked(second));
    EXPECT_EQ(w.progress[t], (std::vector<std::uint64_t>{10, 20, 25}));
    EXPECT_TRUE(w.warnings.empty());
    EXPECT_EQ(w.core.open_tasks(), 0U);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_task_waits_for_a_poll) {
    world<TypeParam> w;
    introduce(w);
    const int t = w.send();
    EXPECT_TRUE(w.delivered().empty());
    w.advance(5s);
    EXPECT_EQ(w.carries(w.poll()), t);
}

TYPED_TEST(dispatch_core, an_empty_payload_is_one_empty_chunk) {
    world<TypeParam> w;
    const int call = w.poll();
    const int t = w.send({.size = 0});
    EXPECT_EQ(w.polls[call].chunks_of, 1);
    w.carry(call);
    w.poll();
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
}

TYPED_TEST(dispatch_core, a_poll_carries_one_task_and_the_next_waits_until_it_is_taken) {
    world<TypeParam> w;
    const int first = w.poll();
    const int a = w.send();
    const int b = w.send();
    w.carry(first);
    EXPECT_EQ(w.delivered(), tickets{a});
    const int second = w.poll();
    EXPECT_EQ(w.carries(second), b);
    EXPECT_EQ(w.kind_of(a), outcome_kind::taken);
    EXPECT_FALSE(w.has_ended(b));
}

TYPED_TEST(dispatch_core, nodes_do_not_wait_for_each_other) {
    world<TypeParam> w;
    w.poll("a", "ca");
    const int b = w.poll("b", "cb");
    w.send({}, "a");
    const int t = w.send({}, "b");
    w.carry(b);
    w.poll("b", "cb");
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.core.reachable_nodes(), 2U);
}

// --- messages from node to node ----------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_message_of_a_node_goes_on_to_another_one) {
    world<TypeParam> w;
    w.poll("a", "ca");
    const int b = w.poll("b", "cb");
    EXPECT_EQ(w.answers.at(w.forward("a", "b", 25)), errc::ok);
    EXPECT_EQ(w.carries(b), 0);
    EXPECT_EQ(w.polls[b].content->size(), 25U);
    EXPECT_EQ(w.polls[b].content->runs().front()[24], 'f');
    w.carry(b);
    w.poll("b", "cb");
    EXPECT_EQ(w.kind_of(0), outcome_kind::taken);
}

TYPED_TEST(dispatch_core, a_message_for_a_node_that_nobody_knows_is_accepted_and_dropped_with_its_reason) {
    world<TypeParam> w;
    w.poll("a", "ca");
    EXPECT_EQ(w.answers.at(w.forward("a", "nobody")), errc::ok);
    EXPECT_EQ(w.kind_of(0), outcome_kind::node_unknown);
    EXPECT_EQ(w.end_of(0).node, "nobody");
    EXPECT_EQ(w.core.open_tasks(), 0U);
}

TYPED_TEST(dispatch_core, a_message_of_a_node_that_never_polled_goes_nowhere) {
    world<TypeParam> w;
    const int b = w.poll("b", "cb");
    EXPECT_EQ(w.answers.at(w.forward("stranger", "b")), errc::node_unknown);
    EXPECT_TRUE(w.is_parked(b));
    EXPECT_EQ(w.core.open_tasks(), 0U);
}

TYPED_TEST(dispatch_core, a_message_for_a_node_whose_queue_is_full_is_refused) {
    ferry::dispatch_limits limits;
    limits.max_queued_tasks = 1;
    world<TypeParam> w(limits);
    w.poll("a", "ca");
    introduce(w);
    const int t = w.send();
    EXPECT_EQ(w.answers.at(w.forward("a", "n")), errc::queue_full);
    EXPECT_FALSE(w.has_ended(0));
    EXPECT_FALSE(w.has_ended(t));
}

// --- what logs and lists show ------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, each_delivery_that_begins_tells_its_attempt_and_age) {
    world<TypeParam> w;
    introduce(w);
    w.send({.size = 25, .label = "what it is"});
    w.advance(2s);
    w.break_off(w.poll());
    w.advance(1s);
    w.poll();
    ASSERT_EQ(w.begun.size(), 2U);
    for (const auto& each : w.begun) {
        EXPECT_EQ(each.node, "n");
        EXPECT_EQ(each.label, "what it is");
        EXPECT_EQ(each.bytes, 25U);
    }
    EXPECT_EQ(w.begun[0].attempt, 1);
    EXPECT_EQ(w.begun[0].age, 2s);
    EXPECT_EQ(w.begun[1].attempt, 2);
    EXPECT_EQ(w.begun[1].age, 3s);
}

TYPED_TEST(dispatch_core, an_open_request_is_found_with_its_attempts_and_age_until_it_is_replied) {
    world<TypeParam> w;
    const int call = w.poll();
    EXPECT_FALSE(w.core.open_request("n", "r", w.now));
    w.send({.request_id = "r", .wants_reply = true});
    w.carry(call);
    w.advance(4s);
    const auto found = w.core.open_request("n", "r", w.now);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->first, 1);
    EXPECT_EQ(found->second, 4s);
    EXPECT_FALSE(w.core.open_request("n", "another", w.now));
    EXPECT_FALSE(w.core.open_request("another", "r", w.now));
    w.reply("r");
    EXPECT_FALSE(w.core.open_request("n", "r", w.now));
}

TYPED_TEST(dispatch_core, lists_what_is_pending_until_it_ends) {
    world<TypeParam> w;
    const auto pending = [&] {
        std::vector<ferry::pending_task> all;
        w.core.for_each_task([&](ferry::pending_task each) { all.push_back(std::move(each)); });
        std::sort(all.begin(), all.end(), [](const auto& x, const auto& y) { return x.request_id < y.request_id; });
        return all;
    };
    introduce(w);
    const auto sent = w.now.system;
    w.send({.size = 25, .request_id = "a", .wants_reply = true});
    w.send({.size = 7, .request_id = "b"});
    auto all = pending();
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0].node, "n");
    EXPECT_EQ(all[0].request_id, "a");
    EXPECT_EQ(all[0].bytes, 25U);
    EXPECT_EQ(all[0].attempts, 0);
    EXPECT_EQ(all[0].accepted, sent);
    EXPECT_TRUE(all[0].wants_reply);
    EXPECT_FALSE(all[0].taken);
    EXPECT_FALSE(all[1].wants_reply);
    w.carry(w.poll());
    w.poll();
    all = pending();
    ASSERT_EQ(all.size(), 2U);
    EXPECT_TRUE(all[0].taken);
    EXPECT_EQ(all[0].attempts, 1);
    w.reply("a");
    w.reply("b");
    EXPECT_TRUE(pending().empty());
}

TYPED_TEST(dispatch_core, replies_that_wait_for_their_handler_are_bounded_and_those_asked_for_are_not) {
    ferry::dispatch_limits limits;
    limits.max_unclaimed_replies = 2;
    world<TypeParam> w(limits);
    introduce(w);
    EXPECT_EQ(w.answers.at(w.reply("x", "1")), errc::ok);
    EXPECT_EQ(w.answers.at(w.reply("x", "2")), errc::ok);
    EXPECT_EQ(w.answers.at(w.reply("x", "3")), errc::queue_full);
    const int asked = w.send({.request_id = "r", .wants_reply = true});
    EXPECT_EQ(w.answers.at(w.reply("r", "asked for")), errc::ok);
    EXPECT_EQ(w.kind_of(asked), outcome_kind::replied);
    w.handle_unclaimed();
    EXPECT_EQ(w.answers.at(w.reply("x", "4")), errc::ok);
    EXPECT_EQ(w.unclaimed, (std::vector<std::string>{"1", "2", "4"}));
}

TYPED_TEST(dispatch_core, replies_that_wait_for_their_handler_are_bounded_by_their_bytes) {
    ferry::dispatch_limits limits;
    limits.max_unclaimed_bytes = 10;
    world<TypeParam> w(limits);
    introduce(w);
    EXPECT_EQ(w.answers.at(w.reply("x", std::string(20, 'x'))), errc::ok) << "one is always allowed";
    EXPECT_EQ(w.answers.at(w.reply("x", "y")), errc::queue_full);
    w.handle_unclaimed(0, 20);
    EXPECT_EQ(w.answers.at(w.reply("x", "123456")), errc::ok);
    EXPECT_EQ(w.answers.at(w.reply("x", "12345")), errc::queue_full);
    EXPECT_EQ(w.answers.at(w.reply("x", "1234")), errc::ok);
    w.handle_unclaimed(0, 6);
    EXPECT_EQ(w.answers.at(w.reply("x", "654321")), errc::ok);
}

// --- order -------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_resend_keeps_its_place) {
    world<TypeParam> w;
    const int first = w.poll();
    const int a = w.send();
    const int b = w.send();
    const int c = w.send();
    w.range_sent(first);
    w.break_off(first);
    const int second = w.poll();
    EXPECT_EQ(w.carries(second), a);
    w.carry(second);
    w.poll_and_carry();
    w.poll_and_carry();
    w.poll();
    EXPECT_EQ(w.delivered(), (tickets{a, a, b, c}));
    EXPECT_EQ(w.end_order, (tickets{a, b, c}));
    EXPECT_EQ(w.end_of(a).how.attempts, 2);
    EXPECT_EQ(w.end_of(b).how.attempts, 1);
}

TYPED_TEST(dispatch_core, the_next_starts_once_the_head_has_ended_without_being_taken) {
    world<TypeParam, ferry::no_retry> w;
    const int first = w.poll();
    const int a = w.send();
    const int b = w.send();
    w.break_off(first);
    EXPECT_EQ(w.kind_of(a), outcome_kind::retries_exhausted);
    EXPECT_EQ(w.carries(w.poll()), b);
}

TYPED_TEST(dispatch_core, what_is_stored_first_is_not_sent_first) {
    world<TypeParam> w;
    const int call = w.poll();
    w.hold_store();
    const int a = w.send();
    const int b = w.send();
    const int c = w.send();
    w.release_store();  // a late store ends the three in an order of its own
    EXPECT_EQ(w.carries(call), a);
    w.carry(call);
    w.poll_and_carry();
    w.poll_and_carry();
    EXPECT_EQ(w.delivered(), (tickets{a, b, c}));
}

// --- retries -----------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, five_resends_and_the_task_is_given_up) {
    world<TypeParam> w;
    int call = w.poll();
    const int t = w.send();
    for (int i = 0; i < 5; ++i) {
        w.break_off(call);
        ASSERT_FALSE(w.has_ended(t));
        call = w.poll();
        ASSERT_EQ(w.carries(call), t);
    }
    w.break_off(call);
    EXPECT_EQ(w.kind_of(t), outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(t).how.reason, errc::stream_broken);
    EXPECT_EQ(w.end_of(t).how.attempts, 6);
    EXPECT_EQ(w.end_of(t).how.text, "it broke");
    EXPECT_EQ(w.delivered(), tickets(6, t));
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_task_that_fails_at_its_greatest_age_is_given_up) {
    for (const auto age : {300s - 1ns, std::chrono::nanoseconds(300s)}) {
        world<TypeParam> w({.idle_limit = 1h});
        const int call = w.poll();
        const int t = w.send();
        w.advance(age);
        w.break_off(call);
        EXPECT_EQ(w.has_ended(t), age == 300s);
        if (age == 300s) {
            EXPECT_EQ(w.kind_of(t), outcome_kind::retries_exhausted);
        }
    }
}

TYPED_TEST(dispatch_core, without_retries_the_first_failure_ends_the_task) {
    world<TypeParam, ferry::no_retry> w;
    const int call = w.poll();
    const int t = w.send();
    w.break_off(call);
    EXPECT_EQ(w.kind_of(t), outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(t).how.attempts, 1);
    EXPECT_EQ(w.core.open_tasks(), 0U);
}

struct pausing_retry {
    using policy_category = ferry::retry_tag;
    std::chrono::milliseconds pause{3000};
    std::optional<std::chrono::milliseconds> next(const ferry::failed_attempt&) { return pause; }
};

TYPED_TEST(dispatch_core, a_pause_holds_the_resend_back_until_it_has_passed) {
    world<TypeParam, pausing_retry> w;
    const int first = w.poll();
    const int a = w.send();
    const int b = w.send();
    w.break_off(first);
    const int second = w.poll();
    EXPECT_TRUE(w.is_parked(second));
    w.advance(3s - 1ns);
    EXPECT_TRUE(w.is_parked(second)) << "neither the head nor what is behind it";
    w.advance(1ns);
    EXPECT_EQ(w.carries(second), a);
    w.carry(second);
    EXPECT_EQ(w.carries(w.poll()), b);
}

TYPED_TEST(dispatch_core, a_pause_that_ends_without_a_poll_is_over_when_one_comes) {
    world<TypeParam, pausing_retry> w;
    const int first = w.poll();
    const int t = w.send();
    w.break_off(first);
    w.advance(3s);
    EXPECT_EQ(w.carries(w.poll()), t);
}

TYPED_TEST(dispatch_core, a_pause_ends_on_time_though_the_core_was_woken_meanwhile) {
    world<TypeParam, pausing_retry> w;
    const int first = w.poll();
    const int t = w.send();
    const int behind = w.send({.expires_after = 1s});
    w.break_off(first);
    const int second = w.poll();
    w.advance(1s);
    EXPECT_EQ(w.kind_of(behind), outcome_kind::expired);
    w.advance(2s);
    EXPECT_EQ(w.carries(second), t);
}

TYPED_TEST(dispatch_core, a_pause_does_not_outlast_the_expiry) {
    world<TypeParam, pausing_retry> w({}, {.pause = 10min});
    const int first = w.poll();
    const int t = w.send({.expires_after = 5min});
    w.break_off(first);
    w.poll();
    w.advance(5min - 1ns);
    EXPECT_FALSE(w.has_ended(t));
    w.advance(1ns);
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
}

TYPED_TEST(dispatch_core, pauses_out_of_all_measure_are_borne) {
    for (const auto pause : {std::chrono::milliseconds::min(), std::chrono::milliseconds(-1)}) {
        world<TypeParam, pausing_retry> w({}, {.pause = pause});
        w.break_off(w.poll());
        const int t = w.send();
        w.break_off(w.poll());
        EXPECT_EQ(w.carries(w.poll()), t);
    }
    world<TypeParam, pausing_retry> w({}, {.pause = std::chrono::milliseconds::max()});
    const int first = w.poll();
    const int t = w.send();
    w.break_off(first);
    w.poll();
    w.advance(1h);
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
}

// --- expiry ------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_queued_task_expires_exactly_at_its_age) {
    world<TypeParam> w;
    introduce(w);
    const int t = w.send({.expires_after = 7s});
    const int later = w.send({.expires_after = 8s});
    w.advance(7s - 1ns);
    EXPECT_FALSE(w.has_ended(t));
    w.advance(1ns);
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
    EXPECT_EQ(w.end_of(t).how.attempts, 0);
    EXPECT_FALSE(w.has_ended(later));
    EXPECT_EQ(w.steal(), tickets{later});
}

TYPED_TEST(dispatch_core, a_task_never_expires_while_it_moves) {
    world<TypeParam> w;
    const int call = w.poll();
    const int t = w.send({.size = 100, .expires_after = 30s});
    const int behind = w.send({.expires_after = 40s});
    for (int i = 0; i < 9; ++i) {
        w.advance(20s);
        w.range_sent(call);
    }
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_EQ(w.kind_of(behind), outcome_kind::expired);
    w.close(call);
    w.advance(9s);
    w.poll();
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
}

TYPED_TEST(dispatch_core, a_delivery_that_fails_after_the_expiry_is_not_repeated) {
    world<TypeParam> w;
    const int first = w.poll();
    const int t = w.send({.expires_after = 30s});
    const int next = w.send();
    w.advance(40s);
    EXPECT_FALSE(w.has_ended(t));
    const int second = w.poll();  // ends the first
    EXPECT_EQ(w.poll_ended(first), errc::superseded);
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
    EXPECT_EQ(w.end_of(t).how.attempts, 1);
    EXPECT_EQ(w.carries(second), next);
}

TYPED_TEST(dispatch_core, a_task_expires_while_it_waits_for_the_store) {
    world<TypeParam> w;
    introduce(w);
    w.hold_store();
    const int t = w.send({.expires_after = 2s});
    w.advance(2s);
    w.release_store();
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, tasks_that_wait_for_the_store_expire_one_after_the_other) {
    world<TypeParam> w;
    introduce(w);
    w.hold_store();
    w.send({.expires_after = 1s});
    w.send({.expires_after = 2s});
    w.advance(1s);
    EXPECT_EQ(w.core.get_node("n")->queued_tasks, 1U);
    w.advance(1s);
    EXPECT_EQ(w.core.get_node("n")->queued_tasks, 0U);
}

TYPED_TEST(dispatch_core, a_lease_that_comes_to_nothing_does_not_hide_the_expiry) {
    world<TypeParam> w;
    w.poll();
    w.hold_store();
    const int t = w.send({.expires_after = 30s});
    w.release_store();
    w.break_off(1);
    w.hold_store();
    w.poll();  // leases
    w.advance(31s);
    EXPECT_FALSE(w.has_ended(t)) << "it is on its way";
    w.break_off(2);
    w.release_store();
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
    EXPECT_EQ(w.end_of(t).how.attempts, 1);
}

TYPED_TEST(dispatch_core, an_age_without_end_is_borne) {
    world<TypeParam> w;
    introduce(w);
    const int t = w.send({.request_id = "r",
                          .wants_reply = true,
                          .expires_after = std::chrono::milliseconds::max(),
                          .reply_within = std::chrono::milliseconds::max()});
    w.advance(24h * 365);
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_EQ(w.carries(w.poll()), t);
}

// --- duplicates ----------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_newer_poll_ends_the_parked_one) {
    world<TypeParam> w;
    const int older = w.poll("n", "c");
    const int newer = w.poll("n", "c");
    EXPECT_EQ(w.poll_ended(older), errc::superseded);
    EXPECT_TRUE(holds(w.warnings, "node n"));
    w.break_off(older);
    w.close(older, false);
    w.range_sent(older);
    EXPECT_EQ(w.status(), node_status::active) << "late events of the older poll count for nothing";
    const int t = w.send();
    EXPECT_EQ(w.carries(newer), t);
    EXPECT_EQ(w.carries(older), 0);
    EXPECT_EQ(w.statuses, std::vector<std::string>{"n ACTIVE"});
}

TYPED_TEST(dispatch_core, a_newer_poll_ends_the_one_that_carries_and_takes_its_task_over) {
    world<TypeParam> w;
    const int older = w.poll();
    const int t = w.send();
    w.range_sent(older);
    const int newer = w.poll();
    EXPECT_EQ(w.poll_ended(older), errc::superseded);
    EXPECT_EQ(w.warnings.size(), 1U);
    EXPECT_EQ(w.carries(newer), t);
    w.range_sent(older);
    w.close(older, false);
    EXPECT_EQ(w.polls[newer].chunks, 1);
    w.carry(newer);
    w.poll();
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.end_of(t).how.attempts, 2);
    EXPECT_EQ(w.delivered(), (tickets{t, t}));
    EXPECT_EQ(w.statuses, (std::vector<std::string>{"n ACTIVE", "n WAITING", "n ACTIVE"}))
        << "after the second poll only";
}

TYPED_TEST(dispatch_core, a_poll_that_has_sent_its_last_range_may_end_after_the_newer_one_came) {
    world<TypeParam> w;
    const int older = w.poll();
    const int a = w.send();
    const int b = w.send();
    w.carry_to_last_range(older);
    const int newer = w.poll();
    EXPECT_FALSE(w.poll_ended(older).has_value());
    EXPECT_FALSE(w.has_ended(a));
    EXPECT_TRUE(w.is_parked(newer));
    w.close(older);
    EXPECT_EQ(w.kind_of(a), outcome_kind::taken);
    EXPECT_EQ(w.carries(newer), b);
    EXPECT_TRUE(w.warnings.empty());
}

TYPED_TEST(dispatch_core, a_poll_that_fails_at_its_last_range_is_repeated_on_the_newer_one) {
    world<TypeParam> w;
    const int older = w.poll();
    const int t = w.send();
    w.carry_to_last_range(older);
    const int newer = w.poll();
    w.close(older, false);
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_EQ(w.carries(newer), t);
    EXPECT_EQ(w.status(), node_status::active);
}

TYPED_TEST(dispatch_core, a_poll_over_another_connection_does_not_confirm_what_is_just_ending) {
    world<TypeParam> w;
    const int older = w.poll("n", "one");
    const int t = w.send();
    w.carry_to_last_range(older);
    const int newer = w.poll("n", "two");
    w.close(older);
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_EQ(w.carries(newer), t);
}

TYPED_TEST(dispatch_core, a_newer_poll_that_has_gone_again_still_confirms_what_was_just_ending) {
    world<TypeParam> w;
    const int older = w.poll();
    const int t = w.send();
    w.carry_to_last_range(older);
    const int newer = w.poll();
    w.break_off(newer);
    EXPECT_EQ(w.status(), node_status::active) << "the older poll still carries";
    w.close(older);
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.status(), node_status::waiting);
}

TYPED_TEST(dispatch_core, a_third_poll_ends_the_second_and_leaves_the_first_alone) {
    world<TypeParam> w;
    const int first = w.poll();
    const int t = w.send();
    w.carry_to_last_range(first);
    const int second = w.poll();
    const int third = w.poll();
    EXPECT_FALSE(w.poll_ended(first).has_value());
    EXPECT_EQ(w.poll_ended(second), errc::superseded);
    w.close(first);
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_TRUE(w.is_parked(third));
}

TYPED_TEST(dispatch_core, a_poll_that_never_ends_after_its_last_range_is_ended) {
    world<TypeParam> w;
    const int older = w.poll();
    const int t = w.send();
    w.carry_to_last_range(older);
    const int newer = w.poll();
    w.advance(60s);
    EXPECT_EQ(w.poll_ended(older), errc::idle_timeout);
    EXPECT_EQ(w.carries(newer), t);
}

// --- liveness ------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_node_is_disconnected_exactly_ten_seconds_after_its_last_poll) {
    world<TypeParam> w;
    const int call = w.poll();
    w.advance(1h);
    EXPECT_EQ(w.status(), node_status::active);
    w.break_off(call);
    EXPECT_EQ(w.status(), node_status::waiting);
    EXPECT_EQ(w.core.reachable_nodes(), 1U);
    w.advance(10s - 1ns);
    EXPECT_EQ(w.status(), node_status::waiting);
    w.advance(1ns);
    EXPECT_EQ(w.status(), node_status::disconnected);
    EXPECT_EQ(w.core.get_node("n")->since, w.now.system);
    EXPECT_EQ(w.core.reachable_nodes(), 0U);
    w.poll();
    EXPECT_EQ(w.core.reachable_nodes(), 1U);
    EXPECT_EQ(w.statuses, (std::vector<std::string>{"n ACTIVE", "n WAITING", "n DISCONNECTED", "n ACTIVE"}));
}

TYPED_TEST(dispatch_core, each_poll_begins_the_ten_seconds_anew) {
    world<TypeParam> w;
    introduce(w);
    w.advance(9s);
    introduce(w);
    w.advance(10s - 1ns);
    EXPECT_EQ(w.status(), node_status::waiting);
    w.advance(1ns);
    EXPECT_EQ(w.status(), node_status::disconnected);
}

TYPED_TEST(dispatch_core, the_ten_seconds_begin_when_the_last_poll_of_two_has_ended) {
    world<TypeParam> w;
    const int older = w.poll();
    w.send();
    w.carry_to_last_range(older);
    w.break_off(w.poll());
    w.advance(15s);
    EXPECT_EQ(w.status(), node_status::active);
    w.close(older);
    w.advance(10s - 1ns);
    EXPECT_EQ(w.status(), node_status::waiting);
    w.advance(1ns);
    EXPECT_EQ(w.status(), node_status::disconnected);
}

TYPED_TEST(dispatch_core, what_was_accepted_stays_owed_to_a_node_that_disconnects) {
    world<TypeParam> w;
    const int first = w.poll();
    const int a = w.send();
    const int b = w.send();
    w.break_off(first);
    w.advance(1min);
    EXPECT_EQ(w.status(), node_status::disconnected);
    EXPECT_FALSE(w.has_ended(a));
    w.poll_and_carry();
    w.poll_and_carry();
    w.poll();
    EXPECT_EQ(w.end_order, (tickets{a, b}));
    EXPECT_EQ(w.kind_of(b), outcome_kind::taken);
}

TYPED_TEST(dispatch_core, a_task_for_a_disconnected_node_is_refused_or_kept) {
    world<TypeParam> w;
    introduce(w);
    w.advance(10s);
    const int refused = w.send();
    const int kept = w.send({.expires_after = 1min, .keep_while_disconnected = true});
    const int expiring = w.send({.expires_after = 20s, .keep_while_disconnected = true});
    EXPECT_EQ(w.kind_of(refused), outcome_kind::node_disconnected);
    EXPECT_EQ(w.end_of(refused).how.reason, errc::node_disconnected);
    w.advance(20s);
    EXPECT_EQ(w.kind_of(expiring), outcome_kind::expired);
    EXPECT_EQ(w.carries(w.poll()), kept);
}

TYPED_TEST(dispatch_core, a_node_that_never_polls_again_has_not_taken_its_task) {
    world<TypeParam> w;
    w.poll();
    const int t = w.send();
    w.carry(1);
    w.advance(10s);
    EXPECT_EQ(w.status(), node_status::disconnected);
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_EQ(w.carries(w.poll()), t);
    EXPECT_EQ(w.delivered(), (tickets{t, t}));

    world<TypeParam, ferry::no_retry> once;
    once.poll();
    const int u = once.send();
    once.carry(1);
    once.advance(10s);
    EXPECT_EQ(once.kind_of(u), outcome_kind::retries_exhausted);
    EXPECT_EQ(once.end_of(u).how.reason, errc::unconfirmed);
}

TYPED_TEST(dispatch_core, a_poll_over_another_connection_gets_the_unconfirmed_task_again) {
    world<TypeParam> w;
    w.poll("n", "one");
    const int t = w.send();
    w.carry(1);
    const int second = w.poll("n", "two");
    EXPECT_EQ(w.carries(second), t);
    w.carry(second);
    w.poll("n", "two");
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.end_of(t).how.attempts, 2);
}

// --- near a poll's deadline ------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_poll_is_ended_some_time_before_its_deadline) {
    world<TypeParam> w;
    for (const auto& [within, ends] :
         {std::pair(40ms, 30ms), {100'000ms, 75'000ms}, {120'000ms, 90'000ms}, {3'600'000ms, 3'570'000ms}}) {
        const int call = w.poll("n", "c", within);
        w.advance(ends - 1ms);
        EXPECT_FALSE(w.polls[call].over) << within.count();
        EXPECT_EQ(w.status(), node_status::active);
        w.advance(1ms);
        EXPECT_EQ(w.poll_ended(call), errc::deadline_exceeded) << within.count();
        EXPECT_EQ(w.status(), node_status::waiting);
        const int t = w.send();
        w.poll_and_carry();
        EXPECT_FALSE(w.polls[w.poll()].over);
        EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
        EXPECT_EQ(w.end_of(t).how.attempts, 1);
    }
}

TYPED_TEST(dispatch_core, a_poll_whose_deadline_is_over_carries_nothing) {
    world<TypeParam> w;
    introduce(w);
    const int t = w.send();
    const int late = w.poll("n", "c", 0ms);
    EXPECT_TRUE(w.delivered().empty());
    w.advance(0ms);
    EXPECT_EQ(w.poll_ended(late), errc::deadline_exceeded);
    EXPECT_EQ(w.carries(w.poll()), t);
}

TYPED_TEST(dispatch_core, a_poll_with_another_deadline_has_that_one) {
    world<TypeParam> w;
    w.poll("n", "c", 100s);
    const int longer = w.poll("n", "c", 1h);
    w.advance(2min);
    EXPECT_FALSE(w.polls[longer].over);
    const int endless = w.poll();
    w.advance(2h);
    EXPECT_FALSE(w.polls[endless].over);
    const int stream = (w.poll("n", "c", 100s), w.stream());
    w.advance(2min);
    EXPECT_FALSE(w.polls[stream].over);
}

TYPED_TEST(dispatch_core, what_a_poll_still_carries_near_its_deadline_is_sent_again) {
    world<TypeParam> w;
    const int call = w.poll("n", "c", 40s);
    w.advance(29s);
    const int t = w.send();
    w.range_sent(call);
    w.advance(5999ms);
    EXPECT_FALSE(w.polls[call].over) << "there is time to end it";
    w.advance(1ms);
    EXPECT_EQ(w.poll_ended(call), errc::deadline_exceeded);
    EXPECT_EQ(w.carries(w.poll()), t);
    w.carry(static_cast<int>(w.polls.size()));
    w.poll();
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.end_of(t).how.attempts, 2);

    world<TypeParam, ferry::no_retry> once;
    once.poll("n", "c", 40s);
    const int u = once.send();
    once.advance(35s);
    EXPECT_EQ(once.kind_of(u), outcome_kind::retries_exhausted);
    EXPECT_EQ(once.end_of(u).how.reason, errc::deadline_exceeded);
}

TYPED_TEST(dispatch_core, what_a_poll_begins_just_in_time_is_sent_once) {
    world<TypeParam> w;
    const int call = w.poll("n", "c", 40s);
    w.advance(29'999ms);
    const int t = w.send();
    w.carry_to_last_range(call);
    w.advance(5s);
    w.close(call);
    w.poll();
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.end_of(t).how.attempts, 1);
}

TYPED_TEST(dispatch_core, a_poll_that_comes_near_the_deadline_of_the_last_one_shows_nothing) {
    for (const auto closes : {10'000ms, 35'000ms, 41'000ms}) {
        for (const auto comes : {34'999ms, 35'000ms, 41'000ms}) {
            SCOPED_TRACE(std::to_string(closes.count()) + ", " + std::to_string(comes.count()));
            world<TypeParam> w({.disconnect_after = 1min});
            const int call = w.poll("n", "c", 40s);
            const int t = w.send();
            w.carry_to_last_range(call);
            w.advance(std::min(closes, comes));
            EXPECT_FALSE(w.polls[call].over) << "its end is under way";
            if (closes <= comes) w.close(call);
            w.advance(comes - std::min(closes, comes));
            const int next = w.poll();
            w.advance(closes - std::min(closes, comes));
            if (closes > comes) w.close(call);
            EXPECT_EQ(w.has_ended(t), comes < 35s);
            if (comes < 35s) {
                EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
            } else {
                EXPECT_EQ(w.carries(next), t);
                w.carry(next);
                w.poll();
                EXPECT_EQ(w.end_of(t).how.attempts, 2);
            }
        }
    }
}

TYPED_TEST(dispatch_core, a_lease_that_comes_near_the_deadline_waits_for_the_next_poll) {
    for (const bool is_woken : {true, false}) {
        world<TypeParam> w;
        introduce(w);
        const int late = w.poll("n", "c", 40s);
        const int t = w.send();
        w.break_off(late);
        w.hold_store();
        const int call = w.poll("n", "c", 40s);
        is_woken ? w.advance(30s) : void(w.now.steady += 30s);
        EXPECT_EQ(w.polls[call].over, is_woken);
        w.release_store();
        EXPECT_EQ(w.delivered(), tickets{t}) << "over the poll that broke off";
        w.advance(0ns);
        EXPECT_EQ(w.poll_ended(call), errc::deadline_exceeded);
        const int next = w.poll();
        EXPECT_EQ(w.carries(next), t);
        w.carry(next);
        w.poll();
        EXPECT_EQ(w.end_of(t).how.attempts, 2);
    }
}

TYPED_TEST(dispatch_core, only_so_many_nodes_are_known) {
    world<TypeParam> w({.max_nodes = 2});
    w.poll("a");
    w.poll("b");
    const int third = w.poll("c");
    EXPECT_EQ(w.poll_ended(third), errc::queue_full);
    EXPECT_TRUE(holds(w.warnings, "node c"));
    EXPECT_FALSE(w.core.get_node("c").has_value());
    w.poll("a");
    EXPECT_EQ(w.status("a"), node_status::active);
    int seen = 0;
    w.core.for_each_node([&](const ferry::node_info&) { ++seen; });
    EXPECT_EQ(seen, 2);
}

// --- what is refused -----------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_node_that_never_polled_is_unknown) {
    world<TypeParam> w;
    const int t = w.send();
    EXPECT_EQ(w.kind_of(t), outcome_kind::node_unknown);
    EXPECT_EQ(w.end_of(t).how.reason, errc::node_unknown);
    EXPECT_EQ(w.keys[t], 0U);
}

TYPED_TEST(dispatch_core, a_queue_takes_so_many_tasks) {
    world<TypeParam> w({.max_queued_tasks = 2});
    w.poll();
    const int a = w.send();
    w.send();
    const int refused = w.send();
    EXPECT_EQ(w.kind_of(refused), outcome_kind::queue_full);
    EXPECT_EQ(w.core.get_node("n")->queued_tasks, 2U);
    w.carry(1);
    w.poll();
    EXPECT_EQ(w.kind_of(a), outcome_kind::taken);
    EXPECT_NE(w.keys[w.send()], 0U);
}

TYPED_TEST(dispatch_core, a_queue_takes_so_many_bytes) {
    world<TypeParam> w({.max_queued_bytes = 50});
    introduce(w);
    w.send({.size = 30});
    EXPECT_EQ(w.kind_of(w.send({.size = 21})), outcome_kind::queue_full);
    const int fits = w.send({.size = 20});
    EXPECT_FALSE(w.has_ended(fits));
    EXPECT_EQ(w.core.get_node("n")->queued_bytes, 50U);
    EXPECT_EQ(w.kind_of(w.send({.size = 1})), outcome_kind::queue_full);
    w.withdraw(fits);
    EXPECT_EQ(w.core.get_node("n")->queued_bytes, 30U);
}

TYPED_TEST(dispatch_core, a_payload_beyond_the_limit_is_refused) {
    world<TypeParam> w({.max_payload_bytes = 40});
    w.poll();
    EXPECT_EQ(w.kind_of(w.send({.size = 41})), outcome_kind::too_large);
    EXPECT_FALSE(w.has_ended(w.send({.size = 40})));
}

// --- replies -------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_request_ends_with_its_reply) {
    world<TypeParam> w;
    w.poll();
    const int t = w.send(request("r"));
    w.carry(1);
    w.poll();
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_EQ(w.core.get_node("n")->queued_tasks, 0U);
    EXPECT_EQ(w.core.get_node("n")->open_requests, 1U);
    const int call = w.reply("r", "forty-two");
    EXPECT_EQ(w.answers[call], errc::ok);
    EXPECT_EQ(w.kind_of(t), outcome_kind::replied);
    EXPECT_EQ(w.end_of(t).reply, "forty-two");
    EXPECT_TRUE(w.unclaimed.empty());
    EXPECT_EQ(w.core.get_node("n")->open_requests, 0U);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_task_that_is_taken_lets_the_next_start_before_its_reply) {
    world<TypeParam> w;
    w.poll();
    const int a = w.send(request("a"));
    const int b = w.send(request("b"));
    w.carry(1);
    w.poll_and_carry();
    w.poll();
    w.reply("b");
    w.reply("a");
    EXPECT_EQ(w.end_order, (tickets{b, a}));
}

/// The states in which a reply, a withdrawal or the end can meet a task.
enum class stage { storing, queued, leasing, sending, last_range, unconfirmed, awaiting };
constexpr std::array stages = {stage::storing,    stage::queued,      stage::leasing, stage::sending,
                               stage::last_range, stage::unconfirmed, stage::awaiting};

/// Brings a request "r" to that stage; what the store still has to do is held where the stage wants it. Its ticket.
template <class World>
int bring_to(World& w, stage where) {
    const int call = w.poll();
    if (where == stage::queued) w.break_off(call);
    if (where == stage::storing) w.hold_store();
    if (where == stage::leasing) {
        w.break_off(call);
        const int t = w.send(request("r"));
        w.hold_store();
        w.poll();
        return t;
    }
    const int t = w.send(request("r"));
    if (where == stage::sending) w.range_sent(call);
    if (where >= stage::last_range) w.carry_to_last_range(call);
    if (where >= stage::unconfirmed) w.close(call);
    if (where >= stage::awaiting) w.poll();
    return t;
}

TYPED_TEST(dispatch_core, a_reply_ends_its_request_at_every_stage) {
    for (const auto where : stages) {
        SCOPED_TRACE(static_cast<int>(where));
        world<TypeParam> w;
        const int t = bring_to(w, where);
        const int next = w.send();
        const int call = w.reply("r", "early");
        w.release_store();
        EXPECT_EQ(w.answers[call], errc::ok);
        EXPECT_EQ(w.kind_of(t), outcome_kind::replied);
        EXPECT_EQ(w.end_of(t).reply, "early");
        if (where == stage::sending) {
            EXPECT_FALSE(w.polls[1].over) << "the stream goes on to its end";
            w.carry(1);
        }
        if (where == stage::last_range) w.close(1);
        if (w.carries(static_cast<int>(w.polls.size())) != next) w.poll();
        EXPECT_EQ(w.carries(static_cast<int>(w.polls.size())), next);
        w.carry(static_cast<int>(w.polls.size()));
        w.poll();
        EXPECT_EQ(w.kind_of(next), outcome_kind::taken);
        EXPECT_EQ(w.delivered(), where == stage::storing || where == stage::queued || where == stage::leasing
                                     ? tickets{next}
                                     : (tickets{t, next}));
        EXPECT_EQ(w.steal(), tickets{});
    }
}

TYPED_TEST(dispatch_core, a_reply_to_a_mere_send_confirms_it_and_goes_to_nobody) {
    for (const auto where : {stage::sending, stage::last_range, stage::unconfirmed}) {
        world<TypeParam> w;
        const int call = w.poll();
        const int t = w.send({.request_id = "r"});
        if (where != stage::sending) w.carry_to_last_range(call);
        if (where == stage::unconfirmed) w.close(call);
        w.reply("r", "unasked");
        EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
        EXPECT_EQ(w.unclaimed, std::vector<std::string>{"unasked"});
    }
}

TYPED_TEST(dispatch_core, a_reply_of_an_unknown_node_is_refused) {
    world<TypeParam> w;
    EXPECT_EQ(w.answers[w.reply("r", "hello", "stranger")], errc::node_unknown);
    EXPECT_TRUE(w.unclaimed.empty());
}

TYPED_TEST(dispatch_core, replies_that_nobody_waits_for_are_unclaimed) {
    world<TypeParam> w;
    w.poll();
    w.poll("other", "o");
    const int t = w.send(request("r"));
    w.carry(1);
    w.poll();
    EXPECT_EQ(w.answers[w.reply("q", "of no request")], errc::ok);
    EXPECT_EQ(w.answers[w.reply("", "without an id")], errc::ok);
    EXPECT_EQ(w.answers[w.reply("r", "of another node", "other")], errc::ok);
    EXPECT_FALSE(w.has_ended(t));
    w.reply("r", "the first");
    w.reply("r", "the second");
    EXPECT_EQ(w.end_of(t).reply, "the first");
    EXPECT_EQ(w.unclaimed,
              (std::vector<std::string>{"of no request", "without an id", "of another node", "the second"}));
}

TYPED_TEST(dispatch_core, a_reply_must_come_in_time) {
    world<TypeParam> w;
    auto options = request("r");
    options.reply_within = 90s;
    w.poll();
    const int t = w.send(options);
    w.carry(1);
    w.poll();
    w.advance(90s - 1ns);
    EXPECT_FALSE(w.has_ended(t));
    w.advance(1ns);
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
    w.reply("r", "too late");
    EXPECT_EQ(w.unclaimed, std::vector<std::string>{"too late"});
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_reply_that_is_late_at_any_stage_ends_the_request) {
    for (const auto where : {stage::queued, stage::sending, stage::unconfirmed}) {
        SCOPED_TRACE(static_cast<int>(where));
        world<TypeParam> w({.disconnect_after = 1h, .idle_limit = 1h});
        auto options = request("r");
        options.reply_within = 90s;
        const int call = w.poll();
        if (where == stage::queued) w.break_off(call);
        const int t = w.send(options);
        const int next = w.send();
        if (where == stage::unconfirmed) w.carry(call);
        w.advance(90s);
        EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
        if (where == stage::sending) w.carry(call);
        EXPECT_EQ(w.carries(w.poll()), next);
    }
}

// --- one id, one task ------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, the_same_request_id_joins_the_task_that_is_there) {
    for (const auto where : stages) {
        SCOPED_TRACE(static_cast<int>(where));
        world<TypeParam> w;
        const int first = bring_to(w, where);
        const int second = w.send(request("r"));
        EXPECT_EQ(w.keys[first], w.keys[second]);
        w.release_store();
        w.reply("r", "both");
        EXPECT_EQ(w.end_of(first).reply, "both");
        EXPECT_EQ(w.end_of(second).reply, "both");
        EXPECT_LE(w.delivered().size(), 1U);
        const int anew = w.send(request("r"));
        EXPECT_NE(w.keys[anew], w.keys[first]) << "what has ended can't be joined";
    }
}

TYPED_TEST(dispatch_core, the_same_id_for_another_node_is_another_task) {
    world<TypeParam> w;
    w.poll("a", "ca");
    w.poll("b", "cb");
    const int a = w.send(request("r"), "a");
    const int b = w.send(request("r"), "b");
    w.reply("r", "of b", "b");
    EXPECT_FALSE(w.has_ended(a));
    EXPECT_EQ(w.end_of(b).reply, "of b");
}

TYPED_TEST(dispatch_core, a_request_may_join_a_send) {
    world<TypeParam> w;
    w.poll();
    const int sent = w.send({.request_id = "r"});
    auto options = request("r");
    options.reply_within = 90s;
    const int asked = w.send(options);
    w.carry(1);
    w.poll();
    EXPECT_FALSE(w.has_ended(asked));
    w.advance(90s);
    EXPECT_EQ(w.kind_of(asked), outcome_kind::expired) << "its own limit counts";
    EXPECT_TRUE(w.has_ended(sent));
}

TYPED_TEST(dispatch_core, of_two_that_wait_for_a_reply_the_longer_limit_counts) {
    world<TypeParam> w;
    w.poll();
    auto options = request("r");
    options.reply_within = 30s;
    const int first = w.send(options);
    options.reply_within = 50s;
    const int second = w.send(options);
    w.carry(1);
    w.poll();
    w.advance(50s - 1ns);
    EXPECT_FALSE(w.has_ended(first));
    w.advance(1ns);
    EXPECT_EQ(w.kind_of(first), outcome_kind::expired);
    EXPECT_EQ(w.kind_of(second), outcome_kind::expired);
}

TYPED_TEST(dispatch_core, tasks_without_an_id_are_never_joined) {
    world<TypeParam> w;
    w.poll();
    EXPECT_NE(w.keys[w.send()], w.keys[w.send()]);
}

// --- withdrawal ------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_task_can_be_withdrawn_at_every_stage) {
    for (const auto where : stages) {
        SCOPED_TRACE(static_cast<int>(where));
        world<TypeParam> w;
        const int t = bring_to(w, where);
        const int next = w.send();
        const auto begun = static_cast<int>(w.delivered().size());
        w.withdraw(t);
        w.withdraw(t);
        w.release_store();
        EXPECT_EQ(w.kind_of(t), outcome_kind::cancelled);
        EXPECT_EQ(w.end_of(t).how.reason, errc::cancelled);
        EXPECT_EQ(w.end_of(t).how.attempts, where == stage::awaiting ? 1 : begun);
        if (where == stage::sending || where == stage::last_range) {
            EXPECT_EQ(w.poll_ended(1), errc::cancelled);
        }
        w.reply("r", "to nobody");
        EXPECT_EQ(w.unclaimed, std::vector<std::string>{"to nobody"});
        if (w.carries(static_cast<int>(w.polls.size())) != next) w.poll();
        EXPECT_EQ(w.carries(static_cast<int>(w.polls.size())), next);
        w.carry(static_cast<int>(w.polls.size()));
        w.poll();
        EXPECT_EQ(w.end_order, (tickets{t, next}));
        EXPECT_EQ(w.steal(), tickets{});
    }
}

TYPED_TEST(dispatch_core, what_is_decided_can_not_be_withdrawn) {
    world<TypeParam> w;
    w.poll();
    const int t = w.send();
    w.carry(1);
    w.hold_store();
    w.poll();
    EXPECT_FALSE(w.has_ended(t)) << "the store has not settled it";
    w.withdraw(t);
    w.release_store();
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    w.withdraw(t);
    EXPECT_EQ(w.end_order, tickets{t});
}

// --- progress --------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_transfer_that_moves_is_never_ended_and_one_that_stands_still_is) {
    world<TypeParam> w;
    const int call = w.poll();
    const int t = w.send({.size = 1000});
    for (int i = 0; i < 90; ++i) {
        w.advance(60s - 1ns);
        w.range_sent(call);
    }
    EXPECT_FALSE(w.poll_ended(call).has_value());
    w.advance(60s - 1ns);
    EXPECT_FALSE(w.poll_ended(call).has_value());
    w.advance(1ns);
    EXPECT_EQ(w.poll_ended(call), errc::idle_timeout);
    EXPECT_EQ(w.status(), node_status::waiting);
    EXPECT_EQ(w.kind_of(t), outcome_kind::retries_exhausted) << "it is older than 300 s";
    EXPECT_EQ(w.end_of(t).how.reason, errc::idle_timeout);
}

TYPED_TEST(dispatch_core, a_transfer_that_stood_still_is_sent_again) {
    world<TypeParam> w;
    w.poll();
    const int t = w.send();
    w.advance(60s);
    EXPECT_EQ(w.poll_ended(1), errc::idle_timeout);
    w.range_sent(1);
    w.close(1, false);
    EXPECT_EQ(w.carries(w.poll()), t);
}

TYPED_TEST(dispatch_core, a_source_that_can_not_be_read_is_a_failed_delivery) {
    world<TypeParam, ferry::no_retry> w;
    const int call = w.poll();
    const int t = w.send();
    w.range_sent(call);
    w.break_off(call, errc::source_failed);
    EXPECT_EQ(w.poll_ended(call), errc::source_failed);
    EXPECT_EQ(w.kind_of(t), outcome_kind::retries_exhausted);
    EXPECT_EQ(w.end_of(t).how.reason, errc::source_failed);

    world<TypeParam> again;
    again.poll();
    const int u = again.send();
    again.break_off(1, errc::source_failed);
    EXPECT_EQ(again.poll_ended(1), errc::source_failed);
    EXPECT_EQ(again.carries(again.poll()), u);
}

TYPED_TEST(dispatch_core, a_stream_that_ends_before_its_last_chunk_is_a_failed_delivery) {
    world<TypeParam> w;
    const int call = w.poll();
    const int t = w.send();
    w.range_sent(call);
    w.close(call, true);
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_EQ(w.carries(w.poll()), t);
    EXPECT_EQ(w.delivered(), (tickets{t, t}));
}

// --- the stop --------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_server_without_work_is_drained_at_once) {
    world<TypeParam> w;
    const int call = w.poll();
    w.stop();
    EXPECT_EQ(w.poll_ended(call), errc::stopped);
    EXPECT_EQ(w.drained, 1);
    EXPECT_EQ(w.kind_of(w.send()), outcome_kind::stopped);
    EXPECT_EQ(w.poll_ended(w.poll()), errc::stopped);
    EXPECT_EQ(w.poll_ended(w.poll("stranger")), errc::stopped);
    EXPECT_FALSE(w.core.get_node("stranger").has_value());
    w.stop();
    w.stop_now();
    EXPECT_EQ(w.drained, 1);
}

TYPED_TEST(dispatch_core, a_stop_lets_streams_finish_and_hears_that_they_were_taken) {
    world<TypeParam> w;
    const int carrying = w.poll("n", "c");
    const int parked = w.poll("m", "d");
    const int t = w.send();
    const int queued = w.send();
    w.stop();
    EXPECT_EQ(w.poll_ended(parked), errc::stopped);
    EXPECT_FALSE(w.poll_ended(carrying).has_value());
    EXPECT_EQ(w.drained, 0);
    w.carry(carrying);
    EXPECT_EQ(w.drained, 0) << "the node has not shown that it has the task";
    const int refused = w.poll("n", "c");
    EXPECT_EQ(w.poll_ended(refused), errc::stopped);
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.drained, 1);
    EXPECT_FALSE(w.has_ended(queued));
    w.stop_now();
    EXPECT_EQ(w.kind_of(queued), outcome_kind::stopped);
    EXPECT_EQ(w.steal(), tickets{queued});
}

TYPED_TEST(dispatch_core, a_refused_poll_does_not_end_the_stream_that_may_finish) {
    world<TypeParam> w;
    const int carrying = w.poll();
    const int t = w.send();
    w.stop();
    const int refused = w.poll();
    EXPECT_EQ(w.poll_ended(refused), errc::stopped);
    EXPECT_FALSE(w.poll_ended(carrying).has_value());
    w.carry_to_last_range(carrying);
    EXPECT_EQ(w.poll_ended(w.poll()), errc::stopped);
    w.close(carrying);
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken) << "the poll came over the same connection after the last range";
    EXPECT_EQ(w.drained, 1);
}

TYPED_TEST(dispatch_core, a_stop_does_not_wait_for_a_node_that_is_gone) {
    world<TypeParam> w;
    w.poll();
    w.send();
    w.carry(1);
    w.stop();
    w.advance(10s - 1ns);
    EXPECT_EQ(w.drained, 0);
    w.advance(1ns);
    EXPECT_EQ(w.drained, 1);
    EXPECT_EQ(w.delivered().size(), 1U);
}

TYPED_TEST(dispatch_core, a_stream_that_breaks_during_the_stop_is_not_repeated) {
    world<TypeParam> w;
    const int call = w.poll();
    const int t = w.send();
    w.stop();
    w.break_off(call);
    EXPECT_EQ(w.drained, 1);
    EXPECT_FALSE(w.has_ended(t));
    w.stop_now();
    EXPECT_EQ(w.kind_of(t), outcome_kind::stopped);
    EXPECT_EQ(w.steal(), tickets{t});
}

TYPED_TEST(dispatch_core, a_lease_under_way_does_not_start_during_the_stop) {
    world<TypeParam> w;
    const int t = bring_to(w, stage::leasing);
    w.stop();
    EXPECT_EQ(w.poll_ended(2), errc::stopped);
    w.release_store();
    EXPECT_TRUE(w.delivered().empty());
    EXPECT_EQ(w.drained, 1);
    w.stop_now();
    EXPECT_EQ(w.kind_of(t), outcome_kind::stopped);
    EXPECT_EQ(w.end_of(t).how.attempts, 0);
}

TYPED_TEST(dispatch_core, a_stop_waits_for_the_store_to_settle_what_has_ended) {
    world<TypeParam> w;
    w.poll();
    const int t = w.send();
    w.carry(1);
    w.stop();
    w.hold_store();
    w.poll();
    EXPECT_EQ(w.drained, 0);
    w.release_store();
    EXPECT_EQ(w.drained, 1);
    EXPECT_EQ(w.kind_of(t), outcome_kind::taken);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_forced_stop_ends_every_task_and_every_poll) {
    for (const auto where : stages) {
        SCOPED_TRACE(static_cast<int>(where));
        world<TypeParam> w;
        const int t = bring_to(w, where);
        const int behind = w.send();
        const int parked = w.poll("m", "d");
        w.stop_now();
        EXPECT_EQ(w.kind_of(t), outcome_kind::stopped);
        EXPECT_EQ(w.kind_of(behind), outcome_kind::stopped);
        EXPECT_EQ(w.end_of(t).how.attempts, where >= stage::sending ? 1 : 0);
        EXPECT_EQ(w.poll_ended(parked), errc::stopped);
        for (const auto& [call, p] : w.polls) EXPECT_TRUE(p.over) << call;
        EXPECT_EQ(w.core.open_tasks(), 0U);
        EXPECT_EQ(w.drained, 1);
        w.release_store();
        w.advance(1h);
        EXPECT_EQ(w.core.open_tasks(), 0U);
        EXPECT_EQ(w.core.reachable_nodes(), 0U);
        EXPECT_EQ(w.steal(), (tickets{t, behind})) << "the store keeps what was not settled";
    }
}

TYPED_TEST(dispatch_core, a_journal_that_comes_after_the_forced_stop_is_left_alone) {
    const auto kept = std::make_shared<ferry_test::disk<TypeParam>>();
    int t = 0;
    {
        world<TypeParam> w({}, {}, kept);
        w.poll();
        t = w.send();
        w.stop_now();
    }
    world<TypeParam> w({}, {}, kept);
    w.hold_store();
    w.poll();
    const int reply = w.reply("r");
    w.stop_now();
    w.release_store();
    EXPECT_EQ(w.core.open_tasks(), 0U);
    EXPECT_TRUE(w.answers.contains(reply));
    EXPECT_EQ(w.steal(), tickets{t});
}

TYPED_TEST(dispatch_core, what_is_decided_at_the_forced_stop_keeps_its_outcome) {
    world<TypeParam> w;
    const int t = bring_to(w, stage::unconfirmed);
    w.hold_store();
    w.reply("r", "just in time");
    w.stop_now();
    EXPECT_EQ(w.kind_of(t), outcome_kind::replied);
    EXPECT_EQ(w.end_of(t).reply, "just in time");
    w.release_store();
    EXPECT_EQ(w.steal(), tickets{});
}

// --- a store that fails ----------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_journal_that_can_not_be_acquired_fails_what_waits_for_it_and_sends_the_node_away) {
    world<TypeParam> w;
    w.fail_next(store_op::acquire);
    w.hold_store();
    const int first = w.poll();
    const int a = w.send();
    const int b = w.send();
    w.release_store();
    EXPECT_EQ(w.kind_of(a), outcome_kind::store_failed);
    EXPECT_EQ(w.kind_of(b), outcome_kind::store_failed);
    EXPECT_EQ(w.end_of(a).how.reason, errc::store_failed);
    EXPECT_TRUE(holds(w.warnings, "acquire"));
    EXPECT_EQ(w.poll_ended(first), errc::store_failed) << "it comes again, and the store is tried again";
    const int second = w.poll();
    const int c = w.send();
    EXPECT_EQ(w.carries(second), c);
    EXPECT_EQ(w.delivered(), tickets{c});
}

TYPED_TEST(dispatch_core, a_task_that_can_not_be_appended_fails_alone) {
    world<TypeParam> w;
    const int call = w.poll();
    w.fail_next(store_op::append);
    const int a = w.send();
    const int b = w.send();
    EXPECT_EQ(w.kind_of(a), outcome_kind::store_failed);
    EXPECT_EQ(w.end_of(a).how.text, "the store is out of order");
    EXPECT_EQ(w.carries(call), b);
    w.carry(call);
    w.poll();
    EXPECT_EQ(w.kind_of(b), outcome_kind::taken);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_lease_that_can_not_be_written_fails_the_task_and_frees_the_poll) {
    world<TypeParam> w;
    const int call = w.poll();
    w.fail_next(store_op::update);
    const int a = w.send();
    EXPECT_EQ(w.kind_of(a), outcome_kind::store_failed);
    EXPECT_EQ(w.end_of(a).how.attempts, 0);
    const int b = w.send();
    EXPECT_EQ(w.carries(call), b);
    EXPECT_EQ(w.steal(), tickets{b});
}

TYPED_TEST(dispatch_core, a_taken_request_whose_note_fails_still_waits_for_its_reply) {
    world<TypeParam> w;
    w.poll();
    const int t = w.send(request("r"));
    w.carry(1);
    w.fail_next(store_op::update);
    w.poll();
    EXPECT_FALSE(w.has_ended(t));
    EXPECT_TRUE(holds(w.warnings, "could not note what became of a task"));
    w.reply("r");
    EXPECT_EQ(w.kind_of(t), outcome_kind::replied);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_task_that_can_not_be_settled_has_its_outcome_and_is_settled_when_the_store_works_again) {
    world<TypeParam> w;
    w.poll();
    const int a = w.send();
    w.carry(1);
    w.fail_next(store_op::settle);
    w.poll();
    EXPECT_EQ(w.kind_of(a), outcome_kind::taken);
    EXPECT_TRUE(holds(w.warnings, "settle"));
    const int b = w.send();
    EXPECT_EQ(w.carries(2), b);
    EXPECT_EQ(w.steal(), tickets{b});
}

TYPED_TEST(dispatch_core, a_task_that_ends_while_the_store_fails_keeps_its_outcome) {
    for (const auto where : {stage::storing, stage::leasing}) {
        SCOPED_TRACE(static_cast<int>(where));
        world<TypeParam> w;
        const int t = bring_to(w, where);
        w.fail_next(where == stage::storing ? store_op::append : store_op::update);
        w.withdraw(t);
        w.release_store();
        EXPECT_EQ(w.kind_of(t), outcome_kind::cancelled);
        EXPECT_EQ(w.steal(), tickets{});
    }
}

// --- a journal with several owners -----------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_server_that_lost_its_journal_sends_the_node_away_and_takes_over_again) {
    world<TypeParam> w;
    const int call = w.poll();
    w.steal();
    const int a = w.send();
    EXPECT_EQ(w.kind_of(a), outcome_kind::store_failed);
    EXPECT_EQ(w.end_of(a).how.reason, errc::ownership_lost);
    EXPECT_EQ(w.poll_ended(call), errc::ownership_lost);
    EXPECT_TRUE(holds(w.warnings, "node n"));
    const int again = w.poll();
    const int b = w.send();
    EXPECT_EQ(w.carries(again), b);
    EXPECT_EQ(w.core.open_tasks(), 1U);
}

TYPED_TEST(dispatch_core, after_a_loss_the_journal_says_what_is_still_owed) {
    world<TypeParam> w;
    w.poll();
    const int a = w.send();
    const int b = w.send(request("b"));
    const int c = w.send();
    w.break_off(1);
    const auto journal = w.steal_journal();
    ASSERT_EQ(journal.tasks.size(), 3U);
    int settled = 0;  // the other server sees c to its end
    w.kept->store.settle("n", journal.owner, journal.tasks[2].order,
                         [&](const ferry::store_status& s) { settled += s.code == errc::ok; });
    w.advance_store();
    ASSERT_EQ(settled, 1);
    w.poll();
    EXPECT_EQ(w.kind_of(a), outcome_kind::store_failed) << "its lease showed the loss";
    EXPECT_EQ(w.poll_ended(2), errc::ownership_lost);
    EXPECT_FALSE(w.has_ended(c));
    const int again = w.poll();
    EXPECT_EQ(w.kind_of(c), outcome_kind::store_failed);
    EXPECT_EQ(w.end_of(c).how.reason, errc::ownership_lost);
    EXPECT_EQ(w.carries(again), b);
    w.carry(again);
    w.poll();
    w.reply("b");
    EXPECT_EQ(w.kind_of(b), outcome_kind::replied);
    EXPECT_EQ(w.delivered(), (tickets{a, b}));
    EXPECT_EQ(w.core.open_tasks(), 0U);
    EXPECT_EQ(w.steal(), tickets{}) << "a was given up here, and so it must not come back";
}

TYPED_TEST(dispatch_core, a_task_that_was_taken_while_another_owned_the_journal_is_settled_later) {
    world<TypeParam> w;
    w.poll();
    const int a = w.send();
    w.carry(1);
    w.steal();
    w.poll();
    EXPECT_EQ(w.kind_of(a), outcome_kind::taken);
    EXPECT_EQ(w.poll_ended(2), errc::ownership_lost);
    w.poll();
    EXPECT_EQ(w.delivered(), tickets{a}) << "it is in the journal still, and must not be delivered again";
    EXPECT_EQ(w.steal(), tickets{});
}

/// Driven by hand: which operation completes when, and how.
using late_world = world<ferry_test::late_store>;
using fault = ferry_test::late_store::fault;

TEST(dispatch_core_by_hand, an_append_that_fails_after_the_write_leaves_nothing_behind) {
    late_world w;
    w.poll();
    w.kept->store.fail_next(store_op::append, fault::unheard);
    const int t = w.send();
    EXPECT_EQ(w.kind_of(t), outcome_kind::store_failed);
    EXPECT_TRUE(w.delivered().empty());
    EXPECT_EQ(w.steal(), tickets{});
}

TEST(dispatch_core_by_hand, what_an_earlier_ownership_failed_at_does_not_end_the_present_one) {
    late_world w;
    w.poll();
    w.leave_store_late();
    const int a = w.send();
    const int b = w.send();
    w.steal();
    w.complete(0);
    EXPECT_EQ(w.end_of(a).how.reason, errc::ownership_lost);
    EXPECT_EQ(w.poll_ended(1), errc::ownership_lost);
    const int again = w.poll();
    ASSERT_EQ(w.kept->store.pending_kind(1), store_op::acquire);
    w.complete(1);
    w.complete(0);
    EXPECT_EQ(w.end_of(b).how.reason, errc::ownership_lost);
    EXPECT_TRUE(w.is_parked(again)) << "the journal is owned again since";
    const int c = w.send();
    w.complete(0);
    w.complete(0);
    EXPECT_EQ(w.carries(again), c);
}

TEST(dispatch_core_by_hand, a_task_of_another_server_is_not_mistaken_for_one_that_has_ended_here) {
    late_world w;
    w.poll();
    w.send();
    w.carry(1);
    w.kept->store.fail_next(store_op::settle, fault::unheard);
    w.poll();
    EXPECT_TRUE(holds(w.warnings, "settle"));
    int b = 0;
    {
        late_world other({}, {}, w.kept);
        introduce(other);
        b = other.send();
    }
    w.send();  // shows the loss
    EXPECT_EQ(w.poll_ended(2), errc::ownership_lost);
    EXPECT_EQ(w.carries(w.poll()), b);
}

// --- replies that the store keeps ------------------------------------------------------------------------------------------

/// None where there is none yet.
template <class World>
std::vector<errc> answers_to(const World& w, int call) {
    const auto found = w.answers.find(call);
    return found == w.answers.end() ? std::vector<errc>{} : std::vector{found->second};
}

TYPED_TEST(dispatch_core, a_reply_is_noted_before_anybody_is_told_and_settled_when_it_was_handled) {
    world<TypeParam> w;
    w.keeps_replies = true;
    w.poll();
    const int a = w.send(request("r"));
    w.hold_store();
    const int call = w.reply("r", "done");
    EXPECT_FALSE(w.has_ended(a));
    EXPECT_TRUE(answers_to(w, call).empty());
    w.release_store();
    EXPECT_EQ(w.end_of(a).reply, "done");
    EXPECT_EQ(answers_to(w, call), std::vector{errc::ok});
    EXPECT_EQ(w.core.open_tasks(), 1U);
    const auto kept = w.steal_journal();
    ASSERT_EQ(kept.tasks.size(), 1U);
    EXPECT_EQ(kept.tasks[0].reply->flatten().view(), "done");
}

TYPED_TEST(dispatch_core, a_reply_is_settled_when_all_who_were_given_it_have_returned) {
    world<TypeParam> w;
    w.keeps_replies = true;
    w.poll();
    const int a = w.send(request("r")), b = w.send(request("r"));
    w.reply("r");
    w.handle(a);
    EXPECT_EQ(w.core.open_tasks(), 1U);
    w.handle(b);
    EXPECT_EQ(w.core.open_tasks(), 0U);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_reply_that_can_not_be_noted_is_answered_when_it_was_handled) {
    world<TypeParam> w;
    w.keeps_replies = true;
    w.poll();
    const int a = w.send(request("r"));
    w.fail_next(store_op::update);
    const int call = w.reply("r", "done");
    EXPECT_EQ(w.end_of(a).reply, "done");
    EXPECT_TRUE(answers_to(w, call).empty());
    EXPECT_TRUE(holds(w.warnings, "could not note a reply"));
    w.handle(a);
    EXPECT_EQ(answers_to(w, call), std::vector{errc::ok});
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_reply_that_nobody_waits_for_is_noted_and_settled_when_its_handler_has_returned) {
    world<TypeParam> w;
    w.keeps_replies = true;
    introduce(w);
    w.hold_store();
    const int first = w.reply("q", "alone", "n", 7);
    EXPECT_TRUE(w.unclaimed.empty());
    EXPECT_TRUE(answers_to(w, first).empty());
    w.release_store();
    EXPECT_EQ(w.unclaimed, std::vector<std::string>{"alone"});
    EXPECT_EQ(answers_to(w, first), std::vector{errc::ok}) << "its node need not wait for the handler";
    const int again = w.reply("q", "alone", "n", 7);
    EXPECT_EQ(answers_to(w, again), std::vector{errc::ok});
    EXPECT_EQ(w.unclaimed.size(), 1U);
    w.handle_unclaimed(w.unclaimed_keys.at(0));
    EXPECT_EQ(w.core.open_tasks(), 0U);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_reply_that_nobody_waits_for_and_can_not_be_noted_is_answered_when_it_was_handled) {
    world<TypeParam> w;
    w.keeps_replies = true;
    introduce(w);
    w.fail_next(store_op::append);
    const int first = w.reply("", "alone", "n", 7);
    EXPECT_EQ(w.unclaimed, std::vector<std::string>{"alone"});
    const int again = w.reply("", "alone", "n", 7);
    EXPECT_TRUE(answers_to(w, first).empty());
    w.handle_unclaimed(w.unclaimed_keys.at(0));
    EXPECT_EQ(answers_to(w, first), std::vector{errc::ok});
    EXPECT_EQ(answers_to(w, again), std::vector{errc::ok});
    w.fail_next(store_op::append);
    const int left = w.reply("", "left", "n", 8);
    w.stop();
    EXPECT_EQ(w.drained, 0);
    w.stop_now();
    EXPECT_EQ(answers_to(w, left), std::vector{errc::stopped}) << "its node keeps it";
    const int late = w.reply("", "late", "n", 9);
    EXPECT_EQ(answers_to(w, late), std::vector{errc::stopped});
    EXPECT_EQ(w.unclaimed.size(), 2U);
}

TYPED_TEST(dispatch_core, a_stop_waits_for_replies_to_be_handled) {
    world<TypeParam> w;
    w.keeps_replies = true;
    const int call = w.poll();
    const int a = w.send(request("r"));
    w.carry(call);
    w.reply("r");
    w.stop();
    EXPECT_EQ(w.drained, 0);
    EXPECT_TRUE(w.core.quiet_but_for_handlers());
    w.handle(a);
    EXPECT_EQ(w.drained, 1);
}

// --- a restart -------------------------------------------------------------------------------------------------------------

/// A server ran on this disk, and died.
template <class Store>
struct restart {
    using first_life = world<Store>;

    std::shared_ptr<ferry_test::disk<Store>> kept = std::make_shared<ferry_test::disk<Store>>();
    std::unique_ptr<first_life> before =
        std::make_unique<first_life>(ferry::dispatch_limits{}, ferry::bounded_retry{}, kept);

    /// The steady clock begins anew, the system's goes on.
    std::unique_ptr<first_life> after(std::chrono::milliseconds pause) {
        auto out = std::make_unique<first_life>(ferry::dispatch_limits{}, ferry::bounded_retry{}, kept);
        out->now = {std::chrono::steady_clock::time_point(5s), before->now.system + pause};
        before.reset();
        return out;
    }
};

TYPED_TEST(dispatch_core, after_a_restart_all_that_is_owed_is_delivered_in_order) {
    restart<TypeParam> life;
    auto& w = *life.before;
    w.poll();
    const int asked = w.send(request("r"));
    w.carry(1);
    w.poll();
    const int a = w.send();
    const int b = w.send();
    const int c = w.send();
    w.range_sent(2);
    const auto after = life.after(20min);
    EXPECT_EQ(after->kind_of(after->send()), outcome_kind::node_unknown) << "the node must poll first";
    const int first = after->poll();
    const int d = after->send();
    EXPECT_EQ(after->carries(first), a);
    after->carry(first);
    for (int i = 0; i < 3; ++i) after->poll_and_carry();
    after->poll();
    EXPECT_EQ(after->delivered(), (tickets{a, b, c, d}));
    EXPECT_EQ(after->kind_of(d), outcome_kind::taken);
    EXPECT_EQ(after->core.open_tasks(), 1U) << "the request";
    EXPECT_EQ(after->steal(), tickets{asked});
}

TYPED_TEST(dispatch_core, after_a_restart_nodes_that_the_store_knows_are_known_and_so_is_what_is_open) {
    restart<TypeParam> life;
    auto& w = *life.before;
    w.poll();
    const int asked = w.send(request("r"));
    w.carry(1);
    w.poll();
    const int open = w.send();
    const auto after = life.after(20min);
    after->know({"n", "m"});
    EXPECT_EQ(after->all_acquired, 1);
    EXPECT_EQ(after->status(), node_status::disconnected);
    EXPECT_EQ(after->status("m"), node_status::disconnected);
    EXPECT_EQ(after->core.get_node("n")->since, after->now.system);
    std::vector<std::pair<std::string, bool>> pending;
    after->core.for_each_task(
        [&](const ferry::pending_task& each) { pending.emplace_back(each.request_id, each.taken); });
    std::sort(pending.begin(), pending.end());
    EXPECT_EQ(pending, (std::vector<std::pair<std::string, bool>>{{"", false}, {"r", true}}));
    const int late = after->send({.keep_while_disconnected = true});
    EXPECT_EQ(after->kind_of(after->send()), outcome_kind::node_disconnected);
    after->poll_and_carry();
    after->poll_and_carry();
    EXPECT_EQ(after->delivered(), (tickets{open, late})) << "that the server died is no failure of the task's";
    EXPECT_EQ(after->steal(), (tickets{asked, late}));
    EXPECT_EQ(after->all_acquired, 1) << "they are acquired already";
}

TYPED_TEST(dispatch_core, after_a_restart_a_reply_that_was_not_handled_goes_to_the_handler) {
    restart<TypeParam> life;
    life.before->keeps_replies = true;
    life.before->poll();
    life.before->send(request("r"));
    life.before->reply("r", "done");
    const auto after = life.after(1s);
    after->know({"n"});
    after->load_replies();
    EXPECT_EQ(after->unclaimed, std::vector<std::string>{"done"});
    EXPECT_EQ(after->core.open_tasks(), 1U);
    after->handle_unclaimed(after->unclaimed_keys.at(0));
    EXPECT_EQ(after->core.open_tasks(), 0U);
    EXPECT_EQ(after->steal(), tickets{});
}

TYPED_TEST(dispatch_core, after_a_restart_who_asks_again_gets_the_reply_that_was_kept) {
    for (const bool before_it_is_offered : {true, false}) {
        restart<TypeParam> life;
        life.before->keeps_replies = true;
        life.before->poll();
        life.before->send(request("r"));
        life.before->reply("r", "done");
        const auto after = life.after(1s);
        after->know({"n"});
        if (!before_it_is_offered) {
            after->load_replies();
            after->want_no_unclaimed(after->unclaimed_keys.at(0));
            EXPECT_EQ(after->core.open_tasks(), 1U) << "it may be asked for";
        }
        auto again = request("r");
        again.keep_while_disconnected = true;
        const int asked = after->send(again);
        after->load_replies();
        EXPECT_EQ(after->end_of(asked).reply, "done");
        after->handle(asked);
        EXPECT_EQ(after->core.open_tasks(), 0U);
        EXPECT_EQ(after->steal(), tickets{});
    }
}

TYPED_TEST(dispatch_core, after_a_restart_a_node_that_sends_a_kept_reply_again_is_answered) {
    restart<TypeParam> life;
    life.before->keeps_replies = true;
    life.before->poll();
    life.before->send(request("r"));
    life.before->reply("r", "done", "n", 7);
    const auto after = life.after(1s);
    after->keeps_replies = true;
    after->know({"n"});
    const int call = after->reply("r", "done", "n", 7);
    EXPECT_EQ(answers_to(*after, call), std::vector{errc::ok});
    after->load_replies();
    EXPECT_EQ(after->unclaimed, std::vector<std::string>{"done"});
    after->reply("r", "another", "n", 8);
    EXPECT_EQ(after->unclaimed, (std::vector<std::string>{"done", "another"}));
}

/// The life after one that had the reply to a request, and did not come to handle it.
template <class Store>
struct unhandled {
    explicit unhandled(bool knows = true) {
        life.before->keeps_replies = true;
        life.before->poll();
        life.before->send(request("r"));
        life.before->reply("r", "done", "n", 7);
        after = life.after(1s);
        after->keeps_replies = true;
        if (knows) after->know({"n"});
    }
    int ask() {
        auto again = request("r");
        again.keep_while_disconnected = true;
        return after->send(again);
    }
    restart<Store> life;
    std::unique_ptr<world<Store>> after;
};

TYPED_TEST(dispatch_core, after_a_restart_who_asks_while_the_handler_has_the_reply_gets_it_too_and_at_once) {
    unhandled<TypeParam> in;
    auto& w = *in.after;
    w.load_replies();
    const int asked = in.ask();
    w.load_replies();
    EXPECT_EQ(w.end_of(asked).reply, "done");
    w.handle(asked);
    EXPECT_EQ(w.core.open_tasks(), 1U) << "the handler is at work on it";
    w.handle_unclaimed(w.unclaimed_keys.at(0));
    EXPECT_EQ(w.core.open_tasks(), 0U);
    EXPECT_EQ(w.steal(), tickets{});
}

TYPED_TEST(dispatch_core, after_a_restart_who_asks_gets_it_even_if_the_handler_returns_first) {
    unhandled<TypeParam> in;
    auto& w = *in.after;
    w.load_replies();
    const int asked = in.ask();
    w.handle_unclaimed(w.unclaimed_keys.at(0));
    EXPECT_EQ(w.core.open_tasks(), 1U);
    w.load_replies();
    EXPECT_EQ(w.end_of(asked).reply, "done");
    w.handle(asked);
    EXPECT_EQ(w.core.open_tasks(), 0U);
}

TYPED_TEST(dispatch_core, a_request_that_comes_while_the_one_before_is_settled_is_one_of_its_own) {
    unhandled<TypeParam> in;
    auto& w = *in.after;
    w.load_replies();
    w.hold_store();
    w.handle_unclaimed(w.unclaimed_keys.at(0));
    const int asked = in.ask();
    w.release_store();
    EXPECT_FALSE(w.has_ended(asked));
    EXPECT_EQ(w.core.open_tasks(), 1U);
}

TYPED_TEST(dispatch_core, who_waits_for_a_kept_reply_when_the_server_is_stopped_is_told_so) {
    for (const bool given : {true, false}) {
        unhandled<TypeParam> in;
        auto& w = *in.after;
        if (given) w.load_replies();
        const int asked = in.ask();
        w.stop_now();
        EXPECT_EQ(w.kind_of(asked), outcome_kind::stopped);
    }
}

/// The node has the task, and its reply is awaited.
template <class World, class Task>
void have_taken(World& w, const Task& asked) {
    const int call = w.poll();
    w.send(asked);
    w.carry(call);
    w.poll();
}

TYPED_TEST(dispatch_core, after_a_restart_a_request_is_given_up_when_its_time_is_over) {
    restart<TypeParam> life;
    auto& w = *life.before;
    auto short_one = request("r");
    short_one.reply_within = 1h;
    have_taken(w, short_one);
    have_taken(w, request("endless"));
    const auto after = life.after(10min);
    after->know({"n"});
    EXPECT_EQ(after->core.open_tasks(), 2U);
    after->advance(49min);
    EXPECT_EQ(after->core.open_tasks(), 2U);
    after->advance(1min);
    EXPECT_EQ(after->core.open_tasks(), 1U);
    after->advance(24h * 365);
    EXPECT_EQ(after->core.open_tasks(), 1U);
}

TYPED_TEST(dispatch_core, after_a_restart_who_asks_again_says_how_long_a_reply_is_awaited) {
    restart<TypeParam> life;
    auto& w = *life.before;
    auto asks = request("r");
    asks.reply_within = 1h;
    have_taken(w, asks);
    asks.reply_within = 3h;
    w.send(asks);
    auto after = life.after(10min);
    after->know({"n"});
    after->advance(2h);
    EXPECT_EQ(after->core.open_tasks(), 1U) << "the second has asked for three hours";
    asks.keep_while_disconnected = true;
    const int again = after->send(asks);
    after->advance(2h);
    EXPECT_EQ(after->core.open_tasks(), 1U);
    after->advance(1h);
    EXPECT_EQ(after->kind_of(again), outcome_kind::expired);
    EXPECT_EQ(after->core.open_tasks(), 0U);
}

/// It remembers each of them, as the store may have them all the same.
TYPED_TEST(dispatch_core, a_store_that_fails_for_long_has_a_bound) {
    ferry::dispatch_limits limits;
    limits.max_queued_tasks = 3;
    world<TypeParam> w(limits);
    w.keeps_replies = true;
    introduce(w);
    const auto fail = [&] {
        w.fail_next(store_op::append);
        w.fail_next(store_op::settle);
        return w.kind_of(w.send());
    };
    for (int i = 0; i < 3; ++i) EXPECT_EQ(fail(), outcome_kind::store_failed);
    const int refused = w.send();
    EXPECT_EQ(w.kind_of(refused), outcome_kind::queue_full);
    EXPECT_EQ(w.end_of(refused).how.text, "the store could not note the end of 3 tasks of node n");
    EXPECT_TRUE(w.accepted.contains(w.send())) << "it was tried, and the store can settle again";
}

TYPED_TEST(dispatch_core, a_store_that_fails_for_long_has_a_bound_for_replies_too) {
    ferry::dispatch_limits limits;
    limits.max_queued_tasks = 1;
    world<TypeParam> w(limits);
    w.keeps_replies = true;
    introduce(w);
    w.fail_next(store_op::append);
    w.fail_next(store_op::settle);
    EXPECT_EQ(w.kind_of(w.send()), outcome_kind::store_failed);
    w.fail_next(store_op::settle);
    EXPECT_EQ(answers_to(w, w.reply("", "nobody's")), std::vector{errc::queue_full});
    EXPECT_EQ(answers_to(w, w.reply("", "nobody's")), std::vector{errc::queue_full});
    EXPECT_EQ(answers_to(w, w.reply("", "nobody's")), std::vector{errc::ok});
}

TYPED_TEST(dispatch_core, where_nothing_may_be_queued_replies_come_all_the_same) {
    ferry::dispatch_limits limits;
    limits.max_queued_tasks = limits.max_all_queued_tasks = 0;
    world<TypeParam> w(limits);
    introduce(w);
    EXPECT_EQ(w.kind_of(w.send()), outcome_kind::queue_full);
    EXPECT_EQ(answers_to(w, w.reply("", "nobody's")), std::vector{errc::ok});
}

TYPED_TEST(dispatch_core, who_asks_while_the_journal_is_acquired_says_how_long_a_reply_is_awaited) {
    restart<TypeParam> life;
    auto& w = *life.before;
    auto asks = request("r");
    asks.reply_within = 1h;
    have_taken(w, asks);
    auto second = life.after(1s);
    second->hold_store();
    second->know({"n"});
    asks.reply_within = 10h;
    asks.keep_while_disconnected = true;
    second->send(asks);
    second->release_store();
    life.before = std::move(second);
    const auto third = life.after(2h);
    third->know({"n"});
    third->advance(1s);
    EXPECT_EQ(third->core.open_tasks(), 1U);
}

TYPED_TEST(dispatch_core, kept_replies_wait_until_the_server_serves) {
    unhandled<TypeParam> in(false);
    auto& w = *in.after;
    w.poll();
    EXPECT_TRUE(w.loads.empty());
    w.serve();
    EXPECT_EQ(w.loads.size(), 1U);
    unhandled<TypeParam> other(false);
    other.after->hold_store();
    other.after->know({"n"});
    other.after->stop();
    other.after->release_store();
    EXPECT_TRUE(other.after->loads.empty()) << "it comes to its end";
    EXPECT_EQ(other.after->drained, 1);
}

TYPED_TEST(dispatch_core, a_request_that_was_repeated_while_its_reply_was_handled_gets_a_reply_of_its_own) {
    restart<TypeParam> life;
    life.before->keeps_replies = true;
    life.before->poll();
    life.before->send(request("r"));
    life.before->reply("r", "first", "n", 7);
    life.before->send(request("r"));
    const auto after = life.after(1s);
    after->keeps_replies = true;
    after->know({"n"});
    after->load_replies();
    after->poll_and_carry();
    after->poll();
    after->reply("r", "second", "n", 8);
    EXPECT_EQ(after->unclaimed, (std::vector<std::string>{"first", "second"}));
    for (const auto key : after->unclaimed_keys) after->handle_unclaimed(key);
    EXPECT_EQ(after->core.open_tasks(), 0U);
    EXPECT_EQ(after->steal(), tickets{});
}

TYPED_TEST(dispatch_core, a_reply_that_comes_before_the_journal_finds_the_request_that_was_repeated) {
    restart<TypeParam> life;
    life.before->poll();
    life.before->send(request("r"));
    life.before->carry(1);
    life.before->poll();
    const auto after = life.after(1s);
    after->keeps_replies = true;
    after->hold_store();
    after->know({"n"});
    auto again = request("r");
    again.keep_while_disconnected = true;
    const int asked = after->send(again);
    after->reply("r", "done", "n", 7);
    after->release_store();
    EXPECT_EQ(after->end_of(asked).reply, "done");
    EXPECT_TRUE(after->accepted.contains(asked));
    after->handle(asked);
    EXPECT_EQ(after->core.open_tasks(), 0U);
}

TYPED_TEST(dispatch_core, after_a_restart_few_replies_are_read_at_a_time) {
    restart<TypeParam> life;
    life.before->keeps_replies = true;
    life.before->poll();
    for (const auto* id : {"a", "b", "c", "d", "e", "f"}) life.before->send(request(id));
    for (const auto* id : {"a", "b", "c", "d", "e", "f"}) life.before->reply(id, id);
    const auto after = life.after(1s);
    after->know({"n"});
    EXPECT_EQ(after->loads.size(), 4U);
    after->load_replies();
    for (std::size_t i = 0; i < 6; ++i) {
        after->handle_unclaimed(after->unclaimed_keys.at(i));
        after->load_replies();
    }
    EXPECT_EQ(after->unclaimed, (std::vector<std::string>{"a", "b", "c", "d", "e", "f"}));
    EXPECT_EQ(after->core.open_tasks(), 0U);
}

TYPED_TEST(dispatch_core, after_a_restart_a_reply_that_can_not_be_read_stays_and_its_senders_are_told) {
    restart<TypeParam> life;
    life.before->keeps_replies = true;
    life.before->poll();
    life.before->send(request("r"));
    life.before->reply("r", "done");
    const auto after = life.after(1s);
    after->know({"n"});
    auto again = request("r");
    again.keep_while_disconnected = true;
    const int asked = after->send(again);
    after->fail_load("no such row");
    EXPECT_EQ(after->kind_of(asked), outcome_kind::store_failed);
    EXPECT_EQ(after->steal_journal().tasks.size(), 1U);
}

TYPED_TEST(dispatch_core, more_nodes_than_it_may_know_are_left_to_the_store) {
    world<TypeParam> w({.max_nodes = 2});
    w.know({"a", "b", "c"});
    EXPECT_EQ(w.all_acquired, 1);
    EXPECT_TRUE(holds(w.warnings, "2 nodes are known already"));
}

TYPED_TEST(dispatch_core, a_task_is_accepted_when_the_store_has_it) {
    world<TypeParam> w;
    w.poll();
    w.fail_next(store_op::append);
    const int failed = w.send();
    EXPECT_EQ(w.kind_of(failed), outcome_kind::store_failed);
    w.hold_store();
    const int a = w.send(request("r"));
    const int withdrawn = w.send();
    w.withdraw(withdrawn);
    EXPECT_TRUE(w.accepted.empty());
    w.release_store();
    EXPECT_EQ(w.accepted, (std::set<int>{a, withdrawn}));
    const int joined = w.send(request("r"));
    EXPECT_TRUE(w.accepted.contains(joined));
    EXPECT_FALSE(w.accepted.contains(failed));
}

TEST(dispatch_core_by_hand, sends_the_content_that_the_store_gives_in_place_of_what_was_sent) {
    late_world w;
    const auto given = std::make_shared<const ferry::payload>(ferry::bytes::own(std::string(25, 'g')));
    w.kept->gives = given;
    const int call = w.poll();
    w.kept->tickets[given.get()] = 1;
    const int a = w.send({.size = 25});
    ASSERT_TRUE(w.polls[call].content);
    EXPECT_EQ(w.polls[call].content, given);
    w.carry(call);
    w.poll();
    EXPECT_EQ(w.kind_of(a), outcome_kind::taken);
    w.kept->gives = nullptr;
}

TYPED_TEST(dispatch_core, after_a_restart_attempts_count_on) {
    restart<TypeParam> life;
    life.before->poll();
    life.before->send();
    life.before->break_off(1);
    life.before->poll();
    const auto after = life.after(1s);
    after->poll();
    ASSERT_EQ(after->attempts.size(), 1U);
    EXPECT_EQ(after->attempts.begin()->second, 3);
    for (int i = 0; i < 3; ++i) {
        after->break_off(static_cast<int>(after->polls.size()));
        after->poll();
    }
    after->break_off(static_cast<int>(after->polls.size()));
    EXPECT_EQ(after->core.open_tasks(), 0U) << "six deliveries, two of them before";
    EXPECT_EQ(after->delivered().size(), 4U);
}

TYPED_TEST(dispatch_core, after_a_restart_ages_go_on_by_the_systems_clock) {
    restart<TypeParam> life;
    introduce(*life.before);
    life.before->send({.expires_after = 10min});
    life.before->send({.expires_after = 30min});
    const int third = life.before->send({.expires_after = 40min});
    const auto after = life.after(20min);
    after->hold_store();
    introduce(*after);
    after->release_store();
    EXPECT_EQ(after->core.open_tasks(), 2U) << "the first expired while no server ran";
    after->advance(10min - 1ns);
    EXPECT_EQ(after->core.open_tasks(), 2U);
    after->advance(1ns);
    EXPECT_EQ(after->core.open_tasks(), 1U);
    EXPECT_EQ(after->carries(after->poll()), third);
}

TYPED_TEST(dispatch_core, after_a_restart_a_taken_request_waits_for_its_reply) {
    restart<TypeParam> life;
    life.before->poll();
    life.before->send(request("r"));
    life.before->carry(1);
    life.before->poll();
    const auto after = life.after(1s);
    after->poll();
    EXPECT_EQ(after->core.get_node("n")->open_requests, 1U);
    EXPECT_TRUE(after->delivered().empty());
    EXPECT_EQ(after->answers[after->reply("r", "late")], errc::ok);
    EXPECT_EQ(after->unclaimed, std::vector<std::string>{"late"}) << "whoever asked is gone";
    EXPECT_EQ(after->core.open_tasks(), 0U);
    EXPECT_EQ(after->steal(), tickets{});
}

TYPED_TEST(dispatch_core, after_a_restart_the_same_request_joins_what_the_journal_holds) {
    for (const bool taken : {false, true}) {
        for (const bool before_the_journal : {false, true}) {
            SCOPED_TRACE(taken ? "taken" : "queued");
            SCOPED_TRACE(before_the_journal);
            restart<TypeParam> life;
            life.before->poll();
            const int asked = life.before->send(request("r"));
            if (taken) life.before->poll_and_carry();
            if (taken) life.before->poll();
            const auto after = life.after(1s);
            if (before_the_journal) after->hold_store();
            after->poll();
            auto options = request("r");
            options.reply_within = 90s;
            const int again = after->send(options);
            const int next = after->send();
            after->release_store();
            if (!taken) {
                after->carry(1);
                after->poll();
            }
            EXPECT_EQ(after->delivered(), taken ? tickets{next} : (tickets{asked, next})) << "once, and at its place";
            EXPECT_EQ(after->core.get_node("n")->queued_tasks, 1U);
            EXPECT_EQ(after->core.get_node("n")->queued_bytes, 25U);
            after->reply("r", "at last");
            EXPECT_EQ(after->end_of(again).reply, "at last");
            EXPECT_EQ(after->core.open_tasks(), 1U);
            EXPECT_EQ(after->steal(), tickets{next});
        }
    }
}

TYPED_TEST(dispatch_core, after_a_restart_whoever_asks_again_waits_no_longer_than_he_said) {
    restart<TypeParam> life;
    life.before->poll();
    life.before->send(request("r"));
    life.before->carry(1);
    life.before->poll();
    const auto after = life.after(1s);
    after->poll();
    auto options = request("r");
    options.reply_within = 90s;
    const int again = after->send(options);
    after->advance(90s);
    EXPECT_EQ(after->kind_of(again), outcome_kind::expired);
    EXPECT_EQ(after->steal(), tickets{});
}

TYPED_TEST(dispatch_core, after_a_restart_a_reply_that_comes_before_the_journal_finds_its_request) {
    restart<TypeParam> life;
    life.before->poll();
    life.before->send(request("r"));
    life.before->carry(1);
    life.before->poll();
    const auto after = life.after(1s);
    after->hold_store();
    after->poll();
    const int reply = after->reply("r", "early");
    after->release_store();
    EXPECT_EQ(after->answers[reply], errc::ok);
    EXPECT_EQ(after->core.open_tasks(), 0U);
    EXPECT_EQ(after->unclaimed, std::vector<std::string>{"early"});
    EXPECT_EQ(after->steal(), tickets{});
}

TYPED_TEST(dispatch_core, after_a_restart_what_waits_for_the_journal_goes_behind_it) {
    restart<TypeParam> life;
    introduce(*life.before);
    const int a = life.before->send();
    const int b = life.before->send();
    const auto after = life.after(1s);
    after->hold_store();
    after->poll();
    const int c = after->send();
    const int d = after->send();
    after->withdraw(c);
    after->release_store();
    EXPECT_EQ(after->kind_of(c), outcome_kind::cancelled);
    after->carry(1);
    after->poll_and_carry();
    after->poll_and_carry();
    after->poll();
    EXPECT_EQ(after->delivered(), (tickets{a, b, d}));
    EXPECT_EQ(after->steal(), tickets{});
}

// --- waking ----------------------------------------------------------------------------------------------------------------

TYPED_TEST(dispatch_core, a_core_with_nothing_to_do_sleeps) {
    world<TypeParam> w;
    w.poll();
    w.advance(24h);
    EXPECT_EQ(w.wakes, 0);
    w.break_off(1);
    w.advance(24h);
    EXPECT_EQ(w.wakes, 1) << "for the disconnection";
}

TYPED_TEST(dispatch_core, one_wake_is_enough_for_many_nodes) {
    world<TypeParam> w;
    for (int i = 0; i < 50; ++i) w.break_off(w.poll("node " + std::to_string(i)));
    w.advance(10s);
    EXPECT_EQ(w.core.reachable_nodes(), 0U);
    EXPECT_EQ(w.wakes, 1);
}

TYPED_TEST(dispatch_core, a_wake_that_comes_too_early_does_no_harm) {
    world<TypeParam> w;
    introduce(w);
    const int t = w.send({.expires_after = 5s});
    for (int i = 0; i < 4; ++i) {
        w.wake_early();
        w.advance(1s);
    }
    EXPECT_FALSE(w.has_ended(t));
    w.advance(1s);
    EXPECT_EQ(w.kind_of(t), outcome_kind::expired);
}

// --- anything at all -------------------------------------------------------------------------------------------------------

struct storm {
    int steps = 2000;
    bool faults = false;  ///< the store fails now and then
    bool thefts = false;  ///< other servers take the journals
};

template <class Store>
class random_run {
public:
    random_run(std::uint32_t seed, storm what)
        : what_(what),
          random_(seed),
          kept_(std::make_shared<ferry_test::disk<Store>>()),
          w_(std::make_unique<world<Store>>(limits(), ferry::bounded_retry{.max_resends = 3}, kept_)) {
        w_->leave_store_late();
        if constexpr (std::is_same_v<Store, ferry_test::late_store>) {
            if (what.faults) kept_->store.fail_often(0.05);
        }
    }

    void run() {
        for (int i = 0; i < what_.steps; ++i) act();
        end();
        if (!what_.faults && !what_.thefts) live_again();
    }

private:
    static ferry::dispatch_limits limits() {
        return {.max_nodes = 3, .max_queued_tasks = 12, .max_queued_bytes = 300, .max_payload_bytes = 60};
    }

    int below(int n) { return std::uniform_int_distribution(0, n - 1)(random_); }
    bool chance(double p) { return std::bernoulli_distribution(p)(random_); }
    std::string node() { return std::string(1, static_cast<char>('a' + below(3))); }

    /// Mostly what a well-behaved node does, so that tasks get far; and everything else now and then.
    void act() {
        auto& w = *w_;
        const int what = below(100);
        if (what < 8) return submit();
        if (what < 22) return poll();
        if (what < 55) return move();
        if (what < 58) return disturb();
        if (what < 62) {
            w.reply("r" + std::to_string(below(6)), "done", chance(0.97) ? node() : "stranger");
        } else if (what < 63) {
            if (!w.keys.empty()) w.withdraw(1 + below(static_cast<int>(w.keys.size())));
        } else if (what < 70) {
            w.advance(std::chrono::milliseconds(chance(0.05) ? below(70'000) : below(400)));
        } else if (what < 71) {
            if (what_.faults && chance(0.3)) w.fail_next(static_cast<store_op>(below(4)));
            if (what_.thefts && chance(0.3)) w.steal(node());
        } else {
            w.advance_store();
        }
    }

    /// A node polls where it has no poll open, and seldom where it has one.
    void poll() {
        const auto id = node();
        const bool open = std::any_of(w_->open_polls.begin(), w_->open_polls.end(),
                                      [&](int call) { return w_->polls[call].node == id && !is_at_its_end(call); });
        if (open && chance(0.95)) return;
        if (chance(0.15)) connections_[id] += "'";
        w_->poll(id, id + connections_[id]);
    }

    bool is_at_its_end(int call) const {
        const auto& p = w_->polls.at(call);
        return p.content && p.chunks == p.chunks_of;
    }

    void submit() {
        auto& w = *w_;
        task_options options;
        options.size = static_cast<std::uint64_t>(below(chance(0.05) ? 80 : 45));
        if (chance(0.5)) options.request_id = "r" + std::to_string(below(6));
        options.wants_reply = !options.request_id.empty() && chance(0.7);
        if (options.wants_reply && chance(0.3)) options.reply_within = std::chrono::milliseconds(below(60'000));
        options.expires_after = std::chrono::milliseconds(below(chance(0.1) ? 5'000 : 600'000));
        options.keep_while_disconnected = chance(0.5);
        w.send(options, chance(0.98) ? node() : "stranger");
    }

    /// A stream goes on by one range, or comes to its end.
    void move() {
        auto& w = *w_;
        for (const int call : w.open_polls) {
            const auto& p = w.polls[call];
            if (!p.outstanding || chance(0.4)) continue;
            return is_at_its_end(call) ? w.close(call, chance(0.85)) : w.range_sent(call);
        }
    }

    /// Something breaks, or an event comes late for a poll that is over.
    void disturb() {
        auto& w = *w_;
        if (w.polls.empty()) return;
        const int call = 1 + below(static_cast<int>(w.polls.size()));
        const bool over = w.polls[call].over;
        if (w.polls[call].outstanding && chance(0.2)) return w.break_off(call, errc::source_failed);
        if (!over && chance(0.3)) return w.break_off(call);
        if (over && chance(0.5)) return w.close(call, chance(0.5));
        if (over) return w.range_sent(call);
    }

    void end() {
        auto& w = *w_;
        w.stop();
        for (int i = 0; i < 50; ++i) {
            move();
            w.advance_store();
        }
        if constexpr (std::is_same_v<Store, ferry_test::late_store>) {
            while (kept_->store.pending() > 0) w.advance_store();
        }
        std::set<ferry::task_key> seen;
        for (const auto& [ticket, key] : w.keys) {
            if (!w.has_ended(ticket) && seen.insert(key).second) open_.push_back(ticket);
        }
        w.stop_now();

        EXPECT_EQ(w.core.open_tasks(), 0U);
        EXPECT_EQ(w.drained, 1);
        EXPECT_EQ(w.ends.size(), static_cast<std::size_t>(kept_->last_ticket)) << "each ticket ends once";
        for (const auto& [call, p] : w.polls) EXPECT_TRUE(p.over) << "poll " << call << " is still open";
        check_deliveries();
        if (!what_.faults && !what_.thefts) check_journals();
    }

    /// First deliveries come in the order of submission, and attempts are the deliveries that were begun.
    void check_deliveries() {
        auto& w = *w_;
        std::map<std::string, int> last;
        std::map<int, int> begun;
        for (const auto& d : w.deliveries) {
            if (begun[d.ticket]++ > 0) continue;
            auto& before = last[w.polls.at(d.call).node];
            EXPECT_LT(before, d.ticket) << "the tasks of node " << w.polls.at(d.call).node << " are out of order";
            before = d.ticket;
        }
        if (what_.thefts) return;
        std::set<ferry::task_key> seen;
        for (const auto& [ticket, key] : w.keys) {
            if (key == 0 || !seen.insert(key).second) continue;  // one that joined has no delivery of its own
            EXPECT_EQ(w.end_of(ticket).how.attempts, begun[ticket]) << "ticket " << ticket;
        }
    }

    /// What was open when the server stopped, and nothing else, is in the journals, in order.
    void check_journals() {
        std::map<std::string, tickets> owed;
        for (const int ticket : open_) owed[w_->end_of(ticket).node].push_back(ticket);
        for (const char* id : {"a", "b", "c"}) EXPECT_EQ(w_->steal(id), owed[id]) << "node " << id;
    }

    /// The next server delivers what is left.
    void live_again() {
        world<Store> next({}, {}, kept_);
        next.now = {std::chrono::steady_clock::time_point(7h), w_->now.system};
        w_.reset();
        for (const char* id : {"a", "b", "c"}) {
            int call = next.poll(id, id);
            while (!next.is_parked(call)) {
                ASSERT_LT(next.polls.size(), 100U);
                next.carry(call);
                call = next.poll(id, id);
            }
        }
        tickets delivered = next.delivered();
        for (const int ticket : delivered) {
            EXPECT_TRUE(std::count(open_.begin(), open_.end(), ticket)) << "ticket " << ticket << " had ended";
            EXPECT_EQ(std::count(delivered.begin(), delivered.end(), ticket), 1);
        }
        std::size_t awaiting = 0;
        next.core.for_each_node([&](const ferry::node_info& n) { awaiting += n.open_requests; });
        EXPECT_EQ(next.core.open_tasks(), awaiting) << "only replies are still awaited";
    }

    storm what_;
    std::mt19937 random_;
    std::shared_ptr<ferry_test::disk<Store>> kept_;
    std::unique_ptr<world<Store>> w_;
    std::map<std::string, std::string> connections_;
    tickets open_;
};

TYPED_TEST(dispatch_core, holds_in_a_storm) {
    for (std::uint32_t seed = 1; seed <= 200 && !this->HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        random_run<TypeParam>(seed, {}).run();
    }
}

TYPED_TEST(dispatch_core, holds_in_a_storm_with_a_store_that_fails) {
    for (std::uint32_t seed = 1; seed <= 60 && !this->HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        random_run<TypeParam>(seed, {.faults = true}).run();
    }
}

TYPED_TEST(dispatch_core, holds_in_a_storm_with_other_servers) {
    for (std::uint32_t seed = 1; seed <= 60 && !this->HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        random_run<TypeParam>(seed, {.faults = true, .thefts = true}).run();
    }
}

}  // namespace
