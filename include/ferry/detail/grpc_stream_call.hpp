// layer 4
// The server's end of a node's stream as a reactor. It carries frames and bytes, and reports events; what is to happen is
// decided by the host. Where its hello doesn't come, or its end can't be written, it is given up after a while.
//
// Each call keeps itself alive from its start to OnDone. Its own mutex guards all that it has, its operations and its one
// Finish; no event is reported under it.
#pragma once

#include <ferry/researcher.pb.h>
#include <ferry/chunk.hpp>
#include <ferry/detail/grpc_frames.hpp>
#include <ferry/detail/grpc_reply_source.hpp>
#include <ferry/detail/grpc_task_call.hpp>
#include <ferry/error.hpp>
#include <ferry/frames.hpp>
#include <ferry/identity.hpp>
#include <ferry/payload.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Host>
class basic_stream_call final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                                public task_call,
                                public std::enable_shared_from_this<basic_stream_call<Host>> {
public:
    /// `problem(who)` says why the peer, who calls itself so, is refused; empty where it isn't.
    basic_stream_call(std::shared_ptr<Host> host, peer_info peer, grpc::CallbackServerContext& context,
                      std::function<std::string(const std::string&)> problem)
        : host_(std::move(host)), peer_(std::move(peer)), context_(context), problem_(std::move(problem)) {}

    const peer_info& peer() const noexcept { return peer_; }

    void open() {
        const std::lock_guard lock(mutex_);
        self_ = this->shared_from_this();
        read_next();
        host_->watch(self_);
    }

    void queue(const std::shared_ptr<const payload>& content, const chunk& part,
               const frames::delivery_head& head) override {
        const std::lock_guard lock(mutex_);
        if (!over_) range_ = range{content, part.offset, part, head};
    }

    /// A small task, which shares its message with what is told beside.
    void queue_whole(std::shared_ptr<const payload> content, const frames::delivery_head& head) override {
        wire::whole_task task(std::move(content), head);
        const std::lock_guard lock(mutex_);
        if (over_) return;
        if (told_.empty() || told_.back().bytes > max_told_bytes) told_.emplace_back();
        const auto size = task.size();
        told_.back().tasks.push_back(std::move(task));
        told_.back().bytes += size;
    }

    /// A node takes what is withdrawn before the tasks of the same message.
    void queue(researcher::TaskResponse&& what) override {
        const std::lock_guard lock(mutex_);
        if (over_) return;
        welcomed_ |= what.has_welcome();
        unsaid_ += static_cast<std::size_t>(what.withdrawn_size());
        if (told_.empty() || (what.withdrawn_size() > 0 && !told_.back().tasks.empty())) told_.emplace_back();
        told_.back().rest.MergeFrom(what);
    }

    void queue(const frames::answer& what) {
        const std::lock_guard lock(mutex_);
        if (over_) return;
        if (told_.empty()) told_.emplace_back();
        wire::to_proto(what, *told_.back().rest.add_answers());
        ++unsaid_;
    }

    /// A content that is not in memory is read first.
    void flush() override {
        std::unique_lock lock(mutex_);
        if (!range_ || range_->content->in_memory()) return write_next();
        auto wanted = std::move(*range_);
        range_.reset();
        write_next();
        lock.unlock();
        const auto& content = *wanted.content;
        content.read(wanted.part.offset, wanted.part.length,
                     [self = this->shared_from_this(), wanted](range_result came) mutable {
                         if (came.code != errc::ok || came.data.size() != wanted.part.length) {
                             const auto why = came.text.empty() ? "a range came short" : came.text;
                             return self->host_->poll_broken(self, errc::source_failed, why);
                         }
                         wanted.content = std::make_shared<const payload>(std::move(came.data));
                         wanted.offset = 0;
                         wanted.has_checksum = false;
                         const std::lock_guard with(self->mutex_);
                         if (self->over_) return;
                         self->range_ = std::move(wanted);
                         self->write_next();
                     });
    }

    /// Once what was told has gone out: an answer that is lost would have its node wait for a server that may never be back.
    void finish(const grpc::Status& how) override {
        std::optional<range> dropped;  // without the lock
        const std::lock_guard lock(mutex_);
        if (std::exchange(over_, true)) return;
        how_it_ends_ = how;
        dropped.swap(range_);
        write_next();
        if (!finished_) host_->watch(self_);
    }

    void give_up() override {
        {
            const std::lock_guard lock(mutex_);
            if (!self_) return;
            if (over_) return context_.TryCancel();  // what is being written goes with it
            if (opened_) return;
        }
        finish(wire::to_status(errc::idle_timeout, "a stream begins with a hello, which didn't come"));
    }

    /// A small reply has been dealt with, and its answer is queued. Few answers may wait: a node sends no more than so many
    /// replies at once.
    void answered() {
        const bool few = [this] {
            const std::lock_guard lock(mutex_);
            --replies_;
            read_next();
            if (!told_.empty() && told_.back().rest.answers_size() < max_waiting_answers) return true;
            write_next();
            return false;
        }();
        if (few) host_->flush_soon(this->shared_from_this());
    }

private:
    static constexpr std::size_t max_replies = 256;  // being dealt with; past it nothing is read
    static constexpr std::size_t max_unsaid = 1024;  // answers and withdrawals that a node doesn't take; likewise
    static constexpr int max_entries = 100'000;      // of each kind, in one message of a node's
    static constexpr int max_waiting_answers = 8;
    static constexpr std::size_t max_told_bytes = 64 * 1024;  // of tasks in one message, before the last one

    /// A message of several things.
    struct told {
        std::vector<wire::whole_task> tasks;
        researcher::TaskResponse rest;
        std::size_t bytes = 0;  // of the tasks
    };

    struct range {
        std::shared_ptr<const payload> content;
        std::uint64_t offset;  // in the content
        chunk part;
        frames::delivery_head head;
        bool has_checksum = true;
    };

    class small_reply final : public reply_source {
    public:
        small_reply(std::shared_ptr<basic_stream_call> from, std::uint64_t number, std::uint64_t task)
            : from_(std::move(from)), number_(number), task_(task) {}

        void queue_answer(errc reason, const std::string& text) override {
            queued_ = true;
            from_->queue(frames::answer{number_, reason, text});
        }
        void answer(errc reason, const std::string& text) override {
            if (!queued_) queue_answer(reason, text);
            from_->answered();
        }
        const peer_info& peer() const override { return from_->peer(); }
        std::string who() const override { return "node " + from_->node(); }
        std::uint64_t number() const override { return number_; }
        const void* origin() const override { return from_.get(); }
        bool is_small() const override { return true; }
        task_receipt receipt() const override {
            if (task_ == 0) return {};
            return {from_, task_};
        }

    private:
        const std::shared_ptr<basic_stream_call> from_;
        const std::uint64_t number_, task_;
        bool queued_ = false;
    };

    /// Under the mutex. Not while what came last is still being reported.
    void read_next() {
        if (over_ || replies_ >= max_replies || unsaid_ >= max_unsaid || std::exchange(reads_, true)) return;
        StartRead(&in_);
    }

    /// Under the mutex. Before the welcome nothing is said.
    void write_next() {
        if (writes_ || finished_) return;
        if (welcomed_ && !broken_ && !told_.empty()) {
            wire::serialize(out_, told_.front().rest, told_.front().tasks);
            tasks_sent_ = std::move(told_.front().tasks);
            unsaid_ -=
                static_cast<std::size_t>(told_.front().rest.answers_size() + told_.front().rest.withdrawn_size());
            told_.pop_front();
        } else if (over_) {
            return end();
        } else if (welcomed_ && range_ && range_->content->in_memory()) {  // else `flush` reads it first
            const auto& [content, offset, part, head, has_checksum] = *range_;
            const auto checksum = has_checksum ? content->checksum_of(part.offset + part.length) : std::nullopt;
            wire::write_part(out_, part, head, checksum, *content, offset);
            being_sent_ = std::move(range_->content);
            range_.reset();
            writes_range_ = true;
        } else {
            return;
        }
        writes_ = true;
        StartWrite(&out_);
    }

    /// Under the mutex.
    void end() {
        if (!std::exchange(finished_, true)) Finish(how_it_ends_);
    }

    void OnWriteDone(bool ok) override {
        grpc::ByteBuffer sent;  // goes without the lock, and so do the contents: users' code may run then
        std::shared_ptr<const payload> content;
        std::vector<wire::whole_task> tasks;
        std::unique_lock lock(mutex_);
        const auto self = self_;
        sent.Swap(&out_);
        content.swap(being_sent_);
        tasks.swap(tasks_sent_);
        writes_ = false;
        const bool was_range = std::exchange(writes_range_, false);
        broken_ |= !ok;
        if (ok || over_) write_next();
        if (opened_) read_next();
        lock.unlock();
        if (!ok) {
            self->host_->poll_broken(self, errc::stream_broken, "the node's stream broke off");
        } else if (was_range) {
            self->host_->range_sent(self);
        }
    }

    void OnReadDone(bool ok) override {
        std::unique_lock lock(mutex_);
        const auto self = self_;
        researcher::TaskRequest request;
        const bool valid = ok && wire::parse(in_, request);
        in_.Clear();
        lock.unlock();
        if (!ok) return close("the node ended its stream");
        if (!valid) return break_off(errc::protocol_error, "what came is no TaskRequest");
        if (!(opened_ ? hear(self, request) : begin(self, request))) return;
        lock.lock();
        replies_ += static_cast<std::size_t>(request.replies_size());
        lock.unlock();
        for (auto& each : *request.mutable_replies()) {
            self->host_->reply_received(std::make_shared<small_reply>(self, each.reply(), each.task()),
                                        bytes::own(std::move(*each.mutable_content())));
        }
        for (const auto& each : request.receipts()) self->host_->receipt_came(self, wire::from_proto(each));
        if (request.leaving()) self->host_->node_leaving(self);
        lock.lock();
        reads_ = false;
        read_next();
        if (!told_.empty() && !told_.back().tasks.empty()) write_next();  // a task that waited for a receipt
    }

    /// The first message.
    bool begin(const std::shared_ptr<basic_stream_call>& self, const researcher::TaskRequest& request) {
        if (!request.has_hello() || request.node().empty() || request.node().size() > frames::max_node_id_bytes) {
            finish(
                wire::to_status(errc::protocol_error, "a stream begins with a hello, and names its node by at most " +
                                                          std::to_string(frames::max_node_id_bytes) + " bytes"));
            return false;
        }
        if (const auto wrong = fault_of(request); !wrong.empty()) {
            finish(wire::to_status(errc::protocol_error, wrong));
            return false;
        }
        if (!host_->admits(request.node(), peer_)) {
            finish(wire::to_status(errc::not_permitted, "this peer may not poll as node " + request.node()));
            return false;
        }
        if (const auto other = problem_("node " + request.node()); !other.empty()) {
            finish(wire::to_status(errc::protocol_error, other));
            return false;
        }
        {
            const std::lock_guard lock(mutex_);
            node_ = request.node();
            opened_ = true;
        }
        host_->let_go(*this);
        host_->stream_opened(self, context_.peer(), wire::hello_from_proto(request.hello()));
        return true;
    }

    bool hear(const std::shared_ptr<basic_stream_call>& self, const researcher::TaskRequest& request) {
        if (const auto wrong = fault_of(request); !wrong.empty()) {
            break_off(errc::protocol_error, wrong);
            return false;
        }
        if (request.in_progress_size() > 0) {
            host_->lease_renewed(self, {request.in_progress().begin(), request.in_progress().end()});
        }
        return true;
    }

    static std::string fault_of(const researcher::TaskRequest& request) {
        for (const auto& each : request.replies()) {
            if (each.content().size() > frames::max_reply_bytes || each.reply() == 0)
                return "a reply over a stream has at most 64 KiB, and a number";
        }
        const auto& hello = request.hello();
        const int most =
            std::max({request.replies_size(), request.receipts_size(), hello.held_size(), hello.receipts_size()});
        return most > max_entries ? "a message over a stream has at most 100,000 entries of a kind" : std::string();
    }

    void close(std::string why) {
        if (opened_) host_->poll_broken(this->shared_from_this(), errc::stream_broken, std::move(why));
        finish(grpc::Status::OK);
    }

    void break_off(errc reason, const std::string& why) {
        if (opened_) host_->poll_broken(this->shared_from_this(), errc::stream_broken, why);
        finish(wire::to_status(reason, why));
    }

    void OnCancel() override {
        std::unique_lock lock(mutex_);
        const auto self = self_;
        const bool opened = opened_;
        lock.unlock();
        if (opened) self->host_->poll_broken(self, errc::stream_broken, "the node is gone");
        self->finish(grpc::Status::CANCELLED);
        lock.lock();
        end();  // whatever is still being written
    }

    void OnDone() override {
        std::deque<told> unsaid;  // goes without the lock
        std::unique_lock lock(mutex_);
        const auto self = std::move(self_);
        const bool opened = opened_;
        unsaid.swap(told_);
        lock.unlock();
        self->host_->let_go(*self);
        if (opened) self->host_->poll_broken(self, errc::stream_broken, "the stream is over");
    }

    const std::shared_ptr<Host> host_;
    const peer_info peer_;
    grpc::CallbackServerContext& context_;
    const std::function<std::string(const std::string&)> problem_;
    std::mutex mutex_;
    std::shared_ptr<basic_stream_call> self_;
    grpc::ByteBuffer in_, out_;
    bool opened_ = false;    // the host knows of it
    bool over_ = false;      // takes no more, and finishes once what was told is out
    bool broken_ = false;    // nothing goes out any more
    bool finished_ = false;  // Finish is under way
    grpc::Status how_it_ends_;
    bool writes_ = false;
    bool writes_range_ = false;
    bool welcomed_ = false;
    std::deque<told> told_;  // and not yet written
    std::optional<range> range_;
    std::shared_ptr<const payload> being_sent_;
    std::vector<wire::whole_task> tasks_sent_;  // written, and to be let go of without the mutex
    std::size_t replies_ = 0;
    std::size_t unsaid_ = 0;  // answers and withdrawals in `told_`
    bool reads_ = false;      // or reports what was read
};

}  // namespace ferry::detail
