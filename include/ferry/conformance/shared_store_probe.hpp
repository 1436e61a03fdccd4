// One server's view of a store that several share: its operations as calls that wait, and the notes that it was told. The
// tests themselves are in shared_agent_store.hpp.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/conformance/agent_store_probe.hpp>
#include <ferry/conformance/awaited.hpp>
#include <ferry/error.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ferry::conformance {

using note_kind = store_note::kind;

/// The notes that all servers of a test were told, in their order. Safe to use from several threads.
class told_notes {
public:
    using matches = std::function<bool(int who, const store_note&)>;

    /// A server, by a number of its own.
    int join() {
        const std::lock_guard lock(mutex_);
        return ++last_;
    }
    void leave(int who) {
        const std::lock_guard lock(mutex_);
        gone_.insert(who);
    }
    void add(int who, store_note note) {
        const std::lock_guard lock(mutex_);
        EXPECT_FALSE(gone_.contains(who)) << "a note for a store that is gone";
        notes_.emplace_back(who, std::move(note));
        came_.notify_all();
    }

    /// Waits for such a note, and forgets it; false where none comes in time.
    bool take(const matches& such, std::chrono::milliseconds patience) {
        std::unique_lock lock(mutex_);
        auto found = notes_.end();
        came_.wait_for(lock, patience, [&] {
            found = std::find_if(notes_.begin(), notes_.end(), [&](const auto& n) { return such(n.first, n.second); });
            return found != notes_.end();
        });
        if (found == notes_.end()) return false;
        notes_.erase(found);
        return true;
    }

    /// Those that were told so far and not taken.
    std::size_t count(const matches& such) const {
        const std::lock_guard lock(mutex_);
        return static_cast<std::size_t>(
            std::count_if(notes_.begin(), notes_.end(), [&](const auto& n) { return such(n.first, n.second); }));
    }

private:
    mutable std::mutex mutex_;
    std::condition_variable came_;
    std::deque<std::pair<int, store_note>> notes_;
    std::set<int> gone_;
    int last_ = 0;
};

/// Any shared store, as a type of its own.
class any_shared_store {
public:
    using policy_category = agent_store_tag;
    using written = std::function<void(store_status)>;
    using acquired = std::function<void(acquired_journal)>;

    virtual ~any_shared_store() = default;
    virtual void acquire(const std::string& node, acquired done) = 0;
    virtual void append(const std::string& node, epoch owner, const task_record& task, written done) = 0;
    virtual void update(const std::string& node, epoch owner, const task_record& task, written done) = 0;
    virtual void settle(const std::string& node, epoch owner, std::uint64_t order, written done) = 0;
    virtual void nodes(std::function<void(known_nodes)> done) = 0;
    virtual void listen(std::function<void(store_note)> take, std::function<void(seen_nodes)> done) = 0;
    virtual void post(const std::string& node, const task_record& task, written done) = 0;
    virtual void withdraw(const std::string& node, std::uint64_t id, written done) = 0;
    virtual void fetch(const std::string& node, epoch owner, std::uint64_t after, acquired done) = 0;
    virtual void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) = 0;
    virtual void ends(std::uint64_t after, std::function<void(arrived_ends)> done) = 0;
    virtual void acknowledge(std::uint64_t place, written done) = 0;
    virtual void announce(epoch owner, const seen_node& node, written done) = 0;
    virtual void leave(written done) = 0;
};
static_assert(shared_agent_store<any_shared_store>);

template <class Store>
class some_shared_store final : public any_shared_store {
public:
    template <class Make>
    explicit some_shared_store(Make make) : store_(make()) {}

    void acquire(const std::string& node, acquired done) override { store_.acquire(node, std::move(done)); }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        store_.append(node, owner, task, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        store_.update(node, owner, task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        store_.settle(node, owner, order, std::move(done));
    }
    void nodes(std::function<void(known_nodes)> done) override { store_.nodes(std::move(done)); }
    void listen(std::function<void(store_note)> take, std::function<void(seen_nodes)> done) override {
        store_.listen(std::move(take), std::move(done));
    }
    void post(const std::string& node, const task_record& task, written done) override {
        store_.post(node, task, std::move(done));
    }
    void withdraw(const std::string& node, std::uint64_t id, written done) override {
        store_.withdraw(node, id, std::move(done));
    }
    void fetch(const std::string& node, epoch owner, std::uint64_t after, acquired done) override {
        store_.fetch(node, owner, after, std::move(done));
    }
    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        store_.end(node, owner, order, end, std::move(done));
    }
    void ends(std::uint64_t after, std::function<void(arrived_ends)> done) override {
        store_.ends(after, std::move(done));
    }
    void acknowledge(std::uint64_t place, written done) override { store_.acknowledge(place, std::move(done)); }
    void announce(epoch owner, const seen_node& node, written done) override {
        store_.announce(owner, node, std::move(done));
    }
    void leave(written done) override { store_.leave(std::move(done)); }

private:
    Store store_;
};

/// The store of one server, which listens. All members but `finish` may be called from several threads.
class shared_store_probe : public agent_store_calls<any_shared_store> {
public:
    /// Runs `inside`, if there is one, within each `take`.
    shared_store_probe(std::unique_ptr<any_shared_store> store, std::string name, std::chrono::milliseconds patience,
                       std::shared_ptr<told_notes> notes, std::function<void()> inside = {})
        : agent_store_calls(patience), name_(std::move(name)), notes_(std::move(notes)) {
        store_ = std::move(store);
        const auto take = [notes = notes_, who = who_, inside = std::move(inside)](store_note note) {
            if (inside) inside();
            notes->add(who, std::move(note));
        };
        const auto out = wait(begun<seen_nodes>("listen", [&](auto done) { store_->listen(take, done); }));
        if (!out) return;
        EXPECT_EQ(out->status.code, errc::ok) << "listen: " << out->status.text;
        seen_ = out->nodes;
    }

    const std::string& name() const noexcept { return name_; }
    /// What `listen` came to.
    const std::vector<seen_node>& seen() const noexcept { return seen_; }

    /// As if the server had died. Nothing may be told then.
    void finish() {
        store_.reset();
        notes_->leave(who_);
        expect_all_ended();
    }

    // --- operations ----------------------------------------------------------------------------------------------------

    awaited<store_status> begin_post(const std::string& node, const task_record& task) {
        return begun<store_status>("post", [&](auto done) { store_->post(node, task, done); });
    }
    ended post(const std::string& node, const task_record& task) { return code(begin_post(node, task)); }
    ended withdraw(const std::string& node, std::uint64_t id) {
        return code(begun<store_status>("withdraw", [&](auto done) { store_->withdraw(node, id, done); }));
    }
    ended end(const std::string& node, epoch owner, std::uint64_t order, const task_end& how) {
        return code(begun<store_status>("end", [&](auto done) { store_->end(node, owner, order, how, done); }));
    }
    ended acknowledge(std::uint64_t place) {
        return code(begun<store_status>("acknowledge", [&](auto done) { store_->acknowledge(place, done); }));
    }
    ended announce(epoch owner, const seen_node& node) {
        return code(begun<store_status>("announce", [&](auto done) { store_->announce(owner, node, done); }));
    }
    ended leave() {
        return code(begun<store_status>("leave", [&](auto done) { store_->leave(done); }));
    }
    std::vector<task_record> fetch(const std::string& node, epoch owner, std::uint64_t after = 0) {
        return all_of<acquired_journal>("fetch", [&](auto done) { store_->fetch(node, owner, after, done); }).tasks;
    }
    /// For a fetch that is meant to fail.
    ended fetch_code(const std::string& node, epoch owner) {
        const auto out =
            wait(begun<acquired_journal>("fetch", [&](auto done) { store_->fetch(node, owner, 0, done); }));
        return {out ? out->status.code : errc::cancelled};
    }
    awaited<arrived_ends> begin_ends(std::uint64_t after = 0) {
        return begun<arrived_ends>("ends", [&](auto done) { store_->ends(after, done); });
    }
    std::vector<arrived_end> ends(std::uint64_t after = 0) {
        return all_of<arrived_ends>("ends", [&](auto done) { store_->ends(after, done); }).ends;
    }

    // --- what notes bring ------------------------------------------------------------------------------------------------

    /// Waits for such a note (of any node, without one), and forgets it. Where it never comes, the others are given no more time.
    bool told(note_kind what, const std::string& node = {}) { return told(such(what, node)); }
    bool told(const told_notes::matches& such) { return notes_->take(such, time_left()) || give_up(); }
    /// In `told_notes`.
    int who() const noexcept { return who_; }
    /// How many such were told so far, and were not waited for.
    std::size_t count(note_kind what, const std::string& node = {}) const { return notes_->count(such(what, node)); }

    /// Looks at what `get` gives, and again with each such note, until it is as it should be. Returns what it was last.
    template <class Get, class Fits>
    auto when(note_kind what, const std::string& node, Get&& get, Fits&& fits) {
        auto out = get();
        while (!fits(out)) {
            if (!told(what, node)) {
                ADD_FAILURE() << name_ << " waits for a note that does not come";
                break;
            }
            out = get();
        }
        return out;
    }
    /// The first so many tasks of a higher order, as the owner that is told of them fetches them.
    std::vector<task_record> fetch_all(const std::string& node, epoch owner, std::size_t count,
                                       std::uint64_t after = 0) {
        std::vector<task_record> out;
        when(
            note_kind::tasks, node,
            [&] {
                for (auto& task : fetch(node, owner, after)) {
                    if (task.order <= after) continue;
                    after = task.order;
                    out.push_back(std::move(task));
                }
                return out.size();
            },
            [&](std::size_t came) { return came >= count; });
        return out;
    }
    /// All ends that are not acknowledged, once there are so many.
    std::vector<arrived_end> all_ends(std::size_t count) {
        return when(
            note_kind::ends, {}, [&] { return ends(); }, [&](const auto& all) { return all.size() >= count; });
    }

private:
    told_notes::matches such(note_kind what, std::string node) const {
        return [who = who_, what, node = std::move(node)](int whose, const store_note& note) {
            return whose == who && note.what == what && (node.empty() || note.node == node);
        };
    }

    template <class Result, class Begin>
    Result all_of(const char* what, Begin&& begin) {
        auto out = wait(begun<Result>(what, std::forward<Begin>(begin)));
        if (!out) return {};
        EXPECT_EQ(out->status.code, errc::ok) << what << ": " << out->status.text;
        return *std::move(out);
    }

    const std::string name_;
    const std::shared_ptr<told_notes> notes_;
    const int who_ = notes_->join();
    std::vector<seen_node> seen_;
};

}  // namespace ferry::conformance
