// layer 1
// Where a Redis is, and how long it is waited for.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ferry {

/// All that a `redis_agent_store` needs to know.
struct redis_options {
    std::string host = "localhost";
    std::uint16_t port = 6379;
    std::string unix_socket{};  ///< its path, in place of host and port
    std::string user{};         ///< of Redis's access lists; empty: the default user
    std::string password{};     ///< empty: none is sent
    int database = 0;           ///< its number

    /// All keys and channels begin with it. Servers that share a store have the same one.
    std::string key_prefix = "ferry:";

    /// This server's name among those that share the store; no two may have the same at a time. One that starts again under
    /// its name gets what has come for it meanwhile. Empty: a new one each time.
    std::string server{};

    std::chrono::milliseconds connect_within = std::chrono::seconds(2);  ///< each attempt
    std::chrono::milliseconds answer_within =
        std::chrono::seconds(10);  ///< each command, before the connection is given up
    /// How long an operation waits for a Redis that can't be reached, before it ends in `store_failed`.
    std::chrono::milliseconds patience = std::chrono::seconds(10);
    /// A server that has not been heard of for so long holds no journals any more: others take them over.
    std::chrono::milliseconds lease = std::chrono::seconds(10);
    /// One that has not been heard of for so long is gone for good: replies to what it has asked go to another server.
    std::chrono::milliseconds forget_after = std::chrono::minutes(10);

    std::uint64_t max_bytes = std::uint64_t{1} << 30;  ///< of contents in Redis; of replies, as much again
    std::size_t chunk_bytes = std::size_t{256} << 10;  ///< large contents are written and read in pieces of this size
};

}  // namespace ferry
