// The two cores against each other: one server and a few nodes under virtual time, over a network that delays, reorders and
// cuts, with kills and restarts of both sides. All is drawn from one seed, so that a run can be had again.
//
// A run is some time of chaos, then a quiet time in which all that is pending must come to its end, then an orderly stop.
// What must hold is checked here, where both ends are seen, and of single tasks and replies in `simulation_ledger.hpp`.
#pragma once

#include <ferry/dispatch.hpp>
#include <ferry/intake.hpp>

#include "simulated_store.hpp"
#include "simulated_time.hpp"
#include "simulation_ledger.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry_test {

enum class fault {
    connection_cut,
    call_cut,
    half_open,
    node_killed,
    node_stopped,
    server_killed,
    server_stopped,
    delivery_damaged,
    upload_damaged,
    lease_lost,
    superseded,
    poll_deadline,
    poll_ended_late,
    no_streams,
    refused,
    not_now,
    withdrawn,
};
inline constexpr std::array fault_names = {
    "connections cut",    "calls cut",        "of them half-open",  "nodes killed",    "nodes stopped",
    "servers killed",     "servers stopped",  "damaged deliveries", "damaged uploads", "leases lost",
    "streams superseded", "polls' deadlines", "polls ended before", "no streams",      "tasks refused",
    "tasks not now",      "tasks withdrawn",
};

struct simulation_result {
    std::uint64_t seed = 0;
    std::vector<std::string> violations;
    std::chrono::steady_clock::duration simulated{};
    std::uint64_t tasks = 0, deliveries = 0, resumed = 0, runs = 0, replies = 0, events = 0;
    std::array<std::uint64_t, fault_names.size()> faults{};
};

class simulation {
public:
    using duration = std::chrono::steady_clock::duration;
    using time_point = std::chrono::steady_clock::time_point;
    using tracer = std::function<void(const std::string&)>;

    /// `trace` is told all events and effects, in order; it may be none.
    simulation(std::uint64_t seed, bool durable, tracer trace = {})
        : durable_(durable), trace_(std::move(trace)), chance_(seed), store_(time_, chance_, draw_slowness()) {
        result_.seed = seed;
        draw_scenario();
    }
    simulation(const simulation&) = delete;
    simulation& operator=(const simulation&) = delete;

    simulation_result run() {
        const auto start = time_.now.steady;
        start_server();
        for (auto& n : nodes_) start_node(n);
        for (int i = 0; i < acts_ && !is_violated(); ++i) {
            pass(chance_.between(duration(0), 2 * pace_));
            act();
        }
        calm_down();
        stop_all();
        result_.simulated = time_.now.steady - start;
        result_.tasks = ledger_.tasks.size();
        result_.replies = ledger_.replies.size();
        result_.runs = ledger_.runs;
        result_.events = time_.happened();
        return std::move(result_);
    }

private:
    using milliseconds = std::chrono::milliseconds;
    using verdict = ferry::frames::verdict;
    using errc = ferry::errc;

    static constexpr duration ms(int n) { return milliseconds(n); }
    static constexpr std::uint32_t chunk_bytes = 10;

    struct retry {
        using policy_category = ferry::retry_tag;
        int max_resends = 5;
        milliseconds pause{0};
        std::optional<milliseconds> next(const ferry::failed_attempt& failed) const noexcept {
            if (failed.attempts > max_resends) return std::nullopt;
            return pause;
        }
    };

    /// A task as a node gets it.
    struct node_task {
        int ticket;
        std::uint64_t number;
        std::uint64_t size;
        int attempt;
    };
    struct server_types {
        using call = int;
        using reply_call = int;
        using ticket = int;
        using reply = int;
        using retry = simulation::retry;
        using chunk_size = ferry::max_message_bytes_length<chunk_bytes>;
    };
    struct node_types {
        using task = node_task;
        using ticket = int;
        using retry = simulation::retry;
        using chunk_size = ferry::max_message_bytes_length<chunk_bytes>;
    };
    using server_core = ferry::dispatch<server_types>;
    using node_core = ferry::intake<node_types>;

    enum class kind { stream, poll, upload, feedback };

    /// A delivery that comes over a stream.
    struct incoming {
        std::uint64_t task;
        bool wanted;
        bool damaged = false;
    };

    /// One call of any kind, with both its ends. What was under way is lost with it.
    struct call {
        kind what{};
        int id = 0;
        int node = 0, node_life = 0, server_life = 0;
        int connection = 0;
        std::uint64_t node_id = 0;  // by which the node's core knows it
        std::string connection_name;
        bool node_open = true, server_open = false, lost = false;
        time_point last_up = time_point::min(), last_down = time_point::min();
        duration within{};  // of a poll: then its node gives it up; 0 is never
        std::vector<incoming> moving{};
        int reply = -1;
        std::uint64_t number = 0;
        bool can_go_on = false;
        std::uint64_t received = 0;
    };

    struct running_task {
        ferry::task_key key = 0;
        node_task what{};
        bool counts = true;  // among what the server believes to be here
        bool by_poll = false;
    };
    struct held_task {
        std::uint64_t number;
        std::uint64_t size;
        int ticket;
    };

    struct node {
        int index = 0;
        std::string name;
        ferry::intake_limits limits;
        bool spool = false;
        duration poll_within{};
        bool keeps_connection = false;  // after a poll's deadline: not ferry's own node does
        bool was_deadline = false;      // the last poll's end
        int life = 0;
        bool up = false, stopping = false;
        std::unique_ptr<node_core> core;
        std::optional<time_point> wake;
        int wakes_now = 0;
        int connection = 0;
        int stream = 0;                               // the call of the newest stream
        std::map<std::uint64_t, std::uint64_t> kept;  // bytes of tasks, by number
        std::set<int> unfinished;                     // replies
        std::array<running_task, 2> running;          // the urgent one, the usual one
        std::array<std::vector<held_task>, 2> waiting;
        std::deque<std::uint64_t> done;  // of these it must remember the receipts
        std::uint64_t last_receipt = 0;
    };

    /// From whom the server's core has a reply.
    struct reply_from {
        int call;
        std::uint64_t number;
        int reply;
    };

    // --- the scenario --------------------------------------------------------------------------------------------------

    duration draw_slowness() {
        if (!durable_ || chance_.chance(0.3)) return duration(0);
        return chance_.between(ms(0), chance_.chance(0.7) ? ms(40) : ms(400));
    }

    void draw_scenario() {
        auto& c = chance_;
        acts_ = c.between(20, 180);
        pace_ = milliseconds(c.between(5, 400));
        delay_ = milliseconds(c.chance(0.7) ? c.between(0, 10) : c.between(10, 100));
        run_time_ = milliseconds(c.chance(0.8) ? c.between(0, 300) : c.between(300, 4000));
        range_time_ = milliseconds(c.chance(0.6) ? c.between(0, 3) : c.between(3, 60));
        cut_rate_ = c.chance(0.2) ? 0 : c.between(1, 12) / 100.0;
        kill_rate_ = c.chance(0.4) ? 0 : c.between(1, 6) / 100.0;
        damage_rate_ = c.chance(0.6) ? 0 : 0.03;
        refuse_rate_ = c.chance(0.4) ? 0 : 0.1;
        not_now_rate_ = c.chance(0.4) ? 0 : c.between(5, 30) / 100.0;
        withdraw_rate_ = c.chance(0.4) ? 0.01 : 0.12;
        server_limits_.disconnect_after = milliseconds(c.between(2'000, 10'000));
        server_limits_.idle_limit = milliseconds(c.between(5'000, 60'000));
        server_limits_.lease =
            milliseconds(c.chance(0.3)   ? 0
                         : c.chance(0.4) ? 60'000
                                         : static_cast<int>(delay_.count()) * 12 + c.between(300, 3000));
        if (c.chance(0.3)) {
            server_limits_.max_queued_tasks = static_cast<std::size_t>(c.between(2, 12));
            server_limits_.max_queued_bytes = static_cast<std::uint64_t>(c.between(40, 300));
            server_limits_.max_all_queued_tasks = static_cast<std::size_t>(c.between(3, 20));
        }
        if (c.chance(0.2)) server_limits_.max_unclaimed_replies = 1;
        server_retry_ = {c.between(1, 30), milliseconds(c.chance(0.5) ? 0 : c.between(0, 500))};
        no_streams_rate_ = c.chance(0.7) ? 0 : 0.4;
        some_streams_refused_ = c.chance(0.8) ? 0 : 0.4;
        receipts_ignored_ = c.chance(0.8) ? 0 : 0.3;
        repeat_ids_ = c.chance(0.3);
        const bool all_poll = c.chance(0.05);
        const bool renew = c.chance(0.8);
        const int count = c.between(2, 4);
        for (int i = 0; i < count; ++i) {
            node n;
            n.index = i;
            n.name = std::string(1, static_cast<char>('a' + i));
            n.spool = c.chance(0.5);
            n.limits.streams = !all_poll && c.chance(0.9);
            n.limits.renew_leases = renew;
            // An eighth of it is more than both ways take.
            const auto way = std::chrono::duration_cast<milliseconds>(delay_ + range_time_) + ms(1);
            n.keeps_connection = c.chance(0.5);
            if (c.chance(0.6)) n.poll_within = way * c.between(20, c.chance(0.5) ? 50 : 500);
            n.limits.max_waiting_tasks = static_cast<std::size_t>(c.between(1, 6));
            n.limits.max_waiting_bytes = static_cast<std::uint64_t>(c.between(20, 400));
            n.limits.max_small_uploads = static_cast<std::size_t>(c.between(1, 4));
            n.limits.max_bulk_uploads = static_cast<std::size_t>(c.between(1, 2));
            n.limits.idle_limit = milliseconds(c.between(5'000, 60'000));
            n.limits.reconnect = {milliseconds(c.between(20, 500)), 2, milliseconds(3000)};
            n.limits.refused_pause = milliseconds(2000);
            nodes_.push_back(std::move(n));
        }
    }

    // --- chance and time -----------------------------------------------------------------------------------------------

    duration delay() { return chance_.between(duration(0), std::max<duration>(delay_, std::chrono::microseconds(50))); }
    /// How long an end goes without learning that the other one is gone.
    duration until_noticed() {
        if (quiet_ || chance_.chance(0.85)) return chance_.between(ms(0), ms(60));
        hit(fault::half_open);
        return chance_.between(ms(1'000), ms(20'000));
    }

    void pass(duration span) {
        const auto until = time_.now.steady + span;
        while (!is_violated() && time_.next(until)) check_bounds();
    }

    void hit(fault what) { ++result_.faults[static_cast<std::size_t>(what)]; }

    bool is_violated() const noexcept { return !result_.violations.empty(); }
    void violated(const std::string& what) {
        if (tracing()) trace("VIOLATED: " + what);
        if (result_.violations.size() < 5) result_.violations.push_back(what);
    }
    void check(bool holds, const std::string& text) {
        if (!holds) violated(text);
    }

    bool tracing() const noexcept { return static_cast<bool>(trace_); }
    void trace(const std::string& text) {
        const auto since = std::chrono::duration_cast<std::chrono::microseconds>(time_.now.steady.time_since_epoch());
        auto at = std::to_string(since.count() - 3'600'000'000'000);
        if (at.size() < 12) at.insert(0, 12 - at.size(), ' ');
        trace_(at + "  " + text);
    }

    // --- chaos ---------------------------------------------------------------------------------------------------------

    node& any_node() { return nodes_[static_cast<std::size_t>(chance_.below(static_cast<int>(nodes_.size())))]; }

    void act() {
        auto& c = chance_;
        if (!server_up_ && c.chance(0.3)) start_server();
        if (auto& n = any_node(); !n.up && c.chance(0.3)) start_node(n);
        if (c.chance(cut_rate_)) cut_something();
        if (c.chance(kill_rate_)) {
            if (auto& n = any_node(); n.up && c.chance(0.6)) {
                c.chance(0.6) ? kill_node(n) : stop_node(n);
            } else if (server_up_) {
                c.chance(0.6) ? kill_server() : stop_server();
            }
        }
        if (c.chance(withdraw_rate_)) withdraw_something();
        if (c.chance(0.03)) submit_feedback();
        if (c.chance(0.02)) wake_something();
        if (c.chance(0.01)) uploads_kept_.clear();  // they waited for too long
        const int burst = c.chance(0.1) ? c.between(2, 8) : 1;
        for (int i = 0; i < burst; ++i) send();
    }

    void cut_something() {
        std::vector<int> open;
        for (const auto& c : calls_) {
            if (c.node_open && !c.lost) open.push_back(c.id);
        }
        if (open.empty()) return;
        const int id = open[static_cast<std::size_t>(chance_.below(static_cast<int>(open.size())))];
        if (chance_.chance(0.4)) {
            hit(fault::call_cut);
            return cut(id);
        }
        hit(fault::connection_cut);
        const auto& of = at(id);
        for (const int other : open) {
            if (at(other).node == of.node && at(other).connection == of.connection) cut(other);
        }
    }

    void wake_something() {
        if (server_up_ && chance_.chance(0.5)) return feed(ferry::events::time_passed{});
        if (auto& n = any_node(); n.up) feed(n, ferry::intake_events::time_passed{});
    }

    void withdraw_something() {
        if (!server_up_ || keys_.empty()) return;
        hit(fault::withdrawn);
        auto each = keys_.begin();
        std::advance(each, chance_.below(static_cast<int>(keys_.size())));
        ledger_.withdrawn(each->second);
        feed(ferry::events::withdrawn{each->first});
    }

    void submit_feedback() {
        auto& n = any_node();
        if (n.up) feed(n, ferry::intake_events::feedback_submitted{std::make_shared<const std::string>("log")});
    }

    void send() {
        if (!server_up_) return;
        auto& c = chance_;
        sent_task t;
        t.node = any_node().index;
        t.urgent = c.chance(0.25);
        t.life = server_life_;
        t.size = static_cast<std::uint64_t>(c.chance(0.6) ? c.below(11) : c.between(11, 90));
        t.wants_reply = c.chance(0.4);
        const auto ticket = static_cast<int>(ledger_.tasks.size());
        if (t.wants_reply) t.request_id = "r" + std::to_string(repeat_ids_ ? c.below(8) : ticket);
        const auto expires_after = milliseconds(c.chance(0.15) ? c.between(0, 3000) : 3'600'000);
        const auto reply_within = milliseconds(c.chance(0.1) ? c.between(0, 5'000) : 50'000);
        t.expires = ferry::detail::later(time_.now.steady,
                                         t.wants_reply ? std::min(expires_after, reply_within) : expires_after);
        ledger_.send(t);
        auto content = make_content(t.size, true);
        tickets_[content.get()] = ticket;
        ferry::events::submitted<int> e{nodes_[static_cast<std::size_t>(t.node)].name, std::move(content)};
        e.request_id = t.request_id;
        e.wants_reply = t.wants_reply;
        e.ticket = ticket;
        e.expires_after = expires_after;
        if (t.wants_reply) e.reply_within = reply_within;
        e.keep_while_disconnected = c.chance(0.9);
        e.urgent = t.urgent;
        if (tracing()) {
            trace("server <- send " + std::to_string(ticket) + " to " + e.node + (t.urgent ? ", urgent" : "") + ", " +
                  std::to_string(t.size) + " bytes" + (t.wants_reply ? ", request " + t.request_id : ""));
        }
        const auto key = server_->step(std::move(e), time_.now, to_server_sink_);
        if (key == 0) return check(ledger_.tasks[index(ticket)].how.has_value(), "a refused task doesn't end");
        const auto known = keys_.find(key);
        // One that is in the journal already, and perhaps further on, has no place of its own.
        const bool uncertain = durable_ && t.wants_reply && !old_requests_.insert({t.node, t.request_id}).second;
        ledger_.accepted(ticket, known == keys_.end() ? ticket : known->second, !uncertain);
        if (known == keys_.end()) keys_[key] = ticket;
    }

    std::shared_ptr<const ferry::payload> make_content(std::uint64_t size, bool in_memory) {
        struct source : ferry::payload_source {
            std::uint64_t bytes = 0;
            std::uint64_t size() const noexcept override { return bytes; }
            void read(std::uint64_t, std::uint64_t, std::function<void(ferry::range_result)>) const override {}
        };
        std::shared_ptr<const ferry::payload> out;
        if (in_memory) {
            static const std::string text(100, 'x');
            out = std::make_shared<const ferry::payload>(
                ferry::bytes::copy(std::string_view(text).substr(0, static_cast<std::size_t>(size))));
        } else {
            auto from = std::make_shared<source>();
            from->bytes = size;
            out = std::make_shared<const ferry::payload>(std::shared_ptr<const ferry::payload_source>(std::move(from)));
        }
        contents_.push_back(out);  // kept, so that no address comes twice
        const auto gone = [this](const void*) { check(!in_step_, "a content is destroyed within a step"); };
        return {out.get(), gone};
    }

    // --- the network ---------------------------------------------------------------------------------------------------

    static std::size_t index(int n) { return static_cast<std::size_t>(n); }
    call& at(int id) { return calls_[index(id) - 1]; }
    node& node_of(const call& c) { return nodes_[index(c.node)]; }
    bool node_is_there(const call& c) { return c.node_open && node_of(c).up && node_of(c).life == c.node_life; }
    bool server_is_there(const call& c) const { return server_up_ && c.server_open && c.server_life == server_life_; }

    call& open_call(kind what, node& n, std::uint64_t node_id) {
        call c;
        c.what = what;
        c.id = static_cast<int>(calls_.size()) + 1;
        c.node = n.index;
        c.node_life = n.life;
        c.node_id = node_id;
        c.connection = n.connection;
        c.connection_name = n.name + std::to_string(n.connection);
        calls_.push_back(std::move(c));
        return calls_.back();
    }

    /// In order within a call; with another one's messages there is none.
    template <class Arrive>
    void up(call& c, Arrive arrive) {
        if (c.lost) return;
        c.last_up = std::max(c.last_up, time_.now.steady + delay());
        time_.at(c.last_up, [this, id = c.id, arrive = std::move(arrive)] {
            if (auto& arrived = at(id); !arrived.lost) arrive(arrived);
        });
    }
    template <class Arrive>
    void to_server(call& c, Arrive arrive) {
        up(c, [this, arrive = std::move(arrive)](call& arrived) {
            if (server_is_there(arrived)) arrive(arrived);
        });
    }
    template <class Arrive>
    void to_node(call& c, Arrive arrive) {
        if (c.lost) return;
        c.last_down = std::max(c.last_down, time_.now.steady + delay());
        time_.at(c.last_down, [this, id = c.id, arrive = std::move(arrive)] {
            if (auto& arrived = at(id); !arrived.lost && node_is_there(arrived)) arrive(arrived);
        });
    }

    /// The call reaches the server, or what is in its place.
    template <class Opened>
    void open_at_server(call& c, Opened opened) {
        up(c, [this, opened = std::move(opened)](call& arrived) {
            if (!server_up_) {
                arrived.lost = true;
                return time_.after(until_noticed(), [this, id = arrived.id] { fail_at_node(id); });
            }
            arrived.server_open = true;
            arrived.server_life = server_life_;
            opened(arrived);
        });
    }

    /// The server ends the call, and its node learns why.
    void end_at_server(call& c, errc reason, const std::string& text) {
        c.server_open = false;
        to_node(c, [this, reason, text](call& arrived) { end_at_node(arrived, reason, text); });
    }

    void end_at_node(call& c, errc reason, const std::string& text) {
        namespace in = ferry::intake_events;
        c.node_open = false;
        auto& n = node_of(c);
        const auto as_poll_end = reason == errc::ok                  ? ferry::poll_end::well
                                 : reason == errc::deadline_exceeded ? ferry::poll_end::deadline
                                                                     : ferry::poll_end::unreachable;
        if (c.what == kind::poll) n.was_deadline = reason == errc::deadline_exceeded && !c.lost;
        switch (c.what) {
            case kind::stream:
            case kind::poll: return feed(n, in::poll_ended{c.node_id, as_poll_end, text});
            case kind::upload: return feed(n, in::upload_ended{c.node_id, reason, text});
            case kind::feedback: return feed(n, in::feedback_ended{c.node_id, reason, text});
        }
    }

    void fail_at_node(int id) {
        if (auto& c = at(id); node_is_there(c)) end_at_node(c, errc::connection_failed, "it broke");
    }

    void fail_at_server(int id) {
        auto& c = at(id);
        if (!server_is_there(c)) return;
        c.server_open = false;
        const auto& name = node_of(c).name;
        if (c.what == kind::stream) {
            feed(ferry::events::poll_broken<int>{c.id, name, errc::stream_broken, "it broke"});
        } else if (c.what == kind::poll) {
            feed(ferry::events::poll_closed<int>{c.id, name, false});
        }
    }

    /// What is under way is lost, and each end learns of it in its own time.
    void cut(int id) {
        at(id).lost = true;
        time_.after(until_noticed(), [this, id] { fail_at_node(id); });
        time_.after(until_noticed(), [this, id] { fail_at_server(id); });
    }

    /// The node gives the call up. That may overtake what it has sent.
    void cancel(call& c) {
        c.node_open = false;
        time_.after(delay(), [this, id = c.id] { fail_at_server(id); });
    }

    call* find_call(const node& n, std::uint64_t node_id) {
        for (auto c = calls_.rbegin(); c != calls_.rend(); ++c) {
            if (c->node == n.index && c->node_life == n.life && c->node_id == node_id) return &*c;
        }
        return nullptr;
    }

    // --- the server ----------------------------------------------------------------------------------------------------

    template <class Event>
    void feed(Event&& event) {
        if (tracing()) trace("server <- " + describe(event));
        step_server(std::forward<Event>(event));
    }
    template <class Event>
    void step_server(Event&& event) {
        in_step_ = true;
        server_->step(std::forward<Event>(event), time_.now, to_server_sink_);
        in_step_ = false;
        released_.clear();
    }

    void start_server() {
        server_up_ = true;
        server_stopping_ = false;
        ++server_life_;
        server_streams_ = !chance_.chance(no_streams_rate_);
        store_.begin_life();
        server_wake_.reset();
        if (tracing()) {
            trace("server starts, life " + std::to_string(server_life_) + (server_streams_ ? "" : ", without streams"));
        }
        server_ = std::make_unique<server_core>(server_limits_, server_retry_, chance_.bits());
        if (durable_ && chance_.chance(0.7)) {
            std::vector<std::string> known;
            for (const auto& n : nodes_) known.push_back(n.name);
            step_server(ferry::events::nodes_known{std::move(known)});
        }
        time_.after(chance_.between(ms(0), ms(300)), [this, life = server_life_] {
            if (server_up_ && server_life_ == life) step_server(ferry::events::serving{});
        });
    }

    void kill_server() {
        hit(fault::server_killed);
        if (tracing()) trace("server is killed");
        server_gone();
    }

    void server_gone() {
        server_up_ = false;
        for (auto& c : calls_) {
            if (!c.server_open || c.server_life != server_life_) continue;
            c.server_open = false;
            if (c.node_open) time_.after(until_noticed(), [this, id = c.id] { fail_at_node(id); });
            if (chance_.chance(0.5)) c.lost = true;
        }
        server_.reset();
        keys_.clear();
        pauses_.clear();
        uploads_kept_.clear();
        if (!durable_) store_.lose_all();
        ledger_.server_died([&](int ticket) {
            const auto& t = ledger_.tasks[index(ticket)];
            return durable_ && t.is_stored && store_.has(nodes_[index(t.node)].name, t.order);
        });
        if (!durable_) tickets_by_order_.clear();
    }

    void stop_server() {
        if (server_stopping_) return;
        hit(fault::server_stopped);
        server_stopping_ = true;
        feed(ferry::events::stop_requested{});
        if (quiet_) return;
        time_.after(chance_.between(ms(0), ms(8000)), [this, life = server_life_] {
            if (!server_up_ || server_life_ != life) return;
            feed(ferry::events::stop_forced{});
            server_gone();
        });
    }

    void server_drained() {
        time_.after(duration(0), [this, life = server_life_] {
            if (server_up_ && server_life_ == life) server_gone();
        });
    }

    void wake_server_at(time_point when) {
        if (server_wake_ && *server_wake_ <= when) return;
        server_wake_ = when;
        time_.at(when, [this, when, life = server_life_] {
            if (!server_up_ || server_life_ != life || server_wake_ != when) return;
            server_wake_.reset();
            feed(ferry::events::time_passed{});
            count_wakes(server_wakes_now_, server_wakes_at_, "the server");
        });
    }

    void count_wakes(int& wakes, time_point& when, const std::string& whose) {
        if (std::exchange(when, time_.now.steady) != time_.now.steady) wakes = 0;
        check(++wakes <= 5, whose + "'s core is woken again and again at the same time");
    }

    struct server_sink {
        simulation& s;

        void operator()(const ferry::effects::begun& e) {
            ++s.result_.deliveries;
            if (s.tracing()) s.trace("server -> begun, attempt " + std::to_string(e.attempt));
        }
        void operator()(const ferry::effects::send_range<int>& e) {
            auto& c = s.at(e.call);
            s.check(c.server_open && c.what == kind::poll, "a range for a poll that is over");
            const int ticket = s.tickets_.at(e.content.get());
            if (s.tracing()) s.trace("server -> range of ticket " + std::to_string(ticket) + ", " + describe(e.part));
            s.to_node(c, [&w = s, ticket, part = e.part](call& arrived) { w.poll_range(arrived, ticket, part); });
            s.time_.after(s.chance_.between(duration(0), s.range_time_), [&w = s, id = e.call, last = e.part.last()] {
                auto& c = w.at(id);
                if (!w.server_is_there(c)) return;
                const auto& name = w.node_of(c).name;
                w.feed(ferry::events::range_sent<int>{id, name});
                if (!last || !w.server_is_there(c)) return;
                c.server_open = false;
                w.feed(ferry::events::poll_closed<int>{id, name, true});
            });
        }
        void operator()(const ferry::effects::send_part<int>& e) {
            send(e.call, e.content, e.part, e.head);
            s.time_.after(s.chance_.between(duration(0), s.range_time_), [&w = s, id = e.call] {
                auto& c = w.at(id);
                if (w.server_is_there(c)) w.feed(ferry::events::range_sent<int>{id, w.node_of(c).name});
            });
        }
        void operator()(const ferry::effects::send_whole<int>& e) {
            s.check(e.content->size() == e.head.total && e.head.offset == 0, "a whole task isn't whole");
            send(e.call, e.content, ferry::chunk_cutter<chunk_bytes>(e.content->size()).next(), e.head);
        }
        void send(int to, const std::shared_ptr<const ferry::payload>& content, const ferry::chunk& part,
                  const ferry::frames::delivery_head& head) {
            auto& c = s.at(to);
            s.check(c.server_open && c.what == kind::stream, "a part for a stream that is over");
            const int ticket = s.tickets_.at(content.get());
            if (part.iteration == 1 && head.offset > 0) ++s.result_.resumed;
            if (const auto pauses = s.pauses_.find(head.task); pauses != s.pauses_.end()) {
                s.check(s.time_.now.steady >= pauses->second,
                        "ticket " + std::to_string(ticket) + " is sent again before its pause is over");
            }
            if (s.tracing()) {
                s.trace("server -> part of ticket " + std::to_string(ticket) + " from " + std::to_string(head.offset) +
                        ", attempt " + std::to_string(head.attempt) + ", " + describe(part));
            }
            const bool damaged = !s.quiet_ && s.chance_.chance(s.damage_rate_);
            if (damaged) s.hit(fault::delivery_damaged);
            s.to_node(c, [&w = s, ticket, part, head, damaged](call& arrived) {
                w.part_arrived(arrived, ticket, part, head, damaged);
            });
        }
        void operator()(const ferry::effects::welcome<int>& e) {
            if (s.tracing()) s.trace("server -> welcome to " + s.describe_call(e.call));
            s.to_node(s.at(e.call), [&w = s, what = e.what](call& arrived) {
                w.feed(w.node_of(arrived), ferry::intake_events::stream_welcomed{arrived.node_id, what});
            });
        }
        void operator()(const ferry::effects::withdraw_task<int>& e) {
            auto& c = s.at(e.call);
            s.check(c.server_open, "a withdrawal for a stream that is over");
            if (s.tracing()) s.trace("server -> withdraw " + s.describe_task(e.task));
            s.to_node(c, [&w = s, task = e.task](call& arrived) {
                w.feed(w.node_of(arrived), ferry::intake_events::task_withdrawn{arrived.node_id, task});
            });
        }
        void operator()(const ferry::effects::end_poll<int>& e) {
            auto& c = s.at(e.call);
            if (s.tracing()) {
                s.trace("server -> end " + s.describe_call(e.call) + ": " + std::string(to_string(e.reason)));
            }
            if (e.reason == errc::lease_lost) {
                s.hit(fault::lease_lost);
                s.ledger_.lease_lost(c.node);
                const auto& n = s.node_of(c);
                const bool is_well = n.limits.renew_leases && !n.stopping && !c.lost && s.node_is_there(c);
                s.check(!is_well, "a lease of node " + n.name + " is lost, and nothing was wrong");
            }
            if (e.reason == errc::superseded) s.hit(fault::superseded);
            s.check(c.server_open, "a call is ended that is over");
            const bool is_late = e.reason == errc::deadline_exceeded;
            if (is_late) s.hit(fault::poll_ended_late);
            s.end_at_server(c, is_late ? e.reason : errc::connection_failed, e.text);
        }
        void operator()(const ferry::effects::answer_reply<int>& e) {
            const auto from = s.replies_from_.at(index(e.call));
            if (s.tracing()) {
                s.trace("server -> answer reply " + std::to_string(from.reply) + ": " +
                        std::string(to_string(e.reason)));
            }
            s.check(s.answered_.insert(e.call).second, "a reply is answered twice");
            if (e.reason == errc::ok) s.check_kept_or_settled(from.reply);
            auto& c = s.at(from.call);
            if (!c.server_open || c.server_life != s.server_life_) return;
            if (c.what == kind::upload) return s.end_at_server(c, e.reason, e.text);
            s.to_node(c, [&w = s, answer = ferry::frames::answer{from.number, e.reason, e.text}](call& arrived) {
                w.feed(w.node_of(arrived), ferry::intake_events::reply_answered{arrived.node_id, answer});
            });
        }
        void operator()(const ferry::effects::ended<int, int>& e) {
            if (s.tracing()) {
                s.trace("server -> ended " + std::to_string(e.ticket) + ": " + std::string(to_string(e.how.kind)) +
                        ", " + e.how.text);
            }
            s.ledger_.ended(e.ticket, e.how, e.reply, s.server_life_);
            if (e.key != 0) s.handle_later(e.reply.value_or(-1), ferry::events::reply_handled{e.key});
        }
        void operator()(const ferry::effects::load_reply& e) {
            const int reply = s.replies_by_encoded_.at(e.encoded.get());
            if (s.tracing()) s.trace("server -> load reply " + std::to_string(reply) + " of " + e.node);
            s.ledger_.replies[index(reply)].was_kept = true;
            s.time_.after(s.chance_.between(ms(0), ms(50)), [&w = s, life = s.server_life_, key = e.key, reply] {
                if (!w.server_up_ || w.server_life_ != life) return;
                w.step_server(ferry::events::reply_loaded<int>{key, reply, {}});
            });
        }
        void operator()(const ferry::effects::accepted<int>& e) {
            const int root = s.ledger_.tasks[index(e.ticket)].root;  // it may join another, also one of before
            const bool joined = root < 0 || (s.server_life_ > 1 && !s.ledger_.tasks[index(root)].request_id.empty());
            s.check(joined || s.ledger_.tasks[index(root)].is_stored, "a task is accepted that was not stored");
        }
        void operator()(const ferry::effects::all_acquired&) {}
        void operator()(const ferry::effects::progressed<int>&) {}
        void operator()(const ferry::effects::unclaimed_reply<int>& e) {
            if (s.tracing()) s.trace("server -> unclaimed reply " + std::to_string(e.reply));
            s.ledger_.reported(e.reply, -1, s.server_life_);
            s.handle_later(e.reply, ferry::events::unclaimed_handled{e.key, e.bytes});
        }
        void operator()(ferry::effects::released<std::shared_ptr<const ferry::payload>> e) {
            s.released_.push_back(std::move(e.what));
        }
        void operator()(const ferry::effects::released<int>&) {}
        void operator()(const ferry::effects::acquire_journal& e) {
            if (s.tracing()) s.trace("server -> acquire " + e.node);
            s.store_.acquire(e.node, [&w = s, node = e.node](ferry::acquired_journal j) {
                if (w.server_up_) w.feed(ferry::events::journal_acquired{node, std::move(j)});
            });
        }
        void operator()(const ferry::effects::append_task& e) {
            if (!e.task.content) {  // a reply alone
                return s.store_.append(e.node, e.owner, e.task, s.tell_store_done(e.key));
            }
            const int ticket = s.tickets_.at(e.task.content.get());
            auto& t = s.ledger_.tasks[index(ticket)];
            t.is_stored = true;
            t.order = e.task.order;
            s.tickets_by_order_[{e.node, e.task.order}] = ticket;
            s.store_.append(e.node, e.owner, e.task, s.tell_store_done(e.key));
        }
        void operator()(const ferry::effects::update_task& e) {
            s.store_.update(e.node, e.owner, e.task, s.tell_store_done(e.key));
        }
        void operator()(const ferry::effects::settle_task& e) {
            if (const auto found = s.tickets_by_order_.find({e.node, e.order}); found != s.tickets_by_order_.end()) {
                s.ledger_.over(found->second);
            }
            s.store_.settle(e.node, e.owner, e.order, s.tell_store_done(e.key));
        }
        void operator()(const ferry::effects::node_changed& e) {
            if (s.tracing()) s.trace("server -> node " + e.node + " is " + std::string(to_string(e.status)));
        }
        void operator()(const ferry::effects::warning& e) {
            if (s.tracing()) s.trace("server -> warning: " + e.text);
        }
        void operator()(const ferry::effects::wake_at& e) { s.wake_server_at(e.when); }
        void operator()(const ferry::effects::drained&) {
            if (s.tracing()) s.trace("server -> drained");
            s.check(s.server_stopping_, "the server is drained without a stop");
            s.server_drained();
        }
    };

    simulated_store::told tell_store_done(ferry::task_key key) {
        return [this, key](ferry::store_status status) {
            if (server_up_) feed(ferry::events::store_done{key, std::move(status)});
        };
    }

    /// A reply is answered well: it was handled, the store keeps it, or no task that it answers is in the journal any more.
    void check_kept_or_settled(int reply) {
        const auto& r = ledger_.replies[index(reply)];
        if (!durable_ || r.was_handled) return;
        const auto name = "reply " + std::to_string(reply);
        if (r.was_reported && r.reported_as >= 0) {
            const auto& t = ledger_.tasks[index(r.reported_as)];
            const auto& node = nodes_[index(t.node)].name;
            check(!t.is_stored || !store_.has(node, t.order) || store_.has_reply(node, t.order),
                  name + " is answered before it was noted or its task settled");
        } else {
            ledger_.replies[index(reply)].is_noted = store_.keeps(replies_by_encoded_of(reply));
            check(r.is_noted, name + " is answered, and neither noted nor handled");
        }
    }
    const ferry::payload* replies_by_encoded_of(int reply) const {
        const auto found = encoded_.find(reply);
        return found == encoded_.end() ? nullptr : found->second.get();
    }

    // --- a node --------------------------------------------------------------------------------------------------------

    template <class Event>
    void feed(node& n, Event&& event) {
        if (tracing()) trace("node " + n.name + " <- " + describe(event));
        n.core->step(std::forward<Event>(event), time_.now, node_sink{*this, n});
    }

    void start_node(node& n) {
        ++n.life;
        n.up = true;
        n.stopping = false;
        n.wake.reset();
        ++n.connection;
        n.running = {};
        n.waiting = {};
        n.done.clear();
        if (tracing()) trace("node " + n.name + " starts, life " + std::to_string(n.life));
        const retry policy{chance_.between(3, 10), ms_of(chance_.below(200))};  // drawn first, whichever the compiler
        n.core = std::make_unique<node_core>(n.limits, policy, chance_.bits());
        if (n.spool) {
            for (const auto& [number, bytes] : n.kept) feed(n, ferry::intake_events::task_found{number, bytes});
        } else {
            n.kept.clear();
        }
        for (const int reply : std::exchange(n.unfinished, {})) {
            const auto& r = ledger_.replies[index(reply)];
            if (!r.ended && n.spool) submit(n, reply, r.number);
            if (!r.ended && !n.spool) ledger_.replies[index(reply)].ended = true;  // it went down with its node
        }
        feed(n, ferry::intake_events::started{});
    }

    static milliseconds ms_of(int n) { return milliseconds(n); }

    void kill_node(node& n) {
        hit(fault::node_killed);
        if (tracing()) trace("node " + n.name + " is killed");
        node_gone(n);
    }

    void node_gone(node& n) {
        n.up = false;
        for (auto& c : calls_) {
            if (!c.node_open || c.node != n.index || c.node_life != n.life) continue;
            c.node_open = false;
            if (chance_.chance(0.5)) c.lost = true;
            time_.after(until_noticed(), [this, id = c.id] { fail_at_server(id); });
        }
        n.core.reset();
        ledger_.node_died(n.index);
    }

    void stop_node(node& n) {
        if (n.stopping) return;
        hit(fault::node_stopped);
        n.stopping = true;
        feed(n, ferry::intake_events::stop_requested{});
        if (quiet_) return;
        time_.after(chance_.between(ms(0), ms(8000)), [this, &n, life = n.life] {
            if (!n.up || n.life != life) return;
            feed(n, ferry::intake_events::stop_forced{});
            node_gone(n);
        });
    }

    void wake_node_at(node& n, time_point when) {
        if (n.wake && *n.wake <= when) return;
        n.wake = when;
        time_.at(when, [this, &n, when, life = n.life] {
            if (!n.up || n.life != life || n.wake != when) return;
            n.wake.reset();
            feed(n, ferry::intake_events::time_passed{});
            check(!n.wake || *n.wake > time_.now.steady, "node " + n.name + " asks for the past");
        });
    }

    void poll_range(call& c, int ticket, const ferry::chunk& part) {
        auto& n = node_of(c);
        feed(n, ferry::intake_events::poll_progress{c.node_id});
        if (!part.last() || !node_is_there(c)) return;
        ledger_.came_by_poll(ticket);
        const auto size = ledger_.tasks[index(ticket)].size;
        n.waiting[1].push_back({0, size, ticket});
        feed(n, ferry::intake_events::task_arrived<node_task>{c.node_id, {ticket, 0, size, 1}, size});
        c.node_open = false;
        feed(n, ferry::intake_events::poll_ended{c.node_id, ferry::poll_end::well, ""});
    }

    void part_arrived(call& c, int ticket, const ferry::chunk& part, const ferry::frames::delivery_head& head,
                      bool damaged) {
        namespace in = ferry::intake_events;
        auto& n = node_of(c);
        const auto name = "ticket " + std::to_string(ticket);
        const bool single = part.iteration == 1 && part.last() && head.offset == 0;
        const bool is_done = part.iteration == 1 && !n.stopping && !damaged &&
                             std::find(n.done.begin(), n.done.end(), head.task) != n.done.end();
        n.last_receipt = 0;
        if (single) {
            if (damaged) return feed(n, in::delivery_damaged{c.node_id, head.task, "damaged"});
            arrive(n, c, ticket, head);
            return check(!is_done || n.last_receipt == head.task, name + " is done, and its receipt isn't told again");
        }
        if (part.iteration == 1) {
            std::erase_if(c.moving, [&](const incoming& m) { return m.task == head.task; });
            const in::delivery_began began{c.node_id, head};
            if (tracing()) trace("node " + n.name + " <- " + describe(began));
            const bool wanted = n.core->step(began, time_.now, node_sink{*this, n});
            if (wanted) {
                const auto has = n.kept.contains(head.task) ? n.kept[head.task] : 0;
                check(head.offset == 0 || head.offset == has, name + " goes on at " + std::to_string(head.offset) +
                                                                  ", and its node has " + std::to_string(has));
                n.kept[head.task] = head.offset;
            }
            check(!is_done || n.last_receipt == head.task, name + " is done, and its receipt isn't told again");
            if (!node_is_there(c)) return;
            c.moving.push_back({head.task, wanted});
        }
        const auto found = std::find_if(c.moving.begin(), c.moving.end(), [&](auto& m) { return m.task == head.task; });
        if (found == c.moving.end()) return violated(name + ": a part of a delivery that never began");
        found->damaged |= damaged;
        const incoming m = *found;
        if (part.last()) c.moving.erase(found);
        if (!m.wanted) return;
        check(n.kept[head.task] == part.offset, name + ": a part is missing");
        n.kept[head.task] += part.length;
        if (!part.last()) return feed(n, in::delivery_progress{c.node_id, head.task, n.kept[head.task]});
        if (m.damaged) {
            n.kept.erase(head.task);
            return feed(n, in::delivery_damaged{c.node_id, head.task, "damaged"});
        }
        check(n.kept[head.task] == head.total, name + " is not whole");
        arrive(n, c, ticket, head);
    }

    void arrive(node& n, call& c, int ticket, const ferry::frames::delivery_head& head) {
        const auto before = n.core->open_tasks();
        auto& lane = n.waiting[head.urgent ? 0 : 1];
        lane.push_back({head.task, head.total, ticket});
        feed(n, ferry::intake_events::task_arrived<node_task>{c.node_id,
                                                              {ticket, head.task, head.total, head.attempt},
                                                              head.total,
                                                              head.task,
                                                              head.attempt,
                                                              head.urgent});
        if (n.core->open_tasks() == before) forget_waiting(n, head.task, true);
        check_window(n, lane, n.running[head.urgent ? 0 : 1]);
    }

    void check_window(node& n, const std::vector<held_task>& lane, const running_task& running) {
        const auto counts = [&](int ticket) { return !ledger_.tasks[index(ticket)].is_answered; };
        const bool runs = running.key != 0 && running.counts && counts(running.what.ticket);
        if (running.by_poll || std::any_of(lane.begin(), lane.end(), [](auto& h) { return h.number == 0; })) return;
        std::size_t count = runs ? 1 : 0;
        auto bytes = runs ? running.what.size : 0;
        for (const auto& each : lane) {
            if (!counts(each.ticket)) continue;
            ++count;
            bytes += each.size;
        }
        check(count <= n.limits.max_waiting_tasks,
              "node " + n.name + " has " + std::to_string(count) + " tasks in a lane");
        check(count <= 1 || bytes <= n.limits.max_waiting_bytes,
              "node " + n.name + " has " + std::to_string(bytes) + " bytes in a lane");
    }

    /// Of two with this number, the last one.
    static void forget_waiting(node& n, std::uint64_t number, bool last_only = false) {
        for (auto& lane : n.waiting) {
            if (!last_only) {
                std::erase_if(lane, [&](const held_task& h) { return h.number == number; });
            } else if (!lane.empty() && lane.back().number == number) {
                lane.pop_back();
            }
        }
    }

    struct node_sink {
        simulation& s;
        node& n;

        void say(const std::string& text) const {
            if (s.tracing()) s.trace("node " + n.name + " -> " + text);
        }

        void operator()(const ferry::intake_effects::reconnect&) const {
            if (std::exchange(n.was_deadline, false) && n.keeps_connection) return;
            ++n.connection;
            say("reconnect");
        }
        void operator()(const ferry::intake_effects::open_poll& e) const {
            say("open poll");
            auto& c = s.open_call(kind::poll, n, e.poll_id);
            if (!s.quiet_) c.within = n.poll_within;
            if (c.within > duration(0)) {
                s.time_.after(c.within, [&w = s, id = c.id] {
                    auto& c = w.at(id);
                    if (!w.node_is_there(c)) return;
                    w.hit(fault::poll_deadline);
                    w.end_at_node(c, errc::deadline_exceeded, "its deadline");
                });
            }
            s.open_at_server(c, [&w = s](call& arrived) {
                const auto& from = w.node_of(arrived);
                auto deadline = time_point::max();
                if (arrived.within > duration(0)) {
                    deadline = w.time_.now.steady + arrived.within;
                    w.time_.at(deadline, [&w, id = arrived.id] { w.fail_at_server(id); });
                }
                if (w.chance_.chance(0.5)) {
                    w.to_node(arrived, [&w](call& back) {
                        w.feed(w.node_of(back), ferry::intake_events::poll_accepted{back.node_id});
                    });
                }
                w.feed(ferry::events::poll_opened<int>{arrived.id, from.name, arrived.connection_name, deadline});
            });
            s.time_.after(ms(1), [&w = s, id = c.id] {
                auto& c = w.at(id);
                if (w.node_is_there(c)) w.feed(w.node_of(c), ferry::intake_events::poll_sent{c.node_id});
            });
        }
        void operator()(const ferry::intake_effects::open_stream& e) const {
            if (s.tracing()) say("open stream, " + s.describe(e.hello));
            s.check(std::equal(e.hello.receipts.begin(), e.hello.receipts.end(), n.done.begin(), n.done.end(),
                               [](const auto& r, std::uint64_t task) { return r.task == task; }),
                    "a hello doesn't repeat the receipts that are to be remembered");
            for (const auto& h : e.hello.held) {
                if (h.ready) continue;
                s.check(n.kept.contains(h.task) && n.kept[h.task] == h.received,
                        "a hello names bytes that are not there");
            }
            auto& c = s.open_call(kind::stream, n, e.poll_id);
            n.stream = c.id;
            s.open_at_server(c, [&w = s, hello = e.hello](call& arrived) {
                if (!w.server_streams_ || w.chance_.chance(w.some_streams_refused_)) {
                    w.hit(fault::no_streams);
                    arrived.server_open = false;
                    return w.to_node(arrived, [&w](call& back) {
                        back.node_open = false;
                        w.feed(w.node_of(back),
                               ferry::intake_events::poll_ended{back.node_id, ferry::poll_end::unknown, ""});
                    });
                }
                auto heard = hello;
                if (w.chance_.chance(w.receipts_ignored_)) heard.receipts.clear();  // what is done is sent again
                const auto& name = w.node_of(arrived).name;
                w.feed(ferry::events::stream_opened<int>{arrived.id, name, arrived.connection_name, std::move(heard)});
            });
        }
        void operator()(const ferry::intake_effects::cancel_poll& e) const {
            say("cancel poll");
            if (auto* c = s.find_call(n, e.poll_id)) s.cancel(*c);
        }
        void operator()(const ferry::intake_effects::close_stream& e) const {
            say("close stream");
            s.to_server(*s.find_call(n, e.poll_id), [&w = s](call& arrived) {
                w.end_at_server(arrived, errc::ok, "");
                w.feed(ferry::events::poll_closed<int>{arrived.id, w.node_of(arrived).name, true});
            });
        }
        void operator()(const ferry::intake_effects::tell_receipt& e) const {
            n.last_receipt = e.what.task;
            if (s.tracing()) say("receipt of " + s.describe_task(e.what.task) + ", " + describe(e.what.what));
            s.to_server(*s.find_call(n, e.poll_id), [&w = s, what = e.what](call& arrived) {
                if (what.what == verdict::not_now) w.pauses_[what.task] = w.time_.now.steady + what.pause;
                w.feed(ferry::events::receipt_came<int>{arrived.id, w.node_of(arrived).name, what});
            });
        }
        void operator()(const ferry::intake_effects::renew_leases& e) const {
            say("renew " + std::to_string(e.tasks.size()) + " leases");
            s.to_server(*s.find_call(n, e.poll_id), [&w = s, tasks = e.tasks](call& arrived) {
                w.feed(ferry::events::lease_renewed<int>{arrived.id, w.node_of(arrived).name, tasks});
            });
        }
        void operator()(const ferry::intake_effects::tell_leaving& e) const {
            say("leaving");
            s.to_server(*s.find_call(n, e.poll_id), [&w = s](call& arrived) {
                w.feed(ferry::events::node_leaving<int>{arrived.id, w.node_of(arrived).name});
            });
        }
        void operator()(const ferry::intake_effects::send_reply& e) const {
            const int reply = s.replies_by_content_.at(e.content.get());
            say("reply " + std::to_string(reply) + " by stream");
            if (e.task != 0) n.last_receipt = e.task;
            s.to_server(*s.find_call(n, e.poll_id), [&w = s, reply, number = e.number, task = e.task](call& arrived) {
                w.reply_arrived(arrived, reply, number);
                if (task == 0 || !w.server_is_there(arrived)) return;
                w.feed(ferry::events::receipt_came<int>{arrived.id, w.node_of(arrived).name, {task}});
            });
        }
        void operator()(const ferry::intake_effects::forget_task& e) const {
            say("forget " + s.describe_task(e.number));
            n.kept.erase(e.number);
            forget_waiting(n, e.number);
            if (n.stream == 0) return;
            for (auto& m : s.at(n.stream).moving) {
                if (m.task == e.number) m.wanted = false;
            }
        }
        void operator()(const ferry::intake_effects::run_task<node_task>& e) const {
            say("run ticket " + std::to_string(e.task.ticket) + ", attempt " + std::to_string(e.task.attempt));
            const bool by_poll = e.task.number == 0;
            const bool urgent = by_poll ? s.ledger_.tasks[index(e.task.ticket)].urgent : e.urgent;
            s.ledger_.run_begins(e.task.ticket, n.life, e.task.attempt, by_poll, urgent, 2 * n.limits.max_waiting_tasks,
                                 s.time_.now.steady);
            auto& lane = n.waiting[e.urgent ? 0 : 1];
            if (!lane.empty()) lane.erase(lane.begin());
            n.running[e.urgent ? 0 : 1] = {e.key, e.task, true, by_poll};
            s.call_back(n, e.urgent ? 0 : 1);
        }
        void operator()(const ferry::intake_effects::stop_task& e) const {
            say("stop a callback");
            for (std::size_t i = 0; i < 2; ++i) {
                auto& r = n.running[i];
                if (r.key != e.key) continue;
                r.counts = false;
                s.time_.after(s.chance_.between(ms(0), ms(20)), [&w = s, &of = n, life = n.life, key = e.key, i] {
                    if (of.up && of.life == life) w.return_task(of, i, key, w.draw_verdict());
                });
            }
        }
        void operator()(const ferry::intake_effects::open_upload& e) const {
            say("open upload, attempt " + std::to_string(e.attempt));
            s.ledger_.replies[index(std::stoi(e.label))].number = e.number;
            if (!e.has_call) return;
            auto& c = s.open_call(kind::upload, n, e.upload_id);
            c.number = e.number;
            c.can_go_on = e.can_go_on;
            s.open_at_server(c, [&w = s](call& arrived) { w.upload_opened(arrived); });
        }
        void operator()(const ferry::intake_effects::send_range& e) const {
            auto* c = s.find_call(n, e.upload_id);
            s.check(c && c->what == kind::upload && c->node_open, "a range for an upload that is over");
            if (!c) return;
            const int reply = s.replies_by_content_.at(e.content.get());
            say("range of reply " + std::to_string(reply) + ", " + describe(e.part));
            c->reply = reply;
            const bool damaged = !s.quiet_ && c->can_go_on && s.chance_.chance(s.damage_rate_);
            if (damaged) s.hit(fault::upload_damaged);
            s.to_server(*c,
                        [&w = s, part = e.part, damaged](call& arrived) { w.upload_range(arrived, part, damaged); });
            s.time_.after(s.chance_.between(duration(0), s.range_time_), [&w = s, id = c->id] {
                auto& c = w.at(id);
                if (w.node_is_there(c)) w.feed(w.node_of(c), ferry::intake_events::upload_range_sent{c.node_id});
            });
        }
        void operator()(const ferry::intake_effects::cancel_upload& e) const {
            say("cancel upload");
            if (auto* c = s.find_call(n, e.upload_id)) s.cancel(*c);
        }
        void operator()(const ferry::intake_effects::ended<int>& e) const {
            say("reply " + std::to_string(e.ticket) + " ended: " + std::string(to_string(e.how.kind)) + ", " +
                e.how.text);
            s.ledger_.reply_ended(e.ticket, e.how);
            n.unfinished.erase(e.ticket);
        }
        void operator()(const ferry::intake_effects::progressed<int>&) const {}
        void operator()(const ferry::intake_effects::send_feedback& e) const {
            auto& c = s.open_call(kind::feedback, n, e.feedback_id);
            s.open_at_server(c, [&w = s](call& arrived) { w.end_at_server(arrived, errc::ok, ""); });
        }
        void operator()(const ferry::intake_effects::cancel_feedback& e) const {
            if (auto* c = s.find_call(n, e.feedback_id)) s.cancel(*c);
        }
        void operator()(const ferry::intake_effects::link_changed& e) const { say(e.connected ? "up" : "down"); }
        void operator()(const ferry::intake_effects::warning& e) const { say("warning: " + e.text); }
        void operator()(const ferry::intake_effects::wake_at& e) const { s.wake_node_at(n, e.when); }
        void operator()(const ferry::intake_effects::drained&) const {
            say("drained");
            s.check(n.stopping, "node " + n.name + " is drained without a stop");
            s.time_.after(duration(0), [&w = s, &of = n, life = n.life] {
                if (of.up && of.life == life) w.node_gone(of);
            });
        }
    };

    // --- callbacks -----------------------------------------------------------------------------------------------------

    verdict draw_verdict() {
        if (quiet_) return verdict::taken;
        if (chance_.chance(not_now_rate_)) {
            hit(fault::not_now);
            return verdict::not_now;
        }
        if (chance_.chance(refuse_rate_)) {
            hit(fault::refused);
            return verdict::refused;
        }
        return verdict::taken;
    }

    void call_back(node& n, std::size_t lane) {
        const auto& r = n.running[lane];
        auto longest = run_time_;
        if (quiet_) longest = std::min(longest, milliseconds(100));
        const auto takes = chance_.between(duration(0), longest);
        const auto what = draw_verdict();
        const auto& t = ledger_.tasks[index(r.what.ticket)];
        const int replies = !t.wants_reply ? 0 : chance_.chance(0.85) ? 1 : chance_.chance(0.5) ? 2 : 0;
        for (int i = 0; i < replies && what != verdict::refused; ++i) {
            const auto when =
                chance_.chance(0.8) ? chance_.between(duration(0), takes) : takes + ms(chance_.below(500));
            time_.after(when, [this, &n, life = n.life, ticket = r.what.ticket, number = r.what.number] {
                if (n.up && n.life == life) submit_new_reply(n, ticket, number);
            });
        }
        time_.after(takes, [this, &n, life = n.life, key = r.key, lane, what] {
            if (n.up && n.life == life) return_task(n, lane, key, what);
        });
        if (n.limits.renew_leases || server_limits_.lease.count() == 0 || chance_.chance(0.3)) return;
        const auto every = server_limits_.lease / 3;
        for (auto at = every; at < longest; at += every) {
            time_.after(at, [this, &n, life = n.life, key = r.key] {
                if (n.up && n.life == life) feed(n, ferry::intake_events::task_in_progress{key});
            });
        }
    }

    void return_task(node& n, std::size_t lane, ferry::task_key key, verdict what) {
        auto& r = n.running[lane];
        if (r.key != key) return;
        ledger_.run_ends(r.what.ticket, what, r.by_poll);
        if (r.what.number != 0 && what != verdict::not_now) {
            n.done.push_back(r.what.number);
            if (n.done.size() > 2 * n.limits.max_waiting_tasks) n.done.pop_front();
        }
        r = {};
        const auto pause = milliseconds(what == verdict::not_now ? chance_.below(1000) : 0);
        feed(n, ferry::intake_events::task_returned{key, what, "so it is", pause});
    }

    void submit_new_reply(node& n, int ticket, std::uint64_t number) {
        const auto& t = ledger_.tasks[index(ticket)];
        sent_reply r;
        r.node = n.index;
        r.request_id = t.request_id;
        r.size = static_cast<std::uint64_t>(chance_.chance(0.6) ? chance_.below(11) : chance_.between(11, 90));
        const int reply = ledger_.submit_reply(r);
        auto content = make_content(r.size, chance_.chance(0.5));
        replies_by_content_[content.get()] = reply;
        reply_contents_.push_back(std::move(content));
        submit(n, reply, 0, number);
    }

    void submit(node& n, int reply, std::uint64_t number, std::uint64_t task = 0) {
        n.unfinished.insert(reply);
        ferry::intake_events::reply_submitted<int> e;
        e.ticket = reply;
        e.content = reply_contents_[index(reply)];
        e.number = number;
        e.task = task;
        e.label = std::to_string(reply);
        if (tracing()) trace("node " + n.name + " <- reply " + std::to_string(reply));
        n.core->step(std::move(e), time_.now, node_sink{*this, n});
    }

    // --- replies at the server -----------------------------------------------------------------------------------------

    void upload_opened(call& c) {
        if (!c.can_go_on) return;
        for (auto& other : calls_) {
            if (other.id == c.id || other.what != kind::upload || other.node != c.node || other.number != c.number)
                continue;
            if (server_is_there(other)) end_at_server(other, errc::connection_failed, "a newer call has come");
        }
        const auto found = uploads_kept_.find(c.number);
        c.received = found == uploads_kept_.end() ? 0 : found->second;
        to_node(c, [this, offset = c.received](call& back) {
            feed(node_of(back), ferry::intake_events::upload_accepted{back.node_id, offset});
        });
    }

    void upload_range(call& c, const ferry::chunk& part, bool damaged) {
        check(part.offset == c.received, "an upload goes on at " + std::to_string(part.offset) +
                                             ", and the server has " + std::to_string(c.received));
        c.received += part.length;
        if (damaged && part.last()) {
            uploads_kept_.erase(c.number);
            return end_at_server(c, errc::checksum_differs, "damaged");
        }
        if (!part.last()) {
            if (c.can_go_on) uploads_kept_[c.number] = c.received;
            return;
        }
        uploads_kept_.erase(c.number);
        check(c.received == ledger_.replies[index(c.reply)].size, "an upload is not whole");
        reply_arrived(c, c.reply, c.can_go_on ? c.number : 0);
    }

    void reply_arrived(call& c, int reply, std::uint64_t number) {
        const int from = static_cast<int>(replies_from_.size());
        replies_from_.push_back({c.id, number, reply});
        auto& r = ledger_.replies[index(reply)];
        r.came_without_number |= number == 0;
        ledger_.reply_came(reply);
        if (tracing()) trace("server <- reply " + std::to_string(reply) + " to " + r.request_id);
        const auto kept = durable_ ? encoded(reply) : nullptr;
        step_server(ferry::events::reply_arrived<int, int>{from, node_of(c).name, r.request_id, reply, number, kept,
                                                           kept ? kept->size() : 1});
    }

    std::shared_ptr<const ferry::payload> encoded(int reply) {
        auto& known = encoded_[reply];
        if (!known) {
            known = std::make_shared<const ferry::payload>();
            replies_by_encoded_[known.get()] = reply;
        }
        return known;
    }

    /// Whoever was given it is done with it, some time later and unless the server dies before.
    template <class Event>
    void handle_later(int reply, Event event) {
        time_.after(chance_.between(ms(0), ms(100)), [this, reply, event, life = server_life_] {
            if (!server_up_ || server_life_ != life) return;
            if (reply >= 0) ledger_.replies[index(reply)].was_handled = true;
            step_server(event);
        });
    }

    // --- the end -------------------------------------------------------------------------------------------------------

    void check_bounds() {
        for (auto& n : nodes_) {
            if (!n.up) continue;
            check(n.core->open_uploads() <= n.limits.max_queued_uploads, "too many uploads");
        }
        if (!server_up_ || (durable_ && server_life_ > 1)) return;  // what is restored is beyond all bounds
        std::size_t all = 0;
        server_->for_each_node([&](const ferry::node_info& info) { all += info.queued_tasks; });
        check(all <= server_limits_.max_all_queued_tasks, "too many tasks are queued");
    }

    bool is_idle() {
        if (!server_up_ || server_->open_tasks() > awaited_by_nobody()) return false;
        return std::all_of(nodes_.begin(), nodes_.end(), [](const node& n) {
            return n.up && n.core->open_tasks() == 0 && n.core->open_uploads() == 0 && n.kept.empty();
        });
    }

    /// Requests of an earlier life whose callbacks gave no reply: they wait for ever.
    std::size_t awaited_by_nobody() {
        std::size_t out = 0;
        if (durable_)
            server_->for_each_task([&](const ferry::pending_task& t) { out += t.taken && t.wants_reply ? 1U : 0U; });
        return out;
    }

    void heal() {
        if (!server_up_) start_server();
        for (auto& n : nodes_) {
            if (!n.up) start_node(n);
        }
    }

    /// Long after all was healed none waits for a limit of time to pass.
    void check_that_replies_move(std::size_t early) {
        for (std::size_t i = 0; i < early; ++i) {
            check(ledger_.replies[i].ended, "reply " + std::to_string(i) + " stands still");
        }
    }

    void calm_down() {
        quiet_ = true;
        delay_ = std::min(delay_, milliseconds(5));
        std::size_t early = 0;
        for (int i = 0; i < 240 && !is_violated(); ++i) {
            heal();
            pass(milliseconds(1000));
            if (i == 20) early = ledger_.replies.size();
            if (i == 40) check_that_replies_move(early);
            if (i >= 25 && is_idle()) break;
        }
        if (is_violated()) return;
        if (!is_idle()) {
            violated("what is pending doesn't come to its end: " + describe_rest());
            return;
        }
        pass(std::chrono::minutes(1));
        const auto before = time_.happened();
        pass(std::chrono::minutes(2));
        check(time_.happened() - before <= 2 * (nodes_.size() + 1), "the cores are never at rest");
        check(is_idle(), "the cores don't stay idle");
        check(store_.stored() == server_->open_tasks() || !durable_, "the store keeps tasks that have ended");
    }

    void stop_all() {
        if (is_violated()) return;
        std::vector<std::function<void()>> stops;
        for (auto& n : nodes_) stops.push_back([this, &n] { stop_node(n); });
        stops.insert(stops.begin() + chance_.below(static_cast<int>(stops.size()) + 1), [this] { stop_server(); });
        for (const auto& stop : stops) {
            stop();
            pass(chance_.between(ms(0), ms(20)));
        }
        pass(std::chrono::minutes(2));
        check(!server_up_, "the server is never drained");
        for (const auto& n : nodes_) check(!n.up, "node " + n.name + " is never drained");
        if (!is_violated()) ledger_.check_end(durable_);
    }

    // --- for the trace -------------------------------------------------------------------------------------------------

    static std::string describe(const ferry::chunk& part) {
        return "chunk " + std::to_string(part.iteration) + " of " + std::to_string(part.size) + " at " +
               std::to_string(part.offset);
    }
    static std::string describe(verdict what) {
        static constexpr const char* names[] = {"taken", "refused", "not now", "given back"};
        return names[static_cast<int>(what)];
    }
    std::string describe_task(std::uint64_t number) const { return std::to_string(number % 10'000); }
    std::string describe_call(int id) {
        const auto& c = at(id);
        static constexpr const char* names[] = {"stream", "poll", "upload", "feedback"};
        return std::string(names[static_cast<int>(c.what)]) + " " + std::to_string(id) + " of " +
               nodes_[index(c.node)].name;
    }
    std::string describe(const ferry::frames::hello& hello) const {
        std::string out = "held:";
        for (const auto& h : hello.held) {
            out += " " + describe_task(h.task) + (h.ready ? " ready" : " at " + std::to_string(h.received));
        }
        out += ", receipts:";
        for (const auto& r : hello.receipts) out += " " + describe_task(r.task) + " " + describe(r.what);
        return out;
    }
    std::string describe_rest() {
        std::string out;
        if (!server_up_) return "the server is down";
        out = std::to_string(server_->open_tasks()) + " tasks at the server";
        for (const auto& n : nodes_) {
            out += "; node " + n.name + ": ";
            out += !n.up ? "down"
                         : std::to_string(n.core->open_tasks()) + " tasks, " + std::to_string(n.core->open_uploads()) +
                               " uploads, " + std::to_string(n.kept.size()) + " parts";
        }
        return out;
    }

    std::string describe(const ferry::events::poll_opened<int>& e) { return describe_call(e.call) + " opened"; }
    std::string describe(const ferry::events::stream_opened<int>& e) {
        return describe_call(e.call) + " opened, " + describe(e.hello);
    }
    std::string describe(const ferry::events::receipt_came<int>& e) {
        return "receipt of " + describe_task(e.receipt.task) + ", " + describe(e.receipt.what) + ", by " +
               describe_call(e.call);
    }
    std::string describe(const ferry::events::lease_renewed<int>& e) {
        return "leases renewed by " + describe_call(e.call);
    }
    std::string describe(const ferry::events::node_leaving<int>& e) { return "leaving " + describe_call(e.call); }
    std::string describe(const ferry::events::range_sent<int>& e) { return "range sent by " + describe_call(e.call); }
    std::string describe(const ferry::events::poll_broken<int>& e) { return "broken " + describe_call(e.call); }
    std::string describe(const ferry::events::poll_closed<int>& e) {
        return std::string(e.clean ? "closed " : "closed badly ") + describe_call(e.call);
    }
    std::string describe(const ferry::events::unclaimed_handled&) { return "handled"; }
    std::string describe(const ferry::events::withdrawn& e) { return "withdraw " + std::to_string(keys_[e.key]); }
    std::string describe(const ferry::events::store_done& e) {
        return "stored, task " + std::to_string(e.key) + ": " + std::string(to_string(e.status.code));
    }
    std::string describe(const ferry::events::journal_acquired& e) {
        return "acquired " + e.node + ", tasks: " + std::to_string(e.journal.tasks.size());
    }
    std::string describe(const ferry::events::time_passed&) { return "time"; }
    std::string describe(const ferry::events::stop_requested&) { return "stop"; }
    std::string describe(const ferry::events::stop_forced&) { return "stop now"; }
    std::string describe(const ferry::intake_events::started&) { return "start"; }
    std::string describe(const ferry::intake_events::task_found& e) {
        return "found " + describe_task(e.number) + ", " + std::to_string(e.received) + " bytes";
    }
    std::string describe(const ferry::intake_events::stream_welcomed&) { return "welcome"; }
    std::string describe(const ferry::intake_events::delivery_began& e) {
        return "delivery of " + describe_task(e.head.task) + " from " + std::to_string(e.head.offset);
    }
    std::string describe(const ferry::intake_events::delivery_progress& e) {
        return "chunk of " + describe_task(e.number) + ", " + std::to_string(e.received) + " bytes";
    }
    std::string describe(const ferry::intake_events::delivery_damaged& e) {
        return "damaged " + describe_task(e.number);
    }
    std::string describe(const ferry::intake_events::task_withdrawn& e) {
        return "withdrawn " + describe_task(e.number);
    }
    std::string describe(const ferry::intake_events::reply_answered& e) {
        return "answer: " + std::string(to_string(e.what.reason));
    }
    std::string describe(const ferry::intake_events::task_in_progress&) { return "in progress"; }
    std::string describe(const ferry::intake_events::poll_sent&) { return "poll sent"; }
    std::string describe(const ferry::intake_events::poll_accepted&) { return "poll accepted"; }
    std::string describe(const ferry::intake_events::poll_progress&) { return "poll progress"; }
    std::string describe(const ferry::intake_events::task_arrived<node_task>& e) {
        return "arrived: ticket " + std::to_string(e.task.ticket) + ", " + describe_task(e.number) + ", attempt " +
               std::to_string(e.attempt);
    }
    std::string describe(const ferry::intake_events::poll_ended& e) {
        return "poll ended " + std::to_string(static_cast<int>(e.end)) + ", " + e.text;
    }
    std::string describe(const ferry::intake_events::task_returned& e) { return "returned, " + describe(e.what); }
    std::string describe(const ferry::intake_events::upload_accepted& e) {
        return "upload goes on at " + std::to_string(e.offset);
    }
    std::string describe(const ferry::intake_events::upload_range_sent&) { return "upload range sent"; }
    std::string describe(const ferry::intake_events::upload_ended& e) {
        return "upload ended: " + std::string(to_string(e.reason));
    }
    std::string describe(const ferry::intake_events::feedback_submitted&) { return "feedback"; }
    std::string describe(const ferry::intake_events::feedback_ended&) { return "feedback ended"; }
    std::string describe(const ferry::intake_events::time_passed&) { return "time"; }
    std::string describe(const ferry::intake_events::stop_requested&) { return "stop"; }
    std::string describe(const ferry::intake_events::stop_forced&) { return "stop now"; }

    simulation_result result_;
    bool in_step_ = false;
    bool durable_;
    tracer trace_;
    dice chance_;
    agenda time_;
    simulated_store store_;
    ledger ledger_{[this](const std::string& what) { violated(what); }};

    int acts_ = 0;
    milliseconds pace_{}, delay_{}, run_time_{}, range_time_{};
    double cut_rate_ = 0, kill_rate_ = 0, damage_rate_ = 0, refuse_rate_ = 0, not_now_rate_ = 0, withdraw_rate_ = 0,
           no_streams_rate_ = 0, some_streams_refused_ = 0, receipts_ignored_ = 0;
    bool repeat_ids_ = false;
    bool quiet_ = false;

    ferry::dispatch_limits server_limits_;
    retry server_retry_;
    int server_life_ = 0;
    bool server_up_ = false, server_stopping_ = false, server_streams_ = true;
    std::unique_ptr<server_core> server_;
    std::vector<std::shared_ptr<const ferry::payload>> released_;
    server_sink to_server_sink_{*this};
    std::optional<time_point> server_wake_;
    int server_wakes_now_ = 0;
    time_point server_wakes_at_;
    std::map<std::uint64_t, time_point> pauses_;  // until when a task isn't to be sent again
    std::map<ferry::task_key, int> keys_;         // of this life, with their tickets
    std::map<std::pair<std::string, std::uint64_t>, int> tickets_by_order_;
    std::set<std::pair<int, std::string>> old_requests_;
    std::map<std::uint64_t, std::uint64_t> uploads_kept_;           // bytes of uploads that broke off, by number
    std::map<int, std::shared_ptr<const ferry::payload>> encoded_;  // replies
    std::map<const ferry::payload*, int> replies_by_encoded_;
    std::vector<reply_from> replies_from_;
    std::set<int> answered_;

    std::vector<node> nodes_;
    std::deque<call> calls_;
    std::vector<std::shared_ptr<const ferry::payload>> contents_, reply_contents_;
    std::unordered_map<const ferry::payload*, int> tickets_, replies_by_content_;
};

}  // namespace ferry_test
