#include <ferry/delivery.hpp>
#include <ferry/detail/executor.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using ferry::errc;
using ferry::outcome;
using ferry::outcome_kind;
using std::chrono::steady_clock;
using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

using delivery = ferry::basic_delivery<std::string>;
using request = ferry::basic_request<std::string>;
using reply = ferry::basic_reply<std::string>;
using state = ferry::detail::delivery_state<std::string>;

/// Keeps what is posted until the test runs it.
class manual_host final : public ferry::detail::delivery_host {
public:
    bool enqueue(const std::string& strand, std::function<void()>& job) override {
        if (fails) throw std::bad_alloc();
        if (stopped) return false;
        strands.push_back(strand);
        jobs.push_back(std::move(job));
        ++owed;
        return true;
    }
    void wake() override { owed = 0; }
    void withdraw(std::uint64_t key) override { withdrawn.push_back(key); }

    void run_all() {
        while (!jobs.empty()) {
            const auto job = std::move(jobs.front());
            jobs.pop_front();
            job();
        }
    }

    std::vector<std::string> strands;
    std::deque<std::function<void()>> jobs;
    std::vector<std::uint64_t> withdrawn;
    int owed = 0;  // jobs that no `wake` has followed
    bool stopped = false;
    bool fails = false;
};

/// Runs what is posted on threads, as servers and clients do.
class threaded_host final : public ferry::detail::delivery_host {
public:
    bool enqueue(const std::string& strand, std::function<void()>& job) override { return runs_.enqueue(strand, job); }
    void wake() override { runs_.wake(); }
    void withdraw(std::uint64_t) override {}
    void stop() { runs_.stop(steady_clock::now() + 60s); }

private:
    ferry::detail::executor runs_{3, [](const std::string& text) { ADD_FAILURE() << text; }};
};

outcome taken() { return {outcome_kind::taken, errc::ok, {}, 2}; }
outcome stopped() { return {outcome_kind::stopped, errc::stopped, "the server was stopped", 0}; }
outcome replied() { return {outcome_kind::replied, errc::ok, {}, 1}; }

struct a_delivery : testing::Test {
    std::shared_ptr<manual_host> host = std::make_shared<manual_host>();
    std::shared_ptr<state> of = std::make_shared<state>(host, "node");
    request handle{of};
    std::vector<std::string> order;

    void end(outcome how, std::optional<std::string> answer = std::nullopt) const {
        of->end(std::move(how), std::move(answer));
        of->tell();
    }
    auto noting(std::string name) {
        return [this, name = std::move(name)](const outcome&) { order.push_back(name); };
    }
};

using delivery_wait = a_delivery;
using delivery_callback = a_delivery;
using delivery_future = a_delivery;
using delivery_handle = a_delivery;

// --- waiting -----------------------------------------------------------------------------------------------------------------

TEST_F(delivery_wait, ends_with_the_delivery) {
    EXPECT_FALSE(handle.done());
    EXPECT_EQ(handle.wait_for(0s), std::nullopt);
    EXPECT_EQ(handle.wait_for(-1h), std::nullopt);
    end(taken());
    EXPECT_TRUE(handle.done());
    const auto how = handle.wait();
    EXPECT_EQ(how.kind, outcome_kind::taken);
    EXPECT_EQ(how.attempts, 2);
    const auto same = handle.wait_for(0s);
    ASSERT_TRUE(same.has_value());
    EXPECT_EQ(same->kind, outcome_kind::taken);
}

TEST_F(delivery_wait, takes_as_long_as_it_was_given) {
    const auto begin = steady_clock::now();
    EXPECT_EQ(handle.wait_for(10ms), std::nullopt);
    EXPECT_GE(steady_clock::now() - begin, 10ms);
}

TEST_F(delivery_wait, takes_a_time_of_any_unit_and_length) {
    EXPECT_EQ(handle.wait_for(std::chrono::duration<double>(0.001)), std::nullopt);
    EXPECT_EQ(handle.wait_for(std::chrono::duration<double>::min()), std::nullopt);
    std::jthread ends([&] { end(taken()); });
    EXPECT_TRUE(handle.wait_for(std::chrono::hours::max()).has_value());
    EXPECT_TRUE(handle.wait_for(std::chrono::nanoseconds::max()).has_value());
    EXPECT_TRUE(handle.wait_for(std::chrono::duration<double>(1e300)).has_value());
}

TEST_F(delivery_wait, wakes_all_who_wait) {
    std::vector<std::future<outcome_kind>> waiting;
    for (int i = 0; i < 3; ++i) {
        waiting.push_back(std::async(std::launch::async, [copy = handle] { return copy.wait().kind; }));
        waiting.push_back(std::async(std::launch::async, [copy = handle] { return copy.wait_for(60s)->kind; }));
        waiting.push_back(std::async(std::launch::async, [copy = handle] { return copy.get().how.kind; }));
    }
    end(stopped());
    for (auto& each : waiting) EXPECT_EQ(each.get(), outcome_kind::stopped);
}

TEST_F(delivery_wait, gives_the_reply) {
    end(replied(), "the answer");
    const reply got = handle.get();
    EXPECT_TRUE(got);
    EXPECT_EQ(got.message, "the answer");
    EXPECT_EQ(got.node, "node");
}

TEST_F(delivery_wait, tells_why_there_is_no_reply) {
    end(stopped());
    const reply got = handle.get();
    EXPECT_FALSE(got);
    EXPECT_EQ(got.how.reason, errc::stopped);
    EXPECT_EQ(got.how.text, "the server was stopped");
    EXPECT_EQ(got.message, "");
    EXPECT_EQ(got.node, "node");
}

TEST(delivery_reply, is_true_only_where_there_is_one) {
    EXPECT_FALSE((reply{taken(), {}, "node"}));
    EXPECT_FALSE((reply{stopped(), {}, "node"}));
    EXPECT_TRUE((reply{replied(), {}, "node"}));
}

// --- callbacks ---------------------------------------------------------------------------------------------------------------

TEST_F(delivery_callback, runs_once_on_the_host_in_order_before_and_after_the_end) {
    handle.on_done(noting("first"));
    handle.on_done(noting("second"));
    EXPECT_THAT(host->jobs, IsEmpty());
    end(taken());
    handle.on_done(noting("third"));
    EXPECT_THAT(order, IsEmpty()) << "callbacks run on the host's executor only";
    EXPECT_THAT(host->strands, ElementsAre("node", "node", "node"));
    host->run_all();
    EXPECT_THAT(order, ElementsAre("first", "second", "third"));
}

TEST_F(delivery_callback, is_told_the_outcome_and_the_reply) {
    outcome how;
    reply got;
    handle.on_done([&](const outcome& o) { how = o; });
    handle.on_reply([&](const reply& r) { got = r; });
    end(replied(), "the answer");
    host->run_all();
    EXPECT_EQ(how.kind, outcome_kind::replied);
    EXPECT_EQ(got.message, "the answer");
    EXPECT_EQ(got.node, "node");
}

TEST_F(delivery_callback, may_be_added_from_a_callback) {
    handle.on_done([&](const outcome&) {
        order.emplace_back("outer");
        handle.on_done(noting("inner"));
    });
    end(taken());
    host->run_all();
    EXPECT_THAT(order, ElementsAre("outer", "inner"));
}

TEST_F(delivery_callback, may_change_what_it_holds) {
    int calls = 0;
    handle.on_done([&calls, own = 0](const outcome&) mutable { calls += ++own; });
    end(taken());
    host->run_all();
    EXPECT_EQ(calls, 1);
}

TEST_F(delivery_callback, is_gone_after_its_run) {
    const auto owned = std::make_shared<int>();
    handle.on_done([owned](const outcome&) {});
    EXPECT_EQ(owned.use_count(), 2);
    end(taken());
    host->run_all();
    EXPECT_EQ(owned.use_count(), 1);
}

TEST_F(delivery_callback, runs_though_the_host_and_all_handles_are_gone) {
    handle.on_done(noting("before"));
    host.reset();
    end(stopped());
    EXPECT_THAT(order, ElementsAre("before"));
    handle.on_done(noting("after"));
    EXPECT_THAT(order, ElementsAre("before", "after"));
}

TEST_F(delivery_callback, runs_though_the_host_has_stopped) {
    end(stopped());
    host->stopped = true;
    handle.on_done(noting("after"));
    EXPECT_THAT(order, ElementsAre("after"));
}

TEST_F(delivery_callback, keeps_its_place_where_an_earlier_one_adds_it_without_a_host) {
    handle.on_done([&](const outcome&) {
        handle.on_done(noting("third"));
        order.emplace_back("first");
    });
    handle.on_done(noting("second"));
    host.reset();
    end(stopped());
    EXPECT_THAT(order, ElementsAre("first", "second", "third"));
}

// Who woke under the lock of whoever ends it would wait for that lock.
TEST_F(delivery_callback, is_handed_over_at_the_end_and_nobody_woken_before_all_is_told) {
    handle.on_done(noting("first"));
    auto future = handle.future();
    of->end(taken(), std::nullopt);
    EXPECT_TRUE(handle.done());
    EXPECT_THAT(host->strands, ElementsAre("node"));
    EXPECT_EQ(host->owed, 1);
    EXPECT_EQ(future.wait_for(0s), std::future_status::timeout);
    of->tell();
    EXPECT_EQ(host->owed, 0);
    EXPECT_EQ(future.wait_for(0s), std::future_status::ready);
    handle.on_done(noting("second"));
    EXPECT_EQ(host->owed, 0) << "it comes late, and under nobody's lock";
    host->run_all();
    EXPECT_THAT(order, ElementsAre("first", "second"));
}

TEST_F(delivery_callback, may_let_go_of_the_last_handle) {
    end(taken());
    host.reset();
    std::optional<request> last(std::move(handle));
    handle = request(std::make_shared<state>(std::weak_ptr<manual_host>(), "another"));
    of.reset();
    last->on_done([&](const outcome&) { last.reset(); });
    EXPECT_FALSE(last);
}

// No thread can be started for the callback, say.
TEST_F(delivery_callback, that_cannot_be_handed_over_leaves_nobody_waiting) {
    handle.on_done(noting("never"));
    auto future = handle.future();
    host->fails = true;
    {
        const ferry::detail::end_to_tell<std::string> told(of);
        EXPECT_THROW(of->end(taken(), std::nullopt), std::bad_alloc);
        EXPECT_EQ(future.wait_for(0s), std::future_status::timeout);
    }
    ASSERT_EQ(future.wait_for(0s), std::future_status::ready);
    EXPECT_EQ(future.get().how.kind, outcome_kind::taken);
}

// Threads add callbacks while the delivery ends.
TEST(delivery_race, each_callback_runs_once_and_in_its_threads_order) {
    constexpr std::size_t threads = 3;
    constexpr int callbacks = 100;
    for (int round = 0; round < 20; ++round) {
        const auto host = std::make_shared<threaded_host>();
        const auto of = std::make_shared<state>(host, "node");
        std::array<int, threads> next{};
        bool in_order = true;
        {
            std::latch together(threads + 1);
            std::vector<std::jthread> adding;
            for (auto& n : next) {
                adding.emplace_back([&] {
                    delivery handle(of);
                    together.arrive_and_wait();
                    for (int c = 0; c < callbacks; ++c) {
                        handle.on_done([&in_order, &n, c](const outcome& how) {
                            if (n++ != c || how.kind != outcome_kind::taken) in_order = false;
                        });
                    }
                });
            }
            together.arrive_and_wait();
            of->end(taken(), std::nullopt);
            of->tell();
        }
        host->stop();
        EXPECT_TRUE(in_order);
        EXPECT_THAT(next, Each(callbacks));
    }
}

// --- futures -----------------------------------------------------------------------------------------------------------------

TEST_F(delivery_future, gives_the_reply) {
    auto before = handle.future();
    end(replied(), "the answer");
    auto after = handle.future();
    for (auto* each : {&before, &after}) {
        ASSERT_EQ(each->wait_for(0s), std::future_status::ready) << "no callback stands before a future";
        const reply got = each->get();
        EXPECT_TRUE(got);
        EXPECT_EQ(got.message, "the answer");
        EXPECT_EQ(got.node, "node");
    }
}

TEST_F(delivery_future, gives_the_reason_why_there_is_no_reply) {
    auto future = handle.future();
    end(stopped());
    EXPECT_EQ(future.get().how.kind, outcome_kind::stopped);
}

// A stopped executor drops what is posted to it.
TEST_F(delivery_future, is_fulfilled_though_the_host_drops_its_jobs) {
    auto before = handle.future();
    end(stopped());
    auto after = handle.future();
    host->jobs.clear();
    EXPECT_EQ(before.get().how.kind, outcome_kind::stopped);
    EXPECT_EQ(after.get().how.kind, outcome_kind::stopped);
}

TEST_F(delivery_future, is_fulfilled_though_host_and_handle_are_gone) {
    auto future = request(of).future();
    host.reset();
    end(replied(), "the answer");
    of.reset();
    EXPECT_EQ(future.get().message, "the answer");
}

TEST(delivery_race, each_future_is_fulfilled) {
    for (int round = 0; round < 50; ++round) {
        const auto host = std::make_shared<threaded_host>();
        const auto of = std::make_shared<state>(host, "node");
        std::latch together(2);
        auto got = std::async(std::launch::async, [&] {
            request handle(of);
            together.arrive_and_wait();
            auto first = handle.future();
            auto second = handle.future();
            return first.get().message + second.get().message;
        });
        together.arrive_and_wait();
        of->end(replied(), "a");
        of->tell();
        EXPECT_EQ(got.get(), "aa");
    }
}

// --- handles -----------------------------------------------------------------------------------------------------------------

TEST_F(delivery_handle, tells_the_node_and_the_progress) {
    const delivery copy = handle;
    EXPECT_EQ(copy.node(), "node");
    EXPECT_EQ(copy.total_bytes(), 0U);
    EXPECT_EQ(copy.sent_bytes(), 0U);
    of->set_total(std::uint64_t{5} << 32);
    of->progressed(std::uint64_t{1} << 32);
    EXPECT_EQ(copy.total_bytes(), std::uint64_t{5} << 32);
    EXPECT_EQ(copy.sent_bytes(), std::uint64_t{1} << 32);
    of->progressed(7);  // another attempt has begun
    EXPECT_EQ(handle.sent_bytes(), 7U);
}

TEST_F(delivery_handle, cancel_reaches_the_host) {
    of->set_key(42);
    handle.cancel();
    EXPECT_THAT(host->withdrawn, ElementsAre(42U));
    EXPECT_FALSE(handle.done()) << "the host ends it";
}

TEST_F(delivery_handle, outlives_the_host) {
    end(taken());
    host.reset();
    handle.cancel();
    EXPECT_TRUE(handle.done());
    EXPECT_EQ(handle.wait().kind, outcome_kind::taken);
    EXPECT_EQ(handle.node(), "node");
}

TEST_F(delivery_handle, does_not_keep_the_host) {
    handle.on_done(noting("never"));
    const std::weak_ptr<manual_host> watched = host;
    host.reset();
    EXPECT_TRUE(watched.expired());
}

TEST_F(delivery_handle, does_nothing_when_it_is_dropped) {
    const std::weak_ptr<state> watched = of;
    {
        delivery other(of);
        other.on_done(noting("ran"));
    }
    EXPECT_THAT(host->withdrawn, IsEmpty());
    end(taken());
    host->run_all();
    EXPECT_THAT(order, ElementsAre("ran"));
    of.reset();
    handle = request(std::make_shared<state>(host, "another"));
    EXPECT_TRUE(watched.expired());
}

}  // namespace
