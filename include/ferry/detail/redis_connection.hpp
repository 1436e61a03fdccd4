// layer 1
// One connection to a Redis, and what it answers. For one thread at a time.
#pragma once

#include <ferry/detail/redis_options.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <hiredis/hiredis.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::detail {

/// What Redis has answered, or a part of it. Copies share the whole.
class redis_value {
public:
    redis_value() = default;
    explicit redis_value(redisReply* owned) : whole_(owned, ::freeReplyObject), at_(owned) {}

    bool is_null() const noexcept { return !at_ || at_->type == REDIS_REPLY_NIL; }
    bool is_error() const noexcept { return at_ && at_->type == REDIS_REPLY_ERROR; }
    bool is_list() const noexcept { return at_ && at_->type == REDIS_REPLY_ARRAY; }

    /// Of a text or an error; empty where it is neither.
    std::string_view text() const noexcept {
        const bool has_text = at_ && (at_->type == REDIS_REPLY_STRING || at_->type == REDIS_REPLY_STATUS ||
                                      at_->type == REDIS_REPLY_ERROR);
        return has_text ? std::string_view(at_->str, at_->len) : std::string_view();
    }
    /// Of a number, or of a text that is one; 0 where it is neither.
    std::uint64_t number() const {
        if (at_ && at_->type == REDIS_REPLY_INTEGER) return static_cast<std::uint64_t>(at_->integer);
        return std::strtoull(std::string(text()).c_str(), nullptr, 10);
    }
    /// The text's memory, which is kept as long as the result or a slice of it lives.
    bytes data() const {
        const auto shown = text();
        return bytes::borrow({reinterpret_cast<const std::uint8_t*>(shown.data()), shown.size()}, whole_);
    }
    std::size_t size() const noexcept { return is_list() ? at_->elements : 0; }
    /// Null past the end.
    redis_value operator[](std::size_t i) const {
        redis_value out;
        if (i >= size()) return out;
        out.whole_ = whole_;
        out.at_ = at_->element[i];
        return out;
    }

private:
    std::shared_ptr<redisReply> whole_;
    const redisReply* at_ = nullptr;
};

/// An `error{store_failed}` that another attempt may help against, or, where it `is_final`, not.
class redis_failure : public error {
public:
    redis_failure(const std::string& text, bool is_final) : error(errc::store_failed, text), is_final_(is_final) {}
    bool is_final() const noexcept { return is_final_; }

private:
    bool is_final_;
};

/// While it lives, a write to a connection that is closed does not end the process: hiredis knows nothing of SIGPIPE.
class no_sigpipe {
public:
    no_sigpipe() noexcept {
        ::sigemptyset(&pipe_);
        ::sigaddset(&pipe_, SIGPIPE);
        ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
    }
    no_sigpipe(const no_sigpipe&) = delete;
    no_sigpipe& operator=(const no_sigpipe&) = delete;
    ~no_sigpipe() {
        if (::sigismember(&before_, SIGPIPE) == 1) return;
        const timespec no_time{};
        while (::sigtimedwait(&pipe_, nullptr, &no_time) > 0) {
        }
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }

private:
    sigset_t pipe_, before_;
};

class redis_connection {
public:
    /// Throws `redis_failure`.
    explicit redis_connection(const redis_options& options) {
        const auto within = to_timeval(options.connect_within);
        context_.reset(options.unix_socket.empty()
                           ? ::redisConnectWithTimeout(options.host.c_str(), options.port, within)
                           : ::redisConnectUnixWithTimeout(options.unix_socket.c_str(), within));
        if (!context_) fail("out of memory");
        if (context_->err != 0) fail(context_->errstr);
        if (::redisSetTimeout(context_.get(), to_timeval(options.answer_within)) != REDIS_OK) fail(context_->errstr);
        if (options.unix_socket.empty()) ::redisEnableKeepAlive(context_.get());
        if (!options.password.empty()) {
            options.user.empty() ? must({"AUTH", options.password}) : must({"AUTH", options.user, options.password});
        }
        if (options.database != 0) must({"SELECT", std::to_string(options.database)});
        must({"PING"});
    }

    /// "redis HOST:PORT", for texts.
    static std::string name_of(const redis_options& options) {
        return "redis " +
               (options.unix_socket.empty() ? options.host + ":" + std::to_string(options.port) : options.unix_socket);
    }

    /// Adds a command to those that `get` sends.
    void add(std::span<const std::string_view> words) {
        argv_.clear();
        lengths_.clear();
        for (const auto each : words) {
            argv_.push_back(each.data());
            lengths_.push_back(each.size());
        }
        if (::redisAppendCommandArgv(context_.get(), static_cast<int>(words.size()), argv_.data(), lengths_.data()) !=
            REDIS_OK)
            fail(context_->errstr);
    }

    /// The answer to the oldest command that has none. Throws `redis_failure` where the connection is broken.
    redis_value get() {
        void* out = nullptr;
        if (::redisGetReply(context_.get(), &out) != REDIS_OK) {
            fail(context_->err == REDIS_ERR_IO && errno == EAGAIN ? "it did not answer in time (see answer_within)"
                                                                  : context_->errstr);
        }
        return redis_value(static_cast<redisReply*>(out));
    }

    /// One command; an answer that is an error is thrown, as a final one unless Redis is only starting.
    redis_value must(const std::vector<std::string>& words) {
        const std::vector<std::string_view> shown(words.begin(), words.end());
        add(shown);
        auto out = get();
        if (out.is_error()) {
            throw redis_failure(words.front() + ": " + std::string(out.text()), !passes(out.text()));
        }
        return out;
    }

    /// The next message, or nothing where none comes within that time.
    std::optional<redis_value> next(std::chrono::milliseconds within) {
        for (auto left = within;; left = std::chrono::milliseconds(0)) {
            void* out = nullptr;
            if (::redisGetReplyFromReader(context_.get(), &out) != REDIS_OK) fail(context_->errstr);
            if (out) return redis_value(static_cast<redisReply*>(out));
            pollfd waits{context_->fd, POLLIN, 0};
            const int ready = ::poll(&waits, 1, static_cast<int>(left.count()));
            if (ready == 0 || (ready < 0 && errno == EINTR)) return std::nullopt;
            if (ready < 0) fail(std::strerror(errno));
            if (::redisBufferRead(context_.get()) != REDIS_OK) fail(context_->errstr);
        }
    }
    void send(const std::vector<std::string>& words) {
        const std::vector<std::string_view> shown(words.begin(), words.end());
        add(shown);
        for (int all_sent = 0; all_sent == 0;) {
            if (::redisBufferWrite(context_.get(), &all_sent) != REDIS_OK) fail(context_->errstr);
        }
    }

    /// Breaks it, so that whoever waits does so no longer. The only function that another thread may call meanwhile.
    void interrupt() noexcept { ::shutdown(context_->fd, SHUT_RDWR); }

    /// True of an error that ends by itself.
    static bool passes(std::string_view text) noexcept {
        return text.starts_with("LOADING") || text.starts_with("NOSCRIPT") || text.starts_with("BUSY") ||
               text.starts_with("MASTERDOWN") || text.starts_with("TRYAGAIN") || text.starts_with("READONLY");
    }

private:
    [[noreturn]] void fail(const std::string& why) const { throw redis_failure(why, false); }

    static timeval to_timeval(std::chrono::milliseconds time) noexcept {
        return {static_cast<time_t>(time.count() / 1000), static_cast<suseconds_t>(time.count() % 1000 * 1000)};
    }

    struct close {
        void operator()(redisContext* context) const noexcept { ::redisFree(context); }
    };

    std::unique_ptr<redisContext, close> context_;
    std::vector<const char*> argv_;
    std::vector<std::size_t> lengths_;
};

}  // namespace ferry::detail
