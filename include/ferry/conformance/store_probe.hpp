// A store under test, of whatever kind: each `done` is counted and waited for, and a journal's records are compared. What the
// operations are is the derived probes' matter.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/conformance/awaited.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace ferry {

/// For failures' texts.
inline void PrintTo(errc code, std::ostream* out) { *out << to_string(code); }

}  // namespace ferry

namespace ferry::conformance {

/// A node's id for failures' texts: its beginning, and how long it is, where that is not all.
inline std::string shown(const std::string& node) {
    constexpr std::size_t most = 40;
    const auto begins = testing::PrintToString(node.substr(0, most));
    return node.size() <= most ? begins : begins + " and so on, " + std::to_string(node.size()) + " bytes";
}

/// How a write ended, in a form that a failure's text can show. Equal to its `errc`.
struct ended {
    errc code;

    friend bool operator==(const ended& a, errc b) { return a.code == b; }
    friend std::ostream& operator<<(std::ostream& out, const ended& e) { return out << to_string(e.code); }
};

/// What all probes share. All members may be called from several threads.
class store_probe {
public:
    // --- what was begun --------------------------------------------------------------------------------------------------

    ended code(const awaited<store_status>& operation) {
        const auto out = wait(operation);
        return {out ? out->code : errc::cancelled};
    }

    /// After one that never came, the others are given no more time.
    template <class Result>
    std::optional<Result> wait(const awaited<Result>& operation) {
        auto out = operation.get(time_left());
        if (!out && !gave_up_.exchange(true)) {
            ADD_FAILURE() << "done was not called within " << patience_.count() << " ms";
        }
        return out;
    }

    // --- records -------------------------------------------------------------------------------------------------------

    /// A part of a record's content, from memory or a source; a failure where it can't be read.
    std::string read(const payload& from, std::uint64_t offset, std::uint64_t length) {
        awaited<range_result> range;
        from.read(offset, length, range.done());
        const auto out = wait(range);
        if (!out) return "never came";
        EXPECT_EQ(out->code, errc::ok) << "reading the content: " << out->text;
        if (out->code != errc::ok || !out->data.in_memory()) return "not in memory";
        return std::string(out->data.flatten().view());
    }
    std::string read(const task_record& task) {
        if (task.content) return read(*task.content, 0, task.content->size());
        ADD_FAILURE() << "task " << task.order << " has no content";
        return "no content";
    }

    /// Checks what an `append` gives to send in place of the content, where it gives something.
    void expect_same_content(const store_status& status, const task_record& appended) {
        if (status.code != errc::ok || !status.content) return;
        ASSERT_NE(appended.content, nullptr) << "task " << appended.order << " has none, and yet one is to be sent";
        EXPECT_TRUE(read(*status.content, 0, status.content->size()) == read(appended))
            << "what is to be sent of task " << appended.order << " is not its content";
    }

    /// Checks every field. Times may be cut off below the microsecond; of what is taken, the content may be gone.
    void expect_same(const task_record& is, const task_record& should_be) {
        SCOPED_TRACE("task " + std::to_string(should_be.order));
        const auto micros = [](auto time) {
            return std::chrono::floor<std::chrono::microseconds>(time).time_since_epoch();
        };
        EXPECT_EQ(is.order, should_be.order);
        EXPECT_EQ(is.id, should_be.id);
        EXPECT_EQ(is.urgent, should_be.urgent);
        EXPECT_EQ(is.request_id, should_be.request_id);
        EXPECT_EQ(is.wants_reply, should_be.wants_reply);
        EXPECT_EQ(is.attempts, should_be.attempts);
        EXPECT_EQ(is.taken, should_be.taken);
        EXPECT_EQ(micros(is.accepted).count(), micros(should_be.accepted).count()) << "accepted";
        EXPECT_EQ(micros(is.expires).count(), micros(should_be.expires).count()) << "expires";
        ASSERT_EQ(is.reply == nullptr, should_be.reply == nullptr) << "the reply";
        if (is.reply) {
            EXPECT_EQ(is.reply_number, should_be.reply_number);
            EXPECT_TRUE(read(*is.reply, 0, is.reply->size()) == read(*should_be.reply, 0, should_be.reply->size()));
        }
        if (should_be.taken && !is.content) return;
        EXPECT_TRUE(read(is) == read(should_be)) << "the content is another";
    }
    void expect_same(const std::vector<task_record>& are, const std::vector<task_record>& should_be) {
        ASSERT_EQ(are.size(), should_be.size()) << "open tasks";
        for (std::size_t i = 0; i < are.size(); ++i) expect_same(are[i], should_be[i]);
    }

protected:
    explicit store_probe(std::chrono::milliseconds patience) : patience_(patience) {}
    ~store_probe() = default;

    /// How long something may still take.
    std::chrono::milliseconds time_left() const { return gave_up_ ? std::chrono::milliseconds(0) : patience_; }
    /// From now on, nothing may. Returns false.
    bool give_up() {
        gave_up_ = true;
        return false;
    }

    template <class Result, class Begin>
    awaited<Result> begun(const char* what, Begin&& begin) {
        awaited<Result> out;
        {
            const std::lock_guard lock(mutex_);
            counts_.emplace_back(what, [out] { return out.calls(); });
        }
        try {
            std::forward<Begin>(begin)(out.done());
        } catch (const std::exception& e) {
            gave_up_ = true;
            ADD_FAILURE() << what << " threw: " << e.what();
        }
        return out;
    }

    /// For a store that is gone: each `done` must have been called once by then.
    void expect_all_ended() {
        const std::lock_guard lock(mutex_);
        for (const auto& [what, calls] : counts_)
            EXPECT_EQ(calls(), 1) << "calls of the done of an operation: " << what;
        counts_.clear();
    }

private:
    const std::chrono::milliseconds patience_;
    std::atomic<bool> gave_up_{false};
    std::mutex mutex_;
    std::vector<std::pair<const char*, std::function<int()>>> counts_;
};

/// A task with every field in use, different for each `order`.
inline task_record some_task(std::uint64_t order) {
    const auto number = std::to_string(order);
    task_record out;
    out.order = order;
    out.id = order * 0x9e3779b97f4a7c15U;  // of all 64 bits
    out.urgent = order % 5 == 1;
    out.request_id = order % 3 == 0 ? "" : "request " + number;
    out.wants_reply = order % 2 == 0;
    out.content = std::make_shared<const payload>(bytes::copy("the content of " + number));
    out.attempts = static_cast<int>(order % 4);
    out.taken = order % 4 == 2;
    out.accepted =
        std::chrono::system_clock::time_point(std::chrono::microseconds(1'709'208'000'123'456 + order % 1'000'000));
    out.expires = out.accepted + std::chrono::hours(24);
    return out;
}

}  // namespace ferry::conformance
