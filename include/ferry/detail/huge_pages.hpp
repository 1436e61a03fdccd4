// layer 0
// Asks the system to back large runs of memory with huge pages.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace ferry::detail {

/// Of a run of at least 8 MB; of smaller ones the rounding up would cost too much memory. Rounded to whole pages outwards, so
/// that a mapping of malloc's stays one, and can still be moved. Where the system has no huge pages to give, nothing changes.
inline void prefer_huge_pages(void* data, std::uint64_t size) noexcept {
#if defined(MADV_HUGEPAGE)
    constexpr std::uint64_t least = 8 << 20, page = 4096;
    if (size < least) return;
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const auto begin = address / page * page, end = (address + size + page - 1) / page * page;
    ::madvise(reinterpret_cast<void*>(begin), static_cast<std::size_t>(end - begin), MADV_HUGEPAGE);
#else
    static_cast<void>(data);
    static_cast<void>(size);
#endif
}

}  // namespace ferry::detail
