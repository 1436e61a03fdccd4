// layer 1
// One field of a message class, between a member of a struct and its value in a message. Nothing is converted on the way
// in: a bool is no integer, an extension no binary, a missing value not nil.
#pragma once

#include <ferry/detail/tagged_value.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ferry::fedbiomed::detail {

[[noreturn]] inline void refuse(const std::string& text) { throw error(errc::protocol_error, "fedbiomed: " + text); }

template <class T>
struct wire_form;

template <class T>
T read_field(const std::same_as<message> auto& m, const std::string& where) {
    using form = wire_form<T>;
    if (!form::fits(m)) refuse(where + " must be " + form::wanted() + ", is " + what_is(m));
    return form::read(m, where);
}

template <class T>
struct plain_form {
    static T read(const std::same_as<message> auto& m, const std::string&) { return m.template get<T>(); }
    static message write(T value) { return message(std::move(value)); }
};

template <std::same_as<message> M>
struct wire_form<M> {
    static std::string wanted() { return "a value"; }
    static bool fits(const M&) { return true; }
    static M read(const M& m, const std::string&) { return m; }
    static M write(M value) { return value; }
};

template <std::same_as<std::string> T>
struct wire_form<T> : plain_form<T> {
    static std::string wanted() { return "a string"; }
    static bool fits(const std::same_as<message> auto& m) { return m.is_string(); }
};

template <std::same_as<bool> T>
struct wire_form<T> : plain_form<T> {
    static std::string wanted() { return "a bool"; }
    static bool fits(const std::same_as<message> auto& m) { return m.is_boolean(); }
};

template <std::same_as<std::int64_t> T>
struct wire_form<T> : plain_form<T> {
    static std::string wanted() { return "an integer below 2^63"; }
    static bool fits(const std::same_as<message> auto& m) { return m.is_number_integer() && !beyond_int64(m); }
};

template <std::same_as<bytes> T>
struct wire_form<T> : plain_form<T> {
    static std::string wanted() { return "a binary"; }
    static bool fits(const std::same_as<message> auto& m) { return is_bin(m); }
};

template <class T>
struct wire_form<std::vector<T>> {
    static std::string wanted() { return "an array"; }
    static bool fits(const std::same_as<message> auto& m) { return m.is_array(); }

    static std::vector<T> read(const std::same_as<message> auto& m, const std::string& where) {
        std::vector<T> items;
        items.reserve(m.size());
        for (std::size_t i = 0; i < m.size(); ++i) {
            items.push_back(read_field<T>(m[i], where + "[" + std::to_string(i) + "]"));
        }
        return items;
    }

    static message write(std::vector<T> items) {
        message m = message::array();
        for (auto&& item : items) m.push_back(wire_form<T>::write(std::move(item)));
        return m;
    }
};

template <class T>
struct wire_form<std::optional<T>> {
    static std::string wanted() { return wire_form<T>::wanted() + " or nil"; }
    static bool fits(const std::same_as<message> auto& m) { return m.is_null() || wire_form<T>::fits(m); }

    static std::optional<T> read(const std::same_as<message> auto& m, const std::string& where) {
        if (m.is_null()) return std::nullopt;
        return wire_form<T>::read(m, where);
    }

    static message write(std::optional<T> value) {
        return value ? wire_form<T>::write(*std::move(value)) : message(nullptr);
    }
};

}  // namespace ferry::fedbiomed::detail
