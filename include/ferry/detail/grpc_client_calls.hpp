// layer 4
// The node's three calls as reactors. They carry bytes and report events; what is to happen is decided by the host.
//
// All of them go through gRPC's generic stub, with raw buffers. A call's own mutex guards what it has; no event is reported
// under it.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/grpc_format.hpp>
#include <ferry/detail/grpc_frames.hpp>
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
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ferry::detail {

/// Who the calls report to, from gRPC's threads; must not block.
class client_calls_host {
public:
    virtual ~client_calls_host() = default;
    virtual void poll_sent(std::uint64_t poll_id) = 0;
    virtual void poll_accepted(std::uint64_t poll_id) = 0;
    virtual void poll_progress(std::uint64_t poll_id) = 0;
    /// `task` is there where one came whole; `read` says what was wrong with its chunks.
    virtual void poll_ended(std::uint64_t poll_id, const grpc::Status& status, std::optional<bytes> task,
                            wire::read_result read) = 0;
    virtual void upload_accepted(std::uint64_t upload_id, std::uint64_t offset) = 0;
    virtual void upload_range_sent(std::uint64_t upload_id) = 0;
    virtual void upload_ended(std::uint64_t upload_id, errc reason, std::string text) = 0;
    virtual void feedback_ended(std::uint64_t feedback_id, const grpc::Status& status) = 0;
};

/// What the calls share: they keep themselves alive from their opening to OnDone, and may be cancelled before, in, or after.
/// A call that is cancelled before it is opened is never opened, and reports nothing.
template <class Call>
class client_call : public std::enable_shared_from_this<Call> {
public:
    void cancel() {
        const std::lock_guard lock(mutex_);
        cancelled_ = true;
        if (self_) context_.TryCancel();
    }

protected:
    client_call(std::shared_ptr<client_calls_host> host, std::uint64_t id) : host_(std::move(host)), id_(id) {}

    /// Under the mutex. False where the call must not be opened any more.
    bool begin() {
        if (cancelled_) return false;
        self_ = this->shared_from_this();
        return true;
    }

    /// For OnDone: what keeps the call alive until its end.
    std::shared_ptr<Call> end() {
        const std::lock_guard lock(mutex_);
        return std::move(self_);
    }

    const std::shared_ptr<client_calls_host> host_;
    const std::uint64_t id_;
    std::mutex mutex_;
    std::shared_ptr<Call> self_;
    grpc::ClientContext context_;
    bool cancelled_ = false;
};

/// One long poll. A task counts once the server's status was OK: before that the server would send it again.
class task_poll final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                        public client_call<task_poll> {
public:
    task_poll(std::shared_ptr<client_calls_host> host, std::uint64_t id, chunk_limits limits)
        : client_call(std::move(host), id), chunks_(limits) {}

    template <class Stub>
    void open(Stub& stub, const std::string& node, std::string_view format,
              std::chrono::system_clock::time_point deadline) {
        researcher::TaskRequest request;
        request.set_node(node);
        request.set_protocol_version(wire::protocol_version);
        const std::lock_guard lock(mutex_);
        if (!begin()) return;
        wire::serialize(request_, request);
        announce_format(context_, format);
        context_.set_deadline(deadline);
        stub.PrepareBidiStreamingCall(&context_, wire::get_task_unary, {}, this);
        StartWriteLast(&request_, {});
        StartRead(&in_);
        StartCall();
    }

private:
    void OnWriteDone(bool ok) override {
        if (!ok) return;
        publish();
        host_->poll_sent(id_);
    }

    void OnReadInitialMetadataDone(bool ok) override {
        if (!ok) return;
        publish();
        host_->poll_accepted(id_);
    }

    void OnReadDone(bool ok) override {
        if (!ok || !take_chunk()) return;
        host_->poll_progress(id_);
        const std::lock_guard lock(mutex_);
        StartRead(&in_);
    }

    bool take_chunk() {
        const std::lock_guard lock(mutex_);
        read_ = wire::read_chunk(in_, chunks_);
        in_.Clear();
        if (read_.code == errc::ok && task_) read_ = {errc::protocol_error, "more than one task came in a poll"};
        if (read_.code != errc::ok) {
            context_.TryCancel();
            return false;
        }
        if (chunks_.complete()) task_ = chunks_.take();
        return true;
    }

    void OnDone(const grpc::Status& status) override {
        const auto self = end();
        if (read_.code == errc::ok && status.ok() && chunks_.in_progress()) {
            read_ = {errc::stream_broken, "the stream ended before the task's last chunk"};
        }
        host_->poll_ended(id_, status, std::move(task_), std::move(read_));
    }

    void publish() { const std::lock_guard lock(mutex_); }

    grpc::ByteBuffer request_, in_;
    chunk_assembler chunks_;
    std::optional<bytes> task_;
    wire::read_result read_;
};

/// One upload of one reply; well where the server's final status is.
class reply_upload final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                           public client_call<reply_upload> {
public:
    /// With a name it can go on where an earlier one broke off: the server is asked first.
    reply_upload(std::shared_ptr<client_calls_host> host, std::uint64_t id, std::optional<wire::upload_name> name)
        : client_call(std::move(host), id), name_(name) {}

    template <class Stub>
    void open(Stub& stub, std::string_view format) {
        const std::lock_guard lock(mutex_);
        if (!begin()) return;
        announce_format(context_, format);
        if (name_) context_.AddMetadata(wire::upload_key, name_->to_text());
        stub.PrepareBidiStreamingCall(&context_, wire::reply_task, {}, this);
        AddHold();  // for ranges that come later
        holding_ = true;
        StartRead(&response_);
        StartCall();
        if (const auto early = std::exchange(early_, std::nullopt)) put(*early);
    }

    /// Writes a range; a content that is not in memory is read first. After the last chunk the stream is half-closed.
    void send(const std::shared_ptr<const payload>& content, const chunk& part) {
        const auto checksum = name_ ? content->checksum_of(part.offset + part.length) : std::nullopt;
        if (content->in_memory()) return write({content, part.offset, part, checksum});
        content->read(part.offset, part.length, [self = shared_from_this(), part](range_result range) {
            if (range.code == errc::ok && range.data.size() == part.length) {
                return self->write({std::make_shared<const payload>(std::move(range.data)), 0, part, std::nullopt});
            }
            self->fail(range.text.empty() ? "a range of the payload came short" : range.text);
        });
    }

    void cancel() {
        client_call::cancel();
        let_go();
    }

private:
    struct range {
        std::shared_ptr<const payload> data;
        std::uint64_t offset;  // in the data
        chunk part;
        std::optional<std::uint32_t> checksum;
    };

    void write(range&& what) {
        const std::lock_guard lock(mutex_);
        if (holding_) return put(what);
        if (!self_ && !cancelled_) early_ = std::move(what);
    }

    /// Under the mutex, while the call may still be written to.
    void put(const range& what) {
        wire::write_upload_part(out_, what.part, what.checksum, *what.data, what.offset);
        if (what.part.last()) {
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
        grpc::ByteBuffer sent;  // goes without the lock: users' code may run then
        {
            const std::lock_guard lock(mutex_);
            sent.Swap(&out_);
        }
        sent.Clear();
        if (ok) return host_->upload_range_sent(id_);
        let_go();
    }

    void OnReadInitialMetadataDone(bool ok) override {
        { const std::lock_guard lock(mutex_); }  // the call was opened
        if (!ok || !name_) return;
        const auto& told = context_.GetServerInitialMetadata();
        const auto found = told.find(wire::offset_key);
        std::optional<std::uint64_t> offset;
        if (found != told.end()) {
            offset = wire::to_number(std::string_view(found->second.data(), found->second.size()), 10);
        }
        host_->upload_accepted(id_, offset.value_or(0));
    }

    void OnReadDone(bool ok) override {
        if (!ok) let_go();  // the server ended the call, perhaps before the last chunk
    }

    void OnDone(const grpc::Status& status) override {
        const auto self = end();
        if (!source_problem_.empty()) return host_->upload_ended(id_, errc::source_failed, source_problem_);
        host_->upload_ended(id_, wire::to_errc(status), status.error_message());
    }

    grpc::ByteBuffer out_, response_;
    bool holding_ = false;
    const std::optional<wire::upload_name> name_;
    std::optional<range> early_;  // asked for before the call was opened
    std::string source_problem_;
};

/// One log or metric.
class feedback_call final : public grpc::ClientUnaryReactor, public client_call<feedback_call> {
public:
    feedback_call(std::shared_ptr<client_calls_host> host, std::uint64_t id) : client_call(std::move(host), id) {}

    template <class Stub>
    void open(Stub& stub, const std::string& content, std::chrono::system_clock::time_point deadline) {
        const grpc::Slice slice(content);
        const std::lock_guard lock(mutex_);
        if (!begin()) return;
        request_ = grpc::ByteBuffer(&slice, 1);
        context_.set_deadline(deadline);
        stub.PrepareUnaryCall(&context_, wire::send_feedback, {}, &request_, &response_, this);
        StartCall();
    }

private:
    void OnDone(const grpc::Status& status) override {
        const auto self = end();
        host_->feedback_ended(id_, status);
    }

    grpc::ByteBuffer request_, response_;
};

}  // namespace ferry::detail
