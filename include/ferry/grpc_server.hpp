// The server: `basic_grpc_server<Policies...>`, composed of policies in any order, and `grpc_server`, with the defaults.
#pragma once

#include <ferry/agent_store/memory.hpp>
#include <ferry/chunk.hpp>
#include <ferry/credentials.hpp>
#include <ferry/delivery.hpp>
#include <ferry/detail/grpc_callback_queue.hpp>
#include <ferry/detail/grpc_format.hpp>
#include <ferry/detail/grpc_server_core.hpp>
#include <ferry/detail/policy_check.hpp>
#include <ferry/detail/random_seed.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/identity.hpp>
#include <ferry/node_info.hpp>
#include <ferry/policy.hpp>
#include <ferry/retry.hpp>
#include <ferry/serializer/msgpack.hpp>
#include <ferry/server_options.hpp>

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace ferry {

namespace detail {

/// A request id of 128 random bits, as hexadecimal digits.
inline std::string random_id() {
    static thread_local random_bits engine{random_seed()};
    static constexpr char digits[] = "0123456789abcdef";
    std::string id(32, '0');
    for (std::size_t i = 0; i < id.size(); i += 16) {
        auto bits = engine.next();
        for (std::size_t k = 0; k < 16; ++k, bits >>= 4) id[i + k] = digits[bits & 15];
    }
    return id;
}

/// The one implementation of all packs that resolve to these models.
template <class Serializer, class Store, class Retry, class ChunkSize, class Identity>
class grpc_server_impl {
public:
    using message_type = typename Serializer::message_type;
    using delivery = basic_delivery<message_type>;
    using request_handle = basic_request<message_type>;
    using reply = basic_reply<message_type>;

    grpc_server_impl(server_options options, Serializer serializer, Store store, Retry retry, Identity identity)
        : core_(std::make_shared<core_type>(std::move(options), std::move(serializer), std::move(store),
                                            std::move(retry), std::move(identity))) {}
    grpc_server_impl(const grpc_server_impl&) = delete;
    grpc_server_impl& operator=(const grpc_server_impl&) = delete;

    ~grpc_server_impl() { stop(); }

    /// For replies that nobody waits for (any more). Set it before `start`; runs on the executor, per node in order.
    void on_unclaimed_reply(std::function<void(const reply&)> handler) {
        core_->on_unclaimed_reply = std::move(handler);
    }

    /// Registers the service with a gRPC server of your own, which may serve others beside it, and sets what nodes need:
    /// the sizes of messages and the pings. Call it instead of listening: then build and start your server, then `start`
    /// this one. To end, also where an exception ends it, `stop` this one, shut yours down, and only then let this one go:
    /// gRPC's destructor waits for the nodes' streams, which end with `stop`. Of the options host, port, ssl and the ages of
    /// connections are yours.
    void mount(grpc::ServerBuilder& builder) {
        const std::lock_guard lock(lifecycle_);
        if (service_ || stopped_) throw error(errc::invalid_argument, "mount: the server is in use already");
        register_with(builder);
        mounted_ = true;
    }

    /// Takes over what a store that lasts has from before, so that `pending` and `get_all_nodes` know it; listens, unless it
    /// is mounted; and waits for a first node as the options say. Throws `error`: `store_failed`, `bind_failed`,
    /// `bad_credentials`, `invalid_argument`. A server starts once.
    void start() {
        const auto& options = core_->options();
        const auto patience = MAX_GRPC_SERVER_SETUP_TIMEOUT();
        {
            const std::lock_guard lock(lifecycle_);
            if (started_ || stopped_)
                throw error(errc::invalid_argument, "start: the server was started before; make a new one");
            options.check();
            if (!core_->recover(std::chrono::steady_clock::now() + patience)) {
                core_->log().warn("the store has not told within " + std::to_string(patience.count()) +
                                  " s what is left from before; going on while it does");
            }
            if (!service_) listen();
            started_ = true;
        }
        core_->begin_serving();
        if (options.wait_for_first_node && !wait_for_nodes(1, patience) && !stopped_) {
            core_->log().warn("no node has connected within " + std::to_string(patience.count()) +
                              " s; going on without");
        }
    }

    /// The port that is listened on; 0 before `start`.
    std::uint16_t port() const noexcept { return port_; }

    /// Refuses new polls and messages, lets what is under way end until the deadline, cancels the rest, and returns. All
    /// deliveries have ended then. May be called from a callback, and more than once. Callbacks get a second beyond the
    /// deadline; one that hasn't returned by then is left to itself, and must not use what goes with the server. Where a
    /// connection has fallen silent in mid-transfer, gRPC holds it for up to `keepalive.answer_within` past the deadline.
    void stop(std::chrono::milliseconds within) {
        const auto deadline = later(std::chrono::steady_clock::now(), within);
        if (stopped_.exchange(true) && core_->is_inside())
            return;  // another one is at it, and may wait for this callback
        const std::lock_guard lock(lifecycle_);
        if (std::exchange(ended_, true)) return;
        if (service_) core_->drain(deadline);
        core_->force_stop();
        if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
        core_->stop_callbacks(std::max(deadline, std::chrono::steady_clock::now() + std::chrono::seconds(1)));
        started_ = false;
        server_.reset();
        if (!mounted_) service_.reset();
    }

    /// The same with the deadline of the options.
    void stop() { stop(core_->options().stop_deadline); }

    /// Waits until so many nodes are not DISCONNECTED. False where the time has passed, or the server was stopped, before.
    bool wait_for_nodes(std::size_t number, std::chrono::milliseconds within) {
        check_started("wait_for_nodes");
        return core_->wait_until(later(std::chrono::steady_clock::now(), within),
                                 [&](const auto& known) { return known.reachable_nodes() >= number; });
    }

    /// The same for all of these nodes.
    bool wait_for_nodes(const std::vector<std::string>& ids, std::chrono::milliseconds within) {
        check_started("wait_for_nodes");
        return core_->wait_until(later(std::chrono::steady_clock::now(), within), [&](const auto& known) {
            return std::all_of(ids.begin(), ids.end(), [&](const std::string& id) {
                const auto node = known.get_node(id);
                return node && node->status != node_status::disconnected;
            });
        });
    }

    /// Sends to one node; ends when the node has taken it. Never blocks on the network. Large binaries are shared, not
    /// copied. Throws only `error`: `not_started`, or `invalid_argument` for an empty node id; all else is the outcome.
    ///
    /// While a task of the same `request_id` is open for the node, this one joins it and is not sent itself, whatever it
    /// says; it ends as that one does, in `replied` where somebody has asked. Once that has ended, the same id is another task's.
    /// Messages without an id never join. A task that waits for a node that is WAITING goes on waiting when that becomes
    /// DISCONNECTED, for up to `expires_after`.
    delivery send(message_type message, const std::string& node_id, const send_options& how = {}) {
        check_started("send");
        check_node_id("send", node_id);
        auto id = message_traits<message_type>::request_id(message);
        outcome failed;
        auto label = core_->log().label(message);
        auto content = core_->encode(std::move(message), failed);
        return delivery(
            core_->submit(node_id, std::move(content), failed, std::move(id), false, how, std::move(label)));
    }

    /// Sends to all nodes that are not DISCONNECTED. The message is encoded once.
    std::vector<delivery> broadcast(message_type message, const send_options& how = {}) {
        check_started("broadcast");
        const auto id = message_traits<message_type>::request_id(message);
        outcome failed;
        const auto label = core_->log().label(message);
        const auto content = core_->encode(std::move(message), failed);
        std::vector<delivery> all;
        for (const auto& node : core_->get_all_nodes()) {
            if (node.status == node_status::disconnected) continue;
            all.emplace_back(core_->submit(node.id, content, failed, id, false, how, label));
        }
        return all;
    }

    /// Sends to one node and waits for its reply, found by `request_id`. A message without one is given one. Where a task of
    /// the same id is open for the node, it joins that one, as with `send`. Throws `error{invalid_argument}` also for a message
    /// that has no place for an id.
    request_handle request(message_type message, const std::string& node_id, const send_options& how = {}) {
        return std::move(request(std::move(message), std::vector<std::string>{node_id}, how).front());
    }

    /// The same to several nodes, in their order. The message is encoded once.
    std::vector<request_handle> request(message_type message, const std::vector<std::string>& node_ids,
                                        const send_options& how = {}) {
        check_started("request");
        for (const auto& node : node_ids) check_node_id("request", node);
        auto id = message_traits<message_type>::request_id(message);
        if (id.empty()) message_traits<message_type>::set_request_id(message, id = random_id());
        outcome failed;
        const auto label = core_->log().label(message);
        const auto content = core_->encode(std::move(message), failed);
        std::vector<request_handle> all;
        all.reserve(node_ids.size());
        for (const auto& node : node_ids) all.emplace_back(core_->submit(node, content, failed, id, true, how, label));
        return all;
    }

    /// A snapshot, or nothing where no node of this id has ever polled.
    std::optional<node_info> get_node(const std::string& id) const { return core_->get_node(id); }
    std::vector<node_info> get_all_nodes() const { return core_->get_all_nodes(); }

    /// What is open: accepted, and neither taken nor replied nor ended otherwise.
    std::vector<pending_task> pending() const { return core_->pending(); }

    /// What was lost, and what is held just now.
    server_counts counts() const { return core_->counts(); }

    /// True from when `start` listens, also while it waits for a first node, to the beginning of `stop`. Throws
    /// `error{not_started}` before `start`.
    bool is_alive() const {
        if (!started_ && !stopped_) throw error(errc::not_started, "is_alive: the server was never started");
        return started_ && !stopped_;
    }

private:
    using core_type = grpc_server_core<Serializer, Store, Retry, ChunkSize, Identity>;

    void register_with(grpc::ServerBuilder& builder) {
        core_->options().check();
        const auto& keepalive = core_->options().keepalive;
        core_->open_spool();
        keep_callback_queue();
        service_ = std::make_unique<researcher_service>(core_, format_check(Serializer::name, core_->log()));
        builder.RegisterService(service_.get());
        builder.SetMaxReceiveMessageSize(wire::max_grpc_message_bytes);
        builder.SetMaxSendMessageSize(wire::max_grpc_message_bytes);
        builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
        builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
        builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, to_int(keepalive.every));
        builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, to_int(keepalive.answer_within));
    }

    void listen() {
        const auto& options = core_->options();
        check_host("options.host", options.host);
        const auto target = to_target(options.host, options.port);
        const auto credentials = server_credentials(options.ssl, options.client_roots);
        if (Identity::needs_certificates && options.client_roots.empty()) {
            throw error(errc::invalid_argument,
                        "options.client_roots is empty: the server's identity policy looks at "
                        "nodes' certificates; name the PEM file of those that sign them");
        }
        if (std::same_as<Identity, token_identity> && std::holds_alternative<plain_text>(options.ssl)) {
            core_->log().warn(
                "options.ssl is plain_text, and nodes are known by their tokens: who sees a connection can read "
                "them, and nodes of ferry don't send theirs");
        }
        int bound = 0;
        grpc::ServerBuilder builder;
        register_with(builder);
        builder.AddListeningPort(target, credentials, &bound);
        builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
        if (options.max_connection_age.count() > 0) {
            builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, to_int(options.max_connection_age));
            builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, to_int(options.max_connection_age_grace));
        }
        server_ = builder.BuildAndStart();
        if (!server_ || bound == 0) {
            server_.reset();
            service_.reset();
            if (!can_listen(options.host, credentials) && can_listen(options.host, grpc::InsecureServerCredentials())) {
                throw error(errc::bad_credentials,
                            "the server's key and certificate can't be used: is each whole, the key not encrypted, and "
                            "the key that certificate's?");
            }
            throw error(errc::bind_failed,
                        "can't listen on " + target + ": is the port in use, or the address not of this machine?");
        }
        port_ = static_cast<std::uint16_t>(bound);
    }

    /// On any port; gRPC doesn't say what was wrong.
    static bool can_listen(const std::string& host, const std::shared_ptr<grpc::ServerCredentials>& credentials) {
        grpc::CallbackGenericService nothing;
        int bound = 0;
        grpc::ServerBuilder builder;
        builder.RegisterCallbackGenericService(&nothing);
        builder.AddListeningPort(to_target(host, 0), credentials, &bound);
        const auto server = builder.BuildAndStart();
        if (server) server->Shutdown(std::chrono::system_clock::now());
        return server && bound != 0;
    }

    static void check_node_id(const char* what, const std::string& id) {
        if (id.empty()) throw error(errc::invalid_argument, std::string(what) + ": the node's id is empty");
    }

    void check_started(const char* what) const {
        if (started_) return;
        throw error(errc::not_started,
                    std::string(what) + (stopped_ ? ": the server was stopped" : ": the server is not started"));
    }

    const std::shared_ptr<core_type> core_;
    std::mutex lifecycle_;
    std::unique_ptr<researcher_service> service_;
    std::unique_ptr<grpc::Server> server_;
    std::atomic<std::uint16_t> port_{0};
    std::atomic<bool> started_{false};
    std::atomic<bool> stopped_{false};
    bool ended_ = false;
    bool mounted_ = false;
};

/// What a pack of policies comes to.
template <class... Policies>
struct server_pack {
    using serializer_type = select_policy<serializer_tag, msgpack_serializer<>, Policies...>;
    using store_type = select_policy<agent_store_tag, memory_agent_store, Policies...>;
    using retry_type = select_policy<retry_tag, bounded_retry, Policies...>;
    using chunk_size_type = select_policy<chunk_size_tag, max_message_bytes_length<>, Policies...>;
    using identity_type = select_policy<identity_tag, open_identity, Policies...>;

    static constexpr bool valid = check_pack<Policies...>() && check_serializer<serializer_type>() &&
                                  check_movable<serializer_type>() && check_agent_store<store_type>() &&
                                  check_movable<store_type>() && check_retry_policy<retry_type>() &&
                                  check_movable<retry_type>() && check_chunk_size<chunk_size_type>() &&
                                  check_identity<identity_type>() && check_movable<identity_type>();
    using given = check_given<serializer_type, store_type, retry_type, identity_type>;
    using implementation =
        std::conditional_t<valid,
                           grpc_server_impl<serializer_type, store_type, retry_type, chunk_size_type, identity_type>,
                           no_implementation>;
};

}  // namespace detail

/// A server composed of policies, at most one a category, in any order; what is left out takes its default.
template <class... Policies>
class basic_grpc_server : public detail::server_pack<Policies...>::implementation {
    using pack = detail::server_pack<Policies...>;
    using implementation = typename pack::implementation;

public:
    /// Policies that have state are handed over in any order; the others are made anew.
    template <class... Given>
    explicit basic_grpc_server(server_options options, Given... given)
        : basic_grpc_server(std::in_place, std::move(options), std::tuple<Given...>(std::move(given)...)) {
        if constexpr (pack::valid) pack::given::template check<Given...>();
    }

private:
    template <class... Given>
    basic_grpc_server(std::in_place_t, server_options options, std::tuple<Given...> given)
        : implementation(std::move(options), take_policy<typename pack::serializer_type>(given),
                         take_policy<typename pack::store_type>(given), take_policy<typename pack::retry_type>(given),
                         take_policy<typename pack::identity_type>(given)) {}
};

/// The server with ferry's defaults: msgpack, in memory, bounded retry, chunks of 3,999,967 bytes.
using grpc_server = basic_grpc_server<>;

using delivery = basic_delivery<message>;
using request_handle = basic_request<message>;
using reply = basic_reply<message>;

}  // namespace ferry
