// layer 1
// A thread that hears what other servers say through a Redis, and beats: it calls at equal intervals, for as long as it lives.
#pragma once

#include <ferry/detail/redis_connection.hpp>
#include <ferry/detail/redis_options.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace ferry::detail {

class redis_listener {
public:
    struct callbacks {
        std::function<void(std::string_view)> heard;  ///< a message
        std::function<void()> beat;
        std::function<void()> subscribed;                ///< from now on messages are heard; some may have been missed
        std::function<void(const std::string&)> failed;  ///< why it can't be; once, and not once it was
    };

    /// All are called on the listener's thread.
    redis_listener(const redis_options& options, std::vector<std::string> channels, callbacks calls)
        : state_(std::make_shared<state>(options, std::move(channels), std::move(calls))),
          thread_([s = state_] { s->run(); }) {}
    redis_listener(const redis_listener&) = delete;
    redis_listener& operator=(const redis_listener&) = delete;
    ~redis_listener() {
        state_->stop();
        thread_.get_id() == std::this_thread::get_id() ? thread_.detach() : thread_.join();
    }

private:
    using clock = std::chrono::steady_clock;

    struct state {
        state(const redis_options& given, std::vector<std::string> names, callbacks c)
            : options(given), channels(std::move(names)), calls(std::move(c)), interval(given.lease / 3) {}

        void stop() {
            const std::lock_guard lock(mutex);
            stopping = true;
            stopped.notify_all();
            if (connection) connection->interrupt();
        }

        void run() {
            const no_sigpipe guard;
            const auto late = clock::now() + options.patience;
            auto pause = std::chrono::milliseconds(20);
            while (!is_stopping()) {
                try {
                    subscribe();
                    pause = std::chrono::milliseconds(20);
                    listen();
                } catch (const redis_failure& e) {
                    if ((e.is_final() || clock::now() > late) && !std::exchange(has_told, true)) calls.failed(e.what());
                }
                std::unique_lock lock(mutex);
                connection.reset();
                stopped.wait_for(lock, pause, [&] { return stopping; });
                lock.unlock();
                beat_if_due();
                pause = std::min(pause * 2, std::chrono::milliseconds(500));
            }
        }

        void subscribe() {
            auto made = std::make_unique<redis_connection>(options);
            {
                const std::lock_guard lock(mutex);
                if (stopping) return;
                connection = std::move(made);
            }
            std::vector<std::string> words{"SUBSCRIBE"};
            words.insert(words.end(), channels.begin(), channels.end());
            connection->send(words);
            for (std::size_t i = 0; i < channels.size(); ++i) {
                const auto answer = connection->get();
                if (answer.is_error()) throw redis_failure(std::string(answer.text()), true);
            }
            has_told = true;
            calls.subscribed();
        }

        /// Until the connection breaks. One that is silent is asked whether it is there.
        void listen() {
            for (bool asked = false; !is_stopping();) {
                beat_if_due();
                const auto message = connection->next(std::max(until_beat(), std::chrono::milliseconds(1)));
                if (!message) {
                    if (until_beat() > std::chrono::milliseconds(0)) continue;
                    if (std::exchange(asked, true)) throw redis_failure("no answer", false);
                    connection->send({"PING"});
                    continue;
                }
                asked = false;
                if ((*message)[0].text() == "message") calls.heard((*message)[2].text());
            }
        }

        void beat_if_due() {
            if (until_beat().count() > 0 || is_stopping()) return;
            next_beat = clock::now() + interval;
            calls.beat();
        }
        std::chrono::milliseconds until_beat() const {
            return std::chrono::duration_cast<std::chrono::milliseconds>(next_beat - clock::now());
        }
        bool is_stopping() {
            const std::lock_guard lock(mutex);
            return stopping;
        }

        const redis_options options;
        const std::vector<std::string> channels;
        const callbacks calls;
        const std::chrono::milliseconds interval;
        clock::time_point next_beat = clock::now();
        std::mutex mutex;
        std::condition_variable stopped;
        std::unique_ptr<redis_connection> connection;
        bool stopping = false;
        bool has_told = false;  // whether it hears
    };

    std::shared_ptr<state> state_;
    std::thread thread_;
};

}  // namespace ferry::detail
