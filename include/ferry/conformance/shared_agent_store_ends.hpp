// The shared stores' suite, second part: how the ends of tasks come back. shared_agent_store.hpp has the rest, and is what
// is to be included.
#pragma once

#include <ferry/conformance/shared_agent_store_posts.hpp>
#include <ferry/frames.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ferry::conformance {

class shared_store_ends : public shared_store_posts {
protected:
    // --- ends ----------------------------------------------------------------------------------------------------------------

    void an_end_comes_with_every_field() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        std::vector<task_end> ends{replied(1), replied(2), replied(3), taken(4)};
        ends[0].reply_number = ~std::uint64_t{0};
        ends[1].reply = std::make_shared<const payload>();
        ends[2].reply = std::make_shared<const payload>(bytes::own(std::string(500'000, 'r')));
        ends[3].request_id = std::string("\xc3\xa9 '\"%_\\\0\n", 10);
        for (const auto kind : {outcome_kind::expired, outcome_kind::retries_exhausted, outcome_kind::refused,
                                outcome_kind::too_large, outcome_kind::not_permitted, outcome_kind::store_failed,
                                outcome_kind::cancelled, outcome_kind::stopped}) {
            ends.push_back(taken(ends.size() + 1));
            ends.back().how = {kind, static_cast<errc>(ends.size()), "why it is so\n" + std::string(to_string(kind)),
                               static_cast<int>(1'000'000 + ends.size())};
        }
        ends_by_id should_be;
        for (std::uint64_t number = 1; number <= ends.size(); ++number) {
            EXPECT_EQ(b.post("node", posted(number)), errc::ok);
            should_be.emplace_back(posted(number).id, ends[number - 1]);
        }
        const auto tasks = a.fetch_all("node", owner, ends.size());
        ASSERT_EQ(tasks.size(), ends.size());
        for (std::size_t i = 0; i < ends.size(); ++i) {
            EXPECT_EQ(a.end("node", owner, tasks[i].order, ends[i]), errc::ok);
        }
        EXPECT_TRUE(b.told(note_kind::ends));
        expect_ends(b, should_be);
        EXPECT_EQ(a.acquire("node").tasks.size(), 0U);
        EXPECT_EQ(a.ends().size(), 0U) << "it has posted nothing";
    }

    void each_server_has_its_own_ends() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const auto owner = a.acquire("node").owner;
        const auto id = posted(1).id;
        EXPECT_EQ(b.post("node", posted(1, "b's")), errc::ok);
        EXPECT_EQ(c.post("node", posted(1, "c's")), errc::ok) << "of the same id, by chance";
        EXPECT_EQ(c.post("node", posted(2)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 3);
        ASSERT_EQ(tasks.size(), 3U);
        for (std::size_t i = 0; i < 3; ++i) {
            EXPECT_EQ(a.end("node", owner, tasks[i].order, replied(i + 1)), errc::ok);
        }
        expect_ends(b, {{id, replied(1)}});
        expect_ends(c, {{id, replied(2)}, {posted(2).id, replied(3)}});
        EXPECT_EQ(b.acknowledge(b.all_ends(1).at(0).place), errc::ok);
        EXPECT_EQ(b.ends().size(), 0U);
        expect_ends(c, {{id, replied(2)}, {posted(2).id, replied(3)}});
    }

    void places_rise() {
        auto& a = open("a");
        const auto owner = a.acquire("node").owner;
        std::uint64_t last = 0, order = 0;
        for (std::uint64_t number = 1; number <= 12; ++number) {
            EXPECT_EQ(a.post("node", posted(number)), errc::ok);
            order = a.fetch_all("node", owner, 1, order).at(0).order;
            EXPECT_EQ(a.end("node", owner, order, taken(number)), errc::ok);
            const auto ends = a.when(
                note_kind::ends, {}, [&] { return a.ends(last); }, [](const auto& all) { return !all.empty(); });
            ASSERT_EQ(ends.size(), 1U);
            ASSERT_GT(ends[0].place, last);
            EXPECT_EQ(ends[0].id, posted(number).id);
            last = ends[0].place;
            if (number % 3 == 0) {  // the last one is no more: it counts all the same
                EXPECT_EQ(a.acknowledge(last), errc::ok);
            }
        }
        EXPECT_EQ(a.ends().size(), 8U);
        EXPECT_EQ(a.ends(last).size(), 0U);
    }

    void ends_come_until_they_are_acknowledged() {
        auto& a = open("a");
        auto* b = &open("b");
        const auto owner = a.acquire("node").owner;
        for (const std::uint64_t number : {1U, 2U, 3U}) EXPECT_EQ(b->post("node", posted(number)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 3);
        ASSERT_EQ(tasks.size(), 3U);
        for (std::size_t i = 0; i < 3; ++i) {
            EXPECT_EQ(a.end("node", owner, tasks[i].order, replied(i + 1)), errc::ok);
        }
        const auto all = b->all_ends(3);
        ASSERT_EQ(all.size(), 3U);
        EXPECT_EQ(b->ends().size(), 3U) << "asked for again";
        for (int times = 0; times < 2; ++times) {
            EXPECT_EQ(b->acknowledge(all[1].place), errc::ok) << "acknowledged so often before: " << times;
            expect_ends(*b, {{all[0].id, replied(1)}, {all[2].id, replied(3)}});
        }
        close("b");
        b = &open("b");
        expect_ends(*b, {{all[0].id, replied(1)}, {all[2].id, replied(3)}});
        for (const auto& each : b->all_ends(2)) EXPECT_EQ(b->acknowledge(each.place), errc::ok);
        close("b");
        EXPECT_EQ(open("b").ends().size(), 0U);
    }

    void ends_are_there_when_a_server_is_there_again() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        for (const std::uint64_t number : {1U, 2U}) EXPECT_EQ(b.post("node", posted(number)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 2);
        ASSERT_EQ(tasks.size(), 2U);
        EXPECT_EQ(a.end("node", owner, tasks[0].order, replied(1)), errc::ok);
        expect_ends(b, {{tasks[0].id, replied(1)}});
        close("b");
        EXPECT_EQ(a.end("node", owner, tasks[1].order, taken(2)), errc::ok) << "while it is away";
        auto& again = open("b");
        expect_ends(again, {{tasks[0].id, replied(1)}, {tasks[1].id, taken(2)}});
        EXPECT_EQ(a.ends().size(), 0U);
    }

    void ending_again_changes_nothing() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        for (const std::uint64_t number : {1U, 2U, 3U}) EXPECT_EQ(b.post("node", posted(number)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 3);
        ASSERT_EQ(tasks.size(), 3U);
        for (int times = 0; times < 2; ++times) {
            EXPECT_EQ(a.end("node", owner, tasks[0].order, replied(1)), errc::ok) << times;
            EXPECT_EQ(a.end("node", owner, tasks[1].order, taken(2)), errc::ok) << times;
        }
        EXPECT_EQ(a.end("node", owner, tasks[2].order + 100, taken(7)), errc::ok) << "never there";
        EXPECT_EQ(a.settle("node", owner, tasks[2].order), errc::ok);
        EXPECT_EQ(a.end("node", owner, tasks[2].order, taken(3)), errc::ok) << "settled without an end";
        expect_ends(b, {{tasks[0].id, replied(1)}, {tasks[1].id, taken(2)}});
        EXPECT_EQ(a.acquire("node").tasks.size(), 0U);
    }

    // --- owners --------------------------------------------------------------------------------------------------------------

    void an_older_owner_can_not_end() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const auto since = std::chrono::system_clock::time_point(std::chrono::milliseconds(1'709'208'000'123));
        const auto before = a.acquire("node").owner;
        EXPECT_EQ(b.post("node", posted(1)), errc::ok);
        const auto order = a.fetch_all("node", before, 1).at(0).order;
        const auto owner = c.acquire("node").owner;
        EXPECT_EQ(a.fetch_code("node", before), errc::ownership_lost) << "fetch";
        EXPECT_EQ(a.end("node", before, order, replied(1)), errc::ownership_lost) << "end";
        EXPECT_EQ(a.end("node", before, 0, replied(2)), errc::ownership_lost) << "a reply to no task";
        EXPECT_EQ(a.announce(before, {"node", node_status::active, since}), errc::ownership_lost) << "announce";
        EXPECT_EQ(c.announce(owner, {"node", node_status::waiting, since}), errc::ok);
        EXPECT_TRUE(b.told(note_kind::seen, "node"));
        EXPECT_EQ(b.count(note_kind::seen), 0U) << "told, and yet refused";
        EXPECT_EQ(c.count(note_kind::seen), 0U) << "told, and yet refused";
        EXPECT_EQ(b.ends().size() + a.ends().size(), 0U) << "told, and yet refused";
        expect_posted(c.fetch("node", owner), {posted(1)});
        EXPECT_EQ(c.end("node", owner, order, replied(1)), errc::ok) << "its number is not known";
        expect_ends(b, {{posted(1).id, replied(1)}});
    }

    void only_the_newest_epoch_can_end() {
        auto& a = open("a");
        EXPECT_EQ(a.fetch_code("node", 1), errc::ownership_lost) << "never acquired";
        EXPECT_EQ(a.end("node", 1, 0, replied(1)), errc::ownership_lost) << "never acquired";
        EXPECT_EQ(a.announce(1, {"node", node_status::active, {}}), errc::ownership_lost) << "never acquired";
        EXPECT_EQ(a.nodes().size(), 0U);
        const auto owner = a.acquire("node").owner;
        for (const epoch other : {epoch{0}, owner - 1, owner + 1, (epoch{1} << 31) - 1}) {
            EXPECT_EQ(a.fetch_code("node", other), errc::ownership_lost) << "epoch " << other;
            EXPECT_EQ(a.end("node", other, 0, replied(1)), errc::ownership_lost) << "epoch " << other;
            EXPECT_EQ(a.announce(other, {"node", node_status::active, {}}), errc::ownership_lost) << "epoch " << other;
        }
        EXPECT_EQ(a.ends().size(), 0U);
        EXPECT_EQ(a.end("node", owner, 0, replied(1)), errc::ok);
        expect_ends(a, {{0, replied(1)}});
    }

    // --- replies -------------------------------------------------------------------------------------------------------------

    void a_reply_to_no_task_comes_to_the_owner() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        EXPECT_EQ(b.post("node", posted(2)), errc::ok);
        EXPECT_EQ(a.end("node", owner, 0, replied(1)), errc::ok);
        EXPECT_TRUE(a.told(note_kind::ends));
        expect_ends(a, {{0, replied(1)}});
        EXPECT_EQ(b.ends().size(), 0U);
        expect_posted(a.fetch_all("node", owner, 1), {posted(2)});
        close("a");
        expect_ends(open("a"), {{0, replied(1)}});
    }

    void a_reply_that_came_before_is_dropped() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        for (const std::uint64_t number : {1U, 2U}) EXPECT_EQ(b.post("node", posted(number)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 2);
        ASSERT_EQ(tasks.size(), 2U);
        EXPECT_EQ(a.end("node", owner, tasks[0].order, replied(1)), errc::ok);
        EXPECT_EQ(a.end("node", owner, 0, replied(7)), errc::ok);
        for (const std::uint64_t number : {1U, 7U}) {
            EXPECT_EQ(a.end("node", owner, 0, replied(number)), errc::ok) << "a second copy";
        }
        auto second_copy = replied(2);
        second_copy.reply_number = 1;
        EXPECT_EQ(a.end("node", owner, tasks[1].order, second_copy), errc::ok);
        const auto last = b.acquire("node");
        EXPECT_EQ(last.tasks.size(), 0U) << "it is settled all the same";
        for (const std::uint64_t number : {1U, 7U}) {
            EXPECT_EQ(b.end("node", last.owner, 0, replied(number)), errc::ok) << "a copy at another server";
        }
        std::size_t replies = 0;
        for (const auto& each : b.all_ends(1)) replies += each.end.reply ? 1U : 0U;
        EXPECT_EQ(replies, 1U);
        expect_ends(a, {{0, replied(7)}});
    }

    void the_next_owner_knows_the_replies() {
        auto& a = open("a");
        const auto owner = a.acquire("node").owner;
        std::vector<std::uint64_t> numbers;
        const auto remember = [&](const task_end& end) { numbers.push_back(end.reply_number); };
        std::uint64_t last = 0;
        constexpr std::size_t most = frames::remembered_replies;
        for (std::uint64_t number = 1; number <= most + 10; ++number) {
            auto end = replied(number);
            end.reply_number = number * 0x9e3779b97f4a7c15U;  // of all 64 bits
            std::uint64_t order = 0;
            if (number % 50 == 0) {
                EXPECT_EQ(a.post("node", posted(number)), errc::ok);
                order = last = a.fetch_all("node", owner, 1, last).at(0).order;
            }
            EXPECT_EQ(a.end("node", owner, order, end), errc::ok);
            remember(end);
        }
        EXPECT_EQ(a.acquire("other").replies.size(), 0U) << "they are another node's";
        const auto expect_last = [&](const std::vector<std::uint64_t>& are, std::ptrdiff_t count) {
            ASSERT_GE(are.size(), static_cast<std::size_t>(count)) << "a server would remember more";
            EXPECT_TRUE(std::equal(are.end() - count, are.end(), numbers.end() - count)) << "the oldest first";
        };
        expect_last(open("b").acquire("node").replies, most);
        close("a");
        expect_last(open("a").acquire("node").replies, most);
    }
};

}  // namespace ferry::conformance
