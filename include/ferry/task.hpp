// A task as a node's callback sees it. It may be copied, kept and replied to later, from any thread.
#pragma once

#include <ferry/delivery.hpp>
#include <ferry/feedback.hpp>
#include <ferry/frames.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <utility>

namespace ferry {

/// Whether a task that is refused may come again.
enum class refusal { for_now, for_good };

namespace detail {

/// One run of a task at its node.
class task_run {
public:
    struct verdict {
        frames::verdict what = frames::verdict::taken;
        std::string text{};
        std::chrono::milliseconds pause{};
    };

    task_run(std::uint64_t key, std::uint64_t number, int attempt, bool urgent, std::stop_token client)
        : key(key), number(number), attempt(attempt), urgent(urgent), with_client_(std::move(client), [this] {
              stop();
          }) {}

    void stop() { stop_.request_stop(); }
    std::stop_token token() const { return stop_.get_token(); }

    void decide(verdict how) {
        const std::lock_guard lock(mutex_);
        verdict_ = std::move(how);
    }
    /// Whoever asked is told so, unless there is another reply.
    void reply_failed(const std::string& why) {
        const std::lock_guard lock(mutex_);
        problem_ = "the reply can't be sent: " + why;
    }
    void reply_goes() {
        const std::lock_guard lock(mutex_);
        has_reply_ = true;
    }
    verdict decided() const {
        const std::lock_guard lock(mutex_);
        if (verdict_.what != frames::verdict::taken || has_reply_ || problem_.empty()) return verdict_;
        return {frames::verdict::refused, problem_};
    }

    const std::uint64_t key;     // in the core
    const std::uint64_t number;  // by which the server knows it; 0 where a poll brought it
    const int attempt;
    const bool urgent;

private:
    std::stop_source stop_;
    std::stop_callback<std::function<void()>> with_client_;
    mutable std::mutex mutex_;
    verdict verdict_;
    bool has_reply_ = false;
    std::string problem_;  // of a reply
};

/// The link that a task came over.
template <class Message>
class task_host {
public:
    virtual ~task_host() = default;
    virtual basic_delivery<Message> reply(task_run& run, const Message& task, Message answer) = 0;
    virtual void send_feedback(feedback what) = 0;
    virtual void in_progress(std::uint64_t key) = 0;
    virtual const std::string& researcher() const = 0;
};

}  // namespace detail

/// A message that a researcher sent to this node. It counts as taken when the callback has replied to it or returned, unless
/// that refused it or threw before. Until then the client tells the researcher again and again that it is still here.
template <class Message>
class basic_task {
public:
    basic_task(std::shared_ptr<detail::task_host<Message>> host, std::shared_ptr<detail::task_run> run, Message message)
        : host_(std::move(host)), run_(std::move(run)), message_(std::make_shared<const Message>(std::move(message))) {}

    /// Its binaries are slices of the received memory, and keep that alive.
    const Message& message() const noexcept { return *message_; }

    /// Which delivery of the task this is, from 1. Above it, an earlier one may have run: in a life of this program that was
    /// killed. A researcher of another make doesn't tell: then it is always 1.
    int attempt() const noexcept { return run_->attempt; }

    /// It came in the urgent lane: its callback may run beside that of a usual task.
    bool urgent() const noexcept { return run_->urgent; }

    /// Sends a reply. The request's `request_id` and this node's id are filled in where the reply has none: clear the node's id
    /// in one that is a copy of another node's message. The delivery ends in `taken` when the server has accepted
    /// it; until then it is sent again after each lost connection. Where it ends otherwise, a warning is logged, and whoever
    /// asked learns of it only where that was before the callback returned: then the task ends in `refused`. A second reply
    /// goes to the server's `on_unclaimed_reply`. Doesn't wait for the network, but where there is a spool folder, with a large
    /// reply, for the disk.
    basic_delivery<Message> reply(Message answer) const { return host_->reply(*run_, *message_, std::move(answer)); }

    /// Says that the callback is still at work. Needed only where `client_options::limits.renew_leases` is off: then the server
    /// sends the task again where neither this nor the end of the callback comes within its `dispatch_limits::lease`.
    void in_progress() const { host_->in_progress(run_->key); }

    /// The task is not for this node: it ends in `refused`, or, `for_now`, is sent again no earlier than after the pause, as the
    /// server's retry policy says; the later tasks of its lane wait for it. To be called before the callback returns. A
    /// researcher of another make is told by an error log alone, and by an ErrorMessage where it asked.
    void refuse(refusal how, std::string why, std::chrono::milliseconds pause = std::chrono::seconds(1)) const {
        const auto what = how == refusal::for_now ? frames::verdict::not_now : frames::verdict::refused;
        run_->decide({what, std::move(why), pause});
    }

    /// Sends a log line to the researcher that this task is of. Never waits; beyond a bound the oldest are dropped.
    void log(std::string level, std::string text) const {
        host_->send_feedback(log_line{{}, std::move(level), std::move(text)});
    }

    /// Sends metrics, in the same way. The node's id is filled in.
    void send(scalars metrics) const { host_->send_feedback(std::move(metrics)); }

    /// Stop is requested when the client stops, and when the researcher has withdrawn the task.
    std::stop_token stop_token() const { return run_->token(); }

    /// "host:port" of the researcher that this task is of.
    const std::string& researcher() const { return host_->researcher(); }

private:
    std::shared_ptr<detail::task_host<Message>> host_;
    std::shared_ptr<detail::task_run> run_;
    std::shared_ptr<const Message> message_;
};

}  // namespace ferry
