// ferry's server and nodes as processes that take a benchmark's orders. Policies are the benchmark's to choose.
#pragma once

#include "process.hpp"
#include "security.hpp"
#include "timing.hpp"

#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/// A certificate's files; empty without TLS.
struct files {
    std::string key, cert;
};

/// As many as gRPC by hand has, at either side, where its callbacks run on threads of their own.
inline constexpr std::size_t callback_threads = 2;

inline std::string name_of_node(int i) { return "node-" + std::to_string(i); }

template <class Server = ferry::grpc_server>
class ferry_server_side final : public side {
public:
    /// With `default_threads` callbacks run on as many threads as a server has by itself, else on as many as gRPC by
    /// hand has.
    explicit ferry_server_side(const files& with, bool default_threads = false)
        : server_(options(with, default_threads)) {
        server_.start();
    }

    answer run(const order& o) override {
        answer a;
        a.port = server_.port();
        switch (o.kind) {
            case what::start: break;
            case what::download: return download(o);
            case what::upload: return upload(o);
            case what::requests: return o.nodes == 1 ? requests(o) : many_requests(o);
            case what::sends: return o.nodes == 1 || o.window == 0 ? sends(o) : many_sends(o);
            case what::idle: wait_for(o.count); break;
            case what::to_all: return to_all(o);
            default: throw std::runtime_error("ferry: no such order for a server");
        }
        return a;
    }

private:
    static ferry::server_options options(const files& with, bool default_threads) {
        ferry::server_options out;
        if (!default_threads) out.callback_pool = ferry::thread_pool{callback_threads};
        out.port = 0;
        out.wait_for_first_node = false;
        if (with.key.empty()) {
            out.ssl = ferry::plain_text{};
        } else {
            out.ssl = ferry::ssl_credentials{with.key, with.cert};
        }
        return out;
    }

    static void expect(bool good, const ferry::outcome& how) {
        if (!good) throw std::runtime_error("ferry: " + how.text);
    }
    static void expect_taken(const ferry::outcome& how) { expect(how.kind == ferry::outcome_kind::taken, how); }

    void wait_for(int nodes) {
        std::vector<std::string> ids;
        for (int i = 0; i < nodes; ++i) ids.push_back(name_of_node(i));
        if (!server_.wait_for_nodes(ids, std::chrono::seconds(60))) throw std::runtime_error("ferry: no nodes");
    }

    answer download(const order& o) {
        wait_for(o.nodes);
        if (tensor_.size() != o.bytes) tensor_ = ferry::bytes::own(std::vector<std::uint8_t>(o.bytes, 0x5a));
        const auto began = clock::now();
        ferry::message m = {{"tensor", tensor_}};
        for (auto& each : server_.broadcast(std::move(m))) expect_taken(each.wait());
        return {.seconds = seconds_since(began)};
    }

    answer upload(const order& o) {
        wait_for(1);
        const auto began = clock::now();
        const auto reply = server_.request({{"then", "upload"}}, name_of_node(0)).get();
        expect(bool(reply), reply.how);
        if (reply.message.at("tensor").template get<ferry::bytes>().size() != o.bytes)
            throw std::runtime_error("ferry: a reply is not whole");
        return {.seconds = seconds_since(began)};
    }

    static ferry::message small(const order& o, const char* then) {
        return {{"then", then}, {"text", std::string(o.bytes - 32, 'x')}};  // of o.bytes or so, encoded
    }

    answer requests(const order& o) {
        wait_for(1);
        const auto node = name_of_node(0);
        const auto message = small(o, "reply");
        std::vector<double> times;
        times.reserve(static_cast<std::size_t>(o.count));
        const auto began = clock::now();
        for (int i = 0; i < o.count; ++i) {
            const auto sent = clock::now();
            const auto reply = server_.request(message, node).get();
            expect(bool(reply), reply.how);
            times.push_back(seconds_since(sent));
        }
        return with_latencies(seconds_since(began), times);
    }

    /// To each node the next request from the callback of the one before.
    answer many_requests(const order& o) {
        wait_for(o.nodes);
        const auto message = small(o, "reply");
        std::mutex mutex;
        std::condition_variable changed;
        int left = o.nodes;
        bool good = true;
        std::vector<double> times;
        times.reserve(static_cast<std::size_t>(o.count) * static_cast<std::size_t>(o.nodes));
        std::function<void(int, int)> next = [&](int node, int count) {
            const auto sent = clock::now();
            server_.request(message, name_of_node(node)).on_reply([&, node, count, sent](const auto& reply) {
                const auto took = seconds_since(sent);
                bool more = false;
                {
                    const std::lock_guard lock(mutex);
                    times.push_back(took);
                    good = good && bool(reply);
                    more = bool(reply) && count > 1;
                    if (!more && --left == 0) changed.notify_all();
                }
                if (more) next(node, count - 1);
            });
        };
        const auto began = clock::now();
        for (int i = 0; i < o.nodes; ++i) next(i, o.count);
        std::unique_lock lock(mutex);
        if (!changed.wait_for(lock, std::chrono::seconds(120), [&] { return left == 0; }) || !good)
            throw std::runtime_error("ferry: a request failed");
        return with_latencies(seconds_since(began), times);
    }

    static answer with_latencies(double took, std::vector<double>& times) {
        answer a{.seconds = took};
        a.p50 = share_of(times, 0.5);
        a.p99 = share_of(times, 0.99);
        return a;
    }

    /// One caller, who waits for the oldest where the window is full. Without a window, all at once.
    answer sends(const order& o) {
        wait_for(o.nodes);
        const auto message = small(o, "take");
        const auto window = static_cast<std::size_t>(o.window == 0 ? o.count : o.window);
        std::vector<std::string> names;
        for (int i = 0; i < o.nodes; ++i) names.push_back(name_of_node(i));
        std::vector<std::deque<typename Server::delivery>> open(names.size());
        const auto began = clock::now();
        for (int i = 0; i < o.count; ++i) {
            for (std::size_t n = 0; n < names.size(); ++n) {
                if (open[n].size() == window) {
                    expect_taken(open[n].front().wait());
                    open[n].pop_front();
                }
                open[n].push_back(server_.send(message, names[n]));
            }
        }
        for (auto& each : open) {
            for (auto& delivery : each) expect_taken(delivery.wait());
        }
        return {.seconds = seconds_since(began)};
    }

    /// To each node the next one from the callback of one that has arrived: no node waits for others.
    answer many_sends(const order& o) {
        wait_for(o.nodes);
        const auto message = small(o, "take");
        struct progress {
            progress(std::string of, int to_send, int to_arrive)
                : name(std::move(of)), unsent(to_send), unarrived(to_arrive) {}
            const std::string name;
            std::atomic<int> unsent, unarrived;
        };
        std::deque<progress> all;
        std::mutex mutex;
        std::condition_variable changed;
        int left = o.nodes;
        std::atomic<bool> good = true;
        std::function<void(progress&)> next = [&](progress& to) {
            server_.send(message, to.name).on_done([&](const ferry::outcome& how) {
                if (how.kind != ferry::outcome_kind::taken) good = false;
                if (to.unsent-- > 0) next(to);
                if (--to.unarrived > 0) return;
                const std::lock_guard lock(mutex);
                if (--left == 0) changed.notify_all();
            });
        };
        const int window = std::min(o.window, o.count);
        for (int i = 0; i < o.nodes; ++i) all.emplace_back(name_of_node(i), o.count - window, o.count);
        const auto began = clock::now();
        for (auto& each : all) {
            for (int i = 0; i < window; ++i) next(each);
        }
        std::unique_lock lock(mutex);
        if (!changed.wait_for(lock, std::chrono::seconds(120), [&] { return left == 0; }) || !good)
            throw std::runtime_error("ferry: a send failed");
        return {.seconds = seconds_since(began)};
    }

    answer to_all(const order& o) {
        wait_for(o.count);
        const auto began = clock::now();
        kept_ = server_.broadcast(small(o, "take"));
        return {.seconds = seconds_since(began)};
    }

    Server server_;
    ferry::bytes tensor_;
    std::vector<typename Server::delivery> kept_;
};

template <class Client = ferry::grpc_client>
class ferry_node_side final : public side {
public:
    ferry_node_side(const files& with, bool polls) : with_(with), polls_(polls) {}

    answer run(const order& o) override {
        if (o.kind != what::start) throw std::runtime_error("ferry: no such order for a node");
        if (o.bytes > 0) tensor_ = ferry::bytes::own(std::vector<std::uint8_t>(o.bytes, 0x5a));
        for (int i = 0; i < o.nodes; ++i) {
            ferry::client_options options;
            options.node_id = name_of_node(i);
            options.researchers = {{"localhost", static_cast<std::uint16_t>(o.port), ferry::plain_text{}}};
            if (!with_.cert.empty()) options.researchers[0].trust = ferry::pinned_certificate{with_.cert};
            options.limits.streams = !polls_;
            options.callback_pool = callbacks_;
            if (o.window > 0) options.limits.max_waiting_tasks = static_cast<std::size_t>(o.window);
            nodes_.push_back(std::make_unique<Client>(options, [this](const ferry::task& task) { take(task); }));
            nodes_.back()->start();
        }
        return {};
    }

private:
    void take(const ferry::task& task) {
        const auto then = task.message().find("then");
        if (then == task.message().end() || *then == "take") return;
        if (*then == "upload") return void(task.reply({{"tensor", tensor_}}));
        task.reply({{"done", true}});
    }

    const files with_;
    const bool polls_;
    ferry::bytes tensor_;
    ferry::thread_pool callbacks_{callback_threads};  // shared by all nodes of a process
    std::vector<std::unique_ptr<Client>> nodes_;
};

}  // namespace bench
