// What the server promises, each item by one short test of its name: the names, constants and errors. The numbered promises
// are in promises_{outcomes,delivery,running}_test.cpp; what each item does in depth is tested beside its header.
#include "promises.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <variant>
#include <vector>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using grpc::StatusCode;
using testing::HasSubstr;

// --- names -----------------------------------------------------------------------------------------------------------------

TEST(promised_names, start) {
    ferry::grpc_server server(quick_server());
    EXPECT_EQ(server.port(), 0);
    server.start();
    EXPECT_TRUE(server.is_alive());
    EXPECT_NE(server.port(), 0);
    ferry::grpc_client node(quick_client("node", server.port()), echo);
    node.start();
    EXPECT_TRUE(server.wait_for_nodes(1, patience));
}

TEST(promised_names, stop) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    peer.server.stop();
    EXPECT_FALSE(peer.server.is_alive());
    EXPECT_EQ(poll->finish().error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(peer.poll("plain").error_code(), StatusCode::UNAVAILABLE);
}

TEST(promised_names, send_message_node_id) {
    std::promise<ferry::message> came;
    server_and_node pair([&](const ferry::task& task) { came.set_value(task.message()); });
    const auto sent = pair.server.send({{"x", 1}}, "node");
    EXPECT_EQ(sent.wait().kind, outcome_kind::taken);
    EXPECT_EQ(sent.node(), "node");
    EXPECT_EQ(came.get_future().get(), (ferry::message{{"x", 1}}));
}

TEST(promised_names, broadcast_message) {
    plain_peer peer(quick_server());
    auto a = peer.open_poll("a");
    auto b = peer.open_poll("b");
    poll_once(peer, "c");
    const auto sent = peer.server.broadcast({{"to", "all"}});
    EXPECT_EQ(sent.size(), 3U);
    for (auto* poll : {&a, &b}) {
        std::string task;
        EXPECT_TRUE((*poll)->read_all(&task));
        EXPECT_EQ(task, peer.encoded({{"to", "all"}}));
    }
    EXPECT_EQ(peer.server.get_node("c")->queued_tasks, 1U) << "it is WAITING, and gets it with its next poll";
}

TEST(promised_names, get_node_id_status_since_queue) {
    const auto before = std::chrono::system_clock::now();
    plain_peer peer(quick_server());
    EXPECT_FALSE(peer.server.get_node("plain"));
    auto poll = peer.open_poll("plain");
    const auto first = peer.server.get_node("plain");
    ASSERT_TRUE(first);
    EXPECT_EQ(first->id, "plain");
    EXPECT_EQ(first->status, node_status::active);
    EXPECT_GE(first->since, before);
    EXPECT_EQ(first->queued_tasks, 0U);
    poll->cancel();
    ASSERT_TRUE(soon([&] { return peer.server.get_node("plain")->status == node_status::waiting; }));
    const auto one = peer.server.send({{"x", 1}}, "plain");
    const auto two = peer.server.request({{"x", 2}}, "plain");
    const auto second = peer.server.get_node("plain");
    EXPECT_GT(second->since, first->since);
    EXPECT_EQ(second->queued_tasks, 2U);
    EXPECT_EQ(second->queued_bytes, one.total_bytes() + two.total_bytes());
    EXPECT_EQ(second->open_requests, 1U);
    EXPECT_EQ(first->status, node_status::active) << "a snapshot doesn't change";
}

TEST(promised_names, get_all_nodes) {
    plain_peer peer(quick_server());
    EXPECT_TRUE(peer.server.get_all_nodes().empty());
    poll_once(peer, "a");
    auto b = peer.open_poll("b");
    std::vector<std::string> seen;
    for (const auto& each : peer.server.get_all_nodes()) {
        seen.push_back(each.id + " " + std::string(to_string(each.status)));
    }
    EXPECT_THAT(seen, testing::UnorderedElementsAre("a WAITING", "b ACTIVE"));
}

TEST(promised_names, is_alive) {
    ferry::grpc_server server(quick_server());
    EXPECT_EQ(thrown_by([&] { server.is_alive(); }), errc::not_started);
    server.start();
    EXPECT_TRUE(server.is_alive());
    server.stop();
    EXPECT_FALSE(server.is_alive());
}

TEST(promised_names, GetTaskUnary) {
    plain_peer peer(quick_server());
    grpc::ClientContext context;
    researcher::TaskRequest request;
    request.set_node("plain");
    request.set_protocol_version("7");
    const auto poll = peer.stub->GetTaskUnary(&context, request);
    poll->WaitForInitialMetadata();
    const ferry::message task{{"data", some_bytes(4'000'000)}};
    const auto sent = peer.server.send(task, "plain");
    std::string content;
    researcher::TaskResponse chunk;
    ASSERT_TRUE(poll->Read(&chunk));
    EXPECT_EQ(chunk.size(), 2);
    EXPECT_EQ(chunk.iteration(), 1);
    EXPECT_EQ(chunk.bytes_().size(), 3'999'967U);
    content += chunk.bytes_();
    ASSERT_TRUE(poll->Read(&chunk));
    EXPECT_EQ(chunk.size(), 2);
    EXPECT_EQ(chunk.iteration(), 2);
    content += chunk.bytes_();
    EXPECT_FALSE(poll->Read(&chunk));
    EXPECT_TRUE(poll->Finish().ok()) << "one task a call, then OK";
    EXPECT_EQ(content, peer.encoded(task));
    auto next = peer.open_poll("plain");
    EXPECT_EQ(sent.wait().kind, outcome_kind::taken);
}

TEST(promised_names, ReplyTask) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    const auto asked = peer.server.request({{"request_id", "r"}}, "plain");
    ASSERT_TRUE(poll->read_all());
    const auto answer = peer.encoded({{"request_id", "r"}, {"node_id", "plain"}, {"y", 2}});
    EXPECT_TRUE(peer.reply({{2, 1, answer.substr(0, 7)}, {2, 2, answer.substr(7)}}).ok());
    EXPECT_EQ(asked.get().message.at("y"), 2);
}

TEST(promised_names, Feedback) {
    std::promise<ferry::feedback> came;
    auto options = quick_server();
    options.on_message = [&](const ferry::feedback& from) { came.set_value(from); };
    plain_peer peer(options);
    EXPECT_TRUE(tell(peer, a_line("plain", "hello")).ok());
    const auto line = std::get<ferry::log_line>(came.get_future().get());
    EXPECT_EQ(line.node_id, "plain");
    EXPECT_THAT(line.message, HasSubstr("hello"));
}

TEST(promised_names, GetTask_is_for_nodes_that_know_what_to_say) {
    plain_peer peer(quick_server());
    grpc::ClientContext context;
    const auto stream = peer.stub->GetTask(&context);
    researcher::TaskRequest request;
    request.set_node("node");
    EXPECT_TRUE(stream->Write(request));
    EXPECT_EQ(stream->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST(promised_names, mount) {
    ferry::grpc_server server(quick_server());
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("localhost:0", grpc::InsecureServerCredentials(), &port);
    server.mount(builder);
    const auto users_own = builder.BuildAndStart();
    server.start();
    ferry::grpc_client node(quick_client("node", static_cast<std::uint16_t>(port)), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node").get());
    node.stop(0ms);
    server.stop();
    users_own->Shutdown();
}

TEST(promised_names, option_host) {
    EXPECT_EQ(ferry::server_options{}.host, "localhost");
    auto options = quick_server();
    options.host = "127.0.0.1";
    ferry::grpc_server here(options);
    here.start();
    auto dial = quick_client("node", here.port());
    dial.researchers[0].host = "127.0.0.1";
    ferry::grpc_client node(dial, echo);
    node.start();
    EXPECT_TRUE(here.wait_for_nodes(1, patience));
    options.host = "192.0.2.1";
    ferry::grpc_server elsewhere(options);
    EXPECT_EQ(thrown_by([&] { elsewhere.start(); }), errc::bind_failed) << "the address is not of this machine";
}

TEST(promised_names, option_port) {
    EXPECT_EQ(ferry::server_options{}.port, 50051);
    auto options = quick_server();
    const reserved_port free;
    options.port = free.number();
    ferry::grpc_server server(options);
    server.start();
    EXPECT_EQ(server.port(), options.port);
}

TEST(promised_names, option_on_message) {
    notes came;
    auto options = quick_server();
    options.on_message = [&](const ferry::feedback& from) { came.add(ferry::node_of(from)); };
    server_and_node pair(echo, options);
    pair.node->log("INFO", "hello");
    EXPECT_TRUE(soon([&] { return came.size() == 1; }));
    EXPECT_THAT(came.all(), testing::ElementsAre("node"));
}

TEST(promised_names, option_ssl) {
    temporary_folder folder;
    certificate cert(folder);
    auto options = quick_server();
    options.ssl = ferry::ssl_credentials{cert.key_file, cert.cert_file};
    ferry::grpc_server server(options);
    server.start();
    auto dial = quick_client("node", server.port());
    dial.researchers[0].trust = ferry::pinned_certificate{cert.cert_file};
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node").get());
    researcher::Empty nothing;
    grpc::ClientContext context;
    EXPECT_EQ(stub_of(server.port())->Feedback(&context, {}, &nothing).error_code(), StatusCode::UNAVAILABLE)
        << "plain text is not understood";
}

TEST(promised_names, option_debug) {
    notes lines, quiet;
    auto options = quick_server();
    options.debug = true;
    options.log = lines.of(ferry::log_level::debug);
    {
        server_and_node pair(echo, options);
        EXPECT_TRUE(pair.server.request({{"request_id", "r"}}, "node").get());
    }
    EXPECT_EQ(lines.holding("out node=node class=- request_id=r "), 1);
    EXPECT_EQ(lines.holding("in node=node class=- request_id=r "), 1);
    options.debug = false;
    options.log = quiet.of(ferry::log_level::debug);
    {
        server_and_node pair(echo, options);
        EXPECT_TRUE(pair.server.request({{"request_id", "r"}}, "node").get());
    }
    EXPECT_EQ(quiet.size(), 0U);
}

std::string content_of(const std::string& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

TEST(promised_names, ssl_credentials_key_cert_give_private_key_and_certificate_as_PEM_text) {
    temporary_folder folder;
    const certificate cert(folder);
    const ferry::ssl_credentials credentials{cert.key_file, cert.cert_file};
    EXPECT_EQ(credentials.private_key(), content_of(cert.key_file));
    EXPECT_EQ(credentials.certificate(), content_of(cert.cert_file));
    EXPECT_THAT(credentials.private_key(), HasSubstr("PRIVATE KEY-----"));
    EXPECT_THAT(credentials.certificate(), HasSubstr("-----BEGIN CERTIFICATE-----"));
}

TEST(promised_names, ssl_credentials_of_a_file_that_is_missing_or_cant_be_read_are_bad_credentials) {
    temporary_folder folder;
    const certificate cert(folder);
    const auto missing = folder.file("missing.pem");
    const auto a_folder = folder.file("");
    for (const auto& bad : {missing, a_folder}) {
        EXPECT_EQ(thrown_by([&] { ferry::ssl_credentials(bad, cert.cert_file); }), errc::bad_credentials) << bad;
        EXPECT_EQ(thrown_by([&] { ferry::ssl_credentials(cert.key_file, bad); }), errc::bad_credentials) << bad;
    }
    EXPECT_EQ(thrown_by([&] { ferry::ssl_credentials(cert.cert_file, cert.key_file); }), errc::bad_credentials);
}

// --- constants -------------------------------------------------------------------------------------------------------------

using promised_constants = without_setup_timeout;

TEST_F(promised_constants, GRPC_CLIENT_CONN_RETRY_TIMEOUT_is_2_s) {
    EXPECT_EQ(ferry::GRPC_CLIENT_CONN_RETRY_TIMEOUT, 2s);
}

TEST_F(promised_constants, server_setup_timeout_is_1_s_or_what_the_environment_says) {
    EXPECT_EQ(ferry::server_setup_timeout(), 1s);
    set("7");
    EXPECT_EQ(ferry::server_setup_timeout(), 7s);
}

TEST_F(promised_constants, GRPC_SERVER_SETUP_TIMEOUT_is_that_and_server_setup_timeout) {
    EXPECT_EQ(ferry::GRPC_SERVER_SETUP_TIMEOUT(), 3s);
    set("7");
    EXPECT_EQ(ferry::GRPC_SERVER_SETUP_TIMEOUT(), 9s);
}

TEST_F(promised_constants, MAX_GRPC_SERVER_SETUP_TIMEOUT_is_20_times_server_setup_timeout) {
    EXPECT_EQ(ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT(), 20s);
    set("7");
    EXPECT_EQ(ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT(), 140s);
}

TEST_F(promised_constants, MAX_SEND_DURATION_is_300_s_as_bounded_retry_has_it) {
    EXPECT_EQ(ferry::MAX_SEND_DURATION, 300s);
    EXPECT_EQ(ferry::bounded_retry{}.max_age, ferry::MAX_SEND_DURATION);
    EXPECT_TRUE(ferry::bounded_retry{}.next({1, 299s, errc::stream_broken}));
    EXPECT_FALSE(ferry::bounded_retry{}.next({1, 300s, errc::stream_broken}));
}

TEST_F(promised_constants, MAX_SEND_RETRIES_is_5_as_bounded_retry_has_it) {
    EXPECT_EQ(ferry::MAX_SEND_RETRIES, 5);
    EXPECT_EQ(ferry::bounded_retry{}.max_resends, ferry::MAX_SEND_RETRIES);
    EXPECT_TRUE(ferry::bounded_retry{}.next({5, 0s, errc::stream_broken}));
    EXPECT_FALSE(ferry::bounded_retry{}.next({6, 0s, errc::stream_broken}));
}

TEST_F(promised_constants, MAX_MESSAGE_BYTES_LENGTH_is_3999967_by_default) {
    static_assert(ferry::max_message_bytes_length<>::value == 4'000'000 - 33);
    using pack = ferry::detail::server_pack<>;
    static_assert(pack::chunk_size_type::value == 3'999'967);
    static_assert(ferry::detail::client_pack<>::chunk_size_type::value == 3'999'967);
}

TEST_F(promised_constants, the_disconnection_timeout_is_10_s) {
    EXPECT_EQ(ferry::server_options{}.limits.disconnect_after, 10s);
}

TEST_F(promised_constants, GRPC_SERVER_SETUP_TIMEOUT_other_than_whole_seconds_is_an_error_at_start) {
    for (const auto* text : {"", "1.5", "-1", "soon"}) {
        set(text);
        for (const bool waits : {true, false}) {
            auto options = quick_server();
            options.wait_for_first_node = waits;
            ferry::grpc_server server(options);
            EXPECT_EQ(thrown_by([&] { server.start(); }), errc::invalid_argument) << "\"" << text << "\"";
            EXPECT_EQ(server.port(), 0) << "nothing is listened on";
        }
    }
}

// --- errors ----------------------------------------------------------------------------------------------------------------

/// What each call that needs a started server throws.
void expect_each_is_not_started(ferry::grpc_server& server) {
    const std::vector<std::string> ids{"a", "b"};
    EXPECT_EQ(thrown_by([&] { server.send({}, "node"); }), errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.broadcast({}); }), errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.request({}, "node"); }), errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.request({}, ids); }), errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.wait_for_nodes(1, 0ms); }), errc::not_started);
    EXPECT_EQ(thrown_by([&] { server.wait_for_nodes(ids, 0ms); }), errc::not_started);
}

TEST(promised_errors, FB628_not_started) {
    ferry::grpc_server server(quick_server());
    expect_each_is_not_started(server);
    EXPECT_EQ(thrown_by([&] { server.is_alive(); }), errc::not_started);
    server.start();
    server.stop();
    expect_each_is_not_started(server);
}

TEST(promised_errors, what_only_looks_may_be_called_before_start) {
    const ferry::grpc_server server(quick_server());
    EXPECT_FALSE(server.get_node("node"));
    EXPECT_TRUE(server.get_all_nodes().empty());
    EXPECT_TRUE(server.pending().empty());
    EXPECT_EQ(server.counts().dropped_feedback, 0U);
}

TEST(promised_errors, FB628_wrong_argument_of_send) {
    plain_peer peer(quick_server());
    EXPECT_EQ(thrown_by([&] { peer.server.send({}, ""); }), errc::invalid_argument);
}

TEST(promised_errors, FB628_wrong_argument_of_request) {
    plain_peer peer(quick_server());
    poll_once(peer, "a");
    EXPECT_EQ(thrown_by([&] { peer.server.request({}, ""); }), errc::invalid_argument);
    EXPECT_EQ(thrown_by([&] { peer.server.request({}, std::vector<std::string>{"a", ""}); }), errc::invalid_argument);
    EXPECT_EQ(thrown_by([&] { peer.server.request(ferry::message::array({1}), "a"); }), errc::invalid_argument)
        << "an array can't carry the request_id that its reply is found by";
    EXPECT_TRUE(peer.server.pending().empty()) << "nothing was sent";
}

TEST(promised_errors, FB628_wrong_argument_of_start_and_mount) {
    plain_peer peer(quick_server());
    grpc::ServerBuilder builder;
    EXPECT_EQ(thrown_by([&] { peer.server.start(); }), errc::invalid_argument) << "a server starts once";
    EXPECT_EQ(thrown_by([&] { peer.server.mount(builder); }), errc::invalid_argument);
    peer.server.stop();
    EXPECT_EQ(thrown_by([&] { peer.server.start(); }), errc::invalid_argument);
    EXPECT_EQ(thrown_by([&] { peer.server.mount(builder); }), errc::invalid_argument);
}

TEST(promised_errors, FB628_wrong_argument_of_a_node) {
    ferry::grpc_client nameless(quick_client("", 1), echo);
    EXPECT_EQ(thrown_by([&] { nameless.start(); }), errc::invalid_argument);
    auto nowhere = quick_client("node", 1);
    nowhere.researchers.clear();
    ferry::grpc_client lost(nowhere, echo);
    EXPECT_EQ(thrown_by([&] { lost.start(); }), errc::invalid_argument);
}

TEST(promised_errors, a_port_that_cant_be_bound_is_an_error_at_once) {
    ferry::grpc_server first(quick_server());
    first.start();
    auto options = quick_server();
    options.port = first.port();
    options.wait_for_first_node = true;
    ferry::grpc_server second(options);
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(thrown_by([&] { second.start(); }), errc::bind_failed);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT());
}

TEST(promised_errors, no_security_chosen_is_an_error_at_start) {
    auto options = quick_server();
    options.ssl = {};
    ferry::grpc_server server(options);
    EXPECT_EQ(thrown_by([&] { server.start(); }), errc::invalid_argument);
    auto dial = quick_client("node", 1);
    dial.researchers[0].trust = {};
    ferry::grpc_client node(dial, echo);
    EXPECT_EQ(thrown_by([&] { node.start(); }), errc::invalid_argument);
}

TEST(promised_errors, fedbiomed_errnum_is_FB628_for_misuse_and_nothing_else) {
    EXPECT_EQ(ferry::fedbiomed::errnum(errc::not_started), "FB628");
    EXPECT_EQ(ferry::fedbiomed::errnum(errc::invalid_argument), "FB628");
    EXPECT_FALSE(ferry::fedbiomed::errnum(errc::bind_failed));
    EXPECT_FALSE(ferry::fedbiomed::errnum(errc::ok));
}

}  // namespace
