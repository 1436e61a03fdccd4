// layer 3
// The tasks of the node's core: those of which a part has come, those that wait or run in the two lanes, and what became
// of the last ones, by which one that comes again is known.
#pragma once

#include <ferry/frames.hpp>
#include <ferry/intake_events.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Types>
class held_tasks {
    using task = typename Types::task;

public:
    /// `number` is 0 for a task that a poll brought.
    struct waiting_task {
        task_key key;
        std::uint64_t number;
        std::uint64_t bytes;
        task work;
    };

    explicit held_tasks(const intake_limits& limits) : limits_(limits) {}

    // --- parts ---------------------------------------------------------------------------------------------------------

    void received(std::uint64_t number, std::uint64_t bytes) { parts_[number] = bytes; }
    bool has_part(std::uint64_t number) const { return parts_.contains(number); }

    template <class Sink>
    void forget_part(std::uint64_t number, Sink& sink) {
        if (parts_.erase(number) > 0) sink(intake_effects::forget_task{number});
    }

    template <class Sink>
    void forget_parts(Sink& sink) {
        for (const auto& [number, bytes] : std::exchange(parts_, {})) sink(intake_effects::forget_task{number});
    }

    // --- whole ones ----------------------------------------------------------------------------------------------------

    /// The receipt of a task that has been dealt with, or null.
    const frames::receipt* done(std::uint64_t number) const {
        const auto found = std::find_if(done_.rbegin(), done_.rend(), [&](const auto& r) { return r.task == number; });
        return found == done_.rend() ? nullptr : &*found;
    }

    void remember(frames::receipt of) {
        done_.push_back(std::move(of));
        if (done_.size() > 2 * limits_.max_waiting_tasks) done_.pop_front();
    }

    /// It waits or runs.
    bool is_ready(std::uint64_t number) const {
        return std::any_of(lanes_.begin(), lanes_.end(), [&](const lane& in) {
            return in.running_number() == number ||
                   std::any_of(in.waiting.begin(), in.waiting.end(), [&](const auto& w) { return w.number == number; });
        });
    }

    /// It was refused for now, which the server doesn't know yet.
    bool is_returning(std::uint64_t number) const {
        return std::any_of(lanes_.begin(), lanes_.end(), [&](const lane& in) { return in.returning == number; });
    }

    void arrived(bool urgent, waiting_task&& work) {
        parts_.erase(work.number);
        bytes_ += work.bytes;
        lanes_[urgent ? 0 : 1].waiting.push_back(std::move(work));
    }

    /// Runs what may run.
    template <class Sink>
    void pump(Sink& sink) {
        for (lane& in : lanes_) {
            if (in.running != 0 || in.returning != 0 || in.waiting.empty()) continue;
            waiting_task& next = in.waiting.front();
            in.running = next.key;
            in.number = next.number;
            in.bytes = next.bytes;
            auto work = std::move(next.work);
            in.waiting.pop_front();
            sink(intake_effects::run_task<task>{in.running, std::move(work), &in == &lanes_[0]});
        }
    }

    /// A reply to the task goes over the stream. True where that tells that it is taken, as its callback will not have to.
    bool receipt_goes(std::uint64_t number) {
        for (lane& in : lanes_) {
            if (number != 0 && in.running_number() == number) return in.receipt_told = true;
        }
        return false;
    }

    /// What went over the stream may be lost with it.
    void receipts_lost() {
        for (lane& in : lanes_) in.receipt_told = false;
    }

    /// Returns the number of the task whose receipt is to be told, or 0; nothing waits for a key of 0. What was `not_now`
    /// takes the later ones of its lane with it: where the server is told so, once it has withdrawn them.
    template <class Sink>
    std::uint64_t returned(const intake_events::task_returned& e, bool is_told, Sink& sink) {
        for (lane& in : lanes_) {
            if (in.running == 0 || in.running != e.key) continue;
            in.running = 0;
            bytes_ -= in.bytes;
            const auto number = std::exchange(in.number, 0);
            const bool was_told = std::exchange(in.receipt_told, false);
            if (number == 0) return 0;
            sink(intake_effects::forget_task{number});
            if (e.what == frames::verdict::not_now) {
                is_told ? void(in.returning = number) : give_back(in, sink);
            } else {
                remember({number, e.what, e.text, e.pause});
            }
            return was_told && e.what == frames::verdict::taken ? 0 : number;
        }
        return 0;
    }

    /// It is refused for now before it is here: what follows it in its lane waits until the server has withdrawn that.
    void put_off(std::uint64_t number, bool urgent) {
        auto& before = lanes_[urgent ? 0 : 1].returning;
        if (before == 0) before = number;
    }

    template <class Sink>
    void withdrawn(std::uint64_t number, Sink& sink) {
        forget_part(number, sink);
        for (lane& in : lanes_) {
            if (in.running_number() == number) sink(intake_effects::stop_task{in.running});
            if (in.returning == number) in.returning = 0;
            const auto at = std::find_if(in.waiting.begin(), in.waiting.end(),
                                         [&](const auto& each) { return each.number == number; });
            if (at == in.waiting.end()) continue;
            bytes_ -= at->bytes;
            in.waiting.erase(at);
            sink(intake_effects::forget_task{number});
        }
    }

    /// Gives back what waits. Calls `each(number)` for the first of each lane: the later ones go with it. Their bytes are kept,
    /// for the node's next life.
    template <class Each>
    void give_back_waiting(Each&& each) {
        for (lane& in : lanes_) {
            const auto first =
                std::find_if(in.waiting.begin(), in.waiting.end(), [](const auto& w) { return w.number != 0; });
            if (first != in.waiting.end()) each(first->number);
            give_back(in, [](const auto&) {});
        }
    }

    /// The stream is over: it tells no more of what was to go back.
    template <class Sink>
    void end_returning(Sink& sink) {
        for (lane& in : lanes_) {
            if (std::exchange(in.returning, 0) != 0) give_back(in, sink);
        }
    }

    std::size_t drop_all() {
        std::size_t waiting = 0;
        for (lane& in : lanes_) {
            waiting += in.waiting.size();
            in = {};
        }
        return waiting;
    }

    // --- all of them ---------------------------------------------------------------------------------------------------

    frames::hello hello() const {
        frames::hello out;
        for (const lane& in : lanes_) {
            if (in.running_number() != 0) out.held.push_back({in.number, in.bytes, true});
            for (const auto& each : in.waiting) {
                if (each.number != 0) out.held.push_back({each.number, each.bytes, true});
            }
        }
        for (const auto& [number, bytes] : parts_) out.held.push_back({number, bytes, false});
        out.receipts.assign(done_.begin(), done_.end());
        out.window_tasks = static_cast<std::uint32_t>(std::max<std::size_t>(limits_.max_waiting_tasks, 1));
        out.window_bytes = limits_.max_waiting_bytes;
        return out;
    }

    /// Those whose leases are to be renewed.
    std::vector<std::uint64_t> leased() const {
        std::vector<std::uint64_t> out;
        for (const lane& in : lanes_) {
            if (in.running_number() != 0 && limits_.renew_leases) out.push_back(in.number);
            for (const auto& each : in.waiting) {
                if (each.number != 0) out.push_back(each.number);
            }
        }
        return out;
    }

    /// Of the task that runs under this key; or 0.
    std::uint64_t number_of(task_key key) const {
        for (const lane& in : lanes_) {
            if (in.running != 0 && in.running == key) return in.number;
        }
        return 0;
    }

    /// Waiting or running.
    std::size_t count() const noexcept {
        std::size_t all = 0;
        for (const lane& in : lanes_) all += in.waiting.size() + (in.running != 0 ? 1 : 0);
        return all;
    }
    std::size_t running() const noexcept {
        return static_cast<std::size_t>(
            std::count_if(lanes_.begin(), lanes_.end(), [](auto& in) { return in.running != 0; }));
    }
    std::uint64_t bytes() const noexcept { return bytes_; }

private:
    struct lane {
        std::deque<waiting_task> waiting;
        task_key running = 0;
        std::uint64_t number = 0, bytes = 0;  // of the one that runs
        bool receipt_told = false;            // by a reply of it
        std::uint64_t returning = 0;          // refused for now, and not yet withdrawn by the server

        std::uint64_t running_number() const noexcept { return running != 0 ? number : 0; }
    };

    template <class Sink>
    void give_back(lane& in, Sink&& sink) {
        std::erase_if(in.waiting, [&](const waiting_task& each) {
            if (each.number == 0) return false;
            bytes_ -= each.bytes;
            sink(intake_effects::forget_task{each.number});
            return true;
        });
    }

    const intake_limits& limits_;
    std::unordered_map<std::uint64_t, std::uint64_t> parts_;  // by number, the bytes received
    std::array<lane, 2> lanes_;                               // the urgent one, the usual one
    std::deque<frames::receipt> done_;
    std::uint64_t bytes_ = 0;
};

}  // namespace ferry::detail
