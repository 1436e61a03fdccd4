#include <ferry/detail/node_spool.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>
#include <ferry/spool.hpp>

#include "support.hpp"
#include "temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::payload;
using ferry::detail::node_spool;
using ferry_test::fails;
using ferry_test::file_size_limit;
using ferry_test::pattern;
using ferry_test::temporary_folder;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t threshold = 1000;

std::shared_ptr<const payload> content_of(std::size_t size) {
    return std::make_shared<const payload>(bytes::own(pattern(size)));
}

struct node_spool_folder : testing::Test {
    std::unique_ptr<node_spool> open() const {
        return std::make_unique<node_spool>(ferry::spool_options{top.path(), threshold}, "there:1/a");
    }

    std::vector<std::string> files() const {
        std::vector<std::string> out;
        for (const auto& each : std::filesystem::directory_iterator(top.file("there:1_a"))) {
            if (auto name = each.path().filename().string(); name.front() != '.') out.push_back(std::move(name));
        }
        return out;
    }

    static std::uint64_t keep(node_spool& in, std::size_t size = threshold + 1, std::uint64_t task = 7) {
        auto content = content_of(size);
        return in.keep_reply(content, task);
    }

    static std::vector<std::string> tidy(node_spool& in) {
        return in.tidy([](std::uint64_t) {});
    }

    temporary_folder top;
};

TEST_F(node_spool_folder, keeps_a_large_reply_and_reads_it_from_there) {
    const auto kept = open();
    auto content = content_of(threshold + 1);
    const auto before = content;
    const auto number = kept->keep_reply(content, 7);
    ASSERT_NE(number, 0U);
    EXPECT_THAT(files(), ElementsAre("reply-" + std::to_string(number) + "-7"));
    EXPECT_NE(content, before);
    EXPECT_EQ(content->flatten(), bytes::own(pattern(threshold + 1)));
}

TEST_F(node_spool_folder, keeps_no_small_reply) {
    const auto kept = open();
    EXPECT_EQ(keep(*kept, threshold), 0U);
    EXPECT_THAT(files(), IsEmpty());
}

TEST_F(node_spool_folder, a_reply_that_cannot_be_written_is_not_kept) {
    const auto kept = open();
    {
        const file_size_limit limit(threshold);
        EXPECT_TRUE(fails([&] { keep(*kept); }, errc::spool_failed, "reply-"));
    }
    EXPECT_THAT(files(), IsEmpty());
    EXPECT_NE(keep(*kept), 0U);
}

TEST_F(node_spool_folder, removes_what_is_forgotten_when_it_is_tidied) {
    const auto kept = open();
    const auto one = keep(*kept), two = keep(*kept);
    EXPECT_TRUE(kept->forget_reply(one));
    EXPECT_FALSE(kept->forget_reply(one));
    EXPECT_EQ(files().size(), 2U);
    EXPECT_THAT(tidy(*kept), IsEmpty());
    EXPECT_THAT(files(), ElementsAre("reply-" + std::to_string(two) + "-7"));
}

TEST_F(node_spool_folder, forgets_no_reply_that_it_does_not_keep) {
    const auto kept = open();
    EXPECT_FALSE(kept->forget_reply(0));
    EXPECT_FALSE(kept->forget_reply(1));
}

TEST_F(node_spool_folder, names_each_forgotten_task_once) {
    const auto kept = open();
    kept->forget_task(3);
    kept->forget_task(5);
    std::vector<std::uint64_t> named;
    const auto name = [&](std::uint64_t task) { named.push_back(task); };
    EXPECT_THAT(kept->tidy(name), IsEmpty());
    EXPECT_THAT(kept->tidy(name), IsEmpty());
    EXPECT_THAT(named, ElementsAre(3, 5));
}

TEST_F(node_spool_folder, says_what_cannot_be_removed_and_removes_the_rest) {
    const auto kept = open();
    kept->forget_task(3);
    kept->forget_task(5);
    kept->forget_reply(keep(*kept));
    const auto problems = kept->tidy([](std::uint64_t task) {
        if (task == 3) throw ferry::error(errc::spool_failed, "not this one");
    });
    EXPECT_THAT(problems, ElementsAre("not this one"));
    EXPECT_THAT(files(), IsEmpty());
}

TEST_F(node_spool_folder, hands_over_what_an_earlier_life_left) {
    const auto number = keep(*open(), 2000, 7);
    const auto next = open();
    std::vector<std::uint64_t> left;
    next->for_each_reply([&](std::uint64_t reply, std::uint64_t task, const bytes& content) {
        left = {reply, task, content.size()};
    });
    EXPECT_THAT(left, ElementsAre(number, 7, 2000));
    EXPECT_TRUE(next->forget_reply(number));
    tidy(*next);
    EXPECT_THAT(files(), IsEmpty());
}

TEST_F(node_spool_folder, is_the_next_ones_once_it_is_closed) {
    const auto kept = open();
    EXPECT_TRUE(fails([&] { open(); }, errc::invalid_argument, "in use"));
    const auto number = keep(*kept);
    kept->close();
    const auto next = open();
    EXPECT_EQ(keep(*kept), 0U);
    kept->forget_reply(number);
    EXPECT_THAT(tidy(*kept), IsEmpty());
    EXPECT_EQ(files().size(), 1U);  // the next one's
}

// What another thread is removing is gone when `tidy()` returns, although there is nothing left to take up.
TEST_F(node_spool_folder, concurrent_tidying_waits_for_the_one_that_is_at_it) {
    const auto kept = open();
    kept->forget_task(3);
    std::promise<void> inside, second_is_back;
    auto returned = second_is_back.get_future();
    bool overtaken = true;
    std::thread first([&] {
        kept->tidy([&](std::uint64_t) {
            inside.set_value();
            overtaken = returned.wait_for(std::chrono::milliseconds(100)) == std::future_status::ready;
        });
    });
    inside.get_future().wait();
    tidy(*kept);
    second_is_back.set_value();
    first.join();
    EXPECT_FALSE(overtaken);
}

}  // namespace
