#include <ferry/detail/grpc_reply_call.hpp>

#include "plain_peer.hpp"

#include <gtest/gtest.h>

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

// Uploads that stand still, that are too many, or that are too much at the same time.

namespace {

using namespace loopback;
using ferry::errc;
using grpc::StatusCode;

void wait_until_held(const ferry::grpc_server& server, std::uint64_t bytes) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (server.counts().inbound_bytes < bytes && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::yield();
    }
    ASSERT_GE(server.counts().inbound_bytes, bytes);
}

TEST(grpc_reply_call, an_upload_that_stands_still_is_ended) {
    auto options = server_options();
    options.inbound.idle_limit = 1s;
    plain_peer peer(options);
    open_upload half(peer);
    ASSERT_TRUE(half.write(2, 1, "half"));
    const auto status = half.wait_for_answer();
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_NE(status.error_message().find("stood still"), std::string::npos) << status.error_message();
    open_upload nothing(peer);
    EXPECT_EQ(nothing.wait_for_answer().error_code(), StatusCode::UNAVAILABLE) << "also before its first chunk";
    EXPECT_EQ(peer.server.counts().inbound_bytes, 0U);
}

TEST(grpc_reply_call, more_uploads_than_allowed_are_refused_and_may_come_later) {
    auto options = server_options();
    options.inbound.max_uploads = 1;
    plain_peer peer(options);
    auto poll = peer.open_poll("plain");
    {
        open_upload first(peer);
        ASSERT_TRUE(first.write(2, 1, "half"));
        wait_until_held(peer.server, 4);
        EXPECT_EQ(peer.reply({}).error_code(), StatusCode::UNAVAILABLE);
    }
    const auto answer = peer.encoded({{"request_id", "r"}, {"node_id", "plain"}});
    const auto deadline = std::chrono::steady_clock::now() + patience;
    auto status = peer.reply({{1, 1, answer}});
    while (!status.ok() && std::chrono::steady_clock::now() < deadline) status = peer.reply({{1, 1, answer}});
    EXPECT_TRUE(status.ok()) << status.error_message();
}

/// More than the budget and all windows of flow control comes at the same time: all of it arrives, one after another.
TEST(grpc_reply_call, concurrent_uploads_beyond_the_budget_wait_for_each_other_and_all_arrive) {
    auto options = server_options();
    options.inbound.max_bytes = 1'000'000;
    std::atomic<std::uint64_t> most{0};
    plain_peer peer(options);
    auto poll = peer.open_poll("plain");
    ASSERT_TRUE(peer.server.wait_for_nodes({"plain"}, patience));
    constexpr int uploads = 6;
    constexpr int chunks = 40;
    std::vector<ferry::request_handle> asked;
    for (int i = 0; i < uploads; ++i) {
        asked.push_back(peer.server.request({{"request_id", std::to_string(i)}}, "plain"));
    }
    std::vector<std::thread> senders;
    for (int i = 0; i < uploads; ++i) {
        senders.emplace_back([&, i] {
            const auto answer = peer.encoded({{"request_id", std::to_string(i)},
                                              {"node_id", "plain"},
                                              {"data", some_bytes(4'000'000, static_cast<std::uint64_t>(i))}});
            const std::size_t length = answer.size() / chunks + 1;
            open_upload upload(peer);
            for (int k = 0; k < chunks; ++k) {
                ASSERT_TRUE(upload.write(chunks, k + 1, answer.substr(static_cast<std::size_t>(k) * length, length)));
                const auto held = peer.server.counts().inbound_bytes;
                for (auto before = most.load(); before < held && !most.compare_exchange_weak(before, held);) {
                }
            }
            EXPECT_TRUE(upload.finish().ok());
        });
    }
    for (auto& each : senders) each.join();
    for (int i = 0; i < uploads; ++i) {
        const auto reply = asked[static_cast<std::size_t>(i)].get();
        ASSERT_TRUE(reply) << reply.how.text;
        EXPECT_EQ(reply.message.at("data").get<ferry::bytes>(), some_bytes(4'000'000, static_cast<std::uint64_t>(i)));
    }
    EXPECT_EQ(peer.server.counts().inbound_bytes, 0U);
    // The budget and one whole message.
    EXPECT_LE(most.load(), 1'000'000U + 4'100'000U);
    EXPECT_GT(most.load(), 0U);
}

/// One that is larger than the budget, and isn't going on for now.
TEST(grpc_reply_call, a_slow_upload_holds_up_no_other) {
    auto options = server_options();
    options.inbound.max_bytes = 10'000'000;
    plain_peer peer(options);
    auto poll = peer.open_poll("plain");
    ASSERT_TRUE(peer.server.wait_for_nodes({"plain"}, patience));
    open_upload slow(peer);
    for (int i = 1; i <= 12; ++i) ASSERT_TRUE(slow.write(13, i, std::string(1'000'000, 'x')));
    wait_until_held(peer.server, 12'000'000);
    auto asked = peer.server.request({{"request_id", "r"}}, "plain");
    const auto answer =
        peer.encoded({{"request_id", "r"}, {"node_id", "plain"}, {"data", some_bytes(4'000'000, std::uint64_t{1})}});
    EXPECT_TRUE(peer.reply({{2, 1, answer.substr(0, 2'000'000)}, {2, 2, answer.substr(2'000'000)}}).ok());
    EXPECT_TRUE(asked.get());
    EXPECT_EQ(peer.server.counts().inbound_bytes, 12'000'000U);
}

TEST(grpc_reply_call, a_stop_lets_uploads_come_to_their_end_and_takes_no_new_ones) {
    plain_peer peer;
    open_upload half(peer);
    ASSERT_TRUE(half.write(2, 1, "half"));
    wait_until_held(peer.server, 4);
    auto stopping = std::async(std::launch::async, [&] { peer.server.stop(patience); });
    const auto deadline = std::chrono::steady_clock::now() + patience;
    auto late = peer.reply({});
    while (late.ok() && std::chrono::steady_clock::now() < deadline) late = peer.reply({});
    EXPECT_EQ(late.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(stopping.wait_for(0s), std::future_status::timeout);
    EXPECT_FALSE(peer.server.is_alive()) << "from the beginning of the stop";
    ASSERT_TRUE(half.write(2, 2, "x"));
    EXPECT_EQ(half.finish().error_code(), StatusCode::INVALID_ARGUMENT) << "it was read to its end, and is no message";
    stopping.get();
}

TEST(grpc_reply_call, a_stop_ends_uploads_that_are_under_way_after_its_deadline) {
    plain_peer peer;
    open_upload half(peer);
    ASSERT_TRUE(half.write(2, 1, "half"));
    wait_until_held(peer.server, 4);
    peer.server.stop(0ms);
    EXPECT_EQ(half.wait_for_answer().error_code(), StatusCode::UNAVAILABLE);
}

/// An upload that is over just as a newer one asks for what is there of it.
struct ending_call : std::enable_shared_from_this<ending_call> {
    using guard = ferry::detail::basic_upload_guard<ending_call>;

    std::optional<ferry::chunk_assembler> give_up() {
        over->release(number, this, part);
        return std::exchange(part, std::nullopt);
    }
    void read_on() {}
    void end(errc, const std::string&) {}

    guard* over = nullptr;
    std::uint64_t number = 0;
    std::optional<ferry::chunk_assembler> part;
};

TEST(grpc_reply_call, an_upload_that_ends_just_as_it_is_asked_for_loses_nothing) {
    ending_call::guard guard({}, {}, [](auto) {});
    const auto older = std::make_shared<ending_call>(), newer = std::make_shared<ending_call>();
    older->over = newer->over = &guard;
    older->number = newer->number = 7;
    EXPECT_FALSE(guard.claim(7, older));
    older->part = guard.assembler();
    const std::vector<std::uint8_t> half(4);
    ASSERT_TRUE(older->part->begin(half.size(), 2) && older->part->write(half) && older->part->commit(2, 1));
    const auto part = guard.claim(7, newer);
    ASSERT_TRUE(part);
    EXPECT_EQ(part->received(), half.size());
    EXPECT_FALSE(guard.claim(7, older)) << "and it is in one place only";
}

}  // namespace
