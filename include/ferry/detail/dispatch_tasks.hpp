// layer 3
// All tasks of the server's core, and what those who sent them are told.
#pragma once

#include <ferry/detail/dispatch_state.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/payload.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

namespace ferry::detail {

template <class Types>
class dispatch_tasks {
    using ticket = typename Types::ticket;
    using reply = typename Types::reply;
    using reply_call = typename Types::reply_call;

public:
    using task = dispatch_task<Types>;
    using node = dispatch_node<Types>;

    /// Tasks' ids are the same for a seed.
    explicit dispatch_tasks(std::uint64_t seed) : ids_(seed) {}

    // --- the table -----------------------------------------------------------------------------------------------------

    task* find(task_key key) {
        const auto found = tasks_.find(key);
        return found == tasks_.end() ? nullptr : &found->second;
    }

    task& add(node& n, std::chrono::steady_clock::time_point accepted) {
        task& t = tasks_[++last_key_];
        t.key = last_key_;
        t.record.id = ids_.next_id();
        t.owner = &n;
        t.accepted = accepted;
        ++open_;
        return t;
    }

    /// That no task has.
    task_key new_key() noexcept { return ++last_key_; }
    std::uint64_t new_id() noexcept { return ids_.next_id(); }

    void forget(const task& t) { tasks_.erase(task_key{t.key}); }
    void clear() noexcept {
        tasks_.clear();
        open_ = 0;
    }

    auto begin() { return tasks_.begin(); }
    auto end() { return tasks_.end(); }

    template <class Take>
    void for_each_open(Take&& take) const {
        for (const auto& [key, t] : tasks_) {
            if (!t.is_over()) take(t);
        }
    }

    /// Accepted, and not reported.
    std::size_t open() const noexcept { return open_; }
    void reported() noexcept { --open_; }

    // --- what is told --------------------------------------------------------------------------------------------------

    /// Tells the task's senders of its end, and gives its reply to them or to the handler. With a key it is told when all of
    /// them are done with it.
    template <class Sink>
    static void give(task& t, task_key key, Sink& sink) {
        if (t.answer && t.is_for_handler) {
            t.handlers += key != 0;
            sink(effects::unclaimed_reply<reply>{*t.owner->id, t.record.request_id, *std::exchange(t.answer, {}), key,
                                                 t.answer_bytes});
        }
        for (auto& each : t.tickets) {
            const bool last = &each == &t.tickets.back();
            t.handlers += key != 0;
            sink(effects::ended<ticket, reply>{std::move(each), last ? std::move(t.how) : t.how,
                                               last ? std::exchange(t.answer, {}) : t.answer, *t.owner->id, key});
        }
        t.tickets.clear();
        release_answer(t, sink);
    }

    /// Tells the node whose reply it was.
    template <class Sink>
    static void answer(task& t, errc reason, const std::string& text, Sink& sink) {
        for (auto& each : std::exchange(t.answered_by, {})) {
            sink(effects::answer_reply<reply_call>{std::move(each), reason, text});
        }
    }

    template <class Sink>
    static void release(task& t, Sink& sink) {
        for (auto* each : {&t.record.content, &t.record.reply}) {
            if (*each) sink(effects::released<std::shared_ptr<const payload>>{std::exchange(*each, nullptr)});
        }
    }

    template <class Sink>
    static void release_answer(task& t, Sink& sink) {
        if (t.answer) sink(effects::released<reply>{*std::exchange(t.answer, {})});
    }

private:
    random_bits ids_;
    std::unordered_map<task_key, task> tasks_;
    task_key last_key_ = 0;
    std::size_t open_ = 0;
};

}  // namespace ferry::detail
