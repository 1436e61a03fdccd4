// What every agent store must hold to, as a typed suite of GoogleTest:
//
//     #include <ferry/conformance/agent_store.hpp>
//     namespace ferry::conformance {
//     INSTANTIATE_TYPED_TEST_SUITE_P(mine, agent_store_suite, my_store);
//     }
//
// Include only what you instantiate: GoogleTest fails a suite that is there and never instantiated.
//
// It waits for each `done`, whenever and on whichever thread it is called. What outlives a store object is another suite's
// matter: durable_agent_store.hpp.
#pragma once

#include <ferry/conformance/agent_store_journal.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace ferry::conformance {

// --- when `done` is called -------------------------------------------------------------------------------------------

TYPED_TEST_P(agent_store_suite, each_operation_ends_once) {
    const auto before = this->acquire("node").owner;
    const auto all_kinds = [&](errc code) {
        EXPECT_EQ(this->append("node", before, some_task(1)), code);
        EXPECT_EQ(this->update("node", before, some_task(1)), code);
        EXPECT_EQ(this->settle("node", before, 1), code);
    };
    all_kinds(errc::ok);
    this->acquire("node");
    all_kinds(errc::ownership_lost);
    this->finish();
}

// What a store says by `completes_inline`; others may take their time.
TYPED_TEST_P(agent_store_suite, a_store_that_completes_inline_has_told_on_return) {
    const auto owner = this->acquire("node").owner;
    const auto began = [&](const awaited<store_status>& operation) {
        if (store_completes_inline<TypeParam>) {
            EXPECT_EQ(operation.calls(), 1);
        }
        EXPECT_EQ(this->code(operation), errc::ok);
    };
    began(this->begin_append("node", owner, some_task(1)));
    began(this->begin_update("node", owner, some_task(1)));
    began(this->begin_settle("node", owner, 1));
}

// The core may go on as soon as it is told. A store that calls `done` under its lock would wait for itself then.
TYPED_TEST_P(agent_store_suite, another_operation_may_begin_inside_done) {
    struct shared {
        awaited<bool> begun;
        awaited<store_status> operation;
        std::jthread asks;
    };
    const auto owner = this->acquire("node").owner;
    const auto second = std::make_shared<shared>();
    const auto begin_second = [this, owner, second] {
        second->asks = std::jthread([this, owner, second = second.get()] {
            second->operation = this->begin_append("node", owner, some_task(2));
            second->begun.done()(true);
        });
        EXPECT_TRUE(second->begun.get(this->patience() / 2).has_value()) << "it waits for the first, which has ended";
    };
    EXPECT_EQ(this->code(this->begin_append("node", owner, some_task(1), begin_second)), errc::ok);
    ASSERT_TRUE(second->begun.get(this->patience()).has_value());
    EXPECT_EQ(this->code(second->operation), errc::ok);
    this->expect_same(this->acquire("node").tasks, {some_task(1), some_task(2)});
}

// --- at the same time --------------------------------------------------------------------------------------------------

TYPED_TEST_P(agent_store_suite, concurrent_operations_on_different_tasks) {
    constexpr std::size_t threads = 4;
    constexpr std::uint64_t each = 25;
    const auto owner = this->acquire("node").owner;
    std::vector<task_record> left;
    for (std::uint64_t count = 1; count <= threads * each; ++count) {
        auto task = some_task(this->order(owner, count));
        task.attempts += 5;
        task.taken = !task.taken;
        if (count % 2 == 0) left.push_back(task);
    }
    this->in_parallel(threads, [&](std::size_t worker) {
        for (std::uint64_t count = 1 + worker; count <= threads * each; count += threads) {
            auto task = some_task(this->order(owner, count));
            EXPECT_EQ(this->append("node", owner, task), errc::ok);
            task.attempts += 5;
            task.taken = !task.taken;
            EXPECT_EQ(this->update("node", owner, task), errc::ok);
            if (count % 2 != 0) {
                EXPECT_EQ(this->settle("node", owner, task.order), errc::ok);
            }
        }
    });
    this->expect_same(this->acquire("node").tasks, left);
}

TYPED_TEST_P(agent_store_suite, concurrent_owners_get_epochs_of_their_own) {
    constexpr std::size_t threads = 4, each = 10;
    std::vector<std::vector<epoch>> owners(threads);
    this->in_parallel(threads, [&](std::size_t worker) {
        for (std::size_t i = 0; i < each; ++i) owners[worker].push_back(this->acquire("node").owner);
    });
    std::set<epoch> all;
    for (const auto& own : owners) {
        EXPECT_TRUE(std::is_sorted(own.begin(), own.end()));
        all.insert(own.begin(), own.end());
    }
    EXPECT_EQ(all.size(), threads * each) << "an epoch was given twice";
    for (const auto owner : all) {
        EXPECT_EQ(this->append("node", owner, some_task(owner)),
                  owner == *all.rbegin() ? errc::ok : errc::ownership_lost);
    }
}

TYPED_TEST_P(agent_store_suite, concurrent_nodes_do_not_meet) {
    this->in_parallel(4, [&](std::size_t worker) {
        const auto node = "node " + std::to_string(worker);
        for (std::uint64_t round = 1; round <= 10; ++round) {
            const auto journal = this->acquire(node);
            EXPECT_EQ(journal.tasks.size(), round - 1);
            const auto task = some_task(this->order(journal.owner, 1));
            EXPECT_EQ(this->append(node, journal.owner, task), errc::ok);
            EXPECT_EQ(this->append(node, journal.owner, some_task(task.order + 1)), errc::ok);
            EXPECT_EQ(this->settle(node, journal.owner, task.order + 1), errc::ok);
        }
    });
}

// A write either comes before the new owner and is in its journal, or fails.
TYPED_TEST_P(agent_store_suite, concurrent_writes_are_in_the_new_owners_journal_or_fail) {
    constexpr std::size_t threads = 3;
    for (std::uint64_t round = 1; round <= 10; ++round) {
        const auto node = "node " + std::to_string(round);
        const auto owner = this->acquire(node).owner;
        std::vector<std::set<std::uint64_t>> stored(threads);
        std::set<std::uint64_t> taken_over;
        std::latch amid_writes(1);
        this->in_parallel(threads + 1, [&](std::size_t worker) {
            if (worker == threads) {
                amid_writes.wait();
                for (const auto& task : this->acquire(node).tasks) taken_over.insert(task.order);
                return;
            }
            for (std::uint64_t count = 1; count <= 20; ++count) {
                const auto order = this->order(owner, worker * 100 + count);
                const auto code = this->append(node, owner, some_task(order));
                if (code == errc::ok) stored[worker].insert(order);
                if (worker == 0 && count == round) amid_writes.count_down();
                EXPECT_TRUE(code == errc::ok || code == errc::ownership_lost) << testing::PrintToString(code);
            }
        });
        for (std::size_t i = 1; i < threads; ++i) stored[0].merge(stored[i]);
        EXPECT_EQ(taken_over, stored[0]);
    }
}

REGISTER_TYPED_TEST_SUITE_P(agent_store_suite, a_new_journal_is_empty, epochs_rise, an_older_owner_can_not_write,
                            only_the_newest_epoch_can_write, tasks_come_back_with_every_field,
                            content_comes_back_byte_by_byte, content_can_be_read_when_its_task_is_settled,
                            tasks_come_back_by_rising_order, an_update_changes_attempts_and_taken_only,
                            a_reply_comes_back_with_its_task, a_settled_task_never_comes_back,
                            an_operation_may_come_again, many_tasks, nodes_are_apart, each_operation_ends_once,
                            a_store_that_completes_inline_has_told_on_return, another_operation_may_begin_inside_done,
                            concurrent_operations_on_different_tasks, concurrent_owners_get_epochs_of_their_own,
                            concurrent_nodes_do_not_meet, concurrent_writes_are_in_the_new_owners_journal_or_fail);

}  // namespace ferry::conformance
