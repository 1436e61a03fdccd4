// What it costs to keep tasks: each is appended and settled, one after another, or 256 at a time. Beside it SQLite by hand: the same
// bytes inserted and deleted, in as many transactions; and Redis by hand: the same bytes pushed to a list and removed, in as many
// pipelines. Both Redis are started here, and write nothing to the disk.
//
// The files are made in the folder that TMPDIR names, or in /tmp: it should be on the disk in question.
#include <ferry/agent_store/memory.hpp>
#include <ferry/agent_store/redis.hpp>
#include <ferry/agent_store/sqlite.hpp>

#include "../tests/redis_process.hpp"

#include <benchmark/benchmark.h>
#include <hiredis/hiredis.h>
#include <sqlite3.h>

#include <atomic>
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
struct in_redis {
    ferry_test::redis_process redis;
    ferry::redis_agent_store make() const { return ferry::redis_agent_store({.unix_socket = redis.socket()}); }
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
    benchmark::IterationCount begun = 0;
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
        if (++begun == state.max_iterations) tasks.wait();  // while the time is taken: what is under way counts
    }
    if (failed) state.SkipWithError("the store failed");
    state.SetItemsProcessed(state.iterations());
}

/// Tasks of a shared store, from the post to the end that was told to who posted, at a server that is owner and sender.
class shared_life {
public:
    explicit shared_life(ferry::redis_agent_store store) : store_(std::move(store)) {
        tasks_.begin(1);
        store_.listen([this](const ferry::store_note& note) { take(note.what); },
                      [this](const ferry::seen_nodes&) { tasks_.end(); });
        tasks_.wait();
        tasks_.begin(1);
        store_.acquire("node", [this](const ferry::acquired_journal& journal) {
            owner_ = journal.owner;
            tasks_.end();
        });
        tasks_.wait();
    }

    /// Waits while so many are under way.
    void post(const ferry::task_record& task, std::size_t most) {
        tasks_.begin(most);
        store_.post("node", task, [this](const ferry::store_status& posted) { check(posted); });
    }

    /// Waits for all of them. False where one has failed.
    bool end() {
        tasks_.wait();
        return !failed_;
    }

private:
    void check(const ferry::store_status& status) {
        if (status.code != ferry::errc::ok) failed_ = true;
    }

    void take(ferry::store_note::kind what) {
        if (what == ferry::store_note::kind::tasks) again(fetches_, [this] { fetch(); });
        if (what == ferry::store_note::kind::ends) again(reads_, [this] { read(); });
    }

    /// One at a time: what is noted meanwhile makes for one more.
    template <class Begin>
    static void again(std::atomic<int>& noted, Begin begin) {
        if (noted++ == 0) begin();
    }

    void fetch() {
        const int seen = fetches_;
        store_.fetch("node", owner_, last_, [this, seen](const ferry::acquired_journal& journal) {
            check(journal.status);
            for (const auto& task : journal.tasks) {
                if (task.order <= last_) continue;
                last_ = task.order;
                store_.end("node", owner_, task.order, {.how = {}, .request_id = {}},
                           [this](const ferry::store_status& ended) { check(ended); });
            }
            if ((fetches_ -= seen) > 0) fetch();
        });
    }

    void read() {
        const int seen = reads_;
        store_.ends(place_, [this, seen](const ferry::arrived_ends& arrived) {
            check(arrived.status);
            for (const auto& each : arrived.ends) {
                place_ = each.place;
                store_.acknowledge(each.place, [this](const ferry::store_status& noted) {
                    check(noted);
                    tasks_.end();
                });
            }
            if ((reads_ -= seen) > 0) read();
        });
    }

    under_way tasks_;
    std::atomic<bool> failed_ = false;
    std::atomic<int> fetches_ = 0, reads_ = 0;
    ferry::epoch owner_ = 0;
    std::uint64_t last_ = 0, place_ = 0;
    ferry::redis_agent_store store_;  // goes first: until then it calls back, with notes of what is done, too
};

void BM_shared_life(benchmark::State& state) {
    const in_redis model;
    shared_life life(model.make());
    ferry::task_record task;
    task.accepted = std::chrono::system_clock::now();
    task.expires = task.accepted + std::chrono::hours(1);
    const auto bytes = static_cast<std::size_t>(state.range(0));
    benchmark::IterationCount begun = 0;
    bool good = true;
    for (auto _ : state) {
        ++task.id;
        task.content = std::make_shared<const ferry::payload>(ferry::bytes::own(std::string(bytes, 'x')));
        life.post(task, static_cast<std::size_t>(state.range(1)));
        if (++begun == state.max_iterations) good = life.end();  // while the time is taken
    }
    if (!good) state.SkipWithError("the store failed");
    state.SetItemsProcessed(state.iterations());
}

/// As many contents are pushed to a list in one pipeline, and removed in another.
void BM_redis_by_hand(benchmark::State& state) {
    const ferry_test::redis_process redis;
    const std::unique_ptr<redisContext, void (*)(redisContext*)> to(redisConnectUnix(redis.socket().c_str()),
                                                                    redisFree);
    const std::string content(static_cast<std::size_t>(state.range(0)), 'x');
    const auto each = state.range(1);
    bool failed = !to || to->err;
    const auto answers = [&] {
        for (std::int64_t i = 0; i < each; ++i) {
            void* answer = nullptr;
            failed |= redisGetReply(to.get(), &answer) != REDIS_OK;
            failed |= !answer || static_cast<redisReply*>(answer)->type == REDIS_REPLY_ERROR;
            if (answer) freeReplyObject(answer);
        }
    };
    while (!failed && state.KeepRunningBatch(each)) {
        for (std::int64_t i = 0; i < each; ++i)
            redisAppendCommand(to.get(), "RPUSH tasks %b", content.data(), content.size());
        answers();
        for (std::int64_t i = 0; i < each; ++i) redisAppendCommand(to.get(), "LTRIM tasks 1 -1");
        answers();
    }
    if (failed) state.SkipWithError("Redis failed");
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
BENCHMARK(BM_store<in_redis>)->Apply(sizes);
BENCHMARK(BM_shared_life)->Apply(sizes);
BENCHMARK(BM_redis_by_hand)->Apply(sizes);
BENCHMARK(BM_sqlite_by_hand<ferry::sqlite_durability::survives_power_cut>)->Apply(sizes);
BENCHMARK(BM_sqlite_by_hand<ferry::sqlite_durability::power_cut_loses_the_last>)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
