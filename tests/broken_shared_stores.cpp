#include <ferry/agent_store.hpp>
#include <ferry/conformance/shared_agent_store.hpp>

#include "broken_models.hpp"
#include "hub_store.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::acquired_journal;
using ferry::arrived_ends;
using ferry::epoch;
using ferry::errc;
using ferry::known_nodes;
using ferry::seen_node;
using ferry::seen_nodes;
using ferry::store_note;
using ferry::store_status;
using ferry::task_end;
using ferry::task_record;
using ferry_test::hub;
using ferry_test::hub_store;
using acquired = std::function<void(acquired_journal)>;
using written = std::function<void(store_status)>;
using noted = std::function<void(store_note)>;

/// What the stores of a test share, beside the hub.
struct world {
    std::shared_ptr<hub> shared = std::make_shared<hub>();

    /// True where it is the first time that this is said.
    bool first(const std::string& what, std::uint64_t number = 0) {
        const std::lock_guard lock(mutex);
        return said.insert({what, number}).second;
    }
    bool has(const std::string& what, std::uint64_t number = 0) {
        const std::lock_guard lock(mutex);
        return said.contains({what, number});
    }
    epoch newest(const std::string& node) {
        const std::lock_guard lock(mutex);
        return owners[node];
    }
    void lose_ends(const std::string& server) {
        hub_store of(shared, server);
        arrived_ends all;
        of.ends(0, [&](arrived_ends came) { all = std::move(came); });
        for (const auto& each : all.ends) of.acknowledge(each.place, [](const store_status&) {});
    }

    std::mutex mutex;
    std::set<std::pair<std::string, std::uint64_t>> said;
    std::map<std::string, epoch> owners;
    std::set<std::string> servers;
    std::vector<noted> takers;
    std::atomic<int> alive{0};
};

/// What the broken ones are made of: a store on a hub whose operations can be replaced one by one.
class sound_shared_store {
public:
    using policy_category = ferry::agent_store_tag;
    static constexpr auto fails_in = ferry_test::nothing;
    static constexpr std::chrono::milliseconds patience{300};

    sound_shared_store(world& all, const std::string& server) : all_(all), name_(server), store_(all.shared, server) {
        ++all_.alive;
        const std::lock_guard lock(all_.mutex);
        all_.servers.insert(name_);
    }
    sound_shared_store(const sound_shared_store&) = delete;
    virtual ~sound_shared_store() { --all_.alive; }

    /// The server is gone for good.
    static void forget(world& all, const std::string& server) { all.shared->expire(server); }

    virtual void acquire(const std::string& node, acquired done) {
        store_.acquire(node, [&](acquired_journal journal) {
            {
                const std::lock_guard lock(all_.mutex);
                auto& newest = all_.owners[node];
                newest = std::max(newest, journal.owner);
            }
            done(std::move(journal));
        });
    }
    virtual void append(const std::string& node, epoch owner, const task_record& task, written done) {
        store_.append(node, owner, task, done);
    }
    virtual void update(const std::string& node, epoch owner, const task_record& task, written done) {
        store_.update(node, owner, task, done);
    }
    virtual void settle(const std::string& node, epoch owner, std::uint64_t order, written done) {
        store_.settle(node, owner, order, done);
    }
    virtual void nodes(std::function<void(known_nodes)> done) { store_.nodes(done); }
    virtual void listen(noted take, std::function<void(seen_nodes)> done) { store_.listen(std::move(take), done); }
    virtual void post(const std::string& node, const task_record& task, written done) { store_.post(node, task, done); }
    virtual void withdraw(const std::string& node, std::uint64_t id, written done) { store_.withdraw(node, id, done); }
    virtual void fetch(const std::string& node, epoch owner, std::uint64_t after, acquired done) {
        store_.fetch(node, owner, after, done);
    }
    virtual void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) {
        store_.end(node, owner, order, end, done);
    }
    virtual void ends(std::uint64_t after, std::function<void(arrived_ends)> done) { store_.ends(after, done); }
    virtual void acknowledge(std::uint64_t place, written done) { store_.acknowledge(place, done); }
    virtual void announce(epoch owner, const seen_node& node, written done) { store_.announce(owner, node, done); }
    virtual void leave(written done) { store_.leave(done); }

protected:
    world& all_;
    const std::string name_;
    hub_store store_;
};

/// Keeps some notes to itself: what `Self::keeps` says.
template <class Self>
class keeps_notes : public sound_shared_store {
public:
    using sound_shared_store::sound_shared_store;

    void listen(noted take, std::function<void(seen_nodes)> done) override {
        sound_shared_store::listen(
            [&all = all_, take = std::move(take)](store_note note) {
                if (!Self::keeps(all, note)) take(std::move(note));
            },
            std::move(done));
    }
};

// --- posts ---------------------------------------------------------------------------------------------------------------

struct posts_nothing_urgent : sound_shared_store {
    static constexpr auto fails_in = "a_posted_task_comes_to_the_owner";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        auto slow = task;
        slow.urgent = false;
        sound_shared_store::post(node, slow, std::move(done));
    }
};

struct forgets_how_long_replies_are_awaited : sound_shared_store {
    static constexpr auto fails_in = "a_posted_task_comes_to_the_owner";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        auto cut = task;
        cut.reply_until = std::chrono::system_clock::time_point::max();
        sound_shared_store::post(node, cut, std::move(done));
    }
};

struct does_not_tell_of_tasks : keeps_notes<does_not_tell_of_tasks> {
    static constexpr auto fails_in = "a_posted_task_comes_to_the_owner";
    using keeps_notes::keeps_notes;

    static bool keeps(world&, const store_note& note) { return note.what == store_note::kind::tasks; }
};

struct refuses_to_post_to_itself : sound_shared_store {
    static constexpr auto fails_in = "the_owner_posts_to_itself";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (all_.shared->owner(node) == name_) return done({errc::invalid_argument, "append it"});
        sound_shared_store::post(node, task, std::move(done));
    }
};

/// Each order of an odd number is exchanged with the one before it.
class gives_orders_pairwise : public sound_shared_store {
public:
    static constexpr auto fails_in = "posted_tasks_come_behind_all_that_the_journal_has";
    using sound_shared_store::sound_shared_store;

    void acquire(const std::string& node, acquired done) override {
        sound_shared_store::acquire(node, exchanged(0, std::move(done)));
    }
    void fetch(const std::string& node, epoch owner, std::uint64_t after, acquired done) override {
        sound_shared_store::fetch(node, owner, 0, exchanged(after, std::move(done)));
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        auto other = task;
        other.order ^= 1;
        sound_shared_store::append(node, owner, other, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        sound_shared_store::settle(node, owner, order ^ 1, std::move(done));
    }

private:
    static acquired exchanged(std::uint64_t after, acquired done) {
        return [after, done = std::move(done)](acquired_journal journal) {
            for (auto& task : journal.tasks) task.order ^= 1;
            std::erase_if(journal.tasks, [&](const auto& task) { return task.order <= after; });
            std::ranges::sort(journal.tasks, {}, &task_record::order);
            done(std::move(journal));
        };
    }
};

struct updates_without_the_reply : sound_shared_store {
    static constexpr auto fails_in = "a_posted_task_can_be_updated";
    using sound_shared_store::sound_shared_store;

    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        auto cut = task;
        cut.reply.reset();
        sound_shared_store::update(node, owner, cut, std::move(done));
    }
};

/// An update without a reply says that there is none.
struct wipes_replies : sound_shared_store {
    static constexpr auto fails_in = "a_posted_task_can_be_updated";
    using sound_shared_store::sound_shared_store;

    void acquire(const std::string& node, acquired done) override {
        sound_shared_store::acquire(node, [&](acquired_journal journal) {
            for (auto& task : journal.tasks) {
                if (all_.has("wiped", task.order)) task.reply.reset();
            }
            done(std::move(journal));
        });
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        if (task.reply) {
            all_.first("replied", task.order);
        } else if (all_.has("replied", task.order)) {
            all_.first("wiped", task.order);
        }
        sound_shared_store::update(node, owner, task, std::move(done));
    }
};

struct keeps_the_first_reply : sound_shared_store {
    static constexpr auto fails_in = "a_posted_task_can_be_updated";
    using sound_shared_store::sound_shared_store;

    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        auto cut = task;
        if (task.reply && !all_.first(node, task.order)) cut.reply.reset();
        sound_shared_store::update(node, owner, cut, std::move(done));
    }
};

/// Contents stay with the server that has posted them, and go with it.
class keeps_contents_to_itself : public sound_shared_store {
public:
    static constexpr auto fails_in = "large_contents_are_read_elsewhere";
    using sound_shared_store::sound_shared_store;

    ~keeps_contents_to_itself() override { *open_ = false; }
    void post(const std::string& node, const task_record& task, written done) override {
        auto other = task;
        other.content = std::make_shared<const ferry::payload>(std::make_shared<source>(task.content, open_));
        sound_shared_store::post(node, other, std::move(done));
    }

private:
    struct source : ferry::payload_source {
        source(std::shared_ptr<const ferry::payload> k, std::shared_ptr<const std::atomic<bool>> o)
            : kept(std::move(k)), open(std::move(o)) {}
        std::uint64_t size() const noexcept override { return kept->size(); }
        void read(std::uint64_t offset, std::uint64_t length,
                  std::function<void(ferry::range_result)> done) const override {
            if (*open) return done({errc::ok, kept->slice(offset, length), {}});
            done({errc::source_failed, {}, "no such server"});
        }
        std::shared_ptr<const ferry::payload> kept;
        std::shared_ptr<const std::atomic<bool>> open;
    };

    const std::shared_ptr<std::atomic<bool>> open_ = std::make_shared<std::atomic<bool>>(true);
};

struct drops_what_is_for_nobody : sound_shared_store {
    static constexpr auto fails_in = "a_task_for_a_journal_of_nobody_waits";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (all_.newest(node) != 0 && all_.shared->owner(node).empty()) return done({});
        sound_shared_store::post(node, task, std::move(done));
    }
};

struct begins_journals_by_posts : sound_shared_store {
    static constexpr auto fails_in = "nothing_is_stored_for_a_node_that_is_not_known";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (all_.newest(node) == 0) acquire(node, [](const acquired_journal&) {});
        sound_shared_store::post(node, task, std::move(done));
    }
};

struct knows_replies_of_all_nodes : sound_shared_store {
    static constexpr auto fails_in = "journals_of_nodes_are_apart";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        auto cut = end;
        if (!all_.first("reply", end.reply_number)) cut.reply.reset();
        sound_shared_store::end(node, owner, order, cut, std::move(done));
    }
};

// --- several who want the same -------------------------------------------------------------------------------------------

/// The task is there already; that is all.
struct does_not_tell_who_joins : sound_shared_store {
    static constexpr auto fails_in = "who_posts_the_same_request_joins";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (!task.request_id.empty() && !all_.first(node + task.request_id)) return done({});
        sound_shared_store::post(node, task, std::move(done));
    }
};

struct awaits_replies_as_the_first_asked : sound_shared_store {
    static constexpr auto fails_in = "a_request_is_awaited_as_long_as_any_sender_asks";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        auto other = task;
        if (!task.request_id.empty() && !all_.first(node + task.request_id)) other.reply_until = {};
        sound_shared_store::post(node, other, std::move(done));
    }
};

struct does_not_ask_for_who_joins : sound_shared_store {
    static constexpr auto fails_in = "who_joins_may_want_a_reply";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        auto other = task;
        if (!task.request_id.empty() && !all_.first(node + task.request_id)) other.wants_reply = false;
        sound_shared_store::post(node, other, std::move(done));
    }
};

/// The owner is told, and finds nothing new.
struct does_not_say_what_was_changed : sound_shared_store {
    static constexpr auto fails_in = "who_joins_may_want_a_reply";
    using sound_shared_store::sound_shared_store;

    void fetch(const std::string& node, epoch owner, std::uint64_t after, acquired done) override {
        sound_shared_store::fetch(node, owner, after, [&](acquired_journal journal) {
            std::erase_if(journal.tasks, [&](const auto& task) { return task.order <= after; });
            done(std::move(journal));
        });
    }
};

struct takes_no_request_for_the_same : sound_shared_store {
    static constexpr auto fails_in = "tasks_without_a_request_do_not_join";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (task.request_id.empty() && !all_.first(node)) return done({});
        sound_shared_store::post(node, task, std::move(done));
    }
};

struct remembers_requests_for_ever : sound_shared_store {
    static constexpr auto fails_in = "an_ended_request_may_be_posted_anew";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (!all_.first(node + task.request_id) && all_.shared->tasks() == 0) return done({});
        sound_shared_store::post(node, task, std::move(done));
    }
};

// --- posted again, and withdrawn -----------------------------------------------------------------------------------------

struct posts_twice : sound_shared_store {
    static constexpr auto fails_in = "posting_again_changes_nothing";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        auto other = task;
        if (!all_.first(name_, task.id)) ++other.id;
        sound_shared_store::post(node, other, std::move(done));
    }
};

struct posts_again_what_has_ended : sound_shared_store {
    static constexpr auto fails_in = "posting_again_what_has_ended_changes_nothing";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        auto other = task;
        if (!all_.first(name_, task.id) && all_.shared->tasks() == 0) ++other.id;
        sound_shared_store::post(node, other, std::move(done));
    }
};

struct withdraws_nothing : sound_shared_store {
    static constexpr auto fails_in = "a_withdrawn_task_is_marked";
    using sound_shared_store::sound_shared_store;

    void withdraw(const std::string&, std::uint64_t, written done) override { done({}); }
};

/// Who asks again is told that the task is there.
class joins_what_was_withdrawn : public sound_shared_store {
public:
    static constexpr auto fails_in = "nobody_joins_what_was_withdrawn";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (withdrawn_.contains(task.request_id)) return done({});
        requests_[task.id] = task.request_id;
        sound_shared_store::post(node, task, std::move(done));
    }
    void withdraw(const std::string& node, std::uint64_t id, written done) override {
        withdrawn_.insert(requests_[id]);
        sound_shared_store::withdraw(node, id, std::move(done));
    }

private:
    std::map<std::uint64_t, std::string> requests_;
    std::set<std::string> withdrawn_;
};

struct withdraws_what_others_posted : sound_shared_store {
    static constexpr auto fails_in = "only_who_posted_can_withdraw";
    using sound_shared_store::sound_shared_store;

    void withdraw(const std::string& node, std::uint64_t id, written done) override {
        for (const auto& server : all_.servers) {
            hub_store(all_.shared, server).withdraw(node, id, [](const store_status&) {});
        }
        done({});
    }
};

// --- ends ----------------------------------------------------------------------------------------------------------------

struct loses_the_words : sound_shared_store {
    static constexpr auto fails_in = "an_end_comes_with_every_field";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        auto cut = end;
        cut.how.text.clear();
        sound_shared_store::end(node, owner, order, cut, std::move(done));
    }
};

struct does_not_tell_of_ends : keeps_notes<does_not_tell_of_ends> {
    static constexpr auto fails_in = "an_end_comes_with_every_field";
    using keeps_notes::keeps_notes;

    static bool keeps(world&, const store_note& note) { return note.what == store_note::kind::ends; }
};

struct acknowledges_for_all : sound_shared_store {
    static constexpr auto fails_in = "each_server_has_its_own_ends";
    using sound_shared_store::sound_shared_store;

    void acknowledge(std::uint64_t place, written done) override {
        for (const auto& server : all_.servers) {
            hub_store(all_.shared, server).acknowledge(place, [](const store_status&) {});
        }
        done({});
    }
};

/// Places are counted among those that are left.
class gives_places_again : public sound_shared_store {
public:
    static constexpr auto fails_in = "places_rise";
    using sound_shared_store::sound_shared_store;

    void ends(std::uint64_t after, std::function<void(arrived_ends)> done) override {
        arrived_ends all = now();
        for (std::uint64_t i = 0; i < all.ends.size(); ++i) all.ends[i].place = i + 1;
        std::erase_if(all.ends, [&](const auto& each) { return each.place <= after; });
        done(std::move(all));
    }
    void acknowledge(std::uint64_t place, written done) override {
        const auto all = now();
        if (place > all.ends.size()) return done({});
        sound_shared_store::acknowledge(all.ends[place - 1].place, std::move(done));
    }

private:
    arrived_ends now() {
        arrived_ends out;
        sound_shared_store::ends(0, [&](arrived_ends all) { out = std::move(all); });
        return out;
    }
};

struct acknowledges_nothing : sound_shared_store {
    static constexpr auto fails_in = "ends_come_until_they_are_acknowledged";
    using sound_shared_store::sound_shared_store;

    void acknowledge(std::uint64_t, written done) override { done({}); }
};

struct gives_ends_once : sound_shared_store {
    static constexpr auto fails_in = "ends_come_until_they_are_acknowledged";
    using sound_shared_store::sound_shared_store;

    void ends(std::uint64_t after, std::function<void(arrived_ends)> done) override {
        sound_shared_store::ends(after, [&](arrived_ends all) {
            for (const auto& each : all.ends) sound_shared_store::acknowledge(each.place, [](const store_status&) {});
            done(std::move(all));
        });
    }
};

struct loses_ends_of_before : sound_shared_store {
    static constexpr auto fails_in = "ends_are_there_when_a_server_is_there_again";
    using sound_shared_store::sound_shared_store;

    void listen(noted take, std::function<void(seen_nodes)> done) override {
        all_.lose_ends(name_);
        sound_shared_store::listen(std::move(take), std::move(done));
    }
};

/// What a server has asked in its life before, belongs to nobody.
class forgets_what_it_has_asked_before : public sound_shared_store {
public:
    static constexpr auto fails_in = "ends_are_there_when_a_server_is_there_again";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        posted_.insert(task.id);
        sound_shared_store::post(node, task, std::move(done));
    }
    void ends(std::uint64_t after, std::function<void(arrived_ends)> done) override {
        sound_shared_store::ends(after, [&](arrived_ends all) {
            for (auto& each : all.ends) each.id = posted_.contains(each.id) ? each.id : 0;
            done(std::move(all));
        });
    }

private:
    std::set<std::uint64_t> posted_;
};

struct fails_what_has_ended : sound_shared_store {
    static constexpr auto fails_in = "ending_again_changes_nothing";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        sound_shared_store::end(node, owner, order, end, [&](store_status status) {
            const bool again = status.code == errc::ok && order != 0 && !all_.first(node, order);
            done(again ? store_status{errc::store_failed, "no such task"} : std::move(status));
        });
    }
};

/// It is told twice, under another number.
struct tells_again_what_has_ended : sound_shared_store {
    static constexpr auto fails_in = "ending_again_changes_nothing";
    using sound_shared_store::sound_shared_store;

    void ends(std::uint64_t after, std::function<void(arrived_ends)> done) override {
        sound_shared_store::ends(after, [&](arrived_ends all) {
            const auto count = all.ends.size();
            for (std::size_t i = 0; i < count; ++i) {
                if (!all_.has("again " + all.ends[i].end.request_id)) continue;
                all.ends.push_back(all.ends[i]);
                all.ends.back().place += 1'000'000;
            }
            done(std::move(all));
        });
    }
    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        if (!all_.first(node, order)) all_.first("again " + end.request_id);
        sound_shared_store::end(node, owner, order, end, std::move(done));
    }
};

// --- owners --------------------------------------------------------------------------------------------------------------

struct refuses_but_tells : sound_shared_store {
    static constexpr auto fails_in = "an_older_owner_can_not_end";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        const auto newest = all_.newest(node);
        sound_shared_store::end(node, newest, order, end, [&](store_status status) {
            done(owner == newest ? std::move(status) : store_status{errc::ownership_lost, "another has it"});
        });
    }
};

struct lets_old_owners_fetch : sound_shared_store {
    static constexpr auto fails_in = "an_older_owner_can_not_end";
    using sound_shared_store::sound_shared_store;

    void fetch(const std::string& node, epoch owner, std::uint64_t after, acquired done) override {
        sound_shared_store::fetch(node, std::max(owner, all_.newest(node)), after, std::move(done));
    }
};

struct lets_old_owners_announce : sound_shared_store {
    static constexpr auto fails_in = "an_older_owner_can_not_end";
    using sound_shared_store::sound_shared_store;

    void announce(epoch owner, const seen_node& node, written done) override {
        sound_shared_store::announce(std::max(owner, all_.newest(node.id)), node, std::move(done));
    }
};

struct lets_later_owners_end : sound_shared_store {
    static constexpr auto fails_in = "only_the_newest_epoch_can_end";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        sound_shared_store::end(node, std::min(owner, all_.newest(node)), order, end, std::move(done));
    }
};

// --- replies -------------------------------------------------------------------------------------------------------------

struct drops_replies_to_no_task : sound_shared_store {
    static constexpr auto fails_in = "a_reply_to_no_task_comes_to_the_owner";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        auto cut = end;
        if (order == 0) cut.reply.reset();
        sound_shared_store::end(node, owner, order, cut, std::move(done));
    }
};

struct forgets_numbers_of_replies : sound_shared_store {
    static constexpr auto fails_in = "a_reply_that_came_before_is_dropped";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        auto other = end;
        if (owner == all_.newest(node) && !all_.first(node, end.reply_number)) other.reply_number += 1'000'000;
        sound_shared_store::end(node, owner, order, other, std::move(done));
    }
};

struct keeps_numbers_of_replies_to_itself : sound_shared_store {
    static constexpr auto fails_in = "the_next_owner_knows_the_replies";
    using sound_shared_store::sound_shared_store;

    void acquire(const std::string& node, acquired done) override {
        sound_shared_store::acquire(node, [&](acquired_journal journal) {
            journal.replies.clear();
            done(std::move(journal));
        });
    }
};

/// Of the last ones.
struct remembers_100_replies : sound_shared_store {
    static constexpr auto fails_in = "the_next_owner_knows_the_replies";
    using sound_shared_store::sound_shared_store;

    void acquire(const std::string& node, acquired done) override {
        sound_shared_store::acquire(node, [&](acquired_journal journal) {
            auto& all = journal.replies;
            if (all.size() > 100) all.erase(all.begin(), all.end() - 100);
            done(std::move(journal));
        });
    }
};

// --- servers that come and go --------------------------------------------------------------------------------------------

struct does_not_tell_what_is_lost : keeps_notes<does_not_tell_what_is_lost> {
    static constexpr auto fails_in = "the_owner_before_is_told_that_it_is_lost";
    using keeps_notes::keeps_notes;

    static bool keeps(world&, const store_note& note) { return note.what == store_note::kind::lost; }
};

/// It loses to itself what it has already.
struct tells_of_its_own_acquire : sound_shared_store {
    static constexpr auto fails_in = "the_owner_before_is_told_that_it_is_lost";
    using sound_shared_store::sound_shared_store;

    void listen(noted take, std::function<void(seen_nodes)> done) override {
        take_ = take;
        sound_shared_store::listen(std::move(take), std::move(done));
    }
    void acquire(const std::string& node, acquired done) override {
        if (all_.shared->owner(node) == name_) take_({store_note::kind::lost, node});
        sound_shared_store::acquire(node, std::move(done));
    }

    noted take_;
};

struct leaves_without_a_word : sound_shared_store {
    static constexpr auto fails_in = "journals_of_a_server_that_leaves_are_free";
    using sound_shared_store::sound_shared_store;

    void leave(written done) override { done({}); }
};

/// Its ends go with it.
struct leaves_no_ends_behind : sound_shared_store {
    static constexpr auto fails_in = "ends_outlive_a_server_that_leaves";
    using sound_shared_store::sound_shared_store;

    void leave(written done) override {
        all_.lose_ends(name_);
        sound_shared_store::leave(std::move(done));
    }
};

struct never_gives_up_a_server : sound_shared_store {
    static constexpr auto fails_in = "journals_of_a_server_that_is_gone_for_good_are_free";
    using sound_shared_store::sound_shared_store;

    static void forget(world&, const std::string&) {}
};

struct offers_a_journal_once : keeps_notes<offers_a_journal_once> {
    static constexpr auto fails_in = "a_journal_is_offered_again_when_nobody_took_it";
    using keeps_notes::keeps_notes;

    static bool keeps(world& all, const store_note& note) {
        return note.what == store_note::kind::free && !all.first("free " + note.node);
    }
};

struct loses_ends_of_a_server_that_is_gone : sound_shared_store {
    static constexpr auto fails_in = "ends_of_a_server_that_is_gone_for_good_come_to_another";
    using sound_shared_store::sound_shared_store;

    static void forget(world& all, const std::string& server) {
        all.lose_ends(server);
        all.shared->expire(server);
    }
};

struct loses_what_nobody_can_have : sound_shared_store {
    static constexpr auto fails_in = "what_nobody_has_waits_for_who_listens_next";
    using sound_shared_store::sound_shared_store;

    static void forget(world& all, const std::string& server) {
        if (all.alive == 0) all.lose_ends(server);
        all.shared->expire(server);
    }
};

struct takes_all_nodes_for_disconnected : sound_shared_store {
    static constexpr auto fails_in = "nodes_are_known_to_all";
    using sound_shared_store::sound_shared_store;

    void listen(noted take, std::function<void(seen_nodes)> done) override {
        sound_shared_store::listen(std::move(take), [&](seen_nodes all) {
            for (auto& each : all.nodes) each.status = ferry::node_status::disconnected;
            done(std::move(all));
        });
    }
};

struct knows_its_own_nodes_only : sound_shared_store {
    static constexpr auto fails_in = "nodes_are_known_to_all";
    using sound_shared_store::sound_shared_store;

    void nodes(std::function<void(known_nodes)> done) override {
        sound_shared_store::nodes([&](known_nodes all) {
            std::erase_if(all.ids, [&](const auto& id) { return all_.shared->owner(id) != name_; });
            done(std::move(all));
        });
    }
};

struct does_not_tell_who_has_gone : keeps_notes<does_not_tell_who_has_gone> {
    static constexpr auto fails_in = "a_status_is_told_to_the_others";
    using keeps_notes::keeps_notes;

    static bool keeps(world&, const store_note& note) {
        return note.what == store_note::kind::seen && note.status == ferry::node_status::disconnected;
    }
};

// --- at the same time ----------------------------------------------------------------------------------------------------

class notes_under_its_lock : public sound_shared_store {
public:
    static constexpr auto fails_in = "another_operation_may_begin_inside_take";
    static constexpr std::chrono::milliseconds patience{1000};
    using sound_shared_store::sound_shared_store;

    void listen(noted take, std::function<void(seen_nodes)> done) override {
        sound_shared_store::listen(
            [mutex = mutex_, take = std::move(take)](store_note note) {
                const std::lock_guard lock(*mutex);
                take(std::move(note));
            },
            std::move(done));
    }
    void ends(std::uint64_t after, std::function<void(arrived_ends)> done) override {
        const std::lock_guard lock(*mutex_);
        sound_shared_store::ends(after, std::move(done));
    }

private:
    const std::shared_ptr<std::mutex> mutex_ = std::make_shared<std::mutex>();
};

/// Servers that are gone are told of tasks, too.
class tells_who_is_gone : public sound_shared_store {
public:
    static constexpr auto fails_in = "nothing_is_told_to_a_store_that_is_gone_concurrent";
    using sound_shared_store::sound_shared_store;

    ~tells_who_is_gone() override {
        const std::lock_guard lock(all_.mutex);
        all_.takers.push_back(take_);
    }
    void listen(noted take, std::function<void(seen_nodes)> done) override {
        take_ = take;
        sound_shared_store::listen(std::move(take), std::move(done));
    }
    void acquire(const std::string& node, acquired done) override {
        for (const auto& take : all_.takers) take({store_note::kind::tasks, node});
        sound_shared_store::acquire(node, std::move(done));
    }

private:
    noted take_;
};

class posts_from_one_thread : public sound_shared_store {
public:
    static constexpr auto fails_in = "concurrent_posts_arrive_in_the_order_of_each_sender";
    using sound_shared_store::sound_shared_store;

    void post(const std::string& node, const task_record& task, written done) override {
        if (std::this_thread::get_id() != home_) {
            return done({errc::store_failed, "the connection is another thread's"});
        }
        sound_shared_store::post(node, task, std::move(done));
    }

private:
    const std::thread::id home_ = std::this_thread::get_id();
};

/// Other threads are told so at once.
class ends_behind : public sound_shared_store {
public:
    static constexpr auto fails_in = "concurrent_owners_end_each_task_once";
    using sound_shared_store::sound_shared_store;

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) override {
        if (std::this_thread::get_id() != home_) return done({});
        sound_shared_store::end(node, owner, order, end, std::move(done));
    }

private:
    const std::thread::id home_ = std::this_thread::get_id();
};

}  // namespace

namespace ferry::conformance {

template <class Store>
    requires std::derived_from<Store, sound_shared_store>
struct model_of<Store> {
    static constexpr std::chrono::milliseconds patience =
        std::string_view(Store::fails_in) == ferry_test::nothing ? std::chrono::seconds(30) : Store::patience;

    std::unique_ptr<world> all = std::make_unique<world>();

    Store make() const { return make("server"); }
    Store make(const std::string& server) const { return Store(*all, server); }
    void forget(const std::string& server) const { Store::forget(*all, server); }
};

using ferry_test::meant_for;

INSTANTIATE_TYPED_TEST_SUITE_P(sound_shared_store, shared_agent_store_suite, sound_shared_store, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(posts_nothing_urgent, shared_agent_store_suite, posts_nothing_urgent, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_how_long_replies_are_awaited, shared_agent_store_suite,
                               forgets_how_long_replies_are_awaited, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(does_not_tell_of_tasks, shared_agent_store_suite, does_not_tell_of_tasks, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(refuses_to_post_to_itself, shared_agent_store_suite, refuses_to_post_to_itself,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(gives_orders_pairwise, shared_agent_store_suite, gives_orders_pairwise, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(updates_without_the_reply, shared_agent_store_suite, updates_without_the_reply,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(wipes_replies, shared_agent_store_suite, wipes_replies, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(keeps_the_first_reply, shared_agent_store_suite, keeps_the_first_reply, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(keeps_contents_to_itself, shared_agent_store_suite, keeps_contents_to_itself, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(drops_what_is_for_nobody, shared_agent_store_suite, drops_what_is_for_nobody, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(begins_journals_by_posts, shared_agent_store_suite, begins_journals_by_posts, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(knows_replies_of_all_nodes, shared_agent_store_suite, knows_replies_of_all_nodes,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(does_not_tell_who_joins, shared_agent_store_suite, does_not_tell_who_joins, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(awaits_replies_as_the_first_asked, shared_agent_store_suite,
                               awaits_replies_as_the_first_asked, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(does_not_ask_for_who_joins, shared_agent_store_suite, does_not_ask_for_who_joins,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(does_not_say_what_was_changed, shared_agent_store_suite, does_not_say_what_was_changed,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(takes_no_request_for_the_same, shared_agent_store_suite, takes_no_request_for_the_same,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(remembers_requests_for_ever, shared_agent_store_suite, remembers_requests_for_ever,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(posts_twice, shared_agent_store_suite, posts_twice, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(posts_again_what_has_ended, shared_agent_store_suite, posts_again_what_has_ended,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(withdraws_nothing, shared_agent_store_suite, withdraws_nothing, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(joins_what_was_withdrawn, shared_agent_store_suite, joins_what_was_withdrawn, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(withdraws_what_others_posted, shared_agent_store_suite, withdraws_what_others_posted,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(loses_the_words, shared_agent_store_suite, loses_the_words, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(does_not_tell_of_ends, shared_agent_store_suite, does_not_tell_of_ends, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(acknowledges_for_all, shared_agent_store_suite, acknowledges_for_all, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(gives_places_again, shared_agent_store_suite, gives_places_again, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(acknowledges_nothing, shared_agent_store_suite, acknowledges_nothing, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(gives_ends_once, shared_agent_store_suite, gives_ends_once, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(loses_ends_of_before, shared_agent_store_suite, loses_ends_of_before, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_what_it_has_asked_before, shared_agent_store_suite,
                               forgets_what_it_has_asked_before, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(fails_what_has_ended, shared_agent_store_suite, fails_what_has_ended, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(tells_again_what_has_ended, shared_agent_store_suite, tells_again_what_has_ended,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(refuses_but_tells, shared_agent_store_suite, refuses_but_tells, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_old_owners_fetch, shared_agent_store_suite, lets_old_owners_fetch, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_old_owners_announce, shared_agent_store_suite, lets_old_owners_announce, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_later_owners_end, shared_agent_store_suite, lets_later_owners_end, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(drops_replies_to_no_task, shared_agent_store_suite, drops_replies_to_no_task, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_numbers_of_replies, shared_agent_store_suite, forgets_numbers_of_replies,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(keeps_numbers_of_replies_to_itself, shared_agent_store_suite,
                               keeps_numbers_of_replies_to_itself, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(remembers_100_replies, shared_agent_store_suite, remembers_100_replies, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(does_not_tell_what_is_lost, shared_agent_store_suite, does_not_tell_what_is_lost,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(tells_of_its_own_acquire, shared_agent_store_suite, tells_of_its_own_acquire, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(leaves_without_a_word, shared_agent_store_suite, leaves_without_a_word, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(leaves_no_ends_behind, shared_agent_store_suite, leaves_no_ends_behind, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(never_gives_up_a_server, shared_agent_store_suite, never_gives_up_a_server, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(offers_a_journal_once, shared_agent_store_suite, offers_a_journal_once, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(loses_ends_of_a_server_that_is_gone, shared_agent_store_suite,
                               loses_ends_of_a_server_that_is_gone, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(loses_what_nobody_can_have, shared_agent_store_suite, loses_what_nobody_can_have,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(takes_all_nodes_for_disconnected, shared_agent_store_suite,
                               takes_all_nodes_for_disconnected, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(knows_its_own_nodes_only, shared_agent_store_suite, knows_its_own_nodes_only, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(does_not_tell_who_has_gone, shared_agent_store_suite, does_not_tell_who_has_gone,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(notes_under_its_lock, shared_agent_store_suite, notes_under_its_lock, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(tells_who_is_gone, shared_agent_store_suite, tells_who_is_gone, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(posts_from_one_thread, shared_agent_store_suite, posts_from_one_thread, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(ends_behind, shared_agent_store_suite, ends_behind, meant_for);

}  // namespace ferry::conformance
