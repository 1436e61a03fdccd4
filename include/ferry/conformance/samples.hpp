// The messages that the serializers' suite carries there and back: one of every kind and edge for ferry's own message, and
// the template by which a message type of the user's own brings its samples.
#pragma once

#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// A message with a name, by which a failure tells it and a `model_of` can leave it out.
template <class Message>
struct sample {
    std::string name;
    Message value;
};

/// The samples of a message type. Specialise it for a type of your own; the functions are static.
///
/// | expression     | meaning                                                                                         |
/// |----------------|-------------------------------------------------------------------------------------------------|
/// | `all()`        | a `std::vector<sample<Message>>`, not empty; anew by each call                                  |
/// | `equal(a, b)`  | true for the same message, where `==` is not there or not strict enough                         |
/// | `awkward()`    | samples that a serializer may refuse with an error, but must not change; none without it        |
/// | `large()`      | samples that take too long for more than to be carried there and back once; none without it     |
/// | `enclosed(m)`  | `m` in a form whose encoding shows where it ends in every format; `m` itself without it         |
///
/// The encoding of a bare number as text doesn't show where it ends: `12` may be a part of `123`. What the suite cuts off,
/// and what it puts bytes behind, is `enclosed`.
template <class Message>
struct samples_of;

template <>
struct samples_of<message> {
    /// Equal in every bit: no integer for a float, no 0.0 for -0.0, each NaN only for itself. An integer that is not
    /// negative may change between signed and unsigned.
    static bool equal(const message& a, const message& b) {
        if (a.is_number_integer() && b.is_number_integer()) {  // for `==`, -1 is 2^64-1
            return is_negative(a) == is_negative(b) && a.get<std::uint64_t>() == b.get<std::uint64_t>();
        }
        if (a.type() != b.type() || a.size() != b.size()) return false;
        switch (a.type()) {
            case message::value_t::number_float:
                return std::bit_cast<std::uint64_t>(a.get<double>()) == std::bit_cast<std::uint64_t>(b.get<double>());
            case message::value_t::binary: {
                const auto &left = a.get_binary(), &right = b.get_binary();
                if (left.has_subtype() != right.has_subtype()) return false;
                if (left.has_subtype() && left.subtype() != right.subtype()) return false;
                return static_cast<const bytes&>(left) == static_cast<const bytes&>(right);
            }
            case message::value_t::array:
                for (std::size_t i = 0; i < a.size(); ++i) {
                    if (!equal(a[i], b[i])) return false;
                }
                return true;
            case message::value_t::object: {
                auto at = b.get_ref<const message::object_t&>().begin();
                for (const auto& [key, value] : a.get_ref<const message::object_t&>()) {
                    if (key != at->first || !equal(value, at->second)) return false;
                    ++at;
                }
                return true;
            }
            default: return a == b;
        }
    }

    static message enclosed(message m) { return m.is_structured() ? std::move(m) : listed(std::move(m)); }

    /// Their names begin with the kind: `null`, `boolean`, `integer`, `float`, `string`, `binary`, `array`, `map`,
    /// `nested`, `tagged`, `pairs`, `task`. Those of NaNs are `float nan ...`, those of binaries with a subtype
    /// `binary subtype ...`.
    static std::vector<sample<message>> all() {
        std::vector<sample<message>> out;
        const auto add = [&](std::string name, message m) { out.push_back({std::move(name), std::move(m)}); };
        add("null", nullptr);
        add("boolean true", true);
        add("boolean false", false);
        add_integers(out);
        add_floats(out);
        add_strings(out);
        add_binaries(out);
        add_structures(out);
        add("tagged list", {{"__type__", "tuple"}, {"value", {1, "a", nullptr}}});
        add("tagged text", {{"__type__", "date"}, {"value", "2024-02-29"}});
        add("tagged bytes", {{"__type__", "bytes"}, {"value", "AAAA"}});
        add("tagged, unknown", {{"__type__", "no such"}, {"value", 1}, {"more", message::object()}});
        add("tagged, no text", {{"__type__", 7}, {"value", 1}});
        add("tagged, no value", {{"__type__", "ferry.map"}});
        add("pairs", pairs({pair(1, "a"), pair(-2, bytes{1, 2}), pair("b", 0.5), pair(true, nullptr)}));
        add("pairs with keys of any kind", pairs({pair(message::array({1, 2}), pairs({pair(nullptr, 1)}))}));
        add("pairs, twice", pairs({pair(1, "a"), pair(1, "b")}));
        add("pairs that are none", {{"__type__", "ferry.map"}, {"value", {1, 2, 3}}});
        add("task", a_task());
        return out;
    }

    static std::vector<sample<message>> awkward() {
        message deep = 1;
        for (int level = 0; level < 2000; ++level) deep = listed(std::move(deep));
        return {{"string that is not UTF-8", {{"text", "a\xff\x80z"}}},
                {"string that ends within a character", {{"text", "z\xe2\x82"}}},
                {"key that is not UTF-8", {{"\xc3\x28", 1}}},
                {"tagged bytes that are none", {{"__type__", "bytes"}, {"value", "no base64!"}}},
                {"binary subtype 256", message::binary(bytes{1, 2, 3}, 256)},
                {"binary subtype 2^64-1", message::binary(bytes{1, 2, 3}, std::numeric_limits<std::uint64_t>::max())},
                {"discarded", listed(message(message::value_t::discarded))},
                {"nested 2000 lists", std::move(deep)}};
    }

    /// Their names begin as those of `all` do.
    static std::vector<sample<message>> large() { return {{"binary of 17 MiB", noise(std::size_t{17} << 20)}}; }

    /// `size` bytes without a short period, on which no compression and no repetition can rely.
    static bytes noise(std::size_t size) {
        std::vector<std::uint8_t> out(size);
        std::uint32_t state = 0x9e3779b9U + static_cast<std::uint32_t>(size);
        for (auto& each : out) {
            state = state * 1664525U + 1013904223U;
            each = static_cast<std::uint8_t>(state >> 24);
        }
        return bytes::own(std::move(out));
    }

private:
    using list = std::vector<sample<message>>;

    static bool is_negative(const message& m) { return !m.is_number_unsigned() && m.get<std::int64_t>() < 0; }

    // A list of one in braces is a copy of it for nlohmann, where it is one for the compiler.
    static message listed(message m) {
        message out = message::array();
        out.push_back(std::move(m));
        return out;
    }
    static message pair(message key, message value) {
        message out = listed(std::move(key));
        out.push_back(std::move(value));
        return out;
    }
    static message pairs(std::vector<message> list) {
        message out = message::object();
        out["__type__"] = "ferry.map";
        out["value"] = std::move(list);
        return out;
    }

    static void add_integers(list& out) {
        for (const std::uint64_t value :
             {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{23}, std::uint64_t{24}, std::uint64_t{127},
              std::uint64_t{128}, std::uint64_t{255}, std::uint64_t{256}, std::uint64_t{65535}, std::uint64_t{65536},
              std::uint64_t{0xffffffff}, std::uint64_t{1} << 32, (std::uint64_t{1} << 53) - 1, std::uint64_t{1} << 53,
              (std::uint64_t{1} << 53) + 1, (std::uint64_t{1} << 63) - 1, std::uint64_t{1} << 63,
              std::numeric_limits<std::uint64_t>::max() - 1, std::numeric_limits<std::uint64_t>::max()}) {
            out.push_back({"integer " + std::to_string(value), value});
        }
        for (const std::int64_t value :
             {std::int64_t{-1}, std::int64_t{-24}, std::int64_t{-25}, std::int64_t{-32}, std::int64_t{-33},
              std::int64_t{-128}, std::int64_t{-129}, std::int64_t{-32768}, std::int64_t{-32769},
              std::int64_t{std::numeric_limits<std::int32_t>::min()},
              std::int64_t{std::numeric_limits<std::int32_t>::min()} - 1, -(std::int64_t{1} << 53) - 1,
              std::numeric_limits<std::int64_t>::min() + 1, std::numeric_limits<std::int64_t>::min()}) {
            out.push_back({"integer " + std::to_string(value), value});
        }
        out.push_back({"integer 2^63-1, signed", std::numeric_limits<std::int64_t>::max()});
    }

    static void add_floats(list& out) {
        struct named {
            const char* name;
            std::uint64_t bits;
        };
        for (const auto& [name, bits] : {
                 named{"0", 0x0000000000000000U},
                 named{"-0", 0x8000000000000000U},
                 named{"1", 0x3ff0000000000000U},
                 named{"-1.5", 0xbff8000000000000U},
                 named{"0.1", 0x3fb999999999999aU},
                 named{"0.1 and a bit", 0x3fb999999999999bU},
                 named{"1e22", 0x4480f0cf064dd592U},
                 named{"1e23", 0x44b52d02c7e14af6U},
                 named{"2^53+2", 0x4340000000000001U},
                 named{"2^63", 0x43e0000000000000U},
                 named{"2^64", 0x43f0000000000000U},
                 named{"-2^63", 0xc3e0000000000000U},
                 named{"of single precision", 0x3fd5555560000000U},
                 named{"the least", 0x0000000000000001U},
                 named{"the largest denormal", 0x000fffffffffffffU},
                 named{"the least normal", 0x0010000000000000U},
                 named{"the largest", 0x7fefffffffffffffU},
                 named{"infinity", 0x7ff0000000000000U},
                 named{"-infinity", 0xfff0000000000000U},
                 named{"nan", 0x7ff8000000000000U},
                 named{"nan, negative", 0xfff8000000000000U},
                 named{"nan with a payload", 0x7ff8dead0000beefU},
             }) {
            out.push_back({std::string("float ") + name, std::bit_cast<double>(bits)});
        }
    }

    static void add_strings(list& out) {
        const auto add = [&](const std::string& name, std::string text) {
            out.push_back({"string " + name, message(std::move(text))});
        };
        add("empty", "");
        add("with zeros", std::string("a\0b\0", 4));
        add("of controls", "\x01\x02\b\t\n\v\f\r\x1b\x1f\x7f");
        add("to be quoted", R"(" \ / ' & < > \u0041 {} [] , : // #)");
        add("of two, three and four bytes", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\xb2");
        add("at the edges of unicode",
            "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf");
        add("composed and not", "\xc3\xa9 e\xcc\x81 \xe2\x80\xa8 \xef\xbb\xbf");
        add("like a number", "12");
        add("like a literal", "null");
        for (const std::size_t size : {31U, 32U, 255U, 256U, 65535U, 65536U}) {
            add("of " + std::to_string(size), std::string(size, 'x'));
        }
    }

    static void add_binaries(list& out) {
        for (const std::size_t size : {0U, 1U, 2U, 3U, 4U, 16U, 255U, 256U, 1023U, 1024U, 65536U, 200'000U}) {
            out.push_back({"binary of " + std::to_string(size), noise(size)});
        }
        for (const std::uint64_t type : {0U, 1U, 42U, 127U, 128U, 255U}) {
            out.push_back({"binary subtype " + std::to_string(type), message::binary(noise(20), type)});
        }
        out.push_back({"binary subtype 1, empty", message::binary(bytes(), 1)});
        out.push_back({"binary subtype 1, large", message::binary(noise(5000), 1)});
    }

    static void add_structures(list& out) {
        const auto add = [&](std::string name, message m) { out.push_back({std::move(name), std::move(m)}); };
        add("array, empty", message::array());
        add("array of empty ones", {message::array(), message::object(), "", bytes(), nullptr});
        add("array of kinds", {nullptr, true, -1, 0.5, "a", bytes{1}, message::array({1}), {{"a", 1}}});
        for (const std::size_t size : {15U, 16U, 23U, 24U, 1000U}) {
            add("array of " + std::to_string(size), std::vector<double>(size, 0.25));
        }
        add("map, empty", message::object());
        add("map of empty ones", {{"a", message::array()}, {"b", message::object()}, {"c", ""}, {"d", bytes()}});
        add("map with odd keys", {{"", 1}, {std::string("a\0b", 3), 2}, {"a\"b\\", 3}, {"\xc3\xa9", 4}, {" ", 5}});
        add("map with a key of 70000", {{std::string(70'000, 'k'), 1}});
        message large = message::object();
        for (int i = 0; i < 1000; ++i) large["key " + std::to_string(i * 7919 % 1000)] = i;
        add("map of 1000", std::move(large));
        message lists = 1, maps = 1;
        for (int level = 0; level < 100; ++level) {
            lists = listed(std::move(lists));
            maps = message::object({{"a", std::move(maps)}});
        }
        add("nested lists", std::move(lists));
        add("nested maps", std::move(maps));
    }

    static message a_task() {
        return {{"command", "train"},
                {"request_id", "6f1c2d"},
                {"node_id", "node-1"},
                {"round", 3},
                {"rates", {0.1, 1e-9, -0.0}},
                {"weights", {{"layer 1", noise(3000)}, {"layer 2", noise(40)}}},
                {"done", false},
                {"error", nullptr}};
    }
};

}  // namespace ferry::conformance
