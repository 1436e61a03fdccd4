// layer 1
// What a `redis_agent_store` does: operations become scripts, answers and messages become what the contract says.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/random_seed.hpp>
#include <ferry/detail/redis_contents.hpp>
#include <ferry/detail/redis_journal.hpp>
#include <ferry/detail/redis_listener.hpp>
#include <ferry/detail/redis_options.hpp>
#include <ferry/detail/redis_pipeline.hpp>
#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace ferry::detail {

class redis_store : public std::enable_shared_from_this<redis_store> {
public:
    using written = std::function<void(store_status)>;

    static std::shared_ptr<redis_store> open(redis_options options) {
        check(options);
        const auto life = random_name();
        if (options.server.empty()) options.server = "server-" + life;
        const auto out = std::shared_ptr<redis_store>(new redis_store(std::move(options), life));
        out->begin();
        out->contents_->begin();
        return out;
    }

    /// Ends what is under way: each `done` has been called then, and no note comes any more, unless this is called within one.
    void close() {
        std::unique_ptr<redis_listener> listener;
        {
            const std::lock_guard lock(mutex_);
            listener = std::move(listener_);
        }
        listener.reset();
        contents_->close();
        pipeline_.close();
    }

    // --- a node's journal ------------------------------------------------------------------------------------------------

    void acquire(const std::string& node, std::function<void(acquired_journal)> done) {
        run({redis_script::acquire, {node, new_hold()}},
            [this, node, done = std::move(done)](const redis_answer& answer) {
                const auto out = std::make_shared<acquired_journal>();
                out->owner = answer.value[2].number();
                for (std::size_t i = 0; i < answer.value[3].size(); ++i) {
                    out->replies.push_back(answer.value[3][i].number());
                }
                take_page(answer, node, out, done);
            });
    }

    void fetch(const std::string& node, epoch owner, std::uint64_t after, std::function<void(acquired_journal)> done) {
        auto out = std::make_shared<acquired_journal>();
        out->owner = owner;
        fetch_page(node, after, true, out, std::move(done));
    }

    void append(const std::string& node, epoch owner, const task_record& task, written done) {
        const bool is_reply = !task.content;
        std::vector<std::string> words{node,
                                       std::to_string(owner),
                                       redis_number(task.order),
                                       std::to_string(task.id),
                                       redis_bool(task.urgent),
                                       task.request_id,
                                       redis_bool(task.wants_reply),
                                       std::to_string(task.attempts),
                                       redis_bool(task.taken),
                                       redis_time(task.accepted),
                                       redis_time(task.expires),
                                       is_reply ? "reply" : "content",
                                       std::to_string(task.reply_number)};
        with_content(redis_script::append, std::move(words), is_reply ? task.reply : task.content, is_reply,
                     [this, node, is_reply, done = std::move(done)](const redis_answer& answer) {
                         auto out = status_of(answer, node);
                         if (out.code == errc::ok && answer.value[1].is_list()) {
                             auto stored = contents_->open(answer.value[1]);
                             if (!is_reply) out.content = std::move(stored);
                         }
                         done(std::move(out));
                     });
    }

    void update(const std::string& node, epoch owner, const task_record& task, written done) {
        std::vector<std::string> words{node,
                                       std::to_string(owner),
                                       redis_number(task.order),
                                       std::to_string(task.attempts),
                                       redis_bool(task.taken),
                                       redis_bool(task.reply != nullptr),
                                       std::to_string(task.reply_number)};
        with_content(redis_script::update, std::move(words), task.reply, true, to_write(node, std::move(done)));
    }

    void settle(const std::string& node, epoch owner, std::uint64_t order, written done) {
        run({redis_script::settle, {node, std::to_string(owner), redis_number(order)}},
            to_write(node, std::move(done)));
    }

    void end(const std::string& node, epoch owner, std::uint64_t order, const task_end& end, written done) {
        if (end.reply && end.reply->size() > options_.max_bytes) {
            return end_without_reply(node, owner, order, end, std::move(done));
        }
        std::vector<std::string> words{node,
                                       std::to_string(owner),
                                       redis_number(order),
                                       std::to_string(static_cast<int>(end.how.kind)),
                                       std::to_string(static_cast<int>(end.how.reason)),
                                       end.how.text,
                                       std::to_string(end.how.attempts),
                                       end.request_id,
                                       std::to_string(end.reply_number),
                                       redis_bool(end.reply != nullptr)};
        with_content(redis_script::end, std::move(words), end.reply, true, to_write(node, std::move(done)));
    }

    void announce(epoch owner, const seen_node& node, written done) {
        run({redis_script::announce,
             {node.id, std::to_string(owner), std::to_string(static_cast<int>(node.status)), redis_time(node.since)}},
            to_write(node.id, std::move(done)));
    }

    void nodes(std::function<void(known_nodes)> done) {
        run({{}, {"SMEMBERS", key("nodes")}}, [this, done = std::move(done)](const redis_answer& a) {
            known_nodes out;
            if (!a.ok()) out.status = failed(a.problem);
            for (std::size_t i = 0; i < a.value.size(); ++i) out.ids.emplace_back(a.value[i].text());
            done(std::move(out));
        });
    }

    // --- what this server asks for ---------------------------------------------------------------------------------------

    void listen(std::function<void(store_note)> take, std::function<void(seen_nodes)> done) {
        const std::string channels = options_.key_prefix + std::to_string(options_.database) + ":";
        {
            const std::lock_guard lock(mutex_);
            take_ = std::move(take);
        }
        auto weak = weak_from_this();
        const auto first = std::make_shared<std::function<void(seen_nodes)>>(std::move(done));
        redis_listener::callbacks calls;
        calls.heard = [weak](std::string_view text) {
            if (const auto self = weak.lock()) self->heard(text);
        };
        calls.beat = [weak] {
            if (const auto self = weak.lock()) self->beat();
        };
        calls.subscribed = [weak, first] {
            const auto self = weak.lock();
            if (!self) return;
            if (const auto told = std::exchange(*first, nullptr)) return self->tell_nodes(told);
            self->come_back();
        };
        calls.failed = [weak, first](const std::string& why) {
            const auto self = weak.lock();
            if (const auto told = std::exchange(*first, nullptr); self && told) told({self->failed(why), {}});
        };
        const std::lock_guard lock(mutex_);
        listener_ = std::make_unique<redis_listener>(
            options_, std::vector{channels + "to:" + options_.server, channels + "all"}, std::move(calls));
        pipeline_.on_reconnect([weak] {
            if (const auto self = weak.lock()) self->come_back();
        });
    }

    void post(const std::string& node, const task_record& task, written done) {
        std::vector<std::string> words{node,
                                       std::to_string(task.id),
                                       redis_bool(task.urgent),
                                       task.request_id,
                                       redis_bool(task.wants_reply),
                                       redis_time(task.accepted),
                                       redis_time(task.expires),
                                       redis_time(task.reply_until)};
        auto told = [this, node, id = task.id, done = std::move(done)](const redis_answer& answer) {
            auto status = status_of(answer, node);
            const bool has_owner = answer.value[1].number() == 1;
            if (status.code == errc::ok) {
                const std::lock_guard lock(mutex_);
                posted_.insert(id);
            }
            const bool is_free = status.code == errc::ok && !has_owner;
            done(std::move(status));
            if (is_free) tell({.what = store_note::kind::free, .node = node});
        };
        in_turn(node, std::move(words), task.content, std::move(told));
    }

    void withdraw(const std::string& node, std::uint64_t id, written done) {
        run({redis_script::withdraw, {node, std::to_string(id)}}, to_write(node, std::move(done)));
    }

    void ends(std::uint64_t after, std::function<void(arrived_ends)> done) {
        ends_page(after, std::make_shared<arrived_ends>(), std::move(done));
    }

    void acknowledge(std::uint64_t place, written done) {
        run({redis_script::acknowledge, {redis_number(place)}}, to_write({}, std::move(done)));
    }

    void leave(written done) {
        has_left_ = true;
        run({redis_script::leave, {life_}}, to_write({}, std::move(done)));
    }

private:
    using told = redis_pipeline::told;

    redis_store(redis_options options, std::string life)
        : options_(std::move(options)),
          life_(std::move(life)),
          contents_(std::make_shared<redis_contents>(options_, options_.server, life_)),
          pipeline_(options_, options_.server) {}

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
    }

    static std::string millis(std::chrono::milliseconds time) { return std::to_string(time.count()); }

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

    /// There will never be room for the reply.
    void end_without_reply(const std::string& node, epoch owner, std::uint64_t order, const task_end& had,
                           written done) {
        const auto why = "a reply of " + std::to_string(had.reply->size()) +
                         " bytes is dropped, which is more than redis_options.max_bytes";
        const task_end end{{outcome_kind::store_failed, errc::too_large, why, had.how.attempts}, had.request_id};
        this->end(node, owner, order, end, [why, done = std::move(done)](store_status status) {
            if (status.code == errc::ok) status.text = why;
            done(std::move(status));
        });
    }

    // --- posts -----------------------------------------------------------------------------------------------------------

    struct waiting_post {
        std::vector<std::string> words;
        std::shared_ptr<const payload> content;
        told done;
        std::optional<redis_contents::stored> stored{};  // none: it is still being written
    };

    /// Posts to a node keep their order, though large contents are written first.
    void in_turn(const std::string& node, std::vector<std::string> words, const std::shared_ptr<const payload>& content,
                 told done) {
        if (!content->in_memory()) return done({{}, "a content that is not in memory can't be stored"});
        const auto made = std::make_shared<waiting_post>(waiting_post{std::move(words), content, std::move(done)});
        const bool is_small = content->size() <= redis_inline_bytes;
        {
            const std::lock_guard lock(posts_mutex_);
            if (is_small) made->stored = redis_contents::stored{{}, contents_->need(content)};
            posts_[node].push_back(made);
        }
        if (is_small) return post_ready(node);
        contents_->write(content, "t", [self = shared_from_this(), node, made](const redis_contents::stored& stored) {
            {
                const std::lock_guard lock(self->posts_mutex_);
                made->stored = stored;
            }
            self->post_ready(node);
        });
    }

    /// Sends those whose turn it is.
    void post_ready(const std::string& node) {
        std::vector<std::shared_ptr<waiting_post>> refused;
        {
            const std::lock_guard lock(posts_mutex_);
            const auto found = posts_.find(node);
            if (found == posts_.end()) return;
            auto& queue = found->second;
            for (; !queue.empty() && queue.front()->stored; queue.pop_front()) {
                auto& post = *queue.front();
                if (post.stored->status.code != errc::ok) {
                    refused.push_back(queue.front());
                    continue;
                }
                const auto& id = post.stored->id;
                auto told = ended(id, post.content, std::move(post.done));
                run(post.content->size() <= redis_inline_bytes
                        ? with_data(redis_script::post, std::move(post.words), id, *post.content)
                        : without_data(redis_script::post, std::move(post.words), id, *post.content),
                    std::move(told));
            }
            if (queue.empty()) posts_.erase(found);
        }
        for (const auto& each : refused) {
            ended(each->stored->id, each->content, std::move(each->done))(refusal(each->stored->status));
        }
    }

    // --- answers that come in pages --------------------------------------------------------------------------------------

    void fetch_page(const std::string& node, std::uint64_t after, bool with_changed,
                    const std::shared_ptr<acquired_journal>& out, std::function<void(acquired_journal)> done) {
        const auto since = with_changed ? changes_seen(node, out->owner) : "";
        run({redis_script::fetch, {node, std::to_string(out->owner), redis_number(after), since, new_hold()}},
            [this, node, out, done = std::move(done)](const redis_answer& answer) {
                take_page(answer, node, out, done);
            });
    }

    /// Up to which the owner knows what was changed in its journal.
    std::string changes_seen(const std::string& node, epoch owner) {
        const std::lock_guard lock(mutex_);
        const auto found = changes_.find(node);
        return found != changes_.end() && found->second.first == owner ? found->second.second : "0";
    }

    /// For what a script holds: no two have the same, unless one is run twice.
    std::string new_hold() { return life_ + "-" + std::to_string(++last_hold_); }

    void take_page(const redis_answer& answer, const std::string& node, const std::shared_ptr<acquired_journal>& out,
                   const std::function<void(acquired_journal)>& done) {
        try {
            out->status = status_of(answer, node);
            if (out->status.code != errc::ok) return done({std::move(out->status), 0, {}});
            const auto page = answer.value[1];
            std::uint64_t last = 0;
            for (std::size_t i = 0; i < page[1].size(); ++i) {
                out->tasks.push_back(to_task(page[1][i], *contents_));
                last = std::max(last, out->tasks.back().order);
            }
            if (page[0].number() == 1) return fetch_page(node, last, false, out, done);
            const std::lock_guard lock(mutex_);
            changes_[node] = {out->owner, std::string(page[2].text())};
        } catch (const error& e) {
            return done({failed(e.what()), 0, {}});
        }
        std::sort(out->tasks.begin(), out->tasks.end(), [](const auto& a, const auto& b) { return a.order < b.order; });
        done(std::move(*out));
    }

    void ends_page(std::uint64_t after, const std::shared_ptr<arrived_ends>& out,
                   std::function<void(arrived_ends)> done) {
        auto told = [this, out, done = std::move(done)](const redis_answer& answer) {
            try {
                out->status = status_of(answer, {});
                if (out->status.code != errc::ok) return done({std::move(out->status), {}});
                for (std::size_t i = 0; i < answer.value[2].size(); ++i) {
                    out->ends.push_back(to_end(answer.value[2][i], *contents_));
                }
                if (answer.value[1].number() == 1) return ends_page(out->ends.back().place, out, done);
            } catch (const error& e) {
                return done({failed(e.what()), {}});
            }
            {
                const std::lock_guard lock(mutex_);
                for (const auto& each : out->ends) posted_.erase(each.id);
            }
            done(std::move(*out));
        };
        run({redis_script::ends, {redis_number(after), new_hold()}}, std::move(told));
    }

    // --- what comes by itself --------------------------------------------------------------------------------------------

    void tell(store_note note) {
        std::function<void(store_note)> take;
        {
            const std::lock_guard lock(mutex_);
            take = take_;
        }
        if (take) take(std::move(note));
    }

    void heard(std::string_view text) {
        const auto rest = [&](std::string_view what) { return std::string(text.substr(what.size())); };
        if (text.starts_with("tasks ")) return tell({.what = store_note::kind::tasks, .node = rest("tasks ")});
        if (text.starts_with("lost ")) return tell({.what = store_note::kind::lost, .node = rest("lost ")});
        if (text == "ends") return tell({.what = store_note::kind::ends});
        if (text == "left") return beat();
        if (text.starts_with("seen ")) heard_of(rest("seen "));
    }

    /// "STATUS SINCE LENGTH SERVERNODE", the length is that of the server's name.
    void heard_of(const std::string& text) {
        int status = 0, begin = 0;
        unsigned long long since = 0;
        std::size_t length = 0;
        if (std::sscanf(text.c_str(), "%d %llu %zu%n", &status, &since, &length, &begin) != 3) return;
        if (text[static_cast<std::size_t>(begin)] != ' ') return;
        const auto names = text.substr(static_cast<std::size_t>(begin) + 1);
        if (names.size() <= length || names.substr(0, length) == options_.server) return;
        if (status < 0 || status > 2) return;
        tell({.what = store_note::kind::seen,
              .node = names.substr(length),
              .status = static_cast<node_status>(status),
              .since = std::chrono::system_clock::time_point(std::chrono::microseconds(since))});
    }

    /// This server is there. What others have left is taken over.
    void beat() {
        if (has_left_) return;
        run({redis_script::beat, {life_, millis(options_.lease), millis(options_.forget_after)}},
            [this](const redis_answer& answer) {
                if (!answer.ok()) return;  // the next one comes soon
                if (answer.value[0].text() == "replaced") {
                    if (!replaced_.exchange(true)) tell_gone({});
                    return;
                }
                for (std::size_t i = 0; i < answer.value[1].size(); ++i) {
                    tell({.what = store_note::kind::free, .node = std::string(answer.value[1][i].text())});
                }
                if (answer.value[2].number() == 1) tell({.what = store_note::kind::ends});
                if (answer.value[3].number() == 1) check_posted();
                if (answer.value[4].number() == 1) come_back();
            });
    }

    /// Messages may have been missed, and Redis may have lost what it had.
    void come_back() {
        tell({.what = store_note::kind::back});
        tell_owned();
        tell_seen();
        check_posted();
    }

    /// What is this server's by name and was acquired by nobody here: it died with an earlier life, or an answer was lost.
    void tell_owned() {
        run({{}, {"SMEMBERS", key("owned:" + options_.server)}}, [this](const redis_answer& answer) {
            for (std::size_t i = 0; i < answer.value.size(); ++i) {
                tell({.what = store_note::kind::free, .node = std::string(answer.value[i].text())});
            }
        });
    }

    void check_posted() {
        run({{}, {"HKEYS", key("p:" + options_.server)}}, [this](const redis_answer& answer) {
            if (!answer.ok()) return;
            std::unordered_set<std::uint64_t> known;
            for (std::size_t i = 0; i < answer.value.size(); ++i) known.insert(answer.value[i].number());
            tell_gone(known);
        });
    }

    void tell_gone(const std::unordered_set<std::uint64_t>& known) {
        std::vector<std::uint64_t> gone;
        {
            const std::lock_guard lock(mutex_);
            for (const auto id : posted_) {
                if (!known.contains(id)) gone.push_back(id);
            }
            for (const auto id : gone) posted_.erase(id);
        }
        for (const auto id : gone) tell({.what = store_note::kind::gone, .id = id});
    }

    void tell_nodes(std::function<void(seen_nodes)> done) {
        list_nodes([this, done = std::move(done)](seen_nodes known, const std::vector<bool>&) {
            done(std::move(known));
            tell_owned();
        });
    }

    /// The others' nodes, whose changes may have been missed.
    void tell_seen() {
        list_nodes([this](const seen_nodes& known, const std::vector<bool>& is_own) {
            for (std::size_t i = 0; i < known.nodes.size(); ++i) {
                const auto& each = known.nodes[i];
                if (is_own[i]) continue;
                tell({.what = store_note::kind::seen, .node = each.id, .status = each.status, .since = each.since});
            }
        });
    }

    /// Calls `done` with all nodes, and whether the journal of each is this server's.
    void list_nodes(std::function<void(seen_nodes, const std::vector<bool>&)> done) {
        run({{}, {"SMEMBERS", key("nodes")}}, [this, done = std::move(done)](const redis_answer& answer) {
            const auto out = std::make_shared<std::pair<seen_nodes, std::vector<bool>>>();
            if (!answer.ok()) out->first.status = failed(answer.problem);
            for (std::size_t i = 0; i < answer.value.size(); ++i) {
                std::string id(answer.value[i].text());
                run({{}, {"HMGET", key("n:" + id), "server", "status", "since"}},
                    [this, out, id](const redis_answer& of) {
                        if (!of.ok()) return void(out->first.status = failed(of.problem));
                        out->first.nodes.push_back(to_seen(id, of.value[1], of.value[2]));
                        out->second.push_back(of.value[0].text() == options_.server);
                    });
            }
            run({{}, {"PING"}}, [this, out, done](const redis_answer& last) {
                if (!last.ok()) out->first.status = failed(last.problem);
                done(std::move(out->first), out->second);
            });
        });
    }

    const redis_options options_;
    const std::string life_;
    std::atomic<bool> replaced_{false}, has_left_{false};
    std::mutex mutex_;
    std::function<void(store_note)> take_;
    std::unordered_map<std::string, std::pair<epoch, std::string>> changes_;  // of journals that are, or were, owned
    std::atomic<std::uint64_t> last_hold_{0};
    std::unordered_set<std::uint64_t> posted_;  // and not ended, as far as is known here
    std::unique_ptr<redis_listener> listener_;
    std::mutex posts_mutex_;
    std::unordered_map<std::string, std::deque<std::shared_ptr<waiting_post>>> posts_;
    std::shared_ptr<redis_contents> contents_;
    redis_pipeline pipeline_;
};

}  // namespace ferry::detail
