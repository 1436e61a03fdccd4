// layer 1
// Walks through a message, or through a struct by its fields, and tells a format's writer what comes. A writer has
// `null boolean integer unsigned_integer floating text binary begin_array end_array begin_map key end_map`. `begin_map` also gets the
// text of the map's "__type__", where it has one: a format with tags of its own must not let it be taken for one.
#pragma once

#include <ferry/detail/utf8.hpp>
#include <ferry/error.hpp>
#include <ferry/fields.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace ferry::detail {

inline constexpr std::size_t max_message_depth = 512;
inline constexpr std::string_view type_key = "__type__";
inline constexpr std::string_view pairs_tag = "ferry.map";

template <class Writer>
[[noreturn]] void nested_too_deeply() {
    throw error(errc::encode_failed, std::string(Writer::format) + ": the message is nested deeper than " +
                                         std::to_string(max_message_depth) + " levels");
}

/// The text that a value is; empty where it is something else.
template <class T>
std::string_view text_of(const T& value) {
    if constexpr (std::is_same_v<T, std::string>) return value;
    if constexpr (requires { value.is_string(); }) {
        if (value.is_string()) return value.template get_ref<const std::string&>();
    }
    if constexpr (optional_field<T>) {
        if (value) return text_of(*value);
    }
    return {};
}

/// True for the tagged list of pairs that stands for a map with keys of other types.
template <class Json>
bool is_pairs(const Json& m) {
    if (!m.is_object() || m.size() != 2) return false;
    const auto type = m.find(type_key);
    const auto value = m.find("value");
    if (type == m.end() || value == m.end() || !type->is_string() || !value->is_array()) return false;
    if (type->template get_ref<const std::string&>() != pairs_tag) return false;
    for (const auto& pair : *value) {
        if (!pair.is_array() || pair.size() != 2) return false;
    }
    return true;
}

/// Writes a `basic_json` of whatever binary type.
template <class Json, class Writer>
class message_walk {
public:
    explicit message_walk(Writer& out) : out_(out) {}

    void write(const Json& m, std::size_t depth = 0) {
        using kind = typename Json::value_t;
        if (m.is_structured() && depth >= max_message_depth) nested_too_deeply<Writer>();
        switch (m.type()) {
            case kind::null: out_.null(); break;
            case kind::boolean: out_.boolean(m.template get_ref<const bool&>()); break;
            case kind::number_integer: out_.integer(m.template get_ref<const std::int64_t&>()); break;
            case kind::number_unsigned: out_.unsigned_integer(m.template get_ref<const std::uint64_t&>()); break;
            case kind::number_float: out_.floating(m.template get_ref<const double&>()); break;
            case kind::string: out_.text(m.template get_ref<const std::string&>()); break;
            case kind::binary: write_binary(m.get_binary()); break;
            case kind::array:
                out_.begin_array(m.size());
                for (const auto& item : m.template get_ref<const typename Json::array_t&>()) write(item, depth + 1);
                out_.end_array();
                break;
            case kind::object: write_map(m, depth); break;
            case kind::discarded:
                throw error(errc::encode_failed, std::string(Writer::format) + ": the message holds a discarded value");
        }
    }

private:
    void write_binary(const typename Json::binary_t& binary) {
        const auto subtype = binary.has_subtype() ? std::optional<std::uint64_t>(binary.subtype()) : std::nullopt;
        if constexpr (std::is_base_of_v<bytes, typename Json::binary_t>) {
            out_.binary(static_cast<const bytes&>(binary), subtype);
        } else {
            out_.binary(bytes::copy(std::span(binary.data(), binary.size())), subtype);
        }
    }

    void write_map(const Json& m, std::size_t depth) {
        if constexpr (Writer::takes_any_key) {
            if (is_pairs(m)) return write_pairs(*m.find("value"), depth);
        }
        const auto& map = m.template get_ref<const typename Json::object_t&>();
        std::string_view type;
        if constexpr (Writer::has_tags) {
            if (const auto found = map.find(type_key); found != map.end()) type = text_of(found->second);
        }
        out_.begin_map(map.size(), type);
        for (const auto& [key, value] : map) {
            out_.key(key);
            write(value, depth + 1);
        }
        out_.end_map();
    }

    void write_pairs(const Json& pairs, std::size_t depth) {
        refuse_twins(pairs);
        out_.begin_map(pairs.size(), {});
        for (const auto& pair : pairs) {
            write(pair[0], depth + 1);
            write(pair[1], depth + 1);
        }
        out_.end_map();
    }

    /// With texts alone for keys it is an ordinary map to who reads it, and each must be there once.
    static void refuse_twins(const Json& pairs) {
        std::set<std::string_view> seen;
        for (const auto& pair : pairs) {
            if (!pair[0].is_string()) return;
        }
        for (const auto& pair : pairs) {
            const auto key = text_of(pair[0]);
            if (!seen.insert(key).second) {
                throw error(errc::encode_failed, std::string(Writer::format) + ": the key \"" +
                                                     utf8_text(key, quoted_bytes) + "\" occurs twice in a map");
            }
        }
    }

    Writer& out_;
};

/// Writes a field, or a struct as a map of its fields. `owner` keeps the memory of its members alive: a writer may refer to
/// them in place of copying.
template <class Writer>
class struct_walk {
public:
    struct_walk(Writer& out, std::shared_ptr<const void> owner) : out_(out), owner_(std::move(owner)) {}

    template <class T>
    void write(const T& value) {
        if constexpr (has_fields<T>) {
            constexpr auto& list = message_traits<T>::fields;
            const deeper level(depth_);
            out_.begin_map(std::tuple_size_v<std::remove_cvref_t<decltype(list)>>, type_in(list, value));
            std::apply([&](const auto&... each) { (write_named(each.name, value.*(each.member)), ...); }, list);
            out_.end_map();
        } else if constexpr (std::is_same_v<T, bool>) {
            out_.boolean(value);
        } else if constexpr (number_field<T>) {
            write_number(value);
        } else if constexpr (std::is_same_v<T, std::string>) {
            out_.text(value, owner_);
        } else if constexpr (std::is_same_v<T, bytes>) {
            out_.binary(value, std::nullopt);
        } else if constexpr (binary_field<T>) {
            out_.binary(std::span(reinterpret_cast<const std::uint8_t*>(value.data()), value.size()), owner_);
        } else if constexpr (std::is_same_v<T, message>) {
            message_walk<message, Writer>(out_).write(value, depth_);
        } else if constexpr (optional_field<T>) {
            value ? write(*value) : out_.null();
        } else if constexpr (list_field<T>) {
            const deeper level(depth_);
            out_.begin_array(value.size());
            for (const auto& item : value) write(item);
            out_.end_array();
        } else if constexpr (map_field<T>) {
            const deeper level(depth_);
            const auto type = value.find(std::string(type_key));
            out_.begin_map(value.size(), type != value.end() ? text_of(type->second) : std::string_view());
            for (const auto& [key, item] : value) write_named(key, item);
            out_.end_map();
        } else {
            no_such_field<T>();
        }
    }

private:
    class deeper {
    public:
        explicit deeper(std::size_t& depth) : depth_(depth) {
            if (depth_ >= max_message_depth) nested_too_deeply<Writer>();
            ++depth_;
        }
        deeper(const deeper&) = delete;
        deeper& operator=(const deeper&) = delete;
        ~deeper() { --depth_; }

    private:
        std::size_t& depth_;
    };

    template <class List, class T>
    static std::string_view type_in(const List& list, const T& value) {
        std::string_view type;
        std::apply(
            [&](const auto&... each) {
                ((each.name == type_key ? void(type = text_of(value.*(each.member))) : void()), ...);
            },
            list);
        return type;
    }

    template <class T>
    void write_named(std::string_view name, const T& value) {
        out_.key(name);
        write(value);
    }

    template <class T>
    void write_number(T value) {
        if constexpr (std::is_enum_v<T>) {
            write(static_cast<std::underlying_type_t<T>>(value));
        } else if constexpr (std::is_floating_point_v<T>) {
            out_.floating(static_cast<double>(value));
        } else if constexpr (std::is_signed_v<T>) {
            out_.integer(value);
        } else {
            out_.unsigned_integer(value);
        }
    }

    Writer& out_;
    const std::shared_ptr<const void> owner_;
    std::size_t depth_ = 0;
};

}  // namespace ferry::detail
