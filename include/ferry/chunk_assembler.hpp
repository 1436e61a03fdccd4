// Putting chunks together again, in memory or in a file of a spool. Knows neither gRPC nor protobuf.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/detail/crc32c.hpp>
#include <ferry/detail/growing_buffer.hpp>
#include <ferry/detail/spool_file.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>
#include <ferry/spool.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace ferry {

/// Puts chunks together into one run, each byte copied once, or written once: with a spool, a payload that is larger than
/// its threshold, or that is expected to be, goes to a file there. Chunks may have different lengths, and come in order. A
/// peer's claim of a size is a hint: it never makes the assembler reserve more memory than the limits say.
///
/// For each chunk: `begin(length, size)`, `write` for all of its bytes, `commit(size, iteration)`. After a failure the
/// assembler stays failed; `code()` and `text()` say why, and a named file keeps what was committed. For one thread at a
/// time.
class chunk_assembler {
public:
    /// Files go to `folder`, where there is one; under `file_name`, and they stay there, or without a name, and they are
    /// gone with the last of their bytes. A file of that name that is there is replaced.
    explicit chunk_assembler(chunk_limits limits = {}, std::shared_ptr<spool> folder = {}, std::string file_name = {})
        : limits_(limits), spool_(std::move(folder)), file_name_(std::move(file_name)) {}

    /// Goes on from the bytes of a file: they count as received. Only before the first chunk. False where they are beyond
    /// the limits.
    bool start_from(detail::spool_file begun) {
        if (failed()) return false;
        if (begun.size() > limits_.max_payload_bytes) return beyond_limit();
        file_ = std::move(begun);
        received_ = file_.size();
        crc_ = running_crc_ = file_.checksum();
        return true;
    }

    /// Computes the CRC-32C of what comes, of this payload and the following ones. Not amid a chunk.
    void compute_checksum(bool on = true) {
        if (on && !computes_ && !spooled())
            crc_ = running_crc_ = detail::crc32c(0, {buffer_.data(), static_cast<std::size_t>(received_)});
        computes_ = on;
    }

    /// Says how many bytes the payload has in all: at once `too_large` beyond the limits, and `bad_chunk` where it proves
    /// untrue. False where it failed.
    bool expect(std::uint64_t total_bytes) {
        if (failed()) return false;
        if (total_bytes > limits_.max_payload_bytes) return beyond_limit();
        if (total_bytes < received_) {
            return fail(errc::bad_chunk, "a payload of " + std::to_string(total_bytes) + " bytes was announced where " +
                                             std::to_string(received_) + " had come");
        }
        expected_ = total_bytes;
        return !belongs_in_file(total_bytes) || move_to_file();
    }

    /// Begins the next chunk's `length` bytes. `size_hint` is the number of chunks where it is known already, else 0. May
    /// be called again for the same chunk, which starts it over. False where it failed.
    bool begin(std::size_t length, std::int32_t size_hint) {
        if (failed() || !drop_begun()) return false;
        if (length > limits_.max_payload_bytes - received_) return beyond_limit();
        if (expected_ && length > *expected_ - received_) return unexpected(received_ + length);
        length_ = length;
        if (length == 0) return true;
        if (spooled()) return true;
        if (spool_ && belongs_in_file(at_least(length, size_hint))) return move_to_file();
        if (received_ + length <= buffer_.room()) return true;
        return buffer_.ensure(received_ + length, estimate(length, size_hint)) || no_memory(received_ + length);
    }

    /// Takes the next bytes of the chunk that was begun, which are copied before it returns. False where it failed.
    bool write(std::span<const std::uint8_t> data) {
        if (failed()) return false;
        if (data.size() > length_ - written_)
            return fail(errc::bad_chunk,
                        "a chunk has more than the " + std::to_string(length_) + " bytes it announced");
        if (spooled()) {
            if (const auto problem = file_.append(data); !problem.empty()) return spool_problem(problem);
            running_crc_ = file_.checksum();
            written_ += data.size();
            return true;
        }
        auto* to = buffer_.data() + received_ + written_;
        written_ += data.size();
        const auto most = computes_ ? cached_bytes : data.size();
        while (!data.empty()) {
            const auto piece = data.first(std::min(data.size(), most));
            std::memcpy(to, piece.data(), piece.size());
            if (computes_) running_crc_ = detail::crc32c(running_crc_, piece);
            to += piece.size();
            data = data.subspan(piece.size());
        }
        return true;
    }

    /// Accepts the bytes written as chunk `iteration` of `size`. False where they contradict the chunks before, or where
    /// they are the last and the file can't be mapped.
    bool commit(std::int32_t size, std::int32_t iteration) {
        if (failed()) return false;
        const bool continues = next_ == 1 ? size >= 1 : size == size_;
        if (!continues || iteration != next_ || iteration > size || written_ != length_) {
            return contradiction(size, iteration);
        }
        if (iteration == size && !end()) return false;
        size_ = size;
        received_ += written_;
        crc_ = running_crc_;
        length_ = written_ = 0;
        complete_ = iteration == size;
        ++next_;
        return true;
    }

    /// Goes on with chunks that are numbered from 1 again. What was committed stays; a chunk that was begun is dropped.
    void begin_leg() {
        if (failed() || !drop_begun()) return;
        mapped_ = {};
        start_numbering();
    }

    bool failed() const noexcept { return code_ != errc::ok; }
    errc code() const noexcept { return code_; }
    const std::string& text() const noexcept { return text_; }

    /// True once the last chunk was committed, until `take` or `begin_leg`.
    bool complete() const noexcept { return complete_; }

    /// True between the first chunk of a leg and its last.
    bool in_progress() const noexcept { return next_ != 1 && !complete_; }

    /// Bytes committed so far, of all legs.
    std::uint64_t received() const noexcept { return received_; }

    /// The CRC-32C of the bytes committed so far; only where it was to be computed, or they are in a file.
    std::uint32_t checksum() const noexcept { return crc_; }

    /// True where the payload is in a file.
    bool spooled() const noexcept { return file_.is_open(); }

    /// Memory that it holds now, in bytes, what is reserved included; 0 for what is in a file.
    std::uint64_t memory_bytes() const noexcept { return buffer_.capacity(); }

    /// The payload; only where `complete()`. The assembler is ready for the next one.
    bytes take() {
        bytes out = spooled() ? std::move(mapped_) : buffer_.release(static_cast<std::size_t>(received_));
        file_ = {};
        mapped_ = {};
        received_ = 0;
        length_ = written_ = 0;
        crc_ = running_crc_ = 0;
        expected_.reset();
        start_numbering();
        return out;
    }

private:
    static constexpr std::size_t cached_bytes = 16 * 1024;  // what was copied is still in the nearest cache

    bool fail(errc code, std::string text) {
        code_ = code;
        text_ = std::move(text);
        complete_ = false;
        buffer_.reset();
        if (spooled() && file_.size() != received_) file_.rewind(received_, crc_);
        file_ = {};
        mapped_ = {};
        return false;
    }
    bool beyond_limit() {
        return fail(errc::too_large, "the payload is beyond the receiver's limit of " +
                                         std::to_string(limits_.max_payload_bytes) + " bytes at chunk " +
                                         std::to_string(next_));
    }
    bool unexpected(std::uint64_t bytes) {
        return fail(errc::bad_chunk, "a payload of " + std::to_string(*expected_) + " bytes was announced, and " +
                                         std::to_string(bytes) + " came");
    }
    /// Says what is wrong with a chunk that does not follow those before.
    bool contradiction(std::int32_t size, std::int32_t iteration) {
        const auto is = " (chunk " + std::to_string(iteration) + " of " + std::to_string(size) + ")";
        if (size < 1) return fail(errc::bad_chunk, "a chunk's size must be at least 1" + is);
        if (next_ != 1 && size != size_) {
            return fail(errc::bad_chunk, "the number of chunks changed midway from " + std::to_string(size_) + is);
        }
        if (iteration != next_) return fail(errc::bad_chunk, "expected chunk " + std::to_string(next_) + is);
        if (iteration > size) return fail(errc::bad_chunk, "a chunk's iteration is beyond its size" + is);
        return fail(errc::bad_chunk, "a chunk has " + std::to_string(written_) + " of the " + std::to_string(length_) +
                                         " bytes it announced" + is);
    }

    /// The last chunk is about to be accepted.
    bool end() {
        if (expected_ && received_ + written_ != *expected_) return unexpected(received_ + written_);
        if (!spooled()) return true;
        const auto problem = file_.map(mapped_);
        return problem.empty() || spool_problem(problem);
    }

    bool no_memory(std::uint64_t bytes) {
        return fail(errc::too_large, "no memory for a payload of " + std::to_string(bytes) + " bytes");
    }
    bool spool_problem(const std::string& problem) {
        return fail(errc::spool_failed, "a payload could not be kept in its file: " + problem);
    }

    bool drop_begun() {
        length_ = 0;
        if (std::exchange(written_, 0) == 0) return true;
        running_crc_ = crc_;
        if (!spooled()) return true;
        const auto problem = file_.rewind(received_, crc_);
        return problem.empty() || spool_problem(problem);
    }

    void start_numbering() {
        next_ = 1;
        size_ = 0;
        complete_ = false;
    }

    bool belongs_in_file(std::uint64_t bytes) const { return spool_ && !spooled() && bytes > spool_->threshold(); }

    bool move_to_file() {
        try {
            file_ = file_name_.empty() ? spool_->create_unnamed() : spool_->create(file_name_);
        } catch (const error& e) {
            return fail(errc::spool_failed, e.what());
        }
        const std::span<const std::uint8_t> so_far(buffer_.data(), static_cast<std::size_t>(received_));
        if (const auto problem = file_.append(so_far); !problem.empty()) return spool_problem(problem);
        crc_ = running_crc_ = file_.checksum();
        buffer_.reset();
        return true;
    }

    /// What the payload comes to where the chunks up to the last have this length.
    std::uint64_t at_least(std::size_t length, std::int32_t size_hint) const noexcept {
        const auto more = size_hint > next_ ? static_cast<std::uint64_t>(size_hint - next_) - 1 : 0;
        const auto room = limits_.max_payload_bytes - received_ - length;
        return received_ + length + (more > room / length ? room : more * length);
    }

    std::uint64_t estimate(std::size_t length, std::int32_t size_hint) const noexcept {
        if (!expected_ && size_hint <= next_) return received_ + length;
        auto most =
            std::min(std::max<std::uint64_t>(limits_.max_reservation, 2 * received_), limits_.max_payload_bytes);
        if (spool_) most = std::min(most, spool_->threshold());
        if (expected_) return std::min(most, *expected_);
        const auto rest = static_cast<std::uint64_t>(size_hint - next_ + 1);
        return length > most / rest ? most : std::min(most, received_ + length * rest);
    }

    chunk_limits limits_;
    std::shared_ptr<spool> spool_;
    std::string file_name_;
    detail::growing_buffer buffer_;
    detail::spool_file file_;
    bytes mapped_;  // between the last chunk and `take`
    std::uint64_t received_ = 0;
    std::size_t length_ = 0, written_ = 0;  // of the chunk that was begun
    std::uint32_t crc_ = 0, running_crc_ = 0;
    bool computes_ = false;
    std::optional<std::uint64_t> expected_;
    std::int32_t size_ = 0;
    std::int64_t next_ = 1;  // one more than the largest iteration, in the end
    bool complete_ = false;
    errc code_ = errc::ok;
    std::string text_;
};

}  // namespace ferry
