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

/// Whether the client answers, from another thread, at the end of what it was to send.
struct last_words {
    explicit last_words(ferry::grpc_client& c) : client(c) {}
    ~last_words() {
        auto answer = std::async(std::launch::async, [&] { client.log("INFO", "it is free again"); });
        if (answer.wait_for(5s) == std::future_status::timeout) ++unanswered;
        ++gone;
    }

    static inline std::atomic<int> gone{0}, unanswered{0};
    ferry::grpc_client& client;
    const ferry::bytes data = some_bytes(4096);
};

TEST(client_promises, user_code_may_call_the_client_where_what_was_sent_is_destroyed_concurrent) {
    server_and_node pair;
    auto& node = *pair.node;
    const auto message = [&] {
        const auto owner = std::make_shared<last_words>(node);
        return ferry::message{{"data", ferry::bytes::borrow({owner->data.data(), owner->data.size()}, owner)}};
    };
    EXPECT_EQ(node.send(message()).front().wait().kind, outcome_kind::taken);
    EXPECT_TRUE(soon([] { return last_words::gone == 1; }));
    pair.server.stop();
    auto left = node.send(message()).front();
    left.cancel();
    EXPECT_EQ(left.wait().kind, outcome_kind::cancelled);
    EXPECT_TRUE(soon([] { return last_words::gone == 2; }));
    node.send(message());
    node.stop(0ms);
    EXPECT_TRUE(soon([] { return last_words::gone == 3; }));
    node.send(message());
    EXPECT_TRUE(soon([] { return last_words::gone == 4; }));
    EXPECT_EQ(last_words::unanswered, 0);
}

TEST(client_promises, a_refusal_in_words_that_are_no_utf_8_costs_that_task_alone) {
    server_and_node pair([](const ferry::task& task) {
        if (task.message().contains("odd")) throw std::runtime_error("caf\xe9: no such file");
        echo(task);
    });
    const auto odd = pair.server.send({{"odd", 1}}, "node").wait();
    EXPECT_EQ(odd.kind, outcome_kind::refused);
    EXPECT_NE(odd.text.find("caf?: no such file"), std::string::npos) << odd.text;
    EXPECT_TRUE(pair.server.request({{"n", 1}}, "node").get());
}

TEST(client_promises, stop_calls_on_done_for_what_it_gives_up_concurrent) {
    ferry::grpc_client node(quick_client("node", free_port()), echo);
    node.start();
    std::atomic<int> called{0};
    for (int i = 0; i < 20; ++i) {
        node.send(ferry::message{{"n", i}}).front().on_done([&](const ferry::outcome&) { ++called; });
    }
    node.stop(10ms);
    EXPECT_EQ(called, 20);
}

TEST(client_promises, a_callback_may_stop_what_another_is_stopping_concurrent) {
    std::promise<void> begun;
    std::atomic<ferry::grpc_client*> node{nullptr};
    server_and_node pair([&](const ferry::task& task) {
        begun.set_value();
        soon([&] { return task.stop_token().stop_requested(); });
        node.load()->stop(patience);
        node = nullptr;
    });
    node = pair.node.get();
    pair.server.send({{"n", 1}}, "node");
    begun.get_future().wait();
    pair.node->stop(patience);
    EXPECT_EQ(node.load(), nullptr) << "it was waited for";
}

TEST(client_promises, any_patience_will_do_concurrent) {
    std::promise<void> begun;
    server_and_node pair([&](const ferry::task& task) {
        begun.set_value();
        EXPECT_TRUE(soon([&] { return task.stop_token().stop_requested(); }));
        EXPECT_EQ(task.reply({{"n", 1}}).wait().kind, outcome_kind::taken);
    });
    EXPECT_TRUE(pair.node->wait_connected(std::chrono::milliseconds::max()));
    EXPECT_TRUE(pair.server.wait_for_nodes(1, std::chrono::milliseconds::max()));
    const auto asked = pair.server.request({{"n", 1}}, "node");
    begun.get_future().wait();
    pair.node->stop(std::chrono::milliseconds::max());
    EXPECT_TRUE(asked.get()) << "what had begun came to its end";
}

TEST(client_promises, a_left_reply_that_is_given_up_is_reported) {
    ferry_test::temporary_folder folder;
    notes warnings;
    auto dial = quick_client("node", free_port());
    dial.spool = {folder.file("spool"), 1000};
    dial.log = warnings.of(ferry::log_level::warning);
    {
        ferry::grpc_client node(dial, echo);
        node.start();
        EXPECT_EQ(node.send({{"data", some_bytes(100'000)}}).front().wait_for(0ms), std::nullopt);
        node.stop();
    }
    EXPECT_EQ(warnings.holding("an earlier life"), 0);
    dial.reply_age = 10ms;
    ferry::grpc_client node(dial, echo);
    node.start();
    EXPECT_TRUE(
        soon([&] { return warnings.holding("an earlier life of this node had left is given up: expired") == 1; }));
}

TEST(client_promises, a_reply_outlasts_a_server_that_has_no_room_for_it) {
    auto options = quick_server();
    options.inbound.max_bytes = 1 << 20;
    plain_peer peer(options);
    open_upload other(peer);
    ASSERT_TRUE(other.write(100, 1, std::string(2 << 20, 'x')));  // and goes on for as long as it likes
    ASSERT_TRUE(soon([&] { return peer.server.counts().inbound_bytes > 1 << 20; }));
    auto dial = quick_client("node", peer.server.port());
    dial.limits.idle_limit = 20ms;
    ferry::basic_grpc_client<ferry::no_retry> node(dial, echo);
    node.start();
    const auto sent = node.send({{"data", some_bytes(9'000'000)}}).front();
    EXPECT_FALSE(sent.wait_for(500ms)) << sent.wait().text;
}

TEST(client_promises, a_start_that_throws_has_begun_nothing) {
    ferry::grpc_server server(quick_server());
    server.start();
    auto dial = quick_client("node", server.port());
    dial.researchers.push_back({"localhost", 1, ferry::pinned_certificate{"/nowhere.pem"}});
    ferry::grpc_client node(dial, echo);
    EXPECT_EQ(thrown_by([&] { node.start(); }), errc::bad_credentials);
    EXPECT_FALSE(server.wait_for_nodes(1, 200ms));
}

}  // namespace
