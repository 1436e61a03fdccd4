// What a server knows of a node, as a value.
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

}  // namespace ferry
