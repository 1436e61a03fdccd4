// layer 1
// SQLite as ferry uses it: one connection for one thread at a time, statements that are prepared once, and its failures as
// ferry's, in its own words.
#pragma once

#include <ferry/error.hpp>

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace ferry::detail {

/// A connection. All members throw `error{store_failed}`.
class sqlite_database {
public:
    /// The file must be there; an empty one becomes a database.
    explicit sqlite_database(const std::string& file) : file_(file) {
        sqlite3* opened = nullptr;
        const int code = sqlite3_open_v2(file.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
        open_.reset(opened);
        if (code != SQLITE_OK) fail(code);
        sqlite3_extended_result_codes(opened, 1);
    }

    /// For statements that bring nothing.
    void run(const std::string& sql) {
        if (const int code = sqlite3_exec(open_.get(), sql.c_str(), nullptr, nullptr, nullptr); code != SQLITE_OK)
            fail(code);
    }

    /// Waits so long for others' locks.
    void set_patience(int milliseconds) noexcept { sqlite3_busy_timeout(open_.get(), milliseconds); }

    bool in_transaction() const noexcept { return sqlite3_get_autocommit(open_.get()) == 0; }

    sqlite3* handle() const noexcept { return open_.get(); }

    [[noreturn]] void fail(int code) const {
        std::string why = open_ ? sqlite3_errmsg(open_.get()) : sqlite3_errstr(code);
        switch (code & 0xff) {
            case SQLITE_BUSY:
            case SQLITE_LOCKED: why += ": another process has it open; give each server a file of its own"; break;
            case SQLITE_NOTADB:
            case SQLITE_CORRUPT:
                why += ": restore it from a copy, with its -wal and .contents, or name another file";
                break;
            case SQLITE_FULL: why += ": make room"; break;
            case SQLITE_READONLY:
            case SQLITE_CANTOPEN: why += ": this process must be able to write the file and its folder"; break;
            default: break;
        }
        throw error(errc::store_failed, file_ + ": " + why);
    }

private:
    struct close {
        void operator()(sqlite3* db) const noexcept { sqlite3_close_v2(db); }
    };

    std::string file_;
    std::unique_ptr<sqlite3, close> open_;
};

/// A prepared statement. Numbers and blobs go in, and come out by column.
class sqlite_statement {
public:
    sqlite_statement(sqlite_database& db, std::string_view sql) : db_(db) {
        sqlite3_stmt* made = nullptr;
        const int code = sqlite3_prepare_v3(db.handle(), sql.data(), static_cast<int>(sql.size()),
                                            SQLITE_PREPARE_PERSISTENT, &made, nullptr);
        made_.reset(made);
        if (code != SQLITE_OK) db.fail(code);
    }

    /// One run through its rows. It must end before the next begins; what was bound must live as long.
    class rows {
    public:
        explicit rows(sqlite_statement& of) noexcept : of_(of) {}
        rows(const rows&) = delete;
        rows& operator=(const rows&) = delete;
        ~rows() { sqlite3_reset(of_.made_.get()); }

        /// False at the end.
        bool next() {
            const int code = sqlite3_step(of_.made_.get());
            if (code == SQLITE_ROW) return true;
            if (code != SQLITE_DONE) of_.db_.fail(code);
            return false;
        }
        bool is_null(int column) const { return sqlite3_column_type(of_.made_.get(), column) == SQLITE_NULL; }
        std::int64_t number(int column) const { return sqlite3_column_int64(of_.made_.get(), column); }
        std::string_view data(int column) const {
            const void* at = sqlite3_column_blob(of_.made_.get(), column);
            const auto size = static_cast<std::size_t>(sqlite3_column_bytes(of_.made_.get(), column));
            return {static_cast<const char*>(at), at ? size : 0};
        }

    private:
        sqlite_statement& of_;
    };

    template <class... Values>
    rows query(const Values&... values) {
        int at = 0;
        (bind(++at, values), ...);
        return rows(*this);
    }

    /// Runs it to its end.
    template <class... Values>
    void run(const Values&... values) {
        auto all = query(values...);
        while (all.next()) {
        }
    }

    /// The number in the first column of the first row.
    template <class... Values>
    std::optional<std::int64_t> number(const Values&... values) {
        auto all = query(values...);
        if (!all.next() || all.is_null(0)) return std::nullopt;
        return all.number(0);
    }

private:
    void bind(int at, std::int64_t number) { check(sqlite3_bind_int64(made_.get(), at, number)); }
    void bind(int at, std::string_view data) {
        const char* from = data.data() ? data.data() : "";  // null would be SQL's NULL
        check(sqlite3_bind_blob64(made_.get(), at, from, data.size(), SQLITE_STATIC));
    }
    template <class Value>
    void bind(int at, const std::optional<Value>& value) {
        value ? bind(at, *value) : check(sqlite3_bind_null(made_.get(), at));
    }
    void check(int code) {
        if (code != SQLITE_OK) db_.fail(code);
    }

    struct finalize {
        void operator()(sqlite3_stmt* made) const noexcept { sqlite3_finalize(made); }
    };

    sqlite_database& db_;
    std::unique_ptr<sqlite3_stmt, finalize> made_;
};

}  // namespace ferry::detail
