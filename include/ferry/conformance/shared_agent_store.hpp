// What an agent store must hold to that several servers share, beside all that every store must:
//
//     #include <ferry/conformance/shared_agent_store.hpp>
//     namespace ferry::conformance {
//     INSTANTIATE_TYPED_TEST_SUITE_P(mine, shared_agent_store_suite, my_store);
//     }
//
// Include only what you instantiate: GoogleTest fails a suite that is there and never instantiated.
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

#include <ferry/conformance/model_of.hpp>
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

class shared_store_servers : public shared_store_ends {
protected:
    // --- servers that come and go --------------------------------------------------------------------------------------------

    void the_owner_before_is_told_that_it_is_lost() {
        auto& a = open("a");
        auto& b = open("b");
        a.acquire("node");
        a.acquire("node");
        EXPECT_EQ(a.post("node", posted(1)), errc::ok);
        expect_posted(b.acquire("node").tasks, {posted(1)});
        EXPECT_TRUE(a.told(note_kind::lost, "node"));
        EXPECT_EQ(a.count(note_kind::lost), 0U) << "its own acquire has taken nothing from it";
        a.acquire("node");
        EXPECT_TRUE(b.told(note_kind::lost, "node"));
    }

    void journals_of_a_server_that_leaves_are_free() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const std::vector<std::string> nodes{"node 1", "node", "node 3"};
        for (const auto& node : nodes) a.acquire(node);
        EXPECT_EQ(b.post("node", posted(1)), errc::ok);
        EXPECT_EQ(a.leave(), errc::ok);
        for (const auto& node : nodes) expect_one_is_told_free({&b, &c}, node);
        const auto journal = c.acquire("node");
        expect_posted(journal.tasks, {posted(1)});
        EXPECT_EQ(c.end("node", journal.owner, journal.tasks.at(0).order, taken(1)), errc::ok);
        expect_ends(b, {{posted(1).id, taken(1)}});
    }

    // Where nobody else has got them. That it has left says no more than that it is not there now.
    void ends_outlive_a_server_that_leaves() {
        auto& a = open("a");
        const auto owner = a.acquire("node").owner;
        EXPECT_EQ(a.post("node", posted(1)), errc::ok);
        EXPECT_EQ(a.end("node", owner, a.fetch_all("node", owner, 1).at(0).order, replied(1)), errc::ok);
        expect_ends(a, {{posted(1).id, replied(1)}});
        EXPECT_EQ(a.leave(), errc::ok);
        close("a");
        auto& again = open("a");
        const auto all = again.all_ends(1);
        ASSERT_EQ(all.size(), 1U);
        EXPECT_TRUE(all[0].id == posted(1).id || all[0].id == 0) << "a store may have given it up for good, or not";
        expect_ends(again, all, {{all[0].id, replied(1)}});
    }

    void journals_of_a_server_that_is_gone_for_good_are_free() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        for (const auto& node : {"node 1", "node 2"}) a.acquire(node);
        EXPECT_EQ(b.post("node 2", posted(1)), errc::ok);
        lose("a");
        for (const auto& node : {"node 1", "node 2"}) expect_one_is_told_free({&b, &c}, node);
        expect_posted(c.acquire("node 2").tasks, {posted(1)});
    }

    // A server that is told so may itself be gone before it has acquired the journal.
    void a_journal_is_offered_again_when_nobody_took_it() {
        auto& a = open("a");
        auto& b = open("b");
        a.acquire("node");
        EXPECT_EQ(b.post("node", posted(1)), errc::ok);
        lose("a");
        EXPECT_TRUE(b.told(note_kind::free, "node"));
        auto& c = open("c");
        lose("b");
        EXPECT_TRUE(c.told(note_kind::free, "node"));
        expect_posted(c.acquire("node").tasks, {posted(1)});
    }

    void ends_of_a_server_that_is_gone_for_good_come_to_another() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        for (const std::uint64_t number : {1U, 2U, 3U}) EXPECT_EQ(b.post("node", posted(number)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 3);
        ASSERT_EQ(tasks.size(), 3U);
        EXPECT_EQ(a.end("node", owner, tasks[0].order, replied(1)), errc::ok);
        EXPECT_EQ(a.end("node", owner, tasks[1].order, replied(2)), errc::ok);
        EXPECT_EQ(b.acknowledge(place_of(b.all_ends(2), posted(2).id)), errc::ok);
        lose("b");
        const auto with_replies = [&] {
            auto all = a.ends();
            std::erase_if(all, [](const auto& each) { return !each.end.reply; });
            return all;
        };
        const auto first = a.when(note_kind::ends, {}, with_replies, [](const auto& all) { return !all.empty(); });
        expect_ends(a, first, {{0, replied(1)}});
        // And what ends later.
        EXPECT_EQ(a.end("node", owner, tasks[2].order, replied(3)), errc::ok);
        const auto both = a.when(note_kind::ends, {}, with_replies, [](const auto& all) { return all.size() >= 2; });
        expect_ends(a, both, {{0, replied(1)}, {0, replied(3)}});
    }

    void what_nobody_has_waits_for_who_listens_next() {
        auto* a = &open("a");
        const auto owner = a->acquire("node").owner;
        for (const std::uint64_t number : {1U, 2U}) EXPECT_EQ(a->post("node", posted(number)), errc::ok);
        const auto tasks = a->fetch_all("node", owner, 2);
        ASSERT_EQ(tasks.size(), 2U);
        EXPECT_EQ(a->end("node", owner, tasks[0].order, replied(1)), errc::ok);
        lose("a");
        auto& b = open("b");
        EXPECT_TRUE(b.told(note_kind::free, "node"));
        expect_posted(b.acquire("node").tasks, {posted(2)});
        expect_ends(b, {{0, replied(1)}});
    }

    // --- nodes ---------------------------------------------------------------------------------------------------------------

    void nodes_are_known_to_all() {
        auto& a = open("a");
        auto& b = open("b");
        const auto since = std::chrono::system_clock::time_point(std::chrono::milliseconds(1'709'208'000'123));
        const auto first = a.acquire("node 1").owner;
        EXPECT_EQ(a.announce(first, {"node 1", node_status::active, since}), errc::ok);
        EXPECT_EQ(a.announce(first, {"node 1", node_status::waiting, since + std::chrono::hours(1)}), errc::ok);
        b.acquire("node 2");
        auto& c = open("c");
        for (auto* each : {&a, &b, &c}) {
            auto ids = each->nodes();
            std::sort(ids.begin(), ids.end());
            EXPECT_EQ(ids, (std::vector<std::string>{"node 1", "node 2"})) << each->name();
        }
        ASSERT_EQ(c.seen().size(), 2U);
        for (const auto& each : c.seen()) {
            if (each.id == "node 1") {
                EXPECT_EQ(to_string(each.status), to_string(node_status::waiting));
                EXPECT_EQ(millis(each.since), millis(since + std::chrono::hours(1)));
            } else {
                EXPECT_EQ(each.id, "node 2");
                EXPECT_EQ(to_string(each.status), to_string(node_status::disconnected));
            }
        }
    }

    void a_status_is_told_to_the_others() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const auto owner = a.acquire("node").owner;
        auto since = std::chrono::system_clock::time_point(std::chrono::milliseconds(1'709'208'000'123));
        for (const auto status : {node_status::active, node_status::waiting, node_status::disconnected}) {
            since += std::chrono::milliseconds(4567);
            EXPECT_EQ(a.announce(owner, {"node", status, since}), errc::ok);
            for (auto* each : {&b, &c}) {
                EXPECT_TRUE(each->told([&](int who, const store_note& note) {
                    return who == each->who() && note.what == note_kind::seen && note.node == "node" &&
                           note.status == status && millis(note.since) == millis(since);
                })) << each->name()
                    << ": " << to_string(status);
            }
        }
    }

    // --- at the same time ----------------------------------------------------------------------------------------------------

    // A server may go on as soon as it is told. A store that calls `take` under a lock would wait for itself then; one that
    // calls it on the thread that performs operations may perform this one afterwards.
    void another_operation_may_begin_inside_take() {
        struct shared {
            awaited<bool> done;
            std::atomic<bool> next_asks{false};
            std::function<void()> ask;
            std::jthread asks;
        };
        const auto second = std::make_shared<shared>();
        auto& a = open("a", [this, second] {
            if (!second->next_asks.exchange(false)) return;
            second->asks = std::jthread([second = second.get()] {
                second->ask();
                second->done.done()(true);
            });
            EXPECT_TRUE(second->done.get(patience() / 2).has_value()) << "it waits for the note to be taken";
        });
        a.acquire("node");
        second->ask = [&a] { a.begin_ends(); };
        second->next_asks = true;
        EXPECT_EQ(open("b").post("node", posted(1)), errc::ok);
        EXPECT_TRUE(second->done.get(patience()).has_value());
    }

    void nothing_is_told_to_a_store_that_is_gone_concurrent() {
        auto& b = open("b");
        for (std::uint64_t round = 0; round < 5; ++round) {
            auto& a = open("a");
            a.acquire("node");
            std::atomic<bool> begun{false};
            const std::jthread posts([&] {
                for (std::uint64_t i = 1; i <= 10; ++i) {
                    EXPECT_EQ(b.post("node", posted(100 * round + i)), errc::ok);
                    begun = true;
                    begun.notify_all();
                }
            });
            begun.wait(false);
            close("a");
        }
    }

    // Four threads on each of two servers, while the owner fetches and ends.
    void concurrent_posts_arrive_in_the_order_of_each_sender() {
        constexpr std::uint64_t threads = 4, each = 20;
        auto& a = open("a");
        const std::vector<server*> senders{&open("b"), &open("c")};
        const auto owner = a.acquire("node").owner;
        std::vector<std::jthread> workers;
        for (std::uint64_t s = 0; s < senders.size(); ++s) {
            for (std::uint64_t t = 0; t < threads; ++t) {
                workers.emplace_back([first = ((s * threads) + t) * 1000, to = senders[s]] {
                    for (std::uint64_t i = 1; i <= each; ++i) {
                        EXPECT_EQ(to->post("node", posted(first + i)), errc::ok);
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
                const auto number = number_of(task);
                EXPECT_EQ(number % 1000, ++last[number / 1000]) << "of sender " << number / 1000;
                EXPECT_EQ(a.end("node", owner, task.order, replied(number)), errc::ok);
            }
        }
        workers.clear();
        for (std::uint64_t s = 0; s < senders.size(); ++s) {
            std::map<std::uint64_t, std::uint64_t> should_be;
            for (std::uint64_t t = 0; t < threads; ++t) {
                for (std::uint64_t i = 1; i <= each; ++i) {
                    const auto number = (((s * threads) + t) * 1000) + i;
                    should_be[posted(number).id] = number;
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
    void concurrent_owners_end_each_task_once() {
        constexpr std::uint64_t count = 60;
        auto& sender = open("sender");
        const std::vector<server*> owners{&open("a"), &open("b")};
        owners[0]->acquire("node");
        for (std::uint64_t number = 1; number <= count; ++number) {
            EXPECT_EQ(sender.post("node", posted(number)), errc::ok);
        }
        std::vector<std::set<std::uint64_t>> ended(owners.size());
        std::vector<std::jthread> workers;
        for (std::size_t i = 0; i < owners.size(); ++i) {
            workers.emplace_back([&mine = ended[i], by = owners[i], rounds = i == 0 ? count : count / 4] {
                for (std::uint64_t round = 0; round < rounds; ++round) {  // the first one comes to an end in any case
                    const auto journal = by->acquire("node");
                    if (journal.tasks.empty()) return;
                    for (std::size_t n = 0; n < std::min<std::size_t>(journal.tasks.size(), 5); ++n) {
                        const auto number = number_of(journal.tasks[n]);
                        const auto code = by->end("node", journal.owner, journal.tasks[n].order, replied(number));
                        const bool new_here = code != errc::ok || mine.insert(number).second;
                        EXPECT_TRUE(new_here) << "it came again";
                        EXPECT_TRUE(code == errc::ok || code == errc::ownership_lost) << testing::PrintToString(code);
                        if (code != errc::ok) break;
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
};

/// Runs over one shared store, whose `model_of` must be specialised.
template <class Store>
class shared_agent_store_suite : public shared_store_servers {
    static_assert(shared_agent_store<Store>, "the suite runs over a store that is shared: see ferry/agent_store.hpp");

    std::unique_ptr<any_shared_store> make(const std::string& name) override {
        return std::make_unique<some_shared_store<Store>>([&] { return models_.make(name); });
    }
    void forget(const std::string& name) override { models_.forget(name); }
    std::chrono::milliseconds patience() const override { return detail::patience_of<Store>(); }

    model_of<Store> models_;
};

TYPED_TEST_SUITE_P(shared_agent_store_suite);

TYPED_TEST_P(shared_agent_store_suite, a_posted_task_comes_to_the_owner) {
    this->shared_store_servers::a_posted_task_comes_to_the_owner();
}
TYPED_TEST_P(shared_agent_store_suite, the_owner_posts_to_itself) {
    this->shared_store_servers::the_owner_posts_to_itself();
}
TYPED_TEST_P(shared_agent_store_suite, posted_tasks_come_behind_all_that_the_journal_has) {
    this->shared_store_servers::posted_tasks_come_behind_all_that_the_journal_has();
}
TYPED_TEST_P(shared_agent_store_suite, a_posted_task_can_be_updated) {
    this->shared_store_servers::a_posted_task_can_be_updated();
}
TYPED_TEST_P(shared_agent_store_suite, large_contents_are_read_elsewhere) {
    this->shared_store_servers::large_contents_are_read_elsewhere();
}
TYPED_TEST_P(shared_agent_store_suite, a_task_for_a_journal_of_nobody_waits) {
    this->shared_store_servers::a_task_for_a_journal_of_nobody_waits();
}
TYPED_TEST_P(shared_agent_store_suite, nothing_is_stored_for_a_node_that_is_not_known) {
    this->shared_store_servers::nothing_is_stored_for_a_node_that_is_not_known();
}
TYPED_TEST_P(shared_agent_store_suite, journals_of_nodes_are_apart) {
    this->shared_store_servers::journals_of_nodes_are_apart();
}
TYPED_TEST_P(shared_agent_store_suite, who_posts_the_same_request_joins) {
    this->shared_store_servers::who_posts_the_same_request_joins();
}
TYPED_TEST_P(shared_agent_store_suite, a_request_is_awaited_as_long_as_any_sender_asks) {
    this->shared_store_servers::a_request_is_awaited_as_long_as_any_sender_asks();
}
TYPED_TEST_P(shared_agent_store_suite, who_joins_may_want_a_reply) {
    this->shared_store_servers::who_joins_may_want_a_reply();
}
TYPED_TEST_P(shared_agent_store_suite, tasks_without_a_request_do_not_join) {
    this->shared_store_servers::tasks_without_a_request_do_not_join();
}
TYPED_TEST_P(shared_agent_store_suite, an_ended_request_may_be_posted_anew) {
    this->shared_store_servers::an_ended_request_may_be_posted_anew();
}
TYPED_TEST_P(shared_agent_store_suite, posting_again_changes_nothing) {
    this->shared_store_servers::posting_again_changes_nothing();
}
TYPED_TEST_P(shared_agent_store_suite, posting_again_what_has_ended_changes_nothing) {
    this->shared_store_servers::posting_again_what_has_ended_changes_nothing();
}
TYPED_TEST_P(shared_agent_store_suite, a_withdrawn_task_is_marked) {
    this->shared_store_servers::a_withdrawn_task_is_marked();
}

TYPED_TEST_P(shared_agent_store_suite, nobody_joins_what_was_withdrawn) {
    this->shared_store_servers::nobody_joins_what_was_withdrawn();
}
TYPED_TEST_P(shared_agent_store_suite, only_who_posted_can_withdraw) {
    this->shared_store_servers::only_who_posted_can_withdraw();
}
TYPED_TEST_P(shared_agent_store_suite, an_end_comes_with_every_field) {
    this->shared_store_servers::an_end_comes_with_every_field();
}
TYPED_TEST_P(shared_agent_store_suite, each_server_has_its_own_ends) {
    this->shared_store_servers::each_server_has_its_own_ends();
}
TYPED_TEST_P(shared_agent_store_suite, places_rise) { this->shared_store_servers::places_rise(); }
TYPED_TEST_P(shared_agent_store_suite, ends_come_until_they_are_acknowledged) {
    this->shared_store_servers::ends_come_until_they_are_acknowledged();
}
TYPED_TEST_P(shared_agent_store_suite, ends_are_there_when_a_server_is_there_again) {
    this->shared_store_servers::ends_are_there_when_a_server_is_there_again();
}
TYPED_TEST_P(shared_agent_store_suite, ending_again_changes_nothing) {
    this->shared_store_servers::ending_again_changes_nothing();
}
TYPED_TEST_P(shared_agent_store_suite, an_older_owner_can_not_end) {
    this->shared_store_servers::an_older_owner_can_not_end();
}
TYPED_TEST_P(shared_agent_store_suite, only_the_newest_epoch_can_end) {
    this->shared_store_servers::only_the_newest_epoch_can_end();
}
TYPED_TEST_P(shared_agent_store_suite, a_reply_to_no_task_comes_to_the_owner) {
    this->shared_store_servers::a_reply_to_no_task_comes_to_the_owner();
}
TYPED_TEST_P(shared_agent_store_suite, a_reply_that_came_before_is_dropped) {
    this->shared_store_servers::a_reply_that_came_before_is_dropped();
}
TYPED_TEST_P(shared_agent_store_suite, the_next_owner_knows_the_replies) {
    this->shared_store_servers::the_next_owner_knows_the_replies();
}
TYPED_TEST_P(shared_agent_store_suite, the_owner_before_is_told_that_it_is_lost) {
    this->shared_store_servers::the_owner_before_is_told_that_it_is_lost();
}
TYPED_TEST_P(shared_agent_store_suite, journals_of_a_server_that_leaves_are_free) {
    this->shared_store_servers::journals_of_a_server_that_leaves_are_free();
}
TYPED_TEST_P(shared_agent_store_suite, ends_outlive_a_server_that_leaves) {
    this->shared_store_servers::ends_outlive_a_server_that_leaves();
}
TYPED_TEST_P(shared_agent_store_suite, journals_of_a_server_that_is_gone_for_good_are_free) {
    this->shared_store_servers::journals_of_a_server_that_is_gone_for_good_are_free();
}
TYPED_TEST_P(shared_agent_store_suite, a_journal_is_offered_again_when_nobody_took_it) {
    this->shared_store_servers::a_journal_is_offered_again_when_nobody_took_it();
}
TYPED_TEST_P(shared_agent_store_suite, ends_of_a_server_that_is_gone_for_good_come_to_another) {
    this->shared_store_servers::ends_of_a_server_that_is_gone_for_good_come_to_another();
}
TYPED_TEST_P(shared_agent_store_suite, what_nobody_has_waits_for_who_listens_next) {
    this->shared_store_servers::what_nobody_has_waits_for_who_listens_next();
}
TYPED_TEST_P(shared_agent_store_suite, nodes_are_known_to_all) { this->shared_store_servers::nodes_are_known_to_all(); }
TYPED_TEST_P(shared_agent_store_suite, a_status_is_told_to_the_others) {
    this->shared_store_servers::a_status_is_told_to_the_others();
}
TYPED_TEST_P(shared_agent_store_suite, another_operation_may_begin_inside_take) {
    this->shared_store_servers::another_operation_may_begin_inside_take();
}
TYPED_TEST_P(shared_agent_store_suite, nothing_is_told_to_a_store_that_is_gone_concurrent) {
    this->shared_store_servers::nothing_is_told_to_a_store_that_is_gone_concurrent();
}
TYPED_TEST_P(shared_agent_store_suite, concurrent_posts_arrive_in_the_order_of_each_sender) {
    this->shared_store_servers::concurrent_posts_arrive_in_the_order_of_each_sender();
}
TYPED_TEST_P(shared_agent_store_suite, concurrent_owners_end_each_task_once) {
    this->shared_store_servers::concurrent_owners_end_each_task_once();
}

REGISTER_TYPED_TEST_SUITE_P(
    shared_agent_store_suite, a_posted_task_comes_to_the_owner, the_owner_posts_to_itself,
    posted_tasks_come_behind_all_that_the_journal_has, a_posted_task_can_be_updated, large_contents_are_read_elsewhere,
    a_task_for_a_journal_of_nobody_waits, nothing_is_stored_for_a_node_that_is_not_known, journals_of_nodes_are_apart,
    who_posts_the_same_request_joins, a_request_is_awaited_as_long_as_any_sender_asks, who_joins_may_want_a_reply,
    tasks_without_a_request_do_not_join, an_ended_request_may_be_posted_anew, posting_again_changes_nothing,
    posting_again_what_has_ended_changes_nothing, a_withdrawn_task_is_marked, nobody_joins_what_was_withdrawn,
    only_who_posted_can_withdraw, an_end_comes_with_every_field, each_server_has_its_own_ends, places_rise,
    ends_come_until_they_are_acknowledged, ends_are_there_when_a_server_is_there_again, ending_again_changes_nothing,
    an_older_owner_can_not_end, only_the_newest_epoch_can_end, a_reply_to_no_task_comes_to_the_owner,
    a_reply_that_came_before_is_dropped, the_next_owner_knows_the_replies, the_owner_before_is_told_that_it_is_lost,
    journals_of_a_server_that_leaves_are_free, ends_outlive_a_server_that_leaves,
    journals_of_a_server_that_is_gone_for_good_are_free, a_journal_is_offered_again_when_nobody_took_it,
    ends_of_a_server_that_is_gone_for_good_come_to_another, what_nobody_has_waits_for_who_listens_next,
    nodes_are_known_to_all, a_status_is_told_to_the_others, another_operation_may_begin_inside_take,
    nothing_is_told_to_a_store_that_is_gone_concurrent, concurrent_posts_arrive_in_the_order_of_each_sender,
    concurrent_owners_end_each_task_once);

}  // namespace ferry::conformance
