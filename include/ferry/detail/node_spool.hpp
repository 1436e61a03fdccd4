// layer 3
// A node's spool folder towards one researcher: parts of tasks, and the large replies that the researcher has not accepted yet.
#pragma once

#include <ferry/detail/random_seed.hpp>
#include <ferry/error.hpp>
#include <ferry/growing_pause.hpp>
#include <ferry/payload.hpp>
#include <ferry/spool.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace ferry::detail {

class node_spool {
public:
    /// Throws `error{invalid_argument}` where the folder can't be used.
    node_spool(const spool_options& options, const std::string& researcher) : numbers_(random_seed()) {
        ::mkdir(options.folder.c_str(), 0700);  // where that fails, the next line says why
        folder_ =
            std::make_shared<spool>(spool_options{options.folder + "/" + file_name(researcher), options.threshold});
    }

    const std::shared_ptr<spool>& folder() const noexcept { return folder_; }

    /// Puts a large reply into the folder, and its place there into `content`. Returns the reply's number, or 0 for a small one.
    std::uint64_t keep_reply(std::shared_ptr<const payload>& content, std::uint64_t task) {
        if (content->size() <= folder_->threshold() || !content->in_memory()) return 0;
        const auto number = [this] {
            const std::lock_guard lock(mutex_);
            return numbers_.next_id();
        }();
        auto name = "reply-" + std::to_string(number) + "-" + std::to_string(task);
        folder_->write(name, *content);
        content = std::make_shared<const payload>(bytes::map_file(path_of(name)));
        const std::lock_guard lock(mutex_);
        replies_.emplace(number, std::move(name));
        return number;
    }

    void forget_reply(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        const auto found = replies_.find(number);
        if (found == replies_.end()) return;
        folder_->remove(found->second);
        replies_.erase(found);
    }

    /// Calls `take(number, task, content)` for each reply that an earlier life of the program left.
    template <class Take>
    void for_each_reply(Take&& take) {
        for (const auto& each : folder_->list()) {
            std::uint64_t number = 0, task = 0;
            if (!parse(each.name, number, task)) continue;
            replies_.emplace(number, each.name);
            take(number, task, bytes::map_file(path_of(each.name)));
        }
    }

private:
    std::string path_of(const std::string& name) const { return folder_->folder() + "/" + name; }

    static std::string file_name(std::string researcher) {
        std::replace(researcher.begin(), researcher.end(), '/', '_');
        return researcher;
    }

    static bool parse(std::string_view name, std::uint64_t& number, std::uint64_t& task) {
        constexpr std::string_view prefix = "reply-";
        if (!name.starts_with(prefix)) return false;
        const char* const end = name.data() + name.size();
        const auto first = std::from_chars(name.data() + prefix.size(), end, number);
        if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-' || number == 0) return false;
        const auto second = std::from_chars(first.ptr + 1, end, task);
        return second.ec == std::errc() && second.ptr == end;
    }

    std::shared_ptr<spool> folder_;
    std::mutex mutex_;
    random_bits numbers_;
    std::unordered_map<std::uint64_t, std::string> replies_;
};

}  // namespace ferry::detail
