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
#include <vector>

namespace ferry::detail {

/// Its members may be called from several threads. Those that say so touch no disk: they may be called under a lock.
class node_spool {
public:
    /// Throws `error{invalid_argument}` where the folder can't be used.
    node_spool(const spool_options& options, const std::string& researcher) : numbers_(random_seed()) {
        ::mkdir(options.folder.c_str(), 0700);  // where that fails, the next line says why
        folder_ =
            std::make_shared<spool>(spool_options{options.folder + "/" + file_name(researcher), options.threshold});
    }

    /// Null once it is closed.
    std::shared_ptr<spool> folder() const {
        const std::lock_guard lock(mutex_);
        return folder_;
    }

    /// Puts a large reply into the folder, and its place there into `content`. Returns the reply's number, or 0 for one that
    /// isn't kept: it is small, or the folder is closed. Throws `error{spool_failed}` where it can't be written.
    std::uint64_t keep_reply(std::shared_ptr<const payload>& content, std::uint64_t task) {
        const auto into = folder();
        if (!into || content->size() <= into->threshold() || !content->in_memory()) return 0;
        const auto number = [this] {
            const std::lock_guard lock(mutex_);
            return numbers_.next_id();
        }();
        auto name = "reply-" + std::to_string(number) + "-" + std::to_string(task);
        into->write(name, *content);
        content = std::make_shared<const payload>(bytes::map_file(path_of(*into, name)));
        const std::lock_guard lock(mutex_);
        replies_.emplace(number, std::move(name));
        return number;
    }

    /// Calls `take(number, task, content)` for each reply that an earlier life of the program left.
    template <class Take>
    void for_each_reply(Take&& take) {
        const auto from = folder();
        for (const auto& each : from->list()) {
            std::uint64_t number = 0, task = 0;
            if (!parse(each.name, number, task)) continue;
            {
                const std::lock_guard lock(mutex_);
                replies_.emplace(number, each.name);
            }
            take(number, task, bytes::map_file(path_of(*from, each.name)));
        }
    }

    /// The next `tidy()` removes it. Touches no disk. Returns whether it is kept here.
    bool forget_reply(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        auto found = replies_.extract(number);
        if (found.empty()) return false;
        forgotten_.replies.push_back(std::move(found.mapped()));
        return true;
    }

    /// The next `tidy()` removes what there is of this task. Touches no disk.
    void forget_task(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        forgotten_.tasks.push_back(number);
    }

    /// Removes what was forgotten: tasks with `forget_task(number)`, which may throw `error`. Returns what went wrong. Whoever
    /// comes first does it for all, and the others wait: afterwards, no other thread is about to remove any of it.
    template <class ForgetTask>
    std::vector<std::string> tidy(ForgetTask&& forget_task) {
        std::vector<std::string> problems;
        const auto attempt = [&](auto&& removal) {
            try {
                removal();
            } catch (const error& e) {
                problems.emplace_back(e.what());
            }
        };
        const std::lock_guard one_at_a_time(tidying_);
        forgotten what;
        std::shared_ptr<spool> from;
        {
            const std::lock_guard lock(mutex_);
            std::swap(what, forgotten_);
            from = folder_;
        }
        for (const auto number : what.tasks) attempt([&] { forget_task(number); });
        if (!from) return problems;
        for (const auto& name : what.replies) attempt([&] { from->remove(name); });
        return problems;
    }

    /// Lets go of the folder: another process may have it now, unless a reply is being written to it.
    void close() {
        const std::scoped_lock lock(tidying_, mutex_);
        folder_.reset();
    }

private:
    struct forgotten {
        std::vector<std::uint64_t> tasks;  // numbers
        std::vector<std::string> replies;  // names of files
    };

    static std::string path_of(const spool& in, const std::string& name) { return in.folder() + "/" + name; }

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

    std::mutex tidying_;  // taken before the other one
    mutable std::mutex mutex_;
    std::shared_ptr<spool> folder_;
    random_bits numbers_;
    std::unordered_map<std::uint64_t, std::string> replies_;  // names of files, by number
    forgotten forgotten_;
};

}  // namespace ferry::detail
