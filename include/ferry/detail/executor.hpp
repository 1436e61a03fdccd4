// layer 1
// Where user code runs: a few threads, started when they are needed, and one strand a name. What is posted to a strand runs
// in order and never at the same time; strands run in parallel. A strand takes memory only while something is posted to it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

/// Threads of one executor, or of several. They run strands in the order in which these became ready, a job at a time.
template <class Job>
class basic_workers : public std::enable_shared_from_this<basic_workers<Job>> {
public:
    struct item {
        Job work;
        bool droppable;
        std::size_t bytes;
    };
    struct strand {
        std::list<item> items;
        bool running = false;
        std::size_t droppable = 0;
        std::size_t droppable_bytes = 0;
    };
    using strands = std::unordered_map<std::string, strand>;

    /// What one executor has here; the workers' mutex guards it.
    struct share {
        strands open;
        std::size_t ready = 0;    // strands with work that nobody runs
        std::size_t running = 0;  // jobs
        bool stopped = false;
        bool left = false;
        std::condition_variable idle;
        std::function<void(const std::string&)> on_throw;
    };

    explicit basic_workers(std::size_t threads) : most_(std::max<std::size_t>(1, threads)) {}

    std::mutex& mutex() noexcept { return mutex_; }

    /// Whose job this thread runs.
    static const share*& current() {
        static thread_local const share* own = nullptr;
        return own;
    }

    void join() {
        const std::lock_guard lock(mutex_);
        ++users_;
    }

    /// The last who leaves ends the threads. What still runs at the deadline ends on its own.
    void leave(std::chrono::steady_clock::time_point deadline) {
        const std::size_t mine = own_threads_of() == this ? 1 : 0;
        std::vector<std::thread> threads;
        bool all_ended = false;
        {
            std::unique_lock lock(mutex_);
            if (--users_ > 0) return;
            over_ = true;
            work_.notify_all();
            all_ended = ended_.wait_until(lock, deadline, [&] { return alive_ <= mine; });
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

    /// With the mutex held. A thread that sleeps sees it at the next `wake`. Where it throws, nothing has changed.
    void push(const std::shared_ptr<share>& of, typename strands::value_type& which) {
        ready_.push_back({of, &which});
        ++of->ready;
        if (ready_.size() > waiting_ && alive_ < most_) return start_one();
        if (has_to_wake()) wake_owed_ = true;
    }
    /// Without the mutex.
    void wake() {
        if (wake_owed_ && wake_owed_.exchange(false)) work_.notify_one();
    }

    /// It is about to leave its strand.
    static void forget_droppable(strand& from, const item& what) {
        if (!what.droppable) return;
        --from.droppable;
        from.droppable_bytes -= what.bytes;
    }

    /// With the mutex held: none of its strands will run.
    void forget(share& of) {
        std::erase_if(ready_, [&](const turn& each) { return each.of.get() == &of; });
        of.ready = 0;
    }

private:
    struct turn {
        std::shared_ptr<share> of;
        typename strands::value_type* which;
    };

    static const basic_workers*& own_threads_of() {
        static thread_local const basic_workers* own = nullptr;
        return own;
    }

    /// One thread is woken at a time: it wakes the next one where there is more to do by then.
    bool has_to_wake() {
        if (ready_.empty() || waiting_ == 0 || waking_) return false;
        return waking_ = true;
    }

    void start_one() {
        ++alive_;
        try {
            threads_.emplace_back([self = this->shared_from_this()] { self->run(); });
        } catch (...) {
            if (--alive_ > 0) return;  // another one will come to it
            --ready_.back().of->ready;
            ready_.pop_back();
            throw;
        }
    }

    void run() {
        own_threads_of() = this;
        std::unique_lock lock(mutex_);
        while (true) {
            while (!over_ && ready_.empty()) {
                ++waiting_;
                work_.wait(lock);
                --waiting_;
                waking_ = false;
            }
            if (over_) break;
            turn next = std::move(ready_.front());
            ready_.pop_front();
            run_one(lock, next);
            if (!next.of->stopped) continue;
            lock.unlock();
            next.of.reset();  // perhaps the last of it, with a function of the user's
            lock.lock();
        }
        --alive_;
        ended_.notify_all();
    }

    void run_one(std::unique_lock<std::mutex>& lock, turn& next) {
        auto& [of, which] = next;
        strand& s = which->second;
        std::list<item> job;
        job.splice(job.begin(), s.items, s.items.begin());
        forget_droppable(s, job.front());
        s.running = true;
        --of->ready;
        ++of->running;
        const bool more = has_to_wake();
        lock.unlock();
        if (more) work_.notify_one();
        current() = of.get();
        try {
            job.front().work();
        } catch (const std::exception& e) {
            of->on_throw(e.what());
        } catch (...) {
            of->on_throw("an exception that is no std::exception");
        }
        job.clear();
        current() = nullptr;
        lock.lock();
        --of->running;
        if (!of->stopped) {  // else the strand is gone
            s.running = false;
            if (s.items.empty()) {
                of->open.erase(of->open.find(which->first));
            } else {
                ready_.push_back({of, which});
                ++of->ready;
            }
        }
        if (of->ready == 0) of->idle.notify_all();
    }

    const std::size_t most_;
    std::mutex mutex_;
    std::condition_variable work_, ended_;
    std::deque<turn> ready_;
    std::vector<std::thread> threads_;
    std::size_t users_ = 0;
    std::size_t waiting_ = 0;  // threads
    std::size_t alive_ = 0;
    bool waking_ = false;  // a thread was woken, or `wake` is about to, and it hasn't come yet
    bool over_ = false;
    std::atomic<bool> wake_owed_{false};  // by `wake`, to a thread that sleeps
};

/// `Job` is called without arguments; the alias below is for what users hand over.
template <class Job>
class basic_executor {
public:
    using job = Job;
    using workers = basic_workers<Job>;

    /// `on_throw(text)` is told of a job that threw.
    basic_executor(std::size_t threads, std::function<void(const std::string&)> on_throw)
        : basic_executor(std::make_shared<workers>(threads), std::move(on_throw)) {}

    /// Shares the threads with others. A job that waits for long holds them up.
    basic_executor(std::shared_ptr<workers> threads, std::function<void(const std::string&)> on_throw)
        : workers_(std::move(threads)), share_(std::make_shared<share>()) {
        share_->on_throw = std::move(on_throw);
        workers_->join();
    }
    basic_executor(const basic_executor&) = delete;
    basic_executor& operator=(const basic_executor&) = delete;
    ~basic_executor() { stop(std::chrono::steady_clock::now()); }

    /// Never waits. False after `stop`: the job is dropped.
    bool post(const std::string& strand, job work) {
        const auto threads = workers_;  // the job may have the last of this executor
        const bool taken = enqueue(strand, work);
        threads->wake();
        return taken;
    }

    /// The same, but a thread that sleeps is not woken before `wake`: under a lock that the job will want, it would wake to wait.
    /// After `stop` the job is left to the caller. The executor has to outlive both calls.
    bool enqueue(const std::string& strand, job& work) { return add(strand, work, {}).has_value(); }
    void wake() { workers_->wake(); }

    /// As `post`, but at most `bound` such jobs wait in a strand, which hold at most `max_bytes`, or one of them: past it the
    /// oldest are dropped. Returns how many were.
    std::size_t post_bounded(const std::string& strand, job work, std::size_t bound, std::size_t bytes = 0,
                             std::size_t max_bytes = std::numeric_limits<std::size_t>::max()) {
        const auto threads = workers_;
        const auto dropped = add(strand, work, {bound, bytes, max_bytes}).value_or(0);
        threads->wake();
        return dropped;
    }

    /// True in one of its own jobs.
    bool is_inside() const { return workers::current() == share_.get(); }

    /// Runs what was posted, but waits no longer than the deadline (and a moment for jobs to end): what still runs then
    /// ends on its own, what still waits is dropped. May be called from a job, which isn't waited for.
    void stop(std::chrono::steady_clock::time_point deadline) {
        const std::size_t mine = is_inside() ? 1 : 0;
        typename workers::strands dropped;  // destroyed without the lock: a job may own anything
        auto grace = deadline;
        {
            std::unique_lock lock(workers_->mutex());
            share_->idle.wait_until(lock, deadline, [&] { return share_->ready == 0 && share_->running <= mine; });
            share_->stopped = true;
            dropped.swap(share_->open);
            workers_->forget(*share_);
            share_->idle.notify_all();
            if (std::exchange(share_->left, true)) return;
            grace = std::max(deadline, std::chrono::steady_clock::now() + std::chrono::seconds(1));
            share_->idle.wait_until(lock, grace, [&] { return share_->running <= mine; });
        }
        workers_->leave(grace);
    }

private:
    using share = typename workers::share;

    /// How a job may be dropped, or no bound.
    struct room {
        std::size_t bound = 0;
        std::size_t bytes = 0;  // of this job
        std::size_t max_bytes = 0;

        template <class Strand>
        bool exceeded(const Strand& by) const {
            return by.droppable > 0 && (by.droppable >= bound || by.droppable_bytes + bytes > max_bytes);
        }
    };

    /// How many jobs were dropped for it; nothing where it was not taken.
    std::optional<std::size_t> add(const std::string& name, job& work, const room& in) {
        std::list<typename workers::item> added, oldest;  // made and destroyed without the lock
        const bool droppable = in.bound > 0;
        added.push_back({std::move(work), droppable, in.bytes});
        {
            const std::lock_guard lock(workers_->mutex());
            if (share_->stopped) {
                work = std::move(added.front().work);
                return std::nullopt;
            }
            auto& strand = *share_->open.try_emplace(name).first;
            auto& s = strand.second;
            const bool idle_until_now = !s.running && s.items.empty();
            if (idle_until_now) workers_->push(share_, strand);
            while (droppable && in.exceeded(s)) {
                const auto next =
                    std::find_if(s.items.begin(), s.items.end(), [](const auto& i) { return i.droppable; });
                workers::forget_droppable(s, *next);
                oldest.splice(oldest.end(), s.items, next);
            }
            s.items.splice(s.items.end(), added);
            if (!droppable) return 0;
            ++s.droppable;
            s.droppable_bytes += in.bytes;
        }
        return oldest.size();
    }

    const std::shared_ptr<workers> workers_;
    const std::shared_ptr<share> share_;
};

using executor = basic_executor<std::function<void()>>;

}  // namespace ferry::detail
