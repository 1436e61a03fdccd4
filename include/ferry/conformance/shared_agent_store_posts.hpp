// The shared stores' suite, first part: how tasks come from one server to another. shared_agent_store.hpp has the rest, and
// is what is to be included.
#pragma once

#include <ferry/conformance/shared_store_probe.hpp>
#include <ferry/frames.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// What the tests are made of. They are no templates: so they are compiled once, over however many stores they run.
class shared_store_fixture : public testing::Test {
protected:
    using server = shared_store_probe;
    using ends_by_id = std::vector<std::pair<std::uint64_t, task_end>>;

    void TearDown() override {
        while (!servers_.empty()) close(servers_.begin()->first);
    }

    /// The store of the server of this name.
    virtual std::unique_ptr<any_shared_store> make(const std::string& name) = 0;
    /// It is gone for good.
    virtual void forget(const std::string& name) = 0;
    virtual std::chrono::milliseconds patience() const = 0;

    // --- servers ---------------------------------------------------------------------------------------------------------

    server& open(const std::string& name, std::function<void()> inside = {}) {
        auto& out = servers_[name];
        out = std::make_unique<server>(make(name), name, patience(), notes_, std::move(inside));
        return *out;
    }
    /// As if it had died.
    void close(const std::string& name) {
        servers_.at(name)->finish();
        servers_.erase(name);
    }
    /// The same, for good.
    void lose(const std::string& name) {
        close(name);
        forget(name);
    }

    /// One of them is, and no other.
    void expect_one_is_told_free(const std::vector<server*>& servers, const std::string& node) {
        const auto such = [&](int who, const store_note& note) {
            return note.what == note_kind::free && note.node == node &&
                   std::any_of(servers.begin(), servers.end(), [&](auto* each) { return each->who() == who; });
        };
        EXPECT_TRUE(servers.front()->told(such)) << node;
        EXPECT_EQ(notes_->count(such), 0U) << node << " is given to two";
    }

    // --- tasks -----------------------------------------------------------------------------------------------------------

    /// A task to be posted, different for each number.
    static task_record posted(std::uint64_t number) {
        auto out = some_task(number);
        out.order = 0;
        out.attempts = 0;
        out.taken = false;
        out.reply_until = out.accepted + std::chrono::hours(1 + number % 10);
        return out;
    }
    static task_record posted(std::uint64_t number, const std::string& request_id, bool wants_reply = true) {
        auto out = posted(number);
        out.request_id = request_id;
        out.wants_reply = wants_reply;
        return out;
    }
    /// The number of one that came.
    static std::uint64_t number_of(const task_record& task) {
        return static_cast<std::uint64_t>(
            std::chrono::floor<std::chrono::microseconds>(task.accepted - some_task(0).accepted).count());
    }

    /// By rising orders, which are the store's.
    void expect_posted(const std::vector<task_record>& are, std::vector<task_record> should_be) {
        std::uint64_t last = 0;
        ASSERT_EQ(are.size(), should_be.size()) << "open tasks";
        for (std::size_t i = 0; i < are.size(); ++i) {
            EXPECT_GT(are[i].order, last) << "the orders do not rise";
            last = should_be[i].order = are[i].order;
            EXPECT_EQ(millis(are[i].reply_until), millis(should_be[i].reply_until)) << "reply_until";
            EXPECT_EQ(are[i].is_withdrawn, should_be[i].is_withdrawn) << "is_withdrawn";
        }
        servers_.begin()->second->expect_same(are, should_be);
    }
    static std::int64_t millis(std::chrono::system_clock::time_point time) {
        return std::chrono::floor<std::chrono::milliseconds>(time).time_since_epoch().count();
    }

    // --- ends ------------------------------------------------------------------------------------------------------------

    static task_end replied(std::uint64_t number) {
        task_end out = taken(number);
        out.how.kind = outcome_kind::replied;
        out.reply = std::make_shared<const payload>(bytes::copy("the reply to " + std::to_string(number)));
        out.reply_number = number;
        return out;
    }
    static task_end taken(std::uint64_t number) {
        task_end out;
        out.how = {outcome_kind::taken, errc::ok, {}, static_cast<int>(number % 5)};
        out.request_id = posted(number).request_id;
        return out;
    }

    /// All that the server is told, by rising places.
    void expect_ends(server& at, const ends_by_id& should_be) {
        expect_ends(at, at.all_ends(should_be.size()), should_be);
    }
    void expect_ends(server& at, const std::vector<arrived_end>& all, const ends_by_id& should_be) {
        ASSERT_EQ(all.size(), should_be.size()) << "ends of " << at.name();
        std::uint64_t last = 0;
        for (std::size_t i = 0; i < all.size(); ++i) {
            SCOPED_TRACE(at.name() + ", end " + std::to_string(i + 1));
            EXPECT_GT(all[i].place, last) << "the places do not rise";
            last = all[i].place;
            EXPECT_EQ(all[i].id, should_be[i].first) << "id";
            EXPECT_EQ(all[i].node, "node");
            const auto& is = all[i].end;
            const auto& end = should_be[i].second;
            EXPECT_EQ(to_string(is.how.kind), to_string(end.how.kind));
            EXPECT_EQ(to_string(is.how.reason), to_string(end.how.reason));
            EXPECT_EQ(is.how.text, end.how.text);
            EXPECT_EQ(is.how.attempts, end.how.attempts);
            EXPECT_EQ(is.request_id, end.request_id);
            ASSERT_EQ(is.reply == nullptr, end.reply == nullptr) << "the reply";
            if (!is.reply) continue;
            EXPECT_EQ(is.reply_number, end.reply_number);
            EXPECT_TRUE(at.read(*is.reply, 0, is.reply->size()) == at.read(*end.reply, 0, end.reply->size()))
                << "the reply is another";
        }
    }
    static std::uint64_t place_of(const std::vector<arrived_end>& all, std::uint64_t id) {
        for (const auto& each : all) {
            if (each.id == id) return each.place;
        }
        ADD_FAILURE() << "no end of this id";
        return 0;
    }

private:
    const std::shared_ptr<told_notes> notes_ = std::make_shared<told_notes>();
    std::map<std::string, std::unique_ptr<server>> servers_;
};

class shared_store_posts : public shared_store_fixture {
protected:
    // --- posts ---------------------------------------------------------------------------------------------------------------

    void a_posted_task_comes_to_the_owner() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        std::vector<task_record> tasks;
        for (std::uint64_t number = 1; number <= 8; ++number) tasks.push_back(posted(number));
        tasks[0].request_id = std::string("\xc3\xa9 '\"%_\\\0\n", 10);
        tasks[1].request_id = std::string(5000, 'r');
        tasks[2].expires = tasks[2].reply_until = std::chrono::system_clock::time_point::max();
        tasks[3].accepted = tasks[3].expires = tasks[3].reply_until = std::chrono::system_clock::time_point();
        tasks[4].content = std::make_shared<const payload>();
        for (const auto& each : tasks) EXPECT_EQ(b.post("node", each), errc::ok);
        EXPECT_TRUE(a.told(note_kind::tasks, "node"));
        const auto came = a.fetch_all("node", owner, tasks.size());
        expect_posted(came, tasks);
        ASSERT_EQ(came.size(), tasks.size());
        expect_posted(a.fetch("node", owner, came[5].order), {tasks[6], tasks[7]});
        EXPECT_EQ(a.fetch("node", owner, came[7].order).size(), 0U);
        expect_posted(a.acquire("node").tasks, tasks);
        EXPECT_EQ(b.count(note_kind::tasks), 0U) << "it owns nothing";
    }

    void the_owner_posts_to_itself() {
        auto& a = open("a");
        const auto owner = a.acquire("node").owner;
        EXPECT_EQ(a.post("node", posted(1)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 1);
        expect_posted(tasks, {posted(1)});
        ASSERT_EQ(tasks.size(), 1U);
        EXPECT_EQ(a.end("node", owner, tasks[0].order, replied(1)), errc::ok);
        expect_ends(a, {{posted(1).id, replied(1)}});
    }

    // Else a server that asks for those behind the last one that it had would miss some.
    void posted_tasks_come_behind_all_that_the_journal_has() {
        auto& a = open("a");
        auto& b = open("b");
        std::uint64_t last = 0;
        for (std::uint64_t round = 0; round < 3; ++round) {
            const auto owner = a.acquire("node").owner;
            const auto appended = some_task((owner << 32) + 1);
            ASSERT_GT(appended.order, last);
            EXPECT_EQ(a.append("node", owner, appended), errc::ok);
            last = appended.order;
            for (std::uint64_t i = 1; i <= 12; ++i) {
                EXPECT_EQ(b.post("node", posted(100 * round + i)), errc::ok);
                const auto tasks = a.fetch_all("node", owner, 1, last);
                ASSERT_EQ(tasks.size(), 1U);
                ASSERT_GT(tasks[0].order, last);
                EXPECT_EQ(number_of(tasks[0]), 100 * round + i);
                last = tasks[0].order;
                if (i % 3 != 0) continue;  // the last one is no more: it counts all the same
                EXPECT_EQ(a.settle("node", owner, last), errc::ok);
            }
        }
        EXPECT_EQ(a.acquire("node").tasks.size(), 27U);
    }

    void a_posted_task_can_be_updated() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        for (const std::uint64_t number : {1U, 2U}) EXPECT_EQ(b.post("node", posted(number)), errc::ok);
        auto tasks = a.fetch_all("node", owner, 2);
        ASSERT_EQ(tasks.size(), 2U);
        tasks[0].attempts = 3;
        EXPECT_EQ(a.update("node", owner, tasks[0]), errc::ok);
        tasks[1].taken = true;
        EXPECT_EQ(a.update("node", owner, tasks[1]), errc::ok);
        tasks[1].reply = std::make_shared<const payload>(bytes::copy("a reply"));
        tasks[1].reply_number = 77;
        EXPECT_EQ(a.update("node", owner, tasks[1]), errc::ok);
        auto without = tasks[1];
        without.content = without.reply = nullptr;
        without.reply_number = 0;
        without.attempts = tasks[1].attempts = 2;
        EXPECT_EQ(a.update("node", owner, without), errc::ok) << "which keeps the reply";
        auto journal = b.acquire("node");
        expect_posted(journal.tasks, tasks);
        tasks[1].reply = std::make_shared<const payload>(bytes::copy("a later reply"));
        tasks[1].reply_number = 78;
        EXPECT_EQ(b.update("node", journal.owner, tasks[1]), errc::ok);
        journal = b.acquire("node");
        expect_posted(journal.tasks, tasks);
        EXPECT_EQ(b.end("node", journal.owner, tasks[0].order, taken(1)), errc::ok);
        EXPECT_EQ(b.end("node", journal.owner, tasks[1].order, replied(2)), errc::ok);
        expect_ends(b, {{tasks[0].id, taken(1)}, {tasks[1].id, replied(2)}});
    }

    void large_contents_are_read_elsewhere() {
        std::string large(5'000'000, '\0');
        std::mt19937 random(1);
        for (char& each : large) each = static_cast<char>(random() & 255);
        auto& a = open("a");
        auto task = posted(1);
        const auto owner = a.acquire("node").owner;
        task.content = std::make_shared<const payload>(bytes::copy(large));
        EXPECT_EQ(open("b").post("node", task), errc::ok);
        EXPECT_EQ(open("c").post("node", posted(2)), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 2);
        ASSERT_EQ(tasks.size(), 2U);
        close("b");  // nothing is read from who has sent it
        ASSERT_TRUE(tasks[0].content);
        const auto& content = *tasks[0].content;
        ASSERT_EQ(content.size(), large.size());
        for (const std::uint64_t from : {0U, 1U, 65535U, 65536U, 3'999'999U, 4'999'999U}) {
            for (const std::uint64_t length : {1U, 1000U, 1'000'000U}) {
                if (from + length > large.size()) continue;
                EXPECT_TRUE(a.read(content, from, length) == large.substr(from, length)) << length << " from " << from;
            }
        }
        auto end = replied(1);
        end.reply = std::make_shared<const payload>(bytes::own(std::move(large)));
        EXPECT_EQ(a.end("node", owner, tasks[0].order, end), errc::ok);
        expect_ends(open("b"), {{task.id, end}});
        EXPECT_TRUE(a.read(content, 4'000'000, 1000) == a.read(*end.reply, 4'000'000, 1000)) << "it has ended";
    }

    void a_task_for_a_journal_of_nobody_waits() {
        auto& a = open("a");
        a.acquire("node");
        EXPECT_EQ(a.leave(), errc::ok);
        close("a");
        auto& b = open("b");
        EXPECT_EQ(b.post("node", posted(1)), errc::ok);
        EXPECT_TRUE(b.told(note_kind::free, "node")) << "who has posted is asked to acquire it";
        auto& c = open("c");
        EXPECT_EQ(c.post("node", posted(2)), errc::ok);
        EXPECT_TRUE(c.told([&](int who, const store_note& note) {
            return note.node == "node" &&
                   (note.what == note_kind::free || (note.what == note_kind::tasks && who == b.who()));
        })) << "nobody is told; who was asked before counts as the owner, or not";
        expect_posted(c.acquire("node").tasks, {posted(1), posted(2)});
    }

    void nothing_is_stored_for_a_node_that_is_not_known() {
        auto& a = open("a");
        EXPECT_EQ(a.post("node", posted(1)), errc::node_unknown);
        EXPECT_EQ(a.nodes().size(), 0U);
        const auto journal = a.acquire("node");
        EXPECT_EQ(journal.tasks.size(), 0U);
        EXPECT_EQ(a.fetch("node", journal.owner).size(), 0U);
        EXPECT_EQ(a.ends().size(), 0U);
        EXPECT_EQ(a.post("node", posted(1)), errc::ok);
        expect_posted(a.fetch_all("node", journal.owner, 1), {posted(1)});
    }

    void journals_of_nodes_are_apart() {
        constexpr auto longest = frames::max_node_id_bytes;
        const std::vector<std::string> nodes{"a",
                                             "A",
                                             "a ",
                                             "a/b",
                                             "a:b",
                                             "a{b}",
                                             "\xc3\xa9",
                                             "0",
                                             std::string("a\0b", 3),
                                             std::string(longest, 'n'),
                                             std::string(longest - 1, 'n')};
        auto& a = open("a");
        auto& b = open("b");
        std::vector<epoch> owners;
        for (const auto& node : nodes) owners.push_back(a.acquire(node).owner);
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            EXPECT_EQ(b.post(nodes[i], posted(i + 1, "the same")), errc::ok) << shown(nodes[i]);
        }
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            SCOPED_TRACE("node " + shown(nodes[i]));
            EXPECT_TRUE(a.told(note_kind::tasks, nodes[i]));
            const auto tasks = a.fetch_all(nodes[i], owners[i], 1);
            expect_posted(tasks, {posted(i + 1, "the same")});
            ASSERT_EQ(tasks.size(), 1U);
            auto end = replied(1);
            end.request_id = nodes[i];
            EXPECT_EQ(a.end(nodes[i], owners[i], tasks[0].order, end), errc::ok);
        }
        const auto ends = b.all_ends(nodes.size());
        ASSERT_EQ(ends.size(), nodes.size());
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            EXPECT_TRUE(ends[i].node == nodes[i]) << shown(ends[i].node) << " for " << shown(nodes[i]);
            EXPECT_TRUE(ends[i].end.request_id == nodes[i])
                << shown(ends[i].end.request_id) << " of " << shown(nodes[i]);
            EXPECT_NE(ends[i].end.reply, nullptr) << "a number is known of another node";
        }
    }

    // --- several who want the same -------------------------------------------------------------------------------------------

    void who_posts_the_same_request_joins() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const auto owner = a.acquire("node").owner;
        auto first = posted(2, "request");
        auto second = posted(4, "request");
        auto third = posted(6, "request");
        second.reply_until = third.reply_until = first.reply_until;
        EXPECT_EQ(b.post("node", first), errc::ok);
        EXPECT_EQ(c.post("node", second), errc::ok);
        auto tasks = a.fetch_all("node", owner, 1);
        expect_posted(tasks, {first});
        EXPECT_EQ(b.post("node", third), errc::ok) << "the same server again";
        expect_posted(a.acquire("node").tasks, {first});
        const auto last = a.acquire("node").owner;
        auto end = replied(2);
        end.request_id = "request";
        EXPECT_EQ(a.end("node", last, tasks.at(0).order, end), errc::ok);
        expect_ends(c, {{second.id, end}});
        auto ends = b.all_ends(2);
        std::partition(ends.begin(), ends.end(), [&](const auto& each) { return each.id == first.id; });
        ASSERT_EQ(ends.size(), 2U);
        EXPECT_EQ(ends[0].id, first.id);
        EXPECT_EQ(ends[1].id, third.id);
        EXPECT_EQ(a.acquire("node").tasks.size(), 0U);
        EXPECT_EQ(a.ends().size(), 0U) << "it has posted nothing";
    }

    void a_request_is_awaited_as_long_as_any_sender_asks() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const auto owner = a.acquire("node").owner;
        auto task = posted(2, "request");
        EXPECT_EQ(b.post("node", task), errc::ok);
        const auto order = a.fetch_all("node", owner, 1).at(0).order;
        auto shorter = posted(4, "request"), longer = posted(6, "request");
        shorter.reply_until = task.reply_until - std::chrono::minutes(1);
        longer.reply_until = task.reply_until + std::chrono::minutes(1);
        EXPECT_EQ(c.post("node", shorter), errc::ok);
        EXPECT_EQ(c.post("node", longer), errc::ok);
        task.reply_until = longer.reply_until;
        const auto changed = a.when(
            note_kind::tasks, "node", [&] { return a.fetch("node", owner, order); },
            [&](const auto& all) { return !all.empty() && all[0].reply_until > shorter.reply_until; });
        expect_posted(changed, {task});
        expect_posted(a.acquire("node").tasks, {task});
    }

    void who_joins_may_want_a_reply() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const auto owner = a.acquire("node").owner;
        auto task = posted(1, "request", false);
        task.reply_until = {};
        EXPECT_EQ(b.post("node", task), errc::ok);
        const auto order = a.fetch_all("node", owner, 1).at(0).order;
        auto asks = posted(2, "request"), does_not = posted(3, "request", false);
        does_not.reply_until = {};
        EXPECT_EQ(c.post("node", asks), errc::ok);
        task.wants_reply = true;
        task.reply_until = asks.reply_until;
        const auto changed = a.when(
            note_kind::tasks, "node", [&] { return a.fetch("node", owner, order); },
            [&](const auto& all) { return !all.empty(); });
        expect_posted(changed, {task});
        EXPECT_EQ(c.post("node", does_not), errc::ok);
        expect_posted(a.acquire("node").tasks, {task});
    }

    void tasks_without_a_request_do_not_join() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        EXPECT_EQ(b.post("node", posted(1, "")), errc::ok);
        EXPECT_EQ(b.post("node", posted(2, "")), errc::ok);
        expect_posted(a.fetch_all("node", owner, 2), {posted(1, ""), posted(2, "")});
    }

    void an_ended_request_may_be_posted_anew() {
        auto& a = open("a");
        auto& b = open("b");
        auto& c = open("c");
        const auto owner = a.acquire("node").owner;
        EXPECT_EQ(b.post("node", posted(1, "request")), errc::ok);
        const auto first = a.fetch_all("node", owner, 1).at(0).order;
        EXPECT_EQ(a.end("node", owner, first, replied(1)), errc::ok);
        EXPECT_EQ(c.post("node", posted(2, "request")), errc::ok);
        const auto second = a.fetch_all("node", owner, 1, first);
        expect_posted(second, {posted(2, "request")});
        ASSERT_EQ(second.size(), 1U);
        EXPECT_EQ(a.settle("node", owner, second[0].order), errc::ok);
        EXPECT_EQ(c.post("node", posted(3, "request")), errc::ok) << "settled without an end";
        expect_posted(a.fetch_all("node", owner, 1, second[0].order), {posted(3, "request")});
        expect_ends(b, {{posted(1).id, replied(1)}});
    }

    // --- posted again, and withdrawn -----------------------------------------------------------------------------------------

    // What is no sin of the sender's: an answer that was lost makes it ask again.
    void posting_again_changes_nothing() {
        auto& a = open("a");
        auto* b = &open("b");
        const auto owner = a.acquire("node").owner;
        const auto task = posted(1, "request"), other = posted(2, "");
        for (const auto& each : {task, other, task, other}) EXPECT_EQ(b->post("node", each), errc::ok);
        const auto tasks = a.fetch_all("node", owner, 2);
        expect_posted(tasks, {task, other});
        ASSERT_EQ(tasks.size(), 2U);
        close("b");
        b = &open("b");
        for (const auto& each : {other, task}) EXPECT_EQ(b->post("node", each), errc::ok);
        expect_posted(a.acquire("node").tasks, {task, other});
        const auto last = a.acquire("node").owner;
        EXPECT_EQ(a.end("node", last, tasks[0].order, replied(1)), errc::ok);
        EXPECT_EQ(a.end("node", last, tasks[1].order, taken(2)), errc::ok);
        expect_ends(*b, {{task.id, replied(1)}, {other.id, taken(2)}});
    }

    void posting_again_what_has_ended_changes_nothing() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        EXPECT_EQ(b.post("node", posted(1)), errc::ok);
        EXPECT_EQ(a.end("node", owner, a.fetch_all("node", owner, 1).at(0).order, replied(1)), errc::ok);
        EXPECT_EQ(b.post("node", posted(1)), errc::ok);
        EXPECT_EQ(a.acquire("node").tasks.size(), 0U);
        expect_ends(b, {{posted(1).id, replied(1)}});
    }

    void a_withdrawn_task_is_marked() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        auto early = posted(1), late = posted(2), stays = posted(3);
        for (const auto& each : {early, late, stays}) EXPECT_EQ(b.post("node", each), errc::ok);
        EXPECT_EQ(b.withdraw("node", early.id), errc::ok);
        early.is_withdrawn = true;
        const auto tasks = a.fetch_all("node", owner, 3);
        expect_posted(tasks, {early, late, stays});
        ASSERT_EQ(tasks.size(), 3U);
        EXPECT_EQ(b.withdraw("node", late.id), errc::ok);
        late.is_withdrawn = true;
        const auto changed = a.when(
            note_kind::tasks, "node", [&] { return a.fetch("node", owner, tasks[2].order); },
            [&](const auto& all) {
                return std::any_of(all.begin(), all.end(), [&](const auto& each) { return each.id == late.id; });
            });
        // What was changed before may come once more.
        expect_posted(changed, changed.size() == 1 ? std::vector{late} : std::vector{early, late});
        expect_posted(a.acquire("node").tasks, {early, late, stays});
        const auto last = a.acquire("node").owner;
        EXPECT_EQ(a.end("node", last, tasks[0].order, taken(1)), errc::ok);
        expect_ends(b, {{early.id, taken(1)}});
        EXPECT_EQ(b.withdraw("node", early.id), errc::ok) << "it has ended meanwhile";
        expect_posted(a.acquire("node").tasks, {late, stays});
    }

    void nobody_joins_what_was_withdrawn() {
        auto& a = open("a");
        auto& b = open("b");
        const auto owner = a.acquire("node").owner;
        auto first = posted(1, "request"), second = posted(2, "request");
        EXPECT_EQ(b.post("node", first), errc::ok);
        EXPECT_EQ(b.withdraw("node", first.id), errc::ok);
        EXPECT_EQ(b.post("node", second), errc::ok);
        first.is_withdrawn = true;
        const auto tasks = a.fetch_all("node", owner, 2);
        expect_posted(tasks, {first, second});
        ASSERT_EQ(tasks.size(), 2U);
        EXPECT_EQ(a.end("node", owner, tasks[0].order, taken(1)), errc::ok);
        expect_ends(b, {{first.id, taken(1)}});
        const auto third = posted(3, "request");
        EXPECT_EQ(b.post("node", third), errc::ok);
        second.reply_until = std::max(second.reply_until, third.reply_until);  // which it joins
        expect_posted(a.acquire("node").tasks, {second});
    }

    void only_who_posted_can_withdraw() {
        auto& a = open("a");
        auto& b = open("b");
        a.acquire("node");
        EXPECT_EQ(b.post("node", posted(1)), errc::ok);
        EXPECT_EQ(a.withdraw("node", posted(1).id), errc::ok);
        EXPECT_EQ(b.withdraw("node", posted(2).id), errc::ok) << "never there";
        expect_posted(a.acquire("node").tasks, {posted(1)});
    }
};

}  // namespace ferry::conformance
