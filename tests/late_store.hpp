// An agent store for tests that never completes inline. Each operation waits until the test lets it happen, in any order,
// in two steps: the journal changes, then the asker is told. Faults can be put in between. It also watches the caller's side
// of the contract: operations on one task must not overlap.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/agent_store/memory.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace ferry_test {

class late_store {
public:
    using policy_category = ferry::agent_store_tag;

    enum class kind { acquire, append, update, settle };
    enum class fault {
        none,
        refused,  ///< nothing changes, and an error is told
        unheard,  ///< the journal changes, and yet an error is told
    };

    explicit late_store(std::uint32_t seed = 1) : random_(seed) {}

    template <class Done>
    void acquire(const std::string& node, Done&& done) {
        const auto came = std::make_shared<ferry::acquired_journal>();
        add({kind::acquire, node, 0,
             [this, node, came] { journals_.acquire(node, [&](ferry::acquired_journal j) { *came = std::move(j); }); },
             [came, done = std::forward<Done>(done)](fault f) mutable {
                 done(f == fault::none ? std::move(*came) : ferry::acquired_journal{failure(), 0, {}});
             }});
    }
    template <class Done>
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        write(kind::append, node, task.order, std::forward<Done>(done),
              [this, node, owner, task](auto take) { journals_.append(node, owner, task, take); });
    }
    template <class Done>
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        write(kind::update, node, task.order, std::forward<Done>(done),
              [this, node, owner, task](auto take) { journals_.update(node, owner, task, take); });
    }
    template <class Done>
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, Done&& done) {
        write(kind::settle, node, order, std::forward<Done>(done),
              [this, node, owner, order](auto take) { journals_.settle(node, owner, order, take); });
    }

    /// Operations that have not told their askers yet, in the order in which they were asked for.
    std::size_t pending() const noexcept { return pending_.size(); }
    kind pending_kind(std::size_t which) const { return pending_.at(which).what; }

    /// Takes one operation one step on.
    void advance(std::size_t which) {
        auto& op = pending_.at(which);
        if (!op.begun) {
            op.begun = true;
            op.what_happens = draw_fault(op.what);
            if (op.what_happens != fault::refused) op.change();
            return;
        }
        const operation over = std::move(op);
        pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(which));
        over.tell(over.what_happens);
    }

    /// Takes one operation to its end.
    void complete(std::size_t which) {
        if (!pending_.at(which).begun) advance(which);
        advance(which);
    }

    /// Takes an operation of the seed's choice one step on; false where there is none.
    bool advance_one() {
        if (pending_.empty()) return false;
        advance(std::uniform_int_distribution<std::size_t>(0, pending_.size() - 1)(random_));
        return true;
    }

    /// The next such operation to take its first step fails so.
    void fail_next(kind what, fault how) { planned_.emplace_back(what, how); }

    /// Every operation fails with this probability from now on, in one way or the other.
    void fail_often(double probability) { probability_ = probability; }

private:
    struct operation {
        kind what;
        std::string node;
        std::uint64_t order;
        std::function<void()> change;
        std::function<void(fault)> tell;
        bool begun = false;
        fault what_happens = fault::none;
    };

    static ferry::store_status failure() { return {ferry::errc::store_failed, "the disk is full"}; }

    template <class Done, class Write>
    void write(kind what, const std::string& node, std::uint64_t order, Done&& done, Write&& journal) {
        const auto came = std::make_shared<ferry::store_status>();
        add({what, node, order, [came, journal] { journal([&](ferry::store_status s) { *came = std::move(s); }); },
             [came, done = std::forward<Done>(done)](fault f) mutable {
                 done(f == fault::none ? std::move(*came) : failure());
             }});
    }

    void add(operation op) {
        for (const auto& other : pending_) {
            EXPECT_FALSE(op.order != 0 && op.order == other.order && op.node == other.node)
                << "two operations on task " << op.order << " of node " << op.node << " overlap";
        }
        pending_.push_back(std::move(op));
    }

    fault draw_fault(kind what) {
        for (auto plan = planned_.begin(); plan != planned_.end(); ++plan) {
            if (plan->first != what) continue;
            const fault out = plan->second;
            planned_.erase(plan);
            return out;
        }
        if (probability_ <= 0 || !std::bernoulli_distribution(probability_)(random_)) return fault::none;
        return std::bernoulli_distribution(0.5)(random_) ? fault::refused : fault::unheard;
    }

    ferry::memory_agent_store journals_;
    std::vector<operation> pending_;
    std::vector<std::pair<kind, fault>> planned_;
    std::mt19937 random_;
    double probability_ = 0;
};

}  // namespace ferry_test
