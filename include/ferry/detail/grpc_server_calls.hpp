// layer 4
// The service, and the long poll as a reactor. It carries bytes and reports events; what is to happen is decided by the host.
// Streams and uploads have headers of their own, `detail/grpc_stream_call.hpp` and `detail/grpc_reply_call.hpp`.
//
// Each call keeps itself alive from its start to OnDone. Its own mutex guards all that it has, its operations and its one
// Finish; no event is reported under it.
#pragma once

#include <ferry/researcher.grpc.pb.h>
#include <ferry/chunk.hpp>
#include <ferry/detail/grpc_format.hpp>
#include <ferry/detail/grpc_reply_call.hpp>
#include <ferry/detail/grpc_stream_call.hpp>
#include <ferry/detail/grpc_task_call.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/error.hpp>
#include <ferry/feedback.hpp>
#include <ferry/frames.hpp>
#include <ferry/identity.hpp>
#include <ferry/payload.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace ferry::detail {

/// Who the calls report to, from gRPC's threads; must not block.
class server_calls_host : public stream_call_host {
public:
    virtual void poll_opened(std::shared_ptr<task_call> call, const std::string& connection,
                             std::chrono::steady_clock::time_point deadline) = 0;
    virtual void poll_closed(const std::shared_ptr<task_call>& call, bool clean) = 0;
    virtual void feedback_received(feedback from, std::size_t bytes) = 0;
};

/// One long poll.
template <class Host>
class basic_poll_call final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                              public task_call,
                              public std::enable_shared_from_this<basic_poll_call<Host>> {
public:
    basic_poll_call(std::shared_ptr<Host> host, std::string node) : host_(std::move(host)) { node_ = std::move(node); }

    void open(const grpc::CallbackServerContext& context) {
        const auto self = this->shared_from_this();
        {
            const std::lock_guard lock(mutex_);
            self_ = self;
        }
        host_->poll_opened(self, context.peer(), deadline_of(context));
        const std::lock_guard lock(mutex_);
        if (!speaks_ && !over_) StartSendInitialMetadata();  // tells the node that it is heard, where no task does
    }

    void refuse(const grpc::Status& why) {
        {
            const std::lock_guard lock(mutex_);
            self_ = this->shared_from_this();
        }
        finish(why);
    }

    /// Writes a range; a content that is not in memory is read first. After the last chunk the call ends well.
    void send(const std::shared_ptr<const payload>& content, const chunk& part) override {
        if (content->in_memory()) return write(*content, part.offset, part);
        content->read(part.offset, part.length, [self = this->shared_from_this(), part](range_result range) {
            if (range.code == errc::ok && range.data.size() == part.length) return self->write(range.data, 0, part);
            self->host_->poll_broken(self, errc::source_failed, range.text.empty() ? "a range came short" : range.text);
        });
    }

    void finish(const grpc::Status& how) override {
        const std::lock_guard lock(mutex_);
        if (std::exchange(over_, true)) return;
        Finish(how);
    }

private:
    static std::chrono::steady_clock::time_point deadline_of(const grpc::CallbackServerContext& context) {
        const auto deadline = context.deadline();
        if (deadline == deadline.max()) return std::chrono::steady_clock::time_point::max();
        return later(std::chrono::steady_clock::now(), deadline - std::chrono::system_clock::now());
    }

    void write(const payload& from, std::uint64_t offset, const chunk& part) {
        const std::lock_guard lock(mutex_);
        if (over_) return;
        speaks_ = true;
        wire::write_chunk(out_, part, from, offset);
        if (part.last()) {
            over_ = whole_ = true;
            StartWriteAndFinish(&out_, grpc::WriteOptions(), grpc::Status::OK);
        } else {
            StartWrite(&out_);
        }
    }

    void OnWriteDone(bool ok) override {
        grpc::ByteBuffer sent;  // goes without the lock: users' code may run then
        const auto self = [&] {
            const std::lock_guard lock(mutex_);
            sent.Swap(&out_);
            return self_;
        }();
        sent.Clear();
        if (ok) {
            self->host_->range_sent(self);
        } else {
            self->host_->poll_broken(self, errc::stream_broken, "the node's poll broke off");
        }
    }

    void OnCancel() override {
        const auto self = [this] {
            const std::lock_guard lock(mutex_);
            cancelled_ = true;
            return self_;
        }();
        self->host_->poll_broken(self, errc::stream_broken, "the node is gone, or ended its poll");
        self->finish(grpc::Status::CANCELLED);
    }

    void OnDone() override {
        std::unique_lock lock(mutex_);
        const auto self = std::move(self_);
        const bool clean = whole_ && !cancelled_;
        lock.unlock();
        self->host_->poll_closed(self, clean);
    }

    const std::shared_ptr<Host> host_;
    std::mutex mutex_;
    std::shared_ptr<basic_poll_call> self_;
    grpc::ByteBuffer out_;
    bool speaks_ = false;  // a chunk is or was under way
    bool over_ = false;    // Finish is under way
    bool whole_ = false;   // ... together with the last chunk
    bool cancelled_ = false;
};

/// The service's methods, as gRPC calls them: raw, so that nothing is parsed that is too large.
template <class Rpc>
using callback_methods = typename Rpc::template WithRawCallbackMethod_GetTask<
    typename Rpc::template WithRawCallbackMethod_GetTaskUnary<typename Rpc::template WithRawCallbackMethod_ReplyTask<
        typename Rpc::template WithRawCallbackMethod_Feedback<typename Rpc::Service>>>>;

/// The service, to be registered with one gRPC server. `Rpc` has a name so that gRPC's handlers are compiled only where a server is.
template <class Host, class Rpc = researcher::ResearcherService>
class basic_researcher_service final : public callback_methods<Rpc> {
public:
    basic_researcher_service(std::shared_ptr<Host> host, format_check format)
        : host_(std::move(host)), format_(std::move(format)) {}

    grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* GetTask(
        grpc::CallbackServerContext* context) override {
        const auto call = std::make_shared<basic_stream_call<stream_call_host>>(
            host_, host_->peer_of(*context), *context,
            [this, context](const std::string& who) { return format_.problem(*context, who); });
        call->open();
        return call.get();
    }

    grpc::ServerWriteReactor<grpc::ByteBuffer>* GetTaskUnary(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request) override {
        researcher::TaskRequest asked;
        const bool valid = request->Length() <= max_poll_bytes && wire::parse(*request, asked);
        let_go(*request);
        const auto call = std::make_shared<basic_poll_call<Host>>(host_, asked.node());
        if (!valid || asked.node().empty() || asked.node().size() > frames::max_node_id_bytes) {
            call->refuse(wire::to_status(errc::protocol_error, "a poll must name its node, by at most 1024 bytes"));
        } else if (!host_->admits(asked.node(), host_->peer_of(*context))) {
            call->refuse(wire::to_status(errc::not_permitted, "this peer may not poll as node " + asked.node()));
        } else if (const auto other = format_.problem(*context, "node " + asked.node()); !other.empty()) {
            call->refuse(wire::to_status(errc::protocol_error, other));
        } else {
            call->open(*context);
        }
        return call.get();
    }

    grpc::ServerReadReactor<grpc::ByteBuffer>* ReplyTask(grpc::CallbackServerContext* context,
                                                         grpc::ByteBuffer* response) override {
        const auto call =
            std::make_shared<basic_reply_call<reply_call_host>>(host_, host_->peer_of(*context), context, response);
        if (const auto other = format_.problem(*context, "the node at " + context->peer()); !other.empty()) {
            call->refuse(wire::to_status(errc::protocol_error, other));
        } else if (!host_->knows(call->peer())) {
            call->refuse(wire::to_status(errc::not_permitted, "this peer may speak for no node"));
        } else {
            call->open();
        }
        return call.get();
    }

    grpc::ServerUnaryReactor* Feedback(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override {
        *response = wire::empty_message();
        auto* reactor = context->DefaultReactor();
        reactor->Finish(take(*context, *request));
        return reactor;
    }

private:
    static constexpr std::size_t max_poll_bytes = 64 * 1024;

    grpc::Status take(const grpc::CallbackServerContext& context, const grpc::ByteBuffer& raw) {
        const auto bytes = raw.Length();
        if (bytes > frames::max_feedback_bytes) return wire::to_status(errc::too_large, "feedback has at most 4 MiB");
        researcher::FeedbackMessage request;
        if (!wire::parse(raw, request)) return wire::to_status(errc::protocol_error, "what came is no FeedbackMessage");
        const auto& node = request.has_log() ? request.log().node_id() : request.scalar().node_id();
        if (node.size() > frames::max_node_id_bytes)
            return wire::to_status(errc::protocol_error, "a node's id has at most 1024 bytes");
        if (!request.has_log() && !request.has_scalar())
            return wire::to_status(errc::protocol_error, "feedback must be a log or a scalar");
        if (!host_->admits(node, host_->peer_of(context)))
            return wire::to_status(errc::not_permitted, "this peer may not speak for node " + node);
        feedback from;
        if (wire::from_proto(request, from)) host_->feedback_received(std::move(from), bytes);
        return grpc::Status::OK;
    }

    /// Else gRPC keeps it for as long as the poll is open, and with it all that was read from the connection along with it.
    static void let_go(const grpc::ByteBuffer& request) { const_cast<grpc::ByteBuffer&>(request).Clear(); }

    const std::shared_ptr<Host> host_;
    const format_check format_;
};

using researcher_service = basic_researcher_service<server_calls_host>;

}  // namespace ferry::detail
