// layer 3
// One thread that calls back at the earliest time it was asked for. The cores say when they want to be woken; this is
// the clock that wakes them.
#pragma once

#include <ferry/dispatch_events.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <limits>
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

template <class Clock>
class basic_alarm {
public:
    using time_point = typename Clock::time_point;

    /// `ring` runs on the alarm's thread and may call `at`; it must not stop the alarm.
    explicit basic_alarm(std::function<void()> ring) : ring_(std::move(ring)), thread_([this] { run(); }) {}
    basic_alarm(const basic_alarm&) = delete;
    basic_alarm& operator=(const basic_alarm&) = delete;
    ~basic_alarm() { stop(); }

    /// Rings at `when` at the latest; an earlier ring takes its place.
    void at(time_point when) {
        const std::lock_guard lock(mutex_);
        if (when >= next_) return;
        next_ = when;
        changed_.notify_one();
    }

    /// No ring runs or starts after this.
    void stop() {
        {
            const std::lock_guard lock(mutex_);
            stopped_ = true;
            changed_.notify_one();
        }
        if (thread_.joinable()) thread_.join();
    }

private:
    void run() {
        std::unique_lock lock(mutex_);
        while (!stopped_) {
            if (next_ == time_point::max()) {
                changed_.wait(lock);
            } else if (Clock::now() < next_) {
                changed_.wait_until(lock, time_point(next_));
            } else {
                next_ = time_point::max();
                lock.unlock();
                ring_();
                lock.lock();
            }
        }
    }

    std::function<void()> ring_;
    std::mutex mutex_;
    std::condition_variable changed_;
    time_point next_ = time_point::max();
    bool stopped_ = false;
    std::thread thread_;
};

using alarm = basic_alarm<std::chrono::steady_clock>;

}  // namespace ferry::detail
