// The server's core: what is owed to which node, and what has become of it. A pure state machine: events and the time go
// in, effects come out through a sink. No threads, sockets, clock or I/O, and no lock: its owner calls it one step at a time.
//
// A node's tasks form one lane. Only its head is ever under way, and stays at the head until it is taken or ended:
//
//   storing -> queued -> leasing -> sending -> unconfirmed -> taken (-> awaiting its reply) -> settling -> gone
//                 ^__________________|_____________|   a failed delivery, as the retry policy says
//
// A poll carries one task. That the node has it shows in its next poll over the same connection, or in a reply; a poll over
// another connection, or a disconnection, is a failed delivery. The outcome is reported once the store has settled the task,
// or has failed to; then it is tried again, so that what was reported is not delivered again while this server lives.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/chunk.hpp>
#include <ferry/detail/dispatch_state.hpp>
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
        if (task* same = n.request(e.request_id)) {
            join(*same, e, now, sink);
            return same->key;
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
        t.record.content = std::move(e.content);
        t.record.accepted = now.system;
        t.record.expires = detail::after(now.system, e.expires_after);
        t.expires = detail::after(now.steady, e.expires_after);
        n.enter_lane(t);
        n.open_request(t);
        join(t, e, now, sink);
        arm(n, t.expires, sink);
        if (n.owned) {
            append(n, t, sink);
        } else {
            acquire(n, sink);
        }
        return t.key;
    }

    template <class Sink>
    void step(events::poll_opened<call> e, instant now, Sink&& sink) {
        node* known = find(e.node);
        if (known) show_poll(*known, e.connection, now, sink);
        if (stopping_) {
            sink(effects::end_poll<call>{std::move(e.call), errc::stopped, "the server is stopping"});
            return check_drained(sink);
        }
        if (!known) {
            if (nodes_.size() >= limits_.max_nodes) {
                sink(effects::warning{"node " + e.node + " is refused: " + std::to_string(nodes_.size()) +
                                      " nodes are known already"});
                return sink(
                    effects::end_poll<call>{std::move(e.call), errc::queue_full, "the server knows too many nodes"});
            }
            const auto added = nodes_.try_emplace(e.node).first;
            known = &added->second;
            known->id = &added->first;
        }
        node& n = *known;
        const call older = std::exchange(n.current, std::move(e.call));
        n.connection = e.connection;
        set_status(n, node_status::active, now, sink);
        if (older != call{}) supersede(n, older, now, sink);
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
            parked->current = call{};
            poll_over(*parked, now, sink);
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
        const auto over = take_carried(*n, now, sink);
        if (task* t = over->of) {
            for (const auto& each : t->tickets) sink(effects::progressed<ticket>{each, t->record.content->size()});
            t->state = task_state::unconfirmed;
            t->carried_over = over->connection;
            if (over->confirmed) confirm(*t, *over->confirmed, now, sink);
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
        if (n->acquiring && !e.request_id.empty() && !n->request(e.request_id)) {
            n->early_replies.push_back({std::move(e.call), e.request_id, std::move(e.reply)});
            return;
        }
        take_reply(*n, std::move(e.call), e.request_id, std::move(e.reply), sink);
        pump(*n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::withdrawn e, instant now, Sink&& sink) {
        const auto found = tasks_.find(e.key);
        if (found == tasks_.end() || found->second.is_over()) return;
        task& t = found->second;
        node& n = *t.owner;
        const bool moves = n.carried && n.carried->of == &t;
        end(t, {outcome_kind::cancelled, errc::cancelled, "withdrawn by its sender", t.record.attempts}, sink);
        if (moves) {
            sink(effects::end_poll<call>{n.carried->on, errc::cancelled, "the task was withdrawn"});
            drop_carried(n, errc::cancelled, {}, now, sink);
        }
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
        const bool lost = e.status.code == errc::ownership_lost;
        const bool as_owner = n.owned && t.busy_as == n.owner;
        if (op == store_op::append) t.stored = !lost;  // another failure may have come after the write
        if (as_owner && lost) lose(n, e.status.text, now, sink);
        if (as_owner && ok) settle_again(n, sink);
        if (op == store_op::settle && ok) t.stored = false;
        if (op == store_op::settle && as_owner && !ok) {
            sink(effects::warning{"node " + *n.id + ": the store could not settle a task: " + e.status.text});
            report(t, sink);
        } else if (t.is_over()) {
            conclude(t, sink);
        } else if (!ok && t.state == task_state::awaiting_reply) {
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
        if (!n || !std::exchange(n->acquiring, false)) return;
        if (const auto& status = e.journal.status; status.code == errc::ok) {
            reconcile(*n, std::move(e.journal), now, sink);
            for (task* t = n->head; t; t = t->next) {
                if (t->waits_for_journal()) append(*n, *t, sink);
            }
        } else {
            sink(effects::warning{"node " + e.node + ": the store could not acquire its journal: " + status.text});
            for (task* t : waiting_for_journal(*n))
                end(*t, {outcome_kind::store_failed, status.code, status.text, 0}, sink);
            release_parked(*n, status.code, "the node's journal can't be had: " + status.text, now, sink);
        }
        for (auto& each : std::exchange(n->early_replies, {})) {
            take_reply(*n, std::move(each.call), each.request_id, std::move(each.content), sink);
        }
        pump(*n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::time_passed, instant now, Sink&& sink) {
        while (node* n = wake_ups_.take_due(now.steady)) look_after(*n, now, sink);
        wake_ups_.forget();
        announce(sink);
        check_drained(sink);
    }

    /// No new polls or tasks; what is being carried may finish. `drained` tells when nothing is under way.
    template <class Sink>
    void step(events::stop_requested, instant now, Sink&& sink) {
        stopping_ = true;
        for (auto& [id, n] : nodes_) release_parked(n, errc::stopped, "the server is stopping", now, sink);
        check_drained(sink);
    }

    /// Ends all that is left. The store keeps what was not settled.
    template <class Sink>
    void step(events::stop_forced, instant now, Sink&& sink) {
        stopping_ = true;
        for (auto& [id, n] : nodes_) {
            if (n.carried) {
                sink(effects::end_poll<call>{n.carried->on, errc::stopped, "the server is stopping"});
                take_carried(n, now, sink);
            }
            release_parked(n, errc::stopped, "the server is stopping", now, sink);
            for (auto& each : std::exchange(n.early_replies, {})) {
                sink(effects::answer_reply<reply_call>{std::move(each.call), errc::stopped, "the server is stopping"});
            }
            n.acquiring = false;
            n.forget_tasks();
        }
        for (auto& [key, t] : tasks_) {
            if (!t.is_over()) {
                t.how = {outcome_kind::stopped, errc::stopped, "the server was stopped first", t.record.attempts};
            }
            tell(t, sink);
        }
        tasks_.clear();
        open_ = settling_ = 0;
        check_drained(sink);
    }

    std::optional<node_info> get_node(const std::string& id) const {
        const auto found = nodes_.find(id);
        if (found == nodes_.end()) return std::nullopt;
        return found->second.info();
    }

    template <class Take>
    void for_each_node(Take&& take) const {
        for (const auto& [id, n] : nodes_) take(n.info());
    }

    /// Nodes that are not DISCONNECTED.
    std::size_t reachable_nodes() const noexcept { return reachable_; }

    /// Tasks accepted and not yet ended.
    std::size_t open_tasks() const noexcept { return open_; }

private:
    using task = detail::dispatch_task<Types>;
    using delivery = detail::dispatch_delivery<Types>;
    using node = detail::dispatch_node<Types>;
    using task_state = detail::task_state;
    using store_op = detail::store_op;

    node* find(const std::string& id) {
        const auto found = nodes_.find(id);
        return found == nodes_.end() ? nullptr : &found->second;
    }

    node* carrier(const std::string& id, const call& on) {
        node* n = find(id);
        return n && n->carried && n->carried->on == on ? n : nullptr;
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

    /// A poll is over. After the last one the node is WAITING.
    template <class Sink>
    void poll_over(node& n, instant now, Sink& sink) {
        if (n.current != call{} || n.carried) return;
        n.left = now.steady;
        set_status(n, node_status::waiting, now, sink);
        arm(n, detail::after(n.left, limits_.disconnect_after), sink);
    }

    /// Ends the newest poll, unless it carries a task.
    template <class Sink>
    void release_parked(node& n, errc reason, std::string text, instant now, Sink& sink) {
        if (n.current == call{} || (n.carried && n.carried->on == n.current)) return;
        sink(effects::end_poll<call>{std::exchange(n.current, call{}), reason, std::move(text)});
        poll_over(n, now, sink);
    }

    /// A newer poll of the same id has come.
    template <class Sink>
    void supersede(node& n, const call& older, instant now, Sink& sink) {
        const bool carries = n.carried && n.carried->on == older;
        if (carries && n.carried->chunks.done()) return;  // it has all but ended; how, `poll_closed` will tell
        sink(effects::warning{"node " + *n.id + " polled while an older poll of its was open: is the id used twice?"});
        sink(effects::end_poll<call>{older, errc::superseded, "a newer poll of the same node id took over"});
        if (carries) drop_carried(n, errc::superseded, "a newer poll of the same node id took over", now, sink);
    }

    /// A poll has come: over the same connection it shows that the node has what was carried to its end.
    template <class Sink>
    void show_poll(node& n, const std::string& connection, instant now, Sink& sink) {
        if (n.carried && n.carried->chunks.done()) {
            auto& confirmed = n.carried->confirmed;
            confirmed = confirmed.value_or(false) || connection == n.carried->connection;
        } else if (n.head && n.head->state == task_state::unconfirmed) {
            confirm(*n.head, connection == n.head->carried_over, now, sink);
        }
    }

    template <class Sink>
    void confirm(task& t, bool same_connection, instant now, Sink& sink) {
        if (same_connection) return taken(t, sink);
        failed(t, errc::unconfirmed, "the node polled over another connection", now, sink);
    }

    template <class Sink>
    void look_after(node& n, instant now, Sink& sink) {
        if (n.carried && now.steady - n.carried->last_progress >= limits_.idle_limit) {
            sink(effects::end_poll<call>{n.carried->on, errc::idle_timeout, "the transfer stood still"});
            drop_carried(n, errc::idle_timeout, "the transfer stood still", now, sink);
        }
        if (n.status == node_status::waiting && now.steady - n.left >= limits_.disconnect_after) {
            set_status(n, node_status::disconnected, now, sink);
            if (n.head && n.head->state == task_state::unconfirmed) {
                failed(*n.head, errc::unconfirmed, "the node never polled again", now, sink);
            }
        }
        for (task* t = n.head; t;) {
            task* const next = t->next;
            if (t->waits() && t->expires <= now.steady) expire(*t, sink);
            t = next;
        }
        std::vector<task*> late;
        if (n.requests) {
            for (const auto& [id, t] : *n.requests) {
                if (t->reply_due && *t->reply_due <= now.steady) late.push_back(t);
            }
        }
        for (task* t : late) {
            end(*t, {outcome_kind::expired, errc::expired, "no reply came in time", t->record.attempts}, sink);
        }
        pump(n, now, sink);
        arm(n, next_wake(n, now.steady), sink);
    }

    time_point next_wake(const node& n, time_point now) const {
        auto when = time_point::max();
        if (n.carried) when = detail::after(n.carried->last_progress, limits_.idle_limit);
        if (n.status == node_status::waiting) when = std::min(when, detail::after(n.left, limits_.disconnect_after));
        for (const task* t = n.head; t; t = t->next) {
            if (t->waits()) when = std::min(when, t->expires);
        }
        if (n.head && n.head->waits() && n.head->not_before > now) when = std::min(when, n.head->not_before);
        if (n.requests) {
            for (const auto& [id, t] : *n.requests) when = std::min(when, t->reply_due.value_or(when));
        }
        return when;
    }

    template <class Sink>
    void arm(node& n, time_point when, Sink& sink) {
        wake_ups_.arm(n, when);
        announce(sink);
    }

    template <class Sink>
    void announce(Sink& sink) {
        if (const auto when = wake_ups_.announce()) sink(effects::wake_at{*when});
    }

    // --- a task's life -------------------------------------------------------------------------------------------------

    task& add_task(node& n, time_point now) {
        task& t = tasks_[++last_key_];
        t.key = last_key_;
        t.owner = &n;
        t.accepted = now;
        ++open_;
        return t;
    }

    /// One more sender waits for the task. Of several that wait for its reply, the longest limit counts.
    template <class Sink>
    void join(task& t, events::submitted<ticket>& e, instant now, Sink& sink) {
        t.tickets.push_back(std::move(e.ticket));
        if (!e.wants_reply) return;
        const std::optional due = e.reply_within ? detail::after(now.steady, *e.reply_within) : time_point::max();
        t.reply_due = std::max(t.reply_due, due);
        t.record.wants_reply = true;
        arm(*t.owner, *t.reply_due, sink);
    }

    static std::vector<task*> waiting_for_journal(const node& n) {
        std::vector<task*> out;
        for (task* t = n.head; t; t = t->next) {
            if (t->waits_for_journal()) out.push_back(t);
        }
        return out;
    }

    /// Makes the node's tasks what its journal says, which another server may have owned meanwhile. What waits to be stored
    /// goes behind it.
    template <class Sink>
    void reconcile(node& n, acquired_journal journal, instant now, Sink& sink) {
        std::unordered_map<std::uint64_t, task*> held;
        if (n.owner != 0) {
            for (auto& [key, t] : tasks_) {
                if (t.owner == &n && (t.stored || t.busy != store_op::none)) held.emplace(t.record.order, &t);
            }
        }
        n.owned = true;
        n.owner = journal.owner;
        n.last_order = std::max(n.last_order, n.owner << 32);  // no order is ever used by two owners
        const auto waiting = waiting_for_journal(n);
        for (task* t : waiting) n.leave_lane(*t);
        for (auto& record : journal.tasks) {
            n.last_order = std::max(n.last_order, record.order);
            if (held.erase(record.order) == 0) restore(n, std::move(record), now, sink);
        }
        for (task* t : waiting) {
            if (!t->stored) n.enter_lane(*t);
        }
        for (const auto& [order, t] : held) {
            t->stored = false;
            if (t->is_over() || t->busy != store_op::none) continue;
            end(*t,
                {outcome_kind::store_failed, errc::ownership_lost, "another server has dealt with it",
                 t->record.attempts},
                sink);
        }
        settle_again(n, sink);
    }

    /// Takes a task over from the journal. One that was submitted anew under the same id meanwhile becomes it.
    template <class Sink>
    void restore(node& n, task_record record, instant now, Sink& sink) {
        task* same = n.request(record.request_id);
        if (same && !same->waits_for_journal()) same = nullptr;
        if (same) n.close_request(*same);
        task& t = same ? *same : add_task(n, now.steady);
        record.wants_reply |= t.record.wants_reply;
        t.record = std::move(record);
        t.accepted = now.steady - (now.system - t.record.accepted);
        t.expires = detail::after(now.steady, t.record.expires - now.system);
        t.stored = true;
        t.state = t.record.taken ? task_state::awaiting_reply : task_state::queued;
        n.open_request(t);
        if (t.record.taken) return t.record.content.reset();  // it is never sent again
        n.enter_lane(t);
        arm(n, t.expires, sink);
    }

    template <class Sink>
    void acquire(node& n, Sink& sink) {
        if (std::exchange(n.acquiring, true)) return;
        sink(effects::acquire_journal{*n.id});
    }

    /// Another server owns the journal: the node has polled there, or will poll here again, and then it is acquired anew.
    template <class Sink>
    void lose(node& n, const std::string& text, instant now, Sink& sink) {
        n.owned = false;
        sink(effects::warning{"node " + *n.id + ": its journal is lost: " + text});
        release_parked(n, errc::ownership_lost, "another server has taken the node over", now, sink);
    }

    template <class Sink>
    void append(node& n, task& t, Sink& sink) {
        begin(store_op::append, n, t);
        t.record.order = ++n.last_order;
        sink(effects::append_task{t.key, *n.id, n.owner, t.record});
    }

    template <class Sink>
    void update(node& n, task& t, task_record record, Sink& sink) {
        begin(store_op::update, n, t);
        sink(effects::update_task{t.key, *n.id, n.owner, std::move(record)});
    }

    static void begin(store_op op, const node& n, task& t) {
        t.busy = op;
        t.busy_as = n.owner;
    }

    /// Tries what could not be settled when it ended.
    template <class Sink>
    void settle_again(node& n, Sink& sink) {
        for (task* t : std::exchange(n.unsettled, {})) conclude(*t, sink);
    }

    /// Starts on the head of the lane where a poll is free for it. A stop leaves none.
    template <class Sink>
    void pump(node& n, instant now, Sink& sink) {
        if (n.current == call{} || n.carried || !n.owned) return;
        while (n.head && n.head->state == task_state::queued && n.head->expires <= now.steady) expire(*n.head, sink);
        if (!n.head || n.head->state != task_state::queued || n.head->not_before > now.steady) return;
        task& t = *n.head;
        t.state = task_state::leasing;
        auto leased = t.record;
        ++leased.attempts;
        update(n, t, std::move(leased), sink);
    }

    template <class Sink>
    void start_delivery(node& n, task& t, instant now, Sink& sink) {
        if (n.current == call{}) return requeue(t, time_point::min(), sink);  // the poll went away
        t.state = task_state::sending;
        ++t.record.attempts;
        n.carried = std::make_unique<delivery>(
            delivery{n.current, n.connection, t.record.content, cutter(t.record.content->size()), now.steady, &t});
        ++carrying_;
        arm(n, detail::after(now.steady, limits_.idle_limit), sink);
        send_next(n, sink);
    }

    template <class Sink>
    void send_next(node& n, Sink& sink) {
        auto& d = *n.carried;
        d.part = d.chunks.next();
        sink(effects::send_range<call>{d.on, d.content, d.part});
    }

    /// The stream that carries a task is over.
    template <class Sink>
    std::unique_ptr<delivery> take_carried(node& n, instant now, Sink& sink) {
        auto over = std::move(n.carried);
        --carrying_;
        if (n.current == over->on) n.current = call{};
        poll_over(n, now, sink);
        return over;
    }

    template <class Sink>
    void drop_carried(node& n, errc reason, std::string text, instant now, Sink& sink) {
        const auto gone = take_carried(n, now, sink);
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
        requeue(t, pause->count() > 0 ? detail::after(now.steady, *pause) : time_point::min(), sink);
    }

    template <class Sink>
    void requeue(task& t, time_point not_before, Sink& sink) {
        t.state = task_state::queued;
        t.not_before = not_before;
        arm(*t.owner, not_before == time_point::min() ? t.expires : std::min(t.expires, not_before), sink);
    }

    template <class Sink>
    void expire(task& t, Sink& sink) {
        end(t, {outcome_kind::expired, errc::expired, "it waited in the queue for too long", t.record.attempts}, sink);
    }

    template <class Sink>
    void taken(task& t, Sink& sink) {
        if (!t.record.wants_reply) return end(t, {outcome_kind::taken, errc::ok, {}, t.record.attempts}, sink);
        t.owner->leave_lane(t);
        t.state = task_state::awaiting_reply;
        t.record.taken = true;
        update(*t.owner, t, t.record, sink);
        t.record.content.reset();
    }

    template <class Sink>
    void take_reply(node& n, reply_call from, const std::string& request_id, reply content, Sink& sink) {
        task* t = n.request(request_id);
        const bool wanted = t && t->reply_due;
        if (wanted) {
            t->answer = std::move(content);
        } else {
            sink(effects::unclaimed_reply<reply>{*n.id, request_id, std::move(content)});
        }
        sink(effects::answer_reply<reply_call>{std::move(from), errc::ok, {}});
        if (t) end(*t, {wanted ? outcome_kind::replied : outcome_kind::taken, errc::ok, {}, t->record.attempts}, sink);
    }

    /// Decides how the task ends. It leaves the lane at once; it is reported when the store has settled it.
    template <class Sink>
    void end(task& t, outcome&& how, Sink& sink) {
        node& n = *t.owner;
        if (n.carried && n.carried->of == &t) n.carried->of = nullptr;
        n.leave_lane(t);
        n.close_request(t);
        t.state = task_state::settling;
        t.how = std::move(how);
        ++settling_;
        conclude(t, sink);
    }

    /// Goes on with a task that has ended, when no operation on it is under way.
    template <class Sink>
    void conclude(task& t, Sink& sink) {
        if (t.busy != store_op::none) return;
        node& n = *t.owner;
        if (!t.stored || !n.owned) return report(t, sink);
        begin(store_op::settle, n, t);
        sink(effects::settle_task{t.key, *n.id, n.owner, t.record.order});
    }

    /// A task that the journal may still have is remembered, so that it is settled later and never delivered again.
    template <class Sink>
    void report(task& t, Sink& sink) {
        if (t.state == task_state::settling) {
            tell(t, sink);
            t.state = task_state::reported;
            t.record.content.reset();
            --settling_;
            --open_;
        }
        if (t.stored) {
            t.owner->unsettled.push_back(&t);
        } else {
            tasks_.erase(t.key);
        }
    }

    template <class Sink>
    void tell(task& t, Sink& sink) {
        for (auto& each : t.tickets) {
            const bool last = &each == &t.tickets.back();
            sink(effects::ended<ticket, reply>{std::move(each), t.how, last ? std::move(t.answer) : t.answer,
                                               *t.owner->id});
        }
        t.tickets.clear();
    }

    template <class Sink>
    void check_drained(Sink& sink) {
        if (!stopping_ || drained_ || carrying_ > 0 || settling_ > 0) return;
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
    detail::wake_ups<node> wake_ups_;
    task_key last_key_ = 0;
    std::size_t reachable_ = 0;
    std::size_t carrying_ = 0;
    std::size_t settling_ = 0;
    std::size_t open_ = 0;
    bool stopping_ = false;
    bool drained_ = false;
};

}  // namespace ferry
