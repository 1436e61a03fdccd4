// layer 3
// What the server's core keeps: nodes, their tasks in two lanes each, and the open requests by their ids. Bookkeeping only:
// `dispatch.hpp` and the headers that it is made of have the rules.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/chunk.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/frames.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace ferry::detail {

/// True of a core whose store is shared with other servers' cores.
template <class Types>
inline constexpr bool is_shared = requires {
    requires Types::is_shared;
};

/// In place of what a core has only where its store is shared, or only where it is not.
struct nothing {
    template <class... Unused>
    nothing(Unused&&...) noexcept {}  // NOLINT(google-explicit-constructor)
};

/// From `leasing` to `held` and `unconfirmed` a delivery is under way: `leased` and `held` by stream only, `unconfirmed` by
/// poll only.
enum class task_state {
    storing,
    queued,
    leasing,
    leased,
    sending,
    held,
    unconfirmed,
    awaiting_reply,
    settling,
    reported
};
/// A reply that the store keeps until it was handled. `kept` is one from before a restart that nobody has asked for.
enum class reply_stage { none, to_note, noting, kept, loading, handing_over };
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
    bool outstanding = false;    // handed to the stream that is open
    bool interrupted = false;    // its delivery went down with its stream; what has come of it, the next hello tells
    bool lease_is_void = false;  // what it was leased for is over: when that is done, it starts over
    bool taken_unnoted = false;  // the journal is still to be told that it is taken
    dispatch_node<Types>* owner = nullptr;
    dispatch_task* previous = nullptr;
    dispatch_task* next = nullptr;
    errc interruption = errc::ok;  // why; ok: the server was at an end
    bool at_node = false;          // in part or ready, as the hello said, and not sent since
    std::uint64_t resume = 0;      // bytes that the node has already
    std::uint64_t best = 0;        // the most that it ever had when a stream broke
    time_point accepted, expires, not_before = time_point::min();
    time_point lease_end;                 // while held
    std::optional<time_point> reply_due;  // none: nobody here waits for a reply
    time_point given_up =
        time_point::max();     // a request of before a restart, without a reply, for which nobody has asked again
    std::string carried_over;  // the connection of the last delivery, by poll
    std::string label;         // for logs
    std::vector<typename Types::ticket> tickets;
    outcome how;
    std::optional<typename Types::reply> answer;
    std::uint64_t answer_bytes = 0;                       // as it came, where the store keeps it
    std::vector<typename Types::reply_call> answered_by;  // told when the task is settled, or the reply noted
    reply_stage reply_at = reply_stage::none;
    bool is_for_handler = false;  // the reply, as nobody waits for it
    bool is_restored = false;
    bool loads_again = false;      // its reply, for who asks while others are at work on it
    bool loads_by_itself = false;  // its reply, for the handler
    int handlers = 0;              // that have not returned

    /// Waits for its turn, and grows older.
    bool waits() const noexcept { return state == task_state::storing || state == task_state::queued; }
    bool is_over() const noexcept { return state == task_state::settling || state == task_state::reported; }
    bool waits_for_journal() const noexcept { return state == task_state::storing && busy == store_op::none; }
    bool is_free() const noexcept { return state == task_state::queued && busy == store_op::none; }
    /// Its node is not to be told yet that its reply has come.
    bool reply_is_open() const noexcept {
        return state == task_state::settling && (reply_at <= reply_stage::noting || !answered_by.empty());
    }
    bool is_at_node() const noexcept {
        return outstanding && (state == task_state::sending || state == task_state::held);
    }
    std::size_t lane() const noexcept { return record.urgent ? 0 : 1; }
};

/// Tasks in the order of sending. Over a stream the first of them are outstanding; of these, the first are held.
template <class Types>
struct dispatch_lane {
    using task = dispatch_task<Types>;

    task* head = nullptr;
    task* tail = nullptr;
    task* next = nullptr;    // the first that is not outstanding
    task* unsent = nullptr;  // the first that is not held
    std::size_t outstanding = 0;
    std::uint64_t outstanding_bytes = 0;

    void enter(task& t) {
        t.in_lane = true;
        t.previous = tail;
        (tail ? tail->next : head) = &t;
        tail = &t;
        if (!next) next = &t;
        if (!unsent) unsent = &t;
    }

    void leave(task& t) {
        t.in_lane = false;
        if (next == &t) next = t.next;
        if (unsent == &t) unsent = t.next;
        (t.previous ? t.previous->next : head) = t.next;
        (t.next ? t.next->previous : tail) = t.previous;
        t.previous = t.next = nullptr;
        forget(t);
    }

    /// The next one becomes outstanding.
    void hand_over() {
        next->outstanding = true;
        ++outstanding;
        outstanding_bytes += next->record.content->size();
        next = next->next;
    }

    /// None is outstanding from this one on. Calls `each(task&)` for those that were.
    template <class Each>
    void take_back(task& from, Each&& each) {
        if (!from.outstanding) return;
        if (from.state == task_state::held) unsent = &from;
        next = &from;
        for (task* t = &from; t && t->outstanding; t = t->next) {
            forget(*t);
            each(*t);
        }
    }

private:
    void forget(task& t) {
        if (!std::exchange(t.outstanding, false)) return;
        --outstanding;
        outstanding_bytes -= t.record.content->size();
    }
};

/// A task on its way through a poll.
template <class Types>
struct dispatch_delivery {
    typename Types::call on;
    std::string connection;
    std::shared_ptr<const payload> content;
    chunk_cutter<Types::chunk_size::value> chunks;
    std::chrono::steady_clock::time_point last_progress;
    std::chrono::steady_clock::time_point ends;  // `dispatch_node::poll_ends`
    dispatch_task<Types>* of;                    // null once the task has ended; the stream still goes on to its end
    chunk part{};
    std::uint64_t sent = 0;
    std::optional<bool> confirmed{};  // what the polls show that came since the last range: whether the node has it
};

/// A node's open stream.
template <class Types>
struct dispatch_session {
    /// A task that is being sent, of each lane one.
    struct transfer {
        dispatch_task<Types>* of;
        chunk_cutter<Types::chunk_size::value> chunks;
        frames::delivery_head head;
        chunk part{};
    };

    frames::hello hello;
    std::vector<std::uint64_t>
        ahead;                // tasks that were ready at the node when their turn had not come: it may run them
    bool reconciled = false;  // with what the hello says that the node holds
    bool leaving = false;     // the node, or this server: nothing more is handed over
    bool writing = false;     // a range is under way
    std::size_t writing_lane = 0;
    std::array<std::optional<transfer>, 2> transfers;
    std::chrono::steady_clock::time_point last_progress;
};

/// A reply that came while the journal, which may hold its request, was being acquired.
template <class Types>
struct early_reply {
    typename Types::reply_call call;
    std::string request_id;
    typename Types::reply content;
    std::uint64_t number;
    std::shared_ptr<const payload> encoded;
    std::uint64_t bytes;
};

/// The replies of a node that came last, each with the task that it ended, or 0.
class replies_seen {
public:
    const task_key* find(std::uint64_t number) const {
        const auto found = tasks_.find(number);
        return found == tasks_.end() ? nullptr : &found->second;
    }
    void remember(std::uint64_t number, task_key ended) {
        if (number == 0 || !tasks_.emplace(number, ended).second) return;
        order_.push_back(number);
        if (order_.size() <= frames::remembered_replies) return;
        tasks_.erase(order_.front());
        order_.pop_front();
    }
    void forget(std::uint64_t number) {
        if (tasks_.erase(number) > 0) std::erase(order_, number);
    }

private:
    std::unordered_map<std::uint64_t, task_key> tasks_;
    std::deque<std::uint64_t> order_;
};

/// What waits in the lanes of all nodes together.
struct queued_in_all {
    std::size_t tasks = 0;
    std::uint64_t bytes = 0;
    std::size_t unsettled = 0;  // in no lane any more
};

/// A reply that came while a task of its request was ending, whose end is to be in the store first.
template <class Types>
struct late_reply {
    task_key after;
    std::vector<typename Types::reply_call> from;
    std::string request_id;
    std::shared_ptr<const payload> encoded;
    std::uint64_t number;
};

/// What is known of a node only where its journal is one that servers share.
template <class Types>
struct shared_journal {
    std::unordered_map<std::uint64_t, dispatch_task<Types>*> tasks;  // by order; none where another server owns it
    std::unordered_set<dispatch_task<Types>*> replies;               // to no task, on their way into the store
    std::vector<late_reply<Types>> late_replies;
    std::unique_ptr<replies_seen> forwards;  // numbers of messages to other nodes
    bool fetching = false;
    bool has_changed = false;       // since the fetch, or the acquisition, that is under way began
    bool is_free = false;           // it was told, while it was this server's
    bool is_untold = false;         // the others have not heard of the status
    bool is_mirrored = false;       // the status is what another server has told
    std::optional<seen_node> told;  // by another server, of this server's own node: it may be the other's by now
    std::chrono::steady_clock::time_point acquire_at = std::chrono::steady_clock::time_point::max();
    std::chrono::milliseconds pause{};  // before the next attempt to acquire it
    std::size_t posting_tasks = 0;
    std::uint64_t posting_bytes = 0;
};

template <class Types>
struct dispatch_node {
    using task = dispatch_task<Types>;
    using time_point = std::chrono::steady_clock::time_point;
    using share_type = std::conditional_t<is_shared<Types>, shared_journal<Types>, nothing>;

    // What each task touches stands together: among very many nodes, each line of memory is waited for.
    const std::string* id = nullptr;
    queued_in_all* all = nullptr;
    node_status status = node_status::disconnected;
    bool owned = false;
    bool acquiring = false;
    bool may_go_on = false;  // tasks in the lanes may remember what a stream, or an earlier server, has done with them
    std::unique_ptr<dispatch_session<Types>> session;   // where `current` is a stream
    std::unique_ptr<dispatch_delivery<Types>> carried;  // perhaps by an older poll, which is just ending
    typename Types::call current{};                     // the newest poll, or the stream
    // Of the newest poll, both some time before its deadline.
    time_point poll_rests;  // nothing is begun over it any more
    time_point poll_ends;   // nothing is sent over it any more, and no later poll shows what it has brought
    epoch owner = 0;        // stays when the journal is lost: what is then still written fails
    std::uint64_t last_order = 0;
    std::size_t queued_tasks = 0;
    std::uint64_t queued_bytes = 0;
    std::unique_ptr<std::unordered_map<std::string_view, task*>> requests;
    time_point left;  // when the last poll or stream ended
    time_point wake = time_point::max();
    std::string connection;
    std::array<dispatch_lane<Types>, 2> lanes;  // the urgent one, the usual one

    std::uint64_t wake_turn = 0;
    std::chrono::system_clock::time_point since;
    std::unique_ptr<replies_seen> replies;
    std::vector<early_reply<Types>> early_replies;
    std::vector<task*> unsettled;  // reported, and perhaps still in the journal
    [[no_unique_address]] share_type share{};

    node_info info() const { return {*id, status, since, queued_tasks, queued_bytes, requests ? requests->size() : 0}; }

    dispatch_lane<Types>& lane_of(const task& t) { return lanes[t.lane()]; }

    void enter_lane(task& t) {
        lane_of(t).enter(t);
        count(1, t.record.content->size());
    }

    void leave_lane(task& t) {
        if (!t.in_lane) return;
        if (session) {
            auto& moves = session->transfers[t.lane()];
            if (moves && moves->of == &t) moves.reset();
        }
        lane_of(t).leave(t);
        count(-1, 0 - t.record.content->size());
    }

    /// Calls `take(task&)` for each task of both lanes; it may take the task out of its lane.
    template <class Take>
    void for_each_in_lanes(Take&& take) const {
        for (const auto& lane : lanes) {
            for (task* t = lane.head; t;) {
                task* const next = t->next;
                take(*t);
                t = next;
            }
        }
    }

    /// The open task of this request, or null.
    task* request(const std::string& request_id) const {
        if (!requests || request_id.empty()) return nullptr;
        const auto found = requests->find(request_id);
        return found == requests->end() ? nullptr : found->second;
    }

    void remember_reply(std::uint64_t number, task_key ended) {
        if (number == 0) return;
        if (!replies) replies = std::make_unique<replies_seen>();
        replies->remember(number, ended);
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

    void remember_unsettled(task& t) {
        unsettled.push_back(&t);
        ++all->unsettled;
    }
    task* take_one_unsettled() {
        --all->unsettled;
        task* const out = unsettled.back();
        unsettled.pop_back();
        return out;
    }
    std::vector<task*> take_unsettled() {
        if (all->unsettled == 0) return {};
        all->unsettled -= unsettled.size();
        return std::exchange(unsettled, {});
    }

    void forget_tasks() {
        lanes = {};
        count(-static_cast<std::ptrdiff_t>(queued_tasks), 0 - queued_bytes);
        requests.reset();
        take_unsettled();
        if constexpr (is_shared<Types>) {
            share.tasks.clear();
            share.replies.clear();
        }
    }

private:
    void count(std::ptrdiff_t tasks, std::uint64_t bytes) {
        queued_tasks += static_cast<std::size_t>(tasks);
        queued_bytes += bytes;
        all->tasks += static_cast<std::size_t>(tasks);
        all->bytes += bytes;
    }
};

}  // namespace ferry::detail
