// layer 1
// The operations of a `redis_agent_store`: what the contract asks for becomes scripts, and their answers what it promises.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/redis_journal.hpp>
#include <ferry/detail/redis_news.hpp>
#include <ferry/detail/redis_options.hpp>
#include <ferry/detail/redis_scripts.hpp>
#include <ferry/error.hpp>
#include <ferry/outcome.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

class redis_store final : public redis_news {
public:
    static std::shared_ptr<redis_store> open(redis_options options) {
        check(options);
        const auto life = random_name();
        if (options.server.empty()) options.server = "server-" + life;
        const auto out = std::shared_ptr<redis_store>(new redis_store(std::move(options), life));
        out->begin();
        return out;
    }

    // --- a node's journal ------------------------------------------------------------------------------------------------

    void acquire(const std::string& node, std::function<void(acquired_journal)> done) {
        run_holding(redis_script::acquire, {node}, [this, node, done = std::move(done)](const redis_answer& answer) {
            const auto out = std::make_shared<acquired_journal>();
            out->owner = answer.value[2].number();
            for (std::size_t i = 0; i < answer.value[3].size(); ++i) {
                out->replies.push_back(answer.value[3][i].number());
            }
            take_page(answer, node, true, out, done);
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
            if (status.code == errc::ok) expect_end(id);
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

private:
    using redis_news::redis_news;

    /// There will never be room for the reply.
    void end_without_reply(const std::string& node, epoch owner, std::uint64_t order, const task_end& had,
                           written done) {
        const auto why = "a reply of " + std::to_string(had.reply->size()) +
                         " bytes is dropped, which is more than redis_options.max_bytes";
        task_end without;
        without.how = {outcome_kind::store_failed, errc::too_large, why, had.how.attempts};
        without.request_id = had.request_id;
        this->end(node, owner, order, without, [why, done = std::move(done)](store_status status) {
            if (status.code == errc::ok) status.text = why;
            done(std::move(status));
        });
    }

    // --- answers that come in pages --------------------------------------------------------------------------------------

    void fetch_page(const std::string& node, std::uint64_t after, bool with_changed,
                    const std::shared_ptr<acquired_journal>& out, std::function<void(acquired_journal)> done) {
        const auto since = with_changed ? changes_seen(node, out->owner) : "";
        run_holding(redis_script::fetch, {node, std::to_string(out->owner), redis_number(after), since},
                    [this, node, with_changed, out, done = std::move(done)](const redis_answer& answer) {
                        take_page(answer, node, with_changed, out, done);
                    });
    }

    /// Up to which the owner knows what was changed in its journal.
    std::string changes_seen(const std::string& node, epoch owner) {
        const std::lock_guard lock(changes_mutex_);
        const auto found = changes_.find(node);
        return found != changes_.end() && found->second.first == owner ? found->second.second : "0";
    }

    /// What is changed while the pages come counts from the first one on: some of it comes twice then.
    void take_page(const redis_answer& answer, const std::string& node, bool is_first,
                   const std::shared_ptr<acquired_journal>& out, const std::function<void(acquired_journal)>& done) {
        try {
            out->status = status_of(answer, node);
            if (out->status.code != errc::ok) return done({std::move(out->status), 0, {}});
            const auto page = answer.value[1];
            std::uint64_t last = 0;
            for (std::size_t i = 0; i < page[1].size(); ++i) {
                out->tasks.push_back(to_task(page[1][i], *contents_));
                last = std::max(last, out->tasks.back().order);
            }
            if (is_first) {
                const std::lock_guard lock(changes_mutex_);
                changes_[node] = {out->owner, std::string(page[2].text())};
            }
            if (page[0].number() == 1) return fetch_page(node, last, false, out, done);
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
            ends_came(out->ends);
            done(std::move(*out));
        };
        run_holding(redis_script::ends, {redis_number(after)}, std::move(told));
    }

    std::mutex changes_mutex_;
    std::unordered_map<std::string, std::pair<epoch, std::string>> changes_;  // of journals that are, or were, owned
};

}  // namespace ferry::detail
