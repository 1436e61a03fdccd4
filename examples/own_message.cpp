// A struct of one's own as the message: its fields are named once, for every serializer. No message of ferry's is in between,
// and its weights go to the socket from where they are.
#include <ferry/ferry.hpp>

#include <chrono>
#include <cstddef>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

// readme: struct
struct training {
    std::string request_id, node_id;  // filled in by ferry
    int rounds = 0;
    std::vector<std::byte> weights;
};

template <>
struct ferry::message_traits<training> : ferry::message_ids<&training::request_id, &training::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("request_id", &training::request_id), ferry::field("node_id", &training::node_id),
                      ferry::field("rounds", &training::rounds), ferry::field("weights", &training::weights));
};

using training_format = ferry::msgpack_serializer<training>;  // or json_serializer<training>
using training_server = ferry::basic_grpc_server<training_format>;
using training_node = ferry::basic_grpc_client<training_format>;
// readme: end

int main() {
    ferry::server_options options;
    options.port = 0;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    training_server server(options);
    server.start();

    ferry::client_options dial;
    dial.node_id = "node-1";
    dial.researchers = {{"localhost", server.port(), ferry::plain_text{}}};
    training_node node(dial, [](const ferry::basic_task<training>& task) {
        training done = task.message();
        for (auto& weight : done.weights) weight ^= std::byte{1};
        --done.rounds;
        task.reply(std::move(done));
    });
    node.start();
    if (!server.wait_for_nodes(1, std::chrono::seconds(10))) return 1;

    training first;
    first.rounds = 3;
    first.weights.resize(10'000'000);
    const auto reply = server.request(std::move(first), "node-1").get();
    if (!reply) return std::cerr << reply.how.text << "\n", 1;
    std::cout << reply.message.node_id << ": " << reply.message.rounds << " rounds left, "
              << reply.message.weights.size() << " weights\n";
    return reply.message.rounds == 2 && reply.message.weights.at(9'999'999) == std::byte{1} ? 0 : 1;
}
