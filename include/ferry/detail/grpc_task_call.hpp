// layer 4
// What the server's ends of a poll and of a stream have in common, and who streams report to.
#pragma once

#include <ferry/researcher.pb.h>
#include <ferry/chunk.hpp>
#include <ferry/detail/grpc_reply_call.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/identity.hpp>
#include <ferry/payload.hpp>

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ferry::detail {

/// A poll or a stream: what tasks go over.
class task_call {
public:
    virtual ~task_call() = default;

    /// Fixed once the host has heard of the call.
    const std::string& node() const noexcept { return node_; }

    virtual void finish(const grpc::Status& how) = 0;

    /// It takes too long.
    virtual void give_up() {}

    /// Of a poll.
    virtual void send(const std::shared_ptr<const payload>&, const chunk&) {}

    // Of a stream. What is queued goes out with the next `flush`, what is told before a range. Queueing touches no gRPC: it may
    // be done under the host's lock, so that it keeps the order of what the host has decided.
    virtual void queue(const std::shared_ptr<const payload>&, const chunk&, const frames::delivery_head&) {}
    virtual void queue_whole(std::shared_ptr<const payload>, const frames::delivery_head&) {}
    virtual void queue(researcher::TaskResponse&&) {}
    virtual void flush() {}

protected:
    std::string node_;
};

/// Who streams report to, from gRPC's threads; must not block. A `connection` is gRPC's name of the peer: it has the peer's
/// port, so it is unique among open connections.
class stream_call_host : public reply_call_host {
public:
    /// What `admits` wants to know of whoever makes the call.
    virtual peer_info peer_of(const grpc::CallbackServerContext& context) const = 0;
    virtual bool admits(const std::string& node, const peer_info& peer) const = 0;
    virtual void stream_opened(std::shared_ptr<task_call> call, const std::string& connection, frames::hello hello) = 0;
    virtual void receipt_came(const std::shared_ptr<task_call>& call, frames::receipt receipt) = 0;
    virtual void lease_renewed(const std::shared_ptr<task_call>& call, const std::vector<std::uint64_t>& tasks) = 0;
    virtual void node_leaving(const std::shared_ptr<task_call>& call) = 0;
    virtual void range_sent(const std::shared_ptr<task_call>& call) = 0;
    virtual void poll_broken(const std::shared_ptr<task_call>& call, errc reason, std::string text) = 0;
    /// What is queued may wait a little, for what else is to be said. Touches no gRPC.
    virtual void flush_soon(const std::shared_ptr<task_call>& call) = 0;
    /// The call is given up after the time that a transfer may stand still, unless it is let go of before. Touches no gRPC.
    virtual void watch(const std::shared_ptr<task_call>& call) = 0;
    virtual void let_go(const task_call& call) = 0;
};

}  // namespace ferry::detail
