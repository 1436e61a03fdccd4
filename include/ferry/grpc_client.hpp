// The node's side: `basic_grpc_client<Policies...>`, composed of policies in any order, and `grpc_client`, with the
// defaults. It only dials out.
#pragma once

#include <ferry/client_options.hpp>
#include <ferry/detail/grpc_callback_queue.hpp>
#include <ferry/detail/grpc_client_link.hpp>
#include <ferry/detail/policy_check.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/error.hpp>
#include <ferry/feedback.hpp>
#include <ferry/policy.hpp>
#include <ferry/retry.hpp>
#include <ferry/serializer/msgpack.hpp>
#include <ferry/task.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace ferry {

namespace detail {

/// The one implementation of all packs that resolve to these models.
template <class Serializer, class Retry, class ChunkSize>
class grpc_client_impl {
public:
    using message_type = typename Serializer::message_type;
    using task = basic_task<message_type>;

    grpc_client_impl(client_options options, std::function<void(task)> on_task, Serializer serializer, Retry retry)
        : options_(std::make_shared<const client_options>(std::move(options))),
          callbacks_(std::make_shared<executor>(
              threads_of(options_->callback_pool, options_->callback_threads),
              [log = detail::message_log(options_->log, options_->debug)](const std::string& what) {
                  log.warn("a callback threw: " + what);
              })) {
        const auto handler = std::make_shared<const typename link::handler>(std::move(on_task));
        for (const auto& address : options_->researchers) {
            links_.push_back(std::make_shared<link>(options_, address, serializer, retry, handler, callbacks_));
        }
    }
    grpc_client_impl(const grpc_client_impl&) = delete;
    grpc_client_impl& operator=(const grpc_client_impl&) = delete;

    ~grpc_client_impl() { stop(); }

    /// Begins to poll every researcher, and goes on for ever: one that can't be reached is tried again. Throws `error`:
    /// `invalid_argument` or `bad_credentials` where the options can't be used. A client starts once.
    void start() {
        const std::lock_guard lock(lifecycle_);
        if (started_ || stopped_)
            throw error(errc::invalid_argument, "start: the client was started before; make a new one");
        options_->check();
        keep_callback_queue();
        for (const auto& each : links_) each->check();
        for (const auto& each : links_) each->start();
        started_ = true;
    }

    /// Asks for no more tasks, runs those that have come and lets uploads end until the deadline, gives up the rest, and
    /// returns. All deliveries have ended then. May be called from a callback, and more than once. Callbacks get a second
    /// beyond the deadline; one that hasn't returned by then is left to itself, and must not use what goes with the client.
    void stop(std::chrono::milliseconds within) {
        const auto deadline = later(std::chrono::steady_clock::now(), within);
        if (stopped_.exchange(true) && callbacks_->is_inside())
            return;  // another one is at it, and may wait for this callback
        const std::lock_guard lock(lifecycle_);
        if (std::exchange(ended_, true)) return;
        for (const auto& each : links_) each->begin_stop();
        for (const auto& each : links_) each->finish_stop(deadline);
        callbacks_->stop(std::max(deadline, std::chrono::steady_clock::now() + std::chrono::seconds(1)));
    }

    /// The same with the deadline of the options.
    void stop() { stop(options_->stop_deadline); }

    /// Waits until each researcher has answered a poll: a ferry server does so at once, one of the original's with its first
    /// task. False where the time has passed, or the client was stopped, before. Throws `error{not_started}` before `start`.
    bool wait_connected(std::chrono::milliseconds within) {
        if (!started_) throw error(errc::not_started, "wait_connected: the client is not started");
        const auto deadline = later(std::chrono::steady_clock::now(), within);
        return std::all_of(links_.begin(), links_.end(),
                           [&](const auto& each) { return each->wait_connected(deadline); });
    }

    /// Sends a message that answers no task, to every researcher; one delivery each, in the options' order. This node's id is
    /// filled in where it has none. Before `start` it is queued; after `stop` it ends in `stopped`. Never throws for a message
    /// that can't be encoded or is too large: that is the outcome, and a warning.
    std::vector<basic_delivery<message_type>> send(message_type message) {
        std::vector<basic_delivery<message_type>> all;
        for (const auto& each : links_) all.push_back(each->send(message));
        return all;
    }

    /// Sends a log line to every researcher. Never waits; beyond a bound the oldest are dropped, with a warning.
    void log(const std::string& level, const std::string& text) {
        for (const auto& each : links_) each->send_feedback(log_line{{}, level, text});
    }

    /// Sends metrics to every researcher, in the same way.
    void send(const scalars& metrics) {
        for (const auto& each : links_) each->send_feedback(metrics);
    }

private:
    using link = grpc_client_link<Serializer, Retry, ChunkSize>;

    std::shared_ptr<const client_options> options_;
    std::shared_ptr<executor> callbacks_;
    std::vector<std::shared_ptr<link>> links_;
    std::mutex lifecycle_;
    std::atomic<bool> started_{false};
    bool ended_ = false;
    std::atomic<bool> stopped_{false};
};

/// What a pack of policies comes to.
template <class... Policies>
struct client_pack {
    using serializer_type = select_policy<serializer_tag, msgpack_serializer<>, Policies...>;
    using retry_type = select_policy<retry_tag, bounded_retry, Policies...>;
    using chunk_size_type = select_policy<chunk_size_tag, max_message_bytes_length<>, Policies...>;

    static constexpr bool valid = check_client_pack<Policies...>() && check_serializer<serializer_type>() &&
                                  check_copyable<serializer_type>() && check_retry_policy<retry_type>() &&
                                  check_copyable<retry_type>() && check_chunk_size<chunk_size_type>();
    using given = check_given<serializer_type, retry_type>;
    using implementation =
        std::conditional_t<valid, grpc_client_impl<serializer_type, retry_type, chunk_size_type>, no_implementation>;
};

}  // namespace detail

/// A node's client composed of policies, at most one a category, in any order; what is left out takes its default. A client
/// has no agent store.
template <class... Policies>
class basic_grpc_client : public detail::client_pack<Policies...>::implementation {
    using pack = detail::client_pack<Policies...>;
    using implementation = typename pack::implementation;

public:
    using typename implementation::task;

    /// `on_task(task)` runs on the client's executor: of a researcher's usual tasks one at a time, in order, and the same of its
    /// urgent ones, beside them. Policies that have
    /// state are handed over in any order; the others are made anew.
    template <class... Given>
    basic_grpc_client(client_options options, std::function<void(task)> on_task, Given... given)
        : basic_grpc_client(std::in_place, std::move(options), std::move(on_task),
                            std::tuple<Given...>(std::move(given)...)) {
        if constexpr (pack::valid) pack::given::template check<Given...>();
    }

private:
    template <class... Given>
    basic_grpc_client(std::in_place_t, client_options options, std::function<void(task)> on_task,
                      std::tuple<Given...> given)
        : implementation(std::move(options), std::move(on_task), take_policy<typename pack::serializer_type>(given),
                         take_policy<typename pack::retry_type>(given)) {}
};

/// The client with ferry's defaults: msgpack, bounded retry, chunks of 3,999,967 bytes.
using grpc_client = basic_grpc_client<>;

using task = basic_task<message>;

}  // namespace ferry
