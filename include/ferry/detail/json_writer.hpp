// layer 1
// Writes JSON text, and the maps by which it says what JSON can't; serializer/json.hpp has their rules.
#pragma once

#include <ferry/detail/base64.hpp>
#include <ferry/detail/payload_builder.hpp>
#include <ferry/detail/shortest_double.hpp>
#include <ferry/detail/utf8.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::detail {

inline constexpr std::string_view json_bytes_tag = "bytes";
inline constexpr std::string_view json_ext_tag = "ferry.ext";
inline constexpr std::string_view json_float_tag = "ferry.float";
inline constexpr std::string_view json_literal_tag = "ferry.literal";

inline bool is_json_tag(std::string_view type) noexcept {
    return type == json_bytes_tag || type == json_ext_tag || type == json_float_tag || type == json_literal_tag;
}

/// Of each byte: whether it stands for itself in a text, whatever is around it.
inline constexpr auto is_plain_json = [] {
    std::array<bool, 256> table{};
    for (std::size_t i = 0x20; i < 0x80; ++i) table[i] = i != '"' && i != '\\';
    return table;
}();

class json_writer {
public:
    static constexpr std::string_view format = "json";
    static constexpr bool takes_any_key = false;  // the list of pairs is an ordinary map here
    static constexpr bool has_tags = true;

    void null() { put_value("null"); }
    void boolean(bool v) { put_value(v ? "true" : "false"); }
    void integer(std::int64_t v) { number(v); }
    void unsigned_integer(std::uint64_t v) { number(v); }

    /// As short as it can be to be read as the same float64; never as an integer.
    void floating(double v) {
        if (!std::isfinite(v)) return special(v);
        out_.written(write_double(begin_value(room_for_double), v));
    }

    void text(std::string_view v, const std::shared_ptr<const void>& = nullptr) {
        put_value("");
        quoted(v);
    }

    void binary(std::span<const std::uint8_t> v, const std::shared_ptr<const void>&) { base64(v, std::nullopt); }
    void binary(const bytes& v, std::optional<std::uint64_t> subtype) { base64({v.data(), v.size()}, subtype); }

    void begin_array(std::size_t) { begin("["); }
    void end_array() { end("]"); }
    void begin_map(std::size_t, std::string_view type) {
        const bool literal = is_json_tag(type);
        maps_.push_back(literal);
        begin(literal ? R"({"__type__":"ferry.literal","value":{)" : "{");
    }
    void end_map() {
        end(maps_.back() ? "}}" : "}");
        maps_.pop_back();
    }
    void key(std::string_view v) {
        key_ = v;
        put_value("");
        quoted(v);
        put(":");
        comma_ = false;
    }

    payload finish() { return out_.finish(); }

private:
    static constexpr std::size_t max_number = 32;

    void put(std::string_view text) { out_.write(text.data(), text.size()); }

    /// Room for a value of at most `size` characters, behind the comma where one is due.
    char* begin_value(std::size_t size) {
        char* at = out_.room(size + 1);
        if (std::exchange(comma_, true)) *at++ = ',';
        return at;
    }
    void put_value(std::string_view text) {
        char* const at = begin_value(text.size());
        out_.written(std::copy(text.begin(), text.end(), at));
    }
    void begin(std::string_view bracket) {
        put_value(bracket);
        comma_ = false;
    }
    void end(std::string_view brackets) {
        put(brackets);
        comma_ = true;
    }

    template <class Integer>
    void number(Integer v) {
        char* const at = begin_value(max_number);
        out_.written(std::to_chars(at, at + max_number, v).ptr);
    }

    void special(double v) {
        put_value(R"({"__type__":"ferry.float","value":")");
        const auto bits = std::bit_cast<std::uint64_t>(v);
        if (std::isinf(v)) {
            put(v > 0 ? "inf" : "-inf");
        } else if (bits == 0x7ff8'0000'0000'0000) {
            put("nan");
        } else {
            put("nan:");
            char* const at = out_.room(16);
            out_.written(std::to_chars(at, at + 16, bits, 16).ptr);  // 16 digits, as the first of a NaN is not 0
        }
        put("\"}");
    }

    void base64(std::span<const std::uint8_t> v, std::optional<std::uint64_t> subtype) {
        if (subtype) {
            begin(R"({"__type__":"ferry.ext","subtype":)");
            number(*subtype);
            put(R"(,"value":")");
        } else {
            put_value(R"({"__type__":"bytes","value":")");
        }
        const auto size = base64_size(v.size());
        char* const at = out_.room(size);
        to_base64(v, at);
        out_.written(at + size);
        put("\"}");
    }

    void quoted(std::string_view v) {
        put("\"");
        std::size_t done = 0;
        for (std::size_t at = 0; at < v.size();) {
            const auto byte = static_cast<std::uint8_t>(v[at]);
            if (is_plain_json[byte]) {
                ++at;
            } else if (byte >= 0x80) {
                const auto length = utf8_sequence(v.substr(at));
                if (length == 0) refuse(v, at);
                at += length;
            } else {
                put(v.substr(done, at - done));
                escape(byte);
                done = ++at;
            }
        }
        put(v.substr(done));
        put("\"");
    }

    void escape(std::uint8_t byte) {
        switch (byte) {
            case '"': return put("\\\"");
            case '\\': return put("\\\\");
            case '\n': return put("\\n");
            case '\r': return put("\\r");
            case '\t': return put("\\t");
            default: {
                static constexpr std::string_view digits = "0123456789abcdef";
                const char text[] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
                put(std::string_view(text, sizeof text));
            }
        }
    }

    [[noreturn]] void refuse(std::string_view text, std::size_t at) const {
        std::string where = text.data() == key_.data() ? "a key" : "a text";
        if (text.data() != key_.data() && !key_.empty()) where += " at or below the key \"" + std::string(key_) + "\"";
        throw error(errc::encode_failed, "json: " + where + " is not UTF-8, from its byte " + std::to_string(at) +
                                             " on: send it as a binary, which may hold any bytes");
    }

    payload_builder out_;
    std::vector<bool> maps_;  // that are open
    std::string_view key_;
    bool comma_ = false;  // goes before the next value
};

}  // namespace ferry::detail
