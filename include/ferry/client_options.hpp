// What a node can be told.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/credentials.hpp>
#include <ferry/detail/utf8.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
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
    std::string node_id;                            ///< unique among the server's nodes; UTF-8, at most 1024 bytes
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

    /// Throws `error{invalid_argument}` where nothing could ever come or go. `start` calls it.
    void check() const {
        const auto refuse = [](const std::string& why) { throw error(errc::invalid_argument, why); };
        if (node_id.empty()) refuse("options.node_id is empty: give the node an id");
        if (node_id.size() > frames::max_node_id_bytes) {
            refuse("options.node_id has " + std::to_string(node_id.size()) + " bytes: a server takes at most " +
                   std::to_string(frames::max_node_id_bytes));
        }
        if (detail::utf8_text(node_id, node_id.size()) != node_id)
            refuse("options.node_id is no UTF-8: another server could not read it");
        if (researchers.empty()) refuse("options.researchers is empty: give at least one address");
        for (const auto& each : researchers) {
            check_place(each.host, each.port);
            for (const auto& other : each.also_at) check_place(other.host, other.port);
        }
        keepalive.check();
        detail::check_some("options.limits.max_small_uploads", limits.max_small_uploads);
        detail::check_some("options.limits.max_bulk_uploads", limits.max_bulk_uploads);
        detail::check_at_least("options.limits.idle_limit", limits.idle_limit, 1);
        detail::check_at_least("options.poll_deadline", poll_deadline, 1);
    }

private:
    static void check_place(const std::string& host, std::uint16_t port) {
        detail::check_host("the host in options.researchers", host);
        if (port != 0) return;
        throw error(errc::invalid_argument, "the port of " + host + " in options.researchers is 0: give the server's");
    }
};

}  // namespace ferry
