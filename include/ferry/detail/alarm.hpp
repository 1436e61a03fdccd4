// layer 3
// A thread that calls back at the earliest time it was asked for. The cores say when they want to be woken; this is
// the clock that wakes them.
#pragma once

#include <ferry/dispatch_events.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace ferry::detail {

/// The time of day is read anew each millisecond; between, it goes on with the steady clock, which halves the cost.
inline instant now() {
    using namespace std::chrono;
    static std::atomic<nanoseconds::rep> due{std::numeric_limits<nanoseconds::rep>::min()}, ahead{0};
    const auto steady = steady_clock::now();
    const auto since = duration_cast<nanoseconds>(steady.time_since_epoch());
    if (since.count() < due.load(std::memory_order_acquire)) {
        const nanoseconds offset(ahead.load(std::memory_order_relaxed));
        return {steady, system_clock::time_point(duration_cast<system_clock::duration>(since + offset))};
    }
    const auto system = system_clock::now();
    ahead.store((duration_cast<nanoseconds>(system.time_since_epoch()) - since).count(), std::memory_order_relaxed);
    due.store(since.count() + 1'000'000, std::memory_order_release);
    return {steady, system};
}

/// The thread of all alarms of a program, while there are any: a program with many nodes has one.
template <class Clock>
class basic_alarm_thread {
    using clock_point = typename Clock::time_point;
    struct due;
    using agenda = std::multimap<clock_point, due*>;

    struct due {
        std::function<void()> ring;
        typename agenda::iterator at;
        typename agenda::node_type parked;  // while it isn't on the agenda
        bool ringing = false;
        bool stopped = false;
    };

public:
    /// One alarm's place.
    class seat {
    public:
        explicit seat(std::function<void()> ring) {
            due_.ring = std::move(ring);
            agenda made;
            made.emplace(clock_point::max(), &due_);
            due_.parked = made.extract(made.begin());
            thread_ = take_one();
        }
        seat(const seat&) = delete;
        seat& operator=(const seat&) = delete;
        ~seat() {
            stop();
            if (due_.ringing) std::terminate();  // it is its own ring that destroys it
            thread_->leave();
        }

        void at(clock_point when) { thread_->at(due_, when); }
        void stop() { thread_->stop(due_); }

    private:
        std::shared_ptr<basic_alarm_thread> thread_;
        due due_;
    };

private:
    static std::shared_ptr<basic_alarm_thread> take_one() {
        static std::mutex mutex;
        static auto& known =
            *new std::weak_ptr<basic_alarm_thread>;  // also while objects of static storage are destroyed
        const std::lock_guard lock(mutex);
        auto one = known.lock();
        if (!one || !one->join()) {
            one = std::make_shared<basic_alarm_thread>();
            one->thread_ = std::thread([one] { one->run(); });
            one->join();
            known = one;
        }
        return one;
    }

    /// False where it is just ending.
    bool join() {
        const std::lock_guard lock(mutex_);
        if (over_) return false;
        ++seats_;
        return true;
    }

    void leave() {
        {
            const std::lock_guard lock(mutex_);
            if (--seats_ > 0) return;
            over_ = true;
            changed_.notify_one();
        }
        thread_.join();  // never from a ring, whose own seat is still taken
    }

    void at(due& of, clock_point when) {
        bool sooner = false;
        {
            const std::lock_guard lock(mutex_);
            if (of.stopped || when >= (of.parked ? clock_point::max() : of.at->first)) return;
            park(of);
            sooner = agenda_.empty() || when < agenda_.begin()->first;
            of.parked.key() = when;
            of.at = agenda_.insert(std::move(of.parked));
        }
        if (sooner) changed_.notify_one();
    }

    void stop(due& of) {
        std::unique_lock lock(mutex_);
        of.stopped = true;
        park(of);
        const bool inside = std::this_thread::get_id() == thread_.get_id();
        rung_.wait(lock, [&] { return inside || !of.ringing; });
    }

    void park(due& of) {
        if (!of.parked) of.parked = agenda_.extract(of.at);
    }

    void run() {
        std::unique_lock lock(mutex_);
        while (!over_) {
            if (agenda_.empty()) {
                changed_.wait(lock);
                continue;
            }
            const auto [when, first] = *agenda_.begin();
            if (Clock::now() < when) {
                changed_.wait_until(lock, when);
                continue;
            }
            park(*first);
            first->ringing = true;
            lock.unlock();
            first->ring();
            lock.lock();
            first->ringing = false;
            rung_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_, rung_;
    agenda agenda_;
    std::size_t seats_ = 0;
    bool over_ = false;
    std::thread thread_;
};

template <class Clock>
class basic_alarm {
public:
    using time_point = typename Clock::time_point;

    /// `ring` runs on the alarms' thread and may call `at`; it must not destroy its alarm, nor wait.
    explicit basic_alarm(std::function<void()> ring) : seat_(std::move(ring)) {}

    /// Rings at `when` at the latest; an earlier ring takes its place.
    void at(time_point when) { seat_.at(when); }

    /// No ring runs or starts after this, but for one that calls it.
    void stop() { seat_.stop(); }

private:
    typename basic_alarm_thread<Clock>::seat seat_;
};

using alarm = basic_alarm<std::chrono::steady_clock>;

}  // namespace ferry::detail
