#include <ferry/detail/crc32c.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

namespace {

using ferry::detail::crc32c;
using ferry::detail::crc32c_combine;
using ferry::detail::crc32c_hardware;
using ferry::detail::crc32c_has_hardware;
using ferry::detail::crc32c_portable;
using ferry_test::pattern;

using view = std::span<const std::uint8_t>;
using function = std::uint32_t (*)(std::uint32_t, view) noexcept;

/// One bit at a time, by the definition.
std::uint32_t bit_by_bit(std::uint32_t crc, view data) {
    crc = ~crc;
    for (const auto byte : data) {
        crc ^= byte;
        for (int i = 0; i < 8; ++i) crc = (crc & 1) ? (crc >> 1) ^ 0x82f63b78U : crc >> 1;
    }
    return ~crc;
}

class crc32c_ways : public testing::TestWithParam<function> {};

TEST_P(crc32c_ways, give_the_known_values) {
    const auto of = [](const std::vector<std::uint8_t>& data) { return GetParam()(0, data); };
    std::vector<std::uint8_t> counted(32);
    std::iota(counted.begin(), counted.end(), std::uint8_t{0});
    EXPECT_EQ(of({}), 0U);
    EXPECT_EQ(of(std::vector<std::uint8_t>(32, 0x00)), 0x8a9136aaU);
    EXPECT_EQ(of(std::vector<std::uint8_t>(32, 0xff)), 0x62a8ab43U);
    EXPECT_EQ(of(counted), 0x46dd794eU);
    EXPECT_EQ(of({counted.rbegin(), counted.rend()}), 0x113fdb5cU);
    const std::string_view digits = "123456789";
    EXPECT_EQ(of({digits.begin(), digits.end()}), 0xe3069283U);
}

TEST_P(crc32c_ways, agree_with_the_definition_at_every_length_and_alignment) {
    const auto data = pattern(7000);
    for (std::size_t length = 0; length < 300; ++length) {
        const auto part = view(data).subspan(length % 17, length);
        ASSERT_EQ(GetParam()(0, part), bit_by_bit(0, part)) << length;
    }
    for (std::size_t length = 3060; length < 6200; length += length % 64 < 9 || length % 64 > 55 ? 1 : 23) {
        const auto part = view(data).subspan(length % 9, length);
        ASSERT_EQ(GetParam()(0x12345678, part), bit_by_bit(0x12345678, part)) << length;
    }
}

TEST_P(crc32c_ways, go_on_from_any_split) {
    const auto data = pattern(20'000);
    const auto whole = GetParam()(0, data);
    for (std::size_t at = 0; at <= data.size(); at += 611) {
        const auto first = GetParam()(0, view(data).first(at));
        EXPECT_EQ(GetParam()(first, view(data).subspan(at)), whole) << at;
    }
}

INSTANTIATE_TEST_SUITE_P(crc32c, crc32c_ways, testing::Values(&crc32c_portable, &crc32c),
                         [](const auto& of) { return of.param == &crc32c ? "chosen" : "portable"; });

TEST(crc32c, by_hardware_and_by_tables_are_the_same) {
    if (!crc32c_has_hardware()) GTEST_SKIP() << "the processor has no instruction for it";
    const auto data = pattern(1'000'003);
    EXPECT_EQ(crc32c_hardware(5, data), crc32c_portable(5, data));
    EXPECT_EQ(crc32c(5, data), crc32c_portable(5, data));
}

TEST(crc32c, by_tables_is_a_constant) {
    constexpr std::uint8_t digits[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
    static_assert(crc32c_portable(0, digits) == 0xe3069283U);
    static_assert(crc32c_combine(crc32c_portable(0, view(digits).first(4)), crc32c_portable(0, view(digits).subspan(4)),
                                 5) == 0xe3069283U);
}

TEST(crc32c_combine, puts_two_together_at_any_split) {
    const auto data = pattern(5000);
    const auto whole = crc32c(0, data);
    for (std::size_t at = 0; at <= data.size(); at += at < 70 ? 1 : 97) {
        const auto a = view(data).first(at), b = view(data).subspan(at);
        ASSERT_EQ(crc32c_combine(crc32c(0, a), crc32c(0, b), b.size()), whole) << at;
    }
}

TEST(crc32c_combine, takes_lengths_that_no_memory_holds) {
    // (2^40 zeros twice) is 2^41 zeros, however it is put together.
    const std::uint32_t crc = 0xe3069283;
    const auto zeros = [](std::uint64_t length) {
        std::uint32_t of_all = 0, of_part = crc32c(0, std::vector<std::uint8_t>(1, 0));
        for (std::uint64_t part = 1; length != 0; length >>= 1, part <<= 1) {
            if (length & 1) of_all = crc32c_combine(of_all, of_part, part);
            of_part = crc32c_combine(of_part, of_part, part);
        }
        return of_all;
    };
    EXPECT_EQ(zeros(1000), crc32c(0, std::vector<std::uint8_t>(1000, 0)));
    for (const auto length : {std::uint64_t{1} << 31, std::uint64_t{1} << 40, (std::uint64_t{1} << 60) + 12345}) {
        const auto half = crc32c_combine(crc, zeros(length), length);
        EXPECT_EQ(crc32c_combine(half, zeros(length), length), crc32c_combine(crc, zeros(2 * length), 2 * length));
    }
}

}  // namespace
