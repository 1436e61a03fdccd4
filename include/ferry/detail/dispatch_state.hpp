// layer 3
// What the server's core keeps: nodes, their tasks in one lane each, and the open requests by their ids. Bookkeeping only:
// `dispatch.hpp` and the headers that it is made of have the rules.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/chunk.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

enum class task_state { storing, queued, leasing, sending, unconfirmed, awaiting_reply, settling, reported };
enum class store_op { none, append, update, settle };

template <class Types>
struct dispatch_node;

template <class Types>
struct dispatch_task {
    using time_point = std::chrono::steady_clock::time_point;

    task_key key = 0;
    task_record record;
    task_state state = task_state::storing;
    store_op busy = store_op::none;  // one operation on a task at a time
    epoch busy_as = 0;
    bool stored = false;  // the journal has it, or may have it
    bool in_lane = false;
    dispatch_node<Types>* owner = nullptr;
    dispatch_task* previous = nullptr;
    dispatch_task* next = nullptr;
    time_point accepted, expires, not_before = time_point::min();
    std::optional<time_point> reply_due;  // none: nobody here waits for a reply
    std::string carried_over;             // the connection of the last delivery
    std::string label;                    // for logs
    std::vector<typename Types::ticket> tickets;
    outcome how;
    std::optional<typename Types::reply> answer;

    /// Waits for its turn, and grows older.
    bool waits() const noexcept { return state == task_state::storing || state == task_state::queued; }
    bool is_over() const noexcept { return state == task_state::settling || state == task_state::reported; }
    bool waits_for_journal() const noexcept { return state == task_state::storing && busy == store_op::none; }
};

/// A task on its way through a poll.
template <class Types>
struct dispatch_delivery {
    typename Types::call on;
    std::string connection;
    std::shared_ptr<const payload> content;
    chunk_cutter<Types::chunk_size::value> chunks;
    std::chrono::steady_clock::time_point last_progress;
    dispatch_task<Types>* of;  // null once the task has ended; the stream still goes on to its end
    chunk part{};
    std::uint64_t sent = 0;
    std::optional<bool> confirmed{};  // what the polls show that came since the last range: false is another connection
};

/// A reply that came while the journal, which may hold its request, was being acquired.
template <class Types>
struct early_reply {
    typename Types::reply_call call;
    std::string request_id;
    typename Types::reply content;
};

template <class Types>
struct dispatch_node {
    using task = dispatch_task<Types>;
    using time_point = std::chrono::steady_clock::time_point;

    const std::string* id = nullptr;
    node_status status = node_status::disconnected;
    bool owned = false;
    bool acquiring = false;
    epoch owner = 0;  // stays when the journal is lost: what is then still written fails
    std::uint64_t last_order = 0;
    std::chrono::system_clock::time_point since;
    time_point left;  // when the last poll ended
    time_point wake = time_point::max();
    typename Types::call current{};  // the newest poll
    std::string connection;
    std::unique_ptr<dispatch_delivery<Types>> carried;  // perhaps by an older poll, which is just ending
    task* head = nullptr;
    task* tail = nullptr;
    std::size_t queued_tasks = 0;
    std::uint64_t queued_bytes = 0;
    std::unique_ptr<std::unordered_map<std::string_view, task*>> requests;
    std::vector<early_reply<Types>> early_replies;
    std::vector<task*> unsettled;  // reported, and perhaps still in the journal

    node_info info() const { return {*id, status, since, queued_tasks, queued_bytes, requests ? requests->size() : 0}; }

    void enter_lane(task& t) {
        t.in_lane = true;
        t.previous = tail;
        (tail ? tail->next : head) = &t;
        tail = &t;
        ++queued_tasks;
        queued_bytes += t.record.content->size();
    }

    void leave_lane(task& t) {
        if (!std::exchange(t.in_lane, false)) return;
        (t.previous ? t.previous->next : head) = t.next;
        (t.next ? t.next->previous : tail) = t.previous;
        t.previous = t.next = nullptr;
        --queued_tasks;
        queued_bytes -= t.record.content->size();
    }

    /// The open task of this request, or null.
    task* request(const std::string& request_id) const {
        if (!requests || request_id.empty()) return nullptr;
        const auto found = requests->find(request_id);
        return found == requests->end() ? nullptr : found->second;
    }

    void open_request(task& t) {
        if (t.record.request_id.empty()) return;
        if (!requests) requests = std::make_unique<std::unordered_map<std::string_view, task*>>();
        requests->emplace(t.record.request_id, &t);
    }

    void close_request(const task& t) {
        if (request(t.record.request_id) != &t) return;
        requests->erase(t.record.request_id);
        if (requests->empty()) requests.reset();
    }

    void forget_tasks() {
        head = tail = nullptr;
        queued_tasks = queued_bytes = 0;
        requests.reset();
        unsettled.clear();
    }
};

}  // namespace ferry::detail
