#include <ferry/detail/grpc_server_calls.hpp>

#include "plain_peer.hpp"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

// The server as a peer meets it that knows nothing but the protocol: the generated stub, one call at a time.

namespace {

using namespace loopback;
using grpc::StatusCode;

TEST(grpc_server_calls, serve_a_peer_that_polls_and_replies) {
    plain_peer peer;
    auto first = std::async(std::launch::async, [&] {
        std::string task;
        const auto status = peer.poll("plain", &task);
        return std::pair(status.error_code(), task);
    });
    ASSERT_TRUE(peer.server.wait_for_nodes({"plain"}, patience));
    auto asked = peer.server.request({{"request_id", "r"}, {"x", 1}}, "plain");
    const auto [code, task] = first.get();
    EXPECT_EQ(code, StatusCode::OK);
    EXPECT_EQ(task, peer.encoded({{"request_id", "r"}, {"x", 1}}));

    const auto answer = peer.encoded({{"request_id", "r"}, {"node_id", "plain"}, {"y", 2}});
    EXPECT_EQ(peer.reply({{2, 1, answer.substr(0, 5)}, {2, 2, answer.substr(5)}}).error_code(), StatusCode::OK);
    const auto reply = asked.get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("y"), 2);
}

TEST(grpc_server_calls, take_several_replies_in_one_stream) {
    plain_peer peer;
    auto polling = std::async(std::launch::async, [&] { return peer.poll("plain").error_code(); });
    ASSERT_TRUE(peer.server.wait_for_nodes({"plain"}, patience));
    auto one = peer.server.request({{"request_id", "1"}}, "plain");
    auto two = peer.server.request({{"request_id", "2"}}, "plain");
    EXPECT_EQ(polling.get(), StatusCode::OK) << "the first has come";
    EXPECT_EQ(peer.reply({{1, 1, peer.encoded({{"request_id", "2"}, {"node_id", "plain"}})},
                          {1, 1, peer.encoded({{"request_id", "1"}, {"node_id", "plain"}})}})
                  .error_code(),
              StatusCode::OK);
    EXPECT_TRUE(one.get());
    EXPECT_TRUE(two.get());
}

TEST(grpc_server_calls, refuse_a_stream_that_ends_before_its_last_chunk) {
    plain_peer peer;
    const auto status = peer.reply({{2, 1, "half"}});
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_NE(status.error_message().find("ended before its last chunk, after 4 bytes"), std::string::npos)
        << status.error_message();
}

TEST(grpc_server_calls, refuse_what_is_no_reply) {
    plain_peer peer;
    EXPECT_EQ(peer.reply({{1, 2, "x"}}).error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(peer.reply({{0, 0, "x"}}).error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(peer.reply({{1, 1, "\xc1"}}).error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(peer.reply({}).error_code(), StatusCode::OK)
        << "no message at all is what the original sends for nothing";
}

TEST(grpc_server_calls, refuse_a_reply_of_a_node_that_never_polled) {
    plain_peer peer;
    const auto status = peer.reply({{1, 1, peer.encoded({{"request_id", "r"}, {"node_id", "stranger"}})}});
    EXPECT_EQ(status.error_code(), StatusCode::UNKNOWN);
}

TEST(grpc_server_calls, refuse_a_reply_beyond_the_limit) {
    auto options = server_options();
    options.replies.max_payload_bytes = 100;
    plain_peer peer(options);
    EXPECT_EQ(peer.reply({{2, 1, std::string(60, 'x')}, {2, 2, std::string(60, 'x')}}).error_code(),
              StatusCode::RESOURCE_EXHAUSTED);
}

TEST(grpc_server_calls, refuse_a_poll_without_a_name_or_with_an_endless_one) {
    plain_peer peer;
    EXPECT_EQ(peer.poll("").error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(peer.poll(std::string(1025, 'n')).error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_TRUE(peer.server.get_all_nodes().empty());
}

TEST(grpc_server_calls, end_an_older_poll_of_the_same_node_as_unavailable) {
    plain_peer peer;
    auto older = std::async(std::launch::async, [&] { return peer.poll("twin").error_code(); });
    ASSERT_TRUE(peer.server.wait_for_nodes({"twin"}, patience));
    auto newer = std::async(std::launch::async, [&] { return peer.poll("twin").error_code(); });
    EXPECT_EQ(older.get(), StatusCode::UNAVAILABLE);
    peer.server.stop(0ms);
    EXPECT_EQ(newer.get(), StatusCode::UNAVAILABLE);
}

TEST(grpc_server_calls, end_a_poll_before_its_deadline) {
    plain_peer peer;
    const auto status = peer.poll("plain", nullptr, std::chrono::system_clock::now() + 4s);
    EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(status.error_message(), "deadline exceeded: the poll came near its deadline") << "the server's own words";
    EXPECT_EQ(peer.server.get_node("plain")->status, ferry::node_status::waiting);
}

TEST(grpc_server_calls, refuse_feedback_that_is_neither_log_nor_scalar) {
    plain_peer peer;
    grpc::ClientContext context;
    researcher::Empty nothing;
    EXPECT_EQ(peer.stub->Feedback(&context, researcher::FeedbackMessage(), &nothing).error_code(),
              StatusCode::INVALID_ARGUMENT);
}

TEST(grpc_server_calls, refuse_feedback_that_is_too_large_or_of_too_long_an_id) {
    std::atomic<int> came{0};
    auto options = server_options();
    options.on_message = [&](const ferry::feedback&) { ++came; };
    plain_peer peer(options);
    const auto tell = [&](const std::string& node, std::size_t size) {
        grpc::ClientContext context;
        researcher::Empty nothing;
        researcher::FeedbackMessage what;
        what.mutable_log()->set_node_id(node);
        what.mutable_log()->set_msg(std::string(size, 'x'));
        return peer.stub->Feedback(&context, what, &nothing).error_code();
    };
    EXPECT_EQ(tell("node", 5'000'000), StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(tell(std::string(2000, 'n'), 1), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(tell("node", 4'000'000), StatusCode::OK);
    peer.server.stop();
    EXPECT_EQ(came, 1);
}

TEST(grpc_server_calls, refuse_feedback_that_is_no_message) {
    plain_peer peer;
    grpc::GenericStub stub(
        grpc::CreateChannel("localhost:" + std::to_string(peer.server.port()), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    const grpc::Slice broken("\xff");
    grpc::ByteBuffer what(&broken, 1), nothing;
    std::promise<grpc::Status> answer;
    stub.UnaryCall(&context, "/researcher.ResearcherService/Feedback", {}, &what, &nothing,
                   [&](grpc::Status status) { answer.set_value(std::move(status)); });
    const auto status = answer.get_future().get();
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(), "protocol error: what came is no FeedbackMessage");
}

TEST(grpc_server_calls, refuse_a_poll_that_is_too_large) {
    plain_peer peer;
    grpc::ClientContext context;
    researcher::TaskRequest request;
    request.set_node("node");
    request.set_protocol_version(std::string(100'000, '7'));
    const auto reader = peer.stub->GetTaskUnary(&context, request);
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
}

/// What a hello has too much of.
TEST(grpc_server_calls, refuse_a_stream_with_too_many_entries) {
    plain_peer peer;
    for (const bool replies : {false, true}) {
        grpc::ClientContext context;
        const auto stream = peer.stub->GetTask(&context);
        researcher::TaskRequest request;
        request.set_node("node");
        for (std::uint64_t i = 0; i < 100'001; ++i) request.mutable_hello()->add_held()->set_task(i);
        if (replies) {
            request.mutable_hello()->clear_held();
            request.mutable_hello()->set_window_tasks(1);
            request.add_replies()->set_content("it has no number");
        }
        stream->Write(request);
        EXPECT_EQ(stream->Finish().error_code(), StatusCode::INVALID_ARGUMENT) << replies;
    }
}

TEST(grpc_server_calls, end_a_stream_whose_hello_does_not_come) {
    auto options = server_options();
    options.limits.idle_limit = 50ms;
    plain_peer peer(options);
    grpc::ClientContext context;
    const auto status = peer.stub->GetTask(&context)->Finish();
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(status.error_message(), "idle timeout: a stream begins with a hello, which didn't come");
}

TEST(grpc_server_calls, refuse_a_stream_whose_hello_names_no_node) {
    plain_peer peer;
    grpc::ClientContext context;
    const auto stream = peer.stub->GetTask(&context);
    researcher::TaskRequest request;
    request.mutable_hello()->set_window_tasks(1);
    EXPECT_TRUE(stream->Write(request));
    EXPECT_EQ(stream->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST(grpc_server_calls, end_a_stream_well_when_its_node_does) {
    plain_peer peer;
    grpc::ClientContext context;
    const auto stream = peer.stub->GetTask(&context);
    researcher::TaskRequest request;
    request.set_node("node");
    request.mutable_hello()->set_window_tasks(1);
    EXPECT_TRUE(stream->Write(request));
    researcher::TaskResponse welcome;
    ASSERT_TRUE(stream->Read(&welcome));
    EXPECT_TRUE(welcome.has_welcome());
    EXPECT_EQ(peer.server.get_node("node")->status, ferry::node_status::active);
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    EXPECT_EQ(peer.server.get_node("node")->status, ferry::node_status::waiting);
}

/// A node's end of a stream, by hand.
struct plain_stream {
    explicit plain_stream(plain_peer& peer, std::uint32_t window = 8) : call(peer.stub->GetTask(&context)) {
        researcher::TaskRequest request;
        request.set_node("node");
        request.mutable_hello()->set_window_tasks(window);
        request.mutable_hello()->set_window_bytes(1'000'000);
        call->Write(request);
        researcher::TaskResponse welcome;
        welcomed = call->Read(&welcome) && welcome.has_welcome();
    }
    researcher::TaskResponse read() {
        researcher::TaskResponse what;
        EXPECT_TRUE(call->Read(&what));
        return what;
    }
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<researcher::TaskRequest, researcher::TaskResponse>> call;
    bool welcomed = false;
};

TEST(grpc_server_calls, send_small_tasks_whole_and_in_order) {
    plain_peer peer;
    plain_stream node(peer);
    ASSERT_TRUE(node.welcomed);
    std::vector<ferry::delivery> sent;
    for (int i = 0; i < 5; ++i) sent.push_back(peer.server.send({{"n", i}}, "node"));
    std::vector<researcher::Whole> came;
    while (came.size() < 5) {
        const auto what = node.read();
        EXPECT_EQ(what.task(), 0U) << "no chunk";
        came.insert(came.end(), what.whole().begin(), what.whole().end());
    }
    researcher::TaskRequest receipts;
    for (std::size_t i = 0; i < came.size(); ++i) {
        const auto& each = came[i];
        EXPECT_EQ(each.content(), peer.encoded({{"n", i}}));
        EXPECT_EQ(each.attempt(), 1U);
        ASSERT_TRUE(each.has_checksum());
        EXPECT_EQ(each.checksum(), ferry::detail::crc32c(0, ferry::bytes::copy(each.content())));
        receipts.add_receipts()->set_task(each.task());
    }
    node.call->Write(receipts);
    for (const auto& each : sent) EXPECT_EQ(each.wait().kind, ferry::outcome_kind::taken);
}

TEST(grpc_server_calls, take_the_reply_that_names_its_task_for_the_receipt_too) {
    plain_peer peer;
    plain_stream node(peer);
    const auto sent = peer.server.send({{"n", 1}}, "node");
    const auto asked = peer.server.request({{"n", 2}, {"request_id", "r"}}, "node");
    researcher::TaskRequest replies;
    for (std::uint64_t number = 1; number <= 2;) {
        const auto what = node.read();
        for (const auto& each : what.whole()) {
            auto& reply = *replies.add_replies();
            reply.set_reply(number++);
            reply.set_task(each.task());
            reply.set_content(peer.encoded({{"node_id", "node"}, {"request_id", "r"}}));
        }
    }
    node.call->Write(replies);
    EXPECT_EQ(sent.wait().kind, ferry::outcome_kind::taken);
    EXPECT_TRUE(asked.get());
    std::vector<std::uint64_t> answered;
    while (answered.size() < 2) {
        const auto what = node.read();
        for (const auto& each : what.answers()) answered.push_back(each.reply());
    }
    EXPECT_EQ(answered, (std::vector<std::uint64_t>{1, 2})) << "soon, though nothing else was to be said";
}

TEST(grpc_server_calls, take_a_reply_that_is_refused_for_the_receipt_of_its_task_all_the_same) {
    plain_peer peer;
    plain_stream node(peer);
    const auto sent = peer.server.send({{"n", 1}}, "node");
    const auto what = node.read();
    ASSERT_EQ(what.whole_size(), 1);
    researcher::TaskRequest replies;
    auto& reply = *replies.add_replies();
    reply.set_reply(1);
    reply.set_task(what.whole(0).task());
    reply.set_content("\xc1");  // no msgpack
    node.call->Write(replies);
    EXPECT_EQ(sent.wait().kind, ferry::outcome_kind::taken);
    auto answer = node.read();
    while (answer.answers_size() == 0) answer = node.read();
    EXPECT_EQ(answer.answers(0).reply(), 1U);
    EXPECT_NE(answer.answers(0).status(), 0);
}

/// What a stream says where it is told so much while it writes.
TEST(grpc_server_calls, tell_of_a_withdrawal_after_the_task_that_it_is_of) {
    plain_peer peer;
    plain_stream node(peer);
    auto first = peer.server.send({{"n", 0}}, "node");
    std::vector<std::uint64_t> came, withdrawn;
    for (int i = 0; i < 200; ++i) {
        auto sent = peer.server.send({{"n", i}}, "node");
        sent.cancel();
        EXPECT_EQ(sent.wait().kind, ferry::outcome_kind::cancelled);
    }
    first.cancel();
    while (came.empty() || withdrawn.empty() || withdrawn.back() != came.front()) {  // its withdrawal is the last
        researcher::TaskResponse what;
        ASSERT_TRUE(node.call->Read(&what));
        for (const auto each : what.withdrawn()) {
            EXPECT_NE(std::find(came.begin(), came.end(), each), came.end()) << "before its task";
            withdrawn.push_back(each);
        }
        for (const auto& each : what.whole()) came.push_back(each.task());
    }
    std::sort(came.begin(), came.end());
    std::sort(withdrawn.begin(), withdrawn.end());
    EXPECT_EQ(came, withdrawn);
}

/// Else the answers to what it sends would take more and more memory.
TEST(grpc_server_calls, read_no_more_of_a_node_that_reads_nothing) {
    std::atomic<int> refused{0};
    auto options = server_options();
    options.log = [&](ferry::log_level, const std::string&) { ++refused; };  // each is one that can't be decoded
    plain_peer peer(options);
    plain_stream node(peer);
    ASSERT_TRUE(node.welcomed);
    researcher::TaskRequest request;
    std::uint64_t number = 0;
    std::thread writer([&] {
        for (int i = 0; i < 1000; ++i) {
            request.clear_replies();
            for (int each = 0; each < 100; ++each) request.add_replies()->set_reply(++number);
            if (!node.call->Write(request)) break;
        }
    });
    int before = -1;
    while (before != refused) {  // it comes to a stop
        before = refused;
        std::this_thread::sleep_for(300ms);
    }
    EXPECT_LT(refused, 20'000);
    int answers = 0;
    researcher::TaskResponse what;
    while (answers < 20'000 && node.call->Read(&what)) answers += what.answers_size();
    EXPECT_GE(answers, 20'000) << "it goes on where the node reads";
    node.context.TryCancel();
    writer.join();
}

}  // namespace
