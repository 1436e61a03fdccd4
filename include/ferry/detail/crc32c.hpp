// layer 0
// CRC-32C (Castagnoli's polynomial, as in iSCSI), by the processor's instructions where it has them, else by tables.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace ferry::detail {

// Polynomials are reflected: the highest bit is the coefficient of x^0.
inline constexpr std::uint32_t crc32c_polynomial = 0x82f63b78;

/// a * b modulo the polynomial.
constexpr std::uint32_t crc32c_multiply(std::uint32_t a, std::uint32_t b) noexcept {
    std::uint32_t product = 0;
    for (std::uint32_t bit = std::uint32_t{1} << 31; bit != 0; bit >>= 1) {
        if (a & bit) product ^= b;
        b = (b >> 1) ^ (b & 1 ? crc32c_polynomial : 0);
    }
    return product;
}

/// x^(8 * 2^n), for every bit n of a length in bytes.
inline constexpr auto crc32c_powers = [] {
    std::array<std::uint32_t, 64> powers{};
    std::uint32_t power = std::uint32_t{1} << (31 - 8);
    for (auto& each : powers) {
        each = power;
        power = crc32c_multiply(power, power);
    }
    return powers;
}();

/// x^(8 * length): what a CRC is multiplied by when `length` bytes follow.
constexpr std::uint32_t crc32c_shift(std::uint64_t length) noexcept {
    std::uint32_t shift = std::uint32_t{1} << 31;
    for (std::size_t n = 0; length != 0; ++n, length >>= 1) {
        if (length & 1) shift = crc32c_multiply(crc32c_powers[n], shift);
    }
    return shift;
}

/// The CRC of a followed by b, from the CRC of each and the length of b in bytes. Takes microseconds at most.
constexpr std::uint32_t crc32c_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t length_b) noexcept {
    return crc32c_multiply(crc32c_shift(length_b), crc_a) ^ crc_b;
}

/// [k][b]: what byte b adds to the CRC when k more bytes follow.
inline constexpr auto crc32c_bytes = [] {
    std::array<std::array<std::uint32_t, 256>, 8> table{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t crc = b;
        for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (crc & 1 ? crc32c_polynomial : 0);
        table[0][b] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k) {
        for (std::size_t b = 0; b < 256; ++b) {
            const auto before = table[k - 1][b];
            table[k][b] = (before >> 8) ^ table[0][before & 255];
        }
    }
    return table;
}();

/// Eight bytes at a time through tables. For any processor.
constexpr std::uint32_t crc32c_portable(std::uint32_t crc, std::span<const std::uint8_t> data) noexcept {
    const auto& t = crc32c_bytes;
    const auto* at = data.data();
    auto left = data.size();
    crc = ~crc;
    for (; left >= 8; left -= 8, at += 8) {
        crc ^=
            std::uint32_t{at[0]} | std::uint32_t{at[1]} << 8 | std::uint32_t{at[2]} << 16 | std::uint32_t{at[3]} << 24;
        crc = t[7][crc & 255] ^ t[6][crc >> 8 & 255] ^ t[5][crc >> 16 & 255] ^ t[4][crc >> 24] ^ t[3][at[4]] ^
              t[2][at[5]] ^ t[1][at[6]] ^ t[0][at[7]];
    }
    for (; left > 0; --left, ++at) crc = (crc >> 8) ^ t[0][(crc ^ *at) & 255];
    return ~crc;
}

#if defined(__x86_64__)

inline bool crc32c_has_hardware() noexcept {
    static const bool has = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
    return has;
}

/// x^bits, as a factor of 64 bits for the carry-less multiplication of reflected values.
constexpr long long crc32c_factor(unsigned bits) noexcept {
    std::uint32_t power = std::uint32_t{1} << 31;
    for (unsigned i = 0; i < bits; ++i) power = crc32c_multiply(power, std::uint32_t{1} << 30);
    return power;
}

/// Moves 16 bytes `Bits` bits back, and adds what stands there.
template <unsigned Bits>
[[gnu::target("sse4.2,pclmul")]] inline __m128i crc32c_fold(__m128i moved, __m128i onto) noexcept {
    constexpr auto low = crc32c_factor(Bits + 31), high = crc32c_factor(Bits - 33);
    const auto factors = _mm_set_epi64x(high, low);
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(moved, factors, 0x00), onto),
                         _mm_clmulepi64_si128(moved, factors, 0x11));
}

[[gnu::target("sse4.2,pclmul")]] inline __m128i crc32c_load(const std::uint8_t* at) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

/// By the processor's instructions; only where `crc32c_has_hardware()`. What is large goes through four interleaved
/// streams of carry-less multiplications: the CRC instruction alone is slower, on some processors by far.
[[gnu::target("sse4.2,pclmul")]] inline std::uint32_t crc32c_hardware(std::uint32_t crc,
                                                                      std::span<const std::uint8_t> data) noexcept {
    const auto* at = data.data();
    auto left = data.size();
    std::uint64_t state = ~crc;
    if (left >= 256) {
        auto a = _mm_xor_si128(crc32c_load(at), _mm_cvtsi64_si128(static_cast<long long>(state)));
        auto b = crc32c_load(at + 16), c = crc32c_load(at + 32), d = crc32c_load(at + 48);
        for (at += 64, left -= 64; left >= 64; at += 64, left -= 64) {
            a = crc32c_fold<512>(a, crc32c_load(at));
            b = crc32c_fold<512>(b, crc32c_load(at + 16));
            c = crc32c_fold<512>(c, crc32c_load(at + 32));
            d = crc32c_fold<512>(d, crc32c_load(at + 48));
        }
        const auto all = crc32c_fold<256>(crc32c_fold<128>(a, b), crc32c_fold<128>(c, d));
        state = _mm_crc32_u64(0, static_cast<std::uint64_t>(_mm_cvtsi128_si64(all)));
        state = _mm_crc32_u64(state, static_cast<std::uint64_t>(_mm_extract_epi64(all, 1)));
    }
    for (; left >= 8; left -= 8, at += 8) {
        std::uint64_t next;
        std::memcpy(&next, at, 8);
        state = _mm_crc32_u64(state, next);
    }
    for (; left > 0; --left, ++at) state = _mm_crc32_u8(static_cast<std::uint32_t>(state), *at);
    return ~static_cast<std::uint32_t>(state);
}

#elif defined(__ARM_FEATURE_CRC32) && defined(__AARCH64EL__)

constexpr bool crc32c_has_hardware() noexcept { return true; }

/// By the processor's instruction.
inline std::uint32_t crc32c_hardware(std::uint32_t crc, std::span<const std::uint8_t> data) noexcept {
    const auto* at = data.data();
    auto left = data.size();
    crc = ~crc;
    for (; left >= 8; left -= 8, at += 8) {
        std::uint64_t next;
        std::memcpy(&next, at, 8);
        crc = __crc32cd(crc, next);
    }
    for (; left > 0; --left, ++at) crc = __crc32cb(crc, *at);
    return ~crc;
}

#else

constexpr bool crc32c_has_hardware() noexcept { return false; }
constexpr std::uint32_t crc32c_hardware(std::uint32_t crc, std::span<const std::uint8_t> data) noexcept {
    return crc32c_portable(crc, data);
}

#endif

/// The CRC of what `crc` stands for, followed by `data`; that of nothing is 0.
inline std::uint32_t crc32c(std::uint32_t crc, std::span<const std::uint8_t> data) noexcept {
    return crc32c_has_hardware() ? crc32c_hardware(crc, data) : crc32c_portable(crc, data);
}

}  // namespace ferry::detail
