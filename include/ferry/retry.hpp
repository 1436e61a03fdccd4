// A retry policy says when a task whose delivery failed is sent again, and when it is given up.
// It only decides: it keeps no timer, and sees neither stores nor sockets.
#pragma once

#include <ferry/error.hpp>
#include <ferry/policy.hpp>

#include <chrono>
#include <concepts>
#include <optional>

namespace ferry {

/// A delivery that has just failed.
struct failed_attempt {
    int attempts;                             ///< deliveries begun so far, this one included; at least 1
    std::chrono::steady_clock::duration age;  ///< since the task was accepted
    errc reason;                              ///< why this one failed
};

/// Decides after each failed delivery of a task.
///
/// | expression       | meaning                                                                  |
/// |------------------|--------------------------------------------------------------------------|
/// | `p.next(failed)` | the pause before the next delivery, or nothing where the task is given up |
///
/// Called once a failure, on whichever thread runs the core, under its lock: it must neither block nor throw, and two
/// calls never overlap. A negative pause counts as none.
template <class P>
concept retry_policy = policy_of<P, retry_tag> && requires(P& p, const failed_attempt& failed) {
    { p.next(failed) } -> std::same_as<std::optional<std::chrono::milliseconds>>;
};

/// Gives up at the first failure.
struct no_retry {
    using policy_category = retry_tag;

    std::optional<std::chrono::milliseconds> next(const failed_attempt&) const noexcept { return std::nullopt; }
};

/// Sends again at once, up to a number of resends and an age. The default, with the limits of Fed-BioMed's transport.
struct bounded_retry {
    using policy_category = retry_tag;

    int max_resends = 5;                ///< MAX_SEND_RETRIES
    std::chrono::seconds max_age{300};  ///< MAX_SEND_DURATION

    std::optional<std::chrono::milliseconds> next(const failed_attempt& failed) const noexcept {
        if (failed.attempts > max_resends || failed.age >= max_age) return std::nullopt;
        return std::chrono::milliseconds{0};
    }
};

}  // namespace ferry
