// What several tests need: an assertion on ferry's errors, and data that is easy to tell apart.
#pragma once

#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry_test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#else
inline constexpr bool sanitized = false;
#endif

/// How often a test repeats what it does with random data: a tenth as often where a sanitizer makes it slow.
constexpr int rounds(int usual) { return sanitized ? usual / 10 : usual; }

/// Succeeds where `run` throws a `ferry::error` of this code whose text holds `part`.
template <class Run>
testing::AssertionResult fails(Run&& run, ferry::errc code, std::string_view part) {
    try {
        std::forward<Run>(run)();
    } catch (const ferry::error& e) {
        if (e.code() != code) {
            return testing::AssertionFailure() << "failed with \"" << ferry::to_string(e.code()) << "\": " << e.what();
        }
        if (std::string_view(e.what()).find(part) == std::string_view::npos) {
            return testing::AssertionFailure() << "the text doesn't hold \"" << part << "\": " << e.what();
        }
        return testing::AssertionSuccess();
    } catch (const std::exception& e) {
        return testing::AssertionFailure() << "threw something else: " << e.what();
    }
    return testing::AssertionFailure() << "did not fail";
}

/// `size` bytes of a pattern that no small period repeats.
inline std::vector<std::uint8_t> pattern(std::size_t size, std::uint32_t seed = 1) {
    std::vector<std::uint8_t> out(size);
    std::uint32_t state = seed * 2654435761U + 1;
    for (auto& byte : out) {
        state = state * 1664525U + 1013904223U;
        byte = static_cast<std::uint8_t>(state >> 24);
    }
    return out;
}

/// The bytes written as hexadecimal digits; blanks are skipped.
inline ferry::bytes from_hex(std::string_view digits) {
    std::vector<std::uint8_t> out;
    int high = -1;
    for (const char c : digits) {
        if (c == ' ') continue;
        const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
        if (high < 0) {
            high = digit;
        } else {
            out.push_back(static_cast<std::uint8_t>(high * 16 + digit));
            high = -1;
        }
    }
    return ferry::bytes::own(std::move(out));
}

/// The first bytes as hexadecimal digits without blanks.
inline std::string to_hex(const ferry::bytes& run, std::size_t most = 64) {
    static constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const auto byte : run.slice(0, most)) {
        out += digits[byte >> 4];
        out += digits[byte & 15];
    }
    return out;
}

}  // namespace ferry_test
