// layer 3
// The server's core towards its store: who owns a node's journal, and that it and the open tasks agree.
//
// A node's journal is acquired when it is first needed, and again after another server took it. A task is in the journal
// from before it is first sent until it has ended: it is reported once the store has settled it, or has failed to. What
// could not be settled is remembered and tried again, so that this server never delivers it again. One operation on a task
// is under way at a time; what comes meanwhile waits for its end.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Types>
class dispatch_journal {
    using ticket = typename Types::ticket;
    using reply = typename Types::reply;
    using call = typename Types::call;
    using reply_call = typename Types::reply_call;

public:
    using task = dispatch_task<Types>;
    using node = dispatch_node<Types>;

    dispatch_journal(dispatch_nodes<Types>& nodes, dispatch_tasks<Types>& tasks) : nodes_(nodes), tasks_(tasks) {}

    // --- the end of a task ---------------------------------------------------------------------------------------------

    /// Tasks that have ended, and have not been settled and reported.
    std::size_t settling_tasks() const noexcept { return settling_; }

    /// Of those, whose reply is with somebody who has not returned.
    std::size_t with_handlers() const noexcept { return with_handlers_; }

    /// Decides how the task ends. It leaves the lane at once; it is reported when the store has settled it.
    template <class Sink>
    void end(task& t, outcome&& how, Sink& sink) {
        node& n = *t.owner;
        if (n.carried && n.carried->of == &t) n.carried->of = nullptr;
        if (must_be_withdrawn(n, t, how.kind)) sink(effects::withdraw_task<call>{n.current, t.record.id});
        n.leave_lane(t);
        if constexpr (!is_shared<Types>) n.close_request(t);  // else a reply that comes now waits for the end
        t.state = task_state::settling;
        t.how = std::move(how);
        ++settling_;
        conclude(t, sink);
    }

    /// The same by a reply, which is noted first. It goes to those who wait for the task, or to the handler.
    template <class Sink>
    void end_by_reply(task& t, outcome&& how, reply&& content, std::shared_ptr<const payload>&& encoded,
                      std::uint64_t number, bool is_for_handler, Sink& sink) {
        t.answer = std::move(content);
        t.answer_bytes = encoded->size();
        t.record.reply = std::move(encoded);
        t.record.reply_number = number;
        t.is_for_handler = is_for_handler;
        t.reply_at = reply_stage::to_note;
        end(t, std::move(how), sink);
    }

    /// A reply to no task: it is noted as a task of its own, which has ended, and goes to the handler.
    template <class Sink>
    void keep_for_handler(node& n, reply_call&& from, const std::string& request_id, reply&& content,
                          std::shared_ptr<const payload>&& encoded, std::uint64_t number, instant now, Sink& sink) {
        task& t = tasks_.add(n, now.steady);
        t.record.request_id = request_id;
        t.record.taken = true;
        t.answer_bytes = encoded->size();
        t.record.reply = std::move(encoded);
        t.record.reply_number = number;
        t.record.accepted = t.record.expires = now.system;
        t.answered_by.push_back(std::move(from));
        t.answer = std::move(content);
        t.is_for_handler = true;
        t.reply_at = reply_stage::to_note;
        t.state = task_state::settling;
        t.how = {outcome_kind::taken, errc::ok, {}, 0};
        ++settling_;
        n.remember_reply(number, t.key);
        conclude(t, sink);
    }

    /// A reply to no task, of a journal that is shared: it goes to the store, and from there to whom it concerns.
    template <class Sink>
    void store_reply(node& n, late_reply<Types>&& reply, Sink& sink) {
        task& t = tasks_.add(n, {});
        t.record.request_id = std::move(reply.request_id);
        t.record.reply = std::move(reply.encoded);
        t.record.reply_number = reply.number;
        t.answered_by = std::move(reply.from);
        t.state = task_state::settling;
        t.stored = true;
        t.how = {outcome_kind::replied, errc::ok, {}, 0};
        ++settling_;
        n.share.replies.insert(&t);
        n.remember_reply(t.record.reply_number, t.key);
        conclude(t, sink);
    }

    /// The store has no room for the task's reply: its node keeps it, and sends it again. False where it has none.
    template <class Sink>
    bool put_back(task& t, const store_status& why, Sink& sink) {
        if (t.state != task_state::settling || !t.record.reply) return false;
        node& n = *t.owner;
        t.busy = store_op::none;
        --settling_;
        if (n.replies) n.replies->forget(t.record.reply_number);
        tasks_.answer(t, why.code, why.text, sink);
        sink(effects::released<std::shared_ptr<const payload>>{std::exchange(t.record.reply, nullptr)});
        sink(effects::warning{"node " + *n.id + ": the store has no room for a reply: " + why.text});
        if (t.record.order == 0) {
            n.share.replies.erase(&t);
            tasks_.reported();
            tasks_.forget(t);
            return true;
        }
        t.how = {};
        t.record.reply_number = 0;
        t.state = task_state::awaiting_reply;
        if (!t.record.taken) note_taken(n, t, sink);
        return true;
    }

    /// The journal is another server's now, and so are its tasks: this server knows nothing of them any more.
    template <class Sink>
    void forget_all(node& n, Sink& sink) {
        const auto tasks = std::move(n.share.tasks);
        const auto replies = std::move(n.share.replies);
        n.forget_tasks();
        n.replies.reset();
        const auto forget = [&](task& t) {
            if (t.state == task_state::settling) --settling_;
            tasks_.reported();
            tasks_.release(t, sink);
            tasks_.answer(t, errc::ownership_lost, "the node's journal was lost before it had the reply", sink);
            tasks_.forget(t);
        };
        for (const auto& [order, t] : tasks) forget(*t);
        for (task* t : replies) forget(*t);
        refuse_late(n, errc::ownership_lost, "the node's journal was lost before it had the reply", sink);
    }

    template <class Sink>
    void refuse_late(node& n, errc reason, const std::string& text, Sink& sink) {
        for (auto& each : std::exchange(n.share.late_replies, {})) {
            for (auto& from : each.from) sink(effects::answer_reply<reply_call>{std::move(from), reason, text});
            sink(effects::released<std::shared_ptr<const payload>>{std::move(each.encoded)});
        }
    }

    /// Reports all that is left as stopped. The store keeps what was not settled.
    template <class Sink>
    void abandon(Sink& sink) {
        to_load_.clear();
        for (auto& [key, t] : tasks_) {
            tasks_.release(t, sink);
            const bool awaits_kept_reply = t.reply_at > reply_stage::noting && !t.answer;
            if (!t.is_over() || awaits_kept_reply) {
                t.how = {outcome_kind::stopped, errc::stopped, "the server was stopped first", t.record.attempts};
            }
            if (std::exchange(t.is_for_handler, false)) tasks_.release_answer(t, sink);  // its node sends it again
            tasks_.give(t, 0, sink);
            tasks_.answer(t, errc::stopped, "the server was stopped before it had noted the reply", sink);
        }
        tasks_.clear();
        settling_ = with_handlers_ = 0;
    }

    // --- writing -------------------------------------------------------------------------------------------------------

    /// Stores a new task, as soon as the journal is there.
    template <class Sink>
    void store(node& n, task& t, Sink& sink) {
        if (!n.owned) return acquire(n, sink);
        begin(store_op::append, n, t);
        t.record.order = ++n.last_order;
        sink(effects::append_task{t.key, *n.id, n.owner, t.record});
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
    void note_again(node& n, task& t, Sink& sink) {
        if (t.busy == store_op::none) {
            update(n, t, sink);
        } else {
            t.taken_unnoted = true;
        }
    }

    template <class Sink>
    void update(node& n, task& t, Sink& sink) {
        begin(store_op::update, n, t);
        sink(effects::update_task{t.key, *n.id, n.owner, t.record});
    }

    /// A delivery is noted before it begins. In the core it counts once it has begun.
    template <class Sink>
    void lease(node& n, task& t, Sink& sink) {
        t.state = task_state::leasing;
        ++t.record.attempts;
        update(n, t, sink);
        --t.record.attempts;
    }

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
        if (as_owner && ok) settle_again(n, sink);
        if (op == store_op::settle && as_owner && !ok) {
            sink(effects::warning{"node " + *n.id + ": the store could not settle a task: " + status.text});
            report(t, sink);
            return false;
        }
        if (t.is_over()) {
            t.reply_at == reply_stage::noting ? noted(t, status, sink) : conclude(t, sink);
            return false;
        }
        if (!ok && t.state != task_state::awaiting_reply) {
            end(t, {outcome_kind::store_failed, status.code, status.text, t.record.attempts}, sink);
            return false;
        }
        if (!ok)
            sink(
                effects::warning{"node " + *n.id + ": the store could not note what became of a task: " + status.text});
        if (t.state == task_state::storing) t.state = task_state::queued;
        if (t.state == task_state::leasing) return true;
        if (n.owned && std::exchange(t.taken_unnoted, false)) update(n, t, sink);
        return false;
    }

    /// Where too much is unsettled, perhaps the store can settle again: tries one task, whose success has its node's others tried.
    template <class Sink>
    void try_to_settle(node& n, Sink& sink) {
        if (nodes_.what_is_unsettled(n).empty()) return;
        if (!n.unsettled.empty()) return conclude(*n.take_one_unsettled(), sink);
        for (auto& [id, other] : nodes_) {
            if (!other.unsettled.empty()) return conclude(*other.take_one_unsettled(), sink);
        }
    }

    // --- replies that the store keeps ----------------------------------------------------------------------------------

    /// One of those whom a reply was given to has returned.
    template <class Sink>
    void handled(task_key key, Sink& sink) {
        task* t = tasks_.find(key);
        if (!t || t->reply_at != reply_stage::handing_over || --t->handlers > 0 || t->loads_again) return;
        t->reply_at = reply_stage::none;
        --with_handlers_;
        t->owner->close_request(*t);
        if (std::exchange(t->loads_by_itself, false)) load_next(sink);
        conclude(*t, sink);
    }

    /// Nobody wanted it: one of before a restart is kept, as it may be asked for again.
    template <class Sink>
    void unwanted(task_key key, Sink& sink) {
        task* t = tasks_.find(key);
        const bool may_be_asked_for = t && t->reply_at == reply_stage::handing_over && t->is_restored &&
                                      !t->record.request_id.empty() && t->answered_by.empty();
        if (!may_be_asked_for || t->handlers > 1 || t->loads_again) return handled(key, sink);
        const task* const other = t->owner->request(t->record.request_id);
        if (other && other != t) return handled(key, sink);
        t->handlers = 0;
        t->reply_at = reply_stage::kept;
        --with_handlers_;
        t->owner->open_request(*t);
        --settling_;
        if (std::exchange(t->loads_by_itself, false)) load_next(sink);
    }

    /// A task that was replied before a restart is asked for again.
    template <class Sink>
    void load_for_sender(task& t, Sink& sink) {
        if (t.reply_at == reply_stage::kept) return load(t, sink);
        if (t.reply_at != reply_stage::handing_over || std::exchange(t.loads_again, true)) return;
        sink(effects::load_reply{t.key, *t.owner->id, t.record.reply});
    }

    /// Null where it is not awaited, or can't be had: then its senders are told why.
    template <class Sink>
    task* loaded(task_key key, std::optional<reply>&& content, std::string&& text, Sink& sink) {
        task* t = tasks_.find(key);
        if (t && std::exchange(t->loads_again, false)) {
            give_again(*t, std::move(content), std::move(text), sink);
            return nullptr;
        }
        if (!t || t->reply_at != reply_stage::loading) return nullptr;
        if (content) {
            t->answer = std::move(content);
            return t;
        }
        sink(effects::warning{"node " + *t->owner->id + ": a reply that was kept can't be read: " + text});
        t->how = {outcome_kind::store_failed, errc::store_failed, std::move(text), t->record.attempts};
        tasks_.give(*t, 0, sink);
        t->reply_at = reply_stage::kept;
        --settling_;
        if (std::exchange(t->loads_by_itself, false)) load_next(sink);
        return nullptr;
    }

    /// A reply goes to those who wait for it.
    template <class Sink>
    void hand_over(task& t, Sink& sink) {
        t.reply_at = reply_stage::handing_over;
        ++with_handlers_;
        if (!t.is_restored) tasks_.release(t, sink);
        tasks_.give(t, t.key, sink);
        if (t.handlers == 0) {
            t.handlers = 1;
            handled(t.key, sink);
        }
    }

    /// Replies that were kept may be loaded for the handler from now on, or no more.
    template <class Sink>
    void let_load(bool may, Sink& sink) {
        may_load_ = may;
        load_next(sink, 0);
    }

    // --- owning --------------------------------------------------------------------------------------------------------

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
            end(*t,
                {outcome_kind::store_failed, errc::ownership_lost, "another server has dealt with it",
                 t->record.attempts},
                sink);
        }
        settle_again(n, sink);
        for (task* t : waiting) {
            if (t->stored) continue;  // the journal had it
            n.enter_lane(*t);
            store(n, *t, sink);
        }
    }

    /// The journal can't be had.
    template <class Sink>
    void give_up(node& n, const store_status& status, instant now, Sink& sink) {
        sink(effects::warning{"node " + *n.id + ": the store could not acquire its journal: " + status.text});
        for (task* t : waiting_for_journal(n)) {
            end(*t, {outcome_kind::store_failed, status.code, status.text, 0}, sink);
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

    static void begin(store_op op, const node& n, task& t) {
        t.busy = op;
        t.busy_as = n.owner;
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
        if (t.record.reply) {
            if (auto& content = t.record.content) {
                sink(effects::released<std::shared_ptr<const payload>>{std::exchange(content, nullptr)});
            }
            t.answer_bytes = t.record.reply->size();
            t.state = task_state::settling;
            t.reply_at = reply_stage::kept;
            n.remember_reply(t.record.reply_number, t.key);
            if (t.tickets.empty()) {
                to_load_.push_back(t.key);
                load_next(sink, 0);
            } else {
                load(t, sink);
            }
            return;
        }
        if (t.record.taken) {
            if (is_asked_anew) note_again(n, t, sink);
            return tasks_.release(t, sink);  // it is never sent again
        }
        n.enter_lane(t);
        nodes_.arm(n, t.expires, sink);
    }

    /// Tries what could not be settled when it ended.
    template <class Sink>
    void settle_again(node& n, Sink& sink) {
        for (task* t : n.take_unsettled()) conclude(*t, sink);
    }

    /// Goes on with a task that has ended, when no operation on it is under way.
    template <class Sink>
    void conclude(task& t, Sink& sink) {
        if (t.busy != store_op::none || t.reply_at > reply_stage::noting) return;
        if constexpr (is_shared<Types>) {
            tell_end(t, sink);
        } else {
            settle(t, sink);
        }
    }

    template <class Sink>
    void settle(task& t, Sink& sink) {
        node& n = *t.owner;
        if (t.reply_at == reply_stage::to_note) {
            const bool is_new = t.record.order == 0;
            if (!n.owned || (!t.stored && !is_new)) return hand_over(t, sink);
            t.reply_at = reply_stage::noting;
            if (!is_new) return update(n, t, sink);
            begin(store_op::append, n, t);
            t.record.order = ++n.last_order;
            return sink(effects::append_task{t.key, *n.id, n.owner, t.record});
        }
        if (!t.stored || !n.owned) return report(t, sink);
        begin(store_op::settle, n, t);
        sink(effects::settle_task{t.key, *n.id, n.owner, t.record.order});
    }

    /// Of a journal that is shared: all who have posted the task learn of its end from the store.
    template <class Sink>
    void tell_end(task& t, Sink& sink) {
        if (!t.stored) return report(t, sink);
        node& n = *t.owner;
        begin(store_op::settle, n, t);
        const auto& done = t.record;
        sink(effects::end_task{
            t.key, *n.id, n.owner, done.order, {t.how, done.request_id, done.reply, done.reply_number}});
    }

    /// A task that the journal may still have is remembered, so that it is settled later and never delivered again.
    template <class Sink>
    void report(task& t, Sink& sink) {
        if (t.state == task_state::settling) {
            tasks_.give(t, 0, sink);
            tasks_.answer(t, errc::ok, {}, sink);
            t.owner->close_request(t);
            t.state = task_state::reported;
            tasks_.release(t, sink);
            --settling_;
            tasks_.reported();
        }
        if (t.stored) return t.owner->remember_unsettled(t);
        if constexpr (is_shared<Types>) {
            node& n = *t.owner;
            t.record.order != 0 ? n.share.tasks.erase(t.record.order) : n.share.replies.erase(&t);
            store_late(n, t.key, sink);
        }
        tasks_.forget(t);
    }

    /// The end that these replies were to wait for is in the store.
    template <class Sink>
    void store_late(node& n, task_key after, Sink& sink) {
        auto& late = n.share.late_replies;
        for (std::size_t i = 0; i < late.size();) {
            if (late[i].after != after) {
                ++i;
                continue;
            }
            auto next = std::move(late[i]);
            late.erase(late.begin() + static_cast<std::ptrdiff_t>(i));
            store_reply(n, std::move(next), sink);
        }
    }

    /// The store has the reply, or can't have it: then its node keeps it until it was handled.
    template <class Sink>
    void noted(task& t, const store_status& status, Sink& sink) {
        if (status.code == errc::ok) {
            tasks_.answer(t, errc::ok, {}, sink);
        } else {
            sink(effects::warning{"node " + *t.owner->id + ": the store could not note a reply: " + status.text});
        }
        hand_over(t, sink);
    }

    /// Some at a time, so that not all that was kept is in memory at once.
    template <class Sink>
    void load_next(Sink& sink, std::size_t over = 1) {
        loading_ -= over;
        while (may_load_ && loading_ < 4 && !to_load_.empty()) {
            task* t = tasks_.find(to_load_.front());
            to_load_.pop_front();
            if (!t || t->reply_at != reply_stage::kept) continue;
            ++loading_;
            t->loads_by_itself = true;
            load(*t, sink);
        }
    }

    /// To those who have asked while others were at work on it.
    template <class Sink>
    void give_again(task& t, std::optional<reply>&& content, std::string&& text, Sink& sink) {
        if (content) {
            t.how = {outcome_kind::replied, errc::ok, {}, t.record.attempts};
        } else {
            t.how = {outcome_kind::store_failed, errc::store_failed, std::move(text), t.record.attempts};
        }
        t.answer = std::move(content);
        t.is_for_handler = false;
        ++t.handlers;  // itself
        tasks_.give(t, t.key, sink);
        handled(t.key, sink);
    }

    template <class Sink>
    void load(task& t, Sink& sink) {
        t.reply_at = reply_stage::loading;
        ++settling_;
        sink(effects::load_reply{t.key, *t.owner->id, t.record.reply});
    }

    /// What the node has of it, at least in part, is of no more use to it, and it doesn't know that.
    static bool must_be_withdrawn(const node& n, const task& t, outcome_kind kind) {
        if (!n.session || !n.session->reconciled) return false;
        if (t.at_node || (t.outstanding && t.state == task_state::sending)) return true;
        const bool by_node =
            kind == outcome_kind::taken || kind == outcome_kind::replied || kind == outcome_kind::refused;
        return t.is_at_node() && !by_node;
    }

    dispatch_nodes<Types>& nodes_;
    dispatch_tasks<Types>& tasks_;
    std::deque<task_key> to_load_;  // replies that were kept, for the handler
    bool may_load_ = false;
    std::size_t loading_ = 0;  // or being handled, of those
    std::size_t acquiring_ = 0;
    std::size_t settling_ = 0;
    std::size_t with_handlers_ = 0;
};

}  // namespace ferry::detail
