#include "redis_process.hpp"

#include <ferry/detail/redis_connection.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hiredis/hiredis.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using ferry_test::redis_process;
using testing::HasSubstr;

/// A connection, and what a command is answered with: its text, or "error" and what went wrong.
class connection {
public:
    explicit connection(redisContext* made, timeval enough = {10, 0}) : context_(made, redisFree) {
        if (context_ && !context_->err) redisSetTimeout(context_.get(), enough);
    }

    std::string operator()(const char* command) {
        if (!context_ || context_->err) return "error: not connected";
        const ferry::detail::no_sigpipe guard;  // Redis may die before it has the command
        const std::unique_ptr<redisReply, void (*)(void*)> reply(
            static_cast<redisReply*>(redisCommand(context_.get(), command)), freeReplyObject);
        if (!reply) return "error: no answer";
        const std::string text = reply->str ? std::string(reply->str, reply->len) : "";
        return reply->type == REDIS_REPLY_ERROR ? "error: " + text : text;
    }

private:
    std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
};

connection to(const redis_process& redis, timeval enough = {10, 0}) {
    return connection(redisConnectUnix(redis.socket().c_str()), enough);
}

TEST(redis_process, listens_at_a_socket_and_where_asked_at_a_port) {
    const redis_process alone;
    EXPECT_EQ(alone.port(), 0);
    EXPECT_EQ(to(alone)("PING"), "PONG");
    const redis_process on_a_port({.on_a_port = true});
    EXPECT_EQ(connection(redisConnect("127.0.0.1", on_a_port.port()))("SET where port"), "OK");
    EXPECT_EQ(to(on_a_port)("GET where"), "port");
    EXPECT_EQ(to(alone)("GET where"), "");
}

TEST(redis_process, keeps_its_data_over_kills_where_it_appends_them) {
    redis_process redis({.on_a_port = true, .append_only = true, .append_sync = "always"});
    const auto port = redis.port();
    for (const std::string number : {"1", "2", "3"}) {
        ASSERT_EQ(to(redis)(("SET " + number + " kept").c_str()), "OK");
        number == "2" ? redis.stop() : redis.kill();
        EXPECT_FALSE(redis.is_running());
        EXPECT_EQ(to(redis)("PING"), "error: not connected");
        redis.start();
        EXPECT_EQ(to(redis)(("GET " + number).c_str()), "kept");
    }
    EXPECT_EQ(to(redis)("GET 1"), "kept");
    EXPECT_EQ(redis.port(), port);
}

TEST(redis_process, loses_them_without) {
    redis_process redis;
    auto before = to(redis);
    ASSERT_EQ(before("SET it here"), "OK");
    redis.kill();
    EXPECT_EQ(before("GET it"), "error: no answer");
    redis.start();
    EXPECT_EQ(to(redis)("GET it"), "");
}

TEST(redis_process, answers_nothing_while_it_is_paused) {
    redis_process redis;
    auto before = to(redis);
    ASSERT_EQ(before("PING"), "PONG");
    redis.pause();
    EXPECT_EQ(to(redis, {0, 500'000})("PING"), "error: no answer");
    EXPECT_TRUE(redis.is_running());
    redis.resume();
    EXPECT_EQ(before("PING"), "PONG");
    redis.pause();
    redis.stop();  // also then
    EXPECT_FALSE(redis.is_running());
}

TEST(redis_process, asks_for_a_password) {
    redis_process redis({.password = "secret"});
    auto it = to(redis);
    EXPECT_THAT(it("PING"), HasSubstr("NOAUTH"));
    EXPECT_EQ(it("AUTH secret"), "OK");
    redis.kill();
    redis.start();
    EXPECT_EQ(to(redis)("AUTH secret"), "OK");
}

TEST(redis_process, has_users_databases_and_a_bound_of_memory) {
    const redis_process redis(
        {.users = {"default off", "ferry on >secret ~ferry:* &ferry:* +@all"}, .databases = 2, .max_memory = "500kb"});
    auto it = to(redis);
    EXPECT_THAT(it("PING"), HasSubstr("NOAUTH"));
    EXPECT_EQ(it("AUTH ferry secret"), "OK");
    EXPECT_THAT(it("SET other x"), HasSubstr("NOPERM"));
    EXPECT_EQ(it("SELECT 1"), "OK");
    EXPECT_THAT(it("SELECT 2"), HasSubstr("out of range"));
    EXPECT_THAT(it("SET ferry:x 1"), HasSubstr("OOM"));
}

TEST(redis_process, may_be_started_again_by_a_thread_that_ends) {
    redis_process redis;
    redis.kill();
    std::thread([&] { redis.start(); }).join();
    EXPECT_EQ(to(redis)("PING"), "PONG");
}

TEST(redis_process, says_what_is_missing_where_it_can_not_be_started) {
    const auto made = [](ferry_test::redis_settings how) {
        try {
            redis_process redis(std::move(how));
        } catch (const std::runtime_error& e) {
            return std::string(e.what());
        }
        return std::string("it was started");
    };
    EXPECT_THAT(made({.program = "no-such-redis-server"}), HasSubstr("Debian's package redis-server"));
    EXPECT_THAT(made({.more = {"no-such-setting yes"}}), HasSubstr("Bad directive"));
}

TEST(redis_process, does_not_outlive_the_process_that_has_started_it) {
    int told[2];
    ASSERT_EQ(::pipe(told), 0);
    const auto child = ::fork();
    if (child == 0) {
        auto* redis = new redis_process;  // not destroyed
        const auto path = redis->folder();
        [[maybe_unused]] const auto written = ::write(told[1], path.data(), path.size());
        ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    char path[200]{};
    ASSERT_GT(::read(told[0], path, sizeof path - 1), 0);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    const auto socket = std::string(path) + "/socket";
    const auto answers = [&] { return connection(redisConnectUnix(socket.c_str()))("PING") == "PONG"; };
    while (answers() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    EXPECT_FALSE(answers());
    std::filesystem::remove_all(path);
    for (const int end : told) ::close(end);
}

}  // namespace
