// layer 0
// Base64 with padding (RFC 4648, section 4). Decoding takes nothing else: no blanks, no other alphabet, no stray bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ferry::detail {

inline constexpr std::string_view base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::size_t base64_size(std::size_t bytes) noexcept { return (bytes + 2) / 3 * 4; }

/// Writes `base64_size(from.size())` characters.
inline void to_base64(std::span<const std::uint8_t> from, char* to) noexcept {
    const auto put = [&](std::uint32_t bits) {
        for (int shift = 18; shift >= 0; shift -= 6) *to++ = base64_digits[(bits >> shift) & 63];
    };
    std::size_t at = 0;
    for (; at + 3 <= from.size(); at += 3) {
        put(std::uint32_t{from[at]} << 16 | std::uint32_t{from[at + 1]} << 8 | std::uint32_t{from[at + 2]});
    }
    const auto rest = from.size() - at;
    if (rest == 0) return;
    put(std::uint32_t{from[at]} << 16 | (rest == 2 ? std::uint32_t{from[at + 1]} << 8 : 0));
    to[-1] = '=';
    if (rest == 1) to[-2] = '=';
}

/// The number of bytes that `from` stands for, were it base64.
constexpr std::size_t from_base64_size(std::string_view from) noexcept {
    const std::size_t padding = from.ends_with("==") ? 2 : from.ends_with('=') ? 1 : 0;
    return from.size() / 4 * 3 - (from.empty() ? 0 : padding);
}

/// Writes `from_base64_size(from)` bytes. False where `from` isn't base64.
inline bool from_base64(std::string_view from, std::uint8_t* to) noexcept {
    static constexpr auto values = [] {
        std::array<std::uint8_t, 256> table{};
        table.fill(0xff);
        for (std::size_t i = 0; i < 64; ++i)
            table[static_cast<std::uint8_t>(base64_digits[i])] = static_cast<std::uint8_t>(i);
        return table;
    }();
    if (from.size() % 4 != 0) return false;
    const auto value = [&](std::size_t at) { return std::uint32_t{values[static_cast<std::uint8_t>(from[at])]}; };
    const std::size_t padding = from.ends_with("==") ? 2 : from.ends_with('=') ? 1 : 0;
    const std::size_t whole = padding > 0 ? from.size() - 4 : from.size();
    std::uint32_t faults = 0;
    for (std::size_t at = 0; at < whole; at += 4) {
        const auto a = value(at), b = value(at + 1), c = value(at + 2), d = value(at + 3);
        faults |= a | b | c | d;
        *to++ = static_cast<std::uint8_t>(a << 2 | b >> 4);
        *to++ = static_cast<std::uint8_t>(b << 4 | c >> 2);
        *to++ = static_cast<std::uint8_t>(c << 6 | d);
    }
    if (padding > 0) {
        const auto a = value(whole), b = value(whole + 1), c = padding == 1 ? value(whole + 2) : 0;
        faults |= a | b | c;
        if (padding == 2 ? (b & 15) != 0 : (c & 3) != 0) return false;
        *to++ = static_cast<std::uint8_t>(a << 2 | b >> 4);
        if (padding == 1) *to++ = static_cast<std::uint8_t>(b << 4 | c >> 2);
    }
    return faults < 64;
}

}  // namespace ferry::detail
