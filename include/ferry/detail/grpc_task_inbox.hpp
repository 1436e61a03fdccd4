// layer 4
// The bytes of tasks that come over a stream, put together in memory or in the spool folder. What a broken stream left is kept:
// the next one goes on with it, even in the next life of the program where it is in the spool folder.
#pragma once

#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/crc32c.hpp>
#include <ferry/detail/grpc_frames.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/payload.hpp>
#include <ferry/spool.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace ferry::detail {

class task_inbox {
public:
    enum class came { nothing, part, whole, damaged, no_room, too_large };

    struct result {
        came what = came::nothing;
        std::uint64_t received = 0;
        bytes content{};
        frames::delivery_head head{};
        std::string text{};
    };

    explicit task_inbox(chunk_limits limits) : limits_(limits) {}

    static constexpr std::string_view prefix = "task-";

    /// Before the first stream. Calls `found(number, received)` for each task of which there is something.
    template <class Found>
    void open(const std::shared_ptr<spool>& in, Found&& found) {
        for (const auto& each : in->list()) {
            if (!each.name.starts_with(prefix)) continue;
            const auto number = wire::to_number(std::string_view(each.name).substr(prefix.size()), 16);
            auto file = in->reopen(each.name);
            if (!number || !file) continue;
            auto made = std::make_shared<entry>(chunk_assembler(limits_, in, each.name));
            if (!made->chunks.start_from(std::move(*file))) {
                in->remove(each.name);  // the limit was larger in that life
                continue;
            }
            found(*number, made->chunks.received());
            entries_[*number] = std::move(made);
        }
        spool_ = in;
    }

    /// Lets go of the spool folder. What comes afterwards is kept in memory, and forgotten in the end.
    void close() {
        std::unordered_map<std::uint64_t, std::shared_ptr<entry>> open;
        {
            const std::lock_guard lock(mutex_);
            open.swap(entries_);
            spool_.reset();
        }
        for (const auto& [number, each] : open) {
            const std::lock_guard lock(each->mutex);
            each->chunks = chunk_assembler(limits_);
        }
    }

    /// Takes a chunk of the stream `id`. Where a delivery of several begins, `wanted()` is asked first.
    template <class Wanted>
    result take(std::uint64_t id, const wire::part_header& header, grpc::ByteBuffer& in, Wanted&& wanted) {
        const bool at_once = header.first() && header.size == 1 && header.head.offset == 0 && !is_for_spool(header);
        std::shared_ptr<entry> into;
        if (at_once) {
            into = std::make_shared<entry>(chunk_assembler(limits_));
        } else if (header.first()) {
            if (!wanted()) return {};
            into = begin(header);
            if (!into) return {came::damaged, 0, {}, header.head, "a delivery goes on from where this node is not"};
        } else {
            into = find(header.head.task);
        }
        if (!into) return {};
        auto out = put(*into, id, header, in);
        if (out.what != came::nothing && out.what != came::part) erase(header.head.task, into);
        return out;
    }

    /// A task that came whole, beside others.
    result take_whole(const frames::delivery_head& head, std::optional<std::uint32_t> checksum, bytes content) const {
        if (content.size() > limits_.max_payload_bytes) return {came::too_large, 0, {}, head, too_large_text()};
        if (checksum && *checksum != crc32c(0, content)) return {came::damaged, 0, {}, head, differs_text};
        const auto size = content.size();
        return {came::whole, size, std::move(content), head};
    }

    void forget(std::uint64_t number) {
        if (const auto folder = forget_bytes(number)) folder->remove(name_of(number));
    }

private:
    struct entry {
        explicit entry(chunk_assembler in) : chunks(std::move(in)) {}

        std::mutex mutex;
        chunk_assembler chunks;
        std::uint64_t stream = 0;
        frames::delivery_head head{};
    };

    static constexpr const char* differs_text = "the bytes that arrived are not those that were sent";

    std::string too_large_text() const {
        return "the payload is beyond the receiver's limit of " + std::to_string(limits_.max_payload_bytes) + " bytes";
    }

    static std::string name_of(std::uint64_t number) { return std::string(prefix) + wire::to_hex(number); }

    bool is_for_spool(const wire::part_header& header) {
        const std::lock_guard lock(mutex_);
        return spool_ && header.head.total > spool_->threshold();
    }

    std::shared_ptr<spool> forget_bytes(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        entries_.erase(number);
        return spool_;
    }

    std::shared_ptr<entry> find(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        const auto found = entries_.find(number);
        return found == entries_.end() ? nullptr : found->second;
    }

    void erase(std::uint64_t number, const std::shared_ptr<entry>& which) {
        const std::lock_guard lock(mutex_);
        const auto found = entries_.find(number);
        if (found != entries_.end() && found->second == which) entries_.erase(found);
    }

    /// Null where the delivery goes on from somewhere else.
    std::shared_ptr<entry> begin(const wire::part_header& header) {
        const auto number = header.head.task;
        if (header.head.offset != 0) {
            auto at = find(number);
            if (!at) return nullptr;
            const std::lock_guard lock(at->mutex);
            return at->chunks.received() == header.head.offset && !at->chunks.failed() ? at : nullptr;
        }
        const std::lock_guard lock(mutex_);
        return entries_[number] = std::make_shared<entry>(spool_ ? chunk_assembler(limits_, spool_, name_of(number))
                                                                 : chunk_assembler(limits_));
    }

    static came failure(errc code) {
        if (code == errc::too_large) return came::too_large;
        return code == errc::spool_failed ? came::no_room : came::damaged;
    }

    result put(entry& into, std::uint64_t id, const wire::part_header& header, grpc::ByteBuffer& in) {
        const std::lock_guard lock(into.mutex);
        auto& chunks = into.chunks;
        if (header.first()) {
            into.stream = id;
            into.head = header.head;
            chunks.begin_leg();
            chunks.compute_checksum();
            chunks.expect(header.head.total);
        } else if (into.stream != id) {
            return {};
        }
        result out;
        out.head = into.head;
        const auto read = wire::read_chunk(in, chunks);
        if (read.code != errc::ok) {
            out.what = failure(read.code);
            out.text = read.text;
            return out;
        }
        out.received = chunks.received();
        out.what = came::part;
        if (!chunks.complete()) return out;
        const bool differs = header.checksum && *header.checksum != chunks.checksum();
        out.content = chunks.take();
        out.what = differs ? came::damaged : came::whole;
        if (differs) out.text = differs_text;
        if (chunks.failed()) out.what = failure(chunks.code()), out.text = chunks.text();
        return out;
    }

    const chunk_limits limits_;
    std::shared_ptr<spool> spool_;
    std::mutex mutex_;  // of the table; never held together with an entry's
    std::unordered_map<std::uint64_t, std::shared_ptr<entry>> entries_;
};

}  // namespace ferry::detail
