// layer 4
// What joins the core to the world: it turns calls and users' wishes into events, and performs the effects. One mutex holds
// the core; it is never held over gRPC, the store, a serializer or user code.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/delivery.hpp>
#include <ferry/detail/alarm.hpp>
#include <ferry/detail/effect_buffer.hpp>
#include <ferry/detail/executor.hpp>
#include <ferry/detail/failure.hpp>
#include <ferry/detail/grpc_peer.hpp>
#include <ferry/detail/grpc_reply_source.hpp>
#include <ferry/detail/grpc_server_calls.hpp>
#include <ferry/detail/message_log.hpp>
#include <ferry/detail/random_seed.hpp>
#include <ferry/detail/server_store.hpp>
#include <ferry/detail/store_write.hpp>
#include <ferry/detail/time_limit.hpp>
#include <ferry/dispatch.hpp>
#include <ferry/identity.hpp>
#include <ferry/message.hpp>
#include <ferry/server_options.hpp>
#include <ferry/spool.hpp>

#include <atomic>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace ferry::detail {

template <class Serializer, class Store, class Retry, class ChunkSize, class Identity>
class grpc_server_core final
    : public server_calls_host,
      public delivery_host,
      public std::enable_shared_from_this<grpc_server_core<Serializer, Store, Retry, ChunkSize, Identity>> {
public:
    using message_type = typename Serializer::message_type;
    using traits = message_traits<message_type>;
    using state = delivery_state<message_type>;
    using ticket = std::shared_ptr<state>;
    using call = std::shared_ptr<task_call>;

    grpc_server_core(server_options options, Serializer serializer, Store store, Retry retry, Identity identity)
        : options_(std::move(options)),
          log_(options_.log, options_.debug),
          serializer_(std::move(serializer)),
          store_(std::move(store)),
          identity_(std::move(identity)),
          dispatch_(options_.limits, std::move(retry), random_seed()),
          executor_(threads_of(options_.callback_pool, options_.callback_threads),
                    [log = log_](const std::string& what) { log.warn("a callback threw: " + what); }),
          decoders_(2, [log = log_](const std::string& what) { log.warn("decoding a reply threw: " + what); }),
          uploads_(options_.inbound, options_.replies, [this](auto when) { alarm_.at(when); }),
          watched_(options_.limits.idle_limit, [this](auto when) { alarm_.at(when); }),
          alarm_([this] {
              flush_waiting();
              uploads_.time_passed();
              watched_.time_passed(now().steady);
              post_event(events::time_passed{});
          }) {}

    ~grpc_server_core() override { alarm_.stop(); }

    const server_options& options() const noexcept { return options_; }

    /// Throws `error{invalid_argument}` where the folder can't be used.
    void open_spool() {
        if (!options_.spool.folder.empty()) uploads_.set_spool(std::make_shared<spool>(options_.spool));
    }

    // --- what users want ------------------------------------------------------------------------------------------------

    std::function<void(const basic_reply<message_type>&)> on_unclaimed_reply;

    /// Encodes the message; null, and `failed` filled, where that can't be done.
    std::shared_ptr<const payload> encode(message_type m, outcome& failed) const {
        try {
            return std::make_shared<const payload>(serializer_.encode(std::move(m)));
        } catch (...) {
            failed = encode_failure(std::current_exception());
            return nullptr;
        }
    }

    const message_log& log() const noexcept { return log_; }

    ticket submit(const std::string& node, std::shared_ptr<const payload> content, const outcome& failed,
                  std::string request_id, bool wants_reply, const send_options& how, std::string label) {
        const auto made = std::make_shared<state>(this->shared_from_this(), node);
        if (!content) {
            made->end(failed, std::nullopt);
            made->tell();
            return made;
        }
        made->set_total(content->size());
        events::submitted<ticket> e{node,
                                    std::move(content),
                                    std::move(request_id),
                                    wants_reply,
                                    made,
                                    how.expires_after.value_or(options_.task_age),
                                    how.reply_within,
                                    how.keep_while_disconnected,
                                    std::move(label),
                                    how.urgent};
        run([&](auto& core, instant at, auto& sink) { made->set_key(core.step(std::move(e), at, sink)); });
        return made;
    }

    /// Takes over what the store has from before. False where that takes longer than to the deadline; throws
    /// `error{store_failed}` where it can't be had.
    bool recover([[maybe_unused]] std::chrono::steady_clock::time_point deadline) {
        if constexpr (lasting_agent_store<Store>) {
            if (!store_.recall(deadline, this->weak_from_this())) return false;
            return wait_until(deadline, [](const auto& core) { return core.has_recovered(); });
        }
        return true;
    }

    std::optional<node_info> get_node(const std::string& id) const {
        const std::lock_guard lock(mutex_);
        return dispatch_.get_node(id);
    }

    std::vector<node_info> get_all_nodes() const {
        std::vector<node_info> all;
        const std::lock_guard lock(mutex_);
        dispatch_.for_each_node([&](node_info each) { all.push_back(std::move(each)); });
        return all;
    }

    std::vector<pending_task> pending() const {
        std::vector<pending_task> all;
        const std::lock_guard lock(mutex_);
        dispatch_.for_each_task([&](pending_task each) { all.push_back(std::move(each)); });
        return all;
    }

    server_counts counts() const { return {undelivered_forwards_, dropped_feedback_, uploads_.held_bytes()}; }

    /// All is set up.
    void begin_serving() { post_event(events::serving{}); }

    /// Waits until `enough(core)`, or the deadline, or a stop.
    template <class Enough>
    bool wait_until(std::chrono::steady_clock::time_point deadline, Enough&& enough) {
        std::unique_lock lock(mutex_);
        nodes_changed_.wait_until(lock, deadline, [&] { return stopping_ || enough(dispatch_); });
        return enough(dispatch_);
    }

    /// Lets what is under way come to its end; false where the deadline came first. A callback that stops its own server is
    /// not waited for.
    bool drain(std::chrono::steady_clock::time_point deadline) {
        run([&](auto& core, instant at, auto& sink) {
            stopping_ = true;
            core.step(events::stop_requested{}, at, sink);
        });
        nodes_changed_.notify_all();
        {
            const bool inside = executor_.is_inside();
            std::unique_lock lock(mutex_);
            const auto quiet = [&] { return drained_ || (inside && dispatch_.quiet_but_for_handlers()); };
            if (!drained_changed_.wait_until(lock, deadline, quiet)) return false;
        }
        return uploads_.drain(deadline);
    }

    void force_stop() {
        post_event(events::stop_forced{});
        uploads_.stop();
        alarm_.stop();
        store_.leave();
    }

    /// In one of its callbacks.
    bool is_inside() const { return executor_.is_inside(); }

    void stop_callbacks(std::chrono::steady_clock::time_point deadline) {
        decoders_.stop(deadline);
        executor_.stop(deadline);
    }

    // --- what calls report ----------------------------------------------------------------------------------------------

    peer_info peer_of(const grpc::CallbackServerContext& context) const override {
        if constexpr (std::same_as<Identity, open_identity>) return {};  // which doesn't look at it
        return detail::peer_of(context);
    }
    bool knows(const peer_info& peer) const override {
        if constexpr (provides::knows<Identity>) {
            return permits([&] { return identity_.knows(peer); }, peer, "sent an upload, and may speak for no node");
        } else {
            return true;
        }
    }
    bool admits(const std::string& node, const peer_info& peer) const override {
        return permits([&] { return identity_.admits(node, peer); }, peer,
                       "spoke for node " + node + ", which it may not");
    }
    void poll_opened(call on, const std::string& connection, std::chrono::steady_clock::time_point deadline) override {
        const auto& kept = *on;
        post_event(events::poll_opened<call>{std::move(on), kept.node(), connection, deadline});
    }
    void stream_opened(call on, const std::string& connection, frames::hello hello) override {
        const auto& kept = *on;
        post_event(events::stream_opened<call>{std::move(on), kept.node(), connection, std::move(hello)});
    }
    void receipt_came(const call& on, frames::receipt receipt) override {
        post_event(events::receipt_came<call>{on, on->node(), std::move(receipt)});
    }
    void lease_renewed(const call& on, const std::vector<std::uint64_t>& tasks) override {
        post_event(events::lease_renewed<call>{on, on->node(), tasks});
    }
    void node_leaving(const call& on) override { post_event(events::node_leaving<call>{on, on->node()}); }
    void range_sent(const call& on) override { post_event(events::range_sent<call>{on, on->node()}); }
    void poll_broken(const call& on, errc reason, std::string text) override {
        post_event(events::poll_broken<call>{on, on->node(), reason, std::move(text)});
    }
    void poll_closed(const call& on, bool clean) override {
        post_event(events::poll_closed<call>{on, on->node(), clean});
    }

    void flush_soon(const std::shared_ptr<task_call>& on) override {
        {
            const std::lock_guard lock(waiting_mutex_);
            waiting_.push_back(on);
            if (waiting_.size() > 1) return;
        }
        alarm_.at(now().steady + longest_wait);
    }

    void watch(const std::shared_ptr<task_call>& on) override { watched_.watch(on, now().steady); }
    void let_go(const task_call& on) override { watched_.let_go(&on); }

    /// Decodes what is small at once, on gRPC's thread, and all else on threads of the server's own. Replies of one origin
    /// follow one another; those of different ones may overlap.
    void reply_received(std::shared_ptr<reply_source> from, bytes content) override {
        if (from->is_small()) return decode_reply(from, content);
        const auto strand = std::to_string(reinterpret_cast<std::uintptr_t>(from->origin()));
        decoders_.post(strand, [self = this->shared_from_this(), from = std::move(from), content = std::move(content)] {
            self->decode_reply(from, content);
        });
    }

    void reply_refused(const std::string& why) override { log_.warn("a reply is refused: " + why); }

    void feedback_received(feedback from, std::size_t bytes) override {
        const std::string node = node_of(from);
        if (log_.is_debug()) log_in(node, log_.label(from), bytes, std::nullopt);
        if (!options_.on_message) return;
        const auto dropped = executor_.post_bounded(
            node, [self = this->shared_from_this(), from = std::move(from)] { self->options_.on_message(from); },
            options_.max_waiting_feedback, bytes, options_.max_waiting_feedback_bytes);
        dropped_feedback_ += dropped;
        if (dropped > 0)
            log_.warn("node " + node + ": feedback comes faster than on_message takes it; the oldest was dropped");
    }

    upload_guard& uploads() override { return uploads_; }

    // --- what the store reports, and asks -------------------------------------------------------------------------------

    template <class Event>
    void post_event(Event&& event) {
        run([&](auto& core, instant at, auto& to) { core.step(std::forward<Event>(event), at, to); });
    }
    std::optional<std::pair<epoch, seen_node>> owned_node(const std::string& id) const {
        const std::lock_guard lock(mutex_);
        return dispatch_.owned_node(id);
    }

    // --- what handles want ----------------------------------------------------------------------------------------------

    bool enqueue(const std::string& strand, std::function<void()>& job) override {
        return executor_.enqueue(strand, job);
    }
    void wake() override { executor_.wake(); }
    void withdraw(std::uint64_t key) override { post_event(events::withdrawn{key}); }

private:
    static constexpr auto longest_wait = std::chrono::milliseconds(5);
    static constexpr bool shared = shared_agent_store<Store>;

    struct types {
        using call = std::shared_ptr<task_call>;
        using reply_call = std::shared_ptr<reply_source>;
        using ticket = grpc_server_core::ticket;
        using reply = message_type;
        using retry = Retry;
        using chunk_size = ChunkSize;
        static constexpr bool is_shared = shared;
    };
    using core_type = dispatch<types>;

    template <class Effect>
    static constexpr bool of_store = requires(server_store<Store, grpc_server_core>& store, Effect e,
                                              std::weak_ptr<grpc_server_core> to) {
        store.perform(std::move(e), to);
    };

    struct flush {
        call on;
        bool may_wait = false;
    };
    struct debug_note {
        std::string text;
    };
    using ended = end_to_tell<message_type>;
    struct enqueued {
        std::function<void()> not_taken;
    };
    struct refused_reply {
        std::unique_ptr<message_type> what;
    };
    struct unhandled_reply {
        std::string node;
        events::unclaimed_unwanted what;
    };
    struct undelivered_forward {
        std::string node;
        outcome how;
    };
    template <class... OfShared>
    using effects_and =
        std::variant<effects::send_range<call>, flush, effects::end_poll<call>,
                     effects::answer_reply<std::shared_ptr<reply_source>>, effects::acquire_journal, kept_append,
                     kept_update, kept_settle, effects::warning, effects::wake_at, effects::load_reply,
                     effects::released<std::shared_ptr<const payload>>, ended, enqueued, refused_reply, debug_note,
                     undelivered_forward, unhandled_reply, OfShared...>;
    using effects_of_shared =
        effects_and<effects::post_task, effects::withdraw_posted, effects::end_task, effects::fetch_tasks,
                    effects::fetch_ends, effects::acknowledge_end, effects::announce_node>;
    using later = std::conditional_t<shared, effects_of_shared, effects_and<>>;

    /// Keeps what reaches out of the server until the core is unlocked. What only enters a queue is done at once, so that
    /// it keeps the core's order.
    struct sink {
        grpc_server_core& server;
        effect_buffer<later>& kept;
        effect_buffer<completed_write>& completed;

        template <class Effect>
        void operator()(Effect&& effect) {
            kept.push(std::forward<Effect>(effect));
        }
        void operator()(effects::append_task e) { write_or_keep(server.store_.model(), e, kept, completed); }
        void operator()(effects::update_task e) { write_or_keep(server.store_.model(), e, kept, completed); }
        void operator()(effects::settle_task e) { write_or_keep(server.store_.model(), e, kept, completed); }
        void operator()(effects::send_part<call> e) {
            e.call->queue(e.content, e.part, e.head);
            kept.push(flush{std::move(e.call)});
        }
        void operator()(effects::send_whole<call> e) {
            e.call->queue_whole(std::move(e.content), e.head);
            kept.push(flush{std::move(e.call), e.may_wait});
        }
        void operator()(effects::welcome<call> e) {
            e.call->queue(wire::to_response<researcher::TaskResponse>(e.what));
            kept.push(flush{std::move(e.call)});
        }
        void operator()(effects::withdraw_task<call> e) {
            researcher::TaskResponse what;
            what.add_withdrawn(e.task);
            e.call->queue(std::move(what));
            kept.push(flush{std::move(e.call)});
        }
        void operator()(effects::ended<ticket, message_type> e) {
            auto handled = server.when_gone(events::reply_handled{e.key}, e.key);
            if (e.ticket || handled) kept.push(ended(e.ticket, handled));
            if (e.ticket) {
                e.ticket->end(std::move(e.how), std::move(e.reply), handled);
            } else if (!e.how) {
                kept.push(undelivered_forward{e.node, std::move(e.how)});
            }
        }
        void operator()(effects::released<message_type> e) {
            kept.push(refused_reply{std::make_unique<message_type>(std::move(e.what))});
        }
        void operator()(effects::answer_reply<std::shared_ptr<reply_source>> e) {
            e.call->queue_answer(e.reason, e.text);
            kept.push(std::move(e));
        }
        void operator()(effects::begun e) {
            if (!server.log_.is_debug()) return;
            kept.push(debug_note{message_log::line("out", e.node, e.label, e.bytes, e.attempt, e.age)});
        }
        void operator()(effects::accepted<ticket> e) {
            if (e.ticket) e.ticket->accept();
        }
        void operator()(effects::all_acquired) { server.nodes_changed_.notify_all(); }
        void operator()(effects::progressed<ticket> e) {
            if (e.ticket) e.ticket->progressed(e.sent);
        }
        void operator()(effects::unclaimed_reply<message_type> e) {
            if (server.on_unclaimed_reply) {
                auto job = server.handling(e.node, std::move(e.reply), {e.key, e.bytes});
                server.executor_.enqueue(e.node, job);
                return kept.push(enqueued{std::move(job)});
            }
            kept.push(unhandled_reply{e.node, {e.key, e.bytes}});
            kept.push(refused_reply{std::make_unique<message_type>(std::move(e.reply))});
        }
        void operator()(effects::node_changed e) {
            server.nodes_changed_.notify_all();
            note("node " + e.node + " is " + std::string(to_string(e.status)));
        }
        void note(std::string text) {
            if (server.log_.is_debug()) kept.push(debug_note{std::move(text)});
        }
        void operator()(effects::drained) {
            server.drained_ = true;
            server.drained_changed_.notify_all();
        }
    };

    /// An identity that throws permits nothing.
    template <class Ask>
    bool permits(Ask&& ask, const peer_info& peer, const std::string& otherwise) const {
        std::string thrown;
        try {
            if (ask()) return true;
        } catch (...) {
            thrown = " (the identity threw)";
        }
        log_.warn("a peer at " + peer.address + " " + otherwise + thrown + ": it is turned away");
        return false;
    }

    template <class Step>
    void run(Step&& step) {
        effect_buffer<later> kept;
        effect_buffer<completed_write> completed;
        {
            sink effects{*this, kept, completed};
            const std::lock_guard lock(mutex_);
            const auto at = now();
            step(dispatch_, at, effects);
            completed.drain([&](completed_write&& e) { dispatch_.step(std::move(e).event(), at, effects); });
            if (stopping_) drained_changed_.notify_all();
        }
        kept.perform([this](auto&& effect) { this->perform(std::move(effect)); });
    }

    void flush_waiting() {
        std::vector<std::weak_ptr<task_call>> waiting;
        {
            const std::lock_guard lock(waiting_mutex_);
            waiting.swap(waiting_);
        }
        for (const auto& each : waiting) {
            if (const auto call = each.lock()) call->flush();
        }
    }

    void perform(effects::send_range<call> e) { e.call->send(e.content, e.part); }
    void perform(const flush& e) { e.may_wait ? flush_soon(e.on) : e.on->flush(); }
    void perform(effects::end_poll<call> e) { e.call->finish(wire::to_status(e.reason, e.text)); }
    void perform(effects::answer_reply<std::shared_ptr<reply_source>> e) { e.call->answer(e.reason, e.text); }
    template <class Effect>
        requires of_store<Effect>
    void perform(Effect e) { store_.perform(std::move(e), this->weak_from_this()); }
    void perform(const effects::warning& e) { log_.warn(e.text); }
    void perform(const debug_note& e) { log_.debug(e.text); }
    void perform(effects::wake_at e) { alarm_.at(e.when); }
    void perform(const effects::released<std::shared_ptr<const payload>>&) {}  // they go with the buffer
    void perform(ended) {}                                                     // it tells as it goes
    void perform(const enqueued&) { executor_.wake(); }
    void perform(const refused_reply&) {}
    void perform(const effects::load_reply& e) {
        e.encoded->read(0, e.encoded->size(), [weak = this->weak_from_this(), key = e.key, node = e.node](auto range) {
            const auto self = weak.lock();
            if (!self) return;
            if (range.code != errc::ok) return self->tell_loaded(key, std::nullopt, range.text, true);
            self->decoders_.post(node, [self, key, content = range.data.flatten()] {
                try {
                    self->tell_loaded(key, self->serializer_.decode(content), {});
                } catch (const std::exception& why) {
                    self->tell_loaded(key, std::nullopt, why.what());
                } catch (...) {
                    self->tell_loaded(key, std::nullopt, "decoding it threw what is no std::exception");
                }
            });
        });
    }
    void perform(const unhandled_reply& e) {
        post_event(e.what);
        log_.debug("a reply of node " + e.node + " that nobody waits for");
    }
    void perform(const undelivered_forward& e) {
        ++undelivered_forwards_;
        log_.warn("a message from another node for node " + e.node + " is dropped: " + e.how.text);
    }

    void tell_loaded(task_key key, std::optional<message_type> reply, std::string why, bool may_be_had_later = false) {
        post_event(events::reply_loaded<message_type>{key, std::move(reply), std::move(why), may_be_had_later});
    }

    /// The event is posted when the last copy is gone, which must not be under the lock. Null without a key.
    template <class Event>
    std::shared_ptr<void> when_gone(Event event, task_key key) {
        if (key == 0) return nullptr;
        return {nullptr, [weak = this->weak_from_this(), event](void*) {
                    if (const auto self = weak.lock()) self->post_event(event);
                }};
    }

    void decode_reply(const std::shared_ptr<reply_source>& from, const bytes& content) {
        if (const auto most = options_.replies.max_payload_bytes; content.size() > most) {
            return refuse_and_tell(from, errc::too_large,
                                   "a reply of " + std::to_string(content.size()) +
                                       " bytes is beyond the server's replies.max_payload_bytes, " +
                                       std::to_string(most));
        }
        std::string node, request_id;
        std::optional<message_type> message;
        try {
            message = serializer_.decode(content);
            node = traits::node_id(*message);
            request_id = traits::request_id(*message);
        } catch (const std::exception& e) {
            return refuse_and_tell(from, reason_of(e, errc::decode_failed), e.what());
        } catch (...) {
            return refuse_and_tell(from, errc::decode_failed, "decoding it threw what is no std::exception");
        }
        if (!admits(node, from->peer())) {
            return refuse_reply(from, errc::not_permitted, "this peer may not reply as node " + node);
        }
        if (log_.is_debug()) log_in(node, log_.label(*message), content.size(), open_request(node, request_id));
        if (auto to = destination_of(*message); !to.empty()) {
            return post_reply(from, events::forward_arrived<std::shared_ptr<reply_source>, ticket>{
                                        from, node, forwarded(std::move(to), content, *message), from->number()});
        }
        std::shared_ptr<const payload> encoded;
        if constexpr (lasting_agent_store<Store>) encoded = std::make_shared<const payload>(content);
        post_reply(
            from, events::reply_arrived<std::shared_ptr<reply_source>, message_type>{
                      from, node, request_id, std::move(*message), from->number(), std::move(encoded), content.size()});
    }

    /// The core is locked once for the reply and the receipt that comes with it.
    template <class Event>
    void post_reply(const std::shared_ptr<reply_source>& from, Event&& event) {
        const auto receipt = from->receipt();
        run([&](auto& core, instant at, auto& to) {
            core.step(std::forward<Event>(event), at, to);
            if (receipt.task != 0) core.step(of_core(receipt), at, to);
        });
    }

    void refuse_and_tell(const std::shared_ptr<reply_source>& from, errc reason, const std::string& text) {
        reply_refused(from->who() + ": " + text);
        refuse_reply(from, reason, text);
    }
    void refuse_reply(const std::shared_ptr<reply_source>& from, errc reason, const std::string& text) {
        from->answer(reason, text);
        if (const auto receipt = from->receipt(); receipt.task != 0) post_event(of_core(receipt));
    }

    static events::receipt_came<call> of_core(const task_receipt& receipt) {
        return {receipt.call, receipt.call->node(), frames::receipt{receipt.task}};
    }

    /// The bytes as they came.
    events::submitted<ticket> forwarded(std::string to, const bytes& content, const message_type& message) const {
        events::submitted<ticket> task{std::move(to), std::make_shared<const payload>(content)};
        task.expires_after = options_.task_age;
        task.keep_while_disconnected = true;
        task.label = log_.label(message);
        return task;
    }

    std::function<void()> handling(const std::string& node, message_type reply, const events::unclaimed_handled& end) {
        basic_reply<message_type> result;
        result.how.kind = outcome_kind::replied;
        result.message = std::move(reply);
        result.node = node;
        auto handled = [self = this->shared_from_this(), end](void*) { self->post_event(end); };
        return [this, result = std::move(result), at_end = std::shared_ptr<void>(nullptr, handled)] {
            on_unclaimed_reply(result);
        };
    }

    using attempt_and_age = std::optional<std::pair<int, std::chrono::steady_clock::duration>>;

    void log_in(const std::string& node, const std::string& label, std::uint64_t bytes, attempt_and_age of) const {
        log_.debug(message_log::line("in", node, label, bytes, of ? std::optional(of->first) : std::nullopt,
                                     of ? std::optional(of->second) : std::nullopt));
    }

    attempt_and_age open_request(const std::string& node, const std::string& request_id) const {
        const std::lock_guard lock(mutex_);
        return dispatch_.open_request(node, request_id, now());
    }

    const server_options options_;
    const message_log log_;
    [[no_unique_address]] Serializer serializer_;
    server_store<Store, grpc_server_core> store_;
    [[no_unique_address]] Identity identity_;
    mutable std::mutex mutex_;
    core_type dispatch_;
    std::condition_variable nodes_changed_, drained_changed_;
    bool stopping_ = false;
    bool drained_ = false;
    executor executor_;  // for users' callbacks, which may wait for a reply
    executor decoders_;
    std::atomic<std::uint64_t> undelivered_forwards_{0};
    std::atomic<std::uint64_t> dropped_feedback_{0};
    upload_guard uploads_;
    std::mutex waiting_mutex_;
    std::vector<std::weak_ptr<task_call>> waiting_;  // streams with something to say that may wait
    time_limit<task_call> watched_;                  // streams without a hello, or that must end
    alarm alarm_;
};

}  // namespace ferry::detail
