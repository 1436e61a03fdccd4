// An agent store that is chosen when the program starts: memory, a SQLite file that outlives the program, or a Redis, which
// several servers may share.
#pragma once

#include <ferry/agent_store/memory.hpp>
#include <ferry/agent_store/redis.hpp>
#include <ferry/agent_store/sqlite.hpp>

#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace example {

/// Where a Redis is: HOST:PORT, or the path of its socket. A server of the same name goes on with what was open before.
inline ferry::redis_options redis_at(const std::string& where, std::string server) {
    ferry::redis_options options{.server = std::move(server)};
    if (where.starts_with("/")) {
        options.unix_socket = where;
        return options;
    }
    const auto colon = where.rfind(':');
    const auto* const end = where.data() + where.size();
    const auto* const port = colon == std::string::npos ? end : where.data() + colon + 1;
    const auto [rest, problem] = std::from_chars(port, end, options.port);
    if (problem != std::errc() || rest != end) {
        throw std::runtime_error("--store redis:" + where + ": give HOST:PORT, or the path of a socket");
    }
    options.host = where.substr(0, colon);
    return options;
}

/// Calls `use` with the store of this name: "memory", "sqlite:FILE", "redis:HOST:PORT" or "redis:/path/of/socket". Each is of
/// a type of its own, for which `use` is compiled. Throws `std::runtime_error` for another name, and what the store throws.
template <class Use>
void with_store(const std::string& name, Use use) {
    constexpr std::string_view sqlite = "sqlite:", redis = "redis:";
    if (name == "memory") {
        use(ferry::memory_agent_store());
    } else if (name.starts_with(sqlite)) {
        use(ferry::sqlite_agent_store({.file = name.substr(sqlite.size())}));
    } else if (name.starts_with(redis)) {
        use(ferry::redis_agent_store(redis_at(name.substr(redis.size()), "researcher")));
    } else {
        throw std::runtime_error("--store " + name +
                                 ": there are memory, sqlite:FILE, redis:HOST:PORT and redis:/path");
    }
}

}  // namespace example
