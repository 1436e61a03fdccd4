// What an agent store must hold to whose journals outlive its objects, on a disk or elsewhere, beside all that every store
// must:
//
//     #include <ferry/conformance/durable_agent_store.hpp>
//     namespace ferry::conformance {
//     INSTANTIATE_TYPED_TEST_SUITE_P(mine, durable_agent_store_suite, my_store);
//     }
//
// Include only what you instantiate: GoogleTest fails a suite that is there and never instantiated.
//
// Its `model_of` makes several objects in a test, one after another, on the same journals; each test begins with none. A
// process that dies is not tried here.
#pragma once

#include <ferry/conformance/agent_store_probe.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace ferry::conformance {

/// Runs over one agent store, whose `model_of` must be specialised.
template <class Store>
class durable_agent_store_suite : public testing::Test, protected agent_store_probe<Store> {
protected:
    void TearDown() override { this->finish(); }
};

TYPED_TEST_SUITE_P(durable_agent_store_suite);

TYPED_TEST_P(durable_agent_store_suite, open_tasks_are_there_again) {
    const auto owner = this->acquire("node").owner;
    const auto other = this->acquire("other").owner;
    std::vector<task_record> tasks{some_task(1), some_task(2), some_task(3), some_task(4)};
    tasks[3].content = std::make_shared<const payload>(bytes::own(std::string(1'000'000, 'c')));
    for (const auto& each : tasks) EXPECT_EQ(this->append("node", owner, each), errc::ok);
    EXPECT_EQ(this->append("other", other, some_task(9)), errc::ok);
    tasks[1].attempts = 7;
    tasks[1].taken = true;
    tasks[1].reply = std::make_shared<const payload>(bytes::copy("a reply"));
    EXPECT_EQ(this->update("node", owner, tasks[1]), errc::ok);
    EXPECT_EQ(this->settle("node", owner, tasks[2].order), errc::ok);
    tasks.erase(tasks.begin() + 2);
    for (int times = 0; times < 2; ++times) {
        this->reopen();
        this->expect_same(this->acquire("node").tasks, tasks);
        this->expect_same(this->acquire("other").tasks, {some_task(9)});
    }
}

TYPED_TEST_P(durable_agent_store_suite, settled_tasks_stay_away) {
    const auto before = this->acquire("node").owner;
    EXPECT_EQ(this->append("node", before, some_task(1)), errc::ok);
    this->reopen();
    const auto journal = this->acquire("node");
    ASSERT_EQ(journal.tasks.size(), 1U);
    EXPECT_EQ(this->settle("node", journal.owner, journal.tasks[0].order), errc::ok);
    this->reopen();
    EXPECT_EQ(this->acquire("node").tasks.size(), 0U);
}

TYPED_TEST_P(durable_agent_store_suite, epochs_go_on_rising) {
    epoch last = 0;
    for (int times = 0; times < 4; ++times) {
        for (int again = 0; again < 2; ++again) {
            const auto owner = this->acquire("node").owner;
            EXPECT_GT(owner, last) << "opened " << times << " times";
            last = owner;
        }
        this->reopen();
    }
}

TYPED_TEST_P(durable_agent_store_suite, the_owner_of_before_can_not_write) {
    const auto before = this->acquire("node").owner;
    EXPECT_EQ(this->append("node", before, some_task(1)), errc::ok);
    this->reopen();
    const auto owner = this->acquire("node").owner;
    EXPECT_EQ(this->append("node", before, some_task(2)), errc::ownership_lost);
    EXPECT_EQ(this->settle("node", before, 1), errc::ownership_lost);
    EXPECT_EQ(this->append("node", owner, some_task(3)), errc::ok);
    this->expect_same(this->acquire("node").tasks, {some_task(1), some_task(3)});
}

// From them a server that starts knows whose journals it is to acquire.
TYPED_TEST_P(durable_agent_store_suite, its_nodes_are_there_again) {
    if constexpr (lasting_agent_store<TypeParam>) {
        EXPECT_EQ(this->nodes().size(), 0U);
        for (const auto& node : {"node", "other", "node"}) this->acquire(node);
        for (int times = 0; times < 2; ++times) {
            this->reopen();
            auto ids = this->nodes();
            std::sort(ids.begin(), ids.end());
            EXPECT_EQ(ids, (std::vector<std::string>{"node", "other"})) << "opened again so often before: " << times;
        }
    }
}

// Else a request whose node never replies would be open for ever. Of a shared store those who post say it.
TYPED_TEST_P(durable_agent_store_suite, how_long_a_reply_is_awaited_is_there_again) {
    if constexpr (!shared_agent_store<TypeParam>) {
        const auto owner = this->acquire("node").owner;
        auto first = some_task(1), endless = some_task(2);
        first.reply_until = first.accepted + std::chrono::hours(1);
        for (const auto& each : {first, endless}) EXPECT_EQ(this->append("node", owner, each), errc::ok);
        const auto expect = [&](auto until) {
            this->reopen();
            const auto tasks = this->acquire("node").tasks;
            ASSERT_EQ(tasks.size(), 2U);
            EXPECT_LT(std::chrono::abs(tasks[0].reply_until - until), std::chrono::milliseconds(1));
            EXPECT_EQ(tasks[1].reply_until, endless.reply_until);
        };
        expect(first.reply_until);
        const auto later = this->acquire("node").owner;
        first.taken = true;
        first.reply_until += std::chrono::hours(1);
        EXPECT_EQ(this->update("node", later, first), errc::ok);
        expect(first.reply_until);
    }
}

REGISTER_TYPED_TEST_SUITE_P(durable_agent_store_suite, open_tasks_are_there_again, settled_tasks_stay_away,
                            epochs_go_on_rising, the_owner_of_before_can_not_write, its_nodes_are_there_again,
                            how_long_a_reply_is_awaited_is_there_again);

}  // namespace ferry::conformance
