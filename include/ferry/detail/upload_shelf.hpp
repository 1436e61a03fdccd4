// layer 3
// Uploads that broke off, kept for a while so that they can go on: so many bytes in memory at most, and the oldest goes first.
// A pure state machine without a lock.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/wake_ups.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <utility>

namespace ferry::detail {

class upload_shelf {
public:
    using time_point = std::chrono::steady_clock::time_point;

    upload_shelf(std::uint64_t max_bytes, std::chrono::milliseconds keep) : max_bytes_(max_bytes), keep_(keep) {}

    void put(std::uint64_t number, chunk_assembler&& part, time_point now) {
        take(number, now);
        bytes_ += part.memory_bytes();
        kept_.push_back({number, later(now, keep_), std::move(part)});
        while (bytes_ > max_bytes_ || kept_.size() > max_parts) drop_oldest();
    }

    std::optional<chunk_assembler> take(std::uint64_t number, time_point now) {
        expire(now);
        for (auto at = kept_.begin(); at != kept_.end(); ++at) {
            if (at->number != number) continue;
            std::optional<chunk_assembler> out(std::move(at->part));
            bytes_ -= out->memory_bytes();
            kept_.erase(at);
            return out;
        }
        return std::nullopt;
    }

    void expire(time_point now) {
        while (!kept_.empty() && kept_.front().until <= now) drop_oldest();
    }

    time_point next_wake() const { return kept_.empty() ? time_point::max() : kept_.front().until; }
    std::uint64_t memory_bytes() const noexcept { return bytes_; }
    std::size_t size() const noexcept { return kept_.size(); }

private:
    static constexpr std::size_t max_parts = 1000;

    struct part_of {
        std::uint64_t number;
        time_point until;
        chunk_assembler part;
    };

    void drop_oldest() {
        bytes_ -= kept_.front().part.memory_bytes();
        kept_.pop_front();
    }

    const std::uint64_t max_bytes_;
    const std::chrono::milliseconds keep_;
    std::list<part_of> kept_;
    std::uint64_t bytes_ = 0;
};

}  // namespace ferry::detail
