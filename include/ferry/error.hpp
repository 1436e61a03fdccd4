// What can go wrong, as one enumeration, and the one exception that carries it.
// The mapping to gRPC's status codes lives with the wire, not here.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace ferry {

/// The reasons of ferry's failures. Misuse and set-up problems are thrown as `error`; the end of a delivery is a value. Stores
/// keep them as numbers: a new one goes last.
enum class errc {
    ok,                 ///< Nothing went wrong.
    not_started,        ///< The call needs a started server or client (the original's FB628).
    invalid_argument,   ///< An argument or option can't be used as it was given (the original's FB628).
    bind_failed,        ///< The address can't be listened on.
    bad_credentials,    ///< A key or certificate is missing, unreadable or doesn't fit.
    connection_failed,  ///< The peer can't be reached, or the TLS handshake with it failed.
    node_unknown,       ///< No node of this id has ever polled.
    node_disconnected,  ///< The node has not polled for longer than the disconnection timeout.
    superseded,         ///< A newer poll of the same node id took this one's place.
    stream_broken,      ///< The stream ended before all of it was carried.
    unconfirmed,        ///< All bytes went out, but the node never showed that it has them.
    idle_timeout,       ///< The transfer stood still for longer than the idle limit.
    bad_chunk,          ///< A chunk's size or iteration contradicts the ones before it.
    too_large,          ///< The payload is beyond a limit of the receiver or of the format.
    queue_full,         ///< A bound on queued work is reached.
    encode_failed,      ///< The message can't be written in the chosen format.
    decode_failed,      ///< The bytes are not a message in the chosen format.
    not_permitted,      ///< The peer is not who it says it is, or may not do this.
    ownership_lost,     ///< Another server has taken over the node's journal.
    store_failed,       ///< The agent store reported an error.
    source_failed,      ///< A payload's source could not be read.
    spool_failed,       ///< The spool folder could not be written or read.
    expired,            ///< The task waited in the queue for longer than its age limit.
    refused,            ///< The node refused the task.
    refused_for_now,    ///< The node refused the task for now.
    lease_lost,         ///< The node has not renewed the task's lease in time.
    checksum_differs,   ///< The bytes that arrived are not those that were sent.
    cancelled,          ///< The delivery was withdrawn.
    stopped,            ///< The server or client was stopped.
    protocol_error,     ///< The peer broke the protocol.
    deadline_exceeded,  ///< The node's poll came near its deadline before all of the task was carried.
};

/// The enumerator's name, for logs.
constexpr std::string_view to_string(errc code) noexcept {
    switch (code) {
        case errc::ok: return "ok";
        case errc::not_started: return "not started";
        case errc::invalid_argument: return "invalid argument";
        case errc::bind_failed: return "bind failed";
        case errc::bad_credentials: return "bad credentials";
        case errc::connection_failed: return "connection failed";
        case errc::node_unknown: return "node unknown";
        case errc::node_disconnected: return "node disconnected";
        case errc::superseded: return "superseded";
        case errc::stream_broken: return "stream broken";
        case errc::unconfirmed: return "unconfirmed";
        case errc::idle_timeout: return "idle timeout";
        case errc::bad_chunk: return "bad chunk";
        case errc::too_large: return "too large";
        case errc::queue_full: return "queue full";
        case errc::encode_failed: return "encode failed";
        case errc::decode_failed: return "decode failed";
        case errc::not_permitted: return "not permitted";
        case errc::ownership_lost: return "ownership lost";
        case errc::store_failed: return "store failed";
        case errc::source_failed: return "source failed";
        case errc::spool_failed: return "spool failed";
        case errc::expired: return "expired";
        case errc::refused: return "refused";
        case errc::refused_for_now: return "refused for now";
        case errc::lease_lost: return "lease lost";
        case errc::checksum_differs: return "checksum differs";
        case errc::cancelled: return "cancelled";
        case errc::stopped: return "stopped";
        case errc::protocol_error: return "protocol error";
        case errc::deadline_exceeded: return "deadline exceeded";
    }
    return "unknown";
}

/// The only exception that ferry throws. `what()` says what was wrong, where, and what to do.
class error : public std::runtime_error {
public:
    error(errc code, const std::string& text) : std::runtime_error(text), code_(code) {}

    /// Why, for programs.
    errc code() const noexcept { return code_; }

private:
    errc code_;
};

}  // namespace ferry
