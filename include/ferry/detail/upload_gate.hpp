// layer 3
// Which uploads a server reads on: so many at a time, so many bytes of unfinished or unhandled messages, and none that
// stands still. Past the bytes, a message waits for its turn, also with its first chunk, and is read on where there is room
// beside the others; the oldest one counts for none of them, so that it holds nobody up however slow it is. It goes on to its
// end without room, once no message is being handled, for which the others wait, too: the worst case is the bound and one
// message. The network's flow control holds the senders meanwhile: nothing is lost.
//
// Where a chunk is being read, gRPC may hold it whole before anyone sees it: it counts as much as the one before it in its
// message did, a first one as much as those that came lately, at least 4 MB. Only what follows a message in its upload is read
// unasked, as that is nearly always the end. What has gone to a spool folder counts nothing; a chunk that is to go there does.
//
// A pure state machine without a lock: `Upload` is who sends, and is only handed through.
#pragma once

#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <utility>

namespace ferry::detail {

template <class Upload>
class upload_gate {
    struct upload;
    using list = std::list<upload>;

public:
    using time_point = std::chrono::steady_clock::time_point;
    using entry = typename list::iterator;

    explicit upload_gate(inbound_limits limits) : limits_(limits) {}

    /// False where too many are open. It waits for `begin`.
    bool open(Upload* of, time_point now, entry& made) {
        if (open_ >= limits_.max_uploads) return false;
        ++open_;
        made = resting_.insert(resting_.end(), upload{of, now});
        return true;
    }

    /// A message begins, of which so many bytes are there already. True where its next chunk may be read now; else `read_on`
    /// will tell when.
    bool begin(entry e, std::uint64_t bytes, time_point now) {
        enter(e);
        if (bytes > 0) take(e, bytes);
        return go_on(e, now);
    }

    /// What a chunk came to.
    struct came {
        std::uint64_t bytes;  // that were read
        std::uint64_t kept;   // in memory
    };

    /// A chunk of a message that goes on has come. Returns as `begin` does.
    template <class ReadOn>
    bool chunk(entry e, came what, time_point now, ReadOn&& read_on) {
        arrived(e, what.bytes);
        enter(e);
        take(e, what.kept);
        const bool more = go_on(e, now);
        let_go_on(now, read_on);  // it may be smaller than what was counted
        return more;
    }

    /// The last chunk of a message has come. The message counts until `handled`.
    template <class ReadOn>
    void whole(entry e, came what, time_point now, ReadOn&& read_on) {
        arrived(e, what.bytes);
        leave(e);
        take(e, what.kept);
        e->finished = true;
        ++handling_;
        rest(e);
        let_go_on(now, read_on);
    }

    /// The message has been dealt with; the next one is read.
    template <class ReadOn>
    void handled(entry e, time_point now, ReadOn&& read_on) {
        give_back(e);
        e->chunk = 0;
        touch(e, now, 0);
        let_go_on(now, read_on);
    }

    template <class ReadOn>
    void close(entry e, time_point now, ReadOn&& read_on) {
        leave(e);
        awaited_ -= std::exchange(e->awaited, 0);
        give_back(e);
        rest(e);
        resting_.erase(e);
        --open_;
        let_go_on(now, read_on);
    }

    /// Calls `cut(Upload&)` for each that has stood still for too long; it is still to be closed.
    template <class Cut>
    void time_passed(time_point now, Cut&& cut) {
        while (!reading_.empty() && next_wake() <= now) {
            const entry e = reading_.begin();
            rest(e);
            cut(*e->of);
        }
    }

    template <class Take>
    void for_each(Take&& take) {
        for (auto* all : {&reading_, &resting_}) {
            for (auto& each : *all) take(*each.of);
        }
    }

    /// When the next one will have stood still for too long.
    time_point next_wake() const {
        return reading_.empty() ? time_point::max() : later(reading_.front().last_progress, limits_.idle_limit);
    }

    std::size_t open_uploads() const noexcept { return open_; }

    /// Of messages that are unfinished, or not yet handled.
    std::uint64_t held_bytes() const noexcept { return held_; }

private:
    static constexpr std::uint64_t usual_chunk = 4'000'000;

    struct upload {
        Upload* of;
        time_point last_progress;
        std::uint64_t bytes = 0;                                     // of its message
        std::uint64_t chunk = 0;                                     // the last one, amid a message
        std::uint64_t awaited = 0;                                   // of the next one, while it is being read
        std::optional<typename std::list<entry>::iterator> place{};  // of a message that isn't whole
        bool finished = false;
        bool paused = false;
        bool reads = false;
    };

    void enter(entry e) {
        if (!e->place) e->place = unfinished_.insert(unfinished_.end(), e);
    }
    void leave(entry e) {
        if (const auto place = std::exchange(e->place, std::nullopt)) unfinished_.erase(*place);
    }

    /// The chunk that was awaited.
    void arrived(entry e, std::uint64_t bytes) {
        awaited_ -= std::exchange(e->awaited, 0);
        if (e->chunk == 0) first_chunk_ = std::max({usual_chunk, bytes, first_chunk_ - first_chunk_ / 64});
        e->chunk = std::max<std::uint64_t>(bytes, 1);
    }

    void take(entry e, std::uint64_t bytes) {
        bytes = std::max<std::uint64_t>(bytes, 1);  // an empty chunk counts as well
        e->bytes += bytes;
        held_ += bytes;
    }

    void give_back(entry e) {
        held_ -= std::exchange(e->bytes, 0);
        if (std::exchange(e->finished, false)) --handling_;
    }

    std::uint64_t next_chunk(entry e) const { return e->chunk > 0 ? e->chunk : first_chunk_; }

    bool has_room(entry e) const {
        const auto room_beside = [&](std::uint64_t others) {
            return others <= limits_.max_bytes && next_chunk(e) <= limits_.max_bytes - others;
        };
        const auto all = held_ + awaited_;
        const auto oldest = unfinished_.front();
        if (oldest == e) return handling_ == 0 || room_beside(all);
        if (oldest->paused) return false;  // else there might always be something that is being handled
        return room_beside(all - oldest->bytes - oldest->awaited);
    }

    /// It is read on now, or pauses.
    bool go_on(entry e, time_point now) {
        if (has_room(e)) {
            touch(e, now, next_chunk(e));
            return true;
        }
        rest(e);
        e->paused = true;
        ++paused_;
        return false;
    }

    /// It is read from; the longest without progress is in front.
    void touch(entry e, time_point now, std::uint64_t awaited) {
        e->last_progress = now;
        awaited_ += awaited - std::exchange(e->awaited, awaited);
        reading_.splice(reading_.end(), e->reads ? reading_ : resting_, e);
        e->reads = true;
        wake(e);
    }

    void rest(entry e) {
        if (std::exchange(e->reads, false)) resting_.splice(resting_.end(), reading_, e);
        wake(e);
    }

    void wake(entry e) {
        if (std::exchange(e->paused, false)) --paused_;
    }

    /// In their order, but for those that wait for more than the others.
    template <class ReadOn>
    void let_go_on(time_point now, ReadOn&& read_on) {
        for (auto each = unfinished_.begin(); paused_ > 0 && each != unfinished_.end(); ++each) {
            const entry e = *each;
            if (!e->paused) continue;
            if (has_room(e)) {
                touch(e, now, next_chunk(e));
                read_on(*e->of);
            } else if (next_chunk(e) <= first_chunk_) {
                return;
            }
        }
    }

    inbound_limits limits_;
    list reading_, resting_;
    std::list<entry> unfinished_;  // by the time of their beginning
    std::uint64_t held_ = 0;
    std::uint64_t awaited_ = 0;
    std::uint64_t first_chunk_ = usual_chunk;  // what a first one counts
    std::size_t handling_ = 0;
    std::size_t paused_ = 0;
    std::size_t open_ = 0;
};

}  // namespace ferry::detail
