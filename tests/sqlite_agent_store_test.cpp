#include <ferry/agent_store/sqlite.hpp>
#include <ferry/conformance/agent_store.hpp>
#include <ferry/conformance/durable_agent_store.hpp>

#include "temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::errc;
using ferry::conformance::some_task;
using ferry_test::file_size_limit;
using ferry_test::temporary_folder;
using testing::HasSubstr;

/// One whose contents lie in files, but for the smallest.
struct filing_store : ferry::sqlite_agent_store {
    using sqlite_agent_store::sqlite_agent_store;
};

}  // namespace

namespace ferry::conformance {

template <>
struct model_of<sqlite_agent_store> {
    temporary_folder folder;
    sqlite_agent_store make() const { return sqlite_agent_store({.file = folder.file("journals")}); }
};
template <>
struct model_of<filing_store> {
    temporary_folder folder;
    filing_store make() const {
        return filing_store({.file = folder.file("journals"),
                             .durability = sqlite_durability::power_cut_may_lose_the_file,
                             .file_bytes = 10});
    }
};

INSTANTIATE_TYPED_TEST_SUITE_P(sqlite_conformance, agent_store_suite, sqlite_agent_store);
INSTANTIATE_TYPED_TEST_SUITE_P(sqlite_conformance, durable_agent_store_suite, sqlite_agent_store);
INSTANTIATE_TYPED_TEST_SUITE_P(sqlite_files_conformance, agent_store_suite, filing_store);
INSTANTIATE_TYPED_TEST_SUITE_P(sqlite_files_conformance, durable_agent_store_suite, filing_store);

}  // namespace ferry::conformance

namespace {

ferry::task_record task_of(std::uint64_t order, std::size_t bytes) {
    auto out = some_task(order);
    out.taken = false;
    out.content = std::make_shared<const ferry::payload>(
        ferry::bytes::own(std::string(bytes, static_cast<char>('a' + order % 26))));
    return out;
}

/// A folder for a store, which can be looked into.
class sqlite_store : public testing::Test {
protected:
    std::string file() const { return folder_.file("own"); }
    std::string contents() const { return file() + ".contents"; }
    ferry::sqlite_options options() const { return {.file = file(), .file_bytes = 1000}; }

    std::vector<std::string> filed() const {
        std::vector<std::string> out;
        for (const auto& each : std::filesystem::directory_iterator(contents())) {
            if (const auto name = each.path().filename().string(); name.front() != '.') out.push_back(name);
        }
        return out;
    }
    /// A file is removed by a thread of the store's, when its last holder is gone.
    bool come_to(std::size_t files) const {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (filed().size() != files && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        return filed().size() == files;
    }
    static int mode_of(const std::string& path) {
        struct stat about {};
        EXPECT_EQ(::stat(path.c_str(), &about), 0) << path;
        return about.st_mode & 0777;
    }
    /// Of a file that no store has open.
    std::int64_t ask(const std::string& sql) const {
        sqlite3* db = nullptr;
        EXPECT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
        std::int64_t out = -1;
        const auto take = [](void* to, int, char** values, char**) {
            *static_cast<std::int64_t*>(to) = values[0] ? std::atoll(values[0]) : -1;
            return 0;
        };
        EXPECT_EQ(sqlite3_exec(db, sql.c_str(), take, &out, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
        sqlite3_close(db);
        return out;
    }

    temporary_folder folder_;
};

/// Waits for one operation on a store.
struct caller {
    ferry::sqlite_agent_store& store;

    ferry::acquired_journal acquire(const std::string& node) {
        ferry::conformance::awaited<ferry::acquired_journal> came;
        store.acquire(node, came.done());
        return came.get(std::chrono::seconds(30)).value();
    }
    ferry::store_status append(const std::string& node, ferry::epoch owner, const ferry::task_record& task) {
        return wait([&](auto done) { store.append(node, owner, task, done); });
    }
    ferry::store_status update(const std::string& node, ferry::epoch owner, const ferry::task_record& task) {
        return wait([&](auto done) { store.update(node, owner, task, done); });
    }
    ferry::store_status settle(const std::string& node, ferry::epoch owner, std::uint64_t order) {
        return wait([&](auto done) { store.settle(node, owner, order, done); });
    }
    ferry::known_nodes nodes() {
        ferry::conformance::awaited<ferry::known_nodes> came;
        store.nodes(came.done());
        return came.get(std::chrono::seconds(30)).value();
    }

    template <class Begin>
    ferry::store_status wait(Begin&& begin) {
        ferry::conformance::awaited<ferry::store_status> came;
        begin(came.done());
        return came.get(std::chrono::seconds(30)).value();
    }
};

std::string all_of(const ferry::payload& content) {
    ferry::conformance::awaited<ferry::range_result> came;
    content.read(0, content.size(), came.done());
    const auto out = came.get(std::chrono::seconds(30)).value();
    EXPECT_EQ(out.code, errc::ok) << out.text;
    return std::string(out.data.flatten().view());
}

// --- contents ------------------------------------------------------------------------------------------------------------

TEST_F(sqlite_store, nobody_else_can_read_its_files) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto owner = ask.acquire("node").owner;
    EXPECT_EQ(ask.append("node", owner, task_of(1, 5000)).code, errc::ok);
    EXPECT_EQ(mode_of(file()), 0600);
    EXPECT_EQ(mode_of(file() + "-wal"), 0600);
    EXPECT_EQ(mode_of(contents()), 0700);
    ASSERT_EQ(filed().size(), 1U);
    EXPECT_EQ(mode_of(contents() + "/" + filed()[0]), 0600);
}

TEST_F(sqlite_store, a_large_content_is_sent_from_its_file_and_goes_with_its_last_holder) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto owner = ask.acquire("node").owner;
    auto stored = ask.append("node", owner, task_of(1, 300'000));
    ASSERT_TRUE(stored.content);
    EXPECT_FALSE(stored.content->in_memory());
    EXPECT_EQ(all_of(*stored.content), std::string(300'000, 'b'));
    EXPECT_FALSE(ask.append("node", owner, task_of(2, 1000)).content) << "a small one stays in memory";
    EXPECT_EQ(filed().size(), 1U);
    EXPECT_EQ(ask.settle("node", owner, 1).code, errc::ok);
    EXPECT_EQ(all_of(*stored.content), std::string(300'000, 'b')) << "it is still held";
    stored.content.reset();
    EXPECT_TRUE(come_to(0));
}

TEST_F(sqlite_store, a_taken_task_needs_no_content) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto owner = ask.acquire("node").owner;
    for (const std::uint64_t order : {1U, 2U}) {
        auto task = task_of(order, order == 1 ? 5000 : 10);
        EXPECT_EQ(ask.append("node", owner, task).code, errc::ok);
        task.taken = true;
        EXPECT_EQ(ask.update("node", owner, task).code, errc::ok);
    }
    EXPECT_TRUE(come_to(0));
    const auto journal = ask.acquire("node");
    ASSERT_EQ(journal.tasks.size(), 2U);
    EXPECT_TRUE(journal.tasks[0].taken);
    EXPECT_FALSE(journal.tasks[0].content);
    EXPECT_FALSE(journal.tasks[1].content);
}

TEST_F(sqlite_store, a_content_for_several_nodes_is_stored_once) {
    {
        ferry::sqlite_agent_store store(options());
        caller ask{store};
        for (const std::size_t bytes : {std::size_t{100}, std::size_t{50'000}}) {
            auto task = task_of(bytes, bytes);
            std::vector<ferry::conformance::awaited<ferry::store_status>> begun(5);
            std::vector<ferry::epoch> owners;
            for (std::size_t i = 0; i < begun.size(); ++i)
                owners.push_back(ask.acquire("node " + std::to_string(i)).owner);
            for (std::size_t i = 0; i < begun.size(); ++i) {
                store.append("node " + std::to_string(i), owners[i], task, begun[i].done());
            }
            for (const auto& each : begun) EXPECT_EQ(each.get(std::chrono::seconds(30)).value().code, errc::ok);
            for (std::size_t i = 1; i < begun.size(); ++i) {
                EXPECT_EQ(ask.settle("node " + std::to_string(i), owners[i], task.order).code, errc::ok);
            }
        }
        EXPECT_EQ(filed().size(), 1U);
    }
    EXPECT_EQ(ask("SELECT count(*) FROM contents"), 2);
    EXPECT_EQ(ask("SELECT count(*) FROM tasks"), 2);
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto left = ask.acquire("node 0");
    ASSERT_EQ(left.tasks.size(), 2U);
    EXPECT_EQ(all_of(*left.tasks[0].content), all_of(*task_of(100, 100).content));
    EXPECT_EQ(all_of(*left.tasks[1].content), all_of(*task_of(50'000, 50'000).content));
    for (const auto& each : left.tasks) EXPECT_EQ(ask.settle("node 0", left.owner, each.order).code, errc::ok);
    EXPECT_EQ(ask.acquire("node 0").tasks.size(), 0U);
}

TEST_F(sqlite_store, a_content_that_comes_again_when_it_was_settled_is_stored_again) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto owner = ask.acquire("node").owner;
    for (const std::size_t bytes : {std::size_t{100}, std::size_t{50'000}}) {
        auto task = task_of(1, bytes);
        for (int times = 0; times < 3; ++times) {
            EXPECT_EQ(ask.append("node", owner, task).code, errc::ok);
            EXPECT_EQ(ask.settle("node", owner, task.order).code, errc::ok);
            ++task.order;
        }
        EXPECT_EQ(ask.append("node", owner, task).code, errc::ok);
        EXPECT_TRUE(come_to(bytes > 1000 ? 1 : 0));
        EXPECT_EQ(ask.settle("node", owner, task.order).code, errc::ok);
    }
}

/// Transactions that are in the write-ahead log: the frame that ends one says how large the file is then.
std::size_t transactions_in(const std::string& log) {
    std::ifstream file(log, std::ios::binary);
    const std::string all((std::istreambuf_iterator<char>(file)), {});
    const auto number = [&](std::size_t at) {
        std::uint32_t out = 0;
        for (std::size_t i = 0; i < 4; ++i) out = out << 8 | static_cast<unsigned char>(all.at(at + i));
        return out;
    };
    std::size_t out = 0;
    const std::size_t page = number(8), salt = number(16);
    for (std::size_t at = 32; at + 24 + page <= all.size(); at += 24 + page) {
        if (number(at + 8) == salt && number(at + 4) != 0) ++out;
    }
    return out;
}

TEST_F(sqlite_store, what_comes_while_it_writes_shares_a_transaction) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto owner = ask.acquire("node").owner;
    std::promise<void> begun;
    std::vector<ferry::conformance::awaited<ferry::store_status>> all(300);
    store.append("node", owner, task_of(1, 100), [&, done = all[0].done()](const ferry::store_status& status) {
        begun.get_future().wait();  // on the thread that writes
        done(status);
    });
    const auto before = transactions_in(file() + "-wal");
    for (std::size_t i = 1; i < all.size(); ++i) store.append("node", owner, task_of(i + 1, 100), all[i].done());
    begun.set_value();
    for (const auto& each : all) ASSERT_EQ(each.get(std::chrono::seconds(30)).value().code, errc::ok);
    EXPECT_LE(transactions_in(file() + "-wal"), before + 2);
    EXPECT_EQ(ask.acquire("node").tasks.size(), all.size());
}

TEST_F(sqlite_store, what_a_killed_process_left_in_the_folder_is_removed) {
    {
        ferry::sqlite_agent_store store(options());
        caller ask{store};
        EXPECT_EQ(ask.append("node", ask.acquire("node").owner, task_of(1, 5000)).code, errc::ok);
    }
    ASSERT_EQ(filed().size(), 1U);
    std::ofstream(contents() + "/999") << "of no task";
    ferry::sqlite_agent_store store(options());
    EXPECT_EQ(filed().size(), 1U);
    EXPECT_EQ(all_of(*caller{store}.acquire("node").tasks.at(0).content), std::string(5000, 'b'));
}

TEST_F(sqlite_store, knows_all_nodes) {
    for (int times = 0; times < 2; ++times) {
        ferry::sqlite_agent_store store(options());
        EXPECT_THAT(caller{store}.nodes().ids.size(), times == 0 ? 0U : 2U);
        caller{store}.acquire("a");
        caller{store}.acquire("b");
        EXPECT_THAT(caller{store}.nodes().ids, testing::UnorderedElementsAre("a", "b"));
    }
}

// --- what can go wrong ---------------------------------------------------------------------------------------------------

ferry::error refusal_of(const ferry::sqlite_options& options) {
    try {
        ferry::sqlite_agent_store store(options);
    } catch (const ferry::error& e) {
        return e;
    }
    return {errc::ok, "it was taken"};
}

TEST_F(sqlite_store, refuses_a_file_that_it_can_not_use_and_says_what_to_do) {
    EXPECT_EQ(refusal_of({.file = ""}).code(), errc::invalid_argument);
    EXPECT_THAT(refusal_of({.file = folder_.file("no/such/folder")}).what(), HasSubstr("make its folder"));
    EXPECT_THAT(refusal_of({.file = folder_.path()}).what(), HasSubstr("no regular file"));

    std::ofstream(file()) << std::string(5000, 'x');
    EXPECT_THAT(refusal_of(options()).what(), HasSubstr("chmod 600"));
    ::chmod(file().c_str(), 0600);
    EXPECT_EQ(refusal_of(options()).code(), errc::store_failed);
    EXPECT_THAT(refusal_of(options()).what(), HasSubstr("not a database"));
}

TEST_F(sqlite_store, refuses_a_file_of_another_program_or_a_newer_version) {
    { ferry::sqlite_agent_store made(options()); }
    ask("PRAGMA user_version=3");
    EXPECT_THAT(refusal_of(options()).what(), HasSubstr("a newer ferry"));
    ask("PRAGMA user_version=2");
    EXPECT_EQ(refusal_of(options()).code(), errc::ok);
    ask("PRAGMA application_id=7");
    EXPECT_THAT(refusal_of(options()).what(), HasSubstr("another program"));
}

TEST_F(sqlite_store, goes_on_with_a_file_of_an_older_version) {
    const auto read = [&] {
        ferry::sqlite_agent_store store(options());
        return caller{store}.acquire("node");
    };
    {
        ferry::sqlite_agent_store store(options());
        caller ask{store};
        EXPECT_EQ(ask.append("node", ask.acquire("node").owner, task_of(1, 800)).code, errc::ok);
    }
    ask("ALTER TABLE tasks DROP COLUMN reply_until; PRAGMA user_version=1");
    const auto journal = read();
    ASSERT_EQ(journal.tasks.size(), 1U);
    EXPECT_EQ(all_of(*journal.tasks[0].content), std::string(800, 'b'));
    EXPECT_EQ(journal.tasks[0].reply_until, std::chrono::system_clock::time_point::max());
    EXPECT_EQ(ask("PRAGMA user_version"), 2);
    EXPECT_EQ(read().tasks.size(), 1U);
}

TEST_F(sqlite_store, keeps_how_long_a_reply_is_awaited) {
    const auto until = [&] {
        ferry::sqlite_agent_store store(options());
        return caller{store}.acquire("node").tasks.at(0).reply_until;
    };
    const auto noon = std::chrono::system_clock::time_point(std::chrono::hours(500'000));
    auto task = task_of(1, 800);
    {
        ferry::sqlite_agent_store store(options());
        caller ask{store};
        const auto owner = ask.acquire("node").owner;
        task.reply_until = noon;
        EXPECT_EQ(ask.append("node", owner, task).code, errc::ok);
        EXPECT_EQ(ask.append("node", owner, task_of(2, 800)).code, errc::ok);
        EXPECT_EQ(ask.acquire("node").tasks.at(1).reply_until, std::chrono::system_clock::time_point::max());
    }
    EXPECT_EQ(until(), noon);
    {
        ferry::sqlite_agent_store store(options());
        caller ask{store};
        const auto owner = ask.acquire("node").owner;
        task.reply_until = noon + std::chrono::hours(1);
        task.taken = true;
        EXPECT_EQ(ask.update("node", owner, task).code, errc::ok);
    }
    EXPECT_EQ(until(), noon + std::chrono::hours(1));
}

/// SQLite takes an empty file for a new one, and drops the log beside it.
TEST_F(sqlite_store, refuses_an_empty_file_beside_what_another_one_has_left) {
    const auto bytes_beside = [&] {
        std::uint64_t all = std::filesystem::exists(file() + "-wal") ? std::filesystem::file_size(file() + "-wal") : 0;
        for (const auto& each : filed()) all += std::filesystem::file_size(contents() + "/" + each);
        return all;
    };
    {
        ferry::sqlite_agent_store store(options());
        caller ask{store};
        EXPECT_EQ(ask.append("node", ask.acquire("node").owner, task_of(1, 30'000)).code, errc::ok);
    }
    const auto whole = file() + ".whole";
    std::filesystem::rename(file(), whole);
    EXPECT_THAT(refusal_of(options()).what(), HasSubstr(contents()));
    EXPECT_FALSE(std::filesystem::exists(file()));
    std::ofstream(file() + "-wal") << "a log";
    std::ofstream(file()).close();
    ::chmod(file().c_str(), 0600);
    EXPECT_EQ(refusal_of(options()).code(), errc::store_failed);
    EXPECT_THAT(refusal_of(options()).what(), HasSubstr("-wal is there: restore all of it"));
    EXPECT_EQ(bytes_beside(), 30'005U);
    std::filesystem::remove(file() + "-wal");
    std::filesystem::rename(whole, file());
    ferry::sqlite_agent_store store(options());
    EXPECT_EQ(caller{store}.acquire("node").tasks.size(), 1U);
}

TEST_F(sqlite_store, refuses_a_file_that_is_in_use) {
    const ferry::sqlite_agent_store first(options());
    const auto why = refusal_of(options());
    EXPECT_EQ(why.code(), errc::store_failed);
    EXPECT_THAT(why.what(), HasSubstr("another process has it open"));
}

TEST_F(sqlite_store, a_full_disk_ends_what_does_not_fit_and_spoils_nothing) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto owner = ask.acquire("node").owner;
    EXPECT_EQ(ask.append("node", owner, task_of(1, 800)).code, errc::ok);
    EXPECT_EQ(ask.append("node", owner, task_of(2, 30'000)).code, errc::ok);
    {
        const file_size_limit full(20'000);
        const auto large = ask.append("node", owner, task_of(3, 50'000));
        EXPECT_EQ(large.code, errc::store_failed);
        EXPECT_THAT(large.text, HasSubstr("File too large"));
        std::uint64_t order = 10;
        ferry::store_status small;
        while (small.code == errc::ok && order < 1000) small = ask.append("node", owner, task_of(order++, 900));
        EXPECT_EQ(small.code, errc::store_failed);
        EXPECT_NE(small.text, "");
    }
    EXPECT_EQ(ask.append("node", owner, task_of(2000, 50'000)).code, errc::ok);
    const auto left = ask.acquire("node").tasks;
    ASSERT_GE(left.size(), 3U);
    EXPECT_EQ(all_of(*left[0].content), std::string(800, 'b'));
    EXPECT_EQ(all_of(*left[1].content), std::string(30'000, 'c'));
    EXPECT_EQ(left.back().order, 2000U);
    EXPECT_TRUE(come_to(2));
}

/// One that comes while the file of its content could not be written, and is not yet forgotten.
TEST_F(sqlite_store, a_full_disk_ends_every_send_of_the_same_content) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    std::vector<ferry::epoch> owners;
    constexpr std::size_t nodes = 100;
    for (std::size_t i = 0; i < nodes; ++i) owners.push_back(ask.acquire("node" + std::to_string(i)).owner);
    const file_size_limit full(20'000);
    const auto task = task_of(1, 50'000);
    std::vector<ferry::conformance::awaited<ferry::store_status>> told(nodes);
    for (std::size_t i = 0; i < nodes; ++i) {
        store.append("node" + std::to_string(i), owners[i], task, told[i].done());
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    for (const auto& each : told) {
        const auto status = each.get(std::chrono::seconds(30));
        ASSERT_TRUE(status) << "it is never told";
        EXPECT_EQ(status->code, errc::store_failed);
    }
}

TEST_F(sqlite_store, leaves_another_programs_file_as_it_is) {
    ask("CREATE TABLE theirs(a)");
    ::chmod(file().c_str(), 0600);
    const auto bytes_of_file = [&] {
        std::ifstream in(file(), std::ios::binary);
        return std::string((std::istreambuf_iterator<char>(in)), {});
    };
    const auto before = bytes_of_file();
    EXPECT_THAT(refusal_of(options()).what(), HasSubstr("another program"));
    EXPECT_TRUE(bytes_of_file() == before);
    EXPECT_FALSE(std::filesystem::exists(contents()));
}

TEST_F(sqlite_store, knows_its_files_wherever_the_process_goes) {
    const auto here = std::filesystem::current_path();
    std::filesystem::current_path(folder_.path());
    ferry::sqlite_agent_store store({.file = "own", .file_bytes = 1000});
    std::filesystem::current_path(here);
    caller ask{store};
    const auto stored = ask.append("node", ask.acquire("node").owner, task_of(1, 5000));
    ASSERT_TRUE(stored.content);
    EXPECT_EQ(all_of(*stored.content), std::string(5000, 'b'));
}

TEST_F(sqlite_store, a_task_that_comes_a_second_time_keeps_its_content) {
    ferry::sqlite_agent_store store(options());
    caller ask{store};
    const auto owner = ask.acquire("node").owner;
    EXPECT_EQ(ask.append("node", owner, task_of(1, 5000)).code, errc::ok);
    const auto again = ask.append("node", owner, task_of(1, 5000));
    EXPECT_EQ(again.code, errc::ok);
    if (again.content) {
        EXPECT_EQ(all_of(*again.content), std::string(5000, 'b'));
    }
    EXPECT_TRUE(come_to(1));
    EXPECT_EQ(all_of(*ask.acquire("node").tasks.at(0).content), std::string(5000, 'b'));
}

TEST_F(sqlite_store, may_be_let_go_when_it_tells_that_a_file_could_not_be_written) {
    auto store = std::make_unique<ferry::sqlite_agent_store>(options());
    const auto owner = caller{*store}.acquire("node").owner;
    const file_size_limit full(20'000);
    std::promise<void> begun;
    std::vector<ferry::conformance::awaited<ferry::store_status>> told(3);
    store->append("node", owner, task_of(1, 50'000), [&, done = told[0].done()](const ferry::store_status& status) {
        begun.get_future().wait();
        store.reset();
        done(status);
    });
    for (std::size_t i = 1; i < told.size(); ++i) store->append("node", owner, task_of(i + 1, 50'000), told[i].done());
    begun.set_value();
    for (const auto& each : told) {
        const auto status = each.get(std::chrono::seconds(30));
        ASSERT_TRUE(status);
        EXPECT_EQ(status->code, errc::store_failed);
    }
}

TEST_F(sqlite_store, a_damaged_page_is_an_outcome) {
    {
        ferry::sqlite_agent_store store(options());
        caller ask{store};
        const auto owner = ask.acquire("node").owner;
        for (std::uint64_t order = 1; order <= 200; ++order) {
            ASSERT_EQ(ask.append("node", owner, task_of(order, 900)).code, errc::ok);
        }
    }
    const auto size = std::filesystem::file_size(file());
    std::fstream damage(file(), std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(3 * 4096);
    const std::string noise(size - 4 * 4096, '\xff');
    damage.write(noise.data(), static_cast<std::streamsize>(noise.size()));
    damage.close();
    try {
        ferry::sqlite_agent_store store(options());
        const auto journal = caller{store}.acquire("node");
        EXPECT_EQ(journal.status.code, errc::store_failed);
        EXPECT_THAT(journal.status.text, HasSubstr("malformed"));
    } catch (const ferry::error& e) {
        EXPECT_THAT(e.what(), HasSubstr("malformed"));
    }
}

// --- kill -9 ---------------------------------------------------------------------------------------------------------------

/// What a process that writes tells of: 'a' for stored, 's' for settled. Even orders are settled as soon as they are stored.
struct word {
    char what;
    std::uint64_t order;
};

std::size_t bytes_of(std::uint64_t order) { return order % 7 == 0 ? 40'000 + order % 1000 : 20; }

[[noreturn]] void write_for_ever(const ferry::sqlite_options& options, int to) {
    ferry::sqlite_agent_store store(options);
    const auto owner = caller{store}.acquire("node").owner;
    const auto tell = [to](char what, std::uint64_t order) {
        const word told{what, order};
        if (::write(to, &told, sizeof told) != sizeof told) ::_exit(1);
    };
    for (std::uint64_t count = 1;; ++count) {
        const auto order = (owner << 32) + count;
        store.append("node", owner, task_of(order, bytes_of(order)), [&, order](const ferry::store_status& status) {
            if (status.code != errc::ok) ::_exit(2);
            tell('a', order);
            if (order % 2 != 0) return;
            store.settle("node", owner, order, [&, order](const ferry::store_status& settled) {
                if (settled.code != errc::ok) ::_exit(3);
                tell('s', order);
            });
        });
        if (count % 50 == 0) caller{store}.nodes();  // no faster than it writes
    }
}

TEST_F(sqlite_store, keeps_what_it_said_when_its_process_is_killed_at_any_moment) {
    std::mt19937 random(1);
    std::set<std::uint64_t> stored, settled;
    for (int round = 0; round < 20; ++round) {
        int pipe[2];
        ASSERT_EQ(::pipe(pipe), 0);
        const auto child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            ::close(pipe[0]);
            write_for_ever(options(), pipe[1]);
        }
        ::close(pipe[1]);
        const auto enough = random() % 400;
        std::size_t heard = 0;
        for (word each{}; ::read(pipe[0], &each, sizeof each) == sizeof each;) {
            (each.what == 'a' ? stored : settled).insert(each.order);
            if (++heard == enough) ::kill(child, SIGKILL);
            if (enough == 0) ::kill(child, SIGKILL);
        }
        ::close(pipe[0]);
        int how = 0;
        ::waitpid(child, &how, 0);
        ASSERT_TRUE(WIFSIGNALED(how)) << "the child ended by itself, with " << WEXITSTATUS(how);

        ferry::sqlite_agent_store store(options());
        const auto journal = caller{store}.acquire("node");
        ASSERT_EQ(journal.status.code, errc::ok) << journal.status.text;
        std::set<std::uint64_t> there;
        std::uint64_t last = 0;
        for (const auto& task : journal.tasks) {
            EXPECT_GT(task.order, last);
            last = task.order;
            there.insert(task.order);
            ASSERT_EQ(all_of(*task.content), all_of(*task_of(task.order, bytes_of(task.order)).content)) << task.order;
            EXPECT_FALSE(settled.contains(task.order)) << task.order << " came back";
        }
        for (const auto order : stored) {
            if (order % 2 != 0) {
                EXPECT_TRUE(there.contains(order)) << order << " is lost";
            }
        }
        EXPECT_EQ(filed().size(), static_cast<std::size_t>(std::count_if(
                                      there.begin(), there.end(), [](auto order) { return bytes_of(order) > 1000; })));
    }
    EXPECT_GT(stored.size(), 500U);
    EXPECT_GT(settled.size(), 100U);
}

}  // namespace
