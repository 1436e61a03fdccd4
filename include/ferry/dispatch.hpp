// The server's core: what is owed to which node, and what has become of it. A pure state machine: events and the time go
// in, effects come out through a sink. No threads, sockets, clock or I/O, and no lock: its owner calls it one step at a time.
//
// A node's tasks form two lanes, the urgent one and the usual one. In each, a task keeps its place until it is taken or ended:
//
//   storing -> queued -> leasing -> leased -> sending -> held -> taken (-> awaiting its reply) -> settling -> gone
//                 ^__________|_________|_________|_________|   its stream ended, or the node wants it later
//
// A poll carries one task, without being `leased` and `held`: it is `unconfirmed` until the node's next poll. That comes over
// the same connection where the node has the task. Over another one, or where none comes, the delivery has failed. Some time
// before a poll's deadline the core ends it: what is on its way to a node that just gives its poll up would be lost.
//
// Where several servers share the store, a core has two halves that meet in it alone: one owns the journals of nodes, and knows
// no senders; the other one posts what its senders send, to any node's journal, and waits for the ends.
//
// Here is what each event sets going. The rules are in parts, each built upon those before it:
// `detail/dispatch_nodes.hpp` (who is there), `detail/dispatch_tasks.hpp` (what is owed, and what is told),
// `detail/dispatch_journal.hpp` (what the store has), `detail/dispatch_replies.hpp` (what was answered),
// `detail/dispatch_queue.hpp` (what waits), `detail/dispatch_polls.hpp` and `detail/dispatch_streams.hpp` (the two ways to a
// node); and of a shared store `detail/dispatch_sharing.hpp` (whose journals are this server's) and
// `detail/dispatch_asking.hpp` (what its senders have posted).
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/detail/dispatch_asking.hpp>
#include <ferry/detail/dispatch_endings.hpp>
#include <ferry/detail/dispatch_journal.hpp>
#include <ferry/detail/dispatch_nodes.hpp>
#include <ferry/detail/dispatch_polls.hpp>
#include <ferry/detail/dispatch_queue.hpp>
#include <ferry/detail/dispatch_replies.hpp>
#include <ferry/detail/dispatch_sharing.hpp>
#include <ferry/detail/dispatch_state.hpp>
#include <ferry/detail/dispatch_streams.hpp>
#include <ferry/detail/dispatch_tasks.hpp>
#include <ferry/detail/dispatch_writes.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/retry.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <utility>

namespace ferry {

/// The core. `Types` names what it only hands through: `call` (a poll or a stream; default-constructed it is none, and comparable),
/// `reply_call`, `ticket` (a sender's interest) and `reply`; and what it uses: `retry` and `chunk_size`. With
/// `static constexpr bool is_shared = true` its store is one that several servers share.
///
/// `step(event, now, sink)` calls `sink(effect)` for each effect, in order. The sink must not call `step` before it has
/// returned. Effects hold references into the core where they hold a reference: use them before the step ends. What the core has
/// no use for, of users' contents and replies, is left in the event, or comes out by `effects::released`: none is destroyed
/// in a step.
template <class Types>
class dispatch {
public:
    using call = typename Types::call;
    using reply_call = typename Types::reply_call;
    using ticket = typename Types::ticket;
    using reply = typename Types::reply;
    using retry = typename Types::retry;
    using cutter = chunk_cutter<Types::chunk_size::value>;
    using time_point = std::chrono::steady_clock::time_point;

    /// The tasks' ids are the same for a seed: give each process another one.
    explicit dispatch(dispatch_limits limits = {}, retry policy = {}, std::uint64_t seed = 0)
        : limits_(limits), tasks_(seed), queue_(std::move(policy), nodes_, writes_, endings_) {}
    dispatch(const dispatch&) = delete;
    dispatch& operator=(const dispatch&) = delete;

    /// Returns the task's key, or 0 where it has ended already.
    template <class Sink>
    task_key step(events::submitted<ticket>&& e, instant now, Sink&& sink) {
        const auto refuse = [&](outcome_kind kind, errc reason, std::string text) {
            sink(effects::ended<ticket, reply>{
                std::move(e.ticket), {kind, reason, std::move(text), 0}, std::nullopt, e.node});
            return task_key{0};
        };
        if (stopping_) return refuse(outcome_kind::stopped, errc::stopped, stopping_text);
        node* const known = nodes_.find(e.node);
        if (!known) {
            return refuse(outcome_kind::node_unknown, errc::node_unknown, "node " + e.node + " has never polled");
        }
        node& n = *known;
        task* const same = n.request(e.request_id);
        if constexpr (!shared) {
            if (same) {
                join(*same, e, now, sink);
                endings_.load_for_sender(*same, sink);
                return same->key;
            }
        }
        if (n.status == node_status::disconnected && !e.keep_while_disconnected && !same) {
            return refuse(outcome_kind::node_disconnected, errc::node_disconnected,
                          "node " + e.node + " is DISCONNECTED");
        }
        const auto size = e.content->size();
        if (size > limits_.max_payload_bytes || !cutter::fits(size)) {
            return refuse(outcome_kind::too_large, errc::too_large,
                          "a payload of " + std::to_string(size) +
                              " bytes is beyond the server's limits.max_payload_bytes, " +
                              std::to_string(limits_.max_payload_bytes));
        }
        if (auto full = what_is_full(n, size); !full.empty()) {
            endings_.try_to_settle(n, sink);
            return refuse(outcome_kind::queue_full, errc::queue_full, std::move(full));
        }
        if constexpr (shared) {
            return asking_.post(n, std::move(e), now, sink);
        } else {
            return add(n, std::move(e), now, sink);
        }
    }

    template <class Sink>
    void step(events::poll_opened<call> e, instant now, Sink&& sink) {
        if (node* n = call_opened(e, now, sink)) {
            polls_.opened(*n, e.deadline, now, sink);
            streams_.forsaken(*n, now, sink);
            pump(*n, now, sink);
        }
    }

    template <class Sink>
    void step(events::stream_opened<call> e, instant now, Sink&& sink) {
        if (node* n = call_opened(e, now, sink)) {
            streams_.opened(*n, std::move(e.hello), now, sink);
            pump(*n, now, sink);
        }
    }

    template <class Sink>
    void step(const events::receipt_came<call>& e, instant now, Sink&& sink) {
        node* n = streamer(e.node, e.call);
        if (!n) return;
        streams_.receipt_came(*n, e.receipt, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(const events::lease_renewed<call>& e, instant now, Sink&&) {
        if (node* n = streamer(e.node, e.call)) streams_.lease_renewed(*n, e.tasks, now);
    }

    template <class Sink>
    void step(const events::node_leaving<call>& e, instant, Sink&&) {
        if (node* n = streamer(e.node, e.call)) streams_.leaving(*n);
    }

    template <class Sink>
    void step(const events::range_sent<call>& e, instant now, Sink&& sink) {
        node* n = nodes_.find(e.node);
        if (!n) return;
        if (streams(*n, e.call)) {
            streams_.range_sent(*n, now, sink);
            check_drained(sink);
        } else if (carries(*n, e.call)) {
            polls_.range_sent(*n, now, sink);
        }
    }

    template <class Sink>
    void step(const events::poll_broken<call>& e, instant now, Sink&& sink) {
        if (node* n = nodes_.find(e.node)) broken(*n, e.call, e.reason, e.text, now, sink);
    }

    template <class Sink>
    void step(const events::poll_closed<call>& e, instant now, Sink&& sink) {
        node* n = nodes_.find(e.node);
        if (!n) return;
        if (!carries(*n, e.call) || !e.clean || !n->carried->chunks.done()) {
            return broken(*n, e.call, errc::stream_broken, "the poll ended before the task was carried", now, sink);
        }
        polls_.carried(*n, now, sink);
        pump(*n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::reply_arrived<reply_call, reply>&& e, instant now, Sink&& sink) {
        if (is_at_end_) return refuse_late(std::move(e.call), sink);
        node* n = nodes_.find(e.node);
        if (!n) return refuse_stranger(std::move(e.call), e.node, sink);
        replies_.arrived(*n, std::move(e), now, sink);
        pump(*n, now, sink);
        check_drained(sink);
    }

    /// A full queue is told to the sender; a node that nobody knows is not its business.
    template <class Sink>
    void step(events::forward_arrived<reply_call, ticket>&& e, instant now, Sink&& sink) {
        if (stopping_) return refuse_late(std::move(e.call), sink);
        node* const from = nodes_.find(e.from);
        if (!from) return refuse_stranger(std::move(e.call), e.from, sink);
        if (replies_.known(*from, e.call, e.number, sink)) return;
        if constexpr (shared) {
            if (asking_.has_come(e.call, *from, e.number, sink)) return;
        }
        node* const to = nodes_.find(e.task.node);
        const std::string full = to ? what_is_full(*to, e.task.content->size()) : std::string();
        if (!full.empty()) endings_.try_to_settle(*to, sink);
        if constexpr (shared) {
            const task_key posted = full.empty() ? step(std::move(e.task), now, sink) : task_key{0};
            if (posted != 0) return asking_.is_forwarded(posted, std::move(e.call), *from, e.number);
            if (full.empty()) asking_.remember(*from, e.number);
        } else if (full.empty()) {
            replies_.remember(*from, e.number);
            step(std::move(e.task), now, sink);
        }
        sink(effects::answer_reply<reply_call>{std::move(e.call), full.empty() ? errc::ok : errc::queue_full, full});
    }

    template <class Sink>
    void step(const events::unclaimed_handled& e, instant, Sink&& sink) {
        if constexpr (shared) {
            asking_.handled(e.key, sink);
        } else {
            replies_.handled(e, sink);
        }
        check_drained(sink);
    }

    template <class Sink>
    void step(const events::unclaimed_unwanted& e, instant, Sink&& sink) {
        if constexpr (shared) {
            asking_.handled(e.key, sink);
        } else {
            replies_.unwanted(e, sink);
        }
        check_drained(sink);
    }

    template <class Sink>
    void step(const events::reply_handled& e, instant, Sink&& sink) {
        if constexpr (shared) {
            asking_.handled(e.key, sink);
        } else {
            endings_.handled(e.key, sink);
        }
        check_drained(sink);
    }

    template <class Sink>
    void step(events::reply_loaded<reply>&& e, [[maybe_unused]] instant now, Sink&& sink) {
        if constexpr (shared) {
            asking_.loaded(std::move(e), now, sink);
        } else {
            replies_.loaded(std::move(e), sink);
        }
        check_drained(sink);
    }

    template <class Sink>
    void step(events::withdrawn e, instant now, Sink&& sink) {
        if constexpr (shared) return asking_.withdraw(e.key, sink);
        task* t = tasks_.find(e.key);
        if (!t || t->is_over()) return;
        node& n = *t->owner;
        const bool moves = n.carried && n.carried->of == t;
        endings_.end(*t, {outcome_kind::cancelled, errc::cancelled, "withdrawn by its sender", t->record.attempts},
                     sink);
        if (moves) polls_.cut(n, errc::cancelled, "the task was withdrawn", now, sink);
        pump(n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::store_done&& e, instant now, Sink&& sink) {
        if constexpr (shared) {
            if (asking_.stored(e, sink)) return check_drained(sink);
        }
        task* t = tasks_.find(e.key);
        if (!t) return;
        node& n = *t->owner;
        if constexpr (shared) {
            if (e.status.code == errc::queue_full && endings_.put_back(*t, e.status, sink)) {
                return check_drained(sink);
            }
            if (e.status.code != errc::ok) {
                sharing_.lose(n, e.status, now, sink);
                return check_drained(sink);
            }
            if (!e.status.text.empty()) sink(effects::warning{"node " + *n.id + ": " + e.status.text});
        }
        if (journal_.done(*t, e.status, now, sink)) leased(*t, now, sink);
        pump(n, now, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(events::journal_acquired&& e, instant now, Sink&& sink) {
        node* n = nodes_.find(e.node);
        if (!n || !writes_.acquired(*n)) return;
        auto& keeper = journal_keeper();
        if (const auto& status = e.journal.status; status.code == errc::ok) {
            keeper.take_over(*n, std::move(e.journal), now, sink);
        } else {
            keeper.give_up(*n, status, now, sink);
        }
        replies_.take_early(*n, now, sink);
        streams_.reconcile(*n, now, sink);
        pump(*n, now, sink);
        check_drained(sink);
        if (writes_.acquiring() == 0) sink(effects::all_acquired{});
    }

    template <class Sink>
    void step(const events::nodes_known& e, instant now, Sink&& sink) {
        for (const auto& id : e.ids) {
            node* n = nodes_.find(id);
            if (!n && (n = nodes_.add(id, sink))) n->since = now.system;
            if (n && !stopping_) acquire(*n, sink);
        }
    }

    // --- of a store that several servers share -------------------------------------------------------------------------

    template <class Sink>
    void step(events::ends_waiting, instant, Sink&& sink) {
        asking_.fetch(sink);
    }

    template <class Sink>
    void step(events::ends_fetched&& e, instant now, Sink&& sink) {
        if (is_at_end_) return;
        asking_.fetched(e.ends, now, sink);
        if (writes_.acquiring() == 0) sink(effects::all_acquired{});
        check_drained(sink);
    }

    template <class Sink>
    void step(const events::task_gone& e, instant, Sink&& sink) {
        asking_.gone(e.id, sink);
        check_drained(sink);
    }

    template <class Sink>
    void step(const events::tasks_waiting& e, instant, Sink&& sink) {
        node* n = nodes_.find(e.node);
        if (n && !is_at_end_) sharing_.fetch(*n, sink);
    }

    template <class Sink>
    void step(const events::announcement_failed& e, instant, Sink&& sink) {
        node* n = nodes_.find(e.node);
        if (n && !is_at_end_) sharing_.is_untold(*n, sink);
    }

    template <class Sink>
    void step(events::tasks_fetched&& e, instant now, Sink&& sink) {
        node* n = nodes_.find(e.node);
        if (!n || is_at_end_) return;
        sharing_.fetched(*n, e.owner, e.journal, now, sink);
        pump(*n, now, sink);
        check_drained(sink);
    }

    /// Where it is this server's all the same, the store has taken the server for dead. Whoever acquires it now, this one is told.
    template <class Sink>
    void step(const events::journal_free& e, instant, Sink&& sink) {
        node* n = nodes_.find(e.node);
        if (stopping_ || (!n && !(n = nodes_.add(e.node, sink)))) return;
        sharing_.is_free(*n, sink);
    }

    template <class Sink>
    void step(events::node_seen&& e, instant, Sink&& sink) {
        node* n = nodes_.find(e.what.id);
        if (n || (n = nodes_.add(e.what.id, sink))) sharing_.seen(*n, std::move(e.what), sink);
    }

    template <class Sink>
    void step(events::store_back, instant, Sink&& sink) {
        if (is_at_end_) return;
        asking_.fetch(sink);
        for (auto& [id, n] : nodes_) {
            if (n.owned || n.acquiring) sharing_.fetch(n, sink);
            nodes_.tell_others(n, sink);
        }
    }

    /// What the others are to be told of the node; nothing where its journal is not this server's.
    std::optional<std::pair<epoch, seen_node>> owned_node(const std::string& id) const {
        const auto* n = nodes_.find(id);
        if (!n || !n->owned) return std::nullopt;
        return std::pair{n->owner, seen_node{id, n->status, n->since}};
    }

    // --- time, beginning and end ---------------------------------------------------------------------------------------

    template <class Sink>
    void step(events::time_passed, instant now, Sink&& sink) {
        nodes_.wake(
            now.steady, [&](node& n) { look_after(n, now, sink); }, sink);
        if constexpr (shared) asking_.time_passed(now, sink);
        check_drained(sink);
    }

    /// Users' functions may be called from now on with what was left by an earlier server.
    template <class Sink>
    void step(events::serving, instant, Sink&& sink) {
        if (stopping_) return;
        if constexpr (shared) {
            asking_.serve(sink);
        } else {
            endings_.let_load(true, sink);
        }
    }

    /// No new polls or tasks; what is being carried may finish. `drained` tells when nothing is under way.
    template <class Sink>
    void step(events::stop_requested, instant now, Sink&& sink) {
        stopping_ = true;
        leave_unclaimed(sink);
        for (auto& [id, n] : nodes_) {
            streams_.leaving(n);
            if (!n.session) nodes_.release_parked(n, errc::stopped, stopping_text, now, sink);
        }
        check_drained(sink);
    }

    /// Ends all that is left. The store keeps what was not settled.
    template <class Sink>
    void step(events::stop_forced, instant now, Sink&& sink) {
        stopping_ = is_at_end_ = true;
        leave_unclaimed(sink);
        for (auto& [id, n] : nodes_) {
            if (n.carried) {
                sink(effects::end_poll<call>{n.carried->on, errc::stopped, stopping_text});
                polls_.take(n, now, sink);
            }
            nodes_.release_parked(n, errc::stopped, stopping_text, now, sink);
            replies_.refuse_early(n, errc::stopped, stopping_text, sink);
            writes_.acquired(n);
            n.forget_tasks();
        }
        endings_.abandon(sink);
        if constexpr (shared) asking_.abandon(sink);
        check_drained(sink);
    }

    std::optional<node_info> get_node(const std::string& id) const {
        const auto* found = nodes_.find(id);
        if (!found) return std::nullopt;
        return found->info();
    }

    template <class Take>
    void for_each_node(Take&& take) const {
        for (const auto& [id, n] : nodes_) take(n.info());
    }

    /// Each task that has been accepted and not yet ended: of the journals that are owned here, and of senders here.
    template <class Take>
    void for_each_task(Take&& take) const {
        std::unordered_set<std::uint64_t> ids;
        std::unordered_set<std::string> requests;
        const auto is_new = [&](std::uint64_t id, const std::string& node, const std::string& request_id) {
            const bool same = !request_id.empty() && !requests.insert(node + '\n' + request_id).second;
            return ids.insert(id).second && !same;
        };
        tasks_.for_each_open([&](const task& t) {
            if constexpr (shared) is_new(t.record.id, *t.owner->id, t.record.request_id);
            take(pending_task{*t.owner->id, t.record.request_id, t.record.content ? t.record.content->size() : 0,
                              t.record.attempts, t.record.accepted, t.record.taken, t.record.wants_reply});
        });
        if constexpr (shared) {
            asking_.for_each([&](std::uint64_t id, const pending_task& each) {
                if (is_new(id, each.node, each.request_id)) take(pending_task(each));
            });
        }
    }

    /// Attempts and age of the open task that a reply answers; nothing where there is none.
    std::optional<std::pair<int, std::chrono::steady_clock::duration>> open_request(const std::string& node_id,
                                                                                    const std::string& request_id,
                                                                                    instant now) const {
        const node* n = nodes_.find(node_id);
        const task* t = n ? n->request(request_id) : nullptr;
        if (!t) return std::nullopt;
        return std::pair{t->record.attempts, now.steady - t->accepted};
    }

    /// Nodes that are not DISCONNECTED.
    std::size_t reachable_nodes() const noexcept { return nodes_.reachable(); }

    /// True where nothing is under way, after `stop_requested`, but what users' functions are at work on.
    bool quiet_but_for_handlers() const {
        if (polls_.carrying() > 0 || endings_.settling_tasks() > endings_.with_handlers()) return false;
        if constexpr (shared) {
            if (asking_.posting() > 0 || asking_.awaited_to_load() > 0) return false;
        }
        for (const auto& [id, n] : nodes_) {
            if (polls_.unconfirmed(n) && n.status != node_status::disconnected) return false;
            if (streams_.anything_outstanding(n)) return false;
        }
        return true;
    }

    /// True where no journal that was asked for, and no end from before, is still to come.
    bool has_recovered() const noexcept {
        if constexpr (shared) {
            if (!asking_.knows_ends()) return false;
        }
        return writes_.acquiring() == 0;
    }

    /// Tasks accepted and not yet ended.
    std::size_t open_tasks() const noexcept { return tasks_.open(); }

private:
    using task = detail::dispatch_task<Types>;
    using node = detail::dispatch_node<Types>;

    static constexpr bool shared = detail::is_shared<Types>;
    template <class Part>
    using where_shared = std::conditional_t<shared, Part, detail::nothing>;

    static inline const std::string stopping_text = "the server is stopping";

    static bool carries(const node& n, const call& on) { return n.carried && n.carried->on == on; }
    static bool streams(const node& n, const call& on) { return n.session && n.current == on; }

    /// The node whose stream this is.
    node* streamer(const std::string& id, const call& on) {
        node* n = nodes_.find(id);
        return n && streams(*n, on) ? n : nullptr;
    }

    /// The call will carry nothing more.
    template <class Sink>
    void broken(node& n, const call& on, errc reason, std::string_view text, instant now, Sink& sink) {
        const auto end_call = [&] {
            if (reason != errc::stream_broken) sink(effects::end_poll<call>{on, reason, std::string(text)});
        };
        if (streams(n, on)) {
            end_call();
            nodes_.session_over(n, reason, now, sink);
        } else if (carries(n, on)) {
            end_call();
            polls_.drop(n, reason, text, now, sink);
            pump(n, now, sink);
        } else if (n.current == on) {
            n.current = call{};
            nodes_.poll_over(n, now, sink);
        }
        check_drained(sink);
    }

    /// What a poll and a stream begin alike. Null where the call was ended.
    template <class Opened, class Sink>
    node* call_opened(Opened& e, instant now, Sink& sink) {
        node* n = nodes_.find(e.node);
        if (n) polls_.poll_came(*n, e.connection, now, sink);
        const auto refuse = [&](errc reason, std::string text) {
            sink(effects::end_poll<call>{std::move(e.call), reason, std::move(text)});
            return nullptr;
        };
        if (stopping_) {
            refuse(errc::stopped, stopping_text);
            check_drained(sink);
            return nullptr;
        }
        if (!n) n = nodes_.add(e.node, sink);
        if (!n) return refuse(errc::queue_full, "the server knows too many nodes");
        if (n->session) {
            polls_.warn_of_second(*n, sink);
            nodes_.end_session(*n, errc::superseded, polls_.superseded_text, now, sink);
        }
        const call older = nodes_.poll_opened(*n, std::move(e.call), e.connection, now, sink);
        if (older != call{}) polls_.supersede(*n, older, now, sink);
        acquire(*n, sink);
        return n;
    }

    template <class Sink>
    void acquire(node& n, Sink& sink) {
        if constexpr (shared) {
            sharing_.acquire(n, sink);
        } else {
            writes_.acquire(n, sink);
        }
    }
    auto& journal_keeper() {
        if constexpr (shared) {
            return sharing_;
        } else {
            return journal_;
        }
    }

    /// Of replies that nobody waits for, no more are handed over.
    template <class Sink>
    void leave_unclaimed(Sink& sink) {
        if constexpr (shared) {
            asking_.leave_unclaimed();
        } else {
            endings_.let_load(false, sink);
        }
    }

    template <class Sink>
    task_key add(node& n, events::submitted<ticket>&& e, instant now, Sink& sink) {
        task& t = tasks_.add(n, now.steady);
        t.record.request_id = std::move(e.request_id);
        t.label = std::move(e.label);
        t.record.content = std::move(e.content);
        t.record.urgent = e.urgent;
        t.record.accepted = now.system;
        t.record.expires = detail::later(now.system, e.expires_after);
        t.expires = detail::later(now.steady, e.expires_after);
        n.enter_lane(t);
        n.open_request(t);
        join(t, e, now, sink);
        nodes_.arm(n, t.expires, sink);
        writes_.store(n, t, sink);
        return t.key;
    }

    template <class Sink>
    void pump(node& n, instant now, Sink& sink) {
        polls_.pump(n, now, sink);
        streams_.pump(n, now, sink);
    }

    /// The journal has noted that the task is to be sent.
    template <class Sink>
    void leased(task& t, instant now, Sink& sink) {
        if (std::exchange(t.lease_is_void, false)) {
            return queue_.requeue(t, t.not_before > now.steady ? t.not_before : time_point::min(), sink);
        }
        t.owner->session ? streams_.leased(t, sink) : polls_.start(t, now, sink);
    }

    template <class Sink>
    void refuse_late(reply_call&& call, Sink& sink) {
        sink(effects::answer_reply<reply_call>{std::move(call), errc::stopped, stopping_text});
    }

    template <class Sink>
    void refuse_stranger(reply_call&& call, const std::string& id, Sink& sink) {
        sink(effects::warning{"a reply of node " + id + ", which has never polled, is not taken"});
        sink(effects::answer_reply<reply_call>{std::move(call), errc::node_unknown,
                                               "a reply of node " + id + ", which has never polled"});
    }

    /// Empty where there is room for a task of so many bytes.
    std::string what_is_full(const node& n, std::uint64_t more) const {
        if (auto full = nodes_.what_is_unsettled(n); !full.empty()) return full;
        const auto is_full = [](const std::string& whose, std::size_t tasks, std::uint64_t bytes) {
            return whose + " is full: " + std::to_string(tasks) + " tasks, " + std::to_string(bytes) + " bytes";
        };
        const auto& all = nodes_.queued();
        if constexpr (shared) {
            const auto& posting = n.share;
            if (n.queued_tasks + posting.posting_tasks >= limits_.max_queued_tasks ||
                n.queued_bytes + posting.posting_bytes + more > limits_.max_queued_bytes) {
                return is_full("the queue of node " + *n.id, n.queued_tasks + posting.posting_tasks,
                               n.queued_bytes + posting.posting_bytes);
            }
            if (asking_.open() >= limits_.max_all_queued_tasks) return is_full("what is sent", asking_.open(), 0);
        }
        if (n.queued_tasks >= limits_.max_queued_tasks || n.queued_bytes + more > limits_.max_queued_bytes) {
            return is_full("the queue of node " + *n.id, n.queued_tasks, n.queued_bytes);
        }
        if (all.tasks >= limits_.max_all_queued_tasks || all.bytes + more > limits_.max_all_queued_bytes) {
            return is_full("the queue of all nodes", all.tasks, all.bytes);
        }
        return {};
    }

    /// One more sender waits for the task.
    template <class Sink>
    void join(task& t, events::submitted<ticket>& e, instant now, Sink& sink) {
        t.tickets.push_back(std::move(e.ticket));
        if (t.stored) sink(effects::accepted<ticket>{t.tickets.back()});
        replies_.expect(t, e, now, sink);
    }

    template <class Sink>
    void look_after(node& n, instant now, Sink& sink) {
        polls_.cut_idle(n, now, sink);
        polls_.end_late(n, now, sink);
        streams_.look_after(n, now, sink);
        if (nodes_.has_gone(n, now, sink)) polls_.node_gone(n, now, sink);
        queue_.expire_waiting(n, now, sink);
        replies_.expire(n, now, sink);
        if constexpr (shared) {
            if (!stopping_) sharing_.look_after(n, now, sink);
        }
        pump(n, now, sink);
        nodes_.arm(n, next_wake(n, now.steady), sink);
    }

    time_point next_wake(const node& n, time_point now) const {
        auto when = time_point::max();
        if constexpr (shared) {
            if (!stopping_) when = sharing_.next_wake(n);
        }
        return std::min({when, nodes_.next_wake(n), polls_.next_wake(n), streams_.next_wake(n),
                         queue_.next_wake(n, now), replies_.next_wake(n)});
    }

    template <class Sink>
    void check_drained(Sink& sink) {
        if (!stopping_ || drained_ || endings_.with_handlers() > 0) return;
        if constexpr (shared) {
            if (asking_.with_handlers() > 0 && !is_at_end_) return;
        }
        if (!quiet_but_for_handlers()) return;
        drained_ = true;
        sink(effects::drained{});
    }

    dispatch_limits limits_;
    detail::dispatch_nodes<Types> nodes_{limits_};
    detail::dispatch_tasks<Types> tasks_;
    detail::dispatch_writes<Types> writes_{tasks_};
    detail::dispatch_endings<Types> endings_{nodes_, tasks_, writes_};
    detail::dispatch_journal<Types> journal_{nodes_, tasks_, writes_, endings_};
    detail::dispatch_replies<Types> replies_{limits_, nodes_, tasks_, writes_, endings_};
    detail::dispatch_queue<Types> queue_;
    detail::dispatch_polls<Types> polls_{limits_, nodes_, writes_, queue_};
    detail::dispatch_streams<Types> streams_{limits_, nodes_, writes_, endings_, queue_};
    [[no_unique_address]] where_shared<detail::dispatch_sharing<Types>> sharing_{nodes_,  tasks_,   journal_,
                                                                                 writes_, endings_, polls_};
    [[no_unique_address]] where_shared<detail::dispatch_asking<Types>> asking_{tasks_};
    bool stopping_ = false;
    bool drained_ = false;
    bool is_at_end_ = false;  // by force
};

}  // namespace ferry
