// What a node can be told.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/credentials.hpp>
#include <ferry/intake_events.hpp>
#include <ferry/server_options.hpp>
#include <ferry/spool.hpp>
#include <ferry/thread_pool.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace ferry {

/// A name or address, as the server's certificate has it, and a port.
struct host_and_port {
    std::string host = "localhost";
    std::uint16_t port = 50051;
};

/// Where a researcher's server is, and how it is known.
struct researcher_address {
    std::string host = "localhost";  ///< as the server's certificate names it
    std::uint16_t port = 50051;
    server_trust trust{};                  ///< `pinned_certificate{file}`, `trust_on_first_use{file}` or `plain_text{}`
    std::vector<host_and_port> also_at{};  ///< tried in turn after a failure, for a server that moves between them
};

/// What a client is made with.
struct client_options {
    std::string node_id;                            ///< unique among the server's nodes
    std::string node_name{};                        ///< for people, in the original's messages; without it `node_id`
    std::vector<researcher_address> researchers{};  ///< all of them are served, at the same time
    client_identity identity{};                     ///< shown to servers that want to know
    bool debug = false;                             ///< log each message in and out
    /// Called from any thread; must be quick. What it throws is dropped.
    std::function<void(log_level, const std::string&)> log = log_to_stderr;

    keepalive_options keepalive{};
    intake_limits limits{};  ///< for each researcher
    chunk_limits tasks{};    ///< what a researcher may send
    spool_options spool{};  ///< where large tasks and replies are kept; the next life of this program goes on with them
    std::chrono::milliseconds reply_age = std::chrono::hours(24);     ///< a reply that waits for longer expires
    std::chrono::milliseconds poll_deadline = std::chrono::hours(1);  ///< after it, a poll is made anew
    std::size_t callback_threads = 4;            ///< for user code; each researcher has two at a time, one of each lane
    std::optional<thread_pool> callback_pool{};  ///< threads that are shared with others, in place of its own
    std::chrono::milliseconds stop_deadline = std::chrono::seconds(5);  ///< of `stop()`
};

}  // namespace ferry
