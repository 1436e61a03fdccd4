// layer 4
// What a server or a node logs: warnings, and in debug one line for each message in or out.
#pragma once

#include <ferry/detail/utf8.hpp>
#include <ferry/feedback.hpp>
#include <ferry/message.hpp>
#include <ferry/server_options.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace ferry::detail {

class message_log {
public:
    using age = std::optional<std::chrono::steady_clock::duration>;

    message_log(std::function<void(log_level, const std::string&)> log, bool debug)
        : log_(std::move(log)), debug_(debug && log_) {}

    bool is_debug() const noexcept { return debug_; }

    void warn(const std::string& text) const noexcept { say(log_level::warning, text); }
    void debug(const std::string& text) const noexcept {
        if (debug_) say(log_level::debug, text);
    }

    /// What a message is, as its line shows it; empty where there is no debug log.
    template <class Message>
    std::string label(const Message& m) const {
        return debug_ ? label(class_of(m), message_traits<Message>::request_id(m)) : std::string();
    }
    std::string label(const std::string& class_name, const std::string& request_id) const {
        const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text; };
        return debug_ ? "class=" + or_dash(class_name) + " request_id=" + or_dash(request_id) : std::string();
    }
    std::string label(const feedback& from) const {
        return label(std::holds_alternative<log_line>(from) ? "Log" : "Scalar", "");
    }

    /// `node` is the other side; for a node, its researcher. What isn't known of attempt and age is a dash.
    static std::string line(const char* direction, const std::string& node, const std::string& label,
                            std::uint64_t bytes, std::optional<int> attempt, age since) {
        using std::chrono::milliseconds;
        return std::string(direction) + " node=" + node + " " + label + " bytes=" + std::to_string(bytes) +
               " attempt=" + (attempt ? std::to_string(*attempt) : "-") + " age=" +
               (since ? std::to_string(std::chrono::duration_cast<milliseconds>(*since).count()) + "ms" : "-");
    }

private:
    static constexpr std::size_t max_line_bytes = 2048;

    /// What the user's function throws is dropped: whatever is to be done after a line is done all the same.
    void say(log_level level, const std::string& text) const noexcept {
        if (!log_) return;
        try {
            log_(level, one_line(text));
        } catch (...) {
        }
    }

    /// A line has words of a peer's in it, which must not look like another line, nor steer a terminal.
    static std::string one_line(const std::string& text) {
        auto line = utf8_text(text, max_line_bytes);
        for (std::size_t i = 0; i < line.size(); ++i) {
            const auto code = static_cast<unsigned char>(line[i]);
            if (code < 0x20 || code == 0x7f) line[i] = '?';
            if (i > 0 && line[i - 1] == '\xc2' && code < 0xa0) line[i - 1] = line[i] = '?';  // U+0080 to U+009F
        }
        if (text.size() > max_line_bytes) line += "... (" + std::to_string(text.size()) + " bytes)";
        return line;
    }

    std::function<void(log_level, const std::string&)> log_;
    bool debug_;
};

}  // namespace ferry::detail
