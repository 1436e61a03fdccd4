// Python's integers of any size, as Fed-BioMed's transport sends them. A value to carry, to compare and to print: it has no
// arithmetic.
#pragma once

#include <ferry/detail/tagged_value.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::fedbiomed {

/// An integer of any size: a sign and a magnitude. See `big_integer`, which keeps the magnitude in a vector of bytes.
template <class Magnitude>
class basic_big_integer {
public:
    /// Zero.
    basic_big_integer() = default;

    basic_big_integer(std::unsigned_integral auto value) : basic_big_integer(false, value) {}
    basic_big_integer(std::signed_integral auto value)
        : basic_big_integer(value < 0,
                            value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value)) {}

    /// From decimal digits, with a sign or without one. Takes time in the square of their number. Throws
    /// `error{invalid_argument}` for any other text.
    static basic_big_integer from_text(std::string_view text) {
        basic_big_integer made;
        auto digits = text;
        if (!digits.empty() && (digits.front() == '-' || digits.front() == '+')) {
            made.negative_ = digits.front() == '-';
            digits.remove_prefix(1);
        }
        if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) {
            throw error(errc::invalid_argument, "big_integer: \"" + std::string(text) + "\" is no decimal integer");
        }
        for (const char digit : digits) made.multiply_and_add(10, static_cast<std::uint32_t>(digit - '0'));
        made.normalise();
        return made;
    }

    /// From big-endian two's complement of any length; zero for no bytes.
    static basic_big_integer from_twos_complement(std::span<const std::uint8_t> run) {
        basic_big_integer made;
        made.magnitude_.assign(run.begin(), run.end());
        made.negative_ = !run.empty() && (run.front() & 0x80U) != 0;
        if (made.negative_) negate(made.magnitude_);
        made.normalise();
        return made;
    }

    /// Big-endian two's complement in ceil(bits/8)+1 bytes, where the magnitude has that many bits.
    bytes to_twos_complement() const {
        Magnitude run{0};
        run.insert(run.end(), magnitude_.begin(), magnitude_.end());
        if (negative_) negate(run);
        return bytes::own(std::move(run));
    }

    /// Decimal digits, after a `-` for a negative value. Takes time in the square of their number: mind whose value it is.
    std::string text() const {
        std::string reversed;
        for (auto rest = magnitude_; !rest.empty();) reversed += static_cast<char>('0' + divide_by_ten(rest));
        if (reversed.empty()) reversed = "0";
        if (negative_) reversed += '-';
        return {reversed.rbegin(), reversed.rend()};
    }

    bool negative() const noexcept { return negative_; }

    /// The absolute value, big-endian, without leading zeros; empty for zero.
    std::span<const std::uint8_t> magnitude() const noexcept { return magnitude_; }

    /// True inside -2^63 ... 2^64-1, where msgpack has integers of its own.
    bool fits_msgpack() const noexcept {
        if (magnitude_.size() != 8) return magnitude_.size() < 8;
        if (!negative_ || magnitude_.front() < 0x80) return true;
        return magnitude_.front() == 0x80 &&
               std::all_of(magnitude_.begin() + 1, magnitude_.end(), [](std::uint8_t byte) { return byte == 0; });
    }

    friend bool operator==(const basic_big_integer&, const basic_big_integer&) = default;

private:
    basic_big_integer(bool negative, std::uint64_t magnitude) : negative_(negative) {
        for (int shift = 56; shift >= 0; shift -= 8)
            magnitude_.push_back(static_cast<std::uint8_t>(magnitude >> shift));
        normalise();
    }

    void normalise() {
        magnitude_.erase(magnitude_.begin(), std::find_if(magnitude_.begin(), magnitude_.end(),
                                                          [](std::uint8_t byte) { return byte != 0; }));
        if (magnitude_.empty()) negative_ = false;
    }

    void multiply_and_add(std::uint32_t factor, std::uint32_t carry) {
        for (auto byte = magnitude_.rbegin(); byte != magnitude_.rend(); ++byte) {
            carry += *byte * factor;
            *byte = static_cast<std::uint8_t>(carry);
            carry >>= 8;
        }
        if (carry != 0) magnitude_.insert(magnitude_.begin(), static_cast<std::uint8_t>(carry));
    }

    /// Leaves the quotient without leading zeros; returns the remainder.
    static std::uint32_t divide_by_ten(Magnitude& digits) {
        std::uint32_t remainder = 0;
        for (auto& byte : digits) {
            const std::uint32_t part = remainder * 256 + byte;
            byte = static_cast<std::uint8_t>(part / 10);
            remainder = part % 10;
        }
        if (digits.front() == 0) digits.erase(digits.begin());
        return remainder;
    }

    /// Two's complement within the same length.
    static void negate(Magnitude& run) {
        std::uint32_t carry = 1;
        for (auto byte = run.rbegin(); byte != run.rend(); ++byte) {
            carry += static_cast<std::uint8_t>(~*byte);
            *byte = static_cast<std::uint8_t>(carry);
            carry >>= 8;
        }
    }

    Magnitude magnitude_;  // big-endian, without leading zeros
    bool negative_ = false;
};

using big_integer = basic_big_integer<std::vector<std::uint8_t>>;

/// A plain integer inside -2^63 ... 2^64-1, else the tagged binary.
template <std::same_as<message> M = message>
M to_message(const big_integer& value) {
    if (!value.fits_msgpack()) return detail::tagged<M>("int", value.to_twos_complement());
    std::uint64_t magnitude = 0;
    for (const auto byte : value.magnitude()) magnitude = magnitude << 8 | byte;
    return value.negative() ? M(static_cast<std::int64_t>(0 - magnitude)) : M(magnitude);
}

/// The value of a plain integer or of a tagged one. Throws `error{decode_failed}` for anything else.
template <std::same_as<message> M = message>
big_integer as_big_integer(const std::type_identity_t<M>& m) {
    if (m.is_number_unsigned()) return m.template get<std::uint64_t>();
    if (m.is_number_integer()) return m.template get<std::int64_t>();
    if (detail::tag_of(m) != "int" || !detail::is_bin(detail::tagged_value(m))) {
        detail::undecodable("wanted an integer, got " + detail::what_is(m));
    }
    const auto& run = detail::tagged_value(m).get_binary();
    return big_integer::from_twos_complement({run.data(), run.size()});
}

}  // namespace ferry::fedbiomed
