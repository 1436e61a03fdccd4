// Virtual time and chance for the simulator: what is to happen, in order, and dice that fall the same way for a seed.
#pragma once

#include <ferry/dispatch_events.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <random>
#include <utility>
#include <vector>

namespace ferry_test {

class dice {
public:
    using duration = std::chrono::steady_clock::duration;

    explicit dice(std::uint64_t seed) : random_(seed) {}

    std::uint64_t bits() { return random_(); }
    int below(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
    int between(int least, int most) { return least + below(most - least + 1); }
    bool chance(double p) { return static_cast<double>(random_() >> 11) * 0x1p-53 < p; }
    duration between(duration least, duration most) {
        return least +
               duration(static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>((most - least).count() + 1)));
    }

private:
    std::mt19937_64 random_;
};

/// What is to happen at which time. What is due at the same time happens in the order in which it was put in.
class agenda {
public:
    using time_point = std::chrono::steady_clock::time_point;
    using duration = std::chrono::steady_clock::duration;

    ferry::instant now{time_point(std::chrono::hours(1000)),
                       std::chrono::system_clock::time_point(std::chrono::hours(500'000))};

    void at(time_point when, std::function<void()> what) {
        entries_.push_back({std::max(when, now.steady), ++last_, std::move(what)});
        std::push_heap(entries_.begin(), entries_.end(), later);
    }
    void after(duration pause, std::function<void()> what) { at(now.steady + pause, std::move(what)); }

    bool empty() const noexcept { return entries_.empty(); }
    std::uint64_t happened() const noexcept { return happened_; }

    /// Lets the next thing happen, where it is due by then; else the time is then, and this is false.
    bool next(time_point until) {
        if (entries_.empty() || entries_.front().when > until) {
            go_to(until);
            return false;
        }
        std::pop_heap(entries_.begin(), entries_.end(), later);
        const entry due = std::move(entries_.back());
        entries_.pop_back();
        go_to(due.when);
        ++happened_;
        due.what();
        return true;
    }

private:
    struct entry {
        time_point when;
        std::uint64_t number;
        std::function<void()> what;
    };

    static bool later(const entry& a, const entry& b) {
        return a.when != b.when ? a.when > b.when : a.number > b.number;
    }

    void go_to(time_point when) {
        if (when <= now.steady) return;
        now.system += std::chrono::duration_cast<std::chrono::system_clock::duration>(when - now.steady);
        now.steady = when;
    }

    std::vector<entry> entries_;
    std::uint64_t last_ = 0;
    std::uint64_t happened_ = 0;
};

}  // namespace ferry_test
