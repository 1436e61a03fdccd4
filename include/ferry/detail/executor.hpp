// layer 1
// Where user code runs: a few threads, started when they are needed, and one strand a name. What is posted to a strand runs
// in order and never at the same time; strands run in parallel. A strand takes memory only while something is posted to it.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

/// `Job` is called without arguments; the alias below is for what users hand over.
template <class Job>
class basic_executor {
public:
    using job = Job;

    /// `on_throw(text)` is told of a job that threw.
    basic_executor(std::size_t threads, std::function<void(const std::string&)> on_throw)
        : shared_(std::make_shared<shared>()) {
        shared_->on_throw = std::move(on_throw);
        shared_->most = std::max<std::size_t>(1, threads);
    }
    basic_executor(const basic_executor&) = delete;
    basic_executor& operator=(const basic_executor&) = delete;
    ~basic_executor() { stop(std::chrono::steady_clock::now()); }

    /// Never waits. False after `stop`: the job is dropped.
    bool post(const std::string& strand, job work) { return post(strand, std::move(work), 0).has_value(); }

    /// The same, but at most `bound` such jobs wait in a strand: past it the oldest of them is dropped. Returns how many were.
    std::size_t post_bounded(const std::string& strand, job work, std::size_t bound) {
        return post(strand, std::move(work), bound).value_or(0);
    }

    /// True on one of its own threads.
    bool is_inside() const { return shared::current() == shared_.get(); }

    /// Runs what was posted, but waits no longer than the deadline (and a moment for idle threads to end): what still
    /// runs then ends on its own, what still waits is dropped. May be called from a job, which isn't waited for.
    void stop(std::chrono::steady_clock::time_point deadline) {
        if (is_over()) return;
        const std::size_t mine = is_inside() ? 1 : 0;
        std::unordered_map<std::string, strand> dropped;  // destroyed without the lock: a job may own anything
        bool all_ended = false;
        {
            std::unique_lock lock(shared_->mutex);
            shared_->idle.wait_until(lock, deadline,
                                     [&] { return shared_->ready.empty() && shared_->running <= mine; });
            shared_->stopped = true;
            dropped.swap(shared_->strands);
            shared_->ready.clear();
            shared_->work.notify_all();
            const auto grace = std::max(deadline, std::chrono::steady_clock::now() + std::chrono::seconds(1));
            all_ended = shared_->idle.wait_until(lock, grace, [&] { return shared_->alive <= mine; });
        }
        std::vector<std::thread> threads;
        {
            const std::lock_guard lock(threads_mutex_);
            threads.swap(threads_);
        }
        for (auto& t : threads) {
            if (!all_ended || t.get_id() == std::this_thread::get_id()) {
                t.detach();  // it shares what it needs, and ends with its job
            } else {
                t.join();
            }
        }
    }

private:
    struct item {
        job work;
        bool droppable;
    };
    struct strand {
        std::deque<item> items;
        bool running = false;
        std::size_t droppable = 0;
    };

    struct shared {
        std::mutex mutex;
        std::condition_variable work, idle;
        std::unordered_map<std::string, strand> strands;
        std::deque<std::string> ready;  // strands with work that nobody runs
        std::size_t running = 0;
        std::size_t waiting = 0;  // threads
        std::size_t alive = 0;
        std::size_t most = 1;
        bool stopped = false;
        std::function<void(const std::string&)> on_throw;

        /// How many jobs were dropped for it; nothing where it was not taken.
        std::optional<std::size_t> post(const std::string& name, job work_item, std::size_t bound, bool& one_more) {
            std::size_t dropped = 0;
            job oldest;  // destroyed without the lock
            {
                const std::lock_guard lock(mutex);
                if (stopped) return std::nullopt;
                strand& s = strands[name];
                const bool idle_until_now = !s.running && s.items.empty();
                if (bound > 0 && s.droppable >= bound) {
                    const auto at =
                        std::find_if(s.items.begin(), s.items.end(), [](const item& i) { return i.droppable; });
                    oldest = std::move(at->work);
                    s.items.erase(at);
                    --s.droppable;
                    ++dropped;
                }
                s.items.push_back({std::move(work_item), bound > 0});
                if (bound > 0) ++s.droppable;
                if (!idle_until_now) return dropped;
                ready.push_back(name);
                one_more = ready.size() > waiting && alive < most;
                if (one_more) ++alive;
            }
            if (!one_more) work.notify_one();
            return dropped;
        }

        /// Whose thread this is.
        static const shared*& current() {
            static thread_local const shared* own = nullptr;
            return own;
        }

        void run() {
            current() = this;
            std::unique_lock lock(mutex);
            while (true) {
                ++waiting;
                work.wait(lock, [&] { return stopped || !ready.empty(); });
                --waiting;
                if (stopped) break;
                const std::string name = std::move(ready.front());
                ready.pop_front();
                ++running;
                run_one(lock, name);
                --running;
                if (ready.empty()) idle.notify_all();
            }
            --alive;
            idle.notify_all();
        }

        void run_one(std::unique_lock<std::mutex>& lock, const std::string& name) {
            strand& s = strands[name];
            item next = std::move(s.items.front());
            s.items.pop_front();
            if (next.droppable) --s.droppable;
            s.running = true;
            lock.unlock();
            try {
                next.work();
            } catch (const std::exception& e) {
                on_throw(e.what());
            } catch (...) {
                on_throw("an exception that is no std::exception");
            }
            next.work = nullptr;
            lock.lock();
            const auto found = strands.find(name);
            if (found == strands.end()) return;  // stopped meanwhile
            found->second.running = false;
            if (found->second.items.empty()) {
                strands.erase(found);
            } else {
                ready.push_back(name);
                work.notify_one();
            }
        }
    };

    std::optional<std::size_t> post(const std::string& strand, job&& work, std::size_t bound) {
        bool one_more = false;
        const auto dropped = shared_->post(strand, std::move(work), bound, one_more);
        if (one_more) start_one();
        return dropped;
    }

    bool is_over() {
        const std::scoped_lock lock(threads_mutex_, shared_->mutex);
        return shared_->stopped && threads_.empty();
    }

    /// It is counted as alive.
    void start_one() {
        const std::lock_guard lock(threads_mutex_);
        try {
            threads_.emplace_back([s = shared_] { s->run(); });
        } catch (...) {
            const std::lock_guard with(shared_->mutex);
            if (--shared_->alive == 0) throw;  // else another one will come to it
        }
    }

    std::shared_ptr<shared> shared_;
    std::mutex threads_mutex_;
    std::vector<std::thread> threads_;
};

using executor = basic_executor<std::function<void()>>;

}  // namespace ferry::detail
