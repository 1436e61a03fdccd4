// layer 3
// What may befall a task of the server's core whichever way it goes to its node: it waits for too long, a delivery of it
// fails, the node has taken it.
#pragma once

#include <ferry/detail/dispatch_endings.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_writes.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>
#include <ferry/retry.hpp>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_queue {
    using retry = typename Types::retry;
    using task = dispatch_task<Types>;
    using node = dispatch_node<Types>;
    using time_point = std::chrono::steady_clock::time_point;

public:
    dispatch_queue(retry&& policy, dispatch_nodes<Types>& nodes, dispatch_writes<Types>& writes,
                   dispatch_endings<Types>& endings)
        : retry_(std::move(policy)), nodes_(nodes), writes_(writes), endings_(endings) {}

    /// The node has the task.
    template <class Sink>
    void taken(task& t, Sink& sink) {
        if (!t.record.wants_reply) return endings_.end(t, {outcome_kind::taken, errc::ok, {}, t.record.attempts}, sink);
        t.owner->leave_lane(t);
        t.state = task_state::awaiting_reply;
        writes_.note_taken(*t.owner, t, sink);
    }

    /// A delivery of it was in vain. It is tried again in its place, no earlier than after `at_least`, as the policy says.
    template <class Sink>
    void failed(task& t, errc reason, std::string text, instant now, Sink& sink,
                std::chrono::milliseconds at_least = {}) {
        const auto pause = ask(retry_, {std::max(t.record.attempts, 1), now.steady - t.accepted, reason}, text);
        if (!pause) {
            return endings_.end(t, {outcome_kind::retries_exhausted, reason, std::move(text), t.record.attempts}, sink);
        }
        const auto longest = std::max(*pause, at_least);
        requeue(t, longest.count() > 0 ? later(now.steady, longest) : time_point::min(), sink);
    }

    template <class Sink>
    void requeue(task& t, time_point not_before, Sink& sink) {
        t.state = task_state::queued;
        t.not_before = not_before;
        nodes_.arm(*t.owner, not_before == time_point::min() ? t.expires : std::min(t.expires, not_before), sink);
    }

    template <class Sink>
    void expire(task& t, Sink& sink) {
        endings_.end(
            t, {outcome_kind::expired, errc::expired, "it waited in the queue for too long", t.record.attempts}, sink);
    }

    /// Ends what has waited for too long.
    template <class Sink>
    void expire_waiting(node& n, instant now, Sink& sink) {
        n.for_each_in_lanes([&](task& t) {
            if (t.waits() && t.expires <= now.steady) expire(t, sink);
        });
    }

    /// When the next one will have waited for too long, or may be tried again.
    time_point next_wake(const node& n, time_point now) const {
        auto when = time_point::max();
        n.for_each_in_lanes([&](const task& t) {
            if (t.waits()) when = std::min(when, t.expires);
        });
        for (const auto& lane : n.lanes) {
            const task* t = lane.next;
            if (t && t->waits() && t->not_before > now) when = std::min(when, t->not_before);
        }
        return when;
    }

private:
    [[no_unique_address]] retry retry_;
    dispatch_nodes<Types>& nodes_;
    dispatch_writes<Types>& writes_;
    dispatch_endings<Types>& endings_;
};

}  // namespace ferry::detail
