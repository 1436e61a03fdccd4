#include <ferry/grpc_server.hpp>

#include "plain_peer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <type_traits>

namespace {

using namespace loopback;
using testing::HasSubstr;

/// A server over TLS and one node, which echoes.
struct tls_pair {
    explicit tls_pair(std::function<void(ferry::task)> on_task = echo, ferry::server_options options = server_options())
        : server(with_tls(std::move(options))) {
        server.start();
        client = std::make_unique<ferry::grpc_client>(
            client_options("node", server.port(), ferry::pinned_certificate{cert.cert_file}), std::move(on_task));
        client->start();
    }

    bool connected() { return server.wait_for_nodes(1, patience); }

    ferry::server_options with_tls(ferry::server_options options) {
        options.ssl = ferry::ssl_credentials{cert.key_file, cert.cert_file};
        return options;
    }

    temporary_folder folder;
    certificate cert{folder};
    ferry::grpc_server server;
    std::unique_ptr<ferry::grpc_client> client;
};

template <class Options>
Options debugged(Options options, std::function<void(ferry::log_level, const std::string&)> log) {
    options.debug = true;
    options.log = std::move(log);
    return options;
}

TEST(grpc_server, must_be_started_before_it_is_used) {
    ferry::grpc_server server(server_options());
    EXPECT_EQ(thrown_by([&] { server.send({}, "node"); }), ferry::errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.broadcast({}); }), ferry::errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.request({}, "node"); }), ferry::errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.wait_for_nodes(1, 1ms); }), ferry::errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.is_alive(); }), ferry::errc::not_started);
    server.start();
    EXPECT_TRUE(server.is_alive());
    EXPECT_EQ(thrown_by([&] { server.start(); }), ferry::errc::invalid_argument);
    server.stop();
    EXPECT_FALSE(server.is_alive());
}

TEST(grpc_server, plain_text_must_be_asked_for_by_name) {
    ferry::grpc_server server(server_options(std::monostate{}));
    try {
        server.start();
        FAIL() << "started without a choice";
    } catch (const ferry::error& e) {
        EXPECT_EQ(e.code(), ferry::errc::invalid_argument);
        EXPECT_THAT(e.what(), HasSubstr("ferry::plain_text{}"));
    }
}

TEST(grpc_server, a_port_in_use_is_an_error_at_once) {
    ferry::grpc_server first(server_options());
    first.start();
    auto options = server_options();
    options.port = first.port();
    ferry::grpc_server second(options);
    EXPECT_EQ(thrown_by([&] { second.start(); }), ferry::errc::bind_failed);
}

TEST(grpc_server, a_key_that_does_not_fit_is_told_from_a_port_in_use) {
    temporary_folder folder;
    const certificate one{folder}, another{folder, "another"};
    ferry::grpc_server server(server_options(ferry::ssl_credentials(one.key_file, another.cert_file)));
    EXPECT_EQ(thrown_by([&] { server.start(); }), ferry::errc::bad_credentials);

    std::promise<void> told;
    std::atomic<bool> is_told{false};
    auto dial = client_options("node", 1);
    dial.researchers[0].trust = ferry::pinned_certificate{one.cert_file};
    dial.identity.certificate = ferry::ssl_credentials(one.key_file, another.cert_file);
    dial.log = [&](ferry::log_level, const std::string& text) {
        const bool is_it = text.find("certificate of options.identity, can't be used") != std::string::npos;
        if (is_it && !is_told.exchange(true)) told.set_value();
    };
    ferry::grpc_client node(dial, echo);
    node.start();
    EXPECT_EQ(told.get_future().wait_for(patience), std::future_status::ready);
}

TEST(grpc_server, options_with_which_nothing_could_come_are_refused_by_name) {
    const auto refused = [](auto change) {
        auto options = server_options();
        change(options);
        ferry::grpc_server server(options);
        try {
            server.start();
        } catch (const ferry::error& e) {
            EXPECT_EQ(e.code(), ferry::errc::invalid_argument);
            return std::string(e.what());
        }
        return std::string("taken");
    };
    using options = ferry::server_options;
    EXPECT_THAT(refused([](options& o) { o.limits.max_nodes = 0; }), HasSubstr("limits.max_nodes is 0"));
    EXPECT_THAT(refused([](options& o) { o.limits.idle_limit = 0ms; }), HasSubstr("limits.idle_limit is 0 ms"));
    EXPECT_THAT(refused([](options& o) { o.inbound.max_uploads = 0; }), HasSubstr("inbound.max_uploads is 0"));
    EXPECT_THAT(refused([](options& o) { o.inbound.idle_limit = -1ms; }), HasSubstr("inbound.idle_limit is -1 ms"));
    EXPECT_THAT(refused([](options& o) { o.host = "localhost:80"; }), HasSubstr("options.host is \"localhost:80\""));
}

TEST(grpc_server, carries_100_MB_both_ways_over_tls_concurrent) {
    tls_pair pair;
    ASSERT_TRUE(pair.connected());
    const auto data = some_bytes(100'000'000);
    const auto reply = pair.server.request({{"data", data}}, "node").get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").get<ferry::bytes>(), data);
    EXPECT_EQ(reply.how.attempts, 1);
}

TEST(grpc_server, a_node_gets_its_tasks_in_order_and_each_ends_as_taken) {
    std::mutex mutex;
    std::vector<int> seen;
    tls_pair pair([&](const ferry::task& task) {
        const std::lock_guard lock(mutex);
        seen.push_back(task.message().at("n").get<int>());
    });
    ASSERT_TRUE(pair.connected());
    std::vector<ferry::delivery> sent;
    for (int n = 0; n < 50; ++n) sent.push_back(pair.server.send({{"n", n}}, "node"));
    for (const auto& each : sent) EXPECT_EQ(each.wait().kind, ferry::outcome_kind::taken);
    pair.client->stop();
    std::vector<int> expected(50);
    for (int n = 0; n < 50; ++n) expected[static_cast<std::size_t>(n)] = n;
    EXPECT_EQ(seen, expected);
}

TEST(grpc_server, broadcast_reaches_64_nodes_over_tls_with_one_encoding_concurrent) {
    temporary_folder folder;
    certificate cert(folder);
    ferry::grpc_server server(server_options(ferry::ssl_credentials{cert.key_file, cert.cert_file}));
    server.start();
    std::vector<std::unique_ptr<ferry::grpc_client>> nodes;
    std::vector<std::string> ids;
    for (int i = 0; i < 64; ++i) {
        ids.push_back("node-" + std::to_string(i));
        nodes.push_back(std::make_unique<ferry::grpc_client>(
            client_options(ids.back(), server.port(), ferry::pinned_certificate{cert.cert_file}), echo));
        nodes.back()->start();
    }
    ASSERT_TRUE(server.wait_for_nodes(ids, patience));
    EXPECT_EQ(server.get_all_nodes().size(), 64U);
    const auto deliveries = server.broadcast({{"to", "all"}, {"data", some_bytes(100'000)}});
    EXPECT_EQ(deliveries.size(), 64U);
    for (const auto& each : deliveries) EXPECT_EQ(each.wait().kind, ferry::outcome_kind::taken) << each.wait().text;
    auto requests = server.request({{"data", some_bytes(10'000)}}, ids);
    std::set<std::string> answered;
    for (auto& each : requests) {
        const auto reply = each.get();
        ASSERT_TRUE(reply) << reply.how.text;
        EXPECT_EQ(reply.message.at("node_id"), reply.node);
        answered.insert(reply.node);
    }
    EXPECT_EQ(answered.size(), 64U);
}

TEST(grpc_server, a_reply_comes_as_value_callback_and_future) {
    tls_pair pair;
    ASSERT_TRUE(pair.connected());
    auto asked = pair.server.request({{"request_id", "mine"}, {"x", 1}}, "node");
    std::promise<ferry::reply> called;
    asked.on_reply([&](const ferry::reply& reply) { called.set_value(reply); });
    auto future = asked.future();
    for (const auto& reply : {asked.get(), called.get_future().get(), future.get()}) {
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply.message.at("request_id"), "mine");
        EXPECT_EQ(reply.message.at("x"), 1);
        EXPECT_EQ(reply.node, "node");
    }
}

TEST(grpc_server, sends_to_unknown_nodes_end_at_once) {
    ferry::grpc_server server(server_options());
    server.start();
    EXPECT_EQ(server.send({}, "nobody").wait().kind, ferry::outcome_kind::node_unknown);
    EXPECT_EQ(server.request({}, "nobody").get().how.kind, ferry::outcome_kind::node_unknown);
}

TEST(grpc_server, what_cant_be_encoded_ends_as_such_and_is_not_sent) {
    tls_pair pair;
    ASSERT_TRUE(pair.connected());
    ferry::message deep;
    for (int i = 0; i < 600; ++i) deep = ferry::message::array({deep});
    EXPECT_EQ(pair.server.send(deep, "node").wait().kind, ferry::outcome_kind::encode_failed);
}

TEST(grpc_server, debug_logs_each_message_in_and_out_by_one_line) {
    std::mutex mutex;
    std::vector<std::string> lines, node_lines;
    const auto keep_in = [&](std::vector<std::string>& all) {
        return [&](ferry::log_level, const std::string& text) {
            const std::lock_guard lock(mutex);
            all.push_back(text);
        };
    };
    ferry::grpc_server server(debugged(server_options(), keep_in(lines)));
    server.start();
    const auto dial = debugged(client_options("node", server.port()), keep_in(node_lines));
    ferry::grpc_client node(dial, [](const ferry::task& task) {
        task.log("INFO", "at work");
        task.reply({{"done", true}});
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const ferry::message asked{{"request_id", "r"}, {"__type_message__", {{"module", "m"}, {"class", "PingRequest"}}}};
    ASSERT_TRUE(server.request(asked, "node").get());
    node.stop();
    server.stop();

    using testing::Contains;
    using testing::MatchesRegex;
    const std::string there = "localhost:" + std::to_string(server.port());
    EXPECT_THAT(lines, Contains(std::string("node node is ACTIVE")));
    for (const auto* line : {"out node=node class=PingRequest request_id=r bytes=[0-9]+ attempt=1 age=[0-9]+ms",
                             "in node=node class=- request_id=r bytes=[0-9]+ attempt=1 age=[0-9]+ms",
                             "in node=node class=Log request_id=- bytes=[0-9]+ attempt=- age=-"}) {
        EXPECT_THAT(lines, Contains(MatchesRegex(line)).Times(1));
    }
    for (const auto* line : {" class=PingRequest request_id=r bytes=[0-9]+ attempt=1 age=[0-9]+ms"}) {
        EXPECT_THAT(node_lines, Contains(MatchesRegex("in node=" + there + line)).Times(1));
    }
    for (const auto* line : {" class=- request_id=r bytes=[0-9]+ attempt=1 age=[0-9]+ms",
                             " class=Log request_id=- bytes=[0-9]+ attempt=- age=-"}) {
        EXPECT_THAT(node_lines, Contains(MatchesRegex("out node=" + there + line)).Times(1));
    }
}

TEST(grpc_server, a_log_that_throws_holds_nothing_up) {
    std::atomic<int> lines{0}, node_lines{0};
    const auto count_and_throw = [](std::atomic<int>& all) {
        return [&all](ferry::log_level, const std::string& text) {
            ++all;
            throw std::runtime_error(text);
        };
    };
    ferry::grpc_server server(debugged(server_options(), count_and_throw(lines)));
    server.start();
    const auto dial = debugged(client_options("node", server.port()), count_and_throw(node_lines));
    ferry::grpc_client node(dial, [](const ferry::task& task) {
        echo(task);
        throw std::logic_error("a callback's own");
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_EQ(server.send({{"x", 1}}, "node").wait().kind, ferry::outcome_kind::taken);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(server.request({{"x", i}}, "node").get());
    node.stop();
    server.stop();
    EXPECT_GE(lines, 8);       // each message out and in
    EXPECT_GE(node_lines, 8);  // the same, and what the callback threw
}

TEST(grpc_server, a_message_that_is_not_sent_a_second_time_is_logged_with_its_attempt) {
    std::mutex mutex;
    std::vector<std::string> lines;
    plain_peer peer(debugged(server_options(), [&](ferry::log_level, const std::string& text) {
        const std::lock_guard lock(mutex);
        lines.push_back(text);
    }));
    auto cut = peer.open_poll("plain");
    auto sent = peer.server.send({{"request_id", "r"}, {"data", some_bytes(10'000'000)}}, "plain");
    ASSERT_TRUE(cut->read());
    cut->cancel();
    auto again = peer.open_poll("plain");
    ASSERT_TRUE(again->read_all());
    auto next = peer.open_poll("plain");
    EXPECT_EQ(sent.wait().attempts, 2);
    next->cancel();
    const std::lock_guard lock(mutex);
    EXPECT_THAT(lines, testing::Contains(testing::MatchesRegex("out .*request_id=r .*attempt=2 age=[0-9]+ms")));
}

TEST(grpc_server, a_message_goes_from_node_to_node_as_the_bytes_it_came_in) {
    plain_peer peer;
    auto a = peer.open_poll("a");
    auto b = peer.open_poll("b");
    ASSERT_TRUE(peer.server.wait_for_nodes({"a", "b"}, patience));
    const auto text = [](const std::string& of) { return static_cast<char>(0xa0 | of.size()) + of; };
    const std::string message =  // with keys in an order in which ferry would not write them
        "\x84" + text("node_id") + text("a") + text("dest_node_id") + text("b") + text("overlay") +
        std::string("\xc6\x00\x4c\x4b\x40", 5) + std::string(some_bytes(5'000'000).view()) + text("__type_message__") +
        "\x82" + text("module") + text("m") + text("class") + text("OverlayMessage");
    EXPECT_EQ(peer.reply({{1, 1, message}}).error_code(), grpc::StatusCode::OK);
    std::string got;
    ASSERT_TRUE(b->read_all(&got));
    EXPECT_TRUE(got == message);
    EXPECT_EQ(peer.server.counts().undelivered_forwards, 0U);
    a->cancel();
}

TEST(grpc_server, a_message_for_a_node_that_nobody_knows_is_a_log_line_and_a_count) {
    std::mutex mutex;
    std::vector<std::string> lines;
    auto options = server_options();
    options.log = [&](ferry::log_level level, const std::string& text) {
        const std::lock_guard lock(mutex);
        if (level == ferry::log_level::warning) lines.push_back(text);
    };
    plain_peer peer(options);
    auto a = peer.open_poll("a");
    ASSERT_TRUE(peer.server.wait_for_nodes({"a"}, patience));
    EXPECT_EQ(peer.reply({{1, 1,
                           peer.encoded({{"__type_message__", {{"module", "m"}, {"class", "OverlayMessage"}}},
                                         {"node_id", "a"},
                                         {"dest_node_id", "nobody"}})}})
                  .error_code(),
              grpc::StatusCode::OK);
    EXPECT_EQ(peer.server.counts().undelivered_forwards, 1U);
    const std::lock_guard lock(mutex);
    EXPECT_THAT(lines, testing::ElementsAre(HasSubstr("node nobody has never polled")));
}

TEST(grpc_server, lists_what_is_pending) {
    plain_peer peer;
    auto poll = peer.open_poll("plain");
    ASSERT_TRUE(peer.server.wait_for_nodes({"plain"}, patience));
    auto asked = peer.server.request({{"request_id", "r"}}, "plain");
    auto queued = peer.server.send({{"x", 1}}, "plain");
    const auto pending = peer.server.pending();
    ASSERT_EQ(pending.size(), 2U);
    EXPECT_EQ(pending[0].node, "plain");
    EXPECT_NE(pending[0].wants_reply, pending[1].wants_reply);
    asked.cancel();
    queued.cancel();
    asked.wait();
    queued.wait();
    EXPECT_TRUE(peer.server.pending().empty());
    poll->cancel();
}

TEST(grpc_server, an_empty_node_id_is_a_misuse) {
    ferry::grpc_server server(server_options());
    server.start();
    EXPECT_EQ(thrown_by([&] { server.send({}, ""); }), ferry::errc::invalid_argument);
    EXPECT_EQ(thrown_by([&] { server.request({}, ""); }), ferry::errc::invalid_argument);
}

TEST(grpc_server, keepalive_that_a_peer_would_not_bear_is_refused) {
    auto options = server_options();
    options.keepalive.every = 999ms;
    ferry::grpc_server server(options);
    EXPECT_EQ(thrown_by([&] { server.start(); }), ferry::errc::invalid_argument);
    auto dial = client_options("node", 1);
    dial.keepalive.answer_within = 0ms;
    ferry::grpc_client node(dial, echo);
    EXPECT_EQ(thrown_by([&] { node.start(); }), ferry::errc::invalid_argument);
}

TEST(grpc_server, is_mounted_in_a_server_of_the_users_own) {
    auto options = server_options(ferry::server_security{});  // the users' own server has the credentials
    ferry::grpc_server server(options);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("localhost:0", grpc::InsecureServerCredentials(), &port);
    server.mount(builder);
    EXPECT_EQ(thrown_by([&] { server.mount(builder); }), ferry::errc::invalid_argument);
    EXPECT_EQ(thrown_by([&] { server.send({}, "node"); }), ferry::errc::not_started);
    const auto users_own = builder.BuildAndStart();
    ASSERT_TRUE(users_own);
    server.start();
    EXPECT_TRUE(server.is_alive());
    EXPECT_EQ(server.port(), 0);
    ferry::grpc_client node(client_options("node", static_cast<std::uint16_t>(port)), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_TRUE(server.request({{"data", some_bytes(5'000'000)}}, "node").get());
    server.stop();
    EXPECT_FALSE(server.is_alive());
    node.stop(0ms);
    users_own->Shutdown();
}

/// Breaks its contract: it lets another library's exceptions out.
struct clumsy_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = ferry::message;
    static constexpr std::string_view name = "msgpack";  // which it is, else nodes would be refused

    ferry::payload encode(ferry::message m) const {
        if (m.contains("bad")) throw std::runtime_error("can't write it");
        return ferry::msgpack_serializer<>{}.encode(std::move(m));
    }
    ferry::message decode(const ferry::bytes& run) const {
        auto m = ferry::msgpack_serializer<>{}.decode(run);
        if (m.contains("worse")) throw std::runtime_error("can't read it");
        return m;
    }
};

TEST(grpc_server, a_serializer_that_throws_something_else_costs_one_message) {
    ferry::basic_grpc_server<clumsy_serializer> server(server_options());
    server.start();
    std::promise<ferry::task> handed_out;
    ferry::grpc_client node(client_options("node", server.port()),
                            [&](const ferry::task& task) { handed_out.set_value(task); });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto unsent = server.send({{"bad", 1}}, "node").wait();
    EXPECT_EQ(unsent.kind, ferry::outcome_kind::encode_failed);
    EXPECT_EQ(unsent.text, "can't write it");
    auto request = server.request({{"x", 1}}, "node");
    const auto task = handed_out.get_future().get();
    EXPECT_EQ(task.reply({{"worse", 1}}).wait().kind, ferry::outcome_kind::refused);
    EXPECT_EQ(task.reply({{"well", 1}}).wait().kind, ferry::outcome_kind::taken);
    EXPECT_EQ(request.get().message.at("well"), 1);
}

TEST(grpc_server, feedback_comes_to_on_message_with_its_type_and_in_order_concurrent) {
    std::mutex mutex;
    std::vector<std::string> lines;
    std::promise<ferry::scalars> metrics;
    auto options = server_options();
    options.on_message = [&](const ferry::feedback& from) {
        if (const auto* line = std::get_if<ferry::log_line>(&from)) {
            const std::lock_guard lock(mutex);
            lines.push_back(line->node_id + ":" + line->level + ":" + line->message);
        } else {
            metrics.set_value(std::get<ferry::scalars>(from));
        }
    };
    tls_pair pair(echo, options);
    for (int i = 0; i < 20; ++i) pair.client->log("INFO", std::to_string(i));
    ferry::scalars sent;
    sent.experiment_id = "e";
    sent.metric["loss"] = 0.5F;
    sent.epoch = 3;
    pair.client->send(sent);
    const auto got = metrics.get_future().get();
    EXPECT_EQ(got.node_id, "node");
    EXPECT_EQ(got.metric.at("loss"), 0.5F);
    EXPECT_EQ(got.epoch, 3);
    EXPECT_FALSE(got.num_samples_trained.has_value());
    const std::lock_guard lock(mutex);
    ASSERT_EQ(lines.size(), 20U);
    for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(lines[i], "node:INFO:" + std::to_string(i));
}

TEST(grpc_server, a_callback_may_wait_for_a_reply_though_it_holds_the_only_thread_concurrent) {
    std::promise<ferry::reply> answered;
    std::unique_ptr<tls_pair> pair;
    auto options = server_options();
    options.callback_threads = 1;
    options.on_message = [&](const ferry::feedback&) {
        answered.set_value(pair->server.request({{"x", 1}}, "node").get());
    };
    pair = std::make_unique<tls_pair>(echo, options);
    ASSERT_TRUE(pair->connected());
    pair->client->log("INFO", "ask me");
    auto answer = answered.get_future();
    ASSERT_EQ(answer.wait_for(patience), std::future_status::ready);
    EXPECT_TRUE(answer.get());
}

TEST(grpc_server, stop_returns_with_open_polls_and_ends_every_delivery_concurrent) {
    std::promise<void> release;
    auto held = release.get_future().share();
    tls_pair pair([held](const ferry::task&) { held.wait(); });
    ASSERT_TRUE(pair.connected());
    auto request = pair.server.request({{"x", 1}}, "node");
    ferry::send_options keep;
    keep.keep_while_disconnected = true;
    pair.server.stop(2s);
    EXPECT_EQ(request.get().how.kind, ferry::outcome_kind::stopped);
    EXPECT_EQ(thrown_by([&] { pair.server.send({}, "node"); }), ferry::errc::not_started);
    release.set_value();
}

TEST(grpc_server, may_be_stopped_from_inside_a_callback_concurrent) {
    tls_pair pair;
    ASSERT_TRUE(pair.connected());
    std::promise<void> stopped;
    auto request = pair.server.request({{"x", 1}}, "node");
    request.on_reply([&](const ferry::reply&) {
        pair.server.stop(1s);
        stopped.set_value();
    });
    EXPECT_EQ(stopped.get_future().wait_for(patience), std::future_status::ready);
    EXPECT_FALSE(pair.server.is_alive());
}

TEST(grpc_server, nodes_find_a_new_server_on_the_same_port_concurrent) {
    temporary_folder folder;
    certificate cert(folder);
    auto options = server_options(ferry::ssl_credentials{cert.key_file, cert.cert_file});
    auto first = std::make_unique<ferry::grpc_server>(options);
    first->start();
    options.port = first->port();
    ferry::grpc_client node(client_options("node", options.port, ferry::pinned_certificate{cert.cert_file}), echo);
    node.start();
    ASSERT_TRUE(first->wait_for_nodes(1, patience));
    ASSERT_TRUE(first->request({{"x", 1}}, "node").get());
    first.reset();
    const auto second = started([&] { return std::make_unique<ferry::grpc_server>(options); });
    ASSERT_TRUE(second->wait_for_nodes({"node"}, patience));
    EXPECT_TRUE(second->request({{"x", 2}}, "node").get());
}

TEST(grpc_server, cancel_withdraws_a_task_that_waits) {
    std::promise<void> release;
    auto held = release.get_future().share();
    auto options = server_options();
    tls_pair pair([held](const ferry::task&) { held.wait(); }, options);
    ASSERT_TRUE(pair.connected());
    auto request = pair.server.request({{"x", 1}}, "node");
    request.cancel();
    EXPECT_EQ(request.get().how.kind, ferry::outcome_kind::cancelled);
    release.set_value();
}

TEST(grpc_server, node_snapshots_tell_id_status_and_queue) {
    tls_pair pair;
    ASSERT_TRUE(pair.connected());
    ASSERT_TRUE(pair.server.request({{"x", 1}}, "node").get());
    const auto node = pair.server.get_node("node");
    ASSERT_TRUE(node);
    EXPECT_EQ(node->id, "node");
    EXPECT_NE(node->status, ferry::node_status::disconnected);
    EXPECT_EQ(node->queued_tasks, 0U);
    EXPECT_FALSE(pair.server.get_node("other"));
}

/// A source that hands out its ranges from another thread.
class late_source final : public ferry::payload_source {
public:
    explicit late_source(ferry::bytes all) : all_(std::move(all)) {}
    ~late_source() override {
        for (auto& each : threads_) each.join();
    }
    std::uint64_t size() const noexcept override { return all_.size(); }
    void read(std::uint64_t offset, std::uint64_t length,
              std::function<void(ferry::range_result)> done) const override {
        const std::lock_guard lock(mutex_);
        threads_.emplace_back([range = all_.slice(offset, length), done = std::move(done)] {
            done({ferry::errc::ok, ferry::payload(range), {}});
        });
    }

private:
    ferry::bytes all_;
    mutable std::mutex mutex_;
    mutable std::vector<std::thread> threads_;
};

/// Encodes as msgpack, and hides the result behind a source.
struct sourced_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = ferry::message;
    static constexpr std::string_view name = "msgpack";

    ferry::payload encode(ferry::message m) const {
        return ferry::payload(
            std::make_shared<late_source>(ferry::msgpack_serializer<>{}.encode(std::move(m)).flatten()));
    }
    ferry::message decode(const ferry::bytes& run) const { return ferry::msgpack_serializer<>{}.decode(run); }
};

TEST(grpc_server, sends_from_ranges_that_come_later_concurrent) {
    using chunks = ferry::max_message_bytes_length<10'000>;
    ferry::basic_grpc_server<sourced_serializer, chunks> server(server_options());
    server.start();
    ferry::basic_grpc_client<sourced_serializer, chunks> node(client_options("node", server.port()), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto data = some_bytes(95'000);
    const auto reply = server.request({{"data", data}}, "node").get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").get<ferry::bytes>(), data);
}

}  // namespace
