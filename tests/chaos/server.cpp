// The server of the test with real processes, see chaos_test.py. It sends tasks to node-0, node-1, ..., half of them as
// requests, and says on stdout, a line each:
//
//   listening PORT
//   nodes                            all have polled
//   accepted TASK NODE               in each node's order of sending
//   ended TASK KIND ATTEMPTS TEXT
//   wrong TASK WHAT                  the reply is not what the node was asked for
//   pending NODE TASK ...            for each, when asked for
//   {"sent": ..., "outcomes": {...}, "wrong": ...}    all have ended
//
//   server --cert FILE --key FILE --nodes N --tasks N --big N --seed N --reply-within SECONDS
//
// It obeys `go N` (tasks below N may be sent) and `pending` on stdin, and ends when that does.
#include <ferry/grpc_server.hpp>

#include "content.hpp"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;

constexpr std::size_t max_open_tasks = 8;  // of one node
constexpr std::size_t big_bytes = 50'000'000;
constexpr std::size_t big_reply_bytes = 20'000'000;

void say(const std::string& line) {
    static std::mutex one_writer;
    const std::lock_guard lock(one_writer);
    std::cout << line << std::endl;
}

struct planned {
    std::size_t node;
    std::size_t content_bytes;
    bool wants_reply;
    std::size_t reply_bytes;
};

/// The big ones are spread evenly. Each other one is a request with a big reply, as are some small ones in between.
std::vector<planned> make_plan(std::size_t tasks, std::size_t big, std::size_t nodes) {
    std::vector<planned> plan(tasks);
    for (std::size_t i = 0; i < tasks; ++i) {
        plan[i] = {i % nodes, 512 + chaos::mixed(i) % 1024, i / nodes % 2 == 1, 512 + chaos::mixed(~i) % 1024};
    }
    for (std::size_t i = 0; i < big; ++i) {
        plan[(4 * i + 1) * tasks / (4 * big)] = {i % nodes, big_bytes, i % 2 == 1, big_reply_bytes};
        if (i % 2 == 0) plan[(4 * i + 3) * tasks / (4 * big)] = {(i + 1) % nodes, 1024, true, big_reply_bytes};
    }
    return plan;
}

class sender {
public:
    sender(ferry::server_options options, std::vector<planned> plan, std::size_t nodes, std::uint64_t seed,
           std::chrono::seconds reply_within)
        : plan_(std::move(plan)),
          seed_(seed),
          waiting_(nodes),
          open_(nodes),
          server_(std::move(options), ferry::bounded_retry{1000, 1h}) {
        how_.keep_while_disconnected = true;
        how_.reply_within = reply_within;
        for (std::size_t i = 0; i < plan_.size(); ++i) waiting_[plan_[i].node].push_back(i);
        server_.start();
        say("listening " + std::to_string(server_.port()));
    }

    void obey(const std::string& line) {
        std::istringstream words(line);
        std::string what;
        words >> what;
        if (what == "go") {
            const std::lock_guard lock(mutex_);
            words >> allowed_;
            changed_.notify_all();
        } else if (what == "pending") {
            for (const auto& each : server_.pending()) {
                say("pending " + each.node + " " + each.request_id + " attempts " + std::to_string(each.attempts) +
                    (each.taken ? " taken" : "") + (each.wants_reply ? " request" : " send"));
            }
            for (const auto& each : server_.get_all_nodes()) {
                say("pending " + each.id + " is " + std::string(to_string(each.status)) + ", " +
                    std::to_string(each.queued_tasks) + " queued");
            }
        }
    }

    void give_up() {
        const std::lock_guard lock(mutex_);
        given_up_ = true;
        changed_.notify_all();
    }

    /// Returns when all have ended, or it is given up.
    void run() {
        std::vector<std::string> names;
        for (std::size_t i = 0; i < waiting_.size(); ++i) names.push_back(name(i));
        if (!server_.wait_for_nodes(names, 30s)) {
            std::fputs("server: not all nodes have polled\n", stderr);
            std::quick_exit(EXIT_FAILURE);
        }
        say("nodes");
        std::unique_lock lock(mutex_);
        while (!given_up_ && ended_ < plan_.size()) {
            if (const auto next = take_next(); next < plan_.size()) {
                lock.unlock();
                send(next);
                lock.lock();
            } else {
                changed_.wait(lock);
            }
        }
        if (!given_up_) say(nlohmann::json{{"sent", sent_}, {"outcomes", outcomes_}, {"wrong", wrong_}}.dump());
    }

private:
    static std::string name(std::size_t node) { return "node-" + std::to_string(node); }

    std::size_t take_next() {
        for (std::size_t node = 0; node < waiting_.size(); ++node) {
            auto& tasks = waiting_[node];
            if (tasks.empty() || tasks.front() >= allowed_ || open_[node] >= max_open_tasks) continue;
            const auto next = tasks.front();
            tasks.pop_front();
            ++open_[node];
            ++sent_;
            return next;
        }
        return plan_.size();
    }

    void send(std::size_t task) {
        const auto& what = plan_[task];
        const auto content = chaos::content(seed_ ^ chaos::mixed(task), what.content_bytes);
        const auto hash = chaos::hash(content, task);
        ferry::message message = {{"request_id", "task-" + std::to_string(task)}, {"task", task}, {"hash", hash}};
        message["content"] = content;
        const auto accepted = "accepted " + std::to_string(task) + " " + name(what.node);
        if (what.wants_reply) {
            message["reply_bytes"] = what.reply_bytes;
            auto request = server_.request(std::move(message), name(what.node), how_);
            say(accepted);
            request.on_reply([this, task, hash](const ferry::reply& reply) {
                if (reply) check(task, hash, reply.message);
                ended(task, reply.how);
            });
        } else {
            auto delivery = server_.send(std::move(message), name(what.node), how_);
            say(accepted);
            delivery.on_done([this, task](const ferry::outcome& how) { ended(task, how); });
        }
    }

    void check(std::size_t task, std::uint64_t hash, const ferry::message& reply) {
        std::string problem;
        try {
            if (reply.at("task").get<std::size_t>() != task) problem = "a reply to another task";
            if (reply.at("hash").get<std::uint64_t>() != hash) problem = "the node has other bytes";
            const auto content = reply.at("content").get<ferry::bytes>();
            const auto expected = chaos::content(chaos::reply_seed(seed_, task), plan_[task].reply_bytes);
            if (content.view() != expected.view()) problem = "a reply of other bytes";
        } catch (const std::exception& e) {
            problem = e.what();
        }
        if (problem.empty()) return;
        say("wrong " + std::to_string(task) + " " + problem);
        const std::lock_guard lock(mutex_);
        ++wrong_;
    }

    void ended(std::size_t task, const ferry::outcome& how) {
        auto kind = std::string(to_string(how.kind));
        auto text = how.text;
        std::replace(kind.begin(), kind.end(), ' ', '_');
        std::replace(text.begin(), text.end(), '\n', ' ');
        say("ended " + std::to_string(task) + " " + kind + " " + std::to_string(how.attempts) + " " + text);
        const std::lock_guard lock(mutex_);
        ++outcomes_[kind];
        ++ended_;
        --open_[plan_[task].node];
        changed_.notify_all();
    }

    const std::vector<planned> plan_;
    const std::uint64_t seed_;
    ferry::send_options how_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::deque<std::size_t>> waiting_;
    std::vector<std::size_t> open_;
    std::size_t allowed_ = 0, sent_ = 0, ended_ = 0, wrong_ = 0;
    std::map<std::string, std::size_t> outcomes_;
    bool given_up_ = false;
    ferry::grpc_server server_;
};

void run(const std::map<std::string, std::string>& given) {
    const auto number = [&](const char* option) { return std::stoull(given.at(option)); };
    ferry::server_options options;
    options.host = "127.0.0.1";
    options.port = 0;
    options.ssl = ferry::ssl_credentials{given.at("--key"), given.at("--cert")};
    options.wait_for_first_node = false;
    options.keepalive = {1s, 2s};
    options.limits.disconnect_after = 5s;  // a node may be DISCONNECTED when it is slow to come back
    options.limits.idle_limit = options.inbound.idle_limit = 10s;
    const auto nodes = number("--nodes");
    sender all(std::move(options), make_plan(number("--tasks"), number("--big"), nodes), nodes, number("--seed"),
               std::chrono::seconds(number("--reply-within")));
    std::jthread commands([&] {
        for (std::string line; std::getline(std::cin, line);) all.obey(line);
        all.give_up();
    });
    all.run();
}

}  // namespace

int main(int argc, char** argv) try {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    std::map<std::string, std::string> given;
    for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = argv[i + 1];
    run(given);
    return EXIT_SUCCESS;
} catch (const std::exception& e) {
    std::fprintf(stderr, "server: %s\n", e.what());
    return EXIT_FAILURE;
}
