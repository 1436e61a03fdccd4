// What the tests of the promises share: a server and its node, a researcher that the test speaks for, and all ways in which a
// handle tells how it ended.
#pragma once

#include "plain_peer.hpp"

#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace loopback {

/// False where it didn't come true in good time.
template <class Met>
bool soon(Met&& met) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!met()) {
        if (std::chrono::steady_clock::now() >= deadline) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

/// False where it didn't come in good time.
template <class T>
bool comes(const std::future<T>& future) {
    return future.wait_for(patience) == std::future_status::ready;
}

/// A server that waits for nothing when it ends.
inline ferry::server_options quick_server() {
    auto options = server_options();
    options.stop_deadline = 0ms;
    return options;
}

inline ferry::client_options quick_client(const std::string& id, std::uint16_t port) {
    auto options = client_options(id, port);
    options.stop_deadline = 0ms;
    return options;
}

/// Lines from any thread, in their order.
class notes {
public:
    void add(std::string line) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(std::move(line));
    }
    std::vector<std::string> all() const {
        const std::lock_guard lock(mutex_);
        return lines_;
    }
    std::size_t size() const { return all().size(); }
    /// How many lines hold the text.
    std::ptrdiff_t holding(const std::string& text) const {
        const std::lock_guard lock(mutex_);
        return std::ranges::count_if(lines_, [&](const auto& each) { return each.find(text) != std::string::npos; });
    }

    /// For the options: keeps the lines of one level.
    std::function<void(ferry::log_level, const std::string&)> of(ferry::log_level wanted) {
        return [this, wanted](ferry::log_level level, const std::string& text) {
            if (level == wanted) add(text);
        };
    }

private:
    mutable std::mutex mutex_;
    std::vector<std::string> lines_;
};

/// Without the environment variable, which is brought back in the end.
struct without_setup_timeout : testing::Test {
    without_setup_timeout() {
        if (const char* was = std::getenv(variable)) was_ = was;
        ::unsetenv(variable);
    }
    ~without_setup_timeout() override { was_ ? ::setenv(variable, was_->c_str(), 1) : ::unsetenv(variable); }

    static void set(const std::string& value) { ASSERT_EQ(::setenv(variable, value.c_str(), 1), 0); }

private:
    static constexpr const char* variable = "GRPC_SERVER_SETUP_TIMEOUT";
    std::optional<std::string> was_;
};

/// Of several chunks, and more than the network holds where nobody reads.
inline ferry::message bulk() { return {{"n", 0}, {"data", some_bytes(20'000'000)}}; }

/// Of a log line.
inline std::string text_of(const ferry::feedback& line) { return std::get<ferry::log_line>(line).message; }

/// A server and a node called "node", which echoes.
struct server_and_node {
    explicit server_and_node(std::function<void(ferry::task)> on_task = echo,
                             ferry::server_options options = quick_server())
        : server(std::move(options)) {
        server.start();
        node = std::make_unique<ferry::grpc_client>(quick_client("node", server.port()), std::move(on_task));
        node->start();
        EXPECT_TRUE(server.wait_for_nodes({"node"}, patience));
    }

    ferry::grpc_server server;
    std::unique_ptr<ferry::grpc_client> node;
};

/// A poll that is over: its node is WAITING when this returns.
inline void poll_once(plain_peer& peer, const std::string& node) {
    peer.open_poll(node)->cancel();
    ASSERT_TRUE(soon(
        [&] { return peer.server.get_node(node).value_or(ferry::node_info{}).status == ferry::node_status::waiting; }));
}

inline ferry::feedback a_line(const std::string& node, const std::string& text) {
    return ferry::log_line{node, "INFO", text};
}

inline grpc::Status tell(plain_peer& peer, const ferry::feedback& what) {
    grpc::ClientContext context;
    researcher::Empty nothing;
    return peer.stub->Feedback(&context, ferry::wire::to_proto(what, {}), &nothing);
}

/// A node that asks for its tasks one after another, and tells what each held under "n".
class polling_node {
public:
    polling_node(plain_peer& peer, std::string id) : peer_(peer), id_(std::move(id)) {}

    int next() {
        std::string task;
        if (!peer_.poll(id_, &task).ok()) return -1;
        return ferry::msgpack_serializer<>{}.decode(ferry::bytes::copy(task)).at("n").get<int>();
    }

private:
    plain_peer& peer_;
    std::string id_;
};

/// A researcher's server that the test speaks for. It holds polls until there is a task, and accepts uploads as it is told.
class fake_researcher final : public researcher::ResearcherService::Service {
public:
    using upload = grpc::ServerReader<researcher::TaskResult>;
    /// Of the upload that is the n-th to begin, from 1.
    using answer = std::function<grpc::Status(int n, upload& in, const grpc::ServerContext& context)>;

    explicit fake_researcher(answer on_upload = {}) : on_upload_(std::move(on_upload)) {
        grpc::ServerBuilder builder;
        builder.AddListeningPort("localhost:0", grpc::InsecureServerCredentials(), &port_);
        builder.RegisterService(this);
        server_ = builder.BuildAndStart();
    }
    ~fake_researcher() override { server_->Shutdown(std::chrono::system_clock::now()); }

    std::uint16_t port() const { return static_cast<std::uint16_t>(port_); }
    int uploads() const { return uploads_; }
    std::size_t feedback() const { return feedback_; }

    void send(std::string task) {
        const std::lock_guard lock(mutex_);
        tasks_.push_back(std::move(task));
        changed_.notify_one();
    }

    static std::string read_all(upload& in) {
        std::string all;
        researcher::TaskResult chunk;
        while (in.Read(&chunk)) all += chunk.bytes_();
        return all;
    }

    /// Until the other side has given the call up, or the test lets go.
    static void hold(const grpc::ServerContext& context, const std::atomic<bool>& let_go) {
        while (!context.IsCancelled() && !let_go) std::this_thread::sleep_for(1ms);
    }

private:
    grpc::Status GetTaskUnary(grpc::ServerContext* context, const researcher::TaskRequest*,
                              grpc::ServerWriter<researcher::TaskResponse>* out) override {
        out->SendInitialMetadata();
        researcher::TaskResponse chunk;
        {
            std::unique_lock lock(mutex_);
            while (tasks_.empty()) {
                if (context->IsCancelled()) return grpc::Status::CANCELLED;
                changed_.wait_for(lock, 5ms);
            }
            chunk.set_bytes_(std::move(tasks_.front()));
            tasks_.pop_front();
        }
        chunk.set_size(1);
        chunk.set_iteration(1);
        out->Write(chunk);
        return grpc::Status::OK;
    }

    grpc::Status ReplyTask(grpc::ServerContext* context, upload* in, researcher::Empty*) override {
        const int n = ++uploads_;
        if (on_upload_) return on_upload_(n, *in, *context);
        read_all(*in);
        return grpc::Status::OK;
    }

    grpc::Status Feedback(grpc::ServerContext*, const researcher::FeedbackMessage*, researcher::Empty*) override {
        ++feedback_;
        return grpc::Status::OK;
    }

    const answer on_upload_;
    int port_ = 0;
    std::atomic<int> uploads_{0};
    std::atomic<std::size_t> feedback_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::string> tasks_;
    std::unique_ptr<grpc::Server> server_;
};

/// How a delivery or request ended, as each way of its handle tells it: all must tell the same, and none twice.
template <class Handle>
ferry::outcome end_of(Handle handle) {
    struct told {
        std::mutex mutex;
        std::vector<ferry::outcome> ends;
        std::promise<void> last;
    };
    const auto by_callbacks = std::make_shared<told>();
    const auto take = [by_callbacks](const ferry::outcome& how) {
        const std::lock_guard lock(by_callbacks->mutex);
        by_callbacks->ends.push_back(how);
    };
    std::size_t expected = 2;
    handle.on_done(take);
    if (!handle.wait_for(patience)) {
        ADD_FAILURE() << "it never ended";
        return {};
    }
    EXPECT_TRUE(handle.done());
    std::vector<ferry::outcome> all{handle.wait(), *handle.wait_for(0s)};
    handle.on_done(take);
    if constexpr (requires { handle.get(); }) {
        all.push_back(handle.get().how);
        all.push_back(handle.future().get().how);
        EXPECT_EQ(static_cast<bool>(handle.get()), all[0].kind == ferry::outcome_kind::replied);
        handle.on_reply([take](const auto& reply) { take(reply.how); });
        expected = 3;
    }
    // A node's callbacks run one after another: this is the last.
    handle.on_done([by_callbacks](const ferry::outcome&) { by_callbacks->last.set_value(); });
    EXPECT_TRUE(comes(by_callbacks->last.get_future()));
    const std::lock_guard lock(by_callbacks->mutex);
    EXPECT_EQ(by_callbacks->ends.size(), expected);
    all.insert(all.end(), by_callbacks->ends.begin(), by_callbacks->ends.end());
    for (const auto& each : all) {
        EXPECT_EQ(each.kind, all[0].kind);
        EXPECT_EQ(each.reason, all[0].reason);
        EXPECT_EQ(each.text, all[0].text);
        EXPECT_EQ(each.attempts, all[0].attempts);
    }
    EXPECT_EQ(all[0].reason == ferry::errc::ok, static_cast<bool>(all[0])) << "what did not end well says why";
    EXPECT_EQ(all[0].text.empty(), static_cast<bool>(all[0]));
    return all[0];
}

}  // namespace loopback
