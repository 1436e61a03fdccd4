// An agent store keeps, for each node, a journal of the tasks that are owed to it, and says which server owns that journal.
// The concept and its contract only; the models live in agent_store/. A store that several servers share will refine this
// concept with an inbox.
#pragma once

#include <ferry/error.hpp>
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
};

/// How a store operation ended: `ok`, `store_failed` or `ownership_lost`, with the store's own words.
struct store_status {
    errc code = errc::ok;
    std::string text{};
    /// Of an `append`, where the store gives one: the same content, from now on to be sent in place of the one appended,
    /// whose memory can be let go.
    std::shared_ptr<const payload> content{};
};

/// What an `acquire` came to: the epoch of the new owner and all tasks that are not settled, by rising `order`.
struct acquired_journal {
    store_status status;
    epoch owner = 0;
    std::vector<task_record> tasks;
};

/// The nodes that ever were acquired, in any order.
struct known_nodes {
    store_status status;
    std::vector<std::string> ids;
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
/// for good, the store may give the content up. Whoever holds a content may read it after the task is settled.
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

/// True of a store that says `static constexpr bool completes_inline = true`: its `append`, `update` and `settle` take no
/// longer than a lookup in memory, and have called `done` when they return. A server writes to it under its own lock then,
/// which spares it two more turns of that lock for each task; `done` does no more than note the status.
template <class S>
inline constexpr bool store_completes_inline = requires {
    requires S::completes_inline;
};

}  // namespace ferry
