#include <ferry/detail/shortest_double.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <string_view>

namespace {

using ferry::detail::shortest_decimal;

/// The digits and the exponent that std::to_chars finds, as one text.
std::string by_to_chars(double v) {
    std::array<char, 40> text;
    char* const end = std::to_chars(text.data(), text.data() + text.size(), v, std::chars_format::scientific).ptr;
    const std::string_view all(text.data(), static_cast<std::size_t>(end - text.data()));
    const auto e = all.find('e');
    std::string digits;
    for (const char c : all.substr(0, e)) {
        if (c != '.') digits += c;
    }
    while (digits.size() > 1 && digits.back() == '0') digits.pop_back();
    const auto exponent = std::atoi(std::string(all.substr(e + 1)).c_str()) - static_cast<int>(digits.size()) + 1;
    return digits + "e" + std::to_string(exponent);
}

std::string by_ferry(double v) {
    auto [digits, exponent] = shortest_decimal(v);
    while (digits % 10 == 0) {
        digits /= 10;
        ++exponent;
    }
    return std::to_string(digits) + "e" + std::to_string(exponent);
}

std::string written(double v) {
    std::array<char, 2 * ferry::detail::room_for_double> text;
    text.fill('#');
    char* const end = ferry::detail::write_double(text.data(), v);
    for (std::size_t i = ferry::detail::room_for_double; i < text.size(); ++i) EXPECT_EQ(text[i], '#') << v;
    return {text.data(), end};
}

void check(double v) {
    if (!std::isfinite(v)) return;
    if (v != 0) {
        ASSERT_EQ(by_ferry(std::fabs(v)), by_to_chars(std::fabs(v)));
    }
    const auto text = written(v);
    ASSERT_LE(text.size(), 24U) << text;
    ASSERT_NE(text.find('.'), std::string::npos) << text;
    ASSERT_EQ(std::bit_cast<std::uint64_t>(std::strtod(text.c_str(), nullptr)), std::bit_cast<std::uint64_t>(v))
        << text;
}

TEST(shortest_double, has_the_digits_of_to_chars_for_any_bits) {
    std::mt19937_64 random(1);
    for (int i = 0; i < ferry_test::rounds(300'000); ++i) check(std::bit_cast<double>(random()));
}

TEST(shortest_double, around_every_power_of_two) {
    for (int e = -1074; e <= 1023; ++e) {
        const double v = std::ldexp(1.0, e);
        check(v);
        check(std::nextafter(v, 0));
        check(std::nextafter(v, HUGE_VAL));
    }
}

TEST(shortest_double, around_every_power_of_ten) {
    std::mt19937_64 random(2);
    for (int e = -323; e <= 308; ++e) {
        const double v = std::strtod(("1e" + std::to_string(e)).c_str(), nullptr);
        check(v);
        check(std::nextafter(v, 0));
        check(std::nextafter(v, HUGE_VAL));
        for (int i = 0; i < 50; ++i) check(v * static_cast<double>(random() % 100'000));
    }
}

TEST(shortest_double, of_integers_short_decimals_and_the_smallest) {
    std::mt19937_64 random(3);
    for (int i = 0; i < ferry_test::rounds(100'000); ++i) {
        check(static_cast<double>(random() >> random() % 64));
        check(static_cast<double>(random() % 1'000'000) / std::pow(10, random() % 8));
        check(std::bit_cast<double>(random() % 100'000'000));
    }
}

TEST(shortest_double, is_written_as_json) {
    using limits = std::numeric_limits<double>;
    EXPECT_EQ(written(0.0), "0.0");
    EXPECT_EQ(written(-0.0), "-0.0");
    EXPECT_EQ(written(1.0), "1.0");
    EXPECT_EQ(written(-0.5), "-0.5");
    EXPECT_EQ(written(0.1), "0.1");
    EXPECT_EQ(written(1.0 / 3), "0.3333333333333333");
    EXPECT_EQ(written(1234.5), "1234.5");
    EXPECT_EQ(written(0.00001), "0.00001");
    EXPECT_EQ(written(0.000001), "1.0e-6");
    EXPECT_EQ(written(12345678901234567.0), "12345678901234568.0");
    EXPECT_EQ(written(1e16), "10000000000000000.0");
    EXPECT_EQ(written(1e17), "1.0e+17");
    EXPECT_EQ(written(-1.5e-300), "-1.5e-300");
    EXPECT_EQ(written(limits::max()), "1.7976931348623157e+308");
    EXPECT_EQ(written(limits::min()), "2.2250738585072014e-308");
    EXPECT_EQ(written(-limits::denorm_min()), "-5.0e-324");
}

}  // namespace
