// An agent store that is chosen when the program starts: memory, or a SQLite file that outlives the program.
#pragma once

#include <ferry/agent_store/memory.hpp>
#include <ferry/agent_store/sqlite.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace example {

class chosen_store {
public:
    using policy_category = ferry::agent_store_tag;

    /// By "memory" or "sqlite:FILE". Throws `std::runtime_error` for another name, and what the store throws.
    explicit chosen_store(const std::string& name) {
        constexpr std::string_view sqlite = "sqlite:";
        if (name.starts_with(sqlite)) {
            store_.emplace<ferry::sqlite_agent_store>(ferry::sqlite_options{.file = name.substr(sqlite.size())});
        } else if (name != "memory") {
            throw std::runtime_error("--store " + name + ": there are memory and sqlite:FILE");
        }
    }

    template <class Done>
    void acquire(const std::string& node, Done done) {
        visit([&](auto& store) { store.acquire(node, std::move(done)); });
    }
    template <class Done>
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done done) {
        visit([&](auto& store) { store.append(node, owner, task, std::move(done)); });
    }
    template <class Done>
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done done) {
        visit([&](auto& store) { store.update(node, owner, task, std::move(done)); });
    }
    template <class Done>
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, Done done) {
        visit([&](auto& store) { store.settle(node, owner, order, std::move(done)); });
    }
    template <class Done>
    void nodes(Done done) {
        if (auto* sqlite = std::get_if<ferry::sqlite_agent_store>(&store_)) return sqlite->nodes(std::move(done));
        done(ferry::known_nodes{});
    }

private:
    template <class Use>
    void visit(Use&& use) {
        std::visit(std::forward<Use>(use), store_);
    }

    std::variant<ferry::memory_agent_store, ferry::sqlite_agent_store> store_;
};

}  // namespace example
