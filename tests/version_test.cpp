#include <ferry/version.hpp>

#include <gtest/gtest.h>

#include <string>

namespace {

TEST(version, string_is_made_of_the_numbers) {
    const auto numbers = std::to_string(FERRY_VERSION_MAJOR) + "." + std::to_string(FERRY_VERSION_MINOR) + "." +
                         std::to_string(FERRY_VERSION_PATCH);
    EXPECT_EQ(numbers, FERRY_VERSION_STRING);
}

TEST(version, is_the_version_of_the_cmake_project) { EXPECT_STREQ(FERRY_VERSION_STRING, PROJECT_VERSION_STRING); }

TEST(version, number_can_be_compared_by_the_preprocessor) {
#if FERRY_VERSION_NUMBER >= 1000 && FERRY_VERSION_NUMBER < 1000000
    SUCCEED();
#else
    FAIL() << FERRY_VERSION_NUMBER;
#endif
}

}  // namespace
