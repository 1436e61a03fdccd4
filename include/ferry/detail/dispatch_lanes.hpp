// layer 3
// The lanes of the server's core: whose turn it is, and the way of a lane's head through a poll.
//
// The head is leased in the journal, then sent range by range. That the node has it shows in its next poll over the same
// connection. All else is a failed delivery, after which the head is tried again as the retry policy says.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/detail/dispatch_journal.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_lanes {
    using call = typename Types::call;
    using ticket = typename Types::ticket;
    using retry = typename Types::retry;
    using cutter = chunk_cutter<Types::chunk_size::value>;
    using task = dispatch_task<Types>;
    using delivery = dispatch_delivery<Types>;
    using time_point = std::chrono::steady_clock::time_point;

public:
    using node = dispatch_node<Types>;

    dispatch_lanes(const dispatch_limits& limits, retry&& policy, dispatch_nodes<Types>& nodes,
                   dispatch_journal<Types>& journal)
        : limits_(limits), retry_(std::move(policy)), nodes_(nodes), journal_(journal) {}

    /// Deliveries under way.
    std::size_t carrying() const noexcept { return carrying_; }

    // --- the queue -----------------------------------------------------------------------------------------------------

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
        journal_.update(n, t, std::move(leased), sink);
    }

    /// Ends what has waited for too long.
    template <class Sink>
    void expire_waiting(node& n, instant now, Sink& sink) {
        for (task* t = n.head; t;) {
            task* const next = t->next;
            if (t->waits() && t->expires <= now.steady) expire(*t, sink);
            t = next;
        }
    }

    time_point next_wake(const node& n, time_point now) const {
        auto when = n.carried ? later(n.carried->last_progress, limits_.idle_limit) : time_point::max();
        for (const task* t = n.head; t; t = t->next) {
            if (t->waits()) when = std::min(when, t->expires);
        }
        if (n.head && n.head->waits() && n.head->not_before > now) when = std::min(when, n.head->not_before);
        return when;
    }

    // --- a delivery ----------------------------------------------------------------------------------------------------

    /// The head is leased.
    template <class Sink>
    void start(task& t, instant now, Sink& sink) {
        node& n = *t.owner;
        if (n.current == call{}) return requeue(t, time_point::min(), sink);  // the poll went away
        t.state = task_state::sending;
        ++t.record.attempts;
        n.carried = std::make_unique<delivery>(
            delivery{n.current, n.connection, t.record.content, cutter(t.record.content->size()), now.steady, &t});
        ++carrying_;
        nodes_.arm(n, later(now.steady, limits_.idle_limit), sink);
        sink(effects::begun{*n.id, t.label, t.record.content->size(), t.record.attempts, now.steady - t.accepted});
        send_next(n, sink);
    }

    template <class Sink>
    void range_sent(node& n, instant now, Sink& sink) {
        auto& d = *n.carried;
        d.last_progress = now.steady;
        d.sent += d.part.length;
        if (d.of) {
            for (const auto& each : d.of->tickets) sink(effects::progressed<ticket>{each, d.sent});
        }
        if (!d.chunks.done()) send_next(n, sink);
    }

    /// All of it has gone out, and the stream is over.
    template <class Sink>
    void carried(node& n, instant now, Sink& sink) {
        const auto over = take(n, now, sink);
        if (task* t = over->of) {
            for (const auto& each : t->tickets) sink(effects::progressed<ticket>{each, t->record.content->size()});
            t->state = task_state::unconfirmed;
            t->carried_over = over->connection;
            if (over->confirmed) confirm(*t, *over->confirmed, now, sink);
        }
        pump(n, now, sink);
    }

    /// Ends the stream from our side, without more data.
    template <class Sink>
    void cut(node& n, errc reason, const std::string& text, instant now, Sink& sink) {
        sink(effects::end_poll<call>{n.carried->on, reason, text});
        drop(n, reason, text, now, sink);
    }

    template <class Sink>
    void cut_idle(node& n, instant now, Sink& sink) {
        if (!n.carried || now.steady - n.carried->last_progress < limits_.idle_limit) return;
        cut(n, errc::idle_timeout, "the transfer stood still", now, sink);
    }

    /// The stream is over before its time.
    template <class Sink>
    void drop(node& n, errc reason, std::string text, instant now, Sink& sink) {
        const auto gone = take(n, now, sink);
        if (gone->of) failed(*gone->of, reason, std::move(text), now, sink);
        pump(n, now, sink);
    }

    /// Takes the delivery off the node: its stream is over.
    template <class Sink>
    std::unique_ptr<delivery> take(node& n, instant now, Sink& sink) {
        auto over = std::move(n.carried);
        --carrying_;
        if (n.current == over->on) n.current = call{};
        nodes_.poll_over(n, now, sink);
        return over;
    }

    // --- what polls show -----------------------------------------------------------------------------------------------

    /// A poll has come: over the same connection it shows that the node has what was carried to its end.
    template <class Sink>
    void poll_came(node& n, const std::string& connection, instant now, Sink& sink) {
        if (n.carried && n.carried->chunks.done()) {
            auto& confirmed = n.carried->confirmed;
            confirmed = confirmed.value_or(false) || connection == n.carried->connection;
        } else if (awaits_confirmation(n)) {
            confirm(*n.head, connection == n.head->carried_over, now, sink);
        }
    }

    /// A newer poll of the same id has come.
    template <class Sink>
    void supersede(node& n, const call& older, instant now, Sink& sink) {
        const bool carries = n.carried && n.carried->on == older;
        if (carries && n.carried->chunks.done()) return;  // it has all but ended; how, its end will tell
        sink(effects::warning{"node " + *n.id + " polled while an older poll of its was open: is the id used twice?"});
        const std::string text = "a newer poll of the same node id took over";
        if (carries) return cut(n, errc::superseded, text, now, sink);
        sink(effects::end_poll<call>{older, errc::superseded, text});
    }

    /// The node is DISCONNECTED.
    template <class Sink>
    void node_gone(node& n, instant now, Sink& sink) {
        if (awaits_confirmation(n)) failed(*n.head, errc::unconfirmed, "the node never polled again", now, sink);
    }

    /// Whether the head was carried to its end, and it has yet to show that the node has it.
    bool awaits_confirmation(const node& n) const { return n.head && n.head->state == task_state::unconfirmed; }

private:
    template <class Sink>
    void send_next(node& n, Sink& sink) {
        auto& d = *n.carried;
        d.part = d.chunks.next();
        sink(effects::send_range<call>{d.on, d.content, d.part});
    }

    template <class Sink>
    void confirm(task& t, bool same_connection, instant now, Sink& sink) {
        if (same_connection) return taken(t, sink);
        failed(t, errc::unconfirmed, "the node polled over another connection", now, sink);
    }

    template <class Sink>
    void taken(task& t, Sink& sink) {
        if (!t.record.wants_reply) return journal_.end(t, {outcome_kind::taken, errc::ok, {}, t.record.attempts}, sink);
        t.owner->leave_lane(t);
        t.state = task_state::awaiting_reply;
        t.record.taken = true;
        journal_.update(*t.owner, t, t.record, sink);
        t.record.content.reset();
    }

    template <class Sink>
    void failed(task& t, errc reason, std::string text, instant now, Sink& sink) {
        const auto pause = retry_.next({t.record.attempts, now.steady - t.accepted, reason});
        if (!pause) {
            return journal_.end(t, {outcome_kind::retries_exhausted, reason, std::move(text), t.record.attempts}, sink);
        }
        requeue(t, pause->count() > 0 ? later(now.steady, *pause) : time_point::min(), sink);
    }

    template <class Sink>
    void requeue(task& t, time_point not_before, Sink& sink) {
        t.state = task_state::queued;
        t.not_before = not_before;
        nodes_.arm(*t.owner, not_before == time_point::min() ? t.expires : std::min(t.expires, not_before), sink);
    }

    template <class Sink>
    void expire(task& t, Sink& sink) {
        journal_.end(
            t, {outcome_kind::expired, errc::expired, "it waited in the queue for too long", t.record.attempts}, sink);
    }

    const dispatch_limits& limits_;
    [[no_unique_address]] retry retry_;
    dispatch_nodes<Types>& nodes_;
    dispatch_journal<Types>& journal_;
    std::size_t carrying_ = 0;
};

}  // namespace ferry::detail
