// The agent stores' suite, first part: what one caller sees who waits for each operation. agent_store.hpp has the rest, and
// is what is to be included.
#pragma once

#include <ferry/conformance/agent_store_probe.hpp>
#include <ferry/frames.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <latch>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// Runs over one agent store. Each test has a store of its own, made by its `model_of`.
template <class Store>
class agent_store_suite : public testing::Test, protected agent_store_probe<Store> {
protected:
    void TearDown() override { this->finish(); }

    /// Orders as the core makes them: the owner's epoch above, a count below.
    static std::uint64_t order(epoch owner, std::uint64_t count) { return (owner << 32) + count; }

    static void in_parallel(std::size_t threads, const std::function<void(std::size_t)>& work) {
        std::latch start(static_cast<std::ptrdiff_t>(threads));
        std::vector<std::jthread> workers;
        for (std::size_t worker = 0; worker < threads; ++worker) {
            workers.emplace_back([&, worker] {
                start.arrive_and_wait();
                work(worker);
            });
        }
    }
};

TYPED_TEST_SUITE_P(agent_store_suite);

// --- owners --------------------------------------------------------------------------------------------------------------

TYPED_TEST_P(agent_store_suite, a_new_journal_is_empty) {
    const auto journal = this->acquire("node");
    EXPECT_EQ(journal.tasks.size(), 0U);
    EXPECT_GE(journal.owner, 1U);
    EXPECT_LT(journal.owner, epoch{1} << 31);
}

TYPED_TEST_P(agent_store_suite, epochs_rise) {
    epoch last = 0;
    for (int i = 0; i < 20; ++i) {
        const auto owner = this->acquire("node").owner;
        ASSERT_GT(owner, last);
        ASSERT_LT(owner, epoch{1} << 31);
        last = owner;
    }
}

TYPED_TEST_P(agent_store_suite, an_older_owner_can_not_write) {
    const auto before = this->acquire("node").owner;
    const auto kept = some_task(this->order(before, 1));
    EXPECT_EQ(this->append("node", before, kept), errc::ok);
    const auto owner = this->acquire("node").owner;
    auto changed = kept;
    changed.attempts += 10;
    changed.taken = !kept.taken;
    EXPECT_EQ(this->append("node", before, some_task(this->order(before, 2))), errc::ownership_lost) << "append";
    EXPECT_EQ(this->update("node", before, changed), errc::ownership_lost) << "update";
    EXPECT_EQ(this->settle("node", before, kept.order), errc::ownership_lost) << "settle";
    EXPECT_EQ(this->append("node", owner, some_task(this->order(owner, 1))), errc::ok) << "the new owner";
    this->expect_same(this->acquire("node").tasks, {kept, some_task(this->order(owner, 1))});
}

TYPED_TEST_P(agent_store_suite, only_the_newest_epoch_can_write) {
    EXPECT_EQ(this->append("never acquired", 1, some_task(1)), errc::ownership_lost);
    EXPECT_EQ(this->acquire("never acquired").tasks.size(), 0U);
    const auto owner = this->acquire("node").owner;
    for (const epoch other : {epoch{0}, owner - 1, owner + 1, (epoch{1} << 31) - 1}) {
        EXPECT_EQ(this->append("node", other, some_task(1)), errc::ownership_lost) << "epoch " << other;
    }
    EXPECT_EQ(this->append("node", owner, some_task(2)), errc::ok);
    this->expect_same(this->acquire("node").tasks, {some_task(2)});
}

// --- tasks ---------------------------------------------------------------------------------------------------------------

TYPED_TEST_P(agent_store_suite, tasks_come_back_with_every_field) {
    const auto owner = this->acquire("node").owner;
    std::vector<task_record> tasks;
    for (std::uint64_t count = 1; count <= 12; ++count) tasks.push_back(some_task(this->order(owner, count)));
    tasks[0].request_id = std::string("\xc3\xa9 '\"%_\\\0\n", 10);
    tasks[1].request_id = std::string(5000, 'r');
    tasks[2].expires = std::chrono::system_clock::time_point::max();
    tasks[3].accepted = tasks[3].expires = std::chrono::system_clock::time_point();
    tasks[4].attempts = std::numeric_limits<int>::max();
    for (const bool wants_reply : {false, true}) {
        for (const bool taken : {false, true}) {
            auto& each = tasks[5 + 2 * std::size_t{wants_reply} + std::size_t{taken}];
            each.wants_reply = wants_reply;
            each.taken = taken;
        }
    }
    tasks[11].order = (std::uint64_t{1} << 63) - 1;
    for (const auto& each : tasks) EXPECT_EQ(this->append("node", owner, each), errc::ok);
    this->expect_same(this->acquire("node").tasks, tasks);
    this->expect_same(this->acquire("node").tasks, tasks);
}

TYPED_TEST_P(agent_store_suite, content_comes_back_byte_by_byte) {
    const auto owner = this->acquire("node").owner;
    std::string large(3'000'000, '\0');
    std::mt19937 random(1);
    for (char& each : large) each = static_cast<char>(random() & 255);
    payload runs;
    for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{1000}})
        runs.append(bytes::copy(large).slice(at, 700));
    std::vector<task_record> tasks;
    for (payload each : {payload(), payload(bytes{0}), std::move(runs), payload(bytes::copy(large))}) {
        tasks.push_back(some_task(this->order(owner, tasks.size() + 1)));
        tasks.back().content = std::make_shared<const payload>(std::move(each));
        EXPECT_EQ(this->append("node", owner, tasks.back()), errc::ok);
    }
    const auto journal = this->acquire("node");
    this->expect_same(journal.tasks, tasks);
    ASSERT_EQ(journal.tasks.size(), tasks.size());
    const auto& content = *journal.tasks.back().content;
    ASSERT_EQ(content.size(), large.size());
    for (const std::uint64_t from : {0U, 1U, 65535U, 65536U, 2'999'999U}) {
        for (const std::uint64_t length : {1U, 1000U, 1'000'000U}) {
            if (from + length > large.size()) continue;
            EXPECT_TRUE(this->read(content, from, length) == large.substr(from, length)) << length << " from " << from;
        }
    }
}

TYPED_TEST_P(agent_store_suite, content_can_be_read_when_its_task_is_settled) {
    const auto owner = this->acquire("node").owner;
    auto task = some_task(this->order(owner, 1));
    task.content = std::make_shared<const payload>(bytes::own(std::string(500'000, 'c')));
    const auto appended = this->wait(this->begin_append("node", owner, task));
    ASSERT_TRUE(appended && appended->code == errc::ok);
    const auto journal = this->acquire("node");
    ASSERT_EQ(journal.tasks.size(), 1U);
    EXPECT_EQ(this->settle("node", journal.owner, task.order), errc::ok);
    EXPECT_EQ(this->acquire("node").tasks.size(), 0U);
    this->expect_same(journal.tasks[0], task);
    this->expect_same_content(*appended, task);
}

TYPED_TEST_P(agent_store_suite, tasks_come_back_by_rising_order) {
    const auto owner = this->acquire("node").owner;
    std::vector<std::uint64_t> orders;
    for (const std::uint64_t count : {9U, 10U, 99U, 100U, 255U, 256U, 65536U, 0xffffffffU}) {
        orders.push_back(this->order(owner, count));
        orders.push_back(this->order(owner + 1, count));
    }
    std::shuffle(orders.begin(), orders.end(), std::mt19937(1));
    for (const auto order : orders) EXPECT_EQ(this->append("node", owner, some_task(order)), errc::ok);
    std::sort(orders.begin(), orders.end());
    std::vector<std::uint64_t> came;
    for (const auto& task : this->acquire("node").tasks) came.push_back(task.order);
    EXPECT_EQ(came, orders);
}

TYPED_TEST_P(agent_store_suite, an_update_changes_attempts_and_taken_only) {
    const auto owner = this->acquire("node").owner;
    std::vector<task_record> tasks{some_task(this->order(owner, 1)), some_task(this->order(owner, 2))};
    for (const auto& each : tasks) EXPECT_EQ(this->append("node", owner, each), errc::ok);
    for (const bool taken : {false, true}) {
        auto other = some_task(this->order(owner, 7));
        other.order = tasks[0].order;
        other.wants_reply = !tasks[0].wants_reply;
        other.content = nullptr;  // as the core leaves it where the task is never sent again
        other.attempts = tasks[0].attempts + 1;
        other.taken = taken;
        EXPECT_EQ(this->update("node", owner, other), errc::ok);
        tasks[0].attempts = other.attempts;
        tasks[0].taken = taken;
    }
    this->expect_same(this->acquire("node").tasks, tasks);
}

TYPED_TEST_P(agent_store_suite, a_reply_comes_back_with_its_task) {
    const auto owner = this->acquire("node").owner;
    std::vector<task_record> tasks;
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{20}, std::size_t{500'000}}) {
        auto task = some_task(this->order(owner, tasks.size() + 1));
        EXPECT_EQ(this->append("node", owner, task), errc::ok);
        task.taken = true;
        EXPECT_EQ(this->update("node", owner, task), errc::ok);
        task.reply = std::make_shared<const payload>(bytes::own(std::string(bytes, 'r')));
        task.reply_number = ~std::uint64_t{0} - bytes;
        EXPECT_EQ(this->update("node", owner, task), errc::ok);
        tasks.push_back(std::move(task));
    }
    for (const std::size_t bytes : {std::size_t{20}, std::size_t{500'000}}) {
        auto alone = some_task(this->order(owner, tasks.size() + 1));
        alone.content = nullptr;
        alone.taken = true;
        alone.reply = std::make_shared<const payload>(bytes::own(std::string(bytes, 'a')));
        alone.reply_number = bytes;
        EXPECT_EQ(this->append("node", owner, alone), errc::ok);
        tasks.push_back(std::move(alone));
    }
    for (const std::size_t i : {std::size_t{1}, std::size_t{3}}) {
        auto without = tasks[i];
        without.content = without.reply = nullptr;
        without.reply_number = 0;
        without.attempts = ++tasks[i].attempts;
        EXPECT_EQ(this->update("node", owner, without), errc::ok) << "which keeps the reply";
    }
    for (const std::size_t i : {std::size_t{2}, std::size_t{4}}) {
        tasks[i].reply = std::make_shared<const payload>(bytes::copy("a later reply"));
        tasks[i].reply_number = 100 + i;
        EXPECT_EQ(this->update("node", owner, tasks[i]), errc::ok);
    }
    this->expect_same(this->acquire("node").tasks, tasks);
    const auto last = this->acquire("node").owner;
    EXPECT_EQ(this->update("node", owner, tasks[1]), errc::ownership_lost);
    for (const std::size_t i : {std::size_t{3}, std::size_t{4}}) {
        EXPECT_EQ(this->settle("node", last, tasks[i].order), errc::ok);
    }
    EXPECT_EQ(this->settle("node", last, tasks[1].order), errc::ok);
    EXPECT_EQ(this->settle("node", last, tasks[2].order), errc::ok);
    tasks.resize(1);
    this->expect_same(this->acquire("node").tasks, tasks);
}

TYPED_TEST_P(agent_store_suite, a_settled_task_never_comes_back) {
    const auto before = this->acquire("node").owner;
    const auto first = some_task(this->order(before, 1)), second = some_task(this->order(before, 2));
    for (const auto& each : {first, second}) EXPECT_EQ(this->append("node", before, each), errc::ok);
    EXPECT_EQ(this->settle("node", before, first.order), errc::ok);
    const auto owner = this->acquire("node").owner;
    this->expect_same(this->acquire("node").tasks, {second});
    EXPECT_GT(owner, before);
}

// What is no sin of the caller's: an answer that was lost makes it ask again.
TYPED_TEST_P(agent_store_suite, an_operation_may_come_again) {
    const auto borne = [](ended how) { return how == errc::ok || how == errc::store_failed; };
    const auto owner = this->acquire("node").owner;
    const auto first = some_task(this->order(owner, 1)), second = some_task(this->order(owner, 2));
    for (const auto& each : {first, second}) EXPECT_EQ(this->append("node", owner, each), errc::ok);
    EXPECT_TRUE(borne(this->append("node", owner, second))) << "appended twice";
    EXPECT_EQ(this->settle("node", owner, first.order), errc::ok);
    EXPECT_TRUE(borne(this->settle("node", owner, first.order))) << "settled twice";
    EXPECT_TRUE(borne(this->update("node", owner, first))) << "updated when it was settled";
    EXPECT_TRUE(borne(this->settle("node", owner, this->order(owner, 3)))) << "settled, but never there";
    EXPECT_TRUE(borne(this->update("node", owner, some_task(this->order(owner, 4))))) << "updated, but never there";
    EXPECT_EQ(this->append("node", owner, some_task(this->order(owner, 5))), errc::ok) << "it goes on";
    this->expect_same(this->acquire("node").tasks, {second, some_task(this->order(owner, 5))});
}

TYPED_TEST_P(agent_store_suite, many_tasks) {
    constexpr std::uint64_t many = 1000;
    const auto owner = this->acquire("node").owner;
    std::vector<awaited<store_status>> begun;
    const auto all_ok = [&] {
        for (const auto& each : std::exchange(begun, {})) ASSERT_EQ(this->code(each), errc::ok);
    };
    std::vector<task_record> left;
    for (std::uint64_t count = 1; count <= many; ++count) {
        begun.push_back(this->begin_append("node", owner, some_task(this->order(owner, count))));
        if (count % 3 != 0) left.push_back(some_task(this->order(owner, count)));
    }
    all_ok();
    for (std::uint64_t count = 3; count <= many; count += 3) {
        begun.push_back(this->begin_settle("node", owner, this->order(owner, count)));
    }
    all_ok();
    this->expect_same(this->acquire("node").tasks, left);
}

TYPED_TEST_P(agent_store_suite, nodes_are_apart) {
    constexpr auto longest = frames::max_node_id_bytes;
    std::vector<std::string> nodes{"a",
                                   "A",
                                   "a ",
                                   " a",
                                   " ",
                                   "a/b",
                                   "a:b",
                                   "a.b",
                                   "../a",
                                   "a'b",
                                   "a\"b",
                                   "a%b",
                                   "a*",
                                   "a_",
                                   "a\nb",
                                   "a{b}",
                                   "0",
                                   "00",
                                   "NULL",
                                   std::string("a\0b", 3),
                                   std::string("a\0", 2),
                                   "\xc3\xa9",
                                   "e\xcc\x81",
                                   "\xf0\x9f\x9a\xb2",
                                   std::string(longest, 'n'),
                                   std::string(longest - 1, 'n') + "m",
                                   std::string(longest - 1, 'n')};
    std::vector<epoch> owners;
    owners.reserve(nodes.size());
    for (const auto& node : nodes) owners.push_back(this->acquire(node).owner);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        auto task = some_task(1);
        task.request_id = nodes[i];
        EXPECT_EQ(this->append(nodes[i], owners[i], task), errc::ok) << shown(nodes[i]);
        EXPECT_EQ(this->append(nodes[i], owners[i], some_task(2)), errc::ok) << shown(nodes[i]);
        if (i % 2 != 0) continue;
        EXPECT_EQ(this->settle(nodes[i], owners[i], 2), errc::ok) << shown(nodes[i]);
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        SCOPED_TRACE("node " + shown(nodes[i]));
        const auto tasks = this->acquire(nodes[i]).tasks;
        ASSERT_EQ(tasks.size(), i % 2 == 0 ? 1U : 2U);
        EXPECT_TRUE(tasks[0].request_id == nodes[i]) << "it has the task of " << shown(tasks[0].request_id);
    }
}

}  // namespace ferry::conformance
