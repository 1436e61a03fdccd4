// Cutting a payload into chunks, generic over MAX_MESSAGE_BYTES_LENGTH, and what a receiver of chunks accepts.
// Knows neither gRPC nor protobuf: a chunk is a range of the payload, its 1-based iteration, and the number of chunks.
#pragma once

#include <ferry/error.hpp>
#include <ferry/policy.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
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
    std::int32_t size;       ///< number of chunks of the payload (or leg), at least 1
    std::int32_t iteration;  ///< of this chunk, from 1 to `size`

    bool last() const noexcept { return iteration == size; }
};

/// Walks through the chunks of a payload of a given size, or of its rest from a given byte on. Offsets count from the
/// payload's first byte; `size` and `iteration` count the chunks of this leg. Where nothing is left, it's one empty chunk.
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

    /// Throws `error{too_large}` where there are more chunks than the wire can number, and `error{invalid_argument}`
    /// where `from` is beyond the payload.
    explicit constexpr chunk_cutter(std::uint64_t payload_bytes, std::uint64_t from = 0)
        : payload_bytes_(payload_bytes), from_(from) {
        if (from > payload_bytes) {
            throw error(errc::invalid_argument, "chunk_cutter: byte " + std::to_string(from) + " of a payload of " +
                                                    std::to_string(payload_bytes) + " bytes");
        }
        if (!fits(payload_bytes - from)) {
            throw error(errc::too_large, "a payload of " + std::to_string(payload_bytes) +
                                             " bytes has more than 2^31-1 chunks of " +
                                             std::to_string(MAX_MESSAGE_BYTES_LENGTH) + " bytes: take larger chunks");
        }
        size_ = static_cast<std::int32_t>(count(payload_bytes - from));
    }

    constexpr bool done() const noexcept { return next_ > size_; }

    /// The next chunk; only while `!done()`.
    constexpr chunk next() noexcept {
        const std::uint64_t offset = from_ + static_cast<std::uint64_t>(next_ - 1) * MAX_MESSAGE_BYTES_LENGTH;
        const auto length = std::min<std::uint64_t>(MAX_MESSAGE_BYTES_LENGTH, payload_bytes_ - offset);
        return {offset, static_cast<std::uint32_t>(length), size_, static_cast<std::int32_t>(next_++)};
    }

private:
    std::uint64_t payload_bytes_;
    std::uint64_t from_;
    std::int32_t size_ = 1;
    std::int64_t next_ = 1;
};

/// What a receiver accepts.
struct chunk_limits {
    std::uint64_t max_payload_bytes = std::uint64_t{16} << 30;  ///< a larger payload fails with `too_large`
    /// Taken ahead on the strength of a peer's claim, in bytes. What is larger grows, which may copy it.
    std::uint64_t max_reservation = std::uint64_t{320} << 20;
};

}  // namespace ferry
