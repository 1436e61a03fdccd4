// A store that lasts: what one server has accepted, another one delivers that starts later on the same file.
#include <ferry/agent_store/sqlite.hpp>
#include <ferry/ferry.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>
#include <string>

using namespace std::chrono_literals;

// readme: server
using lasting_server = ferry::basic_grpc_server<ferry::sqlite_agent_store>;

std::unique_ptr<lasting_server> start(const std::string& file, std::uint16_t port) {
    ferry::server_options options;
    options.port = port;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    auto server = std::make_unique<lasting_server>(options, ferry::sqlite_agent_store({.file = file}));
    server->start();  // pending() and get_all_nodes() tell what is left from before
    return server;
}
// readme: end

ferry::client_options node_at(std::uint16_t port) {
    return {.node_id = "node-1", .researchers = {{"localhost", port, ferry::plain_text{}}}};
}

int main() {
    const auto folder = std::filesystem::temp_directory_path() / ("ferry-lasting." + std::to_string(::getpid()));
    std::filesystem::create_directory(folder);
    const auto file = (folder / "journals").string();

    auto server = start(file, 0);
    const auto port = server->port();
    auto node = std::make_unique<ferry::grpc_client>(node_at(port), [](const ferry::task&) {});
    node->start();
    server->wait_for_nodes(1, 10s);
    node->stop();  // it is away, and the server knows it

    // readme: accepted
    const auto delivery = server->send({{"round", 1}}, "node-1", {.keep_while_disconnected = true});
    delivery.wait_accepted();  // from here on the file has it, whatever becomes of this process
    // readme: end
    server.reset();

    server = start(file, port);
    std::cout << server->pending().size() << " task is still open\n";
    std::promise<int> came;
    node = std::make_unique<ferry::grpc_client>(
        node_at(port), [&](const ferry::task& task) { came.set_value(task.message().at("round").get<int>()); });
    node->start();
    const int round = came.get_future().get();
    std::cout << "round " << round << " came\n";
    node->stop();
    server.reset();
    std::filesystem::remove_all(folder);
    return round == 1 ? 0 : 1;
}
