#include <ferry/error.hpp>

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace {

using ferry::errc;

TEST(error, every_code_has_a_name_of_its_own) {
    std::set<std::string_view> names;
    const int count = static_cast<int>(errc::deadline_exceeded) + 1;
    for (int code = 0; code < count; ++code) {
        const auto name = to_string(static_cast<errc>(code));
        EXPECT_NE(name, "unknown") << code;
        EXPECT_FALSE(name.empty()) << code;
        EXPECT_TRUE(names.insert(name).second) << name;
    }
    EXPECT_EQ(names.size(), static_cast<std::size_t>(count));
}

TEST(error, a_value_that_is_no_code_is_unknown) {
    EXPECT_EQ(to_string(static_cast<errc>(-1)), "unknown");
    EXPECT_EQ(to_string(static_cast<errc>(static_cast<int>(errc::deadline_exceeded) + 1)), "unknown");
}

TEST(error, names_say_what_the_code_says) {
    static_assert(to_string(errc::ok) == "ok");
    static_assert(to_string(errc::not_started) == "not started");
    EXPECT_EQ(to_string(errc::ownership_lost), "ownership lost");
    EXPECT_EQ(to_string(errc::too_large), "too large");
}

TEST(error, success_is_the_code_of_a_value_initialised_errc) { EXPECT_EQ(errc{}, errc::ok); }

TEST(error, carries_the_code_and_the_text) {
    const ferry::error e(errc::bad_chunk, "expected chunk 2");
    EXPECT_EQ(e.code(), errc::bad_chunk);
    EXPECT_STREQ(e.what(), "expected chunk 2");
}

TEST(error, keeps_both_when_it_is_caught_as_its_base) {
    static_assert(std::is_base_of_v<std::runtime_error, ferry::error>);
    static_assert(std::is_nothrow_copy_constructible_v<ferry::error>);
    try {
        throw ferry::error(errc::queue_full, "full");
    } catch (const std::runtime_error& e) {
        const auto* caught = dynamic_cast<const ferry::error*>(&e);
        ASSERT_NE(caught, nullptr);
        EXPECT_EQ(caught->code(), errc::queue_full);
        EXPECT_STREQ(e.what(), "full");
    }
}

}  // namespace
