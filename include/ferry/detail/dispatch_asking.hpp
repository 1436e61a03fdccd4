// layer 3
// The asking half of a server's core whose store is shared: what its own senders have posted, wherever the node is connected,
// and what has come back of it. It meets the half that owns journals only in the store, also where both are in one server.
//
// An end is acknowledged when all that it brings was dealt with: a reply, when its handler has returned. Until then the store
// keeps it, for this server or for another one. A reply to an earlier life of this server goes to who asks again, or to the
// handler for replies that nobody waits for.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Types>
class dispatch_asking {
    using ticket = typename Types::ticket;
    using reply = typename Types::reply;
    using reply_call = typename Types::reply_call;
    using node = dispatch_node<Types>;
    using time_point = std::chrono::steady_clock::time_point;

public:
    explicit dispatch_asking(dispatch_tasks<Types>& tasks) : tasks_(tasks) {}

    // --- what is posted ------------------------------------------------------------------------------------------------

    template <class Sink>
    task_key post(node& n, events::submitted<ticket>&& e, instant now, Sink& sink) {
        if (const auto kept = e.wants_reply ? kept_reply(*n.id, e.request_id) : 0) {
            sink(effects::accepted<ticket>{e.ticket});
            return give_kept(kept, std::move(e), sink);
        }
        const auto key = tasks_.new_key();
        asked& a = asked_[key];
        a.key = key;
        a.to = &n;
        a.of = std::move(e.ticket);
        a.task = {*n.id, e.request_id, e.content->size(), 0, now.system, false, e.wants_reply};
        ++n.share.posting_tasks;
        n.share.posting_bytes += a.task.bytes;
        ++posting_;
        task_record record;
        record.id = a.id = tasks_.new_id();
        record.urgent = e.urgent;
        record.request_id = std::move(e.request_id);
        record.wants_reply = e.wants_reply;
        record.content = std::move(e.content);
        record.accepted = now.system;
        record.expires = later(now.system, e.expires_after);
        record.reply_until = {};
        if (e.wants_reply) {
            record.reply_until =
                e.reply_within ? later(now.system, *e.reply_within) : std::chrono::system_clock::time_point::max();
        }
        by_id_.emplace(a.id, key);
        sink(effects::post_task{key, *n.id, std::move(record)});
        return key;
    }

    /// A task of this key was sent by a node, which is answered when it is posted.
    void is_forwarded(task_key key, reply_call&& call, node& from, std::uint64_t number) {
        asked& a = asked_.at(key);
        a.from = &from;
        a.number = number;
        a.answers.push_back(std::move(call));
        if (number != 0) forwarding_[{&from, number}] = key;
    }

    /// True where it came before: it was posted, or is being posted.
    template <class Sink>
    bool has_come(reply_call& call, node& from, std::uint64_t number, Sink& sink) {
        if (number != 0 && from.share.forwards && from.share.forwards->find(number)) {
            sink(effects::answer_reply<reply_call>{std::move(call), errc::ok, {}});
            return true;
        }
        const auto found = number != 0 ? forwarding_.find({&from, number}) : forwarding_.end();
        if (found == forwarding_.end()) return false;
        asked_.at(found->second).answers.push_back(std::move(call));
        return true;
    }

    static void remember(node& from, std::uint64_t number) {
        if (!from.share.forwards) from.share.forwards = std::make_unique<replies_seen>();
        from.share.forwards->remember(number, 0);
    }

    /// True where the operation was one on a task that is asked for here.
    template <class Sink>
    bool stored(events::store_done& e, Sink& sink) {
        asked* a = find(e.key);
        if (!a) return false;
        if (auto& content = e.status.content) {
            sink(effects::released<std::shared_ptr<const payload>>{std::move(content)});
        }
        const bool ok = e.status.code == errc::ok;
        if (a->at == stage::posting && ok) {
            accepted(*a, sink);
            if (a->unwanted) withdraw(*a, sink);
        } else if (!ok && a->at == stage::posting && a->from && e.status.code != errc::node_unknown) {
            answer(*a, e.status.code, e.status.text, sink);  // its node keeps it, and sends it again
            forget(*a);
        } else if (!ok) {
            end(*a, {kind_of(e.status.code), e.status.code, std::move(e.status.text), 0}, sink);
        } else if (a->at == stage::withdrawing) {
            a->at = stage::posted;
        }
        return true;
    }

    /// Its end will come, as that of any other one.
    template <class Sink>
    void withdraw(task_key key, Sink& sink) {
        asked* a = find(key);
        if (!a || std::exchange(a->unwanted, true) || a->at == stage::posting) return;
        withdraw(*a, sink);
    }

    /// The store has lost it.
    template <class Sink>
    void gone(std::uint64_t id, Sink& sink) {
        const auto found = by_id_.find(id);
        if (found == by_id_.end()) return;
        end(asked_.at(found->second),
            {outcome_kind::store_failed, errc::store_failed, "the store does not know the task any more", 0}, sink);
    }

    std::size_t open() const noexcept { return asked_.size(); }
    /// Of which it isn't known yet whether the store has them.
    std::size_t posting() const noexcept { return posting_; }

    /// Calls `take(id, pending_task)` for each.
    template <class Take>
    void for_each(Take&& take) const {
        for (const auto& [key, a] : asked_) take(a.id, a.task);
    }

    // --- what comes back -----------------------------------------------------------------------------------------------

    template <class Sink>
    void fetch(Sink& sink) {
        if (std::exchange(fetching_, true)) return void(fetch_again_ = true);
        fetch_again_ = false;
        sink(effects::fetch_ends{last_place_});
    }

    template <class Sink>
    void fetched(arrived_ends& came, instant now, Sink& sink) {
        fetching_ = false;
        knows_ends_ |= came.status.code == errc::ok;
        if (came.status.code != errc::ok) {
            sink(effects::warning{"the store can't tell what has become of tasks: " + came.status.text});
            fetch_at_ = later(now.steady, pause);
            return sink(effects::wake_at{fetch_at_});
        }
        for (auto& each : came.ends) {
            if (each.place <= last_place_) continue;
            last_place_ = each.place;
            arrived(each, sink);
        }
        load_next(sink);
        if (fetch_again_) fetch(sink);
    }

    template <class Sink>
    void time_passed(instant now, Sink& sink) {
        if (fetch_at_ <= now.steady) {
            fetch_at_ = time_point::max();
            fetch(sink);
        }
        if (load_at_ <= now.steady) {
            load_at_ = time_point::max();
            for (const auto key : std::exchange(to_load_again_, {})) to_load_[0].push_back(key);
            load_next(sink);
        }
        if (const auto next = std::min(fetch_at_, load_at_); next != time_point::max()) sink(effects::wake_at{next});
    }

    /// Has been told what came for an earlier life of this server.
    bool knows_ends() const noexcept { return knows_ends_; }

    /// The handler may be called from now on.
    template <class Sink>
    void serve(Sink& sink) {
        may_load_ = true;
        load_next(sink);
    }

    /// Those that nobody waits for are left to the server that starts next, or to another one.
    void leave_unclaimed() noexcept { may_load_ = false; }

    /// A reply is there, or can't be had.
    template <class Sink>
    void loaded(events::reply_loaded<reply>&& e, instant now, Sink& sink) {
        const auto found = came_.find(e.key);
        if (found == came_.end() || found->second.loaded) return;
        arrival& in = found->second;
        in.loaded = true;
        --loading_[in.of.has_value()];
        if (!e.may_be_had_later) sink(effects::released<std::shared_ptr<const payload>>{std::move(in.encoded)});
        const bool is_wanted = in.of && (in.wants_reply || in.how.kind == outcome_kind::replied);
        if (!e.reply) {
            sink(effects::warning{"node " + in.node + ": a reply that was kept can't be read: " + e.text});
            in.how = {outcome_kind::store_failed, errc::store_failed, std::move(e.text), in.how.attempts};
            tell(in, std::nullopt, 0, sink);
            e.may_be_had_later ? load_later(found, now, sink) : done(found, sink);
        } else if (is_wanted) {
            in.how.kind = outcome_kind::replied;
            tell(in, std::move(e.reply), e.key, sink);
            ++with_handlers_[1];
        } else {
            tell(in, std::nullopt, 0, sink);
            in.of.reset();
            ++with_handlers_[0];
            sink(effects::unclaimed_reply<reply>{in.node, in.request_id, *std::exchange(e.reply, {}), e.key});
        }
        load_next(sink);
    }

    /// Whoever was given the reply has returned.
    template <class Sink>
    void handled(task_key key, Sink& sink) {
        const auto found = came_.find(key);
        if (found == came_.end() || !found->second.loaded) return;
        --with_handlers_[found->second.of.has_value()];
        done(found, sink);
        load_next(sink);
    }

    /// Replies that have come for somebody who has not been told.
    std::size_t awaited_to_load() const noexcept { return loading_[1] + to_load_[1].size(); }

    /// Replies with somebody who has not returned.
    std::size_t with_handlers() const noexcept { return with_handlers_[0] + with_handlers_[1]; }

    /// Reports all that is left as stopped. The store keeps the tasks, and the replies that were not handled to their end.
    template <class Sink>
    void abandon(Sink& sink) {
        may_load_ = false;
        fetch_at_ = load_at_ = time_point::max();
        to_load_again_.clear();
        const std::string text = "the server was stopped first";
        while (!asked_.empty()) {
            asked& a = asked_.begin()->second;
            answer(a, errc::stopped, text, sink);
            end(a, {outcome_kind::stopped, errc::stopped, text, 0}, sink);
        }
        for (auto each = came_.begin(); each != came_.end();) {
            arrival& in = each->second;
            if (in.encoded) sink(effects::released<std::shared_ptr<const payload>>{std::move(in.encoded)});
            if (in.loaded) {  // somebody has it, and may return yet
                ++each;
                continue;
            }
            in.how = {outcome_kind::stopped, errc::stopped, text, in.how.attempts};
            tell(in, std::nullopt, 0, sink);
            each = came_.erase(each);
        }
        loading_ = {};
        kept_.clear();
        to_load_ = {};
    }

private:
    static constexpr std::chrono::milliseconds pause{1000};
    static constexpr std::size_t most_loading = 4;

    enum class stage { posting, posted, withdrawing };
    struct asked {
        task_key key = 0;
        std::uint64_t id = 0;
        node* to = nullptr;
        ticket of{};
        pending_task task;
        stage at = stage::posting;
        bool unwanted = false;
        node* from = nullptr;             // that has sent it, where that is a node
        std::uint64_t number = 0;         // by which it is known again
        std::vector<reply_call> answers;  // to that node, when it is posted
    };
    /// A reply that has come. `of` is whose it is; none where nobody waits for it.
    struct arrival {
        std::uint64_t place;
        std::string node, request_id;
        std::shared_ptr<const payload> encoded;
        outcome how;
        std::optional<ticket> of;
        bool wants_reply = false;
        bool loaded = false;
    };
    using arrivals = std::unordered_map<task_key, arrival>;

    asked* find(task_key key) {
        const auto found = asked_.find(key);
        return found == asked_.end() ? nullptr : &found->second;
    }

    static outcome_kind kind_of(errc reason) noexcept {
        switch (reason) {
            case errc::queue_full: return outcome_kind::queue_full;
            case errc::node_unknown: return outcome_kind::node_unknown;
            case errc::too_large: return outcome_kind::too_large;
            default: return outcome_kind::store_failed;
        }
    }

    template <class Sink>
    void accepted(asked& a, Sink& sink) {
        is_posted(a);
        answer(a, errc::ok, {}, sink);
        sink(effects::accepted<ticket>{a.of});
    }

    void is_posted(asked& a) noexcept {
        if (a.at != stage::posting) return;
        a.at = stage::posted;
        --a.to->share.posting_tasks;
        a.to->share.posting_bytes -= a.task.bytes;
        --posting_;
    }

    template <class Sink>
    void withdraw(asked& a, Sink& sink) {
        a.at = stage::withdrawing;
        sink(effects::withdraw_posted{a.key, *a.to->id, a.id});
    }

    /// Tells the node that has sent it.
    template <class Sink>
    void answer(asked& a, errc reason, const std::string& text, Sink& sink) {
        if (!a.from) return;
        if (reason == errc::ok) remember(*a.from, a.number);
        forwarding_.erase({a.from, a.number});
        for (auto& each : std::exchange(a.answers, {})) {
            sink(effects::answer_reply<reply_call>{std::move(each), reason, text});
        }
    }

    template <class Sink>
    void end(asked& a, outcome&& how, Sink& sink) {
        answer(a, errc::ok, {}, sink);
        sink(effects::ended<ticket, reply>{std::move(a.of), std::move(how), std::nullopt, *a.to->id});
        forget(a);
    }

    void forget(asked& a) {
        is_posted(a);
        by_id_.erase(a.id);
        asked_.erase(task_key{a.key});
    }

    template <class Sink>
    void arrived(arrived_end& e, Sink& sink) {
        const auto found = e.id != 0 ? by_id_.find(e.id) : by_id_.end();
        asked* const a = found == by_id_.end() ? nullptr : &asked_.at(found->second);
        if (a && a->at == stage::posting) accepted(*a, sink);  // what the store says of it comes later
        auto& [how, request_id, encoded, number] = e.end;
        if (encoded) return keep(e, a, sink);
        if (a && how.kind == outcome_kind::replied) {
            how = {outcome_kind::store_failed, errc::store_failed, "its reply was one that had come before",
                   how.attempts};
        }
        if (a && a->task.wants_reply && how.kind == outcome_kind::taken) {
            how.text =
                "it joined a task without a reply that was taken just then; what the node replies goes to the handler";
        }
        if (a && how) sink(effects::progressed<ticket>{a->of, a->task.bytes});
        if (a) end(*a, std::move(how), sink);
        sink(effects::acknowledge_end{e.place});
    }

    template <class Sink>
    void keep(arrived_end& e, asked* a, Sink& sink) {
        const auto key = a ? a->key : tasks_.new_key();
        arrival in{
            e.place, std::move(e.node), std::move(e.end.request_id), std::move(e.end.reply), std::move(e.end.how), {}};
        if (a) {
            sink(effects::progressed<ticket>{a->of, a->task.bytes});
            in.of = std::move(a->of);
            in.wants_reply = a->task.wants_reply;
            forget(*a);
        }
        to_load_[in.of.has_value()].push_back(key);
        if (!in.of && !in.request_id.empty()) kept_.emplace(std::pair{in.node, in.request_id}, key);
        came_.emplace(key, std::move(in));
    }

    /// That waits for the handler, or 0.
    task_key kept_reply(const std::string& node, const std::string& request_id) const {
        const auto found = kept_.find({node, request_id});
        return found == kept_.end() ? 0 : found->second;
    }
    template <class Sink>
    task_key give_kept(task_key key, events::submitted<ticket>&& e, Sink& sink) {
        arrival& in = came_.at(key);
        kept_.erase({in.node, in.request_id});
        in.of = std::move(e.ticket);
        in.wants_reply = true;
        std::erase(to_load_[0], key);
        to_load_[1].push_back(key);
        sink(effects::released<std::shared_ptr<const payload>>{std::move(e.content)});
        load_next(sink);
        return key;
    }

    /// Some at a time, so that not all is in memory at once. Those that nobody waits for count until they were handled.
    template <class Sink>
    void load_next(Sink& sink) {
        const std::array busy{loading_[0] + with_handlers_[0], loading_[1]};
        for (std::size_t is_awaited = 0; is_awaited < 2; ++is_awaited) {
            auto& waiting = to_load_[is_awaited];
            for (auto n = busy[is_awaited]; n < most_loading && !waiting.empty(); ++n) {
                if (is_awaited == 0 && !may_load_) break;
                const auto key = waiting.front();
                waiting.pop_front();
                arrival& in = came_.at(key);
                if (const auto kept = kept_.find({in.node, in.request_id});
                    kept != kept_.end() && kept->second == key) {
                    kept_.erase(kept);
                }
                ++loading_[is_awaited];
                sink(effects::load_reply{key, in.node, in.encoded});
            }
        }
    }

    /// Tells who waits for it, if there is somebody.
    template <class Sink>
    void tell(arrival& in, std::optional<reply>&& content, task_key key, Sink& sink) {
        if (!in.of) return;
        sink(effects::ended<ticket, reply>{std::move(*in.of), in.how, std::move(content), in.node, key});
    }

    /// The store has failed; its sender was told so. For the handler it is tried again.
    template <class Sink>
    void load_later(typename arrivals::iterator which, instant now, Sink& sink) {
        arrival& in = which->second;
        in.of.reset();
        in.loaded = false;
        in.how = {outcome_kind::replied, errc::ok, {}, in.how.attempts};
        to_load_again_.push_back(which->first);
        load_at_ = later(now.steady, pause);
        sink(effects::wake_at{load_at_});
    }

    template <class Sink>
    void done(typename arrivals::iterator which, Sink& sink) {
        sink(effects::acknowledge_end{which->second.place});
        came_.erase(which);
    }

    dispatch_tasks<Types>& tasks_;
    std::unordered_map<task_key, asked> asked_;
    std::unordered_map<std::uint64_t, task_key> by_id_;
    std::map<std::pair<node*, std::uint64_t>, task_key> forwarding_;
    std::size_t posting_ = 0;
    arrivals came_;  // replies
    std::map<std::pair<std::string, std::string>, task_key>
        kept_;  // of those that wait for the handler, by node and request
    // Of replies that nobody waits for, and of those that somebody does.
    std::array<std::deque<task_key>, 2> to_load_;
    std::array<std::size_t, 2> loading_{}, with_handlers_{};
    std::uint64_t last_place_ = 0;
    bool knows_ends_ = false;
    bool may_load_ = false;
    bool fetching_ = false;
    bool fetch_again_ = false;
    std::vector<task_key> to_load_again_;
    time_point fetch_at_ = time_point::max(), load_at_ = time_point::max();
};

}  // namespace ferry::detail
