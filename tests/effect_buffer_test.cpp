#include <ferry/detail/effect_buffer.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <variant>
#include <vector>

namespace {

using ferry::detail::effect_buffer;
using testing::ElementsAre;

template <class Effect>
std::vector<Effect> all_of(effect_buffer<Effect>& buffer) {
    return {buffer.begin(), buffer.end()};
}

TEST(effect_buffer, keeps_effects_in_order) {
    effect_buffer<std::variant<int, double>> buffer;
    EXPECT_EQ(buffer.begin(), buffer.end());
    buffer.push(1);
    buffer.push(2.5);
    const int three = 3;
    buffer.push(three);
    EXPECT_THAT(all_of(buffer), ElementsAre(1, 2.5, 3));
}

TEST(effect_buffer, keeps_its_memory_for_the_next_step) {
    const int* first = nullptr;
    std::vector<std::unique_ptr<int>> takers;  // of memory that a step gives back
    for (int step = 0; step < 3; ++step) {
        for (int i = 0; i < step * 10; ++i) takers.push_back(std::make_unique<int>(i));
        effect_buffer<int> buffer;
        EXPECT_EQ(buffer.begin(), buffer.end()) << "but no effect";
        buffer.push(step);
        if (!first) first = &*buffer.begin();
        EXPECT_EQ(&*buffer.begin(), first);
    }
}

TEST(effect_buffer, may_be_nested) {
    effect_buffer<int> outer;
    outer.push(1);
    {
        effect_buffer<int> inner;
        EXPECT_EQ(inner.begin(), inner.end());
        for (int i = 0; i < 100; ++i) inner.push(i);
    }
    outer.push(2);
    EXPECT_THAT(all_of(outer), ElementsAre(1, 2));
}

/// Takes a step when its thread ends, after what the thread had kept is gone.
struct late_step {
    std::vector<int>* seen = nullptr;
    ~late_step() {
        effect_buffer<int> buffer;
        buffer.push(1);
        *seen = all_of(buffer);
    }
};

TEST(effect_buffer, may_be_used_while_its_thread_ends) {
    std::vector<int> seen;
    std::thread([&] {
        static thread_local late_step late;
        late.seen = &seen;
        effect_buffer<int> buffer;
        buffer.push(2);
    }).join();
    EXPECT_THAT(seen, ElementsAre(1));
}

TEST(effect_buffer, destroys_its_effects_and_lets_them_take_steps) {
    int steps = 0;
    using effect = std::shared_ptr<void>;
    {
        effect_buffer<effect> buffer;
        buffer.push(effect(nullptr, [&](void*) {
            effect_buffer<effect> nested;
            nested.push(effect(nullptr, [&](void*) { ++steps; }));
            ++steps;
        }));
        EXPECT_EQ(steps, 0);
    }
    EXPECT_EQ(steps, 2);
    effect_buffer<effect> next;
    EXPECT_EQ(next.begin(), next.end());
}

TEST(effect_buffer, drains_what_is_pushed_meanwhile_too) {
    effect_buffer<int> buffer;
    buffer.push(1);
    buffer.push(2);
    std::vector<int> seen;
    buffer.drain([&](int each) {
        seen.push_back(each);
        for (int i = 0; each == 1 && i < 100; ++i) buffer.push(10);
    });
    EXPECT_EQ(seen.size(), 102u);
    EXPECT_EQ(seen[1], 2);
    EXPECT_EQ(seen.back(), 10);
    EXPECT_THAT(all_of(buffer), ElementsAre());
}

TEST(effect_buffer, is_of_one_thread) {
    effect_buffer<int> here;
    here.push(1);
    std::jthread([] {
        effect_buffer<int> there;
        EXPECT_EQ(there.begin(), there.end());
        there.push(2);
    }).join();
    EXPECT_THAT(all_of(here), ElementsAre(1));
}

}  // namespace
