// layer 1
// What a `redis_agent_store` tells its server without having been asked: what other servers say, what is left by those that are
// gone, and what Redis has lost. And that this server is there, which it tells the others.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/redis_journal.hpp>
#include <ferry/detail/redis_listener.hpp>
#include <ferry/detail/redis_posts.hpp>
#include <ferry/detail/redis_scripts.hpp>
#include <ferry/error.hpp>
#include <ferry/node_info.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace ferry::detail {

class redis_news : public redis_posts {
public:
    void listen(std::function<void(store_note)> take, std::function<void(seen_nodes)> done) {
        const std::string channels = options_.key_prefix + std::to_string(options_.database) + ":";
        {
            const std::lock_guard lock(mutex_);
            take_ = std::move(take);
        }
        const auto weak = weak_from_this();
        const auto first = std::make_shared<std::function<void(seen_nodes)>>(std::move(done));
        redis_listener::callbacks calls;
        calls.heard = [this, weak](std::string_view text) {
            if (const auto self = weak.lock()) heard(text);
        };
        calls.beat = [this, weak] {
            if (const auto self = weak.lock()) beat();
        };
        calls.subscribed = [this, weak, first] {
            const auto self = weak.lock();
            if (!self) return;
            if (const auto told = std::exchange(*first, nullptr)) return tell_nodes(told);
            come_back();
        };
        calls.failed = [this, weak, first](const std::string& why) {
            const auto self = weak.lock();
            if (const auto told = std::exchange(*first, nullptr); self && told) told({failed(why), {}});
        };
        const std::lock_guard lock(mutex_);
        listener_ = std::make_unique<redis_listener>(
            options_, std::vector{channels + "to:" + options_.server, channels + "all"}, std::move(calls));
        pipeline_.on_reconnect([this, weak] {
            if (const auto self = weak.lock()) come_back();
        });
    }

    void leave(written done) {
        has_left_ = true;
        run({redis_script::leave, {life_}}, to_write({}, std::move(done)));
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

protected:
    using redis_posts::redis_posts;

    void tell(store_note note) {
        std::function<void(store_note)> take;
        {
            const std::lock_guard lock(mutex_);
            take = take_;
        }
        if (take) take(std::move(note));
    }

    /// For a script that holds contents. A Redis that stood still may run one that was given up: nobody knows of its holds then.
    void run_holding(redis_script which, std::vector<std::string> words, told done) {
        auto hold = new_hold();
        words.push_back(hold);
        run({which, std::move(words)}, [this, hold = std::move(hold), done = std::move(done)](redis_answer answer) {
            if (!answer.ok()) {
                const std::lock_guard lock(mutex_);
                if (given_up_.size() < max_given_up) given_up_.push_back({hold, beats_until_run});
            }
            done(std::move(answer));
        });
    }

    /// The store has this task, and is to tell its end.
    void expect_end(std::uint64_t id) {
        const std::lock_guard lock(mutex_);
        posted_.insert(id);
    }
    void ends_came(const std::vector<arrived_end>& ends) {
        const std::lock_guard lock(mutex_);
        for (const auto& each : ends) posted_.erase(each.id);
    }

private:
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
                let_go_of_given_up();
            });
    }

    /// What was sent over a connection that broke may be run a little later than what comes over the next one.
    void let_go_of_given_up() {
        std::vector<std::string> words;
        {
            const std::lock_guard lock(mutex_);
            for (auto& each : given_up_) {
                if (words.size() == max_words) break;
                words.push_back(each.word);
                --each.beats;
            }
            std::erase_if(given_up_, [](const hold& each) { return each.beats == 0; });
        }
        if (!words.empty()) run({redis_script::unhold, std::move(words)}, [](const redis_answer&) {});
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

    struct hold {
        std::string word;
        int beats;
    };
    static constexpr int beats_until_run = 3;
    static constexpr std::size_t max_words = 1000;           // at a time
    static constexpr std::size_t max_given_up = 100 * 1000;  // in an outage; most of them were never sent

    std::atomic<bool> has_left_{false};
    std::mutex mutex_;
    std::vector<hold> given_up_;
    std::function<void(store_note)> take_;
    std::unordered_set<std::uint64_t> posted_;  // and not ended, as far as is known here
    std::unique_ptr<redis_listener> listener_;
};

}  // namespace ferry::detail
