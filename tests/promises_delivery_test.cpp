// The server's promises on what it carries, by short tests of their names: order, one encoding, bounds, progress.
#include "promises.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

// --- 2: order --------------------------------------------------------------------------------------------------------------

TEST(promise_2_order, a_nodes_tasks_run_in_the_order_of_sending_and_one_after_another) {
    notes seen;
    server_and_node pair([&](const ferry::task& task) {
        seen.add(task.message().at("n").dump());
        std::this_thread::yield();
        seen.add(task.message().at("n").dump());
    });
    std::vector<ferry::delivery> sent;
    std::vector<std::string> expected;
    for (int n = 0; n < 20; ++n) {
        sent.push_back(pair.server.send({{"n", n}, {"data", some_bytes(n % 5 == 0 ? 5'000'000 : 5)}}, "node"));
        expected.insert(expected.end(), 2, std::to_string(n));
    }
    for (const auto& each : sent) EXPECT_EQ(each.wait().kind, outcome_kind::taken);
    ASSERT_TRUE(soon([&] { return seen.size() == expected.size(); }));
    EXPECT_EQ(seen.all(), expected);
}

TEST(promise_2_order, a_resend_keeps_its_place) {
    plain_peer peer(quick_server());
    auto cut = peer.open_poll("plain");
    const auto first = peer.server.send(bulk(), "plain");
    const auto second = peer.server.send({{"n", 1}}, "plain");
    ASSERT_TRUE(cut->read());
    cut = nullptr;
    polling_node node(peer, "plain");
    EXPECT_EQ(node.next(), 0);
    EXPECT_EQ(node.next(), 1);
    EXPECT_EQ(first.wait().attempts, 2);
    auto next = peer.open_poll("plain");
    EXPECT_EQ(second.wait().attempts, 1);
}

TEST(promise_2_order, a_node_waits_for_no_others_tasks) {
    plain_peer peer(quick_server());
    auto slow = peer.open_poll("slow");
    const auto stands = peer.server.send(bulk(), "slow");
    ASSERT_TRUE(slow->read());
    auto quick = peer.open_poll("quick");
    const auto passes = peer.server.send({{"n", 1}}, "quick");
    ASSERT_TRUE(quick->read_all());
    auto next = peer.open_poll("quick");
    EXPECT_EQ(passes.wait().kind, outcome_kind::taken);
    EXPECT_FALSE(stands.done());
}

// --- 3: one encoding -------------------------------------------------------------------------------------------------------

/// Counts what it encodes.
struct counting_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = ferry::message;
    static constexpr std::string_view name = "msgpack";

    ferry::payload encode(ferry::message m) const {
        ++*encoded;
        return ferry::msgpack_serializer<>{}.encode(std::move(m));
    }
    ferry::message decode(const ferry::bytes& run) const { return ferry::msgpack_serializer<>{}.decode(run); }

    std::shared_ptr<std::atomic<int>> encoded = std::make_shared<std::atomic<int>>(0);
};

/// A server that counts, and nodes that poll.
struct promise_3_one_encoding : testing::Test {
    promise_3_one_encoding() {
        server.start();
        stub = stub_of(server.port());
        for (int i = 0; i < 20; ++i) ids.push_back(std::to_string(i));
    }

    std::vector<std::unique_ptr<plain_peer::open_call>> polls() const {
        std::vector<std::unique_ptr<plain_peer::open_call>> all;
        for (const auto& id : ids) all.push_back(std::make_unique<plain_peer::open_call>(*stub, id));
        return all;
    }

    counting_serializer serializer;
    ferry::basic_grpc_server<counting_serializer> server{quick_server(), serializer};
    std::unique_ptr<researcher::ResearcherService::Stub> stub;
    std::vector<std::string> ids;
};

TEST_F(promise_3_one_encoding, a_broadcast_is_encoded_once) {
    auto all = polls();
    EXPECT_EQ(server.broadcast({{"x", 1}}).size(), 20U);
    for (const auto& each : all) {
        std::string task;
        EXPECT_TRUE(each->read_all(&task));
        EXPECT_EQ(task, plain_peer::encoded({{"x", 1}}));
    }
    EXPECT_EQ(*serializer.encoded, 1);
}

TEST_F(promise_3_one_encoding, a_request_to_several_nodes_is_encoded_once) {
    auto all = polls();
    EXPECT_EQ(server.request({{"x", 1}}, ids).size(), 20U);
    for (const auto& each : all) EXPECT_TRUE(each->read_all());
    EXPECT_EQ(*serializer.encoded, 1);
}

TEST_F(promise_3_one_encoding, a_resend_is_not_encoded_again) {
    auto poll = std::make_unique<plain_peer::open_call>(*stub, "plain");
    const auto sent = server.send(bulk(), "plain");
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(poll->read());
        poll = nullptr;
        poll = std::make_unique<plain_peer::open_call>(*stub, "plain");
    }
    ASSERT_TRUE(poll->read_all());
    poll = std::make_unique<plain_peer::open_call>(*stub, "plain");
    EXPECT_EQ(sent.wait().attempts, 4);
    EXPECT_EQ(*serializer.encoded, 1);
}

TEST_F(promise_3_one_encoding, all_streams_share_the_senders_own_bytes) {
    auto all = polls();
    const auto memory = std::make_shared<std::vector<std::uint8_t>>(1'000'000, std::uint8_t{7});
    const auto sent = server.broadcast({{"data", ferry::bytes::borrow(*memory, memory)}});
    EXPECT_EQ(memory.use_count(), 2) << "they are kept, once, and nobody has made a copy to let them go";
    for (const auto& each : all) EXPECT_TRUE(each->read_all());
    all = polls();
    for (const auto& each : sent) EXPECT_EQ(each.wait().kind, outcome_kind::taken);
    EXPECT_TRUE(soon([&] { return memory.use_count() == 1; })) << "let go after the last";
}

// --- 4: bounded ------------------------------------------------------------------------------------------------------------

TEST(promise_4_bounded, queued_tasks) {
    auto options = quick_server();
    options.limits.max_queued_tasks = 2;
    plain_peer peer(options);
    poll_once(peer, "plain");
    for (int i = 0; i < 2; ++i) EXPECT_FALSE(peer.server.send({{"n", i}}, "plain").done());
    const auto third = peer.server.send({{"n", 3}}, "plain");
    ASSERT_TRUE(third.done()) << "at once";
    EXPECT_EQ(third.wait().reason, errc::queue_full);
}

TEST(promise_4_bounded, queued_bytes) {
    auto options = quick_server();
    options.limits.max_queued_bytes = 1'000;
    plain_peer peer(options);
    poll_once(peer, "plain");
    EXPECT_FALSE(peer.server.send({{"data", some_bytes(900)}}, "plain").done());
    const auto second = peer.server.send({{"data", some_bytes(200)}}, "plain");
    ASSERT_TRUE(second.done());
    EXPECT_EQ(second.wait().reason, errc::queue_full);
    EXPECT_FALSE(peer.server.send({{"n", 1}}, "plain").done()) << "for this one there is room";
}

TEST(promise_4_bounded, payload_size_of_a_task) {
    auto options = quick_server();
    options.limits.max_payload_bytes = 100;
    plain_peer peer(options);
    poll_once(peer, "plain");
    const auto sent = peer.server.send({{"data", some_bytes(101)}}, "plain");
    ASSERT_TRUE(sent.done());
    EXPECT_EQ(sent.wait().reason, errc::too_large);
}

TEST(promise_4_bounded, payload_size_of_a_reply) {
    auto options = quick_server();
    options.replies.max_payload_bytes = 100;
    plain_peer peer(options);
    EXPECT_EQ(peer.reply({{9, 1, std::string(101, 'x')}}).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

TEST(promise_4_bounded, known_nodes) {
    notes warnings;
    auto options = quick_server();
    options.limits.max_nodes = 1;
    options.log = warnings.of(ferry::log_level::warning);
    plain_peer peer(options);
    auto first = peer.open_poll("first");
    const auto second = peer.poll("second");
    EXPECT_EQ(second.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_THAT(second.error_message(), HasSubstr("too many nodes"));
    EXPECT_FALSE(peer.server.get_node("second"));
    EXPECT_EQ(warnings.holding("node second is refused"), 1);
}

TEST(promise_4_bounded, inbound_uploads) {
    auto options = quick_server();
    options.inbound.max_uploads = 1;
    plain_peer peer(options);
    open_upload first(peer);
    ASSERT_TRUE(first.write(2, 1, "half"));
    ASSERT_TRUE(soon([&] { return peer.server.counts().inbound_bytes == 4; }));
    const auto second = open_upload(peer).wait_for_answer();
    EXPECT_EQ(second.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_THAT(second.error_message(), HasSubstr("no more uploads"));
}

TEST(promise_4_bounded, inbound_bytes) {
    auto options = quick_server();
    options.inbound.max_bytes = 10;
    plain_peer peer(options);
    open_upload first(peer);
    ASSERT_TRUE(first.write(2, 1, std::string(20, 'x')));
    ASSERT_TRUE(soon([&] { return peer.server.counts().inbound_bytes == 20; }));
    open_upload second(peer);
    ASSERT_TRUE(second.write(2, 1, std::string(20, 'x'))) << "it goes out, and is not read";
    EXPECT_TRUE(tell(peer, a_line("plain", "meanwhile")).ok());
    EXPECT_EQ(peer.server.counts().inbound_bytes, 20U);
    ASSERT_TRUE(first.write(2, 2, "x"));
    EXPECT_EQ(first.finish().error_code(), StatusCode::INVALID_ARGUMENT) << "it was read to its end: no message";
    ASSERT_TRUE(second.write(2, 2, "x"));
    EXPECT_EQ(second.finish().error_code(), StatusCode::INVALID_ARGUMENT) << "and now the other one";
    EXPECT_TRUE(soon([&] { return peer.server.counts().inbound_bytes == 0; }));
}

TEST(promise_4_bounded, unclaimed_replies_waiting) {
    std::promise<void> begun, release;
    auto options = quick_server();
    options.limits.max_unclaimed_replies = 1;
    ferry::grpc_server server(options);
    std::atomic<int> came{0};
    server.on_unclaimed_reply([&, held = release.get_future().share()](const ferry::reply&) {
        if (++came == 1) begun.set_value();
        held.wait();
    });
    server.start();
    const auto stub = stub_of(server.port());
    { plain_peer::open_call poll(*stub, "plain"); }
    const auto reply = [&] {
        open_upload upload(*stub);
        EXPECT_TRUE(upload.write(1, 1, plain_peer::encoded({{"request_id", "r"}, {"node_id", "plain"}})));
        return upload.finish();
    };
    EXPECT_TRUE(reply().ok());
    begun.get_future().wait();
    const auto second = reply();
    EXPECT_EQ(second.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_THAT(second.error_message(), HasSubstr("nobody waits for"));
    release.set_value();
    EXPECT_TRUE(soon([&] { return reply().ok(); })) << "there is room again";
    EXPECT_TRUE(soon([&] { return came == 2; }));
}

TEST(promise_4_bounded, feedback_waiting_of_which_the_oldest_is_dropped_and_counted) {
    notes came, warnings;
    std::promise<void> begun, release;
    auto options = quick_server();
    options.max_waiting_feedback = 2;
    options.log = warnings.of(ferry::log_level::warning);
    options.on_message = [&, held = release.get_future().share()](const ferry::feedback& from) {
        came.add(text_of(from));
        if (came.size() > 1) return;
        begun.set_value();
        held.wait();
    };
    plain_peer peer(options);
    EXPECT_TRUE(tell(peer, a_line("plain", "1")).ok());
    begun.get_future().wait();
    for (const auto* text : {"2", "3", "4", "5"}) EXPECT_TRUE(tell(peer, a_line("plain", text)).ok());
    EXPECT_EQ(peer.server.counts().dropped_feedback, 2U);
    EXPECT_EQ(warnings.holding("feedback comes faster than on_message takes it"), 2);
    release.set_value();
    ASSERT_TRUE(soon([&] { return came.size() == 3; }));
    EXPECT_THAT(came.all(), ElementsAre("1", "4", "5"));
}

TEST(promise_4_bounded, a_nodes_waiting_tasks) {
    std::promise<void> release;
    const auto held = release.get_future().share();
    ferry::grpc_server server(quick_server());
    server.start();
    auto dial = quick_client("node", server.port());
    dial.limits.max_waiting_tasks = 1;
    dial.limits.streams = false;
    ferry::grpc_client node(dial, [held](const ferry::task&) { held.wait(); });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    std::vector<ferry::delivery> sent;
    for (int n = 0; n < 3; ++n) sent.push_back(server.send({{"n", n}}, "node"));
    EXPECT_TRUE(soon([&] { return server.get_node("node")->status == node_status::waiting; })) << "it doesn't poll";
    EXPECT_EQ(server.get_node("node")->queued_tasks, 3U);
    release.set_value();
    for (const auto& each : sent) EXPECT_EQ(each.wait().kind, outcome_kind::taken);
}

TEST(promise_4_bounded, a_nodes_kept_replies_and_their_bytes) {
    auto dial = quick_client("node", 1);
    dial.limits.max_queued_uploads = 2;
    dial.limits.max_queued_bytes = 1'000;
    dial.limits.max_payload_bytes = 2'000;
    ferry::grpc_client node(dial, echo);
    const auto send = [&](std::size_t size) { return node.send(ferry::message{{"data", some_bytes(size)}}).front(); };
    EXPECT_FALSE(send(800).done());
    const auto beyond_bytes = send(300), beyond_payload = send(2'001);
    EXPECT_FALSE(send(10).done());
    const auto beyond_number = send(10);
    for (const auto& each : {beyond_bytes, beyond_payload, beyond_number}) ASSERT_TRUE(each.done());
    EXPECT_EQ(beyond_bytes.wait().kind, outcome_kind::queue_full);
    EXPECT_EQ(beyond_payload.wait().kind, outcome_kind::too_large);
    EXPECT_EQ(beyond_number.wait().kind, outcome_kind::queue_full);
}

TEST(promise_4_bounded, a_nodes_feedback_of_which_the_oldest_is_dropped_with_a_warning) {
    notes came, warnings;
    auto options = quick_server();
    options.on_message = [&](const ferry::feedback& from) { came.add(text_of(from)); };
    ferry::grpc_server server(options);
    server.start();
    auto dial = quick_client("node", server.port());
    dial.limits.max_feedback = 2;
    dial.log = warnings.of(ferry::log_level::warning);
    ferry::grpc_client node(dial, echo);
    for (const auto* text : {"1", "2", "3", "4"}) node.log("INFO", text);
    node.start();
    ASSERT_TRUE(soon([&] { return came.size() == 2; }));
    EXPECT_THAT(came.all(), ElementsAre("3", "4"));
    EXPECT_EQ(warnings.holding("feedback is dropped"), 1);
}

// --- 5: progress, not wall-clock -------------------------------------------------------------------------------------------

TEST(promise_5_progress, a_task_that_moves_outlives_its_age) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    ferry::send_options how;
    how.expires_after = 1s;
    const auto sent = peer.server.send(bulk(), "plain", how);
    ASSERT_TRUE(poll->read());
    EXPECT_EQ(peer.server.send({{"waits", "behind it"}}, "plain", how).wait().kind, outcome_kind::expired);
    EXPECT_FALSE(sent.done());
    EXPECT_TRUE(poll->read_all());
    auto next = peer.open_poll("plain");
    const auto end = sent.wait();
    EXPECT_EQ(end.kind, outcome_kind::taken);
    EXPECT_EQ(end.attempts, 1);
}

TEST(promise_5_progress, a_task_that_stands_still_is_ended) {
    auto options = quick_server();
    options.limits.idle_limit = 50ms;
    ferry::basic_grpc_server<ferry::no_retry> server(options);
    server.start();
    const auto stub = stub_of(server.port());
    plain_peer::open_call poll(*stub, "plain");
    const auto end = server.send(bulk(), "plain").wait();
    EXPECT_EQ(end.kind, outcome_kind::retries_exhausted);
    EXPECT_EQ(end.reason, errc::idle_timeout);
    EXPECT_FALSE(poll.read_all());
    EXPECT_EQ(poll.finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST(promise_5_progress, a_reply_that_moves_outlives_its_age) {
    std::atomic<bool> let_go{false};
    fake_researcher fake([&](int n, auto& in, auto& context) {
        researcher::TaskResult chunk;
        in.Read(&chunk);
        if (n > 1) fake_researcher::hold(context, let_go);
        fake_researcher::read_all(in);
        return context.IsCancelled() ? grpc::Status::CANCELLED : grpc::Status::OK;
    });
    auto dial = quick_client("node", fake.port());
    dial.reply_age = 1s;
    dial.limits.max_bulk_uploads = 1;
    ferry::grpc_client node(dial, echo);
    node.start();
    EXPECT_EQ(node.send(ferry::message{{"x", 1}}).front().wait().kind, outcome_kind::taken) << "the way is known then";
    const auto sent = node.send(bulk()).front();
    EXPECT_EQ(node.send(bulk()).front().wait().kind, outcome_kind::expired) << "it waited behind the other one";
    EXPECT_FALSE(sent.done());
    let_go = true;
    const auto end = sent.wait();
    EXPECT_EQ(end.kind, outcome_kind::taken);
    EXPECT_EQ(end.attempts, 1);
}

TEST(promise_5_progress, a_reply_that_stands_still_is_ended_by_its_node_and_sent_again) {
    const std::atomic<bool> never{false};
    fake_researcher fake([&](int n, auto& in, auto& context) {
        if (n == 1) fake_researcher::hold(context, never);
        fake_researcher::read_all(in);
        return grpc::Status::OK;
    });
    auto dial = quick_client("node", fake.port());
    dial.limits.idle_limit = 1s;
    // Small chunks, and many attempts: on a slow machine others may stand still, too.
    using small_chunks = ferry::max_message_bytes_length<100'000>;
    ferry::basic_grpc_client<small_chunks, ferry::bounded_retry> node(dial, echo, ferry::bounded_retry{1000, 10min});
    node.start();
    const auto end = node.send(bulk()).front().wait();
    EXPECT_EQ(end.kind, outcome_kind::taken);
    EXPECT_GT(end.attempts, 1);
}

TEST(promise_5_progress, an_upload_that_stands_still_is_ended_by_the_server) {
    auto options = quick_server();
    options.inbound.idle_limit = 1s;
    plain_peer peer(options);
    open_upload upload(peer);
    ASSERT_TRUE(upload.write(2, 1, "half"));
    const auto status = upload.wait_for_answer();
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_THAT(status.error_message(), HasSubstr("stood still"));
}

}  // namespace
