// layer 1
// Contents in a Redis: written in pieces, read in ranges, held as long as somebody here may read them.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/redis_pipeline.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <atomic>
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

/// Safe to use from several threads. Contents travel over a connection of their own, so that small commands don't wait
/// behind them.
class redis_contents : public std::enable_shared_from_this<redis_contents> {
public:
    /// A content is in Redis under this name, or why it isn't.
    struct stored {
        store_status status{};
        std::string id{};
    };

    /// `life` is a text that no other process has.
    redis_contents(const redis_options& options, const std::string& server, std::string life)
        : options_(options), life_(std::move(life)), pipeline_(options, server) {}

    void begin() {
        pipeline_.on_reconnect([weak = this->weak_from_this()] {
            if (const auto self = weak.lock()) self->release_again();
        });
    }

    /// A name for a content that is to come with a command: the same for all that ask while one of them is not over. Each
    /// `need` needs an `end`.
    std::string need(const std::shared_ptr<const payload>& content) {
        const std::lock_guard lock(mutex_);
        return find(content).id;
    }

    /// Writes a content, unless that is done or under way, and calls `ready(stored)`, perhaps at once. `of` says what it is, t
    /// or r. Needs an `end` in any case.
    void write(const std::shared_ptr<const payload>& content, const char* of, std::function<void(stored)> ready) {
        std::unique_lock lock(mutex_);
        auto& f = find(content);
        if (f.state == writing_state::done) {
            const stored out{{}, f.id};
            lock.unlock();
            return ready(out);
        }
        f.waiting.push_back(std::move(ready));
        if (std::exchange(f.state, writing_state::writing) == writing_state::writing) return;
        const auto id = f.id;
        lock.unlock();
        reserve(content, id, of);
    }

    /// The operation that needed the content is over.
    void end(const std::string& id) {
        {
            const std::lock_guard lock(mutex_);
            const auto found = filings_.find(id);
            if (found == filings_.end() || --found->second.users > 0) return;
            const bool is_held = found->second.state == writing_state::done;
            forget_name(found->second);
            filings_.erase(found);
            if (!is_held) return;
        }
        release(id, id + " written");
    }

    /// Nothing is under way afterwards.
    void close() { pipeline_.close(); }

    /// From a script's answer: name, size, the bytes where they came along, the size of pieces, and by what it is held. Null
    /// where there is none, or where it is missing.
    std::shared_ptr<const payload> open(const redis_value& from) {
        if (!from.is_list()) return nullptr;
        const auto size = from[1].number(), piece = from[3].number();
        if (!from[2].is_null()) return std::make_shared<const payload>(from[2].data());
        if (size == 0 || piece == 0) return nullptr;
        return std::make_shared<const payload>(std::make_shared<source>(
            this->weak_from_this(), std::string(from[0].text()), std::string(from[4].text()), size, piece));
    }

    /// This process does not need it any more. Where that can't be told, it is told again later.
    void release(const std::string& id, const std::string& hold) {
        pipeline_.run({redis_script::release, {id, hold}},
                      [self = this->shared_from_this(), id, hold](const redis_answer& answer) {
                          if (answer.ok()) return;
                          const std::lock_guard lock(self->mutex_);
                          self->unreleased_.emplace_back(id, hold);
                      });
    }

    store_status full() const {
        return {errc::queue_full, "contents in Redis would take more than " + std::to_string(options_.max_bytes) +
                                      " bytes: see redis_options.max_bytes"};
    }

private:
    enum class writing_state { none, writing, done };
    struct filing {
        std::weak_ptr<const payload> content;
        const payload* at;
        std::string id;
        std::size_t users = 0;
        writing_state state = writing_state::none;
        std::vector<std::function<void(stored)>> waiting{};
    };

    class source final : public payload_source {
    public:
        source(std::weak_ptr<redis_contents> in, std::string id, std::string hold, std::uint64_t size,
               std::uint64_t chunk)
            : in_(std::move(in)), id_(std::move(id)), hold_(std::move(hold)), size_(size), chunk_(chunk) {}
        ~source() override {
            if (const auto in = in_.lock()) in->release(id_, hold_);
        }
        std::uint64_t size() const noexcept override { return size_; }
        void read(std::uint64_t offset, std::uint64_t length, std::function<void(range_result)> done) const override {
            const auto in = in_.lock();
            if (!in) return done({errc::source_failed, {}, "the store that has the content is closed"});
            in->read(id_, chunk_, offset, length, std::move(done));
        }

    private:
        const std::weak_ptr<redis_contents> in_;
        const std::string id_, hold_;
        const std::uint64_t size_, chunk_;
    };

    std::string key(const std::string& id) const { return options_.key_prefix + "c:" + id; }

    /// Under the mutex. One user more.
    filing& find(const std::shared_ptr<const payload>& content) {
        auto& newest = by_content_[content.get()];
        auto found = filings_.find(newest);
        if (found == filings_.end() || found->second.content.lock() != content) {
            newest = life_ + "-" + std::to_string(++last_);
            found = filings_.emplace(newest, filing{content, content.get(), newest}).first;
        }
        ++found->second.users;
        return found->second;
    }

    /// Under the mutex.
    void forget_name(const filing& f) {
        const auto newest = by_content_.find(f.at);
        if (newest != by_content_.end() && newest->second == f.id) by_content_.erase(newest);
    }

    void release_again() {
        std::vector<std::pair<std::string, std::string>> again;
        {
            const std::lock_guard lock(mutex_);
            again.swap(unreleased_);
        }
        for (const auto& [id, hold] : again) release(id, hold);
    }

    void reserve(const std::shared_ptr<const payload>& content, const std::string& id, const char* of) {
        redis_command room{redis_script::reserve,
                           {id, of, std::to_string(content->size()), std::to_string(options_.max_bytes),
                            std::to_string(options_.chunk_bytes)}};
        pipeline_.run(std::move(room), [self = this->shared_from_this(), content, id](const redis_answer& answer) {
            if (!answer.ok()) return self->written(id, {errc::store_failed, answer.problem});
            if (answer.value[0].text() == "full") return self->written(id, self->full());
            const auto job = std::make_shared<upload>(upload{content, id});
            for (int i = 0; i < 4; ++i) self->write_next(job);
        });
    }

    struct upload {
        std::shared_ptr<const payload> content;
        std::string id;
        std::uint64_t next = 0;  // chunk to be written
        std::size_t under_way = 0;
        std::string problem{};
    };

    /// On the pipeline's thread only.
    void write_next(const std::shared_ptr<upload>& job) {
        const std::uint64_t chunk = options_.chunk_bytes, at = job->next * chunk;
        if (at >= job->content->size() || !job->problem.empty()) {
            if (job->under_way == 0) {
                written(job->id, {job->problem.empty() ? errc::ok : errc::store_failed, job->problem});
            }
            return;
        }
        redis_command set{redis_script::chunk, {job->id, std::to_string(job->next++)}};
        set.data = job->content->slice(at, chunk).flatten();
        set.has_data = true;
        ++job->under_way;
        pipeline_.run(std::move(set), [self = this->shared_from_this(), job](const redis_answer& answer) {
            --job->under_way;
            if (!answer.ok()) {
                job->problem = answer.problem;
            } else if (answer.value[0].text() != "ok") {
                job->problem = "a content is not in Redis any more";
            }
            self->write_next(job);
        });
    }

    void written(const std::string& id, const store_status& status) {
        std::vector<std::function<void(stored)>> waiting;
        {
            const std::lock_guard lock(mutex_);
            const auto found = filings_.find(id);
            if (found == filings_.end()) return;
            found->second.state = status.code == errc::ok ? writing_state::done : writing_state::none;
            waiting.swap(found->second.waiting);
            if (status.code != errc::ok) forget_name(found->second);  // another attempt is made under another one
        }
        if (status.code != errc::ok) release(id, id + " written");
        for (const auto& each : waiting) each({status, id});
    }

    void read(const std::string& id, std::uint64_t chunk, std::uint64_t offset, std::uint64_t length,
              std::function<void(range_result)> done) {
        if (length == 0) return done({});
        struct range {
            std::function<void(range_result)> done;
            payload data{};
            std::string problem{};
            std::uint64_t left;
        };
        const auto first = offset / chunk, last = (offset + length - 1) / chunk;
        const auto job = std::make_shared<range>(range{std::move(done), {}, {}, last - first + 1});
        for (auto k = first; k <= last; ++k) {
            const auto from = std::max(offset, k * chunk) - k * chunk;
            const auto to = std::min(offset + length, (k + 1) * chunk) - k * chunk;
            redis_command get{{}, {"HGET", key(id), std::to_string(k)}};
            get.answer_bytes = chunk;
            pipeline_.run(std::move(get), [job, from, to](const redis_answer& answer) {
                if (!answer.ok()) {
                    job->problem = answer.problem;
                } else if (answer.value.text().size() < to) {
                    job->problem = "a content is not in Redis any more, or was cut short";
                } else {
                    job->data.append(answer.value.data().slice(from, to - from));
                }
                if (--job->left > 0) return;
                if (job->problem.empty()) return job->done({errc::ok, std::move(job->data), {}});
                job->done({errc::source_failed, {}, job->problem});
            });
        }
    }

    const redis_options options_;
    const std::string life_;
    std::mutex mutex_;
    std::uint64_t last_ = 0;
    std::unordered_map<std::string, filing> filings_;
    std::unordered_map<const payload*, std::string> by_content_;
    std::vector<std::pair<std::string, std::string>> unreleased_;
    redis_pipeline pipeline_;
};

}  // namespace ferry::detail
