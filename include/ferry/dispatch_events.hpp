// What goes into the server's core and what comes out of it, as plain values. `dispatch.hpp` has the rules between them.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/chunk.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ferry {

/// One moment on both clocks: the steady one for ages inside a process, the system's for what is kept.
struct instant {
    std::chrono::steady_clock::time_point steady;
    std::chrono::system_clock::time_point system;
};

/// The bounds and times of the core.
struct dispatch_limits {
    std::size_t max_nodes = 100'000;                              ///< known at the same time
    std::size_t max_queued_tasks = 10'000;                        ///< of one node
    std::uint64_t max_queued_bytes = std::uint64_t{64} << 30;     ///< of one node's queue
    std::size_t max_all_queued_tasks = 1'000'000;                 ///< of all nodes
    std::uint64_t max_all_queued_bytes = std::uint64_t{1} << 40;  ///< of all; a broadcast counts for each node
    std::uint64_t max_payload_bytes = std::uint64_t{16} << 30;    ///< of one task
    std::size_t max_unclaimed_replies = 10'000;                   ///< that wait for their handler
    std::uint64_t max_unclaimed_bytes = std::uint64_t{4} << 30;   ///< of those; one is always allowed
    std::chrono::milliseconds disconnect_after = std::chrono::seconds{10};  ///< without a poll
    std::chrono::milliseconds idle_limit = std::chrono::seconds{60};        ///< of a transfer that stands still
    std::chrono::milliseconds lease = std::chrono::seconds{60};             ///< of a task that a node has; 0: no end
};

/// The bounds of what nodes send.
struct inbound_limits {
    std::size_t max_uploads = 10'000;  ///< open at the same time
    /// Of replies that are coming or not yet decoded, and one more. An upload counts at least 4 MB until something of it is there:
    /// so many are read from at the same time, and the others wait. What has gone to a spool folder counts nothing, the chunk that
    /// is being read does; not the first one after a reply in the same upload, where nearly always nothing comes.
    std::uint64_t max_bytes = std::uint64_t{4} << 30;
    std::chrono::milliseconds idle_limit = std::chrono::seconds{60};   ///< of an upload that stands still
    std::chrono::milliseconds keep_broken = std::chrono::minutes{10};  ///< what came of an upload that broke off
};

/// Key of a task in the core; never 0 for a task that was accepted.
using task_key = std::uint64_t;

namespace events {

/// A task is to be sent. `expires_after` counts while it is queued, `reply_within` from now on. Where the node has an open
/// task of this request id, the ticket joins that one.
template <class Ticket>
struct submitted {
    std::string node;
    std::shared_ptr<const payload> content;
    std::string request_id{};
    bool wants_reply = false;
    Ticket ticket{};
    std::chrono::milliseconds expires_after{};
    std::optional<std::chrono::milliseconds> reply_within{};
    bool keep_while_disconnected = false;
    std::string label{};  // what the message is, for logs
    bool urgent = false;
};

/// A node opened a poll over a connection, whose name is unique among those open. At its `deadline` the node gives the poll up.
template <class Call>
struct poll_opened {
    Call call;
    const std::string& node;
    const std::string& connection;
    std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

/// A node opened a stream over a connection, in place of polls. The other events of calls are for both.
template <class Call>
struct stream_opened {
    Call call;
    const std::string& node;
    const std::string& connection;
    frames::hello hello;
};

template <class Call>
struct receipt_came {
    const Call& call;
    const std::string& node;
    frames::receipt receipt;
};

/// The node still has these tasks.
template <class Call>
struct lease_renewed {
    const Call& call;
    const std::string& node;
    const std::vector<std::uint64_t>& tasks;
};

/// The node takes no more tasks over this stream.
template <class Call>
struct node_leaving {
    const Call& call;
    const std::string& node;
};

/// The range that was asked for has been written, and the stream goes on.
template <class Call>
struct range_sent {
    const Call& call;
    const std::string& node;
};

/// The call will carry nothing more: the node is gone, or a range could not be read.
template <class Call>
struct poll_broken {
    const Call& call;
    const std::string& node;
    errc reason;
    std::string text;
};

/// The call is over; `clean` where a poll's last range and its status went out.
template <class Call>
struct poll_closed {
    const Call& call;
    const std::string& node;
    bool clean;
};

/// A whole reply came in. By `number` it is known again if it comes twice; 0 where it has none. With its `encoded` bytes it is
/// noted in the store before anybody is told of it, and stays there until it was handled.
template <class ReplyCall, class Reply>
struct reply_arrived {
    ReplyCall call;
    const std::string& node;
    const std::string& request_id;
    Reply reply;
    std::uint64_t number = 0;
    std::shared_ptr<const payload> encoded{};
    std::uint64_t bytes = 0;
};

/// A node sends a message to another node; what becomes of it is reported to the (empty) ticket.
template <class ReplyCall, class Ticket>
struct forward_arrived {
    ReplyCall call;
    const std::string& from;
    submitted<Ticket> task;
    std::uint64_t number = 0;  // as of a reply
};

/// The handler for an unclaimed reply has returned. `key` and `bytes` are the effect's.
struct unclaimed_handled {
    task_key key = 0;
    std::uint64_t bytes = 0;
};
/// There is no such handler.
struct unclaimed_unwanted {
    task_key key = 0;
    std::uint64_t bytes = 0;
};

/// All that was to be called at the end of a delivery, which told this key, has returned.
struct reply_handled {
    task_key key;
};

/// A reply that was kept is there again; or why it is not.
template <class Reply>
struct reply_loaded {
    task_key key;
    std::optional<Reply> reply;
    std::string text;
    bool may_be_had_later = false;  // where it is the store that has failed
};

/// The task is ended, for all tickets that have joined it.
struct withdrawn {
    task_key key;
};
struct store_done {
    task_key key;
    store_status status;
};
/// The store has journals of these nodes from before.
struct nodes_known {
    std::vector<std::string> ids;
};
struct journal_acquired {
    const std::string& node;
    acquired_journal journal;
};

// Of a store that several servers share.

/// Ends of tasks that this server has posted may have come.
struct ends_waiting {};
struct ends_fetched {
    arrived_ends ends;
};
/// The node's journal, if it is this server's, may have changed, or may have gone to another server.
struct tasks_waiting {
    const std::string& node;
};
struct tasks_fetched {
    const std::string& node;
    epoch owner;
    acquired_journal journal;
};
/// The node's journal is nobody's, and this server is to acquire it.
struct journal_free {
    const std::string& node;
};
/// The others could not be told of the node.
struct announcement_failed {
    const std::string& node;
};
/// What another server has told of a node.
struct node_seen {
    seen_node what;
};
/// The store has lost a task that was posted.
struct task_gone {
    std::uint64_t id;
};
/// The store is there again: events may have been missed.
struct store_back {};

struct time_passed {};
/// All is set up: the handler for unclaimed replies may be called.
struct serving {};
struct stop_requested {};
struct stop_forced {};

}  // namespace events

namespace effects {

/// A delivery of a task begins; for logs.
struct begun {
    const std::string& node;
    const std::string& label;
    std::uint64_t bytes;
    int attempt;
    std::chrono::steady_clock::duration age;  // since it was accepted
};

/// Write this range of the content to the poll; after the last chunk end the call well.
template <class Call>
struct send_range {
    Call call;
    std::shared_ptr<const payload> content;
    chunk part;
};

/// Write this range of the content to the stream, as a chunk of this delivery; then say `range_sent`. No other comes before that.
template <class Call>
struct send_part {
    Call call;
    std::shared_ptr<const payload> content;
    chunk part;
    frames::delivery_head head;
};

/// Write this small task to the stream, whole. Nothing is said of it then. Those that follow one another may go together: where
/// it `may_wait`, the node is at work on earlier ones, and a receipt of theirs is a good time.
template <class Call>
struct send_whole {
    Call call;
    std::shared_ptr<const payload> content;
    frames::delivery_head head;
    bool may_wait;
};

/// The first that is told to a stream, before all parts.
template <class Call>
struct welcome {
    Call call;
    frames::welcome what;
};

/// Tell the stream's node that it is not to have this task (any more).
template <class Call>
struct withdraw_task {
    Call call;
    std::uint64_t task;
};

/// End the call without (more) data.
template <class Call>
struct end_poll {
    Call call;
    errc reason;
    std::string text;
};

/// The reply has been dealt with: `ok`, or why it is refused.
template <class ReplyCall>
struct answer_reply {
    ReplyCall call;
    errc reason;
    std::string text;
};

/// The delivery has ended; once for each ticket. `reply` only where it was replied. Where there is a `key`, `reply_handled` is
/// awaited.
template <class Ticket, class Reply>
struct ended {
    Ticket ticket;
    outcome how;
    std::optional<Reply> reply;
    const std::string& node;
    task_key key = 0;
};

/// The store has the task.
template <class Ticket>
struct accepted {
    const Ticket& ticket;
};

/// So many bytes of the task have gone out in the delivery under way.
template <class Ticket>
struct progressed {
    const Ticket& ticket;
    std::uint64_t sent;
};

/// A reply came that nobody waits for. `unclaimed_handled` is awaited for it, with its key and its bytes.
template <class Reply>
struct unclaimed_reply {
    const std::string& node;
    const std::string& request_id;
    Reply reply;
    task_key key = 0;
    std::uint64_t bytes = 0;
};

/// Read and decode a reply that was kept; `reply_loaded` is awaited.
struct load_reply {
    task_key key;
    std::string node;
    std::shared_ptr<const payload> encoded;
};

/// The core is done with a task's content, or with a reply. The last reference to it may be this one, and letting that go may
/// run users' code: it is for when the core is unlocked.
template <class What>
struct released {
    What what;
};

struct acquire_journal {
    std::string node;
};
/// No journal is being acquired any more.
struct all_acquired {};

// What is to be written; `store_done` is awaited. What they refer to is the core's, and may change once the sink has returned.

struct append_task {
    task_key key;
    const std::string& node;
    epoch owner;
    const task_record& task;
};
struct update_task {
    task_key key;
    const std::string& node;
    epoch owner;
    const task_record& task;
};
struct settle_task {
    task_key key;
    const std::string& node;
    epoch owner;
    std::uint64_t order;
};

// Of a store that several servers share.

/// Add it to the node's journal, whosever that is; `store_done` is awaited.
struct post_task {
    task_key key;
    std::string node;
    task_record task;
};
/// Its sender does not want it any more; `store_done` is awaited.
struct withdraw_posted {
    task_key key;
    std::string node;
    std::uint64_t id;
};
struct fetch_ends {
    std::uint64_t after;
};
struct acknowledge_end {
    std::uint64_t place;
};
struct fetch_tasks {
    std::string node;
    epoch owner;
    std::uint64_t after;
};
/// In place of `settle_task`. Order 0: there is no task, but a reply.
struct end_task {
    task_key key;
    std::string node;
    epoch owner;
    std::uint64_t order;
    task_end end;
};
struct announce_node {
    epoch owner;
    seen_node what;
};

/// A node came, went to another status, or was refused.
struct node_changed {
    const std::string& node;
    node_status status;
};
struct warning {
    std::string text;
};
/// Call back with `time_passed` then, or earlier.
struct wake_at {
    std::chrono::steady_clock::time_point when;
};
/// After `stop_requested`: nothing is under way any more.
struct drained {};

}  // namespace effects

}  // namespace ferry
