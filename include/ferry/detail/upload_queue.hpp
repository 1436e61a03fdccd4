// layer 3
// The uploads of the node's core: two lanes, one for uploads of one chunk and one for the others, so that small ones never
// wait behind bulk. Each lane starts in the order of submission; one that failed keeps its place, but is passed by while it
// pauses. To a server with streams the smallest go over the stream, and the others can go on where they broke off.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/detail/held_tasks.hpp>
#include <ferry/detail/pacing.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/intake_events.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>
#include <ferry/retry.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Types>
class upload_queue {
public:
    using ticket = typename Types::ticket;
    using retry = typename Types::retry;
    using cutter = chunk_cutter<Types::chunk_size::value>;

    upload_queue(const intake_limits& limits, retry& policy, jitter& random, std::uint64_t& last_id,
                 held_tasks<Types>& tasks)
        : limits_(limits), retry_(policy), random_(random), last_id_(last_id), tasks_(tasks), numbers_(random.bits()) {
        lanes_[0].limit = limits.max_small_uploads;
        lanes_[1].limit = limits.max_bulk_uploads;
    }

    bool empty() const noexcept { return uploads_.empty(); }
    std::size_t size() const noexcept { return uploads_.size(); }
    std::uint64_t bytes() const noexcept { return bytes_; }
    gate& held() noexcept { return held_; }

    /// What the server can do is known: by `stream`, or 0 where it has none.
    void way_known(std::uint64_t stream) {
        way_known_ = true;
        stream_ = stream;
    }

    /// The stream, and with it what went over it, is lost; or nothing is known of the server any more.
    template <class Sink>
    void way_lost(steady_time now, Sink& sink) {
        way_known_ = false;
        if (std::exchange(stream_, 0) == 0) return;
        std::vector<upload*> over_stream;
        for (auto& [id, u] : moving_) {
            if (u->on_stream) over_stream.push_back(u);
        }
        std::sort(over_stream.begin(), over_stream.end(), [](auto* a, auto* b) { return a->key < b->key; });
        for (upload* u : over_stream) {
            halt(*u);
            failed(*u, errc::connection_failed, "the stream was lost", now, sink);
        }
    }

    /// The link works again; perhaps what troubled the server has passed.
    void link_came_up() {
        held_.open();
        for (auto& [key, u] : uploads_) {
            if (u.troubles == 0 || u.id != 0) continue;
            u.not_before = steady_time::min();
            u.in->ready.insert(key);
        }
    }

    template <class Sink>
    upload_key submit(intake_events::reply_submitted<ticket> e, steady_time now, Sink& sink) {
        const auto refuse = [&](outcome_kind kind, errc reason, std::string text) {
            sink(intake_effects::ended<ticket>{
                std::move(e.ticket), {kind, reason, std::move(text), 0}, e.number, std::move(e.content)});
            return upload_key{0};
        };
        const auto size = e.content->size();
        if (size > limits_.max_payload_bytes || !cutter::fits(size)) {
            return refuse(outcome_kind::too_large, errc::too_large,
                          "a payload of " + std::to_string(size) +
                              " bytes is beyond the node's limits.max_payload_bytes, " +
                              std::to_string(limits_.max_payload_bytes));
        }
        if (uploads_.size() >= limits_.max_queued_uploads || bytes_ + size > limits_.max_queued_bytes) {
            return refuse(outcome_kind::queue_full, errc::queue_full,
                          "the queue of replies is full: " + std::to_string(uploads_.size()) + " replies, " +
                              std::to_string(bytes_) + " bytes");
        }
        const upload_key key = ++last_id_;
        upload& u = uploads_.try_emplace(key, cutter(size)).first->second;
        u.key = key;
        u.number = e.number != 0 ? e.number : numbers_.next_id();
        u.task = e.task;
        u.in = &lanes_[cutter::count(size) == 1 ? 0 : 1];
        u.content = std::move(e.content);
        u.accepted = now;
        u.expires = after(now, e.expires_after);
        u.of = std::move(e.ticket);
        u.label = std::move(e.label);
        u.in->ready.insert(key);
        bytes_ += size;
        arm(u, u.expires);
        return key;
    }

    template <class Sink>
    void accepted(const intake_events::upload_accepted& e, steady_time now, Sink& sink) {
        upload* u = moving(e.upload_id);
        if (!u) return;
        u->last_progress = now;
        u->sent = e.offset <= u->content->size() ? e.offset : 0;
        u->chunks = cutter(u->content->size(), u->sent);
        send_next(*u, sink);
    }

    template <class Sink>
    void answered(const frames::answer& what, steady_time now, Sink& sink) {
        for (const auto& [id, u] : moving_) {
            if (u->on_stream && u->number == what.reply) return ended({id, what.reason, what.text}, now, sink);
        }
    }

    template <class Sink>
    void range_sent(std::uint64_t id, steady_time now, Sink& sink) {
        upload* u = moving(id);
        if (!u) return;
        u->last_progress = now;
        u->sent += u->part.length;
        sink(intake_effects::progressed<ticket>{u->of, u->sent});
        if (!u->chunks.done()) send_next(*u, sink);
    }

    template <class Sink>
    void ended(intake_events::upload_ended e, steady_time now, Sink& sink) {
        upload* u = moving(e.upload_id);
        if (!u) return;
        if (e.reason == errc::ok && !u->on_stream && !u->chunks.done()) {
            e.reason = errc::unconfirmed;
            e.text = "the server answered before it had the whole reply";
        }
        halt(*u);
        if (e.reason != errc::ok) return failed(*u, e.reason, std::move(e.text), now, sink);
        held_.works();
        end(*u, outcome_kind::taken, errc::ok, {}, sink);
    }

    template <class Sink>
    void withdraw(upload_key key, Sink& sink) {
        const auto found = uploads_.find(key);
        if (found == uploads_.end()) return;
        cancel(found->second, sink);
        end(found->second, outcome_kind::cancelled, errc::cancelled, "it was withdrawn", sink);
    }

    template <class Sink>
    void stop(Sink& sink) {
        while (!uploads_.empty()) {
            upload& u = uploads_.begin()->second;
            cancel(u, sink);
            end(u, outcome_kind::stopped, errc::stopped, "the node was stopped first", sink);
        }
    }

    template <class Sink>
    void time_passed(steady_time now, Sink& sink) {
        while (!timers_.empty() && timers_.begin()->first <= now) {
            upload& u = uploads_.at(timers_.begin()->second);
            timers_.erase(timers_.begin());
            u.wake = steady_time::max();
            look_after(u, now, sink);
        }
    }

    /// Starts what may start.
    template <class Sink>
    void pump(steady_time now, Sink& sink) {
        if (!held_.is_open(now) || !way_known_) return;
        for (lane& each : lanes_) {
            while (each.moving < each.limit && !each.ready.empty()) {
                upload& u = uploads_.at(*each.ready.begin());
                u.expires < now ? expire(u, sink) : start(u, now, sink);
            }
        }
    }

    steady_time next_wake(steady_time now) const noexcept {
        const auto timer = timers_.empty() ? steady_time::max() : timers_.begin()->first;
        const bool ready = !lanes_[0].ready.empty() || !lanes_[1].ready.empty();
        return ready && way_known_ && !held_.is_open(now) ? std::min(timer, held_.until()) : timer;
    }

private:
    static constexpr int troubles_to_tell = 3;  // which take some seconds

    struct lane {
        std::size_t limit = 1;
        std::size_t moving = 0;
        std::set<upload_key> ready;  // those that wait for nothing but their turn
    };

    struct upload {
        explicit upload(cutter all) : chunks(all) {}

        upload_key key = 0;
        std::uint64_t id = 0;  // of the attempt under way
        std::uint64_t number = 0;
        std::uint64_t task = 0;
        bool on_stream = false;
        lane* in = nullptr;
        ticket of{};
        std::string label;
        std::shared_ptr<const payload> content;
        cutter chunks;
        chunk part{};
        std::uint64_t sent = 0;
        int attempts = 0;
        int troubles = 0;
        steady_time accepted, expires, last_progress;
        steady_time not_before = steady_time::min();
        steady_time wake = steady_time::max();
    };

    upload* moving(std::uint64_t id) {
        const auto found = moving_.find(id);
        return found == moving_.end() ? nullptr : found->second;
    }

    void arm(upload& u, steady_time when) {
        if (when >= u.wake) return;
        if (u.wake != steady_time::max()) timers_.erase({u.wake, u.key});
        u.wake = when;
        timers_.insert({when, u.key});
    }

    template <class Sink>
    void look_after(upload& u, steady_time now, Sink& sink) {
        if (u.id != 0) {
            const auto idle = after(u.last_progress, limits_.idle_limit);
            if (now < idle) return arm(u, idle);
            cancel(u, sink);
            // A server that knows uploads by their numbers may have no room for this one, and not read on for a while.
            if (stream_ != 0 && !u.on_stream) return pause(u, "the upload stood still", now, sink);
            return failed(u, errc::idle_timeout, "the upload stood still", now, sink);
        }
        if (u.expires <= now) return expire(u, sink);
        if (u.not_before <= now) u.in->ready.insert(u.key);
        arm(u, u.not_before > now ? std::min(u.not_before, u.expires) : u.expires);
    }

    template <class Sink>
    void start(upload& u, steady_time now, Sink& sink) {
        u.in->ready.erase(u.key);
        ++u.in->moving;
        u.id = ++last_id_;
        moving_.emplace(u.id, &u);
        ++u.attempts;
        u.sent = 0;
        u.chunks = cutter(u.content->size());
        u.last_progress = now;
        arm(u, after(now, limits_.idle_limit));
        u.on_stream = stream_ != 0 && u.content->size() <= frames::max_reply_bytes && u.content->in_memory();
        const bool can_go_on = stream_ != 0 && !u.on_stream;
        sink(intake_effects::open_upload{u.id, u.number, !u.on_stream, can_go_on, u.label, u.content->size(),
                                         u.attempts, now - u.accepted});
        if (u.on_stream) {
            sink(intake_effects::send_reply{stream_, u.number, u.content, tasks_.receipt_goes(u.task) ? u.task : 0});
        } else if (!can_go_on) {
            send_next(u, sink);
        }
    }

    template <class Sink>
    void send_next(upload& u, Sink& sink) {
        u.part = u.chunks.next();
        sink(intake_effects::send_range{u.id, u.content, u.part});
    }

    /// The attempt is over.
    void halt(upload& u) {
        moving_.erase(std::exchange(u.id, 0));
        --u.in->moving;
    }

    template <class Sink>
    void cancel(upload& u, Sink& sink) {
        if (u.id == 0) return;
        if (!u.on_stream) sink(intake_effects::cancel_upload{u.id});
        halt(u);
    }

    template <class Sink>
    void failed(upload& u, errc reason, std::string text, steady_time now, Sink& sink) {
        u.not_before = now;
        if (link_failure(reason)) {
            --u.attempts;
            held_.lost(limits_.reconnect, random_, now);
            return look_after(u, now, sink);
        }
        if (server_trouble(reason)) return pause(u, text, now, sink);
        held_.works();
        if (permanent_failure(reason)) {
            const auto kind = reason == errc::not_permitted ? outcome_kind::not_permitted
                              : reason == errc::too_large   ? outcome_kind::too_large
                                                            : outcome_kind::refused;
            return end(u, kind, reason, std::move(text), sink);
        }
        const auto resend_after = ask(retry_, {u.attempts, now - u.accepted, reason}, text);
        if (!resend_after) return end(u, outcome_kind::retries_exhausted, reason, std::move(text), sink);
        if (resend_after->count() > 0) u.not_before = after(now, *resend_after);
        look_after(u, now, sink);
    }

    /// Costs this one its place, and no other anything.
    template <class Sink>
    void pause(upload& u, const std::string& why, steady_time now, Sink& sink) {
        --u.attempts;
        u.not_before = now + random_.part_of(limits_.reconnect, ++u.troubles);
        if (u.troubles == troubles_to_tell) {
            sink(intake_effects::warning{"a reply is not taken, and is sent again until it is too old: " + why});
        }
        look_after(u, now, sink);
    }

    template <class Sink>
    void expire(upload& u, Sink& sink) {
        end(u, outcome_kind::expired, errc::expired, "it waited for too long", sink);
    }

    template <class Sink>
    void end(upload& u, outcome_kind kind, errc reason, std::string text, Sink& sink) {
        if (u.wake != steady_time::max()) timers_.erase({u.wake, u.key});
        u.in->ready.erase(u.key);
        bytes_ -= u.content->size();
        sink(intake_effects::ended<ticket>{
            std::move(u.of), {kind, reason, std::move(text), u.attempts}, u.number, std::move(u.content)});
        uploads_.erase(uploads_.find(u.key));
    }

    const intake_limits& limits_;
    retry& retry_;
    jitter& random_;
    std::uint64_t& last_id_;
    held_tasks<Types>& tasks_;
    std::map<upload_key, upload> uploads_;
    std::unordered_map<std::uint64_t, upload*> moving_;
    std::array<lane, 2> lanes_;                            // of small ones, of bulk
    std::set<std::pair<steady_time, upload_key>> timers_;  // not by address: runs with the same seed are the same
    std::uint64_t bytes_ = 0;
    gate held_;
    random_bits numbers_;
    bool way_known_ = false;
    std::uint64_t stream_ = 0;
};

}  // namespace ferry::detail
