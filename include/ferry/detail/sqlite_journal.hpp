// layer 1
// The journals of nodes as tables of a SQLite file. For one thread at a time, and without a clock, threads or other files: where
// a content lies in a file of its own, its row says only that. Writes happen within `begin` and `commit`.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/sqlite_database.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ferry::detail {

/// The file's tables. It is this process's alone while it lives.
class sqlite_tables {
public:
    static constexpr std::int64_t application = 0x66727279;  // "frry"
    static constexpr std::int64_t version = 2;

    /// `synchronous` is SQLite's word for how it waits for the disk.
    sqlite_tables(const std::string& file, const char* synchronous) : db(file) {
        db.set_patience(1000);  // one that was killed has let go by then
        const auto refuse = [&](const std::string& why) { throw error(errc::store_failed, file + ": " + why); };
        db.run("PRAGMA locking_mode=EXCLUSIVE");
        db.run("BEGIN EXCLUSIVE");
        const bool is_new = sqlite_statement(db, "SELECT count(*) FROM sqlite_schema").number() == 0;
        const auto made_by = sqlite_statement(db, "PRAGMA user_version").number().value_or(0);
        if (!is_new && sqlite_statement(db, "PRAGMA application_id").number() != application) {
            refuse("it is another program's database; name another file");
        }
        if (made_by > version) {
            refuse("a newer ferry has written it (version " + std::to_string(made_by) + ", this one knows " +
                   std::to_string(version) + "); take that one, or name another file");
        }
        db.run("COMMIT");
        {
            sqlite_statement journal(db, "PRAGMA journal_mode=WAL");
            auto mode = journal.query();
            if (!mode.next() || mode.data(0) != "wal")
                refuse("its file system can't hold a write-ahead log; name another");
        }
        db.run("PRAGMA journal_size_limit=67108864");
        db.run(std::string("PRAGMA synchronous=") + synchronous);
        db.run("BEGIN EXCLUSIVE");
        if (is_new) db.run(schema());
        if (!is_new && made_by < version) db.run(since_version_1());
        const auto times = sqlite_statement(db, "UPDATE opened SET times = times + 1 RETURNING times").number();
        if (!times) refuse("it is damaged: restore it from a copy, or name another file");
        times_opened = *times;
        db.run("COMMIT");
    }

    sqlite_database db;
    std::int64_t times_opened = 0;

private:
    static std::string schema() {
        return "CREATE TABLE nodes(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, owner INTEGER NOT NULL) STRICT;"
               "CREATE TABLE tasks(node INTEGER NOT NULL, place INTEGER NOT NULL, id INTEGER NOT NULL,"
               " request BLOB NOT NULL, wants_reply INTEGER NOT NULL, urgent INTEGER NOT NULL,"
               " attempts INTEGER NOT NULL, taken INTEGER NOT NULL, accepted INTEGER NOT NULL,"
               " expires INTEGER NOT NULL, content INTEGER, reply INTEGER, reply_number INTEGER NOT NULL,"
               " reply_until INTEGER, PRIMARY KEY(node, place))"
               " WITHOUT ROWID, STRICT;"
               "CREATE INDEX tasks_by_content ON tasks(content) WHERE content IS NOT NULL;"
               "CREATE TABLE contents(id INTEGER PRIMARY KEY, size INTEGER NOT NULL, data BLOB) STRICT;"
               "CREATE TABLE opened(times INTEGER NOT NULL) STRICT;"
               "INSERT INTO opened VALUES(0);"
               "PRAGMA application_id=" +
               std::to_string(application) + ";PRAGMA user_version=" + std::to_string(version);
    }
    static std::string since_version_1() {
        return "ALTER TABLE tasks ADD COLUMN reply_until INTEGER;PRAGMA user_version=" + std::to_string(version);
    }
};

class sqlite_journal {
public:
    /// A content that lies in a file.
    struct filed {
        std::int64_t id;
        std::uint64_t size;
    };

    sqlite_journal(const std::string& file, const char* synchronous)
        : tables_(file, synchronous), last_content_(tables_.times_opened << 32) {
        load();
    }

    // --- transactions ----------------------------------------------------------------------------------------------------

    void begin() {
        begin_.run();
        if (is_stale_) load();
    }
    void commit() {
        commit_.run();
        owners_changed_ = false;
        dropped_.swap(dropped_now_);
        dropped_now_.clear();
    }
    void rollback() noexcept {
        dropped_now_.clear();
        known_.clear();
        by_id_.clear();
        is_stale_ |= std::exchange(owners_changed_, false);
        try {
            if (tables_.db.in_transaction()) rollback_.run();
        } catch (const error&) {  // the next transaction can't begin then, and says so
        }
    }

    /// Waits until all that was committed is on the disk, where commits don't.
    void checkpoint() { checkpoint_.run(); }

    /// The filed contents that the transactions before have done with.
    std::vector<std::int64_t> take_dropped() { return std::exchange(dropped_, {}); }

    // --- what stores do --------------------------------------------------------------------------------------------------

    std::vector<std::string> nodes() {
        std::vector<std::string> out;
        for (const auto& [name, owner] : owners_) out.push_back(name);
        return out;
    }

    /// `open(filed)` gives a content that lies in a file.
    template <class Open>
    acquired_journal acquire(const std::string& node, Open&& open) {
        owners_changed_ = true;
        auto& now = owners_[node];
        {
            auto taken_over = take_over_.query(std::string_view(node));
            taken_over.next();
            now = {taken_over.number(0), taken_over.number(1)};
        }
        acquired_journal out;
        out.owner = static_cast<epoch>(now.epoch);
        auto rows = tasks_.query(now.row);
        while (rows.next()) out.tasks.push_back(read(rows, open));
        return out;
    }

    /// `content` names what lies in a file already; without it the content is written into the tables.
    store_status append(const std::string& node, epoch owner, const task_record& task,
                        std::optional<filed> content = {}) {
        const auto* at = find(node, owner);
        if (!at) return lost(node);
        if (has_.number(at->row, to_number(task.order))) return {};  // it comes a second time
        const auto id = content ? file(*content) : write(task.content ? task.content : task.reply);
        const auto none = std::optional<std::int64_t>();
        insert_.run(at->row, to_number(task.order), to_number(task.id), std::string_view(task.request_id),
                    number(task.wants_reply), number(task.urgent), std::int64_t{task.attempts}, number(task.taken),
                    micros(task.accepted), micros(task.expires), task.content ? std::optional(id) : none,
                    task.content ? none : std::optional(id), to_number(task.reply_number), until(task));
        return {};
    }

    /// `reply` names what lies in a file already; without it a reply is written into the tables.
    store_status update(const std::string& node, epoch owner, const task_record& task,
                        std::optional<filed> reply = {}) {
        const auto* at = find(node, owner);
        if (!at) return lost(node);
        const auto place = to_number(task.order);
        const auto content = task.taken || task.reply ? content_of_.number(at->row, place) : std::nullopt;
        update_.run(std::int64_t{task.attempts}, number(task.taken), until(task), at->row, place);
        if (content) {
            forget_content_.run(at->row, place);
            drop_if_unused(*content);
        }
        if (!task.reply || !has_.number(at->row, place)) return {};
        const auto before = reply_of_.number(at->row, place);
        const auto now = reply ? file(*reply) : write(task.reply);
        set_reply_.run(now, to_number(task.reply_number), at->row, place);
        if (before && *before != now) drop(*before);
        return {};
    }

    store_status settle(const std::string& node, epoch owner, std::uint64_t order) {
        const auto* at = find(node, owner);
        if (!at) return lost(node);
        const auto content = content_of_.number(at->row, to_number(order));
        const auto reply = reply_of_.number(at->row, to_number(order));
        delete_.run(at->row, to_number(order));
        if (content) drop_if_unused(*content);
        if (reply) drop(*reply);
        return {};
    }

    // --- contents --------------------------------------------------------------------------------------------------------

    /// For a content that is about to be filed. May be called from any thread.
    std::int64_t new_id() noexcept { return ++last_content_; }

    bool has_content(std::int64_t id) { return has_content_.number(id).has_value(); }

    /// All that the tables say is filed, by rising id.
    std::vector<std::int64_t> all_filed() {
        std::vector<std::int64_t> out;
        sqlite_statement all(tables_.db, "SELECT id FROM contents WHERE data IS NULL ORDER BY id");
        auto rows = all.query();
        while (rows.next()) out.push_back(rows.number(0));
        return out;
    }

private:
    struct owner_row {
        std::int64_t row = 0;
        std::int64_t epoch = 0;
    };
    struct known_content {
        std::weak_ptr<const payload> content;
        std::int64_t id = 0;
    };

    void load() {
        owners_.clear();
        is_stale_ = true;
        sqlite_statement all(tables_.db, "SELECT name, id, owner FROM nodes");
        auto rows = all.query();
        while (rows.next()) owners_[std::string(rows.data(0))] = {rows.number(1), rows.number(2)};
        is_stale_ = false;
    }

    const owner_row* find(const std::string& node, epoch owner) const {
        const auto found = owners_.find(node);
        if (found == owners_.end() || to_number(owner) != found->second.epoch) return nullptr;
        return &found->second;
    }
    static store_status lost(const std::string& node) {
        return {errc::ownership_lost, "another owner has acquired the journal of " + node};
    }

    template <class Open>
    task_record read(sqlite_statement::rows& row, Open& open) {
        task_record out;
        out.order = static_cast<std::uint64_t>(row.number(0));
        out.id = static_cast<std::uint64_t>(row.number(1));
        out.request_id = row.data(2);
        out.wants_reply = row.number(3) != 0;
        out.urgent = row.number(4) != 0;
        out.attempts = static_cast<int>(row.number(5));
        out.taken = row.number(6) != 0;
        out.accepted = time(row.number(7));
        out.expires = time(row.number(8));
        out.content = read(row, 9, open);
        out.reply = read(row, 12, open);
        out.reply_number = static_cast<std::uint64_t>(row.number(15));
        if (!row.is_null(16)) out.reply_until = time(row.number(16));
        return out;
    }

    /// Three columns: the number, the size, and the bytes where they lie in no file. Null where there is none.
    template <class Open>
    std::shared_ptr<const payload> read(sqlite_statement::rows& row, int at, Open& open) {
        if (row.is_null(at)) return nullptr;
        if (row.is_null(at + 1)) throw error(errc::store_failed, "a content is missing: the file is damaged");
        if (row.is_null(at + 2)) return open(filed{row.number(at), static_cast<std::uint64_t>(row.number(at + 1))});
        return std::make_shared<const payload>(bytes::copy(row.data(at + 2)));
    }

    /// Another node may have been sent the same before: then it is there.
    std::int64_t write(const std::shared_ptr<const payload>& content) {
        auto& known = known_[content.get()];
        if (known.id != 0 && known.content.lock() == content) return known.id;
        if (known.id != 0) by_id_.erase(known.id);
        known = {content, new_id()};
        by_id_[known.id] = content.get();
        const auto data = content->flatten();
        add_content_.run(known.id, to_number(data.size()), std::optional(data.view()));
        return known.id;
    }
    std::int64_t file(filed content) {
        if (!has_content(content.id)) {
            add_content_.run(content.id, to_number(content.size), std::optional<std::string_view>());
        }
        return content.id;
    }

    void drop_if_unused(std::int64_t content) {
        if (!uses_.number(content)) drop(content);
    }
    void drop(std::int64_t content) {
        const bool was_filed = !content_data_.number(content);
        delete_content_.run(content);
        if (was_filed) dropped_now_.push_back(content);
        if (const auto found = by_id_.find(content); found != by_id_.end()) {
            known_.erase(found->second);
            by_id_.erase(found);
        }
    }

    static std::int64_t to_number(std::uint64_t n) noexcept { return static_cast<std::int64_t>(n); }
    static std::int64_t number(bool is) noexcept { return is ? 1 : 0; }
    static std::int64_t micros(std::chrono::system_clock::time_point when) {
        return std::chrono::floor<std::chrono::microseconds>(when).time_since_epoch().count();
    }
    static std::optional<std::int64_t> until(const task_record& task) {
        return task.reply_until == task.reply_until.max() ? std::nullopt : std::optional(micros(task.reply_until));
    }
    static std::chrono::system_clock::time_point time(std::int64_t micros) {
        return std::chrono::system_clock::time_point(std::chrono::microseconds(micros));
    }

    sqlite_tables tables_;
    sqlite_statement begin_{tables_.db, "BEGIN IMMEDIATE"};
    sqlite_statement commit_{tables_.db, "COMMIT"};
    sqlite_statement rollback_{tables_.db, "ROLLBACK"};
    sqlite_statement take_over_{tables_.db,
                                "INSERT INTO nodes(name, owner) VALUES(?, 1) "
                                "ON CONFLICT(name) DO UPDATE SET owner = owner + 1 RETURNING id, owner"};
    sqlite_statement checkpoint_{tables_.db, "PRAGMA wal_checkpoint"};
    sqlite_statement tasks_{tables_.db,
                            "SELECT place, tasks.id, request, wants_reply, urgent, attempts, taken, accepted, expires,"
                            " content, c.size, c.data, reply, r.size, r.data, reply_number, reply_until FROM tasks"
                            " LEFT JOIN contents c ON c.id = content LEFT JOIN contents r ON r.id = reply"
                            " WHERE node = ? ORDER BY place"};
    sqlite_statement has_{tables_.db, "SELECT 1 FROM tasks WHERE node = ? AND place = ?"};
    sqlite_statement insert_{tables_.db, "INSERT INTO tasks VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"};
    sqlite_statement update_{tables_.db,
                             "UPDATE tasks SET attempts = ?, taken = ?, reply_until = ? WHERE node = ? AND place = ?"};
    sqlite_statement content_of_{tables_.db, "SELECT content FROM tasks WHERE node = ? AND place = ?"};
    sqlite_statement reply_of_{tables_.db, "SELECT reply FROM tasks WHERE node = ? AND place = ?"};
    sqlite_statement set_reply_{tables_.db,
                                "UPDATE tasks SET reply = ?, reply_number = ? WHERE node = ? AND place = ?"};
    sqlite_statement forget_content_{tables_.db, "UPDATE tasks SET content = NULL WHERE node = ? AND place = ?"};
    sqlite_statement delete_{tables_.db, "DELETE FROM tasks WHERE node = ? AND place = ?"};
    sqlite_statement uses_{tables_.db, "SELECT 1 FROM tasks WHERE content = ? LIMIT 1"};
    sqlite_statement add_content_{tables_.db, "INSERT INTO contents VALUES(?, ?, ?)"};
    sqlite_statement has_content_{tables_.db, "SELECT 1 FROM contents WHERE id = ?"};
    sqlite_statement content_data_{tables_.db, "SELECT 1 FROM contents WHERE id = ? AND data IS NOT NULL"};
    sqlite_statement delete_content_{tables_.db, "DELETE FROM contents WHERE id = ?"};

    std::unordered_map<std::string, owner_row> owners_;
    bool owners_changed_ = false;             // since the last commit
    bool is_stale_ = true;                    // they are to be read again
    std::atomic<std::int64_t> last_content_;  // no number is used by two that opened the file
    std::unordered_map<const payload*, known_content> known_;
    std::unordered_map<std::int64_t, const payload*> by_id_;
    std::vector<std::int64_t> dropped_, dropped_now_;
};

}  // namespace ferry::detail
