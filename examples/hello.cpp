// A server and a node in one program: the node greets back.
#include <ferry/ferry.hpp>

#include <chrono>
#include <iostream>

int main() {
    using namespace std::chrono_literals;

    // readme: server
    ferry::server_options options;
    options.port = 0;                   // any free one
    options.ssl = ferry::plain_text{};  // in earnest: ferry::ssl_credentials{"server.key", "server.pem"}
    options.wait_for_first_node = false;
    ferry::grpc_server server(options);
    server.start();
    // readme: node
    ferry::client_options dial;
    dial.node_id = "node-1";
    dial.researchers = {{"localhost", server.port(), ferry::plain_text{}}};
    ferry::grpc_client node(dial, [](ferry::task task) {
        const auto name = task.message().at("name").get<std::string>();
        task.reply({{"greeting", "hello, " + name}});
    });
    node.start();
    // readme: request
    server.wait_for_nodes(1, 10s);
    const auto reply = server.request({{"name", "ferry"}}, "node-1").get();
    std::cout << (reply ? reply.message.at("greeting").get<std::string>() : reply.how.text) << "\n";
    // readme: end
    return reply ? 0 : 1;
}
