#include <ferry/malloc.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if !defined(__has_feature)
#define FERRY_TEST_MALLOC
#elif !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
#define FERRY_TEST_MALLOC
#endif
#endif

namespace {

#if defined(FERRY_TEST_MALLOC)

constexpr std::size_t large = 256 << 20;

/// Ends a process that has had a large message with whether what it holds then, and nobody uses, is within the two.
[[noreturn]] void end_by(bool set, std::size_t least, std::size_t below) {
    { const std::vector<std::uint8_t> message(large, 1); }
    const auto unused = ::mallinfo2().fordblks;
    std::exit(set && unused >= least && unused < below ? 0 : 1);
}

// Each in a process of its own: malloc stays as it was set.

TEST(malloc, memory_of_large_messages_is_kept) {
    EXPECT_EXIT(end_by(ferry::keep_memory_of_large_messages(), large, 2 * large), testing::ExitedWithCode(0), "");
}

TEST(malloc, what_is_beyond_the_bound_is_returned) {
    EXPECT_EXIT(end_by(ferry::keep_memory_of_large_messages(16 << 20), 0, large / 2), testing::ExitedWithCode(0), "");
}

TEST(malloc, unused_memory_is_returned) {
    EXPECT_EXIT(end_by(ferry::return_unused_memory(), 0, large / 8), testing::ExitedWithCode(0), "");
}

#else

TEST(malloc, of_a_sanitizer_is_left_alone) {
    ferry::keep_memory_of_large_messages();
    ferry::return_unused_memory();
    EXPECT_EQ(std::vector<std::uint8_t>(1000, 1).size(), 1000U);
}

#endif

}  // namespace
