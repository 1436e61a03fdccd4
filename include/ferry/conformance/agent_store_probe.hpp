// An agent store under test: its operations as calls that wait. The tests themselves are in the suites.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/conformance/awaited.hpp>
#include <ferry/conformance/model_of.hpp>
#include <ferry/conformance/store_probe.hpp>
#include <ferry/error.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// One store, whose every `done` is counted. The operations may be called from several threads.
template <class Store>
class agent_store_calls : public store_probe {
    static_assert(agent_store<Store>, "the suite runs over an agent store: see ferry/agent_store.hpp");

public:
    // --- operations that are only begun ------------------------------------------------------------------------------

    awaited<acquired_journal> begin_acquire(const std::string& node) {
        return begun<acquired_journal>("acquire", [&](auto done) { store_->acquire(node, done); });
    }
    /// Runs `inside`, if there is one, within `done`.
    awaited<store_status> begin_append(const std::string& node, epoch owner, const task_record& task,
                                       std::function<void()> inside = {}) {
        return begun<store_status>("append", [&](auto done) {
            store_->append(node, owner, task,
                           [done = std::move(done), inside = std::move(inside)](store_status status) {
                               if (inside) inside();
                               done(std::move(status));
                           });
        });
    }
    awaited<store_status> begin_update(const std::string& node, epoch owner, const task_record& task) {
        return begun<store_status>("update", [&](auto done) { store_->update(node, owner, task, done); });
    }
    awaited<store_status> begin_settle(const std::string& node, epoch owner, std::uint64_t order) {
        return begun<store_status>("settle", [&](auto done) { store_->settle(node, owner, order, done); });
    }

    // --- and those that are waited for. What never came is a failure, and `cancelled` --------------------------------

    acquired_journal acquire(const std::string& node) {
        auto out = wait(begin_acquire(node));
        if (!out) return {{errc::cancelled, "never came"}, 0, {}};
        EXPECT_EQ(out->status.code, errc::ok) << "acquire: " << out->status.text;
        return *std::move(out);
    }
    ended append(const std::string& node, epoch owner, const task_record& task) {
        const auto out = wait(begin_append(node, owner, task));
        if (!out) return {errc::cancelled};
        expect_same_content(*out, task);
        return {out->code};
    }
    ended update(const std::string& node, epoch owner, const task_record& task) {
        return code(begin_update(node, owner, task));
    }
    ended settle(const std::string& node, epoch owner, std::uint64_t order) {
        return code(begin_settle(node, owner, order));
    }
    /// Of a store whose journals last.
    std::vector<std::string> nodes() {
        const auto out = wait(begun<known_nodes>("nodes", [&](auto done) { store_->nodes(done); }));
        if (!out) return {};
        EXPECT_EQ(out->status.code, errc::ok) << "nodes: " << out->status.text;
        return out->ids;
    }

    /// Lets the store go; each `done` must have been called once by then.
    void finish() {
        store_.reset();
        expect_all_ended();
    }

protected:
    explicit agent_store_calls(std::chrono::milliseconds patience) : store_probe(patience) {}
    ~agent_store_calls() = default;

    std::unique_ptr<Store> store_;
};

/// One store at a time, made by its `model_of`.
template <class Store>
class agent_store_probe : public agent_store_calls<Store> {
public:
    agent_store_probe() : agent_store_calls<Store>(patience()) { reopen(); }

    static std::chrono::milliseconds patience() { return detail::patience_of<Store>(); }

    /// Lets the store go, and makes another one by the same `model_of`.
    void reopen() {
        this->store_.reset();
        this->store_.reset(new Store(models_.make()));
    }

private:
    model_of<Store> models_;
};

}  // namespace ferry::conformance
