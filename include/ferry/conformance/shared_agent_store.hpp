// What an agent store must hold to that several servers share, beside all that every store must:
//
//     #include <ferry/conformance/shared_agent_store.hpp>
//     namespace ferry::conformance {
//     INSTANTIATE_TYPED_TEST_SUITE_P(mine, shared_agent_store_suite, my_store);
//     }
//
// Its `model_of` makes several objects that are alive at the same time, on the same journals; each test begins with none:
//
// | expression       | meaning                                                                                           |
// |------------------|---------------------------------------------------------------------------------------------------|
// | `make(server)`   | the store of the server of this name (a `const std::string&`), returned by value. A name comes again |
// |                  | only when the object before is destroyed: the server has died without `leave`, and is there again  |
// | `forget(server)` | called when the server's object is destroyed: it is gone for good. Ends its lease; or does nothing, |
// |                  | where the lease ends within `patience` without it, and yet lasts while a server is opened again    |
//
// `make()` is the plain suites' matter and is not called here. The suite waits for each `done` and each note, whenever and on
// whichever thread they come.
#pragma once

#include <ferry/conformance/shared_agent_store_ends.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ferry::conformance {

// --- servers that come and go --------------------------------------------------------------------------------------------

TYPED_TEST_P(shared_agent_store_suite, the_owner_before_is_told_that_it_is_lost) {
    auto& a = this->open("a");
    auto& b = this->open("b");
    a.acquire("node");
    a.acquire("node");
    EXPECT_EQ(a.post("node", this->posted(1)), errc::ok);
    this->expect_posted(b.acquire("node").tasks, {this->posted(1)});
    EXPECT_TRUE(a.told(note_kind::lost, "node"));
    EXPECT_EQ(a.count(note_kind::lost), 0U) << "its own acquire has taken nothing from it";
    a.acquire("node");
    EXPECT_TRUE(b.told(note_kind::lost, "node"));
}

TYPED_TEST_P(shared_agent_store_suite, journals_of_a_server_that_leaves_are_free) {
    auto& a = this->open("a");
    auto& b = this->open("b");
    auto& c = this->open("c");
    const std::vector<std::string> nodes{"node 1", "node", "node 3"};
    for (const auto& node : nodes) a.acquire(node);
    EXPECT_EQ(b.post("node", this->posted(1)), errc::ok);
    EXPECT_EQ(a.leave(), errc::ok);
    for (const auto& node : nodes) this->expect_one_is_told_free({&b, &c}, node);
    const auto journal = c.acquire("node");
    this->expect_posted(journal.tasks, {this->posted(1)});
    EXPECT_EQ(c.end("node", journal.owner, journal.tasks.at(0).order, this->taken(1)), errc::ok);
    this->expect_ends(b, {{this->posted(1).id, this->taken(1)}});
    EXPECT_EQ(b.count(note_kind::lost) + c.count(note_kind::lost), 0U);
}

TYPED_TEST_P(shared_agent_store_suite, journals_of_a_server_that_is_gone_for_good_are_free) {
    auto& a = this->open("a");
    auto& b = this->open("b");
    auto& c = this->open("c");
    for (const auto& node : {"node 1", "node 2"}) a.acquire(node);
    EXPECT_EQ(b.post("node 2", this->posted(1)), errc::ok);
    this->lose("a");
    for (const auto& node : {"node 1", "node 2"}) this->expect_one_is_told_free({&b, &c}, node);
    this->expect_posted(c.acquire("node 2").tasks, {this->posted(1)});
}

// A server that is told so may itself be gone before it has acquired the journal.
TYPED_TEST_P(shared_agent_store_suite, a_journal_is_offered_again_when_nobody_took_it) {
    auto& a = this->open("a");
    auto& b = this->open("b");
    a.acquire("node");
    EXPECT_EQ(b.post("node", this->posted(1)), errc::ok);
    this->lose("a");
    EXPECT_TRUE(b.told(note_kind::free, "node"));
    auto& c = this->open("c");
    this->lose("b");
    EXPECT_TRUE(c.told(note_kind::free, "node"));
    this->expect_posted(c.acquire("node").tasks, {this->posted(1)});
}

TYPED_TEST_P(shared_agent_store_suite, ends_of_a_server_that_is_gone_for_good_come_to_another) {
    auto& a = this->open("a");
    auto& b = this->open("b");
    const auto owner = a.acquire("node").owner;
    for (const std::uint64_t number : {1U, 2U, 3U}) EXPECT_EQ(b.post("node", this->posted(number)), errc::ok);
    const auto tasks = a.fetch_all("node", owner, 3);
    ASSERT_EQ(tasks.size(), 3U);
    EXPECT_EQ(a.end("node", owner, tasks[0].order, this->replied(1)), errc::ok);
    EXPECT_EQ(a.end("node", owner, tasks[1].order, this->replied(2)), errc::ok);
    EXPECT_EQ(b.acknowledge(this->place_of(b.all_ends(2), this->posted(2).id)), errc::ok);
    this->lose("b");
    const auto with_replies = [&] {
        auto all = a.ends();
        std::erase_if(all, [](const auto& each) { return !each.end.reply; });
        return all;
    };
    const auto first = a.when(note_kind::ends, {}, with_replies, [](const auto& all) { return !all.empty(); });
    this->expect_ends(a, first, {{0, this->replied(1)}});
    // And what ends later.
    EXPECT_EQ(a.end("node", owner, tasks[2].order, this->replied(3)), errc::ok);
    const auto both = a.when(note_kind::ends, {}, with_replies, [](const auto& all) { return all.size() >= 2; });
    this->expect_ends(a, both, {{0, this->replied(1)}, {0, this->replied(3)}});
}

TYPED_TEST_P(shared_agent_store_suite, what_nobody_has_waits_for_who_listens_next) {
    auto* a = &this->open("a");
    const auto owner = a->acquire("node").owner;
    for (const std::uint64_t number : {1U, 2U}) EXPECT_EQ(a->post("node", this->posted(number)), errc::ok);
    const auto tasks = a->fetch_all("node", owner, 2);
    ASSERT_EQ(tasks.size(), 2U);
    EXPECT_EQ(a->end("node", owner, tasks[0].order, this->replied(1)), errc::ok);
    this->lose("a");
    auto& b = this->open("b");
    EXPECT_TRUE(b.told(note_kind::free, "node"));
    this->expect_posted(b.acquire("node").tasks, {this->posted(2)});
    this->expect_ends(b, {{0, this->replied(1)}});
}

// --- nodes ---------------------------------------------------------------------------------------------------------------

TYPED_TEST_P(shared_agent_store_suite, nodes_are_known_to_all) {
    auto& a = this->open("a");
    auto& b = this->open("b");
    const auto since = std::chrono::system_clock::time_point(std::chrono::milliseconds(1'709'208'000'123));
    const auto first = a.acquire("node 1").owner;
    EXPECT_EQ(a.announce(first, {"node 1", node_status::active, since}), errc::ok);
    EXPECT_EQ(a.announce(first, {"node 1", node_status::waiting, since + std::chrono::hours(1)}), errc::ok);
    b.acquire("node 2");
    auto& c = this->open("c");
    for (auto* each : {&a, &b, &c}) {
        auto ids = each->nodes();
        std::sort(ids.begin(), ids.end());
        EXPECT_EQ(ids, (std::vector<std::string>{"node 1", "node 2"})) << each->name();
    }
    ASSERT_EQ(c.seen().size(), 2U);
    for (const auto& each : c.seen()) {
        if (each.id == "node 1") {
            EXPECT_EQ(to_string(each.status), to_string(node_status::waiting));
            EXPECT_EQ(this->millis(each.since), this->millis(since + std::chrono::hours(1)));
        } else {
            EXPECT_EQ(each.id, "node 2");
            EXPECT_EQ(to_string(each.status), to_string(node_status::disconnected));
        }
    }
}

TYPED_TEST_P(shared_agent_store_suite, a_status_is_told_to_the_others) {
    auto& a = this->open("a");
    auto& b = this->open("b");
    auto& c = this->open("c");
    const auto owner = a.acquire("node").owner;
    auto since = std::chrono::system_clock::time_point(std::chrono::milliseconds(1'709'208'000'123));
    for (const auto status : {node_status::active, node_status::waiting, node_status::disconnected}) {
        since += std::chrono::milliseconds(4567);
        EXPECT_EQ(a.announce(owner, {"node", status, since}), errc::ok);
        for (auto* each : {&b, &c}) {
            EXPECT_TRUE(each->told([&](int who, const store_note& note) {
                return who == each->who() && note.what == note_kind::seen && note.node == "node" &&
                       note.status == status && this->millis(note.since) == this->millis(since);
            })) << each->name()
                << ": " << to_string(status);
        }
    }
}

// --- at the same time ----------------------------------------------------------------------------------------------------

// A server may go on as soon as it is told. A store that calls `take` under its lock would wait for itself then.
TYPED_TEST_P(shared_agent_store_suite, another_operation_may_begin_inside_take) {
    struct shared {
        awaited<bool> done;
        std::atomic<bool> first{true};
        std::function<void()> ask;
        std::jthread asks;
    };
    const auto second = std::make_shared<shared>();
    auto& a = this->open("a", [this, second] {
        if (!second->ask || !second->first.exchange(false)) return;
        second->asks = std::jthread([second = second.get()] {
            second->ask();
            second->done.done()(true);
        });
        EXPECT_TRUE(second->done.get(this->patience() / 2).has_value()) << "it waits for the note to be taken";
    });
    const auto owner = a.acquire("node").owner;
    second->ask = [&a, owner] { a.fetch("node", owner); };
    EXPECT_EQ(this->open("b").post("node", this->posted(1)), errc::ok);
    EXPECT_TRUE(second->done.get(this->patience()).has_value());
}

TYPED_TEST_P(shared_agent_store_suite, nothing_is_told_to_a_store_that_is_gone_concurrent) {
    auto& b = this->open("b");
    for (std::uint64_t round = 0; round < 5; ++round) {
        auto& a = this->open("a");
        a.acquire("node");
        std::atomic<bool> begun{false};
        const std::jthread posts([&] {
            for (std::uint64_t i = 1; i <= 10; ++i) {
                EXPECT_EQ(b.post("node", this->posted(100 * round + i)), errc::ok);
                begun = true;
                begun.notify_all();
            }
        });
        begun.wait(false);
        this->close("a");
    }
}

// Four threads on each of two servers, while the owner fetches and ends.
TYPED_TEST_P(shared_agent_store_suite, concurrent_posts_arrive_in_the_order_of_each_sender) {
    constexpr std::uint64_t threads = 4, each = 20;
    auto& a = this->open("a");
    const std::vector<shared_store_probe<TypeParam>*> senders{&this->open("b"), &this->open("c")};
    const auto owner = a.acquire("node").owner;
    std::vector<std::jthread> workers;
    for (std::uint64_t s = 0; s < senders.size(); ++s) {
        for (std::uint64_t t = 0; t < threads; ++t) {
            workers.emplace_back([this, first = ((s * threads) + t) * 1000, to = senders[s]] {
                for (std::uint64_t i = 1; i <= each; ++i) {
                    EXPECT_EQ(to->post("node", this->posted(first + i)), errc::ok);
                }
            });
        }
    }
    std::map<std::uint64_t, std::uint64_t> last;
    std::uint64_t after = 0;
    for (std::uint64_t came = 0; came < senders.size() * threads * each;) {
        const auto tasks = a.fetch_all("node", owner, 1, after);
        ASSERT_FALSE(tasks.empty());
        came += tasks.size();
        for (const auto& task : tasks) {
            ASSERT_GT(task.order, after);
            after = task.order;
            const auto number = this->number_of(task);
            EXPECT_EQ(number % 1000, ++last[number / 1000]) << "of sender " << number / 1000;
            EXPECT_EQ(a.end("node", owner, task.order, this->replied(number)), errc::ok);
        }
    }
    workers.clear();
    for (std::uint64_t s = 0; s < senders.size(); ++s) {
        std::map<std::uint64_t, std::uint64_t> should_be;
        for (std::uint64_t t = 0; t < threads; ++t) {
            for (std::uint64_t i = 1; i <= each; ++i) {
                const auto number = (((s * threads) + t) * 1000) + i;
                should_be[this->posted(number).id] = number;
            }
        }
        const auto all = senders[s]->all_ends(threads * each);
        EXPECT_EQ(all.size(), should_be.size());
        for (const auto& end : all) {
            EXPECT_EQ(should_be.count(end.id), 1U);
            EXPECT_EQ(end.end.reply_number, should_be[end.id]);
        }
    }
    EXPECT_EQ(a.acquire("node").tasks.size(), 0U);
}

// Two servers take the journal from each other, and end what they find. What ends is told once, and stays away.
TYPED_TEST_P(shared_agent_store_suite, concurrent_owners_end_each_task_once) {
    constexpr std::uint64_t count = 60;
    auto& sender = this->open("sender");
    const std::vector<shared_store_probe<TypeParam>*> owners{&this->open("a"), &this->open("b")};
    owners[0]->acquire("node");
    for (std::uint64_t number = 1; number <= count; ++number) {
        EXPECT_EQ(sender.post("node", this->posted(number)), errc::ok);
    }
    std::vector<std::set<std::uint64_t>> ended(owners.size());
    std::vector<std::jthread> workers;
    for (std::size_t i = 0; i < owners.size(); ++i) {
        workers.emplace_back([this, &mine = ended[i], by = owners[i], rounds = i == 0 ? count : count / 4] {
            for (std::uint64_t round = 0; round < rounds; ++round) {  // the first one comes to an end in any case
                const auto journal = by->acquire("node");
                if (journal.tasks.empty()) return;
                for (std::size_t n = 0; n < std::min<std::size_t>(journal.tasks.size(), 5); ++n) {
                    const auto number = this->number_of(journal.tasks[n]);
                    const auto code = by->end("node", journal.owner, journal.tasks[n].order, this->replied(number));
                    const bool new_here = !(code == errc::ok) || mine.insert(number).second;
                    EXPECT_TRUE(new_here) << "it came again";
                    EXPECT_TRUE(code == errc::ok || code == errc::ownership_lost) << testing::PrintToString(code);
                    if (!(code == errc::ok)) break;
                }
            }
        });
    }
    workers.clear();
    EXPECT_EQ(ended[0].size() + ended[1].size(), count) << "ended by both, or by none";
    const auto all = sender.all_ends(count);
    std::set<std::uint64_t> ids;
    for (const auto& end : all) EXPECT_TRUE(ids.insert(end.id).second) << "told twice";
    EXPECT_EQ(ids.size(), count);
}

REGISTER_TYPED_TEST_SUITE_P(
    shared_agent_store_suite, a_posted_task_comes_to_the_owner, the_owner_posts_to_itself,
    posted_tasks_come_behind_all_that_the_journal_has, a_posted_task_can_be_updated, large_contents_are_read_elsewhere,
    a_task_for_a_journal_of_nobody_waits, nothing_is_stored_for_a_node_that_is_not_known, journals_of_nodes_are_apart,
    who_posts_the_same_request_joins, a_request_is_awaited_as_long_as_any_sender_asks, who_joins_may_want_a_reply,
    tasks_without_a_request_do_not_join, an_ended_request_may_be_posted_anew, posting_again_changes_nothing,
    posting_again_what_has_ended_changes_nothing, a_withdrawn_task_is_marked, only_who_posted_can_withdraw,
    an_end_comes_with_every_field, each_server_has_its_own_ends, places_rise, ends_come_until_they_are_acknowledged,
    ends_are_there_when_a_server_is_there_again, ending_again_changes_nothing, an_older_owner_can_not_end,
    only_the_newest_epoch_can_end, a_reply_to_no_task_comes_to_the_owner, a_reply_that_came_before_is_dropped,
    the_next_owner_knows_the_replies, the_owner_before_is_told_that_it_is_lost,
    journals_of_a_server_that_leaves_are_free, journals_of_a_server_that_is_gone_for_good_are_free,
    a_journal_is_offered_again_when_nobody_took_it, ends_of_a_server_that_is_gone_for_good_come_to_another,
    what_nobody_has_waits_for_who_listens_next, nodes_are_known_to_all, a_status_is_told_to_the_others,
    another_operation_may_begin_inside_take, nothing_is_told_to_a_store_that_is_gone_concurrent,
    concurrent_posts_arrive_in_the_order_of_each_sender, concurrent_owners_end_each_task_once);

}  // namespace ferry::conformance
