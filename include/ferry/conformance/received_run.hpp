// Memory that shows who uses it without keeping it: once its last owner is gone it is overwritten, though not freed, so that
// a dangling slice reads other bytes than before, and nothing undefined happens.
#pragma once

#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// One run of such memory. Whatever may still look at it must not outlive this.
class received_run {
public:
    /// Holds a copy of `content`.
    explicit received_run(const bytes& content) : kept_(std::make_shared<memory>()) {
        kept_->content.assign(content.begin(), content.end());
        const std::shared_ptr<const void> owner(kept_->content.data(), [kept = kept_](const void*) {
            std::ranges::fill(kept->content, std::uint8_t{0xdb});
            kept->released = true;
        });
        run_ = bytes::borrow(kept_->content, owner);
    }

    /// The run; nothing here owns it any more.
    bytes take() { return std::exchange(run_, {}); }

    bool is_released() const { return kept_->released; }

private:
    struct memory {
        std::vector<std::uint8_t> content;
        std::atomic<bool> released{false};
    };

    std::shared_ptr<memory> kept_;
    bytes run_;
};

/// The binaries of one message, each in such memory.
class received_runs {
public:
    /// Moves all binaries of `m`. Those of a message type of the user's own are left where they are.
    template <class Message>
    void replace_binaries(Message& m) {
        if constexpr (std::same_as<Message, message>) {
            if (m.is_binary()) {
                bytes& binary = m.get_binary();
                runs_.emplace_back(binary);
                binary = runs_.back().take();
            } else if (m.is_structured()) {
                for (auto& each : m) replace_binaries(each);
            }
        }
    }

    bool are_released() const {
        return std::ranges::all_of(runs_, [](const received_run& each) { return each.is_released(); });
    }

private:
    std::vector<received_run> runs_;
};

}  // namespace ferry::conformance
