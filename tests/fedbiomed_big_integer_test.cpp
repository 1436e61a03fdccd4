#include <ferry/fedbiomed/big_integer.hpp>

#include <ferry/serializer/msgpack.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::message;
using ferry::fedbiomed::as_big_integer;
using ferry::fedbiomed::big_integer;
using ferry_test::fails;
using ferry_test::from_hex;
using ferry_test::to_hex;

const ferry::msgpack_serializer<> msgpack_format;

bytes encoded(const big_integer& value) { return msgpack_format.encode(to_message(value)).flatten(); }

big_integer decoded(std::string_view hex) { return as_big_integer(msgpack_format.decode(from_hex(hex))); }

/// {"__type__": "int", "value": ...
constexpr std::string_view tagged = "82a85f5f747970655f5fa3696e74a576616c7565";

/// Succeeds where the value is written as `hex`, and is read from it again.
testing::AssertionResult is(std::string_view text, const std::string& hex) {
    const auto value = big_integer::from_text(text);
    if (to_hex(encoded(value), 1000) != hex)
        return testing::AssertionFailure() << text << " is " << to_hex(encoded(value));
    const auto read = decoded(hex);
    if (read != value || read.text() != text) return testing::AssertionFailure() << hex << " is " << read.text();
    return testing::AssertionSuccess();
}

TEST(fedbiomed_big_integer, is_what_python_writes) {
    // tests/peers/wire.py: dumps(v).hex() for each v; the first bytes are those of `tagged`.
    struct written {
        std::string_view value, hex;
    };
    for (const auto& [value, hex] : std::vector<written>{
             {"18446744073709551616", "c40a00010000000000000000"},       // 2**64
             {"-9223372036854775809", "c409ff7fffffffffffffff"},         // -2**63 - 1
             {"-9295429630892703744", "c409ff7f00000000000000"},         // -(0x81 << 56)
             {"-18446744073709551615", "c409ff0000000000000001"},        // -2**64 + 1
             {"-18446744073709551616", "c40affff0000000000000000"},      // -2**64
             {"-18446744073709551617", "c40afffeffffffffffffffff"},      // -2**64 - 1
             {"2361183241434822606847", "c40a007fffffffffffffffff"},     // 2**71 - 1
             {"2361183241434822606848", "c40a00800000000000000000"},     // 2**71
             {"-2361183241434822606848", "c40aff800000000000000000"},    // -2**71
             {"4722366482869645213696", "c40b0001000000000000000000"},   // 2**72
             {"-4722366482869645213696", "c40bffff000000000000000000"},  // -2**72
             {"-4722366482869645213697", "c40bfffeffffffffffffffffff"},  // -2**72 - 1
             {"1000000000000000000000000000000", "c40e000c9f2c9cd04674edea40000000"},
             {"-1000000000000000000000000000000", "c40efff360d3632fb98b1215c0000000"},
             {"170141183460469231731687303715884105728", "c4110080000000000000000000000000000000"},   // 2**127
             {"-170141183460469231731687303715884105728", "c411ff80000000000000000000000000000000"},  // -2**127
             {"515377520732011331036461129765621272702107522001",
              "c415005a4653ca673768565b41f775d6947d55cf3813d1"},  // 3**100
         }) {
        EXPECT_TRUE(is(value, std::string(tagged) + std::string(hex)));
    }
}

TEST(fedbiomed_big_integer, is_a_plain_integer_inside_64_bits) {
    EXPECT_TRUE(is("0", "00"));
    EXPECT_TRUE(is("1", "01"));
    EXPECT_TRUE(is("-1", "ff"));
    EXPECT_TRUE(is("300", "cd012c"));
    EXPECT_TRUE(is("-129", "d1ff7f"));
    EXPECT_TRUE(is("9223372036854775807", "cf7fffffffffffffff"));
    EXPECT_TRUE(is("9223372036854775808", "cf8000000000000000"));
    EXPECT_TRUE(is("18446744073709551615", "cfffffffffffffffff"));
    EXPECT_TRUE(is("-9223372036854775807", "d38000000000000001"));
    EXPECT_TRUE(is("-9223372036854775808", "d38000000000000000"));
}

/// What the protocol says, from bits: `places` bits of two's complement, from those of the magnitude.
bytes by_the_rule(const std::vector<bool>& magnitude_bits, bool negative) {
    const std::size_t length = (magnitude_bits.size() + 7) / 8 + 1;
    std::vector<bool> bits(length * 8 - magnitude_bits.size(), false);
    bits.insert(bits.end(), magnitude_bits.begin(), magnitude_bits.end());
    if (negative) {
        // All bits above the lowest 1 change.
        std::size_t lowest = bits.size();
        while (!bits[lowest - 1]) --lowest;
        for (std::size_t i = 0; i + 1 < lowest; ++i) bits[i] = !bits[i];
    }
    std::vector<std::uint8_t> run(length);
    for (std::size_t i = 0; i < bits.size(); ++i) {
        if (bits[i]) run[i / 8] = static_cast<std::uint8_t>(run[i / 8] | 1U << (7 - i % 8));
    }
    return bytes::own(std::move(run));
}

TEST(fedbiomed_big_integer, has_its_length_by_the_rule_at_each_number_of_bits) {
    for (std::size_t bits = 65; bits <= 200; ++bits) {
        std::vector<bool> power(bits, false), full(bits, true), mixed(bits, false);
        power[0] = mixed[0] = true;
        for (std::size_t i = 1; i < bits; ++i) mixed[i] = i * i % 7 < 3;
        for (const auto& magnitude : {power, full, mixed}) {
            for (const bool negative : {false, true}) {
                const auto run = by_the_rule(magnitude, negative);
                ASSERT_EQ(run.size(), (bits + 7) / 8 + 1);
                const auto value = big_integer::from_twos_complement({run.data(), run.size()});
                EXPECT_EQ(value.negative(), negative);
                EXPECT_EQ(value.to_twos_complement(), run) << bits;
                EXPECT_EQ(to_message(value)["value"].get<bytes>(), run) << bits;
                EXPECT_EQ(as_big_integer(to_message(value)), value);
                EXPECT_EQ(big_integer::from_text(value.text()), value) << value.text();
            }
        }
    }
}

TEST(fedbiomed_big_integer, twos_complement_may_be_longer_or_shorter_than_need_be) {
    const auto value_of = [](const bytes& run) {
        return big_integer::from_twos_complement({run.data(), run.size()}).text();
    };
    EXPECT_EQ(value_of({}), "0");
    EXPECT_EQ(value_of({0, 0, 0}), "0");
    EXPECT_EQ(value_of({0, 0, 5}), "5");
    EXPECT_EQ(value_of({0x7f}), "127");
    EXPECT_EQ(value_of({0x80}), "-128");
    EXPECT_EQ(value_of({0xff}), "-1");
    EXPECT_EQ(value_of({0xff, 0xff, 0xfe}), "-2");
    EXPECT_EQ(value_of({0x00, 0x80}), "128");
}

TEST(fedbiomed_big_integer, is_made_of_each_integer) {
    EXPECT_EQ(big_integer(), big_integer(0));
    EXPECT_TRUE(big_integer(0).magnitude().empty());
    EXPECT_EQ(big_integer(-5).text(), "-5");
    EXPECT_EQ(big_integer(std::int8_t{-128}).text(), "-128");
    EXPECT_EQ(big_integer(std::uint8_t{255}).text(), "255");
    EXPECT_EQ(big_integer(std::numeric_limits<std::int64_t>::min()).text(), "-9223372036854775808");
    EXPECT_EQ(big_integer(std::numeric_limits<std::uint64_t>::max()).text(), "18446744073709551615");
    EXPECT_NE(big_integer(5), big_integer(-5));
}

TEST(fedbiomed_big_integer, text_has_one_form) {
    EXPECT_EQ(big_integer::from_text("+000123").text(), "123");
    EXPECT_EQ(big_integer::from_text("-0"), big_integer(0));
    EXPECT_FALSE(big_integer::from_text("-0").negative());
    EXPECT_EQ(big_integer::from_text("-00100000000000000000000").text(), "-100000000000000000000");
    for (const auto* text : {"", "-", "+", "1.5", "0x10", " 1", "1 ", "--1", "1e3", "12a"}) {
        EXPECT_TRUE(fails([&] { big_integer::from_text(text); }, errc::invalid_argument, "is no decimal integer"))
            << text;
    }
}

TEST(fedbiomed_big_integer, anything_else_is_no_integer) {
    for (const message& m :
         {message(), message("1"), message(1.0), message(true), message(bytes{1}), message::array({1}),
          message{{"__type__", "int"}}, message{{"__type__", "int"}, {"value", 5}},
          message{{"__type__", "int"}, {"value", message::binary(bytes{1}, 3)}},
          message{{"__type__", "tuple"}, {"value", bytes{1}}}}) {
        EXPECT_TRUE(fails([&] { as_big_integer(m); }, errc::decode_failed, "wanted an integer")) << m;
    }
}

}  // namespace
