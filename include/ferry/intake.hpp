// The node's core for one link to a server: what is asked for, run and sent back. A pure state machine: events and the time
// go in, effects come out through a sink. No threads, sockets, clock or I/O, and no lock: its owner calls it one step at a
// time. The server's counterpart is `dispatch.hpp`.
//
//   poll:     pausing -> parked -> carrying -> ended     the next goes over the same connection where it ended well, which
//                ^______________________________|        tells the server that its task has come over; else over a new one
//   task:     waiting -> running -> gone                 one at a time, in order
//   upload:   waiting -> moving -> ended                 one lane for those of one chunk, one for the others
//                ^__________|                            a lost link doesn't count; else as the retry policy says
//   feedback: waiting -> under way -> gone               one at a time, in order, in nobody's way
#pragma once

#include <ferry/detail/feedback_queue.hpp>
#include <ferry/detail/pacing.hpp>
#include <ferry/detail/upload_queue.hpp>
#include <ferry/error.hpp>
#include <ferry/intake_events.hpp>
#include <ferry/outcome.hpp>
#include <ferry/retry.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <utility>

namespace ferry {

/// The core. `Types` names what it only hands through: `task` (movable) and `ticket` (a sender's interest in an upload, or
/// nothing); and what it uses: `retry` and `chunk_size`.
///
/// `step(event, now, sink)` calls `sink(effect)` for each effect, in order. The sink must not call `step` before it has
/// returned. Effects hold references into the core where they hold a reference: use them before the step ends.
template <class Types>
class intake {
public:
    using task = typename Types::task;
    using ticket = typename Types::ticket;
    using retry = typename Types::retry;
    using time_point = std::chrono::steady_clock::time_point;

    /// Two cores with the same seed pause alike.
    explicit intake(intake_limits limits = {}, retry policy = {}, std::uint64_t seed = 0)
        : limits_(limits), retry_(std::move(policy)), random_(seed) {}
    intake(const intake&) = delete;
    intake& operator=(const intake&) = delete;

    template <class Sink>
    void step(intake_events::started, instant now, Sink&& sink) {
        started_ = true;
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::poll_sent& e, instant now, Sink&&) {
        if (is_open(e.poll_id)) poll_.sent = now.steady;
    }

    template <class Sink>
    void step(const intake_events::poll_accepted& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        alive(sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::poll_progress& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        poll_.carrying = true;
        poll_.last_progress = now.steady;
        alive(sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(intake_events::task_arrived<task> e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        poll_.carrying = poll_.whole = true;
        poll_.last_progress = now.steady;
        tasks_.push_back({++last_id_, e.size_bytes, std::move(e.task)});
        held_bytes_ += e.size_bytes;
        alive(sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(intake_events::poll_ended e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        if (e.end == poll_end::well && poll_.carrying && !poll_.whole) {
            e.end = poll_end::corrupt;
            e.text = "the poll ended before its task was whole";
        }
        end_poll(e.end, e.text, now.steady, sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(intake_events::task_returned e, instant now, Sink&& sink) {
        if (running_ == 0 || running_ != e.key) return;
        running_ = 0;
        held_bytes_ -= running_bytes_;
        go_on(now, sink);
    }

    /// Returns the upload's key, or 0 where it has ended already.
    template <class Sink>
    upload_key step(intake_events::reply_submitted<ticket> e, instant now, Sink&& sink) {
        if (drained_) {
            sink(intake_effects::ended<ticket>{std::move(e.ticket),
                                               {outcome_kind::stopped, errc::stopped, "the node has stopped", 0}});
            return 0;
        }
        const auto key = uploads_.submit(std::move(e), now.steady, sink);
        go_on(now, sink);
        return key;
    }

    template <class Sink>
    void step(const intake_events::upload_range_sent& e, instant now, Sink&& sink) {
        uploads_.range_sent(e.upload_id, now.steady, sink);
    }

    template <class Sink>
    void step(intake_events::upload_ended e, instant now, Sink&& sink) {
        uploads_.ended(std::move(e), now.steady, sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(intake_events::withdrawn e, instant now, Sink&& sink) {
        uploads_.withdraw(e.key, sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(intake_events::feedback_submitted e, instant now, Sink&& sink) {
        if (drained_) return feedback_.drop(feedback_.stopped_text, sink);
        feedback_.submit(std::move(e), now.steady);
        go_on(now, sink);
        feedback_.keep_bound(sink);
    }

    template <class Sink>
    void step(const intake_events::feedback_ended& e, instant now, Sink&& sink) {
        if (feedback_.ended(e, now.steady, sink)) go_on(now, sink);
    }

    template <class Sink>
    void step(intake_events::time_passed, instant now, Sink&& sink) {
        if (poll_.carrying && now.steady >= idle_after(poll_.last_progress)) {
            sink(intake_effects::cancel_poll{poll_.id});
            end_poll(poll_end::unreachable, "the task stood still on its way", now.steady, sink);
        }
        feedback_.time_passed(now.steady, sink);
        uploads_.time_passed(now.steady, sink);
        announced_ = time_point::max();
        go_on(now, sink);
    }

    /// No new polls. What is carried may finish, and what has come over still runs.
    /// Uploads and feedback go on, also new ones, until `drained` tells that nothing is left.
    template <class Sink>
    void step(intake_events::stop_requested, instant now, Sink&& sink) {
        if (!started_) return step(intake_events::stop_forced{}, now, sink);
        if (std::exchange(stopping_, true)) return;
        if (!poll_.carrying) cancel_poll(sink);
        go_on(now, sink);
    }

    /// Ends all that is left, and is `drained` at once: a callback that runs is not waited for.
    template <class Sink>
    void step(intake_events::stop_forced, instant now, Sink&& sink) {
        stopping_ = true;
        cancel_poll(sink);
        drop_tasks(sink);
        running_ = 0;
        uploads_.stop(sink);
        feedback_.stop(sink);
        set_link(false, sink);
        go_on(now, sink);
    }

    bool connected() const noexcept { return connected_; }

    /// Nothing is under way or queued but tasks.
    bool quiet_but_for_tasks() const noexcept { return poll_.id == 0 && uploads_.empty() && feedback_.empty(); }

    /// Tasks that wait or run.
    std::size_t open_tasks() const noexcept { return tasks_.size() + (running_ != 0 ? 1 : 0); }

    /// Uploads accepted and not yet ended.
    std::size_t open_uploads() const noexcept { return uploads_.size(); }

    /// Of the payloads of the open uploads.
    std::uint64_t open_upload_bytes() const noexcept { return uploads_.bytes(); }

    /// Feedback that was lost: beyond the bound, refused by the server, or left at the end.
    std::uint64_t dropped_feedback() const noexcept { return feedback_.dropped(); }

private:
    static constexpr std::size_t max_told = 8;

    struct poll {
        std::uint64_t id = 0;  // 0: none is open
        time_point opened;
        time_point last_progress;
        bool carrying = false;
        bool whole = false;
        time_point sent = time_point::max();  // when the server was reached by it
    };

    struct waiting_task {
        task_key key;
        std::uint64_t bytes;
        task work;
    };

    time_point idle_after(time_point last_progress) const noexcept {
        return detail::after(last_progress, limits_.idle_limit);
    }

    // --- the link ------------------------------------------------------------------------------------------------------

    bool is_open(std::uint64_t poll_id) const noexcept { return poll_id != 0 && poll_id == poll_.id; }

    bool wants_poll() const noexcept {
        if (!started_ || stopping_ || poll_.id != 0) return false;
        const auto held = open_tasks();
        return held == 0 || (held < limits_.max_waiting_tasks && held_bytes_ < limits_.max_waiting_bytes);
    }

    bool wants_connection() const noexcept {
        return wants_poll() || (started_ && old_connection_ && !(uploads_.empty() && feedback_.empty()));
    }

    template <class Sink>
    void set_link(bool connected, Sink& sink) {
        if (std::exchange(connected_, connected) == connected) return;
        if (connected) {
            uploads_.link_came_up();
            feedback_.held().open();
        }
        sink(intake_effects::link_changed{connected});
    }

    template <class Sink>
    void alive(Sink& sink) {
        failures_ = 0;
        told_.clear();
        set_link(true, sink);
    }

    /// The first failure may be but the server's restart, and a later one need someone to act: a changed certificate.
    template <class Sink>
    void tell_once(const std::string& text, Sink& sink) {
        if (told_.size() < max_told && told_.insert(text).second) sink(intake_effects::warning{text});
    }

    template <class Sink>
    void cancel_poll(Sink& sink) {
        if (poll_.id != 0) sink(intake_effects::cancel_poll{poll_.id});
        poll_ = {};
    }

    template <class Sink>
    void end_poll(poll_end how, const std::string& text, time_point now, Sink& sink) {
        const poll gone = std::exchange(poll_, {});
        const auto lasted = now - gone.opened;
        if (gone.whole || lasted >= limits_.empty_poll.cap) empty_polls_ = 0;
        const bool lived = gone.sent < now && now - gone.sent >= limits_.reconnect.base;
        if (lived) {  // a server need not answer a poll
            failures_ = 0;
            told_.clear();
        }
        resume_ = now;
        switch (how) {
            case poll_end::well:
                alive(sink);
                if (!gone.whole) resume_ += random_.part_of(limits_.empty_poll, ++empty_polls_);
                return;
            case poll_end::deadline:
                // A task may have been on its way just then: over the old connection the next poll would confirm it.
                old_connection_ = true;
                if (lasted < limits_.empty_poll.base) resume_ += random_.part_of(limits_.empty_poll, ++empty_polls_);
                return;
            case poll_end::unreachable:
                tell_once("the poll failed and is tried again: " + text, sink);
                resume_ += random_.part_of(limits_.reconnect, ++failures_);
                break;
            case poll_end::corrupt:
                sink(intake_effects::warning{"a task came over damaged and is asked for again: " + text});
                resume_ += random_.part_of(limits_.reconnect, ++failures_);
                break;
            case poll_end::refused:
                tell_once("the server refuses this node for now: " + text, sink);
                resume_ += random_.part_of(limits_.refused_pause);
                break;
        }
        old_connection_ = true;
        set_link(false, sink);
        uploads_.held().close_until(resume_);
        feedback_.held().close_until(resume_);
    }

    template <class Sink>
    void drop_tasks(Sink& sink) {
        if (tasks_.empty()) return;
        sink(intake_effects::warning{std::to_string(tasks_.size()) +
                                     " tasks were received and not run: the node stops"});
        tasks_.clear();
    }

    // --- what can be done now ------------------------------------------------------------------------------------------

    template <class Sink>
    void go_on(instant now, Sink& sink) {
        if (running_ == 0 && !tasks_.empty()) {
            auto next = std::move(tasks_.front());
            tasks_.pop_front();
            running_ = next.key;
            running_bytes_ = next.bytes;
            sink(intake_effects::run_task<task>{next.key, std::move(next.work)});
        }
        if (wants_connection() && now.steady >= resume_) {
            if (std::exchange(old_connection_, false)) sink(intake_effects::reconnect{failures_ > 0});
            if (wants_poll()) {
                poll_ = {.id = ++last_id_, .opened = now.steady, .last_progress = now.steady};
                sink(intake_effects::open_poll{poll_.id});
            }
        }
        if (started_) {
            feedback_.pump(now.steady, sink);
            uploads_.pump(now.steady, sink);
        }
        if (stopping_ && !drained_ && open_tasks() == 0 && quiet_but_for_tasks()) {
            drained_ = true;
            sink(intake_effects::drained{});
        }
        const auto when = next_wake(now.steady);
        if (when >= announced_) return;
        announced_ = when;
        sink(intake_effects::wake_at{when});
    }

    /// Only of deadlines that something will come of.
    time_point next_wake(time_point now) const noexcept {
        auto when = std::min(uploads_.next_wake(now), feedback_.next_wake(now));
        if (poll_.carrying) when = std::min(when, idle_after(poll_.last_progress));
        if (wants_connection()) when = std::min(when, resume_);
        return when;
    }

    intake_limits limits_;
    [[no_unique_address]] retry retry_;
    detail::jitter random_;
    std::uint64_t last_id_ = 0;
    bool started_ = false;
    bool stopping_ = false;
    bool drained_ = false;
    time_point announced_ = time_point::max();

    poll poll_;
    bool connected_ = false;
    bool old_connection_ = true;  // the next poll must not go over it
    int failures_ = 0;            // of polls, since the last sign of life
    std::set<std::string> told_;  // why, since then
    int empty_polls_ = 0;
    time_point resume_ = time_point::min();

    std::deque<waiting_task> tasks_;
    task_key running_ = 0;
    std::uint64_t running_bytes_ = 0;
    std::uint64_t held_bytes_ = 0;  // of the tasks that wait or run; of no interest once it stops

    detail::upload_queue<Types> uploads_{limits_, retry_, random_, last_id_};
    detail::feedback_queue<Types> feedback_{limits_, retry_, random_, last_id_};
};

}  // namespace ferry
