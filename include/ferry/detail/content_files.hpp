// layer 1
// Contents that lie in files, each under a number: written once, read in ranges by a thread that may wait for the disk, and
// removed when nobody holds them any more.
#pragma once

#include <ferry/detail/executor.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>
#include <ferry/spool.hpp>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

/// Safe to use from several threads. What it gives may be held for longer than it lives: no number may come a second time,
/// not even in another process.
class content_files {
public:
    /// Makes the folder where it is missing. Throws `error{invalid_argument}` where it can't be used.
    explicit content_files(const std::string& folder) : shared_(std::make_shared<shared>(folder)) {}
    ~content_files() { shared_->threads.stop(std::chrono::steady_clock::now() + std::chrono::seconds(10)); }

    /// Removes what has none of these numbers: a process that was killed has left it.
    void keep_only(const std::vector<std::int64_t>& numbers) {
        std::unordered_map<std::string, bool> kept;
        for (const auto each : numbers) kept[std::to_string(each)] = true;
        for (const auto& each : shared_->folder.list()) {
            const bool is_number = each.name.find_first_not_of("0123456789") == std::string::npos;
            if (is_number && !kept.contains(each.name)) shared_->folder.remove(each.name);
        }
    }

    /// Writes one on a thread of its own, and tells: with an empty text, or what went wrong. `sync`: it is on the disk then.
    void write(std::int64_t number, std::shared_ptr<const payload> content, bool sync,
               std::function<void(std::string)> done) {
        shared_->threads.post("write", [in = shared_, number, content = std::move(content), sync, done] {
            std::string problem;
            try {
                in->folder.write(std::to_string(number), *content, sync);
            } catch (const std::exception& e) {
                problem = e.what();
            }
            done(std::move(problem));
        });
    }

    /// The content under this number, one object for all who ask while it is held.
    std::shared_ptr<const payload> open(std::int64_t number, std::uint64_t size) {
        const std::lock_guard lock(mutex_);
        auto& known = open_[number];
        auto out = known.content.lock();
        if (!out) {
            auto from = std::make_shared<source>(shared_, shared_->folder.folder(), std::to_string(number), size);
            known.from = from;
            out = std::make_shared<const payload>(std::shared_ptr<const payload_source>(std::move(from)));
            known.content = out;
        }
        return out;
    }

    /// It is gone as soon as nobody holds it.
    void remove(std::int64_t number) {
        std::shared_ptr<source> held;
        {
            const std::lock_guard lock(mutex_);
            if (const auto found = open_.find(number); found != open_.end()) {
                held = found->second.from.lock();
                open_.erase(found);
            }
        }
        if (held) return held->remove_when_unused();
        shared_->remove(std::to_string(number));
    }

private:
    struct shared : std::enable_shared_from_this<shared> {
        explicit shared(const std::string& path)
            : folder(spool_options{path, 0}), threads(2, [](const std::string&) {}) {}

        /// What can't be removed stays until the folder is opened again.
        void remove(const std::string& name) {
            const auto now = [self = this->shared_from_this(), name] {
                try {
                    self->folder.remove(name);
                } catch (const error&) {
                }
            };
            if (!threads.post("remove", now)) now();
        }

        spool folder;
        executor threads;
    };

    class source final : public payload_source, public std::enable_shared_from_this<source> {
    public:
        source(const std::shared_ptr<shared>& in, const std::string& folder, std::string name, std::uint64_t size)
            : in_(in), path_(folder + "/" + name), name_(std::move(name)), size_(size) {}
        ~source() override {
            if (!remove_) return;
            const auto in = in_.lock();
            in ? in->remove(name_) : static_cast<void>(::unlink(path_.c_str()));
        }

        void remove_when_unused() noexcept { remove_ = true; }
        std::uint64_t size() const noexcept override { return size_; }

        void read(std::uint64_t offset, std::uint64_t length, std::function<void(range_result)> done) const override {
            const auto now = [self = this->shared_from_this(), offset, length, done] {
                done(self->read_now(offset, length));
            };
            const auto in = in_.lock();
            if (!in || !in->threads.post(name_, now)) now();
        }

    private:
        /// Its pages are in memory then, so that who sends them waits for no disk.
        range_result read_now(std::uint64_t offset, std::uint64_t length) const {
            try {
                const std::lock_guard lock(mutex_);
                if (mapped_.empty()) mapped_ = bytes::map_file(path_);
            } catch (const error& e) {
                return {errc::source_failed, {}, e.what()};
            }
            if (mapped_.size() < size_) return {errc::source_failed, {}, path_ + ": the file was cut short"};
            auto range = mapped_.slice(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
            for (std::size_t at = 0; at < range.size(); at += 4096) {
                static_cast<void>(*static_cast<const volatile std::uint8_t*>(range.data() + at));
            }
            return {errc::ok, payload(std::move(range)), {}};
        }

        const std::weak_ptr<shared> in_;  // whose folder another process may use once it is gone
        const std::string path_, name_;
        const std::uint64_t size_;
        std::atomic<bool> remove_{false};
        mutable std::mutex mutex_;
        mutable bytes mapped_;
    };

    struct opened {
        std::weak_ptr<const payload> content;
        std::weak_ptr<source> from;
    };

    const std::shared_ptr<shared> shared_;
    std::mutex mutex_;
    std::unordered_map<std::int64_t, opened> open_;
};

}  // namespace ferry::detail
