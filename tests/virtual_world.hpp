// Drives `ferry::dispatch` under virtual time. It performs the effects, hands what the store answers back after the step has
// returned, wakes the core only when the core asked for it, and checks in every test what must hold in all of them.
#pragma once

#include <ferry/agent_store/memory.hpp>
#include <ferry/detail/store_write.hpp>
#include <ferry/dispatch.hpp>
#include <ferry/retry.hpp>

#include "late_store.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ferry_test {

using namespace std::chrono_literals;

/// What is to be sent, and how.
struct task_options {
    std::uint64_t size = 25;  ///< three chunks of the virtual world
    std::string request_id{};
    bool wants_reply = false;
    std::chrono::milliseconds expires_after = 1h;
    std::optional<std::chrono::milliseconds> reply_within{};
    bool keep_while_disconnected = false;
    std::string label{};
    bool urgent = false;
};

inline task_options request(std::string id) { return {.request_id = std::move(id), .wants_reply = true}; }

/// What outlives a server: the store, and which payload was sent for which ticket.
template <class Store>
struct disk {
    bool in_step = false;
    Store store;
    std::map<const ferry::payload*, int> tickets;
    std::map<std::uint64_t, int> tickets_by_id;
    std::vector<std::shared_ptr<const ferry::payload>> payloads;  // kept, so that no address comes twice
    std::shared_ptr<const ferry::payload> gives;                  // in place of each content that is appended
    int last_ticket = 0;
};

/// One server's life. Calls, replies and tickets are numbers that count up from 1.
template <class Store, ferry::retry_policy Retry = ferry::bounded_retry>
class virtual_world {
public:
    static constexpr std::uint32_t chunk_bytes = 10;

    struct types {
        using call = int;
        using reply_call = int;
        using ticket = int;
        using reply = std::string;
        using retry = Retry;
        using chunk_size = ferry::max_message_bytes_length<chunk_bytes>;
    };
    using core_type = ferry::dispatch<types>;
    using store_op = late_store::kind;

    /// All that the core did with one poll.
    struct poll_record {
        std::string node, connection;
        std::shared_ptr<const ferry::payload> content;  ///< what it carries, or carried
        int chunks = 0;                                 ///< sent so far
        int chunks_of = 0;
        bool outstanding = false;          ///< a range was asked for, and has not gone out
        bool over = false;                 ///< ended by either side
        std::optional<ferry::errc> ended;  ///< by the core, and why
    };
    /// All that the core did with one stream.
    struct stream_record {
        std::string node;
        bool welcomed = false;
        bool over = false;
        std::optional<ferry::errc> ended{};                    ///< by the core, and why
        std::optional<ferry::effects::send_part<int>> part{};  ///< the range that was asked for, and has not gone out
        std::vector<ferry::effects::send_part<int>> parts{};
        struct whole_record {
            int ticket;
            ferry::frames::delivery_head head;
            bool may_wait;
        };
        std::vector<whole_record> whole{};  ///< small tasks, each at once
        std::vector<std::uint64_t> withdrawn{};
    };
    struct end_record {
        ferry::outcome how;
        std::optional<std::string> reply;
        std::string node;
        ferry::task_key key = 0;
    };
    struct delivery_record {
        int ticket;
        int call;
    };
    struct begun_record {
        std::string node, label;
        std::uint64_t bytes;
        int attempt;
        std::chrono::steady_clock::duration age;
    };

    explicit virtual_world(ferry::dispatch_limits limits = {}, Retry retry = {},
                           std::shared_ptr<disk<Store>> on = std::make_shared<disk<Store>>())
        : kept(std::move(on)), core(limits, std::move(retry)) {}
    virtual_world(const virtual_world&) = delete;
    virtual_world& operator=(const virtual_world&) = delete;

    // --- what nodes do ------------------------------------------------------------------------------------------------

    int poll(const std::string& node = "n", const std::string& connection = "c",
             std::chrono::milliseconds within = std::chrono::milliseconds::max()) {
        const int call = static_cast<int>(polls.size()) + 1;
        open_polls.insert(call);
        polls[call] = {.node = node, .connection = connection, .content = nullptr, .ended = std::nullopt};
        feed(ferry::events::poll_opened<int>{call, node, connection, ferry::detail::later(now.steady, within)});
        return call;
    }

    /// The range that is under way has gone out.
    void range_sent(int call) {
        auto& p = polls.at(call);
        p.outstanding = false;
        feed(ferry::events::range_sent<int>{call, p.node});
    }

    /// The call is over by itself: after its last range, or because the node hung up.
    void close(int call, bool clean = true) {
        auto& p = polls.at(call);
        over(call);
        feed(ferry::events::poll_closed<int>{call, p.node, clean});
    }

    void break_off(int call, ferry::errc reason = ferry::errc::stream_broken) {
        auto& p = polls.at(call);
        if (reason == ferry::errc::stream_broken) over(call);
        feed(ferry::events::poll_broken<int>{call, p.node, reason, "it broke"});
    }

    /// Lets all ranges go out but the last, which stays under way.
    void carry_to_last_range(int call) {
        auto& p = polls.at(call);
        ASSERT_TRUE(p.outstanding) << "poll " << call << " carries nothing";
        while (p.outstanding && p.chunks < p.chunks_of) range_sent(call);
    }

    /// Lets all of the task go out, and the call end well.
    void carry(int call) {
        carry_to_last_range(call);
        close(call);
    }

    /// A poll that carries what is owed to its end.
    int poll_and_carry(const std::string& node = "n", const std::string& connection = "c") {
        const int call = poll(node, connection);
        carry(call);
        return call;
    }

    int reply(const std::string& request_id, const std::string& text = "done", const std::string& node = "n",
              std::uint64_t number = 0) {
        const int call = ++last_reply_;
        auto encoded = keeps_replies ? std::make_shared<const ferry::payload>(ferry::bytes::copy(text)) : nullptr;
        feed(ferry::events::reply_arrived<int, std::string>{call, node, request_id, text, number, std::move(encoded),
                                                            text.size()});
        return call;
    }

    /// A stream in place of polls; its number is one of a poll's.
    int stream(ferry::frames::hello hello = usual_hello(), const std::string& node = "n",
               const std::string& connection = "c") {
        const int call = static_cast<int>(polls.size()) + 1;
        polls[call] = {.node = node, .connection = connection, .content = nullptr, .ended = std::nullopt};
        streams[call].node = node;
        feed(ferry::events::stream_opened<int>{call, node, connection, std::move(hello)});
        return call;
    }
    static ferry::frames::hello usual_hello() { return {{}, {}, 4, 1000}; }

    void part_sent(int call) {
        auto& s = streams.at(call);
        ASSERT_TRUE(s.part) << "stream " << call << " writes nothing";
        s.part.reset();
        feed(ferry::events::range_sent<int>{call, s.node});
    }

    /// Lets all that the window allows go out.
    void send_all(int call) {
        while (streams.at(call).part) part_sent(call);
    }

    void receipt(int call, std::uint64_t task, ferry::frames::verdict what = ferry::frames::verdict::taken,
                 std::string text = {}, std::chrono::milliseconds pause = {}) {
        feed(ferry::events::receipt_came<int>{call, streams.at(call).node, {task, what, std::move(text), pause}});
    }
    void renew(int call, const std::vector<std::uint64_t>& tasks) {
        feed(ferry::events::lease_renewed<int>{call, streams.at(call).node, tasks});
    }
    void leave(int call) { feed(ferry::events::node_leaving<int>{call, streams.at(call).node}); }

    void break_stream(int call) {
        auto& s = streams.at(call);
        s.over = true;
        s.part.reset();
        feed(ferry::events::poll_broken<int>{call, s.node, ferry::errc::stream_broken, "it broke"});
    }

    /// The id of the task whose parts went out last with this ticket.
    std::uint64_t id_of(int ticket) const { return ids.at(ticket); }

    // --- what senders do ----------------------------------------------------------------------------------------------

    int send(task_options options = {}, const std::string& node = "n") {
        const int ticket = ++kept->last_ticket;
        auto encoded = make_content(std::vector<std::uint8_t>(options.size, 'x'), ticket);
        feed(ferry::events::submitted<int>{node, std::move(encoded), options.request_id, options.wants_reply, ticket,
                                           options.expires_after, options.reply_within, options.keep_while_disconnected,
                                           options.label, options.urgent},
             [&](ferry::task_key key) { keys[ticket] = key; });
        return ticket;
    }

    /// Node `from` sends a message to node `to`; its end is told to ticket 0. Returns the call, see `answers`.
    int forward(const std::string& from, const std::string& to, std::size_t size = 1) {
        const int call = ++last_reply_;
        ferry::events::submitted<int> task{to, make_content(std::vector<std::uint8_t>(size, 'f'), 0)};
        task.expires_after = std::chrono::hours(1);
        feed(ferry::events::forward_arrived<int, int>{call, from, std::move(task)});
        return call;
    }

    void know(std::vector<std::string> nodes) {
        feed(ferry::events::nodes_known{std::move(nodes)});
        serve();
    }
    void serve() { feed(ferry::events::serving{}); }

    void handle_unclaimed(ferry::task_key key = 0, std::uint64_t bytes = 0) {
        feed(ferry::events::unclaimed_handled{key, bytes});
    }
    void want_no_unclaimed(ferry::task_key key) { feed(ferry::events::unclaimed_unwanted{key}); }
    void fail_load(const std::string& why) {
        feed(ferry::events::reply_loaded<std::string>{loads.at(0).key, std::nullopt, why});
    }
    /// Whoever was given the ticket's reply has returned.
    void handle(int ticket) { feed(ferry::events::reply_handled{end_of(ticket).key}); }
    /// What is to be read is there.
    void load_replies() {
        for (const auto& each : std::exchange(loads, {})) {
            feed(ferry::events::reply_loaded<std::string>{each.key, std::string(each.encoded->flatten().view()), {}});
        }
    }

    void withdraw(int ticket) { feed(ferry::events::withdrawn{keys.at(ticket)}); }

    void stop() { feed(ferry::events::stop_requested{}); }
    void stop_now() { feed(ferry::events::stop_forced{}); }

    // --- time and the store ------------------------------------------------------------------------------------------

    /// Time goes on. The core is woken when it asked for it, and only then.
    void advance(std::chrono::nanoseconds by) {
        const auto until = now.steady + by;
        while (wake_ && *wake_ <= until) {
            go_to(*wake_);
            settle();
        }
        go_to(until);
    }

    /// Wakes the core though it did not ask for it.
    void wake_early() { wake(); }

    /// From now on store operations wait in the order in which the core asked for them.
    void hold_store() { held_ = true; }
    /// The held operations happen, and all that follow from them.
    void release_store() {
        held_ = false;
        settle();
    }
    std::size_t held_operations() const { return todo_.size(); }
    /// A late store completes only when it is told to.
    void leave_store_late() { late_ = true; }
    void advance_store() {
        if constexpr (std::same_as<Store, late_store>) kept->store.advance_one();
        settle();
    }

    /// A late store completes this one of the operations that it has begun.
    void complete(std::size_t which) {
        kept->store.complete(which);
        settle();
    }

    /// The next such operation isn't performed; the store answers with an error.
    void fail_next(store_op what, ferry::errc code = ferry::errc::store_failed) { faults_.push_back({what, code}); }

    /// Another server becomes the owner of the node's journal.
    ferry::acquired_journal steal_journal(const std::string& node = "n") {
        std::optional<ferry::acquired_journal> out;
        kept->store.acquire(node, [&](ferry::acquired_journal journal) { out = std::move(journal); });
        if constexpr (std::same_as<Store, late_store>) {
            while (!out && kept->store.pending() > 0) kept->store.complete(kept->store.pending() - 1);
        }
        EXPECT_TRUE(out.has_value());
        return std::move(out).value_or(ferry::acquired_journal{});
    }
    /// The same; what the journal holds, by ticket.
    std::vector<int> steal(const std::string& node = "n") {
        std::vector<int> out;
        for (const auto& task : steal_journal(node).tasks) out.push_back(kept->tickets_by_id.at(task.id));
        return out;
    }

    // --- what became of it -------------------------------------------------------------------------------------------

    bool has_ended(int ticket) const { return ends.contains(ticket); }
    const end_record& end_of(int ticket) const {
        static const end_record none{
            {ferry::outcome_kind::taken, ferry::errc::not_started, "it has not ended", -1}, {}, {}};
        const auto found = ends.find(ticket);
        EXPECT_NE(found, ends.end()) << "ticket " << ticket << " has not ended";
        return found == ends.end() ? none : found->second;
    }
    std::optional<ferry::outcome_kind> kind_of(int ticket) const {
        const auto found = ends.find(ticket);
        if (found == ends.end()) return std::nullopt;
        return found->second.how.kind;
    }
    std::optional<ferry::errc> poll_ended(int call) const { return polls.at(call).ended; }
    bool is_parked(int call) const { return !polls.at(call).over && !polls.at(call).content; }

    /// The ticket whose task the poll carries, or 0.
    int carries(int call) const {
        const auto& p = polls.at(call);
        return p.content ? kept->tickets.at(p.content.get()) : 0;
    }
    /// The tickets in the order in which their deliveries began, resends included.
    std::vector<int> delivered() const {
        std::vector<int> out;
        for (const auto& d : deliveries) out.push_back(d.ticket);
        return out;
    }
    ferry::node_status status(const std::string& node = "n") const { return core.get_node(node).value().status; }

    ferry::instant now{std::chrono::steady_clock::time_point(1000h), std::chrono::system_clock::time_point(500'000h)};
    std::shared_ptr<disk<Store>> kept;
    core_type core;
    std::map<int, poll_record> polls;
    std::map<int, stream_record> streams;
    std::map<int, std::uint64_t> ids;  ///< of tasks that a stream brought, by ticket
    std::set<int> open_polls;
    std::map<int, ferry::task_key> keys;  ///< 0 where the core refused the ticket
    std::map<int, end_record> ends;
    std::vector<int> end_order;
    std::map<int, ferry::errc> answers;  ///< to replies
    std::vector<delivery_record> deliveries;
    std::vector<begun_record> begun;
    std::map<ferry::task_key, int> attempts;  ///< as last written to the store
    std::map<int, std::vector<std::uint64_t>> progress;
    std::vector<std::string> unclaimed, warnings, statuses;
    std::vector<ferry::task_key> unclaimed_keys;
    std::vector<ferry::effects::load_reply> loads;
    bool keeps_replies = false;  ///< replies come with their bytes
    int drained = 0;
    std::set<int> accepted;
    int all_acquired = 0;
    int wakes = 0;

private:
    static constexpr int most_wakes_without_time = 3;

    using events_queue = std::deque<std::function<void()>>;
    struct planned_fault {
        store_op what;
        ferry::errc code;
    };

    void over(int call) {
        polls.at(call).over = true;
        open_polls.erase(call);
    }

    /// Whoever holds it lets it go outside of a step, as a server is locked in one.
    std::shared_ptr<const ferry::payload> make_content(std::vector<std::uint8_t> content, int ticket) {
        auto encoded = std::make_shared<const ferry::payload>(ferry::bytes::own(std::move(content)));
        kept->tickets[encoded.get()] = ticket;
        kept->payloads.push_back(encoded);
        const auto gone = [&in_step = kept->in_step, ticket](const void*) {
            EXPECT_FALSE(in_step) << "the content of " << ticket << " is destroyed within a step";
        };
        return {encoded.get(), gone};
    }

    template <class Event, class Then>
    void feed(Event event, Then&& then) {
        EXPECT_FALSE(kept->in_step) << "a step within a step";
        kept->in_step = true;
        if constexpr (std::same_as<Event, ferry::events::submitted<int>>) {
            const int ticket = event.ticket;
            const auto key = core.step(std::move(event), now, sink_);
            EXPECT_EQ(key == 0, ends.contains(ticket)) << "a key is for a task that has not ended";
            then(key);
        } else {
            core.step(std::move(event), now, sink_);
        }
        kept->in_step = false;
        released_.clear();
        settle();
    }
    template <class Event>
    void feed(Event event) {
        feed(std::move(event), [](ferry::task_key) {});
    }

    void go_to(std::chrono::steady_clock::time_point when) {
        if (when <= now.steady) return;
        now.system += std::chrono::duration_cast<std::chrono::system_clock::duration>(when - now.steady);
        now.steady = when;
    }

    void wake() {
        wake_.reset();
        ++wakes;
        feed(ferry::events::time_passed{});
    }

    /// Performs what the core asked of the store, and hands it the answers, until there is nothing left; then wakes it where
    /// it asked for that, too. That must come to an end.
    void settle() {
        if (settling_) return;
        settling_ = true;
        for (int wakes_now = 0;;) {
            if (!arrived_.empty()) {
                const auto next = std::move(arrived_.front());
                arrived_.pop_front();
                kept->in_step = true;
                next();
                kept->in_step = false;
                released_.clear();
            } else if (!held_ && !todo_.empty()) {
                const auto next = std::move(todo_.front());
                todo_.pop_front();
                next();
            } else if (advance_late_store()) {
                continue;
            } else if (wake_ && *wake_ <= now.steady) {
                if (++wakes_now > most_wakes_without_time) {
                    ADD_FAILURE() << "the core wakes busily";
                    break;
                }
                wake();
            } else {
                break;
            }
        }
        settling_ = false;
    }

    bool advance_late_store() {
        if constexpr (std::same_as<Store, late_store>) {
            return !late_ && kept->store.advance_one();
        } else {
            return false;
        }
    }

    std::optional<ferry::store_status> planned(store_op what) {
        for (auto fault = faults_.begin(); fault != faults_.end(); ++fault) {
            if (fault->what != what) continue;
            ferry::store_status out{fault->code, "the store is out of order"};
            faults_.erase(fault);
            return out;
        }
        return std::nullopt;
    }

    void acquired(const std::string& node, ferry::acquired_journal journal) {
        arrived_.push_back([this, node, journal = std::move(journal)] {
            core.step(ferry::events::journal_acquired{node, journal}, now, sink_);
        });
    }
    void done(ferry::task_key key, ferry::store_status status) {
        arrived_.push_back([this, key, status = std::move(status)] {
            core.step(ferry::events::store_done{key, status}, now, sink_);
        });
    }

    template <class Perform>
    void ask_store(store_op what, ferry::task_key key, Perform perform) {
        todo_.push_back([this, what, key, perform = std::move(perform)] {
            if (auto fault = planned(what)) return done(key, std::move(*fault));
            perform([what, key, asker = std::weak_ptr(alive_)](ferry::store_status status) {
                const auto w = asker.lock();
                if (w && what == store_op::append) status.content = w->kept->gives;
                if (w) w->done(key, std::move(status));
            });
        });
    }

    struct sink {
        virtual_world& w;

        void operator()(ferry::effects::begun e) { w.begun.push_back({e.node, e.label, e.bytes, e.attempt, e.age}); }
        void operator()(ferry::effects::send_range<int> e) {
            auto& p = w.polls.at(e.call);
            EXPECT_FALSE(p.over) << "a range for poll " << e.call << ", which is over";
            EXPECT_FALSE(p.outstanding) << "two ranges at once for poll " << e.call;
            if (e.part.iteration == 1) {
                for (const int other : w.open_polls) {
                    const auto& q = w.polls.at(other);
                    EXPECT_FALSE(q.content && q.node == p.node)
                        << "poll " << e.call << " carries while poll " << other << " does";
                }
                p.content = e.content;
                p.chunks_of = e.part.size;
                w.deliveries.push_back({w.kept->tickets.at(e.content.get()), e.call});
            }
            EXPECT_EQ(p.content, e.content) << "two tasks in poll " << e.call;
            EXPECT_EQ(e.part.iteration, ++p.chunks);
            EXPECT_EQ(e.part.size, p.chunks_of);
            EXPECT_EQ(e.part.offset, static_cast<std::uint64_t>(p.chunks - 1) * chunk_bytes);
            p.outstanding = true;
        }
        void operator()(ferry::effects::send_part<int> e) {
            auto& s = w.streams.at(e.call);
            EXPECT_TRUE(s.welcomed && !s.over) << "a part for stream " << e.call << ", which is over or not yet open";
            EXPECT_FALSE(s.part) << "two parts at once for stream " << e.call;
            const int ticket = w.kept->tickets.at(e.content.get());
            const auto [known, first] = w.ids.emplace(ticket, e.head.task);
            EXPECT_EQ(known->second, e.head.task) << "a task changes its id";
            EXPECT_EQ(e.head.total, e.content->size());
            if (e.part.iteration == 1) {
                EXPECT_EQ(e.part.offset, e.head.offset);
                w.deliveries.push_back({ticket, e.call});
            }
            s.parts.push_back(e);
            s.part = std::move(e);
        }
        void operator()(ferry::effects::send_whole<int> e) {
            auto& s = w.streams.at(e.call);
            EXPECT_TRUE(s.welcomed && !s.over) << "a task for stream " << e.call << ", which is over or not yet open";
            EXPECT_LE(e.content->size(), chunk_bytes);
            const int ticket = w.kept->tickets.at(e.content.get());
            const auto [known, first] = w.ids.emplace(ticket, e.head.task);
            EXPECT_EQ(known->second, e.head.task) << "a task changes its id";
            EXPECT_EQ(e.head.total, e.content->size());
            EXPECT_EQ(e.head.offset, 0U);
            w.deliveries.push_back({ticket, e.call});
            s.whole.push_back({ticket, e.head, e.may_wait});
        }
        void operator()(ferry::effects::welcome<int> e) {
            EXPECT_FALSE(std::exchange(w.streams.at(e.call).welcomed, true)) << "two welcomes";
        }
        void operator()(ferry::effects::withdraw_task<int> e) {
            EXPECT_TRUE(w.streams.at(e.call).welcomed && !w.streams.at(e.call).over);
            w.streams.at(e.call).withdrawn.push_back(e.task);
        }
        void operator()(ferry::effects::end_poll<int> e) {
            if (const auto found = w.streams.find(e.call); found != w.streams.end()) {
                auto& s = found->second;
                EXPECT_FALSE(s.over) << "stream " << e.call << " is ended, and was over";
                EXPECT_NE(e.reason, ferry::errc::ok);
                EXPECT_FALSE(e.text.empty());
                s.over = true;
                s.ended = e.reason;
                s.part.reset();
                return;
            }
            auto& p = w.polls.at(e.call);
            EXPECT_FALSE(p.over) << "poll " << e.call << " is ended, and was over";
            EXPECT_NE(e.reason, ferry::errc::ok) << "a node whose poll ends well without a task polls again at once";
            EXPECT_FALSE(e.text.empty());
            w.over(e.call);
            p.ended = e.reason;
        }
        void operator()(ferry::effects::answer_reply<int> e) {
            EXPECT_TRUE(w.answers.emplace(e.call, e.reason).second) << "reply " << e.call << " is answered twice";
        }
        void operator()(ferry::effects::ended<int, std::string> e) {
            EXPECT_EQ(e.reply.has_value(), e.how.kind == ferry::outcome_kind::replied);
            EXPECT_EQ(static_cast<bool>(e.how), e.how.reason == ferry::errc::ok);
            EXPECT_TRUE(w.ends.emplace(e.ticket, end_record{e.how, e.reply, e.node, e.key}).second)
                << "ticket " << e.ticket << " ends twice";
            w.end_order.push_back(e.ticket);
        }
        void operator()(ferry::effects::accepted<int> e) { w.accepted.insert(e.ticket); }
        void operator()(ferry::effects::all_acquired) { ++w.all_acquired; }
        void operator()(ferry::effects::progressed<int> e) { w.progress[e.ticket].push_back(e.sent); }
        void operator()(ferry::effects::unclaimed_reply<std::string> e) {
            w.unclaimed.push_back(e.reply);
            w.unclaimed_keys.push_back(e.key);
            EXPECT_EQ(e.bytes, w.unclaimed.back().size());
        }
        void operator()(ferry::effects::load_reply e) { w.loads.push_back(std::move(e)); }
        void operator()(ferry::effects::released<std::shared_ptr<const ferry::payload>> e) {
            w.released_.push_back(std::move(e.what));
        }
        void operator()(const ferry::effects::released<std::string>&) {}
        void operator()(ferry::effects::acquire_journal e) {
            w.todo_.push_back([&world = w, e = std::move(e)] {
                if (auto fault = world.planned(store_op::acquire)) return world.acquired(e.node, {*fault, 0, {}});
                const std::weak_ptr asker(world.alive_);
                world.kept->store.acquire(e.node, [asker, node = e.node](ferry::acquired_journal journal) {
                    if (const auto w = asker.lock()) w->acquired(node, std::move(journal));
                });
            });
        }
        void operator()(ferry::effects::append_task e) {
            w.kept->tickets_by_id[e.task.id] = e.task.content ? w.kept->tickets.at(e.task.content.get()) : -1;
            w.ask_store(store_op::append, e.key, [&world = w, e = ferry::detail::keep(e)](auto take) {
                world.kept->store.append(e.node, e.owner, e.what, take);
            });
        }
        void operator()(ferry::effects::update_task e) {
            EXPECT_GE(e.task.attempts, w.attempts[e.key]) << "attempts fall";
            w.attempts[e.key] = e.task.attempts;
            w.ask_store(store_op::update, e.key, [&world = w, e = ferry::detail::keep(e)](auto take) {
                world.kept->store.update(e.node, e.owner, e.what, take);
            });
        }
        void operator()(ferry::effects::settle_task e) {
            w.ask_store(store_op::settle, e.key, [&world = w, e = ferry::detail::keep(e)](auto take) {
                world.kept->store.settle(e.node, e.owner, e.what, take);
            });
        }
        void operator()(ferry::effects::node_changed e) {
            w.statuses.push_back(e.node + " " + std::string(to_string(e.status)));
        }
        void operator()(ferry::effects::warning e) { w.warnings.push_back(std::move(e.text)); }
        void operator()(ferry::effects::wake_at e) {
            if (!w.wake_ || e.when < *w.wake_) w.wake_ = e.when;
        }
        void operator()(ferry::effects::drained) { ++w.drained; }
    };

    sink sink_{*this};
    std::vector<std::shared_ptr<const ferry::payload>> released_;
    bool settling_ = false;
    bool held_ = false;
    bool late_ = false;
    int last_reply_ = 0;
    std::optional<std::chrono::steady_clock::time_point> wake_;
    events_queue arrived_, todo_;
    std::vector<planned_fault> faults_;
    std::shared_ptr<virtual_world> alive_{this,
                                          [](virtual_world*) {}};  // what a dead server asked of a store reaches nobody
};

}  // namespace ferry_test
