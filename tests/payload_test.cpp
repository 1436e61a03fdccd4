#include <ferry/payload.hpp>

#include "support.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <latch>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::payload;
using ferry::range_result;
using ferry::detail::crc32c;
using ferry_test::fails;
using ferry_test::pattern;
using testing::ElementsAre;
using testing::IsEmpty;

bytes text(std::string_view from) { return bytes::copy(from); }

/// A container whose memory is watched: `alive` expires when the container is gone.
struct watched_container {
    using value_type = std::uint8_t;

    explicit watched_container(std::size_t size) : held(pattern(size)) {}
    const std::uint8_t* data() const { return held.data(); }
    std::size_t size() const { return held.size(); }

    std::vector<std::uint8_t> held;
    std::shared_ptr<int> alive = std::make_shared<int>(0);
};

class temporary_file {
public:
    explicit temporary_file(std::span<const std::uint8_t> content) : temporary_file() {
        std::ofstream out(path_, std::ios::binary);
        out.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
        if (!out.flush()) throw std::runtime_error("can't write " + path_);
    }
    temporary_file(const temporary_file&) = delete;
    temporary_file& operator=(const temporary_file&) = delete;
    ~temporary_file() { std::filesystem::remove(path_); }

    /// A pipe that nobody writes to.
    static std::unique_ptr<temporary_file> pipe() {
        std::unique_ptr<temporary_file> made(new temporary_file);
        if (::mkfifo(made->path_.c_str(), 0600) != 0) throw std::runtime_error("can't make " + made->path_);
        return made;
    }

    const std::string& path() const { return path_; }
    bool mapped() const {
        std::ifstream maps("/proc/self/maps");
        const std::string all{std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>()};
        return all.find(path_) != std::string::npos;
    }

private:
    temporary_file() {
        static int count = 0;
        const auto name = "ferry_payload_test." + std::to_string(::getpid()) + "." + std::to_string(++count);
        path_ = (std::filesystem::temp_directory_path() / name).string();
    }

    std::string path_;
};

// --- bytes ---------------------------------------------------------------------------------------------------------------

TEST(bytes, default_is_empty_and_owns_nothing) {
    const bytes nothing;
    EXPECT_TRUE(nothing.empty());
    EXPECT_EQ(nothing.size(), 0U);
    EXPECT_EQ(nothing.begin(), nothing.end());
    EXPECT_EQ(nothing.view(), "");
    EXPECT_EQ(nothing.block().get(), nullptr);
    EXPECT_EQ(nothing.slice(0), nothing);
    EXPECT_EQ(nothing.slice(3, 5).size(), 0U);
}

TEST(bytes, literal_values_are_copied) {
    const bytes run{0, 1, 255};
    EXPECT_THAT(run, ElementsAre(0, 1, 255));
    EXPECT_EQ(run.front(), 0);
    EXPECT_EQ(run.back(), 255);
    EXPECT_EQ(run[1], 1);
    EXPECT_EQ(run.cend() - run.cbegin(), 3);
}

TEST(bytes, copy_does_not_follow_its_source) {
    auto source = pattern(1000);
    const auto before = source;
    const auto run = bytes::copy(source);
    EXPECT_NE(run.data(), source.data());
    std::fill(source.begin(), source.end(), std::uint8_t{0});
    EXPECT_TRUE(std::equal(run.begin(), run.end(), before.begin(), before.end()));
}

TEST(bytes, copy_of_characters_keeps_zeros) {
    const auto run = bytes::copy(std::string_view("a\0b", 3));
    EXPECT_THAT(run, ElementsAre('a', 0, 'b'));
    EXPECT_EQ(run.view(), std::string_view("a\0b", 3));
}

TEST(bytes, copy_of_nothing_owns_nothing) {
    EXPECT_EQ(bytes::copy(std::string_view()).block().get(), nullptr);
    EXPECT_EQ(bytes::copy(std::span<const std::uint8_t>()).block().get(), nullptr);
    EXPECT_TRUE(bytes({}).empty());
}

TEST(bytes, own_shows_the_memory_of_the_container) {
    auto container = pattern(5000);
    const auto before = container;
    const auto* at = container.data();
    const auto run = bytes::own(std::move(container));
    EXPECT_EQ(run.data(), at);
    EXPECT_TRUE(std::equal(run.begin(), run.end(), before.begin(), before.end()));
}

TEST(bytes, own_counts_bytes_not_elements) {
    const auto run = bytes::own(std::vector<std::uint32_t>{0x01010101, 0x02020202});
    EXPECT_THAT(run, ElementsAre(1, 1, 1, 1, 2, 2, 2, 2));
}

TEST(bytes, own_works_for_containers_that_hold_their_elements_themselves) {
    const auto copy_of_a_slice = [] {
        const auto run = bytes::own(std::string("short"));  // lives inside the string object
        return run.slice(1, 3);
    }();
    EXPECT_EQ(copy_of_a_slice.view(), "hor");
    EXPECT_THAT(bytes::own(std::array<std::uint8_t, 3>{7, 8, 9}), ElementsAre(7, 8, 9));
    EXPECT_TRUE(bytes::own(std::string()).empty());
    EXPECT_TRUE(bytes::own(std::vector<double>()).empty());
}

template <class Container>
concept can_be_owned = requires(Container&& container) {
    bytes::own(std::forward<Container>(container));
};

static_assert(can_be_owned<std::vector<float>>);
static_assert(can_be_owned<std::string>);
static_assert(!can_be_owned<std::string&>, "an lvalue would be moved from unseen");
static_assert(!can_be_owned<std::vector<std::string>>, "the elements are not their bytes");
static_assert(!can_be_owned<std::string_view>, "a view keeps nothing alive");
static_assert(!can_be_owned<std::span<const std::uint8_t>>, "a span keeps nothing alive");

TEST(bytes, own_releases_the_container_with_the_last_slice) {
    watched_container container(100);
    const std::weak_ptr<int> alive = container.alive;
    auto whole = bytes::own(std::move(container));
    container.alive.reset();
    auto copy = whole;
    auto part = copy.slice(10, 5);
    auto empty_part = part.slice(5);
    whole = {};
    EXPECT_FALSE(alive.expired());
    copy = {};
    EXPECT_FALSE(alive.expired());
    EXPECT_EQ(part[0], pattern(100)[10]);
    part = {};
    EXPECT_FALSE(alive.expired());
    empty_part = {};
    EXPECT_TRUE(alive.expired());
}

TEST(bytes, borrow_keeps_the_owner_until_the_last_slice_is_gone) {
    auto owner = std::make_shared<std::vector<std::uint8_t>>(pattern(64));
    const std::weak_ptr<const void> alive = owner;
    auto run = bytes::borrow(std::span(*owner).subspan(8, 16), owner);
    EXPECT_EQ(run.data(), owner->data() + 8);
    EXPECT_EQ(run.size(), 16U);
    owner.reset();
    auto part = run.slice(1, 1);
    run = {};
    EXPECT_FALSE(alive.expired());
    EXPECT_EQ(part[0], pattern(64)[9]);
    part = bytes();
    EXPECT_TRUE(alive.expired());
}

TEST(bytes, borrow_static_shows_the_memory_itself) {
    static constexpr std::string_view memory = "for ever";
    const auto run = bytes::borrow_static(memory);
    EXPECT_EQ(static_cast<const void*>(run.data()), memory.data());
    EXPECT_EQ(run.view(), memory);
    EXPECT_EQ(run.block().get(), nullptr);
}

TEST(bytes, copies_and_slices_share_the_memory) {
    const auto run = bytes::copy(pattern(100));
    const auto copy = run;
    EXPECT_EQ(copy.data(), run.data());
    EXPECT_EQ(run.slice(30, 20).data(), run.data() + 30);
    EXPECT_EQ(run.slice(30, 20).slice(5, 5).data(), run.data() + 35);
    EXPECT_EQ(run.block().get()->references.load(), 2U);
}

TEST(bytes, slice_is_cut_off_at_the_end) {
    const auto run = text("0123456789");
    EXPECT_EQ(run.slice(0).view(), "0123456789");
    EXPECT_EQ(run.slice(7).view(), "789");
    EXPECT_EQ(run.slice(2, 3).view(), "234");
    EXPECT_EQ(run.slice(8, 3).view(), "89");
    EXPECT_EQ(run.slice(0, 0).view(), "");
    EXPECT_EQ(run.slice(10, 1).view(), "");
    EXPECT_EQ(run.slice(11, 1).view(), "");
    EXPECT_EQ(run.slice(5, static_cast<std::size_t>(-1)).view(), "56789");
    EXPECT_EQ(run.slice(static_cast<std::size_t>(-1), static_cast<std::size_t>(-1)).view(), "");
    EXPECT_EQ(run.slice(3, 4).slice(2, 100).view(), "56") << "a slice of a slice ends with the slice";
}

TEST(bytes, moved_from_shows_nothing) {
    auto from = text("content");
    auto to = std::move(from);
    EXPECT_EQ(to.view(), "content");
    EXPECT_EQ(to.block().get()->references.load(), 1U);
    EXPECT_TRUE(from.empty());  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(from.block().get(), nullptr);
    bytes assigned = text("old");
    assigned = std::move(to);
    EXPECT_EQ(assigned.view(), "content");
    EXPECT_TRUE(to.empty());  // NOLINT(bugprone-use-after-move)
}

TEST(bytes, survives_assignment_to_itself_and_of_its_own_slice) {
    auto run = text("content");
    const auto& same = run;
    run = same;
    EXPECT_EQ(run.view(), "content");
    run = run.slice(3);
    EXPECT_EQ(run.view(), "tent");
    EXPECT_EQ(run.block().get()->references.load(), 1U);
}

TEST(bytes, compares_by_content) {
    EXPECT_EQ(text("abc"), text("abc"));
    EXPECT_EQ(text("xabcx").slice(1, 3), text("abc"));
    EXPECT_NE(text("abc"), text("abd"));
    EXPECT_NE(text("abc"), text("abcd"));
    EXPECT_EQ(bytes(), text(""));
    EXPECT_LT(text("abc"), text("abd"));
    EXPECT_LT(text("abc"), text("abcd"));
    EXPECT_LT(bytes(), text("a"));
    EXPECT_LT(bytes({0x7F}), bytes({0x80})) << "bytes are unsigned";
    EXPECT_EQ(text("b") <=> text("a"), std::strong_ordering::greater);
}

TEST(bytes, can_be_carried_by_another_counter) {
    watched_container container(10);
    const std::weak_ptr<int> alive = container.alive;
    auto run = bytes::own(std::move(container));
    container.alive.reset();
    auto* carried = ferry::detail::block_ref(run.block()).detach();
    run = {};
    EXPECT_FALSE(alive.expired());
    carried->release();
    EXPECT_TRUE(alive.expired());
}

TEST(bytes, concurrent_slices_release_the_owner_once) {
    static constexpr int threads = 4;
    static constexpr int rounds = 50'000;
    std::atomic<int> released = 0;
    std::atomic<int> wrong = 0;
    {
        auto content = pattern(256);
        const auto* data = content.data();
        auto keep = [content = std::move(content), &released](const void*) { ++released; };
        const auto whole = bytes::borrow(std::span(data, 256), std::shared_ptr<const void>(data, std::move(keep)));
        std::latch start(threads);
        std::vector<std::jthread> workers;
        for (int worker = 0; worker < threads; ++worker) {
            workers.emplace_back([&, mine = whole] {
                start.arrive_and_wait();
                for (std::size_t round = 0; round < rounds; ++round) {
                    const auto part = mine.slice(round % 256, 3);
                    const auto copy = part;
                    if (copy.data() != data + round % 256 || copy[0] != data[round % 256]) ++wrong;
                }
            });
        }
        workers.clear();
        EXPECT_EQ(released, 0);
        EXPECT_EQ(whole.block().get()->references.load(), 1U);
    }
    EXPECT_EQ(released, 1);
    EXPECT_EQ(wrong, 0);
}

TEST(bytes, concurrent_last_slices_release_the_owner_once) {
    for (int round = 0; round < 200; ++round) {
        std::atomic<int> released = 0;
        static constexpr std::string_view memory = "memory";
        auto whole = bytes::borrow(std::span(reinterpret_cast<const std::uint8_t*>(memory.data()), memory.size()),
                                   std::shared_ptr<const void>(memory.data(), [&](const void*) { ++released; }));
        std::latch start(2);
        std::jthread other([&start, mine = whole.slice(2)]() mutable {
            start.arrive_and_wait();
            mine = {};
        });
        start.arrive_and_wait();
        whole = {};
        other.join();
        ASSERT_EQ(released, 1);
    }
}

// --- bytes over a file -----------------------------------------------------------------------------------------------------

TEST(bytes_of_a_file, show_the_whole_file) {
    const auto content = pattern(100'000);
    const temporary_file file(content);
    const auto run = bytes::map_file(file.path());
    ASSERT_EQ(run.size(), content.size());
    EXPECT_TRUE(std::equal(run.begin(), run.end(), content.begin()));
}

TEST(bytes_of_a_file, are_mapped_until_the_last_slice_is_gone) {
    const temporary_file file(pattern(10'000));
    auto run = bytes::map_file(file.path());
    EXPECT_TRUE(file.mapped());
    auto part = run.slice(5000, 10);
    run = {};
    EXPECT_TRUE(file.mapped());
    EXPECT_EQ(part[0], pattern(10'000)[5000]);
    part = {};
    EXPECT_FALSE(file.mapped());
}

TEST(bytes_of_a_file, outlive_the_name_of_the_file) {
    auto file = std::make_unique<temporary_file>(pattern(5000));
    const auto run = bytes::map_file(file->path());
    file.reset();
    EXPECT_EQ(run, bytes::own(pattern(5000)));
}

TEST(bytes_of_a_file, are_empty_for_an_empty_file) {
    const temporary_file file(pattern(0));
    EXPECT_TRUE(bytes::map_file(file.path()).empty());
    EXPECT_FALSE(file.mapped());
}

TEST(bytes_of_a_file, leave_no_open_descriptor) {
    const auto open = [] {
        const std::filesystem::directory_iterator descriptors("/proc/self/fd");
        return std::distance(begin(descriptors), end(descriptors));
    };
    const temporary_file file(pattern(100));
    const auto before = open();
    const auto run = bytes::map_file(file.path());
    EXPECT_TRUE(fails([] { bytes::map_file("/"); }, errc::source_failed, "/"));
    EXPECT_EQ(open(), before);
}

TEST(bytes_of_a_file, fail_with_the_path_and_the_reason) {
    EXPECT_TRUE(
        fails([] { bytes::map_file("/nowhere/at all"); }, errc::source_failed, "/nowhere/at all: No such file"));
    EXPECT_TRUE(fails([] { bytes::map_file(""); }, errc::source_failed, "No such file"));
    EXPECT_TRUE(fails([] { bytes::map_file("/"); }, errc::source_failed, "not a regular file"));
    EXPECT_TRUE(fails([] { bytes::map_file("/dev/null"); }, errc::source_failed, "not a regular file"));
}

TEST(bytes_of_a_file, do_not_wait_for_the_other_end_of_a_pipe) {
    const auto pipe = temporary_file::pipe();
    EXPECT_TRUE(fails([&] { bytes::map_file(pipe->path()); }, errc::source_failed, "not a regular file"));
}

// --- payload -----------------------------------------------------------------------------------------------------------------

payload three_runs() {
    payload made;
    made.append(text("0123"));
    made.append(text("45"));
    made.append(text("6789"));
    return made;
}

TEST(payload, default_is_empty_and_in_memory) {
    const payload nothing;
    EXPECT_EQ(nothing.size(), 0U);
    EXPECT_TRUE(nothing.in_memory());
    EXPECT_THAT(nothing.runs(), IsEmpty());
    EXPECT_TRUE(nothing.flatten().empty());
    EXPECT_EQ(nothing.slice(0, 10).size(), 0U);
}

TEST(payload, is_its_runs_in_order) {
    const auto made = three_runs();
    EXPECT_EQ(made.size(), 10U);
    EXPECT_THAT(made.runs(), ElementsAre(text("0123"), text("45"), text("6789")));
    EXPECT_EQ(made.flatten().view(), "0123456789");
}

TEST(payload, empty_runs_leave_no_trace) {
    payload made(text(""));
    made.append(text("a"));
    made.append(bytes());
    made.append(text("b"));
    EXPECT_EQ(made.size(), 2U);
    EXPECT_THAT(made.runs(), ElementsAre(text("a"), text("b")));
}

TEST(payload, shares_its_runs) {
    const auto run = bytes::copy(pattern(100));
    payload made(run);
    made.append(run);
    const auto copy = made;
    EXPECT_EQ(copy.runs()[0].data(), run.data());
    EXPECT_EQ(copy.runs()[1].data(), run.data());
    EXPECT_EQ(copy.slice(50, 100).runs()[0].data(), run.data() + 50);
    EXPECT_EQ(copy.slice(50, 100).runs()[1].data(), run.data());
}

TEST(payload, flattens_one_run_without_a_copy) {
    const auto run = bytes::copy(pattern(100));
    EXPECT_EQ(payload(run).flatten().data(), run.data());
    EXPECT_NE(three_runs().flatten().data(), three_runs().runs()[0].data());
}

TEST(payload, releases_its_runs) {
    watched_container container(10);
    const std::weak_ptr<int> alive = container.alive;
    payload made(bytes::own(std::move(container)));
    container.alive.reset();
    auto part = made.slice(3, 2);
    made = {};
    EXPECT_FALSE(alive.expired());
    part = {};
    EXPECT_TRUE(alive.expired());
}

TEST(payload, moved_from_is_empty) {
    auto from = three_runs();
    const auto to = std::move(from);
    EXPECT_EQ(to.size(), 10U);
    EXPECT_EQ(from.size(), 0U);  // NOLINT(bugprone-use-after-move)
    EXPECT_TRUE(from.flatten().empty());
    from.append(text("new"));
    EXPECT_EQ(from.flatten().view(), "new");
}

TEST(payload, slices_every_range_across_its_runs) {
    const auto made = three_runs();
    const std::string all = "0123456789";
    for (std::uint64_t offset = 0; offset <= 11; ++offset) {
        for (std::uint64_t length = 0; length <= 12; ++length) {
            const auto expected = offset < 10 ? all.substr(offset, length) : std::string();
            const auto part = made.slice(offset, length);
            EXPECT_EQ(part.flatten().view(), expected) << offset << " " << length;
            EXPECT_EQ(part.size(), expected.size()) << offset << " " << length;
        }
    }
    constexpr auto most = std::numeric_limits<std::uint64_t>::max();
    EXPECT_EQ(made.slice(4, most).flatten().view(), "456789");
    EXPECT_EQ(made.slice(most, most).size(), 0U);
}

TEST(payload, visits_only_the_runs_of_a_range) {
    const auto made = three_runs();
    const auto visited = [&](std::uint64_t offset, std::uint64_t length) {
        std::vector<std::string> pieces;
        made.for_each_run(offset, length, [&](const bytes& run) { pieces.emplace_back(run.view()); });
        return pieces;
    };
    EXPECT_THAT(visited(0, 10), ElementsAre("0123", "45", "6789"));
    EXPECT_THAT(visited(0, 4), ElementsAre("0123"));
    EXPECT_THAT(visited(4, 2), ElementsAre("45"));
    EXPECT_THAT(visited(3, 2), ElementsAre("3", "4"));
    EXPECT_THAT(visited(3, 4), ElementsAre("3", "45", "6"));
    EXPECT_THAT(visited(6, 100), ElementsAre("6789"));
    EXPECT_THAT(visited(9, 1), ElementsAre("9"));
    EXPECT_THAT(visited(10, 1), IsEmpty());
    EXPECT_THAT(visited(5, 0), IsEmpty());
}

TEST(payload, reads_a_range_of_memory_at_once) {
    const auto made = three_runs();
    int calls = 0;
    made.read(3, 4, [&](range_result result) {
        ++calls;
        EXPECT_EQ(result.code, errc::ok);
        EXPECT_EQ(result.text, "");
        EXPECT_EQ(result.data.flatten().view(), "3456");
        EXPECT_EQ(result.data.runs()[1].data(), made.runs()[1].data());
    });
    EXPECT_EQ(calls, 1);
}

TEST(payload, gives_the_checksum_of_its_beginning) {
    const auto data = pattern(300'000);
    const std::span<const std::uint8_t> all(data);
    payload made;
    for (std::size_t at = 0, length = 1; at < data.size(); at += length, length = length * 3 + 1)
        made.append(bytes::copy(all.subspan(at, std::min(length, data.size() - at))));
    for (const std::size_t length : {0U, 1U, 40'000U, 299'999U, 300'000U, 65'536U, 70'000U, 70'000U, 65'537U, 3U})
        EXPECT_EQ(made.checksum_of(length), crc32c(0, all.first(length))) << length;
    EXPECT_EQ(made.checksum_of(300'001), crc32c(0, all)) << "it's cut off at the end";
    EXPECT_EQ(payload().checksum_of(10), 0U);

    const auto copy = made;
    EXPECT_EQ(copy.checksum_of(200'000), crc32c(0, all.first(200'000)));
    EXPECT_EQ(made.slice(100, 200'000).checksum_of(150'000), crc32c(0, all.subspan(100, 150'000)));
    made.append(bytes::copy(all));
    EXPECT_EQ(made.checksum_of(600'000), crc32c(crc32c(0, all), all)) << "a run that is added counts";
    made = payload(bytes::copy(all.subspan(7)));
    EXPECT_EQ(made.checksum_of(200'000), crc32c(0, all.subspan(7, 200'000))) << "it forgets what it was";
    auto moved = std::move(made);
    EXPECT_EQ(moved.checksum_of(200'000), crc32c(0, all.subspan(7, 200'000)));
    EXPECT_EQ(made.checksum_of(10), 0U);
}

TEST(payload, concurrent_checksums_agree) {
    const auto data = pattern(3'000'000);
    const payload made(bytes::copy(data));
    std::atomic<int> wrong{0};
    {
        std::vector<std::jthread> threads;
        for (std::uint32_t seed = 1; seed <= 4; ++seed) {
            threads.emplace_back([&, seed] {
                std::uint32_t state = seed;
                for (int i = 0; i < 50; ++i) {
                    state = state * 1664525U + 1013904223U;
                    const std::size_t length = state % (data.size() + 1);
                    if (made.checksum_of(length) != crc32c(0, std::span(data).first(length))) ++wrong;
                }
            });
        }
    }
    EXPECT_EQ(wrong, 0);
}

/// Counts the bytes that a memo has computed.
struct counted_checksums {
    explicit counted_checksums(std::size_t size) : data(pattern(size)) {}
    std::uint32_t get(std::uint64_t length) {
        return memo.get(length, data.size(), [this](std::uint32_t crc, std::uint64_t from, std::uint64_t to) {
            computed += to - from;
            return crc32c(crc, std::span(data).subspan(from, to - from));
        });
    }
    std::uint64_t cost(std::uint64_t length) {
        const auto before = computed;
        EXPECT_EQ(get(length), crc32c(0, std::span(data).first(length))) << length;
        return computed - before;
    }
    std::vector<std::uint8_t> data;
    std::uint64_t computed = 0;
    ferry::detail::checksum_memo memo;
};

TEST(checksum_memo, computes_each_byte_once) {
    counted_checksums of(40'000'000);
    EXPECT_EQ(of.cost(10'000'000), 10'000'000U);
    EXPECT_EQ(of.cost(10'000'000), 0U);
    EXPECT_EQ(of.cost(40'000'000), 30'000'000U);
    EXPECT_EQ(of.cost(40'000'000), 0U);
    const std::uint64_t span = 40'000'000 / 256 + 1;
    std::uint32_t state = 1;
    for (int i = 0; i < 300; ++i) {
        state = state * 1664525U + 1013904223U;
        EXPECT_LE(of.cost(state % 40'000'001), 2 * span);
    }
}

TEST(checksum_memo, keeps_nothing_of_small_payloads) {
    counted_checksums small(65'535), larger(65'536);
    EXPECT_EQ(small.cost(65'535), 65'535U);
    EXPECT_EQ(small.cost(65'535), 65'535U);
    EXPECT_EQ(larger.cost(65'536), 65'536U);
    EXPECT_EQ(larger.cost(65'536), 0U);
}

TEST(checksum_memo, is_moved_along_but_not_copied) {
    counted_checksums of(100'000);
    EXPECT_EQ(of.cost(100'000), 100'000U);
    const auto copy = of;
    auto& itself = of.memo;
    of.memo = std::move(itself);
    EXPECT_EQ(of.cost(100'000), 0U);
    auto moved = std::move(of);
    EXPECT_EQ(moved.cost(100'000), 0U);
    moved = copy;
    EXPECT_EQ(moved.cost(100'000), 100'000U) << "a copy starts without memory";
}

TEST(payload, a_reader_of_memory_need_not_be_copyable) {
    const payload made(text("0123"));
    auto received = std::make_unique<std::string>();
    const auto* kept = received.get();
    const auto reader = [received = std::move(received)](const range_result& result) {
        *received = result.data.flatten().view();
    };
    static_assert(!std::is_copy_constructible_v<decltype(reader)>);
    made.read(1, 2, std::ref(reader));
    EXPECT_EQ(*kept, "12");
}

// --- payload with a source -----------------------------------------------------------------------------------------------------

/// A source that keeps each question until the test answers it.
class patient_source : public ferry::payload_source {
public:
    struct question {
        std::uint64_t offset, length;
        std::function<void(range_result)> done;
    };

    explicit patient_source(std::string content) : content_(std::move(content)) {}

    std::uint64_t size() const noexcept override { return content_.size(); }
    void read(std::uint64_t offset, std::uint64_t length, std::function<void(range_result)> done) const override {
        questions.push_back({offset, length, std::move(done)});
    }

    void answer(std::size_t i) const {
        const auto asked = std::exchange(questions[i], {});
        asked.done({errc::ok, payload(text(content_).slice(asked.offset, asked.length)), {}});
    }

    mutable std::vector<question> questions;

private:
    std::string content_;
};

TEST(payload_with_a_source, has_the_size_of_the_source_and_no_runs) {
    const payload made(std::make_shared<patient_source>("0123456789"));
    EXPECT_EQ(made.size(), 10U);
    EXPECT_FALSE(made.in_memory());
    EXPECT_THAT(made.runs(), IsEmpty());
}

TEST(payload_with_a_source, can_be_larger_than_memory) {
    struct huge : ferry::payload_source {
        std::uint64_t size() const noexcept override { return std::uint64_t{1} << 62; }
        void read(std::uint64_t, std::uint64_t, std::function<void(range_result)>) const override {}
    };
    const payload made(std::make_shared<huge>());
    EXPECT_EQ(made.size(), std::uint64_t{1} << 62);
    EXPECT_TRUE(fails([&] { made.flatten(); }, errc::invalid_argument, "must be read"));
}

TEST(payload_with_a_source, asks_it_for_the_range_and_passes_the_answer_on_later) {
    const auto source = std::make_shared<patient_source>("0123456789");
    const payload made(source);
    std::string first;
    std::string second;
    made.read(2, 3, [&](const range_result& result) { first = result.data.flatten().view(); });
    made.read(5, 5, [&](const range_result& result) { second = result.data.flatten().view(); });
    ASSERT_EQ(source->questions.size(), 2U);
    EXPECT_EQ(source->questions[0].offset, 2U);
    EXPECT_EQ(source->questions[0].length, 3U);
    EXPECT_EQ(first, "");
    source->answer(1);
    EXPECT_EQ(first, "");
    EXPECT_EQ(second, "56789");
    source->answer(0);
    EXPECT_EQ(first, "234");
}

TEST(payload_with_a_source, concurrent_answers_come_from_another_thread) {
    const auto source = std::make_shared<patient_source>("0123456789");
    std::promise<std::pair<std::string, std::thread::id>> came;
    payload(source).read(4, 4, [&](const range_result& result) {
        came.set_value({std::string(result.data.flatten().view()), std::this_thread::get_id()});
    });
    std::jthread other([&] { source->answer(0); });
    const auto [data, thread] = came.get_future().get();
    EXPECT_EQ(data, "4567");
    EXPECT_NE(thread, std::this_thread::get_id());
}

TEST(payload_with_a_source, passes_its_failure_on) {
    const auto source = std::make_shared<patient_source>("0123456789");
    std::optional<range_result> came;
    payload(source).read(0, 10, [&](range_result result) { came = std::move(result); });
    EXPECT_FALSE(came.has_value());
    source->questions.at(0).done({errc::source_failed, {}, "the disk is gone"});
    ASSERT_TRUE(came.has_value());
    EXPECT_EQ(came->code, errc::source_failed);
    EXPECT_EQ(came->text, "the disk is gone");
    EXPECT_EQ(came->data.size(), 0U);
}

TEST(payload_with_a_source, shares_and_releases_it) {
    auto source = std::make_shared<patient_source>("0123456789");
    const std::weak_ptr<patient_source> alive = source;
    auto made = std::make_optional<payload>(std::move(source));
    auto copy = made;
    made.reset();
    EXPECT_FALSE(alive.expired());
    EXPECT_EQ(copy->size(), 10U);
    copy.reset();
    EXPECT_TRUE(alive.expired());
}

TEST(payload_with_a_source, refuses_what_needs_memory) {
    payload made(std::make_shared<patient_source>("0123456789"));
    EXPECT_TRUE(fails([&] { made.append(text("x")); }, errc::invalid_argument, "can't take more runs"));
    EXPECT_TRUE(fails([&] { made.slice(0, 5); }, errc::invalid_argument, "must be read"));
    EXPECT_TRUE(fails([&] { made.for_each_run(0, 5, [](const bytes&) {}); }, errc::invalid_argument, "must be read"));
    EXPECT_TRUE(fails([&] { made.flatten(); }, errc::invalid_argument, "must be read"));
    EXPECT_EQ(made.checksum_of(5), std::nullopt);
    EXPECT_EQ(made.size(), 10U);
}

TEST(payload_with_a_source, none_is_an_empty_payload) {
    const payload made(std::shared_ptr<const ferry::payload_source>{});
    EXPECT_TRUE(made.in_memory());
    EXPECT_EQ(made.size(), 0U);
}

}  // namespace
