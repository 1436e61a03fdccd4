#include <ferry/chunk.hpp>
#include <ferry/chunk_assembler.hpp>

#include "support.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::chunk_assembler;
using ferry::chunk_cutter;
using ferry::chunk_limits;
using ferry::errc;
using ferry::payload;
using ferry_test::fails;
using ferry_test::pattern;
using testing::HasSubstr;

constexpr std::int32_t max_size = std::numeric_limits<std::int32_t>::max();
constexpr std::int32_t min_size = std::numeric_limits<std::int32_t>::min();
constexpr std::uint64_t max_bytes = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t page = 4096;

// A sanitizer's allocator ends the program where an allocation can't be had at all.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool allocation_may_fail = false;
#elif defined(__has_feature)
constexpr bool allocation_may_fail = !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer);
#else
constexpr bool allocation_may_fail = true;
#endif

/// Hands over one chunk whose bytes are those of `data`.
bool give(chunk_assembler& to, std::span<const std::uint8_t> data, std::int32_t size, std::int32_t iteration) {
    return to.begin(data.size(), size) && to.write(data) && to.commit(size, iteration);
}

/// A payload of `size` bytes in runs of unequal lengths.
payload scattered(std::size_t size) {
    const auto all = bytes::own(pattern(size));
    payload out;
    std::size_t length = 1;
    for (std::size_t at = 0; at < size; at += length, length = length * 3 + 1) out.append(all.slice(at, length));
    return out;
}

// --- max_message_bytes_length ------------------------------------------------------------------------------------------------

static_assert(ferry::max_message_bytes_length<>::value == 4'000'000 - 33);
static_assert(ferry::max_message_bytes_length<1>::value == 1);
static_assert(ferry::max_message_bytes_length<100 * 1024 * 1024 - 64>::value == 104'857'536);

// --- chunk_cutter --------------------------------------------------------------------------------------------------------------

TEST(chunk_cutter, counts_chunks) {
    static_assert(chunk_cutter<10>::count(0) == 1);
    static_assert(chunk_cutter<10>::count(1) == 1);
    static_assert(chunk_cutter<10>::count(9) == 1);
    static_assert(chunk_cutter<10>::count(10) == 1);
    static_assert(chunk_cutter<10>::count(11) == 2);
    static_assert(chunk_cutter<10>::count(20) == 2);
    static_assert(chunk_cutter<1>::count(7) == 7);
    EXPECT_EQ(chunk_cutter<1>::count(max_bytes), max_bytes);
    EXPECT_EQ(chunk_cutter<3'999'967>::count(std::uint64_t{1} << 40), 274'881U);
}

TEST(chunk_cutter, an_empty_payload_is_one_empty_chunk) {
    chunk_cutter<10> cutter(0);
    ASSERT_FALSE(cutter.done());
    const auto only = cutter.next();
    EXPECT_EQ(only.offset, 0U);
    EXPECT_EQ(only.length, 0U);
    EXPECT_EQ(only.size, 1);
    EXPECT_EQ(only.iteration, 1);
    EXPECT_TRUE(only.last());
    EXPECT_TRUE(cutter.done());
}

TEST(chunk_cutter, numbers_as_many_chunks_as_the_wire_can) {
    constexpr std::uint64_t most = max_size;
    static_assert(chunk_cutter<1>::fits(most));
    static_assert(!chunk_cutter<1>::fits(most + 1));
    static_assert(chunk_cutter<1000>::fits(1000 * most));
    static_assert(!chunk_cutter<1000>::fits(1000 * most + 1));
    EXPECT_EQ(chunk_cutter<1>(most).next().size, max_size);
    EXPECT_EQ(chunk_cutter<1000>(1000 * most).next().size, max_size);
    EXPECT_TRUE(fails([] { chunk_cutter<1> cutter(most + 1); }, errc::too_large,
                      "2147483648 bytes has more than 2^31-1 chunks"));
    EXPECT_TRUE(fails([] { chunk_cutter<1000> cutter(1000 * most + 1); }, errc::too_large, "take larger chunks"));
    EXPECT_TRUE(fails([] { chunk_cutter<3'999'967> cutter(max_bytes); }, errc::too_large, "3999967"));
}

TEST(chunk_cutter, reaches_offsets_beyond_four_gigabytes) {
    constexpr std::uint32_t length = 100 * 1024 * 1024 - 64;
    const std::uint64_t payload_bytes = std::uint64_t{50} * length + 3;
    chunk_cutter<length> cutter(payload_bytes);
    ferry::chunk cut{};
    while (!cutter.done()) cut = cutter.next();
    EXPECT_EQ(cut.iteration, 51);
    EXPECT_EQ(cut.offset, std::uint64_t{50} * length);
    EXPECT_EQ(cut.length, 3U);
}

TEST(chunk_cutter, cuts_the_rest_of_a_payload) {
    for (const std::uint64_t from : {0U, 1U, 9U, 10U, 24U, 25U, 34U}) {
        chunk_cutter<10> cutter(35, from);
        std::uint64_t at = from;
        std::int32_t iteration = 0;
        const auto count = static_cast<std::int32_t>((35 - from + 9) / 10);
        while (!cutter.done()) {
            const auto cut = cutter.next();
            EXPECT_EQ(cut.offset, at);
            EXPECT_EQ(cut.length, std::min<std::uint64_t>(10, 35 - at));
            EXPECT_EQ(cut.size, count);
            EXPECT_EQ(cut.iteration, ++iteration);
            at += cut.length;
        }
        EXPECT_EQ(at, 35U);
        EXPECT_EQ(iteration, count);
    }
}

TEST(chunk_cutter, the_rest_of_nothing_is_one_empty_chunk_at_the_end) {
    chunk_cutter<10> cutter(30, 30);
    const auto only = cutter.next();
    EXPECT_EQ(only.offset, 30U);
    EXPECT_EQ(only.length, 0U);
    EXPECT_EQ(only.size, 1);
    EXPECT_EQ(only.iteration, 1);
    EXPECT_TRUE(cutter.done());
}

TEST(chunk_cutter, numbers_only_what_is_left) {
    constexpr std::uint64_t most = max_size;
    EXPECT_EQ(chunk_cutter<1>(most + 5, 5).next().size, max_size);
    EXPECT_TRUE(fails([] { chunk_cutter<1> cutter(most + 5, 4); }, errc::too_large, "more than 2^31-1 chunks"));
    EXPECT_TRUE(fails([] { chunk_cutter<1> cutter(5, 6); }, errc::invalid_argument, "byte 6 of a payload of 5 bytes"));
}

// --- cut, carried and put together again ---------------------------------------------------------------------------------------

template <std::uint32_t N>
void expect_to_come_back(std::size_t size) {
    SCOPED_TRACE("chunks of " + std::to_string(N) + ", payload of " + std::to_string(size));
    const auto sent = scattered(size);
    ASSERT_EQ(sent.size(), size);
    chunk_cutter<N> cutter(size);
    chunk_assembler assembler;
    std::uint64_t offset = 0;
    std::int32_t iteration = 0;
    const auto count = static_cast<std::int32_t>(size == 0 ? 1 : (size + N - 1) / N);
    while (!cutter.done()) {
        const auto cut = cutter.next();
        ASSERT_EQ(cut.offset, offset);
        ASSERT_EQ(cut.size, count);
        ASSERT_EQ(cut.iteration, ++iteration);
        ASSERT_EQ(cut.last(), cutter.done());
        ASSERT_EQ(cut.length, cut.last() ? size - offset : N);
        ASSERT_FALSE(assembler.complete());
        const auto carried = sent.slice(cut.offset, cut.length).flatten();
        ASSERT_TRUE(give(assembler, carried, cut.size, cut.iteration)) << assembler.text();
        offset += cut.length;
        ASSERT_EQ(assembler.received(), offset);
        ASSERT_EQ(assembler.in_progress(), !cut.last());
    }
    ASSERT_EQ(iteration, count);
    ASSERT_TRUE(assembler.complete());
    const auto came = assembler.take();
    ASSERT_EQ(came.size(), size);
    EXPECT_TRUE(came == sent.flatten());
}

template <class N>
class chunks : public testing::Test {};

using chunk_lengths =
    testing::Types<std::integral_constant<std::uint32_t, 1>, std::integral_constant<std::uint32_t, 2>,
                   std::integral_constant<std::uint32_t, 7>, std::integral_constant<std::uint32_t, 1000>,
                   std::integral_constant<std::uint32_t, 65536>,
                   std::integral_constant<std::uint32_t, ferry::max_message_bytes_length<>::value>>;
TYPED_TEST_SUITE(chunks, chunk_lengths, );

TYPED_TEST(chunks, come_back_as_the_payload) {
    constexpr std::uint32_t n = TypeParam::value;
    const std::set<std::size_t> sizes{0, 1, n - 1, n, n + 1, 2 * n - 1, 2 * n, 2 * n + 1, 5 * n, 5 * n + n / 2};
    for (const auto size : sizes) expect_to_come_back<n>(size);
}

TEST(chunks_of_one_byte, come_back_as_the_payload) { expect_to_come_back<1>(100'000); }

// --- chunk_assembler -------------------------------------------------------------------------------------------------------------

TEST(chunk_assembler, takes_chunks_of_unequal_lengths) {
    const auto sent = bytes::own(pattern(3000));
    for (const std::vector<std::size_t>& lengths : {std::vector<std::size_t>{1, 2999},
                                                    {2999, 1},
                                                    {0, 3000},
                                                    {3000, 0},
                                                    {1000, 0, 0, 1999, 1},
                                                    {1, 10, 100, 1000, 1889}}) {
        chunk_assembler assembler;
        std::size_t at = 0;
        std::int32_t iteration = 0;
        for (const auto length : lengths) {
            ASSERT_TRUE(give(assembler, sent.slice(at, length), static_cast<std::int32_t>(lengths.size()), ++iteration))
                << assembler.text();
            at += length;
        }
        ASSERT_TRUE(assembler.complete());
        EXPECT_TRUE(assembler.take() == sent);
    }
}

TEST(chunk_assembler, says_how_far_it_is) {
    chunk_assembler assembler;
    EXPECT_FALSE(assembler.in_progress());
    EXPECT_FALSE(assembler.complete());
    EXPECT_EQ(assembler.received(), 0U);
    ASSERT_TRUE(give(assembler, pattern(10), 2, 1));
    EXPECT_TRUE(assembler.in_progress());
    EXPECT_FALSE(assembler.complete());
    EXPECT_EQ(assembler.received(), 10U);
    ASSERT_TRUE(give(assembler, pattern(5), 2, 2));
    EXPECT_FALSE(assembler.in_progress());
    EXPECT_TRUE(assembler.complete());
    EXPECT_EQ(assembler.received(), 15U);
    EXPECT_FALSE(assembler.failed());
    EXPECT_EQ(assembler.code(), errc::ok);
    EXPECT_EQ(assembler.text(), "");
}

TEST(chunk_assembler, can_be_used_again_after_take) {
    chunk_assembler assembler;
    std::vector<bytes> taken;
    const std::vector<std::size_t> sizes{5000, 0, 1, 70'000, 3};
    for (const auto size : sizes) {
        const auto sent = bytes::own(pattern(size, static_cast<std::uint32_t>(size)));
        ASSERT_TRUE(give(assembler, sent.slice(0, size / 2), 2, 1)) << assembler.text();
        ASSERT_TRUE(give(assembler, sent.slice(size / 2), 2, 2)) << assembler.text();
        taken.push_back(assembler.take());
        EXPECT_FALSE(assembler.complete());
        EXPECT_FALSE(assembler.in_progress());
        EXPECT_EQ(assembler.received(), 0U);
    }
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        EXPECT_TRUE(taken[i] == bytes::own(pattern(sizes[i], static_cast<std::uint32_t>(sizes[i])))) << i;
    }
}

TEST(chunk_assembler, the_next_payload_may_have_another_number_of_chunks) {
    chunk_assembler assembler;
    ASSERT_TRUE(give(assembler, pattern(3), 1, 1));
    assembler.take();
    ASSERT_TRUE(give(assembler, pattern(3), 4, 1)) << assembler.text();
}

TEST(chunk_assembler, a_chunk_that_was_never_committed_does_not_count) {
    chunk_assembler assembler;
    ASSERT_TRUE(give(assembler, pattern(3), 1, 1));
    ASSERT_TRUE(assembler.begin(100, 0));
    ASSERT_TRUE(assembler.write(pattern(50)));
    EXPECT_EQ(assembler.take().size(), 3U);
    ASSERT_TRUE(assembler.commit(1, 1));
    EXPECT_EQ(assembler.received(), 0U);
    EXPECT_TRUE(assembler.take().empty());
}

TEST(chunk_assembler, the_last_one_counts_where_a_chunk_is_begun_again) {
    chunk_assembler assembler;
    ASSERT_TRUE(assembler.begin(100, 0));
    ASSERT_TRUE(assembler.begin(5000, 1));
    ASSERT_TRUE(assembler.write(pattern(1000, 2)));
    ASSERT_TRUE(give(assembler, pattern(7), 1, 1));
    EXPECT_TRUE(assembler.take() == bytes::own(pattern(7)));
}

struct bad_sequence {
    const char* name;
    std::vector<std::pair<std::int32_t, std::int32_t>> accepted;  // size, iteration
    std::pair<std::int32_t, std::int32_t> refused;
    const char* text;

    friend std::ostream& operator<<(std::ostream& out, const bad_sequence& of) { return out << of.name; }
};

class bad_sequences : public testing::TestWithParam<bad_sequence> {};

TEST_P(bad_sequences, are_refused_for_good) {
    const auto& [name, accepted, refused, text] = GetParam();
    chunk_assembler assembler;
    for (const auto& [size, iteration] : accepted) {
        ASSERT_TRUE(give(assembler, pattern(10), size, iteration)) << assembler.text();
    }
    EXPECT_FALSE(give(assembler, pattern(10), refused.first, refused.second));
    EXPECT_TRUE(assembler.failed());
    EXPECT_EQ(assembler.code(), errc::bad_chunk);
    EXPECT_THAT(assembler.text(), HasSubstr(text));
    EXPECT_THAT(assembler.text(),
                HasSubstr("(chunk " + std::to_string(refused.second) + " of " + std::to_string(refused.first) + ")"));
    EXPECT_FALSE(assembler.complete()) << "what failed must not be taken";

    const auto said = assembler.text();
    EXPECT_FALSE(assembler.begin(10, 1));
    EXPECT_FALSE(assembler.write(pattern(10)));
    EXPECT_FALSE(assembler.commit(1, 1)) << "it stays failed";
    EXPECT_EQ(assembler.code(), errc::bad_chunk);
    EXPECT_EQ(assembler.text(), said) << "the first reason stays";
}

INSTANTIATE_TEST_SUITE_P(
    chunk_assembler, bad_sequences,
    testing::Values(bad_sequence{"size_zero", {}, {0, 1}, "size must be at least 1"},
                    bad_sequence{"size_zero_and_iteration_zero", {}, {0, 0}, "size must be at least 1"},
                    bad_sequence{"size_negative", {}, {-1, 1}, "size must be at least 1"},
                    bad_sequence{"size_lowest", {}, {min_size, min_size}, "size must be at least 1"},
                    bad_sequence{"size_zero_midway", {{3, 1}}, {0, 2}, "size must be at least 1"},
                    bad_sequence{"iteration_zero", {}, {3, 0}, "expected chunk 1"},
                    bad_sequence{"iteration_negative", {}, {3, -1}, "expected chunk 1"},
                    bad_sequence{"iteration_lowest", {}, {3, min_size}, "expected chunk 1"},
                    bad_sequence{"first_missing", {}, {3, 2}, "expected chunk 1"},
                    bad_sequence{"first_beyond_size", {}, {1, 2}, "expected chunk 1"},
                    bad_sequence{"repeated", {{3, 1}, {3, 2}}, {3, 2}, "expected chunk 3"},
                    bad_sequence{"missing", {{4, 1}}, {4, 3}, "expected chunk 2"},
                    bad_sequence{"back_to_the_first", {{3, 1}, {3, 2}}, {3, 1}, "expected chunk 3"},
                    bad_sequence{"far_beyond_size", {{3, 1}}, {3, max_size}, "expected chunk 2"},
                    bad_sequence{"size_grows_midway", {{3, 1}}, {4, 2}, "changed midway from 3"},
                    bad_sequence{"size_shrinks_midway", {{3, 1}}, {2, 2}, "changed midway from 3"},
                    bad_sequence{"one_after_the_last", {{2, 1}, {2, 2}}, {2, 3}, "beyond its size"},
                    bad_sequence{"one_after_the_only", {{1, 1}}, {1, 2}, "beyond its size"},
                    bad_sequence{"the_last_again", {{2, 1}, {2, 2}}, {2, 2}, "expected chunk 3"},
                    bad_sequence{"another_payload_before_take", {{1, 1}}, {1, 1}, "expected chunk 2"}),
    [](const auto& of) { return std::string(of.param.name); });

TEST(chunk_assembler, accepts_exactly_its_limit) {
    chunk_assembler assembler({.max_payload_bytes = 100, .max_reservation = 1000});
    ASSERT_TRUE(give(assembler, pattern(60), 2, 1));
    ASSERT_TRUE(give(assembler, pattern(40), 2, 2)) << assembler.text();
    EXPECT_EQ(assembler.take().size(), 100U);
}

TEST(chunk_assembler, fails_at_the_first_byte_beyond_its_limit) {
    chunk_assembler assembler({.max_payload_bytes = 100, .max_reservation = 1000});
    ASSERT_TRUE(give(assembler, pattern(60), 2, 1));
    EXPECT_FALSE(assembler.begin(41, 2));
    EXPECT_TRUE(assembler.failed());
    EXPECT_EQ(assembler.code(), errc::too_large);
    EXPECT_THAT(assembler.text(), HasSubstr("limit of 100 bytes at chunk 2"));
    EXPECT_FALSE(assembler.commit(2, 2));
    EXPECT_FALSE(assembler.complete());
}

TEST(chunk_assembler, the_limit_counts_for_each_payload_alone) {
    chunk_assembler assembler({.max_payload_bytes = 100, .max_reservation = 1000});
    for (int i = 0; i < 5; ++i) {
        ASSERT_TRUE(give(assembler, pattern(100), 1, 1)) << assembler.text();
        EXPECT_EQ(assembler.take().size(), 100U);
    }
}

TEST(chunk_assembler, lengths_that_overflow_are_beyond_the_limit) {
    for (const auto limit : {std::uint64_t{100}, max_bytes}) {
        chunk_assembler assembler({.max_payload_bytes = limit, .max_reservation = 1000});
        ASSERT_TRUE(give(assembler, pattern(1), 2, 1));
        EXPECT_FALSE(assembler.begin(std::numeric_limits<std::size_t>::max(), 2));
        EXPECT_EQ(assembler.code(), errc::too_large);
    }
}

TEST(chunk_assembler, fails_where_there_is_no_memory) {
    if (!allocation_may_fail) GTEST_SKIP() << "the sanitizer's allocator ends the program";
    chunk_assembler assembler({.max_payload_bytes = max_bytes, .max_reservation = 1000});
    EXPECT_FALSE(assembler.begin(std::size_t{1} << 47, 1));
    EXPECT_EQ(assembler.code(), errc::too_large);
    EXPECT_THAT(assembler.text(), HasSubstr("no memory for a payload of 140737488355328 bytes"));
}

TEST(chunk_assembler, a_reservation_that_cannot_be_had_does_no_harm) {
    if (!allocation_may_fail) GTEST_SKIP() << "the sanitizer's allocator ends the program";
    chunk_assembler assembler({.max_payload_bytes = max_bytes, .max_reservation = std::uint64_t{1} << 47});
    ASSERT_TRUE(give(assembler, pattern(1000), max_size, 1)) << assembler.text();
    EXPECT_EQ(assembler.received(), 1000U);
}

// --- chunk_assembler: what it takes of the memory -------------------------------------------------------------------------------

TEST(chunk_assembler_memory, a_claim_is_a_hint_up_to_the_limit) {
    const chunk_limits limits{.max_payload_bytes = std::uint64_t{1} << 40, .max_reservation = 1 << 20};
    for (const std::size_t length : {1U, 1000U, 100'000U}) {
        chunk_assembler assembler(limits);
        ASSERT_TRUE(assembler.begin(length, max_size));
        EXPECT_LE(assembler.memory_bytes(), limits.max_reservation + page) << length;
        EXPECT_GE(assembler.memory_bytes(), limits.max_reservation) << length;
    }
}

TEST(chunk_assembler_memory, the_default_limit_holds_for_the_largest_claim) {
    const chunk_limits limits;
    EXPECT_EQ(limits.max_reservation, 320U << 20);
    chunk_assembler assembler;
    ASSERT_TRUE(assembler.begin(3'999'967, max_size));
    EXPECT_LE(assembler.memory_bytes(), limits.max_reservation + page);
}

TEST(chunk_assembler_memory, a_tensor_of_256_mib_and_what_stands_beside_it_is_taken_at_once_by_default) {
    chunk_assembler assembler;
    const auto total = (std::uint64_t{256} << 20) + 4096;
    ASSERT_TRUE(assembler.expect(total));
    ASSERT_TRUE(assembler.begin(3'999'967, 0));
    EXPECT_GE(assembler.memory_bytes(), total);
}

TEST(chunk_assembler_memory, a_chunk_beyond_the_reservation_takes_what_it_needs) {
    chunk_assembler assembler({.max_payload_bytes = std::uint64_t{1} << 40, .max_reservation = 1000});
    ASSERT_TRUE(assembler.begin(1 << 20, max_size));
    EXPECT_LE(assembler.memory_bytes(), (std::size_t{1} << 20) + page);
}

TEST(chunk_assembler_memory, the_payload_limit_bounds_the_reservation) {
    chunk_assembler assembler({.max_payload_bytes = 200'000, .max_reservation = 1 << 30});
    ASSERT_TRUE(assembler.begin(1000, max_size));
    EXPECT_LE(assembler.memory_bytes(), 200'000U + page);
}

TEST(chunk_assembler_memory, an_honest_claim_is_reserved_once) {
    const std::size_t length = 1000;
    const std::int32_t size = 500;
    const auto data = pattern(length);
    chunk_assembler assembler;
    std::uint64_t held = 0;
    for (std::int32_t iteration = 1; iteration <= size; ++iteration) {
        ASSERT_TRUE(assembler.begin(length, size));
        if (iteration == 1) held = assembler.memory_bytes();
        ASSERT_EQ(assembler.memory_bytes(), held) << iteration;
        ASSERT_LE(held, length * static_cast<std::size_t>(size) + page);
        ASSERT_TRUE(assembler.write(data));
        ASSERT_TRUE(assembler.commit(size, iteration));
    }
    const auto taken = assembler.take();
    EXPECT_EQ(assembler.memory_bytes(), 0U);
    EXPECT_LE(malloc_usable_size(taken.block().get()), held + page);
}

TEST(chunk_assembler_memory, grows_in_proportion_to_what_has_come) {
    const std::uint64_t reservation = 1 << 16;
    const auto data = pattern(50);
    for (const bool claims : {false, true}) {
        chunk_assembler assembler({.max_payload_bytes = std::uint64_t{1} << 40, .max_reservation = reservation});
        std::set<std::size_t> capacities;
        for (std::int32_t iteration = 1; iteration <= 40'000; ++iteration) {
            ASSERT_TRUE(assembler.begin(50, claims ? max_size : 0));
            const auto has = assembler.memory_bytes();
            ASSERT_LE(has, std::max(reservation, 2 * (assembler.received() + 50)) + page);
            capacities.insert(has);
            ASSERT_TRUE(assembler.write(data));
            ASSERT_TRUE(assembler.commit(max_size, iteration));
        }
        EXPECT_LE(capacities.size(), 20U) << "or the time is quadratic";
    }
}

TEST(chunk_assembler_memory, takes_give_back_what_was_too_much) {
    chunk_assembler assembler;
    ASSERT_TRUE(give(assembler, pattern(1000), 1000, 1));
    for (std::int32_t iteration = 2; iteration <= 1000; ++iteration)
        ASSERT_TRUE(give(assembler, pattern(1), 1000, iteration));
    const auto taken = assembler.take();
    ASSERT_EQ(taken.size(), 1999U);
    EXPECT_LE(malloc_usable_size(taken.block().get()), 2 * page);
}

TEST(chunk_assembler_memory, outlives_the_assembler) {
    const auto taken = [] {
        chunk_assembler assembler;
        give(assembler, pattern(5000), 1, 1);
        return assembler.take();
    }();
    EXPECT_TRUE(taken == bytes::own(pattern(5000)));
}

}  // namespace
