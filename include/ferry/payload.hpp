// Payloads without copies: `bytes` is one immutable, shared, sliceable run of memory; `payload` is a sequence of runs, or
// a source that is read in ranges when a sender asks for them. Neither knows what the bytes mean.
#pragma once

#include <ferry/detail/checksum_memo.hpp>
#include <ferry/detail/crc32c.hpp>
#include <ferry/detail/shared_block.hpp>
#include <ferry/error.hpp>

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry {

/// One immutable run of memory with a shared owner. Copies and slices share the owner and cost one atomic increment; the
/// memory is released with the last of them. Distinct objects may be used from distinct threads.
class bytes {
public:
    using value_type = std::uint8_t;
    using size_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    using const_reference = const std::uint8_t&;
    using reference = const_reference;
    using const_iterator = const std::uint8_t*;
    using iterator = const_iterator;

    /// An empty run, which owns nothing.
    bytes() = default;

    bytes(const bytes&) = default;
    bytes& operator=(const bytes&) = default;
    ~bytes() = default;

    /// Leaves `other` empty.
    bytes(bytes&& other) noexcept
        : block_(std::move(other.block_)),
          data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)) {}
    bytes& operator=(bytes&& other) noexcept {
        block_ = std::move(other.block_);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }

    /// A copy of a few literal bytes.
    bytes(std::initializer_list<std::uint8_t> values) : bytes(copy(std::span(values.begin(), values.size()))) {}

    /// A run that owns a copy of `from`.
    static bytes copy(std::span<const std::uint8_t> from) {
        if (from.empty()) return {};
        auto [block, data] = detail::shared_block::allocate(from.size());
        std::memcpy(data, from.data(), from.size());
        return bytes(std::move(block), data, from.size());
    }

    /// A run that owns a copy of the characters of `from`.
    static bytes copy(std::string_view from) {
        return copy(std::span(reinterpret_cast<const std::uint8_t*>(from.data()), from.size()));
    }

    /// A run that keeps `container` (a `std::string`, a `std::vector` of trivially copyable elements, ...) and shows its
    /// elements' memory. Nothing is copied: hand the container over with `std::move`.
    template <class Container>
        requires(!std::is_lvalue_reference_v<Container> && !std::ranges::borrowed_range<Container> &&
                 std::is_trivially_copyable_v<typename Container::value_type>)
    static bytes own(Container&& container) {
        auto kept = detail::shared_block::keep(std::move(container));
        const auto& held = *kept.object;
        return bytes(std::move(kept.block), reinterpret_cast<const std::uint8_t*>(held.data()),
                     held.size() * sizeof(typename Container::value_type));
    }

    /// A run that shows memory of `owner`'s and keeps `owner` alive. The memory must not change while any slice lives.
    static bytes borrow(std::span<const std::uint8_t> memory, std::shared_ptr<const void> owner) {
        return bytes(detail::shared_block::keep(std::move(owner)).block, memory.data(), memory.size());
    }

    /// A run over memory that lives as long as the program.
    static bytes borrow_static(std::string_view memory) {
        return bytes({}, reinterpret_cast<const std::uint8_t*>(memory.data()), memory.size());
    }

    /// A run over the whole of a file, mapped read-only. The file must not be truncated while any slice lives.
    /// Throws `error{source_failed}` where the file can't be opened or mapped.
    static bytes map_file(const std::string& path);

    /// A run over `size` bytes at `data` whose owner is already counted in `block`. For ferry's own layers.
    bytes(detail::block_ref block, const std::uint8_t* data, std::size_t size) noexcept
        : block_(std::move(block)), data_(data), size_(size) {}

    const std::uint8_t* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    const_iterator begin() const noexcept { return data_; }
    const_iterator end() const noexcept { return data_ + size_; }
    const_iterator cbegin() const noexcept { return begin(); }
    const_iterator cend() const noexcept { return end(); }
    const std::uint8_t& front() const noexcept { return data_[0]; }
    const std::uint8_t& back() const noexcept { return data_[size_ - 1]; }
    const std::uint8_t& operator[](std::size_t i) const noexcept { return data_[i]; }

    /// The same memory as characters; valid while this run or a slice of it lives.
    std::string_view view() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }

    /// `length` bytes from `offset` on, cut off at the end of this run; shares the owner.
    bytes slice(std::size_t offset, std::size_t length = static_cast<std::size_t>(-1)) const {
        offset = std::min(offset, size_);
        return bytes(block_, data_ + offset, std::min(length, size_ - offset));
    }

    /// The owner's count, so that another reference counter (gRPC's) can carry it. For ferry's own layers.
    const detail::block_ref& block() const noexcept { return block_; }

    friend bool operator==(const bytes& a, const bytes& b) noexcept { return a.view() == b.view(); }
    friend std::strong_ordering operator<=>(const bytes& a, const bytes& b) noexcept { return a.view() <=> b.view(); }

private:
    detail::block_ref block_;
    const std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
};

class payload;

/// What reading a range came to: `data` is exactly the range that was asked for, or `code` says why there is none.
struct range_result;

/// Bytes that are not (all) in memory: a file, a row of a database, a remote store.
///
/// `read` is called with a range inside `size()`; it may call `done` before it returns, or later from any thread, exactly
/// once, and must not throw. Several ranges of one source may be asked for at the same time.
class payload_source {
public:
    virtual ~payload_source() = default;
    virtual std::uint64_t size() const noexcept = 0;
    virtual void read(std::uint64_t offset, std::uint64_t length, std::function<void(range_result)> done) const = 0;
};

/// An encoded message or raw data on its way: some runs in order, or a source. Copying a payload copies no data.
class payload {
public:
    payload() = default;

    /// A payload of one run.
    payload(bytes run) { append(std::move(run)); }

    /// A payload that is read from `source` in ranges.
    explicit payload(std::shared_ptr<const payload_source> source)
        : source_(std::move(source)), source_size_(source_ ? source_->size() : 0) {}

    /// Adds a run at the end. Throws `error{invalid_argument}` for a payload that has a source.
    void append(bytes run) {
        if (source_)
            throw error(errc::invalid_argument, "payload::append: a payload with a source can't take more runs");
        if (run.empty()) return;
        checksums_.forget();
        ends_.push_back(size() + run.size());
        runs_.push_back(std::move(run));
    }

    /// In bytes.
    std::uint64_t size() const noexcept {
        if (source_) return source_size_;
        return ends_.empty() ? 0 : ends_.back();
    }

    /// True where all of it is memory, so that `slice` and `flatten` work.
    bool in_memory() const noexcept { return source_ == nullptr; }

    /// The runs, in order; empty for a payload with a source.
    const std::vector<bytes>& runs() const noexcept { return runs_; }

    /// `length` bytes from `offset` on, cut off at the end, as runs that share their owners. Only for payloads in memory.
    payload slice(std::uint64_t offset, std::uint64_t length) const {
        payload part;
        for_each_run(offset, length, [&](bytes run) { part.append(std::move(run)); });
        return part;
    }

    /// Calls `take(bytes)` for each run of a range, in order, without an allocation. Only for payloads in memory.
    template <class Take>
    void for_each_run(std::uint64_t offset, std::uint64_t length, Take&& take) const {
        require_memory();
        auto at = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), offset) - ends_.begin());
        for (; length > 0 && at < runs_.size(); ++at) {
            const std::uint64_t start = ends_[at] - runs_[at].size();
            auto piece = runs_[at].slice(static_cast<std::size_t>(offset - start), static_cast<std::size_t>(length));
            offset += piece.size();
            length -= piece.size();
            take(std::move(piece));
        }
    }

    /// Asks for a range. In memory, `done` is called before this returns; for a source, see `payload_source`.
    template <class Done>
    void read(std::uint64_t offset, std::uint64_t length, Done&& done) const;

    /// The whole as one run: the only run itself where there is one, else a copy. Only for payloads in memory.
    bytes flatten() const {
        if (runs_.size() == 1) return runs_.front();
        require_memory();
        if (size() == 0) return {};
        auto [block, data] = detail::shared_block::allocate(static_cast<std::size_t>(size()));
        auto* to = data;
        for_each_run(0, size(), [&](const bytes& run) {
            std::memcpy(to, run.data(), run.size());
            to += run.size();
        });
        return bytes(std::move(block), data, static_cast<std::size_t>(size()));
    }

    /// The CRC-32C of the first so many bytes, cut off at the end; nothing for a payload with a source. May be called from
    /// several threads. A payload of 64 KiB or more remembers what it has computed (in 4 KiB or so) and goes on from there
    /// when it's asked again; its copies and slices don't know it.
    std::optional<std::uint32_t> checksum_of(std::uint64_t first_bytes) const {
        if (source_) return std::nullopt;
        return checksums_.get(std::min(first_bytes, size()), size(), [this](std::uint32_t crc, auto from, auto to) {
            for_each_run(from, to - from, [&](const bytes& run) { crc = detail::crc32c(crc, run); });
            return crc;
        });
    }

private:
    void require_memory() const {
        if (source_) throw error(errc::invalid_argument, "payload: the data of a payload with a source must be read");
    }

    std::vector<bytes> runs_;
    std::vector<std::uint64_t> ends_;
    std::shared_ptr<const payload_source> source_;
    std::uint64_t source_size_ = 0;
    detail::checksum_memo checksums_;
};

struct range_result {
    errc code = errc::ok;
    payload data;
    std::string text;  ///< what went wrong, where something did
};

template <class Done>
void payload::read(std::uint64_t offset, std::uint64_t length, Done&& done) const {
    if (!source_) {
        std::forward<Done>(done)(range_result{errc::ok, slice(offset, length), {}});
        return;
    }
    source_->read(offset, length, std::forward<Done>(done));
}

inline bytes bytes::map_file(const std::string& path) {
    auto mapped = detail::map_file(path);
    if (!mapped.problem.empty()) throw error(errc::source_failed, "bytes::map_file: " + path + ": " + mapped.problem);
    return bytes(std::move(mapped.block), mapped.data, mapped.size);
}

}  // namespace ferry
