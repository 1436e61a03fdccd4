// The raw opponents as processes that take a benchmark's orders.
#pragma once

#include "../transport/process.hpp"
#include "../transport/timing.hpp"
#include "callback_pool.hpp"
#include "node.hpp"
#include "server.hpp"

#include <ferry/researcher.pb.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace raw {

using bench::answer;
using bench::order;
using bench::what;

/// A key and a certificate, as PEM text; empty without TLS.
struct security {
    std::string key, cert;
};

class server_side final : public bench::side {
public:
    /// With `hands_over`, what follows a reply runs on threads of its own, as ferry's callbacks do, and not where gRPC reads.
    explicit server_side(const security& with, bool hands_over = false, std::size_t chunk_bytes = usual_chunk_bytes)
        : callbacks_(hands_over ? new callback_pool : nullptr),  // until the process ends
          state_(chunk_bytes),
          server_(listen(service_, with.key, with.cert, port_)) {
        if (!server_) throw std::runtime_error("raw: can't listen");
    }

    answer run(const order& o) override {
        answer a;
        a.port = port_;
        switch (o.kind) {
            case what::start: break;
            case what::download: return download(o);
            case what::upload: return upload();
            case what::requests: return requests(o);
            case what::sends: return o.window == 0 ? polls(o) : sends(o);
            case what::idle: wait_for_polls(o.count); break;
            case what::to_all: return to_all(o);
            default: throw std::runtime_error("raw: no such order for a server");
        }
        return a;
    }

private:
    raw::run message(std::uint64_t bytes, then what_then) {
        if (content_.size() != bytes) content_.assign(bytes, 0x5a);
        content_[0] = static_cast<std::uint8_t>(what_then);
        return content_;
    }

    void wait_for_streams(int nodes) {
        if (!state_.wait([&] { return state_.streams.size() == static_cast<std::size_t>(nodes); }))
            throw std::runtime_error("raw: the nodes have not come");
    }

    void wait_for_polls(int nodes) {
        if (!state_.wait([&] { return state_.parked.size() == static_cast<std::size_t>(nodes); }))
            throw std::runtime_error("raw: the nodes don't poll");
    }

    answer download(const order& o) {
        wait_for_streams(o.nodes);
        const auto content = message(o.bytes, then::acknowledge);
        int left = o.nodes;
        state_.on_message([&](server_stream&, std::size_t) { state_.change([&] { --left; }); });
        const auto began = bench::clock::now();
        const auto sum = std::make_shared<shared_checksum>();
        for (auto* each : state_.streams) each->send(content, sum);
        if (!state_.wait([&] { return left == 0; })) throw std::runtime_error("raw: no acknowledgement");
        return {.seconds = bench::seconds_since(began)};
    }

    answer upload() {
        wait_for_streams(1);
        const auto content = message(64, then::upload);
        state_.change([&] { state_.uploads = 0; });
        const auto began = bench::clock::now();
        state_.streams.front()->send(content);
        if (!state_.wait([&] { return state_.uploads == 1; })) throw std::runtime_error("raw: no upload");
        if (!state_.upload_good) throw std::runtime_error("raw: an upload is damaged");
        return {.seconds = bench::seconds_since(began)};
    }

    /// To one node by a caller that waits for each reply, as `request(...).get()` does; to more from the replies'
    /// callbacks. The answer to a reply goes with the next request.
    answer requests(const order& o) {
        wait_for_streams(o.nodes);
        const auto content = message(o.bytes, then::reply);
        std::vector<double> times;
        times.reserve(static_cast<std::size_t>(o.count) * static_cast<std::size_t>(o.nodes));
        const auto began = bench::clock::now();
        if (o.nodes == 1) {
            bool came = false;
            state_.on_message([&](server_stream&, std::size_t) { state_.change([&] { came = true; }); });
            auto& to = *state_.streams.front();
            for (int i = 0; i < o.count; ++i) {
                const auto sent = bench::clock::now();
                i == 0 ? to.send(content) : to.send_answer(content);
                if (!state_.wait([&] { return std::exchange(came, false); })) throw std::runtime_error("raw: no reply");
                times.push_back(bench::seconds_since(sent));
            }
            to.send_answer();
        } else {
            int left = o.nodes;
            const auto reply_came = [&](server_stream& from) {
                const auto now = bench::clock::now();
                const auto took = std::chrono::duration<double>(now - from.sent).count();
                const bool more = --from.open > 0;
                from.sent = now;
                from.send_answer(more ? content : raw::run());
                state_.change([&] {
                    times.push_back(took);
                    return !more && --left == 0;  // the next order may change what is open as soon as nothing is left
                });
            };
            state_.on_message([&](server_stream& from, std::size_t) {
                callbacks_ ? callbacks_->post([&] { reply_came(from); }) : reply_came(from);
            });
            for (auto* each : state_.streams) {
                each->open = o.count;
                each->sent = began;
            }
            for (auto* each : state_.streams) each->send(content);
            if (!state_.wait([&] { return left == 0; })) throw std::runtime_error("raw: no replies");
        }
        answer a{.seconds = bench::seconds_since(began)};
        a.p50 = bench::share_of(times, 0.5);
        a.p99 = bench::share_of(times, 0.99);
        return a;
    }

    answer sends(const order& o) {
        wait_for_streams(o.nodes);
        const auto content = message(o.bytes, then::acknowledge);
        int left = o.nodes;
        struct progress {
            std::mutex mutex;
            int sent = 0, acknowledged = 0;
        };
        std::vector<progress> all(static_cast<std::size_t>(o.nodes));
        const auto acknowledged = [&](server_stream& from, int came) {
            auto& p = all[static_cast<std::size_t>(from.open)];
            const std::lock_guard lock(p.mutex);
            p.acknowledged += came;
            for (int i = 0; i < came && p.sent < o.count; ++i, ++p.sent) from.send(content);
            return p.acknowledged == o.count;
        };
        state_.on_message([&](server_stream& from, std::size_t bytes) {
            const auto deal_with = [&, came = static_cast<int>(bytes / 8)] {
                if (acknowledged(from, came)) state_.change([&] { --left; });
            };
            callbacks_ ? callbacks_->post(deal_with) : deal_with();
        });
        const auto began = bench::clock::now();
        for (int i = 0; auto* each : state_.streams) {
            each->open = i;
            all[static_cast<std::size_t>(i++)].sent = std::min(o.window, o.count);
        }
        for (auto* each : state_.streams) {
            for (int i = 0; i < std::min(o.window, o.count); ++i) each->send(content);
        }
        if (!state_.wait([&] { return left == 0; })) throw std::runtime_error("raw: no acknowledgements");
        return {.seconds = bench::seconds_since(began)};
    }

    /// `count` messages in all, each by a poll.
    answer polls(const order& o) {
        const auto content = message(o.bytes, then::acknowledge);
        wait_for_polls(o.nodes);
        std::vector<parked_poll*> parked;
        const auto total = static_cast<std::size_t>(o.count) * static_cast<std::size_t>(o.nodes);
        const auto began = bench::clock::now();
        state_.change([&] {
            state_.polls_over = 0;
            for (auto* each : state_.parked) parked.push_back(each);
            state_.parked.clear();
            state_.queued.assign(total - parked.size(), content);
        });
        for (auto* each : parked) each->send(content);
        if (!state_.wait([&] { return state_.polls_over == total; }))
            throw std::runtime_error("raw: polls are missing");
        return {.seconds = bench::seconds_since(began)};
    }

    answer to_all(const order& o) {
        const auto content = message(o.bytes, then::acknowledge);
        wait_for_polls(o.count);
        std::vector<parked_poll*> parked;
        state_.change([&] {
            for (auto* each : state_.parked) parked.push_back(each);
            state_.parked.clear();
        });
        const auto began = bench::clock::now();
        for (auto* each : parked) each->send(content);
        return {.seconds = bench::seconds_since(began)};
    }

    callback_pool* const callbacks_;
    server_state state_;
    service service_{state_};
    int port_ = 0;
    std::unique_ptr<grpc::Server> server_;
    std::vector<std::uint8_t> content_;
};

/// Also the idle nodes of ferry's server: a poll is a poll.
class node_side final : public bench::side {
public:
    node_side(const security& with, bool polls, bool hands_over = false)
        : cert_(with.cert), polls_(polls), callbacks_(hands_over ? new callback_pool : nullptr) {}

    answer run(const order& o) override {
        switch (o.kind) {
            case what::start: return start(o);
            case what::idle: return idle(o);
            case what::to_all: return wait_for_all(o);
            default: throw std::runtime_error("raw: no such order for a node");
        }
    }

private:
    answer start(const order& o) {
        if (o.bytes > 0) upload_.assign(o.bytes, 0x5a);
        for (int i = 0; i < o.nodes; ++i) {
            auto channel = connect(o.port, cert_);
            if (polls_) {
                new node_poll(std::make_shared<grpc::GenericStub>(std::move(channel)), request(i), true, nullptr,
                              callbacks_);
            } else {
                new node_stream(std::move(channel), upload_, callbacks_);  // until the process ends
            }
        }
        return {};
    }

    answer idle(const order& o) {
        std::vector<std::shared_ptr<grpc::GenericStub>> stubs;
        for (int i = 0; i < o.nodes; ++i) stubs.push_back(std::make_shared<grpc::GenericStub>(connect(o.port, cert_)));
        for (int i = 0; i < o.count; ++i) {
            new node_poll(stubs[static_cast<std::size_t>(i % o.nodes)], request(i), false, &count_);
        }
        return {};
    }

    answer wait_for_all(const order& o) {
        std::unique_lock lock(count_.mutex);
        const auto began = bench::clock::now();
        if (!count_.changed.wait_for(lock, std::chrono::seconds(120),
                                     [&] { return count_.over == static_cast<std::size_t>(o.count); }))
            throw std::runtime_error("raw: messages are missing: " + std::to_string(count_.over));
        if (count_.failed > 0) throw std::runtime_error("raw: polls failed: " + std::to_string(count_.failed));
        return {.seconds = bench::seconds_since(began)};
    }

    static std::string request(int i) {
        researcher::TaskRequest out;
        out.set_node("node-" + std::to_string(i));
        out.set_protocol_version("7");
        return out.SerializeAsString();
    }

    const std::string cert_;
    const bool polls_;
    callback_pool* const callbacks_;
    std::vector<std::uint8_t> upload_;
    poll_count count_;
};

}  // namespace raw
