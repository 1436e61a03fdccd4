// layer 4
// Uploads: the server's ReplyTask as a reactor. A call carries bytes and reports events; what is to happen is decided by the
// host, how fast it is read by the guard. One that has a number goes on where an earlier one of that number broke off.
//
// Each call keeps itself alive from its start to OnDone. Its own mutex guards all that it has, its operations and its one
// Finish; no event is reported under it. The guard's mutex is taken inside it, never the other way round.
#pragma once

#include <ferry/chunk_assembler.hpp>
#include <ferry/detail/grpc_frames.hpp>
#include <ferry/detail/grpc_reply_source.hpp>
#include <ferry/detail/upload_guard.hpp>
#include <ferry/error.hpp>
#include <ferry/identity.hpp>
#include <ferry/payload.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ferry::detail {

class reply_call_host;
template <class Host>
class basic_reply_call;
using reply_call = basic_reply_call<reply_call_host>;

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
        const auto received = chunks_.received(), held = in_memory();
        const auto read = wire::read_chunk(in_, chunks_);
        in_.Clear();
        if (read.code != errc::ok) return refuse(lock, read.code, read.text);
        const auto kept = std::max(in_memory(), held) - held;  // less, where all of it goes to a file now
        const typename guard::gate::came chunk{chunks_.received() - received, kept};
        typename guard::calls others;
        if (!chunks_.complete()) {
            bool more = false;
            if (!over_) others = guard_.chunk(*entry_, chunk, more);
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
        others = guard_.whole(*entry_, chunk);
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

}  // namespace ferry::detail
