#include <ferry/policy.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace {

struct counting_retry {
    using policy_category = ferry::retry_tag;
    int limit = 5;
};

struct other_retry {
    using policy_category = ferry::retry_tag;
};

struct owning_store {
    using policy_category = ferry::agent_store_tag;
    std::unique_ptr<int> state;
};

struct quiet_observer {
    using policy_category = ferry::observer_tag;
};

TEST(policy, a_pack_has_what_was_given_and_else_the_default) {
    using given = ferry::select_policy<ferry::retry_tag, other_retry, owning_store, counting_retry>;
    using left_out = ferry::select_policy<ferry::retry_tag, other_retry, owning_store>;
    using nothing_given = ferry::select_policy<ferry::retry_tag, other_retry>;
    EXPECT_TRUE((std::is_same_v<given, counting_retry>));
    EXPECT_TRUE((std::is_same_v<left_out, other_retry>));
    EXPECT_TRUE((std::is_same_v<nothing_given, other_retry>));
}

TEST(policy, a_given_object_is_taken_with_its_state) {
    std::tuple given(quiet_observer{}, counting_retry{.limit = 9});
    EXPECT_EQ(ferry::take_policy<counting_retry>(given).limit, 9);
}

TEST(policy, an_object_that_was_not_given_is_made) {
    std::tuple given(quiet_observer{});
    EXPECT_EQ(ferry::take_policy<counting_retry>(given).limit, 5);
    std::tuple<> nothing;
    EXPECT_EQ(ferry::take_policy<counting_retry>(nothing).limit, 5);
}

TEST(policy, an_object_that_can_only_be_moved_is_moved) {
    auto state = std::make_unique<int>(7);
    const auto* at = state.get();
    std::tuple given(counting_retry{}, owning_store{std::move(state)});
    const auto store = ferry::take_policy<owning_store>(given);
    EXPECT_EQ(store.state.get(), at);
    EXPECT_EQ(std::get<owning_store>(given).state, nullptr);
}

}  // namespace
