// layer 1
// The thread that a SQLite file belongs to: it takes all that has been asked for meanwhile, writes it in one transaction, and
// tells. Large contents are written into their files first, beside it.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/content_files.hpp>
#include <ferry/detail/sqlite_journal.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry {

/// What a power cut or a crash of the system may cost. The death of the process alone costs nothing in any case.
enum class sqlite_durability {
    survives_power_cut,           ///< nothing: each transaction waits for the disk
    power_cut_loses_the_last,     ///< what was written last, some seconds or so; what is there holds together
    power_cut_may_lose_the_file,  ///< anything: nothing ever waits for the disk
};

struct sqlite_options {
    std::string file;  ///< its folder must be there; `file`-wal and the folder `file`.contents lie beside
    sqlite_durability durability = sqlite_durability::survives_power_cut;
    std::uint64_t file_bytes = 64 * 1024;  ///< a content of more becomes a file of its own
};

namespace detail {

/// Safe to use from several threads. When it ends, all that was asked for has been written and told; when it ends within a
/// `done`, that is so soon after.
class sqlite_writer {
public:
    explicit sqlite_writer(sqlite_options options)
        : state_(std::make_shared<state>(checked(std::move(options)))), thread_([s = state_] { s->run(); }) {}
    sqlite_writer(const sqlite_writer&) = delete;
    sqlite_writer& operator=(const sqlite_writer&) = delete;
    ~sqlite_writer() {
        state_->stop();
        // Within a `done`, which is called on that thread.
        thread_.get_id() == std::this_thread::get_id() ? thread_.detach() : thread_.join();
    }

    void acquire(const std::string& node, std::function<void(acquired_journal)> done) {
        state_->add<acquired_journal>(
            [s = state_.get(), node] {
                return s->journal->acquire(node, [s](auto filed) { return s->files->open(filed.id, filed.size); });
            },
            [done = std::move(done)](acquired_journal out, const store_status& failed) {
                if (failed.code != errc::ok) out = {failed, 0, {}};
                done(std::move(out));
            });
    }
    void append(const std::string& node, epoch owner, const task_record& task, std::function<void(store_status)> done) {
        const auto& content = task.content ? task.content : task.reply;
        if (content->size() > state_->options.file_bytes) {
            return state_->file(
                content,
                [s = state_.get(), node, owner, task](auto filed) {
                    return s->journal->append(node, owner, task, filed);
                },
                task.content != nullptr, std::move(done));
        }
        write([s = state_.get(), node, owner, task] { return s->journal->append(node, owner, task); }, content->size(),
              std::move(done));
    }
    void update(const std::string& node, epoch owner, task_record task, std::function<void(store_status)> done) {
        task.content.reset();
        if (const auto reply = task.reply; reply && reply->size() > state_->options.file_bytes) {
            return state_->file(
                reply,
                [s = state_.get(), node, owner, task = std::move(task)](auto filed) {
                    return s->journal->update(node, owner, task, filed);
                },
                false, std::move(done));
        }
        const auto bytes = task.reply ? task.reply->size() : 0;
        write([s = state_.get(), node, owner, task = std::move(task)] { return s->journal->update(node, owner, task); },
              bytes, std::move(done));
    }
    void settle(const std::string& node, epoch owner, std::uint64_t order, std::function<void(store_status)> done) {
        write([s = state_.get(), node, owner, order] { return s->journal->settle(node, owner, order); }, 0,
              std::move(done));
    }
    void nodes(std::function<void(known_nodes)> done) {
        state_->add<known_nodes>(
            [s = state_.get()] {
                return known_nodes{{}, s->journal->nodes()};
            },
            [done = std::move(done)](known_nodes out, const store_status& failed) {
                if (failed.code != errc::ok) out = {failed, {}};
                done(std::move(out));
            });
    }

private:
    struct operation {
        std::function<void()> change;                   // within the transaction; throws `error`
        std::function<void(const store_status&)> tell;  // when that is over, and why it failed if it did
        std::int64_t file = 0;                          // the content that it needs, if that is in a file
        std::string problem{};                          // why there is no such file
        std::uint64_t bytes = 0;                        // that it writes, or so
    };

    /// A content that is in a file, or about to be.
    struct filing {
        std::weak_ptr<const payload> content;
        const payload* at = nullptr;
        bool written = false;
        std::size_t users = 0;             // operations that need it and are not over
        std::vector<operation> waiting{};  // for it to be written
    };

    static constexpr std::uint64_t batch_bytes = 16 << 20;  // of a transaction, so that the write-ahead log stays small

    struct state : std::enable_shared_from_this<state> {
        explicit state(sqlite_options given)
            : options(std::move(given)),
              journal(std::make_unique<sqlite_journal>(options.file, synchronous(options.durability))),
              files(std::make_unique<content_files>(options.file + ".contents")) {
            files->keep_only(journal->all_filed());
            sync_folder();
        }

        /// The folder's entries for the file and what lies beside it are on the disk.
        void sync_folder() const {
            const auto folder = std::filesystem::path(options.file).parent_path();
            const int opened = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            const bool done = opened >= 0 && ::fsync(opened) == 0;
            const std::string why = std::strerror(errno);
            if (opened >= 0) ::close(opened);
            if (!done) throw error(errc::store_failed, folder.string() + ": " + why);
        }

        template <class Result, class Change, class Tell>
        operation make(Change change, Tell tell) {
            const auto out = std::make_shared<Result>();
            return {[out, change = std::move(change)] { *out = change(); },
                    [out, tell = std::move(tell)](const store_status& failed) { tell(std::move(*out), failed); }};
        }

        template <class Result, class Change, class Tell>
        void add(Change change, Tell tell) {
            add(make<Result>(std::move(change), std::move(tell)));
        }
        void add(operation made) {
            const std::lock_guard lock(mutex);
            waiting.push_back(std::move(made));
            came.notify_one();
        }

        /// Makes a change that needs a content in a file: `change(filed)`. The file is written first, unless it is there, or on
        /// its way, for another node.
        template <class Change>
        void file(const std::shared_ptr<const payload>& content, Change change, bool gives_content,
                  std::function<void(store_status)> done) {
            if (!content->in_memory())
                return done({errc::store_failed, "a content that is not in memory can't be stored"});
            const std::lock_guard lock(mutex);
            auto& newest = by_content[content.get()];
            auto found = filings.find(newest);
            const bool is_new = found == filings.end() || found->second.content.lock() != content;
            if (is_new) {
                newest = journal->new_id();
                found = filings.emplace(newest, filing{content, content.get()}).first;
            }
            const auto id = newest;
            auto& f = found->second;
            ++f.users;
            const sqlite_journal::filed where{id, content->size()};
            const auto given = std::make_shared<bool>(false);
            auto made = make<store_status>(
                [this, content, change = std::move(change), where, given] {
                    auto out = change(where);
                    *given = journal->has_content(where.id);  // a task that comes a second time has another one
                    return out;
                },
                [this, where, given, gives_content, done = std::move(done)](store_status out,
                                                                            const store_status& failed) {
                    if (failed.code != errc::ok) out = failed;
                    if (out.code == errc::ok && gives_content && *given)
                        out.content = files->open(where.id, where.size);
                    done(std::move(out));
                });
            made.file = id;
            if (f.written) {
                waiting.push_back(std::move(made));
                came.notify_one();
                return;
            }
            f.waiting.push_back(std::move(made));
            if (!is_new) return;
            ++writing;
            files->write(
                id, content, options.durability != sqlite_durability::power_cut_may_lose_the_file,
                [self = this->shared_from_this(), id](const std::string& problem) { self->filed(id, problem); });
        }

        void filed(std::int64_t id, const std::string& problem) {
            const std::lock_guard lock(mutex);
            auto& f = filings.at(id);
            f.written = problem.empty();
            const auto newest = by_content.find(f.at);
            if (!f.written && newest != by_content.end() && newest->second == id)
                by_content.erase(newest);  // who comes now tries anew
            for (auto& each : f.waiting) {
                each.problem = problem;
                waiting.push_back(std::move(each));
            }
            f.waiting.clear();
            --writing;
            came.notify_one();
        }

        void stop() {
            const std::lock_guard lock(mutex);
            stopping = true;
            came.notify_one();
        }

        void run() {
            for (;;) {
                std::vector<operation> batch;
                {
                    std::unique_lock lock(mutex);
                    came.wait(lock, [&] { return !waiting.empty() || (stopping && writing == 0); });
                    if (waiting.empty()) break;
                    for (std::uint64_t bytes = 0; !waiting.empty() && bytes < batch_bytes;) {
                        bytes += waiting.front().bytes + 1024;
                        batch.push_back(std::move(waiting.front()));
                        waiting.pop_front();
                    }
                }
                perform(batch);
            }
            files.reset();  // whoever opens the file next finds nothing locked
            journal.reset();
        }

        /// Where all at once fail, each is tried alone, so that one does not spoil the others.
        void perform(std::span<operation> batch) {
            const auto failed = transact(batch);
            if (failed.code != errc::ok && batch.size() > 1) {
                for (auto& each : batch) perform({&each, 1});
                return;
            }
            clean_up(batch);
            for (const auto& each : batch) {
                each.tell(each.problem.empty() ? failed : store_status{errc::store_failed, each.problem});
            }
        }

        store_status transact(std::span<operation> batch) {
            try {
                journal->begin();
                for (const auto& each : batch) {
                    if (each.problem.empty()) each.change();
                }
                journal->commit();
                return {};
            } catch (const std::exception& e) {
                journal->rollback();
                return {errc::store_failed, e.what()};
            }
        }

        /// Removes the files that no task needs any more. What can't be told stays until the store is opened again.
        void clean_up(std::span<operation> batch) {
            try {
                remove_unused(batch);
            } catch (const std::exception&) {
            }
        }

        void remove_unused(std::span<operation> batch) {
            auto perhaps = journal->take_dropped();
            {
                const std::lock_guard lock(mutex);
                for (const auto& each : batch) {
                    if (each.file == 0) continue;
                    --filings.at(each.file).users;
                    perhaps.push_back(each.file);
                }
            }
            if (perhaps.empty()) return;
            // A row that is gone must not come back by a power cut, without its file.
            if (options.durability != sqlite_durability::survives_power_cut) journal->checkpoint();
            for (const auto id : perhaps) {
                if (!journal->has_content(id) && forget_unless_used(id)) files->remove(id);
            }
        }

        bool forget_unless_used(std::int64_t id) {
            const std::lock_guard lock(mutex);
            const auto found = filings.find(id);
            if (found != filings.end() && found->second.users > 0) return false;
            forget(id);
            return true;
        }

        /// Under the mutex.
        void forget(std::int64_t id) {
            const auto found = filings.find(id);
            if (found == filings.end()) return;
            const auto newest = by_content.find(found->second.at);
            if (newest != by_content.end() && newest->second == id) by_content.erase(newest);
            filings.erase(found);
        }

        const sqlite_options options;
        std::unique_ptr<sqlite_journal> journal;  // the thread's, but for new_id
        std::unique_ptr<content_files> files;
        std::mutex mutex;
        std::condition_variable came;
        std::deque<operation> waiting;
        std::unordered_map<std::int64_t, filing> filings;
        std::unordered_map<const payload*, std::int64_t> by_content;
        std::size_t writing = 0;
        bool stopping = false;
    };

    template <class Change>
    void write(Change change, std::uint64_t bytes, std::function<void(store_status)> done) {
        auto made = state_->template make<store_status>(
            std::move(change), [done = std::move(done)](store_status out, const store_status& failed) {
                done(failed.code == errc::ok ? std::move(out) : failed);
            });
        made.bytes = bytes;
        state_->add(std::move(made));
    }

    static sqlite_options checked(sqlite_options options) {
        const auto& file = options.file;
        const auto refuse = [&](const std::string& why) {
            throw error(errc::invalid_argument, "sqlite_options.file: " + file + why);
        };
        if (file.empty()) refuse("is empty: name a file");
        options.file = std::filesystem::absolute(options.file).string();  // whatever folder the process goes to
        refuse_what_was_cut(options.file);
        // Opened here only while SQLite can't have it open: closing it gives up the locks of this process.
        const int made = ::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (made >= 0) {
            ::close(made);
        } else if (errno != EEXIST) {
            refuse(std::string(" can't be made: ") + std::strerror(errno) + ": make its folder, or name another one");
        }
        struct stat about {};
        if (::stat(file.c_str(), &about) != 0) refuse(std::string(": ") + std::strerror(errno));
        if (!S_ISREG(about.st_mode)) refuse(" is no regular file: name another one");
        if ((about.st_mode & 077) != 0) refuse(": other users can get at the file: chmod 600 it, or name another one");
        return options;
    }

    /// SQLite would drop the log of an empty file, and this store the contents that it doesn't know.
    static void refuse_what_was_cut(const std::string& file) {
        namespace fs = std::filesystem;
        std::error_code none;
        if (const auto size = fs::file_size(file, none); !none && size > 0) return;
        const auto refuse = [&](const std::string& left) {
            throw error(errc::store_failed,
                        file + ": it is empty or gone, but " + left +
                            " is there: restore all of it from a copy, or remove that to begin anew");
        };
        if (const auto size = fs::file_size(file + "-wal", none); !none && size > 0) refuse("its log " + file + "-wal");
        for (const auto& each : fs::directory_iterator(file + ".contents", none)) refuse(each.path().string());
    }

    static const char* synchronous(sqlite_durability durability) noexcept {
        switch (durability) {
            case sqlite_durability::survives_power_cut: return "FULL";
            case sqlite_durability::power_cut_loses_the_last: return "NORMAL";
            case sqlite_durability::power_cut_may_lose_the_file: break;
        }
        return "OFF";
    }

    std::shared_ptr<state> state_;
    std::thread thread_;
};

}  // namespace detail

}  // namespace ferry
