// The default agent store: journals in memory. There is one owner, and every operation completes inline. A server that
// dies takes its tasks with it.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/id_table.hpp>
#include <ferry/payload.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace ferry {

/// Keeps journals in memory, for as long as the store lives. Safe to use from several threads. Contents are let go outside of
/// its lock.
class memory_agent_store {
public:
    using policy_category = agent_store_tag;
    static constexpr bool completes_inline = true;

    memory_agent_store() = default;
    /// Takes over the journals; nobody may use `other` meanwhile.
    memory_agent_store(memory_agent_store&& other) noexcept : nodes_(std::move(other.nodes_)) {}

    template <class Done>
    void acquire(const std::string& node, Done&& done) {
        acquired_journal out;
        {
            const std::lock_guard lock(mutex_);
            auto& kept = nodes_.add(node).second;
            out.owner = ++kept.owner;
            out.tasks.reserve(kept.tasks.size());
            for (const auto& [order, task] : kept.tasks) out.tasks.push_back(task);
        }
        std::forward<Done>(done)(std::move(out));
    }

    template <class Done>
    void append(const std::string& node, epoch owner, const task_record& task, Done&& done) {
        std::optional<task_record> before;
        std::forward<Done>(done)(write(node, owner, [&](journal& kept) {
            const auto [at, added] = kept.tasks.try_emplace(task.order, task);
            if (!added) before = std::exchange(at->second, task);
        }));
    }

    template <class Done>
    void update(const std::string& node, epoch owner, const task_record& task, Done&& done) {
        std::shared_ptr<const payload> gone;
        std::forward<Done>(done)(write(node, owner, [&](journal& kept) {
            if (const auto found = kept.tasks.find(task.order); found != kept.tasks.end()) {
                found->second.attempts = task.attempts;
                found->second.taken = task.taken;
                found->second.reply_until = task.reply_until;
                if (task.taken) gone.swap(found->second.content);
                if (task.reply) {
                    found->second.reply = task.reply;
                    found->second.reply_number = task.reply_number;
                }
            }
        }));
    }

    template <class Done>
    void settle(const std::string& node, epoch owner, std::uint64_t order, Done&& done) {
        decltype(journal::tasks)::node_type gone;
        std::forward<Done>(done)(write(node, owner, [&](journal& kept) { gone = kept.tasks.extract(order); }));
    }

private:
    struct journal {
        epoch owner = 0;
        std::map<std::uint64_t, task_record> tasks;
    };

    template <class Change>
    store_status write(const std::string& node, epoch owner, Change change) {
        const std::lock_guard lock(mutex_);
        journal* const kept = nodes_.find(node);
        if (!kept || kept->owner != owner) {
            return {errc::ownership_lost, "another owner has acquired the journal of " + node};
        }
        change(*kept);
        return {};
    }

    std::mutex mutex_;
    detail::id_table<journal> nodes_;
};

}  // namespace ferry
