// layer 1
// What all that a `redis_agent_store` does stands on: scripts that are run, with the contents that they are about, and what their
// answers mean.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/random_seed.hpp>
#include <ferry/detail/redis_connection.hpp>
#include <ferry/detail/redis_contents.hpp>
#include <ferry/detail/redis_options.hpp>
#include <ferry/detail/redis_pipeline.hpp>
#include <ferry/detail/redis_scripts.hpp>
#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/payload.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ferry::detail {

class redis_link : public std::enable_shared_from_this<redis_link> {
public:
    using written = std::function<void(store_status)>;

    redis_link(const redis_link&) = delete;
    redis_link& operator=(const redis_link&) = delete;

protected:
    using told = redis_pipeline::told;

    /// `life` is a text that no other process has.
    redis_link(redis_options options, std::string life)
        : options_(std::move(options)),
          life_(std::move(life)),
          contents_(std::make_shared<redis_contents>(options_, options_.server, life_)),
          pipeline_(options_, options_.server) {}
    virtual ~redis_link() = default;

    static void check(const redis_options& options) {
        const auto refuse = [](const std::string& what) {
            throw error(errc::invalid_argument, "redis_options." + what);
        };
        if (options.unix_socket.empty() && options.host.empty()) refuse("host: is empty: name one, or a unix_socket");
        if (options.unix_socket.empty() && options.port == 0) refuse("port: 0 can't be connected to");
        if (options.database < 0) refuse("database: " + std::to_string(options.database) + " is negative");
        if (options.key_prefix.empty()) refuse("key_prefix: is empty: name one that nothing else in the Redis has");
        if (options.chunk_bytes < 1024 || options.chunk_bytes > (64U << 20)) {
            refuse("chunk_bytes: " + std::to_string(options.chunk_bytes) + " is not within 1 KiB and 64 MiB");
        }
        for (const auto& [name, time] : {std::pair{"connect_within", options.connect_within},
                                         {"answer_within", options.answer_within},
                                         {"lease", options.lease},
                                         {"forget_after", options.forget_after}}) {
            if (time.count() <= 0) refuse(std::string(name) + ": must be more than 0 ms");
        }
        if (options.patience.count() < 0) refuse("patience: must not be negative");
        if (options.forget_after < options.lease) refuse("forget_after: must not be less than lease");
        if (!options.user.empty() && options.password.empty()) refuse("password: is empty, and there is a user");
    }

    static std::string random_name() {
        char digits[17];
        std::snprintf(digits, sizeof digits, "%016llx",
                      static_cast<unsigned long long>(random_bits(random_seed()).next()));
        return digits;
    }

    /// Says hello. Throws `error{store_failed}`.
    void begin() {
        const auto came = std::make_shared<std::promise<redis_answer>>();
        pipeline_.run({redis_script::hello, {life_, millis(options_.lease), millis(options_.forget_after), "1"}},
                      [came](redis_answer answer) { came->set_value(std::move(answer)); });
        const auto answer = came->get_future().get();
        const auto name = redis_connection::name_of(options_) + ": ";
        if (!answer.ok()) throw error(errc::store_failed, name + answer.problem);
        if (answer.value[0].text() == "format") {
            throw error(errc::store_failed, name + "a newer ferry has written what is under " + options_.key_prefix +
                                                " (format " + std::string(answer.value[1].text()) +
                                                ", this one knows 1); take that one, or another key_prefix");
        }
        contents_->begin();
    }

    static std::string millis(std::chrono::milliseconds time) { return std::to_string(time.count()); }

    /// For what a script holds: no two have the same, unless one is run twice.
    std::string new_hold() { return life_ + "-" + std::to_string(++last_hold_); }

    // --- scripts and their answers ---------------------------------------------------------------------------------------

    std::string key(const std::string& name) const { return options_.key_prefix + name; }

    /// What `done` uses of this store is there when it is called.
    void run(redis_command command, told done) {
        if (replaced_) {
            command = {{}, {"PING"}};
            done = [this, done = std::move(done)](const redis_answer&) {
                done({{}, "another server goes by the name " + options_.server + " now"});
            };
        }
        pipeline_.run(std::move(command), [self = shared_from_this(), done = std::move(done)](redis_answer answer) {
            done(std::move(answer));
        });
    }

    store_status failed(const std::string& why) const {
        return {errc::store_failed, redis_connection::name_of(options_) + ": " + why};
    }

    store_status status_of(const redis_answer& answer, const std::string& node) const {
        if (!answer.ok()) {
            return answer.code == errc::store_failed ? failed(answer.problem)
                                                     : store_status{answer.code, answer.problem};
        }
        const auto text = answer.value[0].text();
        if (text == "ok") return {};
        if (text == "lost") return {errc::ownership_lost, "another server has acquired the journal of " + node};
        if (text == "unknown") return {errc::node_unknown, "no server has ever acquired the journal of " + node};
        if (text == "full") return contents_->full();
        return failed("a content is missing");
    }

    told to_write(std::string node, written done) {
        return [this, node = std::move(node), done = std::move(done)](const redis_answer& answer) {
            done(status_of(answer, node));
        };
    }

    /// Runs a script whose last words are about a content, which may be none. A large one is written first.
    void with_content(redis_script script, std::vector<std::string> words,
                      const std::shared_ptr<const payload>& content, bool is_reply, told done) {
        if (!content) return run({script, std::move(words)}, std::move(done));
        if (!content->in_memory()) return done({{}, "a content that is not in memory can't be stored"});
        if (content->size() <= redis_inline_bytes) {
            const auto id = contents_->need(content);
            auto command = with_data(script, std::move(words), id, *content);
            return run(std::move(command), ended(id, content, std::move(done)));
        }
        contents_->write(content, is_reply ? "r" : "t",
                         [self = shared_from_this(), script, words = std::move(words), content,
                          done = std::move(done)](const redis_contents::stored& stored) mutable {
                             auto told = self->ended(stored.id, content, std::move(done));
                             if (stored.status.code != errc::ok) return told(refusal(stored.status));
                             self->run(self->without_data(script, std::move(words), stored.id, *content),
                                       std::move(told));
                         });
    }

    /// As an answer.
    static redis_answer refusal(const store_status& why) { return {{}, why.text, why.code}; }

    redis_command with_data(redis_script script, std::vector<std::string> words, const std::string& id,
                            const payload& content) const {
        words.insert(words.end(), {id, std::to_string(content.size()), "1", std::to_string(options_.max_bytes)});
        redis_command out{script, std::move(words)};
        out.data = content.flatten();
        out.has_data = true;
        return out;
    }
    redis_command without_data(redis_script script, std::vector<std::string> words, const std::string& id,
                               const payload& content) const {
        words.insert(words.end(), {id, std::to_string(content.size()), "0", std::to_string(options_.max_bytes), ""});
        return {script, std::move(words)};
    }

    /// With the operation the need for the content ends.
    told ended(std::string id, std::shared_ptr<const payload> content, told done) {
        return [this, id = std::move(id), content = std::move(content), done = std::move(done)](redis_answer answer) {
            done(std::move(answer));
            contents_->end(id);
        };
    }

    const redis_options options_;
    const std::string life_;
    std::atomic<bool> replaced_{false};  // another server goes by this one's name
    const std::shared_ptr<redis_contents> contents_;
    redis_pipeline pipeline_;

private:
    std::atomic<std::uint64_t> last_hold_{0};
};

}  // namespace ferry::detail
