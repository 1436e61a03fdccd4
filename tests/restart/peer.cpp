// Server and node of the test of restarts, see sends_test.py. Both tell on stdout, a line each, with the time in nanoseconds of
// the clock that all processes share:
//
//   server STORE PORT FIRST      sends tasks from number FIRST on, to node-0 and node-1 in turns, for ever
//     sending N TIME
//     accepted N TIME
//     ended N KIND TIME
//   server STORE PORT -          sends none, and ends when nothing is open any more
//     open N                     tasks, at the start
//   node ID PORT                 runs the tasks that come
//     run N ATTEMPT TIME
#include <ferry/agent_store/sqlite.hpp>
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "../chaos/content.hpp"

#include <sys/prctl.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;
using server_type = ferry::basic_grpc_server<ferry::sqlite_agent_store>;

void say(const std::string& what, std::uint64_t number, const std::string& more = "") {
    static std::mutex one_writer;
    const std::lock_guard lock(one_writer);
    std::printf("%s %llu%s %lld\n", what.c_str(), static_cast<unsigned long long>(number), more.c_str(),
                static_cast<long long>(std::chrono::steady_clock::now().time_since_epoch().count()));
    std::fflush(stdout);
}

/// Each tenth lies in a file, and takes several chunks.
ferry::bytes content_of(std::uint64_t number) { return chaos::content(number, number % 10 == 0 ? 9'000'000 : 100); }

void send_for_ever(server_type& server, std::uint64_t number) {
    if (!server.wait_for_nodes({"node-0", "node-1"}, 30s) && server.get_all_nodes().size() < 2)
        throw std::runtime_error("the nodes did not come");
    std::deque<std::pair<std::uint64_t, server_type::delivery>> sent;
    for (;; ++number) {
        say("sending", number);
        auto made = server.send({{"n", number}, {"data", content_of(number)}}, "node-" + std::to_string(number % 2),
                                {.keep_while_disconnected = true});
        made.on_done(
            [number](const ferry::outcome& how) { say("ended", number, " " + std::string(to_string(how.kind))); });
        sent.emplace_back(number, std::move(made));
        if (sent.size() < 20) continue;
        if (sent.front().second.wait_accepted()) say("accepted", sent.front().first);
        sent.pop_front();
        while (server.pending().size() > 60) std::this_thread::sleep_for(1ms);
    }
}

void serve(const std::string& store, const std::string& port, const std::string& first) {
    ferry::server_options options;
    options.port = static_cast<std::uint16_t>(std::stoi(port));
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    server_type server(options, ferry::sqlite_agent_store({.file = store}));
    server.start();
    say("open", server.pending().size());
    if (first != "-") send_for_ever(server, std::stoull(first));
    while (!server.pending().empty()) std::this_thread::sleep_for(1ms);
}

void run_tasks(const std::string& id, const std::string& port) {
    ferry::client_options options;
    options.node_id = id;
    options.researchers = {{"localhost", static_cast<std::uint16_t>(std::stoi(port)), ferry::plain_text{}}};
    options.limits.reconnect = {5ms, 2, 50ms};
    ferry::grpc_client node(options, [](const ferry::task& task) {
        const auto number = task.message().at("n").get<std::uint64_t>();
        if (task.message().at("data").get<ferry::bytes>().view() != content_of(number).view()) say("wrong", number);
        say("run", number, " " + std::to_string(task.attempt()));
    });
    node.start();
    for (;;) std::this_thread::sleep_for(1h);
}

}  // namespace

int main(int argc, char** argv) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::string what = argc > 1 ? argv[1] : "";
    try {
        if (what == "server" && argc == 5) {
            serve(argv[2], argv[3], argv[4]);
        } else if (what == "node" && argc == 4) {
            run_tasks(argv[2], argv[3]);
        } else {
            std::fprintf(stderr, "usage: server STORE PORT FIRST | node ID PORT\n");
            return 2;
        }
    } catch (const std::exception& e) {
        std::fprintf(stderr, "error: %s\n", e.what());
        return 1;
    }
    return 0;
}
