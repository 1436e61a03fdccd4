// The first promise: nothing vanishes. Each way in which a delivery can end, and each way in which its handle tells so.
#include "promises.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using grpc::StatusCode;

TEST(promise_1_nothing_vanishes, taken) {
    server_and_node pair;
    const auto how = end_of(pair.server.send({{"x", 1}}, "node"));
    EXPECT_EQ(how.kind, outcome_kind::taken);
    EXPECT_EQ(how.attempts, 1);
}

TEST(promise_1_nothing_vanishes, replied) {
    server_and_node pair;
    EXPECT_EQ(end_of(pair.server.request({{"x", 1}}, "node")).kind, outcome_kind::replied);
}

TEST(promise_1_nothing_vanishes, expired_in_the_queue) {
    plain_peer peer(quick_server());
    poll_once(peer, "plain");
    ferry::send_options how;
    how.expires_after = 20ms;
    const auto end = end_of(peer.server.send({{"x", 1}}, "plain", how));
    EXPECT_EQ(end.kind, outcome_kind::expired);
    EXPECT_EQ(end.attempts, 0);
}

TEST(promise_1_nothing_vanishes, expired_without_a_reply) {
    server_and_node pair([](const ferry::task&) {});
    ferry::send_options how;
    how.reply_within = 50ms;
    EXPECT_EQ(end_of(pair.server.request({{"x", 1}}, "node", how)).kind, outcome_kind::expired);
}

TEST(promise_1_nothing_vanishes, retries_exhausted) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    const auto sent = peer.server.send({{"data", some_bytes(20'000'000)}}, "plain");
    for (int i = 0; i < 6; ++i) {
        EXPECT_FALSE(sent.done());
        ASSERT_TRUE(poll->read());
        poll = nullptr;
        if (i < 5) poll = peer.open_poll("plain");
    }
    const auto end = end_of(sent);
    EXPECT_EQ(end.kind, outcome_kind::retries_exhausted);
    EXPECT_EQ(end.reason, errc::stream_broken);
    EXPECT_EQ(end.attempts, 1 + ferry::MAX_SEND_RETRIES);
}

TEST(promise_1_nothing_vanishes, node_unknown) {
    plain_peer peer(quick_server());
    EXPECT_EQ(end_of(peer.server.send({{"x", 1}}, "nobody")).kind, outcome_kind::node_unknown);
    EXPECT_EQ(end_of(peer.server.request({{"x", 1}}, "nobody")).kind, outcome_kind::node_unknown);
}

TEST(promise_1_nothing_vanishes, node_disconnected) {
    auto options = quick_server();
    options.limits.disconnect_after = 10ms;
    plain_peer peer(options);
    peer.open_poll("plain")->cancel();
    ASSERT_TRUE(soon([&] { return peer.server.get_node("plain")->status == node_status::disconnected; }));
    EXPECT_EQ(end_of(peer.server.send({{"x", 1}}, "plain")).kind, outcome_kind::node_disconnected);
    EXPECT_TRUE(peer.server.broadcast({{"x", 1}}).empty()) << "it goes to nodes that can be reached";
    ferry::send_options keep;
    keep.keep_while_disconnected = true;
    const auto kept = peer.server.send({{"x", 1}}, "plain", keep);
    EXPECT_FALSE(kept.done());
    ferry::grpc_client back(quick_client("plain", peer.server.port()), echo);
    back.start();
    EXPECT_EQ(end_of(kept).kind, outcome_kind::taken);
}

TEST(promise_1_nothing_vanishes, queue_full) {
    auto options = quick_server();
    options.limits.max_queued_tasks = 1;
    plain_peer peer(options);
    poll_once(peer, "plain");
    const auto first = peer.server.send({{"x", 1}}, "plain");
    EXPECT_EQ(end_of(peer.server.request({{"x", 2}}, "plain")).kind, outcome_kind::queue_full);
    EXPECT_FALSE(first.done());
}

TEST(promise_1_nothing_vanishes, too_large) {
    auto options = quick_server();
    options.limits.max_payload_bytes = 100;
    plain_peer peer(options);
    poll_once(peer, "plain");
    EXPECT_EQ(end_of(peer.server.send({{"data", some_bytes(200)}}, "plain")).kind, outcome_kind::too_large);
}

/// Nested too deeply for the serializer.
ferry::message too_deep() {
    ferry::message deep;
    for (int i = 0; i < 600; ++i) deep = ferry::message::array({deep});
    return {{"deep", deep}};
}

TEST(promise_1_nothing_vanishes, encode_failed) {
    plain_peer peer(quick_server());
    poll_once(peer, "plain");
    EXPECT_EQ(end_of(peer.server.send(too_deep(), "plain")).kind, outcome_kind::encode_failed);
    EXPECT_EQ(end_of(peer.server.request(too_deep(), "plain")).kind, outcome_kind::encode_failed);
}

/// Keeps nothing new.
struct full_store : ferry::memory_agent_store {
    template <class Done>
    void append(const std::string&, ferry::epoch, const ferry::task_record&, Done&& done) {
        done(ferry::store_status{errc::store_failed, "the disk is full"});
    }
};

TEST(promise_1_nothing_vanishes, store_failed) {
    ferry::basic_grpc_server<full_store> server(quick_server());
    server.start();
    ferry::grpc_client node(quick_client("node", server.port()), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto end = end_of(server.request({{"x", 1}}, "node"));
    EXPECT_EQ(end.kind, outcome_kind::store_failed);
    EXPECT_EQ(end.text, "the disk is full");
}

TEST(promise_1_nothing_vanishes, cancelled) {
    plain_peer peer(quick_server());
    poll_once(peer, "plain");
    auto sent = peer.server.send({{"x", 1}}, "plain");
    sent.cancel();
    EXPECT_EQ(end_of(sent).kind, outcome_kind::cancelled);
}

TEST(promise_1_nothing_vanishes, stopped) {
    plain_peer peer(quick_server());
    poll_once(peer, "plain");
    const auto sent = peer.server.send({{"x", 1}}, "plain");
    const auto asked = peer.server.request({{"x", 2}}, "plain");
    peer.server.stop(0ms);
    EXPECT_EQ(end_of(sent).kind, outcome_kind::stopped);
    EXPECT_EQ(end_of(asked).kind, outcome_kind::stopped);
    EXPECT_TRUE(peer.server.pending().empty());
}

// The node's side: what becomes of a reply.

/// What becomes of a message that the researcher's server answers so.
ferry::outcome upload_answered(StatusCode code) {
    fake_researcher fake([&](int, auto& in, auto&) {
        fake_researcher::read_all(in);
        return grpc::Status(code, "no");
    });
    ferry::grpc_client node(quick_client("node", fake.port()), echo);
    node.start();
    return end_of(node.send(ferry::message{{"x", 1}}).front());
}

TEST(promise_1_nothing_vanishes, a_nodes_reply_taken) {
    server_and_node pair;
    EXPECT_EQ(end_of(pair.node->send(ferry::message{{"x", 1}}).front()).kind, outcome_kind::taken);
}

TEST(promise_1_nothing_vanishes, a_nodes_reply_refused) {
    const auto end = upload_answered(StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(end.kind, outcome_kind::refused);
    EXPECT_EQ(end.text, "no");
}

TEST(promise_1_nothing_vanishes, a_nodes_reply_not_permitted) {
    EXPECT_EQ(upload_answered(StatusCode::PERMISSION_DENIED).kind, outcome_kind::not_permitted);
}

TEST(promise_1_nothing_vanishes, a_nodes_reply_too_large) {
    EXPECT_EQ(upload_answered(StatusCode::RESOURCE_EXHAUSTED).kind, outcome_kind::too_large);
}

TEST(promise_1_nothing_vanishes, a_nodes_reply_retries_exhausted) {
    const auto end = upload_answered(StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(end.kind, outcome_kind::retries_exhausted);
    EXPECT_EQ(end.attempts, 1 + ferry::MAX_SEND_RETRIES);
}

TEST(promise_1_nothing_vanishes, a_nodes_reply_encode_failed) {
    server_and_node pair;
    EXPECT_EQ(end_of(pair.node->send(too_deep()).front()).kind, outcome_kind::encode_failed);
}

TEST(promise_1_nothing_vanishes, a_nodes_reply_expired_queue_full_cancelled_or_stopped_while_no_server_is_there) {
    const reserved_port nobodys;
    auto options = quick_client("node", nobodys.number());
    options.reply_age = 20ms;
    {
        ferry::grpc_client node(options, echo);
        node.start();
        EXPECT_EQ(end_of(node.send(ferry::message{{"x", 1}}).front()).kind, outcome_kind::expired);
    }
    options.reply_age = 1h;
    options.limits.max_queued_uploads = 2;
    ferry::grpc_client node(options, echo);
    node.start();
    auto first = node.send(ferry::message{{"x", 1}}).front();
    const auto second = node.send(ferry::message{{"x", 2}}).front();
    EXPECT_EQ(end_of(node.send(ferry::message{{"x", 3}}).front()).kind, outcome_kind::queue_full);
    first.cancel();
    EXPECT_EQ(end_of(first).kind, outcome_kind::cancelled);
    EXPECT_FALSE(second.done());
    node.stop(0ms);
    EXPECT_EQ(end_of(second).kind, outcome_kind::stopped);
    EXPECT_EQ(end_of(node.send(ferry::message{{"x", 4}}).front()).kind, outcome_kind::stopped);
}

// Handles.

TEST(promise_1_nothing_vanishes, a_handle_is_waited_for) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    const auto asked = peer.server.request({{"request_id", "r"}}, "plain");
    EXPECT_FALSE(asked.done());
    EXPECT_FALSE(asked.wait_for(1ms));
    auto waiting = std::async(std::launch::async, [&] { return asked.wait().kind; });
    ASSERT_TRUE(peer.reply({{1, 1, peer.encoded({{"request_id", "r"}, {"node_id", "plain"}})}}).ok());
    EXPECT_EQ(waiting.get(), outcome_kind::replied);
    EXPECT_TRUE(asked.done());
    EXPECT_TRUE(asked.wait_for(0ms));
}

TEST(promise_1_nothing_vanishes, a_handle_has_callbacks_and_may_be_dropped) {
    server_and_node pair;
    std::promise<outcome_kind> done;
    std::promise<ferry::message> replied;
    {
        auto asked = pair.server.request({{"x", 1}}, "node");
        asked.on_done([&](const ferry::outcome& how) { done.set_value(how.kind); });
        asked.on_reply([&](const ferry::reply& reply) { replied.set_value(reply.message); });
    }
    EXPECT_EQ(done.get_future().get(), outcome_kind::replied);
    EXPECT_EQ(replied.get_future().get().at("x"), 1);
}

TEST(promise_1_nothing_vanishes, a_handle_is_cancelled_wherever_its_task_is) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    auto moving = peer.server.send({{"data", some_bytes(20'000'000)}}, "plain");
    ASSERT_TRUE(poll->read());
    moving.cancel();
    EXPECT_EQ(end_of(moving).kind, outcome_kind::cancelled);
    EXPECT_FALSE(poll->read_all()) << "its stream is ended";
    auto again = peer.open_poll("plain");
    auto carried = peer.server.request({{"x", 1}}, "plain");
    ASSERT_TRUE(again->read_all());
    carried.cancel();
    EXPECT_EQ(end_of(carried).kind, outcome_kind::cancelled);
    carried.cancel();
    EXPECT_EQ(end_of(carried).kind, outcome_kind::cancelled) << "what has ended stays so";
    EXPECT_TRUE(peer.server.pending().empty());
}

TEST(promise_1_nothing_vanishes, a_handle_outlives_its_server) {
    std::optional<ferry::request_handle> asked;
    {
        plain_peer peer(quick_server());
        poll_once(peer, "plain");
        asked = peer.server.request({{"x", 1}}, "plain");
    }
    EXPECT_EQ(end_of(*asked).kind, outcome_kind::stopped);
    asked->cancel();
}

TEST(promise_1_nothing_vanishes, pending_lists_what_is_open) {
    plain_peer peer(quick_server());
    poll_once(peer, "plain");
    const auto sent = peer.server.send({{"request_id", "one"}}, "plain");
    auto asked = peer.server.request({{"request_id", "two"}}, "plain");
    std::map<std::string, ferry::pending_task> open;
    for (auto& each : peer.server.pending()) open[each.request_id] = each;
    ASSERT_EQ(open.size(), 2U);
    EXPECT_EQ(open["one"].node, "plain");
    EXPECT_EQ(open["one"].bytes, sent.total_bytes());
    EXPECT_FALSE(open["one"].wants_reply);
    EXPECT_TRUE(open["two"].wants_reply);
    asked.cancel();
    asked.wait();
    EXPECT_EQ(peer.server.pending().size(), 1U);
}

/// A store that several servers use, one after another.
struct kept_store {
    using policy_category = ferry::agent_store_tag;

    template <class Done>
    void acquire(const std::string& node, Done&& done) {
        kept->acquire(node, std::forward<Done>(done));
    }
    template <class Done>
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        kept->append(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        kept->update(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, Done&& done) {
        kept->settle(node, owner, order, std::forward<Done>(done));
    }

    std::shared_ptr<ferry::memory_agent_store> kept = std::make_shared<ferry::memory_agent_store>();
};

TEST(promise_1_nothing_vanishes, pending_lists_what_is_open_also_after_a_restart) {
    kept_store store;
    ferry::delivery sent = [&] {
        ferry::basic_grpc_server<kept_store> first(quick_server(), store);
        first.start();
        const auto stub = stub_of(first.port());
        { plain_peer::open_call poll(*stub, "plain"); }
        auto out = first.send({{"request_id", "kept"}, {"data", some_bytes(20'000'000)}}, "plain");
        return out;
    }();
    EXPECT_EQ(sent.wait().kind, outcome_kind::stopped);
    ferry::basic_grpc_server<kept_store> second(quick_server(), store);
    second.start();
    const auto stub = stub_of(second.port());
    plain_peer::open_call poll(*stub, "plain");
    const auto open = second.pending();
    ASSERT_EQ(open.size(), 1U);
    EXPECT_EQ(open[0].request_id, "kept");
    EXPECT_TRUE(poll.read_all());
}

TEST(promise_1_nothing_vanishes, a_reply_that_nobody_waits_for_any_more_goes_to_the_handler) {
    notes came;
    ferry::grpc_server server(quick_server());
    server.on_unclaimed_reply([&](const ferry::reply& reply) {
        came.add(reply.node + ":" + reply.message.at("request_id").get<std::string>());
    });
    server.start();
    std::promise<ferry::task> handed_out;
    ferry::grpc_client node(quick_client("node", server.port()),
                            [&](const ferry::task& task) { handed_out.set_value(task); });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    auto asked = server.request({{"request_id", "late"}}, "node");
    const auto task = handed_out.get_future().get();
    asked.cancel();
    asked.wait();
    EXPECT_EQ(end_of(task.reply({{"x", 1}})).kind, outcome_kind::taken);
    EXPECT_TRUE(soon([&] { return came.size() == 1; }));
    EXPECT_THAT(came.all(), testing::ElementsAre("node:late"));
}

}  // namespace
