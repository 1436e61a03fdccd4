// Servers and nodes of the test of servers that share a store, see shared_test.py. Both tell on stdout, a line each that ends
// with the time in nanoseconds of the clock that all processes share.
//
//   server STORE NAME PORT       STORE is redis:SOCKET or sqlite:FILE. It obeys, on stdin,
//     send N NODE WAY BYTES        WAY is send or request
//     count                        known nodes, and what is open
//     (its end)                    stops in order
//   and tells
//     serving, sending N, accepted N, ended N KIND, known N, open N
//     handled N                    about to return from the callback of the request's reply
//     unclaimed N                  the same of a reply that no handle waits for
//     wrong N                      a reply of other bytes, or of another task
//   nodes COUNT PORT...          node-0, node-1, ..., each of which begins at another of the ports
//     run N NODE                   about to reply to the task, or to return
//     wrong N
#include <ferry/agent_store/redis.hpp>
#include <ferry/agent_store/sqlite.hpp>
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "../chaos/content.hpp"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <exception>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;

void say(const std::string& what) {
    static std::mutex one_writer;
    const std::lock_guard lock(one_writer);
    std::printf("%s %lld\n", what.c_str(),
                static_cast<long long>(std::chrono::steady_clock::now().time_since_epoch().count()));
    std::fflush(stdout);
}
void say(const std::string& what, std::uint64_t number, const std::string& more = "") {
    say(what + " " + std::to_string(number) + more);
}

/// A reply has a content of its own, a fifth of the task's.
ferry::bytes content_of(std::uint64_t task, std::size_t size) { return chaos::content(task, size); }
ferry::bytes reply_to(std::uint64_t task, std::size_t size) { return chaos::content(~task, size / 5); }

/// Says of each delivery when it is accepted, in their order.
template <class Delivery>
class teller {
public:
    void add(std::uint64_t number, Delivery made) {
        const std::lock_guard lock(mutex_);
        waiting_.emplace_back(number, std::move(made));
        changed_.notify_one();
    }

private:
    void run(const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        while (changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
            const auto [number, made] = std::move(waiting_.front());
            waiting_.pop_front();
            lock.unlock();
            if (made.wait_accepted()) say("accepted", number);
            lock.lock();
        }
    }

    std::mutex mutex_;
    std::condition_variable_any changed_;
    std::deque<std::pair<std::uint64_t, Delivery>> waiting_;
    std::jthread thread_{[this](const std::stop_token& stop) { run(stop); }};
};

template <class Server>
class sender {
public:
    explicit sender(Server& server) : server_(server) { how_.keep_while_disconnected = true; }

    void obey(const std::string& line) {
        std::istringstream words(line);
        std::string what, node, way;
        std::uint64_t number = 0;
        std::size_t size = 0;
        words >> what >> number >> node >> way >> size;
        if (what == "count") {
            say("known", server_.get_all_nodes().size());
            say("open", server_.pending().size());
        } else if (what == "send") {
            say("sending", number);
            send(number, node, way == "request", size);
        }
    }

    static void handle(const char* what, const ferry::reply& reply) {
        const auto number = reply.message.at("n").template get<std::uint64_t>();
        const auto size = reply.message.at("size").template get<std::size_t>();
        const bool right =
            reply.message.at("data").template get<ferry::bytes>().view() == reply_to(number, size).view();
        if (!right || reply.message.at("request_id") != id_of(number)) say("wrong", number);
        say(what, number);
    }

private:
    static std::string id_of(std::uint64_t number) { return "task-" + std::to_string(number); }

    static void ended(std::uint64_t number, const ferry::outcome& how) {
        auto kind = std::string(to_string(how.kind));
        std::replace(kind.begin(), kind.end(), ' ', '_');
        if (!how) std::fprintf(stderr, "%s: %s: %s\n", id_of(number).c_str(), kind.c_str(), how.text.c_str());
        say("ended", number, " " + kind);
    }

    void send(std::uint64_t number, const std::string& node, bool asks, std::size_t size) {
        ferry::message message{{"request_id", id_of(number)},
                               {"n", number},
                               {"asks", asks},
                               {"size", size},
                               {"data", content_of(number, size)}};
        if (asks) {
            auto made = server_.request(std::move(message), node, how_);
            made.on_reply([number](const ferry::reply& reply) {
                if (reply) handle("handled", reply);
                ended(number, reply.how);
            });
            accepted_.add(number, std::move(made));
        } else {
            auto made = server_.send(std::move(message), node, how_);
            made.on_done([number](const ferry::outcome& how) { ended(number, how); });
            accepted_.add(number, std::move(made));
        }
    }

    Server& server_;
    ferry::send_options how_;
    teller<ferry::delivery> accepted_;
};

template <class Store>
void serve(std::uint16_t port, Store store) {
    ferry::server_options options;
    options.port = port;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    options.keepalive = {1s, 1s};
    options.limits.disconnect_after = 3s;
    ferry::basic_grpc_server<Store> server(options, std::move(store));
    server.on_unclaimed_reply(
        [](const ferry::reply& reply) { sender<ferry::basic_grpc_server<Store>>::handle("unclaimed", reply); });
    server.start();
    say("serving");
    {
        sender<ferry::basic_grpc_server<Store>> all(server);
        for (std::string line; std::getline(std::cin, line);) all.obey(line);
        server.stop();
    }
}

/// Times are short, so that the test is: a server that is stopped for three seconds has lost its journals.
template <class Store = ferry::redis_agent_store>
void serve_from_redis(std::uint16_t port, const std::string& socket, const std::string& name) {
    if constexpr (ferry::shared_agent_store<Store>) {
        serve(port, Store({.unix_socket = socket, .server = name, .answer_within = 5s, .lease = 2s}));
    } else {
        throw std::runtime_error("this store can't be shared");
    }
}

std::unique_ptr<ferry::grpc_client> make_node(std::size_t index, const std::vector<std::uint16_t>& ports) {
    ferry::client_options options;
    options.node_id = "node-" + std::to_string(index);
    ferry::researcher_address at{"localhost", ports[index % ports.size()], ferry::plain_text{}};
    for (std::size_t i = 1; i < ports.size(); ++i)
        at.also_at.push_back({"localhost", ports[(index + i) % ports.size()]});
    options.researchers = {at};
    options.keepalive = {1s, 500ms};
    options.limits.reconnect = {20ms, 2, 500ms};
    options.callback_threads = 1;
    return std::make_unique<ferry::grpc_client>(options, [id = options.node_id](const ferry::task& task) {
        const auto& message = task.message();
        const auto number = message.at("n").get<std::uint64_t>();
        const auto data = message.at("data").get<ferry::bytes>();
        const auto size = message.at("size").get<std::size_t>();
        if (data.view() != content_of(number, size).view()) say("wrong", number);
        say("run", number, " " + id);
        if (message.at("asks").get<bool>())
            task.reply({{"n", number}, {"size", size}, {"data", reply_to(number, size)}});
    });
}

std::uint16_t to_port(const std::string& text) { return static_cast<std::uint16_t>(std::stoi(text)); }

}  // namespace

int main(int argc, char** argv) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::vector<std::string> given(argv + 1, argv + argc);
    const std::string redis = "redis:", sqlite = "sqlite:";
    try {
        if (given.size() == 4 && given[0] == "server" && given[1].starts_with(redis)) {
            serve_from_redis(to_port(given[3]), given[1].substr(redis.size()), given[2]);
        } else if (given.size() == 4 && given[0] == "server" && given[1].starts_with(sqlite)) {
            serve(to_port(given[3]), ferry::sqlite_agent_store({.file = given[1].substr(sqlite.size())}));
        } else if (given.size() >= 3 && given[0] == "nodes") {
            std::vector<std::uint16_t> ports;
            for (std::size_t i = 2; i < given.size(); ++i) ports.push_back(to_port(given[i]));
            std::vector<std::unique_ptr<ferry::grpc_client>> nodes;
            for (std::size_t i = 0; i < std::stoul(given[1]); ++i) {
                nodes.push_back(make_node(i, ports));
                nodes.back()->start();
            }
            while (std::cin.get() != std::char_traits<char>::eof()) continue;
            for (auto& each : nodes) each->stop();
        } else {
            std::fprintf(stderr, "usage: server STORE NAME PORT | nodes COUNT PORT...\n");
            return 2;
        }
    } catch (const std::exception& e) {
        std::fprintf(stderr, "error: %s\n", e.what());
        return 1;
    }
    return 0;
}
