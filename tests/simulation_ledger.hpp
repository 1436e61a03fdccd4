// What the simulator knows of each task and each reply, seen from outside both cores, and what must hold of them.
#pragma once

#include <ferry/frames.hpp>
#include <ferry/outcome.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ferry_test {

/// A task by its ticket, or one more ticket of a task.
struct sent_task {
    using time_point = std::chrono::steady_clock::time_point;

    int node = 0;
    bool urgent = false;
    std::string request_id;
    bool wants_reply = false;
    std::uint64_t size = 0;
    int life = 0;  // of the server that it was sent with
    time_point expires;
    int root = -1;  // the ticket whose task it is; -1: refused, or not yet known
    std::optional<ferry::outcome> how;
    bool lost = false;  // its server has died, and what it promised with it
    bool is_stored = false;
    std::uint64_t order = 0;  // in the node's journal
    // What became of the task at the node:
    int runs = 0;
    int running_in = -1;  // the node's life
    int last_run_in = -1;
    ferry::frames::verdict last_verdict = ferry::frames::verdict::taken;
    bool has_returned = false;  // taken or refused
    bool returned_taken = false, returned_refused = false;
    std::size_t returned_as = 0;  // how many had returned at its node by then
    bool came_by_poll = false;
    bool lease_lost = false;
    bool is_answered = false;  // a reply to it, which counts as its receipt, has reached the server
};

struct sent_reply {
    int node = 0;
    std::string request_id;
    std::uint64_t size = 0;
    std::uint64_t number = 0;  // 0: not yet known
    bool accepted = false;     // the node was told so
    bool ended = false;
    int reported_in = -1;  // the server's life
    int reported_as = -1;  // the task that it ended, or -1
    bool was_reported = false;
    bool is_noted = false;     // was kept by the store when its node was answered
    bool was_kept = false;     // over a restart: who asks again gets it beside the handler
    bool was_handled = false;  // all of those whom it was given to in some life have returned
    bool came_without_number = false;
};

class ledger {
public:
    using time_point = sent_task::time_point;

    explicit ledger(std::function<void(const std::string&)> violated) : violated_(std::move(violated)) {}

    std::vector<sent_task> tasks;
    std::vector<sent_reply> replies;

    // --- the server's side ---------------------------------------------------------------------------------------------

    int send(sent_task t) {
        tasks.push_back(std::move(t));
        return static_cast<int>(tasks.size()) - 1;
    }

    /// Accepted, as a task of its own or as one more ticket of another.
    void accepted(int ticket, int root, bool has_place) {
        auto& t = tasks[at(ticket)];
        t.root = root;
        if (root == ticket && has_place && !t.how) waiting(t).insert(ticket);
    }

    void ended(int ticket, const ferry::outcome& how, std::optional<int> reply, int server_life) {
        auto& t = tasks[at(ticket)];
        check(!t.how.has_value(), "ticket " + std::to_string(ticket) + " ends twice");
        check(!t.lost, "ticket " + std::to_string(ticket) + " ends after its server's death");
        t.how = how;
        if (t.root >= 0) over(t.root);
        over(ticket);
        const auto name = "ticket " + std::to_string(ticket);
        if (how.kind == ferry::outcome_kind::taken) {
            check(is_taken(ticket) || any_reply_to(t), name + " is taken, and no callback has returned");
        } else if (how.kind == ferry::outcome_kind::refused) {
            check(of_request(t, &sent_task::returned_refused), name + " is refused, and no callback has refused it");
        } else if (how.kind == ferry::outcome_kind::replied) {
            check(reply.has_value(), name + " is replied without a reply");
            if (!reply) return;
            auto& r = replies[at(*reply)];
            check(r.node == t.node && r.request_id == t.request_id, name + " got the reply to another request");
            reported(*reply, t.root, server_life);
        }
    }

    void reported(int reply, int as, int server_life) {
        auto& r = replies[at(reply)];
        const bool again = r.was_reported && r.reported_in == server_life && (as < 0 || r.reported_as != as);
        check(!again || r.came_without_number || r.was_kept, "reply " + std::to_string(reply) + " is reported twice");
        r.was_reported = true;
        r.reported_in = server_life;
        r.reported_as = as;
    }

    /// Has left its lane, or will have before another one is sent.
    void over(int ticket) {
        const auto& t = tasks[at(ticket)];
        waiting(t).erase(ticket);
    }

    /// By its sender: with it goes what it has become one with.
    void withdrawn(int ticket) {
        over(ticket);
        over_with_its_request(tasks[at(ticket)]);
    }

    void lease_lost(int node) {
        for (auto& lane : waiting_[node]) {
            for (const int ticket : lane) tasks[at(ticket)].lease_lost = true;
        }
    }

    /// All that this life of the server promised is void. `keeps(ticket)`: the store has it.
    template <class Keeps>
    void server_died(Keeps&& keeps) {
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            auto& t = tasks[i];
            if (t.root >= 0 && !t.how) t.lost = true;
            if (!keeps(static_cast<int>(i))) over(static_cast<int>(i));
        }
    }

    // --- the node's side -----------------------------------------------------------------------------------------------

    /// The node remembers the receipts of so many tasks.
    void run_begins(int ticket, int node_life, int attempt, bool by_poll, bool urgent, std::size_t remembered,
                    time_point now) {
        auto& t = tasks[at(ticket)];
        const auto name = "ticket " + std::to_string(ticket);
        check(t.urgent == urgent, name + " runs in the wrong lane");
        const bool exempt = t.came_by_poll || by_poll;
        if (!exempt) {
            check(t.running_in != node_life, name + " runs while it runs already");
            const bool again = t.runs > 0 && t.last_run_in == node_life;
            const bool forgotten = returned_[t.node] - t.returned_as >= remembered;
            check(!again || t.lease_lost || forgotten || t.last_verdict == ferry::frames::verdict::not_now,
                  name + " runs twice in one life of its node");
            check(attempt > 1 || t.runs == 0, name + " runs again, as a first attempt");
        }
        auto& lane = waiting(t);
        if (lane.contains(ticket)) {
            const auto may_be_passed = [&](const sent_task& other) {
                return other.expires <= now || (other.came_by_poll && !by_poll);  // which knows of one lane only
            };
            while (*lane.begin() != ticket && may_be_passed(tasks[at(*lane.begin())])) lane.erase(lane.begin());
            check(*lane.begin() == ticket, name + " runs before ticket " + std::to_string(*lane.begin()));
        }
        ++t.runs;
        t.running_in = t.last_run_in = node_life;
        ++runs;
    }

    /// Of a task that came by poll, the verdict reaches nobody.
    void run_ends(int ticket, ferry::frames::verdict what, bool by_poll) {
        auto& t = tasks[at(ticket)];
        t.running_in = -1;
        t.last_verdict = what;
        if (what == ferry::frames::verdict::not_now && !by_poll) return;
        t.has_returned = true;
        t.returned_as = ++returned_[t.node];
        (what == ferry::frames::verdict::taken ? t.returned_taken : t.returned_refused) = true;
        over(ticket);
        over_with_its_request(t);
    }

    void reply_came(int reply) {
        const auto& r = replies[at(reply)];
        if (r.request_id.empty()) return;
        for (auto& t : tasks) {
            if (t.node == r.node && t.request_id == r.request_id) t.is_answered = true;
        }
        for (auto& lane : waiting_[r.node]) {
            std::erase_if(lane, [&](int i) { return tasks[at(i)].request_id == r.request_id; });
        }
    }

    void came_by_poll(int ticket) { tasks[at(ticket)].came_by_poll = true; }

    /// What the node had by polls is gone with it.
    void node_died(int node) {
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            auto& t = tasks[i];
            if (t.node != node) continue;
            t.running_in = -1;
            if (t.came_by_poll) over(static_cast<int>(i));
        }
    }

    int submit_reply(sent_reply r) {
        replies.push_back(std::move(r));
        return static_cast<int>(replies.size()) - 1;
    }

    void reply_ended(int reply, const ferry::outcome& how) {
        auto& r = replies[at(reply)];
        check(!r.ended, "reply " + std::to_string(reply) + " ends twice");
        r.ended = true;
        r.accepted = how.kind == ferry::outcome_kind::taken;
        check(!r.accepted || r.was_reported || r.is_noted,
              "reply " + std::to_string(reply) + " is accepted, and the server has told nobody of it");
    }

    /// `keeps`: what a node was told to be accepted outlives its server.
    void check_end(bool keeps) {
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            const auto& t = tasks[i];
            if (t.root >= 0) check(t.how || t.lost, "ticket " + std::to_string(i) + " never ends");
        }
        for (std::size_t i = 0; i < replies.size(); ++i) {
            check(replies[i].ended, "reply " + std::to_string(i) + " never ends");
            check(!keeps || !replies[i].accepted || replies[i].was_handled,
                  "reply " + std::to_string(i) + " was accepted, and nobody has handled it to the end");
        }
    }

    std::uint64_t runs = 0;

private:
    static std::size_t at(int index) { return static_cast<std::size_t>(index); }

    void check(bool holds, const std::string& text) {
        if (!holds) violated_(text);
    }

    std::set<int>& waiting(const sent_task& t) { return waiting_[t.node][t.urgent ? 0 : 1]; }

    /// Of the ticket's task, or of another one with its request's id: a restored task may have become this one.
    bool of_request(const sent_task& t, bool sent_task::*what) const {
        if (t.root >= 0 && tasks[at(t.root)].*what) return true;
        if (t.request_id.empty()) return false;
        for (const auto& other : tasks) {
            if (other.node == t.node && other.request_id == t.request_id && other.*what) return true;
        }
        return false;
    }

    bool is_taken(int ticket) const {
        const auto& t = tasks[at(ticket)];
        return of_request(t, &sent_task::returned_taken) || of_request(t, &sent_task::came_by_poll);
    }

    bool any_reply_to(const sent_task& t) const {
        if (t.request_id.empty()) return false;
        for (const auto& r : replies) {
            if (r.node == t.node && r.request_id == t.request_id) return true;
        }
        return false;
    }

    void over_with_its_request(const sent_task& t) {
        if (t.request_id.empty()) return;
        std::erase_if(waiting_[t.node][0], [&](int i) { return tasks[at(i)].request_id == t.request_id; });
        std::erase_if(waiting_[t.node][1], [&](int i) { return tasks[at(i)].request_id == t.request_id; });
    }

    std::function<void(const std::string&)> violated_;
    std::map<int, std::size_t> returned_;                  // by node
    std::map<int, std::array<std::set<int>, 2>> waiting_;  // by node; those whose turn must not be passed over
};

}  // namespace ferry_test
