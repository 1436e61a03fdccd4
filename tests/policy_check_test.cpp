#include <ferry/detail/policy_check.hpp>

#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "loopback.hpp"

#include <grpcpp/create_channel.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace loopback;

/// The class that a server or client inherits all it does from, which is what is compiled.
template <class Serializer, class Store, class Retry, class ChunkSize, class Identity>
ferry::detail::grpc_server_impl<Serializer, Store, Retry, ChunkSize, Identity> base_of(
    const ferry::detail::grpc_server_impl<Serializer, Store, Retry, ChunkSize, Identity>*);
template <class Serializer, class Retry, class ChunkSize>
ferry::detail::grpc_client_impl<Serializer, Retry, ChunkSize> base_of(
    const ferry::detail::grpc_client_impl<Serializer, Retry, ChunkSize>*);

template <class T>
using implementation = std::type_identity<decltype(base_of(std::declval<const T*>()))>;

template <class... Ts>
constexpr bool share_their_implementation = false;
template <class T, class... Ts>
constexpr bool share_their_implementation<T, Ts...> = (std::is_same_v<implementation<T>, implementation<Ts>> && ...) &&
                                                      (!std::is_same_v<T, Ts> && ...);

using bytes_1000 = ferry::max_message_bytes_length<1000>;

/// Counts how often it was asked, wherever a copy of it was.
struct counting_retry {
    using policy_category = ferry::retry_tag;
    std::shared_ptr<int> asked = std::make_shared<int>(0);
    std::optional<std::chrono::milliseconds> next(const ferry::failed_attempt&) {
        ++*asked;
        return std::nullopt;
    }
};

TEST(policy_check, servers_share_their_implementation_whatever_the_order) {
    using ferry::basic_grpc_server;
    EXPECT_TRUE((share_their_implementation<
                 basic_grpc_server<ferry::no_retry, bytes_1000, ferry::token_identity>,
                 basic_grpc_server<ferry::no_retry, ferry::token_identity, bytes_1000>,
                 basic_grpc_server<bytes_1000, ferry::no_retry, ferry::token_identity>,
                 basic_grpc_server<bytes_1000, ferry::token_identity, ferry::no_retry>,
                 basic_grpc_server<ferry::token_identity, ferry::no_retry, bytes_1000>,
                 basic_grpc_server<ferry::token_identity, bytes_1000, ferry::no_retry>,
                 basic_grpc_server<ferry::token_identity, bytes_1000, ferry::memory_agent_store, ferry::no_retry>>));
    EXPECT_TRUE(
        (share_their_implementation<
            basic_grpc_server<>, basic_grpc_server<ferry::bounded_retry>,
            basic_grpc_server<ferry::msgpack_serializer<>, ferry::bounded_retry>,
            basic_grpc_server<ferry::bounded_retry, ferry::msgpack_serializer<>>,
            basic_grpc_server<ferry::open_identity, ferry::max_message_bytes_length<>, ferry::memory_agent_store>>));
    EXPECT_FALSE((share_their_implementation<basic_grpc_server<>, basic_grpc_server<ferry::no_retry>>));
}

TEST(policy_check, clients_share_their_implementation_whatever_the_order) {
    using ferry::basic_grpc_client;
    EXPECT_TRUE(
        (share_their_implementation<basic_grpc_client<ferry::no_retry, bytes_1000>,
                                    basic_grpc_client<bytes_1000, ferry::no_retry>,
                                    basic_grpc_client<bytes_1000, ferry::msgpack_serializer<>, ferry::no_retry>>));
    EXPECT_TRUE((share_their_implementation<basic_grpc_client<>, basic_grpc_client<ferry::bounded_retry>,
                                            basic_grpc_client<ferry::max_message_bytes_length<>>>));
    EXPECT_FALSE((share_their_implementation<basic_grpc_client<>, basic_grpc_client<bytes_1000>>));
}

TEST(policy_check, policy_objects_are_handed_over_in_any_order) {
    using server_type = ferry::basic_grpc_server<counting_retry, ferry::token_identity>;
    const counting_retry first_retry, second_retry;
    const auto tokens = ferry::token_identity{}.allow("node", "secret");
    server_type first(server_options(), first_retry, tokens);
    server_type second(server_options(), tokens, second_retry);
    EXPECT_GT(first_retry.asked.use_count(), 1) << "the server has another one";
    EXPECT_GT(second_retry.asked.use_count(), 1) << "the server has another one";
}

// --- chunk sizes: each end cuts by its own, and takes any ------------------------------------------------------------------

using bytes_7 = ferry::max_message_bytes_length<7>;

template <class OfServer, class OfNode>
void exchange(std::size_t size) {
    SCOPED_TRACE(testing::Message() << OfServer::value << " and " << OfNode::value);
    ferry::basic_grpc_server<OfServer> server(server_options());
    server.start();
    ferry::basic_grpc_client<OfNode> node(client_options("node", server.port()), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto data = some_bytes(size);
    const auto reply = server.request({{"data", data}}, "node").get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").template get<ferry::bytes>(), data);
    EXPECT_EQ(reply.how.attempts, 1);
}

TEST(policy_check, chunk_sizes_of_both_ends_may_differ) {
    exchange<bytes_7, bytes_1000>(3500);
    exchange<bytes_1000, bytes_7>(3500);
}

/// All chunks are full but the last; together they are what was sent.
template <class Chunks>
void expect_cut(const std::vector<std::string>& parts, const ferry::message& sent) {
    std::string all;
    ASSERT_GT(parts.size(), 2U);
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) EXPECT_EQ(parts[i].size(), Chunks::value) << i;
    EXPECT_LE(parts.back().size(), Chunks::value);
    for (const auto& part : parts) all += part;
    EXPECT_EQ(ferry::msgpack_serializer<>{}.decode(ferry::bytes::copy(all)), sent);
}

TEST(policy_check, a_server_cuts_by_its_own_chunk_size) {
    ferry::basic_grpc_server<bytes_1000> server(server_options());
    server.start();
    const auto stub = researcher::ResearcherService::NewStub(
        grpc::CreateChannel("localhost:" + std::to_string(server.port()), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    researcher::TaskRequest request;
    request.set_node("node");
    request.set_protocol_version("7");
    const auto poll = stub->GetTaskUnary(&context, request);
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const ferry::message sent{{"data", some_bytes(3500)}};
    const auto delivery = server.send(sent, "node");
    std::vector<std::string> parts;
    for (researcher::TaskResponse chunk; poll->Read(&chunk);) parts.push_back(chunk.bytes_());
    EXPECT_TRUE(poll->Finish().ok());
    server.stop(0ms);  // no other poll will show that the node has the task
    EXPECT_EQ(delivery.wait().kind, ferry::outcome_kind::stopped);
    expect_cut<bytes_1000>(parts, sent);
}

/// Takes uploads, and has no tasks.
struct upload_taker : researcher::ResearcherService::Service {
    grpc::Status ReplyTask(grpc::ServerContext*, grpc::ServerReader<researcher::TaskResult>* upload,
                           researcher::Empty*) override {
        for (researcher::TaskResult chunk; upload->Read(&chunk);) parts.push_back(chunk.bytes_());
        return grpc::Status::OK;
    }

    std::vector<std::string> parts;
};

TEST(policy_check, a_node_cuts_by_its_own_chunk_size) {
    upload_taker taker;
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("localhost:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&taker);
    const auto server = builder.BuildAndStart();
    ASSERT_TRUE(server);
    ferry::basic_grpc_client<bytes_1000> node(client_options("node", static_cast<std::uint16_t>(port)), echo);
    node.start();
    const ferry::message sent{{"data", some_bytes(3500)}, {"node_id", "node"}};
    const auto sending = node.send(sent);
    EXPECT_EQ(sending.at(0).wait().kind, ferry::outcome_kind::taken);
    node.stop();
    server->Shutdown();
    expect_cut<bytes_1000>(taker.parts, sent);
}

}  // namespace
