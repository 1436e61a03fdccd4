// layer 3
// The replies of the server's core: which request each one answers, those that nobody waits for, and the requests that get
// none in time.
#pragma once

#include <ferry/detail/dispatch_journal.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Types>
class dispatch_replies {
    using reply_call = typename Types::reply_call;
    using reply = typename Types::reply;
    using task = dispatch_task<Types>;
    using node = dispatch_node<Types>;
    using time_point = std::chrono::steady_clock::time_point;

public:
    dispatch_replies(const dispatch_limits& limits, dispatch_nodes<Types>& nodes, dispatch_tasks<Types>& tasks,
                     dispatch_journal<Types>& journal)
        : limits_(limits), nodes_(nodes), tasks_(tasks), journal_(journal) {}

    /// One more sender waits for the task's reply. Of several, the longest limit counts.
    template <class Ticket, class Sink>
    void expect(task& t, const events::submitted<Ticket>& e, instant now, Sink& sink) {
        if (!e.wants_reply) return;
        const std::optional due = e.reply_within ? later(now.steady, *e.reply_within) : time_point::max();
        t.reply_due = std::max(t.reply_due, due);
        t.record.wants_reply = true;
        nodes_.arm(*t.owner, *t.reply_due, sink);
    }

    /// While the journal, which may hold the request, is being acquired, the reply is kept.
    template <class Sink>
    void arrived(node& n, events::reply_arrived<reply_call, reply>&& e, Sink& sink) {
        if (known(n, e.call, e.number, sink)) return;
        if (n.acquiring && !e.request_id.empty() && !n.request(e.request_id)) {
            n.early_replies.push_back(
                {std::move(e.call), e.request_id, std::move(e.reply), e.number, std::move(e.encoded)});
        } else {
            take(n, std::move(e.call), e.request_id, std::move(e.reply), e.number, std::move(e.encoded), sink);
        }
    }

    /// The journal is there, or can't be had.
    template <class Sink>
    void take_early(node& n, Sink& sink) {
        for (auto& each : std::exchange(n.early_replies, {})) {
            if (known(n, each.call, each.number, sink)) {
                sink(effects::released<reply>{std::move(each.content)});
                continue;
            }
            take(n, std::move(each.call), each.request_id, std::move(each.content), each.number,
                 std::move(each.encoded), sink);
        }
    }

    template <class Sink>
    void refuse_early(node& n, errc reason, const std::string& text, Sink& sink) {
        for (auto& each : std::exchange(n.early_replies, {})) {
            sink(effects::answer_reply<reply_call>{std::move(each.call), reason, text});
            sink(effects::released<reply>{std::move(each.content)});
        }
    }

    /// A reply that has come before is answered as it was then, or will be. True where this is one.
    template <class Sink>
    bool known(node& n, reply_call& from, std::uint64_t number, Sink& sink) {
        const auto* ended = number != 0 && n.replies ? n.replies->find(number) : nullptr;
        if (!ended) return false;
        if (const auto found = with_handler_.find(*ended); found != with_handler_.end()) {
            found->second.push_back(std::move(from));
        } else if (task* t = tasks_.find(*ended); t && t->reply_is_open()) {
            t->answered_by.push_back(std::move(from));
        } else {
            sink(effects::answer_reply<reply_call>{std::move(from), errc::ok, {}});
        }
        return true;
    }

    void remember(node& n, std::uint64_t number, task_key ended = 0) { n.remember_reply(number, ended); }

    /// The handler for an unclaimed reply has returned.
    template <class Sink>
    void handled(task_key key, Sink& sink) {
        --unclaimed_;
        if (!answer_handled(key, errc::ok, {}, sink)) journal_.handled(key, sink);
    }
    /// There is none.
    template <class Sink>
    void unwanted(task_key key, Sink& sink) {
        --unclaimed_;
        if (!answer_handled(key, errc::ok, {}, sink)) journal_.unwanted(key, sink);
    }

    /// Replies to no task that their handler has, and that are answered when it returns.
    std::size_t with_handler() const noexcept { return with_handler_.size(); }

    template <class Sink>
    void refuse_unhandled(errc reason, const std::string& text, Sink& sink) {
        while (!with_handler_.empty()) answer_handled(with_handler_.begin()->first, reason, text, sink);
    }

    /// A reply that was kept is there, or can't be had.
    template <class Sink>
    void loaded(events::reply_loaded<reply>&& e, Sink& sink) {
        task* t = journal_.loaded(e.key, std::move(e.reply), std::move(e.text), sink);
        if (!t) return;
        t->is_for_handler = !t->reply_due;
        if (t->is_for_handler) ++unclaimed_;
        t->how = {t->is_for_handler ? outcome_kind::taken : outcome_kind::replied, errc::ok, {}, t->record.attempts};
        journal_.hand_over(*t, sink);
    }

    template <class Sink>
    void expire(node& n, instant now, Sink& sink) {
        if (!n.requests) return;
        std::vector<task*> late;
        for (const auto& [id, t] : *n.requests) {
            if (!t->is_over() && t->reply_due && *t->reply_due <= now.steady) late.push_back(t);
        }
        for (task* t : late) {
            journal_.end(*t, {outcome_kind::expired, errc::expired, "no reply came in time", t->record.attempts}, sink);
        }
    }

    time_point next_wake(const node& n) const {
        auto when = time_point::max();
        if (!n.requests) return when;
        for (const auto& [id, t] : *n.requests) {
            if (!t->is_over()) when = std::min(when, t->reply_due.value_or(when));
        }
        return when;
    }

private:
    /// A reply that ends a task is answered once that is settled, or the reply noted; one that ends none, if it is to be kept,
    /// when its handler has returned. Until then its node keeps it.
    template <class Sink>
    void take(node& n, reply_call from, const std::string& request_id, reply&& content, std::uint64_t number,
              std::shared_ptr<const payload>&& encoded, Sink& sink) {
        task* t = n.request(request_id);
        if (t && t->is_over()) t = nullptr;  // it has a reply already, which was kept
        const bool wanted = t && t->reply_due;
        if (!wanted && unclaimed_ >= limits_.max_unclaimed_replies) {
            sink(effects::answer_reply<reply_call>{
                std::move(from), errc::queue_full,
                std::to_string(unclaimed_) + " replies that nobody waits for are still to be handled"});
            return sink(effects::released<reply>{std::move(content)});
        }
        if (!wanted) ++unclaimed_;
        if (!t) return take_for_handler(n, std::move(from), request_id, std::move(content), number, !!encoded, sink);
        remember(n, number, t->key);
        t->answered_by.push_back(std::move(from));
        outcome how{wanted ? outcome_kind::replied : outcome_kind::taken, errc::ok, {}, t->record.attempts};
        if (encoded) {
            journal_.end_by_reply(*t, std::move(how), std::move(content), std::move(encoded), number, !wanted, sink);
        } else if (wanted) {
            t->answer = std::move(content);
            journal_.end(*t, std::move(how), sink);
        } else {
            sink(effects::unclaimed_reply<reply>{*n.id, request_id, std::move(content)});
            journal_.end(*t, std::move(how), sink);
        }
    }

    template <class Sink>
    void take_for_handler(node& n, reply_call&& from, const std::string& request_id, reply&& content,
                          std::uint64_t number, bool keep, Sink& sink) {
        const auto key = keep ? tasks_.new_key() : 0;
        remember(n, number, key);
        if (keep) with_handler_[key].push_back(std::move(from));
        sink(effects::unclaimed_reply<reply>{*n.id, request_id, std::move(content), key});
        if (!keep) sink(effects::answer_reply<reply_call>{std::move(from), errc::ok, {}});
    }

    /// False where the key is none of such a reply.
    template <class Sink>
    bool answer_handled(task_key key, errc reason, const std::string& text, Sink& sink) {
        auto found = with_handler_.extract(key);
        if (found.empty()) return false;
        for (auto& each : found.mapped()) {
            sink(effects::answer_reply<reply_call>{std::move(each), reason, text});
        }
        return true;
    }

    const dispatch_limits& limits_;
    dispatch_nodes<Types>& nodes_;
    dispatch_tasks<Types>& tasks_;
    dispatch_journal<Types>& journal_;
    std::size_t unclaimed_ = 0;
    std::unordered_map<task_key, std::vector<reply_call>> with_handler_;
};

}  // namespace ferry::detail
