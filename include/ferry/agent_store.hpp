// An agent store keeps, for each node, a journal of the tasks that are owed to it, and says which server owns that journal.
// The concepts and their contracts only; the models live in agent_store/. A store of one server is an `agent_store`, and a
// `lasting_agent_store` where its journals outlive the server; one that several servers share is a `shared_agent_store`.
#pragma once

#include <ferry/error.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>
#include <ferry/policy.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ferry {

/// Counts the owners of a node's journal. Each `acquire` gets a higher one, and a write that carries an older one fails.
/// It is at least 1 and below 2^31: the core makes the tasks' order of it, so that no order is used by two owners.
using epoch = std::uint64_t;

/// A task as the journal keeps it.
struct task_record {
    std::uint64_t order = 0;                         ///< its key: unique and rising within a node's journal
    std::uint64_t id = 0;                            ///< by which nodes know it again: drawn at random
    bool urgent = false;                             ///< it goes in the urgent lane
    std::string request_id;                          ///< the message's own, or empty
    bool wants_reply = false;                        ///< it ends with the reply, not when it is taken
    std::shared_ptr<const payload> content;          ///< the encoded message, or a source of it; see `taken`
    int attempts = 0;                                ///< deliveries begun so far
    bool taken = false;                              ///< the node has it, and a reply is awaited: no content is needed
    std::shared_ptr<const payload> reply{};          ///< the encoded answer, which has not been handled to its end
    std::uint64_t reply_number = 0;                  ///< of the reply: by it a second copy is known
    std::chrono::system_clock::time_point accepted;  ///< when `send` was called
    std::chrono::system_clock::time_point expires;   ///< while still queued then, it is given up
    /// Until then its reply is awaited. An `update` changes it, but in a shared store, where those who post say it.
    std::chrono::system_clock::time_point reply_until = std::chrono::system_clock::time_point::max();
    bool is_withdrawn = false;  ///< of a shared store: its sender does not want it any more
};

/// How a store operation ended: `ok`, `store_failed` or `ownership_lost`, with the store's own words.
struct store_status {
    errc code = errc::ok;
    std::string text{};  ///< with `ok`: what the operator should know all the same
    /// Of an `append`, where the store gives one: the same content, from now on to be sent in place of the one appended,
    /// whose memory can be let go.
    std::shared_ptr<const payload> content{};
};

/// What an `acquire` came to: the epoch of the new owner and all tasks that are not settled, by rising `order`.
struct acquired_journal {
    store_status status;
    epoch owner = 0;
    std::vector<task_record> tasks;
    std::vector<std::uint64_t> replies{};  ///< of a shared store: numbers of the last 1024 or more, oldest first
};

/// The nodes that ever were acquired, in any order.
struct known_nodes {
    store_status status;
    std::vector<std::string> ids;
};

/// The end of a task in a shared store, for all who posted it.
struct task_end {
    outcome how;
    std::string request_id;                  ///< the task's; of a reply to no task, the reply's own
    std::shared_ptr<const payload> reply{};  ///< the encoded answer, where there is one
    std::uint64_t reply_number = 0;
};

/// The same as it comes to one of them.
struct arrived_end {
    std::uint64_t place = 0;  ///< by which it is acknowledged; rising in the order of arrival
    std::uint64_t id = 0;     ///< with which the task was posted; 0: it belongs to no task that is known here
    std::string node;
    task_end end;
};

/// What an `ends` came to.
struct arrived_ends {
    store_status status;
    std::vector<arrived_end> ends;
};

/// A node as the server saw it that owns its journal.
struct seen_node {
    std::string id;
    node_status status = node_status::disconnected;
    std::chrono::system_clock::time_point since;
};

/// What a shared store tells a server without having been asked.
struct store_note {
    enum class kind {
        tasks,  ///< tasks for `node`, whose journal is this server's, have come or were changed: `fetch` them
        ends,   ///< tasks have ended that this server has posted: see `ends`
        lost,   ///< the journal of `node` is another server's now
        free,   ///< the journal of `node` is nobody's: its owner is gone. Who gets this is to acquire it
        seen,   ///< `node`, whose journal is another server's, is new or went to this `status` at `since`
        gone,   ///< the store does not know the task of this `id` any more, which this server has posted
        back,   ///< notes may have been missed; `seen` follows for nodes that are others'
    };
    kind what = kind::back;
    std::string node{};
    std::uint64_t id = 0;
    node_status status = node_status::disconnected;
    std::chrono::system_clock::time_point since{};
};

/// What a `listen` came to: all nodes that are known.
struct seen_nodes {
    store_status status;
    std::vector<seen_node> nodes;
};

/// What the concepts ask for, one by one. A store must take any callable as `done`; a function pointer stands for them here.
namespace provides {

template <class S>
concept acquire = requires(S& s, const std::string& node, void (*done)(acquired_journal)) {
    s.acquire(node, done);
};

template <class S>
concept append = requires(S& s, const std::string& node, epoch owner, const task_record& task,
                          void (*done)(store_status)) {
    s.append(node, owner, task, done);
};

template <class S>
concept update = requires(S& s, const std::string& node, epoch owner, const task_record& task,
                          void (*done)(store_status)) {
    s.update(node, owner, task, done);
};

template <class S>
concept settle = requires(S& s, const std::string& node, epoch owner, std::uint64_t order, void (*done)(store_status)) {
    s.settle(node, owner, order, done);
};

template <class S>
concept nodes = requires(S& s, void (*done)(known_nodes)) {
    s.nodes(done);
};

template <class S>
concept listen = requires(S& s, void (*take)(store_note), void (*done)(seen_nodes)) {
    s.listen(take, done);
};

template <class S>
concept post = requires(S& s, const std::string& node, const task_record& task, void (*done)(store_status)) {
    s.post(node, task, done);
    s.withdraw(node, task.id, done);
};

template <class S>
concept fetch = requires(S& s, const std::string& node, epoch owner, std::uint64_t after,
                         void (*done)(acquired_journal)) {
    s.fetch(node, owner, after, done);
};

template <class S>
concept end = requires(S& s, const std::string& node, epoch owner, std::uint64_t order, const task_end& end,
                       void (*done)(store_status)) {
    s.end(node, owner, order, end, done);
};

template <class S>
concept ends = requires(S& s, std::uint64_t place, void (*done)(arrived_ends), void (*noted)(store_status)) {
    s.ends(place, done);
    s.acknowledge(place, noted);
};

template <class S>
concept announce = requires(S& s, epoch owner, const seen_node& node, void (*done)(store_status)) {
    s.announce(owner, node, done);
};

template <class S>
concept leave = requires(S& s, void (*done)(store_status)) {
    s.leave(done);
};

}  // namespace provides

/// A journal of tasks per node.
///
/// | expression                          | meaning                                                                    |
/// |-------------------------------------|----------------------------------------------------------------------------|
/// | `s.acquire(node, done)`             | become the owner; `done(acquired_journal)`                                 |
/// | `s.append(node, epoch, task, done)` | add a task; `done(store_status)`: from `ok` on it will come back by acquire |
/// | `s.update(node, epoch, task, done)` | write `attempts`, `taken` and a `reply` anew; `done(store_status)`         |
/// | `s.settle(node, epoch, order, done)` | forget it; `done(store_status)`: from `ok` on it never comes back          |
///
/// `done` is called exactly once: before the function returns, or later, from any thread. The functions are called from
/// several threads at once; they must not throw, and must not block for long. Operations on one task never overlap; those
/// on different tasks may, and may end in any order, and `done` may begin another. Any write with an epoch that is not the
/// newest, or to a journal that was never acquired, ends in `ownership_lost` and changes nothing. A task has a content, or a
/// `reply` alone that waits to be handled. An `update` may come without them, and keeps both; from one on that says `taken`,
/// for good, the store may give the content up. Whoever holds a content may read it after the task is settled. A node's id is at
/// least 1 and at most 1024 bytes, of any value.
template <class S>
concept agent_store = policy_of<S, agent_store_tag> && provides::acquire<S> && provides::append<S> &&
    provides::update<S> && provides::settle<S>;

/// An agent store whose journals outlive their server.
///
/// | expression                          | meaning                                                                    |
/// |-------------------------------------|----------------------------------------------------------------------------|
/// | `s.nodes(done)`                     | whose journals there are; `done(known_nodes)`                              |
///
/// A server that starts knows these nodes from the beginning, as DISCONNECTED, and acquires their journals: what was open
/// when the one before it ended is open again.
template <class S>
concept lasting_agent_store = agent_store<S> && provides::nodes<S>;

/// An agent store that several servers share: any of them sends to any node, whichever of them the node is connected to.
///
/// | expression                            | meaning                                                                  |
/// |---------------------------------------|--------------------------------------------------------------------------|
/// | `s.listen(take, done)`                | once, before all below: `take(store_note)` from now on, `done(seen_nodes)` |
/// | `s.post(node, task, done)`            | add a task to a journal that may be anybody's; `done(store_status)`       |
/// | `s.withdraw(node, id, done)`          | mark what this server has posted as withdrawn; `done(store_status)`      |
/// | `s.fetch(node, epoch, after, done)`   | the tasks of a higher order, and those changed; `done(acquired_journal)` |
/// | `s.end(node, epoch, order, end, done)` | settle it, and tell each server that has posted it; `done(store_status)` |
/// | `s.ends(after, done)`                 | the ends for this server of a higher place; `done(arrived_ends)`         |
/// | `s.acknowledge(place, done)`          | an end has been dealt with; `done(store_status)`                         |
/// | `s.announce(epoch, node, done)`       | tell the others of a node's status; `done(store_status)`                 |
/// | `s.leave(done)`                       | this server is at its end: its journals are free; `done(store_status)`   |
///
/// A server finds its own tasks among those that it posts: it sends to no node but through the journal. `post` needs no
/// epoch: the store gives the task its order, behind all that the journal has, and notes `tasks` to the owner; where there
/// is none, `free` to who has posted. Where the journal has an open task of the same `request_id` that was not withdrawn,
/// the sender joins that one: `wants_reply` and `reply_until` are then the most that any of its senders asked for. `post`
/// ends in `queue_full` where the store has no room, and `node_unknown` where nobody has acquired the journal ever; nothing
/// is stored then.
///
/// An `end` is stored with the settlement, as one: either both have happened or none. With `order` 0 it is a reply to no
/// task, and comes back to the server that has called, with id 0. A reply whose number the journal has had already is
/// dropped; the task is settled all the same. Where a server is gone for good, another one gets its ends, with id 0. What
/// was not acknowledged comes again by `ends(0)`.
///
/// To end, to acknowledge or to withdraw what isn't there, or no more, is `ok`.
///
/// When a journal is acquired, its owner before is told `lost`, if it is another server. After an error, whoever called
/// can't know whether the write has happened: it takes the journal for lost, and acquires it again.
template <class S>
concept shared_agent_store = lasting_agent_store<S> && provides::listen<S> && provides::post<S> && provides::fetch<S> &&
    provides::end<S> && provides::ends<S> && provides::announce<S> && provides::leave<S>;

/// True of a store that says `static constexpr bool completes_inline = true`: its `append`, `update` and `settle` take no
/// longer than a lookup in memory, and have called `done` when they return. A server writes to it under its own lock then,
/// which spares it two more turns of that lock for each task; `done` does no more than note the status.
template <class S>
inline constexpr bool store_completes_inline = requires {
    requires S::completes_inline;
};

}  // namespace ferry
