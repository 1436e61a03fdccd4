// layer 0
// Asks the system to back large runs of memory with huge pages.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace ferry::detail {

/// Smaller runs stay as they are: the rounding up would cost too much memory.
inline constexpr std::uint64_t least_in_huge_pages = 8 << 20;

/// A run gets huge pages from the first such boundary in it on, and small ones before.
inline constexpr std::uint64_t huge_page = 2 << 20;

/// Rounded to whole pages outwards, so that a mapping of malloc's stays one, and can still be moved. Where the system has no
/// huge pages to give, nothing changes.
inline void prefer_huge_pages(void* data, std::uint64_t size) noexcept {
#if defined(MADV_HUGEPAGE)
    constexpr std::uint64_t page = 4096;
    if (size < least_in_huge_pages) return;
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const auto begin = address / page * page, end = (address + size + page - 1) / page * page;
    ::madvise(reinterpret_cast<void*>(begin), static_cast<std::size_t>(end - begin), MADV_HUGEPAGE);
#else
    static_cast<void>(data);
    static_cast<void>(size);
#endif
}

}  // namespace ferry::detail
