// Servers that share a Redis, in one process, and a node that is connected to one of them. What all shared stores have in common
// is in shared_server_test.cpp.
#include <ferry/agent_store/redis.hpp>
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "promises.hpp"
#include "redis_process.hpp"
#include "tcp_relay.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace loopback;
using ferry::outcome_kind;
using ferry_test::redis_process;
using sharing_server = ferry::basic_grpc_server<ferry::redis_agent_store>;

class redis_server_test : public testing::Test {
protected:
    std::unique_ptr<sharing_server> make(const std::string& name,
                                         std::function<void(ferry::log_level, const std::string&)> log = {}) {
        ferry::redis_options where;
        where.unix_socket = redis.socket();
        where.server = name;
        where.patience = redis_patience;
        where.max_bytes = redis_max_bytes;
        auto options = quick_server();
        if (log) options.log = std::move(log);
        auto made = std::make_unique<sharing_server>(std::move(options), ferry::redis_agent_store(where));
        made->start();
        return made;
    }
    std::unique_ptr<ferry::grpc_client> connect(std::uint16_t to, std::uint16_t or_to,
                                                std::function<void(ferry::task)> on_task) {
        auto options = quick_client("node", to);
        options.researchers.front().also_at = {{"localhost", or_to}};
        auto made = std::make_unique<ferry::grpc_client>(std::move(options), std::move(on_task));
        made->start();
        EXPECT_TRUE(a->wait_for_nodes({"node"}, patience));
        EXPECT_TRUE(b->wait_for_nodes({"node"}, patience));
        return made;
    }

    redis_process redis{{.append_only = true, .append_sync = "always"}};
    std::chrono::milliseconds redis_patience = 30s;
    std::uint64_t redis_max_bytes = 1'000'000'000;
    std::unique_ptr<sharing_server> a = make("a"), b = make("b");
};

TEST_F(redis_server_test, a_large_request_and_its_reply_pass_through_redis_concurrent) {
    const auto node = connect(b->port(), a->port(), echo);
    const ferry::message large{{"data", some_bytes(20'000'000)}};
    std::vector<sharing_server::request_handle> asked;
    for (int i = 0; i < 3; ++i) asked.push_back(a->request(large, "node"));
    for (const auto& each : asked) {
        ASSERT_TRUE(each.wait_for(patience));
        EXPECT_TRUE(each.get().message.at("data") == large.at("data"));
    }
    EXPECT_TRUE(soon([&] { return a->pending().empty() && b->pending().empty(); }));
}

TEST_F(redis_server_test, an_upload_that_moves_to_another_server_starts_again_there_concurrent) {
    constexpr std::size_t size = 20'000'000, in_the_middle = 7'000'000;
    tcp_relay to_a(a->port()), to_b(b->port());
    std::atomic<int> runs{0};
    const auto node = connect(to_b.port(), to_a.port(), [&](const ferry::task& task) {
        ++runs;
        task.reply({{"request_id", task.message().at("request_id")}, {"data", some_bytes(size)}});
    });
    to_b.stall_after(tcp_relay::to_server, in_the_middle);
    const auto asked = a->request({{"n", 1}}, "node");
    ASSERT_TRUE(to_b.wait([](const auto& seen) { return seen.limits_reached == 1; }, patience));
    const auto before = to_a.seen().passed[tcp_relay::to_server];
    b->stop();
    to_b.forward_to(0);
    to_b.cut();
    ASSERT_TRUE(asked.wait_for(patience));
    EXPECT_TRUE(asked.get().message.at("data") == ferry::message(some_bytes(size)));
    EXPECT_GE(to_a.seen().passed[tcp_relay::to_server] - before, size) << "from its first byte on";
    EXPECT_EQ(runs, 1);
}

TEST_F(redis_server_test, a_redis_that_is_gone_for_a_while_loses_nothing_concurrent) {
    std::atomic<int> runs{0};
    const auto node = connect(b->port(), a->port(), [&](const ferry::task& task) {
        ++runs;
        task.reply({{"request_id", task.message().at("request_id")}, {"n", task.message().at("n")}});
    });
    std::vector<sharing_server::request_handle> asked;
    for (int i = 0; i < 90; ++i) {
        if (i % 30 == 10) redis.kill();
        asked.push_back((i % 2 == 0 ? a : b)->request({{"n", i}}, "node", {.keep_while_disconnected = true}));
        if (i % 30 == 20) redis.start();
    }
    for (std::size_t i = 0; i < asked.size(); ++i) {
        ASSERT_TRUE(asked[i].wait_for(patience)) << i;
        EXPECT_EQ(asked[i].wait().kind, outcome_kind::replied) << i << ": " << asked[i].wait().text;
        if (asked[i].wait()) {
            EXPECT_EQ(asked[i].get().message.at("n"), i);
        }
    }
    EXPECT_EQ(runs, 90);
}

TEST_F(redis_server_test, replies_wait_at_their_node_where_redis_has_no_room_concurrent) {
    notes warnings;
    std::atomic<int> runs{0};
    redis_max_bytes = 3'000'000;
    b.reset();
    b = make("b", warnings.of(ferry::log_level::warning));
    const auto node = connect(b->port(), a->port(), [&](const ferry::task& task) {
        ++runs;
        task.reply({{"request_id", task.message().at("request_id")}, {"data", some_bytes(2'000'000)}});
    });
    std::promise<void> go_on;
    std::vector<sharing_server::request_handle> asked;
    for (int i = 0; i < 3; ++i) asked.push_back(a->request({{"n", i}}, "node"));
    asked.front().on_done([may_go_on = go_on.get_future().share()](const auto&) { may_go_on.wait(); });
    EXPECT_TRUE(soon([&] { return warnings.holding("no room for a reply") > 0; }));
    go_on.set_value();
    for (const auto& each : asked) {
        ASSERT_TRUE(each.wait_for(patience));
        EXPECT_EQ(each.wait().kind, outcome_kind::replied);
    }
    EXPECT_EQ(runs, 3);
    EXPECT_EQ(warnings.holding("journal is lost"), 0);
}

struct impatient_redis_server_test : redis_server_test {
    impatient_redis_server_test() {
        redis_patience = 200ms;
        a.reset();
        b.reset();
        a = make("a");
        b = make("b");
    }
};

TEST_F(impatient_redis_server_test, a_redis_that_stays_away_ends_what_is_sent_in_an_outcome_concurrent) {
    const auto node = connect(b->port(), a->port(), echo);
    redis.kill();
    const auto sent = a->send({{"n", 1}}, "node", {.keep_while_disconnected = true});
    ASSERT_TRUE(sent.wait_for(patience));
    EXPECT_EQ(sent.wait().kind, outcome_kind::store_failed);
    redis.start();
    EXPECT_TRUE(soon([&] {
        const auto asked = a->request({{"n", 2}}, "node");
        return asked.wait_for(patience) && asked.wait();
    }));
}

}  // namespace
