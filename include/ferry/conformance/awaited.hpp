// Waits for what is told to a callback: at once, later, from another thread, twice, or never.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

namespace ferry::conformance {

/// The one result that a callback is to bring. Copies wait for the same. The callback may be called when all are gone.
template <class Result>
class awaited {
public:
    /// What is to be called. Can be copied.
    std::function<void(Result)> done() const {
        return [state = state_](Result result) {
            const std::lock_guard lock(state->mutex);
            if (++state->calls == 1) state->result = std::move(result);
            state->came.notify_all();
        };
    }

    /// The first result; nothing where none comes in time.
    std::optional<Result> get(std::chrono::milliseconds patience) const {
        std::unique_lock lock(state_->mutex);
        state_->came.wait_for(lock, patience, [&] { return state_->calls > 0; });
        return state_->result;
    }

    /// How often the callback was called so far.
    int calls() const {
        const std::lock_guard lock(state_->mutex);
        return state_->calls;
    }

private:
    struct shared {
        std::mutex mutex;
        std::condition_variable came;
        std::optional<Result> result;
        int calls = 0;
    };

    std::shared_ptr<shared> state_ = std::make_shared<shared>();
};

}  // namespace ferry::conformance
