// layer 3
// How tasks end at the server. A task is reported once the store has settled it, or has failed to. What could not be
// settled is remembered and tried again, so that this server never delivers it again. A reply is noted in the journal before
// it goes to those who wait for it, and stays there until they are done with it.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/detail/dispatch_writes.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_endings {
    using reply = typename Types::reply;
    using call = typename Types::call;
    using reply_call = typename Types::reply_call;

public:
    using task = dispatch_task<Types>;
    using node = dispatch_node<Types>;

    dispatch_endings(dispatch_nodes<Types>& nodes, dispatch_tasks<Types>& tasks, dispatch_writes<Types>& writes)
        : nodes_(nodes), tasks_(tasks), writes_(writes) {}

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
        if (!t.record.taken) writes_.note_taken(n, t, sink);
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

    // --- what the store has done of it -------------------------------------------------------------------------------

    /// Goes on with a task that has ended, when no operation on it is under way.
    template <class Sink>
    void conclude(task& t, Sink& sink) {
        if (t.busy != store_op::none || t.reply_at > reply_stage::noting) return;
        if constexpr (is_shared<Types>) {
            t.stored ? writes_.tell_end(*t.owner, t, sink) : report(t, sink);
        } else {
            settle(t, sink);
        }
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

    /// Where too much is unsettled, perhaps the store can settle again: tries one task, whose success has its node's others tried.
    template <class Sink>
    void try_to_settle(node& n, Sink& sink) {
        if (nodes_.what_is_unsettled(n).empty()) return;
        if (!n.unsettled.empty()) return conclude(*n.take_one_unsettled(), sink);
        for (auto& [id, other] : nodes_) {
            if (!other.unsettled.empty()) return conclude(*other.take_one_unsettled(), sink);
        }
    }

    /// Tries what could not be settled when it ended.
    template <class Sink>
    void settle_again(node& n, Sink& sink) {
        for (task* t : n.take_unsettled()) conclude(*t, sink);
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

    /// A task that was taken over from the journal with its reply. It goes to whoever has asked for it, or to the handler.
    template <class Sink>
    void restored(node& n, task& t, Sink& sink) {
        if (auto& content = t.record.content) {
            sink(effects::released<std::shared_ptr<const payload>>{std::exchange(content, nullptr)});
        }
        t.answer_bytes = t.record.reply->size();
        t.state = task_state::settling;
        t.reply_at = reply_stage::kept;
        n.remember_reply(t.record.reply_number, t.key);
        if (!t.tickets.empty()) return load(t, sink);
        to_load_.push_back(t.key);
        load_next(sink, 0);
    }

private:
    template <class Sink>
    void settle(task& t, Sink& sink) {
        node& n = *t.owner;
        if (t.reply_at == reply_stage::to_note) {
            const bool is_new = t.record.order == 0;
            if (!n.owned || (!t.stored && !is_new)) return hand_over(t, sink);
            t.reply_at = reply_stage::noting;
            return is_new ? writes_.append(n, t, sink) : writes_.update(n, t, sink);
        }
        if (!t.stored || !n.owned) return report(t, sink);
        writes_.settle(n, t, sink);
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
    dispatch_writes<Types>& writes_;
    std::deque<task_key> to_load_;  // replies that were kept, for the handler
    bool may_load_ = false;
    std::size_t loading_ = 0;  // or being handled, of those
    std::size_t settling_ = 0;
    std::size_t with_handlers_ = 0;
};

}  // namespace ferry::detail
