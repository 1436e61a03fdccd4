#include <ferry/detail/alarm.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
using ferry::detail::alarm;

/// When the alarm rang.
class rings {
public:
    void note() {
        {
            const std::lock_guard lock(mutex_);
            times_.push_back(clock_type::now());
        }
        changed_.notify_all();
    }

    /// Waits for so many rings; the time of the last of them.
    clock_type::time_point wait_for(std::size_t number) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return times_.size() >= number; });
        return times_[number - 1];
    }

    std::size_t number() const {
        const std::lock_guard lock(mutex_);
        return times_.size();
    }

private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<clock_type::time_point> times_;
};

TEST(alarm, rings_once_and_not_before_its_time) {
    rings rung;
    alarm a([&] { rung.note(); });
    const auto when = clock_type::now() + 20ms;
    a.at(when);
    EXPECT_GE(rung.wait_for(1), when);
    const auto later = clock_type::now() + 20ms;
    a.at(later);
    EXPECT_GE(rung.wait_for(2), later);
    a.stop();
    EXPECT_EQ(rung.number(), 2U);
}

TEST(alarm, rings_at_once_for_a_time_that_has_passed) {
    rings rung;
    alarm a([&] { rung.note(); });
    a.at(clock_type::now() - 1h);
    rung.wait_for(1);
    a.at(clock_type::time_point::min());
    rung.wait_for(2);
}

TEST(alarm, an_earlier_time_takes_the_place_of_a_later_one) {
    rings rung;
    alarm a([&] { rung.note(); });
    a.at(clock_type::now() + 1h);
    const auto when = clock_type::now() + 10ms;
    a.at(when);
    EXPECT_GE(rung.wait_for(1), when);
}

TEST(alarm, a_later_time_does_not_put_an_earlier_one_off) {
    rings rung;
    alarm a([&] { rung.note(); });
    a.at(clock_type::now() + 10ms);
    a.at(clock_type::now() + 1h);
    a.at(clock_type::time_point::max());
    rung.wait_for(1);
}

TEST(alarm, a_later_time_is_taken_after_a_ring) {
    rings rung;
    alarm a([&] { rung.note(); });
    a.at(clock_type::now());
    const auto first = rung.wait_for(1);
    a.at(first + 10ms);
    EXPECT_GE(rung.wait_for(2), first + 10ms);
}

TEST(alarm, may_be_armed_from_its_ring) {
    rings rung;
    alarm* self = nullptr;
    std::promise<void> made;
    alarm a([&, ready = made.get_future().share()] {
        ready.wait();
        rung.note();
        if (rung.number() < 5) self->at(clock_type::now() + 1ms);
    });
    self = &a;
    made.set_value();
    a.at(clock_type::now());
    rung.wait_for(5);
    a.stop();
    EXPECT_EQ(rung.number(), 5U);
}

TEST(alarm, what_is_asked_for_during_a_ring_is_not_lost) {
    rings rung;
    std::promise<void> inside, go_on;
    alarm a([&] {
        if (rung.number() == 0) {
            inside.set_value();
            go_on.get_future().wait();
        }
        rung.note();
    });
    a.at(clock_type::now());
    inside.get_future().wait();
    a.at(clock_type::now());
    go_on.set_value();
    rung.wait_for(2);
}

TEST(alarm, stop_does_not_wait_for_the_time) {
    rings rung;
    alarm a([&] { rung.note(); });
    a.at(clock_type::now() + 1h);
    a.stop();
    a.stop();
    EXPECT_EQ(rung.number(), 0U);
}

TEST(alarm, stops_though_it_was_never_armed) {
    alarm a([] { FAIL() << "nobody asked for a ring"; });
}

TEST(alarm, does_not_ring_after_stop) {
    rings rung;
    alarm a([&] { rung.note(); });
    a.stop();
    a.at(clock_type::now() - 1s);
    EXPECT_EQ(rung.number(), 0U);
}

TEST(alarm, stop_waits_for_a_ring_under_way) {
    std::promise<void> inside;
    std::atomic<bool> stopping{false};
    bool ended = false;  // not atomic: stop has to order it
    alarm a([&] {
        inside.set_value();
        while (!stopping) std::this_thread::yield();
        ended = true;
    });
    a.at(clock_type::now());
    inside.get_future().wait();
    std::jthread lets_go([&] { stopping = true; });
    a.stop();
    EXPECT_TRUE(ended);
}

TEST(alarm, may_be_stopped_from_its_ring) {
    rings rung;
    alarm* self = nullptr;
    std::promise<void> made;
    alarm a([&, ready = made.get_future().share()] {
        ready.wait();
        self->stop();
        self->at(clock_type::now());
        rung.note();
    });
    self = &a;
    made.set_value();
    a.at(clock_type::now());
    rung.wait_for(1);
    a.stop();
    EXPECT_EQ(rung.number(), 1U);
}

TEST(alarm, many_threads_may_arm_it) {
    constexpr int threads = 4, times = 200;
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<clock_type::time_point> latest;  // rung at or after it: all are served
    alarm a([&] {
        {
            const std::lock_guard lock(mutex);
            latest = clock_type::now();
        }
        changed.notify_all();
    });
    std::vector<std::jthread> all;
    for (int t = 0; t < threads; ++t) {
        all.emplace_back([&] {
            for (int i = 0; i < times; ++i) {
                const auto asked = clock_type::now();
                a.at(asked + std::chrono::microseconds(i % 50));
                std::unique_lock lock(mutex);
                changed.wait(lock, [&] { return latest && *latest >= asked; });
            }
        });
    }
}

TEST(alarms, have_one_thread) {
    for (int round = 0; round < 3; ++round) {
        std::mutex mutex;
        std::set<std::thread::id> seen;
        std::vector<rings> rung(20);
        std::vector<std::unique_ptr<alarm>> all;
        for (auto& each : rung) {
            all.push_back(std::make_unique<alarm>([&] {
                {
                    const std::lock_guard lock(mutex);
                    seen.insert(std::this_thread::get_id());
                }
                each.note();
            }));
        }
        const auto when = clock_type::now() + 5ms;
        const auto time_of = [&](std::size_t i) { return when + std::chrono::microseconds(i * 7919 % 1000); };
        for (std::size_t i = 0; i < all.size(); ++i) all[i]->at(time_of(i));
        for (std::size_t i = 0; i < all.size(); ++i) EXPECT_GE(rung[i].wait_for(1), time_of(i));
        all.clear();
        EXPECT_EQ(seen.size(), 1U);
    }
}

TEST(alarms, ring_each_at_its_own_time) {
    rings soon, late, never;
    alarm a([&] { late.note(); }), b([&] { soon.note(); }), c([&] { never.note(); });
    const auto now = clock_type::now();
    a.at(now + 30ms);
    c.at(now + 1h);
    b.at(now + 10ms);
    const auto first = soon.wait_for(1);
    EXPECT_GE(first, now + 10ms);
    EXPECT_GE(late.wait_for(1), now + 30ms);
    EXPECT_EQ(soon.number(), 1U);
    EXPECT_EQ(never.number(), 0U);
}

TEST(alarms, stop_without_waiting_for_the_ring_of_another) {
    std::promise<void> inside, go_on;
    alarm rings([&] {
        inside.set_value();
        go_on.get_future().wait();
    });
    auto other = std::make_optional<alarm>([] { FAIL() << "nobody asked for a ring"; });
    rings.at(clock_type::now());
    inside.get_future().wait();
    other->at(clock_type::now() + 1h);
    other->stop();
    other.reset();
    go_on.set_value();
}

TEST(alarms, may_end_in_the_ring_of_another) {
    rings rung;
    auto other = std::make_optional<alarm>([] {});
    alarm a([&] {
        other.reset();
        rung.note();
    });
    a.at(clock_type::now());
    rung.wait_for(1);
    a.at(clock_type::now());
    rung.wait_for(2);
}

}  // namespace
