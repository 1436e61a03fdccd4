#include <ferry/detail/node_spool.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>
#include <ferry/spool.hpp>

#include "support.hpp"
#include "temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <set>
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
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t threshold = 1000;

std::shared_ptr<const payload> content_of(std::size_t size) {
    return std::make_shared<const payload>(bytes::own(pattern(size)));
}

struct node_spool_folder : testing::Test {
    std::unique_ptr<node_spool> open(std::vector<node_spool::left_reply>* left = nullptr) const {
        auto made = std::make_unique<node_spool>();
        auto found = made->open({top.path(), threshold}, "there:1/a");
        if (left) *left = std::move(found);
        return made;
    }

    std::string path_of(const std::string& name) const { return top.file("there:1_a") + "/" + name; }
    static std::string name_of(std::uint64_t number) { return "reply-" + std::to_string(number) + "-7"; }

    /// All but the lock.
    std::vector<std::string> files() const {
        std::vector<std::string> out;
        for (const auto& each : std::filesystem::directory_iterator(path_of(""))) {
            if (auto name = each.path().filename().string(); name != ".lock") out.push_back(std::move(name));
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
    EXPECT_THAT(files(), ElementsAre(name_of(number)));
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
    EXPECT_THAT(files(), ElementsAre(name_of(two)));
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
    const auto one = keep(*kept), two = keep(*kept);
    std::filesystem::remove(path_of(name_of(one)));
    std::filesystem::create_directory(path_of(name_of(one)));
    kept->forget_reply(one);
    kept->forget_reply(two);
    kept->forget_task(3);
    kept->forget_task(5);
    std::vector<std::uint64_t> named;
    const auto problems = kept->tidy([&](std::uint64_t task) {
        named.push_back(task);
        if (task == 3) throw ferry::error(errc::spool_failed, "not this one");
    });
    EXPECT_THAT(problems, ElementsAre("not this one", HasSubstr(name_of(one))));
    EXPECT_THAT(named, ElementsAre(3, 5));
    EXPECT_THAT(files(), ElementsAre(name_of(one)));
}

TEST_F(node_spool_folder, hands_over_what_an_earlier_life_left) {
    const auto number = keep(*open(), 2000);
    std::vector<node_spool::left_reply> left;
    const auto next = open(&left);
    ASSERT_EQ(left.size(), 1U);
    EXPECT_EQ(left[0].number, number);
    EXPECT_EQ(left[0].task, 7U);
    EXPECT_EQ(left[0].content, bytes::own(pattern(2000)));
    EXPECT_TRUE(next->forget_reply(number));
    tidy(*next);
    EXPECT_THAT(files(), IsEmpty());
}

TEST_F(node_spool_folder, keeps_nothing_before_it_is_opened) {
    node_spool closed;
    EXPECT_EQ(closed.folder(), nullptr);
    EXPECT_EQ(keep(closed), 0U);
    closed.close();
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

// What was forgotten before the folder is closed is gone, whoever was at it; what is kept while it is being closed is whole.
TEST_F(node_spool_folder, concurrent_calls_agree_with_close) {
    for (int round = 0; round < 20; ++round) {
        const auto kept = open();
        std::atomic<bool> closed = false;
        std::vector<std::thread> callers;
        std::vector<std::vector<std::uint64_t>> staying(3);
        for (auto& mine : staying) {
            callers.emplace_back([&] {
                while (!closed) {
                    if (const auto number = keep(*kept)) mine.push_back(number);
                    if (mine.size() % 2 == 0 && !mine.empty() && kept->forget_reply(mine.back())) {
                        mine.pop_back();
                        tidy(*kept);
                    }
                }
            });
        }
        while (files().empty()) std::this_thread::yield();
        tidy(*kept);
        kept->close();
        closed = true;
        for (auto& each : callers) each.join();
        std::vector<node_spool::left_reply> left;
        const auto next = open(&left);
        std::set<std::uint64_t> found;
        for (const auto& each : left) {
            found.insert(each.number);
            EXPECT_EQ(each.content.size(), threshold + 1);
        }
        for (const auto& mine : staying) {
            for (const auto number : mine) ASSERT_TRUE(found.contains(number)) << "in round " << round;
        }
        for (const auto& each : left) next->forget_reply(each.number);
        ASSERT_THAT(tidy(*next), IsEmpty());
        ASSERT_THAT(files(), IsEmpty());
    }
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
