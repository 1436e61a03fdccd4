// layer 3
// What the parts of the node's core share: how long to pause, and which failures are worth a pause at all.
#pragma once

#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/retry.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace ferry::detail {

using steady_time = std::chrono::steady_clock::time_point;

/// Saturates, so that a limit may be as large as its type allows.
inline steady_time after(steady_time from, std::chrono::milliseconds pause) noexcept {
    const auto most = std::chrono::duration_cast<std::chrono::milliseconds>(steady_time::max() - from);
    return pause >= most ? steady_time::max() : from + pause;
}

/// Pauses that differ from node to node and are the same for a seed.
class jitter {
public:
    using duration = std::chrono::steady_clock::duration;

    explicit jitter(std::uint64_t seed) noexcept : seed_(seed), random_(seed) {}

    /// The seed of something else that should differ from node to node.
    std::uint64_t bits() const noexcept { return ~seed_; }

    /// Between the half and the whole.
    duration part_of(std::chrono::duration<double, std::milli> whole) noexcept {
        return std::chrono::duration_cast<duration>(whole * (0.5 + 0.5 * random_.next()));
    }

    duration part_of(const growing_pause& pause, int failures) noexcept { return part_of(pause.after(failures)); }

private:
    std::uint64_t seed_;
    random_part random_;
};

/// Keeps one kind of call back after a lost link.
class gate {
public:
    /// A call failed on the link. One call after another may report the same loss: it counts once.
    void lost(const growing_pause& pause, jitter& random, steady_time now) noexcept {
        if (is_open(now)) until_ = now + random.part_of(pause, ++failures_);
    }

    void close_until(steady_time when) noexcept { until_ = std::max(until_, when); }
    void open() noexcept { until_ = steady_time::min(); }
    void works() noexcept { failures_ = 0; }
    bool is_open(steady_time now) const noexcept { return now >= until_; }
    steady_time until() const noexcept { return until_; }

private:
    steady_time until_ = steady_time::min();
    int failures_ = 0;
};

/// The link failed, not the content: what was sent is sent again, and the failure doesn't count.
constexpr bool link_failure(errc reason) noexcept {
    return reason == errc::connection_failed || reason == errc::stopped;
}

/// The server can't deal with it for now, or with nothing of its kind: one that does not know the node has been started
/// again, and will know it by its next poll; one that chokes on it will choke again.
constexpr bool server_trouble(errc reason) noexcept {
    return reason == errc::node_unknown || reason == errc::stream_broken;
}

/// The server would say the same again.
constexpr bool permanent_failure(errc reason) noexcept { return !may_succeed_later(reason); }

}  // namespace ferry::detail
