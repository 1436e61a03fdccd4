#include <ferry/detail/upload_gate.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
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

constexpr std::uint64_t million = 1'000'000;

/// All sizes are in millions of bytes.
class gate_test : public testing::Test {
protected:
    using gate = ferry::detail::upload_gate<number>;

    static ferry::inbound_limits limits() {
        ferry::inbound_limits out;
        out.max_uploads = 5;
        out.max_bytes = 100 * million;
        out.idle_limit = 10s;
        return out;
    }

    using these = std::vector<int>;  // that are read on

    /// What the gate makes of an upload.
    enum class state { refused, waits, is_read };

    state open(int n, std::uint64_t there = 0) {
        numbers_[n] = {n};
        if (!gate_.open(&numbers_[n], now_, entries_[n])) return state::refused;
        return gate_.begin(entries_[n], there * million, now_) ? state::is_read : state::waits;
    }
    bool chunk(int n, std::uint64_t size) {
        bool more = false;
        gone_on_ = asked([&](auto&& read_on) { more = gate_.chunk(entries_.at(n), memory(size), now_, read_on); });
        return more;
    }
    /// It went to a file.
    bool spooled(int n, std::uint64_t size) {
        bool more = false;
        gone_on_ = asked([&](auto&& read_on) { more = gate_.chunk(entries_.at(n), file(size), now_, read_on); });
        return more;
    }
    these whole(int n, std::uint64_t size) {
        return asked([&](auto&& read_on) { gate_.whole(entries_.at(n), memory(size), now_, read_on); });
    }
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
    std::uint64_t held() const { return gate_.held_bytes() / million; }

    these gone_on_;  // at the last chunk
    gate gate_{limits()};
    gate::time_point now_{1h};

private:
    static gate::came memory(std::uint64_t size) { return {size * million, size * million}; }
    static gate::came file(std::uint64_t size) { return {size * million, 0}; }

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
    EXPECT_EQ(open(1), state::is_read);
    EXPECT_EQ(open(2), state::is_read);
    EXPECT_TRUE(chunk(1, 30));
    EXPECT_EQ(held(), 30U);
    EXPECT_TRUE(chunk(2, 10));
    EXPECT_EQ(held(), 40U);
    whole(1, 10);
    EXPECT_EQ(held(), 50U) << "it counts until it is handled";
    EXPECT_EQ(handled(1), these{});
    EXPECT_EQ(held(), 10U);
    EXPECT_EQ(close(2), these{});
    EXPECT_EQ(held(), 0U);
}

TEST_F(gate_test, the_oldest_goes_on_past_the_room_and_is_in_nobodys_way) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 300)) << "the oldest goes on to its end";
    EXPECT_TRUE(chunk(2, 20));
    EXPECT_TRUE(chunk(3, 20)) << "40 beside the oldest, and 40 may come";
    EXPECT_FALSE(chunk(2, 21));
    EXPECT_TRUE(chunk(1, 500));
    EXPECT_EQ(held(), 861U);
    EXPECT_EQ(whole(3, 1), these{2}) << "there is room again";
}

TEST_F(gate_test, what_was_the_oldest_counts_once_it_is_whole) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 300));
    EXPECT_TRUE(chunk(2, 10));
    whole(1, 10);
    EXPECT_FALSE(chunk(2, 10)) << "now the oldest, but 310 are being handled";
    EXPECT_FALSE(chunk(3, 10));
    EXPECT_EQ(handled(1), (these{2, 3}));
}

TEST_F(gate_test, the_next_oldest_goes_on_past_the_room_once_the_one_before_is_handled) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 100));
    EXPECT_FALSE(chunk(2, 60));
    EXPECT_FALSE(chunk(3, 60));
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
    EXPECT_TRUE(chunk(1, 1));
    EXPECT_TRUE(chunk(2, 30));
    EXPECT_FALSE(chunk(3, 25)) << "55 are there beside the oldest, and 30 and 25 may come";
    EXPECT_EQ(held(), 56U) << "what may come is no part of it";
    EXPECT_TRUE(chunk(2, 5)) << "60 are there, and 25 may come";
    EXPECT_EQ(gone_on_, these{3}) << "5 may come now, and 25";
    EXPECT_FALSE(chunk(2, 20)) << "80 are there, 25 may come, and 20";
    EXPECT_EQ(whole(3, 1), these{}) << "81 are there, and 20 may come";
    EXPECT_EQ(handled(3), these{2});
}

TEST_F(gate_test, a_chunk_that_is_to_go_to_a_file_counts_while_it_is_being_read) {
    open(1), open(2), open(3), open(4);
    EXPECT_TRUE(spooled(1, 60));
    EXPECT_TRUE(spooled(2, 60));
    EXPECT_EQ(held(), 0U) << "it is in a file";
    EXPECT_FALSE(spooled(3, 60)) << "60 may come beside the oldest, and 60";
    EXPECT_FALSE(spooled(4, 60));
    EXPECT_TRUE(spooled(2, 10)) << "10 may come";
    EXPECT_EQ(gone_on_, these{3}) << "and 60";
}

TEST_F(gate_test, a_first_chunk_is_asked_for_too_and_counts_four_million) {
    open(1);
    EXPECT_TRUE(chunk(1, 1));
    EXPECT_TRUE(chunk(1, 300));
    EXPECT_EQ(open(2), state::is_read);
    EXPECT_TRUE(chunk(2, 1));
    EXPECT_TRUE(chunk(2, 47));
    EXPECT_EQ(open(3), state::is_read) << "48 are there, 47 may come, and 4";
    EXPECT_EQ(open(4), state::waits);
    EXPECT_EQ(whole(3, 1), these{4});
}

TEST_F(gate_test, a_first_chunk_counts_as_large_as_those_that_came_lately) {
    open(1), open(2);
    EXPECT_TRUE(chunk(1, 1));
    EXPECT_TRUE(chunk(2, 45));
    EXPECT_EQ(open(3), state::waits) << "45 are there, 45 may come, and 45";
    EXPECT_EQ(whole(2, 1), these{3});
    EXPECT_EQ(handled(2), these{});
    for (int i = 0; i < 200; ++i) whole(2, 1), handled(2);
    EXPECT_EQ(open(4), state::is_read);
    EXPECT_TRUE(chunk(3, 40)) << "4 may come again, no 45";
}

TEST_F(gate_test, one_that_waits_for_much_is_passed_by_those_that_wait_for_less) {
    open(1), open(2), open(3), open(5);
    EXPECT_TRUE(chunk(1, 1));
    EXPECT_TRUE(chunk(2, 2));
    EXPECT_TRUE(chunk(2, 36));
    EXPECT_TRUE(chunk(5, 3));
    EXPECT_TRUE(chunk(3, 3));
    EXPECT_FALSE(chunk(3, 14)) << "58 are there, 39 may come, and 14";
    EXPECT_EQ(open(4), state::waits);
    EXPECT_EQ(close(5), these{4});
    EXPECT_EQ(close(4), these{});
    EXPECT_EQ(close(2), these{3});
}

TEST_F(gate_test, a_chunk_that_is_smaller_than_what_was_counted_makes_room) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 1));
    EXPECT_TRUE(chunk(2, 40));
    EXPECT_FALSE(chunk(3, 17)) << "57 are there, 40 may come, and 17";
    EXPECT_TRUE(chunk(2, 1));
    EXPECT_EQ(gone_on_, these{3});
}

/// Else something might always be being handled.
TEST_F(gate_test, while_the_oldest_waits_for_what_is_being_handled_no_other_is_read_on) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 50));
    EXPECT_TRUE(chunk(3, 1));
    whole(2, 1);
    EXPECT_FALSE(chunk(1, 50));
    EXPECT_FALSE(chunk(3, 1)) << "there would be room beside the oldest";
    EXPECT_EQ(open(4), state::waits);
    EXPECT_EQ(handled(2), (these{1, 3, 4}));
}

TEST_F(gate_test, what_is_there_of_an_upload_that_goes_on_counts) {
    open(1);
    EXPECT_TRUE(chunk(1, 1));
    EXPECT_EQ(open(2, 97), state::waits) << "and 4 may come";
    EXPECT_EQ(held(), 98U);
    EXPECT_EQ(close(1), these{2});
}

TEST_F(gate_test, an_upload_that_breaks_off_makes_room) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 100));
    EXPECT_TRUE(chunk(2, 40));
    EXPECT_FALSE(chunk(3, 40));
    EXPECT_EQ(close(2), these{3});
    EXPECT_EQ(held(), 140U);
}

/// It is nearly always the end of the upload, and its node waits for that.
TEST_F(gate_test, what_follows_a_message_is_read_unasked) {
    open(1), open(2), open(3);
    EXPECT_TRUE(chunk(1, 1));
    EXPECT_FALSE(chunk(3, 60));
    whole(2, 1);
    EXPECT_EQ(handled(2), these{});
    EXPECT_EQ(pass(10s), (these{1, 2})) << "both are read";
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
    for (const int n : {1, 2, 3, 4, 5}) EXPECT_EQ(open(n), state::is_read);
    EXPECT_EQ(open(6), state::refused);
    close(2);
    EXPECT_EQ(open(6), state::is_read);
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
    chunk(1, 1);
    EXPECT_FALSE(chunk(2, 60));
    whole(3, 1);
    EXPECT_EQ(open(4), state::waits);
    EXPECT_EQ(pass(10s), these{1});
    EXPECT_EQ(pass(100s), these{});
    EXPECT_EQ(close(1), these{}) << "the second is the oldest, and the third is still being handled";
    EXPECT_EQ(handled(3), (these{2, 4}));
    EXPECT_EQ(close(4), these{});
    EXPECT_EQ(pass(9s), these{});
    EXPECT_EQ(pass(1s), (these{3, 2})) << "from now on they do";
}

TEST_F(gate_test, an_idle_limit_at_its_greatest_never_cuts) {
    auto endless = limits();
    endless.idle_limit = std::chrono::milliseconds::max();
    gate_ = gate(endless);
    open(1);
    EXPECT_EQ(gate_.next_wake(), gate::time_point::max());
    EXPECT_EQ(pass(24h), these{});
}

TEST_F(gate_test, whatever_comes_somebody_is_read_and_nothing_is_left_in_the_end) {
    enum class at { is_read, waits, handled };
    for (std::uint32_t seed = 1; seed <= 300; ++seed) {
        std::mt19937 random(seed);
        const auto below = [&](int n) { return static_cast<int>(random() % static_cast<std::uint32_t>(n)); };
        std::map<int, at> uploads;
        const auto go_on = [&](const these& which) {
            for (const int n : which) {
                EXPECT_EQ(uploads.at(n), at::waits);
                uploads[n] = at::is_read;
            }
        };
        for (int step = 0; step < 300; ++step) {
            const int n = 1 + below(5);
            const auto size = static_cast<std::uint64_t>(below(70));
            const auto found = uploads.find(n);
            if (found == uploads.end()) {
                uploads[n] = open(n, below(4) == 0 ? size : 0) == state::is_read ? at::is_read : at::waits;
            } else if (below(6) == 0) {
                uploads.erase(found);
                go_on(close(n));
            } else if (found->second == at::handled) {
                found->second = at::is_read;
                go_on(handled(n));
            } else if (found->second == at::is_read && below(3) == 0) {
                found->second = at::handled;
                go_on(whole(n, size));
            } else if (found->second == at::is_read) {
                if (!chunk(n, size)) uploads[n] = at::waits;
                go_on(gone_on_);
            }
            const bool all_wait = std::ranges::all_of(uploads, [](const auto& e) { return e.second == at::waits; });
            ASSERT_FALSE(all_wait && !uploads.empty()) << "seed " << seed << ", step " << step;
        }
        for (const auto& [n, where] : std::exchange(uploads, {})) close(n);
        ASSERT_EQ(gate_.held_bytes(), 0U) << "seed " << seed;
        ASSERT_EQ(gate_.open_uploads(), 0U);
        ASSERT_EQ(gate_.next_wake(), gate::time_point::max());
    }
}

TEST_F(gate_test, all_open_ones_are_listed) {
    open(1), open(2);
    whole(2, 1);
    std::set<int> seen;
    gate_.for_each([&](number& each) { seen.insert(each.value); });
    EXPECT_EQ(seen, (std::set<int>{1, 2}));
}

}  // namespace
