// layer 1
// UTF-8, to check, to mend and to write.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ferry::detail {

/// The length of the UTF-8 sequence at the beginning of `at`, which is not ASCII; 0 where it is none (or an overlong one, a
/// surrogate, or beyond U+10FFFF).
inline std::size_t utf8_sequence(std::string_view at) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(at[i]); };
    const auto follows = [&](std::size_t i) { return i < at.size() && (byte(i) & 0xc0) == 0x80; };
    const auto first = byte(0);
    if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
    if ((first & 0xf0) == 0xe0 && follows(1) && follows(2)) {
        if (first == 0xe0 && byte(1) < 0xa0) return 0;
        return first == 0xed && byte(1) >= 0xa0 ? 0 : 3;
    }
    if (first >= 0xf0 && first <= 0xf4 && follows(1) && follows(2) && follows(3)) {
        if (first == 0xf0 && byte(1) < 0x90) return 0;
        return first == 0xf4 && byte(1) >= 0x90 ? 0 : 4;
    }
    return 0;
}

/// Of what a peer has sent, so much is quoted.
inline constexpr std::size_t quoted_bytes = 100;

/// The text's first `most` bytes or a little less; a question mark for each byte that is no UTF-8.
inline std::string utf8_text(std::string_view text, std::size_t most) {
    std::string out;
    while (!text.empty()) {
        const auto known = static_cast<std::uint8_t>(text.front()) < 0x80 ? 1 : utf8_sequence(text);
        const auto length = std::max<std::size_t>(known, 1);
        if (out.size() + length > most) break;
        out += known > 0 ? text.substr(0, length) : "?";
        text.remove_prefix(length);
    }
    return out;
}

/// `code` is at most U+10FFFF and no surrogate.
inline void append_utf8(std::string& to, std::uint32_t code) {
    static constexpr std::array<std::uint32_t, 4> first = {0, 0xc0, 0xe0, 0xf0};
    std::size_t more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    to += static_cast<char>(first[more] | (code >> (6 * more)));
    while (more-- > 0) to += static_cast<char>(0x80 | ((code >> (6 * more)) & 0x3f));
}

}  // namespace ferry::detail
