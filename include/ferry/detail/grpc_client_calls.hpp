// layer 4
// The node's three calls as reactors. They carry bytes and report events; what is to happen is decided by the host.
//
// Each call keeps itself alive from `open` to OnDone. All of them go through gRPC's generic stub, with raw buffers.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace ferry::detail {

/// Who the calls report to, from gRPC's threads; must not block.
class client_calls_host {
public:
    virtual ~client_calls_host() = default;
    virtual void poll_accepted(std::uint64_t poll_id) = 0;
    virtual void poll_progress(std::uint64_t poll_id) = 0;
    /// `task` is empty where none came; `read` says what was wrong with its chunks.
    virtual void poll_ended(std::uint64_t poll_id, const grpc::Status& status, bool has_task, bytes task,
                            wire::read_result read) = 0;
    virtual void upload_range_sent(std::uint64_t upload_id) = 0;
    virtual void upload_ended(std::uint64_t upload_id, errc reason, std::string text) = 0;
    virtual void feedback_ended(std::uint64_t feedback_id, const grpc::Status& status) = 0;
};

/// One long poll. A task counts once the server's status was OK: before that the server would send it again.
class task_poll final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                        public std::enable_shared_from_this<task_poll> {
public:
    task_poll(std::shared_ptr<client_calls_host> host, std::uint64_t id, chunk_limits limits)
        : host_(std::move(host)), id_(id), chunks_(limits) {}

    void open(grpc::GenericStub& stub, const std::string& node, std::chrono::system_clock::time_point deadline) {
        self_ = shared_from_this();
        researcher::TaskRequest request;
        request.set_node(node);
        request.set_protocol_version(wire::protocol_version);
        request_ = wire::serialize(request);
        context_.set_deadline(deadline);
        stub.PrepareBidiStreamingCall(&context_, wire::get_task_unary, {}, this);
        StartWriteLast(&request_, {});
        StartRead(&in_);
        StartCall();
    }

    void cancel() { context_.TryCancel(); }

private:
    void OnReadInitialMetadataDone(bool ok) override {
        if (ok) host_->poll_accepted(id_);
    }

    void OnReadDone(bool ok) override {
        if (!ok) return;
        if (!take_chunk()) return context_.TryCancel();
        host_->poll_progress(id_);
        StartRead(&in_);
    }

    bool take_chunk() {
        const std::lock_guard lock(mutex_);
        read_ = wire::read_chunk(in_, chunks_);
        in_.Clear();
        if (read_.code == errc::ok && has_task_) read_ = {errc::protocol_error, "more than one task came in a poll"};
        if (read_.code != errc::ok) return false;
        if (chunks_.complete()) {
            task_ = chunks_.take();
            has_task_ = true;
        }
        return true;
    }

    void OnDone(const grpc::Status& status) override {
        const auto self = std::move(self_);
        std::unique_lock lock(mutex_);
        if (read_.code == errc::ok && status.ok() && chunks_.in_progress()) {
            read_ = {errc::stream_broken, "the stream ended before the task's last chunk"};
        }
        auto task = std::move(task_);
        auto read = std::move(read_);
        lock.unlock();
        host_->poll_ended(id_, status, has_task_, std::move(task), std::move(read));
    }

    std::shared_ptr<client_calls_host> host_;
    const std::uint64_t id_;
    std::shared_ptr<task_poll> self_;
    grpc::ClientContext context_;
    grpc::ByteBuffer request_, in_;
    std::mutex mutex_;
    chunk_assembler chunks_;
    bytes task_;
    bool has_task_ = false;
    wire::read_result read_;
};

/// One upload of one reply; well where the server's final status is.
class reply_upload final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                           public std::enable_shared_from_this<reply_upload> {
public:
    reply_upload(std::shared_ptr<client_calls_host> host, std::uint64_t id) : host_(std::move(host)), id_(id) {}

    void open(grpc::GenericStub& stub) {
        self_ = shared_from_this();
        stub.PrepareBidiStreamingCall(&context_, wire::reply_task, {}, this);
        AddHold();  // for ranges that come later
        StartRead(&response_);
        StartCall();
    }

    /// Writes a range; a content that is not in memory is read first. After the last chunk the stream is half-closed.
    void send(const std::shared_ptr<const payload>& content, const chunk& part) {
        if (content->in_memory()) return write(*content, part.offset, part);
        content->read(part.offset, part.length, [self = shared_from_this(), part](range_result range) {
            if (range.code == errc::ok && range.data.size() == part.length) return self->write(range.data, 0, part);
            self->fail(range.text.empty() ? "a range of the payload came short" : range.text);
        });
    }

    void cancel() {
        context_.TryCancel();
        let_go();
    }

private:
    void write(const payload& from, std::uint64_t offset, const chunk& part) {
        const std::lock_guard lock(mutex_);
        if (!holding_) return;
        wire::write_chunk(out_, part, from, offset);
        if (part.last()) {
            StartWriteLast(&out_, {});
            holding_ = false;
            RemoveHold();
        } else {
            StartWrite(&out_);
        }
    }

    void fail(std::string text) {
        {
            const std::lock_guard lock(mutex_);
            source_problem_ = std::move(text);
        }
        cancel();
    }

    void let_go() {
        const std::lock_guard lock(mutex_);
        if (std::exchange(holding_, false)) RemoveHold();
    }

    void OnWriteDone(bool ok) override {
        out_.Clear();
        if (ok) return host_->upload_range_sent(id_);
        let_go();
    }

    void OnReadDone(bool ok) override {
        if (!ok) let_go();  // the server ended the call, perhaps before the last chunk
    }

    void OnDone(const grpc::Status& status) override {
        const auto self = std::move(self_);
        std::string problem;
        {
            const std::lock_guard lock(mutex_);
            problem = source_problem_;
        }
        if (!problem.empty()) return host_->upload_ended(id_, errc::source_failed, std::move(problem));
        host_->upload_ended(id_, wire::to_errc(status), status.error_message());
    }

    std::shared_ptr<client_calls_host> host_;
    const std::uint64_t id_;
    std::shared_ptr<reply_upload> self_;
    grpc::ClientContext context_;
    grpc::ByteBuffer out_, response_;
    std::mutex mutex_;
    bool holding_ = true;
    std::string source_problem_;
};

/// One log or metric.
class feedback_call final : public grpc::ClientUnaryReactor, public std::enable_shared_from_this<feedback_call> {
public:
    feedback_call(std::shared_ptr<client_calls_host> host, std::uint64_t id) : host_(std::move(host)), id_(id) {}

    void open(grpc::GenericStub& stub, const std::string& content, std::chrono::system_clock::time_point deadline) {
        self_ = shared_from_this();
        const grpc::Slice slice(content);
        request_ = grpc::ByteBuffer(&slice, 1);
        context_.set_deadline(deadline);
        stub.PrepareUnaryCall(&context_, wire::send_feedback, {}, &request_, &response_, this);
        StartCall();
    }

    void cancel() { context_.TryCancel(); }

private:
    void OnDone(const grpc::Status& status) override {
        const auto self = std::move(self_);
        host_->feedback_ended(id_, status);
    }

    std::shared_ptr<client_calls_host> host_;
    const std::uint64_t id_;
    std::shared_ptr<feedback_call> self_;
    grpc::ClientContext context_;
    grpc::ByteBuffer request_, response_;
};

}  // namespace ferry::detail
