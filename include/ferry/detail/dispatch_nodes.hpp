// layer 3
// Which nodes the server's core knows, which of them are there, and when each wants to be looked after.
//
// A node is ACTIVE while a poll of its is open, WAITING once the last one is over, and DISCONNECTED when none has come for
// too long. Of its tasks nothing is known here.
#pragma once

#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/id_table.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/node_info.hpp>

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_nodes {
    using call = typename Types::call;

public:
    using node = dispatch_node<Types>;
    using time_point = std::chrono::steady_clock::time_point;

    explicit dispatch_nodes(const dispatch_limits& limits) : limits_(limits) {}

    // --- the table -----------------------------------------------------------------------------------------------------

    node* find(const std::string& id) { return nodes_.find(id); }
    const node* find(const std::string& id) const { return nodes_.find(id); }

    /// Null where too many are known already.
    template <class Sink>
    node* add(const std::string& id, Sink& sink) {
        if (nodes_.size() >= limits_.max_nodes) {
            sink(effects::warning{"node " + id + " is refused: " + std::to_string(nodes_.size()) +
                                  " nodes are known already"});
            return nullptr;
        }
        auto& [its_id, added] = nodes_.add(id);
        added.id = &its_id;
        added.all = &queued_;
        return &added;
    }

    auto begin() { return nodes_.begin(); }
    auto end() { return nodes_.end(); }
    auto begin() const { return nodes_.begin(); }
    auto end() const { return nodes_.end(); }
    std::size_t reachable() const noexcept { return reachable_; }
    const queued_in_all& queued() const noexcept { return queued_; }

    /// Not empty where the store fails to settle so much that nothing more is to begin.
    std::string what_is_unsettled(const node& n) const {
        if (queued_.unsettled == 0) return {};
        const bool is_full = !n.unsettled.empty() && n.unsettled.size() >= limits_.max_queued_tasks;
        if (!is_full && queued_.unsettled < limits_.max_all_queued_tasks) return {};
        return "the store could not note the end of " +
               (is_full ? std::to_string(n.unsettled.size()) + " tasks of node " + *n.id
                        : std::to_string(queued_.unsettled) + " tasks");
    }

    // --- polls and streams ---------------------------------------------------------------------------------------------------------

    /// A poll or stream has come. Returns the one that was open before, or none.
    template <class Sink>
    call poll_opened(node& n, call&& on, const std::string& connection, instant now, Sink& sink) {
        auto older = std::exchange(n.current, std::move(on));
        n.connection = connection;
        set_status(n, node_status::active, now, sink);
        return older;
    }

    /// A poll is over; perhaps it was the last one.
    template <class Sink>
    void poll_over(node& n, instant now, Sink& sink) {
        if (n.current != call{} || n.carried) return;
        n.left = now.steady;
        set_status(n, node_status::waiting, now, sink);
        arm(n, later(n.left, limits_.disconnect_after), sink);
    }

    /// A stream is over. What was outstanding waits for the node's next hello.
    template <class Sink>
    void session_over(node& n, errc reason, instant now, Sink& sink) {
        n.session.reset();
        n.current = call{};
        for (auto& lane : n.lanes) {
            if (!lane.head) continue;
            lane.take_back(*lane.head, [&](auto& t) {
                if (t.state == task_state::leasing) return void(t.lease_is_void = true);
                t.interrupted = t.state != task_state::leased;
                t.interruption = reason;
                t.state = task_state::queued;
                arm(n, t.expires, sink);
            });
        }
        poll_over(n, now, sink);
    }

    /// The same, ended by this server.
    template <class Sink>
    void end_session(node& n, errc reason, std::string text, instant now, Sink& sink) {
        sink(effects::end_poll<call>{n.current, reason, std::move(text)});
        session_over(n, reason, now, sink);
    }

    /// Ends the newest poll, unless it carries a task, or the stream.
    template <class Sink>
    void release_parked(node& n, errc reason, std::string text, instant now, Sink& sink) {
        if (n.session) return end_session(n, reason, std::move(text), now, sink);
        if (n.current == call{} || (n.carried && n.carried->on == n.current)) return;
        sink(effects::end_poll<call>{std::exchange(n.current, call{}), reason, std::move(text)});
        poll_over(n, now, sink);
    }

    /// True where the node has just become DISCONNECTED.
    template <class Sink>
    bool has_gone(node& n, instant now, Sink& sink) {
        if (!times_out(n) || now.steady - n.left < limits_.disconnect_after) return false;
        set_status(n, node_status::disconnected, now, sink);
        return true;
    }

    time_point next_wake(const node& n) const {
        return times_out(n) ? later(n.left, limits_.disconnect_after) : time_point::max();
    }

    // --- shared with other servers -------------------------------------------------------------------------------------

    /// Another server has told of the node.
    template <class Sink>
    void seen(node& n, const seen_node& what, Sink& sink) {
        n.share.is_mirrored = true;
        change_status(n, what.status, what.since, sink);
        n.since = what.since;
    }

    /// Tells the others of a node whose journal is this server's.
    template <class Sink>
    void tell_others(const node& n, Sink& sink) const {
        if (n.owned) sink(effects::announce_node{n.owner, {*n.id, n.status, n.since}});
    }

    // --- wake-ups ------------------------------------------------------------------------------------------------------

    template <class Sink>
    void arm(node& n, time_point when, Sink& sink) {
        wake_ups_.arm(n, when);
        announce(sink);
    }

    /// Looks after each node whose time has come, with `look_after(node)`.
    template <class LookAfter, class Sink>
    void wake(time_point now, LookAfter&& look_after, Sink& sink) {
        while (node* n = wake_ups_.take_due(now)) look_after(*n);
        wake_ups_.forget();
        announce(sink);
    }

private:
    template <class Sink>
    void announce(Sink& sink) {
        if (const auto when = wake_ups_.announce()) sink(effects::wake_at{*when});
    }

    template <class Sink>
    void set_status(node& n, node_status status, instant now, Sink& sink) {
        if constexpr (is_shared<Types>) n.share.is_mirrored = false;
        if (!change_status(n, status, now.system, sink)) return;
        if constexpr (is_shared<Types>) tell_others(n, sink);
    }

    template <class Sink>
    bool change_status(node& n, node_status status, std::chrono::system_clock::time_point since, Sink& sink) {
        if (n.status == status) return false;
        if (n.status == node_status::disconnected) ++reachable_;
        if (status == node_status::disconnected) --reachable_;
        n.status = status;
        n.since = since;
        sink(effects::node_changed{*n.id, status});
        return true;
    }

    /// A node that another server has told of does not: that one will tell this, too.
    static bool times_out(const node& n) {
        if constexpr (is_shared<Types>) {
            if (n.share.is_mirrored) return false;
        }
        return n.status == node_status::waiting;
    }

    const dispatch_limits& limits_;
    id_table<node> nodes_;
    wake_ups<node> wake_ups_;
    queued_in_all queued_;
    std::size_t reachable_ = 0;
};

}  // namespace ferry::detail
