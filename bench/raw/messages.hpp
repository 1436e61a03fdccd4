// What the raw opponents put on the wire: a header of 20 bytes, which fits into a gRPC slice itself, and a run of bytes that
// another slice borrows. Whole messages are put together in one buffer, with the checksum that ferry computes.
#pragma once

#include <ferry/detail/crc32c.hpp>
#include <ferry/detail/growing_buffer.hpp>

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace raw {

inline constexpr std::size_t chunk_bytes = 3'999'967;
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

/// Cuts a message into chunks. Its checksum is computed chunk by chunk, and goes with the last one.
class cutter {
public:
    explicit cutter(run content) : content_(content) {}

    bool done() const { return done_; }
    void next(grpc::ByteBuffer& out) {
        const auto part = content_.subspan(at_, std::min(chunk_bytes, content_.size() - at_));
        crc_ = checksum(crc_, part);
        write(out, {content_.size(), at_, crc_}, part);
        at_ += part.size();
        done_ = at_ == content_.size();
    }

private:
    run content_;
    std::size_t at_ = 0;
    std::uint32_t crc_ = 0;
    bool done_ = false;
};

/// Puts chunks together, in a buffer of the kind that ferry takes, so that its pages are the same.
class assembler {
public:
    /// True when the message is whole. Throws nothing: `good()` tells.
    bool take(const grpc::ByteBuffer& in) {
        std::vector<grpc::Slice> slices;
        if (!in.Dump(&slices).ok()) return good_ = false;
        std::uint8_t first[header::size];
        std::size_t have = 0;
        for (const auto& slice : slices) {
            run piece(slice.begin(), slice.size());
            if (have < header::size) {
                const auto more = std::min(header::size - have, piece.size());
                std::memcpy(first + have, piece.data(), more);
                piece = piece.subspan(more);
                if ((have += more) < header::size) continue;
                begin(first);
            }
            copy(piece);
        }
        if (received_ < head_.total) return false;
        good_ = good_ && crc_ == head_.word;
        return true;
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
        if (!good_ || data.size() > head_.total - received_) return void(good_ = false);
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
