// What the raw opponents put on the wire: a header of 20 bytes, which fits into a gRPC slice itself, and a run of bytes that
// another slice borrows. Small messages that wait go together, each behind its header. Whole messages are put together
// in one buffer, with the checksum that ferry computes.
#pragma once

#include <ferry/detail/crc32c.hpp>
#include <ferry/detail/growing_buffer.hpp>

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace raw {

inline constexpr std::size_t usual_chunk_bytes = 3'999'967;
inline constexpr std::size_t joined_bytes = 64 * 1024;  // of small messages that go together, before the last one
inline constexpr std::size_t cached_bytes = 16 * 1024;

struct header {
    std::uint64_t total = 0;
    std::uint64_t offset = 0;
    std::uint32_t word = 0;  // the checksum of all, with the last chunk; else what the message is about

    static constexpr std::size_t size = 20;
    void write(std::uint8_t* to) const {
        std::memcpy(to, &total, 8);
        std::memcpy(to + 8, &offset, 8);
        std::memcpy(to + 16, &word, 4);
    }
    void read(const std::uint8_t* from) {
        std::memcpy(&total, from, 8);
        std::memcpy(&offset, from + 8, 8);
        std::memcpy(&word, from + 16, 4);
    }
};

using run = std::span<const std::uint8_t>;

inline void write(grpc::ByteBuffer& out, const header& head, run content) {
    std::uint8_t bytes[header::size];
    head.write(bytes);
    const grpc::Slice slices[] = {grpc::Slice(bytes, sizeof bytes),
                                  grpc::Slice(const_cast<std::uint8_t*>(content.data()), content.size(), [](void*) {})};
    out = grpc::ByteBuffer(slices, content.empty() ? 1 : 2);
}

inline std::uint32_t checksum(std::uint32_t crc, run data) { return ferry::detail::crc32c(crc, data); }

/// The checksum of a message that goes to several nodes: computed once, chunk by chunk, by whoever comes to a chunk
/// first.
class shared_checksum {
public:
    /// Of the first `bytes` of the content, or of more of them where somebody else is further.
    std::uint32_t of(run content, std::size_t bytes) {
        const std::lock_guard lock(mutex_);
        if (bytes > at_) {
            crc_ = checksum(crc_, content.subspan(at_, bytes - at_));
            at_ = bytes;
        }
        return crc_;
    }

private:
    std::mutex mutex_;
    std::size_t at_ = 0;
    std::uint32_t crc_ = 0;
};

/// Cuts a message into chunks. Its checksum is computed chunk by chunk, and goes with the last one: others' are not
/// looked at.
class cutter {
public:
    explicit cutter(run content, std::size_t chunk_bytes = usual_chunk_bytes,
                    std::shared_ptr<shared_checksum> shared = nullptr)
        : content_(content), chunk_bytes_(chunk_bytes), shared_(std::move(shared)) {}

    bool done() const { return done_; }
    void next(grpc::ByteBuffer& out) {
        const auto part = content_.subspan(at_, std::min(chunk_bytes_, content_.size() - at_));
        crc_ = shared_ ? shared_->of(content_, at_ + part.size()) : checksum(crc_, part);
        write(out, {content_.size(), at_, crc_}, part);
        at_ += part.size();
        done_ = at_ == content_.size();
    }

    bool small() const { return content_.size() < joined_bytes && content_.size() <= chunk_bytes_; }
    std::size_t small_bytes() const { return header::size + content_.size(); }
    /// All of a small message, of `small_bytes()`.
    void copy_to(std::uint8_t* to) const {
        header{content_.size(), 0, checksum(0, content_)}.write(to);
        if (!content_.empty()) std::memcpy(to + header::size, content_.data(), content_.size());
    }

private:
    run content_;
    std::size_t chunk_bytes_;
    std::shared_ptr<shared_checksum> shared_;
    std::size_t at_ = 0;
    std::uint32_t crc_ = 0;
    bool done_ = false;
};

/// The first of those that wait, and the small ones that follow it, as one buffer. What is written to its end goes.
inline void write_next(grpc::ByteBuffer& out, std::deque<cutter>& waiting) {
    std::size_t count = 0, bytes = 0;
    for (; count < waiting.size() && waiting[count].small() && bytes < joined_bytes; ++count) {
        bytes += waiting[count].small_bytes();
    }
    if (count == 0) {
        waiting.front().next(out);
        if (waiting.front().done()) waiting.pop_front();
        return;
    }
    const grpc::Slice all(bytes);
    auto* at = const_cast<std::uint8_t*>(all.begin());
    for (; count > 0; --count, waiting.pop_front()) {
        waiting.front().copy_to(at);
        at += waiting.front().small_bytes();
    }
    out = grpc::ByteBuffer(&all, 1);
}

/// Puts chunks together, in a buffer of the kind that ferry takes, so that its pages are the same.
class assembler {
public:
    /// Calls `whole()` for each message that is whole with this buffer. Throws nothing: `good()` tells.
    template <class Whole>
    void take(const grpc::ByteBuffer& in, Whole&& whole) {
        std::vector<grpc::Slice> slices;
        if (!in.Dump(&slices).ok()) return void(good_ = false);
        std::uint8_t first[header::size];
        std::size_t have = 0;
        for (const auto& slice : slices) {
            for (run piece(slice.begin(), slice.size()); !piece.empty();) {
                if (have < header::size) {
                    const auto more = std::min(header::size - have, piece.size());
                    std::memcpy(first + have, piece.data(), more);
                    piece = piece.subspan(more);
                    if ((have += more) < header::size) break;
                    begin(first);
                }
                const auto part = piece.first(std::min<std::size_t>(piece.size(), head_.total - received_));
                copy(part);
                piece = piece.subspan(part.size());
                if (received_ < head_.total) continue;
                good_ = good_ && crc_ == head_.word;
                whole();
                have = 0;  // another one may follow
                if (!good_) return;
            }
        }
    }

    void release() { buffer_.reset(); }

    const header& head() const { return head_; }
    const std::uint8_t* data() { return buffer_.data(); }
    bool good() const { return good_; }

private:
    void begin(const std::uint8_t* first) {
        head_.read(first);
        if (head_.offset != 0) return;
        release();
        received_ = 0;
        crc_ = 0;
        good_ = buffer_.ensure(std::max<std::uint64_t>(head_.total, 1), head_.total);
    }
    void copy(run data) {
        while (!data.empty()) {
            const auto piece = data.first(std::min(data.size(), cached_bytes));
            std::memcpy(buffer_.data() + received_, piece.data(), piece.size());
            crc_ = checksum(crc_, piece);
            received_ += piece.size();
            data = data.subspan(piece.size());
        }
    }

    header head_;
    ferry::detail::growing_buffer buffer_;
    std::uint64_t received_ = 0;
    std::uint32_t crc_ = 0;
    bool good_ = true;
};

}  // namespace raw
