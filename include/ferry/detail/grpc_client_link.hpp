// layer 4
// What joins a node's core to one server: it turns calls and users' wishes into events, and performs the effects. One mutex
// holds the core; it is never held over gRPC, a serializer or user code.
#pragma once

#include <ferry/client_options.hpp>
#include <ferry/delivery.hpp>
#include <ferry/detail/alarm.hpp>
#include <ferry/detail/effect_buffer.hpp>
#include <ferry/detail/executor.hpp>
#include <ferry/detail/failure.hpp>
#include <ferry/detail/grpc_client_calls.hpp>
#include <ferry/detail/grpc_connection.hpp>
#include <ferry/detail/grpc_task_inbox.hpp>
#include <ferry/detail/grpc_task_runner.hpp>
#include <ferry/detail/grpc_task_stream.hpp>
#include <ferry/detail/message_log.hpp>
#include <ferry/detail/node_spool.hpp>
#include <ferry/detail/random_seed.hpp>
#include <ferry/detail/wake_ups.hpp>
#include <ferry/intake.hpp>
#include <ferry/message.hpp>
#include <ferry/task.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace ferry::detail {

template <class Serializer, class Retry, class ChunkSize>
class grpc_client_link final : public stream_host,
                               public delivery_host,
                               public task_host<typename Serializer::message_type>,
                               public std::enable_shared_from_this<grpc_client_link<Serializer, Retry, ChunkSize>> {
public:
    using message_type = typename Serializer::message_type;
    using traits = message_traits<message_type>;
    using state = delivery_state<message_type>;
    using ticket = std::shared_ptr<state>;
    using handler = typename grpc_task_runner<Serializer>::handler;

    grpc_client_link(std::shared_ptr<const client_options> options, researcher_address address, Serializer serializer,
                     Retry retry, std::shared_ptr<const handler> on_task, std::shared_ptr<executor> callbacks)
        : options_(std::move(options)),
          log_(options_->log, options_->debug),
          connection_(std::move(address), options_->identity, options_->keepalive),
          serializer_(serializer),
          tasks_(options_, std::move(serializer), std::move(on_task)),
          callbacks_(std::move(callbacks)),
          inbox_(options_->tasks),
          intake_(options_->limits, std::move(retry), random_seed()),
          alarm_([this] {
              flush_stream();
              post_event(intake_events::time_passed{});
          }) {}

    ~grpc_client_link() override { alarm_.stop(); }

    /// Throws `error` where the trust can't be used.
    void check() { connection_.check(); }

    /// Throws `error` where the spool folder can't be used; a server that can't be reached is no error.
    void start() {
        if (spools()) open_spool();
        post_event(intake_events::started{});
    }

    bool wait_connected(std::chrono::steady_clock::time_point deadline) {
        std::unique_lock lock(mutex_);
        changed_.wait_until(lock, deadline, [&] { return connected_ || stop_.stop_requested(); });
        return connected_;
    }

    void begin_stop() {
        post_event(intake_events::stop_requested{});  // first: a task that hears of the stop is followed by no other
        stop_.request_stop();
        const std::lock_guard lock(mutex_);
        changed_.notify_all();
    }

    /// A callback that stops its own client is not waited for.
    void finish_stop(std::chrono::steady_clock::time_point deadline) {
        const bool inside = callbacks_->is_inside();
        {
            std::unique_lock lock(mutex_);
            changed_.wait_until(lock, deadline, [&] { return inside ? intake_.quiet_but_for_tasks() : drained_; });
        }
        post_event(intake_events::stop_forced{});
        alarm_.stop();
        if (spools()) perform(tidy_spool{});
        inbox_.close();
        spool_.close();
    }

    // --- what tasks want ------------------------------------------------------------------------------------------------

    basic_delivery<message_type> reply(task_run& run, const message_type& task, message_type answer) override {
        if (traits::request_id(answer).empty()) {
            if (auto id = traits::request_id(task); !id.empty()) traits::set_request_id(answer, id);
        }
        auto out = send(std::move(answer), run.number);
        const auto how = out.done() ? out.wait() : outcome{outcome_kind::taken, errc::ok, {}, 0};
        how.kind == outcome_kind::taken ? run.reply_goes() : run.reply_failed(how.text);
        return out;
    }

    /// `task` is the number of the one that it answers, or 0.
    basic_delivery<message_type> send(message_type answer, std::uint64_t task = 0) {
        const auto made = std::make_shared<state>(this->weak_from_this(), researcher());
        try {
            if (traits::node_id(answer).empty()) traits::set_node_id(answer, options_->node_id);
            auto label = log_.label(answer);
            auto content = std::make_shared<const payload>(serializer_.encode(std::move(answer)));
            made->set_total(content->size());
            intake_events::reply_submitted<ticket> e{made, std::move(content), options_->reply_age, std::move(label)};
            e.task = task;
            keep(e, task);
            run([&](auto& core, auto& sink) { made->set_key(core.step(std::move(e), now(), sink)); });
        } catch (...) {
            auto how = encode_failure(std::current_exception());
            log_.warn(researcher() + ": a message to it is given up: " + how.text);
            made->end(std::move(how), std::nullopt);
            made->tell();
        }
        return basic_delivery<message_type>(made);
    }

    void send_feedback(feedback what) override {
        std::visit([&](auto& each) { each.node_id = options_->node_id; }, what);
        auto content = std::make_shared<const std::string>(wire::to_proto(what, {}).SerializeAsString());
        if (log_.is_debug()) {
            log_.debug(message_log::line("out", researcher(), log_.label(what), content->size(), {}, {}));
        }
        post_event(intake_events::feedback_submitted{std::move(content)});
    }

    void in_progress(std::uint64_t key) override { post_event(intake_events::task_in_progress{key}); }
    const std::string& researcher() const override { return connection_.name(); }

    // --- what handles want ----------------------------------------------------------------------------------------------

    bool enqueue(const std::string& strand, std::function<void()>& job) override {
        return callbacks_->enqueue("\1" + strand, job);
    }
    void wake() override { callbacks_->wake(); }
    void withdraw(std::uint64_t key) override { post_event(intake_events::withdrawn{key}); }

    // --- what calls report ----------------------------------------------------------------------------------------------

    void poll_sent(std::uint64_t id) override { post_event(intake_events::poll_sent{id}); }
    void poll_accepted(std::uint64_t id) override { post_event(intake_events::poll_accepted{id}); }
    void poll_progress(std::uint64_t id) override { post_event(intake_events::poll_progress{id}); }

    void poll_ended(std::uint64_t id, const grpc::Status& status, std::optional<bytes> task,
                    wire::read_result read) override {
        if (read.code != errc::ok) {
            return post_event(intake_events::poll_ended{id, poll_end::corrupt, std::move(read.text)});
        }
        const auto end = to_end(status);
        if (end == poll_end::well && task) {
            const auto size = task->size();
            post_event(intake_events::task_arrived<arrived_task>{id, {std::move(*task), now().steady}, size});
        }
        post_event(intake_events::poll_ended{id, end, said(status)});
    }

    void stream_told(std::uint64_t id, researcher::TaskResponse&& what) override {
        if (what.has_welcome()) {
            const frames::welcome welcome{std::chrono::milliseconds(what.welcome().lease_ms())};
            post_event(intake_events::stream_welcomed{id, welcome});
        }
        for (const auto number : what.withdrawn()) post_event(intake_events::task_withdrawn{id, number});
        for (const auto& each : what.answers()) {
            post_event(intake_events::reply_answered{id, wire::answer_from_proto(each)});
        }
        for (auto& each : *what.mutable_whole()) {
            const auto head = wire::head_from_proto(each);
            const auto checksum = each.has_checksum() ? std::optional(each.checksum()) : std::nullopt;
            came(id, inbox_.take_whole(head, checksum, bytes::own(std::move(*each.mutable_content()))));
        }
    }

    void stream_part(std::uint64_t id, const wire::part_header& header, grpc::ByteBuffer& in) override {
        auto what = inbox_.take(id, header, in, [&] {
            bool wanted = false;
            run([&](auto& core, auto& sink) {
                wanted = core.step(intake_events::delivery_began{id, header.head}, now(), sink);
            });
            return wanted;
        });
        came(id, std::move(what));
    }

    void stream_ended(std::uint64_t id, const grpc::Status& status) override {
        const auto end = status.error_code() == grpc::StatusCode::UNIMPLEMENTED ? poll_end::unknown : to_end(status);
        post_event(intake_events::poll_ended{id, end, said(status)});
    }

    void upload_accepted(std::uint64_t id, std::uint64_t offset) override {
        post_event(intake_events::upload_accepted{id, offset});
    }

    void upload_range_sent(std::uint64_t id) override { post_event(intake_events::upload_range_sent{id}); }

    void upload_ended(std::uint64_t id, errc reason, std::string text) override {
        run([&](auto& core, auto& sink) {
            uploads_.erase(id);
            core.step(intake_events::upload_ended{id, reason, std::move(text)}, now(), sink);
        });
    }

    void feedback_ended(std::uint64_t id, const grpc::Status& status) override {
        post_event(intake_events::feedback_ended{id, wire::to_errc(status), status.error_message()});
    }

private:
    static constexpr auto longest_wait = std::chrono::milliseconds(1);

    struct types {
        using task = arrived_task;
        using ticket = grpc_client_link::ticket;
        using retry = Retry;
        using chunk_size = ChunkSize;
    };
    using core_type = intake<types>;

    // What an effect asks of a call, together with the call: which one that is, is settled under the lock, so that a
    // cancellation finds its call even where another thread is still about to open it.
    struct open_poll {
        std::shared_ptr<task_poll> call;
        std::uint64_t id;
    };
    struct open_stream {
        std::shared_ptr<task_stream> call;
        std::uint64_t id;
        frames::hello hello;
    };
    struct flush {
        std::shared_ptr<task_stream> call;
    };
    struct flush_soon {};
    struct run_task {
        std::shared_ptr<task_run> run;
        arrived_task work;
    };
    struct tidy_spool {};
    struct open_upload {
        std::shared_ptr<reply_upload> call;
        std::uint64_t id;
    };
    struct send_range {
        std::shared_ptr<reply_upload> call;
        std::shared_ptr<const payload> content;
        chunk part;
    };
    struct send_feedback_call {
        std::shared_ptr<feedback_call> call;
        std::uint64_t id;
        std::shared_ptr<const std::string> content;
    };
    template <class Call>
    struct cancel {
        std::shared_ptr<Call> call;
    };
    using ended = end_to_tell<message_type>;
    struct debug_note {
        std::string text;
    };
    using later =
        std::variant<intake_effects::reconnect, open_poll, cancel<task_poll>, open_stream, cancel<task_stream>, flush,
                     flush_soon, run_task, intake_effects::forget_task, tidy_spool, open_upload, send_range,
                     cancel<reply_upload>, send_feedback_call, cancel<feedback_call>, ended, intake_effects::warning,
                     intake_effects::wake_at, debug_note>;

    struct sink {
        grpc_client_link& link;
        effect_buffer<later>& kept;
        std::vector<std::shared_ptr<task_run>>& stopped;    // the user's functions run in their tokens
        std::vector<std::shared_ptr<const payload>>& sent;  // and where these go

        template <class Effect>
        void operator()(Effect&& effect) {
            kept.push(std::forward<Effect>(effect));
        }
        void operator()(intake_effects::open_poll e) {
            auto call = std::make_shared<task_poll>(link.shared_from_this(), e.poll_id, link.options_->tasks);
            link.stream_.reset();
            link.poll_ = call;
            kept.push(open_poll{std::move(call), e.poll_id});
        }
        void operator()(intake_effects::cancel_poll) {
            if (auto call = link.stream_.lock()) kept.push(cancel<task_stream>{std::move(call)});
            if (auto call = link.poll_.lock()) kept.push(cancel<task_poll>{std::move(call)});
            link.stream_.reset();
            link.poll_.reset();
        }
        void operator()(intake_effects::open_stream e) {
            auto call = std::make_shared<task_stream>(link.shared_from_this(), e.poll_id);
            link.poll_.reset();
            link.stream_ = call;
            kept.push(open_stream{std::move(call), e.poll_id, std::move(e.hello)});
        }
        void operator()(intake_effects::close_stream) {
            auto call = link.stream_.lock();
            if (!call) return;
            call->queue_end();
            kept.push(flush{std::move(call)});
        }
        void operator()(intake_effects::tell_receipt e) {
            say([&](auto& request) { wire::to_proto(e.what, *request.add_receipts()); }, e.may_wait);
        }
        void operator()(intake_effects::renew_leases e) {
            say([&](auto& request) { request.mutable_in_progress()->Add(e.tasks.begin(), e.tasks.end()); });
        }
        void operator()(intake_effects::tell_leaving) {
            say([](auto& request) { request.set_leaving(true); });
        }
        void operator()(intake_effects::send_reply e) {
            say([&](auto& request) {
                auto& reply = *request.add_replies();
                e.content->for_each_run(0, e.content->size(),
                                        [&](const bytes& run) { reply.mutable_content()->append(run.view()); });
                reply.set_task(e.task);
                reply.set_reply(e.number);  // last: without a number it is none
            });
        }
        template <class Fill>
        void say(Fill&& fill, bool may_wait = false) {
            auto call = link.stream_.lock();
            if (!call) return;
            call->queue(std::forward<Fill>(fill));
            if (may_wait) return kept.push(flush_soon{});
            kept.push(flush{std::move(call)});
        }
        void operator()(intake_effects::run_task<arrived_task> e) {
            const auto number = e.task.number;
            auto run = std::make_shared<task_run>(e.key, number, e.task.attempt, e.urgent, link.stop_.get_token());
            link.runs_[e.key] = run;
            kept.push(run_task{std::move(run), std::move(e.task)});
        }
        void operator()(intake_effects::stop_task e) {
            if (const auto found = link.runs_.find(e.key); found != link.runs_.end()) stopped.push_back(found->second);
        }
        void operator()(intake_effects::open_upload e) {
            if (link.log_.is_debug()) {
                kept.push(debug_note{message_log::line("out", link.researcher(), e.label, e.bytes, e.attempt, e.age)});
            }
            if (!e.has_call) return;
            const auto name = e.can_go_on ? std::optional(wire::upload_name{e.number, e.bytes}) : std::nullopt;
            auto call = std::make_shared<reply_upload>(link.shared_from_this(), e.upload_id, name);
            link.uploads_[e.upload_id] = call;
            kept.push(open_upload{std::move(call), e.upload_id});
        }
        void operator()(intake_effects::send_range e) {
            kept.push(send_range{link.uploads_[e.upload_id].lock(), std::move(e.content), e.part});
        }
        void operator()(intake_effects::cancel_upload e) {
            const auto found = link.uploads_.extract(e.upload_id);
            if (found) kept.push(cancel<reply_upload>{found.mapped().lock()});
        }
        void operator()(intake_effects::send_feedback e) {
            auto call = std::make_shared<feedback_call>(link.shared_from_this(), e.feedback_id);
            link.feedback_ = call;
            kept.push(send_feedback_call{std::move(call), e.feedback_id, std::move(e.content)});
        }
        void operator()(intake_effects::cancel_feedback) { kept.push(cancel<feedback_call>{link.feedback_.lock()}); }
        void operator()(intake_effects::forget_task e) {
            if (!link.spools()) return kept.push(e);
            link.spool_.forget_task(e.number);
            kept.push(tidy_spool{});
        }
        void operator()(intake_effects::ended<ticket> e) {
            if (e.how.kind != outcome_kind::stopped && link.spools() && link.spool_.forget_reply(e.number)) {
                kept.push(tidy_spool{});
            }
            sent.push_back(std::move(e.content));
            warn_of(e.how, e.ticket != nullptr);
            if (!e.ticket) return;
            kept.push(ended(e.ticket));
            e.ticket->end(std::move(e.how), std::nullopt);
        }
        /// Few look at what a reply's delivery comes to.
        void warn_of(const outcome& how, bool of_this_life) {
            const auto kind = how.kind;
            if (kind != outcome_kind::queue_full) link.is_full_ = false;
            if (kind == outcome_kind::taken || kind == outcome_kind::cancelled || kind == outcome_kind::stopped) return;
            if (kind == outcome_kind::queue_full && std::exchange(link.is_full_, true)) return;  // it was told
            kept.push(intake_effects::warning{
                std::string(of_this_life ? "a message to it" : "a reply that an earlier life of this node had left") +
                " is given up: " + std::string(to_string(kind)) + ": " + how.text});
        }
        void operator()(intake_effects::progressed<ticket> e) {
            if (e.ticket) e.ticket->progressed(e.sent);
        }
        void operator()(intake_effects::link_changed e) {
            link.connected_ = e.connected;
            link.changed_.notify_all();
        }
        void operator()(intake_effects::drained) {
            link.drained_ = true;
            link.changed_.notify_all();
        }
    };

    template <class Event>
    void post_event(Event&& event) {
        run([&](auto& core, auto& to) { core.step(std::forward<Event>(event), now(), to); });
    }

    template <class Step>
    void run(Step&& step) {
        effect_buffer<later> kept;
        std::vector<std::shared_ptr<task_run>> stopped;
        std::vector<std::shared_ptr<const payload>> sent;
        {
            sink effects{*this, kept, stopped, sent};
            const std::lock_guard lock(mutex_);
            step(intake_, effects);
            if (stop_.stop_requested()) changed_.notify_all();
        }
        kept.perform([this](auto&& effect) { this->perform(std::move(effect)); });
        for (const auto& each : stopped) each->stop();
    }

    /// gRPC has no word for a key or a certificate that it can't use.
    static std::string said(const grpc::Status& status) {
        const auto& text = status.error_message();
        if (!text.starts_with("empty address list")) return text;
        return "the server's certificate, or the key or certificate of options.identity, can't be used (" + text + ")";
    }

    static poll_end to_end(const grpc::Status& status) {
        switch (status.error_code()) {
            case grpc::StatusCode::OK: return poll_end::well;
            case grpc::StatusCode::DEADLINE_EXCEEDED: return poll_end::deadline;
            case grpc::StatusCode::PERMISSION_DENIED:
            case grpc::StatusCode::UNAUTHENTICATED:
            case grpc::StatusCode::RESOURCE_EXHAUSTED:
            case grpc::StatusCode::INVALID_ARGUMENT: return poll_end::refused;
            default: return poll_end::unreachable;
        }
    }

    void came(std::uint64_t id, task_inbox::result&& what) {
        const auto& head = what.head;
        switch (what.what) {
            case task_inbox::came::nothing: return;
            case task_inbox::came::part:
                return post_event(intake_events::delivery_progress{id, head.task, what.received});
            case task_inbox::came::damaged:
                return post_event(intake_events::delivery_damaged{id, head.task, std::move(what.text)});
            case task_inbox::came::no_room:
                return post_event(intake_events::delivery_put_off{id, head.task, head.urgent, std::move(what.text)});
            case task_inbox::came::too_large:
                return post_event(intake_events::delivery_refused{id, head.task, std::move(what.text)});
            case task_inbox::came::whole: break;
        }
        const auto size = what.content.size();
        post_event(
            intake_events::task_arrived<arrived_task>{id,
                                                      {std::move(what.content), now().steady, head.task, head.attempt},
                                                      size,
                                                      head.task,
                                                      head.attempt,
                                                      head.urgent});
    }

    // --- connections ----------------------------------------------------------------------------------------------------

    using channels = server_connection::channels;

    void perform(intake_effects::reconnect e) { connection_.drop(e.after_failure); }

    template <class Use, class Fail>
    void with_channels(Use use, Fail fail) {
        connection_.with_channels(*callbacks_, this->shared_from_this(), std::move(use), std::move(fail));
    }

    void perform(open_poll e) {
        with_channels(
            [this, e](channels& over) {
                e.call->open(over.polls, options_->node_id, Serializer::name,
                             detail::later(std::chrono::system_clock::now(), options_->poll_deadline));
            },
            [this, id = e.id](std::string why) {
                post_event(intake_events::poll_ended{id, poll_end::unreachable, std::move(why)});
            });
    }

    void perform(open_upload e) {
        with_channels(
            [e](channels& over) { e.call->open(over.uploads, Serializer::name); },
            [this, id = e.id](std::string why) { upload_ended(id, errc::connection_failed, std::move(why)); });
    }

    void perform(send_feedback_call e) {
        with_channels(
            [this, e](channels& over) {
                e.call->open(over.polls, *e.content,
                             detail::later(std::chrono::system_clock::now(), options_->limits.idle_limit));
            },
            [this, id = e.id](std::string why) {
                post_event(intake_events::feedback_ended{id, errc::connection_failed, std::move(why)});
            });
    }

    void perform(send_range e) {
        if (e.call) e.call->send(e.content, e.part);
    }

    template <class Call>
    void perform(cancel<Call> e) {
        if (e.call) e.call->cancel();
    }

    void perform(open_stream e) {
        with_channels(
            [this, e](channels& over) { e.call->open(over.polls, options_->node_id, Serializer::name, e.hello); },
            [this, id = e.id](std::string why) {
                post_event(intake_events::poll_ended{id, poll_end::unreachable, std::move(why)});
            });
    }
    void perform(const flush& e) { e.call->flush(); }
    void perform(flush_soon) { alarm_.at(now().steady + longest_wait); }
    void perform(intake_effects::forget_task e) { inbox_.forget(e.number); }
    void perform(tidy_spool) {
        for (const auto& each : spool_.tidy([this](std::uint64_t task) { inbox_.forget(task); })) log_.warn(each);
    }

    /// A large reply outlives this program; where it can't be written, it doesn't, and is sent all the same.
    void keep(intake_events::reply_submitted<ticket>& reply, std::uint64_t task) {
        if (!spools()) return;
        try {
            reply.number = spool_.keep_reply(reply.content, task);
        } catch (const error& e) {
            log_.warn(e.what());
        }
    }

    void perform(run_task e) {
        const auto& strand = e.run->urgent ? urgent_strand_ : task_strand_;
        callbacks_->post(strand,
                         [self = this->shared_from_this(), run = std::move(e.run), work = std::move(e.work)]() mutable {
                             self->tasks_.run(self, run, std::move(work));
                             self->returned(*run);
                         });
    }

    void flush_stream() {
        const auto call = [this] {
            const std::lock_guard lock(mutex_);
            return stream_.lock();
        }();
        if (call) call->flush();
    }

    void returned(const task_run& run) {
        auto [what, text, pause] = run.decided();
        intake_events::task_returned e{run.key, what, std::move(text), pause};
        this->run([&](auto& core, auto& sink) {
            runs_.erase(run.key);
            core.step(std::move(e), now(), sink);
        });
    }

    bool spools() const noexcept { return !options_->spool.folder.empty(); }

    /// Takes up what an earlier life of this program has left.
    void open_spool() {
        auto replies = spool_.open(options_->spool, researcher());
        if (const auto folder = spool_.folder()) {
            inbox_.open(folder, [this](std::uint64_t number, std::uint64_t received) {
                post_event(intake_events::task_found{number, received});
            });
        }
        for (auto& each : replies) {
            if (each.task != 0) post_event(intake_events::task_done_before{each.task});
            const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(
                std::max(std::chrono::system_clock::now(), each.since) - each.since);
            intake_events::reply_submitted<ticket> e{nullptr, std::make_shared<const payload>(std::move(each.content)),
                                                     std::max(options_->reply_age - age, std::chrono::milliseconds(0)),
                                                     "of an earlier life"};
            e.number = each.number;
            post_event(std::move(e));
        }
    }

    void perform(ended) {}  // it tells as it goes
    void perform(const intake_effects::warning& e) { log_.warn(researcher() + ": " + e.text); }
    void perform(intake_effects::wake_at e) { alarm_.at(e.when); }
    void perform(const debug_note& e) { log_.debug(e.text); }

    const std::shared_ptr<const client_options> options_;
    const message_log log_;
    server_connection connection_;
    [[no_unique_address]] Serializer serializer_;
    const grpc_task_runner<Serializer> tasks_;
    const std::shared_ptr<executor> callbacks_;
    const std::string task_strand_ = "\1tasks " + researcher(), urgent_strand_ = "\1urgent " + researcher();
    std::stop_source stop_;
    task_inbox inbox_;
    node_spool spool_;

    std::mutex mutex_;
    core_type intake_;
    std::condition_variable changed_;
    bool connected_ = false;
    bool drained_ = false;
    bool is_full_ = false;  // the queue of uploads, which was told

    std::weak_ptr<task_poll> poll_;
    std::weak_ptr<task_stream> stream_;
    std::unordered_map<std::uint64_t, std::shared_ptr<task_run>> runs_;  // by key
    std::unordered_map<std::uint64_t, std::weak_ptr<reply_upload>> uploads_;
    std::weak_ptr<feedback_call> feedback_;

    alarm alarm_;
};

}  // namespace ferry::detail
