// A store that several servers share, for tests, in memory: a `hub` holds what all of them see, and each server has a
// `hub_store` on it. It completes inline; or, where the hub is `late`, each operation waits until the test lets it happen, in
// two steps, as in late_store.hpp, and each note in one.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/frames.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace ferry_test {

struct hub_options {
    bool late = false;
    std::uint64_t room = std::numeric_limits<std::uint64_t>::max();  ///< bytes of all contents; beyond: `queue_full`
    std::uint32_t seed = 1;                                          ///< of the faults
};

/// Safe to use from several threads; a late one, from one. Neither a `done` nor a `take` is called under its lock. A
/// server's notes come one by one, in the order of what they tell. The posts and the announcements of one server to one
/// node happen in the order of the calls; all else that is late, in the order that the test chooses.
class hub {
public:
    enum class kind {
        acquire,
        append,
        update,
        settle,
        nodes,
        listen,
        post,
        withdraw,
        fetch,
        end,
        ends,
        acknowledge,
        announce,
        leave,
        note,
    };
    enum class fault {
        none,
        refused,  ///< nothing changes, and an error is told
        unheard,  ///< the change happens, and yet an error is told
    };
    /// What waits to go one step on.
    struct waiting {
        kind what;
        std::string server;
        std::string node;
        bool happened;  ///< only its teller is left
    };

    explicit hub(hub_options how = {}) : how_(how), random_(how.seed) {}
    hub(const hub&) = delete;
    hub& operator=(const hub&) = delete;

    // --- what servers go through -----------------------------------------------------------------------------------------

    /// The server's lease has ended. Another one gets its ends and is told of its journals; where there is none, the next
    /// one to listen. If it is alive after all, it is told `back`, and is a server again with its next operation.
    void expire(const std::string& server) {
        {
            const std::lock_guard lock(mutex_);
            is_gone(server);
            note(server, {});
        }
        if (!how_.late) deliver();
    }

    /// The notes that wait for the server are lost; it is told `back` instead. Of tasks that are gone and of journals
    /// that are nobody's it is told all the same.
    void interrupt(const std::string& server) {
        {
            const std::lock_guard lock(mutex_);
            if (const auto& ear = servers_[server].ear) {
                std::erase_if(ear->notes, [](const auto& each) {
                    return each.what != note_kind::gone && each.what != note_kind::free;
                });
            }
            note(server, {});
        }
        if (!how_.late) deliver();
    }

    /// The hub does not know the node's tasks any more, and tells that to who has posted them.
    void lose_tasks(const std::string& node) {
        {
            const std::lock_guard lock(mutex_);
            auto& j = journals_[node];
            for (const auto& [order, task] : std::exchange(j.tasks, {})) {
                for (const auto& each : task.senders) {
                    note(each.server, {.what = note_kind::gone, .node = node, .id = each.id});
                }
            }
            j.changed.clear();
        }
        if (!how_.late) deliver();
    }

    // --- what is left ----------------------------------------------------------------------------------------------------

    /// Open ones, of all nodes.
    std::size_t tasks() const {
        const std::lock_guard lock(mutex_);
        std::size_t count = 0;
        for (const auto& [node, j] : journals_) count += j.tasks.size();
        return count;
    }
    /// Those that nobody has acknowledged.
    std::size_t open_ends() const {
        const std::lock_guard lock(mutex_);
        std::size_t count = 0;
        for (const auto& [name, s] : servers_) count += s.ends.size();
        return count;
    }
    /// The server that the node's journal belongs to; empty where it is nobody's.
    std::string owner(const std::string& node) const {
        const std::lock_guard lock(mutex_);
        const auto found = journals_.find(node);
        return found == journals_.end() ? std::string() : found->second.server;
    }

    // --- of a late one ---------------------------------------------------------------------------------------------------

    /// Operations that have not told their askers yet, in the order in which they were asked for; then the servers that
    /// notes wait for.
    std::size_t pending() const {
        const std::lock_guard lock(mutex_);
        return pending_.size() + ears().size();
    }
    waiting pending_step(std::size_t which) const {
        const std::lock_guard lock(mutex_);
        if (which >= pending_.size()) {
            const auto ear = ears().at(which - pending_.size());
            return {kind::note, ear->server, ear->notes.front().node, true};
        }
        const auto& op = pending_[which];
        return {op.what, op.from->server, op.node, op.begun};
    }

    /// Takes one of them one step on. Whose server's store is gone is not told, but may happen.
    void advance(std::size_t which) {
        std::unique_lock lock(mutex_);
        if (which >= pending_.size()) return deliver_one(lock, ears().at(which - pending_.size()));
        which = first_in_turn(which);
        if (!pending_[which].begun) {
            pending_[which].begun = true;
            return pending_[which].change();
        }
        const operation over = std::move(pending_[which]);
        pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(which));
        if (over.from->closed) return;
        lock.unlock();
        over.tell();
    }

    /// Takes one of them to its end.
    void complete(std::size_t which) {
        const bool note = pending_step(which).what == kind::note;
        if (!note && !pending_step(which).happened) {
            const auto earlier = in_turn(which);
            advance(which);
            if (earlier != which) return complete(which);
        }
        advance(which);
    }

    /// Takes one that chance chooses one step on; false where nothing waits.
    template <class Random>
    bool run(Random& random) {
        const auto count = pending();
        if (count == 0) return false;
        advance(static_cast<std::size_t>(random() % count));
        return true;
    }

    /// The next such operation fails so. Also of one that is not late.
    void fail_next(kind what, fault how) {
        const std::lock_guard lock(mutex_);
        planned_.emplace_back(what, how);
    }
    /// Every operation but `listen` fails with this probability from now on, in one way or the other.
    void fail_often(double probability) {
        const std::lock_guard lock(mutex_);
        probability_ = probability;
    }

private:
    friend class hub_store;

    using note_kind = ferry::store_note::kind;

    struct listener {
        std::string server;
        std::function<void(ferry::store_note)> take;
        std::deque<ferry::store_note> notes{};
        std::thread::id delivering{};
        bool closed = false;
    };
    /// One `hub_store`.
    struct view {
        std::string server;
        std::shared_ptr<listener> ear{};
        bool closed = false;
    };
    struct operation {
        kind what;
        std::shared_ptr<view> from;
        std::string node;
        std::uint64_t task;
        std::function<void()> change;
        std::function<void()> tell;
        bool begun = false;
    };

    struct sender {
        std::string server;
        std::uint64_t id;
    };
    struct open_task {
        ferry::task_record record;
        std::vector<sender> senders{};
    };
    struct journal {
        ferry::epoch owner = 0;
        std::string server{};   // the owner's name; empty where the journal is nobody's
        std::string before{};   // who acquired it last
        std::string offered{};  // who was told last that it is nobody's
        std::uint64_t last_order = 0;
        std::map<std::uint64_t, open_task> tasks{};
        std::set<std::uint64_t> changed{};
        std::deque<std::uint64_t> replies{};
        ferry::seen_node seen{};
    };
    struct server {
        std::shared_ptr<listener> ear{};
        bool gone = false;
        std::uint64_t last_place = 0;
        std::map<std::uint64_t, ferry::arrived_end> ends{};
        std::vector<std::uint64_t> forgotten{};  // tasks whose ends others got, or nobody
    };

    // --- how an operation goes -------------------------------------------------------------------------------------------

    template <class Result, class Change, class Done>
    void begin(kind what, const std::shared_ptr<view>& from, const std::string& node, std::uint64_t task, Change change,
               Done&& done) {
        if (!how_.late) {
            Result out;
            {
                const std::lock_guard lock(mutex_);
                out = happen<Result>(what, *from, change);
            }
            std::forward<Done>(done)(std::move(out));
            return deliver();
        }
        const auto came = std::make_shared<Result>();
        const auto asker = std::make_shared<std::decay_t<Done>>(std::forward<Done>(done));
        const std::lock_guard lock(mutex_);
        for (const auto& other : pending_) {
            EXPECT_FALSE(task != 0 && task == other.task && node == other.node && from == other.from)
                << "two operations on task " << task << " of node " << node << " overlap";
        }
        pending_.push_back(
            {what, from, node, task,
             [this, what, from, came, change = std::move(change)] { *came = happen<Result>(what, *from, change); },
             [came, asker] { (*asker)(std::move(*came)); }});
    }

    template <class Result, class Change>
    Result happen(kind what, const view& from, const Change& change) {
        const auto how = draw_fault(what);
        Result out{};
        if (how != fault::refused) {
            is_alive(from.server);
            out = change();
        }
        if (how == fault::none) return out;
        out = {};
        status_of(out) = {ferry::errc::store_failed, "the hub does not answer"};
        return out;
    }
    static ferry::store_status& status_of(ferry::store_status& status) { return status; }
    template <class Result>
    static ferry::store_status& status_of(Result& result) {
        return result.status;
    }

    fault draw_fault(kind what) {
        for (auto plan = planned_.begin(); plan != planned_.end(); ++plan) {
            if (plan->first != what) continue;
            const fault out = plan->second;
            planned_.erase(plan);
            return out;
        }
        if (probability_ <= 0 || what == kind::listen) return fault::none;
        if (!std::bernoulli_distribution(probability_)(random_)) return fault::none;
        return std::bernoulli_distribution(0.5)(random_) ? fault::refused : fault::unheard;
    }

    /// The one to happen in the place of this one.
    std::size_t first_in_turn(std::size_t which) const {
        const auto& op = pending_[which];
        if (op.begun || (op.what != kind::post && op.what != kind::announce)) return which;
        for (std::size_t i = 0; i < which; ++i) {
            const auto& other = pending_[i];
            if (!other.begun && other.what == op.what && other.from == op.from && other.node == op.node) return i;
        }
        return which;
    }
    std::size_t in_turn(std::size_t which) const {
        const std::lock_guard lock(mutex_);
        return first_in_turn(which);
    }

    // --- notes -----------------------------------------------------------------------------------------------------------

    void note(const std::string& to, ferry::store_note what) {
        if (const auto& ear = servers_[to].ear) ear->notes.push_back(std::move(what));
    }

    /// Those that notes wait for.
    std::vector<std::shared_ptr<listener>> ears() const {
        std::vector<std::shared_ptr<listener>> out;
        for (const auto& [name, s] : servers_) {
            if (s.ear && !s.ear->notes.empty()) out.push_back(s.ear);
        }
        return out;
    }

    void deliver() {
        std::unique_lock lock(mutex_);
        while (true) {
            const auto all = ears();
            const auto free =
                std::ranges::find_if(all, [](const auto& ear) { return ear->delivering == std::thread::id(); });
            if (free == all.end()) return;  // others go on where they deliver
            deliver_one(lock, *free);
        }
    }
    void deliver_one(std::unique_lock<std::mutex>& lock, std::shared_ptr<listener> ear) {
        auto what = std::move(ear->notes.front());
        ear->notes.pop_front();
        ear->delivering = std::this_thread::get_id();
        lock.unlock();
        ear->take(std::move(what));
        lock.lock();
        ear->delivering = {};
        delivered_.notify_all();
    }

    /// The store is gone: nothing more is told to it. Waits for a note that it is just being told.
    void close(view& from) {
        std::unique_lock lock(mutex_);
        from.closed = true;
        const auto ear = std::exchange(from.ear, nullptr);
        if (!ear) return;
        auto& s = servers_[from.server];
        if (s.ear == ear) s.ear = nullptr;
        delivered_.wait(lock, [&] {
            return ear->delivering == std::thread::id() || ear->delivering == std::this_thread::get_id();
        });
    }

    // --- servers that come and go ----------------------------------------------------------------------------------------

    void is_alive(const std::string& name) {
        auto& s = servers_[name];
        if (!s.ear || !s.gone) return;
        s.gone = false;
        for (const auto id : std::exchange(s.forgotten, {})) note(name, {.what = note_kind::gone, .id = id});
        inherit(name);
    }

    /// What nobody has, this server gets.
    void inherit(const std::string& name) {
        for (auto& [other, s] : servers_) {
            if (s.gone && other != name) hand_over(s, name);
        }
        for (auto& [node, j] : journals_) {
            if (j.server.empty() && (j.offered.empty() || j.offered == name)) offer(node, j, name);
        }
    }

    void is_gone(const std::string& name) {
        auto& s = servers_[name];
        s.gone = true;
        const auto heir = another(name);
        if (!heir.empty()) hand_over(s, heir);
        for (auto& [node, j] : journals_) {
            if (j.server != name && !(j.server.empty() && j.offered == name)) continue;
            j.server.clear();
            offer(node, j, another(name));
        }
    }

    /// A server that lives, each in turn; empty where there is none.
    std::string another(const std::string& than) {
        std::vector<std::string> all;
        for (const auto& [name, s] : servers_) {
            if (s.ear && !s.gone && name != than) all.push_back(name);
        }
        return all.empty() ? std::string() : all[turn_++ % all.size()];
    }

    void hand_over(server& from, const std::string& heir) {
        for (auto& [place, e] : std::exchange(from.ends, {})) {
            if (e.id != 0) from.forgotten.push_back(e.id);
            if (e.end.reply) keep_end(heir, 0, e.node, std::move(e.end));
        }
    }

    void offer(const std::string& node, journal& j, const std::string& to) {
        j.offered = to;
        if (!to.empty()) note(to, {note_kind::free, node});
    }

    // --- ends ------------------------------------------------------------------------------------------------------------

    void arrive(const std::string& at, std::uint64_t id, const std::string& node, const ferry::task_end& end) {
        if (const auto heir = servers_[at].gone ? another(at) : std::string(); !heir.empty()) {
            if (id != 0) servers_[at].forgotten.push_back(id);
            if (end.reply) keep_end(heir, 0, node, end);
            return;
        }
        keep_end(at, id, node, end);
    }
    void keep_end(const std::string& at, std::uint64_t id, const std::string& node, ferry::task_end end) {
        auto& s = servers_[at];
        const auto place = ++s.last_place;
        s.ends[place] = {place, id, node, std::move(end)};
        note(at, {note_kind::ends});
    }

    /// False where the reply has come before.
    static bool remember(journal& j, const ferry::task_end& end) {
        if (!end.reply || end.reply_number == 0) return true;
        if (std::ranges::find(j.replies, end.reply_number) != j.replies.end()) return false;
        j.replies.push_back(end.reply_number);
        if (j.replies.size() > ferry::frames::remembered_replies) j.replies.pop_front();
        return true;
    }

    // --- the operations, under the lock ----------------------------------------------------------------------------------

    static ferry::store_status lost(const std::string& node) {
        return {ferry::errc::ownership_lost, "another owner has acquired the journal of " + node};
    }
    journal* owned(const std::string& node, ferry::epoch owner) {
        const auto found = journals_.find(node);
        return found == journals_.end() || found->second.owner != owner ? nullptr : &found->second;
    }
    static void erase(journal& j, std::uint64_t order) {
        j.tasks.erase(order);
        j.changed.erase(order);
    }
    static open_task* posted(journal& j, const std::string& server, std::uint64_t id) {
        for (auto& [order, task] : j.tasks) {
            for (const auto& each : task.senders) {
                if (each.server == server && each.id == id) return &task;
            }
        }
        return nullptr;
    }
    static void changed(journal& j, const open_task& task) { j.changed.insert(task.record.order); }
    void tell_owner(const std::string& node, const journal& j) {
        if (!j.server.empty()) note(j.server, {note_kind::tasks, node});
    }

    ferry::acquired_journal acquire(const std::string& server, const std::string& node) {
        auto& j = journals_[node];
        j.seen.id = node;
        if (!j.before.empty() && j.before != server) note(j.before, {note_kind::lost, node});
        j.server = j.before = server;
        j.offered.clear();
        j.changed.clear();
        ferry::acquired_journal out;
        out.owner = ++j.owner;
        for (const auto& [order, task] : j.tasks) out.tasks.push_back(task.record);
        out.replies.assign(j.replies.begin(), j.replies.end());
        return out;
    }

    ferry::store_status append(const std::string& node, ferry::epoch owner, const ferry::task_record& task) {
        auto* j = owned(node, owner);
        if (!j) return lost(node);
        j->tasks[task.order].record = task;
        j->last_order = std::max(j->last_order, task.order);
        return {};
    }

    ferry::store_status update(const std::string& node, ferry::epoch owner, const ferry::task_record& task) {
        auto* j = owned(node, owner);
        if (!j) return lost(node);
        const auto found = j->tasks.find(task.order);
        if (found == j->tasks.end()) return {};
        auto& record = found->second.record;
        record.attempts = task.attempts;
        record.taken = task.taken;
        if (task.taken) record.content.reset();
        if (task.reply) {
            record.reply = task.reply;
            record.reply_number = task.reply_number;
        }
        return {};
    }

    ferry::store_status settle(const std::string& node, ferry::epoch owner, std::uint64_t order) {
        auto* j = owned(node, owner);
        if (!j) return lost(node);
        erase(*j, order);
        return {};
    }

    ferry::known_nodes nodes() const {
        ferry::known_nodes out;
        for (const auto& [node, j] : journals_) out.ids.push_back(node);
        return out;
    }

    ferry::seen_nodes listen(const std::shared_ptr<view>& from, std::function<void(ferry::store_note)> take) {
        const auto& name = from->server;
        if (from->closed) return {};  // the server's next life may listen already
        auto& s = servers_[name];
        s.gone = false;
        s.forgotten.clear();
        s.ear = from->ear = std::make_shared<listener>(listener{name, std::move(take)});
        ferry::seen_nodes out;
        for (auto& [node, j] : journals_) {
            out.nodes.push_back(j.seen);
            if (j.server != name) continue;
            j.server.clear();  // of the server of this name before
            j.offered.clear();
        }
        inherit(name);
        if (!s.ends.empty()) note(name, {note_kind::ends});
        return out;
    }

    ferry::store_status post(const std::string& server, const std::string& node, const ferry::task_record& task) {
        const auto found = journals_.find(node);
        if (found == journals_.end()) return {ferry::errc::node_unknown, "nobody has acquired the journal of " + node};
        auto& j = found->second;
        for (const auto& [place, e] : servers_[server].ends) {
            if (e.id == task.id && e.node == node) return {};
        }
        if (!posted(j, server, task.id) && !join(j, server, task)) {
            const auto size = task.content ? task.content->size() : 0;
            if (size > how_.room || bytes() > how_.room - size) return {ferry::errc::queue_full, "the hub is full"};
            auto& added = j.tasks[++j.last_order];
            added = {task, {{server, task.id}}};
            added.record.order = j.last_order;
        }
        if (j.server.empty()) offer(node, j, server);
        tell_owner(node, j);
        return {};
    }
    static bool join(journal& j, const std::string& server, const ferry::task_record& more) {
        if (more.request_id.empty()) return false;
        for (auto& [order, task] : j.tasks) {
            auto& record = task.record;
            if (record.request_id != more.request_id || record.is_withdrawn) continue;
            task.senders.push_back({server, more.id});
            if (more.wants_reply) {
                record.reply_until =
                    record.wants_reply ? std::max(record.reply_until, more.reply_until) : more.reply_until;
                record.wants_reply = true;
            }
            changed(j, task);
            return true;
        }
        return false;
    }
    std::uint64_t bytes() const {
        std::uint64_t out = 0;
        if (how_.room == hub_options().room) return out;
        for (const auto& [node, j] : journals_) {
            for (const auto& [order, task] : j.tasks) out += task.record.content ? task.record.content->size() : 0;
        }
        return out;
    }

    ferry::store_status withdraw(const std::string& server, const std::string& node, std::uint64_t id) {
        const auto found = journals_.find(node);
        auto* task = found == journals_.end() ? nullptr : posted(found->second, server, id);
        if (!task) return {};
        task->record.is_withdrawn = true;
        changed(found->second, *task);
        tell_owner(node, found->second);
        return {};
    }

    ferry::acquired_journal fetch(const std::string& node, ferry::epoch owner, std::uint64_t after) {
        auto* j = owned(node, owner);
        if (!j) return {lost(node), 0, {}};
        ferry::acquired_journal out;
        out.owner = owner;
        for (const auto& [order, task] : j->tasks) {
            if (order > after || j->changed.contains(order)) out.tasks.push_back(task.record);
        }
        j->changed.clear();
        return out;
    }

    ferry::store_status end(const std::string& server, const std::string& node, ferry::epoch owner, std::uint64_t order,
                            ferry::task_end end) {
        auto* j = owned(node, owner);
        if (!j) return lost(node);
        if (order == 0) {
            if (end.reply && remember(*j, end)) arrive(server, 0, node, end);
            return {};
        }
        const auto found = j->tasks.find(order);
        if (found == j->tasks.end()) return {};
        if (!remember(*j, end)) end.reply.reset();
        for (const auto& each : found->second.senders) arrive(each.server, each.id, node, end);
        erase(*j, order);
        return {};
    }

    ferry::arrived_ends ends(const std::string& server, std::uint64_t after) {
        ferry::arrived_ends out;
        auto& all = servers_[server].ends;
        for (auto at = all.upper_bound(after); at != all.end(); ++at) out.ends.push_back(at->second);
        return out;
    }

    ferry::store_status acknowledge(const std::string& server, std::uint64_t place) {
        servers_[server].ends.erase(place);
        return {};
    }

    ferry::store_status announce(const std::string& server, ferry::epoch owner, const ferry::seen_node& node) {
        auto* j = owned(node.id, owner);
        if (!j) return lost(node.id);
        j->seen = node;
        for (const auto& [name, s] : servers_) {
            if (name != server)
                note(name, {.what = note_kind::seen, .node = node.id, .status = node.status, .since = node.since});
        }
        return {};
    }

    ferry::store_status leave(const std::string& server) {
        servers_[server].ear = nullptr;
        is_gone(server);
        return {};
    }

    const hub_options how_;
    mutable std::mutex mutex_;
    std::condition_variable delivered_;
    std::map<std::string, journal> journals_;
    std::map<std::string, server> servers_;
    std::size_t turn_ = 0;
    std::vector<operation> pending_;
    std::vector<std::pair<kind, fault>> planned_;
    std::mt19937 random_;
    double probability_ = 0;
};

/// What one server sees of a hub. When it is destroyed without `leave`, the server has died, and its lease goes on. One that
/// listens again under the same name is the same server: it gets its ends, and its journals are free for it to acquire.
class hub_store {
public:
    using policy_category = ferry::agent_store_tag;

    hub_store(std::shared_ptr<hub> shared, std::string server)
        : hub_(std::move(shared)), view_(std::make_shared<hub::view>(hub::view{std::move(server)})) {}
    hub_store(hub_store&& other) noexcept = default;
    hub_store& operator=(hub_store&&) = delete;
    ~hub_store() {
        if (hub_) hub_->close(*view_);
    }

    template <class Done>
    void acquire(const std::string& node, Done&& done) {
        run<ferry::acquired_journal>(
            hub::kind::acquire, node, 0, [node](hub& h, const auto& server) { return h.acquire(server, node); }, done);
    }
    template <class Done>
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        run<ferry::store_status>(
            hub::kind::append, node, as_owner(task.order, owner),
            [node, owner, task](hub& h, const auto&) { return h.append(node, owner, task); }, done);
    }
    template <class Done>
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        run<ferry::store_status>(
            hub::kind::update, node, as_owner(task.order, owner),
            [node, owner, task](hub& h, const auto&) { return h.update(node, owner, task); }, done);
    }
    template <class Done>
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, Done&& done) {
        run<ferry::store_status>(
            hub::kind::settle, node, as_owner(order, owner),
            [node, owner, order](hub& h, const auto&) { return h.settle(node, owner, order); }, done);
    }
    template <class Done>
    void nodes(Done&& done) {
        run<ferry::known_nodes>(
            hub::kind::nodes, {}, 0, [](hub& h, const auto&) { return h.nodes(); }, done);
    }
    template <class Take, class Done>
    void listen(Take&& take, Done&& done) {
        run<ferry::seen_nodes>(
            hub::kind::listen, {}, 0,
            [view = view_, take = std::function<void(ferry::store_note)>(std::forward<Take>(take))](
                hub& h, const auto&) { return h.listen(view, take); },
            done);
    }
    template <class Done>
    void post(const std::string& node, const ferry::task_record& task, Done&& done) {
        run<ferry::store_status>(
            hub::kind::post, node, 0, [node, task](hub& h, const auto& server) { return h.post(server, node, task); },
            done);
    }
    template <class Done>
    void withdraw(const std::string& node, std::uint64_t id, Done&& done) {
        run<ferry::store_status>(
            hub::kind::withdraw, node, 0,
            [node, id](hub& h, const auto& server) { return h.withdraw(server, node, id); }, done);
    }
    template <class Done>
    void fetch(const std::string& node, ferry::epoch owner, std::uint64_t after, Done&& done) {
        run<ferry::acquired_journal>(
            hub::kind::fetch, node, 0,
            [node, owner, after](hub& h, const auto&) { return h.fetch(node, owner, after); }, done);
    }
    template <class Done>
    void end(const std::string& node, ferry::epoch owner, std::uint64_t order, const ferry::task_end& end,
             Done&& done) {
        run<ferry::store_status>(
            hub::kind::end, node, as_owner(order, owner),
            [node, owner, order, end](hub& h, const auto& server) { return h.end(server, node, owner, order, end); },
            done);
    }
    template <class Done>
    void ends(std::uint64_t after, Done&& done) {
        run<ferry::arrived_ends>(
            hub::kind::ends, {}, 0, [after](hub& h, const auto& server) { return h.ends(server, after); }, done);
    }
    template <class Done>
    void acknowledge(std::uint64_t place, Done&& done) {
        run<ferry::store_status>(
            hub::kind::acknowledge, {}, 0, [place](hub& h, const auto& server) { return h.acknowledge(server, place); },
            done);
    }
    template <class Done>
    void announce(ferry::epoch owner, const ferry::seen_node& node, Done&& done) {
        run<ferry::store_status>(
            hub::kind::announce, node.id, 0,
            [owner, node](hub& h, const auto& server) { return h.announce(server, owner, node); }, done);
    }
    template <class Done>
    void leave(Done&& done) {
        run<ferry::store_status>(
            hub::kind::leave, {}, 0, [](hub& h, const auto& server) { return h.leave(server); }, done);
    }

private:
    /// What must not overlap: an owner's operations on a task. One that has acquired the journal anew may begin another one
    /// while one of before is still under way, which is in vain then, or has happened already.
    static std::uint64_t as_owner(std::uint64_t order, ferry::epoch owner) {
        return order == 0 ? 0 : order + (owner << 32);
    }

    template <class Result, class Change, class Done>
    void run(hub::kind what, const std::string& node, std::uint64_t task, Change change, Done& done) {
        const auto kept = hub_;
        kept->begin<Result>(
            what, view_, node, task,
            [h = kept.get(), server = view_->server, change = std::move(change)] { return change(*h, server); }, done);
    }

    std::shared_ptr<hub> hub_;
    std::shared_ptr<hub::view> view_;
};

static_assert(ferry::shared_agent_store<hub_store>);

}  // namespace ferry_test
