// An opt-in for programs: glibc's malloc, set for what large messages need. ferry never calls it by itself.
#pragma once

#include <cstdint>
#include <limits>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace ferry {

/// Call it first in `main`, before there are other threads. Memory that large messages used is then kept for the next ones, up to
/// `keep_bytes` of it and 64 MiB more, instead of being returned to the system and faulted in again, which costs several times
/// what copying costs. The price is that the process keeps it. Returns false, and changes nothing, where malloc isn't glibc's.
inline bool keep_memory_of_large_messages(std::uint64_t keep_bytes = std::uint64_t{1} << 30) noexcept {
#if defined(__GLIBC__)
    const auto most = static_cast<std::uint64_t>(std::numeric_limits<int>::max());
    const int keep = static_cast<int>(keep_bytes < most ? keep_bytes : most);
    return ::mallopt(M_MMAP_MAX, 0) == 1 && ::mallopt(M_TRIM_THRESHOLD, keep) == 1 &&
           ::mallopt(M_TOP_PAD, 64 << 20) == 1 && ::mallopt(M_ARENA_MAX, 1) == 1;
#else
    static_cast<void>(keep_bytes);
    return false;
#endif
}

/// Call it first in `main`, before there are other threads. The process holds little more than what is in use: what one
/// thread has freed is used again by others, and what is free is returned. Returns false, and changes nothing, where
/// malloc isn't glibc's.
inline bool return_unused_memory() noexcept {
#if defined(__GLIBC__)
    return ::mallopt(M_ARENA_MAX, 1) == 1 && ::mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1;
#else
    return false;
#endif
}

}  // namespace ferry
