#include <ferry/detail/growing_buffer.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

using ferry::detail::growing_buffer;

/// The bounds of the mapping that an address is in.
struct mapping {
    std::uint64_t begin = 0, end = 0;
};

mapping mapping_of(const void* address) {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        const auto dash = line.find('-');
        const mapping m{std::stoull(line.substr(0, dash), nullptr, 16),
                        std::stoull(line.substr(dash + 1), nullptr, 16)};
        if (m.begin <= at && at < m.end) return m;
    }
    return {};
}

TEST(growing_buffer, stays_one_mapping_so_that_growth_can_move_it) {
    if (ferry_test::sanitized) GTEST_SKIP() << "it is about the C library's malloc, and a sanitizer has one of its own";
    constexpr std::uint64_t mb = 1 << 20;
    growing_buffer buffer;
    for (std::uint64_t size = 40 * mb; size <= 160 * mb; size *= 2) {
        ASSERT_TRUE(buffer.ensure(size, size));
        const auto first = mapping_of(buffer.data());
        EXPECT_LE(reinterpret_cast<std::uintptr_t>(buffer.data()) + buffer.capacity(), first.end) << size;
        EXPECT_EQ(first.begin, mapping_of(reinterpret_cast<const std::uint64_t*>(buffer.data()) - 1).begin) << size;
    }
}

TEST(growing_buffer, begins_where_a_huge_page_does) {
    for (const std::uint64_t size : {std::uint64_t{8} << 20, std::uint64_t{68'000'000}}) {
        growing_buffer buffer;
        ASSERT_TRUE(buffer.ensure(size, size));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % ferry::detail::huge_page, 0u) << size;
        std::memset(buffer.data(), 0x5a, size);
        const auto* const at = buffer.data();
        const auto out = buffer.release(size);
        EXPECT_EQ(out.data(), at);
        EXPECT_EQ(buffer.data(), nullptr);
    }
}

TEST(growing_buffer, begins_where_a_huge_page_does_where_it_is_only_wanted_yet) {
    growing_buffer buffer;
    ASSERT_TRUE(buffer.ensure(1, 20'000'000));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % ferry::detail::huge_page, 0u);
    const auto* const at = buffer.data();
    ASSERT_TRUE(buffer.ensure(20'000'000, 0));
    EXPECT_EQ(buffer.data(), at) << "what was only wanted is there by now";
}

TEST(growing_buffer, begins_a_cache_line_where_it_is_small) {
    for (const std::uint64_t size : {1u, 1000u, 100'000u}) {
        growing_buffer buffer;
        ASSERT_TRUE(buffer.ensure(size, size));
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u) << size;
    }
}

/// Of this process, in bytes.
std::uint64_t resident() {
    std::ifstream in("/proc/self/statm");
    std::uint64_t all = 0, pages = 0;
    in >> all >> pages;
    return pages * 4096;
}

TEST(growing_buffer, takes_no_huge_page_for_a_byte_that_may_be_the_first_of_many) {
    if (ferry_test::sanitized) GTEST_SKIP() << "a sanitizer's malloc has memory of its own";
    std::vector<growing_buffer> all(64);
    const auto before = resident();
    for (auto& each : all) {
        ASSERT_TRUE(each.ensure(1, 20'000'000));
        each.data()[0] = 1;
    }
    EXPECT_LT(resident(), before + all.size() * 100'000);
}

TEST(growing_buffer, asks_for_huge_pages_once_there_is_something_for_them) {
    growing_buffer small, large, growing;
    ASSERT_TRUE(small.ensure(100'000, 100'000));
    EXPECT_EQ(small.room(), 100'000u);
    ASSERT_TRUE(large.ensure(20'000'000, 20'000'000));
    EXPECT_EQ(large.room(), 20'000'000u);
    ASSERT_TRUE(growing.ensure(1, 20'000'000));
    EXPECT_EQ(growing.room(), ferry::detail::huge_page / 2);
    ASSERT_TRUE(growing.ensure(growing.room(), 0));
    EXPECT_EQ(growing.room(), ferry::detail::huge_page / 2);
    ASSERT_TRUE(growing.ensure(growing.room() + 1, 0));
    EXPECT_EQ(growing.room(), 20'000'000u);
}

TEST(growing_buffer, keeps_its_bytes_where_it_grows) {
    growing_buffer buffer;
    ASSERT_TRUE(buffer.ensure(20'000'000, 20'000'000));
    for (std::uint64_t i = 0; i < 20'000'000; i += 4096) buffer.data()[i] = static_cast<std::uint8_t>(i / 4096);
    ASSERT_TRUE(buffer.ensure(70'000'000, 70'000'000));
    const auto out = buffer.release(20'000'000);
    for (std::uint64_t i = 0; i < 20'000'000; i += 4096) ASSERT_EQ(out.data()[i], static_cast<std::uint8_t>(i / 4096));
}

TEST(growing_buffer, has_what_is_needed_where_what_is_wanted_is_too_much) {
    growing_buffer buffer;
    ASSERT_TRUE(buffer.ensure(100, std::uint64_t{1} << 60));
    EXPECT_GE(buffer.capacity(), 100u);
    EXPECT_LT(buffer.capacity(), 1000u);
}

}  // namespace
