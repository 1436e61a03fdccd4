// layer 3
// Ends what takes too long: each of what is watched is given up once the limit has passed, unless it was let go of before.
#pragma once

#include <ferry/detail/wake_ups.hpp>

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

/// `wake_at(time)` is asked for a call of `time_passed` then. `Watched` has a `give_up()`. From any thread.
template <class Watched>
class time_limit {
public:
    using time_point = std::chrono::steady_clock::time_point;

    time_limit(std::chrono::milliseconds limit, std::function<void(time_point)> wake_at)
        : limit_(limit), wake_at_(std::move(wake_at)) {}

    /// The limit counts from now on, also where it did before.
    void watch(const std::shared_ptr<Watched>& what, time_point now) {
        const auto until = later(now, limit_);
        {
            const std::lock_guard lock(mutex_);
            forget(what.get());
            by_what_[what.get()] = watched_.insert(watched_.end(), {until, what});
        }
        wake_at_(until);
    }

    void let_go(const Watched* what) {
        const std::lock_guard lock(mutex_);
        forget(what);
    }

    void time_passed(time_point now) {
        std::vector<std::shared_ptr<Watched>> late;
        time_point next = time_point::max();
        {
            const std::lock_guard lock(mutex_);
            while (!watched_.empty() && watched_.front().until <= now) {
                auto what = watched_.front().what.lock();
                by_what_.erase(watched_.front().key);
                watched_.pop_front();
                if (what) late.push_back(std::move(what));
            }
            if (!watched_.empty()) next = watched_.front().until;
        }
        for (const auto& each : late) each->give_up();
        if (next != time_point::max()) wake_at_(next);
    }

private:
    struct watched {
        watched(time_point when, const std::shared_ptr<Watched>& of) : until(when), key(of.get()), what(of) {}

        time_point until;
        const Watched* key;
        std::weak_ptr<Watched> what;
    };

    void forget(const Watched* what) {
        const auto found = by_what_.find(what);
        if (found == by_what_.end()) return;
        watched_.erase(found->second);
        by_what_.erase(found);
    }

    const std::chrono::milliseconds limit_;
    const std::function<void(time_point)> wake_at_;
    std::mutex mutex_;
    std::list<watched> watched_;  // by their time
    std::unordered_map<const Watched*, typename std::list<watched>::iterator> by_what_;
};

}  // namespace ferry::detail
