// layer 1
// What the headers of Fed-BioMed's vocabulary share: words for a value's kind, and the maps {"__type__": T, "value": V}.
//
// All of the vocabulary's functions are templates over the type of the message, which can only be `message`: a unit that
// includes them and calls none compiles none.
#pragma once

#include <ferry/error.hpp>
#include <ferry/message.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace ferry::fedbiomed::detail {

inline constexpr std::string_view type_key = "__type__";
inline constexpr std::string_view value_key = "value";

/// True for an integer of the wire that a `std::int64_t` can't hold.
bool beyond_int64(const std::same_as<message> auto& m) {
    return m.is_number_unsigned() &&
           m.template get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()};
}

/// "a string", "a map", ...: nlohmann's words don't tell an integer from a float.
std::string kind_of(const std::same_as<message> auto& m) {
    switch (m.type()) {
        case message::value_t::null: return "nil";
        case message::value_t::boolean: return "a bool";
        case message::value_t::number_integer: return "an integer";
        case message::value_t::number_unsigned: return beyond_int64(m) ? "an integer of 2^63 or more" : "an integer";
        case message::value_t::number_float: return "a float";
        case message::value_t::string: return "a string";
        case message::value_t::binary: return m.get_binary().has_subtype() ? "an extension" : "a binary";
        case message::value_t::array: return "an array";
        case message::value_t::object: return "a map";
        case message::value_t::discarded: break;
    }
    return "discarded";
}

/// An extension is no binary to the original.
bool is_bin(const std::same_as<message> auto& m) { return m.is_binary() && !m.get_binary().has_subtype(); }

template <std::same_as<message> M = message>
M tagged(std::string_view type, std::type_identity_t<M> value) {
    M m = M::object();
    m[std::string(type_key)] = type;
    m[std::string(value_key)] = std::move(value);
    return m;
}

/// The T of a tagged value; empty for anything else.
std::string tag_of(const std::same_as<message> auto& m) {
    if (!m.is_object() || !m.contains(value_key)) return {};
    const auto type = m.find(type_key);
    return type != m.end() && type->is_string() ? type->template get<std::string>() : std::string();
}

/// The V of a tagged value.
const message& tagged_value(const std::same_as<message> auto& m) { return *m.find(value_key); }

/// For error texts: "a tuple", "a np.ndarray" or the kind.
std::string what_is(const std::same_as<message> auto& m) {
    const auto tag = tag_of(m);
    return tag.empty() ? kind_of(m) : "a " + tag;
}

[[noreturn]] inline void undecodable(const std::string& text) {
    throw error(errc::decode_failed, "fedbiomed: " + text);
}

}  // namespace ferry::fedbiomed::detail
