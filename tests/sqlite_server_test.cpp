#include <ferry/agent_store/sqlite.hpp>

#include "promises.hpp"
#include "support.hpp"
#include "temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using lasting_server = ferry::basic_grpc_server<ferry::sqlite_agent_store>;

class lasting_server_test : public testing::Test {
protected:
    /// Its life after the one before, on the same file.
    lasting_server& start(std::function<void(const ferry::reply&)> on_unclaimed = {}) {
        server.reset();
        server = std::make_unique<lasting_server>(quick_server(), ferry::sqlite_agent_store({.file = file}));
        if (on_unclaimed) server->on_unclaimed_reply(std::move(on_unclaimed));
        server->start();
        return *server;
    }
    ferry::grpc_client& connect(std::function<void(ferry::task)> on_task) {
        node.reset();
        node = std::make_unique<ferry::grpc_client>(quick_client("node", server->port()), std::move(on_task));
        node->start();
        EXPECT_TRUE(server->wait_for_nodes({"node"}, patience));
        return *node;
    }
    /// The node is known, and away.
    void introduce() {
        connect(echo);
        node.reset();
    }

    ferry_test::temporary_folder folder;
    const std::string file = folder.file("journals");
    std::unique_ptr<lasting_server> server;
    std::unique_ptr<ferry::grpc_client> node;
};

ferry::message with_id(const std::string& id) { return {{"request_id", id}, {"n", 1}}; }

TEST_F(lasting_server_test, delivers_in_its_next_life_what_was_accepted) {
    start();
    introduce();
    std::vector<ferry::message> sent;
    for (int i = 0; i < 4; ++i) sent.push_back({{"n", i}, {"data", some_bytes(i % 2 == 0 ? 100 : 20'000'000)}});
    for (const auto& each : sent) {
        const auto delivery = server->send(each, "node", {.keep_while_disconnected = true});
        EXPECT_TRUE(delivery.wait_accepted());
        EXPECT_TRUE(delivery.accepted());
        EXPECT_FALSE(delivery.done());
    }
    start();
    EXPECT_EQ(server->pending().size(), 4U);
    ASSERT_TRUE(server->get_node("node"));
    EXPECT_EQ(server->get_node("node")->status, node_status::disconnected);
    std::mutex mutex;
    std::vector<ferry::message> came;
    connect([&](const ferry::task& task) {
        const std::lock_guard lock(mutex);
        came.push_back(task.message());
    });
    EXPECT_TRUE(soon([&] { return server->pending().empty(); }));
    const std::lock_guard lock(mutex);
    EXPECT_TRUE(came == sent);
}

/// Of this process, without mapped files.
std::size_t anonymous_megabytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("RssAnon:")) return std::stoul(line.substr(8)) / 1024;
    }
    return 0;
}

TEST_F(lasting_server_test, large_tasks_that_wait_take_no_memory) {
    start();
    introduce();
    const auto before = anonymous_megabytes();
    std::vector<lasting_server::delivery> sent;
    for (int i = 0; i < 20; ++i) {
        sent.push_back(
            server->send({{"n", i}, {"data", some_bytes(20'000'000)}}, "node", {.keep_while_disconnected = true}));
        EXPECT_TRUE(sent.back().wait_accepted());
    }
    if (!ferry_test::sanitized) {  // whose malloc holds back what was freed
        EXPECT_TRUE(soon([&] { return anonymous_megabytes() < before + 150; })) << before << " MB before";
    }
    std::atomic<int> came{0};
    connect([&](const ferry::task& task) {
        came += task.message().at("data").get<ferry::bytes>() == some_bytes(20'000'000) ? 1 : 0;
    });
    for (const auto& each : sent) EXPECT_EQ(each.wait().kind, outcome_kind::taken);
    EXPECT_EQ(came, 20);
}

TEST_F(lasting_server_test, what_is_not_accepted_says_so) {
    start();
    const auto refused = server->send({{"n", 1}}, "nobody");
    EXPECT_FALSE(refused.wait_accepted());
    EXPECT_EQ(refused.wait().kind, outcome_kind::node_unknown);
}

TEST_F(lasting_server_test, a_request_may_be_repeated_in_its_next_life) {
    start();
    introduce();
    EXPECT_TRUE(server->request(with_id("r"), "node", {.keep_while_disconnected = true}).wait_accepted());
    start();
    const auto again = server->request(with_id("r"), "node", {.keep_while_disconnected = true});
    std::atomic<int> runs{0};
    connect([&](const ferry::task& task) {
        ++runs;
        task.reply({{"answer", 42}});
    });
    EXPECT_EQ(again.get().message.at("answer"), 42);
    EXPECT_TRUE(soon([&] { return server->pending().empty(); }));
    EXPECT_EQ(runs, 1);
}

TEST_F(lasting_server_test, a_reply_to_a_request_of_an_earlier_life_goes_to_the_handler) {
    start();
    introduce();
    EXPECT_TRUE(server->request(with_id("r"), "node", {.keep_while_disconnected = true}).wait_accepted());
    std::promise<ferry::message> came;
    start([&](const ferry::reply& reply) { came.set_value(reply.message); });
    connect([](const ferry::task& task) { task.reply({{"answer", 42}}); });
    auto reply = came.get_future();
    ASSERT_EQ(reply.wait_for(patience), std::future_status::ready);
    EXPECT_EQ(reply.get().at("answer"), 42);
}

/// A life whose server has a reply, and ends before that was handled to its end.
class unhandled_reply : public lasting_server_test {
protected:
    void live(std::size_t bytes) {
        answer = {{"request_id", "r"}, {"data", some_bytes(bytes)}};
        start();
        std::promise<ferry::outcome> at_node;
        connect([&](const ferry::task& task) {
            ++runs;
            task.reply(answer).on_done([&](const ferry::outcome& how) { at_node.set_value(how); });
        });
        std::promise<void> called, go_on;
        auto asked = server->request(with_id("r"), "node");
        asked.on_reply([&, until = go_on.get_future().share()](const ferry::reply&) {
            called.set_value();
            until.wait();
        });
        called.get_future().wait();
        ASSERT_EQ(runs, ++lives) << "it is the reply of an earlier life";
        auto how = at_node.get_future();
        ASSERT_EQ(how.wait_for(patience), std::future_status::ready) << "it is kept: the node need not wait";
        EXPECT_EQ(how.get().kind, outcome_kind::taken);
        server->stop(0ms);
        go_on.set_value();
        node.reset();
    }

    ferry::message answer;
    std::atomic<int> runs{0};
    int lives = 0;
};

TEST_F(unhandled_reply, goes_to_the_handler_of_the_next_life_until_it_was_handled) {
    for (const std::size_t bytes : {std::size_t{100}, std::size_t{5'000'000}}) {
        live(bytes);
        for (const bool fails : {true, false}) {
            std::promise<ferry::message> came;
            std::promise<void> go_on;
            start([&, until = go_on.get_future().share()](const ferry::reply& reply) {
                came.set_value(reply.message);
                until.wait();
            });
            auto reply = came.get_future();
            ASSERT_EQ(reply.wait_for(patience), std::future_status::ready);
            EXPECT_EQ(reply.get().at("data"), answer.at("data"));
            if (fails) server->stop(0ms);  // before it has returned
            go_on.set_value();
            server->stop(patience);  // else, once it has
        }
        std::atomic<int> unclaimed{0};
        start([&](const ferry::reply&) { ++unclaimed; });
        server->stop(patience);
        EXPECT_EQ(unclaimed, 0);
    }
    EXPECT_EQ(runs, 2);
}

TEST_F(unhandled_reply, is_there_at_once_for_who_asks_again) {
    live(100);
    start();
    const auto again = server->request(with_id("r"), "node", {.keep_while_disconnected = true});
    ASSERT_TRUE(again.wait_for(patience));
    EXPECT_EQ(again.get().message.at("data"), answer.at("data"));
    EXPECT_EQ(runs, 1);
}

TEST_F(lasting_server_test, may_be_stopped_from_inside_the_callback_of_a_reply_concurrent) {
    start();
    connect(echo);
    std::promise<void> stopped;
    server->request(with_id("r"), "node").on_reply([&](const ferry::reply&) {
        server->stop(10min);  // not for itself
        stopped.set_value();
    });
    EXPECT_EQ(stopped.get_future().wait_for(patience), std::future_status::ready);
}

TEST_F(lasting_server_test, a_file_in_use_is_an_error_that_says_so) {
    start();
    try {
        const lasting_server second(quick_server(), ferry::sqlite_agent_store({.file = file}));
        ADD_FAILURE() << "it was opened";
    } catch (const ferry::error& e) {
        EXPECT_EQ(e.code(), errc::store_failed);
        EXPECT_THAT(e.what(), testing::HasSubstr("another process has it open"));
    }
}

TEST_F(lasting_server_test, a_server_may_be_let_go_while_its_store_writes_concurrent) {
    for (int round = 0; round < 20; ++round) {
        start();
        if (round == 0) introduce();
        for (int i = 0; i < 50; ++i) server->send({{"n", i}}, "node", {.keep_while_disconnected = true});
    }
    start();
    EXPECT_GE(server->pending().size(), 1U);
}

}  // namespace
