// The client's promises, as far as they are built, by short tests of their names.
#include "promises.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::outcome_kind;
using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

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
    const reserved_port port;
    auto options = quick_server();
    options.port = port.number();
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
    const reserved_port nobodys;
    ferry::grpc_client node(quick_client("node", nobodys.number()), echo);
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

/// Lives of a node, one after another, whose server is nobody.
struct lives_of_a_spooling_node {
    lives_of_a_spooling_node() {
        dial.spool = {folder.file("spool"), 1000};
        dial.log = warnings.of(ferry::log_level::warning);
        dial.reply_age = 1h;
    }

    void live() {
        ferry::grpc_client node(dial, echo);
        node.start();
        EXPECT_EQ(node.send({{"data", some_bytes(100'000)}}).front().wait_for(0ms), std::nullopt);
        node.stop();
    }
    bool gives_one_up_in_its_next() {
        ferry::grpc_client node(dial, echo);
        node.start();
        return soon(
            [&] { return warnings.holding("an earlier life of this node had left is given up: expired") == 1; });
    }

    ferry_test::temporary_folder folder;
    notes warnings;
    const reserved_port nobodys;
    ferry::client_options dial = quick_client("node", nobodys.number());
};

TEST(client_promises, a_left_reply_that_is_given_up_is_reported) {
    lives_of_a_spooling_node node;
    node.live();
    EXPECT_EQ(node.warnings.holding("an earlier life"), 0);
    node.dial.reply_age = 10ms;
    EXPECT_TRUE(node.gives_one_up_in_its_next());
}

TEST(client_promises, a_left_reply_is_as_old_as_its_file) {
    lives_of_a_spooling_node node;
    node.live();
    node.live();
    EXPECT_EQ(node.warnings.holding("an earlier life"), 0);
    int left = 0;
    for (const auto& each : std::filesystem::recursive_directory_iterator(node.folder.file("spool"))) {
        if (!each.path().filename().string().starts_with("reply-") || left++ > 0) continue;
        std::filesystem::last_write_time(each, std::filesystem::file_time_type::clock::now() - 2h);
    }
    EXPECT_EQ(left, 2);
    EXPECT_TRUE(node.gives_one_up_in_its_next());
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

TEST(client_promises, a_reply_that_fails_is_told_to_whoever_asked_and_logged) {
    notes warnings;
    ferry::grpc_server server(quick_server());
    server.start();
    auto dial = quick_client("node", server.port());
    dial.limits.max_payload_bytes = 1000;
    dial.log = warnings.of(ferry::log_level::warning);
    ferry::grpc_client node(dial, [](const ferry::task& task) {
        const auto large = ferry::message{{"data", some_bytes(5000)}};
        if (task.message().at("first") == "small") task.reply({{"n", 1}});
        EXPECT_EQ(task.reply(large).wait().kind, outcome_kind::too_large);
        if (task.message().at("then") == "small") task.reply({{"n", 2}});
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto none = server.request({{"first", ""}, {"then", ""}}, "node").get();
    EXPECT_EQ(none.how.kind, outcome_kind::refused);
    EXPECT_THAT(none.how.text, HasSubstr("the reply can't be sent: a payload of "));
    EXPECT_THAT(none.how.text, HasSubstr("limits.max_payload_bytes, 1000"));
    EXPECT_EQ(server.request({{"first", "small"}, {"then", ""}}, "node").get().message.at("n"), 1);
    EXPECT_EQ(server.request({{"first", ""}, {"then", "small"}}, "node").get().message.at("n"), 2);
    EXPECT_EQ(warnings.holding("a message to it is given up: too large: a payload of "), 3);
}

TEST(client_promises, a_reply_that_is_not_taken_for_long_is_logged_at_both_ends) {
    notes at_server, at_node;
    auto options = quick_server();
    options.log = at_server.of(ferry::log_level::warning);
    ferry::grpc_server server(options);
    server.start();
    auto dial = quick_client("node", server.port());
    dial.log = at_node.of(ferry::log_level::warning);
    dial.limits.reconnect = {1ms, 1, 1ms};
    ferry::grpc_client node(dial, [](const ferry::task& task) { task.reply({{"node_id", "another"}}); });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto asked = server.request({{"n", 1}}, "node");
    EXPECT_TRUE(soon([&] { return at_node.holding("a reply is not taken, and is sent again") == 1; }));
    EXPECT_GE(at_server.holding("a reply of node another, which has never polled, is not taken"), 3);
    EXPECT_FALSE(asked.done());
}

TEST(client_promises, a_small_reply_beyond_the_servers_limit_is_refused) {
    notes warnings;
    auto options = quick_server();
    options.replies.max_payload_bytes = 100;
    options.log = warnings.of(ferry::log_level::warning);
    server_and_node pair(echo, options);
    const auto how = pair.node->send(ferry::message{{"data", some_bytes(200)}}).front().wait();
    EXPECT_EQ(how.kind, outcome_kind::too_large);
    EXPECT_THAT(how.text, HasSubstr("beyond the server's replies.max_payload_bytes, 100"));
    EXPECT_EQ(warnings.holding("a reply is refused: node node: a reply of "), 1);
    EXPECT_TRUE(pair.server.request({{"n", 1}}, "node").get()) << "the task's receipt came all the same";
}

struct retry_that_throws {
    using policy_category = ferry::retry_tag;
    std::optional<std::chrono::milliseconds> next(const ferry::failed_attempt&) const {
        throw std::runtime_error("no idea");
    }
};

TEST(client_promises, a_retry_policy_that_throws_gives_up) {
    ferry::basic_grpc_server<retry_that_throws> server(quick_server());
    server.start();
    ferry::basic_grpc_client<retry_that_throws> node(quick_client("node", server.port()), [](const ferry::task& task) {
        task.refuse(ferry::refusal::for_now, "not today");
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto how = server.send({{"n", 1}}, "node").wait();
    EXPECT_EQ(how.kind, outcome_kind::retries_exhausted);
    EXPECT_EQ(how.text, "not today (and the retry policy threw: no idea)");
}

struct throws_numbers : ferry::msgpack_serializer<> {
    ferry::payload encode(ferry::message) const { throw 7; }
};

TEST(client_promises, an_encoder_may_throw_anything) {
    ferry::basic_grpc_server<throws_numbers> server(quick_server());
    server.start();
    const auto how = server.send({{"n", 1}}, "node").wait();
    EXPECT_EQ(how.kind, outcome_kind::encode_failed);
    EXPECT_EQ(how.text, "encoding it threw what is no std::exception");
}

TEST(client_promises, a_handle_that_was_moved_is_still_one) {
    server_and_node pair;
    auto asked = pair.server.request({{"n", 1}}, "node");
    const auto moved = std::move(asked);
    EXPECT_TRUE(moved.get());
    EXPECT_TRUE(asked.get());  // NOLINT(bugprone-use-after-move)
}

TEST(client_promises, a_stop_ends_the_wait_for_a_connection_concurrent) {
    const reserved_port nobodys;
    ferry::grpc_client node(quick_client("node", nobodys.number()), echo);
    EXPECT_EQ(thrown_by([&] { node.wait_connected(0ms); }), errc::not_started);
    node.start();
    auto waits = std::async(std::launch::async, [&] { return node.wait_connected(std::chrono::milliseconds::max()); });
    node.stop();
    ASSERT_TRUE(comes(waits));
    EXPECT_FALSE(waits.get());
    EXPECT_FALSE(node.wait_connected(std::chrono::milliseconds::max()));
}

TEST(client_promises, options_with_which_nothing_could_come_or_go_are_refused_by_name) {
    using options = ferry::client_options;
    const auto refused = [](auto change) {
        auto dial = quick_client("node", 1);
        change(dial);
        ferry::grpc_client node(dial, echo);
        try {
            node.start();
        } catch (const ferry::error& e) {
            EXPECT_EQ(e.code(), errc::invalid_argument);
            return std::string(e.what());
        }
        return std::string("taken");
    };
    EXPECT_THAT(refused([](options& o) { o.node_id = std::string(1025, 'n'); }), HasSubstr("node_id has 1025 bytes"));
    EXPECT_THAT(refused([](options& o) { o.node_id = "caf\xe9"; }), HasSubstr("node_id is no UTF-8"));
    EXPECT_THAT(refused([](options& o) { o.researchers[0].port = 0; }), HasSubstr("port of localhost"));
    EXPECT_THAT(refused([](options& o) { o.researchers[0].also_at = {{"", 1}}; }), HasSubstr("is \"\""));
    for (const auto* host : {"localhost:1", "http://localhost", "a host", "1:2"}) {
        EXPECT_THAT(refused([&](options& o) { o.researchers[0].host = host; }), HasSubstr("without port or scheme"));
    }
    for (const auto* host : {"localhost", "127.0.0.1", "::1", "[::1]", "fe80::1%lo"}) {
        EXPECT_EQ(refused([&](options& o) { o.researchers[0].host = host; }), "taken") << host;
    }
    EXPECT_THAT(refused([](options& o) { o.limits.max_small_uploads = 0; }), HasSubstr("max_small_uploads is 0"));
    EXPECT_THAT(refused([](options& o) { o.limits.max_bulk_uploads = 0; }), HasSubstr("max_bulk_uploads is 0"));
    EXPECT_THAT(refused([](options& o) { o.limits.idle_limit = 0ms; }), HasSubstr("limits.idle_limit is 0 ms"));
    EXPECT_THAT(refused([](options& o) { o.poll_deadline = -1ms; }), HasSubstr("poll_deadline is -1 ms"));
    EXPECT_THAT(refused([](options& o) { o.keepalive.every = 0ms; }), HasSubstr("keepalive"));
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
