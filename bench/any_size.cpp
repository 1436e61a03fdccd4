// A payload of any size, to a node and back, with bounded memory: it goes out from a mapped file, comes in to a spool file, and is
// replied from there. Server and node are processes of their own. Prints the most anonymous memory that each had resident.
//
//   any_size FOLDER MEGABYTES      the folder is made, and takes four times the size while it runs
#include <ferry/detail/crc32c.hpp>
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>
#include <ferry/malloc.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t mega = 1'000'000, threshold = 16 * mega, most_in_a_part = 1'000 * mega;
constexpr long limit_mega = 128;

/// The most anonymous memory of this process so far, in bytes.
class anonymous_memory {
public:
    long most() const { return most_; }

private:
    static long now() {
        std::ifstream status("/proc/self/status");
        for (std::string line; std::getline(status, line);) {
            if (line.starts_with("RssAnon:")) return std::atol(line.c_str() + 8) * 1024;
        }
        return 0;
    }

    std::atomic<long> most_ = 0;
    std::jthread watch_{[this](const std::stop_token& stop) {
        for (; !stop.stop_requested(); std::this_thread::sleep_for(10ms)) most_ = std::max(most_.load(), now());
    }};
};

std::vector<std::uint32_t> checksums(const ferry::message& parts) {
    std::vector<std::uint32_t> out;
    for (const auto& part : parts) {
        const auto run = part.get<ferry::bytes>();
        out.push_back(ferry::detail::crc32c(0, {run.data(), run.size()}));
    }
    return out;
}

void write_file(const std::string& path, std::uint64_t bytes) {
    std::ofstream out(path, std::ios::binary);
    std::vector<std::uint64_t> block(mega / 8);
    std::uint64_t state = 1;
    for (std::uint64_t written = 0; written < bytes; written += mega) {
        for (auto& each : block) each = state = state * 6364136223846793005U + 1442695040888963407U;
        out.write(reinterpret_cast<const char*>(block.data()), mega);
    }
}

/// The node: replies with what it was sent, until it is told to end. Its most memory goes to `result`.
int run_node(const std::string& folder, int port_from, int result) {
    std::uint16_t port = 0;
    if (::read(port_from, &port, sizeof port) != sizeof port) return 1;
    const anonymous_memory memory;
    std::promise<void> over;
    ferry::client_options options;
    options.node_id = "node";
    options.researchers = {{"localhost", port, ferry::plain_text{}}};
    options.spool = {folder + "/node", threshold};
    ferry::grpc_client node(options, [&](const ferry::task& task) {
        if (!task.message().contains("parts")) return over.set_value();
        const auto sums = checksums(task.message().at("parts"));
        task.reply({{"parts", task.message().at("parts")}, {"sums", sums}});
    });
    node.start();
    over.get_future().wait();
    node.stop(10s);
    const long most = memory.most();
    return ::write(result, &most, sizeof most) == sizeof most ? 0 : 1;
}

int run_server(const std::string& folder, std::uint64_t bytes, int port_to, int result) {
    write_file(folder + "/data", bytes);
    const anonymous_memory memory;
    ferry::server_options options;
    options.port = 0;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    options.spool = {folder + "/server", threshold};
    ferry::grpc_server server(options);
    server.start();
    const auto port = server.port();
    if (::write(port_to, &port, sizeof port) != sizeof port || !server.wait_for_nodes(1, 60s)) return 1;

    const auto file = ferry::bytes::map_file(folder + "/data");
    ferry::message parts = ferry::message::array();
    for (std::uint64_t at = 0; at < file.size(); at += most_in_a_part) parts.push_back(file.slice(at, most_in_a_part));
    const auto sums = checksums(parts);
    const auto began = std::chrono::steady_clock::now();
    const auto reply = server.request({{"parts", std::move(parts)}}, "node").get();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    if (!reply) {
        std::cerr << "error: " << reply.how.text << "\n";
        return 1;
    }
    const bool same = checksums(reply.message.at("parts")) == sums && reply.message.at("sums") == ferry::message(sums);
    server.send({{"bye", true}}, "node").wait();
    long of_node = 0;
    if (::read(result, &of_node, sizeof of_node) != sizeof of_node) return 1;
    const auto in_mega = [](long of) { return of / static_cast<long>(mega); };
    std::printf("%llu MB to a node and back in %.1f s, %s\n", static_cast<unsigned long long>(bytes / mega),
                took.count(), same ? "each checksum agrees" : "AND THE CHECKSUMS DIFFER");
    std::printf("anonymous memory at most: server %ld MB, node %ld MB (bound: %ld MB)\n", in_mega(memory.most()),
                in_mega(of_node), limit_mega);
    return same && in_mega(std::max(memory.most(), of_node)) < limit_mega ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3 || std::atoll(argv[2]) < 1) {
        std::fprintf(stderr, "usage: any_size FOLDER MEGABYTES\n");
        return 2;
    }
    const std::string folder = argv[1];
    ferry::return_unused_memory();
    int port[2], result[2];
    std::error_code problem;
    std::filesystem::create_directories(folder, problem);
    if (problem || ::pipe(port) != 0 || ::pipe(result) != 0) {
        std::fprintf(stderr, "error: %s can't be made, or there are no pipes\n", folder.c_str());
        return 2;
    }
    const auto node = ::fork();  // before gRPC has threads
    if (node < 0) {
        std::fprintf(stderr, "error: no fork\n");
        return 2;
    }
    // Each keeps its own ends: a side that waits for one that is gone reads the end.
    ::close(node == 0 ? port[1] : port[0]);
    ::close(node == 0 ? result[0] : result[1]);
    if (node == 0) return run_node(folder, port[0], result[1]);
    std::signal(SIGPIPE, SIG_IGN);
    const int status = run_server(folder, static_cast<std::uint64_t>(std::atoll(argv[2])) * mega, port[1], result[0]);
    if (status != 0) ::kill(node, SIGKILL);
    int of_node = 0;
    ::waitpid(node, &of_node, 0);
    std::filesystem::remove(folder + "/data", problem);
    return status != 0 || of_node != 0 ? 1 : 0;
}
