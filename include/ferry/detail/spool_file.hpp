// layer 0
// One file of a spool: bytes are added at its end, and in the end it's mapped.
#pragma once

#include <ferry/detail/crc32c.hpp>
#include <ferry/detail/shared_block.hpp>
#include <ferry/payload.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ferry::detail {

/// Owns the descriptor of a regular file. What fails says why in errno's words; an empty text is success. It's written by
/// `pwrite` alone, so that a full disk is a text, not a signal. For one thread at a time.
class spool_file {
public:
    /// A file that is closed.
    spool_file() = default;

    /// Takes the descriptor of an empty file that can be read and written.
    explicit spool_file(int descriptor) noexcept : descriptor_(descriptor) {}

    spool_file(spool_file&& other) noexcept
        : descriptor_(std::exchange(other.descriptor_, -1)),
          size_(std::exchange(other.size_, 0)),
          checksum_(std::exchange(other.checksum_, 0)) {}
    spool_file& operator=(spool_file&& other) noexcept {
        std::swap(descriptor_, other.descriptor_);
        std::swap(size_, other.size_);
        std::swap(checksum_, other.checksum_);
        return *this;
    }
    ~spool_file() {
        if (is_open()) ::close(descriptor_);
    }

    bool is_open() const noexcept { return descriptor_ >= 0; }
    std::uint64_t size() const noexcept { return size_; }

    /// The CRC-32C of its bytes.
    std::uint32_t checksum() const noexcept { return checksum_; }

    /// Adds bytes at the end. After a failure its size is as before, and what was written in part is cut off.
    std::string append(std::span<const std::uint8_t> data) {
        const auto size = size_;
        const auto checksum = checksum_;
        while (!data.empty()) {
            const auto piece = data.first(std::min(data.size(), piece_bytes));
            if (auto problem = write(piece, size_); !problem.empty()) {
                rewind(size, checksum);
                return problem;
            }
            checksum_ = crc32c(checksum_, piece);
            size_ += piece.size();
            data = data.subspan(piece.size());
        }
        return {};
    }

    /// Goes back to an earlier size, whose checksum is given, and cuts off the rest.
    std::string rewind(std::uint64_t size, std::uint32_t checksum) noexcept {
        size_ = size;
        checksum_ = checksum;
        if (::ftruncate(descriptor_, static_cast<off_t>(size)) != 0) return std::strerror(errno);
        return {};
    }

    /// Waits until all of it is on the disk.
    std::string sync() const noexcept { return ::fsync(descriptor_) == 0 ? std::string() : std::strerror(errno); }

    /// Takes in what the file holds already: its size, and its checksum by reading it.
    std::string read_existing() {
        std::vector<std::uint8_t> buffer(piece_bytes);
        size_ = checksum_ = 0;
        for (;;) {
            const auto got = ::pread(descriptor_, buffer.data(), buffer.size(), static_cast<off_t>(size_));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return std::strerror(errno);
            if (got == 0) return {};
            checksum_ = crc32c(checksum_, std::span(buffer).first(static_cast<std::size_t>(got)));
            size_ += static_cast<std::uint64_t>(got);
        }
    }

    /// Shows all of its bytes, mapped read-only; they stay valid after the file is closed and removed. It must be neither
    /// cut nor rewound while they are in use.
    std::string map(bytes& out) const {
        auto mapped = map_descriptor(descriptor_);
        if (!mapped.problem.empty()) return mapped.problem;
        if (mapped.size < size_) return "the file was cut by someone else";
        out = bytes(std::move(mapped.block), mapped.data, mapped.size).slice(0, static_cast<std::size_t>(size_));
        return {};
    }

private:
    static constexpr std::size_t piece_bytes = 256 * 1024;  // what the checksum has read is in the cache for the kernel

    std::string write(std::span<const std::uint8_t> data, std::uint64_t at) const {
        while (!data.empty()) {
            const auto done = ::pwrite(descriptor_, data.data(), data.size(), static_cast<off_t>(at));
            if (done < 0 && errno == EINTR) continue;
            if (done < 0) return std::strerror(errno);
            if (done == 0) return std::strerror(EIO);
            data = data.subspan(static_cast<std::size_t>(done));
            at += static_cast<std::uint64_t>(done);
        }
        return {};
    }

    int descriptor_ = -1;
    std::uint64_t size_ = 0;
    std::uint32_t checksum_ = 0;
};

}  // namespace ferry::detail
