// How a delivery ended, as a value. Each delivery ends in exactly one outcome.
#pragma once

#include <ferry/error.hpp>

#include <string>
#include <string_view>

namespace ferry {

/// The ways in which a delivery can end.
enum class outcome_kind {
    taken,              ///< the node has it; `send` ends so
    replied,            ///< the node's reply is there; `request` ends so
    expired,            ///< it waited in the queue for longer than its age limit, or its reply for longer than allowed
    retries_exhausted,  ///< the retry policy gave it up; `reason` is the last failure
    node_unknown,       ///< no node of this id has ever polled
    node_disconnected,  ///< the node was DISCONNECTED when it was sent
    refused,            ///< the peer refused it
    queue_full,         ///< a bound on queued work was reached
    too_large,          ///< the payload is beyond a limit
    not_permitted,      ///< the peer may not do this
    encode_failed,      ///< the message could not be written; nothing was sent
    store_failed,       ///< the agent store failed
    cancelled,          ///< it was withdrawn by its sender
    stopped,            ///< the server or client was stopped first
};

/// The enumerator's name, for logs.
constexpr std::string_view to_string(outcome_kind kind) noexcept {
    switch (kind) {
        case outcome_kind::taken: return "taken";
        case outcome_kind::replied: return "replied";
        case outcome_kind::expired: return "expired";
        case outcome_kind::retries_exhausted: return "retries exhausted";
        case outcome_kind::node_unknown: return "node unknown";
        case outcome_kind::node_disconnected: return "node disconnected";
        case outcome_kind::refused: return "refused";
        case outcome_kind::queue_full: return "queue full";
        case outcome_kind::too_large: return "too large";
        case outcome_kind::not_permitted: return "not permitted";
        case outcome_kind::encode_failed: return "encode failed";
        case outcome_kind::store_failed: return "store failed";
        case outcome_kind::cancelled: return "cancelled";
        case outcome_kind::stopped: return "stopped";
    }
    return "unknown";
}

/// The end of a delivery.
struct outcome {
    outcome_kind kind = outcome_kind::taken;
    errc reason = errc::ok;  ///< why, where it did not end well
    std::string text;        ///< the same in words, with what to do
    int attempts = 0;        ///< deliveries begun

    /// True where the node has the task: taken or replied.
    explicit operator bool() const noexcept { return kind == outcome_kind::taken || kind == outcome_kind::replied; }
};

}  // namespace ferry
