// layer 4
// Uploads: the server's ReplyTask as a reactor, and the guard that all of them pass. A call carries bytes and reports
// events; what is to happen is decided by the host, how fast it is read by the guard. One that has a number goes on where an
// earlier one of that number broke off.
//
// Each call keeps itself alive from its start to OnDone. Its own mutex guards all that it has, its operations and its one
// Finish; no event is reported under it. The guard's mutex is taken inside it, never the other way round.
#pragma once

#include <ferry/chunk.hpp>
#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/alarm.hpp>
#include <ferry/detail/grpc_frames.hpp>
#include <ferry/detail/grpc_reply_source.hpp>
#include <ferry/detail/upload_gate.hpp>
#include <ferry/detail/upload_shelf.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>
#include <ferry/identity.hpp>
#include <ferry/payload.hpp>
#include <ferry/spool.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

class reply_call_host;
template <class Host>
class basic_reply_call;
using reply_call = basic_reply_call<reply_call_host>;

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
    [[nodiscard]] calls chunk(entry e, std::uint64_t bytes, bool& more) {
        return run([&](time_point now, auto& read_on) { more = gate_.chunk(e, bytes, now, read_on); });
    }
    [[nodiscard]] calls whole(entry e, std::uint64_t bytes) {
        return run([&](time_point now, auto& read_on) { gate_.whole(e, bytes, now, read_on); });
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

using upload_guard = basic_upload_guard<reply_call>;

/// Who uploads report to, from gRPC's threads; must not block.
class reply_call_host {
public:
    virtual ~reply_call_host() = default;
    virtual upload_guard& uploads() = 0;
    /// False where the peer may speak for no node.
    virtual bool knows(const peer_info&) const { return true; }
    virtual void reply_received(std::shared_ptr<reply_source> from, bytes content) = 0;
    /// It never became whole. A Python node doesn't read why: this is all that tells.
    virtual void reply_refused(const std::string& why) = 0;
};

/// One upload; several replies may follow one another in it. The next is read once the one before was answered.
template <class Host>
class basic_reply_call final : public grpc::ServerReadReactor<grpc::ByteBuffer>,
                               public reply_source,
                               public std::enable_shared_from_this<basic_reply_call<Host>> {
    using guard = basic_upload_guard<basic_reply_call>;

public:
    basic_reply_call(std::shared_ptr<Host> host, peer_info peer, grpc::CallbackServerContext* context,
                     grpc::ByteBuffer* response)
        : host_(std::move(host)),
          peer_(std::move(peer)),
          from_(context->peer()),
          guard_(host_->uploads()),
          chunks_(guard_.assembler()) {
        *response = wire::empty_message();
        const auto& sent = context->client_metadata();
        const auto told = sent.find(wire::upload_key);
        if (told == sent.end()) return;
        name_ = wire::upload_name::from_text(std::string_view(told->second.data(), told->second.size()));
        if (name_) context_ = context;
    }

    const peer_info& peer() const override { return peer_; }
    std::string who() const override { return "the peer at " + from_; }
    std::uint64_t number() const override { return name_ ? name_->number : 0; }
    const void* origin() const override { return this; }

    void open() {
        std::optional<chunk_assembler> part;
        if (name_) part = guard_.claim(name_->number, this->shared_from_this());
        std::unique_lock lock(mutex_);
        self_ = this->shared_from_this();
        entry_ = guard_.open(this);
        if (!entry_) return finish(wire::to_status(errc::queue_full, "the server takes no more uploads for now"));
        if (name_ && !go_on(std::move(part))) return refuse(lock, chunks_.code(), chunks_.text());
        if (guard_.begin(*entry_, in_memory())) StartRead(&in_);
    }

    /// In place of `open`.
    void refuse(const grpc::Status& why) {
        const std::lock_guard lock(mutex_);
        self_ = this->shared_from_this();
        finish(why);
    }

    /// The reply that was received has been dealt with.
    void answer(errc reason, const std::string& text) override {
        typename guard::calls others;
        {
            const std::lock_guard lock(mutex_);
            if (reason != errc::ok) return finish(wire::to_status(reason, text));
            if (over_) return;
            others = guard_.handled(*entry_);
            StartRead(&in_);
        }
        for (const auto& each : others) each->read_on();
    }

    /// From the guard: there is room again.
    void read_on() {
        const std::lock_guard lock(mutex_);
        if (!over_) StartRead(&in_);
    }

    /// From the guard.
    void end(errc reason, const std::string& text) {
        const std::lock_guard lock(mutex_);
        finish(wire::to_status(reason, text));
    }

    /// From the guard: a newer call goes on with this upload. Returns what is there of it.
    std::optional<chunk_assembler> give_up() {
        const std::lock_guard lock(mutex_);
        auto part = unfinished();
        given_up_ = true;
        finish(wire::to_status(errc::superseded, "a newer call goes on with this upload"));
        return part;
    }

private:
    /// Tells the node how much is there of its upload. False where it is over with that.
    bool go_on(std::optional<chunk_assembler>&& part) {
        if (part && part->received() <= name_->total) chunks_ = std::move(*part);
        chunks_.begin_leg();
        chunks_.compute_checksum();
        if (!chunks_.expect(name_->total)) return false;
        context_->AddInitialMetadata(wire::offset_key, std::to_string(chunks_.received()));
        StartSendInitialMetadata();
        return true;
    }

    /// What counts for the budget.
    std::uint64_t in_memory() const { return chunks_.spooled() ? 0 : chunks_.received(); }

    /// Under the mutex.
    std::optional<chunk_assembler> unfinished() {
        if (!name_ || given_up_ || chunks_.failed() || chunks_.complete() || chunks_.received() == 0)
            return std::nullopt;
        return std::optional(std::exchange(chunks_, guard_.assembler()));
    }

    void OnReadDone(bool ok) override {
        std::unique_lock lock(mutex_);
        if (!ok) return end_of_stream(lock);
        if (given_up_) return;
        wire::part_header header;
        if (name_) wire::read_header(in_, header);
        const auto before = in_memory();
        const auto read = wire::read_chunk(in_, chunks_);
        in_.Clear();
        if (read.code != errc::ok) return refuse(lock, read.code, read.text);
        const auto now = in_memory();
        const auto length = now > before ? now - before : 0;
        typename guard::calls others;
        if (!chunks_.complete()) {
            bool more = false;
            if (!over_) others = guard_.chunk(*entry_, length, more);
            if (more) StartRead(&in_);
            lock.unlock();
            for (const auto& each : others) each->read_on();
            return;
        }
        const bool damaged = header.upload_checksum && *header.upload_checksum != chunks_.checksum();
        auto content = chunks_.take();
        if (damaged) return refuse(lock, errc::checksum_differs, "the bytes that arrived are not those that were sent");
        if (chunks_.failed()) return refuse(lock, chunks_.code(), chunks_.text());
        const auto self = self_;
        others = guard_.whole(*entry_, length);
        lock.unlock();
        for (const auto& each : others) each->read_on();
        self->host_->reply_received(self, std::move(content));
    }

    void OnCancel() override {
        const std::lock_guard lock(mutex_);
        finish(grpc::Status::CANCELLED);
    }

    void OnDone() override {
        std::unique_lock lock(mutex_);
        const auto self = std::move(self_);
        const auto entry = std::exchange(entry_, std::nullopt);
        if (name_) {
            auto part = unfinished();
            guard_.release(name_->number, this, part);
            if (part) chunks_ = std::move(*part);  // a newer call is about to ask for it
        }
        lock.unlock();
        if (!entry) return;
        for (const auto& each : guard_.close(*entry)) each->read_on();
    }

    // The three below are called under the mutex.

    void end_of_stream(std::unique_lock<std::mutex>& lock) {
        if (!chunks_.in_progress() || given_up_) return finish(grpc::Status::OK);
        refuse(lock, errc::stream_broken,
               "the stream ended before its last chunk, after " + std::to_string(chunks_.received()) + " bytes");
    }

    /// Gives the mutex back, and this call may be gone then.
    void refuse(std::unique_lock<std::mutex>& lock, errc reason, const std::string& why) {
        const auto host = host_;
        const auto who = this->who();
        finish(wire::to_status(reason, why));
        lock.unlock();
        host->reply_refused(who + ": " + why);
    }

    void finish(const grpc::Status& how) {
        if (!std::exchange(over_, true)) Finish(how);
    }

    const std::shared_ptr<Host> host_;
    const peer_info peer_;
    const std::string from_;
    guard& guard_;
    std::mutex mutex_;
    std::shared_ptr<basic_reply_call> self_;
    std::optional<typename guard::entry> entry_;
    grpc::ByteBuffer in_;
    chunk_assembler chunks_;
    std::optional<wire::upload_name> name_;
    grpc::CallbackServerContext* context_ = nullptr;  // where it has a name
    bool given_up_ = false;
    bool over_ = false;
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
