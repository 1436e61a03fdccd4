#include <ferry/agent_store/memory.hpp>
#include <ferry/conformance/agent_store.hpp>
#include <ferry/conformance/durable_agent_store.hpp>

#include "late_store.hpp"

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

/// The late store with a thread of its own, which lets its operations happen in an order of chance: nothing completes
/// inline, and contents come back as sources that answer from yet another thread.
class pumped_store {
public:
    using policy_category = ferry::agent_store_tag;

    template <class Done>
    void acquire(const std::string& node, Done done) {
        locked([&] {
            store_.acquire(node, [this, done = std::move(done)](ferry::acquired_journal journal) {
                for (auto& task : journal.tasks) {
                    if (!task.content) continue;
                    task.content = std::make_shared<const ferry::payload>(std::make_shared<source>(task.content));
                }
                told_.push_back([done, journal = std::move(journal)] { done(journal); });
            });
        });
    }
    template <class Done>
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done done) {
        locked([&] { store_.append(node, owner, task, later(std::move(done))); });
    }
    template <class Done>
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done done) {
        locked([&] { store_.update(node, owner, task, later(std::move(done))); });
    }
    template <class Done>
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, Done done) {
        locked([&] { store_.settle(node, owner, order, later(std::move(done))); });
    }

private:
    class source : public ferry::payload_source {
    public:
        explicit source(std::shared_ptr<const ferry::payload> kept) : kept_(std::move(kept)) {}
        std::uint64_t size() const noexcept override { return kept_->size(); }
        void read(std::uint64_t offset, std::uint64_t length,
                  std::function<void(ferry::range_result)> done) const override {
            std::jthread([&] { done({ferry::errc::ok, kept_->slice(offset, length), {}}); });
        }

    private:
        std::shared_ptr<const ferry::payload> kept_;
    };

    template <class Done>
    auto later(Done done) {
        return [this, done = std::move(done)](ferry::store_status status) {
            told_.push_back([done, status = std::move(status)] { done(status); });
        };
    }

    template <class Begin>
    void locked(Begin&& begin) {
        const std::lock_guard lock(mutex_);
        begin();
        changed_.notify_all();
    }

    void pump(const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        while (true) {
            changed_.wait(lock, stop, [&] { return store_.pending() > 0; });
            if (!store_.advance_one()) return;
            auto told = std::exchange(told_, {});
            lock.unlock();
            for (const auto& tell : told) tell();
            lock.lock();
        }
    }

    std::mutex mutex_;
    std::condition_variable_any changed_;
    ferry_test::late_store store_;
    std::vector<std::function<void()>> told_;
    std::jthread pump_{[this](const std::stop_token& stop) { pump(stop); }};
};

/// Its journals outlive it: they belong to whoever made it.
class borrowing_store {
public:
    using policy_category = ferry::agent_store_tag;

    explicit borrowing_store(ferry::memory_agent_store& journals) : journals_(journals) {}

    template <class Done>
    void acquire(const std::string& node, Done&& done) {
        journals_.acquire(node, std::forward<Done>(done));
    }
    template <class Done>
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        journals_.append(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done&& done) {
        journals_.update(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, Done&& done) {
        journals_.settle(node, owner, order, std::forward<Done>(done));
    }

private:
    ferry::memory_agent_store& journals_;
};

}  // namespace

namespace ferry::conformance {

template <>
struct model_of<borrowing_store> {
    memory_agent_store journals;
    borrowing_store make() { return borrowing_store(journals); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(memory_conformance, agent_store_suite, memory_agent_store);
INSTANTIATE_TYPED_TEST_SUITE_P(late_conformance, agent_store_suite, pumped_store);
INSTANTIATE_TYPED_TEST_SUITE_P(durable_conformance, durable_agent_store_suite, borrowing_store);

}  // namespace ferry::conformance
