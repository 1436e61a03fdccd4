#include <ferry/spool.hpp>

#include "support.hpp"
#include "temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::payload;
using ferry::spool;
using ferry::detail::crc32c;
using ferry::detail::spool_file;
using ferry_test::fails;
using ferry_test::file_size_limit;
using ferry_test::pattern;
using ferry_test::temporary_folder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

unsigned mode_of(const std::string& path) {
    struct stat about {};
    EXPECT_EQ(::lstat(path.c_str(), &about), 0) << path;
    return about.st_mode & 07777;
}

bytes mapped(const spool_file& file) {
    bytes out;
    EXPECT_EQ(file.map(out), "");
    return out;
}

std::vector<std::string> names_of(const spool& of) {
    std::vector<std::string> out;
    for (const auto& each : of.list()) out.push_back(each.name);
    return out;
}

std::set<std::string> all_in(const std::string& folder) {
    std::set<std::string> out;
    for (const auto& each : std::filesystem::directory_iterator(folder)) out.insert(each.path().filename());
    return out;
}

class spools : public testing::Test {
protected:
    temporary_folder above;
    std::string folder = above.path() + "/spool";
};

TEST_F(spools, make_their_folder_for_one_user_alone) {
    const auto before = ::umask(0);
    spool made({folder});
    auto file = made.create("one");
    ::umask(before);
    EXPECT_EQ(mode_of(folder), 0700U);
    EXPECT_EQ(mode_of(folder + "/one"), 0600U);
    EXPECT_EQ(mode_of(folder + "/.lock"), 0600U);
    EXPECT_EQ(made.folder(), folder);
    EXPECT_EQ(made.threshold(), 64U << 20);
}

TEST_F(spools, refuse_a_folder_that_others_can_get_into) {
    for (const unsigned mode : {0710U, 0701U, 0740U, 0777U}) {
        std::filesystem::create_directory(folder);
        ASSERT_EQ(::chmod(folder.c_str(), mode), 0);
        EXPECT_TRUE(fails([&] { spool({folder}); }, errc::invalid_argument, "chmod 700")) << mode;
    }
    ASSERT_EQ(::chmod(folder.c_str(), 0700), 0);
    EXPECT_NO_THROW(spool({folder}));
}

TEST_F(spools, refuse_another_users_folder) {
    std::filesystem::create_directory(folder);
    ASSERT_EQ(::chmod(folder.c_str(), 0700), 0);
    if (::chown(folder.c_str(), 12345, 12345) != 0) GTEST_SKIP() << "only root can give a folder away";
    EXPECT_TRUE(fails([&] { spool({folder}); }, errc::invalid_argument, "another user"));
}

TEST_F(spools, refuse_what_is_no_folder) {
    std::ofstream(folder) << "a file";
    EXPECT_TRUE(fails([&] { spool({folder}); }, errc::invalid_argument, "Not a directory"));
    EXPECT_TRUE(fails([&] { spool({above.path() + "/no/parent"}); }, errc::invalid_argument, "make its parent"));
    EXPECT_TRUE(fails([] { spool({""}); }, errc::invalid_argument, "name a folder"));
}

TEST_F(spools, refuse_a_folder_in_use) {
    auto first = std::make_unique<spool>(ferry::spool_options{folder});
    EXPECT_TRUE(fails([&] { spool({folder}); }, errc::invalid_argument, "in use by another process"));
    first.reset();
    EXPECT_NO_THROW(spool({folder}));
}

TEST_F(spools, leave_nothing_of_a_file_without_a_name) {
    spool made({folder});
    const auto data = pattern(100'000);
    for (const bool unlinked : {false, true}) {
        bytes shown;
        {
            auto file = unlinked ? made.create_unlinked() : made.create_unnamed();
            ASSERT_EQ(file.append(data), "");
            EXPECT_EQ(all_in(folder), std::set<std::string>{".lock"}) << "not even while it's open";
            shown = mapped(file);
        }
        EXPECT_TRUE(shown == bytes::copy(data));
        EXPECT_EQ(all_in(folder), std::set<std::string>{".lock"});
    }
}

TEST_F(spools, clean_up_after_a_killed_process) {
    {
        spool made({folder});
        std::ofstream(folder + "/.part-7") << "half";
        made.write("whole", bytes::copy("data"));
    }
    spool again({folder});
    EXPECT_EQ(all_in(folder), (std::set<std::string>{".lock", "whole"}));
}

TEST_F(spools, list_and_remove_by_name) {
    spool made({folder});
    EXPECT_THAT(made.list(), IsEmpty());
    ASSERT_EQ(made.create("b").append(pattern(10)), "");
    made.create("a");
    std::filesystem::create_directory(folder + "/directory");
    std::filesystem::create_symlink("b", folder + "/link");
    ASSERT_THAT(names_of(made), ElementsAre("a", "b"));
    EXPECT_EQ(made.list()[0].bytes, 0U);
    EXPECT_EQ(made.list()[1].bytes, 10U);
    EXPECT_TRUE(made.remove("b"));
    EXPECT_FALSE(made.remove("b"));
    EXPECT_THAT(names_of(made), ElementsAre("a"));
    EXPECT_TRUE(fails([&] { made.remove("directory"); }, errc::spool_failed, "directory: Is a directory"));
}

TEST_F(spools, keep_to_their_folder) {
    spool made({folder});
    std::ofstream(above.path() + "/outside") << "secret";
    std::filesystem::create_symlink("../outside", folder + "/link");
    EXPECT_TRUE(fails([&] { made.reopen("link"); }, errc::spool_failed, "link: "));
    for (const std::string name : {"", ".", "..", ".lock", ".part-1", "../outside", "a/b", "/x"}) {
        EXPECT_TRUE(fails([&] { made.create(name); }, errc::invalid_argument, "not a name")) << name;
        EXPECT_TRUE(fails([&] { made.reopen(name); }, errc::invalid_argument, "not a name")) << name;
        EXPECT_TRUE(fails([&] { made.remove(name); }, errc::invalid_argument, "not a name")) << name;
        EXPECT_TRUE(fails([&] { made.write(name, {}); }, errc::invalid_argument, "not a name")) << name;
    }
    EXPECT_TRUE(fails([&] { made.create(std::string(201, 'x')); }, errc::invalid_argument, "not a name"));
    EXPECT_TRUE(fails([&] { made.create(std::string("a\0b", 3)); }, errc::invalid_argument, "not a name"));
}

TEST_F(spools, go_on_with_a_file) {
    const auto data = pattern(700'000);
    const auto all = std::span<const std::uint8_t>(data);
    {
        spool made({folder});
        auto file = made.create("task");
        ASSERT_EQ(file.append(all.first(600'001)), "");
        EXPECT_EQ(made.reopen("other").has_value(), false);
    }
    spool made({folder});
    auto file = made.reopen("task");
    ASSERT_TRUE(file.has_value());
    EXPECT_EQ(file->size(), 600'001U);
    EXPECT_EQ(file->checksum(), crc32c(0, all.first(600'001)));
    ASSERT_EQ(file->append(all.subspan(600'001)), "");
    EXPECT_EQ(file->size(), 700'000U);
    EXPECT_EQ(file->checksum(), crc32c(0, all));
    EXPECT_TRUE(mapped(*file) == bytes::copy(all));
}

TEST_F(spools, mapped_bytes_outlive_the_file_and_its_successor) {
    spool made({folder});
    const auto data = pattern(10'000);
    auto file = made.create("x");
    ASSERT_EQ(file.append(data), "");
    const auto shown = mapped(file);
    file = {};
    auto next = made.create("x");
    ASSERT_EQ(next.append(pattern(5, 2)), "");
    EXPECT_TRUE(made.remove("x"));
    EXPECT_TRUE(shown == bytes::copy(data));
    EXPECT_TRUE(mapped(made.create_unnamed()).empty());
}

TEST_F(spools, rewind_a_file) {
    spool made({folder});
    auto file = made.create("x");
    ASSERT_EQ(file.append(pattern(100)), "");
    const auto checksum = file.checksum();
    ASSERT_EQ(file.append(pattern(1000, 2)), "");
    ASSERT_EQ(file.rewind(100, checksum), "");
    EXPECT_EQ(made.list().at(0).bytes, 100U);
    ASSERT_EQ(file.append(pattern(50, 3)), "");
    EXPECT_EQ(file.size(), 150U);
    EXPECT_EQ(file.checksum(), crc32c(checksum, pattern(50, 3)));
    EXPECT_TRUE(mapped(file).slice(0, 100) == bytes::own(pattern(100)));
    EXPECT_TRUE(mapped(file).slice(100) == bytes::own(pattern(50, 3)));
}

TEST_F(spools, say_when_the_disk_is_full) {
    spool made({folder});
    auto file = made.create("x");
    ASSERT_EQ(file.append(pattern(1000)), "");
    const auto checksum = file.checksum();
    made.write("kept", bytes::copy("old"));
    {
        const file_size_limit limit(500'000);
        EXPECT_EQ(file.append(pattern(1'000'000)), "File too large");
        EXPECT_EQ(file.size(), 1000U);
        EXPECT_EQ(file.checksum(), checksum);
        EXPECT_TRUE(fails([&] { made.write("kept", bytes::own(pattern(600'000))); }, errc::spool_failed,
                          "kept: File too large"));
    }
    EXPECT_EQ(made.list().at(1).bytes, 1000U) << "what was written in part is cut off";
    EXPECT_EQ(all_in(folder), (std::set<std::string>{".lock", "kept", "x"}));
    EXPECT_TRUE(mapped(*made.reopen("kept")) == bytes::copy("old"));
    EXPECT_EQ(file.append(pattern(1'000'000)), "");
}

TEST_F(spools, write_whole_payloads) {
    spool made({folder});
    const auto data = bytes::own(pattern(400'000));
    payload content(data.slice(0, 7));
    content.append(data.slice(7, 300'000));
    content.append(data.slice(300'007));
    made.write("result", content);
    made.write("empty", {});
    EXPECT_EQ(mode_of(folder + "/result"), 0600U);
    EXPECT_TRUE(mapped(*made.reopen("result")) == data);
    made.write("result", bytes::copy("new"));
    EXPECT_TRUE(mapped(*made.reopen("result")) == bytes::copy("new"));
    EXPECT_EQ(made.reopen("empty")->size(), 0U);
    EXPECT_EQ(all_in(folder), (std::set<std::string>{".lock", "empty", "result"}));
}

TEST_F(spools, write_no_payload_with_a_source) {
    struct source : ferry::payload_source {
        std::uint64_t size() const noexcept override { return 10; }
        void read(std::uint64_t, std::uint64_t, std::function<void(ferry::range_result)>) const override {}
    };
    spool made({folder});
    EXPECT_TRUE(
        fails([&] { made.write("x", payload(std::make_shared<source>())); }, errc::invalid_argument, "with a source"));
}

TEST_F(spools, concurrent_files_do_not_meet) {
    spool made({folder});
    {
        std::vector<std::jthread> threads;
        for (std::uint32_t seed = 1; seed <= 4; ++seed) {
            threads.emplace_back([&, seed] {
                for (int i = 0; i < 20; ++i) {
                    auto file = made.create_unlinked();
                    EXPECT_EQ(file.append(pattern(1000, seed)), "");
                    EXPECT_TRUE(mapped(file) == bytes::own(pattern(1000, seed)));
                    made.write("n" + std::to_string(seed), bytes::own(pattern(100, seed)));
                }
            });
        }
    }
    EXPECT_EQ(made.list().size(), 4U);
}

TEST_F(spools, a_killed_process_leaves_no_unnamed_file_and_no_lock) {
    const auto child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        spool made({folder});
        auto file = made.create_unnamed();
        const bool written = file.append(pattern(1000)).empty();
        ::raise(written ? SIGKILL : SIGABRT);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    spool made({folder});
    EXPECT_EQ(all_in(folder), std::set<std::string>{".lock"});
}

}  // namespace
