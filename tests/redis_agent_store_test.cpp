#include <ferry/agent_store/redis.hpp>
#include <ferry/conformance/agent_store.hpp>
#include <ferry/conformance/awaited.hpp>
#include <ferry/conformance/durable_agent_store.hpp>
#include <ferry/conformance/shared_agent_store.hpp>

#include "redis_process.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using ferry::errc;
using ferry::redis_agent_store;
using ferry::redis_options;
using ferry::conformance::awaited;
using ferry::conformance::some_task;
using ferry_test::redis_process;
using testing::HasSubstr;

/// One Redis for all tests that don't harm it; each has a prefix of its own in it.
redis_options a_place_of_its_own() {
    static redis_process redis;
    static int places = 0;
    redis_options out;
    out.unix_socket = redis.socket();
    out.key_prefix = "test-" + std::to_string(++places) + ":";
    return out;
}

}  // namespace

namespace ferry::conformance {

template <>
struct model_of<redis_agent_store> {
    redis_options options = a_place_of_its_own();

    redis_agent_store make() const { return make("a server"); }
    redis_agent_store make(const std::string& server) const {
        auto named = options;
        named.server = server;
        return redis_agent_store(named);
    }
    /// As if both its leases had ended; the others hear of it.
    void forget(const std::string& server) const {
        ferry::detail::redis_connection redis(options);
        redis.must({"DEL", options.key_prefix + "alive:" + server, options.key_prefix + "known:" + server});
        redis.must({"PUBLISH", options.key_prefix + "0:all", "left"});
    }
};

INSTANTIATE_TYPED_TEST_SUITE_P(redis, agent_store_suite, redis_agent_store);
INSTANTIATE_TYPED_TEST_SUITE_P(redis, durable_agent_store_suite, redis_agent_store);
INSTANTIATE_TYPED_TEST_SUITE_P(redis, shared_agent_store_suite, redis_agent_store);

}  // namespace ferry::conformance

namespace {

using ferry::store_note;

/// A store whose operations are waited for, and whose notes are kept.
struct server {
    explicit server(redis_options options) : store(std::move(options)) {}

    template <class Result, class Begin>
    static Result wait(Begin&& begin) {
        awaited<Result> came;
        begin(came.done());
        auto out = came.get(30s);
        if (!out) {
            ADD_FAILURE() << "done was not called";
            return {};
        }
        return *std::move(out);
    }
    template <class Begin>
    static ferry::store_status status(Begin&& begin) {
        return wait<ferry::store_status>(std::forward<Begin>(begin));
    }

    ferry::seen_nodes listen() {
        return wait<ferry::seen_nodes>([&](auto done) {
            store.listen(
                [this](store_note note) {
                    const std::lock_guard lock(mutex);
                    notes.push_back(std::move(note));
                    came.notify_all();
                },
                done);
        });
    }
    bool hears(store_note::kind what, const std::string& node = {}, std::uint64_t id = 0,
               std::chrono::seconds within = 30s) {
        std::unique_lock lock(mutex);
        return came.wait_for(lock, within, [&] {
            for (auto each = notes.begin(); each != notes.end(); ++each) {
                if (each->what != what || each->node != node || each->id != id) continue;
                notes.erase(each);
                return true;
            }
            return false;
        });
    }
    ferry::acquired_journal acquire(const std::string& node) {
        auto out = wait<ferry::acquired_journal>([&](auto done) { store.acquire(node, done); });
        EXPECT_EQ(out.status.code, errc::ok) << out.status.text;
        return out;
    }
    ferry::store_status post(const std::string& node, const ferry::task_record& task) {
        return status([&](auto done) { store.post(node, task, done); });
    }
    ferry::store_status end(const std::string& node, ferry::epoch owner, std::uint64_t order, ferry::task_end how) {
        return status([&](auto done) { store.end(node, owner, order, how, done); });
    }
    ferry::arrived_ends ends() {
        return wait<ferry::arrived_ends>([&](auto done) { store.ends(0, done); });
    }
    ferry::store_status acknowledge(std::uint64_t place) {
        return status([&](auto done) { store.acknowledge(place, done); });
    }

    std::mutex mutex;
    std::condition_variable came;
    std::deque<store_note> notes;
    redis_agent_store store;
};

ferry::task_record task(std::uint64_t id, std::string content = "content", std::string request = {}) {
    ferry::task_record out;
    out.id = id;
    out.request_id = std::move(request);
    out.wants_reply = !out.request_id.empty();
    out.content = std::make_shared<const ferry::payload>(ferry::bytes::own(std::move(content)));
    out.accepted = std::chrono::system_clock::now();
    out.expires = out.accepted + 1h;
    return out;
}

ferry::task_end replied(std::string with, std::uint64_t number = 0) {
    ferry::task_end out;
    out.how.kind = ferry::outcome_kind::replied;
    out.reply = std::make_shared<const ferry::payload>(ferry::bytes::own(std::move(with)));
    out.reply_number = number;
    return out;
}

std::string read(const ferry::payload& from, std::uint64_t offset, std::uint64_t length) {
    auto out = server::wait<ferry::range_result>([&](auto done) { from.read(offset, length, done); });
    EXPECT_EQ(out.code, errc::ok) << out.text;
    return out.code == errc::ok ? std::string(out.data.flatten().view()) : std::string();
}
std::string read(const ferry::payload& from) { return read(from, 0, from.size()); }

/// Different everywhere.
std::string long_text(std::size_t size) {
    std::string out(size, ' ');
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>((i * 2654435761U) >> 13);
    return out;
}

/// What Redis answers, in tests' own words.
struct client {
    explicit client(const redis_options& options) : prefix(options.key_prefix), connection(options) {}
    std::uint64_t number(std::vector<std::string> words) { return connection.must(words).number(); }
    std::uint64_t bytes(const std::string& of) { return number({"HGET", prefix + "bytes", of}); }
    std::set<std::string> keys(const std::string& like = "*") {
        std::set<std::string> out;
        const auto all = connection.must({"KEYS", prefix + like});
        for (std::size_t i = 0; i < all.size(); ++i) out.emplace(all[i].text().substr(prefix.size()));
        return out;
    }
    /// Waits for it.
    bool sees(const std::function<bool(client&)>& that) {
        for (const auto until = std::chrono::steady_clock::now() + 30s; std::chrono::steady_clock::now() < until;) {
            if (that(*this)) return true;
            std::this_thread::yield();
        }
        return false;
    }

    std::string prefix;
    ferry::detail::redis_connection connection;
};

std::string refusal(redis_options options) {
    try {
        redis_agent_store store(std::move(options));
    } catch (const ferry::error& e) {
        return std::string(to_string(e.code())) + ": " + e.what();
    }
    return "none";
}

// --- where Redis is --------------------------------------------------------------------------------------------------------

TEST(redis_agent_store, options_that_can_not_be_used_are_refused_by_name) {
    redis_options none;
    none.host.clear();
    EXPECT_THAT(refusal(none), HasSubstr("invalid argument: redis_options.host"));
    EXPECT_THAT(refusal({.port = 0}), HasSubstr("redis_options.port"));
    EXPECT_THAT(refusal({.user = "a"}), HasSubstr("redis_options.password"));
    EXPECT_THAT(refusal({.database = -1}), HasSubstr("redis_options.database"));
    EXPECT_THAT(refusal({.key_prefix = ""}), HasSubstr("redis_options.key_prefix"));
    EXPECT_THAT(refusal({.lease = 0ms}), HasSubstr("redis_options.lease"));
    EXPECT_THAT(refusal({.patience = -1ms}), HasSubstr("redis_options.patience"));
    EXPECT_THAT(refusal({.lease = 2s, .forget_after = 1s}), HasSubstr("redis_options.forget_after"));
    EXPECT_THAT(refusal({.chunk_bytes = 10}), HasSubstr("redis_options.chunk_bytes"));
}

TEST(redis_agent_store, one_that_is_not_there_is_named) {
    EXPECT_THAT(refusal({.unix_socket = "/nowhere/redis", .patience = 50ms}),
                testing::StrEq("store failed: redis /nowhere/redis: No such file or directory"));
}

TEST(redis_agent_store, a_port_a_password_and_a_database_of_their_own) {
    redis_process redis({.on_a_port = true, .password = "secret"});
    redis_options options{.host = "127.0.0.1", .port = redis.port(), .patience = 10s};
    EXPECT_THAT(refusal(options), HasSubstr("NOAUTH"));
    options.password = "wrong";
    const auto begun = std::chrono::steady_clock::now();
    EXPECT_THAT(refusal(options), HasSubstr("WRONGPASS"));
    EXPECT_LT(std::chrono::steady_clock::now() - begun, options.patience) << "what will not pass is not waited for";
    options.password = "secret";
    options.database = 99;
    EXPECT_THAT(refusal(options), HasSubstr("SELECT"));
    auto second = options;
    options.database = 3;
    second.database = 4;
    server in_3(options), in_4(second);
    in_3.listen();
    in_4.listen();
    in_3.acquire("node");
    EXPECT_EQ(in_4.post("node", task(1)).code, errc::node_unknown);
    in_4.acquire("node");
    EXPECT_EQ(in_4.post("node", task(1)).code, errc::ok);
    EXPECT_TRUE(in_4.hears(store_note::kind::tasks, "node"));
    EXPECT_TRUE(in_3.acquire("node").tasks.empty());
    EXPECT_EQ(in_3.post("node", task(1)).code, errc::ok);
    EXPECT_TRUE(in_3.hears(store_note::kind::tasks, "node"));
    const std::lock_guard lock(in_4.mutex);
    for (const auto& each : in_4.notes) EXPECT_NE(each.what, store_note::kind::tasks) << "of another database";
}

TEST(redis_agent_store, a_user_that_may_touch_its_own_keys_and_channels_only) {
    redis_process redis({.users = {"default off", "ferry on >secret ~mine:* &mine:* +@all"}});
    redis_options options;
    options.unix_socket = redis.socket();
    options.user = "ferry";
    options.password = "secret";
    options.key_prefix = "mine:";
    server a(options);
    a.listen();
    const auto owner = a.acquire("node").owner;
    EXPECT_EQ(a.post("node", task(7, long_text(100'000))).code, errc::ok);
    EXPECT_TRUE(a.hears(store_note::kind::tasks, "node"));
    EXPECT_EQ(a.end("node", owner, 1, {}).code, errc::ok);
    options.key_prefix = "theirs:";
    EXPECT_THAT(refusal(options), HasSubstr("NOPERM"));
}

TEST(redis_agent_store, what_a_newer_version_has_written_is_refused) {
    auto options = a_place_of_its_own();
    client(options).connection.must({"SET", options.key_prefix + "format", "2"});
    EXPECT_THAT(refusal(options), testing::AllOf(HasSubstr("newer ferry"), HasSubstr("format 2")));
}

// --- contents --------------------------------------------------------------------------------------------------------------

TEST(redis_agent_store, a_broadcast_is_stored_once_and_gone_with_its_last_task) {
    const auto options = a_place_of_its_own();
    client redis(options);
    server a(options), b(options);
    a.listen();
    const auto text = long_text(1'000'000);
    const auto sent = task(1, text);
    std::vector<ferry::epoch> owners;
    for (const auto* node : {"x", "y", "z"}) owners.push_back(b.acquire(node).owner);
    std::vector<awaited<ferry::store_status>> posts(3);
    for (std::size_t i = 0; i < 3; ++i) {
        auto each = sent;
        each.id = i + 1;
        a.store.post(std::string(1, static_cast<char>('x' + i)), each, posts[i].done());
    }
    for (auto& each : posts) EXPECT_EQ(each.get(30s)->code, errc::ok);
    EXPECT_EQ(redis.bytes("t"), text.size());
    EXPECT_EQ(redis.keys("c:*").size(), 1U);
    const auto journal = b.acquire("y");
    ASSERT_EQ(journal.tasks.size(), 1U);
    EXPECT_TRUE(read(*journal.tasks[0].content) == text);
    EXPECT_TRUE(read(*journal.tasks[0].content, 262'100, 600'000) == text.substr(262'100, 600'000));
    EXPECT_TRUE(read(*journal.tasks[0].content, 999'999, 1) == text.substr(999'999));
    EXPECT_EQ(b.end("x", owners[0], 1, {}).code, errc::ok);
    EXPECT_EQ(b.end("y", journal.owner, 1, {}).code, errc::ok);
    EXPECT_TRUE(read(*journal.tasks[0].content) == text);
    EXPECT_EQ(b.end("z", owners[2], 1, {}).code, errc::ok);
    EXPECT_TRUE(read(*journal.tasks[0].content) == text) << "whoever holds it may read it";
}

TEST(redis_agent_store, nothing_is_left_of_what_was_dealt_with) {
    const auto options = a_place_of_its_own();
    client redis(options);
    {
        server a(options), b(options);
        a.listen();
        const auto owner = b.acquire("node").owner;
        for (std::uint64_t i = 1; i <= 20; ++i) {
            EXPECT_EQ(a.post("node", task(i, long_text(i * 5000), "request " + std::to_string(i))).code, errc::ok);
        }
        {
            const auto journal = b.acquire("node");
            EXPECT_EQ(journal.tasks.size(), 20U);
            for (const auto& each : journal.tasks) {
                auto record = each;
                record.taken = true;
                EXPECT_EQ(server::status([&](auto done) { b.store.update("node", journal.owner, record, done); }).code,
                          errc::ok);
                EXPECT_EQ(b.end("node", journal.owner, each.order, replied(long_text(100 + each.order * 7000))).code,
                          errc::ok);
            }
        }
        EXPECT_EQ(b.end("node", owner, 1, {}).code, errc::ownership_lost);
        const auto ends = a.ends();
        EXPECT_EQ(ends.ends.size(), 20U);
        for (const auto& each : ends.ends) {
            EXPECT_TRUE(read(*each.end.reply) == long_text(100 + each.id * 7000));
            EXPECT_EQ(a.acknowledge(each.place).code, errc::ok);
        }
        EXPECT_TRUE(a.ends().ends.empty());
    }
    EXPECT_TRUE(redis.sees([](client& r) { return r.bytes("t") == 0 && r.bytes("r") == 0; }));
    EXPECT_THAT(redis.keys("[tcorweup]:*"), testing::IsEmpty());
    EXPECT_THAT(redis.keys("eh:*"), testing::IsEmpty());
}

TEST(redis_agent_store, past_its_ceiling_a_task_ends_in_queue_full_and_leaves_nothing) {
    auto options = a_place_of_its_own();
    options.max_bytes = 300'000;
    client redis(options);
    server a(options);
    const auto owner = a.acquire("node").owner;
    EXPECT_EQ(a.post("node", task(1, long_text(200'000))).code, errc::ok);
    const auto full = a.post("node", task(2, long_text(200'000)));
    EXPECT_EQ(full.code, errc::queue_full);
    EXPECT_THAT(full.text, HasSubstr("max_bytes"));
    EXPECT_EQ(a.post("node", task(3, long_text(99'000))).code, errc::ok);
    EXPECT_EQ(a.post("node", task(4, long_text(4'000))).code, errc::queue_full);
    EXPECT_EQ(redis.bytes("t"), 299'000U);
    EXPECT_EQ(a.end("node", owner, 1, replied(long_text(250'000))).code, errc::ok) << "replies have room of their own";
    EXPECT_TRUE(redis.sees([](client& r) { return r.bytes("t") == 99'000; }));
    EXPECT_EQ(a.post("node", task(2, long_text(200'000))).code, errc::ok)
        << "there is room again, and it was not posted";
}

TEST(redis_agent_store, a_reply_that_there_is_never_room_for_ends_its_task_without_it) {
    auto options = a_place_of_its_own();
    options.max_bytes = 300'000;
    server a(options);
    const auto owner = a.acquire("node").owner;
    EXPECT_EQ(a.post("node", task(1, "content", "request")).code, errc::ok);
    const auto status = a.end("node", owner, 1, replied(long_text(300'001)));
    EXPECT_EQ(status.code, errc::ok);
    EXPECT_THAT(status.text, HasSubstr("max_bytes"));
    const auto ends = a.ends().ends;
    ASSERT_EQ(ends.size(), 1U);
    EXPECT_EQ(ends[0].end.how.kind, ferry::outcome_kind::store_failed);
    EXPECT_EQ(ends[0].end.how.reason, errc::too_large);
    EXPECT_FALSE(ends[0].end.reply);
}

TEST(redis_agent_store, a_small_task_does_not_overtake_a_large_one_of_before) {
    const auto options = a_place_of_its_own();
    server a(options), b(options);
    b.acquire("node");
    std::vector<awaited<ferry::store_status>> posts(50);
    for (std::size_t i = 0; i < posts.size(); ++i) {
        a.store.post("node", task(i + 1, long_text(i % 5 == 0 ? 2'000'000 : 10)), posts[i].done());
    }
    for (auto& each : posts) EXPECT_EQ(each.get(30s)->code, errc::ok);
    const auto tasks = b.acquire("node").tasks;
    ASSERT_EQ(tasks.size(), posts.size());
    for (std::size_t i = 0; i < tasks.size(); ++i) EXPECT_EQ(tasks[i].id, i + 1);
}

TEST(redis_agent_store, a_journal_of_many_tasks_comes_whole) {
    const auto options = a_place_of_its_own();
    server a(options);
    const auto owner = a.acquire("node").owner;
    std::vector<awaited<ferry::store_status>> posts(1'000);
    for (std::size_t i = 0; i < posts.size(); ++i) a.store.post("node", task(i + 1), posts[i].done());
    for (auto& each : posts) EXPECT_EQ(each.get(30s)->code, errc::ok);
    const auto fetched =
        server::wait<ferry::acquired_journal>([&](auto done) { a.store.fetch("node", owner, 400, done); });
    EXPECT_EQ(fetched.tasks.size(), 600U);
    EXPECT_EQ(fetched.tasks.front().id, 401U);
    EXPECT_EQ(a.acquire("node").tasks.size(), 1'000U);
}

/// It is told to the owner with what has come behind what the acquisition brought.
TEST(redis_agent_store, what_is_withdrawn_while_a_journal_is_acquired_is_heard) {
    const auto options = a_place_of_its_own();
    server a(options), b(options);
    a.acquire("node");
    std::vector<awaited<ferry::store_status>> posts(3'000);
    for (std::size_t i = 0; i < posts.size(); ++i) a.store.post("node", task(i + 1), posts[i].done());
    for (auto& each : posts) EXPECT_EQ(each.get(30s)->code, errc::ok);
    for (std::uint64_t id = 1; id <= 20; ++id) {
        awaited<ferry::acquired_journal> came;
        b.store.acquire("node", came.done());
        std::this_thread::sleep_for(std::chrono::milliseconds(id));
        EXPECT_EQ(server::status([&](auto done) { a.store.withdraw("node", id, done); }).code, errc::ok);
        const auto journal = came.get(30s);
        ASSERT_TRUE(journal);
        const auto later = server::wait<ferry::acquired_journal>(
            [&](auto done) { b.store.fetch("node", journal->owner, journal->tasks.back().order, done); });
        bool is_heard = journal->tasks.at(id - 1).is_withdrawn;
        for (const auto& each : later.tasks) is_heard |= each.id == id && each.is_withdrawn;
        EXPECT_TRUE(is_heard) << id;
    }
}

// --- servers that are gone -------------------------------------------------------------------------------------------------

redis_options named(redis_options options, std::string name) {
    options.server = std::move(name);
    return options;
}

TEST(redis_agent_store, a_dead_server_s_journals_are_taken_over_after_its_lease_and_its_replies_later) {
    auto options = a_place_of_its_own();
    options.lease = 150ms;
    options.forget_after = 3s;
    server b(named(options, "b"));
    b.listen();
    ferry::epoch owner = 0;
    {
        server a(named(options, "a"));  // it does not listen, and so is as good as dead at once
        owner = a.acquire("node").owner;
        EXPECT_EQ(a.post("node", task(5, long_text(20'000), "request")).code, errc::ok);
    }
    EXPECT_TRUE(b.hears(store_note::kind::free, "node"));
    {
        const auto journal = b.acquire("node");
        EXPECT_GT(journal.owner, owner + 1) << "taken over, and acquired";
        ASSERT_EQ(journal.tasks.size(), 1U);
        EXPECT_EQ(b.end("node", journal.owner, journal.tasks[0].order, replied("reply")).code, errc::ok);
    }
    EXPECT_TRUE(b.hears(store_note::kind::ends));
    const auto ends = b.ends().ends;
    ASSERT_EQ(ends.size(), 1U);
    EXPECT_EQ(ends[0].id, 0U);
    EXPECT_TRUE(read(*ends[0].end.reply) == "reply");
    EXPECT_EQ(b.acknowledge(ends[0].place).code, errc::ok);
    client redis(options);
    EXPECT_TRUE(redis.sees([](client& r) {
        return r.number({"SCARD", r.prefix + "servers"}) == 1 && r.keys("[tcorwepu]:*").empty();
    }));
}

TEST(redis_agent_store, who_comes_back_under_its_name_gets_its_ends_and_its_journals) {
    const auto options = a_place_of_its_own();
    server b(named(options, "b"));
    {
        server a(named(options, "a"));
        a.acquire("mine");
        b.acquire("node");
        EXPECT_EQ(a.post("node", task(5, "content", "request")).code, errc::ok);
    }
    const auto journal = b.acquire("node");
    EXPECT_EQ(b.end("node", journal.owner, journal.tasks.at(0).order, replied("reply")).code, errc::ok);
    server a(named(options, "a"));
    EXPECT_EQ(a.listen().nodes.size(), 2U);
    EXPECT_TRUE(a.hears(store_note::kind::free, "mine"));
    const auto ends = a.ends().ends;
    ASSERT_EQ(ends.size(), 1U);
    EXPECT_EQ(ends[0].id, 5U);
}

TEST(redis_agent_store, two_of_one_name_the_older_one_fails) {
    auto options = named(a_place_of_its_own(), "a");
    options.lease = 150ms;
    server older(options);
    older.listen();
    older.acquire("node");
    EXPECT_EQ(older.post("node", task(5)).code, errc::ok);
    server newer(options);
    newer.listen();
    EXPECT_TRUE(older.hears(store_note::kind::gone, "", 5));
    const auto status = older.post("node", task(6));
    EXPECT_EQ(status.code, errc::store_failed);
    EXPECT_THAT(status.text, HasSubstr("another server goes by the name a"));
    EXPECT_EQ(newer.post("node", task(7)).code, errc::ok);
}

// --- Redis, gone and back --------------------------------------------------------------------------------------------------

TEST(redis_agent_store, a_redis_that_comes_back_in_time_costs_nothing) {
    redis_process redis({.append_only = true, .append_sync = "always"});
    redis_options options;
    options.unix_socket = redis.socket();
    options.patience = 30s;
    server a(options);
    a.listen();
    a.acquire("node");
    for (std::uint64_t i = 1; i <= 10; ++i) EXPECT_EQ(a.post("node", task(i, long_text(20'000))).code, errc::ok);
    redis.kill();
    awaited<ferry::store_status> meanwhile, large;
    a.store.post("node", task(11), meanwhile.done());
    a.store.post("node", task(12, long_text(50'000)), large.done());
    redis.start();
    EXPECT_EQ(meanwhile.get(30s)->code, errc::ok);
    EXPECT_EQ(large.get(30s)->code, errc::ok);
    EXPECT_TRUE(a.hears(store_note::kind::back));
    const auto tasks = a.acquire("node").tasks;
    ASSERT_EQ(tasks.size(), 12U);
    for (std::size_t i = 0; i < tasks.size(); ++i) EXPECT_EQ(tasks[i].id, i + 1);
    EXPECT_TRUE(read(*tasks[9].content) == long_text(20'000));
    const std::lock_guard lock(a.mutex);
    for (const auto& each : a.notes) EXPECT_NE(each.what, store_note::kind::gone);
}

/// For who looks on.
redis_options patient(redis_options options) {
    options.connect_within = options.answer_within = options.patience = 30s;
    return options;
}

redis_options soon_forgotten(const redis_process& redis, std::string name) {
    redis_options options;
    options.unix_socket = redis.socket();
    options.server = std::move(name);
    options.lease = 300ms;
    options.forget_after = 3s;
    options.patience = 30s;
    return options;
}

/// What servers say of themselves has lapsed by then, of all of them.
TEST(redis_agent_store, servers_outlive_a_redis_that_was_away_for_longer_than_they_are_known) {
    redis_process redis({.append_only = true, .append_sync = "always"});
    const auto of = [&](std::string name) {
        auto options = soon_forgotten(redis, std::move(name));
        options.lease = 2s;
        return options;
    };
    server a(of("a")), b(of("b"));
    a.listen(), b.listen();
    const auto owner = a.acquire("node").owner;
    for (auto* each : {&a, &b}) {
        const std::uint64_t first = each == &a ? 1 : 3;
        EXPECT_EQ(each->post("node", task(first, "content", "r" + std::to_string(first))).code, errc::ok);
        EXPECT_EQ(each->post("node", task(first + 1, "content", "r" + std::to_string(first + 1))).code, errc::ok);
    }
    EXPECT_EQ(a.end("node", owner, 2, replied("for a")).code, errc::ok);
    EXPECT_EQ(a.end("node", owner, 4, replied("for b")).code, errc::ok);
    redis.kill();
    std::this_thread::sleep_for(3500ms);
    redis.start();
    for (auto* each : {&a, &b}) EXPECT_TRUE(each->hears(store_note::kind::back));
    client look(of("a"));
    EXPECT_TRUE(look.sees([](client& r) { return r.keys("known:*").size() == 2; }))
        << "both have said that they are there";
    for (const auto& [at, id, text] : {std::tuple{&a, 2U, "for a"}, {&b, 4U, "for b"}}) {
        const auto ends = at->ends().ends;
        ASSERT_EQ(ends.size(), 1U);
        EXPECT_EQ(ends[0].id, id);
        EXPECT_EQ(read(*ends[0].end.reply), text);
        EXPECT_FALSE(at->hears(store_note::kind::gone, "", id - 1, 0s)) << "the store has that task";
    }
}

/// It begins after all others have lapsed, and before they can say that they are there.
TEST(redis_agent_store, a_server_that_begins_after_a_long_outage_forgets_no_other) {
    redis_process redis({.append_only = true, .append_sync = "always"});
    const auto of = [&](std::string name) { return soon_forgotten(redis, std::move(name)); };
    server silent(of("silent"));  // it doesn't listen, and never says that it is there
    const auto owner = silent.acquire("node").owner;
    EXPECT_EQ(silent.post("node", task(1, "content", "r")).code, errc::ok);
    redis.kill();
    std::this_thread::sleep_for(3200ms);
    redis.start();
    server later(of("later"));
    later.listen();
    client look(of("look"));
    EXPECT_TRUE(look.sees([](client& r) { return r.keys("owned:later").size() == 1; })) << "it has taken over";
    EXPECT_EQ(look.keys("p:silent").size(), 1U) << "what is owed is still known";
    // What ends in that time goes to that server, and to another one once it is forgotten after all.
    EXPECT_EQ(later.end("node", owner + 1, 1, replied("done")).code, errc::ownership_lost);
    const auto taken = later.acquire("node");
    ASSERT_EQ(taken.tasks.size(), 1U);
    EXPECT_EQ(later.end("node", taken.owner, 1, replied("done")).code, errc::ok);
    EXPECT_TRUE(later.hears(store_note::kind::ends));
    const auto ends = later.ends().ends;
    ASSERT_EQ(ends.size(), 1U);
    EXPECT_EQ(ends[0].id, 0U);
    EXPECT_EQ(read(*ends[0].end.reply), "done");
}

TEST(redis_agent_store, a_redis_that_stays_away_fails_what_is_asked_of_it) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    options.patience = 100ms;
    server a(options);
    a.acquire("node");
    redis.kill();
    for (const auto size : {10U, 20'000U}) {
        const auto status = a.post("node", task(1, long_text(size)));
        EXPECT_EQ(status.code, errc::store_failed);
        EXPECT_THAT(status.text, HasSubstr("redis " + redis.socket()));
    }
    redis.start();
    EXPECT_EQ(a.post("node", task(1)).code, errc::node_unknown) << "it has forgotten all";
    a.acquire("node");
    EXPECT_EQ(a.post("node", task(1)).code, errc::ok);
}

TEST(redis_agent_store, a_redis_that_stands_still_fails_what_is_asked_of_it) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    options.connect_within = options.answer_within = options.patience = 2s;
    server a(options);
    a.acquire("node");
    redis.pause();
    const auto status = a.post("node", task(1));
    EXPECT_EQ(status.code, errc::store_failed);
    EXPECT_THAT(status.text, HasSubstr("did not answer in time"));
    redis.resume();
    EXPECT_EQ(a.acquire("node").status.code, errc::ok);
}

/// It is run once Redis goes on, and nobody takes the answer.
TEST(redis_agent_store, what_was_given_up_while_redis_stood_still_holds_nothing) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    options.server = "a";
    options.lease = 300ms;
    options.connect_within = options.answer_within = options.patience = 1s;
    server a(options);
    a.listen();
    client look(patient(options));
    a.acquire("node");
    EXPECT_EQ(a.post("node", task(1, long_text(200'000))).code, errc::ok);
    redis.pause();
    EXPECT_EQ(server::wait<ferry::acquired_journal>([&](auto done) { a.store.acquire("node", done); }).status.code,
              errc::store_failed);
    redis.resume();
    const auto owner = a.acquire("node").owner;
    EXPECT_EQ(a.end("node", owner, 1, {}).code, errc::ok);
    EXPECT_TRUE(look.sees([](client& r) { return r.bytes("t") == 0; })) << "a hold is left";
}

TEST(redis_agent_store, tasks_that_redis_has_lost_are_told_to_who_posted_them) {
    redis_process redis;  // it keeps nothing
    redis_options options;
    options.unix_socket = redis.socket();
    options.lease = 1s;
    server a(options);
    a.listen();
    a.acquire("node");
    EXPECT_EQ(a.post("node", task(77)).code, errc::ok);
    redis.kill();
    redis.start();
    EXPECT_TRUE(a.hears(store_note::kind::gone, "", 77));
}

TEST(redis_agent_store, a_redis_without_memory_fails_in_its_own_words) {
    redis_process redis({.max_memory = "3mb"});
    redis_options options;
    options.unix_socket = redis.socket();
    server a(options);
    a.acquire("node");
    ferry::store_status status;
    for (std::uint64_t i = 1; i < 100 && status.code == errc::ok; ++i) {
        status = a.post("node", task(i, long_text(500'000)));
    }
    EXPECT_EQ(status.code, errc::store_failed);
    EXPECT_THAT(status.text, HasSubstr("OOM"));
}

TEST(redis_agent_store, a_redis_that_went_back_in_time_is_noticed) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    server a(options);
    a.listen();
    const auto before = a.acquire("node").owner;
    for (std::uint64_t i = 1; i <= 2; ++i) EXPECT_EQ(a.post("node", task(i)).code, errc::ok);
    client(options).connection.must({"SAVE"});
    for (std::uint64_t i = 3; i <= 4; ++i) EXPECT_EQ(a.post("node", task(i)).code, errc::ok);
    EXPECT_EQ(a.end("node", before, 1, {}).code, errc::ok);
    const auto last_place = a.ends().ends.at(0).place;
    redis.kill();
    redis.start();
    EXPECT_TRUE(a.hears(store_note::kind::lost, "node"));
    for (const std::uint64_t id : {3U, 4U}) EXPECT_TRUE(a.hears(store_note::kind::gone, "", id));
    EXPECT_EQ(a.post("node", task(33)).code, errc::ok);
    EXPECT_EQ(a.end("node", before, 3, {}).code, errc::ownership_lost) << "that order is another task's now";
    const auto now = a.acquire("node");
    EXPECT_GT(now.owner, before);
    ASSERT_EQ(now.tasks.size(), 3U);
    EXPECT_EQ(now.tasks[2].id, 33U);
    EXPECT_EQ(a.end("node", now.owner, now.tasks[2].order, {}).code, errc::ok);
    EXPECT_GT(a.ends().ends.at(0).place, last_place);
}

TEST(redis_agent_store, a_content_that_redis_loses_in_mid_upload_fails_its_post_and_nothing_else) {
    auto options = a_place_of_its_own();
    options.chunk_bytes = 1024;
    server a(options);
    a.acquire("node");
    client redis(options);
    awaited<ferry::store_status> post;
    a.store.post("node", task(1, long_text(20'000'000)), post.done());
    EXPECT_TRUE(redis.sees([](client& r) { return !r.keys("c:*").empty(); }));
    for (const auto& each : redis.keys("*")) redis.connection.must({"DEL", options.key_prefix + each});
    a.acquire("node");
    const auto status = post.get(30s);
    ASSERT_TRUE(status);
    EXPECT_EQ(status->code, errc::store_failed);
    EXPECT_EQ(a.post("node", task(2)).code, errc::ok);
    const auto journal = a.acquire("node");
    ASSERT_EQ(journal.tasks.size(), 1U);
    EXPECT_EQ(a.end("node", journal.owner, journal.tasks[0].order, {}).code, errc::ok);
    EXPECT_THAT(redis.keys("c:*"), testing::IsEmpty());
}

TEST(redis_agent_store, a_task_whose_content_is_missing_does_not_keep_the_others_away) {
    const auto options = a_place_of_its_own();
    server a(options);
    const auto owner = a.acquire("node").owner;
    for (std::uint64_t i = 1; i <= 2; ++i) EXPECT_EQ(a.post("node", task(i, long_text(10'000))).code, errc::ok);
    client redis(options);
    redis.connection.must({"DEL", options.key_prefix + *redis.keys("c:*").begin()});
    const auto tasks = a.acquire("node").tasks;
    ASSERT_EQ(tasks.size(), 2U);
    EXPECT_NE(tasks[0].content == nullptr, tasks[1].content == nullptr);
    EXPECT_EQ(a.end("node", owner + 1, 1, {}).code, errc::ok);
    EXPECT_EQ(a.end("node", owner + 1, 2, {}).code, errc::ok);
}

TEST(redis_agent_store, a_server_that_stood_still_hears_what_was_taken_from_it) {
    auto options = a_place_of_its_own();
    server a(named(options, "a"));
    a.listen();
    a.acquire("node");
    client redis(options);
    options.lease = 1s;
    server b(named(options, "b"));
    b.listen();
    EXPECT_TRUE(redis.sees([&](client& r) {  // again and again: the first server is there, and says so
        r.connection.must({"DEL", options.key_prefix + "alive:a"});
        return b.hears(store_note::kind::free, "node", 0, 0s);
    }));
    EXPECT_TRUE(a.hears(store_note::kind::lost, "node"));
}

TEST(redis_agent_store, who_comes_back_while_its_ends_are_given_away_hears_what_is_gone) {
    auto options = a_place_of_its_own();
    server b(named(options, "b"));
    std::vector<awaited<ferry::store_status>> posts(450);
    server a(named(options, "a"));
    b.acquire("node");
    for (std::size_t i = 0; i < posts.size(); ++i) a.store.post("node", task(i + 1), posts[i].done());
    for (auto& each : posts) EXPECT_EQ(each.get(30s)->code, errc::ok);
    const auto journal = b.acquire("node");
    for (const auto& each : journal.tasks)
        EXPECT_EQ(b.end("node", journal.owner, each.order, replied("r")).code, errc::ok);
    client redis(options);
    redis.connection.must({"DEL", options.key_prefix + "alive:a", options.key_prefix + "known:a"});
    b.listen();
    EXPECT_TRUE(b.hears(store_note::kind::ends));
    a.listen();
    for (std::uint64_t id = 1; id <= posts.size(); ++id) EXPECT_TRUE(a.hears(store_note::kind::gone, "", id));
}

TEST(redis_agent_store, a_redis_without_memory_lets_go_of_what_it_has) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    options.server = "a";
    options.lease = 300ms;
    server a(options);
    a.listen();
    const auto owner = a.acquire("node").owner;
    for (std::uint64_t i = 1; i <= 4; ++i) {
        EXPECT_EQ(a.post("node", task(i, long_text(300'000), "request " + std::to_string(i))).code, errc::ok);
    }
    client other(patient(options));
    other.connection.must({"CONFIG", "SET", "maxmemory", "1mb"});
    EXPECT_EQ(a.post("node", task(5)).code, errc::store_failed);
    EXPECT_EQ(server::status([&](auto done) { a.store.settle("node", owner, 1, done); }).code, errc::ok);
    EXPECT_EQ(a.end("node", owner, 2, replied("reply")).code, errc::ok);
    EXPECT_EQ(a.acknowledge(a.ends().ends.at(0).place).code, errc::ok);
    EXPECT_EQ(server::status([&](auto done) { a.store.withdraw("node", 3, done); }).code, errc::ok);
    EXPECT_EQ(a.acquire("node").tasks.size(), 2U);
    const auto left = other.number({"PTTL", "ferry:alive:a"});
    EXPECT_TRUE(other.sees([&](client& r) {
        return r.number({"PTTL", "ferry:alive:a"}) > left;
    })) << "it goes on living";
}

TEST(redis_agent_store, connections_that_break_whatever_is_sent_end_operations_and_do_not_keep_a_store_from_closing) {
    redis_process redis({.more = {"client-query-buffer-limit 1mb"}});
    redis_options options;
    options.unix_socket = redis.socket();
    options.patience = 300ms;
    options.chunk_bytes = 8 << 20;
    server a(options);
    a.acquire("node");
    EXPECT_EQ(a.post("node", task(1, long_text(8'000'000))).code, errc::store_failed);
    EXPECT_EQ(a.post("node", task(2)).code, errc::ok);
}

TEST(redis_agent_store, a_redis_that_stands_still_does_not_keep_a_store_from_closing) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    options.answer_within = options.patience = 10min;
    awaited<ferry::store_status> post;
    {
        server a(options);
        a.listen();
        a.acquire("node");
        redis.pause();
        a.store.post("node", task(1), post.done());
    }
    const auto status = post.get(0ms);
    ASSERT_TRUE(status);
    EXPECT_EQ(status->code, errc::store_failed);
    redis.resume();
}

TEST(redis_agent_store, a_connection_that_is_closed_at_once_is_an_error_and_not_a_signal) {
    redis_process redis({.more = {"maxclients 1"}});
    redis_options options;
    options.unix_socket = redis.socket();
    options.patience = 0ms;
    const client taken(options);
    for (int i = 0; i < 100; ++i) ASSERT_THAT(refusal(options), HasSubstr("store failed"));
}

TEST(redis_agent_store, a_user_without_channels_is_refused) {
    redis_process redis({.users = {"ferry on >secret ~ferry:* +@all"}, .more = {"acl-pubsub-default resetchannels"}});
    redis_options options;
    options.unix_socket = redis.socket();
    options.user = "ferry";
    options.password = "secret";
    EXPECT_THAT(refusal(options), HasSubstr("publish"));
    EXPECT_THAT(client(options).keys("[nst]*"), testing::IsEmpty());
}

TEST(redis_agent_store, an_upload_that_failed_leaves_nothing) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    options.server = "a";
    options.connect_within = options.answer_within = options.patience = 1s;
    options.chunk_bytes = 1024;
    server a(options);
    a.acquire("node");
    client other(patient(options));
    awaited<ferry::store_status> post;
    a.store.post("node", task(1, long_text(20'000'000)), post.done());
    EXPECT_TRUE(other.sees([](client& r) { return !r.keys("c:*").empty(); }));
    redis.pause();
    const auto status = post.get(30s);
    ASSERT_TRUE(status);
    EXPECT_EQ(status->code, errc::store_failed);
    redis.resume();
    EXPECT_TRUE(other.sees([&](client& r) {
        a.post("node", task(2, long_text(5'000)));  // connects again
        return r.bytes("t") == 5'000 && r.number({"HLEN", "ferry:u:a"}) == 0;
    }));
}

TEST(redis_agent_store, what_is_run_twice_holds_and_lets_go_once) {
    redis_process redis;
    redis_options options;
    options.unix_socket = redis.socket();
    options.server = "a";
    options.connect_within = options.answer_within = 1s;
    options.patience = 30s;
    server a(options);
    a.acquire("node");
    EXPECT_EQ(a.post("node", task(1, long_text(20'000))).code, errc::ok);
    auto first = a.acquire("node");
    client other(patient(options));
    const auto in_a_pause = [&](auto begin) {
        redis.pause();
        begin();
        std::this_thread::sleep_for(2s);  // it is sent again, over another connection
        redis.resume();
    };
    auto acquired = std::make_optional<awaited<ferry::acquired_journal>>();
    in_a_pause([&] { a.store.acquire("node", acquired->done()); });
    auto second = acquired->get(30s);
    acquired.reset();  // it has the contents, too
    ASSERT_TRUE(second);
    EXPECT_TRUE(other.sees([](client& r) { return r.number({"HLEN", "ferry:u:a"}) == 2; }));
    in_a_pause([&] { first.tasks.clear(); });
    EXPECT_TRUE(other.sees([](client& r) { return r.number({"HLEN", "ferry:u:a"}) == 1; }));
    const auto owner = a.acquire("node").owner;
    EXPECT_EQ(a.end("node", owner, 1, {}).code, errc::ok);
    EXPECT_TRUE(read(*second->tasks.at(0).content) == long_text(20'000));
    second->tasks.clear();
    EXPECT_TRUE(other.sees([](client& r) { return r.bytes("t") == 0 && r.keys("c:*").empty(); }));
}

TEST(redis_agent_store, changed_tasks_come_once) {
    const auto options = a_place_of_its_own();
    server a(named(options, "a")), b(named(options, "b"));
    const auto owner = b.acquire("node").owner;
    for (auto* each : {&a, &b}) {
        for (std::uint64_t i = 1; i <= 20; ++i) {
            EXPECT_EQ(each->post("node", task(i, "content", "request " + std::to_string(i))).code, errc::ok);
        }
    }
    const auto fetched = [&] {
        return server::wait<ferry::acquired_journal>([&](auto done) { b.store.fetch("node", owner, 20, done); }).tasks;
    };
    EXPECT_EQ(fetched().size(), 20U);
    EXPECT_EQ(fetched().size(), 0U);
    EXPECT_EQ(server::status([&](auto done) { a.store.withdraw("node", 7, done); }).code, errc::ok);
    EXPECT_EQ(fetched().size(), 1U);
}

TEST(redis_agent_store, a_store_may_be_let_go_in_a_done_while_it_writes) {
    auto options = a_place_of_its_own();
    options.chunk_bytes = 1024;
    options.max_bytes = 30'000'000;
    auto store = std::make_shared<redis_agent_store>(options);
    auto& a = *store;
    server::wait<ferry::acquired_journal>([&](auto done) { a.acquire("node", done); });
    awaited<ferry::store_status> large, refused;
    a.post("node", task(1, long_text(20'000'000)), large.done());
    a.post("other", task(2, long_text(29'000'000)),
           [store = std::move(store), told = refused.done()](ferry::store_status status) mutable {
               store.reset();
               told(std::move(status));
           });
    EXPECT_TRUE(refused.get(30s));
    EXPECT_TRUE(large.get(30s));
}

TEST(redis_agent_store, names_may_be_anything) {
    const auto options = a_place_of_its_own();
    const std::string odd("a b\n\0c:00000000000000000001 \xff", 30);
    server a(named(options, " " + odd)), b(named(options, "a:" + odd + " "));
    a.listen();
    b.listen();
    for (const auto& node : {odd, std::string("x"), std::string(1, '\0'), std::string(70'000, 'n')}) {
        const auto owner = a.acquire(node).owner;
        EXPECT_EQ(b.post(node, task(1, "content", odd)).code, errc::ok);
        EXPECT_TRUE(a.hears(store_note::kind::tasks, node));
        const auto fetched =
            server::wait<ferry::acquired_journal>([&](auto done) { a.store.fetch(node, owner, 0, done); });
        ASSERT_EQ(fetched.tasks.size(), 1U);
        EXPECT_EQ(fetched.tasks[0].request_id, odd);
        EXPECT_EQ(a.end(node, owner, 1, replied("reply")).code, errc::ok);
        const auto ends = b.ends().ends;
        ASSERT_EQ(ends.size(), 1U);
        EXPECT_EQ(ends[0].node, node);
        EXPECT_EQ(b.acknowledge(ends[0].place).code, errc::ok);
        const ferry::seen_node seen{node, ferry::node_status::waiting, std::chrono::system_clock::now()};
        EXPECT_EQ(server::status([&](auto done) { a.store.announce(owner, seen, done); }).code, errc::ok);
        EXPECT_TRUE(b.hears(store_note::kind::seen, node));
    }
    EXPECT_THAT(client(options).keys("[tcorwep]:*"), testing::IsEmpty());
}

TEST(redis_agent_store, connections_that_break_lose_nothing_and_repeat_nothing) {
    const auto options = a_place_of_its_own();
    server a(named(options, "a")), b(named(options, "b"));
    b.acquire("node");
    client redis(options);
    std::vector<awaited<ferry::store_status>> posts(500);
    for (std::size_t i = 0; i < posts.size(); ++i) {
        a.store.post("node", task(i + 1, long_text(i % 50 == 0 ? 300'000 : 10)), posts[i].done());
        if (i % 10 == 0) {
            redis.connection.must({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
        }
        if (i % 50 == 0) {
            EXPECT_EQ(posts[i].get(30s)->code, errc::ok);
        }
    }
    for (auto& each : posts) EXPECT_EQ(each.get(30s)->code, errc::ok);
    const auto tasks = b.acquire("node").tasks;
    ASSERT_EQ(tasks.size(), posts.size());
    for (std::size_t i = 0; i < tasks.size(); ++i) EXPECT_EQ(tasks[i].id, i + 1);
}

}  // namespace
