#include <ferry/agent_store/memory.hpp>
#include <ferry/conformance/agent_store.hpp>
#include <ferry/conformance/durable_agent_store.hpp>

#include "broken_models.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::acquired_journal;
using ferry::epoch;
using ferry::errc;
using ferry::known_nodes;
using ferry::store_status;
using ferry::task_record;
using acquired = std::function<void(acquired_journal)>;
using written = std::function<void(store_status)>;

/// What the broken ones are made of: a memory store whose operations can be replaced one by one.
class sound_store {
public:
    using policy_category = ferry::agent_store_tag;
    static constexpr auto fails_in = ferry_test::nothing;

    virtual ~sound_store() = default;
    virtual void acquire(const std::string& node, acquired done) { journals.acquire(node, std::move(done)); }
    virtual void append(const std::string& node, epoch owner, const task_record& task, written done) {
        journals.append(node, owner, task, std::move(done));
    }
    virtual void update(const std::string& node, epoch owner, const task_record& task, written done) {
        journals.update(node, owner, task, std::move(done));
    }
    virtual void settle(const std::string& node, epoch owner, std::uint64_t order, written done) {
        journals.settle(node, owner, order, std::move(done));
    }

protected:
    /// Acquires, and changes what came.
    void acquire_and(const std::string& node, const acquired& done,
                     const std::function<void(acquired_journal&)>& change) {
        sound_store::acquire(node, [&](acquired_journal journal) {
            change(journal);
            done(std::move(journal));
        });
    }

    ferry::memory_agent_store journals;
};

// --- owners --------------------------------------------------------------------------------------------------------------

/// Remembers the real owners.
class with_owners : public sound_store {
public:
    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [&](acquired_journal& journal) {
            const std::lock_guard lock(mutex_);
            newest_[node] = journal.owner;
        });
    }
    /// Those that were acquired.
    std::vector<std::string> nodes() {
        const std::lock_guard lock(mutex_);
        std::vector<std::string> out;
        for (const auto& [node, owner] : newest_) out.push_back(node);
        return out;
    }

protected:
    epoch newest(const std::string& node) {
        const std::lock_guard lock(mutex_);
        return newest_[node];
    }

private:
    std::mutex mutex_;
    std::map<std::string, epoch> newest_;
};

struct begins_with_epoch_zero : sound_store {
    static constexpr auto fails_in = "a_new_journal_is_empty";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) { --journal.owner; });
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, owner + 1, task, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::update(node, owner + 1, task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        sound_store::settle(node, owner + 1, order, std::move(done));
    }
};

struct gives_the_same_epoch_again : with_owners {
    static constexpr auto fails_in = "epochs_rise";

    void acquire(const std::string& node, acquired done) override {
        with_owners::acquire(node, [&](acquired_journal journal) {
            journal.owner = 1;
            done(std::move(journal));
        });
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, owner == 1 ? newest(node) : 0, task, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::update(node, owner == 1 ? newest(node) : 0, task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        sound_store::settle(node, owner == 1 ? newest(node) : 0, order, std::move(done));
    }
};

struct lets_old_owners_append : with_owners {
    static constexpr auto fails_in = "an_older_owner_can_not_write";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        const auto now = newest(node);
        sound_store::append(node, owner != 0 && owner < now ? now : owner, task, std::move(done));
    }
};

struct lets_old_owners_update : with_owners {
    static constexpr auto fails_in = "an_older_owner_can_not_write";

    void update(const std::string& node, epoch, const task_record& task, written done) override {
        sound_store::update(node, newest(node), task, std::move(done));
    }
};

struct lets_old_owners_settle : with_owners {
    static constexpr auto fails_in = "an_older_owner_can_not_write";

    void settle(const std::string& node, epoch, std::uint64_t order, written done) override {
        sound_store::settle(node, newest(node), order, std::move(done));
    }
};

struct refuses_but_writes : with_owners {
    static constexpr auto fails_in = "an_older_owner_can_not_write";

    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        sound_store::settle(node, owner, order, [&](store_status status) {
            sound_store::settle(node, newest(node), order, [](const store_status&) {});
            done(std::move(status));
        });
    }
};

struct lets_later_owners_append : with_owners {
    static constexpr auto fails_in = "only_the_newest_epoch_can_write";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, std::min(owner, newest(node)), task, std::move(done));
    }
};

struct begins_journals_unasked : with_owners {
    static constexpr auto fails_in = "only_the_newest_epoch_can_write";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        if (newest(node) == 0) acquire(node, [](const acquired_journal&) {});
        sound_store::append(node, owner, task, std::move(done));
    }
};

// --- records -------------------------------------------------------------------------------------------------------------

struct forgets_attempts : sound_store {
    static constexpr auto fails_in = "tasks_come_back_with_every_field";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            for (auto& task : journal.tasks) task.attempts = 0;
        });
    }
};

struct gives_tasks_other_ids : sound_store {
    static constexpr auto fails_in = "tasks_come_back_with_every_field";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            for (auto& task : journal.tasks) task.id &= 0xffffffffU;
        });
    }
};

struct forgets_what_is_urgent : sound_store {
    static constexpr auto fails_in = "tasks_come_back_with_every_field";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            for (auto& task : journal.tasks) task.urgent = false;
        });
    }
};

struct forgets_who_wants_a_reply : sound_store {
    static constexpr auto fails_in = "tasks_come_back_with_every_field";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            for (auto& task : journal.tasks) task.wants_reply = false;
        });
    }
};

struct keeps_times_in_seconds : sound_store {
    static constexpr auto fails_in = "tasks_come_back_with_every_field";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            for (auto& task : journal.tasks) task.accepted = std::chrono::floor<std::chrono::seconds>(task.accepted);
        });
    }
};

struct cuts_request_ids_at_a_zero : sound_store {
    static constexpr auto fails_in = "tasks_come_back_with_every_field";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            for (auto& task : journal.tasks) task.request_id = std::string(task.request_id.c_str());
        });
    }
};

struct loses_the_end_of_large_contents : sound_store {
    static constexpr auto fails_in = "content_comes_back_byte_by_byte";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        auto cut = task;
        if (task.content) cut.content = std::make_shared<const ferry::payload>(task.content->slice(0, 1'000'000));
        sound_store::append(node, owner, cut, std::move(done));
    }
};

/// What is to be sent in place of the content is none of it.
struct sends_other_contents : sound_store {
    static constexpr auto fails_in = "content_comes_back_byte_by_byte";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, owner, task, [&](store_status status) {
            if (status.code == errc::ok) {
                status.content = std::make_shared<const ferry::payload>(ferry::bytes::copy("rubbish"));
            }
            done(std::move(status));
        });
    }
};

/// Where a reply waits alone, there is nothing to be sent.
struct sends_what_has_no_content : sound_store {
    static constexpr auto fails_in = "a_reply_comes_back_with_its_task";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, owner, task, [&](store_status status) {
            if (!task.content) status.content = task.reply;
            done(std::move(status));
        });
    }
};

/// Contents come as sources, which are at an end when their task is settled.
class lets_contents_go : public sound_store {
public:
    static constexpr auto fails_in = "content_can_be_read_when_its_task_is_settled";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [&](acquired_journal& journal) {
            for (auto& task : journal.tasks) {
                if (task.content) task.content = until_settled(node, task);
            }
        });
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        {
            const std::lock_guard lock(mutex_);
            if (const auto open = open_[{node, order}]) *open = false;
        }
        sound_store::settle(node, owner, order, std::move(done));
    }

protected:
    /// The content, until the task is settled.
    std::shared_ptr<const ferry::payload> until_settled(const std::string& node, const task_record& task) {
        const std::lock_guard lock(mutex_);
        auto& open = open_[{node, task.order}];
        if (!open) open = std::make_shared<std::atomic<bool>>(true);
        return std::make_shared<const ferry::payload>(std::make_shared<source>(task.content, open));
    }

private:
    struct source : ferry::payload_source {
        source(std::shared_ptr<const ferry::payload> k, std::shared_ptr<const std::atomic<bool>> o)
            : kept(std::move(k)), open(std::move(o)) {}
        std::uint64_t size() const noexcept override { return kept->size(); }
        void read(std::uint64_t offset, std::uint64_t length,
                  std::function<void(ferry::range_result)> done) const override {
            if (*open) return done({errc::ok, kept->slice(offset, length), {}});
            done({errc::source_failed, {}, "no such row"});
        }
        std::shared_ptr<const ferry::payload> kept;
        std::shared_ptr<const std::atomic<bool>> open;
    };

    std::mutex mutex_;
    std::map<std::pair<std::string, std::uint64_t>, std::shared_ptr<std::atomic<bool>>> open_;
};

/// Those to be sent, too, though not those that an acquire brings.
struct lets_go_what_it_gives_to_send : lets_contents_go {
    void acquire(const std::string& node, acquired done) override { sound_store::acquire(node, std::move(done)); }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, owner, task, [&](store_status status) {
            if (status.code == errc::ok && task.content) status.content = until_settled(node, task);
            done(std::move(status));
        });
    }
};

/// Ten comes before nine.
struct sorts_orders_as_text : sound_store {
    static constexpr auto fails_in = "tasks_come_back_by_rising_order";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            std::ranges::sort(journal.tasks, {}, [](const task_record& task) { return std::to_string(task.order); });
        });
    }
};

struct updates_nothing : sound_store {
    static constexpr auto fails_in = "an_update_changes_attempts_and_taken_only";

    void update(const std::string& node, epoch owner, const task_record&, written done) override {
        sound_store::settle(node, owner, ~std::uint64_t{0}, std::move(done));
    }
};

struct updates_everything : sound_store {
    static constexpr auto fails_in = "an_update_changes_attempts_and_taken_only";

    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, owner, task, std::move(done));
    }
};

struct forgets_replies : sound_store {
    static constexpr auto fails_in = "a_reply_comes_back_with_its_task";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            for (auto& task : journal.tasks) task.reply.reset();
        });
    }
};

/// An update without a reply says that there is none.
class wipes_replies : public sound_store {
public:
    static constexpr auto fails_in = "a_reply_comes_back_with_its_task";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [&](acquired_journal& journal) {
            const std::lock_guard lock(mutex_);
            for (auto& task : journal.tasks) {
                if (wiped_.contains({node, task.order})) task.reply.reset();
            }
        });
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        {
            const std::lock_guard lock(mutex_);
            wiped_.erase({node, task.order});
            if (!task.reply) wiped_.insert({node, task.order});
        }
        sound_store::update(node, owner, task, std::move(done));
    }

private:
    std::mutex mutex_;
    std::set<std::pair<std::string, std::uint64_t>> wiped_;
};

class keeps_the_first_reply : public sound_store {
public:
    static constexpr auto fails_in = "a_reply_comes_back_with_its_task";

    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        auto cut = task;
        {
            const std::lock_guard lock(mutex_);
            if (task.reply && !replied_.insert({node, task.order}).second) cut.reply.reset();
        }
        sound_store::update(node, owner, cut, std::move(done));
    }

private:
    std::mutex mutex_;
    std::set<std::pair<std::string, std::uint64_t>> replied_;
};

struct settles_nothing : sound_store {
    static constexpr auto fails_in = "a_settled_task_never_comes_back";

    void settle(const std::string& node, epoch owner, std::uint64_t, written done) override {
        sound_store::settle(node, owner, ~std::uint64_t{0}, std::move(done));
    }
};

/// An update brings back what was settled.
class updates_what_is_not_there : public sound_store {
public:
    static constexpr auto fails_in = "an_operation_may_come_again";

    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        {
            const std::lock_guard lock(mutex_);
            settled_.insert({node, order});
        }
        sound_store::settle(node, owner, order, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        const auto there = [&] {
            const std::lock_guard lock(mutex_);
            return !settled_.contains({node, task.order});
        }();
        if (there) return sound_store::update(node, owner, task, std::move(done));
        sound_store::append(node, owner, task, std::move(done));
    }

private:
    std::mutex mutex_;
    std::set<std::pair<std::string, std::uint64_t>> settled_;
};

/// Nodes whose ids begin alike share a journal.
template <std::size_t Size>
struct mixes_up_nodes : sound_store {
    static constexpr auto fails_in = "nodes_are_apart";

    static std::string cut(const std::string& node) { return node.substr(0, std::min(Size, node.find('\0'))); }
    void acquire(const std::string& node, acquired done) override { sound_store::acquire(cut(node), std::move(done)); }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(cut(node), owner, task, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::update(cut(node), owner, task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        sound_store::settle(cut(node), owner, order, std::move(done));
    }
};

struct cuts_node_ids_short : mixes_up_nodes<1000> {};
struct cuts_node_ids_at_a_zero : mixes_up_nodes<std::string::npos> {};

/// Holds at most so many tasks, and drops the others without a word.
struct holds_500_tasks : sound_store {
    static constexpr auto fails_in = "many_tasks";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [](acquired_journal& journal) {
            journal.tasks.resize(std::min<std::size_t>(journal.tasks.size(), 500));
        });
    }
};

// --- done ----------------------------------------------------------------------------------------------------------------

struct tells_twice : sound_store {
    static constexpr auto fails_in = "each_operation_ends_once";

    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        sound_store::settle(node, owner, order, [&](const store_status& status) {
            done(status);
            done(status);
        });
    }
};

struct throws_what_it_should_tell : sound_store {
    static constexpr auto fails_in = "each_operation_ends_once";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, owner, task, [&](const store_status& status) {
            if (status.code != errc::ok) throw std::runtime_error(status.text);
            done(status);
        });
    }
};

struct never_tells_of_refusals : sound_store {
    static constexpr auto fails_in = "each_operation_ends_once";

    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::update(node, owner, task, [&](const store_status& status) {
            if (status.code == errc::ok) done(status);
        });
    }
};

/// One operation is told by a thread of its own.
class only_says_that_it_completes_inline : public sound_store {
public:
    static constexpr auto fails_in = "a_store_that_completes_inline_has_told_on_return";
    static constexpr bool completes_inline = true;

    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        const std::lock_guard lock(mutex_);
        threads_.emplace_back([=, this, done = std::move(done)] {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            sound_store::settle(node, owner, order, done);
        });
    }

private:
    std::mutex mutex_;
    std::vector<std::jthread> threads_;  // the last member: they are waited for before the journals go
};

class tells_under_its_lock : public sound_store {
public:
    static constexpr auto fails_in = "another_operation_may_begin_inside_done";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        const std::lock_guard lock(mutex_);
        sound_store::append(node, owner, task, std::move(done));
    }

private:
    std::mutex mutex_;
};

// --- at the same time --------------------------------------------------------------------------------------------------

class belongs_to_a_thread : public sound_store {
public:
    static constexpr auto fails_in = "concurrent_operations_on_different_tasks";

    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        if (std::this_thread::get_id() != home_)
            return done({errc::store_failed, "the connection is another thread's"});
        sound_store::append(node, owner, task, std::move(done));
    }

private:
    const std::thread::id home_ = std::this_thread::get_id();
};

/// Counts the owners that come from each thread.
class counts_owners_by_thread : public sound_store {
public:
    static constexpr auto fails_in = "concurrent_owners_get_epochs_of_their_own";

    void acquire(const std::string& node, acquired done) override {
        acquire_and(node, done, [&](acquired_journal& journal) {
            const std::lock_guard lock(mutex_);
            const auto given = ++count_[{std::this_thread::get_id(), node}];
            real_[node] = {given, journal.owner};
            journal.owner = given;
        });
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::append(node, real(node, owner), task, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        sound_store::update(node, real(node, owner), task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        sound_store::settle(node, real(node, owner), order, std::move(done));
    }

private:
    epoch real(const std::string& node, epoch given) {
        const std::lock_guard lock(mutex_);
        return real_[node].first == given ? real_[node].second : 0;
    }

    std::mutex mutex_;
    std::map<std::pair<std::thread::id, std::string>, epoch> count_;
    std::map<std::string, std::pair<epoch, epoch>> real_;
};

/// One acquired journal for all nodes that threads beside the first ask for.
struct shares_journals_among_threads : sound_store {
    static constexpr auto fails_in = "concurrent_nodes_do_not_meet";

    void acquire(const std::string& node, acquired done) override {
        const bool at_home = std::this_thread::get_id() == home;
        acquire_and(node, done, [&](acquired_journal& journal) {
            if (!at_home && node.starts_with("node ")) journal.tasks.clear();
        });
    }

    const std::thread::id home = std::this_thread::get_id();
};

/// Says that a task is stored, and stores it with the same thread's next operation.
class writes_behind : public sound_store {
public:
    static constexpr auto fails_in = "concurrent_writes_are_in_the_new_owners_journal_or_fail";

    void acquire(const std::string& node, acquired done) override {
        flush();
        sound_store::acquire(node, std::move(done));
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) override {
        flush();
        sound_store::settle(node, owner, ~std::uint64_t{0}, [&](store_status status) {
            if (status.code == errc::ok) {
                const std::lock_guard lock(mutex_);
                unwritten_[std::this_thread::get_id()] = [=, this] {
                    sound_store::append(node, owner, task, [](const store_status&) {});
                };
            }
            done(std::move(status));
        });
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) override {
        flush();
        sound_store::update(node, owner, task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) override {
        flush();
        sound_store::settle(node, owner, order, std::move(done));
    }

private:
    void flush() {
        std::function<void()> write;
        {
            const std::lock_guard lock(mutex_);
            std::swap(write, unwritten_[std::this_thread::get_id()]);
        }
        if (write) write();
    }

    std::mutex mutex_;
    std::map<std::thread::id, std::function<void()>> unwritten_;
};

// --- of journals that last ---------------------------------------------------------------------------------------------

struct forgets_when_closed : sound_store {
    static constexpr auto fails_in = "open_tasks_are_there_again";
};

/// A store on journals that are elsewhere.
class sound_durable_store {
public:
    using policy_category = ferry::agent_store_tag;
    static constexpr auto fails_in = ferry_test::nothing;

    explicit sound_durable_store(sound_store& journals) : journals_(&journals) {}

    void acquire(const std::string& node, const acquired& done) {
        journals_->acquire(node, [&](acquired_journal journal) {
            given_[node] = journal.owner;
            done(std::move(journal));
        });
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) {
        journals_->append(node, owner, task, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) {
        journals_->update(node, owner, task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) {
        journals_->settle(node, owner, order, std::move(done));
    }

protected:
    sound_store* journals_;
    std::map<std::string, epoch> given_;
};

/// Each object counts the owners from one.
class counts_owners_anew : public sound_durable_store {
public:
    static constexpr auto fails_in = "epochs_go_on_rising";

    using sound_durable_store::sound_durable_store;

    void acquire(const std::string& node, const acquired& done) {
        sound_durable_store::acquire(node, [&](acquired_journal journal) {
            journal.owner = ++counted_[node];
            done(std::move(journal));
        });
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) {
        sound_durable_store::append(node, real(node, owner), task, std::move(done));
    }
    void update(const std::string& node, epoch owner, const task_record& task, written done) {
        sound_durable_store::update(node, real(node, owner), task, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) {
        sound_durable_store::settle(node, real(node, owner), order, std::move(done));
    }

private:
    epoch real(const std::string& node, epoch counted) { return counted == counted_[node] ? given_[node] : 0; }

    std::map<std::string, epoch> counted_;
};

class forgets_how_long_a_reply_is_awaited : public sound_durable_store {
public:
    static constexpr auto fails_in = "how_long_a_reply_is_awaited_is_there_again";

    using sound_durable_store::sound_durable_store;

    void update(const std::string& node, epoch owner, const task_record& task, written done) {
        auto cut = task;
        cut.reply_until = std::chrono::system_clock::time_point::max();
        sound_durable_store::update(node, owner, cut, std::move(done));
    }
};

/// Each object takes owners that it doesn't know for the newest.
class forgets_who_was_owner : public sound_durable_store {
public:
    static constexpr auto fails_in = "the_owner_of_before_can_not_write";

    using sound_durable_store::sound_durable_store;

    void acquire(const std::string& node, const acquired& done) {
        sound_durable_store::acquire(node, [&](acquired_journal journal) {
            known_.insert(journal.owner);
            done(std::move(journal));
        });
    }
    void append(const std::string& node, epoch owner, const task_record& task, written done) {
        sound_durable_store::append(node, known_.contains(owner) ? owner : given_[node], task, std::move(done));
    }

private:
    std::set<epoch> known_;
};

/// Each object brings back what others before it have settled.
class settles_in_memory : public sound_durable_store {
public:
    static constexpr auto fails_in = "settled_tasks_stay_away";

    using sound_durable_store::sound_durable_store;

    void acquire(const std::string& node, const acquired& done) {
        sound_durable_store::acquire(node, [&](acquired_journal journal) {
            std::erase_if(journal.tasks, [&](const auto& task) { return settled_.contains({node, task.order}); });
            done(std::move(journal));
        });
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) {
        sound_durable_store::settle(node, owner, ~std::uint64_t{0}, [&](store_status status) {
            if (status.code == errc::ok) settled_.insert({node, order});
            done(std::move(status));
        });
    }

private:
    std::set<std::pair<std::string, std::uint64_t>> settled_;
};

/// One that knows its nodes.
class sound_lasting_store : public sound_durable_store {
public:
    explicit sound_lasting_store(with_owners& journals) : sound_durable_store(journals), all_(&journals) {}

    void nodes(const std::function<void(known_nodes)>& done) { done({{}, all_->nodes()}); }

private:
    with_owners* all_;
};

/// Each object knows those that it has acquired itself.
struct forgets_its_nodes : sound_lasting_store {
    static constexpr auto fails_in = "its_nodes_are_there_again";
    using sound_lasting_store::sound_lasting_store;

    void nodes(const std::function<void(known_nodes)>& done) {
        known_nodes out;
        for (const auto& [node, owner] : given_) out.ids.push_back(node);
        done(std::move(out));
    }
};

struct knows_a_node_twice : sound_lasting_store {
    static constexpr auto fails_in = "its_nodes_are_there_again";
    using sound_lasting_store::sound_lasting_store;

    void nodes(const std::function<void(known_nodes)>& done) {
        sound_lasting_store::nodes([&](known_nodes all) {
            if (!all.ids.empty()) all.ids.push_back(all.ids.front());
            done(std::move(all));
        });
    }
};

struct tells_its_nodes_twice : sound_lasting_store {
    static constexpr auto fails_in = "its_nodes_are_there_again";
    using sound_lasting_store::sound_lasting_store;

    void nodes(const std::function<void(known_nodes)>& done) {
        for (int times = 0; times < 2; ++times) sound_lasting_store::nodes(done);
    }
};

}  // namespace

namespace ferry::conformance {

template <class Store>
    requires std::derived_from<Store, sound_durable_store>
struct model_of<Store> {
    with_owners journals;
    Store make() { return Store(journals); }
};

template <>
struct model_of<never_tells_of_refusals> {
    static constexpr std::chrono::milliseconds patience{300};
    static never_tells_of_refusals make() { return {}; }
};

template <>
struct model_of<tells_under_its_lock> {
    static constexpr std::chrono::milliseconds patience{1000};
    static tells_under_its_lock make() { return {}; }
};

using ferry_test::meant_for;

INSTANTIATE_TYPED_TEST_SUITE_P(sound_store, agent_store_suite, sound_store, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(begins_with_epoch_zero, agent_store_suite, begins_with_epoch_zero, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(gives_the_same_epoch_again, agent_store_suite, gives_the_same_epoch_again, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_old_owners_append, agent_store_suite, lets_old_owners_append, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_old_owners_update, agent_store_suite, lets_old_owners_update, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_old_owners_settle, agent_store_suite, lets_old_owners_settle, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(refuses_but_writes, agent_store_suite, refuses_but_writes, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_later_owners_append, agent_store_suite, lets_later_owners_append, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(begins_journals_unasked, agent_store_suite, begins_journals_unasked, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_attempts, agent_store_suite, forgets_attempts, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_who_wants_a_reply, agent_store_suite, forgets_who_wants_a_reply, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(keeps_times_in_seconds, agent_store_suite, keeps_times_in_seconds, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(cuts_request_ids_at_a_zero, agent_store_suite, cuts_request_ids_at_a_zero, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(loses_the_end_of_large_contents, agent_store_suite, loses_the_end_of_large_contents,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_contents_go, agent_store_suite, lets_contents_go, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(sends_other_contents, agent_store_suite, sends_other_contents, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(sends_what_has_no_content, agent_store_suite, sends_what_has_no_content, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_go_what_it_gives_to_send, agent_store_suite, lets_go_what_it_gives_to_send,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(sorts_orders_as_text, agent_store_suite, sorts_orders_as_text, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(updates_nothing, agent_store_suite, updates_nothing, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(updates_everything, agent_store_suite, updates_everything, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(settles_nothing, agent_store_suite, settles_nothing, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(updates_what_is_not_there, agent_store_suite, updates_what_is_not_there, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(holds_500_tasks, agent_store_suite, holds_500_tasks, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(tells_twice, agent_store_suite, tells_twice, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(throws_what_it_should_tell, agent_store_suite, throws_what_it_should_tell, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(never_tells_of_refusals, agent_store_suite, never_tells_of_refusals, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(tells_under_its_lock, agent_store_suite, tells_under_its_lock, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(belongs_to_a_thread, agent_store_suite, belongs_to_a_thread, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(counts_owners_by_thread, agent_store_suite, counts_owners_by_thread, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(shares_journals_among_threads, agent_store_suite, shares_journals_among_threads,
                               meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(writes_behind, agent_store_suite, writes_behind, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(cuts_node_ids_short, agent_store_suite, cuts_node_ids_short, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(cuts_node_ids_at_a_zero, agent_store_suite, cuts_node_ids_at_a_zero, meant_for);

INSTANTIATE_TYPED_TEST_SUITE_P(gives_tasks_other_ids, agent_store_suite, gives_tasks_other_ids, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_what_is_urgent, agent_store_suite, forgets_what_is_urgent, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(only_says_that_it_completes_inline, agent_store_suite,
                               only_says_that_it_completes_inline, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_replies, agent_store_suite, forgets_replies, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(wipes_replies, agent_store_suite, wipes_replies, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(keeps_the_first_reply, agent_store_suite, keeps_the_first_reply, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_when_closed, durable_agent_store_suite, forgets_when_closed, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(sound_durable_store, durable_agent_store_suite, sound_durable_store, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(counts_owners_anew, durable_agent_store_suite, counts_owners_anew, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_who_was_owner, durable_agent_store_suite, forgets_who_was_owner, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_how_long_a_reply_is_awaited, durable_agent_store_suite,
                               forgets_how_long_a_reply_is_awaited, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(settles_in_memory, durable_agent_store_suite, settles_in_memory, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(sound_lasting_store, durable_agent_store_suite, sound_lasting_store, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_its_nodes, durable_agent_store_suite, forgets_its_nodes, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(knows_a_node_twice, durable_agent_store_suite, knows_a_node_twice, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(tells_its_nodes_twice, durable_agent_store_suite, tells_its_nodes_twice, meant_for);

}  // namespace ferry::conformance
