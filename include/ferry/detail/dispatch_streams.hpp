// layer 3
// The way of tasks through a node's stream: in each lane up to a window of them is handed over, leased in the journal, sent in
// order, and held by the node until its receipt comes. proto/ferry/researcher.proto has the protocol.
//
// Where a stream ends, what was outstanding is queued again in its place. What has come of it, the node's next hello tells:
// what is ready there is held again, as if nothing had been; what came in part goes on from there; and only where the
// node has nothing new of it has the delivery failed, and the retry policy is asked.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/detail/dispatch_endings.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_queue.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_writes.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/outcome.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Types>
class dispatch_streams {
    using call = typename Types::call;
    using ticket = typename Types::ticket;
    using cutter = chunk_cutter<Types::chunk_size::value>;
    using task = dispatch_task<Types>;
    using lane = dispatch_lane<Types>;
    using session = dispatch_session<Types>;
    using time_point = std::chrono::steady_clock::time_point;

public:
    using node = dispatch_node<Types>;

    dispatch_streams(const dispatch_limits& limits, dispatch_nodes<Types>& nodes, dispatch_writes<Types>& writes,
                     dispatch_endings<Types>& endings, dispatch_queue<Types>& queue)
        : limits_(limits), nodes_(nodes), writes_(writes), endings_(endings), queue_(queue) {}

    template <class Sink>
    void opened(node& n, frames::hello&& hello, instant now, Sink& sink) {
        n.session = std::make_unique<session>();
        n.session->hello = std::move(hello);
        n.session->last_progress = now.steady;
        n.may_go_on = true;
        reconcile(n, now, sink);
    }

    /// Once the journal is there: makes this side's view of what the node holds agree with the node's.
    template <class Sink>
    void reconcile(node& n, instant now, Sink& sink) {
        if (!n.session || !n.owned || std::exchange(n.session->reconciled, true)) return;
        const auto& hello = n.session->hello;
        std::unordered_map<std::uint64_t, const frames::receipt*> receipts;
        for (const auto& each : hello.receipts) receipts.emplace(each.task, &each);
        std::unordered_map<std::uint64_t, const frames::held_task*> held;
        for (const auto& each : hello.held) held.emplace(each.task, &each);
        sink(effects::welcome<call>{n.current, {limits_.lease}});
        for (lane& in : n.lanes) {
            bool in_order = true;
            for (task* t = in.head; t;) {
                task* const next = t->next;
                const auto found = held.find(t->record.id);
                const auto* has = found == held.end() ? nullptr : found->second;
                if (has) held.erase(found);
                if (const auto done = receipts.find(t->record.id); done != receipts.end() && t->record.attempts > 0) {
                    t->interrupted = false;
                    settle(*t, *done->second, now, sink);
                } else if (in_order && has && has->ready && t->state == task_state::queued) {
                    hold_again(n, in, *t, now, sink);
                } else {
                    in_order = false;
                    if (has && has->ready) n.session->ahead.push_back(t->record.id);
                    go_on_from(*t, has, now, sink);
                }
                t = next;
            }
        }
        for (const auto& each : hello.held) {
            if (held.contains(each.task)) sink(effects::withdraw_task<call>{n.current, each.task});
        }
        n.session->hello.held = {};
        n.session->hello.receipts = {};
    }

    /// The node polls now: it has nothing of what its stream brought. All that is queued is looked at once, not by each poll.
    template <class Sink>
    void forsaken(node& n, instant now, Sink& sink) {
        if (!std::exchange(n.may_go_on, false)) return;
        n.for_each_in_lanes([&](task& t) { go_on_from(t, nullptr, now, sink); });
    }

    /// Hands over what the window allows, and writes where nothing is being written, the urgent lane first.
    template <class Sink>
    void pump(node& n, instant now, Sink& sink) {
        if (!n.session || !n.session->reconciled || !n.owned) return;
        session& s = *n.session;
        for (lane& in : n.lanes) hand_over(n, in, now, sink);
        for (std::size_t i = 0; i < n.lanes.size(); ++i) {
            while (!s.transfers[i] && begin(n, i, now, sink)) {
            }
            if (s.transfers[i] && !s.writing) send_next(n, i, now, sink);
        }
    }

    /// The task is leased in the journal.
    template <class Sink>
    void leased(task& t, Sink& sink) {
        if (!t.outstanding) return queue_.requeue(t, time_point::min(), sink);  // the stream went away
        t.state = task_state::leased;
    }

    template <class Sink>
    void range_sent(node& n, instant now, Sink& sink) {
        session& s = *n.session;
        s.writing = false;
        s.last_progress = now.steady;
        if (auto& moves = s.transfers[s.writing_lane]) {
            task& t = *moves->of;
            for (const auto& each : t.tickets) {
                sink(effects::progressed<ticket>{each, moves->part.offset + moves->part.length});
            }
            if (moves->chunks.done()) {
                moves.reset();
                hold(n, t, now, sink);
            }
        }
        pump(n, now, sink);
    }

    template <class Sink>
    void receipt_came(node& n, const frames::receipt& r, instant now, Sink& sink) {
        task* t = outstanding(n, r.task);
        if (!t && (std::erase(n.session->ahead, r.task) > 0 || r.what == frames::verdict::not_now)) {
            t = in_lanes(n, r.task);  // a walk over all that is queued: only where it may be there
        }
        if (t) {
            t->at_node = false;
            settle(*t, r, now, sink);
        } else if (r.what == frames::verdict::not_now) {
            sink(effects::withdraw_task<call>{n.current, r.task});  // it has ended; the node's lane may go on
        }
        pump(n, now, sink);
    }

    void lease_renewed(node& n, const std::vector<std::uint64_t>& tasks, instant now) {
        const std::unordered_set<std::uint64_t> renewed(tasks.begin(), tasks.end());
        for (lane& in : n.lanes) {
            for (task* t = in.head; t && t->outstanding; t = t->next) {
                if (t->state == task_state::held && renewed.contains(t->record.id)) t->lease_end = lease_from(now);
            }
        }
    }

    /// Nothing more is handed over.
    void leaving(node& n) {
        if (n.session) n.session->leaving = true;
    }

    bool anything_outstanding(const node& n) const {
        return n.session && (n.lanes[0].outstanding > 0 || n.lanes[1].outstanding > 0);
    }

    template <class Sink>
    void look_after(node& n, instant now, Sink& sink) {
        if (!n.session) return;
        if (n.session->writing && now.steady - n.session->last_progress >= limits_.idle_limit) {
            return nodes_.end_session(n, errc::idle_timeout, "the transfer stood still", now, sink);
        }
        std::vector<task*> lost;
        for_each_held(n, [&](task& t) {
            if (t.lease_end <= now.steady) lost.push_back(&t);
        });
        if (lost.empty()) return;
        const std::string text = "the lease of a task ran out";
        nodes_.end_session(n, errc::lease_lost, text, now, sink);
        for (task* t : lost) {
            t->interrupted = false;
            queue_.failed(*t, errc::lease_lost, text, now, sink);
        }
    }

    time_point next_wake(const node& n) const {
        auto when = time_point::max();
        if (!n.session) return when;
        if (n.session->writing) when = later(n.session->last_progress, limits_.idle_limit);
        for_each_held(n, [&](const task& t) { when = std::min(when, t.lease_end); });
        return when;
    }

private:
    // --- on its way ----------------------------------------------------------------------------------------------------

    template <class Sink>
    void hand_over(node& n, lane& in, instant now, Sink& sink) {
        while (task* t = in.next) {
            if (t->is_free() && t->expires <= now.steady) {
                queue_.expire(*t, sink);
                continue;
            }
            if (n.session->leaving || !t->is_free() || t->not_before > now.steady) return;
            const auto& window = n.session->hello;
            const bool full = in.outstanding >= window.window_tasks ||
                              in.outstanding_bytes + t->record.content->size() > window.window_bytes;
            if (full && in.outstanding > 0) return;
            in.hand_over();
            writes_.lease(n, *t, sink);
        }
    }

    /// The next task of the lane; one that is small goes out at once. True where that is so, and another may follow.
    template <class Sink>
    bool begin(node& n, std::size_t lane, instant now, Sink& sink) {
        task* const t = n.lanes[lane].unsent;
        if (!t || t->state != task_state::leased) return false;
        const bool small = is_small(*t);
        if (!small && n.session->writing) return false;
        const auto size = t->record.content->size();
        const auto from = std::exchange(t->resume, 0);
        t->at_node = false;
        t->state = task_state::sending;
        ++t->record.attempts;
        const frames::delivery_head head{t->record.id, from, size, t->record.attempts, t->record.urgent};
        sink(effects::begun{*n.id, t->label, size, t->record.attempts, now.steady - t->accepted});
        if (!small) {
            n.session->transfers[lane].emplace(typename session::transfer{t, cutter(size, from), head});
            return false;
        }
        const bool may_wait = !head.urgent && n.lanes[lane].head != t;
        sink(effects::send_whole<call>{n.current, t->record.content, head, may_wait});
        for (const auto& each : t->tickets) sink(effects::progressed<ticket>{each, size});
        hold(n, *t, now, sink);
        return true;
    }

    bool is_small(const task& t) const {
        const auto& content = *t.record.content;
        return t.resume == 0 && content.size() <= frames::max_small_task_bytes && cutter::count(content.size()) == 1 &&
               content.in_memory();
    }

    template <class Sink>
    void send_next(node& n, std::size_t lane, instant now, Sink& sink) {
        session& s = *n.session;
        auto& moves = *s.transfers[lane];
        moves.part = moves.chunks.next();
        s.writing = true;
        s.writing_lane = lane;
        s.last_progress = now.steady;
        nodes_.arm(n, later(now.steady, limits_.idle_limit), sink);
        sink(effects::send_part<call>{n.current, moves.of->record.content, moves.part, moves.head});
    }

    // --- at the node ---------------------------------------------------------------------------------------------------

    time_point lease_from(instant now) const {
        return limits_.lease.count() > 0 ? later(now.steady, limits_.lease) : time_point::max();
    }

    template <class Sink>
    void hold(node& n, task& t, instant now, Sink& sink) {
        t.state = task_state::held;
        n.lane_of(t).unsent = t.next;
        t.lease_end = lease_from(now);
        nodes_.arm(n, t.lease_end, sink);
    }

    /// What the node has whole is not sent again. Where its lease was lost meanwhile, that was a delivery in vain.
    template <class Sink>
    void hold_again(node& n, lane& in, task& t, instant now, Sink& sink) {
        const bool lease_lost = !std::exchange(t.interrupted, false);
        t.resume = 0;
        t.at_node = false;
        in.hand_over();
        hold(n, t, now, sink);
        if (!lease_lost || t.busy != store_op::none) return;
        ++t.record.attempts;
        writes_.update(n, t, sink);
    }

    /// What the node has of a task that is to be sent (again).
    template <class Sink>
    void go_on_from(task& t, const frames::held_task* has, instant now, Sink& sink) {
        const bool interrupted = std::exchange(t.interrupted, false);
        t.resume = has && t.record.content && has->received <= t.record.content->size() ? has->received : 0;
        t.at_node = has != nullptr;
        if (!interrupted) return;
        const bool came_on = t.resume > t.best || (has && has->ready);
        t.best = std::max(t.best, t.resume);
        if (!came_on && t.interruption != errc::ok)
            queue_.failed(t, t.interruption, "the node's stream broke off", now, sink);
    }

    template <class Sink>
    void settle(task& t, const frames::receipt& r, instant now, Sink& sink) {
        node& n = *t.owner;
        switch (r.what) {
            case frames::verdict::taken: return queue_.taken(t, sink);
            case frames::verdict::refused:
                return endings_.end(t, {outcome_kind::refused, errc::refused, r.text, t.record.attempts}, sink);
            case frames::verdict::not_now:
                take_back(
                    n, t, [](task& each) { each.at_node = true; }, sink);
                withdraw_from(n, t, sink);
                if (t.is_free()) return queue_.failed(t, errc::refused_for_now, r.text, now, sink, r.pause);
                t.not_before = later(now.steady, r.pause);  // a lease of it comes first
                return;
            case frames::verdict::given_back:
                return take_back(
                    n, t, [](const task&) {}, sink);
        }
    }

    /// The node is not to have this task any more, nor all later ones of its lane. Calls `each(task)` for those that have been
    /// sent to it, at least in part.
    template <class Each, class Sink>
    void take_back(node& n, task& from, Each&& each, Sink& sink) {
        n.lane_of(from).take_back(from, [&](task& t) {
            if (t.state == task_state::leasing) return void(t.lease_is_void = true);
            auto& moves = n.session->transfers[t.lane()];
            if (moves && moves->of == &t) moves.reset();
            if (t.state != task_state::leased) each(t);
            t.state = task_state::queued;
            nodes_.arm(n, t.expires, sink);
        });
    }

    /// Withdraws what the node has of the later ones of the lane, and then this one, for which the node waits.
    template <class Sink>
    void withdraw_from(node& n, task& from, Sink& sink) {
        for (task* t = from.next; t; t = t->next) {
            if (!std::exchange(t->at_node, false)) continue;
            t->resume = 0;
            sink(effects::withdraw_task<call>{n.current, t->record.id});
        }
        from.at_node = false;
        from.resume = 0;
        sink(effects::withdraw_task<call>{n.current, from.record.id});
    }

    static task* in_lanes(const node& n, std::uint64_t id) {
        task* found = nullptr;
        n.for_each_in_lanes([&](task& t) {
            if (t.record.id == id) found = &t;
        });
        return found;
    }

    task* outstanding(node& n, std::uint64_t id) {
        for (lane& in : n.lanes) {
            for (task* t = in.head; t && t->outstanding; t = t->next) {
                if (t->record.id == id) return t;
            }
        }
        return nullptr;
    }

    template <class Take>
    static void for_each_held(const node& n, Take&& take) {
        for (const auto& in : n.lanes) {
            for (task* t = in.head; t && t->state == task_state::held; t = t->next) take(*t);
        }
    }

    const dispatch_limits& limits_;
    dispatch_nodes<Types>& nodes_;
    dispatch_writes<Types>& writes_;
    dispatch_endings<Types>& endings_;
    dispatch_queue<Types>& queue_;
};

}  // namespace ferry::detail
