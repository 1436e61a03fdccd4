#include <ferry/server_options.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>
#include <variant>

namespace {

using namespace std::chrono_literals;
using ferry::errc;
using ferry_test::fails;

constexpr const char* variable = "GRPC_SERVER_SETUP_TIMEOUT";

/// Sets or unsets the environment variable, and brings back what was there.
struct setup_timeout : testing::Test {
    setup_timeout() {
        if (const char* was = std::getenv(variable)) was_ = was;
        unset();
    }
    ~setup_timeout() override { was_ ? set(*was_) : unset(); }

    static void set(const std::string& value) { ASSERT_EQ(::setenv(variable, value.c_str(), 1), 0); }
    static void unset() { ASSERT_EQ(::unsetenv(variable), 0); }

private:
    std::optional<std::string> was_;
};

TEST_F(setup_timeout, is_a_second_where_nothing_is_set) {
    EXPECT_EQ(ferry::server_setup_timeout(), 1s);
    EXPECT_EQ(ferry::GRPC_SERVER_SETUP_TIMEOUT(), 3s);
    EXPECT_EQ(ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT(), 20s);
}

TEST_F(setup_timeout, is_read_anew_each_time) {
    set("5");
    EXPECT_EQ(ferry::server_setup_timeout(), 5s);
    EXPECT_EQ(ferry::GRPC_SERVER_SETUP_TIMEOUT(), 7s);
    EXPECT_EQ(ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT(), 100s);
    set("0");
    EXPECT_EQ(ferry::server_setup_timeout(), 0s);
    set(std::to_string(std::numeric_limits<int>::max()));
    EXPECT_EQ(ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT(), 20LL * std::chrono::seconds(std::numeric_limits<int>::max()));
}

TEST_F(setup_timeout, refuses_what_are_no_whole_seconds) {
    for (const auto* text : {"", " ", "-1", "+1", "1.5", "1 ", " 1", "1s", "one", "99999999999"}) {
        set(text);
        EXPECT_TRUE(fails([] { ferry::server_setup_timeout(); }, errc::invalid_argument,
                          "GRPC_SERVER_SETUP_TIMEOUT is \"" + std::string(text) + "\""));
        EXPECT_TRUE(fails([] { ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT(); }, errc::invalid_argument, "whole seconds"));
    }
}

TEST(server_options, have_the_constants_of_the_original) {
    EXPECT_EQ(ferry::GRPC_CLIENT_CONN_RETRY_TIMEOUT, 2s);
    EXPECT_EQ(ferry::MAX_SEND_DURATION, 300s);
    EXPECT_EQ(ferry::MAX_SEND_RETRIES, 5);
    const ferry::server_options options;
    EXPECT_EQ(options.host, "localhost");
    EXPECT_EQ(options.port, 50051);
    EXPECT_EQ(options.task_age, 1h);
    EXPECT_EQ(options.limits.disconnect_after, 10s);
}

TEST(server_options, choose_no_security_by_themselves) {
    EXPECT_TRUE(std::holds_alternative<std::monostate>(ferry::server_options{}.ssl));
}

TEST(server_options, log_to_stderr_by_default) {
    const ferry::server_options options;
    testing::internal::CaptureStderr();
    options.log(ferry::log_level::debug, "one");
    options.log(ferry::log_level::info, "two");
    options.log(ferry::log_level::warning, "three");
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "ferry: debug: one\nferry: info: two\nferry: warning: three\n");
}

TEST(send_options, differ_in_nothing_by_themselves) {
    const ferry::send_options how;
    EXPECT_FALSE(how.expires_after.has_value());
    EXPECT_FALSE(how.reply_within.has_value());
    EXPECT_FALSE(how.keep_while_disconnected);
}

}  // namespace
