// What a server knows of its nodes, of what is owed to them, and of itself, as values.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ferry {

/// Derived from a node's polls, never set by hand.
enum class node_status {
    active,        ///< a poll of its is open, or carries a task to it
    waiting,       ///< its last poll ended a short while ago
    disconnected,  ///< no new poll came within the disconnection timeout
};

/// The name as the original writes it.
constexpr std::string_view to_string(node_status status) noexcept {
    switch (status) {
        case node_status::active: return "ACTIVE";
        case node_status::waiting: return "WAITING";
        case node_status::disconnected: return "DISCONNECTED";
    }
    return "unknown";
}

/// A snapshot of a node; it doesn't change afterwards.
struct node_info {
    std::string id;
    node_status status = node_status::disconnected;
    std::chrono::system_clock::time_point since;  ///< of the status
    std::size_t queued_tasks = 0;                 ///< accepted and not yet taken
    std::uint64_t queued_bytes = 0;               ///< of their payloads
    std::size_t open_requests = 0;                ///< not yet replied
};

/// A task that was accepted and has not ended, as a snapshot.
struct pending_task {
    std::string node;
    std::string request_id;                          ///< the message's own, or empty
    std::uint64_t bytes = 0;                         ///< of its payload; 0 once the node has taken it
    int attempts = 0;                                ///< deliveries begun so far
    std::chrono::system_clock::time_point accepted;  ///< when it was sent
    bool taken = false;                              ///< the node has it, and its reply is awaited
    bool wants_reply = false;                        ///< it was sent by `request`
};

/// What a server has lost or holds just now.
struct server_counts {
    std::uint64_t undelivered_forwards = 0;  ///< messages from node to node that were dropped
    std::uint64_t dropped_feedback = 0;      ///< logs and scalars beyond `max_waiting_feedback`
    std::uint64_t inbound_bytes = 0;         ///< of replies that are coming in, or not yet decoded
};

}  // namespace ferry
