// The node's core for one link to a server: what is asked for, run and sent back. A pure state machine: events and the time
// go in, effects come out through a sink. No threads, sockets, clock or I/O, and no lock: its owner calls it one step at a
// time. The server's counterpart is `dispatch.hpp`.
//
//   link:     pausing -> stream -> ended                 a server that knows of no streams is polled instead:
//             pausing -> parked -> carrying -> ended     the next goes over the same connection where it ended well, which
//                ^______________________________|        tells the server that its task has come over; else over a new one
//   task:     part -> waiting -> running -> done         one at a time in each of two lanes, in order
//   upload:   waiting -> moving -> ended                 one lane for those of one chunk, one for the others
//                ^__________|                            a lost link doesn't count; else as the retry policy says
//   feedback: waiting -> under way -> gone               one at a time, in order, in nobody's way
//
// What a stream says is in proto/ferry/researcher.proto.
#pragma once

#include <ferry/detail/feedback_queue.hpp>
#include <ferry/detail/held_tasks.hpp>
#include <ferry/detail/pacing.hpp>
#include <ferry/detail/upload_queue.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/intake_events.hpp>
#include <ferry/outcome.hpp>
#include <ferry/retry.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

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
        : limits_(limits), retry_(std::move(policy)), random_(seed), polls_(!limits.streams) {}
    intake(const intake&) = delete;
    intake& operator=(const intake&) = delete;

    template <class Sink>
    void step(intake_events::started, instant now, Sink&& sink) {
        started_ = true;
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::task_found& e, instant, Sink&&) {
        tasks_.received(e.number, e.received);
    }

    template <class Sink>
    void step(const intake_events::task_done_before& e, instant, Sink&&) {
        tasks_.remember({e.number});
    }

    template <class Sink>
    void step(const intake_events::poll_sent& e, instant now, Sink&&) {
        if (is_open(e.poll_id)) poll_.sent = now.steady;
    }

    // --- over a stream -------------------------------------------------------------------------------------------------

    template <class Sink>
    void step(const intake_events::stream_welcomed& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        poll_.welcomed = true;
        poll_.lease = e.what.lease;
        renew_ = renewal(now.steady);
        uploads_.way_known(poll_.id);
        alive(sink);
        for (auto& each : std::exchange(poll_.untold, {})) {
            sink(intake_effects::tell_receipt{poll_.id, std::move(each)});
        }
        if (stopping_) leave(sink);
        go_on(now, sink);
    }

    /// Returns whether the bytes are wanted.
    template <class Sink>
    bool step(const intake_events::delivery_began& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id) || !is_wanted(e.head.task, e.head.attempt, sink)) return false;
        tasks_.received(e.head.task, e.head.offset);
        poll_.moving.insert(e.head.task);
        poll_.last_progress = now.steady;
        go_on(now, sink);
        return true;
    }

    template <class Sink>
    void step(const intake_events::delivery_progress& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id) || !poll_.moving.contains(e.number)) return;
        tasks_.received(e.number, e.received);
        poll_.last_progress = now.steady;
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::delivery_damaged& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        tasks_.forget_part(e.number, sink);
        sink(intake_effects::cancel_poll{poll_.id});
        end_poll(poll_end::corrupt, e.text, now.steady, sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::delivery_put_off& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        poll_.moving.erase(e.number);
        tasks_.forget_part(e.number, sink);
        tasks_.put_off(e.number, e.urgent);
        sink(intake_effects::warning{"a task can't be taken in for now: " + e.text});
        const frames::receipt later{e.number, frames::verdict::not_now, e.text, limits_.refused_pause};
        sink(intake_effects::tell_receipt{poll_.id, later});
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::delivery_refused& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        poll_.moving.erase(e.number);
        tasks_.forget_part(e.number, sink);
        const frames::receipt refusal{e.number, frames::verdict::refused, e.text};
        tasks_.remember(refusal);
        sink(intake_effects::tell_receipt{poll_.id, refusal});
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::task_withdrawn& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        poll_.moving.erase(e.number);
        tasks_.withdrawn(e.number, sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(const intake_events::reply_answered& e, instant now, Sink&& sink) {
        if (!is_open(e.poll_id)) return;
        uploads_.answered(e.what, now.steady, sink);
        go_on(now, sink);
    }

    template <class Sink>
    void step(intake_events::task_in_progress e, instant, Sink&& sink) {
        const auto number = tasks_.number_of(e.key);
        if (number != 0 && poll_.welcomed) sink(intake_effects::renew_leases{poll_.id, {number}});
    }

    // --- over a poll ---------------------------------------------------------------------------------------------------

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
        poll_.last_progress = now.steady;
        if (poll_.stream) {
            poll_.moving.erase(e.number);
            if (!is_wanted(e.number, e.attempt, sink)) return;
        } else {
            poll_.carrying = poll_.whole = true;
        }
        tasks_.arrived(e.urgent, {++last_id_, e.number, e.size_bytes, std::move(e.task)});
        if (tasks_.count() == 1) renew_ = renewal(now.steady);
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
        const auto number = tasks_.returned(e, poll_.stream, sink);
        if (number != 0 && poll_.stream) tell({number, e.what, std::move(e.text), e.pause}, sink);
        go_on(now, sink);
    }

    /// Returns the upload's key, or 0 where it has ended already.
    template <class Sink>
    upload_key step(intake_events::reply_submitted<ticket> e, instant now, Sink&& sink) {
        if (drained_) {
            sink(intake_effects::ended<ticket>{std::move(e.ticket),
                                               {outcome_kind::stopped, errc::stopped, "the node has stopped", 0},
                                               e.number,
                                               std::move(e.content)});
            return 0;
        }
        const auto key = uploads_.submit(std::move(e), now.steady, sink);
        go_on(now, sink);
        return key;
    }

    template <class Sink>
    void step(const intake_events::upload_accepted& e, instant now, Sink&& sink) {
        uploads_.accepted(e, now.steady, sink);
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
        if (const auto size = e.content->size(); size > frames::max_feedback_bytes) return feedback_.refuse(size, sink);
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
        if (is_carrying() && now.steady >= idle_after(poll_.last_progress)) {
            sink(intake_effects::cancel_poll{poll_.id});
            end_poll(poll_end::unreachable, "the task stood still on its way", now.steady, sink);
        }
        feedback_.time_passed(now.steady, sink);
        uploads_.time_passed(now.steady, sink);
        announced_ = time_point::max();
        go_on(now, sink);
    }

    /// No new tasks. What a poll carries may finish, and what it brought still runs; what a stream brought is given back unless
    /// it runs. Uploads and feedback go on, also new ones, until `drained` tells that nothing is left.
    template <class Sink>
    void step(intake_events::stop_requested, instant now, Sink&& sink) {
        if (!started_) return step(intake_events::stop_forced{}, now, sink);
        if (std::exchange(stopping_, true)) return;
        if (poll_.welcomed) {
            leave(sink);
        } else {
            tasks_.give_back_waiting([](std::uint64_t) {});
            if (!poll_.carrying) cancel_poll(now.steady, sink);
        }
        go_on(now, sink);
    }

    /// Ends all that is left, and is `drained` at once: a callback that runs is not waited for.
    template <class Sink>
    void step(intake_events::stop_forced, instant now, Sink&& sink) {
        stopping_ = true;
        cancel_poll(now.steady, sink);
        drop_tasks(sink);
        uploads_.stop(sink);
        feedback_.stop(sink);
        set_link(false, sink);
        go_on(now, sink);
    }

    bool connected() const noexcept { return connected_; }

    /// Nothing is under way or queued but tasks.
    bool quiet_but_for_tasks() const noexcept {
        return (poll_.id == 0 || poll_.stream) && uploads_.empty() && feedback_.empty();
    }

    /// Tasks that wait or run.
    std::size_t open_tasks() const noexcept { return tasks_.count(); }

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
        bool stream = false;
        bool welcomed = false;
        bool closing = false;
        std::chrono::milliseconds lease{};
        std::set<std::uint64_t> moving{};       // the tasks that come over the stream just now
        std::vector<frames::receipt> untold{};  // what became of tasks since the hello named them
    };

    time_point idle_after(time_point last_progress) const noexcept {
        return detail::after(last_progress, limits_.idle_limit);
    }

    // --- the link ------------------------------------------------------------------------------------------------------

    bool is_open(std::uint64_t poll_id) const noexcept { return poll_id != 0 && poll_id == poll_.id; }

    bool wants_poll() const noexcept {
        if (!started_ || stopping_ || poll_.id != 0) return false;
        const auto held = open_tasks();
        return !polls_ || held == 0 || (held < limits_.max_waiting_tasks && tasks_.bytes() < limits_.max_waiting_bytes);
    }

    bool is_carrying() const noexcept { return poll_.carrying || !poll_.moving.empty(); }

    /// Of a task that comes (again) over the stream. One that is done is answered anew.
    template <class Sink>
    bool is_wanted(std::uint64_t number, int attempt, Sink& sink) {
        if (stopping_) return false;
        if (attempt <= 1) return true;
        if (tasks_.is_ready(number) || tasks_.is_returning(number)) return false;
        const auto* done = tasks_.done(number);
        if (done) sink(intake_effects::tell_receipt{poll_.id, *done});
        return !done;
    }

    /// Over the stream, as soon as the server listens.
    template <class Sink>
    void tell(frames::receipt&& what, Sink& sink) {
        if (!poll_.welcomed) return poll_.untold.push_back(std::move(what));
        const bool may_wait = what.what == frames::verdict::taken && tasks_.count() > 0;
        sink(intake_effects::tell_receipt{poll_.id, std::move(what), may_wait});
    }

    /// Takes nothing more from the stream; it is closed when what runs is done.
    template <class Sink>
    void leave(Sink& sink) {
        sink(intake_effects::tell_leaving{poll_.id});
        tasks_.give_back_waiting([&](std::uint64_t number) {
            sink(intake_effects::tell_receipt{poll_.id, {number, frames::verdict::given_back}});
        });
        poll_.moving.clear();
    }

    time_point renewal(time_point now) const noexcept {
        return poll_.lease.count() > 0 ? detail::after(now, poll_.lease / 3) : time_point::max();
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
    void cancel_poll(time_point now, Sink& sink) {
        if (poll_.id != 0) sink(intake_effects::cancel_poll{poll_.id});
        const bool was_stream = poll_.stream;
        poll_ = {};
        if (was_stream) stream_lost(now, sink);
    }

    template <class Sink>
    void stream_lost(time_point now, Sink& sink) {
        tasks_.end_returning(sink);
        tasks_.receipts_lost();
        uploads_.way_lost(now, sink);
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
        if (gone.stream) stream_lost(now, sink);
        if (how == poll_end::unknown) {  // at once: nothing is wrong with the server
            polls_ = true;
            tasks_.forget_parts(sink);
            uploads_.way_known(0);
            return;
        }
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
            case poll_end::unknown: return;
            case poll_end::refused:
                tell_once("the server refuses this node for now: " + text, sink);
                resume_ += random_.part_of(limits_.refused_pause);
                break;
        }
        old_connection_ = true;
        ask_anew();
        if (how == poll_end::refused) uploads_.way_known(0);  // each upload hears for itself what is wrong
        set_link(false, sink);
        uploads_.held().close_until(resume_);
        feedback_.held().close_until(resume_);
    }

    /// The next connection may lead to another server.
    void ask_anew() { polls_ = !limits_.streams; }

    template <class Sink>
    void drop_tasks(Sink& sink) {
        const auto waiting = tasks_.drop_all();
        if (waiting == 0) return;
        sink(intake_effects::warning{std::to_string(waiting) + " tasks were received and not run: the node stops"});
    }

    // --- what can be done now ------------------------------------------------------------------------------------------

    template <class Sink>
    void go_on(instant now, Sink& sink) {
        tasks_.pump(sink);
        if (wants_connection() && now.steady >= resume_) {
            if (std::exchange(old_connection_, false)) sink(intake_effects::reconnect{failures_ > 0});
            if (wants_poll()) {
                poll_ = {.id = ++last_id_, .opened = now.steady, .last_progress = now.steady, .stream = !polls_};
                if (poll_.stream) {
                    sink(intake_effects::open_stream{poll_.id, tasks_.hello()});
                } else {
                    uploads_.way_known(0);
                    sink(intake_effects::open_poll{poll_.id});
                }
            }
        }
        if (stopping_ && poll_.id == 0) uploads_.way_known(0);  // no stream will come any more
        if (started_) {
            feedback_.pump(now.steady, sink);
            uploads_.pump(now.steady, sink);
        }
        if (poll_.welcomed && now.steady >= renew_) {
            renew_ = renewal(now.steady);
            if (auto held = tasks_.leased(); !held.empty()) {
                sink(intake_effects::renew_leases{poll_.id, std::move(held)});
            }
        }
        const bool done = stopping_ && open_tasks() == 0 && quiet_but_for_tasks();
        if (done && poll_.id != 0 && !std::exchange(poll_.closing, true)) sink(intake_effects::close_stream{poll_.id});
        if (done && poll_.id == 0 && !drained_) {
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
        if (is_carrying()) when = std::min(when, idle_after(poll_.last_progress));
        if (poll_.welcomed && open_tasks() > 0) when = std::min(when, renew_);
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

    bool polls_;                            // the server knows of no streams
    time_point renew_ = time_point::max();  // when the leases are renewed next
    detail::held_tasks<Types> tasks_{limits_};
    detail::upload_queue<Types> uploads_{limits_, retry_, random_, last_id_, tasks_};
    detail::feedback_queue<Types> feedback_{limits_, retry_, random_, last_id_};
};

}  // namespace ferry
