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
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

/// Its members may be called from several threads. Those that say so touch no disk: they may be called under a lock. Before it is
/// opened and after it is closed, it keeps nothing.
class node_spool {
public:
    /// A reply that an earlier life of the program left.
    struct left_reply {
        std::uint64_t number;
        std::uint64_t task;
        bytes content;
        std::chrono::system_clock::time_point since;
    };

    node_spool() : numbers_(random_seed()) {}
    node_spool(const node_spool&) = delete;
    node_spool& operator=(const node_spool&) = delete;

    /// Opens the folder, once. Throws `error{invalid_argument}` where it can't be used.
    std::vector<left_reply> open(const spool_options& options, const std::string& researcher) {
        ::mkdir(options.folder.c_str(), 0700);  // where that fails, the next line says why
        auto opened =
            std::make_shared<spool>(spool_options{options.folder + "/" + file_name(researcher), options.threshold});
        std::vector<left_reply> left;
        std::unordered_map<std::uint64_t, std::string> names;
        for (const auto& each : opened->list()) {
            std::uint64_t number = 0, task = 0;
            if (!parse(each.name, number, task)) continue;
            left.push_back({number, task, bytes::map_file(path_of(*opened, each.name)), each.written});
            names.emplace(number, each.name);
        }
        const std::lock_guard lock(mutex_);  // only now is anything kept: it isn't of an earlier life
        folder_ = std::move(opened);
        replies_ = std::move(names);
        return left;
    }

    /// Null before it is opened and after it is closed.
    std::shared_ptr<spool> folder() const {
        const std::lock_guard lock(mutex_);
        return folder_;
    }

    /// Puts a large reply into the folder, and its place there into `content`. Returns the reply's number, or 0 for one that
    /// isn't kept. Throws `error` where it can't be written, or not be read again; it isn't kept then.
    std::uint64_t keep_reply(std::shared_ptr<const payload>& content, std::uint64_t task) {
        const auto into = folder();
        if (!into || content->size() <= into->threshold() || !content->in_memory()) return 0;
        const auto number = [this] {
            const std::lock_guard lock(mutex_);
            return numbers_.next_id();
        }();
        auto name = "reply-" + std::to_string(number) + "-" + std::to_string(task);
        into->write(name, *content, true);
        try {
            content = std::make_shared<const payload>(bytes::map_file(path_of(*into, name)));
        } catch (...) {
            into->remove(name);
            throw;
        }
        const std::lock_guard lock(mutex_);
        replies_.emplace(number, std::move(name));
        return number;
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

    /// Lets go of the folder: another process may have it once nobody else holds it, as one does who is writing a reply.
    void close() {
        const std::lock_guard one_at_a_time(tidying_);
        std::shared_ptr<spool> gone;  // without the other mutex
        const std::lock_guard lock(mutex_);
        gone.swap(folder_);
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
