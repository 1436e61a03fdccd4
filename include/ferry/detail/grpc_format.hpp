// layer 4
// Whether both ends speak the same format. A node says with each poll and upload which serializer it has, in gRPC's metadata;
// a server with another one refuses the call and says so. A peer of another make says nothing, and is served.
#pragma once

#include <ferry/detail/message_log.hpp>

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace ferry::detail {

inline constexpr const char* format_key = "ferry-serializer";

/// A serializer's name as metadata may hold it: visible ASCII, and not more than a line of a log can bear.
inline std::string format_word(std::string_view name) {
    std::string word(name.substr(0, 100));
    std::replace_if(
        word.begin(), word.end(), [](char c) { return c <= ' ' || c > '~'; }, '?');
    return word;
}

inline void announce_format(grpc::ClientContext& context, std::string_view name) {
    context.AddMetadata(format_key, format_word(name));
}

class format_check {
public:
    format_check(std::string_view own, message_log log) : own_(format_word(own)), log_(std::move(log)) {}

    /// What to answer a peer whose serializer is another one; empty where it's the same, or isn't told. The log hears of it
    /// once for each that calls itself `who`.
    std::string problem(const grpc::CallbackServerContext& context, const std::string& who) const {
        const auto& sent = context.client_metadata();
        const auto told = sent.find(format_key);
        if (told == sent.end()) return {};
        const auto theirs = format_word(std::string_view(told->second.data(), told->second.size()));
        if (theirs == own_) return {};
        const std::string text =
            "the serializer of " + who + " is " + theirs + ", that of its server is " + own_ + ": give both the same";
        if (is_new(who)) log_.warn(text);
        return text;
    }

private:
    bool is_new(const std::string& who) const {
        constexpr std::size_t remembered = 1000;
        const std::lock_guard lock(known_->mutex);
        if (known_->who.size() >= remembered) known_->who.clear();
        return known_->who.insert(who).second;
    }

    struct already_told {
        std::mutex mutex;
        std::unordered_set<std::string> who;
    };

    const std::string own_;
    const message_log log_;
    const std::shared_ptr<already_told> known_ = std::make_shared<already_told>();
};

}  // namespace ferry::detail
