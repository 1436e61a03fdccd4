// layer 3
// The replies of the server's core: which request each one answers, those that nobody waits for, and the requests that get
// none in time.
#pragma once

#include <ferry/detail/dispatch_endings.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/detail/dispatch_writes.hpp>
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
    dispatch_replies(const dispatch_limits& limits, dispatch_nodes<Types>& nodes, dispatch_tasks<Types>& tasks,
                     dispatch_writes<Types>& writes, dispatch_endings<Types>& endings)
        : limits_(limits), nodes_(nodes), tasks_(tasks), writes_(writes), endings_(endings) {}

    /// One more sender waits for the task's reply. Of several, the longest limit counts.
    template <class Ticket, class Sink>
    void expect(task& t, const events::submitted<Ticket>& e, instant now, Sink& sink) {
        if (!e.wants_reply) return;
        const std::optional due = e.reply_within ? later(now.steady, *e.reply_within) : time_point::max();
        const auto within = e.reply_within ? later(now.system, *e.reply_within) : t.record.reply_until.max();
        const auto until = t.reply_due ? std::max(t.record.reply_until, within) : within;
        const bool is_new = std::exchange(t.record.reply_until, until) != until;
        t.reply_due = std::max(t.reply_due, due);
        t.record.wants_reply = true;
        if (is_new && t.state == task_state::awaiting_reply && t.owner->owned) writes_.note_again(*t.owner, t, sink);
        nodes_.arm(*t.owner, *t.reply_due, sink);
    }

    /// While the journal, which may hold the request, is being acquired, the reply is kept.
    template <class Sink>
    void arrived(node& n, events::reply_arrived<reply_call, reply>&& e, instant now, Sink& sink) {
        if (known(n, e.call, e.number, sink)) return;
        const task* const t = n.request(e.request_id);
        const bool may_be_asked_for = is_shared<Types> || !e.request_id.empty();
        early_reply<Types> came{std::move(e.call), e.request_id,         std::move(e.reply),
                                e.number,          std::move(e.encoded), e.bytes};
        if (n.acquiring && may_be_asked_for && (!t || t->waits_for_journal())) {
            n.early_replies.push_back(std::move(came));
        } else {
            take(n, std::move(came), now, sink);
        }
    }

    /// The journal is there, or can't be had.
    template <class Sink>
    void take_early(node& n, instant now, Sink& sink) {
        for (auto& each : std::exchange(n.early_replies, {})) {
            if (known(n, each.call, each.number, sink)) {
                sink(effects::released<reply>{std::move(each.content)});
                continue;
            }
            take(n, std::move(each), now, sink);
        }
    }

    template <class Sink>
    void refuse_early(node& n, errc reason, const std::string& text, Sink& sink) {
        if constexpr (is_shared<Types>) endings_.refuse_late(n, reason, text, sink);
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
        if (task* t = tasks_.find(*ended); t && t->reply_is_open()) {
            t->answered_by.push_back(std::move(from));
        } else {
            sink(effects::answer_reply<reply_call>{std::move(from), errc::ok, {}});
        }
        return true;
    }

    void remember(node& n, std::uint64_t number, task_key ended = 0) { n.remember_reply(number, ended); }

    /// The handler for an unclaimed reply has returned.
    template <class Sink>
    void handled(const events::unclaimed_handled& e, Sink& sink) {
        --unclaimed_;
        unclaimed_bytes_ -= e.bytes;
        endings_.handled(e.key, sink);
    }
    /// There is none.
    template <class Sink>
    void unwanted(const events::unclaimed_unwanted& e, Sink& sink) {
        --unclaimed_;
        unclaimed_bytes_ -= e.bytes;
        endings_.unwanted(e.key, sink);
    }

    /// A reply that was kept is there, or can't be had.
    template <class Sink>
    void loaded(events::reply_loaded<reply>&& e, Sink& sink) {
        task* t = endings_.loaded(e.key, std::move(e.reply), std::move(e.text), sink);
        if (!t) return;
        t->is_for_handler = !t->reply_due;
        if (t->is_for_handler) count(t->answer_bytes);
        t->how = {t->is_for_handler ? outcome_kind::taken : outcome_kind::replied, errc::ok, {}, t->record.attempts};
        endings_.hand_over(*t, sink);
    }

    template <class Sink>
    void expire(node& n, instant now, Sink& sink) {
        if (!n.requests) return;
        std::vector<task*> late;
        for (const auto& [id, t] : *n.requests) {
            if (!t->is_over() && end_of(*t) <= now.steady) late.push_back(t);
        }
        for (task* t : late) {
            endings_.end(*t, {outcome_kind::expired, errc::expired, "no reply came in time", t->record.attempts}, sink);
        }
    }

    time_point next_wake(const node& n) const {
        auto when = time_point::max();
        if (!n.requests) return when;
        for (const auto& [id, t] : *n.requests) {
            if (!t->is_over()) when = std::min(when, end_of(*t));
        }
        return when;
    }

private:
    static time_point end_of(const task& t) { return t.reply_due.value_or(t.given_up); }

    template <class Sink>
    void take(node& n, early_reply<Types>&& came, instant now, Sink& sink) {
        if constexpr (is_shared<Types>) {
            sink(effects::released<reply>{std::move(came.content)});
            store(n, std::move(came.call), came.request_id, came.number, std::move(came.encoded), sink);
        } else {
            hand_on(n, std::move(came), now, sink);
        }
    }

    void count(std::uint64_t bytes) {
        ++unclaimed_;
        unclaimed_bytes_ += bytes;
    }

    /// Empty where there is room for a reply of so many bytes that nobody waits for.
    template <class Sink>
    std::string what_is_full(node& n, std::uint64_t bytes, Sink& sink) {
        if (auto full = nodes_.what_is_unsettled(n); !full.empty()) return endings_.try_to_settle(n, sink), full;
        const bool has_bytes =
            unclaimed_bytes_ <= limits_.max_unclaimed_bytes && bytes <= limits_.max_unclaimed_bytes - unclaimed_bytes_;
        if (unclaimed_ == 0 || (unclaimed_ < limits_.max_unclaimed_replies && has_bytes)) return {};
        return std::to_string(unclaimed_) + " replies of " + std::to_string(unclaimed_bytes_) +
               " bytes that nobody waits for are still to be handled";
    }

    /// A reply that ends a task is answered once that is settled, or the reply noted. Until then its node keeps it.
    template <class Sink>
    void hand_on(node& n, early_reply<Types>&& came, instant now, Sink& sink) {
        task* t = n.request(came.request_id);
        if (t && t->is_over()) t = nullptr;  // it has a reply already, which was kept
        const bool wanted = t && t->reply_due;
        if (auto full = wanted ? std::string() : what_is_full(n, came.bytes, sink); !full.empty()) {
            sink(effects::answer_reply<reply_call>{std::move(came.call), errc::queue_full, std::move(full)});
            return sink(effects::released<reply>{std::move(came.content)});
        }
        if (!wanted) count(came.bytes);
        if (!t && came.encoded) {
            return endings_.keep_for_handler(n, std::move(came.call), came.request_id, std::move(came.content),
                                             std::move(came.encoded), came.number, now, sink);
        }
        if (!t) {
            n.remember_reply(came.number, 0);
            sink(effects::unclaimed_reply<reply>{*n.id, came.request_id, std::move(came.content), 0, came.bytes});
            return sink(effects::answer_reply<reply_call>{std::move(came.call), errc::ok, {}});
        }
        remember(n, came.number, t->key);
        t->answered_by.push_back(std::move(came.call));
        outcome how{wanted ? outcome_kind::replied : outcome_kind::taken, errc::ok, {}, t->record.attempts};
        if (came.encoded) {
            endings_.end_by_reply(*t, std::move(how), std::move(came.content), std::move(came.encoded), came.number,
                                  !wanted, sink);
        } else if (wanted) {
            t->answer = std::move(came.content);
            endings_.end(*t, std::move(how), sink);
        } else {
            sink(effects::unclaimed_reply<reply>{*n.id, came.request_id, std::move(came.content), 0, came.bytes});
            endings_.end(*t, std::move(how), sink);
        }
    }

    /// Of a journal that is shared: who has asked, here or elsewhere, the store tells. Only who owns the journal may write the
    /// reply; its node sends it again, to the server at which it polls.
    template <class Sink>
    void store(node& n, reply_call&& from, const std::string& request_id, std::uint64_t number,
               std::shared_ptr<const payload>&& encoded, Sink& sink) {
        if (!n.owned) {
            sink(effects::released<std::shared_ptr<const payload>>{std::move(encoded)});
            return sink(effects::answer_reply<reply_call>{std::move(from), errc::ownership_lost,
                                                          "the journal of node " + *n.id + " is not this server's"});
        }
        task* const t = n.request(request_id);
        if (!t || t->is_over()) {
            auto& late = n.share.late_replies;
            const auto same = std::find_if(late.begin(), late.end(),
                                           [&](const auto& each) { return number != 0 && each.number == number; });
            if (same != late.end()) return same->from.push_back(std::move(from));
            late_reply<Types> reply{0, {}, request_id, std::move(encoded), number};
            reply.from.push_back(std::move(from));
            if (!t) return endings_.store_reply(n, std::move(reply), sink);
            reply.after = t->key;
            return late.push_back(std::move(reply));
        }
        remember(n, number, t->key);
        t->answered_by.push_back(std::move(from));
        t->record.reply = std::move(encoded);
        t->record.reply_number = number;
        const auto kind = t->record.wants_reply ? outcome_kind::replied : outcome_kind::taken;
        endings_.end(*t, {kind, errc::ok, {}, t->record.attempts}, sink);
    }

    const dispatch_limits& limits_;
    dispatch_nodes<Types>& nodes_;
    dispatch_tasks<Types>& tasks_;
    dispatch_writes<Types>& writes_;
    dispatch_endings<Types>& endings_;
    std::size_t unclaimed_ = 0;
    std::uint64_t unclaimed_bytes_ = 0;
};

}  // namespace ferry::detail
