// What a server can be told, with the defaults and constants of Fed-BioMed's transport.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/credentials.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/feedback.hpp>
#include <ferry/spool.hpp>
#include <ferry/thread_pool.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace ferry {

inline constexpr std::chrono::seconds GRPC_CLIENT_CONN_RETRY_TIMEOUT{2};
inline constexpr std::chrono::seconds MAX_SEND_DURATION{300};
inline constexpr int MAX_SEND_RETRIES = 5;

/// The environment variable GRPC_SERVER_SETUP_TIMEOUT in whole seconds; 1 s where it isn't set.
/// Throws `error{invalid_argument}` for anything else.
inline std::chrono::seconds server_setup_timeout() {
    const char* text = std::getenv("GRPC_SERVER_SETUP_TIMEOUT");
    if (!text) return std::chrono::seconds{1};
    const std::string_view given(text);
    int seconds = 0;
    const auto [end, code] = std::from_chars(given.data(), given.data() + given.size(), seconds);
    if (code != std::errc{} || end != given.data() + given.size() || seconds < 0) {
        throw error(errc::invalid_argument, "the environment variable GRPC_SERVER_SETUP_TIMEOUT is \"" +
                                                std::string(given) + "\": give whole seconds, or unset it");
    }
    return std::chrono::seconds{seconds};
}

/// How long a node may take to connect to a server that has just started.
inline std::chrono::seconds GRPC_SERVER_SETUP_TIMEOUT() {
    return GRPC_CLIENT_CONN_RETRY_TIMEOUT + server_setup_timeout();
}

/// How long `start` waits for a first node.
inline std::chrono::seconds MAX_GRPC_SERVER_SETUP_TIMEOUT() { return 20 * server_setup_timeout(); }

/// How a side notices that the other one is gone: by pings, also where nothing else is sent. Both sides send them. They are what
/// finds a connection that was reset just as data came over it, too: on Linux, gRPC 1.51 can fail to see that by itself.
struct keepalive_options {
    std::chrono::milliseconds every = std::chrono::seconds(60);  ///< at least 1 s; a server ends what pings faster
    /// Else the connection is lost. A node gives a new one four times as long, at most 20 s, and then tries the next address.
    std::chrono::milliseconds answer_within = std::chrono::seconds(20);

    /// Throws `error{invalid_argument}` where the peer would not bear them. `start` calls it.
    void check() const {
        if (every < std::chrono::seconds(1) || answer_within <= std::chrono::milliseconds(0)) {
            throw error(errc::invalid_argument, "options.keepalive: give at least 1 s for `every`, which is " +
                                                    std::to_string(every.count()) + " ms, and more than 0 for " +
                                                    "`answer_within`, which is " +
                                                    std::to_string(answer_within.count()) + " ms");
        }
    }
};

namespace detail {

/// Throws `error{invalid_argument}` where the option is less than `least`.
inline void check_at_least(const char* option, std::int64_t is, std::int64_t least, const char* unit = "") {
    if (is >= least) return;
    throw error(errc::invalid_argument, std::string(option) + " is " + std::to_string(is) + unit + ": give at least " +
                                            std::to_string(least) + unit);
}
inline void check_at_least(const char* option, std::chrono::milliseconds is, std::int64_t least) {
    check_at_least(option, is.count(), least, " ms");
}
/// The same of a number that has no sign.
inline void check_some(const char* option, std::uint64_t is) { check_at_least(option, is > 0 ? 1 : 0, 1); }

}  // namespace detail

enum class log_level { debug, info, warning };

/// Writes warnings, and in debug all, to the standard error stream.
inline void log_to_stderr(log_level level, const std::string& text) {
    static constexpr const char* names[] = {"debug", "info", "warning"};
    std::clog << "ferry: " + std::string(names[static_cast<int>(level)]) + ": " + text + "\n";
}

/// What a server is made with. Functions run on the server's executor, except `log`, which runs anywhere and must be quick.
struct server_options {
    std::string host = "localhost";                     ///< name or address to listen on; `0.0.0.0` or `::` for all
    std::uint16_t port = 50051;                         ///< 0: the system picks one, see `port()`
    server_security ssl{};                              ///< `ssl_credentials{key, cert}`, or `plain_text{}`
    std::string client_roots{};                         ///< a PEM file: nodes must show a certificate that these signed
    std::function<void(const feedback&)> on_message{};  ///< logs and scalars; per node in order, nodes in parallel
    bool debug = false;                                 ///< log each message in and out
    /// Called from any thread; must be quick. What it throws is dropped.
    std::function<void(log_level, const std::string&)> log = log_to_stderr;

    /// `start` returns when a first node is there, or after MAX_GRPC_SERVER_SETUP_TIMEOUT, 20 s: so the original does.
    bool wait_for_first_node = true;
    dispatch_limits limits{};
    inbound_limits inbound{};  ///< what all nodes may send at the same time
    chunk_limits replies{};    ///< what a node may send in one message
    spool_options spool{};     ///< where large replies are put while they come in; nothing is left there
    keepalive_options keepalive{};
    std::chrono::milliseconds max_connection_age{0};  ///< then nodes must connect anew; 0: never
    std::chrono::milliseconds max_connection_age_grace = std::chrono::minutes(10);  ///< for what is under way then
    std::chrono::milliseconds task_age =
        std::chrono::hours(1);                  ///< a task that is queued for longer expires; 0: at once
    std::size_t max_waiting_feedback = 10'000;  ///< of one node; past it the oldest is dropped
    std::size_t max_waiting_feedback_bytes = 64 * 1024 * 1024;  ///< of one node, likewise
    std::size_t callback_threads = 4;                           ///< for user code; at least one
    std::optional<thread_pool> callback_pool{};  ///< threads that are shared with others, in place of its own
    std::chrono::milliseconds stop_deadline = std::chrono::seconds(5);  ///< of `stop()`

    /// Throws `error{invalid_argument}` where nothing could ever come or go. `start` calls it.
    void check() const {
        keepalive.check();
        detail::check_some("options.limits.max_nodes", limits.max_nodes);
        detail::check_at_least("options.limits.idle_limit", limits.idle_limit, 1);
        detail::check_some("options.inbound.max_uploads", inbound.max_uploads);
        detail::check_at_least("options.inbound.idle_limit", inbound.idle_limit, 1);
    }
};

namespace detail {

/// Milliseconds as gRPC's arguments take them, which at their greatest mean never.
inline int to_int(std::chrono::milliseconds time) {
    return static_cast<int>(std::clamp<std::int64_t>(time.count(), 0, std::numeric_limits<int>::max()));
}

}  // namespace detail

/// How one message is sent, where it differs from the options.
struct send_options {
    std::optional<std::chrono::milliseconds> expires_after{};  ///< while it is queued
    /// Of a request; without it a request waits for ever, also where the node's callback returns without a reply.
    std::optional<std::chrono::milliseconds> reply_within{};
    bool urgent = false;  ///< in the lane that does not wait for the usual one; see `basic_task::urgent`
    /// Queue it for a node that is DISCONNECTED, instead of ending at once. One that was queued before goes on waiting.
    bool keep_while_disconnected = false;
};

}  // namespace ferry
