// The default serializer: messages as msgpack. Binaries of 1 KiB and more are not copied on the way out, and those of a
// decoded message are slices of the received run.
//
// What a `message` can't say directly travels as follows: an extension is a binary with the extension's type as subtype;
// a map with keys that are not strings is {"__type__": "ferry.map", "value": [[key, value], ...]} and becomes the same
// msgpack map again. A float stays a float64, with every bit of it. A string key that occurs twice in a map is an error;
// a list of pairs keeps both.
#pragma once

#include <ferry/detail/payload_builder.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/serializer.hpp>

#include <msgpack/null_visitor.hpp>
#include <msgpack/pack.hpp>
#include <msgpack/parse.hpp>
#include <msgpack/unpack.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry {

namespace detail {

inline constexpr std::size_t max_message_depth = 512;
inline constexpr std::size_t believed_size = 1024;  // of an array, before its values have come
inline constexpr std::string_view pairs_tag = "ferry.map";

/// True for the tagged list of pairs that stands for a map with keys of other types.
inline bool is_pairs(const message& m) {
    if (!m.is_object() || m.size() != 2) return false;
    const auto type = m.find("__type__");
    const auto value = m.find("value");
    if (type == m.end() || value == m.end() || !type->is_string() || !value->is_array()) return false;
    if (type->get_ref<const std::string&>() != pairs_tag) return false;
    for (const auto& pair : *value) {
        if (!pair.is_array() || pair.size() != 2) return false;
    }
    return true;
}

class msgpack_writer {
public:
    explicit msgpack_writer(payload_builder& out) : out_(out), packer_(out) {}

    void write(const message& m, std::size_t depth = 0) {
        if (m.is_structured() && depth >= max_message_depth) {
            throw error(errc::encode_failed, "msgpack: the message is nested deeper than 512 levels");
        }
        switch (m.type()) {
            case message::value_t::null: packer_.pack_nil(); break;
            case message::value_t::boolean: m.get<bool>() ? packer_.pack_true() : packer_.pack_false(); break;
            case message::value_t::number_integer: packer_.pack_int64(m.get<std::int64_t>()); break;
            case message::value_t::number_unsigned: packer_.pack_uint64(m.get<std::uint64_t>()); break;
            case message::value_t::number_float: write(m.get<double>()); break;
            case message::value_t::string: write(m.get_ref<const std::string&>()); break;
            case message::value_t::binary: write(m.get_binary()); break;
            case message::value_t::array:
                packer_.pack_array(checked(m.size(), "an array"));
                for (const auto& item : m) write(item, depth + 1);
                break;
            case message::value_t::object: write_map(m, depth); break;
            case message::value_t::discarded:
                throw error(errc::encode_failed, "msgpack: the message holds a discarded value");
        }
    }

private:
    static std::uint32_t checked(std::size_t size, const char* what) {
        if (size > std::numeric_limits<std::uint32_t>::max()) {
            throw error(errc::too_large, std::string("msgpack: ") + what + " of " + std::to_string(size) +
                                             " is beyond the format's 2^32-1: split it into several");
        }
        return static_cast<std::uint32_t>(size);
    }

    // msgpack-cxx makes an integer of a float that has the value of one, and 0 of -0.0.
    void write(double value) {
        const auto bits = std::bit_cast<std::uint64_t>(value);
        char out[9] = {static_cast<char>(0xcb)};
        for (int i = 0; i < 8; ++i) out[i + 1] = static_cast<char>(bits >> (56 - 8 * i));
        out_.write(out, sizeof out);
    }

    void write(const std::string& text) {
        packer_.pack_str(checked(text.size(), "a string"));
        packer_.pack_str_body(text.data(), static_cast<std::uint32_t>(text.size()));
    }

    void write(const message::binary_t& binary) {
        const auto size = checked(binary.size(), "a binary");
        if (binary.has_subtype()) {
            if (binary.subtype() > 255) throw error(errc::encode_failed, "msgpack: a binary's subtype must be an int8");
            packer_.pack_ext(size, static_cast<std::int8_t>(binary.subtype()));
        } else {
            packer_.pack_bin(size);
        }
        out_.append(binary);
    }

    void write_map(const message& m, std::size_t depth) {
        if (is_pairs(m)) {
            const auto& pairs = *m.find("value");
            packer_.pack_map(checked(pairs.size(), "a map"));
            for (const auto& pair : pairs) {
                write(pair[0], depth + 1);
                write(pair[1], depth + 1);
            }
            return;
        }
        packer_.pack_map(checked(m.size(), "a map"));
        for (const auto& [key, value] : m.get_ref<const message::object_t&>()) {
            write(key);
            write(value, depth + 1);
        }
    }

    payload_builder& out_;
    msgpack::packer<payload_builder> packer_;
};

/// Builds a message from msgpack-cxx's parser events; binaries become slices of `source`.
class msgpack_reader : public msgpack::null_visitor {
public:
    explicit msgpack_reader(const bytes& source) : source_(source) {}

    message take() { return std::move(root_); }
    const std::string& problem() const { return problem_; }

    bool visit_nil() { return put(nullptr); }
    bool visit_boolean(bool v) { return put(v); }
    bool visit_positive_integer(std::uint64_t v) { return put(v); }
    bool visit_negative_integer(std::int64_t v) { return put(v); }
    bool visit_float32(float v) { return put(static_cast<double>(v)); }
    bool visit_float64(double v) { return put(v); }
    bool visit_str(const char* v, std::uint32_t size) {
        if (in_key()) {
            top().key.assign(v, size);
            top().key_is_text = true;
            return true;
        }
        return put(std::string(v, size));
    }
    bool visit_bin(const char* v, std::uint32_t size) { return put(message::binary(slice(v, size))); }
    bool visit_ext(const char* v, std::uint32_t size) {
        const auto type = static_cast<std::uint8_t>(*v);
        return put(message::binary(slice(v + 1, size - 1), type));
    }

    bool start_array(std::uint32_t size) {
        if (!open(message::array())) return false;
        top().value.get_ref<message::array_t&>().reserve(std::min<std::size_t>(size, believed_size));
        return true;
    }
    bool end_array() { return close(); }
    bool start_map(std::uint32_t) { return open(message::object()); }
    bool start_map_key() {
        top().expects_key = true;
        top().key_is_text = false;
        return true;
    }
    bool end_map_key() {
        top().expects_key = false;
        return true;
    }
    bool end_map() { return close(); }

    void parse_error(std::size_t, std::size_t at) { fail("not msgpack at byte " + std::to_string(at)); }
    void insufficient_bytes(std::size_t, std::size_t at) { fail("ends too early, at byte " + std::to_string(at)); }

private:
    struct frame {
        message value;            // the array or map so far
        message pairs = nullptr;  // instead of a map, once a key was no string
        message odd_key = nullptr;
        std::string key;
        bool expects_key = false;
        bool key_is_text = false;
    };

    frame& top() { return stack_.back(); }
    bool in_key() const { return !stack_.empty() && stack_.back().expects_key; }

    bytes slice(const char* v, std::uint32_t size) const {
        return source_.slice(static_cast<std::size_t>(reinterpret_cast<const std::uint8_t*>(v) - source_.data()), size);
    }

    bool fail(std::string why) {
        if (problem_.empty()) problem_ = std::move(why);
        return false;
    }

    bool open(message empty) {
        if (stack_.size() >= max_message_depth) return fail("nested deeper than 512 levels");
        stack_.emplace_back();
        top().value = std::move(empty);
        return true;
    }

    bool close() {
        frame done = std::move(top());
        stack_.pop_back();
        if (done.pairs.is_array()) {
            return put(message{{"__type__", pairs_tag}, {"value", std::move(done.pairs)}});
        }
        return put(std::move(done.value));
    }

    bool put(message value) {
        if (stack_.empty()) {
            root_ = std::move(value);
            return true;
        }
        frame& in = top();
        if (in.value.is_array()) {
            in.value.push_back(std::move(value));
            return true;
        }
        if (in.expects_key) {
            in.odd_key = std::move(value);
            if (!in.pairs.is_array()) to_pairs(in);
            return true;
        }
        if (in.pairs.is_array()) {
            message pair = message::array();
            pair.push_back(in.key_is_text ? message(std::move(in.key)) : std::move(in.odd_key));
            pair.push_back(std::move(value));
            in.pairs.push_back(std::move(pair));
            return true;
        }
        const auto [at, inserted] =
            in.value.get_ref<message::object_t&>().try_emplace(std::move(in.key), std::move(value));
        return inserted || fail("the key \"" + at->first + "\" occurs twice in a map");
    }

    static void to_pairs(frame& in) {
        in.pairs = message::array();
        for (auto& [key, value] : in.value.get_ref<message::object_t&>()) {
            message pair = message::array();
            pair.push_back(key);
            pair.push_back(std::move(value));
            in.pairs.push_back(std::move(pair));
        }
    }

    const bytes& source_;
    message root_;
    std::vector<frame> stack_;
    std::string problem_;
};

}  // namespace detail

/// Messages as msgpack. Stateless; safe to use from several threads.
template <class Message = message>
struct msgpack_serializer;

template <>
struct msgpack_serializer<message> {
    using policy_category = serializer_tag;
    using message_type = message;

    static constexpr std::string_view name = "msgpack";

    payload encode(message m) const {
        detail::payload_builder out;
        detail::msgpack_writer(out).write(m);
        return out.finish();
    }

    message decode(const bytes& run) const {
        detail::msgpack_reader reader(run);
        std::size_t at = 0;
        bool whole = false;
        try {
            whole = msgpack::parse(reinterpret_cast<const char*>(run.data()), run.size(), at, reader);
        } catch (const std::exception& e) {
            throw error(errc::decode_failed, std::string("msgpack: ") + e.what());
        }
        if (!whole)
            throw error(errc::decode_failed,
                        "msgpack: " + (run.empty() ? "an empty payload is no message" : reader.problem()));
        if (at != run.size()) {
            throw error(errc::decode_failed, "msgpack: " + std::to_string(run.size() - at) +
                                                 " bytes follow the message, which ends at byte " + std::to_string(at));
        }
        return reader.take();
    }
};

}  // namespace ferry
