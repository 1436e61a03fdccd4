// layer 3
// The guard that all uploads to one server pass: how fast each is read is the gate's to say, and what broken ones have left
// is on the shelf. It is generic over the calls, which it reads on and ends.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/alarm.hpp>
#include <ferry/detail/upload_gate.hpp>
#include <ferry/detail/upload_shelf.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/spool.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

/// The uploads of one server. `wake_at(time)` is asked for a call of `time_passed` then.
template <class Call>
class basic_upload_guard {
public:
    using gate = upload_gate<Call>;
    using entry = typename gate::entry;
    using time_point = typename gate::time_point;
    using calls = std::vector<std::shared_ptr<Call>>;

    basic_upload_guard(inbound_limits limits, chunk_limits message, std::function<void(time_point)> wake_at)
        : message_(message),
          wake_at_(std::move(wake_at)),
          gate_(limits),
          shelf_(limits.max_bytes, limits.keep_broken) {}

    /// Where large messages go. Before the first upload.
    void set_spool(std::shared_ptr<spool> to) { spool_ = std::move(to); }

    /// What puts a message together.
    chunk_assembler assembler() const { return chunk_assembler(message_, spool_); }

    /// The call goes on with the upload of this number. Returns what is there of it, perhaps taken from an older call.
    std::optional<chunk_assembler> claim(std::uint64_t number, const std::shared_ptr<Call>& by) {
        std::shared_ptr<Call> older;
        std::optional<chunk_assembler> part;
        run([&](time_point now, auto&) {
            auto& live = live_[number];
            older = live.lock();
            live = by;
            part = shelf_.take(number, now);
        });
        return older ? older->give_up() : std::move(part);
    }

    /// The call is over; what is there of its upload is kept, and stays in `part` where a newer call has claimed it.
    void release(std::uint64_t number, const Call* by, std::optional<chunk_assembler>& part) {
        run([&](time_point now, auto&) {
            const auto found = live_.find(number);
            if (found != live_.end()) {
                const auto holder = found->second.lock();
                if (holder && holder.get() != by) return;  // a newer one has it
                live_.erase(found);
            }
            if (part && !stopped_) shelf_.put(number, std::move(*part), now);
            part.reset();
        });
    }

    /// Nothing where the upload is refused; else it waits for `begin`.
    std::optional<entry> open(Call* of) {
        entry made;
        bool opened = false;
        run([&](time_point now, auto&) { opened = !stopped_ && gate_.open(of, now, made); });
        return opened ? std::optional(made) : std::nullopt;
    }

    /// True where the call reads on now; else `read_on` will tell when. So does `more` below.
    bool begin(entry e, std::uint64_t bytes) {
        bool more = false;
        run([&](time_point now, auto&) { more = gate_.begin(e, bytes, now); });
        return more;
    }

    // What these return is to `read_on`, once the caller's mutex is released.
    [[nodiscard]] calls chunk(entry e, typename gate::came what, bool& more) {
        return run([&](time_point now, auto& read_on) { more = gate_.chunk(e, what, now, read_on); });
    }
    [[nodiscard]] calls whole(entry e, typename gate::came what) {
        return run([&](time_point now, auto& read_on) { gate_.whole(e, what, now, read_on); });
    }
    [[nodiscard]] calls handled(entry e) {
        return run([&](time_point now, auto& read_on) { gate_.handled(e, now, read_on); });
    }
    [[nodiscard]] calls close(entry e) {
        return run([&](time_point now, auto& read_on) {
            gate_.close(e, now, read_on);
            if (stopped_) closed_.notify_all();
        });
    }

    /// Ends those that have stood still for too long.
    void time_passed();

    /// Takes no new ones, and waits until the open ones have come to their end; false where the deadline came first.
    bool drain(time_point deadline) {
        std::unique_lock lock(mutex_);
        stopped_ = true;
        return closed_.wait_until(lock, deadline, [this] { return gate_.open_uploads() == 0; });
    }

    /// Ends all of them, and takes no new ones.
    void stop();

    std::uint64_t held_bytes() const {
        const std::lock_guard lock(mutex_);
        return gate_.held_bytes() + shelf_.memory_bytes();
    }

private:
    template <class Step>
    calls run(Step&& step);

    const chunk_limits message_;
    const std::function<void(time_point)> wake_at_;
    mutable std::mutex mutex_;
    std::condition_variable closed_;
    gate gate_;
    upload_shelf shelf_;
    std::unordered_map<std::uint64_t, std::weak_ptr<Call>> live_;  // those with a number
    std::shared_ptr<spool> spool_;
    time_point announced_ = time_point::max();
    bool stopped_ = false;
};

template <class Call>
template <class Step>
typename basic_upload_guard<Call>::calls basic_upload_guard<Call>::run(Step&& step) {
    calls go_on;
    std::optional<time_point> wake;
    {
        const auto read_on = [&](Call& each) { go_on.push_back(each.shared_from_this()); };
        const std::lock_guard lock(mutex_);
        step(now().steady, read_on);
        if (const auto when = std::min(gate_.next_wake(), shelf_.next_wake()); when < announced_)
            wake = announced_ = when;
    }
    if (wake) wake_at_(*wake);
    return go_on;
}

template <class Call>
void basic_upload_guard<Call>::time_passed() {
    const auto late = run([&](time_point now, auto& collect) {
        gate_.time_passed(now, collect);
        shelf_.expire(now);
        announced_ = time_point::max();
    });
    for (const auto& each : late) each->end(errc::idle_timeout, "the upload stood still");
}

template <class Call>
void basic_upload_guard<Call>::stop() {
    const auto open = run([&](time_point, auto& collect) {
        stopped_ = true;
        gate_.for_each(collect);
    });
    for (const auto& each : open) each->end(errc::stopped, "the server is stopping");
}

}  // namespace ferry::detail
