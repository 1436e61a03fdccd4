#include <ferry/intake.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace in = ferry::intake_events;
namespace out = ferry::intake_effects;
using ferry::errc;
using ferry::outcome_kind;
using ferry::poll_end;
using std::chrono::milliseconds;
using time_point = std::chrono::steady_clock::time_point;

struct policy {
    using policy_category = ferry::retry_tag;

    int max_resends = 2;
    milliseconds pause{0};

    std::optional<milliseconds> next(const ferry::failed_attempt& failed) const noexcept {
        if (failed.attempts > max_resends) return std::nullopt;
        return pause;
    }
};

/// Both can only be moved.
struct types {
    using task = std::unique_ptr<int>;
    using ticket = std::unique_ptr<int>;
    using retry = policy;
    using chunk_size = ferry::max_message_bytes_length<10>;
};

/// Streams have tests of their own.
ferry::intake_limits by_poll(ferry::intake_limits limits) {
    limits.streams = false;
    return limits;
}

template <class Effect>
concept of_streams = std::same_as<Effect, out::open_stream> || std::same_as<Effect, out::close_stream> ||
    std::same_as<Effect, out::tell_receipt> || std::same_as<Effect, out::renew_leases> ||
    std::same_as<Effect, out::tell_leaving> || std::same_as<Effect, out::send_reply> ||
    std::same_as<Effect, out::forget_task> || std::same_as<Effect, out::stop_task>;

/// The core under virtual time, with a layer above that only writes down what it is told.
class world {
public:
    explicit world(ferry::intake_limits limits = {}, policy retry = {}, std::uint64_t seed = 1)
        : core_(by_poll(limits), retry, seed) {}

    /// What came out since the last call, without warnings and the time to wake.
    std::string said() {
        std::string all;
        for (const auto& each : std::exchange(log_, {})) all += (all.empty() ? "" : " ") + each;
        return all;
    }

    std::string start() {
        step(in::started{});
        return said();
    }

    template <class Event>
    ferry::upload_key step(Event event) {
        const auto sink = [this](auto&& effect) { this->take(effect); };
        if constexpr (std::is_same_v<Event, in::reply_submitted<types::ticket>>) {
            return core_.step(std::move(event), {now, {}}, sink);
        } else {
            core_.step(std::move(event), {now, {}}, sink);
            return 0;
        }
    }

    /// Lets the time pass, waking the core exactly when it asks for it.
    void pass(milliseconds span) {
        const auto end = now + span;
        for (int i = 0; wake && *wake <= end; ++i) {
            ASSERT_LT(i, 1000) << "it is busy with nothing";
            now = std::max(now, *wake);
            tick();
        }
        now = end;
    }

    /// Wakes the core. What is due has been done afterwards, so it must not ask for the past.
    void tick() {
        wake.reset();
        ++ticks;
        step(in::time_passed{});
        if (wake) {
            EXPECT_GT(*wake, now);
        }
    }

    /// How long the core waits before it does something; it must do it then.
    milliseconds pause_until_something() {
        const auto from = now;
        log_.clear();
        for (int i = 0; log_.empty() && wake && i < 1000; ++i) {
            now = std::max(now, *wake);
            tick();
        }
        EXPECT_FALSE(log_.empty()) << "nothing came of it";
        return std::chrono::duration_cast<milliseconds>(now - from);
    }

    void sent() { step(in::poll_sent{poll}); }
    void accepted() { step(in::poll_accepted{poll}); }
    void progress() { step(in::poll_progress{poll}); }
    void task(int number, std::uint64_t size = 1) {
        step(in::task_arrived<types::task>{poll, std::make_unique<int>(number), size});
    }
    void end_poll(poll_end how, const char* why = "so it is") { step(in::poll_ended{poll, how, why}); }
    void whole_task(int number, std::uint64_t size = 1) {
        task(number, size);
        end_poll(poll_end::well);
    }
    void returned() { step(in::task_returned{running}); }

    ferry::upload_key submit(int number, std::size_t size = 1, milliseconds expires_after = milliseconds::max()) {
        auto content = std::make_shared<const ferry::payload>(ferry::bytes::copy(std::string(size, 'x')));
        names_[content.get()] = number;
        kept_.push_back(content);
        return step(in::reply_submitted<types::ticket>{std::make_unique<int>(number), content, expires_after});
    }
    void range_sent(int number) { step(in::upload_range_sent{upload.at(number)}); }
    void end_upload(int number, errc reason = errc::ok) {
        step(in::upload_ended{upload.at(number), reason, "so it is"});
    }

    void log(std::string content) {
        step(in::feedback_submitted{std::make_shared<const std::string>(std::move(content))});
    }
    void end_feedback(errc reason = errc::ok) { step(in::feedback_ended{feedback, reason, "so it is"}); }

    const ferry::intake<types>& core() const { return core_; }

    time_point now{1h};
    std::optional<time_point> wake;
    std::uint64_t poll = 0;               // the last one
    ferry::task_key running = 0;          // the last one
    std::uint64_t feedback = 0;           // the last one
    std::map<int, std::uint64_t> upload;  // the last attempt of each
    std::map<int, ferry::outcome> ends;
    std::vector<std::string> warnings;
    int ticks = 0;

private:
    void take(out::reconnect) { log_.emplace_back("reconnect"); }
    void take(out::open_poll e) {
        poll = e.poll_id;
        log_.emplace_back("poll");
    }
    void take(out::cancel_poll e) {
        EXPECT_EQ(e.poll_id, poll);
        log_.emplace_back("cancel-poll");
    }
    void take(out::run_task<types::task>& e) {
        running = e.key;
        log_.push_back("run:" + std::to_string(*e.task));
    }
    void take(out::open_upload e) { opened_ = e.upload_id; }
    void take(const out::send_range& e) {
        const int number = names_.at(e.content.get());
        if (e.part.iteration == 1) {
            EXPECT_EQ(e.upload_id, opened_);
            upload[number] = e.upload_id;
        }
        EXPECT_EQ(e.upload_id, upload.at(number));
        log_.push_back("send:" + std::to_string(number) +
                       (e.part.size == 1 ? std::string()
                                         : ":" + std::to_string(e.part.iteration) + "/" + std::to_string(e.part.size)));
    }
    void take(out::cancel_upload e) {
        const auto is = [&](const auto& each) { return each.second == e.upload_id; };
        log_.push_back("cancel:" + std::to_string(std::find_if(upload.begin(), upload.end(), is)->first));
    }
    void take(out::ended<types::ticket>& e) {
        EXPECT_TRUE(ends.emplace(*e.ticket, e.how).second) << "ended twice: " << *e.ticket;
        log_.push_back("ended:" + std::to_string(*e.ticket) + ":" + std::string(to_string(e.how.kind)));
    }
    void take(const out::progressed<types::ticket>& e) {
        log_.push_back("at:" + std::to_string(*e.ticket) + ":" + std::to_string(e.sent));
    }
    void take(const out::send_feedback& e) {
        feedback = e.feedback_id;
        log_.push_back("feedback:" + *e.content);
    }
    void take(out::cancel_feedback e) {
        EXPECT_EQ(e.feedback_id, feedback);
        log_.emplace_back("cancel-feedback");
    }
    void take(out::link_changed e) { log_.emplace_back(e.connected ? "up" : "down"); }
    void take(const out::warning& e) { warnings.push_back(e.text); }
    void take(out::wake_at e) {
        if (!wake || e.when < *wake) wake = e.when;
    }
    void take(out::drained) { log_.emplace_back("drained"); }
    void take(const of_streams auto&) { ADD_FAILURE() << "of a stream"; }

    ferry::intake<types> core_;
    std::vector<std::string> log_;
    std::map<const void*, int> names_;
    std::vector<std::shared_ptr<const ferry::payload>> kept_;
    std::uint64_t opened_ = 0;
};

testing::AssertionResult within(milliseconds pause, milliseconds whole) {
    // A random part between the half and the whole, cut to milliseconds.
    if (pause + 1ms >= whole / 2 && pause <= whole) return testing::AssertionSuccess();
    return testing::AssertionFailure() << pause.count() << " ms is no part of " << whole.count() << " ms";
}

// --- the poll ----------------------------------------------------------------------------------------------------------

TEST(intake_poll, begins_when_it_is_started) {
    world w;
    w.submit(1);
    w.log("a");
    w.pass(1h);
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.start(), "reconnect poll feedback:a send:1");
}

TEST(intake_poll, comes_again_at_once_over_the_same_connection_after_a_task) {
    world w;
    w.start();
    w.accepted();
    EXPECT_EQ(w.said(), "up");
    w.progress();
    w.task(7);
    EXPECT_EQ(w.said(), "run:7");
    w.end_poll(poll_end::well);
    EXPECT_EQ(w.said(), "poll");
    EXPECT_TRUE(w.warnings.empty());
}

TEST(intake_poll, knows_its_own_events_only) {
    world w;
    w.start();
    const auto old = w.poll;
    w.end_poll(poll_end::unreachable);
    const auto check = [&] {
        w.said();
        w.step(in::poll_accepted{old});
        w.step(in::poll_progress{old});
        w.step(in::task_arrived<types::task>{old, std::make_unique<int>(1), 1});
        w.step(in::poll_ended{old, poll_end::well, ""});
        w.step(in::poll_accepted{0});
        w.step(in::poll_ended{0, poll_end::well, ""});
        EXPECT_EQ(w.said(), "");
        EXPECT_FALSE(w.core().connected());
    };
    check();
    w.pass(500ms);
    EXPECT_EQ(w.said(), "reconnect poll");
    check();
}

TEST(intake_poll, comes_again_at_once_after_its_deadline_but_not_over_a_connection_that_may_hold_a_task) {
    world w;
    w.start();
    w.accepted();
    w.said();
    w.pass(1h);
    w.end_poll(poll_end::deadline);
    EXPECT_EQ(w.said(), "reconnect poll");
    EXPECT_TRUE(w.core().connected());
}

TEST(intake_poll, does_not_spin_on_a_deadline_that_passes_at_once) {
    world w;
    w.start();
    for (const auto whole : {100ms, 200ms, 400ms}) {
        w.end_poll(poll_end::deadline);
        EXPECT_TRUE(within(w.pause_until_something(), whole));
        EXPECT_EQ(w.said(), "reconnect poll");
    }
}

TEST(intake_poll, that_lived_long_begins_the_pauses_anew_though_the_server_said_nothing) {
    world w;
    w.start();
    for (const auto whole : {500ms, 1000ms, 2000ms}) {
        w.sent();
        w.pass(499ms);
        w.end_poll(poll_end::unreachable);
        EXPECT_TRUE(within(w.pause_until_something(), whole));
    }
    w.sent();
    w.pass(500ms);
    w.end_poll(poll_end::unreachable);
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    w.pass(15s);
    w.end_poll(poll_end::unreachable);
    EXPECT_TRUE(within(w.pause_until_something(), 1000ms)) << "it never went out";
}

TEST(intake_poll, pauses_a_little_longer_each_time_it_brought_nothing) {
    world w;
    w.start();
    for (const auto whole : {100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 5000ms, 5000ms}) {
        w.end_poll(poll_end::well);
        EXPECT_TRUE(within(w.pause_until_something(), whole));
        EXPECT_EQ(w.said(), "poll");
    }
    w.whole_task(1);
    w.end_poll(poll_end::well);
    EXPECT_TRUE(within(w.pause_until_something(), 100ms)) << "a task came in between";
    w.end_poll(poll_end::well);
    EXPECT_TRUE(within(w.pause_until_something(), 200ms));
    w.pass(5s);
    w.end_poll(poll_end::well);
    EXPECT_TRUE(within(w.pause_until_something(), 100ms)) << "it was parked for a while";
    EXPECT_TRUE(w.core().connected());
}

TEST(intake_poll, comes_for_ever_over_new_connections_with_growing_pauses_while_the_server_is_away) {
    world w;
    w.start();
    for (const auto whole : {500ms, 1000ms, 2000ms, 4000ms, 8000ms}) {
        w.end_poll(poll_end::unreachable);
        EXPECT_TRUE(within(w.pause_until_something(), whole));
        EXPECT_EQ(w.said(), "reconnect poll");
    }
    std::set<milliseconds> pauses;
    for (int i = 0; i < 2000; ++i) {
        w.end_poll(poll_end::unreachable);
        const auto pause = w.pause_until_something();
        ASSERT_TRUE(within(pause, 15s));
        EXPECT_EQ(w.said(), "reconnect poll");
        pauses.insert(pause);
    }
    EXPECT_GT(pauses.size(), 1000U);
    EXPECT_LT(*pauses.begin(), 7700ms);
    EXPECT_GT(*pauses.rbegin(), 14800ms);
    EXPECT_EQ(w.warnings.size(), 1U) << "only the first failure in a row";
}

TEST(intake_poll, tells_each_reason_once_until_the_server_is_heard_of_and_not_more_than_a_few) {
    world w;
    w.start();
    const auto fail = [&](const std::string& text) {
        w.step(in::poll_ended{w.poll, poll_end::unreachable, text});
        w.pause_until_something();
    };
    for (const auto* text : {"refused", "bad certificate", "refused", "bad certificate"}) fail(text);
    ASSERT_EQ(w.warnings.size(), 2U);
    EXPECT_NE(w.warnings[0].find("refused"), std::string::npos);
    EXPECT_NE(w.warnings[1].find("bad certificate"), std::string::npos);
    w.accepted();
    fail("refused");
    EXPECT_EQ(w.warnings.size(), 3U);
    for (int i = 0; i < 100; ++i) fail(std::to_string(i));
    EXPECT_EQ(w.warnings.size(), 10U);
}

TEST(intake_poll, pauses_alike_with_the_same_seed_only) {
    const auto pauses = [](std::uint64_t seed) {
        world w({}, {}, seed);
        w.start();
        std::vector<milliseconds> all;
        for (int i = 0; i < 5; ++i) {
            w.end_poll(poll_end::unreachable);
            all.push_back(w.pause_until_something());
        }
        return all;
    };
    EXPECT_EQ(pauses(5), pauses(5));
    EXPECT_NE(pauses(5), pauses(6));
}

TEST(intake_poll, begins_again_with_the_shortest_pause_after_a_sign_of_life) {
    for (const auto& sign : std::vector<std::function<void(world&)>>{
             [](world& w) { w.accepted(); },
             [](world& w) { w.progress(); },
             [](world& w) { w.task(1); },
             [](world& w) {
                 w.end_poll(poll_end::well);
                 w.pause_until_something();
             },
         }) {
        world w;
        w.start();
        for (int i = 0; i < 4; ++i) {
            w.end_poll(poll_end::unreachable);
            w.pause_until_something();
        }
        w.said();
        sign(w);
        EXPECT_TRUE(w.core().connected());
        w.end_poll(poll_end::unreachable);
        EXPECT_TRUE(within(w.pause_until_something(), 500ms));
        EXPECT_EQ(w.warnings.size(), 2U);
    }
}

TEST(intake_poll, tells_of_the_link_only_when_it_changes) {
    world w;
    w.start();
    w.accepted();
    w.progress();
    w.accepted();
    EXPECT_EQ(w.said(), "up");
    w.end_poll(poll_end::unreachable);
    EXPECT_EQ(w.said(), "down");
    w.pass(500ms);
    w.end_poll(poll_end::unreachable);
    w.pass(1s);
    EXPECT_EQ(w.said(), "reconnect poll reconnect poll");
    w.progress();
    EXPECT_EQ(w.said(), "up");
}

TEST(intake_poll, never_confirms_a_damaged_task) {
    world w;
    w.start();
    w.progress();
    w.said();
    w.end_poll(poll_end::corrupt);
    EXPECT_EQ(w.said(), "down");
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "reconnect poll");
    ASSERT_EQ(w.warnings.size(), 1U);

    w.progress();
    w.said();
    w.end_poll(poll_end::well);  // but its task was not whole
    EXPECT_EQ(w.said(), "down");
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "reconnect poll");
    EXPECT_EQ(w.warnings.size(), 2U);
}

TEST(intake_poll, never_confirms_a_task_whose_stream_broke) {
    for (const auto how : {poll_end::unreachable, poll_end::deadline, poll_end::corrupt, poll_end::refused}) {
        world w;
        w.start();
        w.progress();
        w.task(1);
        w.said();
        w.end_poll(how);
        w.pass(1min);
        const auto said = w.said();
        EXPECT_NE(said.find("reconnect poll"), std::string::npos) << said;
    }
}

TEST(intake_poll, waits_longer_where_it_is_refused_and_says_so_once) {
    world w;
    w.start();
    for (int i = 0; i < 5; ++i) {
        w.end_poll(poll_end::refused);
        EXPECT_TRUE(within(w.pause_until_something(), 60s));
        EXPECT_EQ(w.said(), "reconnect poll");
        ASSERT_EQ(w.warnings.size(), 1U);
        EXPECT_NE(w.warnings.back().find("so it is"), std::string::npos);
    }
}

TEST(intake_poll, may_be_parked_for_ever) {
    world w;
    w.start();
    w.accepted();
    w.said();
    EXPECT_FALSE(w.wake.has_value());
    w.pass(100h);
    w.tick();
    EXPECT_EQ(w.said(), "");
}

TEST(intake_poll, that_carries_a_task_must_move) {
    world w;
    w.start();
    w.accepted();
    w.pass(1h);
    w.progress();
    w.pass(59s);
    w.progress();
    w.pass(60s - 1ms);
    EXPECT_EQ(w.said(), "up");
    w.pass(1ms);
    EXPECT_EQ(w.said(), "cancel-poll down");
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "reconnect poll");
    EXPECT_LE(w.ticks, 3);
}

TEST(intake_poll, that_brought_a_task_must_end) {
    world w;
    w.start();
    w.progress();
    w.pass(59s);
    w.task(1);
    w.pass(60s - 1ms);
    EXPECT_EQ(w.said(), "up run:1");
    w.pass(1ms);
    EXPECT_EQ(w.said(), "cancel-poll down");
}

TEST(intake_poll, waits_for_room_among_the_tasks) {
    ferry::intake_limits limits;
    limits.max_waiting_tasks = 2;
    world w(limits);
    w.start();
    w.whole_task(1);
    EXPECT_EQ(w.said(), "up run:1 poll");
    w.whole_task(2);
    w.pass(1h);
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.core().open_tasks(), 2U);
    EXPECT_LE(w.ticks, 1);
    w.returned();
    EXPECT_EQ(w.said(), "run:2 poll") << "over the same connection";
}

TEST(intake_poll, waits_for_room_among_the_bytes_of_the_tasks) {
    ferry::intake_limits limits;
    limits.max_waiting_bytes = 100;
    world w(limits);
    w.start();
    w.whole_task(1, 60);
    EXPECT_EQ(w.said(), "up run:1 poll");
    w.whole_task(2, 40);
    EXPECT_EQ(w.said(), "");
    w.returned();
    EXPECT_EQ(w.said(), "run:2 poll");
    w.whole_task(3, 59);
    EXPECT_EQ(w.said(), "poll");
    w.whole_task(4, 1000);
    EXPECT_EQ(w.said(), "");
    w.returned();
    w.returned();
    EXPECT_EQ(w.said(), "run:3 run:4") << "the huge one is still held";
    w.returned();
    EXPECT_EQ(w.said(), "poll") << "at least one task is always allowed";
}

TEST(intake_poll, is_allowed_one_task_whatever_the_limits) {
    ferry::intake_limits limits;
    limits.max_waiting_tasks = 0;
    limits.max_waiting_bytes = 0;
    world w(limits);
    EXPECT_EQ(w.start(), "reconnect poll");
    w.whole_task(1, 1000);
    EXPECT_EQ(w.said(), "up run:1");
    w.returned();
    EXPECT_EQ(w.said(), "poll");
}

TEST(intake_poll, wakes_nobody_while_there_is_no_room) {
    ferry::intake_limits limits;
    limits.max_waiting_tasks = 1;
    world w(limits);
    w.start();
    w.task(1);
    w.end_poll(poll_end::unreachable);
    EXPECT_FALSE(w.wake && *w.wake < w.now + 60s);
    w.returned();
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "reconnect poll");
}

TEST(intake_poll, has_the_limits_that_are_promised) {
    const ferry::intake_limits limits;
    EXPECT_EQ(limits.max_waiting_tasks, 64U);
    EXPECT_EQ(limits.max_waiting_bytes, 1U << 30);
    EXPECT_EQ(limits.max_small_uploads, 16U);
    EXPECT_EQ(limits.max_bulk_uploads, 2U);
    EXPECT_EQ(limits.max_queued_uploads, 10'000U);
    EXPECT_EQ(limits.max_queued_bytes, std::uint64_t{64} << 30);
    EXPECT_EQ(limits.max_payload_bytes, std::uint64_t{16} << 30);
    EXPECT_EQ(limits.max_feedback, 10'000U);
    EXPECT_EQ(limits.idle_limit, 60s);
}

// --- tasks -------------------------------------------------------------------------------------------------------------

TEST(intake_tasks, run_one_at_a_time_in_order) {
    world w;
    w.start();
    for (int i = 1; i <= 3; ++i) w.whole_task(i);
    EXPECT_EQ(w.said(), "up run:1 poll poll poll");
    const auto first = w.running;
    w.returned();
    EXPECT_EQ(w.said(), "run:2");
    w.step(in::task_returned{first});
    w.step(in::task_returned{first + 1000});
    w.step(in::task_returned{0});
    EXPECT_EQ(w.said(), "");
    w.returned();
    EXPECT_EQ(w.said(), "run:3");
    w.returned();
    EXPECT_EQ(w.core().open_tasks(), 0U);
    w.whole_task(4);
    EXPECT_EQ(w.said(), "run:4 poll");
}

TEST(intake_tasks, run_on_while_the_link_is_down) {
    world w;
    w.start();
    w.whole_task(1);
    w.task(2);
    w.said();
    w.end_poll(poll_end::unreachable);
    w.returned();
    EXPECT_EQ(w.said(), "down run:2");
}

// --- uploads -----------------------------------------------------------------------------------------------------------

TEST(intake_uploads, go_out_in_chunks_and_end_when_the_server_has_accepted_them) {
    world w;
    w.start();
    const auto key = w.submit(1, 25);
    EXPECT_NE(key, 0U);
    EXPECT_EQ(w.core().open_uploads(), 1U);
    EXPECT_EQ(w.core().open_upload_bytes(), 25U);
    EXPECT_EQ(w.said(), "send:1:1/3");
    w.range_sent(1);
    EXPECT_EQ(w.said(), "at:1:10 send:1:2/3");
    w.range_sent(1);
    EXPECT_EQ(w.said(), "at:1:20 send:1:3/3");
    w.range_sent(1);
    EXPECT_EQ(w.said(), "at:1:25");
    EXPECT_TRUE(w.ends.empty());
    w.end_upload(1);
    EXPECT_EQ(w.said(), "ended:1:taken");
    EXPECT_EQ(w.ends.at(1).attempts, 1);
    EXPECT_EQ(w.ends.at(1).reason, errc::ok);
    EXPECT_EQ(w.core().open_uploads(), 0U);
    EXPECT_EQ(w.core().open_upload_bytes(), 0U);
}

TEST(intake_uploads, may_be_empty) {
    world w;
    w.start();
    w.submit(1, 0);
    EXPECT_EQ(w.said(), "send:1");
    w.end_upload(1);  // may be heard of before the last write
    EXPECT_EQ(w.said(), "ended:1:taken");
}

TEST(intake_uploads, know_their_own_events_only) {
    world w;
    w.start();
    w.submit(1, 11);
    const auto old = w.upload.at(1);
    w.end_upload(1, errc::idle_timeout);
    w.said();
    for (const auto id : {old, std::uint64_t{0}, w.poll}) {
        w.step(in::upload_range_sent{id});
        w.step(in::upload_ended{id, errc::ok, ""});
        w.step(in::upload_ended{id, errc::refused, ""});
    }
    EXPECT_EQ(w.said(), "");
    w.range_sent(1);
    EXPECT_EQ(w.said(), "at:1:10 send:1:2/2");
}

TEST(intake_uploads, of_one_chunk_never_wait_behind_bulk) {
    ferry::intake_limits limits;
    limits.max_small_uploads = 3;
    world w(limits);
    w.start();
    for (int i = 1; i <= 4; ++i) w.submit(i, 11);
    EXPECT_EQ(w.said(), "send:1:1/2 send:2:1/2");
    for (int i = 11; i <= 15; ++i) w.submit(i, 10);
    EXPECT_EQ(w.said(), "send:11 send:12 send:13");
    w.end_upload(12);
    EXPECT_EQ(w.said(), "ended:12:taken send:14");
    w.range_sent(2);
    w.end_upload(2);
    EXPECT_EQ(w.said(), "at:2:10 send:2:2/2 ended:2:taken send:3:1/2");
    w.end_upload(11);
    EXPECT_EQ(w.said(), "ended:11:taken send:15");
    w.end_upload(13);
    EXPECT_EQ(w.said(), "ended:13:taken");
}

TEST(intake_uploads, end_at_once_where_the_server_would_say_the_same_again) {
    const std::vector<std::pair<errc, outcome_kind>> cases{
        {errc::not_permitted, outcome_kind::not_permitted}, {errc::too_large, outcome_kind::too_large},
        {errc::decode_failed, outcome_kind::refused},       {errc::invalid_argument, outcome_kind::refused},
        {errc::protocol_error, outcome_kind::refused},      {errc::refused, outcome_kind::refused},
        {errc::bad_chunk, outcome_kind::refused},
    };
    for (const auto& [reason, kind] : cases) {
        world w;
        w.start();
        w.submit(1);
        w.said();
        w.end_upload(1, reason);
        EXPECT_EQ(w.said(), "ended:1:" + std::string(to_string(kind)));
        EXPECT_EQ(w.ends.at(1).reason, reason);
        EXPECT_EQ(w.ends.at(1).text, "so it is");
        EXPECT_EQ(w.ends.at(1).attempts, 1);
    }
}

TEST(intake_uploads, are_sent_again_after_a_lost_link_which_does_not_count) {
    for (const auto reason : {errc::connection_failed, errc::stopped}) {
        world w({}, policy{.max_resends = 0});
        w.start();
        w.accepted();
        w.submit(1, 11);
        w.range_sent(1);
        w.said();
        for (const auto whole : {500ms, 1000ms, 2000ms, 4000ms, 8000ms, 15000ms, 15000ms}) {
            w.end_upload(1, reason);
            EXPECT_EQ(w.said(), "");
            EXPECT_TRUE(within(w.pause_until_something(), whole));
            EXPECT_EQ(w.said(), "send:1:1/2");
        }
        w.range_sent(1);
        EXPECT_EQ(w.said(), "at:1:10 send:1:2/2") << "from the beginning";
        w.end_upload(1);
        EXPECT_EQ(w.said(), "ended:1:taken");
        EXPECT_EQ(w.ends.at(1).attempts, 1);
        w.submit(2);
        w.end_upload(2, reason);
        EXPECT_TRUE(within(w.pause_until_something(), 500ms)) << "the link works again";
    }
}

TEST(intake_uploads, that_the_server_has_trouble_with_pause_alone_and_do_not_count_it) {
    for (const auto reason : {errc::node_unknown, errc::stream_broken}) {
        world w({}, policy{.max_resends = 0});
        w.start();
        w.accepted();
        w.submit(1);
        for (const auto whole : {500ms, 1000ms, 2000ms, 4000ms, 8000ms, 15000ms, 15000ms}) {
            w.end_upload(1, reason);
            w.said();
            w.submit(2);
            EXPECT_EQ(w.said(), "send:2") << "it keeps no other back";
            w.end_upload(2);
            EXPECT_TRUE(within(w.pause_until_something(), whole));
            EXPECT_EQ(w.said(), "send:1");
            w.ends.erase(2);
        }
        w.end_upload(1);
        EXPECT_EQ(w.said(), "ended:1:taken");
        EXPECT_EQ(w.ends.at(1).attempts, 1);
    }
}

TEST(intake_uploads, that_the_server_chokes_on_leave_the_bulk_lane_to_others) {
    ferry::intake_limits limits;
    limits.max_bulk_uploads = 1;
    world w(limits, policy{.max_resends = 0});
    w.start();
    w.accepted();
    w.submit(1, 11);
    w.submit(2, 11);
    w.said();
    w.end_upload(1, errc::node_unknown);
    EXPECT_EQ(w.said(), "send:2:1/2");
}

TEST(intake_uploads, know_that_the_link_works_where_something_else_failed) {
    for (const auto reason : {errc::idle_timeout, errc::refused}) {
        world w({}, policy{.max_resends = 9});
        w.start();
        w.submit(1);
        for (const auto whole : {500ms, 1000ms, 2000ms}) {
            w.end_upload(1, errc::connection_failed);
            EXPECT_TRUE(within(w.pause_until_something(), whole));
        }
        w.end_upload(1, reason);
        w.submit(2);
        w.end_upload(2, errc::connection_failed);
        EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    }
}

TEST(intake_uploads, do_not_pause_less_because_a_poll_failed_too) {
    world w;
    w.start();
    w.submit(1);
    for (int i = 0; i < 6; ++i) {
        w.end_upload(1, errc::connection_failed);
        EXPECT_GE(w.pause_until_something(), 200ms);
    }
    w.end_upload(1, errc::connection_failed);
    w.end_poll(poll_end::unreachable);
    w.said();
    w.pass(7s);
    EXPECT_EQ(w.said(), "reconnect poll");
    w.pass(8s);
    EXPECT_EQ(w.said(), "send:1");
}

TEST(intake_uploads, count_a_lost_link_once_and_wait_together) {
    world w;
    w.start();
    for (int i = 1; i <= 5; ++i) w.submit(i);
    for (int i = 1; i <= 5; ++i) w.end_upload(i, errc::connection_failed);
    w.submit(6);
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "send:1 send:2 send:3 send:4 send:5 send:6");
    w.end_upload(1, errc::connection_failed);
    w.end_upload(2, errc::connection_failed);
    EXPECT_TRUE(within(w.pause_until_something(), 1000ms));
    EXPECT_EQ(w.said(), "send:1 send:2");
}

TEST(intake_uploads, are_sent_again_after_lost_links_as_long_as_their_age_allows) {
    world w;
    w.start();
    w.accepted();
    w.submit(1, 1, 10s);
    w.said();
    const auto from = w.now;
    for (int i = 0; i < 100 && w.ends.empty(); ++i) {
        w.end_upload(1, errc::stream_broken);
        w.pause_until_something();
    }
    EXPECT_EQ(w.said(), "ended:1:expired");
    EXPECT_EQ(w.now - from, 10s);
}

TEST(intake_uploads, wait_while_the_link_is_down) {
    world w;
    w.start();
    w.accepted();
    w.end_poll(poll_end::unreachable);
    w.said();
    w.submit(1);
    EXPECT_EQ(w.said(), "");
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "reconnect poll send:1");
}

TEST(intake_uploads, go_on_as_soon_as_the_link_is_up_again) {
    world w;
    w.start();
    w.submit(1);
    w.log("a");
    for (int i = 0; i < 10; ++i) {  // the server was started again and has not seen a poll yet
        w.end_upload(1, errc::node_unknown);
        w.end_feedback(errc::connection_failed);
        w.pass(15s);
    }
    w.end_upload(1, errc::node_unknown);
    w.end_feedback(errc::connection_failed);
    w.said();
    w.accepted();
    EXPECT_EQ(w.said(), "up feedback:a send:1");
}

TEST(intake_uploads, do_not_spin_while_polls_live_and_uploads_fail) {
    world w;
    w.start();
    w.submit(1);
    w.said();
    for (int i = 0; i < 20; ++i) {
        w.end_upload(1, errc::connection_failed);
        w.progress();
        w.progress();
    }
    EXPECT_EQ(w.said(), "up send:1");
}

TEST(intake_uploads, are_retried_as_the_policy_says_where_something_else_failed) {
    for (const auto reason : {errc::idle_timeout, errc::unconfirmed, errc::source_failed, errc::store_failed}) {
        world w({}, policy{.max_resends = 2, .pause = 7s});
        w.start();
        w.submit(1);
        w.said();
        for (int i = 0; i < 2; ++i) {
            w.end_upload(1, reason);
            EXPECT_EQ(w.said(), "");
            EXPECT_EQ(w.pause_until_something(), 7s);
            EXPECT_EQ(w.said(), "send:1");
        }
        w.end_upload(1, errc::connection_failed);
        w.pass(1s);
        EXPECT_EQ(w.said(), "send:1");
        w.end_upload(1, reason);
        EXPECT_EQ(w.said(), "ended:1:retries exhausted");
        EXPECT_EQ(w.ends.at(1).reason, reason);
        EXPECT_EQ(w.ends.at(1).attempts, 3);
        w.pass(1h);
        EXPECT_FALSE(w.wake) << "nothing is left to wake for";
        EXPECT_LE(w.ticks, 5);
    }
}

TEST(intake_uploads, keep_their_place_when_they_are_sent_again_and_are_passed_by_while_they_pause) {
    ferry::intake_limits limits;
    limits.max_small_uploads = 1;
    world w(limits, policy{.max_resends = 9, .pause = 7s});
    w.start();
    for (int i = 1; i <= 4; ++i) w.submit(i);
    w.said();
    w.end_upload(1, errc::idle_timeout);
    EXPECT_EQ(w.said(), "send:2");
    w.pass(7s);
    EXPECT_EQ(w.said(), "");
    w.end_upload(2);
    EXPECT_EQ(w.said(), "ended:2:taken send:1");
    w.end_upload(1, errc::connection_failed);
    w.pass(1s);
    EXPECT_EQ(w.said(), "send:1");
}

TEST(intake_uploads, are_not_taken_where_the_server_answers_before_the_last_chunk) {
    world w({}, policy{.max_resends = 1});
    w.start();
    w.submit(1, 11);
    w.said();
    w.end_upload(1);
    EXPECT_EQ(w.said(), "send:1:1/2");
    w.end_upload(1);
    EXPECT_EQ(w.said(), "ended:1:retries exhausted");
    EXPECT_EQ(w.ends.at(1).reason, errc::unconfirmed);
}

TEST(intake_uploads, must_move) {
    world w({}, policy{.max_resends = 1});
    w.start();
    w.submit(1, 21, 1s);
    for (int i = 0; i < 3; ++i) {
        w.pass(60s - 1ms);
        w.range_sent(1);
    }
    EXPECT_EQ(w.said(), "send:1:1/3 at:1:10 send:1:2/3 at:1:20 send:1:3/3 at:1:21") << "its age doesn't count";
    w.pass(60s - 1ms);
    EXPECT_EQ(w.said(), "");
    w.pass(1ms);
    EXPECT_EQ(w.said(), "cancel:1 ended:1:expired") << "now it does";
    EXPECT_LE(w.ticks, 6);

    w.submit(2);
    w.said();
    w.pass(60s);
    EXPECT_EQ(w.said(), "cancel:2 send:2");
    w.pass(60s);
    EXPECT_EQ(w.said(), "cancel:2 ended:2:retries exhausted");
    EXPECT_EQ(w.ends.at(2).reason, errc::idle_timeout);
}

TEST(intake_uploads, expire_while_they_wait) {
    ferry::intake_limits limits;
    limits.max_small_uploads = 1;
    world w(limits);
    w.start();
    w.submit(1, 1, 2s);
    w.submit(2, 1, 5s);
    w.submit(3, 1, 3s);
    w.submit(4);
    w.said();
    EXPECT_EQ(w.pause_until_something(), 3s);
    EXPECT_EQ(w.said(), "ended:3:expired");
    EXPECT_EQ(w.pause_until_something(), 2s);
    EXPECT_EQ(w.said(), "ended:2:expired");
    EXPECT_EQ(w.ends.at(2).reason, errc::expired);
    EXPECT_EQ(w.ends.at(2).attempts, 0);
    w.pass(50s);
    w.end_upload(1);
    EXPECT_EQ(w.said(), "ended:1:taken send:4") << "what moved did not expire";
    w.submit(5, 1, 1s);
    w.now += 10s;  // and the wake-up is late
    w.end_upload(4);
    EXPECT_EQ(w.said(), "ended:4:taken ended:5:expired");
}

TEST(intake_uploads, expire_while_they_pause) {
    world w({}, policy{.max_resends = 9, .pause = 1h});
    w.start();
    w.submit(1, 1, 5s);
    w.end_upload(1, errc::idle_timeout);
    EXPECT_EQ(w.pause_until_something(), 5s);
    EXPECT_EQ(w.said(), "ended:1:expired");
    EXPECT_EQ(w.ends.at(1).attempts, 1);
}

TEST(intake_uploads, expire_while_they_pause_after_they_stood_still) {
    world w({}, policy{.max_resends = 9, .pause = 1h});
    w.start();
    w.submit(1, 1, 100s);
    w.said();
    EXPECT_EQ(w.pause_until_something(), 60s);
    EXPECT_EQ(w.said(), "cancel:1");
    EXPECT_EQ(w.pause_until_something(), 40s);
    EXPECT_EQ(w.said(), "ended:1:expired");
}

TEST(intake_uploads, can_be_withdrawn) {
    ferry::intake_limits limits;
    limits.max_small_uploads = 1;
    world w(limits);
    w.start();
    const auto first = w.submit(1);
    const auto second = w.submit(2);
    w.submit(3);
    w.said();
    w.step(in::withdrawn{second});
    EXPECT_EQ(w.said(), "ended:2:cancelled");
    w.step(in::withdrawn{first});
    EXPECT_EQ(w.said(), "cancel:1 ended:1:cancelled send:3");
    EXPECT_EQ(w.ends.at(1).reason, errc::cancelled);
    w.step(in::withdrawn{first});
    w.step(in::withdrawn{0});
    EXPECT_EQ(w.said(), "");
    w.step(in::upload_ended{w.upload.at(1), errc::ok, ""});
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.core().open_uploads(), 1U);
}

TEST(intake_uploads, are_bounded) {
    ferry::intake_limits limits;
    limits.max_queued_uploads = 3;
    limits.max_queued_bytes = 100;
    limits.max_payload_bytes = 90;
    world w(limits);
    w.start();
    EXPECT_EQ(w.submit(1, 91), 0U);
    EXPECT_EQ(w.said(), "ended:1:too large");
    EXPECT_EQ(w.ends.at(1).attempts, 0);
    w.submit(2, 90);
    EXPECT_EQ(w.submit(3, 11), 0U);
    w.submit(4, 10);
    EXPECT_EQ(w.said(), "send:2:1/9 ended:3:queue full send:4");
    w.submit(5, 0);
    EXPECT_EQ(w.submit(6, 0), 0U);
    EXPECT_EQ(w.said(), "send:5 ended:6:queue full");
    EXPECT_EQ(w.ends.at(6).reason, errc::queue_full);
    w.end_upload(4);
    EXPECT_NE(w.submit(7, 10), 0U);
}

TEST(intake_uploads, may_have_limits_as_large_as_can_be) {
    ferry::intake_limits limits;
    limits.idle_limit = milliseconds::max();
    world w(limits, policy{.max_resends = 9, .pause = milliseconds::max()});
    w.start();
    w.progress();
    w.submit(1, 1, milliseconds::max());
    w.submit(2, 1, milliseconds::max());
    w.log("a");
    w.end_upload(2, errc::idle_timeout);
    w.said();
    w.pass(1000h);
    w.tick();
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.ticks, 1);
}

// --- feedback ----------------------------------------------------------------------------------------------------------

TEST(intake_feedback, goes_out_one_by_one_in_order_in_nobodys_way) {
    ferry::intake_limits limits;
    limits.max_small_uploads = limits.max_bulk_uploads = 1;
    world w(limits);
    w.start();
    for (int i = 1; i <= 4; ++i) w.submit(i, i % 2 == 0 ? 11 : 1);
    w.said();
    for (const auto* text : {"a", "b", "c"}) w.log(text);
    EXPECT_EQ(w.said(), "feedback:a");
    const auto first = w.feedback;
    w.end_feedback();
    EXPECT_EQ(w.said(), "feedback:b");
    w.step(in::feedback_ended{first, errc::ok, ""});
    w.step(in::feedback_ended{0, errc::ok, ""});
    EXPECT_EQ(w.said(), "");
    w.end_feedback();
    EXPECT_EQ(w.said(), "feedback:c");
    w.end_feedback();
    w.end_feedback();
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.core().dropped_feedback(), 0U);
    EXPECT_TRUE(w.warnings.empty());
}

TEST(intake_feedback, that_the_server_chokes_on_is_dropped_in_the_end) {
    for (const auto reason : {errc::node_unknown, errc::stream_broken}) {
        world w({}, policy{.max_resends = 1});
        w.start();
        w.log("a");
        w.log("b");
        w.end_feedback(reason);
        w.pause_until_something();
        w.said();
        w.end_feedback(reason);
        EXPECT_EQ(w.said(), "feedback:b");
        EXPECT_EQ(w.core().dropped_feedback(), 1U);
    }
}

TEST(intake_feedback, is_sent_again_after_a_lost_link) {
    for (const auto reason : {errc::connection_failed, errc::stopped}) {
        world w({}, policy{.max_resends = 0});
        w.start();
        w.log("a");
        w.log("b");
        for (const auto whole : {500ms, 1000ms, 2000ms, 4000ms}) {
            w.said();
            w.end_feedback(reason);
            EXPECT_EQ(w.said(), "");
            EXPECT_TRUE(within(w.pause_until_something(), whole));
            EXPECT_EQ(w.said(), "feedback:a");
        }
        w.submit(1);
        EXPECT_EQ(w.said(), "send:1") << "uploads have a link of their own";
        w.end_feedback();
        EXPECT_EQ(w.said(), "feedback:b");
        w.end_feedback(reason);
        EXPECT_TRUE(within(w.pause_until_something(), 500ms));
        EXPECT_EQ(w.core().dropped_feedback(), 0U);
    }
}

TEST(intake_feedback, waits_while_the_link_is_down) {
    world w;
    w.start();
    w.end_poll(poll_end::unreachable);
    w.log("a");
    EXPECT_EQ(w.said(), "");
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "reconnect poll feedback:a");
}

TEST(intake_feedback, is_dropped_counted_and_reported_where_the_server_refuses_it) {
    world w;
    w.start();
    std::size_t dropped = 0;
    for (const auto reason : {errc::not_permitted, errc::too_large, errc::decode_failed, errc::invalid_argument,
                              errc::protocol_error, errc::refused, errc::bad_chunk}) {
        w.log("a");
        w.log("b");
        w.said();
        w.end_feedback(reason);
        EXPECT_EQ(w.said(), "feedback:b");
        EXPECT_EQ(w.core().dropped_feedback(), ++dropped);
        ASSERT_EQ(w.warnings.size(), dropped);
        EXPECT_NE(w.warnings.back().find("so it is"), std::string::npos);
        w.end_feedback();
    }
}

TEST(intake_feedback, is_given_up_when_the_policy_says_so) {
    world w({}, policy{.max_resends = 2, .pause = 7000ms});
    w.start();
    w.log("a");
    w.end_feedback(errc::connection_failed);  // doesn't count
    w.pass(500ms);
    w.said();
    for (int i = 0; i < 2; ++i) {
        w.end_feedback(errc::store_failed);
        EXPECT_EQ(w.pause_until_something(), 7s);
        EXPECT_EQ(w.said(), "feedback:a");
    }
    w.end_feedback(errc::store_failed);
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.core().dropped_feedback(), 1U);
    EXPECT_EQ(w.warnings.size(), 1U);
}

TEST(intake_feedback, must_be_answered) {
    world w({}, policy{.max_resends = 0});
    w.start();
    w.log("a");
    w.log("b");
    w.said();
    EXPECT_EQ(w.pause_until_something(), 60s);
    EXPECT_EQ(w.said(), "cancel-feedback feedback:b");
    EXPECT_EQ(w.core().dropped_feedback(), 1U);
}

TEST(intake_feedback, is_bounded_and_loses_the_oldest_that_waits) {
    ferry::intake_limits limits;
    limits.max_feedback = 4;
    world w(limits);
    w.start();
    w.said();
    for (const auto* text : {"a", "b", "c", "d", "e"}) w.log(text);
    EXPECT_EQ(w.core().dropped_feedback(), 0U);
    w.log("f");
    w.log("g");
    EXPECT_EQ(w.core().dropped_feedback(), 2U);
    EXPECT_EQ(w.warnings.size(), 1U) << "once a burst";
    w.end_feedback(errc::stream_broken);
    w.pass(500ms);
    for (int i = 0; i < 5; ++i) w.end_feedback();
    EXPECT_EQ(w.said(), "feedback:a feedback:a feedback:d feedback:e feedback:f feedback:g");
    for (const auto* text : {"h", "i", "j", "k", "l", "m"}) w.log(text);
    EXPECT_EQ(w.core().dropped_feedback(), 3U);
    EXPECT_EQ(w.warnings.size(), 2U) << "another burst";
}

TEST(intake_feedback, is_bounded_by_its_bytes) {
    ferry::intake_limits limits;
    limits.max_feedback_bytes = 10;
    world w(limits);
    w.start();
    w.said();
    for (const auto* text : {"under way", "1234", "5678", "90"}) w.log(text);
    EXPECT_EQ(w.core().dropped_feedback(), 0U);
    w.log("a long one");
    EXPECT_EQ(w.core().dropped_feedback(), 3U);
    EXPECT_EQ(w.warnings.size(), 1U) << "once a burst";
    for (int i = 0; i < 2; ++i) w.end_feedback();
    EXPECT_EQ(w.said(), "feedback:under way feedback:a long one");
    for (const auto* text : {"under way", "123456", "7890", "1"}) w.log(text);
    EXPECT_EQ(w.core().dropped_feedback(), 4U);
    EXPECT_EQ(w.warnings.size(), 2U) << "another burst";
}

TEST(intake_feedback, that_no_server_takes_is_dropped_at_once) {
    world w;
    w.start();
    w.said();
    w.log(std::string(ferry::frames::max_feedback_bytes + 1, 'x'));
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.core().dropped_feedback(), 1U);
    ASSERT_EQ(w.warnings.size(), 1U);
    EXPECT_THAT(w.warnings.back(), testing::HasSubstr("it has 4194305 bytes, and a server takes 4194304: split it"));
    w.log(std::string(ferry::frames::max_feedback_bytes, 'x'));
    w.end_feedback();
    EXPECT_EQ(w.core().dropped_feedback(), 1U);
}

TEST(intake_feedback, is_bounded_before_the_start_and_while_it_pauses) {
    ferry::intake_limits limits;
    limits.max_feedback = 2;
    world w(limits);
    for (const auto* text : {"a", "b", "c"}) w.log(text);
    EXPECT_EQ(w.start(), "reconnect poll feedback:b");
    w.end_feedback(errc::connection_failed);
    w.log("d");
    EXPECT_EQ(w.core().dropped_feedback(), 2U);
    w.said();
    w.pass(500ms);
    EXPECT_EQ(w.said(), "feedback:c");
}

// --- the end -----------------------------------------------------------------------------------------------------------

TEST(intake_stop, cancels_a_parked_poll_and_is_drained_once) {
    world w;
    w.start();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "cancel-poll drained");
    w.step(in::stop_requested{});
    w.step(in::poll_ended{w.poll, poll_end::unreachable, ""});
    w.step(in::started{});
    w.pass(1h);
    w.tick();
    w.step(in::stop_forced{});
    EXPECT_EQ(w.said(), "");
}

TEST(intake_stop, lets_a_poll_finish_that_carries_a_task_and_runs_it) {
    world w;
    w.start();
    w.progress();
    w.said();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "");
    w.task(1);
    EXPECT_EQ(w.said(), "run:1");
    EXPECT_FALSE(w.core().quiet_but_for_tasks());
    w.end_poll(poll_end::well);
    EXPECT_EQ(w.said(), "") << "no next poll, which would confirm the task";
    EXPECT_TRUE(w.core().quiet_but_for_tasks());
    w.returned();
    EXPECT_EQ(w.said(), "drained");
}

TEST(intake_stop, does_not_wait_for_a_poll_that_stands_still) {
    world w;
    w.start();
    w.progress();
    w.said();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.pause_until_something(), 60s);
    EXPECT_EQ(w.said(), "cancel-poll down drained");
}

TEST(intake_stop, still_runs_the_tasks_that_have_come_over) {
    world w;
    w.start();
    for (int i = 1; i <= 3; ++i) w.whole_task(i);
    w.said();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "cancel-poll");
    w.returned();
    EXPECT_EQ(w.said(), "run:2");
    w.returned();
    EXPECT_EQ(w.said(), "run:3");
    w.returned();
    EXPECT_EQ(w.said(), "drained");
    EXPECT_TRUE(w.warnings.empty());
}

TEST(intake_stop, by_force_drops_the_tasks_that_wait_and_says_so) {
    world w;
    w.start();
    for (int i = 1; i <= 3; ++i) w.whole_task(i);
    w.said();
    w.step(in::stop_requested{});
    w.step(in::stop_forced{});
    ASSERT_EQ(w.warnings.size(), 1U);
    EXPECT_NE(w.warnings[0].find("2 tasks"), std::string::npos);
    EXPECT_EQ(w.core().open_tasks(), 0U);
}

TEST(intake_stop, waits_for_uploads_and_feedback_also_new_ones) {
    ferry::intake_limits limits;
    limits.max_small_uploads = 1;
    world w(limits);
    w.start();
    w.whole_task(1);
    w.submit(1);
    w.submit(2);
    w.log("a");
    w.said();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "cancel-poll");
    w.submit(3);
    w.log("b");
    w.returned();
    w.end_upload(1);
    w.end_upload(2);
    w.end_feedback();
    w.end_feedback();
    EXPECT_EQ(w.said(), "ended:1:taken send:2 ended:2:taken send:3 feedback:b");
    w.end_upload(3);
    EXPECT_EQ(w.said(), "ended:3:taken drained");
    EXPECT_EQ(w.submit(4), 0U);
    EXPECT_EQ(w.said(), "ended:4:stopped");
    EXPECT_EQ(w.ends.at(4).reason, errc::stopped);
    w.log("c");
    EXPECT_EQ(w.said(), "");
    EXPECT_EQ(w.core().dropped_feedback(), 1U);
}

TEST(intake_stop, connects_again_for_uploads_but_does_not_poll) {
    world w;
    w.start();
    w.submit(1);
    w.end_poll(poll_end::unreachable);
    w.end_upload(1, errc::connection_failed);
    w.said();
    w.step(in::stop_requested{});
    EXPECT_TRUE(within(w.pause_until_something(), 500ms));
    EXPECT_EQ(w.said(), "reconnect send:1");
    w.end_upload(1);
    EXPECT_EQ(w.said(), "ended:1:taken drained");
}

TEST(intake_stop, does_not_wait_for_a_pause_where_nothing_is_left) {
    world w;
    w.start();
    w.end_poll(poll_end::unreachable);
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "drained");
    w.pass(1h);
    EXPECT_EQ(w.said(), "");
}

TEST(intake_stop, before_the_start_leaves_nothing_open) {
    world w;
    w.submit(1);
    w.log("a");
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "ended:1:stopped drained");
    EXPECT_EQ(w.core().dropped_feedback(), 1U);
    EXPECT_EQ(w.start(), "");
}

TEST(intake_stop, by_force_cancels_everything_at_once) {
    ferry::intake_limits limits;
    limits.max_small_uploads = 1;
    world w(limits);
    w.start();
    w.whole_task(1);
    w.whole_task(2);
    w.progress();
    w.submit(1);
    w.submit(2);
    w.submit(3, 11);
    w.log("a");
    w.log("b");
    w.range_sent(3);
    w.said();
    w.step(in::stop_forced{});
    EXPECT_EQ(
        w.said(),
        "cancel-poll cancel:1 ended:1:stopped ended:2:stopped cancel:3 ended:3:stopped cancel-feedback down drained");
    EXPECT_EQ(w.ends.at(2).reason, errc::stopped);
    EXPECT_EQ(w.core().dropped_feedback(), 2U);
    EXPECT_EQ(w.core().open_uploads(), 0U);
    EXPECT_EQ(w.core().open_tasks(), 0U);
    w.returned();
    w.end_upload(1);
    w.end_feedback();
    w.progress();
    EXPECT_EQ(w.submit(4), 0U);
    w.pass(1h);
    EXPECT_EQ(w.said(), "ended:4:stopped");
}

TEST(intake_stop, by_force_may_follow_a_request) {
    world w;
    w.start();
    w.submit(1);
    w.accepted();
    w.said();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "cancel-poll");
    w.step(in::stop_forced{});
    EXPECT_EQ(w.said(), "cancel:1 ended:1:stopped down drained");
}

// --- a random layer above ----------------------------------------------------------------------------------------------

/// Does what it is told, with an outcome that is anybody's guess, and watches what must always hold.
class chaos {
public:
    explicit chaos(std::uint32_t seed) : random_(seed), core_(limits(), policy{.max_resends = 3}, seed) {
        step(in::started{});
    }

    void run(int steps) {
        for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
            act();
            check();
        }
    }

    /// From now on everything goes well: all must come to its end.
    void calm_down() {
        step(in::stop_requested{});
        for (int i = 0; i < 100'000 && !drained_; ++i) {
            if (poll_) {
                if (poll_carries_) {
                    step(in::poll_ended{*std::exchange(poll_, {}), poll_end::unreachable, ""});
                } else {
                    FAIL() << "a parked poll is still open";
                }
            } else if (running_) {
                step(in::task_returned{*std::exchange(running_, {})});
            } else if (!moving_.empty()) {
                finish(moving_.begin()->first);
            } else if (feedback_) {
                step(in::feedback_ended{*std::exchange(feedback_, {}), errc::ok, ""});
            } else {
                ASSERT_TRUE(wake_) << "nothing is under way, and nothing is to come";
                wait();
            }
            check();
        }
        EXPECT_TRUE(drained_);
        end();
    }

    void stop_now() {
        step(in::stop_forced{});
        EXPECT_TRUE(drained_);
        end();
    }

    std::size_t taken = 0, failed = 0, ran = 0, logged = 0;

private:
    struct sent {
        int number = 0;
        bool bulk = false;
        std::int32_t next = 1, size = 0;
        std::uint64_t id = 0;  // of its call, while it moves
        ferry::upload_key key = 0;
        bool open = true;
        bool troubled = false;  // it pauses by itself
    };

    static ferry::intake_limits limits() {
        ferry::intake_limits some;
        some.streams = false;
        some.max_waiting_tasks = 3;
        some.max_waiting_bytes = 1000;
        some.max_small_uploads = 3;
        some.max_bulk_uploads = 2;
        some.max_queued_uploads = 20;
        some.max_queued_bytes = 600;
        some.max_payload_bytes = 100;
        some.max_feedback = 5;
        return some;
    }

    std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }

    template <class Event>
    ferry::upload_key step(Event event) {
        const auto sink = [this](auto&& effect) { this->take(effect); };
        if constexpr (std::is_same_v<Event, in::reply_submitted<types::ticket>>) {
            return core_.step(std::move(event), {now_, {}}, sink);
        } else {
            core_.step(std::move(event), {now_, {}}, sink);
            return 0;
        }
    }

    void wait() {
        now_ = std::max(now_, *std::exchange(wake_, {}));
        step(in::time_passed{});
        if (wake_) {
            ASSERT_GT(*wake_, now_);
        }
    }

    void act() {
        now_ += milliseconds(below(50));
        switch (below(12)) {
            case 0:
                if (poll_) step(in::poll_accepted{*poll_});
                break;
            case 1:
                if (poll_) {
                    poll_carries_ = true;
                    step(in::poll_progress{*poll_});
                }
                break;
            case 2:
                if (poll_) {
                    step(in::task_arrived<types::task>{*poll_, std::make_unique<int>(++last_task_), below(600)});
                    if (poll_) step(in::poll_ended{*std::exchange(poll_, {}), poll_end::well, ""});
                }
                break;
            case 3:
                if (poll_) {
                    const auto how = static_cast<poll_end>(below(5));
                    must_be_fresh_ = how != poll_end::well || poll_carries_;
                    step(in::poll_ended{*std::exchange(poll_, {}), how, ""});
                }
                break;
            case 4:
                if (running_) step(in::task_returned{*std::exchange(running_, {})});
                break;
            case 5:
            case 6: submit(); break;
            case 7:
                if (!moving_.empty()) progress(any_moving());
                break;
            case 8:
                if (!moving_.empty()) {
                    if (below(3) == 0) {
                        fail(any_moving());
                    } else {
                        finish(any_moving());
                    }
                }
                break;
            case 9:
                if (below(4) == 0 && !uploads_.empty()) {
                    step(in::withdrawn{uploads_[below(static_cast<std::uint32_t>(uploads_.size()))].key});
                } else if (below(2) == 0) {
                    step(in::feedback_submitted{std::make_shared<const std::string>(std::to_string(++last_feedback_))});
                }
                break;
            case 10:
                if (feedback_) {
                    const errc reasons[] = {errc::ok, errc::ok, errc::stream_broken, errc::refused, errc::store_failed};
                    step(in::feedback_ended{*std::exchange(feedback_, {}), reasons[below(5)], ""});
                }
                break;
            case 11:
                if (wake_ && (below(4) == 0 || *wake_ <= now_)) wait();
                break;
            default: break;
        }
    }

    void submit() {
        const std::size_t size = below(4) == 0 ? 11 + below(95) : below(11);
        auto content = std::make_shared<const ferry::payload>(ferry::bytes::copy(std::string(size, 'x')));
        auto number = static_cast<int>(uploads_.size());
        of_[content.get()] = number;
        kept_.push_back(content);
        sent each;
        each.number = number;
        each.bulk = size > 10;
        uploads_.push_back(each);
        const auto key = step(in::reply_submitted<types::ticket>{std::make_unique<int>(number), content,
                                                                 milliseconds(1 + below(30'000))});
        uploads_[static_cast<std::size_t>(number)].key = key;
        EXPECT_TRUE(key != 0 || !uploads_[static_cast<std::size_t>(number)].open);
    }

    std::uint64_t any_moving() {
        return std::next(moving_.begin(), below(static_cast<std::uint32_t>(moving_.size())))->first;
    }

    void progress(std::uint64_t id) {
        const auto& of = uploads_[moving_.at(id)];
        if (of.next <= of.size) step(in::upload_range_sent{id});
    }

    void finish(std::uint64_t id) {
        const auto number = moving_.at(id);
        while (uploads_[number].next < uploads_[number].size) step(in::upload_range_sent{id});
        release(id);
        step(in::upload_ended{id, errc::ok, ""});
    }

    void fail(std::uint64_t id) {
        const errc reasons[] = {errc::connection_failed, errc::node_unknown,  errc::stream_broken,
                                errc::stopped,           errc::refused,       errc::not_permitted,
                                errc::idle_timeout,      errc::source_failed, errc::ok};
        const auto reason = reasons[below(9)];
        if (reason == errc::ok) return finish(id);
        uploads_[moving_.at(id)].troubled |= reason == errc::node_unknown || reason == errc::stream_broken;
        release(id);
        step(in::upload_ended{id, reason, ""});
    }

    void release(std::uint64_t id) {
        auto& of = uploads_[moving_.at(id)];
        of.id = 0;
        --lanes_[of.bulk ? 1 : 0];
        moving_.erase(id);
    }

    void check() {
        EXPECT_LE(lanes_[0], 3U);
        EXPECT_LE(lanes_[1], 2U);
        const auto open = std::count_if(uploads_.begin(), uploads_.end(), [](const sent& each) { return each.open; });
        EXPECT_EQ(core_.open_uploads(), static_cast<std::size_t>(open));
        EXPECT_LE(core_.open_uploads(), 20U);
        EXPECT_LE(core_.open_upload_bytes(), 600U);
        EXPECT_LE(core_.open_tasks(), 3U + 1U);
    }

    void end() {
        for (const auto& each : uploads_) EXPECT_FALSE(each.open) << each.number;
        EXPECT_FALSE(poll_);
        EXPECT_TRUE(moving_.empty());
        EXPECT_FALSE(feedback_);
        EXPECT_EQ(core_.open_upload_bytes(), 0U);
    }

    void take(out::reconnect) { fresh_ = true; }
    void take(out::open_poll e) {
        EXPECT_FALSE(poll_) << "two polls";
        EXPECT_FALSE(drained_);
        EXPECT_TRUE(seen_.insert(e.poll_id).second);
        EXPECT_TRUE(std::exchange(fresh_, false) || !must_be_fresh_);
        poll_ = e.poll_id;
        poll_carries_ = must_be_fresh_ = false;
    }
    void take(out::cancel_poll e) {
        EXPECT_EQ(poll_, e.poll_id);
        poll_.reset();
        must_be_fresh_ = true;
    }
    void take(out::run_task<types::task>& e) {
        EXPECT_FALSE(running_) << "two tasks";
        EXPECT_GT(*e.task, last_run_);
        last_run_ = *e.task;
        running_ = e.key;
        ++ran;
    }
    void take(out::open_upload e) { EXPECT_TRUE(seen_.insert(e.upload_id).second); }
    void take(const out::send_range& e) {
        const auto number = static_cast<std::size_t>(of_.at(e.content.get()));
        auto& of = uploads_[number];
        if (e.part.iteration == 1) {
            EXPECT_EQ(of.id, 0U);
            of.id = e.upload_id;
            of.size = e.part.size;
            moving_[e.upload_id] = number;
            ++lanes_[of.bulk ? 1 : 0];
            for (std::size_t i = 0; i < number; ++i) {  // the policy here has no pauses of its own
                const auto& before = uploads_[i];
                EXPECT_FALSE(before.open && !before.troubled && before.bulk == of.bulk && before.id == 0)
                    << i << " before " << number;
            }
        } else {
            EXPECT_EQ(of.id, e.upload_id);
            EXPECT_EQ(of.next + 1, e.part.iteration);
        }
        of.next = e.part.iteration;
    }
    void take(out::cancel_upload e) { release(e.upload_id); }
    void take(out::ended<types::ticket>& e) {
        auto& of = uploads_[static_cast<std::size_t>(*e.ticket)];
        EXPECT_TRUE(std::exchange(of.open, false)) << "ended twice";
        EXPECT_EQ(of.id, 0U) << "ended while its call is open";
        ++(e.how ? taken : failed);
    }
    void take(const out::progressed<types::ticket>& e) {
        EXPECT_TRUE(uploads_[static_cast<std::size_t>(*e.ticket)].open);
    }
    void take(const out::send_feedback& e) {
        EXPECT_FALSE(feedback_) << "two at a time";
        EXPECT_TRUE(seen_.insert(e.feedback_id).second);
        EXPECT_GE(std::stoi(*e.content), last_logged_);
        last_logged_ = std::stoi(*e.content);
        feedback_ = e.feedback_id;
        ++logged;
    }
    void take(out::cancel_feedback e) {
        EXPECT_EQ(feedback_, e.feedback_id);
        feedback_.reset();
    }
    void take(out::link_changed e) { EXPECT_NE(std::exchange(up_, e.connected), e.connected); }
    void take(const out::warning& e) { EXPECT_FALSE(e.text.empty()); }
    void take(out::wake_at e) {
        if (!wake_ || e.when < *wake_) wake_ = e.when;
    }
    void take(out::drained) { EXPECT_FALSE(std::exchange(drained_, true)); }
    void take(const of_streams auto&) { ADD_FAILURE() << "of a stream"; }

    std::mt19937 random_;
    ferry::intake<types> core_;
    time_point now_{1h};
    std::optional<time_point> wake_;
    std::optional<std::uint64_t> poll_, feedback_;
    std::optional<ferry::task_key> running_;
    std::set<std::uint64_t> seen_;
    std::vector<sent> uploads_;
    std::map<std::uint64_t, std::size_t> moving_;
    std::map<const void*, int> of_;
    std::vector<std::shared_ptr<const ferry::payload>> kept_;
    std::size_t lanes_[2] = {0, 0};
    int last_task_ = 0, last_run_ = 0, last_feedback_ = 0, last_logged_ = 0;
    bool poll_carries_ = false, must_be_fresh_ = true, fresh_ = false, up_ = false, drained_ = false;
};

TEST(intake_random, comes_to_its_end_whatever_happens) {
    std::size_t taken = 0, failed = 0, ran = 0, logged = 0;
    for (std::uint32_t seed = 1; seed <= 200 && !HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        chaos run(seed);
        run.run(2000);
        if (HasFailure()) break;
        if (seed % 2 == 0) {
            run.stop_now();
        } else {
            run.calm_down();
        }
        taken += run.taken;
        failed += run.failed;
        ran += run.ran;
        logged += run.logged;
    }
    EXPECT_GT(taken, 1000U);
    EXPECT_GT(failed, 1000U);
    EXPECT_GT(ran, 1000U);
    EXPECT_GT(logged, 1000U);
}

}  // namespace
