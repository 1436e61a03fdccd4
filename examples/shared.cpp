// A store that several servers share: each of them sends to any node, whichever of them the node is connected to. The program
// is told where a Redis is; with_redis.sh starts one for it.
#include <ferry/agent_store/redis.hpp>
#include <ferry/ferry.hpp>

#include <chrono>
#include <exception>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;

// readme: server
using sharing_server = ferry::basic_grpc_server<ferry::redis_agent_store>;

std::unique_ptr<sharing_server> start(const std::string& socket, const std::string& name) {
    ferry::server_options options;
    options.port = 0;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    auto server = std::make_unique<sharing_server>(
        options, ferry::redis_agent_store({.unix_socket = socket, .server = name}));  // its name among those that share
    server->start();
    return server;
}
// readme: end

int main(int argc, char** argv) try {
    if (argc != 2) {
        std::cerr << "usage: shared SOCKET, of a Redis\n";
        return 2;
    }
    const auto first = start(argv[1], "a"), second = start(argv[1], "b");

    // readme: node
    ferry::client_options options{.node_id = "node-1"};
    options.researchers = {{"localhost", second->port(), ferry::plain_text{}, {{"localhost", first->port()}}}};
    ferry::grpc_client node(options, [](const ferry::task& task) {  // where the second is gone, it goes to the first
        task.reply({{"sum", task.message().at("a").get<int>() + task.message().at("b").get<int>()}});
    });
    // readme: end
    node.start();

    if (!first->wait_for_nodes({"node-1"}, 10s)) throw std::runtime_error("the first server has not heard of the node");
    // readme: request
    const auto reply = first->request({{"a", 40}, {"b", 2}}, "node-1").get();  // the node is connected to the second
    // readme: end
    if (!reply) throw std::runtime_error(reply.how.text);
    std::cout << reply.node << " says " << reply.message.at("sum") << "\n";
    return reply.message.at("sum") == 42 ? 0 : 1;
} catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << "\n";
    return 1;
}
