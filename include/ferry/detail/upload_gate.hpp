// layer 3
// Which uploads a server reads on: so many at a time, so many bytes of unfinished or unhandled messages, and none that
// stands still. Past the bytes nothing is read until the messages that have come are handled; where there are none, the
// oldest unfinished one goes on to its end. The network's flow control holds the senders meanwhile: nothing is lost. Where the
// next chunk of a message is being read, gRPC may hold it whole before anyone sees it: it counts as large as the last one.
//
// A pure state machine without a lock: `Upload` is who sends, and is only handed through.
#pragma once

#include <ferry/detail/wake_ups.hpp>
#include <ferry/dispatch_events.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
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

    /// False where too many are open. Its first chunk is awaited from now on.
    bool open(Upload* of, time_point now, entry& made) {
        if (open_ >= limits_.max_uploads) return false;
        ++open_;
        made = reading_.insert(reading_.end(), upload{of, now});
        return true;
    }

    /// A chunk of a message that goes on has come. True where the next may be read now; else `read_on` will tell when.
    bool chunk(entry e, std::uint64_t bytes, time_point now) {
        if (e->bytes == 0) e->place = unfinished_.insert(unfinished_.end(), e);
        arrived(e, bytes);
        take(e, bytes);
        if (!has_room(e)) {
            rest(e);
            e->paused = true;
            return false;
        }
        touch(e, now);
        return true;
    }

    /// The last chunk of a message has come. The message counts until `handled`.
    void whole(entry e, std::uint64_t bytes) {
        if (e->bytes > 0) unfinished_.erase(e->place);
        arrived(e, 0);
        take(e, bytes);
        e->finished = true;
        ++handling_;
        rest(e);
    }

    /// The message has been dealt with; the next one is read.
    template <class ReadOn>
    void handled(entry e, time_point now, ReadOn&& read_on) {
        give_back(e);
        touch(e, now);
        let_go_on(now, read_on);
    }

    template <class ReadOn>
    void close(entry e, time_point now, ReadOn&& read_on) {
        if (e->bytes > 0 && !e->finished) unfinished_.erase(e->place);
        arrived(e, 0);
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
    struct upload {
        Upload* of;
        time_point last_progress;
        std::uint64_t bytes = 0;                         // of its message
        std::uint64_t chunk = 0;                         // the last one, amid a message
        std::uint64_t awaited = 0;                       // of the next one, while it is being read
        typename std::list<entry>::iterator place = {};  // among the unfinished, while `bytes` > 0 and not `finished`
        bool finished = false;
        bool paused = false;
        bool reads = true;
    };

    /// The chunk that was awaited has come, or will not come any more.
    void arrived(entry e, std::uint64_t bytes) {
        awaited_ -= std::exchange(e->awaited, 0);
        e->chunk = bytes;
    }

    void take(entry e, std::uint64_t bytes) {
        bytes = bytes > 0 ? bytes : 1;  // an empty chunk counts as well
        e->bytes += bytes;
        held_ += bytes;
    }

    void give_back(entry e) {
        held_ -= std::exchange(e->bytes, 0);
        if (std::exchange(e->finished, false)) --handling_;
    }

    bool has_room(entry e) const {
        return held_ + awaited_ < limits_.max_bytes || (handling_ == 0 && unfinished_.front() == e);
    }

    /// It is read from; the longest without progress is in front.
    void touch(entry e, time_point now) {
        e->last_progress = now;
        awaited_ += e->chunk - std::exchange(e->awaited, e->chunk);
        reading_.splice(reading_.end(), e->reads ? reading_ : resting_, e);
        e->reads = true;
        e->paused = false;
    }

    void rest(entry e) {
        if (std::exchange(e->reads, false)) resting_.splice(resting_.end(), reading_, e);
        e->paused = false;
    }

    template <class ReadOn>
    void let_go_on(time_point now, ReadOn&& read_on) {
        for (const entry e : unfinished_) {
            if (!has_room(e)) return;
            if (!e->paused) continue;
            touch(e, now);
            read_on(*e->of);
        }
    }

    inbound_limits limits_;
    list reading_, resting_;
    std::list<entry> unfinished_;  // by the time of their first chunk
    std::uint64_t held_ = 0;
    std::uint64_t awaited_ = 0;
    std::size_t handling_ = 0;
    std::size_t open_ = 0;
};

}  // namespace ferry::detail
