// layer 3
// The replies of the server's core: which request each one answers, those that nobody waits for, and the requests that get
// none in time.
#pragma once

#include <ferry/detail/dispatch_journal.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
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
    dispatch_replies(const dispatch_limits& limits, dispatch_nodes<Types>& nodes, dispatch_journal<Types>& journal)
        : limits_(limits), nodes_(nodes), journal_(journal) {}

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
            n.early_replies.push_back({std::move(e.call), e.request_id, std::move(e.reply), e.number});
        } else {
            take(n, std::move(e.call), e.request_id, std::move(e.reply), e.number, sink);
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
            take(n, std::move(each.call), each.request_id, std::move(each.content), each.number, sink);
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
        task* t = journal_.find(*ended);
        if (t && t->state == task_state::settling) {
            t->answered_by.push_back(std::move(from));
        } else {
            sink(effects::answer_reply<reply_call>{std::move(from), errc::ok, {}});
        }
        return true;
    }

    void remember(node& n, std::uint64_t number, task_key ended = 0) {
        if (number == 0) return;
        if (!n.replies) n.replies = std::make_unique<replies_seen>();
        n.replies->remember(number, ended);
    }

    /// The handler for an unclaimed reply has returned.
    void handled() noexcept { --unclaimed_; }

    template <class Sink>
    void expire(node& n, instant now, Sink& sink) {
        if (!n.requests) return;
        std::vector<task*> late;
        for (const auto& [id, t] : *n.requests) {
            if (t->reply_due && *t->reply_due <= now.steady) late.push_back(t);
        }
        for (task* t : late) {
            journal_.end(*t, {outcome_kind::expired, errc::expired, "no reply came in time", t->record.attempts}, sink);
        }
    }

    time_point next_wake(const node& n) const {
        auto when = time_point::max();
        if (!n.requests) return when;
        for (const auto& [id, t] : *n.requests) when = std::min(when, t->reply_due.value_or(when));
        return when;
    }

private:
    /// A reply that ends a task is answered once that is settled: until then its node keeps it.
    template <class Sink>
    void take(node& n, reply_call from, const std::string& request_id, reply&& content, std::uint64_t number,
              Sink& sink) {
        task* t = n.request(request_id);
        const bool wanted = t && t->reply_due;
        if (!wanted && unclaimed_ >= limits_.max_unclaimed_replies) {
            sink(effects::answer_reply<reply_call>{
                std::move(from), errc::queue_full,
                std::to_string(unclaimed_) + " replies that nobody waits for are still to be handled"});
            return;
        }
        remember(n, number, t ? t->key : 0);
        if (wanted) {
            t->answer = std::move(content);
        } else {
            ++unclaimed_;
            sink(effects::unclaimed_reply<reply>{*n.id, request_id, std::move(content)});
        }
        if (!t) return sink(effects::answer_reply<reply_call>{std::move(from), errc::ok, {}});
        t->answered_by.push_back(std::move(from));
        journal_.end(*t, {wanted ? outcome_kind::replied : outcome_kind::taken, errc::ok, {}, t->record.attempts},
                     sink);
    }

    const dispatch_limits& limits_;
    dispatch_nodes<Types>& nodes_;
    dispatch_journal<Types>& journal_;
    std::size_t unclaimed_ = 0;
};

}  // namespace ferry::detail
