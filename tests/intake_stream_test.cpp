// The node's core over streams, rule by rule as proto/ferry/researcher.proto has them. Chunks have 10 bytes.
#include <ferry/intake.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace in = ferry::intake_events;
namespace out = ferry::intake_effects;
using ferry::errc;
using ferry::poll_end;
using ferry::frames::verdict;
using std::chrono::milliseconds;
using time_point = std::chrono::steady_clock::time_point;

struct types {
    using task = int;
    using ticket = int;
    using retry = ferry::bounded_retry;
    using chunk_size = ferry::max_message_bytes_length<10>;
};

struct on_disk : ferry::payload_source {
    explicit on_disk(std::uint64_t bytes) : bytes(bytes) {}
    std::uint64_t size() const noexcept override { return bytes; }
    void read(std::uint64_t, std::uint64_t, std::function<void(ferry::range_result)>) const override {}
    std::uint64_t bytes;
};

/// The core under virtual time, with a layer above that only writes down what it is told. A task's number is its value, too.
class world {
public:
    explicit world(ferry::intake_limits limits = {}) : core_(limits, {}, 1) {}

    /// What came out since the last call, without warnings and the time to wake.
    std::string said() {
        std::string all;
        for (const auto& each : std::exchange(log_, {})) all += (all.empty() ? "" : " ") + each;
        return all;
    }

    template <class Event>
    auto step(Event event) {
        return core_.step(std::move(event), {now, {}}, [this](auto&& effect) { this->take(effect); });
    }

    /// Lets the time pass, waking the core exactly when it asks for it.
    void pass(milliseconds span) {
        const auto end = now + span;
        for (int i = 0; wake && *wake <= end; ++i) {
            ASSERT_LT(i, 1000) << "it is busy with nothing";
            now = std::max(now, *wake);
            wake.reset();
            step(in::time_passed{});
        }
        now = end;
    }

    /// Opens the first stream.
    std::string start() {
        step(in::started{});
        return said();
    }
    void welcome(milliseconds lease = 0ms) { step(in::stream_welcomed{stream, {lease}}); }
    void start_and_welcome(milliseconds lease = 0ms) {
        start();
        welcome(lease);
        said();
    }
    void break_stream(poll_end how = poll_end::unreachable) { step(in::poll_ended{stream, how, "so it is"}); }
    /// The stream is lost, and the next one opened.
    std::string open_anew() {
        break_stream();
        said();
        pass(500ms);
        return said();
    }

    void task(int number, int attempt = 1, bool urgent = false, std::uint64_t size = 1) {
        step(in::task_arrived<int>{stream, number, size, static_cast<std::uint64_t>(number), attempt, urgent});
    }
    bool delivery(int number, std::uint64_t from = 0, int attempt = 1) {
        return step(in::delivery_began{stream, {static_cast<std::uint64_t>(number), from, 100, attempt, false}});
    }
    void chunk(int number, std::uint64_t received) {
        step(in::delivery_progress{stream, static_cast<std::uint64_t>(number), received});
    }
    void withdraw(int number) { step(in::task_withdrawn{stream, static_cast<std::uint64_t>(number)}); }
    void returns(int number, verdict what = verdict::taken, milliseconds pause = 0ms) {
        step(in::task_returned{running.at(number), what, "so", pause});
    }

    ferry::upload_key reply(std::size_t size, bool in_memory = true, std::uint64_t number = 0, std::uint64_t task = 0) {
        in::reply_submitted<int> e;
        e.task = task;
        e.content = in_memory ? std::make_shared<const ferry::payload>(ferry::bytes::copy(std::string(size, 'x')))
                              : std::make_shared<const ferry::payload>(
                                    std::shared_ptr<const ferry::payload_source>(std::make_shared<on_disk>(size)));
        e.number = number;
        return step(std::move(e));
    }
    void answer(errc reason = errc::ok) { step(in::reply_answered{stream, {reply_number, reason, ""}}); }

    const ferry::intake<types>& core() const { return core_; }

    time_point now{1h};
    std::optional<time_point> wake;
    std::uint64_t stream = 0;                // or poll; the last one
    ferry::frames::hello hello;              // the last one
    std::map<int, ferry::task_key> running;  // of each task that has run, the last run
    std::uint64_t upload = 0, reply_number = 0;
    bool may_wait = false;  // the last receipt

private:
    void take(const out::reconnect&) {}
    void take(const out::open_poll& e) {
        stream = e.poll_id;
        log_.emplace_back("poll");
    }
    void take(const out::open_stream& e) {
        stream = e.poll_id;
        hello = e.hello;
        std::string text = "stream";
        for (const auto& h : hello.held) {
            text += " " + std::to_string(h.task) + (h.ready ? ":ready" : ":" + std::to_string(h.received));
        }
        for (const auto& r : hello.receipts) text += " " + of(r);
        log_.push_back(std::move(text));
    }
    void take(const out::cancel_poll&) { log_.emplace_back("cancel"); }
    void take(const out::close_stream&) { log_.emplace_back("close"); }
    void take(const out::tell_receipt& e) {
        log_.push_back("tell:" + of(e.what));
        may_wait = e.may_wait;
    }
    void take(const out::renew_leases& e) {
        std::string text = "renew";
        for (const auto task : e.tasks) text += ":" + std::to_string(task);
        log_.push_back(std::move(text));
    }
    void take(const out::tell_leaving&) { log_.emplace_back("leaving"); }
    void take(const out::send_reply& e) {
        reply_number = e.number;
        log_.push_back("reply:" + std::to_string(e.content->size()) +
                       (e.task != 0 ? "-receipt-of-" + std::to_string(e.task) : ""));
    }
    void take(const out::forget_task& e) { log_.push_back("forget:" + std::to_string(e.number)); }
    void take(const out::run_task<int>& e) {
        running[e.task] = e.key;
        log_.push_back((e.urgent ? "run-urgent:" : "run:") + std::to_string(e.task));
    }
    void take(const out::stop_task& e) {
        for (const auto& [number, key] : running) {
            if (key == e.key) log_.push_back("stop:" + std::to_string(number));
        }
    }
    void take(const out::open_upload& e) {
        upload = e.upload_id;
        reply_number = e.number;
        if (e.has_call) log_.emplace_back(e.can_go_on ? "upload-from-where" : "upload");
    }
    void take(const out::send_range& e) {
        log_.push_back("send:" + std::to_string(e.part.offset) + "+" + std::to_string(e.part.length));
    }
    void take(const out::cancel_upload&) { log_.emplace_back("cancel-upload"); }
    void take(const out::ended<int>& e) { log_.push_back("ended:" + std::string(to_string(e.how.kind))); }
    void take(const out::progressed<int>&) {}
    void take(const out::send_feedback&) {}
    void take(const out::cancel_feedback&) {}
    void take(const out::link_changed& e) { log_.emplace_back(e.connected ? "up" : "down"); }
    void take(const out::warning&) {}
    void take(const out::wake_at& e) {
        if (!wake || e.when < *wake) wake = e.when;
    }
    void take(const out::drained&) { log_.emplace_back("drained"); }

    static std::string of(const ferry::frames::receipt& r) {
        static constexpr const char* names[] = {"taken", "refused", "not-now", "given-back"};
        return std::to_string(r.task) + ":" + names[static_cast<int>(r.what)];
    }

    ferry::intake<types> core_;
    std::vector<std::string> log_;
};

// --- tasks -----------------------------------------------------------------------------------------------------------------

TEST(intake_stream, says_hello_with_its_window_and_waits_for_the_welcome) {
    world w({.max_waiting_tasks = 3, .max_waiting_bytes = 100});
    w.reply(5);
    EXPECT_EQ(w.start(), "stream");
    EXPECT_EQ(w.hello.window_tasks, 3U);
    EXPECT_EQ(w.hello.window_bytes, 100U);
    EXPECT_FALSE(w.core().connected());
    w.welcome();
    EXPECT_EQ(w.said(), "up reply:5");
}

TEST(intake_stream, runs_the_tasks_of_a_lane_one_after_another_and_the_lanes_at_the_same_time) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.task(3, 1, true);
    EXPECT_EQ(w.said(), "run:1 run-urgent:3");
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1 tell:1:taken run:2");
    w.returns(3, verdict::refused);
    EXPECT_EQ(w.said(), "forget:3 tell:3:refused");
}

TEST(intake_stream, ignores_a_task_that_it_holds_and_answers_one_that_is_done_by_the_same_receipt) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.said();
    w.task(1, 2);
    w.task(2, 2);
    EXPECT_FALSE(w.delivery(2, 0, 3));
    EXPECT_EQ(w.said(), "");
    w.returns(1, verdict::refused);
    w.said();
    w.task(1, 3);
    EXPECT_EQ(w.said(), "tell:1:refused");
    EXPECT_FALSE(w.delivery(1, 0, 4));
    EXPECT_EQ(w.said(), "tell:1:refused");
}

TEST(intake_stream, remembers_twice_as_many_receipts_as_fit_its_window) {
    world w({.max_waiting_tasks = 1});
    w.start_and_welcome();
    for (int i = 1; i <= 3; ++i) {
        w.task(i);
        w.returns(i);
    }
    w.said();
    w.task(1, 2);
    EXPECT_EQ(w.said(), "run:1") << "forgotten";
    w.task(2, 2);
    EXPECT_EQ(w.said(), "tell:2:taken");
}

TEST(intake_stream, puts_a_task_of_several_chunks_together_and_forgets_the_damaged_one) {
    world w;
    w.start_and_welcome();
    EXPECT_TRUE(w.delivery(1));
    w.chunk(1, 10);
    w.step(in::delivery_damaged{w.stream, 1, "so it is"});
    EXPECT_EQ(w.said(), "forget:1 cancel down");
    w.pass(500ms);
    EXPECT_EQ(w.said(), "stream");
}

/// A full disk, say. What follows in the lane must not overtake it.
TEST(intake_stream, puts_off_a_task_that_it_has_no_room_for) {
    world w({.refused_pause = 7s});
    w.start_and_welcome();
    w.task(1);
    w.said();
    EXPECT_TRUE(w.delivery(2));
    w.chunk(2, 10);
    w.step(in::delivery_put_off{w.stream, 2, false, "the disk is full"});
    EXPECT_EQ(w.said(), "forget:2 tell:2:not-now");
    w.task(3);
    w.returns(1);
    w.task(4, 1, true);
    EXPECT_EQ(w.said(), "forget:1 tell:1:taken run-urgent:4") << "the third waits for the second";
    w.withdraw(3);
    w.withdraw(2);
    w.task(2, 2);
    EXPECT_EQ(w.said(), "forget:3 run:2");
}

TEST(intake_stream, gives_up_a_stream_whose_delivery_stands_still) {
    world w({.idle_limit = 5s});
    w.start_and_welcome();
    w.delivery(1);
    w.pass(4s);
    w.chunk(1, 10);
    w.pass(4s);
    EXPECT_EQ(w.said(), "");
    w.pass(1s);
    EXPECT_EQ(w.said(), "cancel down");
    w.pass(500ms);
    EXPECT_EQ(w.said(), "stream 1:10");
}

TEST(intake_stream, rests_while_nothing_is_under_way) {
    world w;
    w.start_and_welcome(60s);
    w.pass(100h);
    EXPECT_EQ(w.said(), "");
}

// --- the next hello --------------------------------------------------------------------------------------------------------

TEST(intake_stream, names_in_the_next_hello_what_it_holds_and_what_is_done) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.returns(1);
    w.task(2);
    w.task(3);
    w.delivery(4);
    w.chunk(4, 20);
    EXPECT_EQ(w.open_anew(), "stream 2:ready 3:ready 4:20 1:taken");
}

TEST(intake_stream, tells_after_the_welcome_what_has_become_of_tasks_since_the_hello) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    EXPECT_EQ(w.open_anew(), "stream 1:ready 2:ready");
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1 run:2");
    w.welcome();
    EXPECT_EQ(w.said(), "up tell:1:taken");
}

TEST(intake_stream, tells_nothing_of_a_task_that_returned_while_there_was_no_stream_but_in_the_hello) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.break_stream();
    w.returns(1);
    w.said();
    w.pass(500ms);
    EXPECT_EQ(w.said(), "stream 1:taken");
    w.welcome();
    EXPECT_EQ(w.said(), "up");
}

TEST(intake_stream, names_the_parts_that_an_earlier_life_left) {
    world w;
    w.step(in::task_found{7, 40});
    EXPECT_EQ(w.start(), "stream 7:40");
    w.welcome();
    w.said();
    EXPECT_TRUE(w.delivery(7, 40, 2));
    w.task(7, 2, false, 100);
    EXPECT_EQ(w.said(), "run:7");
}

TEST(intake_stream, knows_the_events_of_its_newest_stream_only) {
    world w;
    w.start_and_welcome();
    const auto old = w.stream;
    w.open_anew();
    w.step(in::stream_welcomed{old, {}});
    w.step(in::task_arrived<int>{old, 1, 1, 1, 1, false});
    EXPECT_FALSE(w.step(in::delivery_began{old, {2, 0, 100, 1, false}}));
    w.step(in::task_withdrawn{old, 1});
    w.step(in::poll_ended{old, poll_end::well, ""});
    EXPECT_EQ(w.said(), "");
}

// --- withdrawals -----------------------------------------------------------------------------------------------------------

TEST(intake_stream, forgets_what_is_withdrawn_and_tells_a_callback_that_runs) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.delivery(3);
    w.said();
    w.withdraw(2);
    w.withdraw(3);
    w.withdraw(1);
    EXPECT_EQ(w.said(), "forget:2 forget:3 stop:1");
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1 tell:1:taken");
    EXPECT_EQ(w.core().open_tasks(), 0U);
}

TEST(intake_stream, waits_no_more_for_the_rest_of_what_is_withdrawn) {
    world w({.idle_limit = 5s});
    w.start_and_welcome();
    w.delivery(1);
    w.withdraw(1);
    w.said();
    w.pass(1h);
    EXPECT_EQ(w.said(), "");
}

// --- not now ---------------------------------------------------------------------------------------------------------------

TEST(intake_stream, runs_nothing_of_a_lane_after_not_now_until_the_server_has_withdrawn_it) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.said();
    w.returns(1, verdict::not_now, 100ms);
    EXPECT_EQ(w.said(), "forget:1 tell:1:not-now");
    w.task(3);
    w.task(4, 1, true);
    EXPECT_EQ(w.said(), "run-urgent:4") << "the other lane goes on";
    w.withdraw(2);
    w.withdraw(3);
    w.withdraw(1);
    EXPECT_EQ(w.said(), "forget:2 forget:3");
    w.task(1, 2);
    EXPECT_EQ(w.said(), "run:1");
}

TEST(intake_stream, goes_on_with_the_later_ones_where_the_server_withdraws_only_what_was_not_now) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.returns(1, verdict::not_now);
    w.said();
    w.withdraw(1);
    EXPECT_EQ(w.said(), "run:2");
}

TEST(intake_stream, drops_the_later_ones_where_the_stream_ends_before_that) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.returns(1, verdict::not_now);
    w.said();
    w.break_stream();
    EXPECT_EQ(w.said(), "forget:2 down");
    w.pass(500ms);
    EXPECT_EQ(w.said(), "stream");
}

TEST(intake_stream, drops_the_later_ones_at_once_where_there_is_no_stream) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.break_stream();
    w.said();
    w.returns(1, verdict::not_now);
    EXPECT_EQ(w.said(), "forget:1 forget:2");
}

TEST(intake_stream, wants_no_delivery_of_what_it_has_just_refused_for_now) {
    world w;
    w.start_and_welcome();
    w.task(1, 1, false, 100);
    w.returns(1, verdict::not_now);
    EXPECT_FALSE(w.delivery(1, 100, 2)) << "sent before the server knew";
    w.withdraw(1);
    EXPECT_TRUE(w.delivery(1, 0, 3));
}

// --- leases ----------------------------------------------------------------------------------------------------------------

TEST(intake_stream, renews_the_leases_of_all_that_it_holds_three_times_in_each) {
    world w;
    w.start_and_welcome(3s);
    w.task(1);
    w.task(2);
    w.said();
    w.pass(999ms);
    EXPECT_EQ(w.said(), "");
    w.pass(1ms);
    EXPECT_EQ(w.said(), "renew:1:2");
    w.pass(2s);
    EXPECT_EQ(w.said(), "renew:1:2 renew:1:2");
}

TEST(intake_stream, leaves_it_to_the_callback_to_renew_its_lease_where_it_is_told_to) {
    world w({.renew_leases = false});
    w.start_and_welcome(3s);
    w.task(1);
    w.task(2);
    w.said();
    w.pass(1s);
    EXPECT_EQ(w.said(), "renew:2");
    w.step(in::task_in_progress{w.running[1]});
    EXPECT_EQ(w.said(), "renew:1");
    w.returns(1);
    w.said();
    w.step(in::task_in_progress{w.running[1]});
    EXPECT_EQ(w.said(), "") << "it is done";
}

TEST(intake_stream, renews_nothing_where_leases_have_no_end) {
    world w;
    w.start_and_welcome(0ms);
    w.task(1);
    w.said();
    w.pass(100h);
    EXPECT_EQ(w.said(), "");
}

// --- replies ---------------------------------------------------------------------------------------------------------------

TEST(intake_stream, carries_small_replies_and_lets_the_others_go_on_where_they_broke_off) {
    world w;
    w.start_and_welcome();
    w.reply(64 * 1024);
    EXPECT_EQ(w.said(), "reply:65536");
    w.answer();
    EXPECT_EQ(w.said(), "ended:taken");
    w.reply(25, false);
    EXPECT_EQ(w.said(), "upload-from-where");
    w.step(in::upload_accepted{w.upload, 12});
    EXPECT_EQ(w.said(), "send:12+10");
    w.step(in::upload_range_sent{w.upload});
    EXPECT_EQ(w.said(), "send:22+3");
    w.step(in::upload_ended{w.upload, errc::ok, ""});
    EXPECT_EQ(w.said(), "ended:taken");
}

TEST(intake_stream, tells_by_a_reply_that_its_task_is_taken_and_not_again_when_the_callback_returns) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.said();
    w.reply(5, true, 0, 1);
    EXPECT_EQ(w.said(), "reply:5-receipt-of-1");
    w.reply(6, true, 0, 1);
    EXPECT_EQ(w.said(), "reply:6-receipt-of-1");
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1");
    w.task(1, 2);
    EXPECT_EQ(w.said(), "tell:1:taken") << "it comes again, and is known";
    w.reply(7, true, 0, 1);
    EXPECT_EQ(w.said(), "reply:7") << "the receipt has gone";
}

TEST(intake_stream, tells_that_a_task_is_refused_though_it_was_replied_to) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.reply(5, true, 0, 1);
    w.said();
    w.returns(1, verdict::refused);
    EXPECT_EQ(w.said(), "forget:1 tell:1:refused");
}

TEST(intake_stream, tells_the_receipt_itself_where_the_reply_goes_by_a_call_of_its_own) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.reply(70'000, true, 0, 1);
    w.said();
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1 tell:1:taken");
}

TEST(intake_stream, tells_the_receipt_that_was_lost_with_its_reply) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.reply(5, true, 0, 1);
    w.open_anew();
    w.returns(1);
    w.said();
    w.welcome();
    EXPECT_EQ(w.said(), "up tell:1:taken reply:5");
}

TEST(intake_stream, lets_a_receipt_wait_while_others_will_follow) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.returns(1);
    EXPECT_TRUE(w.may_wait);
    w.returns(2);
    EXPECT_FALSE(w.may_wait);
}

TEST(intake_stream, ends_an_upload_of_which_the_server_has_all_with_an_empty_chunk) {
    world w;
    w.start_and_welcome();
    w.reply(25, false);
    w.said();
    w.step(in::upload_accepted{w.upload, 25});
    EXPECT_EQ(w.said(), "send:25+0");
    w.step(in::upload_ended{w.upload, errc::ok, ""});
    EXPECT_EQ(w.said(), "ended:taken");
}

TEST(intake_stream, sends_unanswered_replies_again_by_the_same_number) {
    world w;
    w.start_and_welcome();
    w.reply(5);
    const auto number = w.reply_number;
    EXPECT_EQ(w.open_anew(), "stream");
    w.welcome();
    w.pass(500ms);
    EXPECT_EQ(w.said(), "up reply:5");
    EXPECT_EQ(w.reply_number, number);
}

TEST(intake_stream, keeps_the_number_that_a_reply_had_in_an_earlier_life) {
    world w;
    w.start();
    w.reply(5, true, 4711);
    w.welcome();
    EXPECT_EQ(w.reply_number, 4711U);
}

TEST(intake_stream, tries_a_reply_again_that_the_server_had_no_room_for) {
    world w;
    w.start_and_welcome();
    w.reply(5);
    w.said();
    w.answer(errc::queue_full);
    EXPECT_EQ(w.said(), "reply:5");
    w.answer(errc::not_permitted);
    EXPECT_EQ(w.said(), "ended:not permitted");
}

/// It knows the upload by its number, and takes it once however often it comes.
TEST(intake_stream, tries_an_upload_again_and_again_that_the_server_does_not_read) {
    world w({.idle_limit = 5s});
    w.start_and_welcome(1h);
    w.reply(25, false);
    w.said();
    const auto number = w.reply_number;
    std::string all;
    for (int cut = 0, i = 0; cut < 12 && i < 5000; ++i) {  // more often than the retry policy would have it
        w.pass(1s);
        const auto said = w.said();
        if (said.starts_with("cancel-upload")) ++cut;
        all += said;
    }
    ASSERT_EQ(all.find("ended"), std::string::npos) << all;
    while (!all.ends_with("upload-from-where")) {
        w.pass(1s);
        all += w.said();
    }
    EXPECT_EQ(w.reply_number, number);
    w.step(in::upload_accepted{w.upload, 0});
    for (int i = 0; i < 3; ++i) w.step(in::upload_range_sent{w.upload});
    w.said();
    w.step(in::upload_ended{w.upload, errc::ok, ""});
    EXPECT_EQ(w.said(), "ended:taken");
}

// --- streams and polls -----------------------------------------------------------------------------------------------------

TEST(intake_stream, gives_way_to_polls_at_once_where_the_server_knows_of_none) {
    world w;
    w.step(in::task_found{7, 40});
    w.start();
    w.reply(25, false);
    w.break_stream(poll_end::unknown);
    EXPECT_EQ(w.said(), "forget:7 poll upload send:0+10") << "of which none goes on";
}

TEST(intake_stream, is_asked_for_again_after_the_link_was_lost) {
    world w;
    w.start();
    w.break_stream(poll_end::unknown);
    w.said();
    w.break_stream(poll_end::unreachable);
    w.pass(500ms);
    EXPECT_EQ(w.said(), "stream");
}

TEST(intake_stream, is_not_asked_for_where_the_limits_say_so) {
    world w({.streams = false});
    EXPECT_EQ(w.start(), "poll");
    w.break_stream(poll_end::unreachable);
    w.pass(500ms);
    EXPECT_EQ(w.said(), "poll");
}

// --- the stop --------------------------------------------------------------------------------------------------------------

TEST(intake_stream, is_left_when_the_node_stops_and_closed_when_what_runs_is_done) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.task(3);
    w.delivery(4);
    w.said();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "leaving tell:2:given-back") << "the later ones go with it, and their bytes are kept";
    EXPECT_FALSE(w.delivery(5));
    w.task(6);
    EXPECT_EQ(w.said(), "");
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1 tell:1:taken close");
    w.break_stream(poll_end::well);
    EXPECT_EQ(w.said(), "drained");
}

TEST(intake_stream, of_a_node_that_stops_carries_its_last_replies) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.step(in::stop_requested{});
    w.reply(5);
    w.said();
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1 tell:1:taken");
    w.answer();
    EXPECT_EQ(w.said(), "ended:taken close");
}

TEST(intake_stream, that_is_not_welcomed_yet_is_given_up_by_a_stop_and_what_waits_is_not_run) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.task(2);
    w.open_anew();
    w.step(in::stop_requested{});
    EXPECT_EQ(w.said(), "cancel");
    w.returns(1);
    EXPECT_EQ(w.said(), "forget:1 drained");
}

TEST(intake_stream, is_cancelled_by_a_forced_stop) {
    world w;
    w.start_and_welcome();
    w.task(1);
    w.reply(5);
    w.said();
    w.step(in::stop_forced{});
    EXPECT_EQ(w.said(), "cancel ended:stopped down drained");
}

}  // namespace
