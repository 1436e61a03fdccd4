// layer 0
// Collects what a serializer writes: small pieces go into blocks of the payload's own, large binaries are taken by reference.
// Blocks are never moved, and of a size that allocators keep at hand.
#pragma once

#include <ferry/detail/shared_block.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

namespace ferry::detail {

class payload_builder {
public:
    /// Below this size a copy is cheaper than a run of its own.
    static constexpr std::size_t by_reference_from = 1024;

    void write(const char* data, std::size_t size) {
        char* const at = room(size);
        if (size > 0) std::memcpy(at, data, size);
        at_ = at + size;
    }

    /// A place for at most `size` characters in one piece; `written(end)` says how many they were.
    char* room(std::size_t size) {
        if (static_cast<std::size_t>(end_ - at_) < size) [[unlikely]]
            add_block(size);
        return at_;
    }
    void written(char* end) noexcept { at_ = end; }

    void append(const bytes& run) {
        if (run.size() < by_reference_from) {
            write(reinterpret_cast<const char*>(run.data()), run.size());
            return;
        }
        end_run();
        out_.append(run);
    }

    payload finish() {
        const auto size = static_cast<std::size_t>(at_ - run_);
        const bool alone = run_ == block_begin_ && size < static_cast<std::size_t>(end_ - block_begin_) / 2;
        if (alone && size > 0) {  // a small message must not hold a large block while it is queued
            out_.append(bytes::copy(std::string_view(run_, size)));
        } else {
            end_run();
        }
        return std::move(out_);
    }

private:
    static constexpr std::size_t first_block = 2 * 1024, largest_block = 64 * 1024;

    void end_run() {
        const auto size = static_cast<std::size_t>(at_ - run_);
        if (size > 0) out_.append(bytes(block_, reinterpret_cast<const std::uint8_t*>(run_), size));
        run_ = at_;
    }

    void add_block(std::size_t size) {
        end_run();
        const auto capacity = std::max(size, next_block_);
        auto [block, data] = shared_block::allocate(capacity);
        block_ = std::move(block);
        block_begin_ = run_ = at_ = reinterpret_cast<char*>(data);
        end_ = at_ + capacity;
        next_block_ = largest_block;
    }

    payload out_;
    block_ref block_;
    char* block_begin_ = nullptr;
    char* run_ = nullptr;  // of the block, what is not in `out_` yet begins here
    char* at_ = nullptr;
    char* end_ = nullptr;
    std::size_t next_block_ = first_block;
};

}  // namespace ferry::detail
