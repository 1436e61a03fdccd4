// What goes into the node's core and what comes out of it, as plain values. `intake.hpp` has the rules between them.
// Each poll, stream, upload, task and feedback has an id that is used once; an event that bears an old one is ignored. Tasks
// and replies have numbers beside, by which node and server know them again.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ferry {

/// The bounds and times of one link of a node. The numbers of uploads under way must be at least 1. What is taken of a
/// growing pause is a random part between the half and the whole.
struct intake_limits {
    bool streams = true;                 ///< ask for a stream before polling
    bool renew_leases = true;            ///< also of tasks that run
    std::size_t max_waiting_tasks = 64;  ///< received, waiting or running, of each lane; up to 50,000
    std::uint64_t max_waiting_bytes = std::uint64_t{1} << 30;         ///< of those; one task is always allowed
    std::size_t max_small_uploads = 16;                               ///< of one chunk, under way at once
    std::size_t max_bulk_uploads = 2;                                 ///< of more chunks, under way at once
    std::size_t max_queued_uploads = 10'000;                          ///< those under way included
    std::uint64_t max_queued_bytes = std::uint64_t{64} << 30;         ///< of those
    std::uint64_t max_payload_bytes = std::uint64_t{16} << 30;        ///< of one upload
    std::size_t max_feedback = 10'000;                                ///< waiting
    std::uint64_t max_feedback_bytes = std::uint64_t{64} << 20;       ///< of those
    std::chrono::milliseconds idle_limit = std::chrono::seconds{60};  ///< of a transfer that stands still
    growing_pause reconnect{std::chrono::milliseconds{500}, 2, std::chrono::seconds{15}};  ///< after a lost link
    growing_pause empty_poll{std::chrono::milliseconds{100}, 2, std::chrono::seconds{5}};  ///< after a poll for nothing
    std::chrono::milliseconds refused_pause = std::chrono::seconds{60};                    ///< after a refused poll
};

/// Key of an upload in the core; never 0 for one that was accepted.
using upload_key = std::uint64_t;

/// How a poll or a stream ended.
enum class poll_end {
    well,         ///< status OK
    deadline,     ///< its deadline passed, or is so near that the server ended it
    unreachable,  ///< the connection or the server failed: UNAVAILABLE, UNKNOWN, cancelled, a transport error
    corrupt,      ///< its chunks contradicted each other
    refused,      ///< the server will not have this node, at least for now: permission, identity, too many
    unknown,      ///< the server knows of no streams
};

namespace intake_events {

/// The link may be used. Until then what is submitted is kept.
struct started {};

/// Before `started`: so many bytes of a task are there already, from an earlier life of the node.
struct task_found {
    std::uint64_t number;
    std::uint64_t received;
};

/// Before `started`: an earlier life of the node has dealt with this task.
struct task_done_before {
    std::uint64_t number;
};

/// The server has accepted the stream.
struct stream_welcomed {
    std::uint64_t poll_id;
    frames::welcome what;
};

/// A delivery of several chunks begins. The step returns whether its bytes are wanted.
struct delivery_began {
    std::uint64_t poll_id;
    frames::delivery_head head;
};

/// A chunk of a task came over the stream; so many bytes of it are there now.
struct delivery_progress {
    std::uint64_t poll_id;
    std::uint64_t number;
    std::uint64_t received;
};

/// What came of a task is not what was sent; all of it was thrown away.
struct delivery_damaged {
    std::uint64_t poll_id;
    std::uint64_t number;
    std::string text;
};

/// A task can't be taken in here for now; what came of it was thrown away.
struct delivery_put_off {
    std::uint64_t poll_id;
    std::uint64_t number;
    bool urgent;
    std::string text;
};

/// A task can't be taken in here, now or ever; what came of it was thrown away.
struct delivery_refused {
    std::uint64_t poll_id;
    std::uint64_t number;
    std::string text;
};

/// The server wants a task back.
struct task_withdrawn {
    std::uint64_t poll_id;
    std::uint64_t number;
};

/// The server has dealt with a reply that went over the stream.
struct reply_answered {
    std::uint64_t poll_id;
    frames::answer what;
};

/// The poll has gone out over a connection. A server may say nothing to it before it has a task.
struct poll_sent {
    std::uint64_t poll_id;
};

/// The server has answered the poll, with its initial metadata or otherwise.
struct poll_accepted {
    std::uint64_t poll_id;
};

/// A chunk of a task came.
struct poll_progress {
    std::uint64_t poll_id;
};

/// A whole task was put together. After a poll's `poll_ended` still follows. By a stream's number it is known again.
template <class Task>
struct task_arrived {
    std::uint64_t poll_id;
    Task task;
    std::uint64_t size_bytes;
    std::uint64_t number = 0;
    int attempt = 1;
    bool urgent = false;
};

/// The poll is over; not awaited after `cancel_poll`.
struct poll_ended {
    std::uint64_t poll_id;
    poll_end end;
    std::string text;
};

/// The user's callback for the task has returned or thrown, and perhaps refused it.
struct task_returned {
    task_key key;
    frames::verdict what = frames::verdict::taken;
    std::string text{};
    std::chrono::milliseconds pause{};
};

/// The user's callback says that it is still at work.
struct task_in_progress {
    task_key key;
};

/// A reply is to be sent. `expires_after` counts while it waits, never while it moves; at its greatest value it means never.
template <class Ticket>
struct reply_submitted {
    Ticket ticket{};
    std::shared_ptr<const payload> content;
    std::chrono::milliseconds expires_after = std::chrono::milliseconds::max();
    std::string label{};       // what the message is, for logs
    std::uint64_t number = 0;  // that it had in an earlier life of the node; 0: a new one
    std::uint64_t task = 0;    // the number of the task that it answers; 0: of none
};

/// The server tells how much it has of an upload that can go on.
struct upload_accepted {
    std::uint64_t upload_id;
    std::uint64_t offset;
};

/// The range that was asked for has been written, and the stream goes on.
struct upload_range_sent {
    std::uint64_t upload_id;
};

/// The upload is over: `ok` where the server's final status was OK. Not awaited after `cancel_upload`.
struct upload_ended {
    std::uint64_t upload_id;
    errc reason;
    std::string text;
};

/// The sender of an upload gives it up.
struct withdrawn {
    upload_key key;
};

/// A log or a metric is to be sent, as an encoded message.
struct feedback_submitted {
    std::shared_ptr<const std::string> content;
};

/// The feedback was answered, `ok` where well. Not awaited after `cancel_feedback`.
struct feedback_ended {
    std::uint64_t feedback_id;
    errc reason;
    std::string text;
};

struct time_passed {};
struct stop_requested {};
struct stop_forced {};

}  // namespace intake_events

namespace intake_effects {

/// Calls that begin from now on go over a new connection, which no earlier poll has used; those under way keep theirs.
struct reconnect {
    bool after_failure;  // then another address of the server may do better
};

/// Poll the server, over the connection of the poll before unless `reconnect` came in between.
struct open_poll {
    std::uint64_t poll_id;
};

/// Open a stream instead, with this hello.
struct open_stream {
    std::uint64_t poll_id;
    frames::hello hello;
};

/// End the call of the poll or stream; nothing more is expected of it.
struct cancel_poll {
    std::uint64_t poll_id;
};

/// End the stream once all that was told has gone out; `poll_ended` is awaited.
struct close_stream {
    std::uint64_t poll_id;
};

// What is to be told over the stream, in this order.
struct tell_receipt {
    std::uint64_t poll_id;
    frames::receipt what;
    bool may_wait = false;  // a little: others will follow
};
struct renew_leases {
    std::uint64_t poll_id;
    std::vector<std::uint64_t> tasks;
};
struct tell_leaving {
    std::uint64_t poll_id;
};
struct send_reply {
    std::uint64_t poll_id;
    std::uint64_t number;
    std::shared_ptr<const payload> content;
    std::uint64_t task;  // of which it is the receipt, too; 0: of none
};

/// What is kept of this task's bytes is of no more use.
struct forget_task {
    std::uint64_t number;
};

/// Call the user with the task, then say `task_returned`. Of each lane no other comes before that.
template <class Task>
struct run_task {
    task_key key;
    Task task;
    bool urgent;
};

/// The task whose callback runs is no longer wanted.
struct stop_task {
    task_key key;
};

/// An upload begins, or a `send_reply`. Where it has a call, `can_go_on` asks for `upload_accepted` first; else its first
/// range follows. The rest is for logs.
struct open_upload {
    std::uint64_t upload_id;
    std::uint64_t number;
    bool has_call;
    bool can_go_on;
    const std::string& label;
    std::uint64_t bytes;
    int attempt;
    std::chrono::steady_clock::duration age;  // since it was submitted
};

/// Write this range of the content to the call; after the last chunk half-close it and read its final status.
struct send_range {
    std::uint64_t upload_id;
    std::shared_ptr<const payload> content;
    chunk part;
};

/// End the upload's call; nothing more is expected of it.
struct cancel_upload {
    std::uint64_t upload_id;
};

/// The upload has ended; once for each ticket. `taken` means that the server accepted it.
template <class Ticket>
struct ended {
    Ticket ticket;
    outcome how;
    std::uint64_t number;
    std::shared_ptr<const payload> content;  // perhaps the last of it: a user's code may run where it goes
};

/// So many bytes of the upload have gone out in the attempt under way.
template <class Ticket>
struct progressed {
    const Ticket& ticket;
    std::uint64_t sent;
};

/// Send this feedback, then say `feedback_ended`. No other comes before that, or before `cancel_feedback`.
struct send_feedback {
    std::uint64_t feedback_id;
    std::shared_ptr<const std::string> content;
};

/// End the feedback's call; nothing more is expected of it.
struct cancel_feedback {
    std::uint64_t feedback_id;
};

/// The server was heard of, or the link to it was lost.
struct link_changed {
    bool connected;
};
struct warning {
    std::string text;
};
/// Call back with `time_passed` then, or earlier.
struct wake_at {
    std::chrono::steady_clock::time_point when;
};
/// After `stop_requested` or `stop_forced`: nothing is under way or queued any more. Comes once.
struct drained {};

}  // namespace intake_effects

}  // namespace ferry
