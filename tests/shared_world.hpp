// Servers' cores over one hub, and the nodes that connect to them by streams, under virtual time. Servers die and come back
// under the same name; nodes move, run each task once by its id, and keep a reply until it was answered well.
#pragma once

#include <ferry/detail/store_write.hpp>
#include <ferry/dispatch.hpp>
#include <ferry/retry.hpp>

#include "hub_store.hpp"

#include <gtest/gtest.h>

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
#include <utility>
#include <vector>

namespace ferry_test {

using namespace std::chrono_literals;

struct shared_types {
    using call = int;
    using reply_call = int;
    using ticket = int;
    using reply = std::string;
    using retry = ferry::bounded_retry;
    using chunk_size = ferry::max_message_bytes_length<1000>;
    static constexpr bool is_shared = true;
};

struct shared_task {
    std::string request_id{};
    bool wants_reply = false;
    std::size_t size = 0;  ///< of its content, at least
    std::chrono::milliseconds expires_after = 1h;
    std::optional<std::chrono::milliseconds> reply_within{};
    bool keep_while_disconnected = true;
};

/// What several servers have in common. Calls, replies and tickets count up over all of them.
struct shared_place {
    explicit shared_place(hub_options how = {}) : shared(std::make_shared<hub>(how)) {}

    std::shared_ptr<hub> shared;
    ferry::instant now{std::chrono::steady_clock::time_point(1000h), std::chrono::system_clock::time_point(500'000h)};
    int last_call = 0, last_ticket = 0;
    bool in_step = false;
};

/// One life of a server. What its store answers comes in by `step_once`.
class shared_server {
public:
    struct end_record {
        ferry::outcome how;
        std::optional<std::string> reply;
        ferry::task_key key;
    };
    struct stream_record {
        std::string node;
        bool over = false;
        std::optional<ferry::errc> ended{};
        std::deque<ferry::effects::send_part<int>> parts{};
        std::deque<std::pair<ferry::frames::delivery_head, std::string>> came{};  ///< whole tasks, not yet looked at
        std::set<std::uint64_t> withdrawn{};
    };
    struct unclaimed_record {
        std::string node, request_id, text;
        ferry::task_key key;
    };

    shared_server(shared_place& place, std::string name, ferry::dispatch_limits limits = {})
        : place_(place),
          name_(std::move(name)),
          store_(place.shared, name_),
          core(limits, {}, static_cast<std::uint64_t>(++place.last_call) * 7919 + 1) {
        todo_.push_back([this] {
            store_.listen(told<ferry::store_note>([this](ferry::store_note note) { take(std::move(note)); }),
                          told<ferry::seen_nodes>([this](ferry::seen_nodes known) {
                              EXPECT_EQ(known.status.code, ferry::errc::ok);
                              for (auto& each : known.nodes) feed(ferry::events::node_seen{std::move(each)});
                              feed(ferry::events::ends_waiting{});
                              if (serves_at_once) serve();
                          }));
        });
    }
    shared_server(const shared_server&) = delete;
    shared_server& operator=(const shared_server&) = delete;

    // --- what senders do ----------------------------------------------------------------------------------------------

    int send(const std::string& node, const shared_task& what = {}) {
        const int ticket = ++place_.last_ticket;
        std::string content = (what.wants_reply ? "R" : "S") + std::to_string(ticket) + "|" + what.request_id + "|";
        content.resize(std::max(content.size(), what.size), '.');
        ferry::events::submitted<int> e{node, make_content(content), what.request_id, what.wants_reply, ticket};
        e.expires_after = what.expires_after;
        e.reply_within = what.reply_within;
        e.keep_while_disconnected = what.keep_while_disconnected;
        sent.insert(ticket);
        keys[ticket] = in_step([&] { return core.step(std::move(e), place_.now, sink_); });
        EXPECT_EQ(keys[ticket] == 0, ends.contains(ticket));
        return ticket;
    }
    void withdraw(int ticket) { feed(ferry::events::withdrawn{keys.at(ticket)}); }
    void handle(int ticket) { feed(ferry::events::reply_handled{ends.at(ticket).key}); }
    void handle_unclaimed(std::size_t which) { feed(ferry::events::unclaimed_handled{unclaimed.at(which).key}); }
    void serve() { feed(ferry::events::serving{}); }
    void load_replies() {
        for (auto& each : std::exchange(loads, {})) {
            std::optional<std::string> text(std::string(each.encoded->flatten().view()));
            if (fails_to_load) text.reset();
            feed(
                ferry::events::reply_loaded<std::string>{each.key, std::move(text), "it can't be read", fails_for_now});
        }
    }
    void stop() { feed(ferry::events::stop_requested{}); }
    void stop_now() { feed(ferry::events::stop_forced{}); }
    void leave() {
        todo_.push_back([this] { store_.leave(told<ferry::store_status>([](const auto&) {})); });
    }

    // --- what nodes do ------------------------------------------------------------------------------------------------

    int connect(const std::string& node, ferry::frames::hello hello) {
        const int call = ++place_.last_call;
        streams[call].node = node;
        feed(ferry::events::stream_opened<int>{call, node, "c", std::move(hello)});
        return call;
    }
    int poll(const std::string& node, const std::string& connection = "c") {
        const int call = ++place_.last_call;
        streams[call].node = node;
        feed(ferry::events::poll_opened<int>{call, node, connection});
        return call;
    }
    void poll_carried(int call) {
        streams.at(call).over = true;
        feed(ferry::events::poll_closed<int>{call, streams.at(call).node, true});
    }
    void hang_up(int call) {
        auto& s = streams.at(call);
        if (std::exchange(s.over, true)) return;
        s.parts.clear();
        s.came.clear();
        feed(ferry::events::poll_broken<int>{call, s.node, ferry::errc::stream_broken, "it broke"});
    }
    /// The next part has gone out.
    void part_sent(int call) {
        auto& s = streams.at(call);
        const auto part = std::move(s.parts.front());
        s.parts.pop_front();
        if (part.part.offset + part.part.length == part.content->size()) {
            s.came.emplace_back(part.head, std::string(part.content->flatten().view()));
        }
        feed(ferry::events::range_sent<int>{call, s.node});
    }
    void receipt(int call, std::uint64_t task, ferry::frames::verdict what = ferry::frames::verdict::taken) {
        feed(ferry::events::receipt_came<int>{call, streams.at(call).node, {task, what, {}, {}}});
    }
    int reply(const std::string& node, const std::string& request_id, const std::string& text, std::uint64_t number) {
        const int call = ++place_.last_call;
        feed(ferry::events::reply_arrived<int, std::string>{
            call, node, request_id, text, number, std::make_shared<const ferry::payload>(ferry::bytes::copy(text))});
        return call;
    }
    int forward(const std::string& from, const std::string& to, std::uint64_t number = 0) {
        const int call = ++place_.last_call;
        ferry::events::submitted<int> task{to, make_content("F")};
        task.expires_after = 1h;
        task.keep_while_disconnected = true;
        feed(ferry::events::forward_arrived<int, int>{call, from, std::move(task), number});
        return call;
    }

    // --- time and the store -------------------------------------------------------------------------------------------

    /// One thing that waits to be done; false where there is none.
    bool step_once() {
        for (auto* each : {&arrived_, &todo_}) {
            if (each->empty()) continue;
            const auto next = std::move(each->front());
            each->pop_front();
            next();
            return true;
        }
        if (!wake_ || *wake_ > place_.now.steady) return false;
        wake_.reset();
        feed(ferry::events::time_passed{});
        return true;
    }
    std::optional<std::chrono::steady_clock::time_point> wake() const { return wake_; }

    const std::string& name() const { return name_; }
    bool has_ended(int ticket) const { return ends.contains(ticket); }
    std::optional<ferry::outcome_kind> kind_of(int ticket) const {
        const auto found = ends.find(ticket);
        return found == ends.end() ? std::nullopt : std::optional(found->second.how.kind);
    }
    std::optional<ferry::node_status> status(const std::string& node) const {
        const auto found = core.get_node(node);
        return found ? std::optional(found->status) : std::nullopt;
    }
    std::size_t pending() const {
        std::size_t out = 0;
        core.for_each_task([&](const ferry::pending_task&) { ++out; });
        return out;
    }

private:
    shared_place& place_;
    const std::string name_;
    hub_store store_;

public:
    ferry::dispatch<shared_types> core;
    std::map<int, stream_record> streams;
    std::map<int, ferry::task_key> keys;
    std::set<int> sent, accepted;
    std::map<int, end_record> ends;
    std::map<int, ferry::errc> answers;
    std::vector<unclaimed_record> unclaimed;
    std::vector<ferry::effects::load_reply> loads;
    std::vector<std::string> warnings;
    std::vector<ferry::outcome> forwards_ended;
    bool loads_at_once = true, handles_at_once = true, fails_to_load = false, fails_for_now = false,
         serves_at_once = true;
    int drained = 0;

private:
    template <class Run>
    std::invoke_result_t<Run> in_step(Run&& run) {
        EXPECT_FALSE(std::exchange(place_.in_step, true)) << "a step within a step";
        struct end {
            shared_server& s;
            ~end() {
                s.place_.in_step = false;
                s.released_.clear();
            }
        } at_end{*this};
        return run();
    }
    template <class Event>
    void feed(Event event) {
        in_step([&] { core.step(std::move(event), place_.now, sink_); });
    }

    std::shared_ptr<const ferry::payload> make_content(const std::string& text) {
        auto encoded = std::make_shared<const ferry::payload>(ferry::bytes::copy(text));
        return {encoded.get(), [encoded, &in_step = place_.in_step](const void*) {
                    EXPECT_FALSE(in_step) << "a content is destroyed within a step";
                }};
    }

    /// What is told to a server that is gone reaches nobody.
    template <class What, class Take>
    std::function<void(What)> told(Take take) {
        return [life = std::weak_ptr(life_), this, take = std::move(take)](What what) {
            if (life.expired()) return;
            const auto kept = std::make_shared<What>(std::move(what));
            arrived_.push_back([take, kept] { take(std::move(*kept)); });
        };
    }

    void take(ferry::store_note note) {
        switch (note.what) {
            case ferry::store_note::kind::tasks:
            case ferry::store_note::kind::lost: return feed(ferry::events::tasks_waiting{note.node});
            case ferry::store_note::kind::ends: return feed(ferry::events::ends_waiting{});
            case ferry::store_note::kind::free: return feed(ferry::events::journal_free{note.node});
            case ferry::store_note::kind::seen:
                return feed(ferry::events::node_seen{{note.node, note.status, note.since}});
            case ferry::store_note::kind::gone: return feed(ferry::events::task_gone{note.id});
            case ferry::store_note::kind::back: return feed(ferry::events::store_back{});
        }
    }

    struct sink {
        shared_server& s;

        auto done(ferry::task_key key) {
            return s.told<ferry::store_status>([&s = s, key](ferry::store_status status) {
                s.feed(ferry::events::store_done{key, std::move(status)});
            });
        }
        template <class Ask>
        void ask(Ask perform) {
            s.todo_.push_back(std::move(perform));
        }
        auto warn() {
            return s.told<ferry::store_status>([](const ferry::store_status&) {});
        }

        void operator()(ferry::effects::post_task e) {
            ask([this, e] { s.store_.post(e.node, e.task, done(e.key)); });
        }
        void operator()(ferry::effects::withdraw_posted e) {
            ask([this, e] { s.store_.withdraw(e.node, e.id, done(e.key)); });
        }
        void operator()(ferry::effects::update_task e) {
            ask([this, e = ferry::detail::keep(e)] { s.store_.update(e.node, e.owner, e.what, done(e.key)); });
        }
        void operator()(ferry::effects::end_task e) {
            ask([this, e] { s.store_.end(e.node, e.owner, e.order, e.end, done(e.key)); });
        }
        void operator()(ferry::effects::acquire_journal e) {
            ask([this, e] {
                s.store_.acquire(e.node, s.told<ferry::acquired_journal>([&s = s, e](ferry::acquired_journal journal) {
                    s.feed(ferry::events::journal_acquired{e.node, std::move(journal)});
                }));
            });
        }
        void operator()(ferry::effects::fetch_tasks e) {
            ask([this, e] {
                s.store_.fetch(e.node, e.owner, e.after,
                               s.told<ferry::acquired_journal>([&s = s, e](ferry::acquired_journal journal) {
                                   s.feed(ferry::events::tasks_fetched{e.node, e.owner, std::move(journal)});
                               }));
            });
        }
        void operator()(ferry::effects::fetch_ends e) {
            ask([this, e] {
                s.store_.ends(e.after, s.told<ferry::arrived_ends>([&s = s](ferry::arrived_ends ends) {
                    s.feed(ferry::events::ends_fetched{std::move(ends)});
                }));
            });
        }
        void operator()(ferry::effects::acknowledge_end e) {
            ask([this, e] { s.store_.acknowledge(e.place, warn()); });
        }
        void operator()(ferry::effects::announce_node e) {
            ask([this, e] {
                s.store_.announce(
                    e.owner, e.what,
                    s.told<ferry::store_status>([&s = s, id = e.what.id](const ferry::store_status& status) {
                        if (status.code != ferry::errc::ok) s.feed(ferry::events::announcement_failed{id});
                    }));
            });
        }
        void operator()(ferry::effects::load_reply e) {
            s.loads.push_back(std::move(e));
            if (s.loads_at_once) ask([this] { s.load_replies(); });
        }
        void operator()(ferry::effects::ended<int, std::string> e) {
            EXPECT_EQ(e.reply.has_value(), e.how.kind == ferry::outcome_kind::replied);
            if (e.ticket == 0) return s.forwards_ended.push_back(e.how);
            EXPECT_TRUE(s.ends.emplace(e.ticket, end_record{e.how, e.reply, e.key}).second)
                << "ticket " << e.ticket << " ends twice";
            if (e.key != 0 && s.handles_at_once) ask([this, ticket = e.ticket] { s.handle(ticket); });
        }
        void operator()(ferry::effects::unclaimed_reply<std::string> e) {
            s.unclaimed.push_back({e.node, e.request_id, e.reply, e.key});
            if (s.handles_at_once) ask([this, which = s.unclaimed.size() - 1] { s.handle_unclaimed(which); });
        }
        void operator()(ferry::effects::accepted<int> e) { s.accepted.insert(e.ticket); }
        void operator()(ferry::effects::answer_reply<int> e) {
            EXPECT_TRUE(s.answers.emplace(e.call, e.reason).second) << "reply " << e.call << " is answered twice";
        }
        void operator()(ferry::effects::send_whole<int> e) {
            s.streams.at(e.call).came.emplace_back(e.head, std::string(e.content->flatten().view()));
        }
        void operator()(ferry::effects::send_part<int> e) { s.streams.at(e.call).parts.push_back(std::move(e)); }
        void operator()(ferry::effects::send_range<int> e) {
            s.streams.at(e.call).came.emplace_back(ferry::frames::delivery_head{},
                                                   std::string(e.content->flatten().view()));
        }
        void operator()(ferry::effects::withdraw_task<int> e) { s.streams.at(e.call).withdrawn.insert(e.task); }
        void operator()(ferry::effects::end_poll<int> e) {
            auto& call = s.streams.at(e.call);
            EXPECT_FALSE(std::exchange(call.over, true)) << "call " << e.call << " was over";
            call.ended = e.reason;
            call.parts.clear();
            call.came.clear();
        }
        void operator()(ferry::effects::released<std::shared_ptr<const ferry::payload>> e) {
            s.released_.push_back(std::move(e.what));
        }
        void operator()(ferry::effects::warning e) { s.warnings.push_back(std::move(e.text)); }
        void operator()(ferry::effects::wake_at e) {
            if (!s.wake_ || e.when < *s.wake_) s.wake_ = e.when;
        }
        void operator()(ferry::effects::drained) { ++s.drained; }
        void operator()(const ferry::effects::released<std::string>&) {}
        void operator()(const ferry::effects::begun&) {}
        void operator()(const ferry::effects::welcome<int>&) {}
        void operator()(const ferry::effects::progressed<int>&) {}
        void operator()(const ferry::effects::node_changed&) {}
        void operator()(const ferry::effects::all_acquired&) {}
    };

    sink sink_{*this};
    std::deque<std::function<void()>> arrived_, todo_;
    std::vector<std::shared_ptr<const ferry::payload>> released_;
    std::optional<std::chrono::steady_clock::time_point> wake_;
    std::shared_ptr<int> life_ = std::make_shared<int>();
};

/// A node. It runs each task once, and replies to those that ask for it.
class shared_node {
public:
    explicit shared_node(const shared_place& place, std::string id) : place_(place), id_(std::move(id)) {}

    void connect(shared_server& to) {
        disconnect();
        at_ = &to;
        back_.reset();
        call_ = to.connect(id_, {{}, receipts_, 4, 100'000});
    }
    void disconnect() {
        if (at_) at_->hang_up(call_);
        drop();
    }
    /// Its server is gone.
    void drop() {
        at_ = nullptr;
        back_.reset();
        unanswered_.clear();
    }
    shared_server* at() const { return at_; }
    bool is_connected() const { return at_ && !at_->streams.at(call_).over; }

    /// Takes in what has come, runs it, and says so.
    bool work() {
        if (!at_) return false;
        bool did = take_answers();
        if (!is_connected()) {
            if (!reconnects) return did;
            if (!back_) back_ = place_.now.steady + 200ms;
            if (*back_ > place_.now.steady) return did;
            connect(*at_);
            did = true;
        }
        for (auto* s = stream(); s && (!s->parts.empty() || !s->came.empty()); s = stream()) {
            did = true;
            if (!s->parts.empty()) {
                at_->part_sent(call_);
                continue;
            }
            const auto [head, text] = std::move(s->came.front());
            s->came.pop_front();
            run(head.task, text);
            at_->receipt(call_, head.task);
        }
        for (const auto& [number, reply] : replies) {
            if (!stream()) break;
            if (holds_replies || unanswered_.contains(number)) continue;
            did = true;
            unanswered_[number] = at_->reply(id_, reply.first, reply.second, number);
        }
        return did;
    }

    std::vector<std::string> ran;                                          ///< contents, in their order
    std::map<std::uint64_t, std::pair<std::string, std::string>> replies;  ///< not yet answered well, by number
    std::map<std::uint64_t, int> came;                                     ///< how often each task was brought
    bool replies_to_all = false;
    bool holds_replies = false;
    bool reconnects = true;  ///< to the same server, where that has ended its stream

    /// When it connects again.
    std::optional<std::chrono::steady_clock::time_point> wake() const { return back_; }

private:
    shared_server::stream_record* stream() {
        auto& s = at_->streams.at(call_);
        return s.over ? nullptr : &s;
    }

    void run(std::uint64_t task, const std::string& text) {
        if (++came[task] > 1) return;
        receipts_.push_back({task, ferry::frames::verdict::taken, {}, {}});
        ran.push_back(text.substr(0, text.rfind('|') + 1));
        const auto first = text.find('|');
        const auto request_id = text.substr(first + 1, text.find('|', first + 1) - first - 1);
        if (text[0] == 'R' || replies_to_all) replies[task ^ 0x5555] = {request_id, "re:" + request_id};
    }

    bool take_answers() {
        bool did = false;
        for (auto each = unanswered_.begin(); each != unanswered_.end();) {
            const auto answer = at_->answers.find(each->second);
            if (answer == at_->answers.end()) {
                ++each;
                continue;
            }
            did = true;
            if (answer->second == ferry::errc::ok) replies.erase(each->first);
            each = unanswered_.erase(each);
        }
        return did;
    }

    const shared_place& place_;
    const std::string id_;
    shared_server* at_ = nullptr;
    int call_ = 0;
    std::optional<std::chrono::steady_clock::time_point> back_;
    std::vector<ferry::frames::receipt> receipts_;
    std::map<std::uint64_t, int> unanswered_;
};

/// Servers and nodes, by name.
class shared_world : public shared_place {
public:
    using shared_place::shared_place;

    shared_server& start(const std::string& name, ferry::dispatch_limits limits = {}, bool serves_at_once = true) {
        auto& made = start_without_rest(name, limits, serves_at_once);
        settle();
        return made;
    }
    shared_server& start_without_rest(const std::string& name, ferry::dispatch_limits limits = {},
                                      bool serves_at_once = true) {
        lose(name);
        auto& made = servers[name];
        made = std::make_unique<shared_server>(*this, name, limits);
        made->serves_at_once = serves_at_once;
        made->step_once();  // it listens before all else
        complete(name, hub::kind::listen);
        return *made;
    }
    /// The server dies; the hub does not know it yet.
    void lose(const std::string& name) {
        const auto found = servers.find(name);
        if (found == servers.end()) return;
        for (auto& [id, node] : nodes) {
            if (node->at() == found->second.get()) node->drop();
        }
        servers.erase(found);
    }
    shared_node& add_node(const std::string& id) {
        auto& made = nodes[id];
        made = std::make_unique<shared_node>(*this, id);
        return *made;
    }
    shared_node& node_at(const std::string& id, shared_server& at) {
        auto& made = add_node(id);
        made.connect(at);
        settle();
        return made;
    }

    /// What is already told to the servers is dealt with, and nothing else.
    void step_servers() {
        for (bool did = true; did;) {
            did = false;
            for (auto& [name, s] : servers) did |= s->step_once();
        }
    }
    /// Of a late hub: the first such operation of the server's happens, and is told.
    bool complete(const std::string& server, hub::kind what) {
        return with_first(server, what, [&](std::size_t which) { shared->complete(which); });
    }
    /// The same, without being told.
    bool happen(const std::string& server, hub::kind what) {
        return with_first(server, what, [&](std::size_t which) { shared->advance(which); });
    }

    /// All that can happen without time happens. Of a late hub, in an order of chance.
    void settle() {
        for (int i = 0; i < 1'000'000; ++i) {
            if (!step_once(true)) return;
        }
        ADD_FAILURE() << "it never comes to rest";
    }
    bool step_once(bool nodes_work) {
        bool did = false;
        for (auto& [name, s] : servers) did |= s->step_once();
        if (nodes_work) {
            for (auto& [id, node] : nodes) did |= node->work();
        }
        return did || shared->run(random);
    }

    void advance(std::chrono::nanoseconds by) {
        const auto until = now.steady + by;
        settle();
        while (true) {
            auto next = until;
            for (auto& [name, s] : servers) next = std::min(next, s->wake().value_or(until));
            for (auto& [id, node] : nodes) next = std::min(next, node->wake().value_or(until));
            if (next > now.steady) {
                now.system += std::chrono::duration_cast<std::chrono::system_clock::duration>(next - now.steady);
                now.steady = next;
            }
            settle();
            if (next >= until) return;
        }
    }

    std::map<std::string, std::unique_ptr<shared_server>> servers;
    std::map<std::string, std::unique_ptr<shared_node>> nodes;
    std::mt19937 random{1};

private:
    template <class Take>
    bool with_first(const std::string& server, hub::kind what, Take&& take) {
        step_servers();
        for (std::size_t i = 0; i < shared->pending(); ++i) {
            const auto op = shared->pending_step(i);
            if (op.server != server || op.what != what) continue;
            take(i);
            step_servers();
            return true;
        }
        return false;
    }
};

}  // namespace ferry_test
