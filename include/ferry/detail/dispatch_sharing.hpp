// layer 3
// The owning half of a server's core whose store is shared: whose journals are this server's, and what follows from that.
//
// Tasks come from the journal alone, also those that this server's own senders have posted. It is another server's as soon as
// that has acquired it, and after any error it may be: then all that was known of its tasks is forgotten, without a word to
// anybody but the node, and it is acquired again when the node polls here, or when it is nobody's.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/dispatch_endings.hpp>
#include <ferry/detail/dispatch_journal.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_polls.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/detail/dispatch_writes.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_sharing {
    using call = typename Types::call;
    using task = dispatch_task<Types>;
    using time_point = std::chrono::steady_clock::time_point;

public:
    using node = dispatch_node<Types>;

    dispatch_sharing(dispatch_nodes<Types>& nodes, dispatch_tasks<Types>& tasks, dispatch_journal<Types>& journal,
                     dispatch_writes<Types>& writes, dispatch_endings<Types>& endings, dispatch_polls<Types>& polls)
        : nodes_(nodes), tasks_(tasks), journal_(journal), writes_(writes), endings_(endings), polls_(polls) {}

    // --- owning --------------------------------------------------------------------------------------------------------

    template <class Sink>
    void acquire(node& n, Sink& sink) {
        n.share.acquire_at = time_point::max();
        if (!n.owned && !n.acquiring) {
            n.share.has_changed = false;
            n.share.told.reset();
        }
        writes_.acquire(n, sink);
    }

    /// The journal has come. A node that is not known to be gone has some time to show itself here.
    template <class Sink>
    void take_over(node& n, acquired_journal&& journal, instant now, Sink& sink) {
        n.owned = true;
        n.owner = journal.owner;
        n.last_order = 0;
        n.share.pause = {};
        n.share.is_mirrored = n.share.is_untold = n.share.fetching = false;
        for (const auto number : journal.replies) n.remember_reply(number, 0);
        for (auto& record : journal.tasks) restore(n, std::move(record), now, sink);
        if (n.status != node_status::disconnected) nodes_.poll_over(n, now, sink);
        nodes_.tell_others(n, sink);
        if (n.share.has_changed) fetch(n, sink);
    }

    /// It can't be had.
    template <class Sink>
    void give_up(node& n, const store_status& why, instant now, Sink& sink) {
        journal_.give_up(n, why, now, sink);
        leave_to_others(n, why.code, now, sink);
    }

    /// An operation on it has failed.
    template <class Sink>
    void lose(node& n, const store_status& why, instant now, Sink& sink) {
        n.owned = false;
        sink(effects::warning{"node " + *n.id + ": its journal is lost: " + why.text});
        const std::string text = "the node's journal was lost: " + why.text;
        if (n.carried) {
            sink(effects::end_poll<call>{n.carried->on, why.code, text});
            polls_.take(n, now, sink);
        }
        nodes_.release_parked(n, why.code, text, now, sink);
        endings_.forget_all(n, sink);
        leave_to_others(n, why.code, now, sink);
    }

    // --- what others change --------------------------------------------------------------------------------------------

    /// Looks what the journal has that is not known here; that shows, too, whether it is still this server's.
    template <class Sink>
    void fetch(node& n, Sink& sink) {
        if (!n.owned || n.share.fetching) return void(n.share.has_changed = true);
        n.share.fetching = true;
        n.share.has_changed = false;
        sink(effects::fetch_tasks{*n.id, n.owner, n.last_order});
    }

    template <class Sink>
    void fetched(node& n, epoch owner, acquired_journal& journal, instant now, Sink& sink) {
        if (!n.owned || n.owner != owner || !std::exchange(n.share.fetching, false)) return;
        if (journal.status.code != errc::ok) return lose(n, journal.status, now, sink);
        if (!n.share.has_changed) {
            n.share.told.reset();
            n.share.is_free = false;
        }
        if (std::exchange(n.share.is_untold, false)) nodes_.tell_others(n, sink);
        const auto known = n.last_order;
        for (auto& record : journal.tasks) {
            if (record.order > known) {
                restore(n, std::move(record), now, sink);
            } else if (const auto found = n.share.tasks.find(record.order); found != n.share.tasks.end()) {
                change(*found->second, record, now, sink);
            }
        }
        if (n.share.has_changed) fetch(n, sink);
    }

    /// The journal is nobody's. Where it is this server's as far as is known here, that may be a time of before.
    template <class Sink>
    void is_free(node& n, Sink& sink) {
        if (!n.owned && !n.acquiring) return acquire(n, sink);
        n.share.told.reset();
        n.share.is_free = true;
        fetch(n, sink);
    }

    /// What another server has told of the node, which may be this server's all the same, or may be no more.
    template <class Sink>
    void seen(node& n, seen_node&& what, Sink& sink) {
        if (n.owned || n.acquiring) {  // only who owns a journal tells: it is to be seen whether this server still does
            n.share.told = std::move(what);
            n.share.is_free = false;
            return fetch(n, sink);
        }
        n.share.acquire_at = time_point::max();
        nodes_.seen(n, what, sink);
    }

    /// The others are told once more, if it is still this server's.
    template <class Sink>
    void is_untold(node& n, Sink& sink) {
        if (!n.owned) return;
        n.share.is_untold = true;
        fetch(n, sink);
    }

    // --- as time passes ------------------------------------------------------------------------------------------------

    template <class Sink>
    void look_after(node& n, instant now, Sink& sink) {
        if (n.share.acquire_at <= now.steady) acquire(n, sink);
    }

    time_point next_wake(const node& n) const { return n.share.acquire_at; }

private:
    static constexpr std::chrono::milliseconds shortest_pause{1000}, longest_pause{60'000};

    /// The journal may still be this server's in the store's eyes, and nobody else look after it: where the store has failed,
    /// or an acquisition was heard of by nobody. It is tried again, unless another server has told that the node is its.
    template <class Sink>
    void leave_to_others(node& n, errc why, instant now, Sink& sink) {
        n.share.fetching = n.share.has_changed = false;
        if (why == errc::ownership_lost && std::exchange(n.share.is_free, false)) return acquire(n, sink);
        if (const auto told = std::exchange(n.share.told, std::nullopt)) return nodes_.seen(n, *told, sink);
        if (why == errc::ownership_lost) n.share.pause = std::max(n.share.pause, shortest_pause);
        n.share.pause = std::clamp(n.share.pause * 2, shortest_pause, longest_pause);
        n.share.acquire_at = later(now.steady, n.share.pause);
        nodes_.arm(n, n.share.acquire_at, sink);
    }

    template <class Sink>
    void restore(node& n, task_record&& record, instant now, Sink& sink) {
        task& t = tasks_.add(n, now.steady);
        t.record = std::move(record);
        n.last_order = std::max(n.last_order, t.record.order);
        n.share.tasks.emplace(t.record.order, &t);
        t.accepted = now.steady - (now.system - t.record.accepted);
        t.expires = later(now.steady, t.record.expires - now.system);
        t.stored = true;
        t.interrupted = t.record.attempts > 0;  // if a delivery was under way, it ended with its server
        n.may_go_on |= t.interrupted;
        if (const auto* ended = n.request(t.record.request_id); ended && ended->is_over()) n.close_request(*ended);
        n.open_request(t);
        expect_reply(t, now, sink);
        t.state = t.record.taken ? task_state::awaiting_reply : task_state::queued;
        if (t.record.taken) {
            tasks_.release(t, sink);  // it is never sent again
        } else if (t.record.content) {
            n.enter_lane(t);
            nodes_.arm(n, t.expires, sink);
        } else {
            return endings_.end(
                t,
                {outcome_kind::store_failed, errc::store_failed, "the store has lost its content", t.record.attempts},
                sink);
        }
        if (t.record.is_withdrawn) withdraw(t, now, sink);
    }

    template <class Sink>
    void change(task& t, const task_record& to, instant now, Sink& sink) {
        if (t.is_over()) return;
        t.record.wants_reply |= to.wants_reply;
        t.record.reply_until = to.reply_until;
        expect_reply(t, now, sink);
        if (to.is_withdrawn) withdraw(t, now, sink);
    }

    template <class Sink>
    void expect_reply(task& t, instant now, Sink& sink) {
        if (!t.record.wants_reply) return;
        t.reply_due = later(now.steady, t.record.reply_until - now.system);
        nodes_.arm(*t.owner, *t.reply_due, sink);
    }

    template <class Sink>
    void withdraw(task& t, instant now, Sink& sink) {
        node& n = *t.owner;
        const bool moves = n.carried && n.carried->of == &t;
        endings_.end(t, {outcome_kind::cancelled, errc::cancelled, "withdrawn by its sender", t.record.attempts}, sink);
        if (moves) polls_.cut(n, errc::cancelled, "the task was withdrawn", now, sink);
    }

    dispatch_nodes<Types>& nodes_;
    dispatch_tasks<Types>& tasks_;
    dispatch_journal<Types>& journal_;
    dispatch_writes<Types>& writes_;
    dispatch_endings<Types>& endings_;
    dispatch_polls<Types>& polls_;
};

}  // namespace ferry::detail
