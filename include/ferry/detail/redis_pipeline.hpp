// layer 1
// A thread with a connection of its own: it sends what has come meanwhile all at once, reads the answers, and tells. What was
// sent when the connection broke is sent again over the next one, in the same order.
#pragma once

#include <ferry/detail/redis_connection.hpp>
#include <ferry/detail/redis_options.hpp>
#include <ferry/detail/redis_scripts.hpp>
#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace ferry::detail {

/// A command, or a script with what follows the server's name and the channels' prefix.
struct redis_command {
    std::optional<redis_script> script{};
    std::vector<std::string> words{};
    bytes data{};  ///< the last word, where there is one
    bool has_data = false;
    std::size_t answer_bytes = 0;  ///< that are expected, where they are many
};

/// Redis's answer, or why there is none.
struct redis_answer {
    redis_value value{};
    std::string problem{};
    errc code = errc::store_failed;  ///< of the problem

    bool ok() const noexcept { return problem.empty(); }
};

class redis_pipeline {
public:
    using told = std::function<void(redis_answer)>;
    using clock = std::chrono::steady_clock;

    /// Connects as soon as there is something to send.
    redis_pipeline(redis_options options, std::string server)
        : state_(std::make_shared<state>(std::move(options), std::move(server))), thread_([s = state_] { s->run(); }) {}
    redis_pipeline(const redis_pipeline&) = delete;
    redis_pipeline& operator=(const redis_pipeline&) = delete;

    ~redis_pipeline() { close(); }

    /// What has been asked for is done first, unless Redis is gone or stands still: then it fails, as does what comes later.
    void close() {
        const std::lock_guard lock(closing_);
        if (!thread_.joinable()) return;
        // Within a `told`, which is called on that thread.
        const bool is_inside = thread_.get_id() == std::this_thread::get_id();
        state_->stop(!is_inside);
        is_inside ? thread_.detach() : thread_.join();
    }

    /// Each is told exactly once, on the pipeline's thread.
    void run(redis_command command, told done) {
        state_->add({std::move(command), std::move(done), clock::now() + state_->options.patience});
    }

    /// Called on the pipeline's thread after each connection but the first.
    void on_reconnect(std::function<void()> what) {
        const std::lock_guard lock(state_->mutex);
        state_->reconnected = std::move(what);
    }

private:
    static constexpr std::size_t batch_commands = 512;
    static constexpr std::size_t batch_bytes = 8 << 20;

    struct operation {
        redis_command command;
        told done;
        clock::time_point deadline;
    };

    struct state {
        state(redis_options given, std::string name)
            : options(std::move(given)),
              server(std::move(name)),
              channels(options.key_prefix + std::to_string(options.database) + ":") {}

        void add(operation made) {
            {
                const std::lock_guard lock(mutex);
                if (!is_over) {
                    waiting.push_back(std::move(made));
                    came.notify_one();
                    return;
                }
            }
            made.done({{}, "the store is closed"});
        }

        void stop(bool waits) {
            std::unique_lock lock(mutex);
            stopping = true;
            came.notify_one();
            for (auto answers = answered.load(); waits && !is_over; answers = answered.load()) {
                if (ended.wait_for(lock, longest_silence, [&] { return is_over; }) || answers != answered) continue;
                if (connection) connection->interrupt();
            }
        }

        void connect() {
            auto made = std::make_unique<redis_connection>(options);
            for (std::size_t i = 0; i < redis_script_count; ++i) {
                const bool needs = needs_room(static_cast<redis_script>(i));
                std::string text(needs ? "#!lua\n" : "#!lua flags=allow-oom\n");
                text.append(redis_common).append(redis_bodies[i]);
                hashes[i] = made->must({"SCRIPT", "LOAD", text}).text();
            }
            made->must({"EVALSHA", hashes[0], "1", options.key_prefix, server, channels});
            set(std::move(made));
        }

        void set(std::unique_ptr<redis_connection> made) {
            const std::lock_guard lock(mutex);
            connection = std::move(made);
        }

        void run() {
            const no_sigpipe guard;
            while (take()) {
                if (!connection) reconnect();
                if (connection) exchange();
            }
        }

        /// False at the end.
        bool take() {
            std::unique_lock lock(mutex);
            if (batch.empty()) came.wait(lock, [&] { return !waiting.empty() || stopping; });
            std::size_t size = 0;
            const auto bytes_of = [](const operation& o) { return o.command.data.size() + o.command.answer_bytes; };
            for (const auto& each : batch) size += bytes_of(each);
            while (!waiting.empty() && batch.size() < batch_commands && size < batch_bytes) {
                size += bytes_of(waiting.front());
                batch.push_back(std::move(waiting.front()));
                waiting.pop_front();
            }
            is_over = batch.empty();
            if (is_over) ended.notify_all();
            return !is_over;
        }

        void reconnect() {
            try {
                connect();
            } catch (const redis_failure& e) {  // what refuses us at the beginning is not waited for
                return give_up(e.what(), e.is_final() && !has_connected);
            }
            std::function<void()> tell;
            if (std::exchange(has_connected, true)) {
                const std::lock_guard lock(mutex);
                tell = reconnected;
            }
            if (tell) tell();
        }

        /// After a failure: gives up all, or pauses, and gives up what can't wait any longer.
        void give_up(const std::string& why, bool all = false) {
            std::unique_lock lock(mutex);
            if (!stopping && !all) came.wait_for(lock, pause, [&] { return stopping; });
            pause = std::min(pause * 2, longest_pause);
            const auto now = clock::now();
            std::vector<operation> late;
            const auto take_late = [&](std::deque<operation>& from) {
                while (!from.empty() && (stopping || all || from.front().deadline <= now)) {
                    late.push_back(std::move(from.front()));
                    from.pop_front();
                }
            };
            take_late(batch);
            if (batch.empty()) take_late(waiting);
            lock.unlock();
            for (auto& each : late) each.done({{}, why});
        }

        /// Sends the batch, and tells what is answered; what is not, stays in it.
        void exchange() {
            try {
                for (const auto& each : batch) add_to_connection(each.command);
                while (!batch.empty()) {
                    auto value = connection->get();
                    if (value.is_error() && redis_connection::passes(value.text())) {
                        throw redis_failure(std::string(value.text()), false);
                    }
                    pause = first_pause;
                    const auto over = std::move(batch.front());
                    batch.pop_front();
                    ++answered;
                    std::string problem(value.is_error() ? value.text() : std::string_view());
                    over.done({std::move(value), std::move(problem)});
                }
            } catch (const redis_failure& e) {
                set(nullptr);
                give_up(e.what());
            }
        }

        void add_to_connection(const redis_command& command) {
            shown.clear();
            if (command.script) {
                shown.emplace_back("EVALSHA");
                shown.emplace_back(hashes[static_cast<std::size_t>(*command.script)]);
                shown.emplace_back("1");
                for (const auto* each : {&options.key_prefix, &server, &channels}) shown.emplace_back(*each);
            }
            for (const auto& each : command.words) shown.emplace_back(each);
            if (command.has_data) shown.push_back(command.data.view());
            connection->add(shown);
        }

        static constexpr auto first_pause = std::chrono::milliseconds(20);
        static constexpr auto longest_pause = std::chrono::milliseconds(500);
        static constexpr auto longest_silence = std::chrono::seconds(1);  // at the end

        const redis_options options;
        const std::string server, channels;
        std::mutex mutex;
        std::condition_variable came, ended;
        std::deque<operation> waiting;
        std::function<void()> reconnected;
        bool stopping = false;
        bool is_over = false;
        std::atomic<std::uint64_t> answered{0};
        std::unique_ptr<redis_connection> connection;  // the thread's; set, and interrupted by others, under the mutex
        // The thread's own from here on.
        std::deque<operation> batch;
        std::array<std::string, redis_script_count> hashes;
        std::vector<std::string_view> shown;
        std::chrono::milliseconds pause = first_pause;
        bool has_connected = false;
    };

    std::shared_ptr<state> state_;
    std::mutex closing_;
    std::thread thread_;
};

}  // namespace ferry::detail
