// Keeps what nodes tell beside their replies until somebody asks for it. Errors are printed as they come.
#pragma once

#include <ferry/feedback.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <mutex>
#include <utility>
#include <variant>
#include <vector>

namespace example {

/// `Feedback` is `ferry::log_line` or `ferry::scalars`.
template <class Feedback>
struct arrived {
    Feedback what;
    std::chrono::steady_clock::time_point when;
};

class feedback_board {
public:
    /// For the server's `on_message`.
    void put(const ferry::feedback& from) {
        const auto when = std::chrono::steady_clock::now();
        if (const auto* line = std::get_if<ferry::log_line>(&from)) {
            if (line->level != "DEBUG" && line->level != "INFO")
                std::fprintf(stderr, "%s: %s: %s\n", line->node_id.c_str(), line->level.c_str(), line->message.c_str());
            const std::lock_guard lock(mutex_);
            lines_.push_back({*line, when});
        } else {
            const std::lock_guard lock(mutex_);
            metrics_.push_back({std::get<ferry::scalars>(from), when});
        }
        changed_.notify_all();
    }

    /// Takes the log lines away, once there are `number` of them or the time has passed.
    std::vector<arrived<ferry::log_line>> take_lines(std::size_t number, std::chrono::milliseconds within) {
        return take(lines_, number, within);
    }

    /// The same with metrics.
    std::vector<arrived<ferry::scalars>> take_metrics(std::size_t number, std::chrono::milliseconds within) {
        return take(metrics_, number, within);
    }

private:
    template <class Kept>
    Kept take(Kept& kept, std::size_t number, std::chrono::milliseconds within) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, within, [&] { return kept.size() >= number; });
        return std::exchange(kept, {});
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<arrived<ferry::log_line>> lines_;
    std::vector<arrived<ferry::scalars>> metrics_;
};

}  // namespace example
