// The fields of a struct of the user's own, named once for every format: the other half of `message_traits`.
// Only names and places are kept here; what a format makes of them is the serializer's business.
#pragma once

#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace ferry {

/// A member of a struct under its name on the wire.
template <class Struct, class Member>
struct named_field {
    std::string_view name;
    Member Struct::*member;
};

template <class Struct, class Member>
constexpr named_field<Struct, Member> field(std::string_view name, Member Struct::*member) {
    return {name, member};
}

/// The list of a struct's fields, as `message_traits` holds it:
///
///     template <>
///     struct ferry::message_traits<training> : ferry::message_ids<&training::request_id, &training::node_id> {
///         static constexpr auto fields = ferry::fields(ferry::field("request_id", &training::request_id),
///                                                      ferry::field("node_id", &training::node_id),
///                                                      ferry::field("weights", &training::weights));
///     };
///
/// A field is a bool, a number, an enumeration, a `std::string`, a binary (`bytes`, or a vector of char, unsigned char or
/// std::byte), a struct with fields of its own, a `message`, or a vector, array, optional or map (with text keys) of these;
/// not a `std::vector<bool>`.
/// Where a message comes in, fields that it doesn't know are passed over; one that is missing is an error, unless it is
/// optional. A number must fit its field.
template <class... Fields>
constexpr std::tuple<Fields...> fields(Fields... list) {
    static_assert(sizeof...(Fields) <= 128, "ferry: a struct names at most 128 fields");
    return {list...};
}

/// True for a struct whose `message_traits` list its fields.
template <class T>
concept has_fields = requires {
    message_traits<T>::fields;
};

/// The part of `message_traits` that the transport needs, for a struct that holds its ids as strings.
template <auto RequestId, auto NodeId>
struct message_ids;

template <class Struct, std::string Struct::*RequestId, std::string Struct::*NodeId>
struct message_ids<RequestId, NodeId> {
    static const std::string& request_id(const Struct& m) noexcept { return m.*RequestId; }
    static const std::string& node_id(const Struct& m) noexcept { return m.*NodeId; }
    static void set_request_id(Struct& m, const std::string& id) { m.*RequestId = id; }
    static void set_node_id(Struct& m, const std::string& id) { m.*NodeId = id; }
};

namespace detail {

template <class T>
inline constexpr bool is_byte =
    std::is_same_v<T, char> || std::is_same_v<T, unsigned char> || std::is_same_v<T, std::byte>;

template <class T>
struct field_kind {
    static constexpr bool binary = std::is_same_v<T, bytes>, list = false, maybe = false, map = false;
};
template <class T>
struct field_kind<std::vector<T>> {
    static constexpr bool binary = is_byte<T>, list = !is_byte<T> && !std::is_same_v<T, bool>, maybe = false,
                          map = false;
};
template <class T, std::size_t N>
struct field_kind<std::array<T, N>> {
    static constexpr bool binary = false, list = true, maybe = false, map = false;
};
template <class T>
struct field_kind<std::optional<T>> {
    static constexpr bool binary = false, list = false, maybe = true, map = false;
};
template <class T>
struct field_kind<std::map<std::string, T>> {
    static constexpr bool binary = false, list = false, maybe = false, map = true;
};
template <class T>
struct field_kind<std::unordered_map<std::string, T>> : field_kind<std::map<std::string, T>> {};

template <class T>
concept binary_field = field_kind<T>::binary;
template <class T>
concept list_field = field_kind<T>::list;
template <class T>
concept optional_field = field_kind<T>::maybe;
template <class T>
concept map_field = field_kind<T>::map;
template <class T>
concept number_field = (std::is_arithmetic_v<T> && !std::is_same_v<T, long double>) || std::is_enum_v<T>;

/// True where each field of the list has a name of its own.
template <class List>
constexpr bool names_differ(const List& list) {
    return std::apply(
        [](const auto&... each) {
            const std::array<std::string_view, sizeof...(each)> names{each.name...};
            for (std::size_t i = 0; i < names.size(); ++i) {
                for (std::size_t j = 0; j < i; ++j) {
                    if (names[i] == names[j]) return false;
                }
            }
            return true;
        },
        list);
}

/// Called where a type is none of the above.
template <class T>
constexpr void no_such_field() {
    static_assert(
        sizeof(T) == 0,
        "ferry: a field must be a bool, a number, an enumeration, a std::string, a binary, a message, a struct "
        "with fields of its own, or a vector, array, optional or map (with std::string keys) of these, and no "
        "std::vector<bool>");
}

}  // namespace detail

}  // namespace ferry
