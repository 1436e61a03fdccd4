// An agent store that several servers share: the journals are in a Redis, which all of them reach. A node may connect to any of
// them, and any of them sends to it.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/redis_options.hpp>
#include <ferry/detail/redis_store.hpp>
#include <ferry/policy.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace ferry {

/// Keeps journals in a Redis (7, not a cluster), for all servers whose options name the same one and the same `key_prefix`.
/// Safe to use from several threads, none of which waits for the network: that is for three threads of the store's own, one
/// for small commands, one for large contents, one that listens. `done` and notes are called on these.
///
/// A content of more than 4 KiB goes in pieces, once for all nodes that it is sent to, and is read in ranges when it is sent. It
/// is removed with the last task that has it. Past `redis_options::max_bytes`, a task ends in `queue_full` at once.
///
/// Where Redis is gone, operations wait for it for `redis_options::patience`, and end in `store_failed` then. What Redis itself
/// promises is what this store does: with `appendonly yes` and `appendfsync always`, what was accepted is on its disk; with
/// `everysec` a crash of Redis's machine costs the last second or two; without, all since its last snapshot. Tasks that were lost
/// so end in `store_failed` at the server that has sent them. `maxmemory-policy` must be `noeviction`.
class redis_agent_store {
public:
    using policy_category = agent_store_tag;

    /// Connects. Throws `error`: `invalid_argument` where the options can't be used; `store_failed` where Redis can't be reached
    /// within `patience`, refuses us, or has what a newer version has written.
    explicit redis_agent_store(redis_options options) : store_(detail::redis_store::open(std::move(options))) {}
    redis_agent_store(redis_agent_store&&) noexcept = default;
    redis_agent_store& operator=(redis_agent_store&&) = delete;
    ~redis_agent_store() {
        if (store_) store_->close();
    }

    template <class Done>
    void acquire(const std::string& node, Done&& done) {
        store_->acquire(node, std::forward<Done>(done));
    }
    template <class Done>
    void append(const std::string& node, epoch owner, const task_record& task, Done&& done) {
        store_->append(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void update(const std::string& node, epoch owner, const task_record& task, Done&& done) {
        store_->update(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void settle(const std::string& node, epoch owner, std::uint64_t order, Done&& done) {
        store_->settle(node, owner, order, std::forward<Done>(done));
    }
    template <class Done>
    void nodes(Done&& done) {
        store_->nodes(std::forward<Done>(done));
    }
    template <class Take, class Done>
    void listen(Take&& take, Done&& done) {
        store_->listen(std::forward<Take>(take), std::forward<Done>(done));
    }
    template <class Done>
    void post(const std::string& node, const task_record& task, Done&& done) {
        store_->post(node, task, std::forward<Done>(done));
    }
    template <class Done>
    void withdraw(const std::string& node, std::uint64_t id, Done&& done) {
        store_->withdraw(node, id, std::forward<Done>(done));
    }
    template <class Done>
    void fetch(const std::string& node, epoch owner, std::uint64_t after, Done&& done) {
        store_->fetch(node, owner, after, std::forward<Done>(done));
    }
    template <class Done>
    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, Done&& done) {
        store_->end(node, owner, order, end, std::forward<Done>(done));
    }
    template <class Done>
    void ends(std::uint64_t after, Done&& done) {
        store_->ends(after, std::forward<Done>(done));
    }
    template <class Done>
    void acknowledge(std::uint64_t place, Done&& done) {
        store_->acknowledge(place, std::forward<Done>(done));
    }
    template <class Done>
    void announce(epoch owner, const seen_node& node, Done&& done) {
        store_->announce(owner, node, std::forward<Done>(done));
    }
    template <class Done>
    void leave(Done&& done) {
        store_->leave(std::forward<Done>(done));
    }

private:
    std::shared_ptr<detail::redis_store> store_;
};

}  // namespace ferry
