// layer 3
// The way of a task through a poll, which carries one: the head of a lane is leased in the journal, then sent range by range.
// That the node has it shows in its next poll over the same connection. All else is a failed delivery.
//
// A node that gives its poll up at the deadline polls again, too, and what was then on its way is lost. So a poll is ended here
// some time before that. Where its last range is under way by then, or where the next poll comes only later, it remains open
// what the node has: the task is sent again.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_queue.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_writes.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_polls {
    using call = typename Types::call;
    using ticket = typename Types::ticket;
    using cutter = chunk_cutter<Types::chunk_size::value>;
    using task = dispatch_task<Types>;
    using delivery = dispatch_delivery<Types>;
    using time_point = std::chrono::steady_clock::time_point;
    using duration = time_point::duration;

public:
    using node = dispatch_node<Types>;

    dispatch_polls(const dispatch_limits& limits, dispatch_nodes<Types>& nodes, dispatch_writes<Types>& writes,
                   dispatch_queue<Types>& queue)
        : limits_(limits), nodes_(nodes), writes_(writes), queue_(queue) {}

    /// Deliveries under way.
    std::size_t carrying() const noexcept { return carrying_; }

    /// Starts on the head of a lane where a poll is free for it, the urgent lane first. A stop leaves no poll.
    template <class Sink>
    void pump(node& n, instant now, Sink& sink) {
        if (n.current == call{} || n.session || n.carried || !n.owned || n.poll_rests <= now.steady) return;
        task* first = nullptr;
        for (auto& lane : n.lanes) {
            while (lane.head && lane.head->is_free() && lane.head->expires <= now.steady)
                queue_.expire(*lane.head, sink);
            task* const t = lane.head;
            if (t && !t->waits()) return;  // one delivery at a time
            if (!first && t && t->is_free() && t->not_before <= now.steady) first = t;
        }
        if (!first) return;
        writes_.lease(n, *first, sink);
    }

    time_point next_wake(const node& n) const {
        const auto idle = n.carried ? later(n.carried->last_progress, limits_.idle_limit) : time_point::max();
        return std::min(idle, end_of_poll(n));
    }

    // --- a delivery ----------------------------------------------------------------------------------------------------

    /// The head is leased.
    template <class Sink>
    void start(task& t, instant now, Sink& sink) {
        node& n = *t.owner;
        const bool is_open = n.current != call{} && n.poll_rests > now.steady;
        if (!is_open) return queue_.requeue(t, time_point::min(), sink);  // the poll went away, or is about to
        t.state = task_state::sending;
        t.interrupted = false;
        ++t.record.attempts;
        n.carried.reset(new delivery{n.current, n.connection, t.record.content, cutter(t.record.content->size()),
                                     now.steady, n.poll_ends, &t});
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
            t->carried_over = std::move(over->connection);
            if (over->confirmed) confirm(*t, *over->confirmed, now, sink);
        }
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
    void drop(node& n, errc reason, std::string_view text, instant now, Sink& sink) {
        const auto gone = take(n, now, sink);
        if (gone->of) queue_.failed(*gone->of, reason, std::string(text), now, sink);
    }

    /// Takes the delivery off the node: its stream is over.
    template <class Sink>
    std::unique_ptr<delivery> take(node& n, instant now, Sink& sink) {
        auto over = std::move(n.carried);
        --carrying_;
        if (n.current == over->on) n.current = call{};
        nodes_.poll_over(n, now, sink);
        const bool is_shared_with_task = over->of && over->of->record.content == over->content;
        if (!is_shared_with_task) sink(effects::released<std::shared_ptr<const payload>>{std::move(over->content)});
        return over;
    }

    // --- what polls show -----------------------------------------------------------------------------------------------

    /// It is the node's current one.
    template <class Sink>
    void opened(node& n, time_point deadline, instant now, Sink& sink) {
        n.poll_rests = n.poll_ends = deadline;
        if (deadline == time_point::max()) return;
        const auto margin =
            std::min<duration>(std::max<duration>(deadline - now.steady, duration(0)) / 4, longest_margin);
        n.poll_rests -= margin;
        n.poll_ends -= margin / 2;
        nodes_.arm(n, n.poll_rests, sink);
    }

    /// Ends the current poll where its time has come. What it carries failed.
    template <class Sink>
    void end_late(node& n, instant now, Sink& sink) {
        if (end_of_poll(n) > now.steady) return;
        if (n.carried && n.carried->on == n.current) return cut(n, errc::deadline_exceeded, late_text, now, sink);
        nodes_.release_parked(n, errc::deadline_exceeded, late_text, now, sink);
    }

    /// A poll has come: over the same connection, and in time, it shows that the node has what was carried to its end.
    template <class Sink>
    void poll_came(node& n, const std::string& connection, instant now, Sink& sink) {
        if (n.carried && n.carried->chunks.done()) {
            auto& confirmed = n.carried->confirmed;
            const bool shows = connection == n.carried->connection && now.steady < n.carried->ends;
            confirmed = confirmed.value_or(false) || shows;
        } else if (task* t = unconfirmed(n)) {
            // The poll that has brought it is still the newest.
            confirm(*t, connection == t->carried_over && now.steady < n.poll_ends, now, sink);
        }
    }

    /// A newer poll of the same id has come.
    template <class Sink>
    void supersede(node& n, const call& older, instant now, Sink& sink) {
        const bool carries = n.carried && n.carried->on == older;
        if (carries && n.carried->chunks.done()) return;  // it has all but ended; how, its end will tell
        warn_of_second(n, sink);
        if (carries) return cut(n, errc::superseded, superseded_text, now, sink);
        sink(effects::end_poll<call>{older, errc::superseded, superseded_text});
    }

    static inline const std::string superseded_text = "a newer poll of the same node id took over";

    template <class Sink>
    void warn_of_second(const node& n, Sink& sink) {
        sink(effects::warning{"node " + *n.id + " polled while an older poll of its was open: is the id used twice?"});
    }

    /// The node is DISCONNECTED.
    template <class Sink>
    void node_gone(node& n, instant now, Sink& sink) {
        if (task* t = unconfirmed(n)) queue_.failed(*t, errc::unconfirmed, "the node never polled again", now, sink);
    }

    /// The task that was carried to its end, and of which it has yet to show that the node has it; or null.
    task* unconfirmed(const node& n) const {
        for (const auto& lane : n.lanes) {
            if (lane.head && lane.head->state == task_state::unconfirmed) return lane.head;
        }
        return nullptr;
    }

private:
    template <class Sink>
    void send_next(node& n, Sink& sink) {
        auto& d = *n.carried;
        d.part = d.chunks.next();
        sink(effects::send_range<call>{d.on, d.content, d.part});
    }

    template <class Sink>
    void confirm(task& t, bool has_it, instant now, Sink& sink) {
        if (has_it) return queue_.taken(t, sink);
        queue_.failed(t, errc::unconfirmed, "the next poll came over another connection, or too late to show it", now,
                      sink);
    }

    /// When the current poll is to be ended here. One whose last range is under way ends with that.
    time_point end_of_poll(const node& n) const {
        if (n.current == call{} || n.session) return time_point::max();
        if (!n.carried || n.carried->on != n.current) return n.poll_rests;
        return n.carried->chunks.done() ? time_point::max() : n.poll_ends;
    }

    static inline const std::string late_text = "the poll came near its deadline";
    static constexpr std::chrono::seconds longest_margin{30};

    const dispatch_limits& limits_;
    dispatch_nodes<Types>& nodes_;
    dispatch_writes<Types>& writes_;
    dispatch_queue<Types>& queue_;
    std::size_t carrying_ = 0;
};

}  // namespace ferry::detail
