// What the raw opponents put on the wire: a header of 20 bytes, which fits into a gRPC slice itself, and a run of bytes that
// another slice borrows. Whole messages are put together in one buffer, with the checksum that ferry computes.
#pragma once

#include <ferry/detail/crc32c.hpp>
#include <ferry/detail/huge_pages.hpp>

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
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

/// Puts chunks together. The buffer is malloc's, with huge pages, as ferry's is.
class assembler {
public:
    assembler() = default;
    assembler(const assembler&) = delete;
    assembler& operator=(const assembler&) = delete;
    ~assembler() { std::free(data_); }

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

    void release() {
        std::free(data_);
        data_ = nullptr;
    }

    const header& head() const { return head_; }
    const std::uint8_t* data() const { return data_; }
    bool good() const { return good_; }

private:
    void begin(const std::uint8_t* first) {
        head_.read(first);
        if (head_.offset != 0) return;
        std::free(data_);
        data_ = static_cast<std::uint8_t*>(std::malloc(std::max<std::size_t>(head_.total, 1)));
        received_ = 0;
        crc_ = 0;
        good_ = data_ != nullptr;
        if (good_) ferry::detail::prefer_huge_pages(data_, head_.total);
    }
    void copy(run data) {
        if (!good_ || data.size() > head_.total - received_) return void(good_ = false);
        while (!data.empty()) {
            const auto piece = data.first(std::min(data.size(), cached_bytes));
            std::memcpy(data_ + received_, piece.data(), piece.size());
            crc_ = checksum(crc_, piece);
            received_ += piece.size();
            data = data.subspan(piece.size());
        }
    }

    header head_;
    std::uint8_t* data_ = nullptr;
    std::uint64_t received_ = 0;
    std::uint32_t crc_ = 0;
    bool good_ = true;
};

}  // namespace raw
