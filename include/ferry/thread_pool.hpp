// layer 1
// Threads that several clients and servers share.
#pragma once

#include <ferry/detail/executor.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>

namespace ferry {

class thread_pool;

namespace detail {
std::shared_ptr<executor::workers> threads_of(const std::optional<thread_pool>&, std::size_t);
}

/// Threads for the callbacks of all clients and servers that are given a copy of it, in their options' `callback_pool`: a program
/// with many nodes has as few threads as it likes. What takes long on them holds up the others: a callback that waits, a node that
/// fetches its server's certificate (`trust_on_first_use`), or a callback that stops another client of the pool.
class thread_pool {
public:
    thread_pool(const thread_pool&) = default;  // a move is a copy
    thread_pool& operator=(const thread_pool&) = default;

    /// At least one thread, at most `threads`: each is started when it is first needed, and ends with the last user.
    explicit thread_pool(std::size_t threads) : workers_(std::make_shared<workers>(threads)), held_(hold(workers_)) {}

private:
    using workers = detail::executor::workers;
    friend std::shared_ptr<workers> detail::threads_of(const std::optional<thread_pool>&, std::size_t);

    static std::shared_ptr<void> hold(const std::shared_ptr<workers>& threads) {
        threads->join();
        return {nullptr,
                [threads](void*) { threads->leave(std::chrono::steady_clock::now() + std::chrono::seconds(1)); }};
    }

    std::shared_ptr<workers> workers_;
    std::shared_ptr<void> held_;  // by all copies together
};

namespace detail {

/// Those of the pool, or new ones.
inline std::shared_ptr<executor::workers> threads_of(const std::optional<thread_pool>& pool, std::size_t threads) {
    return pool ? pool->workers_ : std::make_shared<executor::workers>(threads);
}

}  // namespace detail

}  // namespace ferry
