// layer 3
// What the server's core asks of a node's journal. It is acquired when it is first needed, and again after another server
// took it. One operation on a task is under way at a time, and is marked in the task until its end has been told.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/dispatch_events.hpp>

#include <cstddef>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_writes {
public:
    using task = dispatch_task<Types>;
    using node = dispatch_node<Types>;

    explicit dispatch_writes(dispatch_tasks<Types>& tasks) : tasks_(tasks) {}

    template <class Sink>
    void acquire(node& n, Sink& sink) {
        if (n.owned || std::exchange(n.acquiring, true)) return;
        ++acquiring_;
        sink(effects::acquire_journal{*n.id});
    }

    /// The journal has come, or is not to be had; false where it was not asked for.
    bool acquired(node& n) noexcept {
        if (!std::exchange(n.acquiring, false)) return false;
        --acquiring_;
        return true;
    }

    /// Nodes whose journal was asked for, and has not come.
    std::size_t acquiring() const noexcept { return acquiring_; }

    /// Stores a new task, as soon as the journal is there.
    template <class Sink>
    void store(node& n, task& t, Sink& sink) {
        if (!n.owned) return acquire(n, sink);
        append(n, t, sink);
    }

    template <class Sink>
    static void append(node& n, task& t, Sink& sink) {
        begin(store_op::append, n, t);
        t.record.order = ++n.last_order;
        sink(effects::append_task{t.key, *n.id, n.owner, t.record});
    }

    template <class Sink>
    static void update(node& n, task& t, Sink& sink) {
        begin(store_op::update, n, t);
        sink(effects::update_task{t.key, *n.id, n.owner, t.record});
    }

    /// A delivery is noted before it begins. In the core it counts once it has begun.
    template <class Sink>
    static void lease(node& n, task& t, Sink& sink) {
        t.state = task_state::leasing;
        ++t.record.attempts;
        update(n, t, sink);
        --t.record.attempts;
    }

    /// The node has it, and its reply is awaited.
    template <class Sink>
    void note_taken(node& n, task& t, Sink& sink) {
        t.record.taken = true;
        note_again(n, t, sink);
        tasks_.release(t, sink);
    }

    /// What the journal has of a taken task is to be written anew.
    template <class Sink>
    static void note_again(node& n, task& t, Sink& sink) {
        if (t.busy == store_op::none) {
            update(n, t, sink);
        } else {
            t.taken_unnoted = true;
        }
    }

    template <class Sink>
    static void settle(node& n, task& t, Sink& sink) {
        begin(store_op::settle, n, t);
        sink(effects::settle_task{t.key, *n.id, n.owner, t.record.order});
    }

    /// Of a journal that is shared: all who have posted the task learn of its end from the store.
    template <class Sink>
    static void tell_end(node& n, task& t, Sink& sink) {
        begin(store_op::settle, n, t);
        const auto& done = t.record;
        sink(effects::end_task{
            t.key, *n.id, n.owner, done.order, {t.how, done.request_id, done.reply, done.reply_number}});
    }

private:
    static void begin(store_op op, const node& n, task& t) {
        t.busy = op;
        t.busy_as = n.owner;
    }

    dispatch_tasks<Types>& tasks_;
    std::size_t acquiring_ = 0;
};

}  // namespace ferry::detail
