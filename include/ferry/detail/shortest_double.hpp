// layer 0
// The shortest decimal that is read as the same float64, by the method of Raffaello Giulietti ("The Schubfach way to render
// doubles", 2021). The same digits as std::to_chars, in less than half its time (bench/serializer_bench).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ferry::detail {

/// `digits` times 10 to the power of `exponent`.
struct decimal {
    std::uint64_t digits;
    int exponent;
};

__extension__ using uint128 = unsigned __int128;

/// 10 to the power of k, for each k that can be needed: the upper 128 bits of its binary digits, plus one. Computed at the
/// first use, exactly: upwards by multiplying a long integer by 10, downwards by dividing one by 10.
class powers_of_ten {
public:
    static constexpr int least = -292, greatest = 324;

    static const powers_of_ten& all() {
        static const powers_of_ten table;
        return table;
    }
    uint128 operator[](int k) const noexcept { return table_[static_cast<std::size_t>(k - least)]; }

private:
    using limb = std::uint32_t;
    using number = std::array<limb, 40>;  // the least significant first

    powers_of_ten() {
        number power{1};
        for (int k = 0; k <= greatest; ++k) {
            at(k) = top(power) + 1;
            std::uint64_t carry = 0;
            for (auto& each : power) {
                carry += std::uint64_t{each} * 10;
                each = static_cast<limb>(carry);
                carry >>= 32;
            }
        }
        number inverse{};
        inverse.back() = 1;
        for (int k = -1; k >= least; --k) {
            std::uint64_t rest = 0;
            for (auto each = inverse.rbegin(); each != inverse.rend(); ++each) {
                rest = rest << 32 | *each;
                *each = static_cast<limb>(rest / 10);
                rest %= 10;
            }
            at(k) = top(inverse) + 1;
        }
    }

    uint128& at(int k) noexcept { return table_[static_cast<std::size_t>(k - least)]; }

    /// The 128 bits from the highest one that is set.
    static uint128 top(const number& of) noexcept {
        std::size_t high = of.size() - 1;
        while (of[high] == 0) --high;
        const auto limb_at = [&](std::size_t below) -> uint128 { return below <= high ? of[high - below] : 0; };
        const uint128 upper = limb_at(0) << 96 | limb_at(1) << 64 | limb_at(2) << 32 | limb_at(3);
        const auto shift = std::countl_zero(of[high]);
        return shift == 0 ? upper : upper << shift | limb_at(4) >> (32 - shift);
    }

    std::array<uint128, greatest - least + 1> table_;
};

/// Of a finite number above 0. The last digit may be 0.
inline decimal shortest_decimal(double number) noexcept {
    constexpr int fraction_bits = 52, bias = 1075;
    const auto bits = std::bit_cast<std::uint64_t>(number);
    const auto fraction = bits & ((std::uint64_t{1} << fraction_bits) - 1);
    const auto exponent = static_cast<int>(bits >> fraction_bits & 0x7ff);
    const std::uint64_t c = exponent != 0 ? fraction | std::uint64_t{1} << fraction_bits : fraction;
    const int q = exponent != 0 ? exponent - bias : 1 - bias;

    // The number lies between its neighbours at a quarter of its last place; below a power of two they're closer.
    const bool even = c % 2 == 0;
    const bool closer = fraction == 0 && exponent > 1;
    const int k = (q * 1262611 - (closer ? 524031 : 0)) >> 22;  // floor of the logarithm of its interval
    const int h = q + (-k * 1741647 >> 19) + 1;
    const uint128 power = powers_of_ten::all()[-k];
    const auto scaled = [&](std::uint64_t part) -> std::uint64_t {  // rounded to odd
        const std::uint64_t factor = part << h;
        const uint128 low = static_cast<uint128>(static_cast<std::uint64_t>(power)) * factor;
        const uint128 sum = static_cast<uint128>(static_cast<std::uint64_t>(power >> 64)) * factor + (low >> 64);
        return static_cast<std::uint64_t>(sum >> 64) | (static_cast<std::uint64_t>(sum) > 1);
    };
    const auto middle = scaled(4 * c);
    const auto lower = scaled(4 * c - 2 + closer) + !even;
    const auto upper = scaled(4 * c + 2) - !even;

    // Which of the candidates lie in the interval? All are looked at, since the answer can't be foreseen by a processor.
    const auto s = middle / 4, shorter = s / 10;
    const bool short_below = lower <= 40 * shorter, short_above = 40 * shorter + 40 <= upper;
    const bool is_short = (s >= 10) & (short_below != short_above);
    const bool below = lower <= 4 * s, above = 4 * s + 4 <= upper;
    const auto half = 4 * s + 2;
    const bool round_up = below != above ? above : (middle > half) | ((middle == half) & (s % 2 == 1));
    return {is_short ? shorter + short_above : s + round_up, k + is_short};
}

/// Writes 17 digits of a number below 10 to the power of 17, with leading zeros.
inline void write_17_digits(char* to, std::uint64_t number) noexcept {
    static constexpr auto pairs = [] {
        std::array<char, 200> text{};
        for (std::size_t i = 0; i < 100; ++i) {
            text[2 * i] = static_cast<char>('0' + i / 10);
            text[2 * i + 1] = static_cast<char>('0' + i % 10);
        }
        return text;
    }();
    const auto put_8 = [&](char* at, std::uint32_t eight) {
        const std::uint32_t high = eight / 10'000, low = eight % 10'000;
        std::memcpy(at, &pairs[2 * (high / 100)], 2);
        std::memcpy(at + 2, &pairs[2 * (high % 100)], 2);
        std::memcpy(at + 4, &pairs[2 * (low / 100)], 2);
        std::memcpy(at + 6, &pairs[2 * (low % 100)], 2);
    };
    const auto upper = number / 100'000'000;
    *to = static_cast<char>('0' + upper / 100'000'000);
    put_8(to + 1, static_cast<std::uint32_t>(upper % 100'000'000));
    put_8(to + 9, static_cast<std::uint32_t>(number % 100'000'000));
}

inline constexpr std::size_t room_for_double = 32;  // the longest takes 24, and 17 digits are written in any case

/// Writes a finite number as JSON, always with a point or an exponent; returns the end.
inline char* write_double(char* to, double number) noexcept {
    *to = '-';
    to += std::bit_cast<std::uint64_t>(number) >> 63;
    number = std::fabs(number);
    if (number == 0) return std::copy_n("0.0", 3, to);
    static constexpr auto tens = [] {
        std::array<std::uint64_t, 18> powers{1};
        for (std::size_t i = 1; i < powers.size(); ++i) powers[i] = powers[i - 1] * 10;
        return powers;
    }();
    auto [value, exponent] = shortest_decimal(number);
    if (value % 10 == 0) [[unlikely]] {
        do {
            value /= 10;
            ++exponent;
        } while (value % 10 == 0);
    }
    auto size = static_cast<std::size_t>(std::bit_width(value)) * 1233 >> 12;  // the digits' number, or one less
    size += value >= tens[size];
    value *= tens[17 - size];

    const int point = static_cast<int>(size) + exponent;  // the digits before it
    if (point <= 0 && point > -5) {
        std::memcpy(to, "0.0000", 6);
        write_17_digits(to + 2 - point, value);
        return to + 2 - point + size;
    }
    const bool plain = point > 0 && point <= 17;
    const auto whole = plain ? static_cast<std::size_t>(point) : 1;
    write_17_digits(to + 1, value);  // the first ones make room for the point
    for (std::size_t i = 0; i < whole; ++i) to[i] = to[i + 1];
    to[whole] = '.';
    char* end = to + size + 1;
    if (whole >= size) {
        end = to + whole + 2;
        end[-1] = '0';
    }
    if (plain) return end;
    *end++ = 'e';
    if (point > 0) *end++ = '+';
    return std::to_chars(end, end + 4, point - 1).ptr;
}

}  // namespace ferry::detail
