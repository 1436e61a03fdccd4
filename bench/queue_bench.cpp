// Queueing by itself: the whole life of a task in the server's core, over a store and a retry policy, without a network.
// Beside it: the least that such a life can be, written by hand, and plain queues. To measure models of your own, add them
// to the templates at the end: a store that is made without arguments, or a type whose `make()` makes one. A store must
// call back before its functions return, as the one in memory does; what others cost, store_bench tells.
#include <ferry/agent_store/memory.hpp>
#include <ferry/chunk.hpp>
#include <ferry/detail/alarm.hpp>
#include <ferry/detail/effect_buffer.hpp>
#include <ferry/detail/store_write.hpp>
#include <ferry/dispatch.hpp>
#include <ferry/retry.hpp>

#include <concurrentqueue/concurrentqueue.h>

#include <benchmark/benchmark.h>

#include <malloc.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace {

using ferry::detail::now;  // the clock that servers have

/// Of a store, or of a type that makes one.
template <class Model>
auto make_store() {
    if constexpr (requires(const Model& model) { model.make(); }) {
        return Model().make();
    } else {
        return Model();
    }
}

/// The core behind one mutex, as a server has it; a call is a number, a ticket a counter that is raised at the end.
template <class Store, class Retry>
class queue {
    struct types {
        using call = std::uint64_t;
        using reply_call = int;
        using ticket = std::uint64_t*;
        using reply = int;
        using retry = Retry;
        using chunk_size = ferry::max_message_bytes_length<>;
    };
    using core_type = ferry::dispatch<types>;
    using released = ferry::effects::released<std::shared_ptr<const ferry::payload>>;
    using later = std::variant<ferry::effects::acquire_journal, ferry::detail::kept_append, ferry::detail::kept_update,
                               ferry::detail::kept_settle, released>;

    struct sink {
        queue& of;
        ferry::detail::effect_buffer<later>& kept;
        ferry::detail::effect_buffer<ferry::detail::completed_write>& completed;
        void operator()(ferry::effects::acquire_journal e) { kept.push(std::move(e)); }
        void operator()(ferry::effects::append_task e) { store(e); }
        void operator()(ferry::effects::update_task e) { store(e); }
        void operator()(ferry::effects::settle_task e) { store(e); }
        void operator()(released e) { kept.push(std::move(e)); }
        template <class Wish>
        void store(const Wish& e) {
            ferry::detail::write_or_keep(of.store_, e, kept, completed);
        }
        void operator()(ferry::effects::ended<std::uint64_t*, int> e) { ++*e.ticket; }
        template <class Other>
        void operator()(Other&&) {}
    };

public:
    template <class Event>
    void step(Event event) {
        ferry::detail::effect_buffer<later> effects;
        ferry::detail::effect_buffer<ferry::detail::completed_write> completed;
        {
            sink to{*this, effects, completed};
            const std::lock_guard lock(mutex_);
            const auto at = now();
            core_.step(std::move(event), at, to);
            completed.drain([&](ferry::detail::completed_write&& e) { core_.step(std::move(e).event(), at, to); });
        }
        effects.perform([this](auto&& effect) { this->perform(effect); });
    }

    void poll(const std::string& node, std::uint64_t call) {
        step(ferry::events::poll_opened<std::uint64_t>{call, node, connection_});
    }
    void submit(const std::string& node, std::shared_ptr<const ferry::payload> content, std::uint64_t& ended) {
        ferry::events::submitted<std::uint64_t*> e;
        e.node = node;
        e.content = std::move(content);
        e.ticket = &ended;
        e.expires_after = std::chrono::hours(1);
        step(std::move(e));
    }
    template <class Take>
    void for_each_node(Take&& take) const {
        core_.for_each_node(take);
    }
    void end_poll(const std::string& node, std::uint64_t call, bool clean) {
        step(ferry::events::poll_closed<std::uint64_t>{call, node, clean});
    }

private:
    void perform(const ferry::effects::acquire_journal& e) {
        store_.acquire(e.node, [&](ferry::acquired_journal j) {
            step(ferry::events::journal_acquired{e.node, std::move(j)});
        });
    }
    void perform(const released&) {}
    template <class Kept>
    void perform(const Kept& e) {
        ferry::detail::write_to(store_, e.wish(), done(e.key));
    }
    auto done(ferry::task_key key) {
        return [this, key](ferry::store_status status) { step(ferry::events::store_done{key, std::move(status)}); };
    }

    std::mutex mutex_;
    core_type core_;
    decltype(make_store<Store>()) store_ = make_store<Store>();
    const std::string connection_ = "a connection";
};

/// Accepted, stored, leased, sent, taken, settled and reported, `resends` times sent in vain before. Each thread has a node
/// of its own; all share the core.
template <class Store, class Retry>
void BM_task_life(benchmark::State& state) {
    static std::unique_ptr<queue<Store, Retry>> shared;
    if (state.thread_index() == 0) shared = std::make_unique<queue<Store, Retry>>();
    const auto content = std::make_shared<const ferry::payload>(ferry::bytes::copy(std::string(1024, 'x')));
    const auto node = "node-" + std::to_string(state.thread_index());
    const auto resends = state.range(0);
    std::uint64_t call = 1, ended = 0;
    bool first = true;
    for (auto _ : state) {
        if (std::exchange(first, false)) shared->poll(node, call);
        shared->submit(node, content, ended);
        for (std::int64_t i = 0; i < resends; ++i) {
            shared->end_poll(node, call, false);
            shared->poll(node, ++call);
        }
        shared->end_poll(node, call, true);
        shared->poll(node, ++call);
    }
    if (ended != static_cast<std::uint64_t>(state.iterations())) state.SkipWithError("not every task ended");
    state.SetItemsProcessed(state.iterations());
}

/// Many nodes are known, each by a poll that waits. A task's life goes to one after another of them.
template <class Store, class Retry>
struct known_nodes {
    explicit known_nodes(std::int64_t count) {
        const auto before = ::mallinfo2().uordblks;
        for (std::int64_t i = 0; i < count; ++i) {
            names.push_back("node-" + std::to_string(i));
            calls.push_back(1);
            in.poll(names.back(), 1);
        }
        bytes_a_node = static_cast<double>(::mallinfo2().uordblks - before) / static_cast<double>(count);
    }
    queue<Store, Retry> in;
    std::vector<std::string> names;
    std::vector<std::uint64_t> calls;
    double bytes_a_node;
};

template <class Store, class Retry>
void BM_send_among_known(benchmark::State& state) {
    known_nodes<Store, Retry> known(state.range(0));
    const auto content = std::make_shared<const ferry::payload>(ferry::bytes::copy(std::string(1024, 'x')));
    std::uint64_t ended = 0;
    std::size_t i = 0;
    for (auto _ : state) {
        i = (i + 7919) % known.names.size();
        known.in.submit(known.names[i], content, ended);
        known.in.end_poll(known.names[i], known.calls[i], true);
        known.in.poll(known.names[i], ++known.calls[i]);
    }
    if (ended != static_cast<std::uint64_t>(state.iterations())) state.SkipWithError("not every task ended");
    state.counters["bytes_a_node"] = known.bytes_a_node;
    state.SetItemsProcessed(state.iterations());
}

/// A task to each of them.
template <class Store, class Retry>
void BM_broadcast_to_known(benchmark::State& state) {
    known_nodes<Store, Retry> known(state.range(0));
    const auto content = std::make_shared<const ferry::payload>(ferry::bytes::copy(std::string(1024, 'x')));
    std::uint64_t ended = 0;
    for (auto _ : state) {
        for (const auto& name : known.names) known.in.submit(name, content, ended);  // a broadcast is so many sends
        state.PauseTiming();
        for (std::size_t i = 0; i < known.names.size(); ++i) {
            known.in.end_poll(known.names[i], known.calls[i], true);
            known.in.poll(known.names[i], ++known.calls[i]);
        }
        state.ResumeTiming();
    }
    if (ended != static_cast<std::uint64_t>(state.iterations() * state.range(0))) {
        state.SkipWithError("not every task ended");
    }
    state.SetItemsProcessed(state.iterations() * state.range(0));
}

template <class Store, class Retry>
void BM_status_of_known(benchmark::State& state) {
    const known_nodes<Store, Retry> known(state.range(0));
    for (auto _ : state) {
        std::vector<ferry::node_info> all;
        known.in.for_each_node([&](ferry::node_info each) { all.push_back(std::move(each)); });
        benchmark::DoNotOptimize(all.data());
    }
    state.SetItemsProcessed(state.iterations() * state.range(0));
}

/// What a table of nodes costs at least: a hash map, of whose entries one after another is looked up three times, as a life does.
void BM_plain_map(benchmark::State& state) {
    std::unordered_map<std::string, std::uint64_t> map;
    std::vector<std::string> names;
    const auto before = ::mallinfo2().uordblks;
    for (std::int64_t i = 0; i < state.range(0); ++i) {
        names.push_back("node-" + std::to_string(i));
        map.emplace(names.back(), 0);
    }
    const auto used = static_cast<double>(::mallinfo2().uordblks - before);
    std::size_t i = 0;
    for (auto _ : state) {
        i = (i + 7919) % names.size();
        for (int times = 0; times < 3; ++times) benchmark::DoNotOptimize(++map.find(names[i])->second);
    }
    state.counters["bytes_a_node"] = used / static_cast<double>(state.range(0));
    state.SetItemsProcessed(state.iterations());
}

/// The least that a life can be: a queue, a lease map and a handle behind one mutex, and a look at the clock.
void BM_minimal_life(benchmark::State& state) {
    struct task {
        std::shared_ptr<const ferry::payload> content;
        std::shared_ptr<std::uint64_t> handle;
        std::chrono::steady_clock::time_point accepted;
    };
    struct all {
        std::mutex mutex;
        std::deque<task> waiting;
        std::unordered_map<std::uint64_t, task> leased;
        std::uint64_t next = 0;
    };
    static std::unique_ptr<all> shared;
    if (state.thread_index() == 0) shared = std::make_unique<all>();
    const auto content = std::make_shared<const ferry::payload>(ferry::bytes::copy(std::string(1024, 'x')));
    const auto handle = std::make_shared<std::uint64_t>(0);
    for (auto _ : state) {
        {
            const std::lock_guard lock(shared->mutex);
            shared->waiting.push_back({content, handle, std::chrono::steady_clock::now()});
        }
        std::uint64_t lease = 0;
        {
            const std::lock_guard lock(shared->mutex);
            lease = ++shared->next;
            shared->leased.emplace(lease, std::move(shared->waiting.front()));
            shared->waiting.pop_front();
        }
        {
            const std::lock_guard lock(shared->mutex);
            const auto found = shared->leased.find(lease);
            ++*found->second.handle;
            shared->leased.erase(found);
        }
    }
    state.SetItemsProcessed(state.iterations());
}

/// From one thread to another, and back, where each waits for the other: what it takes to have work done elsewhere. Half of it
/// is one hand-over.
void BM_hand_over_and_back(benchmark::State& state) {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t asked = 0, answered = 0;
    bool over = false;
    std::jthread other([&] {
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [&] { return over || answered < asked; });
            if (over) return;
            ++answered;
            changed.notify_all();
        }
    });
    for (auto _ : state) {
        std::unique_lock lock(mutex);
        ++asked;
        changed.notify_all();
        changed.wait(lock, [&] { return answered == asked; });
    }
    const std::lock_guard lock(mutex);
    over = true;
    changed.notify_all();
}

void BM_mutex_deque(benchmark::State& state) {
    static std::mutex mutex;
    static std::deque<std::uint64_t> queue;
    for (auto _ : state) {
        {
            const std::lock_guard lock(mutex);
            queue.push_back(1);
        }
        const std::lock_guard lock(mutex);
        benchmark::DoNotOptimize(queue.front());
        queue.pop_front();
    }
    state.SetItemsProcessed(state.iterations());
}

void BM_moodycamel(benchmark::State& state) {
    static moodycamel::ConcurrentQueue<std::uint64_t> queue;
    std::uint64_t out = 0;
    for (auto _ : state) {
        queue.enqueue(1);
        benchmark::DoNotOptimize(queue.try_dequeue(out));
    }
    state.SetItemsProcessed(state.iterations());
}

BENCHMARK(BM_task_life<ferry::memory_agent_store, ferry::bounded_retry>)
    ->Arg(0)
    ->Arg(1)
    ->ThreadRange(1, 4)
    ->UseRealTime();
BENCHMARK(BM_send_among_known<ferry::memory_agent_store, ferry::bounded_retry>)->Arg(100)->Arg(10'000)->Arg(100'000);
BENCHMARK(BM_broadcast_to_known<ferry::memory_agent_store, ferry::bounded_retry>)->Arg(100)->Arg(100'000);
BENCHMARK(BM_status_of_known<ferry::memory_agent_store, ferry::bounded_retry>)->Arg(100)->Arg(100'000);
BENCHMARK(BM_plain_map)->Arg(100)->Arg(10'000)->Arg(100'000);
BENCHMARK(BM_hand_over_and_back)->UseRealTime();
BENCHMARK(BM_minimal_life)->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(BM_mutex_deque)->ThreadRange(1, 4)->UseRealTime();
BENCHMARK(BM_moodycamel)->ThreadRange(1, 4)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
