// layer 3
// When each of many nodes wants to be looked after, and which of these times the world above must be told.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>

namespace ferry::detail {

/// One time a node, the earliest that it was armed with; of those at the same time the one that was armed first. A `Node` has
/// `wake` and `wake_turn`, which are kept here.
template <class Node>
class wake_ups {
public:
    using time_point = std::chrono::steady_clock::time_point;

    void arm(Node& n, time_point when) {
        if (when >= n.wake) return;
        if (n.wake != time_point::max()) times_.erase({n.wake, n.wake_turn});
        n.wake = when;
        n.wake_turn = ++last_turn_;
        times_.emplace(std::pair(when, n.wake_turn), &n);
    }

    /// The next node whose time has come, or null.
    Node* take_due(time_point now) {
        if (times_.empty() || times_.begin()->first.first > now) return nullptr;
        Node* const n = times_.begin()->second;
        times_.erase(times_.begin());
        n->wake = time_point::max();
        return n;
    }

    /// The earliest time, where it has not been announced since the last `forget`.
    std::optional<time_point> announce() {
        if (times_.empty() || times_.begin()->first.first >= announced_) return std::nullopt;
        return announced_ = times_.begin()->first.first;
    }
    void forget() { announced_ = time_point::max(); }

private:
    std::map<std::pair<time_point, std::uint64_t>, Node*> times_;
    std::uint64_t last_turn_ = 0;
    time_point announced_ = time_point::max();
};

/// `time` and `pause` later, or the end of time where that is beyond it. A negative pause counts as none.
template <class Clock, class Rep, class Period>
std::chrono::time_point<Clock> later(std::chrono::time_point<Clock> time, std::chrono::duration<Rep, Period> pause) {
    using time_point = std::chrono::time_point<Clock>;
    const auto room = std::chrono::floor<std::chrono::milliseconds>(time_point::max() - std::max(time, time_point{}));
    if (pause.count() <= 0) return time;
    return std::chrono::floor<std::chrono::milliseconds>(pause) >= room ? time_point::max() : time + pause;
}

}  // namespace ferry::detail
