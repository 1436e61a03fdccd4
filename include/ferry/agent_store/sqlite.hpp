// An agent store that survives a restart: the journals are tables of a SQLite file, large contents are files beside it. One
// server at a time has the file open. What others can't do with it meanwhile is read it, too.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/sqlite_writer.hpp>
#include <ferry/policy.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace ferry {

/// Keeps journals in a SQLite file (write-ahead log). Safe to use from several threads, none of which waits for the disk:
/// the file belongs to a thread of the store's own, which writes all that has come meanwhile in one transaction, so that
/// many tasks share one wait for the disk. `done` is called on that thread once the transaction is over.
///
/// A content of more than `sqlite_options::file_bytes` becomes a file, mode 0600, in a folder of mode 0700; from then on
/// it is sent from there, in ranges, and its memory is let go. A content that several nodes are sent is stored once.
///
/// A write that fails (a full disk, a damaged page) ends in `store_failed` with SQLite's words, and changes nothing.
class sqlite_agent_store {
public:
    using policy_category = agent_store_tag;

    /// Opens the file, and makes it with mode 0600 where it is missing (its folder must be there). Throws `error`:
    /// `invalid_argument` where the options can't be used; `store_failed` where the file is in use, damaged, another
    /// program's, or of a newer version. What to do is in the text.
    explicit sqlite_agent_store(sqlite_options options)
        : writer_(std::make_unique<detail::sqlite_writer>(std::move(options))) {}

    template <class Done>
    void acquire(const std::string& node, Done&& done) {
        writer_->acquire(node, std::forward<Done>(done));
    }
    template <class Done>
    void append(const std::string& node, epoch owner, const task_record& task, Done&& done) {
        writer_->append(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void update(const std::string& node, epoch owner, const task_record& task, Done&& done) {
        writer_->update(node, owner, task, std::forward<Done>(done));
    }
    template <class Done>
    void settle(const std::string& node, epoch owner, std::uint64_t order, Done&& done) {
        writer_->settle(node, owner, order, std::forward<Done>(done));
    }
    template <class Done>
    void nodes(Done&& done) {
        writer_->nodes(std::forward<Done>(done));
    }

private:
    std::unique_ptr<detail::sqlite_writer> writer_;
};

}  // namespace ferry
