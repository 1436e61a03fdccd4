// The simulator's agent stores: journals in memory that outlive a server, or don't. A durable one takes its time: a write
// happens some time after it was asked for, and is told some time after that; where the server has died in between, it may
// still happen.
#pragma once

#include <ferry/agent_store/memory.hpp>

#include "simulated_time.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

namespace ferry_test {

class simulated_store {
public:
    using duration = std::chrono::steady_clock::duration;
    using told = std::function<void(ferry::store_status)>;
    using acquired = std::function<void(ferry::acquired_journal)>;

    simulated_store(agenda& time, dice& chance, duration slowest) : time_(time), chance_(chance), slowest_(slowest) {}

    /// A new owner's life begins. What the one before asked for and has not happened yet, may happen or not.
    void begin_life() { ++life_; }
    /// Forgets everything, as memory does.
    void lose_all() {
        journals_ = std::make_unique<ferry::memory_agent_store>();
        stored_.clear();
        replies_.clear();
    }

    void acquire(const std::string& node, acquired done) {
        run([this, node, done = std::move(done)](bool alive) {
            auto out = std::make_shared<ferry::acquired_journal>();
            journals_->acquire(node, [&](ferry::acquired_journal j) { *out = std::move(j); });
            if (alive) tell([done, out] { done(std::move(*out)); });
        });
    }
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, told done) {
        write(std::move(done), [this, node, owner, task] {
            ferry::store_status out;
            journals_->append(node, owner, task, [&](ferry::store_status s) { out = std::move(s); });
            if (out.code == ferry::errc::ok) stored_.emplace(node, task.order);
            if (out.code == ferry::errc::ok && task.reply) replies_[{node, task.order}] = task.reply.get();
            return out;
        });
    }
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, told done) {
        write(std::move(done), [this, node, owner, task] {
            ferry::store_status out;
            journals_->update(node, owner, task, [&](ferry::store_status s) { out = std::move(s); });
            if (out.code == ferry::errc::ok && task.reply) replies_[{node, task.order}] = task.reply.get();
            return out;
        });
    }
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, told done) {
        write(std::move(done), [this, node, owner, order] {
            ferry::store_status out;
            journals_->settle(node, owner, order, [&](ferry::store_status s) { out = std::move(s); });
            if (out.code == ferry::errc::ok) {
                stored_.erase({node, order});
                replies_.erase({node, order});
            }
            return out;
        });
    }

    bool has(const std::string& node, std::uint64_t order) const { return stored_.contains({node, order}); }
    bool has_reply(const std::string& node, std::uint64_t order) const { return replies_.contains({node, order}); }
    bool keeps(const ferry::payload* reply) const {
        return std::any_of(replies_.begin(), replies_.end(), [&](const auto& each) { return each.second == reply; });
    }
    std::size_t stored() const noexcept { return stored_.size(); }

private:
    template <class Change>
    void write(told&& done, Change&& change) {
        run([this, done = std::move(done), change = std::forward<Change>(change)](bool alive) {
            auto status = change();
            if (alive) tell([done, status = std::move(status)] { done(status); });
        });
    }

    /// What a write does, it does later; where its server has died meanwhile, perhaps.
    void run(std::function<void(bool)> what) {
        time_.after(pause(), [this, life = life_, what = std::move(what)] {
            const bool alive = life == life_;
            if (alive || (slowest_.count() > 0 && chance_.chance(0.5))) what(alive);
        });
    }
    void tell(std::function<void()> what) {
        time_.after(pause(), [this, life = life_, what = std::move(what)] {
            if (life == life_) what();
        });
    }
    duration pause() { return slowest_.count() > 0 ? chance_.between(duration(0), slowest_) : duration(0); }

    agenda& time_;
    dice& chance_;
    duration slowest_;
    int life_ = 0;
    std::unique_ptr<ferry::memory_agent_store> journals_ = std::make_unique<ferry::memory_agent_store>();
    std::set<std::pair<std::string, std::uint64_t>> stored_;  // by node and order
    std::map<std::pair<std::string, std::uint64_t>, const ferry::payload*> replies_;
};

}  // namespace ferry_test
