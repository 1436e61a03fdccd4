// Serializers at work: both ends with the same one, of messages and of structs, and ends that differ.
#include <ferry/serializer/json.hpp>

#include "loopback.hpp"
#include "plain_peer.hpp"

#include <ferry/fields.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

struct fl_round {
    std::string request_id;
    std::string node_id;
    std::string command;
    std::optional<double> loss;
    std::map<std::string, ferry::bytes> weights;
    std::shared_ptr<int> alive;  // not a field
};

}  // namespace

template <>
struct ferry::message_traits<fl_round> : ferry::message_ids<&fl_round::request_id, &fl_round::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("request_id", &fl_round::request_id), ferry::field("node_id", &fl_round::node_id),
                      ferry::field("command", &fl_round::command), ferry::field("loss", &fl_round::loss),
                      ferry::field("weights", &fl_round::weights));
};

namespace {

using namespace loopback;
using ferry::message;

class log_lines {
public:
    void operator()(ferry::log_level, const std::string& text) {
        const std::lock_guard lock(mutex_);
        all_.push_back(text);
    }
    std::ptrdiff_t count(const std::string& part) {
        const std::lock_guard lock(mutex_);
        return std::count_if(all_.begin(), all_.end(),
                             [&](const std::string& line) { return line.find(part) != std::string::npos; });
    }
    bool comes(const std::string& part) {
        const auto deadline = std::chrono::steady_clock::now() + patience;
        while (count(part) == 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
        return count(part) > 0;
    }

private:
    std::mutex mutex_;
    std::vector<std::string> all_;
};

TEST(serializer_pair, json_at_both_ends) {
    ferry::basic_grpc_server<ferry::json_serializer<>> server(server_options());
    server.start();
    ferry::basic_grpc_client<ferry::json_serializer<>> node(
        client_options("node-1", server.port()), [](const ferry::task& task) { task.reply(task.message()); });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const message sent = {{"weights", some_bytes(3'000'000)}, {"numbers", {1U, -2.5, nullptr}}, {"text", "ä"}};
    const auto reply = server.request(sent, "node-1").get();
    ASSERT_TRUE(reply) << reply.how.text;
    for (const auto& [key, value] : sent.items()) EXPECT_EQ(reply.message.at(key), value) << key;
}

template <class Serializer>
class struct_message : public testing::Test {};
using serializers = testing::Types<ferry::msgpack_serializer<fl_round>, ferry::json_serializer<fl_round>>;
struct names {
    template <class Serializer>
    static std::string GetName(int) {
        return std::string(Serializer::name);
    }
};
TYPED_TEST_SUITE(struct_message, serializers, names);

TYPED_TEST(struct_message, there_and_back) {
    ferry::basic_grpc_server<TypeParam> server(server_options());
    server.start();
    ferry::basic_grpc_client<TypeParam> node(client_options("node-1", server.port()),
                                             [](const ferry::basic_task<fl_round>& task) {
                                                 fl_round answer;
                                                 answer.command = task.message().command + "ed";
                                                 answer.loss = 0.25;
                                                 answer.weights = task.message().weights;
                                                 task.reply(std::move(answer));
                                             });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    fl_round ask;
    ask.command = "train";
    ask.weights = {{"w", some_bytes(5'000'000)}, {"b", {}}};
    const auto weights = ask.weights;
    const auto reply = server.request(std::move(ask), "node-1").get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.command, "trained");
    EXPECT_EQ(reply.message.loss, 0.25);
    EXPECT_EQ(reply.message.weights, weights);
    EXPECT_EQ(reply.message.node_id, "node-1");
    EXPECT_FALSE(reply.message.request_id.empty());
}

TYPED_TEST(struct_message, lives_until_its_delivery_has_ended_and_no_longer) {
    ferry::basic_grpc_server<TypeParam> server(server_options());
    server.start();
    fl_round ask;
    ask.weights["w"] = some_bytes(100'000);
    ask.command = std::string(10'000, 'x');
    ask.alive = std::make_shared<int>();
    const std::weak_ptr<int> alive = ask.alive;
    {
        ferry::basic_grpc_client<TypeParam> node(
            client_options("node-1", server.port()),
            [](const ferry::basic_task<fl_round>& task) { task.reply(task.message()); });
        node.start();
        ASSERT_TRUE(server.wait_for_nodes(1, patience));
        const auto reply = server.request(std::move(ask), "node-1").get();
        ASSERT_TRUE(reply) << reply.how.text;
        EXPECT_EQ(reply.message.command, std::string(10'000, 'x'));
    }
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!alive.expired() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_TRUE(alive.expired());
}

TYPED_TEST(struct_message, of_another_shape_costs_that_task_and_says_which_field) {
    log_lines node_log;
    ferry::basic_grpc_server<std::conditional_t<std::is_same_v<TypeParam, ferry::msgpack_serializer<fl_round>>,
                                                ferry::msgpack_serializer<>, ferry::json_serializer<>>>
        server(server_options());
    server.start();
    auto dial = client_options("node-1", server.port());
    dial.log = std::ref(node_log);
    ferry::basic_grpc_client<TypeParam> node(dial, [](const ferry::basic_task<fl_round>& task) {
        fl_round answer;
        answer.command = task.message().command;
        task.reply(std::move(answer));
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    server.send(message{{"command", 5}}, "node-1");
    EXPECT_TRUE(node_log.comes("command must be a text, is an integer"));
    const auto reply =
        server
            .request({{"request_id", "r"}, {"node_id", ""}, {"command", "x"}, {"weights", message::object()}}, "node-1")
            .get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("command"), "x");
}

/// The user's own, which throws what it may not.
struct throwing_serializer : ferry::msgpack_serializer<> {
    message decode(ferry::bytes content) const {
        auto out = msgpack_serializer::decode(std::move(content));
        if (out.contains("throw")) throw 7;
        return out;
    }
};

TEST(serializer_pair, that_throws_no_exception_costs_that_reply) {
    ferry::basic_grpc_server<throwing_serializer> server(server_options());
    server.start();
    ferry::grpc_client node(client_options("node-1", server.port()), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto refused = node.send(message{{"throw", 1}}).front().wait();
    EXPECT_NE(refused.text.find("threw what is no std::exception"), std::string::npos) << refused.text;
    const auto large = node.send(message{{"throw", 1}, {"data", some_bytes(1'000'000)}}).front().wait();
    EXPECT_FALSE(large) << "by a call of its own";
    EXPECT_TRUE(server.request({{"x", 1}}, "node-1").get());
}

// --- ends that differ ---------------------------------------------------------------------------------------------------------

struct other_serializer : testing::Test {
    log_lines log, node_log;

    template <class Node>
    void is_told(Node& node, const std::string& theirs, const std::string& ours) {
        const auto text = " is " + theirs + ", that of its server is " + ours + ": give both the same";
        node.start();
        EXPECT_TRUE(node_log.comes("the serializer of node node-1" + text));
        EXPECT_TRUE(log.comes("the serializer of node node-1" + text));
        const auto how = node.send(message{{"request_id", "r"}, {"x", 1}}).front().wait();
        EXPECT_EQ(how.reason, ferry::errc::protocol_error) << how.text;
        EXPECT_NE(how.text.find(text), std::string::npos) << how.text;
    }

    ferry::server_options options() {
        auto out = server_options();
        out.log = std::ref(log);
        return out;
    }
    ferry::client_options dial(std::uint16_t port) {
        auto out = client_options("node-1", port);
        out.log = std::ref(node_log);
        out.limits.refused_pause = 10ms;
        return out;
    }
};

TEST_F(other_serializer, is_told_at_both_ends_and_costs_nothing_but_the_calls) {
    ferry::grpc_server server(options());
    server.start();
    {
        ferry::basic_grpc_client<ferry::json_serializer<>> node(dial(server.port()), [](const ferry::task&) {});
        is_told(node, "json", "msgpack");
    }
    EXPECT_TRUE(server.get_all_nodes().empty());
    EXPECT_EQ(log.count("a reply is refused"), 0);
    EXPECT_EQ(log.count("json: "), 0);
    ferry::grpc_client good(dial(server.port()), echo);
    good.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node-1").get());
}

TEST_F(other_serializer, is_told_the_other_way_round) {
    ferry::basic_grpc_server<ferry::json_serializer<>> server(options());
    server.start();
    ferry::grpc_client node(dial(server.port()), [](const ferry::task&) {});
    is_told(node, "msgpack", "json");
}

TEST_F(other_serializer, is_told_once_however_often_the_node_asks) {
    ferry::grpc_server server(options());
    server.start();
    ferry::basic_grpc_client<ferry::json_serializer<>> node(dial(server.port()), [](const ferry::task&) {});
    node.start();
    ASSERT_TRUE(node_log.comes("the serializer of node node-1"));
    for (int i = 0; i < 5; ++i) EXPECT_FALSE(node.send(message{{"x", i}}).front().wait());
    EXPECT_EQ(node_log.count("the server refuses this node for now"), 1);
    EXPECT_EQ(log.count("the serializer of node node-1"), 1);
}

TEST_F(other_serializer, by_any_name_a_user_gives_it) {
    EXPECT_EQ(ferry::detail::format_word("my format\n\xff-2"),
              "my?format?"
              "?-2");
}

TEST_F(other_serializer, of_a_peer_that_knows_of_no_such_thing_is_not_asked_for) {
    plain_peer peer(options());
    const auto poll = peer.open_poll("node-1");
    auto sent = peer.server.send({{"x", 1}}, "node-1");
    std::string task;
    EXPECT_TRUE(poll->read_all(&task));
    EXPECT_EQ(ferry::msgpack_serializer<>().decode(ferry::bytes::copy(task)), (message{{"x", 1}}));
    peer.server.stop(0ms);
}

}  // namespace
