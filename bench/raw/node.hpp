// The raw opponents' node: gRPC's callback API and nothing else.
#pragma once

#include "callback_pool.hpp"
#include "messages.hpp"

#include <ferry/detail/grpc_callback_queue.hpp>

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace raw {

inline constexpr const char* get_task = "/researcher.ResearcherService/GetTask";
inline constexpr const char* get_task_unary = "/researcher.ResearcherService/GetTaskUnary";
inline constexpr const char* reply_task = "/researcher.ResearcherService/ReplyTask";

/// What a node is to do with a message, by the message's first byte.
enum class then : std::uint8_t { acknowledge = 'a', reply = 'r', upload = 'u' };
inline constexpr std::size_t reply_bytes = 100;

inline std::shared_ptr<grpc::Channel> connect(int port, const std::string& cert) {
    ferry::detail::keep_callback_queue<grpc::GenericStub>();  // calls that are over take the last channel with them
    grpc::ChannelArguments args;
    args.SetMaxReceiveMessageSize(100 << 20);
    args.SetMaxSendMessageSize(100 << 20);
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);  // from here on as ferry has it
    args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
    args.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20'000);
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = cert;
    return grpc::CreateCustomChannel("localhost:" + std::to_string(port),
                                     cert.empty() ? grpc::InsecureChannelCredentials() : grpc::SslCredentials(tls),
                                     args);
}

/// Sends one message up, in chunks.
class upload_call final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
public:
    upload_call(grpc::GenericStub& stub, run content) : chunks_(content) {
        stub.PrepareBidiStreamingCall(&context_, reply_task, {}, this);
        next();
        StartRead(&in_);
        StartCall();
    }

private:
    void next() {
        chunks_.next(out_);
        chunks_.done() ? StartWriteLast(&out_, {}) : StartWrite(&out_);
    }
    void OnWriteDone(bool ok) override {
        if (ok && !chunks_.done()) next();
    }
    void OnDone(const grpc::Status&) override { delete this; }

    cutter chunks_;
    grpc::ClientContext context_;
    grpc::ByteBuffer in_, out_;
};

class node_stream final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
public:
    /// Answers on the threads of `callbacks`, or where gRPC reads.
    node_stream(std::shared_ptr<grpc::Channel> channel, run upload, callback_pool* callbacks)
        : stub_(std::move(channel)), upload_(upload), callbacks_(callbacks) {
        stub_.PrepareBidiStreamingCall(&context_, get_task, {}, this);
        AddHold();
        StartRead(&in_);
        StartCall();
    }

private:
    void OnReadDone(bool ok) override {
        if (!ok) return RemoveHold();
        std::size_t bytes = 0;
        chunks_.take(in_, [&] { bytes += came(); });
        in_.Clear();
        if (!chunks_.good()) return context_.TryCancel();
        if (bytes > 0) callbacks_ ? callbacks_->post([this, bytes] { answer(bytes); }) : answer(bytes);
        StartRead(&in_);
    }
    /// How many bytes answer it. An acknowledgement is a number of 8 bytes; one of no content is the server's answer to
    /// a reply.
    std::size_t came() {
        if (chunks_.head().total == 0) return 0;
        const auto what = static_cast<then>(*chunks_.data());
        chunks_.release();
        if (!chunks_.good()) return 0;
        if (what == then::upload) new upload_call(stub_, upload_);  // it deletes itself
        return what == then::upload ? 0 : what == then::reply ? reply_bytes : 8;
    }
    /// What came together is answered together, and so is what has to wait, as ferry's receipts are.
    void answer(std::size_t bytes) {
        const std::lock_guard lock(mutex_);
        waiting_.resize(waiting_.size() + bytes);
        write_next();
    }
    void write_next() {
        if (writing_ || waiting_.empty()) return;
        const grpc::Slice all(waiting_.data(), waiting_.size());
        waiting_.clear();
        out_ = grpc::ByteBuffer(&all, 1);
        writing_ = true;
        StartWrite(&out_);
    }
    void OnWriteDone(bool ok) override {
        const std::lock_guard lock(mutex_);
        writing_ = false;
        out_.Clear();
        if (ok) write_next();
    }
    void OnDone(const grpc::Status&) override {}

    grpc::GenericStub stub_;
    const run upload_;
    callback_pool* const callbacks_;
    grpc::ClientContext context_;
    assembler chunks_;
    std::mutex mutex_;
    std::vector<std::uint8_t> waiting_;
    bool writing_ = false;
    grpc::ByteBuffer in_, out_;
};

/// How many polls are over.
struct poll_count {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t over = 0, failed = 0;
};

/// One poll after another, or just one. The request is whatever the server wants to read.
class node_poll final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
public:
    /// With `callbacks`, one of these runs for each message, and does nothing; and a poll has the deadline that the protocol's have.
    node_poll(std::shared_ptr<grpc::GenericStub> stub, std::string request, bool again, poll_count* count,
              callback_pool* callbacks = nullptr)
        : stub_(std::move(stub)), request_(std::move(request)), again_(again), count_(count), callbacks_(callbacks) {
        if (callbacks_) context_.set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
        stub_->PrepareBidiStreamingCall(&context_, get_task_unary, {}, this);
        const grpc::Slice all(request_);
        out_ = grpc::ByteBuffer(&all, 1);
        StartWriteLast(&out_, {});
        StartRead(&in_);
        StartCall();
    }

private:
    void OnReadDone(bool ok) override {
        if (!ok) return;
        if (again_) {
            chunks_.take(in_, [this] {
                chunks_.release();
                if (callbacks_) callbacks_->post([] {});
            });
        }
        in_.Clear();
        StartRead(&in_);
    }
    void OnDone(const grpc::Status& status) override {
        if (count_) {
            const std::lock_guard lock(count_->mutex);
            ++count_->over;
            if (!status.ok()) ++count_->failed;
            count_->changed.notify_all();
        }
        if (again_ && status.ok()) new node_poll(std::move(stub_), std::move(request_), true, count_, callbacks_);
        delete this;
    }

    std::shared_ptr<grpc::GenericStub> stub_;
    std::string request_;
    const bool again_;
    poll_count* const count_;
    callback_pool* const callbacks_;
    grpc::ClientContext context_;
    assembler chunks_;
    grpc::ByteBuffer in_, out_;
};

}  // namespace raw
