// layer 0
// Memory that grows without being zeroed, and becomes a `bytes` in the end. Growth is realloc's: for large blocks the
// kernel moves pages, not data. Large ones ask for huge pages: a first touch of small ones costs several times what copying
// into them does.
#pragma once

#include <ferry/detail/huge_pages.hpp>
#include <ferry/payload.hpp>

#include <malloc.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace ferry::detail {

class growing_buffer {
public:
    growing_buffer() = default;
    growing_buffer(growing_buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}
    growing_buffer& operator=(growing_buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~growing_buffer() { std::free(data_); }

    std::uint8_t* data() noexcept { return data_; }

    /// What is reserved, in bytes.
    std::uint64_t capacity() const noexcept { return capacity_; }

    /// Room for `needed` bytes; where it has to grow, for `wanted` at once, if that can be had. False: no memory.
    bool ensure(std::uint64_t needed, std::uint64_t wanted) noexcept {
        if (needed <= capacity_) return true;
        const std::uint64_t doubled = std::max(needed, capacity_ == 0 ? needed : 2 * capacity_);
        return grow(std::max(needed, std::max(wanted, capacity_ == 0 ? needed : doubled))) || grow(needed);
    }

    /// The first `size` bytes; what was reserved beyond them is given back where that is worth it.
    bytes release(std::size_t size) {
        if (size == 0) {
            reset();
            return {};
        }
        if (capacity_ - size > 4096 && capacity_ - size > size / 8) grow(size);
        struct holder : block {
            void* at;
        };
        auto* made = new holder;
        made->at = data_;
        made->destroy = [](block* b) noexcept {
            std::free(static_cast<holder*>(b)->at);
            delete static_cast<holder*>(b);
        };
        capacity_ = 0;
        return bytes(block_ref(made), std::exchange(data_, nullptr), size);
    }

    void reset() noexcept {
        std::free(std::exchange(data_, nullptr));
        capacity_ = 0;
    }

private:
    bool grow(std::uint64_t to) noexcept {
        void* moved = std::realloc(data_, static_cast<std::size_t>(to));
        if (!moved) return false;
        data_ = static_cast<std::uint8_t*>(moved);
        capacity_ = to;
        prefer_huge_pages(data_, ::malloc_usable_size(data_));
        return true;
    }

    std::uint8_t* data_ = nullptr;
    std::uint64_t capacity_ = 0;
};

}  // namespace ferry::detail
