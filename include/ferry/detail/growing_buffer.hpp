// layer 0
// Memory that grows without being zeroed, and becomes a `bytes` in the end: its count will stand before its data. Growth is
// realloc's: for large blocks the kernel moves pages, not data. Large ones ask for huge pages, and are taken so that they begin
// where one does: a first touch of small ones costs several times what copying into them does. Others are taken to begin a cache
// line, where copying is fastest. What is only wanted gets no huge pages: a byte that is claimed to be the first of many would
// take two megabytes.
#pragma once

#include <ferry/detail/huge_pages.hpp>
#include <ferry/detail/shared_block.hpp>
#include <ferry/payload.hpp>

#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <utility>

namespace ferry::detail {

class growing_buffer {
public:
    growing_buffer() = default;
    growing_buffer(growing_buffer&& other) noexcept
        : raw_(std::exchange(other.raw_, nullptr)),
          data_(std::exchange(other.data_, nullptr)),
          capacity_(std::exchange(other.capacity_, 0)),
          asks_beyond_(std::exchange(other.asks_beyond_, never)) {}
    growing_buffer& operator=(growing_buffer&& other) noexcept {
        std::swap(raw_, other.raw_);
        std::swap(data_, other.data_);
        std::swap(capacity_, other.capacity_);
        std::swap(asks_beyond_, other.asks_beyond_);
        return *this;
    }
    ~growing_buffer() { std::free(raw_); }

    std::uint8_t* data() noexcept { return data_; }

    /// What is reserved for data, in bytes.
    std::uint64_t capacity() const noexcept { return capacity_; }
    /// So many bytes need no `ensure`.
    std::uint64_t room() const noexcept { return std::min(capacity_, asks_beyond_); }

    /// Room for `needed` bytes; where it has to grow, for `wanted` at once, if that can be had. False: no memory.
    bool ensure(std::uint64_t needed, std::uint64_t wanted) noexcept {
        if (needed > capacity_) {
            const std::uint64_t doubled = std::max(needed, capacity_ == 0 ? needed : 2 * capacity_);
            const std::uint64_t most_wanted = std::max(needed, std::max(wanted, capacity_ == 0 ? needed : doubled));
            return grow(most_wanted, needed) || grow(needed, needed);
        }
        if (needed > asks_beyond_) ask_for_huge_pages();
        return true;
    }

    /// The first `size` bytes; what was reserved beyond them is given back where that is worth it.
    bytes release(std::size_t size) {
        if (size == 0) {
            reset();
            return {};
        }
        if (capacity_ - size > 4096 && capacity_ - size > size / 8) grow(size, size);
        capacity_ = 0;
        asks_beyond_ = never;
        return bytes(shared_block::adopt(std::exchange(raw_, nullptr)), std::exchange(data_, nullptr), size);
    }

    void reset() noexcept {
        std::free(std::exchange(raw_, nullptr));
        data_ = nullptr;
        capacity_ = 0;
        asks_beyond_ = never;
    }

private:
    bool grow(std::uint64_t to, std::uint64_t needed) noexcept {
        const bool is_large = to >= least_in_huge_pages, in_huge_pages = is_large && needed > small_part;
        const auto boundary = static_cast<std::size_t>(is_large ? huge_page : cache_line);
        const auto before = raw_ ? static_cast<std::size_t>(data_ - raw_) : boundary;
        if (to > most - before) return false;
        auto* moved = static_cast<std::uint8_t*>(std::realloc(raw_, before + static_cast<std::size_t>(to)));
        if (!moved) return false;
        data_ = moved + before - (raw_ ? 0 : reinterpret_cast<std::uintptr_t>(moved) % boundary);
        raw_ = moved;
        capacity_ = to;
        asks_beyond_ = is_large && !in_huge_pages ? small_part : never;
        if (in_huge_pages) ask_for_huge_pages();
        return true;
    }

    void ask_for_huge_pages() noexcept {
        asks_beyond_ = never;
        prefer_huge_pages(raw_, ::malloc_usable_size(raw_));
    }

    static constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
    static constexpr std::uint64_t small_part = huge_page / 2;  // of a large one, that stays in small pages
    static constexpr std::uint64_t cache_line = 64;
    static constexpr std::uint64_t most = std::numeric_limits<std::ptrdiff_t>::max();  // that malloc gives
    static_assert(sizeof(block) <= alignof(std::max_align_t), "there is room for it before each boundary");

    std::uint8_t* raw_ = nullptr;  // malloc's
    std::uint8_t* data_ = nullptr;
    std::uint64_t capacity_ = 0;
    std::uint64_t asks_beyond_ = never;
};

}  // namespace ferry::detail
