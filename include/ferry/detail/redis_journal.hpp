// layer 1
// The journals of nodes in a Redis, as commands and answers of its scripts.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/redis_contents.hpp>
#include <ferry/detail/redis_pipeline.hpp>
#include <ferry/error.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::detail {

/// With 20 digits.
inline std::string redis_number(std::uint64_t n) {
    auto digits = std::to_string(n);
    return std::string(20 - digits.size(), '0') + digits;
}

inline std::string redis_bool(bool is) { return is ? "1" : "0"; }

/// In microseconds; what is before 1970 is then.
inline std::string redis_time(std::chrono::system_clock::time_point when) {
    const auto micros = std::chrono::floor<std::chrono::microseconds>(when).time_since_epoch().count();
    return std::to_string(std::max<std::int64_t>(micros, 0));
}
inline std::chrono::system_clock::time_point to_time(const redis_value& from) {
    using clock = std::chrono::system_clock;
    const std::chrono::microseconds micros(static_cast<std::int64_t>(from.number()));
    constexpr auto most = std::chrono::floor<std::chrono::microseconds>(clock::time_point::max().time_since_epoch());
    return micros >= most ? clock::time_point::max() : clock::time_point(micros);
}

inline task_record to_task(const redis_value& from, redis_contents& contents) {
    task_record out;
    out.id = from[0].number();
    out.urgent = from[1].text() == "1";
    out.request_id = from[2].text();
    out.wants_reply = from[3].text() == "1";
    out.attempts = static_cast<int>(from[4].number());
    out.taken = from[5].text() == "1";
    out.accepted = to_time(from[6]);
    out.expires = to_time(from[7]);
    out.reply_until = from[8].is_null() ? std::chrono::system_clock::time_point::max() : to_time(from[8]);
    out.is_withdrawn = from[9].text() == "1";
    out.content = contents.open(from[10]);
    out.reply = contents.open(from[11]);
    out.reply_number = from[12].number();
    out.order = from[13].number();
    return out;
}

inline arrived_end to_end(const redis_value& from, redis_contents& contents) {
    arrived_end out;
    out.id = from[0].number();
    out.node = from[1].text();
    out.end.request_id = from[2].text();
    out.end.how.kind = static_cast<outcome_kind>(from[3].number());
    out.end.how.reason = static_cast<errc>(from[4].number());
    out.end.how.text = from[5].text();
    out.end.how.attempts = static_cast<int>(from[6].number());
    out.end.reply = contents.open(from[7]);
    if (from[7].is_list() && !out.end.reply) {
        out.end.how = {outcome_kind::store_failed, errc::store_failed, "its reply is missing in Redis", 0};
    }
    out.end.reply_number = from[8].number();
    out.place = from[9].number();
    return out;
}

inline seen_node to_seen(std::string id, const redis_value& status, const redis_value& since) {
    seen_node out{std::move(id), node_status::disconnected, to_time(since)};
    if (!status.is_null() && status.number() < 3) out.status = static_cast<node_status>(status.number());
    return out;
}

}  // namespace ferry::detail
