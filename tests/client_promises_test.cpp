// The client's promises, as far as they are built, by short tests of their names.
#include "promises.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::outcome_kind;
using grpc::StatusCode;
using testing::ElementsAre;

TEST(client_promises, several_researchers_at_once) {
    ferry::grpc_server one(quick_server()), two(quick_server());
    one.start();
    two.start();
    auto dial = quick_client("node", one.port());
    dial.researchers.push_back({"localhost", two.port(), ferry::plain_text{}});
    ferry::grpc_client node(dial, [](const ferry::task& task) { task.reply({{"asked by", task.researcher()}}); });
    node.start();
    ASSERT_TRUE(node.wait_connected(patience));
    for (auto* server : {&one, &two}) {
        EXPECT_EQ(server->request({{"n", 1}}, "node").get().message.at("asked by"),
                  "localhost:" + std::to_string(server->port()));
    }
}

TEST(client_promises, a_task_is_replied_to_later_and_from_another_thread_concurrent) {
    std::promise<ferry::task> handed_out;
    server_and_node pair([&](const ferry::task& task) { handed_out.set_value(task); });
    const auto asked = pair.server.request({{"request_id", "r"}}, "node");
    std::thread([task = handed_out.get_future().get()] { task.reply({{"later", true}}); }).join();
    const auto reply = asked.get();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply.message.at("request_id"), "r");
    EXPECT_EQ(reply.message.at("node_id"), "node");
    EXPECT_EQ(reply.message.at("later"), true);
}

TEST(client_promises, a_task_has_a_stop_token_concurrent) {
    std::promise<void> begun, told;
    server_and_node pair([&](const ferry::task& task) {
        EXPECT_FALSE(task.stop_token().stop_requested());
        begun.set_value();
        if (soon([&] { return task.stop_token().stop_requested(); })) told.set_value();
    });
    pair.server.send({{"n", 1}}, "node");
    begun.get_future().wait();
    pair.node->stop(patience);
    EXPECT_TRUE(comes(told.get_future()));
}

TEST(client_promises, logs_scalars_and_replies_do_not_wait_behind_a_bulk_upload) {
    const std::atomic<bool> never{false};
    fake_researcher fake([&](int n, auto& in, auto& context) {
        if (n == 1) fake_researcher::hold(context, never);
        fake_researcher::read_all(in);
        return grpc::Status::OK;
    });
    ferry::grpc_client node(quick_client("node", fake.port()), echo);
    node.start();
    const auto stuck = node.send(bulk()).front();
    ASSERT_TRUE(soon([&] { return fake.uploads() == 1; }));
    node.log("INFO", "a line");
    node.send(ferry::scalars{});
    EXPECT_TRUE(soon([&] { return fake.feedback() == 2; }));
    EXPECT_EQ(node.send(ferry::message{{"n", 1}}).front().wait().kind, outcome_kind::taken);
    EXPECT_EQ(node.send(bulk()).front().wait().kind, outcome_kind::taken) << "also more bulk";
    EXPECT_FALSE(stuck.done());
}

TEST(client_promises, reconnects_for_ever) {
    auto options = quick_server();
    options.port = free_port();
    ferry::grpc_client node(quick_client("node", options.port), echo);
    node.start();
    EXPECT_FALSE(node.wait_connected(0ms));
    for (int i = 0; i < 3; ++i) {
        ferry::grpc_server server(options);
        server.start();
        ASSERT_TRUE(server.wait_for_nodes(1, patience));
        EXPECT_TRUE(server.request({{"n", i}}, "node").get());
    }
}

TEST(client_promises, a_callback_that_throws_costs_that_task_and_is_reported) {
    notes at_server, at_node;
    auto options = quick_server();
    options.on_message = [&](const ferry::feedback& from) { at_server.add(text_of(from)); };
    ferry::grpc_server server(options);
    server.start();
    auto dial = quick_client("node", server.port());
    dial.log = at_node.of(ferry::log_level::warning);
    ferry::grpc_client node(dial, [](const ferry::task& task) {
        if (task.message().contains("bad")) throw std::runtime_error("it is bad");
        echo(task);
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto bad = server.send({{"bad", true}}, "node").wait();
    EXPECT_EQ(bad.kind, outcome_kind::refused);
    EXPECT_EQ(bad.text, "a task failed: it is bad");
    EXPECT_EQ(server.request({{"bad", true}}, "node").get().how.kind, outcome_kind::refused);
    EXPECT_TRUE(server.request({{"n", 1}}, "node").get());
    EXPECT_EQ(at_node.holding("a task failed: it is bad"), 2);
    EXPECT_TRUE(soon([&] { return at_server.holding("a task failed: it is bad") == 2; }));
}

TEST(client_promises, a_callback_that_throws_answers_a_fedbiomed_request_by_an_ErrorMessage) {
    server_and_node pair([](const ferry::task& task) {
        if (task.message().at("request_id") == "misuse") throw ferry::error(errc::invalid_argument, "not like this");
        throw std::runtime_error("it is bad");
    });
    const auto failure = [&](const std::string& id) {
        const auto ping = ferry::fedbiomed::to_message(ferry::fedbiomed::ping_request{id}, "a-researcher");
        return ferry::fedbiomed::parse<ferry::fedbiomed::error_message>(
            pair.server.request(ping, "node").get().message);
    };
    const auto misuse = failure("misuse"), other = failure("other");
    EXPECT_EQ(misuse.errnum, "FB628");
    EXPECT_EQ(misuse.extra_msg, "a task failed: not like this");
    EXPECT_EQ(misuse.request_id, "misuse");
    EXPECT_EQ(misuse.node_id, "node");
    EXPECT_EQ(other.errnum, std::nullopt);
    EXPECT_EQ(other.extra_msg, "a task failed: it is bad");
}

TEST(client_promises, a_malformed_task_costs_that_task_and_is_reported) {
    notes came, warnings;
    fake_researcher fake;
    auto dial = quick_client("node", fake.port());
    dial.log = warnings.of(ferry::log_level::warning);
    ferry::grpc_client node(dial, [&](const ferry::task& task) { came.add(task.message().at("n").dump()); });
    node.start();
    fake.send(plain_peer::encoded({{"n", 1}}));
    fake.send("\xc1 is no message");
    fake.send(plain_peer::encoded({{"n", 2}}));
    ASSERT_TRUE(soon([&] { return came.size() == 2; }));
    EXPECT_THAT(came.all(), ElementsAre("1", "2"));
    EXPECT_EQ(warnings.holding("a task failed"), 1);
    EXPECT_TRUE(soon([&] { return fake.feedback() == 1; })) << "the researcher is told";
}

TEST(client_promises, every_uploads_final_status_is_read_and_a_failed_one_is_sent_again) {
    notes contents;
    fake_researcher fake([&](int n, auto& in, auto&) {
        contents.add(fake_researcher::read_all(in));
        return n < 3 ? grpc::Status(StatusCode::UNAVAILABLE, "not now") : grpc::Status::OK;
    });
    ferry::grpc_client node(quick_client("node", fake.port()), echo);
    node.start();
    const auto sent = node.send(ferry::message{{"n", 1}, {"node_id", "node"}}).front();
    EXPECT_EQ(sent.wait().kind, outcome_kind::taken);
    const auto whole = plain_peer::encoded({{"n", 1}, {"node_id", "node"}});
    EXPECT_THAT(contents.all(), ElementsAre(whole, whole, whole));
}

}  // namespace
