#include <ferry/chunk_assembler.hpp>

#include "support.hpp"
#include "temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::chunk_assembler;
using ferry::chunk_limits;
using ferry::errc;
using ferry::spool;
using ferry::detail::crc32c;
using ferry_test::file_size_limit;
using ferry_test::pattern;
using ferry_test::temporary_folder;
using testing::HasSubstr;

constexpr std::int32_t max_size = std::numeric_limits<std::int32_t>::max();

bool give(chunk_assembler& to, std::span<const std::uint8_t> data, std::int32_t size, std::int32_t iteration) {
    return to.begin(data.size(), size) && to.write(data) && to.commit(size, iteration);
}

// --- pieces ------------------------------------------------------------------------------------------------------------------

TEST(chunk_assembler_pieces, come_in_any_number) {
    const auto data = pattern(100'000);
    const auto all = std::span<const std::uint8_t>(data);
    for (const std::size_t length : {1U, 999U, 16'384U, 50'000U, 100'000U}) {
        chunk_assembler to;
        ASSERT_TRUE(to.begin(data.size(), 1));
        for (std::size_t at = 0; at < data.size(); at += length)
            ASSERT_TRUE(to.write(all.subspan(at, std::min(length, data.size() - at))));
        ASSERT_TRUE(to.commit(1, 1)) << to.text();
        EXPECT_TRUE(to.take() == bytes::copy(all));
    }
}

TEST(chunk_assembler_pieces, are_neither_more_nor_fewer_than_announced) {
    chunk_assembler more, fewer, nothing;
    ASSERT_TRUE(more.begin(10, 1));
    ASSERT_TRUE(more.write(pattern(6)));
    EXPECT_FALSE(more.write(pattern(5)));
    EXPECT_EQ(more.code(), errc::bad_chunk);
    EXPECT_THAT(more.text(), HasSubstr("more than the 10 bytes"));
    ASSERT_TRUE(fewer.begin(10, 1));
    ASSERT_TRUE(fewer.write(pattern(9)));
    EXPECT_FALSE(fewer.commit(1, 1));
    EXPECT_EQ(fewer.code(), errc::bad_chunk);
    EXPECT_THAT(fewer.text(), HasSubstr("9 of the 10 bytes it announced (chunk 1 of 1)"));
    EXPECT_FALSE(nothing.write(pattern(1))) << "nothing was begun";
}

// --- checksum ----------------------------------------------------------------------------------------------------------------

TEST(chunk_assembler_checksum, is_that_of_what_was_committed) {
    const auto data = pattern(100'000);
    const auto all = std::span<const std::uint8_t>(data);
    chunk_assembler to;
    to.compute_checksum();
    EXPECT_EQ(to.checksum(), 0U);
    ASSERT_TRUE(give(to, all.first(40'000), 2, 1));
    EXPECT_EQ(to.checksum(), crc32c(0, all.first(40'000)));
    ASSERT_TRUE(to.begin(60'000, 2));
    ASSERT_TRUE(to.write(all.first(50'000)));
    EXPECT_EQ(to.checksum(), crc32c(0, all.first(40'000))) << "not of what was begun";
    ASSERT_TRUE(give(to, all.subspan(40'000), 2, 2)) << "started over";
    EXPECT_EQ(to.checksum(), crc32c(0, all));
    EXPECT_TRUE(to.take() == bytes::copy(all));
    EXPECT_EQ(to.checksum(), 0U);
    ASSERT_TRUE(give(to, all.first(10), 1, 1)) << "it's computed for the next payload, too";
    EXPECT_EQ(to.checksum(), crc32c(0, all.first(10)));
}

TEST(chunk_assembler_checksum, can_be_switched) {
    const auto data = pattern(1000);
    chunk_assembler to;
    ASSERT_TRUE(give(to, data, 3, 1));
    EXPECT_EQ(to.checksum(), 0U) << "it costs nothing where nobody wants it";
    to.compute_checksum();
    EXPECT_EQ(to.checksum(), crc32c(0, data)) << "what has come is taken in";
    ASSERT_TRUE(give(to, data, 3, 2));
    EXPECT_EQ(to.checksum(), crc32c(crc32c(0, data), data));
}

// --- legs --------------------------------------------------------------------------------------------------------------------

TEST(chunk_assembler_legs, keep_the_bytes_and_forget_the_numbers) {
    const auto data = pattern(1000);
    const auto all = std::span<const std::uint8_t>(data);
    chunk_assembler to;
    to.compute_checksum();
    ASSERT_TRUE(give(to, all.first(300), 4, 1));
    ASSERT_TRUE(to.begin(300, 4));
    ASSERT_TRUE(to.write(all.first(100)));  // the stream breaks here
    to.begin_leg();
    EXPECT_FALSE(to.in_progress());
    EXPECT_EQ(to.received(), 300U);
    ASSERT_TRUE(give(to, all.subspan(300, 500), 2, 1)) << to.text();
    ASSERT_TRUE(give(to, all.subspan(800), 2, 2)) << to.text();
    ASSERT_TRUE(to.complete());
    EXPECT_EQ(to.checksum(), crc32c(0, all));
    to.begin_leg();
    EXPECT_FALSE(to.complete()) << "all is there, but the leg isn't";
    ASSERT_TRUE(give(to, {}, 1, 1));
    ASSERT_TRUE(to.complete());
    EXPECT_TRUE(to.take() == bytes::copy(all));
}

TEST(chunk_assembler_legs, heal_nothing) {
    chunk_assembler to;
    EXPECT_FALSE(give(to, pattern(1), 1, 2));
    to.begin_leg();
    EXPECT_TRUE(to.failed());
    EXPECT_FALSE(give(to, pattern(1), 1, 1));
}

// --- expect ------------------------------------------------------------------------------------------------------------------

TEST(chunk_assembler_expects, the_total_that_was_announced) {
    chunk_assembler to;
    ASSERT_TRUE(to.expect(10));
    ASSERT_TRUE(give(to, pattern(4), 2, 1));
    to.begin_leg();
    ASSERT_TRUE(give(to, pattern(6), 1, 1)) << to.text();
    EXPECT_EQ(to.take().size(), 10U);
    ASSERT_TRUE(give(to, pattern(11), 1, 1)) << "it counts for one payload";
}

TEST(chunk_assembler_expects, nothing_beyond_the_limit) {
    chunk_assembler to({.max_payload_bytes = 100, .max_reservation = 100});
    EXPECT_TRUE(to.expect(100));
    EXPECT_FALSE(to.expect(101));
    EXPECT_EQ(to.code(), errc::too_large);
    EXPECT_THAT(to.text(), HasSubstr("limit of 100 bytes at chunk 1"));
}

TEST(chunk_assembler_expects, neither_fewer_bytes_nor_more) {
    chunk_assembler fewer, more, late;
    ASSERT_TRUE(fewer.expect(10));
    ASSERT_TRUE(give(fewer, pattern(4), 2, 1));
    EXPECT_FALSE(give(fewer, pattern(5), 2, 2));
    EXPECT_EQ(fewer.code(), errc::bad_chunk);
    EXPECT_THAT(fewer.text(), HasSubstr("10 bytes was announced, and 9 came"));
    EXPECT_FALSE(fewer.complete());
    ASSERT_TRUE(more.expect(10));
    EXPECT_FALSE(give(more, pattern(11), 2, 1));
    EXPECT_EQ(more.code(), errc::bad_chunk);
    EXPECT_THAT(more.text(), HasSubstr("10 bytes was announced, and 11 came"));
    ASSERT_TRUE(give(late, pattern(4), 2, 1));
    EXPECT_FALSE(late.expect(3));
    EXPECT_EQ(late.code(), errc::bad_chunk);
    EXPECT_THAT(late.text(), HasSubstr("3 bytes was announced where 4 had come"));
}

TEST(chunk_assembler_expects, reserves_what_is_announced_up_to_the_limit) {
    for (const std::uint64_t total : {std::uint64_t{5000}, std::uint64_t{1} << 39}) {
        chunk_assembler to({.max_payload_bytes = std::uint64_t{1} << 40, .max_reservation = 1 << 20});
        ASSERT_TRUE(to.expect(total));
        EXPECT_EQ(to.memory_bytes(), 0U) << "not before the first byte";
        ASSERT_TRUE(give(to, pattern(1000), max_size, 1));
        EXPECT_EQ(to.memory_bytes(), std::min<std::uint64_t>(total, 1 << 20));
    }
}

// --- spooled -----------------------------------------------------------------------------------------------------------------

class chunk_assembler_spool : public testing::Test {
protected:
    std::vector<spool::entry> listed() const { return folder->list(); }
    std::size_t files() const {
        std::size_t count = 0;
        for (const auto& each : std::filesystem::directory_iterator(temporary.path())) count += each.is_regular_file();
        return count - 1;  // the lock
    }

    temporary_folder temporary;
    std::shared_ptr<spool> folder = std::make_shared<spool>(ferry::spool_options{temporary.path(), 10'000});
    std::vector<std::uint8_t> data = pattern(30'000);
    std::span<const std::uint8_t> all{data};
};

TEST_F(chunk_assembler_spool, keeps_up_to_the_threshold_in_memory) {
    chunk_assembler to({}, folder, "task");
    ASSERT_TRUE(to.expect(10'000));
    ASSERT_TRUE(give(to, all.first(6000), 2, 1));
    EXPECT_EQ(to.memory_bytes(), 10'000U);
    ASSERT_TRUE(give(to, all.subspan(6000, 4000), 2, 2));
    EXPECT_FALSE(to.spooled());
    EXPECT_TRUE(to.take() == bytes::copy(all.first(10'000)));
    EXPECT_EQ(files(), 0U);
}

TEST_F(chunk_assembler_spool, moves_what_grows_beyond_the_threshold) {
    chunk_assembler to({}, folder);
    ASSERT_TRUE(to.begin(6000, 0));  // whose number of chunks comes after its data
    ASSERT_TRUE(to.write(all.first(6000)) && to.commit(3, 1));
    EXPECT_FALSE(to.spooled());
    ASSERT_TRUE(give(to, all.subspan(6000, 4000), 3, 2));
    EXPECT_FALSE(to.spooled());
    ASSERT_TRUE(give(to, all.subspan(10'000), 3, 3));
    EXPECT_TRUE(to.spooled());
    EXPECT_EQ(to.memory_bytes(), 0U);
    EXPECT_EQ(to.received(), 30'000U);
    EXPECT_EQ(to.checksum(), crc32c(0, all)) << "of what was in memory, too";
    EXPECT_EQ(files(), 0U) << "the file has no name";
    EXPECT_TRUE(to.take() == bytes::copy(all));
    EXPECT_FALSE(to.spooled());
    ASSERT_TRUE(give(to, all.first(10), 1, 1));
    EXPECT_TRUE(to.take() == bytes::copy(all.first(10)));
}

TEST_F(chunk_assembler_spool, spools_at_once_what_is_announced_as_larger) {
    chunk_assembler told({}, folder, "told"), counted({}, folder, "counted"), close({}, folder, "close");
    ASSERT_TRUE(told.expect(10'001));
    EXPECT_TRUE(told.spooled());
    ASSERT_TRUE(give(told, all.first(1000), 11, 1));
    EXPECT_EQ(told.memory_bytes(), 0U);
    ASSERT_TRUE(give(counted, all.first(1000), 12, 1));
    EXPECT_TRUE(counted.spooled()) << "eleven chunks of 1000 bytes and one more";
    ASSERT_TRUE(give(close, all.first(1000), 11, 1));
    EXPECT_FALSE(close.spooled()) << "the last chunk may be short";
    EXPECT_LE(close.memory_bytes(), 10'000U);
    EXPECT_EQ(listed().size(), 2U);
}

TEST_F(chunk_assembler_spool, leaves_a_named_file_until_it_is_removed) {
    chunk_assembler to({}, folder, "task");
    ASSERT_TRUE(give(to, all, 1, 1));
    const auto taken = to.take();
    ASSERT_EQ(listed().size(), 1U);
    EXPECT_EQ(listed()[0].name, "task");
    EXPECT_EQ(listed()[0].bytes, 30'000U);
    EXPECT_TRUE(folder->remove("task"));
    EXPECT_TRUE(taken == bytes::copy(all)) << "what is mapped stays valid";
}

TEST_F(chunk_assembler_spool, goes_on_from_a_file) {
    {
        chunk_assembler to({}, folder, "task");
        ASSERT_TRUE(to.expect(30'000));
        ASSERT_TRUE(give(to, all.first(12'000), 3, 1));
    }
    chunk_assembler to({}, folder, "task");
    ASSERT_TRUE(to.start_from(*folder->reopen("task")));
    EXPECT_EQ(to.received(), 12'000U);
    EXPECT_EQ(to.checksum(), crc32c(0, all.first(12'000)));
    ASSERT_TRUE(to.expect(30'000));
    ASSERT_TRUE(give(to, all.subspan(12'000), 1, 1)) << to.text();
    EXPECT_EQ(to.checksum(), crc32c(0, all));
    EXPECT_TRUE(to.take() == bytes::copy(all));

    chunk_assembler small({.max_payload_bytes = 29'999, .max_reservation = 1}, folder);
    EXPECT_FALSE(small.start_from(*folder->reopen("task")));
    EXPECT_EQ(small.code(), errc::too_large);
}

TEST_F(chunk_assembler_spool, legs_go_on_in_the_file) {
    chunk_assembler to({}, folder);
    ASSERT_TRUE(to.expect(30'000));
    ASSERT_TRUE(give(to, all.first(12'000), 3, 1));
    ASSERT_TRUE(to.begin(9000, 3));
    ASSERT_TRUE(to.write(all.first(5000)));  // the stream breaks here
    to.begin_leg();
    ASSERT_TRUE(give(to, all.subspan(12'000), 1, 1)) << to.text();
    to.begin_leg();
    ASSERT_TRUE(give(to, {}, 1, 1)) << to.text();
    EXPECT_EQ(to.checksum(), crc32c(0, all));
    EXPECT_TRUE(to.take() == bytes::copy(all));
}

TEST_F(chunk_assembler_spool, a_failure_keeps_what_was_committed_under_its_name) {
    chunk_assembler to({}, folder, "task");
    ASSERT_TRUE(to.expect(30'000));
    ASSERT_TRUE(give(to, all.first(12'000), 3, 1));
    EXPECT_FALSE(give(to, all.first(9000), 4, 2));
    EXPECT_EQ(to.code(), errc::bad_chunk);
    EXPECT_FALSE(to.spooled());
    const auto left = folder->reopen("task");
    EXPECT_EQ(left->size(), 12'000U);
    EXPECT_EQ(left->checksum(), crc32c(0, all.first(12'000)));
}

TEST_F(chunk_assembler_spool, says_when_the_disk_is_full) {
    chunk_assembler amid({}, folder, "amid"), moved({}, folder), unmade({}, folder, "a/b");
    ASSERT_TRUE(give(amid, all.first(12'000), 2, 1));
    ASSERT_TRUE(give(moved, all.first(9000), 2, 1));
    {
        const file_size_limit full(8000);
        EXPECT_FALSE(give(moved, all.subspan(9000), 2, 2));
    }
    {
        const file_size_limit full(15'000);
        EXPECT_FALSE(give(amid, all.subspan(12'000), 2, 2));
    }
    for (const auto* failed : {&amid, &moved}) {
        EXPECT_EQ(failed->code(), errc::spool_failed);
        EXPECT_THAT(failed->text(), HasSubstr("File too large"));
        EXPECT_FALSE(failed->complete());
        EXPECT_EQ(failed->memory_bytes(), 0U);
    }
    EXPECT_EQ(listed().at(0).bytes, 12'000U);
    EXPECT_FALSE(unmade.expect(20'000));
    EXPECT_EQ(unmade.code(), errc::spool_failed);
    EXPECT_THAT(unmade.text(), HasSubstr("not a name"));
}

TEST_F(chunk_assembler_spool, is_the_same_as_memory_however_it_is_split) {
    std::mt19937 random(7);
    const auto up_to = [&](std::size_t most) { return std::uniform_int_distribution<std::size_t>(0, most)(random); };
    for (int round = 0; round < 200; ++round) {
        chunk_assembler in_memory, in_file({}, folder);
        in_memory.compute_checksum();
        const auto total = up_to(data.size());
        if (up_to(1)) {
            ASSERT_TRUE(in_file.expect(total));
        }
        std::size_t at = 0;
        while (!in_file.complete()) {
            const auto size = static_cast<std::int32_t>(1 + up_to(5));
            for (std::int32_t iteration = 1; iteration <= size; ++iteration) {
                const bool broken = iteration == size ? false : up_to(9) == 0;
                const auto length = iteration == size ? total - at : up_to((total - at) / 2);
                for (auto* to : {&in_memory, &in_file}) {
                    ASSERT_TRUE(to->begin(length, up_to(1) ? size : 0)) << to->text();
                    for (std::size_t done = 0; done < length;) {
                        const auto piece = std::min(length - done, 1 + up_to(7000));
                        ASSERT_TRUE(to->write(all.subspan(at + done, piece))) << to->text();
                        done += piece;
                    }
                    if (broken) {
                        to->begin_leg();
                    } else {
                        ASSERT_TRUE(to->commit(size, iteration)) << to->text();
                    }
                }
                if (broken) break;
                at += length;
            }
        }
        EXPECT_EQ(in_memory.checksum(), crc32c(0, all.first(total)));
        if (in_file.spooled()) {
            EXPECT_EQ(in_file.checksum(), in_memory.checksum());
        }
        ASSERT_TRUE(in_memory.complete());
        if (total > 10'000) {
            EXPECT_TRUE(in_file.spooled()) << total;
        }
        EXPECT_TRUE(in_file.take() == in_memory.take()) << total;
    }
}

}  // namespace
