// The sender's handles: a delivery that ends in one outcome, and a request that ends with a reply.
// A handle may be copied, kept for longer than the server, or dropped; dropping it withdraws nothing.
#pragma once

#include <ferry/outcome.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ferry {

/// What a request came to.
template <class Message>
struct basic_reply {
    outcome how;        ///< `replied`, or why there is no reply
    Message message{};  ///< only where `how.kind == replied`
    std::string node;   ///< that was asked

    explicit operator bool() const noexcept { return how.kind == outcome_kind::replied; }
};

namespace detail {

/// What a handle needs of whoever made it.
class delivery_host {
public:
    virtual ~delivery_host() = default;
    /// A thread that sleeps is woken by `wake` only; another one may run the job at once. False where jobs are no longer run:
    /// the job is the caller's still.
    virtual bool enqueue(const std::string& strand, std::function<void()>& job) = 0;
    virtual void wake() = 0;
    virtual void withdraw(std::uint64_t key) = 0;
};

template <class Message>
class delivery_state : public std::enable_shared_from_this<delivery_state<Message>> {
public:
    using callback = std::function<void(const basic_reply<Message>&)>;

    delivery_state(std::weak_ptr<delivery_host> host, std::string node) : host_(std::move(host)) {
        result_.node = std::move(node);
    }

    void set_total(std::uint64_t bytes) noexcept { total_ = bytes; }
    void set_key(std::uint64_t key) noexcept { key_ = key; }
    void progressed(std::uint64_t sent) noexcept { sent_ = sent; }

    void accept() {
        {
            const std::lock_guard lock(mutex_);
            accepted_ = true;
        }
        changed_.notify_all();
    }

    /// Called once, and `tell` after it, also where it throws: see `end_to_tell`. The callbacks go to the host's executor, in the
    /// order in which they were added; a copy of `handled` is let go when each has returned.
    void end(outcome how, std::optional<Message> reply, const std::shared_ptr<void>& handled = nullptr) {
        {
            const std::lock_guard lock(mutex_);
            result_.how = std::move(how);
            if (reply) result_.message = std::move(*reply);
            ended_ = true;
        }
        std::vector<callback> waiting;
        while (take_callbacks(waiting)) {
            for (auto& each : waiting) enqueue(std::move(each), handled);
            waiting.clear();
        }
    }

    /// Wakes who waits for the end. Not under a lock that these will want: they would wake to wait for it.
    void tell() noexcept {
        std::vector<promise> promises;
        {
            const std::lock_guard lock(mutex_);
            promises.swap(promises_);
        }
        changed_.notify_all();
        if (const auto host = host_.lock()) host->wake();
        for (auto& each : promises) {
            try {
                each.set_value(result_);
            } catch (...) {
                each.set_exception(std::current_exception());  // no memory for a copy
            }
        }
    }

    void when_ended(callback each) {
        {
            const std::lock_guard lock(mutex_);
            if (!handed_over_) {
                callbacks_.push_back(std::move(each));
                return;
            }
        }
        const auto host = host_.lock();
        enqueue(std::move(each));  // the callback may let go of the last of this
        if (host) host->wake();
    }

    /// Goes by no executor: a stopped one drops its jobs, and a future is always fulfilled.
    std::future<basic_reply<Message>> future() {
        promise made;
        auto out = made.get_future();
        {
            const std::lock_guard lock(mutex_);
            if (!ended_) {
                promises_.push_back(std::move(made));
                return out;
            }
        }
        made.set_value(result_);
        return out;
    }

    const basic_reply<Message>& wait() const {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return ended_; });
        return result_;  // fixed from now on
    }

    bool ended() const {
        const std::lock_guard lock(mutex_);
        return ended_;
    }

    bool accepted() const {
        const std::lock_guard lock(mutex_);
        return accepted_;
    }

    bool wait_accepted() const {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return accepted_ || ended_; });
        return accepted_;
    }

    bool wait_until(std::chrono::steady_clock::time_point when) const {
        std::unique_lock lock(mutex_);
        return changed_.wait_until(lock, when, [this] { return ended_; });
    }

    void cancel() {
        if (const auto host = host_.lock()) host->withdraw(key_);
    }
    const std::string& node() const noexcept { return result_.node; }
    std::uint64_t sent() const noexcept { return sent_; }
    std::uint64_t total() const noexcept { return total_; }

private:
    using promise = std::promise<basic_reply<Message>>;

    /// False, and from now on callbacks run as they come, where none are left: one that comes late overtakes no other.
    bool take_callbacks(std::vector<callback>& out) {
        const std::lock_guard lock(mutex_);
        out.swap(callbacks_);
        handed_over_ = out.empty();
        return !handed_over_;
    }

    void enqueue(callback each, const std::shared_ptr<void>& handled = nullptr) {
        std::function<void()> job = [self = this->shared_from_this(), each = std::move(each), handled] {
            each(self->result_);
        };
        const auto host = host_.lock();
        if (!host || !host->enqueue(result_.node, job)) job();  // nothing else runs any more
    }

    std::weak_ptr<delivery_host> host_;
    std::atomic<std::uint64_t> key_{0};
    std::atomic<std::uint64_t> sent_{0};
    std::atomic<std::uint64_t> total_{0};
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    bool accepted_ = false;
    bool ended_ = false;
    bool handed_over_ = false;
    basic_reply<Message> result_;
    std::vector<callback> callbacks_;
    std::vector<promise> promises_;
};

/// Tells of a delivery's end when it goes, which must not be under a lock: whatever else fails, nobody is left waiting.
template <class Message>
class end_to_tell {
public:
    /// `handled` is let go along with it.
    explicit end_to_tell(std::shared_ptr<delivery_state<Message>> of, std::shared_ptr<void> handled = nullptr)
        : of_(std::move(of)), handled_(std::move(handled)) {}
    end_to_tell(end_to_tell&&) noexcept = default;
    end_to_tell& operator=(end_to_tell&&) = delete;
    ~end_to_tell() {
        if (of_) of_->tell();
    }

private:
    std::shared_ptr<delivery_state<Message>> of_;
    std::shared_ptr<void> handled_;
};

}  // namespace detail

/// A message on its way to one node. Safe to use from several threads; copies mean the same delivery.
template <class Message>
class basic_delivery {
public:
    explicit basic_delivery(std::shared_ptr<detail::delivery_state<Message>> state) : state_(std::move(state)) {}

    // A move is a copy: there is no empty handle.
    basic_delivery(const basic_delivery&) = default;
    basic_delivery& operator=(const basic_delivery&) = default;
    ~basic_delivery() = default;

    /// Blocks until the delivery has ended. Not from a callback that the end itself waits for.
    outcome wait() const { return state_->wait().how; }

    /// The outcome, or nothing where the delivery has not ended within the time.
    template <class Rep, class Period>
    std::optional<outcome> wait_for(std::chrono::duration<Rep, Period> time) const {
        using clock = std::chrono::steady_clock;
        using seconds = std::chrono::duration<double>;  // of which no sum overflows
        const auto now = clock::now();
        const bool endless = seconds(time) >= seconds(clock::time_point::max() - now);
        const auto when = endless            ? clock::time_point::max()
                          : time.count() > 0 ? now + std::chrono::ceil<clock::duration>(time)
                                             : now;
        if (!state_->wait_until(when)) return std::nullopt;
        return state_->wait().how;
    }

    bool done() const { return state_->ended(); }

    /// True once the agent store has the message, also when it has ended since. With a store that outlives its server, a
    /// server that starts later delivers it then where this one dies before it could.
    bool accepted() const { return state_->accepted(); }

    /// Blocks until it is accepted, or has ended without that; true where it is accepted.
    bool wait_accepted() const { return state_->wait_accepted(); }

    /// Calls `callback(const outcome&)` once, on the executor, after the delivery has ended, even if it has ended already.
    /// Callbacks of one node run one after another. Once whoever has sent it was stopped there is no executor any more: then
    /// the callback runs in this call, which throws what that throws.
    template <class Callback>
    void on_done(Callback callback) {
        state_->when_ended(
            [callback = std::move(callback)](const basic_reply<Message>& result) mutable { callback(result.how); });
    }

    /// Withdraws it, wherever it is; ends in `cancelled` unless it has ended before.
    void cancel() { state_->cancel(); }

    const std::string& node() const noexcept { return state_->node(); }

    /// Of the encoded message.
    std::uint64_t total_bytes() const noexcept { return state_->total(); }

    /// Handed to the network so far in the attempt under way, of `total_bytes`.
    std::uint64_t sent_bytes() const noexcept { return state_->sent(); }

protected:
    std::shared_ptr<detail::delivery_state<Message>> state_;
};

/// A message on its way to one node, and the reply to it.
template <class Message>
class basic_request : public basic_delivery<Message> {
public:
    using basic_delivery<Message>::basic_delivery;

    /// Blocks until the reply is there, or the reason why there is none. Without `send_options::reply_within` that may be never:
    /// a node's callback may return without a reply. Copies the message's tree, but no binary.
    basic_reply<Message> get() const { return this->state_->wait(); }

    /// Calls `callback(const basic_reply<Message>&)` once, on the executor, as `on_done` does.
    template <class Callback>
    void on_reply(Callback callback) {
        this->state_->when_ended(std::move(callback));
    }

    /// The same as a future. It is always fulfilled, without waiting for callbacks, and never holds an exception.
    std::future<basic_reply<Message>> future() { return this->state_->future(); }
};

}  // namespace ferry
