// layer 4
// What the server knows of the call that a reply came over, be it an upload or a stream.
#pragma once

#include <ferry/error.hpp>
#include <ferry/identity.hpp>

#include <cstdint>
#include <memory>
#include <string>

namespace ferry::detail {

class task_call;

/// Of a task that came over the call; a task of 0 is none.
struct task_receipt {
    std::shared_ptr<task_call> call;
    std::uint64_t task = 0;
};

/// Where a reply came from, to be answered once.
class reply_source {
public:
    virtual ~reply_source() = default;
    virtual void answer(errc reason, const std::string& text) = 0;
    /// What `answer` will say enters a stream's queue; one that has a call of its own does all of it in `answer`. Touches no
    /// gRPC: it may be done under the host's lock, before whoever waits for the reply can end the stream.
    virtual void queue_answer(errc, const std::string&) {}
    virtual const peer_info& peer() const = 0;
    /// For logs.
    virtual std::string who() const = 0;
    /// By which it is known when it comes again; 0: it isn't.
    virtual std::uint64_t number() const = 0;
    /// Replies of the same origin follow one another.
    virtual const void* origin() const = 0;
    /// At most `frames::max_reply_bytes`, and the next of this origin is reported only when `reply_received` has returned.
    virtual bool is_small() const { return false; }
    /// That the reply carries: to be dealt with after it, also where it is refused.
    virtual task_receipt receipt() const { return {}; }
};

}  // namespace ferry::detail
