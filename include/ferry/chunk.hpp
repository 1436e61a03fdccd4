// Cutting a payload into chunks and putting chunks together again, generic over MAX_MESSAGE_BYTES_LENGTH.
// Knows neither gRPC nor protobuf: a chunk is a range of the payload, its 1-based iteration, and the number of chunks.
#pragma once

#include <ferry/detail/growing_buffer.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>
#include <ferry/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

namespace ferry {

/// The most payload bytes in one chunk, as a policy: at least 1; and with the chunk's header it must fit the 100 MiB that a
/// peer accepts. The default is that of Fed-BioMed's transport: 4,000,000 - 33. Peers may use different sizes.
template <std::uint32_t MAX_MESSAGE_BYTES_LENGTH = 3'999'967>
struct max_message_bytes_length {
    using policy_category = chunk_size_tag;

    static constexpr std::uint32_t value = MAX_MESSAGE_BYTES_LENGTH;
};

/// What the concepts ask for, one by one.
namespace provides {

template <class P>
concept value = requires {
    typename std::integral_constant<std::uint32_t, P::value>;
};

template <class P>
concept value_in_range = value<P> && P::value >= 1 && P::value <= 100 * 1024 * 1024 - 64;

}  // namespace provides

/// A chunk-size policy: `P::value` is a constant number of bytes, from 1 to 100 MiB - 64.
template <class P>
concept chunk_size_policy = policy_of<P, chunk_size_tag> && provides::value<P> && provides::value_in_range<P>;

/// One chunk's place in its payload.
struct chunk {
    std::uint64_t offset;    ///< of its first byte in the payload
    std::uint32_t length;    ///< in bytes
    std::int32_t size;       ///< number of chunks of the payload, at least 1
    std::int32_t iteration;  ///< of this chunk, from 1 to `size`

    bool last() const noexcept { return iteration == size; }
};

/// Walks through the chunks of a payload of a given size. An empty payload is one empty chunk.
template <std::uint32_t MAX_MESSAGE_BYTES_LENGTH>
class chunk_cutter {
public:
    /// The number of chunks that `payload_bytes` take.
    static constexpr std::uint64_t count(std::uint64_t payload_bytes) noexcept {
        return payload_bytes == 0 ? 1 : (payload_bytes - 1) / MAX_MESSAGE_BYTES_LENGTH + 1;
    }

    /// True where the chunks of `payload_bytes` can be numbered on the wire (an int32).
    static constexpr bool fits(std::uint64_t payload_bytes) noexcept {
        return count(payload_bytes) <= static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max());
    }

    /// Throws `error{too_large}` where the payload has more chunks than the wire can number.
    explicit constexpr chunk_cutter(std::uint64_t payload_bytes) : payload_bytes_(payload_bytes) {
        if (!fits(payload_bytes)) {
            throw error(errc::too_large, "a payload of " + std::to_string(payload_bytes) +
                                             " bytes has more than 2^31-1 chunks of " +
                                             std::to_string(MAX_MESSAGE_BYTES_LENGTH) + " bytes: take larger chunks");
        }
        size_ = static_cast<std::int32_t>(count(payload_bytes));
    }

    constexpr bool done() const noexcept { return next_ > size_; }

    /// The next chunk; only while `!done()`.
    constexpr chunk next() noexcept {
        const std::uint64_t offset = static_cast<std::uint64_t>(next_ - 1) * MAX_MESSAGE_BYTES_LENGTH;
        const auto length = std::min<std::uint64_t>(MAX_MESSAGE_BYTES_LENGTH, payload_bytes_ - offset);
        return {offset, static_cast<std::uint32_t>(length), size_, static_cast<std::int32_t>(next_++)};
    }

private:
    std::uint64_t payload_bytes_;
    std::int32_t size_ = 1;
    std::int64_t next_ = 1;
};

/// What a receiver accepts.
struct chunk_limits {
    std::uint64_t max_payload_bytes = std::uint64_t{16} << 30;  ///< a larger payload fails with `too_large`
    std::uint64_t max_reservation = std::uint64_t{256}
                                    << 20;  ///< taken ahead on the strength of a peer's claim, in bytes
};

/// Puts chunks together into one run of memory, each byte copied once. Chunks may have different lengths, and come in
/// order. A peer's claim of a size is a hint: it never makes the assembler reserve more than the limits say.
///
/// For each chunk: `prepare(length, size)`, fill the place, `commit(size, iteration)`. After a failure the assembler
/// stays failed; `code()` and `text()` say why.
class chunk_assembler {
public:
    explicit chunk_assembler(chunk_limits limits = {}) : limits_(limits) {}

    /// A place for the next chunk's `length` bytes, valid until the next call. `size_hint` is the number of chunks where it
    /// is known already, else 0. May be called again for the same chunk. Empty where it failed (or `length` is 0).
    std::span<std::uint8_t> prepare(std::size_t length, std::int32_t size_hint) {
        if (failed()) return {};
        if (length > limits_.max_payload_bytes - received_) {
            fail(errc::too_large, "the payload is beyond the receiver's limit of " +
                                      std::to_string(limits_.max_payload_bytes) + " bytes at chunk " +
                                      std::to_string(next_));
            return {};
        }
        prepared_ = length;
        if (length == 0) return {};
        if (!buffer_.ensure(received_ + length, estimate(length, size_hint))) {
            fail(errc::too_large, "no memory for a payload of " + std::to_string(received_ + length) + " bytes");
            return {};
        }
        return {buffer_.data() + received_, length};
    }

    /// Accepts the bytes written to the prepared place as chunk `iteration` of `size`. False where they contradict the
    /// chunks before.
    bool commit(std::int32_t size, std::int32_t iteration) {
        if (failed()) return false;
        const auto is = [&] { return " (chunk " + std::to_string(iteration) + " of " + std::to_string(size) + ")"; };
        if (size < 1) return fail(errc::bad_chunk, "a chunk's size must be at least 1" + is());
        if (next_ != 1 && size != size_) {
            return fail(errc::bad_chunk, "the number of chunks changed midway from " + std::to_string(size_) + is());
        }
        if (iteration != next_) return fail(errc::bad_chunk, "expected chunk " + std::to_string(next_) + is());
        if (iteration > size) return fail(errc::bad_chunk, "a chunk's iteration is beyond its size" + is());
        size_ = size;
        received_ += prepared_;
        prepared_ = 0;
        complete_ = iteration == size;
        ++next_;
        return true;
    }

    bool failed() const noexcept { return code_ != errc::ok; }
    errc code() const noexcept { return code_; }
    const std::string& text() const noexcept { return text_; }

    /// True once the last chunk was committed, until `take`.
    bool complete() const noexcept { return complete_; }

    /// True between the first chunk and the last.
    bool in_progress() const noexcept { return next_ != 1 && !complete_; }

    /// Bytes committed so far.
    std::uint64_t received() const noexcept { return received_; }

    /// The payload; only where `complete()`. The assembler is ready for the next payload.
    bytes take() {
        bytes out = buffer_.release(static_cast<std::size_t>(received_));
        received_ = 0;
        prepared_ = 0;
        next_ = 1;
        size_ = 0;
        complete_ = false;
        return out;
    }

private:
    bool fail(errc code, std::string text) {
        code_ = code;
        text_ = std::move(text);
        complete_ = false;
        buffer_.reset();
        return false;
    }

    std::uint64_t estimate(std::size_t length, std::int32_t size_hint) const noexcept {
        if (size_hint <= next_) return received_ + length;
        const auto rest = static_cast<std::uint64_t>(size_hint - next_ + 1);
        const std::uint64_t most =
            std::min(std::max<std::uint64_t>(limits_.max_reservation, 2 * received_), limits_.max_payload_bytes);
        return length > most / rest ? most : std::min(most, received_ + length * rest);
    }

    chunk_limits limits_;
    detail::growing_buffer buffer_;
    std::uint64_t received_ = 0;
    std::size_t prepared_ = 0;
    std::int32_t size_ = 0;
    std::int64_t next_ = 1;  // one more than the largest iteration, in the end
    bool complete_ = false;
    errc code_ = errc::ok;
    std::string text_;
};

}  // namespace ferry
