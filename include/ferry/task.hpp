// A task as a node's callback sees it. It may be copied, kept and replied to later, from any thread.
#pragma once

#include <ferry/delivery.hpp>
#include <ferry/feedback.hpp>

#include <memory>
#include <stop_token>
#include <string>
#include <utility>

namespace ferry {

namespace detail {

/// The link that a task came over.
template <class Message>
class task_host {
public:
    virtual ~task_host() = default;
    virtual basic_delivery<Message> reply(const Message& task, Message answer) = 0;
    virtual void send_feedback(feedback what) = 0;
    virtual std::stop_token stop_token() const = 0;
    virtual const std::string& researcher() const = 0;
};

}  // namespace detail

/// A message that a researcher sent to this node.
template <class Message>
class basic_task {
public:
    basic_task(std::shared_ptr<detail::task_host<Message>> host, Message message)
        : host_(std::move(host)), message_(std::make_shared<const Message>(std::move(message))) {}

    /// Its binaries are slices of the received memory, and keep that alive.
    const Message& message() const noexcept { return *message_; }

    /// Sends a reply in chunks. The request's `request_id` and this node's id are filled in where the reply has none. The
    /// delivery ends in `taken` when the server has accepted it; until then it is sent again after each lost connection.
    basic_delivery<Message> reply(Message answer) const { return host_->reply(*message_, std::move(answer)); }

    /// Sends a log line to the researcher that this task is of. Never waits; beyond a bound the oldest are dropped.
    void log(std::string level, std::string text) const {
        host_->send_feedback(log_line{{}, std::move(level), std::move(text)});
    }

    /// Sends metrics, in the same way. The node's id is filled in.
    void send(scalars metrics) const { host_->send_feedback(std::move(metrics)); }

    /// Stop is requested when the client stops.
    std::stop_token stop_token() const { return host_->stop_token(); }

    /// "host:port" of the researcher that this task is of.
    const std::string& researcher() const { return host_->researcher(); }

private:
    std::shared_ptr<detail::task_host<Message>> host_;
    std::shared_ptr<const Message> message_;
};

}  // namespace ferry
