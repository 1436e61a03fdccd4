// The server's core: what is owed to which node, and what has become of it. A pure state machine: events and the time go
// in, effects come out through a sink. No threads, sockets, clock or I/O, and no lock: its owner calls it one step at a time.
//
// A node's tasks form one lane. Only its head is ever under way, and stays at the head until it is taken or ended:
//
//   storing -> queued -> leasing -> sending -> unconfirmed -> taken (-> awaiting its reply) -> settling -> gone
//                 ^__________________|_____________|   a failed delivery, as the retry policy says
//
// A poll carries one task. That the node has it shows in its next poll over the same connection, or in a reply; a poll over
// another connection, or a disconnection, is a failed delivery. The outcome is reported once the store has settled the task.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/chunk.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/retry.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry {

/// The core. `Types` names what it only hands through: `call` (a poll; default-constructed it is none, and comparable),
/// `reply_call`, `ticket` (a sender's interest) and `reply`; and what it uses: `retry` and `chunk_size`.
///
/// `step(event, now, sink)` calls `sink(effect)` for each effect, in order. The sink must not call `step` before it has
/// returned. Effects hold references into the core where they hold a reference: use them before the step ends.
template <class Types>
class dispatch {
public:
    using call = typename Types::call;
    using reply_call = typename Types::reply_call;
    using ticket = typename Types::ticket;
    using reply = typename Types::reply;
    using retry = typename Types::retry;
    using cutter = chunk_cutter<Types::chunk_size::value>;
    using time_point = std::chrono::steady_clock::time_point;

    explicit dispatch(dispatch_limits limits = {}, retry policy = {}) : limits_(limits), retry_(std::move(policy)) {}
    dispatch(const dispatch&) = delete;
    dispatch& operator=(const dispatch&) = delete;

    /// Returns the task's key, or 0 where it has ended already.
    template <class Sink>
    task_key step(events::submitted<ticket> e, instant now, Sink&& sink) {
        const auto refuse = [&](outcome_kind kind, errc reason, std::string text) {
            sink(effects::ended<ticket, reply>{
                std::move(e.ticket), {kind, reason, std::move(text), 0}, std::nullopt, e.node});
            return task_key{0};
        };
        if (stopping_) return refuse(outcome_kind::stopped, errc::stopped, "the server is stopping");
        const auto found = nodes_.find(e.node);
        if (found == nodes_.end()) {
            return refuse(outcome_kind::node_unknown, errc::node_unknown, "node " + e.node + " has never polled");
        }
        node& n = found->second;
        if (!e.request_id.empty() && n.requests) {
            if (const auto open = n.requests->find(e.request_id); open != n.requests->end()) {
                task& same = *open->second;
                same.record.wants_reply |= e.wants_reply;
                same.tickets.push_back(std::move(e.ticket));
                return same.key;
            }
        }
        if (n.status == node_status::disconnected && !e.keep_while_disconnected) {
            return refuse(outcome_kind::node_disconnected, errc::node_disconnected,
                          "node " + e.node + " is DISCONNECTED");
        }
        const auto size = e.content->size();
        if (size > limits_.max_payload_bytes || !cutter::fits(size)) {
            return refuse(outcome_kind::too_large, errc::too_large,
                          "a payload of " + std::to_string(size) + " bytes is beyond the server's limit");
        }
        if (n.queued_tasks >= limits_.max_queued_tasks || n.queued_bytes + size > limits_.max_queued_bytes) {
            return refuse(outcome_kind::queue_full, errc::queue_full,
                          "the queue of node " + e.node + " is full: " + std::to_string(n.queued_tasks) + " tasks, " +
                              std::to_string(n.queued_bytes) + " bytes");
        }
        task& t = add_task(n, now.steady);
        t.record.request_id = std::move(e.request_id);
        t.record.wants_reply = e.wants_reply;
        t.record.content = std::move(e.content);
        t.record.accepted = now.system;
        t.record.expires = now.system + e.expires_after;
        t.expires = now.steady + e.expires_after;
        if (e.reply_within) t.reply_due = now.steady + *e.reply_within;
        t.tickets.push_back(std::move(e.ticket));
        enter_lane(n, t);
        arm(n, std::min(t.expires, t.reply_due), sink);
        if (n.owned) {
            append(n, t, sink);
        } else {
            acquire(n, sink);
        }
        return t.key;
    }

    template <class Sink>
    void step(events::poll_opened<call> e, instant now, Sink&& sink) {
        auto found = nodes_.find(e.node);
        if (found == nodes_.end()) {
            if (stopping_)
                return sink(effects::end_poll<call>{std::move(e.call), errc::stopped, "the server is stopping"});
            if (nodes_.size() >= limits_.max_nodes) {
                sink(effects::warning{"node " + e.node + " is refused: " + std::to_string(nodes_.size()) +
                                      " nodes are known already"});
                return sink(
                    effects::end_poll<call>{std::move(e.call), errc::queue_full, "the server knows too many nodes"});
            }
            found = nodes_.try_emplace(e.node).first;
            found->second.id = &found->first;
        }
        node& n = found->second;
        if (n.current != call{}) supersede(n, now, sink);
        n.current = std::move(e.call);
        n.connection = e.connection;
        set_status(n, node_status::active, now, sink);
        if (n.head && n.head->state == task_state::unconfirmed) confirm(n, now, sink);
        if (stopping_) {
            release_current(n, errc::stopped, "the server is stopping", now, sink);
            return check_drained(sink);
        }
        if (!n.owned) acquire(n, sink);
        pump(n, now, sink);
    }

    template <class Sink>
    void step(const events::range_sent<call>& e, instant now, Sink&& sink) {
        node* n = carrier(e.node, e.call);
        if (!n) return;
        auto& d = *n->carried;
        d.last_progress = now.steady;
        d.sent += d.part.length;
        if (d.of) {
            for (const auto& each : d.of->tickets) sink(effects::progressed<ticket>{each, d.sent});
        }
        if (!d.chunks.done()) send_next(*n, sink);
    }

    template <class Sink>
    void step(events::poll_broken<call> e, instant now, Sink&& sink) {
        if (node* n = carrier(e.node, e.call)) {
            if (e.reason != errc::stream_broken) sink(effects::end_poll<call>{e.call, e.reason, e.text});
            drop_carried(*n, e.reason, std::move(e.text), now, sink);
        } else if (node* parked = find(e.node); parked && parked->current == e.call) {
            leave(*parked, now, sink);
        }
    }

    template <class Sink>
    void step(const events::poll_closed<call>& e, instant now, Sink&& sink) {
        node* n = carrier(e.node, e.call);
        if (!n || !e.clean || !n->carried->chunks.done()) {
            return step(events::poll_broken<call>{e.call, e.node, errc::stream_broken,
                                                  "the poll ended before the task was carried"},
                        now, sink);
        }
        task* t = n->carried->of;
        if (t) {
            for (const auto& each : t->tickets) sink(effects::progressed<ticket>{each, t->record.content->size()});
            t->state = task_state::unconfirmed;
            t->carried_over = n->carried->connection;
        }
        n->carried.reset();
        --carrying_;
        if (n->current == e.call) {
            leave(*n, now, sink);
        } else if (n->current == call{}) {
            arm(*n, n->left + limits_.disconnect_after, sink);
        } else if (t) {
            confirm(*n, now, sink);
        }
        pump(*n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::reply_arrived<reply_call, reply> e, instant now, Sink&& sink) {
        node* n = find(e.node);
        if (!n) {
            sink(effects::answer_reply<reply_call>{std::move(e.call), errc::node_unknown,
                                                   "a reply of node " + e.node + ", which has never polled"});
            return;
        }
        task* t = nullptr;
        if (n->requests && !e.request_id.empty()) {
            if (const auto open = n->requests->find(e.request_id); open != n->requests->end()) t = open->second;
        }
        const bool wanted = t && t->record.wants_reply;
        if (!wanted) sink(effects::unclaimed_reply<reply>{e.node, e.request_id, std::move(e.reply)});
        sink(effects::answer_reply<reply_call>{std::move(e.call), errc::ok, {}});
        if (wanted) t->answer = std::move(e.reply);
        if (t) end(*t, {wanted ? outcome_kind::replied : outcome_kind::taken, errc::ok, {}, t->record.attempts}, sink);
        pump(*n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::withdrawn e, instant now, Sink&& sink) {
        const auto found = tasks_.find(e.key);
        if (found == tasks_.end() || found->second.state == task_state::settling) return;
        task& t = found->second;
        node& n = *t.owner;
        if (n.carried && n.carried->of == &t) {
            n.carried->of = nullptr;
            sink(effects::end_poll<call>{n.carried->on, errc::cancelled, "the task was withdrawn"});
            drop_carried(n, errc::cancelled, {}, now, sink);
        }
        end(t, {outcome_kind::cancelled, errc::cancelled, "withdrawn by its sender", t.record.attempts}, sink);
        pump(n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::store_done e, instant now, Sink&& sink) {
        const auto found = tasks_.find(e.key);
        if (found == tasks_.end()) return;
        task& t = found->second;
        node& n = *t.owner;
        const auto op = std::exchange(t.busy, store_op::none);
        const bool ok = e.status.code == errc::ok;
        if (ok && op == store_op::append) t.stored = true;
        if (e.status.code == errc::ownership_lost) n.owned = false;
        if (t.state == task_state::settling) {
            if (op != store_op::settle && t.stored && n.owned) return settle(n, t, sink);
            if (!ok) sink(effects::warning{"node " + *n.id + ": the store could not settle a task: " + e.status.text});
            return report(t, sink);
        }
        if (!ok && t.state == task_state::awaiting_reply) {
            sink(effects::warning{"node " + *n.id + ": the store could not note a task as taken: " + e.status.text});
        } else if (!ok) {
            end(t, {outcome_kind::store_failed, e.status.code, e.status.text, t.record.attempts}, sink);
        } else if (t.state == task_state::storing) {
            t.state = task_state::queued;
        } else if (t.state == task_state::leasing) {
            start_delivery(n, t, now, sink);
        }
        pump(n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::journal_acquired e, instant now, Sink&& sink) {
        node* n = find(e.node);
        if (!n) return;
        n->acquiring = false;
        if (e.journal.status.code != errc::ok) {
            sink(effects::warning{"node " + e.node +
                                  ": the store could not acquire its journal: " + e.journal.status.text});
            while (task* t = first_unstored(*n)) {
                end(*t, {outcome_kind::store_failed, e.journal.status.code, e.journal.status.text, 0}, sink);
            }
            return;
        }
        n->owned = true;
        n->owner = e.journal.owner;
        restore(*n, std::move(e.journal.tasks), now, sink);
        for (task* t = n->head; t; t = t->next) {
            if (t->state == task_state::storing && t->busy == store_op::none) append(*n, *t, sink);
        }
        pump(*n, now, sink);
    }

    template <class Sink>
    void step(events::time_passed, instant now, Sink&& sink) {
        while (!timers_.empty() && timers_.begin()->first <= now.steady) {
            node& n = *timers_.begin()->second;
            timers_.erase(timers_.begin());
            n.wake = time_point::max();
            look_after(n, now, sink);
        }
        announced_ = time_point::max();
        announce(sink);
        check_drained(sink);
    }

    /// No new polls or tasks; what is being carried may finish. `drained` tells when nothing is under way.
    template <class Sink>
    void step(events::stop_requested, instant now, Sink&& sink) {
        stopping_ = true;
        for (auto& [id, n] : nodes_) {
            if (n.current != call{} && !(n.carried && n.carried->on == n.current)) {
                release_current(n, errc::stopped, "the server is stopping", now, sink);
            }
        }
        check_drained(sink);
    }

    /// Ends all that is left. The store keeps what was not settled.
    template <class Sink>
    void step(events::stop_forced, instant now, Sink&& sink) {
        stopping_ = true;
        for (auto& [id, n] : nodes_) {
            if (n.carried) {
                sink(effects::end_poll<call>{n.carried->on, errc::stopped, "the server is stopping"});
                if (n.current == n.carried->on) n.current = call{};
                n.carried.reset();
            }
            if (n.current != call{}) release_current(n, errc::stopped, "the server is stopping", now, sink);
            n.head = n.tail = nullptr;
            n.requests.reset();
            n.queued_tasks = n.queued_bytes = 0;
        }
        carrying_ = 0;
        for (auto& [key, t] : tasks_) {
            if (t.state != task_state::settling) {
                t.how = {outcome_kind::stopped, errc::stopped, "the server was stopped first", t.record.attempts};
            }
            tell(t, sink);
        }
        tasks_.clear();
        check_drained(sink);
    }

    std::optional<node_info> get_node(const std::string& id) const {
        const auto found = nodes_.find(id);
        if (found == nodes_.end()) return std::nullopt;
        return info(found->second);
    }

    template <class Take>
    void for_each_node(Take&& take) const {
        for (const auto& [id, n] : nodes_) take(info(n));
    }

    /// Nodes that are not DISCONNECTED.
    std::size_t reachable_nodes() const noexcept { return reachable_; }

    /// Tasks accepted and not yet ended.
    std::size_t open_tasks() const noexcept { return tasks_.size(); }

private:
    enum class task_state { storing, queued, leasing, sending, unconfirmed, awaiting_reply, settling };
    enum class store_op { none, append, update, settle };
    struct node;

    struct task {
        task_key key = 0;
        task_record record;
        task_state state = task_state::storing;
        store_op busy = store_op::none;  // one operation on a task at a time
        bool stored = false;
        bool in_lane = false;
        node* owner = nullptr;
        task* previous = nullptr;
        task* next = nullptr;
        time_point accepted, expires, not_before = time_point::min(), reply_due = time_point::max();
        std::string carried_over;  // the connection of the last delivery
        std::vector<ticket> tickets;
        outcome how;
        std::optional<reply> answer;
    };

    struct delivery {
        call on;
        std::string connection;
        std::shared_ptr<const payload> content;
        cutter chunks;
        chunk part{};
        std::uint64_t sent = 0;
        time_point last_progress;
        task* of;  // null once the task has ended; the stream still goes on to its end
    };

    struct node {
        const std::string* id = nullptr;
        node_status status = node_status::disconnected;
        bool owned = false;
        bool acquiring = false;
        epoch owner = 0;
        std::uint64_t last_order = 0;
        std::chrono::system_clock::time_point since;
        time_point left;  // when the last poll ended
        time_point wake = time_point::max();
        call current{};  // the newest poll
        std::string connection;
        std::unique_ptr<delivery> carried;  // perhaps by an older poll, which is just ending
        task* head = nullptr;
        task* tail = nullptr;
        std::size_t queued_tasks = 0;
        std::uint64_t queued_bytes = 0;
        std::unique_ptr<std::unordered_map<std::string_view, task*>> requests;
    };

    node* find(const std::string& id) {
        const auto found = nodes_.find(id);
        return found == nodes_.end() ? nullptr : &found->second;
    }

    node* carrier(const std::string& id, const call& on) {
        node* n = find(id);
        return n && n->carried && n->carried->on == on ? n : nullptr;
    }

    static node_info info(const node& n) {
        return {*n.id, n.status, n.since, n.queued_tasks, n.queued_bytes, n.requests ? n.requests->size() : 0};
    }

    // --- nodes ---------------------------------------------------------------------------------------------------------

    template <class Sink>
    void set_status(node& n, node_status status, instant now, Sink& sink) {
        if (n.status == status) return;
        if (n.status == node_status::disconnected) ++reachable_;
        if (status == node_status::disconnected) --reachable_;
        n.status = status;
        n.since = now.system;
        sink(effects::node_changed{*n.id, status});
    }

    /// The newest poll is over.
    template <class Sink>
    void leave(node& n, instant now, Sink& sink) {
        n.current = call{};
        n.left = now.steady;
        set_status(n, node_status::waiting, now, sink);
        arm(n, now.steady + limits_.disconnect_after, sink);
    }

    template <class Sink>
    void release_current(node& n, errc reason, std::string text, instant now, Sink& sink) {
        sink(effects::end_poll<call>{n.current, reason, std::move(text)});
        leave(n, now, sink);
    }

    /// A newer poll of the same id has come.
    template <class Sink>
    void supersede(node& n, instant now, Sink& sink) {
        const bool carries = n.carried && n.carried->on == n.current;
        if (carries && n.carried->chunks.done()) return;  // it has all but ended; how, `poll_closed` will tell
        sink(effects::warning{"node " + *n.id + " polled while an older poll of its was open: is the id used twice?"});
        sink(effects::end_poll<call>{n.current, errc::superseded, "a newer poll of the same node id took over"});
        n.current = call{};
        if (carries) drop_carried(n, errc::superseded, "a newer poll of the same node id took over", now, sink);
    }

    /// A poll has come after the head was carried to its end: over the same connection it shows that the node has it.
    template <class Sink>
    void confirm(node& n, instant now, Sink& sink) {
        task& t = *n.head;
        if (t.carried_over == n.connection) {
            taken(t, sink);
        } else {
            failed(t, errc::unconfirmed, "the node polled over another connection", now, sink);
        }
    }

    template <class Sink>
    void look_after(node& n, instant now, Sink& sink) {
        if (n.carried && now.steady - n.carried->last_progress >= limits_.idle_limit) {
            sink(effects::end_poll<call>{n.carried->on, errc::idle_timeout, "the transfer stood still"});
            drop_carried(n, errc::idle_timeout, "the transfer stood still", now, sink);
        }
        if (n.current == call{} && !n.carried && n.status == node_status::waiting &&
            now.steady - n.left >= limits_.disconnect_after) {
            set_status(n, node_status::disconnected, now, sink);
            if (n.head && n.head->state == task_state::unconfirmed) {
                failed(*n.head, errc::unconfirmed, "the node never polled again", now, sink);
            }
        }
        for (task* t = n.head; t;) {
            task* const next = t->next;
            if (t->state == task_state::queued && t->expires <= now.steady) {
                end(*t,
                    {outcome_kind::expired, errc::expired, "it waited in the queue for too long", t->record.attempts},
                    sink);
            }
            t = next;
        }
        if (n.requests) {
            std::vector<task*> late;
            for (const auto& [id, t] : *n.requests) {
                if (t->reply_due <= now.steady) late.push_back(t);
            }
            for (task* t : late) {
                if (n.carried && n.carried->of == t) n.carried->of = nullptr;
                end(*t, {outcome_kind::expired, errc::expired, "no reply came in time", t->record.attempts}, sink);
            }
        }
        pump(n, now, sink);
        arm(n, next_wake(n, now.steady), sink);
    }

    time_point next_wake(const node& n, time_point now) const {
        auto when = time_point::max();
        if (n.carried) when = n.carried->last_progress + limits_.idle_limit;
        if (n.status == node_status::waiting && n.current == call{} && !n.carried)
            when = std::min(when, n.left + limits_.disconnect_after);
        for (const task* t = n.head; t; t = t->next) {
            if (t->state == task_state::queued) when = std::min(when, t->expires);
        }
        if (n.head && n.head->state == task_state::queued && n.head->not_before > now)
            when = std::min(when, n.head->not_before);
        if (n.requests) {
            for (const auto& [id, t] : *n.requests) when = std::min(when, t->reply_due);
        }
        return when;
    }

    template <class Sink>
    void arm(node& n, time_point when, Sink& sink) {
        if (when >= n.wake) return;
        if (n.wake != time_point::max()) timers_.erase({n.wake, &n});
        n.wake = when;
        timers_.insert({when, &n});
        announce(sink);
    }

    template <class Sink>
    void announce(Sink& sink) {
        if (timers_.empty() || timers_.begin()->first >= announced_) return;
        announced_ = timers_.begin()->first;
        sink(effects::wake_at{announced_});
    }

    // --- a task's life -------------------------------------------------------------------------------------------------

    task& add_task(node& n, time_point now) {
        task& t = tasks_[++last_key_];
        t.key = last_key_;
        t.owner = &n;
        t.accepted = now;
        return t;
    }

    void enter_lane(node& n, task& t) {
        t.in_lane = true;
        t.previous = n.tail;
        (n.tail ? n.tail->next : n.head) = &t;
        n.tail = &t;
        ++n.queued_tasks;
        n.queued_bytes += t.record.content->size();
        index(n, t);
    }

    void index(node& n, task& t) {
        if (t.record.request_id.empty()) return;
        if (!n.requests) n.requests = std::make_unique<std::unordered_map<std::string_view, task*>>();
        n.requests->emplace(t.record.request_id, &t);
    }

    void leave_lane(task& t) {
        if (!t.in_lane) return;
        node& n = *t.owner;
        t.in_lane = false;
        (t.previous ? t.previous->next : n.head) = t.next;
        (t.next ? t.next->previous : n.tail) = t.previous;
        t.previous = t.next = nullptr;
        --n.queued_tasks;
        n.queued_bytes -= t.record.content->size();
    }

    task* first_unstored(node& n) {
        for (task* t = n.head; t; t = t->next) {
            if (t->state == task_state::storing && t->busy == store_op::none) return t;
        }
        return nullptr;
    }

    /// Takes over what the journal holds and the core doesn't. What still waits to be stored goes behind it.
    template <class Sink>
    void restore(node& n, std::vector<task_record> records, instant now, Sink& sink) {
        if (records.empty()) return;
        std::vector<task*> waiting;
        std::set<std::uint64_t> held;
        for (task* t = n.head; t; t = t->next) {
            if (t->stored || t->busy != store_op::none) {
                held.insert(t->record.order);
            } else {
                waiting.push_back(t);
            }
        }
        if (n.requests) {
            for (const auto& [id, t] : *n.requests) held.insert(t->record.order);
        }
        for (task* t : waiting) leave_lane(*t);
        for (auto& record : records) {
            n.last_order = std::max(n.last_order, record.order);
            if (held.contains(record.order)) continue;
            task& t = add_task(n, now.steady);
            t.accepted -= now.system - record.accepted;
            t.expires = now.steady + (record.expires - now.system);
            t.record = std::move(record);
            t.stored = true;
            t.state = t.record.taken ? task_state::awaiting_reply : task_state::queued;
            if (t.record.taken) {
                index(n, t);
            } else {
                enter_lane(n, t);
                arm(n, t.expires, sink);
            }
        }
        for (task* t : waiting) enter_lane(n, *t);
    }

    template <class Sink>
    void acquire(node& n, Sink& sink) {
        if (std::exchange(n.acquiring, true)) return;
        sink(effects::acquire_journal{*n.id});
    }

    template <class Sink>
    void append(node& n, task& t, Sink& sink) {
        t.busy = store_op::append;
        t.record.order = ++n.last_order;
        sink(effects::append_task{t.key, *n.id, n.owner, t.record});
    }

    template <class Sink>
    void update(node& n, task& t, Sink& sink) {
        t.busy = store_op::update;
        sink(effects::update_task{t.key, *n.id, n.owner, t.record});
    }

    template <class Sink>
    void settle(node& n, task& t, Sink& sink) {
        t.busy = store_op::settle;
        sink(effects::settle_task{t.key, *n.id, n.owner, t.record.order});
    }

    /// Starts on the head of the lane where a poll is free for it.
    template <class Sink>
    void pump(node& n, instant now, Sink& sink) {
        if (stopping_ || n.current == call{} || n.carried || !n.owned || !n.head) return;
        task& t = *n.head;
        if (t.state != task_state::queued) return;
        if (t.not_before > now.steady) return arm(n, t.not_before, sink);
        t.state = task_state::leasing;
        ++t.record.attempts;
        update(n, t, sink);
    }

    template <class Sink>
    void start_delivery(node& n, task& t, instant now, Sink& sink) {
        if (stopping_ || n.current == call{} || n.carried) {
            --t.record.attempts;  // the poll went away before anything was sent
            t.state = task_state::queued;
            return arm(n, t.expires, sink);
        }
        t.state = task_state::sending;
        n.carried = std::make_unique<delivery>(delivery{
            n.current, n.connection, t.record.content, cutter(t.record.content->size()), {}, 0, now.steady, &t});
        ++carrying_;
        arm(n, now.steady + limits_.idle_limit, sink);
        send_next(n, sink);
    }

    template <class Sink>
    void send_next(node& n, Sink& sink) {
        auto& d = *n.carried;
        d.part = d.chunks.next();
        sink(effects::send_range<call>{d.on, d.content, d.part});
    }

    /// The stream that carries a task is gone.
    template <class Sink>
    void drop_carried(node& n, errc reason, std::string text, instant now, Sink& sink) {
        const auto gone = std::move(n.carried);
        --carrying_;
        if (n.current == gone->on) {
            leave(n, now, sink);
        } else if (n.current == call{}) {
            arm(n, n.left + limits_.disconnect_after, sink);
        }
        if (gone->of) failed(*gone->of, reason, std::move(text), now, sink);
        pump(n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void failed(task& t, errc reason, std::string text, instant now, Sink& sink) {
        const auto pause = retry_.next({t.record.attempts, now.steady - t.accepted, reason});
        if (!pause) {
            return end(t, {outcome_kind::retries_exhausted, reason, std::move(text), t.record.attempts}, sink);
        }
        t.state = task_state::queued;
        t.not_before = pause->count() > 0 ? now.steady + *pause : time_point::min();
        arm(*t.owner, t.not_before > now.steady ? std::min(t.expires, t.not_before) : t.expires, sink);
    }

    template <class Sink>
    void taken(task& t, Sink& sink) {
        if (!t.record.wants_reply) return end(t, {outcome_kind::taken, errc::ok, {}, t.record.attempts}, sink);
        leave_lane(t);
        t.state = task_state::awaiting_reply;
        t.record.taken = true;
        update(*t.owner, t, sink);
    }

    /// Decides how the task ends. It leaves the lane at once; it is reported when the store has settled it.
    template <class Sink>
    void end(task& t, outcome how, Sink& sink) {
        node& n = *t.owner;
        if (n.carried && n.carried->of == &t) n.carried->of = nullptr;
        leave_lane(t);
        if (n.requests && !t.record.request_id.empty()) {
            const auto open = n.requests->find(t.record.request_id);
            if (open != n.requests->end() && open->second == &t) n.requests->erase(open);
            if (n.requests->empty()) n.requests.reset();
        }
        t.state = task_state::settling;
        t.how = std::move(how);
        if (t.busy != store_op::none) return;  // goes on when the operation under way has ended
        if (t.stored && n.owned) return settle(n, t, sink);
        report(t, sink);
    }

    template <class Sink>
    void tell(task& t, Sink& sink) {
        for (auto& each : t.tickets) {
            const bool last = &each == &t.tickets.back();
            sink(effects::ended<ticket, reply>{std::move(each), t.how, last ? std::move(t.answer) : t.answer,
                                               *t.owner->id});
        }
    }

    template <class Sink>
    void report(task& t, Sink& sink) {
        tell(t, sink);
        tasks_.erase(t.key);
    }

    template <class Sink>
    void check_drained(Sink& sink) {
        if (!stopping_ || drained_ || carrying_ > 0) return;
        for (const auto& [id, n] : nodes_) {
            if (n.head && n.head->state == task_state::unconfirmed && n.status != node_status::disconnected) return;
        }
        drained_ = true;
        sink(effects::drained{});
    }

    dispatch_limits limits_;
    [[no_unique_address]] retry retry_;
    std::unordered_map<std::string, node> nodes_;
    std::unordered_map<task_key, task> tasks_;
    std::set<std::pair<time_point, node*>> timers_;
    time_point announced_ = time_point::max();
    task_key last_key_ = 0;
    std::size_t reachable_ = 0;
    std::size_t carrying_ = 0;
    bool stopping_ = false;
    bool drained_ = false;
};

}  // namespace ferry
