#include <ferry/detail/upload_gate.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

// Which uploads are read on, with uploads that are numbers.

namespace {

using namespace std::chrono_literals;

struct number {
    int value;
};

class gate_test : public testing::Test {
protected:
    using gate = ferry::detail::upload_gate<number>;

    static ferry::inbound_limits limits() {
        ferry::inbound_limits out;
        out.max_uploads = 4;
        out.max_bytes = 100;
        out.idle_limit = 10s;
        return out;
    }

    bool open(int n) {
        numbers_[n] = {n};
        return gate_.open(&numbers_[n], now_, entries_[n]);
    }
    bool chunk(int n, std::uint64_t bytes) { return gate_.chunk(entries_.at(n), bytes, now_); }
    void whole(int n, std::uint64_t bytes) { gate_.whole(entries_.at(n), bytes); }
    std::vector<int> handled(int n) {
        return asked([&](auto&& read_on) { gate_.handled(entries_.at(n), now_, read_on); });
    }
    std::vector<int> close(int n) {
        return asked([&](auto&& read_on) { gate_.close(entries_.at(n), now_, read_on); });
    }
    std::vector<int> pass(std::chrono::seconds time) {
        now_ += time;
        return asked([&](auto&& cut) { gate_.time_passed(now_, cut); });
    }
    std::uint64_t held() const { return gate_.held_bytes(); }

    using these = std::vector<int>;
    gate gate_{limits()};
    gate::time_point now_{1h};

private:
    template <class Do>
    std::vector<int> asked(Do&& act) {
        std::vector<int> out;
        act([&](number& each) { out.push_back(each.value); });
        return out;
    }

    std::map<int, number> numbers_;
    std::map<int, gate::entry> entries_;
};

TEST_F(gate_test, uploads_are_read_on_while_there_is_room) {
    ASSERT_TRUE(open(1));
    ASSERT_TRUE(open(2));
    EXPECT_TRUE(chunk(1, 30));
    EXPECT_TRUE(chunk(2, 30));
    EXPECT_EQ(held(), 60U);
    whole(1, 10);
    EXPECT_EQ(held(), 70U) << "it counts until it is handled";
    EXPECT_EQ(handled(1), these{});
    EXPECT_EQ(held(), 30U);
    EXPECT_EQ(close(2), these{});
    EXPECT_EQ(held(), 0U);
}

TEST_F(gate_test, past_the_room_only_the_oldest_unfinished_message_goes_on) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 30));
    EXPECT_TRUE(chunk(2, 20));
    EXPECT_FALSE(chunk(3, 20));
    EXPECT_FALSE(chunk(2, 20));
    EXPECT_TRUE(chunk(1, 500)) << "the oldest makes room in the end";
    whole(1, 1);
    EXPECT_EQ(handled(1), (these{2, 3})) << "there is room again";
}

TEST_F(gate_test, the_next_oldest_goes_on_past_the_room_once_the_one_before_is_handled) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 100));
    EXPECT_FALSE(chunk(2, 100));
    EXPECT_FALSE(chunk(3, 100));
    whole(1, 1);
    EXPECT_EQ(handled(1), these{2}) << "and not the third";
    EXPECT_TRUE(chunk(2, 1));
}

TEST_F(gate_test, past_the_room_nothing_is_read_while_a_message_is_being_handled) {
    open(1), open(2);
    EXPECT_TRUE(chunk(2, 10));
    whole(1, 200);
    EXPECT_FALSE(chunk(2, 1)) << "the room that is needed will come";
    EXPECT_EQ(handled(1), these{2});
}

TEST_F(gate_test, what_is_being_read_counts_as_large_as_the_last_chunk) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 40));
    EXPECT_FALSE(chunk(2, 20)) << "40 and 20 are there, and 40 may come";
    EXPECT_TRUE(chunk(1, 5));
    EXPECT_EQ(held(), 65U) << "what may come is no part of it";
    EXPECT_TRUE(chunk(3, 10)) << "75 are there, and 5 may come";
    whole(1, 1);
    EXPECT_EQ(handled(1), these{2}) << "of the first nothing may come any more";
}

TEST_F(gate_test, an_upload_that_breaks_off_makes_room) {
    open(1), open(2);
    EXPECT_TRUE(chunk(1, 100));
    EXPECT_FALSE(chunk(2, 5));
    EXPECT_EQ(close(1), these{2});
    EXPECT_EQ(held(), 5U);
}

TEST_F(gate_test, a_message_that_comes_whole_needs_no_room) {
    open(1), open(2);
    EXPECT_TRUE(chunk(1, 100));
    whole(2, 50);
    EXPECT_EQ(held(), 150U);
    EXPECT_EQ(handled(2), these{});
    EXPECT_EQ(held(), 100U);
}

TEST_F(gate_test, an_empty_chunk_has_its_turn_too) {
    open(1), open(2);
    EXPECT_TRUE(chunk(1, 0));
    EXPECT_FALSE(chunk(2, 100)) << "the other one came first";
    EXPECT_TRUE(chunk(1, 0));
    whole(1, 0);
    EXPECT_EQ(handled(1), these{2});
}

TEST_F(gate_test, several_messages_of_one_upload_are_counted_one_by_one) {
    open(1), open(2);
    EXPECT_TRUE(chunk(1, 30));
    EXPECT_TRUE(chunk(2, 10));
    whole(1, 10);
    handled(1);
    EXPECT_EQ(held(), 10U);
    EXPECT_FALSE(chunk(1, 95)) << "now the other one is the oldest";
    whole(2, 1);
    EXPECT_EQ(handled(2), these{1});
}

TEST_F(gate_test, so_many_are_open_and_no_more) {
    for (const int n : {1, 2, 3, 4}) EXPECT_TRUE(open(n));
    EXPECT_FALSE(open(5));
    close(2);
    EXPECT_TRUE(open(5));
}

TEST_F(gate_test, one_that_stands_still_is_cut_once) {
    open(1);
    pass(4s);
    open(2);
    EXPECT_EQ(gate_.next_wake(), now_ + 6s);
    EXPECT_EQ(pass(5s), these{});
    EXPECT_EQ(pass(1s), these{1});
    EXPECT_EQ(gate_.next_wake(), now_ + 4s);
    EXPECT_EQ(pass(4s), these{2});
    EXPECT_EQ(gate_.next_wake(), gate::time_point::max());
    EXPECT_EQ(close(1), these{});
    EXPECT_EQ(close(2), these{});
}

TEST_F(gate_test, each_chunk_begins_the_idle_time_anew) {
    open(1), open(2);
    pass(9s);
    chunk(1, 1);
    EXPECT_EQ(pass(1s), these{2});
    EXPECT_EQ(pass(8s), these{});
    EXPECT_EQ(pass(1s), these{1});
}

TEST_F(gate_test, neither_what_waits_for_room_nor_what_is_being_handled_stands_still) {
    open(1), open(2), open(3);
    chunk(1, 100);
    EXPECT_FALSE(chunk(2, 1));
    whole(3, 1);
    EXPECT_EQ(pass(10s), these{1});
    EXPECT_EQ(pass(100s), these{});
    EXPECT_EQ(close(1), these{2});
    EXPECT_EQ(handled(3), these{});
    EXPECT_EQ(pass(9s), these{});
    EXPECT_EQ(pass(1s), (these{2, 3})) << "from now on they do";
}

TEST_F(gate_test, an_idle_limit_at_its_greatest_never_cuts) {
    auto endless = limits();
    endless.idle_limit = std::chrono::milliseconds::max();
    gate_ = gate(endless);
    open(1);
    EXPECT_EQ(gate_.next_wake(), gate::time_point::max());
    EXPECT_EQ(pass(24h), these{});
}

TEST_F(gate_test, all_open_ones_are_listed) {
    open(1), open(2);
    whole(2, 1);
    std::set<int> seen;
    gate_.for_each([&](number& each) { seen.insert(each.value); });
    EXPECT_EQ(seen, (std::set<int>{1, 2}));
}

}  // namespace
