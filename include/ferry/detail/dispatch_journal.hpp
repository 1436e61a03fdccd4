// layer 3
// That a node's journal and the server's open tasks agree: what each operation on a task has come to, and what the server
// makes of a journal that it takes over. A task is in the journal from before it is first sent until it has ended.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/dispatch_endings.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/detail/dispatch_writes.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Types>
class dispatch_journal {
    using ticket = typename Types::ticket;

public:
    using task = dispatch_task<Types>;
    using node = dispatch_node<Types>;

    dispatch_journal(dispatch_nodes<Types>& nodes, dispatch_tasks<Types>& tasks, dispatch_writes<Types>& writes,
                     dispatch_endings<Types>& endings)
        : nodes_(nodes), tasks_(tasks), writes_(writes), endings_(endings) {}

    /// The operation on the task is over. True where it is leased now, and is to be sent; else it may be gone afterwards.
    template <class Sink>
    bool done(task& t, const store_status& status, instant now, Sink& sink) {
        node& n = *t.owner;
        const auto op = std::exchange(t.busy, store_op::none);
        const bool ok = status.code == errc::ok;
        const bool as_owner = n.owned && t.busy_as == n.owner;
        const bool lost = status.code == errc::ownership_lost;
        if (op == store_op::append) t.stored = !lost;  // another failure may have come after the write
        if (op == store_op::settle && ok) t.stored = false;
        if (op == store_op::append && ok) accepted(t, status, sink);
        if (as_owner && lost) lose(n, status.text, now, sink);
        if (as_owner && ok) endings_.settle_again(n, sink);
        if (op == store_op::settle && as_owner && !ok) {
            sink(effects::warning{"node " + *n.id + ": the store could not settle a task: " + status.text});
            endings_.report(t, sink);
            return false;
        }
        if (t.is_over()) {
            t.reply_at == reply_stage::noting ? endings_.noted(t, status, sink) : endings_.conclude(t, sink);
            return false;
        }
        if (!ok && t.state != task_state::awaiting_reply) {
            endings_.end(t, {outcome_kind::store_failed, status.code, status.text, t.record.attempts}, sink);
            return false;
        }
        if (!ok)
            sink(
                effects::warning{"node " + *n.id + ": the store could not note what became of a task: " + status.text});
        if (t.state == task_state::storing) t.state = task_state::queued;
        if (t.state == task_state::leasing) return true;
        if (n.owned && std::exchange(t.taken_unnoted, false)) writes_.update(n, t, sink);
        return false;
    }

    /// Makes the node's tasks what its journal says, which another server may have owned meanwhile. What waits to be stored
    /// goes behind it.
    template <class Sink>
    void take_over(node& n, acquired_journal&& journal, instant now, Sink& sink) {
        auto held = held_by_order(n);
        n.owned = true;
        n.owner = journal.owner;
        n.last_order = std::max(n.last_order, n.owner << 32);  // no order is ever used by two owners
        const auto waiting = waiting_for_journal(n);
        for (task* t : waiting) n.leave_lane(*t);
        for (auto& record : journal.tasks) {
            n.last_order = std::max(n.last_order, record.order);
            if (held.erase(record.order) == 0) restore(n, std::move(record), now, sink);
        }
        for (const auto& [order, t] : held) {
            t->stored = false;
            if (t->is_over() || t->busy != store_op::none) continue;
            endings_.end(*t,
                         {outcome_kind::store_failed, errc::ownership_lost, "another server has dealt with it",
                          t->record.attempts},
                         sink);
        }
        endings_.settle_again(n, sink);
        for (task* t : waiting) {
            if (t->stored) continue;  // the journal had it
            n.enter_lane(*t);
            writes_.store(n, *t, sink);
        }
    }

    /// The journal can't be had.
    template <class Sink>
    void give_up(node& n, const store_status& status, instant now, Sink& sink) {
        sink(effects::warning{"node " + *n.id + ": the store could not acquire its journal: " + status.text});
        for (task* t : waiting_for_journal(n)) {
            endings_.end(*t, {outcome_kind::store_failed, status.code, status.text, 0}, sink);
        }
        nodes_.release_parked(n, status.code, "the node's journal can't be had: " + status.text, now, sink);
    }

private:
    template <class Sink>
    void accepted(task& t, const store_status& status, Sink& sink) {
        for (const auto& each : t.tickets) sink(effects::accepted<ticket>{each});
        if (!status.content || !t.record.content) return;
        tasks_.release(t, sink);
        t.record.content = status.content;
    }

    static std::vector<task*> waiting_for_journal(const node& n) {
        std::vector<task*> out;
        n.for_each_in_lanes([&](task& t) {
            if (t.waits_for_journal()) out.push_back(&t);
        });
        return out;
    }

    /// The tasks of which an earlier journal of the node's had a record, or may have.
    std::unordered_map<std::uint64_t, task*> held_by_order(const node& n) {
        std::unordered_map<std::uint64_t, task*> out;
        if (n.owner == 0) return out;  // there was none; a new node must not cost a walk over all tasks
        for (auto& [key, t] : tasks_) {
            if (t.owner == &n && (t.stored || t.busy != store_op::none)) out.emplace(t.record.order, &t);
        }
        return out;
    }

    /// Another server owns the journal: the node has polled there, or will poll here again, and then it is acquired anew.
    template <class Sink>
    void lose(node& n, const std::string& text, instant now, Sink& sink) {
        n.owned = false;
        sink(effects::warning{"node " + *n.id + ": its journal is lost: " + text});
        nodes_.release_parked(n, errc::ownership_lost, "another server has taken the node over", now, sink);
    }

    /// Takes a task over from the journal. One that was submitted anew under the same id meanwhile becomes it.
    template <class Sink>
    void restore(node& n, task_record record, instant now, Sink& sink) {
        task* same = n.request(record.request_id);
        if (same && !same->waits_for_journal()) same = nullptr;
        if (same) n.close_request(*same);
        task& t = same ? *same : tasks_.add(n, now.steady);
        record.wants_reply |= t.record.wants_reply;
        const bool is_asked_anew = same && same->reply_due;
        if (is_asked_anew) record.reply_until = same->record.reply_until;
        tasks_.release(t, sink);
        t.record = std::move(record);
        t.accepted = now.steady - (now.system - t.record.accepted);
        t.expires = later(now.steady, t.record.expires - now.system);
        if (t.record.reply_until != t.record.reply_until.max()) {
            t.given_up = later(now.steady, t.record.reply_until - now.system);
            nodes_.arm(n, t.given_up, sink);
        }
        t.stored = true;
        t.state = t.record.taken ? task_state::awaiting_reply : task_state::queued;
        t.interrupted = t.record.attempts > 0;
        t.interruption = errc::ok;  // if a delivery was under way, it ended with its server
        n.may_go_on |= t.interrupted;
        if (const auto* other = n.request(t.record.request_id); other && other->is_over() && !t.record.reply) {
            n.close_request(*other);
        }
        n.open_request(t);
        for (const auto& each : t.tickets) sink(effects::accepted<ticket>{each});
        t.is_restored = true;
        if (t.record.reply) return endings_.restored(n, t, sink);
        if (t.record.taken) {
            if (is_asked_anew) writes_.note_again(n, t, sink);
            return tasks_.release(t, sink);  // it is never sent again
        }
        n.enter_lane(t);
        nodes_.arm(n, t.expires, sink);
    }

    dispatch_nodes<Types>& nodes_;
    dispatch_tasks<Types>& tasks_;
    dispatch_writes<Types>& writes_;
    dispatch_endings<Types>& endings_;
};

}  // namespace ferry::detail
