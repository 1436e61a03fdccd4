// A server and a node over plain text: a request and its reply.
#include <ferry/ferry.hpp>

#include <chrono>
#include <iostream>

int main() {
    using namespace std::chrono_literals;

    ferry::server_options options;
    options.port = 0;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    ferry::grpc_server server(options);
    server.start();

    ferry::client_options dial;
    dial.node_id = "node-1";
    dial.researchers = {{"localhost", server.port(), ferry::plain_text{}}};
    ferry::grpc_client node(dial, [](ferry::task task) {
        task.reply({{"sum", task.message().at("a").get<int>() + task.message().at("b").get<int>()}});
    });
    node.start();

    server.wait_for_nodes(1, 30s);
    const auto reply = server.request({{"a", 40}, {"b", 2}}, "node-1").get();
    if (!reply) {
        std::cout << reply.how.text << "\n";
        return 1;
    }
    std::cout << "replied " << reply.message << "\n";
    return reply.message.at("sum") == 42 ? 0 : 1;
}
