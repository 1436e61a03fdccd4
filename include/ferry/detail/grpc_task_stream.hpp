// layer 4
// The node's end of its stream as a reactor. It carries frames and bytes, and reports events; what is to happen is decided by
// the host.
#pragma once

#include <ferry/researcher.pb.h>
#include <ferry/detail/grpc_client_calls.hpp>
#include <ferry/detail/grpc_format.hpp>
#include <ferry/detail/grpc_frames.hpp>
#include <ferry/frames.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace ferry::detail {

/// Who streams report to, from gRPC's threads; must not block.
class stream_host : public client_calls_host {
public:
    virtual void stream_told(std::uint64_t id, researcher::TaskResponse&& what) = 0;
    /// A chunk of a delivery. Takes its bytes.
    virtual void stream_part(std::uint64_t id, const wire::part_header& header, grpc::ByteBuffer& in) = 0;
    virtual void stream_ended(std::uint64_t id, const grpc::Status& status) = 0;
};

class task_stream final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public client_call<task_stream> {
public:
    task_stream(std::shared_ptr<stream_host> host, std::uint64_t id)
        : client_call(host, id), stream_host_(std::move(host)) {}

    template <class Stub>
    void open(Stub& stub, const std::string& node, std::string_view format, const frames::hello& hello) {
        researcher::TaskRequest request;
        request.set_node(node);
        request.set_protocol_version(wire::protocol_version);
        wire::to_proto(hello, *request.mutable_hello());
        const std::lock_guard lock(mutex_);
        if (!begin()) return;
        announce_format(context_, format);
        stub.PrepareBidiStreamingCall(&context_, wire::get_task, {}, this);
        AddHold();  // for what is told later
        holding_ = writes_ = true;
        wire::serialize(out_, request);
        StartWrite(&out_);
        StartRead(&in_);
        StartCall();
    }

    // What is queued goes out with the next `flush`. Queueing touches no gRPC: it may be done under the host's lock, so that it
    // keeps the order of what the host has decided.
    template <class Fill>
    void queue(Fill&& fill) {
        const std::lock_guard lock(mutex_);
        if (!holding_) return;
        fill(told_);
        tells_ = true;
    }
    /// Ends the stream once all that was told has gone out.
    void queue_end() {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    void flush() {
        const std::lock_guard lock(mutex_);
        if (holding_) write_next();
    }

    void cancel() {
        client_call::cancel();
        let_go();
    }

private:
    /// Under the mutex, while holding.
    void write_next() {
        if (writes_) return;
        if (std::exchange(tells_, false)) {
            wire::serialize(out_, told_);
            told_.Clear();
            writes_ = true;
            StartWrite(&out_);
        } else if (closing_) {
            StartWritesDone();
            holding_ = false;
            RemoveHold();
        }
    }

    void let_go() {
        const std::lock_guard lock(mutex_);
        if (std::exchange(holding_, false)) RemoveHold();
    }

    void OnWriteDone(bool ok) override {
        {
            const std::lock_guard lock(mutex_);
            out_.Clear();
            writes_ = false;
            if (ok && holding_) write_next();
        }
        if (!ok) let_go();
    }

    void OnReadDone(bool ok) override {
        if (!ok) return let_go();                // the server ended the call
        { const std::lock_guard lock(mutex_); }  // what was read last is done with
        wire::part_header header;
        if (!wire::read_header(in_, header)) return cancel();
        if (header.says_more) {
            researcher::TaskResponse what;
            if (!wire::parse(in_, what)) return cancel();
            stream_host_->stream_told(id_, std::move(what));
        }
        if (header.is_part) stream_host_->stream_part(id_, header, in_);
        const std::lock_guard lock(mutex_);
        in_.Clear();
        StartRead(&in_);
    }

    void OnDone(const grpc::Status& status) override {
        const auto self = end();
        stream_host_->stream_ended(id_, status);
    }

    const std::shared_ptr<stream_host> stream_host_;
    grpc::ByteBuffer in_, out_;
    bool holding_ = false;
    bool writes_ = false;
    bool tells_ = false;
    bool closing_ = false;
    researcher::TaskRequest told_;  // and not yet written
};

}  // namespace ferry::detail
