#include <ferry/agent_store/memory.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::errc;

ferry::task_record task(std::uint64_t order, std::string request_id = {}) {
    ferry::task_record out;
    out.order = order;
    out.request_id = std::move(request_id);
    out.content = std::make_shared<const ferry::payload>(ferry::bytes::copy("task"));
    out.accepted = std::chrono::system_clock::time_point(std::chrono::hours(1));
    out.expires = std::chrono::system_clock::time_point(std::chrono::hours(2));
    return out;
}

/// Each operation must have told before it returns.
ferry::acquired_journal acquire(ferry::memory_agent_store& store, const std::string& node = "n") {
    ferry::acquired_journal out{{errc::not_started, {}}, 0, {}};
    int told = 0;
    store.acquire(node, [&](ferry::acquired_journal journal) {
        out = std::move(journal);
        ++told;
    });
    EXPECT_EQ(told, 1);
    EXPECT_EQ(out.status.code, errc::ok);
    return out;
}

template <class Ask>
errc code_of(Ask ask) {
    errc out = errc::not_started;
    int told = 0;
    ask([&](const ferry::store_status& status) {
        out = status.code;
        EXPECT_EQ(status.text.empty(), status.code == errc::ok);
        ++told;
    });
    EXPECT_EQ(told, 1);
    return out;
}

errc append(ferry::memory_agent_store& store, ferry::epoch owner, const ferry::task_record& t, const char* node = "n") {
    return code_of([&](auto done) { store.append(node, owner, t, done); });
}
errc update(ferry::memory_agent_store& store, ferry::epoch owner, const ferry::task_record& t, const char* node = "n") {
    return code_of([&](auto done) { store.update(node, owner, t, done); });
}
errc settle(ferry::memory_agent_store& store, ferry::epoch owner, std::uint64_t order, const char* node = "n") {
    return code_of([&](auto done) { store.settle(node, owner, order, done); });
}

std::vector<std::uint64_t> orders(const ferry::acquired_journal& journal) {
    std::vector<std::uint64_t> out;
    for (const auto& t : journal.tasks) out.push_back(t.order);
    return out;
}

using numbers = std::vector<std::uint64_t>;

TEST(memory_agent_store, a_new_journal_is_empty) {
    ferry::memory_agent_store store;
    const auto journal = acquire(store);
    EXPECT_TRUE(journal.tasks.empty());
    EXPECT_GT(journal.owner, 0U);
}

TEST(memory_agent_store, gives_back_what_was_appended_in_order) {
    ferry::memory_agent_store store;
    const auto owner = acquire(store).owner;
    for (const std::uint64_t order : {3U, 1U, 2U}) EXPECT_EQ(append(store, owner, task(order)), errc::ok);
    EXPECT_EQ(orders(acquire(store)), (numbers{1, 2, 3}));
}

TEST(memory_agent_store, keeps_each_field) {
    ferry::memory_agent_store store;
    auto kept = task(7, "r");
    kept.wants_reply = true;
    kept.attempts = 2;
    kept.taken = true;
    EXPECT_EQ(append(store, acquire(store).owner, kept), errc::ok);
    const auto journal = acquire(store);
    ASSERT_EQ(journal.tasks.size(), 1U);
    const auto& back = journal.tasks[0];
    EXPECT_EQ(back.order, 7U);
    EXPECT_EQ(back.request_id, "r");
    EXPECT_TRUE(back.wants_reply);
    EXPECT_EQ(back.content, kept.content);
    EXPECT_EQ(back.attempts, 2);
    EXPECT_TRUE(back.taken);
    EXPECT_EQ(back.accepted, kept.accepted);
    EXPECT_EQ(back.expires, kept.expires);
}

TEST(memory_agent_store, lets_the_content_of_what_is_taken_go) {
    ferry::memory_agent_store store;
    const auto owner = acquire(store).owner;
    auto first = task(1);
    const std::weak_ptr held = first.content;
    EXPECT_EQ(append(store, owner, first), errc::ok);
    first.content.reset();
    ++first.attempts;
    EXPECT_EQ(update(store, owner, first), errc::ok);
    EXPECT_FALSE(held.expired());
    first.taken = true;
    EXPECT_EQ(update(store, owner, first), errc::ok);
    EXPECT_TRUE(held.expired());
}

TEST(memory_agent_store, update_writes_attempts_and_taken_and_nothing_else) {
    ferry::memory_agent_store store;
    const auto owner = acquire(store).owner;
    const auto first = task(1, "r");
    EXPECT_EQ(append(store, owner, first), errc::ok);
    auto changed = task(1, "other");
    changed.content = nullptr;
    changed.attempts = 4;
    EXPECT_EQ(update(store, owner, changed), errc::ok);
    EXPECT_EQ(acquire(store).tasks.at(0).content, first.content);
    changed.taken = true;
    EXPECT_EQ(update(store, acquire(store).owner, changed), errc::ok);
    const auto journal = acquire(store);
    ASSERT_EQ(journal.tasks.size(), 1U);
    EXPECT_EQ(journal.tasks[0].attempts, 4);
    EXPECT_TRUE(journal.tasks[0].taken);
    EXPECT_EQ(journal.tasks[0].request_id, "r");
}

TEST(memory_agent_store, what_is_settled_never_comes_back) {
    ferry::memory_agent_store store;
    const auto owner = acquire(store).owner;
    for (const std::uint64_t order : {1U, 2U}) EXPECT_EQ(append(store, owner, task(order)), errc::ok);
    EXPECT_EQ(settle(store, owner, 1), errc::ok);
    EXPECT_EQ(settle(store, owner, 1), errc::ok);
    EXPECT_EQ(update(store, owner, task(1)), errc::ok);
    EXPECT_EQ(orders(acquire(store)), numbers{2});
}

TEST(memory_agent_store, each_owner_has_a_higher_epoch_and_the_older_ones_write_nothing) {
    ferry::memory_agent_store store;
    const auto older = acquire(store).owner;
    EXPECT_EQ(append(store, older, task(1)), errc::ok);
    const auto newer = acquire(store).owner;
    EXPECT_GT(newer, older);

    auto taken = task(1);
    taken.taken = true;
    EXPECT_EQ(append(store, older, task(2)), errc::ownership_lost);
    EXPECT_EQ(update(store, older, taken), errc::ownership_lost);
    EXPECT_EQ(settle(store, older, 1), errc::ownership_lost);
    EXPECT_EQ(append(store, newer + 1, task(3)), errc::ownership_lost);

    const auto journal = acquire(store);
    EXPECT_EQ(orders(journal), numbers{1});
    EXPECT_FALSE(journal.tasks[0].taken);
}

TEST(memory_agent_store, a_journal_that_nobody_acquired_can_not_be_written) {
    ferry::memory_agent_store store;
    EXPECT_EQ(append(store, 0, task(1)), errc::ownership_lost);
    EXPECT_EQ(append(store, 1, task(1)), errc::ownership_lost);
    EXPECT_EQ(update(store, 0, task(1)), errc::ownership_lost);
    EXPECT_EQ(settle(store, 0, 1), errc::ownership_lost);
    EXPECT_TRUE(acquire(store).tasks.empty());
}

TEST(memory_agent_store, nodes_have_journals_of_their_own) {
    ferry::memory_agent_store store;
    const auto a = acquire(store, "a").owner;
    EXPECT_EQ(append(store, a, task(1), "a"), errc::ok);
    const auto b = acquire(store, "b");
    EXPECT_TRUE(b.tasks.empty());
    EXPECT_EQ(append(store, b.owner, task(1), "b"), errc::ok);
    EXPECT_EQ(settle(store, b.owner, 1, "b"), errc::ok);
    EXPECT_EQ(append(store, a, task(2), "a"), errc::ok);
    EXPECT_EQ(orders(acquire(store, "a")), (numbers{1, 2}));
}

TEST(memory_agent_store, moves_with_its_journals) {
    ferry::memory_agent_store store;
    const auto owner = acquire(store).owner;
    EXPECT_EQ(append(store, owner, task(1)), errc::ok);
    ferry::memory_agent_store moved(std::move(store));
    EXPECT_EQ(append(moved, owner, task(2)), errc::ok);
    EXPECT_EQ(orders(acquire(moved)), (numbers{1, 2}));
}

TEST(memory_agent_store, tells_outside_its_lock) {
    ferry::memory_agent_store store;
    errc inner = errc::not_started;
    store.acquire("n", [&](ferry::acquired_journal journal) {
        store.append("n", journal.owner, task(1), [&](const ferry::store_status&) {
            store.settle("n", journal.owner, 1, [&](const ferry::store_status& status) { inner = status.code; });
        });
    });
    EXPECT_EQ(inner, errc::ok);
}

TEST(memory_agent_store, serves_concurrent_writers) {
    ferry::memory_agent_store store;
    const auto owner = acquire(store).owner;
    std::atomic<int> well = 0;
    std::vector<std::thread> writers;
    for (std::uint64_t w = 0; w < 4; ++w) {
        writers.emplace_back([&, w] {
            const auto count = [&](const ferry::store_status& status) { well += status.code == errc::ok; };
            const std::string own = "node " + std::to_string(w);
            store.acquire(own, [&](const ferry::acquired_journal& journal) { well += journal.tasks.empty(); });
            for (std::uint64_t i = 1; i <= 200; ++i) {
                store.append("n", owner, task(w * 1000 + i), count);
                if (i % 2 == 0) store.settle("n", owner, w * 1000 + i, count);
            }
        });
    }
    for (auto& each : writers) each.join();
    EXPECT_EQ(well, 4 * (1 + 200 + 100));
    EXPECT_EQ(acquire(store).tasks.size(), 400U);
}

}  // namespace
