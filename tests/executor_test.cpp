#include <ferry/detail/executor.hpp>
#include <ferry/thread_pool.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using ferry::detail::executor;
using std::chrono::steady_clock;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// mallinfo2 does not know a sanitizer's allocator.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool memory_is_counted = false;
#elif defined(__has_feature)
constexpr bool memory_is_counted = !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer);
#else
constexpr bool memory_is_counted = true;
#endif

/// A deadline that a test that goes well never reaches.
steady_clock::time_point far() { return steady_clock::now() + 60s; }

/// What jobs and `on_throw` noted, in order.
class notes {
public:
    void add(std::string text) {
        const std::lock_guard lock(mutex_);
        all_.push_back(std::move(text));
    }
    std::vector<std::string> all() const {
        const std::lock_guard lock(mutex_);
        return all_;
    }
    executor::job adding(std::string text) {
        return [this, text = std::move(text)] { add(text); };
    }

private:
    mutable std::mutex mutex_;
    std::vector<std::string> all_;
};

/// Holds a job up until the test opens it, and knows when the job has come. Copies are the same gate.
class gate {
public:
    executor::job job() const {
        return [s = state_] {
            s->came.set_value();
            s->open.get_future().wait();
        };
    }
    void wait_for_job() const { state_->came.get_future().wait(); }
    void open() const { state_->open.set_value(); }

private:
    struct state {
        std::promise<void> came, open;
    };
    std::shared_ptr<state> state_ = std::make_shared<state>();
};

/// Runs something when its last copy is destroyed.
std::shared_ptr<void> at_destruction(std::function<void()> run) {
    return {nullptr, [run = std::move(run)](void*) { run(); }};
}

/// Counts how often it is entered, and notices where it is entered twice at a time.
class turnstile {
public:
    void enter() {
        if (inside_.fetch_add(1) != 0) overlapped_ = true;
        ++entered_;
        std::this_thread::yield();
        inside_.fetch_sub(1);
    }
    std::size_t entered() const { return entered_; }
    bool overlapped() const { return overlapped_; }

private:
    std::atomic<int> inside_{0};
    std::atomic<std::size_t> entered_{0};
    std::atomic<bool> overlapped_{false};
};

struct an_executor : testing::Test {
    ~an_executor() override { EXPECT_THAT(thrown.all(), IsEmpty()); }

    std::function<void(const std::string&)> report() {
        return [this](const std::string& text) { thrown.add(text); };
    }

    notes thrown;
};

using executor_strand = an_executor;
using executor_bound = an_executor;
using executor_ownership = an_executor;
using executor_stop = an_executor;
using executor_sharing = an_executor;

// --- strands -----------------------------------------------------------------------------------------------------------------

TEST_F(executor_strand, runs_its_jobs_in_order_and_one_at_a_time) {
    constexpr int jobs = 300;
    struct strand {
        turnstile door;
        int next = 0;  // not atomic: the executor has to order it
        bool in_order = true;
    };
    std::array<strand, 5> strands;
    executor runs(4, report());
    for (int j = 0; j < jobs; ++j) {
        for (std::size_t s = 0; s < strands.size(); ++s) {
            runs.post("strand " + std::to_string(s), [j, &of = strands[s]] {
                of.door.enter();
                of.in_order = of.in_order && of.next == j;
                ++of.next;
            });
        }
    }
    runs.stop(far());
    for (const auto& each : strands) {
        EXPECT_EQ(each.next, jobs);
        EXPECT_TRUE(each.in_order);
        EXPECT_FALSE(each.door.overlapped());
    }
}

TEST_F(executor_strand, keeps_the_order_of_each_thread_that_posts) {
    constexpr int jobs = 300;
    std::array<int, 4> next{};
    bool in_order = true;
    executor runs(3, report());
    {
        std::vector<std::jthread> posters;
        for (auto& n : next) {
            posters.emplace_back([&] {
                for (int j = 0; j < jobs; ++j)
                    runs.post("one", [&in_order, &n, j] { in_order = in_order && n++ == j; });
            });
        }
    }
    runs.stop(far());
    EXPECT_TRUE(in_order);
    EXPECT_THAT(next, testing::Each(jobs));
}

TEST_F(executor_strand, runs_in_parallel_to_others) {
    std::latch together(3);  // no job ends before the others have begun
    executor runs(3, report());
    for (const auto* name : {"a", "b", "c"}) runs.post(name, [&] { together.arrive_and_wait(); });
    runs.stop(far());
    EXPECT_TRUE(together.try_wait());
}

TEST_F(executor_strand, wakes_as_many_threads_as_there_are_strands) {
    executor runs(3, report());
    for (int round = 0; round < 100; ++round) {
        std::latch together(3), ended(3);
        for (const auto* name : {"a", "b", "c"}) {
            runs.post(name, [&] {
                together.arrive_and_wait();
                ended.count_down();
            });
        }
        ended.wait();
    }
}

TEST_F(executor_strand, holds_up_no_other_while_it_is_stuck) {
    const gate closed;
    std::promise<void> ran;
    executor runs(2, report());
    runs.post("stuck", closed.job());
    runs.post("stuck", [] {});
    closed.wait_for_job();
    runs.post("free", [&] { ran.set_value(); });
    ran.get_future().wait();
    closed.open();
}

TEST_F(executor_strand, runs_though_no_threads_were_asked_for) {
    std::promise<void> ran;
    executor runs(0, report());
    runs.post("s", [&] { ran.set_value(); });
    ran.get_future().wait();
}

std::size_t threads_of_this_process() {
    std::size_t threads = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/task")) ++threads;
    return threads;
}

TEST_F(executor_strand, starts_threads_when_they_are_needed_and_no_more) {
    const auto before = threads_of_this_process();
    executor runs(2, report());
    EXPECT_EQ(threads_of_this_process(), before);
    std::promise<void> open;
    const auto opened = open.get_future().share();
    for (const char* strand : {"a", "a", "b", "c", "d"}) {
        runs.post(strand, [opened] { opened.wait(); });
        EXPECT_LE(threads_of_this_process(), before + 2);
    }
    EXPECT_EQ(threads_of_this_process(), before + 2);
    open.set_value();
    runs.stop(far());
}

TEST_F(executor_strand, may_be_posted_to_from_a_job) {
    notes order;
    std::promise<void> done;
    executor runs(2, report());
    runs.post("s", [&] {
        runs.post("s", [&] {
            order.add("second");
            runs.post("other", [&] { done.set_value(); });
        });
        order.add("first");
    });
    done.get_future().wait();
    EXPECT_THAT(order.all(), ElementsAre("first", "second"));
}

TEST_F(executor_strand, runs_what_was_enqueued_once_it_is_woken) {
    executor runs(2, report());
    for (int i = 0; i < 300; ++i) {
        std::latch ran(i % 3 == 0 ? 2 : 3);
        executor::job a = [&] { ran.count_down(); }, b = a, c = a;
        EXPECT_TRUE(runs.enqueue("a", a));
        EXPECT_TRUE(runs.enqueue("b", b));
        if (i % 3 < 2) runs.wake();
        const bool posted = i % 3 == 0 || runs.post("c", c);
        EXPECT_TRUE(posted);
        ran.wait();
        std::this_thread::yield();  // so that a thread may fall asleep
    }
}

TEST_F(executor_strand, leaves_what_comes_after_a_stop_to_its_owner) {
    executor runs(2, report());
    runs.stop(far());
    bool ran = false;
    executor::job late = [&] { ran = true; };
    EXPECT_FALSE(runs.enqueue("a", late));
    ASSERT_TRUE(late);
    late();
    EXPECT_TRUE(ran);
}

TEST_F(executor_strand, goes_on_after_a_job_that_threw) {
    bool ran = false;
    notes told;
    executor runs(1, [&](const std::string& text) { told.add(text); });
    runs.post("s", [] { throw std::runtime_error("the job's text"); });
    runs.post("s", [] { throw 7; });
    runs.post("s", [&] { ran = true; });
    runs.stop(far());
    EXPECT_TRUE(ran);
    EXPECT_THAT(told.all(), ElementsAre("the job's text", HasSubstr("no std::exception")));
}

TEST_F(executor_strand, keeps_no_memory_while_it_is_idle) {
    if (!memory_is_counted) GTEST_SKIP() << "a sanitizer's allocator is at work";
    constexpr std::size_t strands = 64, name_bytes = 100'000;
    executor runs(2, report());
    const auto use_strands = [&](char letter) {
        for (std::size_t i = 0; i < strands; ++i) {
            std::promise<void> ran;
            runs.post(std::string(name_bytes + i, letter), [&] { ran.set_value(); });
            ran.get_future().wait();
        }
    };
    const auto used = [] { return mallinfo2().uordblks + mallinfo2().hblkhd; };
    use_strands('a');
    const auto before = used();
    use_strands('b');
    use_strands('c');
    EXPECT_LT(used(), before + 20 * name_bytes);  // the last strands may just be ending
}

// --- post_bounded ------------------------------------------------------------------------------------------------------------

TEST_F(executor_bound, drops_the_oldest_and_counts) {
    const gate closed;
    notes ran;
    executor runs(1, report());
    runs.post("s", closed.job());
    closed.wait_for_job();
    std::size_t dropped = 0;
    for (int i = 0; i < 5; ++i) dropped += runs.post_bounded("s", ran.adding(std::to_string(i)), 3);
    EXPECT_EQ(dropped, 2U);
    closed.open();
    runs.stop(far());
    EXPECT_THAT(ran.all(), ElementsAre("2", "3", "4"));
}

TEST_F(executor_bound, drops_the_oldest_beyond_its_bytes) {
    const gate closed;
    notes ran;
    executor runs(1, report());
    runs.post("s", closed.job());
    closed.wait_for_job();
    const auto post = [&](const std::string& name, std::size_t bytes) {
        return runs.post_bounded("s", ran.adding(name), 9, bytes, 100);
    };
    EXPECT_EQ(post("a", 40), 0U);
    EXPECT_EQ(post("b", 40), 0U);
    EXPECT_EQ(post("c", 20), 0U) << "there is just room";
    EXPECT_EQ(post("d", 50), 2U);
    EXPECT_EQ(post("e", 500), 2U) << "one is always taken";
    EXPECT_EQ(post("f", 1), 1U);
    EXPECT_EQ(post("g", 99), 0U);
    closed.open();
    runs.stop(far());
    EXPECT_THAT(ran.all(), ElementsAre("f", "g"));
}

TEST_F(executor_bound, never_drops_what_was_posted_without_one) {
    const gate closed;
    notes ran;
    executor runs(1, report());
    runs.post("s", closed.job());
    closed.wait_for_job();
    runs.post("s", ran.adding("kept 1"));
    EXPECT_EQ(runs.post_bounded("s", ran.adding("old"), 1), 0U);
    runs.post("s", ran.adding("kept 2"));
    EXPECT_EQ(runs.post_bounded("s", ran.adding("new"), 1), 1U);
    runs.post("s", ran.adding("kept 3"));
    closed.open();
    runs.stop(far());
    EXPECT_THAT(ran.all(), ElementsAre("kept 1", "kept 2", "new", "kept 3"));
}

TEST_F(executor_bound, counts_what_waits_in_the_strand_only) {
    const gate closed, in_a;
    notes ran;
    executor runs(1, report());
    runs.post("busy", closed.job());
    closed.wait_for_job();
    EXPECT_EQ(runs.post_bounded("a", in_a.job(), 1), 0U);
    EXPECT_EQ(runs.post_bounded("b", ran.adding("b"), 1), 0U);
    closed.open();
    in_a.wait_for_job();
    EXPECT_EQ(runs.post_bounded("a", ran.adding("a"), 1), 0U);  // the first runs, and waits no longer
    in_a.open();
    runs.stop(far());
    EXPECT_THAT(ran.all(), ElementsAre("b", "a"));
}

TEST_F(executor_bound, may_drop_all_that_waits_in_a_strand) {
    const std::array<gate, 3> closed;
    turnstile door;
    executor runs(closed.size(), report());
    for (std::size_t i = 0; i < closed.size(); ++i) runs.post("stuck " + std::to_string(i), closed[i].job());
    for (const auto& each : closed) each.wait_for_job();
    std::size_t dropped = 0;
    for (int i = 0; i < 10; ++i) {
        dropped += runs.post_bounded(
            "s", [&] { door.enter(); }, 1);
    }
    EXPECT_EQ(dropped, 9U);
    for (const auto& each : closed) each.open();
    runs.stop(far());
    EXPECT_EQ(door.entered(), 1U);
}

TEST_F(executor_bound, runs_or_drops_each_job_under_load) {
    constexpr std::size_t posters = 4, jobs = 500;
    std::atomic<std::size_t> dropped{0};
    turnstile door;
    executor runs(4, report());
    {
        std::vector<std::jthread> threads;
        for (std::size_t bound = 1; bound <= posters; ++bound) {
            threads.emplace_back([&, bound] {
                for (std::size_t j = 0; j < jobs; ++j) {
                    dropped += runs.post_bounded(
                        "s", [&] { door.enter(); }, bound);
                }
            });
        }
    }
    runs.stop(far());
    EXPECT_EQ(door.entered() + dropped, posters * jobs);
    EXPECT_FALSE(door.overlapped());
}

// --- what jobs own -----------------------------------------------------------------------------------------------------------

TEST_F(executor_ownership, ends_before_the_next_job_of_the_strand) {
    notes order;
    executor runs(2, report());
    for (const auto* name : {"1", "2"}) {
        runs.post("s", [&order, name, owned = at_destruction(order.adding(std::string("gone ") + name))] {
            order.add(std::string("ran ") + name);
        });
    }
    runs.stop(far());
    EXPECT_THAT(order.all(), ElementsAre("ran 1", "gone 1", "ran 2", "gone 2"));
}

// The next four would hang if a job were destroyed with the executor's lock held.
TEST_F(executor_ownership, may_post_when_its_job_has_run) {
    std::promise<void> ran;
    executor runs(1, report());
    runs.post("s", [owned = at_destruction([&] { runs.post("s", [&] { ran.set_value(); }); })] {});
    ran.get_future().wait();
}

TEST_F(executor_ownership, may_post_when_its_job_is_pushed_out) {
    const gate closed;
    notes ran;
    executor runs(1, report());
    runs.post("s", closed.job());
    closed.wait_for_job();
    runs.post_bounded(
        "s", [owned = at_destruction([&] { runs.post("s", ran.adding("posted")); })] {}, 1);
    EXPECT_EQ(runs.post_bounded("s", ran.adding("newer"), 1), 1U);
    closed.open();
    runs.stop(far());
    EXPECT_THAT(ran.all(), testing::UnorderedElementsAre("newer", "posted"));
}

TEST_F(executor_ownership, may_post_when_its_job_is_dropped_by_stop) {
    const gate closed;
    notes order;
    std::promise<void> stopped;
    executor runs(1, report());
    runs.post("s", [&, wait = closed.job()] {
        wait();
        runs.stop(far());  // not for what waits behind this job
        order.add("stopped");
        stopped.set_value();
    });
    closed.wait_for_job();
    runs.post("s", [owned = at_destruction([&] {
                        runs.post("s", order.adding("too late"));
                        order.add("dropped");
                    })] {});
    closed.open();
    stopped.get_future().wait();
    EXPECT_THAT(order.all(), ElementsAre("dropped", "stopped"));
}

TEST_F(executor_ownership, may_post_when_its_job_comes_too_late) {
    notes order;
    executor runs(1, report());
    runs.stop(far());
    runs.post("s", [&order, owned = at_destruction([&] {
                                runs.post("s", order.adding("too late"));
                                order.add("dropped");
                            })] { order.add("ran"); });
    EXPECT_THAT(order.all(), ElementsAre("dropped"));
}

TEST_F(executor_ownership, may_be_of_the_executor_itself) {
    const gate closed;
    std::promise<void> gone;
    auto runs = std::make_shared<executor>(2, report());
    runs->post("s", closed.job());
    closed.wait_for_job();
    // A pair's second part is destroyed first.
    runs->post("s", [owned = std::pair(at_destruction([&] { gone.set_value(); }), runs)] {});
    runs.reset();
    closed.open();
    gone.get_future().wait();
}

// --- stop --------------------------------------------------------------------------------------------------------------------

TEST_F(executor_stop, runs_what_was_posted) {
    constexpr std::size_t jobs = 1000;
    std::atomic<std::size_t> ran{0};
    executor runs(2, report());
    for (std::size_t i = 0; i < jobs; ++i) runs.post("strand " + std::to_string(i % 7), [&] { ++ran; });
    runs.stop(far());
    EXPECT_EQ(ran, jobs);
}

TEST_F(executor_stop, runs_what_the_last_jobs_post) {
    int left = 100;
    executor runs(2, report());
    std::function<void()> again = [&] {
        if (--left > 0) runs.post(std::to_string(left % 3), again);
    };
    runs.post("s", again);
    runs.stop(far());
    EXPECT_EQ(left, 0);
}

TEST_F(executor_stop, may_be_called_twice) {
    executor runs(2, report());
    runs.stop(far());
    runs.stop(far());
}

TEST_F(executor_stop, from_inside_a_job_runs_the_other_strands_and_returns) {
    std::latch all(3);  // both strands, and whoever has posted all that is to run
    std::atomic<bool> other{false};
    std::promise<bool> stopped;
    executor runs(2, report());
    runs.post("s", [&] {
        all.arrive_and_wait();
        runs.stop(far());
        stopped.set_value(other);
    });
    runs.post("t", [&] { all.arrive_and_wait(); });
    runs.post("t", [&] { other = true; });
    all.count_down();
    EXPECT_TRUE(stopped.get_future().get());
}

TEST_F(executor_stop, returns_at_the_deadline_though_a_job_is_stuck) {
    const gate stuck;
    std::promise<void> ended;
    std::atomic<bool> waiting_ran{false};
    {
        executor runs(2, report());
        runs.post("s", [wait = stuck.job(), owned = at_destruction([&] { ended.set_value(); })] { wait(); });
        stuck.wait_for_job();
        runs.post("s", [&] { waiting_ran = true; });
        const auto deadline = steady_clock::now() + 20ms;
        runs.stop(deadline);
        EXPECT_GE(steady_clock::now(), deadline);
        EXPECT_LT(steady_clock::now(), deadline + 30s);
    }
    stuck.open();  // it outlives the executor
    ended.get_future().wait();
    EXPECT_FALSE(waiting_ran);
}

// --- threads that several share ------------------------------------------------------------------------------------------------

std::shared_ptr<executor::workers> threads_of(const ferry::thread_pool& pool) {
    return ferry::detail::threads_of(pool, 0);
}

TEST_F(executor_sharing, has_no_more_threads_than_the_pool) {
    constexpr std::size_t executors = 20;
    const ferry::thread_pool pool(2);
    std::mutex mutex;
    std::set<std::thread::id> seen;
    std::size_t ran = 0;
    std::vector<std::unique_ptr<executor>> all;
    for (std::size_t i = 0; i < executors; ++i) {
        all.push_back(std::make_unique<executor>(threads_of(pool), report()));
        for (int job = 0; job < 10; ++job) {
            all.back()->post("s", [&] {
                const std::lock_guard lock(mutex);
                seen.insert(std::this_thread::get_id());
                ++ran;
            });
        }
    }
    for (auto& each : all) each->stop(far());
    EXPECT_EQ(ran, executors * 10);
    EXPECT_LE(seen.size(), 2U);
}

TEST_F(executor_sharing, ends_the_threads_with_their_last_user) {
    std::atomic<bool> ran{false};
    auto pool = std::make_optional<ferry::thread_pool>(1);
    const std::weak_ptr<executor::workers> threads = threads_of(*pool);
    {
        executor runs(threads_of(*pool), report());
        pool.reset();
        runs.post("s", [&] { ran = true; });
        runs.stop(far());
    }
    EXPECT_TRUE(ran);
    EXPECT_TRUE(threads.expired());  // each thread keeps them
}

TEST_F(executor_sharing, keeps_the_threads_for_who_comes_next) {
    auto pool = std::make_optional<ferry::thread_pool>(1);
    const std::weak_ptr<executor::workers> threads = threads_of(*pool);
    std::thread::id first, second;
    executor(threads_of(*pool), report()).stop(far());
    for (auto* who : {&first, &second}) {
        executor runs(threads_of(*pool), report());
        runs.post("s", [who] { *who = std::this_thread::get_id(); });
        runs.stop(far());
    }
    EXPECT_EQ(first, second);
    pool.reset();
    EXPECT_TRUE(threads.expired());
}

TEST_F(executor_sharing, stops_without_the_others) {
    const ferry::thread_pool pool(1);
    const gate closed;
    notes ran;
    executor stays(threads_of(pool), report());
    auto goes = std::make_optional<executor>(threads_of(pool), report());
    stays.post("s", closed.job());
    closed.wait_for_job();
    goes->post("s", ran.adding("dropped"));
    stays.post("s", ran.adding("kept"));
    stays.post("t", ran.adding("kept, too"));
    goes->stop(steady_clock::now());
    EXPECT_FALSE(goes->post("s", ran.adding("too late")));
    goes.reset();
    closed.open();
    stays.stop(far());
    EXPECT_THAT(ran.all(), testing::UnorderedElementsAre("kept", "kept, too"));
}

TEST_F(executor_sharing, waits_in_stop_for_its_own_jobs_only) {
    const ferry::thread_pool pool(2);
    const gate others;
    std::promise<void> inside;
    std::atomic<bool> stopping{false}, ended{false};
    executor busy(threads_of(pool), report()), goes(threads_of(pool), report());
    busy.post("s", others.job());
    others.wait_for_job();
    goes.post("s", [&] {
        inside.set_value();
        while (!stopping) std::this_thread::yield();
        ended = true;
    });
    inside.get_future().wait();
    std::jthread lets_go([&] { stopping = true; });
    const auto deadline = far();
    goes.stop(deadline);
    EXPECT_TRUE(ended);
    EXPECT_LT(steady_clock::now(), deadline);
    others.open();
}

TEST_F(executor_sharing, knows_whose_job_it_is_in) {
    const ferry::thread_pool pool(1);
    executor one(threads_of(pool), report()), other(threads_of(pool), report());
    std::promise<std::pair<bool, bool>> told;
    one.post("s", [&] { told.set_value({one.is_inside(), other.is_inside()}); });
    EXPECT_EQ(told.get_future().get(), std::pair(true, false));
    EXPECT_FALSE(one.is_inside());
}

TEST_F(executor_sharing, may_stop_another_from_a_job) {
    const ferry::thread_pool pool(2);
    executor one(threads_of(pool), report()), other(threads_of(pool), report());
    std::atomic<bool> ran{false};
    other.post("s", [&] { ran = true; });
    std::promise<bool> stopped;
    one.post("s", [&] {
        other.stop(far());
        stopped.set_value(ran);
    });
    EXPECT_TRUE(stopped.get_future().get());
}

TEST_F(executor_sharing, lets_go_of_its_owner_s_function_where_it_may_post) {
    const ferry::thread_pool pool(2);
    executor other(threads_of(pool), report());
    std::promise<void> gone;
    const gate closed;
    std::promise<void> stopped;
    auto goes = std::make_optional<executor>(
        threads_of(pool), [owned = at_destruction([&] { other.post("s", [&] { gone.set_value(); }); })](auto&) {});
    goes->post("s", [&, wait = closed.job()] {
        goes->stop(steady_clock::now());
        stopped.set_value();
        wait();
    });
    stopped.get_future().wait();
    closed.wait_for_job();
    goes.reset();  // its job keeps the function
    closed.open();
    gone.get_future().wait();
}

TEST_F(executor_sharing, ends_a_stop_that_waits_where_another_comes_first) {
    const ferry::thread_pool pool(1);
    const gate closed;
    executor busy(threads_of(pool), report()), goes(threads_of(pool), report());
    busy.post("s", closed.job());
    closed.wait_for_job();
    goes.post("s", [] { FAIL() << "no thread is free"; });
    const auto deadline = far();
    std::jthread patient([&] { goes.stop(deadline); });
    goes.stop(steady_clock::now() + 20ms);
    patient.join();
    EXPECT_LT(steady_clock::now(), deadline);
    closed.open();
}

TEST_F(executor_sharing, outlives_a_move_of_the_pool) {
    ferry::thread_pool pool(1);
    const ferry::thread_pool moved = std::move(pool);
    EXPECT_EQ(threads_of(pool), threads_of(moved));
}

TEST_F(executor_sharing, may_have_its_last_user_end_in_a_job) {
    std::promise<void> gone;
    auto runs = [&] {
        const ferry::thread_pool pool(1);
        return std::make_shared<executor>(threads_of(pool), report());
    }();
    auto& same = *runs;
    same.post("s", [owned = std::pair(at_destruction([&] { gone.set_value(); }), std::exchange(runs, nullptr))] {});
    gone.get_future().wait();
}

}  // namespace
