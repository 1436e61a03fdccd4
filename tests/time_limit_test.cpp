#include <ferry/detail/time_limit.hpp>

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <vector>

namespace {

using namespace std::chrono_literals;

struct watched {
    int given_up = 0;
    void give_up() { ++given_up; }
};

class time_limit : public testing::Test {
protected:
    using limit = ferry::detail::time_limit<watched>;

    void pass(std::chrono::seconds time) {
        now_ += time;
        limit_.time_passed(now_);
    }

    limit::time_point now_{1h};
    std::vector<limit::time_point> asked_;
    limit limit_{10s, [this](auto when) { asked_.push_back(when); }};
    std::shared_ptr<watched> first_ = std::make_shared<watched>(), second_ = std::make_shared<watched>();
};

TEST_F(time_limit, gives_up_what_is_watched_for_too_long_and_once) {
    limit_.watch(first_, now_);
    EXPECT_EQ(asked_.back(), now_ + 10s);
    pass(4s);
    limit_.watch(second_, now_);
    pass(5s);
    EXPECT_EQ(first_->given_up, 0);
    EXPECT_EQ(asked_.back(), now_ + 1s) << "an earlier ring has taken the place of the one that was asked for";
    pass(1s);
    EXPECT_EQ(first_->given_up, 1);
    EXPECT_EQ(second_->given_up, 0);
    EXPECT_EQ(asked_.back(), now_ + 4s);
    pass(100s);
    EXPECT_EQ(first_->given_up, 1);
    EXPECT_EQ(second_->given_up, 1);
}

TEST_F(time_limit, leaves_alone_what_was_let_go_of) {
    limit_.watch(first_, now_);
    limit_.watch(second_, now_);
    limit_.let_go(first_.get());
    limit_.let_go(first_.get());
    pass(10s);
    EXPECT_EQ(first_->given_up, 0);
    EXPECT_EQ(second_->given_up, 1);
}

TEST_F(time_limit, counts_anew_where_it_is_told_again) {
    limit_.watch(first_, now_);
    pass(9s);
    limit_.watch(first_, now_);
    pass(9s);
    EXPECT_EQ(first_->given_up, 0);
    pass(1s);
    EXPECT_EQ(first_->given_up, 1);
}

TEST_F(time_limit, keeps_nothing_alive) {
    limit_.watch(first_, now_);
    const std::weak_ptr<watched> left = first_;
    first_.reset();
    EXPECT_TRUE(left.expired());
    limit_.watch(second_, now_);
    pass(10s);
    EXPECT_EQ(second_->given_up, 1);
}

}  // namespace
