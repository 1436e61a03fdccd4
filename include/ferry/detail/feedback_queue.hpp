// layer 3
// The feedback of the node's core: logs and metrics, one under way at a time, in order. Of too much, the oldest is dropped,
// and a warning tells of it once until there is room again.
#pragma once

#include <ferry/detail/pacing.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/intake_events.hpp>
#include <ferry/retry.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

namespace ferry::detail {

template <class Types>
class feedback_queue {
public:
    using retry = typename Types::retry;

    static inline const std::string overflow_text = "feedback is dropped: too much of it waits";
    static inline const std::string stopped_text = "feedback is dropped: the node was stopped first";

    feedback_queue(const intake_limits& limits, retry& policy, jitter& random, std::uint64_t& last_id)
        : limits_(limits), retry_(policy), random_(random), last_id_(last_id) {}

    bool empty() const noexcept { return waiting_.empty(); }
    std::uint64_t dropped() const noexcept { return dropped_; }
    gate& held() noexcept { return held_; }

    /// `keep_bound` is to follow, once what may start has been started: what is under way doesn't count.
    void submit(intake_events::feedback_submitted e, steady_time now) {
        bytes_ += e.content->size();
        waiting_.push_back({std::move(e.content), now});
    }

    template <class Sink>
    void keep_bound(Sink& sink) {
        const std::size_t under_way = id_ != 0 ? 1 : 0;
        const std::size_t sending = under_way ? waiting_.front().content->size() : 0;
        while (waiting_.size() > under_way &&
               (waiting_.size() - under_way > limits_.max_feedback || bytes_ - sending > limits_.max_feedback_bytes)) {
            take(waiting_.begin() + static_cast<std::ptrdiff_t>(under_way));
            drop(overflow_text, sink);
        }
    }

    /// A server would refuse it.
    template <class Sink>
    void refuse(std::size_t bytes, Sink& sink) {
        ++dropped_;
        sink(intake_effects::warning{"feedback is dropped: it has " + std::to_string(bytes) +
                                     " bytes, and a server takes " + std::to_string(frames::max_feedback_bytes) +
                                     ": split it"});
    }

    template <class Sink>
    void drop(const std::string& warning, Sink& sink) {
        ++dropped_;
        if (!std::exchange(overflowing_, true)) sink(intake_effects::warning{warning});
    }

    /// Returns whether it was the one under way.
    template <class Sink>
    bool ended(const intake_events::feedback_ended& e, steady_time now, Sink& sink) {
        if (id_ == 0 || id_ != e.feedback_id) return false;
        end(e.reason, e.text, now, sink);
        return true;
    }

    template <class Sink>
    void stop(Sink& sink) {
        if (id_ != 0) sink(intake_effects::cancel_feedback{std::exchange(id_, 0)});
        for (; !waiting_.empty(); take(waiting_.begin())) drop(stopped_text, sink);
    }

    template <class Sink>
    void time_passed(steady_time now, Sink& sink) {
        if (id_ == 0 || now < idle_after()) return;
        sink(intake_effects::cancel_feedback{id_});
        end(errc::idle_timeout, "no answer came", now, sink);
    }

    /// Starts the next one, where it may start.
    template <class Sink>
    void pump(steady_time now, Sink& sink) {
        if (waiting_.empty() || id_ != 0 || !held_.is_open(now)) return;
        id_ = ++last_id_;
        sent_ = now;
        ++waiting_.front().attempts;
        sink(intake_effects::send_feedback{id_, waiting_.front().content});
    }

    steady_time next_wake(steady_time now) const noexcept {
        if (id_ != 0) return idle_after();
        return !waiting_.empty() && !held_.is_open(now) ? held_.until() : steady_time::max();
    }

private:
    struct feedback {
        std::shared_ptr<const std::string> content;
        steady_time accepted;
        int attempts = 0;
    };

    void take(typename std::deque<feedback>::iterator which) {
        bytes_ -= which->content->size();
        waiting_.erase(which);
    }

    steady_time idle_after() const noexcept { return after(sent_, limits_.idle_limit); }

    template <class Sink>
    void end(errc reason, std::string text, steady_time now, Sink& sink) {
        id_ = 0;
        auto& sent = waiting_.front();
        if (link_failure(reason)) {
            --sent.attempts;
            return held_.lost(limits_.reconnect, random_, now);
        }
        if (reason != errc::ok && !permanent_failure(reason)) {
            const auto pause = ask(retry_, {sent.attempts, now - sent.accepted, reason}, text);
            if (pause) return held_.close_until(after(now, *pause));
        }
        held_.works();
        take(waiting_.begin());
        if (waiting_.size() <= limits_.max_feedback / 2 && bytes_ <= limits_.max_feedback_bytes / 2)
            overflowing_ = false;
        if (reason == errc::ok) return;
        ++dropped_;
        sink(intake_effects::warning{"feedback was dropped: " + std::string(to_string(reason)) + ": " + text});
    }

    const intake_limits& limits_;
    retry& retry_;
    jitter& random_;
    std::uint64_t& last_id_;
    std::deque<feedback> waiting_;  // the one under way is the first
    std::uint64_t bytes_ = 0;       // of them all
    std::uint64_t id_ = 0;          // of the attempt under way
    steady_time sent_;
    std::uint64_t dropped_ = 0;
    bool overflowing_ = false;
    gate held_;
};

}  // namespace ferry::detail
