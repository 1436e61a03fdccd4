// A retry policy says when a task whose delivery failed is sent again, and when it is given up.
// It only decides: it keeps no timer, and sees neither stores nor sockets.
#pragma once

#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/policy.hpp>

#include <chrono>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <exception>
#include <optional>
#include <random>
#include <string>

namespace ferry {

/// A delivery that has just failed.
struct failed_attempt {
    int attempts;                             ///< deliveries begun so far, this one included; at least 1
    std::chrono::steady_clock::duration age;  ///< since the task was accepted
    errc reason;                              ///< why this one failed
};

/// What the concepts ask for, one by one.
namespace provides {

template <class P>
concept next = requires(P& p, const failed_attempt& failed) {
    { p.next(failed) } -> std::same_as<std::optional<std::chrono::milliseconds>>;
};

}  // namespace provides

/// Decides after each failed delivery of a task.
///
/// | expression       | meaning                                                                  |
/// |------------------|--------------------------------------------------------------------------|
/// | `p.next(failed)` | the pause before the next delivery, or nothing where the task is given up |
///
/// Called once a failure, on whichever thread runs the core, under its lock: it must not block, and two calls never
/// overlap. It should not throw: the task is given up then. A negative pause counts as none, and none is longer than 100 years.
/// A client copies it for each researcher, for its replies and its feedback: what it knows is in the object, shared with no copy
/// and no thread, and copies decide alike.
///
/// The core asks only where there is something to decide: after a stream that broke, stood still, was superseded or whose
/// source failed, where a poll came near its deadline, and where the node never showed that it has the task. What can't be
/// encoded, is too large, not permitted, withdrawn, or refused by the server as it is, has ended before; and a node that has
/// lost its link, or whose upload a server of ferry doesn't read, tries again by itself.
template <class P>
concept retry_policy = policy_of<P, retry_tag> && provides::next<P>;

/// Whether the same delivery, repeated unchanged, may come through: false where the reason lies in the message, in the
/// rights of the peer or in how ferry was set up, or where someone has ended the task on purpose.
constexpr bool may_succeed_later(errc reason) noexcept {
    switch (reason) {
        case errc::connection_failed:
        case errc::node_unknown:
        case errc::node_disconnected:
        case errc::superseded:
        case errc::stream_broken:
        case errc::unconfirmed:
        case errc::idle_timeout:
        case errc::deadline_exceeded:
        case errc::queue_full:
        case errc::store_failed:
        case errc::source_failed:
        case errc::refused_for_now:
        case errc::lease_lost:
        case errc::checksum_differs:
        case errc::spool_failed:
        case errc::stopped: return true;
        case errc::ok:
        case errc::not_started:
        case errc::invalid_argument:
        case errc::bind_failed:
        case errc::bad_credentials:
        case errc::bad_chunk:
        case errc::too_large:
        case errc::encode_failed:
        case errc::decode_failed:
        case errc::not_permitted:
        case errc::ownership_lost:
        case errc::expired:
        case errc::refused:
        case errc::cancelled:
        case errc::protocol_error: return false;
    }
    return false;
}

namespace detail {

/// What a policy says. One that throws gives up, and `text` says so.
template <class Retry>
std::optional<std::chrono::milliseconds> ask(Retry& policy, const failed_attempt& what, std::string& text) {
    try {
        return policy.next(what);
    } catch (const std::exception& e) {
        text += " (and the retry policy threw: " + std::string(e.what()) + ")";
    } catch (...) {
        text += " (and the retry policy threw)";
    }
    return std::nullopt;
}

}  // namespace detail

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
        const auto whole_seconds = std::chrono::duration_cast<std::chrono::seconds>(failed.age);
        if (failed.attempts > max_resends || whole_seconds >= max_age) return std::nullopt;
        return std::chrono::milliseconds{0};
    }
};

/// Sends again after a random pause, evenly from none to the whole of a growing one ("full jitter"): what failed together
/// doesn't come back together. Gives up at once what can't succeed (see `may_succeed_later`), and else where the bounds
/// say so. By default that is after ten resends, 40 s of pauses on average; an age is no bound then, since only a node
/// that has come back uses up an attempt, and a task that is queued for too long expires anyway.
class exponential_backoff {
public:
    using policy_category = retry_tag;

    /// Pauses of up to 100 ms at first, twice as much each time, and 30 s in the end.
    exponential_backoff() : exponential_backoff({std::chrono::milliseconds{100}, 2, std::chrono::seconds{30}}) {}

    /// With pauses that differ from one object to the next; throws as below.
    explicit exponential_backoff(growing_pause pause, bounded_retry bounds = {10, std::chrono::seconds::max()})
        : exponential_backoff(pause, bounds, std::random_device{}()) {}

    /// With pauses that are the same for a seed; copies go on alike. Throws `error{invalid_argument}` where the base is
    /// negative, the factor is no number or below 1, or the cap is below the base.
    exponential_backoff(growing_pause pause, bounded_retry bounds, std::uint64_t seed)
        : pause_(pause), bounds_(bounds), random_(seed) {
        const auto refuse = [](const std::string& what) {
            throw error(errc::invalid_argument, "exponential_backoff: " + what);
        };
        if (pause.base.count() < 0) refuse("the base must not be negative");
        if (!(pause.factor >= 1)) refuse("the factor must be at least 1");
        if (pause.cap < pause.base) refuse("the cap must not be below the base");
    }

    std::optional<std::chrono::milliseconds> next(const failed_attempt& failed) noexcept {
        if (!may_succeed_later(failed.reason) || !bounds_.next(failed)) return std::nullopt;
        const double choices = std::floor(pause_.after(failed.attempts).count()) + 1;  // none to all, by milliseconds
        return std::chrono::milliseconds{static_cast<std::int64_t>(choices * random_.next())};
    }

private:
    growing_pause pause_;
    bounded_retry bounds_;
    detail::random_part random_;
};

}  // namespace ferry
