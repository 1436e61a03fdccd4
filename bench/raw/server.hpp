// The raw opponents' server: gRPC's callback API and nothing else. Each node has one bidirectional stream, or polls.
#pragma once

#include "messages.hpp"

#include <ferry/researcher.grpc.pb.h>

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace raw {

class server_stream;
class parked_poll;

/// What several threads have in common, and one waits for.
class watched {
public:
    template <class Ready>
    bool wait(Ready&& ready) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(120), ready);
    }
    /// `what()` may return whether who waits is to be told.
    template <class Change>
    void change(Change&& what) {
        bool tell = true;
        {
            const std::lock_guard lock(mutex_);
            if constexpr (std::is_void_v<decltype(what())>) {
                what();
            } else {
                tell = what();
            }
        }
        if (tell) changed_.notify_all();
    }

protected:
    std::mutex mutex_;
    std::condition_variable changed_;
};

/// What the streams and polls of all nodes have in common.
class server_state : public watched {
public:
    explicit server_state(std::size_t bytes_of_chunks) : chunk_bytes(bytes_of_chunks) {}
    const std::size_t chunk_bytes;

    using came_function = std::function<void(server_stream&, std::size_t bytes)>;

    /// What is done when a message of a node has come, by gRPC's threads.
    void on_message(came_function what) {
        const std::lock_guard lock(mutex_);
        came_ = std::make_shared<const came_function>(std::move(what));
    }
    void came(server_stream& from, std::size_t bytes) {
        const auto what = [this] {
            const std::lock_guard lock(mutex_);
            return came_;
        }();
        if (what) (*what)(from, bytes);
    }

    // Guarded by the mutex:
    std::vector<server_stream*> streams;
    std::deque<parked_poll*> parked;
    std::deque<run> queued;  // for polls
    std::size_t polls_over = 0;
    std::size_t uploads = 0;
    bool upload_good = true;

private:
    friend class parked_poll;
    std::shared_ptr<const came_function> came_;
};

class server_stream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
public:
    explicit server_stream(server_state& state) : state_(state) {
        state_.change([&] { state_.streams.push_back(this); });
        StartRead(&in_);
    }

    /// To several nodes with a checksum that they share.
    void send(run content, std::shared_ptr<shared_checksum> shared = nullptr) {
        const std::lock_guard lock(mutex_);
        waiting_.emplace_back(content, state_.chunk_bytes, std::move(shared));
        write_next();
    }
    /// What a server of ferry's answers to a reply. The next message goes with it where there is one.
    void send_answer(run and_next = {}) {
        const std::lock_guard lock(mutex_);
        waiting_.emplace_back(run(), state_.chunk_bytes);
        if (!and_next.empty()) waiting_.emplace_back(and_next, state_.chunk_bytes);
        write_next();
    }

    int open = 0;  // for whoever uses it
    std::chrono::steady_clock::time_point sent;

private:
    void write_next() {
        if (writing_ || waiting_.empty()) return;
        raw::write_next(out_, waiting_);
        writing_ = true;
        StartWrite(&out_);
    }
    void OnWriteDone(bool ok) override {
        const std::lock_guard lock(mutex_);
        writing_ = false;
        out_.Clear();
        if (ok) write_next();
    }
    void OnReadDone(bool ok) override {
        if (!ok) return Finish(grpc::Status::OK);
        const auto bytes = in_.Length();
        in_.Clear();
        state_.came(*this, bytes);
        StartRead(&in_);
    }
    void OnDone() override {
        state_.change([&] { std::erase(state_.streams, this); });
        delete this;
    }

    server_state& state_;
    std::mutex mutex_;
    std::deque<cutter> waiting_;
    bool writing_ = false;
    grpc::ByteBuffer in_, out_;
};

/// A poll that waits for a message, which ends it.
class parked_poll final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
public:
    explicit parked_poll(server_state& state) : state_(state) {
        run content;
        {
            const std::lock_guard lock(state_.mutex_);
            if (state_.queued.empty()) {
                state_.parked.push_back(this);
                state_.changed_.notify_all();
                return;
            }
            content = state_.queued.front();
            state_.queued.pop_front();
        }
        send(content);
    }
    void send(run content) {
        cutter(content).next(out_);
        StartWriteAndFinish(&out_, {}, grpc::Status::OK);
    }

private:
    void OnDone() override {
        state_.change([&] { ++state_.polls_over; });
        delete this;
    }
    server_state& state_;
    grpc::ByteBuffer out_;
};

class upload final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
public:
    upload(server_state& state, grpc::ByteBuffer* response) : state_(state) {
        const grpc::Slice nothing;
        *response = grpc::ByteBuffer(&nothing, 1);
        StartRead(&in_);
    }

private:
    void OnReadDone(bool ok) override {
        if (!ok) return Finish(grpc::Status::OK);
        chunks_.take(in_, [this] {
            state_.change([&] {
                ++state_.uploads;
                state_.upload_good = state_.upload_good && chunks_.good();
            });
            chunks_.release();
        });
        in_.Clear();
        StartRead(&in_);
    }
    void OnDone() override { delete this; }
    server_state& state_;
    assembler chunks_;
    grpc::ByteBuffer in_;
};

using methods = researcher::ResearcherService::WithRawCallbackMethod_GetTask<
    researcher::ResearcherService::WithRawCallbackMethod_GetTaskUnary<
        researcher::ResearcherService::WithRawCallbackMethod_ReplyTask<researcher::ResearcherService::Service>>>;

class service final : public methods {
public:
    explicit service(server_state& state) : state_(state) {}
    grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* GetTask(grpc::CallbackServerContext*) override {
        return new server_stream(state_);
    }
    grpc::ServerWriteReactor<grpc::ByteBuffer>* GetTaskUnary(grpc::CallbackServerContext*,
                                                             const grpc::ByteBuffer*) override {
        return new parked_poll(state_);
    }
    grpc::ServerReadReactor<grpc::ByteBuffer>* ReplyTask(grpc::CallbackServerContext*,
                                                         grpc::ByteBuffer* response) override {
        return new upload(state_, response);
    }

private:
    server_state& state_;
};

/// Listens on a port of the system's choice.
inline std::unique_ptr<grpc::Server> listen(grpc::Service& with, const std::string& key, const std::string& cert,
                                            int& port) {
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(100 << 20);
    builder.SetMaxSendMessageSize(100 << 20);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               1000);  // these too as ferry has them
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(&with);
    grpc::SslServerCredentialsOptions tls;
    tls.pem_key_cert_pairs.push_back({key, cert});
    builder.AddListeningPort("localhost:0",
                             key.empty() ? grpc::InsecureServerCredentials() : grpc::SslServerCredentials(tls), &port);
    return builder.BuildAndStart();
}

}  // namespace raw
