// layer 3
// How the debug log shows a message: one line, in or out.
#pragma once

#include <ferry/message.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace ferry::detail {

/// What a message is, as the line shows it.
inline std::string message_label(const std::string& class_name, const std::string& request_id) {
    const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text; };
    return "class=" + or_dash(class_name) + " request_id=" + or_dash(request_id);
}

template <class Message>
std::string message_label(const Message& m) {
    return message_label(class_of(m), message_traits<Message>::request_id(m));
}

/// `node` is the other side; for a node, its researcher. What isn't known of attempt and age is a dash.
inline std::string message_line(const char* direction, const std::string& node, const std::string& label,
                                std::uint64_t bytes, std::optional<int> attempt,
                                std::optional<std::chrono::steady_clock::duration> age) {
    using std::chrono::milliseconds;
    return std::string(direction) + " node=" + node + " " + label + " bytes=" + std::to_string(bytes) +
           " attempt=" + (attempt ? std::to_string(*attempt) : "-") +
           " age=" + (age ? std::to_string(std::chrono::duration_cast<milliseconds>(*age).count()) + "ms" : "-");
}

}  // namespace ferry::detail
