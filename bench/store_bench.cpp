// What it costs to keep tasks: each is appended and settled, one after another, or 256 at a time. Beside it SQLite by hand: the same
// bytes inserted and deleted, in as many transactions.
//
// The files are made in the folder that TMPDIR names, or in /tmp: it should be on the disk in question.
#include <ferry/agent_store/memory.hpp>
#include <ferry/agent_store/sqlite.hpp>

#include <benchmark/benchmark.h>
#include <sqlite3.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

class folder {
public:
    folder() : path_((std::filesystem::temp_directory_path() / "ferry_bench.XXXXXX").string()) {
        if (!::mkdtemp(path_.data())) throw std::runtime_error("can't make " + path_);
    }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    ~folder() { std::filesystem::remove_all(path_); }
    std::string file() const { return path_ + "/file"; }

private:
    std::string path_;
};

struct in_memory {
    ferry::memory_agent_store make() const { return {}; }
};
template <ferry::sqlite_durability Durability>
struct in_sqlite {
    folder where;
    ferry::sqlite_agent_store make() const { return ferry::sqlite_agent_store({where.file(), Durability}); }
};
using survives = in_sqlite<ferry::sqlite_durability::survives_power_cut>;
using loses_the_last = in_sqlite<ferry::sqlite_durability::power_cut_loses_the_last>;

/// Counts down to nothing under way.
class under_way {
public:
    void begin(std::size_t most) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return count_ < most; });
        ++count_;
    }
    void end() {
        const std::lock_guard lock(mutex_);
        --count_;
        changed_.notify_one();
    }
    void wait() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return count_ == 0; });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t count_ = 0;
};

/// `range(0)` bytes, `range(1)` tasks under way at a time.
template <class Model>
void BM_store(benchmark::State& state) {
    const Model model;
    auto store = model.make();
    ferry::task_record task;
    task.accepted = std::chrono::system_clock::now();
    task.expires = task.accepted + std::chrono::hours(1);
    const auto bytes = static_cast<std::size_t>(state.range(0));
    const auto most = static_cast<std::size_t>(state.range(1));
    ferry::epoch owner = 0;
    under_way tasks;
    bool failed = false;
    tasks.begin(1);
    store.acquire("node", [&](const ferry::acquired_journal& journal) {
        owner = journal.owner;
        tasks.end();
    });
    tasks.wait();
    for (auto _ : state) {
        tasks.begin(most);
        ++task.order;
        task.content = std::make_shared<const ferry::payload>(ferry::bytes::own(std::string(bytes, 'x')));
        store.append("node", owner, task, [&, order = task.order](const ferry::store_status& stored) {
            failed |= stored.code != ferry::errc::ok;
            store.settle("node", owner, order, [&](const ferry::store_status& settled) {
                failed |= settled.code != ferry::errc::ok;
                tasks.end();
            });
        });
    }
    tasks.wait();
    if (failed) state.SkipWithError("the store failed");
    state.SetItemsProcessed(state.iterations());
}

/// The rows of as many tasks are inserted in one transaction, and deleted in another.
template <ferry::sqlite_durability Durability>
void BM_sqlite_by_hand(benchmark::State& state) {
    const folder where;
    sqlite3* db = nullptr;
    const auto check = [&](int code) {
        if (code != SQLITE_OK && code != SQLITE_DONE) throw std::runtime_error(sqlite3_errmsg(db));
    };
    const auto run = [&](const char* sql) { check(sqlite3_exec(db, sql, nullptr, nullptr, nullptr)); };
    check(sqlite3_open(where.file().c_str(), &db));
    run("PRAGMA locking_mode=EXCLUSIVE");
    run("PRAGMA journal_mode=WAL");
    run(Durability == ferry::sqlite_durability::survives_power_cut ? "PRAGMA synchronous=FULL"
                                                                   : "PRAGMA synchronous=NORMAL");
    run("CREATE TABLE tasks(place INTEGER PRIMARY KEY, content BLOB)");
    sqlite3_stmt *insert = nullptr, *remove = nullptr;
    check(sqlite3_prepare_v2(db, "INSERT INTO tasks VALUES(?, ?)", -1, &insert, nullptr));
    check(sqlite3_prepare_v2(db, "DELETE FROM tasks WHERE place = ?", -1, &remove, nullptr));
    const std::string content(static_cast<std::size_t>(state.range(0)), 'x');
    const auto each = state.range(1);
    std::int64_t last = 0;
    while (state.KeepRunningBatch(each)) {
        run("BEGIN");
        for (std::int64_t i = 1; i <= each; ++i) {
            sqlite3_bind_int64(insert, 1, last + i);
            sqlite3_bind_blob64(insert, 2, content.data(), content.size(), SQLITE_STATIC);
            check(sqlite3_step(insert));
            sqlite3_reset(insert);
        }
        run("COMMIT");
        run("BEGIN");
        for (std::int64_t i = 1; i <= each; ++i) {
            sqlite3_bind_int64(remove, 1, last + i);
            check(sqlite3_step(remove));
            sqlite3_reset(remove);
        }
        run("COMMIT");
        last += each;
    }
    sqlite3_finalize(insert);
    sqlite3_finalize(remove);
    sqlite3_close(db);
    state.SetItemsProcessed(state.iterations());
}

void sizes(benchmark::internal::Benchmark* of) {
    of->Args({1024, 1})->Args({1024, 256})->Args({1'000'000, 1})->UseRealTime();
}
BENCHMARK(BM_store<in_memory>)->Apply(sizes);
BENCHMARK(BM_store<survives>)->Apply(sizes);
BENCHMARK(BM_store<loses_the_last>)->Apply(sizes);
BENCHMARK(BM_sqlite_by_hand<ferry::sqlite_durability::survives_power_cut>)->Apply(sizes);
BENCHMARK(BM_sqlite_by_hand<ferry::sqlite_durability::power_cut_loses_the_last>)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
