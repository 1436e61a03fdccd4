// layer 0
// What a payload remembers of the checksums of its beginnings, so that each byte is read once however often it is asked.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace ferry::detail {

/// A copy starts without memory; a move takes it along. `get` may be called from several threads.
class checksum_memo {
public:
    static constexpr std::uint64_t min_payload_bytes = 64 * 1024;  ///< a smaller payload is computed anew each time

    checksum_memo() = default;
    checksum_memo(const checksum_memo&) noexcept {}
    checksum_memo(checksum_memo&& other) noexcept : known_(other.known_.exchange(nullptr)) {}
    checksum_memo& operator=(const checksum_memo& other) noexcept {
        if (this != &other) forget();
        return *this;
    }
    checksum_memo& operator=(checksum_memo&& other) noexcept {
        if (this != &other) delete known_.exchange(other.known_.exchange(nullptr));
        return *this;
    }
    ~checksum_memo() { forget(); }

    void forget() noexcept { delete known_.exchange(nullptr, std::memory_order_acquire); }

    /// The checksum of the first `bytes` of a payload of `payload_bytes`, where `extend(crc, from, to)` goes on from that of
    /// the first `from` bytes to that of the first `to`.
    template <class Extend>
    std::uint32_t get(std::uint64_t bytes, std::uint64_t payload_bytes, Extend&& extend) const {
        if (payload_bytes < min_payload_bytes) return extend(std::uint32_t{0}, std::uint64_t{0}, bytes);
        auto& marks = marks_of(payload_bytes);
        auto [at, crc] = marks.nearest(bytes);
        while (at < bytes) {
            const auto next = std::min(bytes, (at / marks.span + 1) * marks.span);
            crc = extend(crc, at, next);
            at = next;
            marks.note({at, crc});
        }
        return crc;
    }

private:
    struct mark {
        std::uint64_t bytes = 0;
        std::uint32_t crc = 0;  // of nothing, in the beginning, which is true as well
    };

    /// One mark for each span of the payload: the last one that was asked for there, or passed at its start.
    struct known {
        explicit known(std::uint64_t payload_bytes)
            : span(std::max(min_payload_bytes, payload_bytes / 256 + 1)),
              marks(static_cast<std::size_t>(payload_bytes / span) + 1) {}

        mark nearest(std::uint64_t bytes) {
            const std::lock_guard lock(mutex);
            auto i = static_cast<std::size_t>(bytes / span);
            while (i > 0 && (marks[i].bytes == 0 || marks[i].bytes > bytes)) --i;
            return marks[i].bytes <= bytes ? marks[i] : mark{};
        }
        void note(mark found) {
            const std::lock_guard lock(mutex);
            marks[static_cast<std::size_t>(found.bytes / span)] = found;
        }

        const std::uint64_t span;
        std::mutex mutex;
        std::vector<mark> marks;
    };

    known& marks_of(std::uint64_t payload_bytes) const {
        if (auto* there = known_.load(std::memory_order_acquire)) return *there;
        auto* made = new known(payload_bytes);
        known* there = nullptr;
        if (known_.compare_exchange_strong(there, made, std::memory_order_acq_rel)) return *made;
        delete made;
        return *there;
    }

    mutable std::atomic<known*> known_{nullptr};
};

}  // namespace ferry::detail
