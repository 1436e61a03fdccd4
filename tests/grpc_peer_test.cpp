#include <ferry/detail/grpc_peer.hpp>

#include "plain_peer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

// Who may speak for a node, over the wire.

namespace {

using namespace loopback;
using testing::HasSubstr;

struct log_lines {
    void operator()(ferry::log_level, const std::string& text) {
        const std::lock_guard lock(mutex);
        all.push_back(text);
    }
    bool has(const std::string& part) {
        const std::lock_guard lock(mutex);
        return std::any_of(all.begin(), all.end(),
                           [&](const std::string& line) { return line.find(part) != std::string::npos; });
    }
    std::mutex mutex;
    std::vector<std::string> all;
};

struct guarded : testing::Test {
    ferry::server_options options() {
        auto out = server_options(ferry::ssl_credentials{cert.key_file, cert.cert_file});
        out.log = std::ref(log);
        return out;
    }
    ferry::client_options dial(const std::string& id, std::uint16_t port, ferry::client_identity identity = {}) {
        auto out = client_options(id, port, ferry::pinned_certificate{cert.cert_file});
        out.identity = std::move(identity);
        out.log = std::ref(node_log);
        out.limits.refused_pause = 50ms;
        return out;
    }
    void wait_for(log_lines& in, const std::string& part) {
        const auto deadline = std::chrono::steady_clock::now() + patience;
        while (!in.has(part) && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
        EXPECT_TRUE(in.has(part)) << part;
    }

    temporary_folder folder;
    certificate cert{folder};
    log_lines log, node_log;
};

using by_token = ferry::basic_grpc_server<ferry::token_identity>;
using by_certificate = ferry::basic_grpc_server<ferry::certificate_identity>;

TEST_F(guarded, a_node_with_its_token_polls_replies_and_logs) {
    std::promise<std::string> logged;
    auto given = options();
    given.on_message = [&](const ferry::feedback& from) { logged.set_value(ferry::node_of(from)); };
    by_token server(given, ferry::token_identity().allow("node-1", "secret"));
    server.start();
    ferry::grpc_client node(dial("node-1", server.port(), {{}, "secret"}), [](const ferry::task& task) {
        task.log("INFO", "x");
        echo(task);
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node-1").get());
    EXPECT_EQ(logged.get_future().get(), "node-1");
}

TEST_F(guarded, a_node_with_another_token_or_none_is_refused_and_told_so) {
    by_token server(options(), ferry::token_identity().allow("node-1", "secret").allow("node-2", "other"));
    server.start();
    for (const auto* token : {"other", ""}) {
        ferry::grpc_client node(dial("node-1", server.port(), {{}, token}), echo);
        node.start();
        wait_for(node_log, "this peer may not poll as node node-1");
        node.stop(0ms);
    }
    EXPECT_TRUE(server.get_all_nodes().empty());
    EXPECT_TRUE(log.has("spoke for node node-1, which it may not"));
}

struct throwing_identity {
    using policy_category = ferry::identity_tag;
    static constexpr bool needs_certificates = false;

    bool admits(const std::string& node, const ferry::peer_info&) const {
        if (node.starts_with("odd")) throw std::invalid_argument("no such node: " + node);
        return true;
    }
};

TEST_F(guarded, a_node_at_which_the_identity_throws_is_refused) {
    ferry::basic_grpc_server<throwing_identity> server(options(), throwing_identity());
    server.start();
    for (const bool streams : {true, false}) {
        const std::string id = streams ? "odd-by-stream" : "odd-by-poll";
        auto dialled = dial(id, server.port());
        dialled.limits.streams = streams;
        ferry::grpc_client odd(dialled, echo);
        odd.start();
        wait_for(node_log, "this peer may not poll as node " + id);
        odd.stop(0ms);
    }
    EXPECT_TRUE(log.has("the identity threw"));
    ferry::grpc_client node(dial("node", server.port()), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes({"node"}, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node").get());
}

/// The fault of the original: whoever names a node in its payload is taken for it.
TEST_F(guarded, a_reply_and_a_log_in_the_name_of_another_node_are_refused) {
    std::atomic<int> logs{0};
    auto given = options();
    given.on_message = [&](const ferry::feedback&) { ++logs; };
    by_token server(given, ferry::token_identity().allow("node-1", "one").allow("node-2", "two"));
    server.start();
    ferry::grpc_client victim(dial("node-1", server.port(), {{}, "one"}), [](const ferry::task&) {});
    ferry::grpc_client liar(dial("node-2", server.port(), {{}, "two"}), echo);
    victim.start();
    liar.start();
    ASSERT_TRUE(server.wait_for_nodes(2, patience));
    auto asked = server.request({{"request_id", "r"}}, "node-1");
    auto forged = liar.send(ferry::message{{"request_id", "r"}, {"node_id", "node-1"}, {"forged", true}});
    const auto how = forged.front().wait();
    EXPECT_EQ(how.kind, ferry::outcome_kind::not_permitted) << how.text;
    EXPECT_FALSE(asked.done());

    const auto channel =
        grpc::CreateChannel("localhost:" + std::to_string(server.port()),
                            ferry::detail::channel_credentials(ferry::pinned_certificate{cert.cert_file}, "localhost",
                                                               server.port(), {{}, "two"}));
    const auto stub = researcher::ResearcherService::NewStub(channel);
    researcher::FeedbackMessage feedback;
    feedback.mutable_log()->set_node_id("node-1");
    grpc::ClientContext context;
    researcher::Empty nothing;
    EXPECT_EQ(stub->Feedback(&context, feedback, &nothing).error_code(), grpc::StatusCode::PERMISSION_DENIED);
    server.stop();
    EXPECT_EQ(logs, 0);
}

TEST_F(guarded, a_node_whose_certificate_names_it_is_admitted_and_no_other) {
    certificate own(folder, "own");  // signed by itself, in the name of localhost
    auto given = options();
    given.client_roots = own.cert_file;
    by_certificate server(given);
    server.start();
    const ferry::client_identity identity{ferry::ssl_credentials{own.key_file, own.cert_file}, ""};
    ferry::grpc_client node(dial("localhost", server.port(), identity), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes({"localhost"}, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "localhost").get());
    ferry::grpc_client another(dial("node-2", server.port(), identity), echo);
    another.start();
    wait_for(node_log, "this peer may not poll as node node-2");
    EXPECT_EQ(server.get_all_nodes().size(), 1U);
}

TEST_F(guarded, a_node_without_a_certificate_does_not_come_in) {
    certificate own(folder, "own");
    auto given = options();
    given.client_roots = own.cert_file;
    ferry::grpc_server server(given);
    server.start();
    ferry::grpc_client bare(dial("node-1", server.port()), echo);
    certificate stranger(folder, "stranger");
    ferry::grpc_client strange(
        dial("node-2", server.port(), {ferry::ssl_credentials{stranger.key_file, stranger.cert_file}, ""}), echo);
    bare.start();
    strange.start();
    wait_for(node_log, "the poll failed");
    EXPECT_FALSE(server.wait_for_nodes(1, 300ms));
}

TEST_F(guarded, what_cant_be_checked_is_refused_at_the_start) {
    by_certificate unchecked(options());
    EXPECT_EQ(thrown_by([&] { unchecked.start(); }), ferry::errc::invalid_argument);
    auto plain = server_options();
    plain.client_roots = cert.cert_file;
    ferry::grpc_server open(plain);
    EXPECT_EQ(thrown_by([&] { open.start(); }), ferry::errc::invalid_argument);
    auto missing = options();
    missing.client_roots = folder.file("nowhere.pem");
    ferry::grpc_server rootless(missing);
    EXPECT_EQ(thrown_by([&] { rootless.start(); }), ferry::errc::bad_credentials);
    auto readable = client_options("node-1", 1);
    readable.identity.token = "secret";
    ferry::grpc_client careless(readable, echo);
    EXPECT_EQ(thrown_by([&] { careless.start(); }), ferry::errc::invalid_argument);
}

TEST(guarded_server, turns_a_strangers_upload_away_before_it_is_read) {
    by_token server(server_options(), ferry::token_identity().allow("node-1", "secret"));
    server.start();
    const auto stub = stub_of(server.port());
    open_upload upload(*stub);
    upload.write(1'000'000, 1, std::string(1000, 'x'));
    EXPECT_EQ(upload.wait_for_answer().error_code(), grpc::StatusCode::PERMISSION_DENIED);
    EXPECT_EQ(server.counts().inbound_bytes, 0U);
}

ferry::server_options server_options_with(log_lines& log) {
    auto out = server_options();
    out.log = std::ref(log);
    return out;
}

TEST(guarded_server, warns_of_tokens_without_tls) {
    log_lines log;
    by_token server(server_options_with(log), ferry::token_identity().allow("node-1", "secret"));
    server.start();
    EXPECT_TRUE(log.has("nodes are known by their tokens"));
}

TEST(guarded_server, logs_a_peers_words_in_one_line_of_bounded_length) {
    log_lines log;
    by_token server(server_options_with(log), ferry::token_identity().allow("node-1", "secret"));
    server.start();
    const auto stub = stub_of(server.port());
    for (const auto& id :
         {std::string("x\nferry: warning: node good is DISCONNECTED\x1b[2J"), std::string(1000, 'n')}) {
        plain_peer::open_call poll(*stub, id);
        const auto how = poll.finish();
        EXPECT_EQ(how.error_code(), grpc::StatusCode::PERMISSION_DENIED);
    }
    const ferry::detail::message_log to(std::ref(log), false);
    to.warn(std::string(1'000'000, 'x'));
    to.warn(
        "caf\xc3\xa9 \xc2\x9b"
        "2J \xc2\xa9 \xff");
    server.stop();
    ASSERT_TRUE(log.has("x?ferry: warning: node good is DISCONNECTED?[2J, which it may not"));
    ASSERT_TRUE(log.has("xxx... (1000000 bytes)"));
    ASSERT_TRUE(log.has("caf\xc3\xa9 ??2J \xc2\xa9 ?"));
    for (const auto& line : log.all) {
        EXPECT_EQ(line.find_first_of("\n\x1b"), std::string::npos);
        EXPECT_LT(line.size(), 2200U);
    }
}

}  // namespace
