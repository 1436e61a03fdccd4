// What the two cores say to each other over a stream, as plain values. proto/ferry/researcher.proto says what each means and
// when it may come; how it looks on the wire is `wire.hpp`'s business.
#pragma once

#include <ferry/error.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ferry::frames {

/// A node's id has at most so many bytes.
inline constexpr std::size_t max_node_id_bytes = 1024;
/// A reply of more bytes goes by an upload of its own.
inline constexpr std::size_t max_reply_bytes = 64 * 1024;
/// A task of at most so many bytes may share a message with others.
inline constexpr std::size_t max_small_task_bytes = 8 * 1024;
/// Feedback of more bytes is refused.
inline constexpr std::size_t max_feedback_bytes = 4 * 1024 * 1024;
/// So many replies of a node are known again when they come twice.
inline constexpr std::size_t remembered_replies = 1024;

enum class verdict { taken, refused, not_now, given_back };

/// What became of a task at its node.
struct receipt {
    std::uint64_t task = 0;
    verdict what = verdict::taken;
    std::string text{};                 // why it is refused
    std::chrono::milliseconds pause{};  // of `not_now`
};

/// A task that a node holds when it presents itself.
struct held_task {
    std::uint64_t task = 0;
    std::uint64_t received = 0;  // bytes, from the first
    bool ready = false;          // whole, and waits or runs
};

struct hello {
    std::vector<held_task> held{};
    std::vector<receipt> receipts{};
    std::uint32_t window_tasks = 1;  // outstanding in each lane
    std::uint64_t window_bytes = 0;
};

struct welcome {
    std::chrono::milliseconds lease{};  // 0: for ever
};

/// What a delivery's first chunk says of it, and its last one.
struct delivery_head {
    std::uint64_t task = 0;
    std::uint64_t offset = 0;
    std::uint64_t total = 0;
    int attempt = 1;
    bool urgent = false;
};

/// What became of a reply at the server.
struct answer {
    std::uint64_t reply = 0;
    errc reason = errc::ok;
    std::string text{};
};

}  // namespace ferry::frames
