// layer 1
// Posts of a `redis_agent_store`: those to a node keep their order, though large contents are written first.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/redis_contents.hpp>
#include <ferry/detail/redis_link.hpp>
#include <ferry/detail/redis_scripts.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

class redis_posts : public redis_link {
protected:
    using redis_link::redis_link;

    /// Runs the script when all that came before for the node has been sent.
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
        contents_->write(content, "t",
                         [this, self = shared_from_this(), node, made](const redis_contents::stored& stored) {
                             {
                                 const std::lock_guard lock(posts_mutex_);
                                 made->stored = stored;
                             }
                             post_ready(node);
                         });
    }

private:
    struct waiting_post {
        std::vector<std::string> words;
        std::shared_ptr<const payload> content;
        told done;
        std::optional<redis_contents::stored> stored{};  // none: it is still being written
    };

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

    std::mutex posts_mutex_;
    std::unordered_map<std::string, std::deque<std::shared_ptr<waiting_post>>> posts_;
};

}  // namespace ferry::detail
