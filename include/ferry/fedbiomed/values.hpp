// Python's values that msgpack has no type for, as Fed-BioMed's transport sends them: maps {"__type__": T, "value": V}.
// Arrays and big integers have headers of their own. Each function works on one value; none walks a whole message.
#pragma once

#include <ferry/detail/tagged_value.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>

#include <string>
#include <type_traits>
#include <utility>

namespace ferry::fedbiomed {

/// The T of a tagged value: "tuple", "np.ndarray", "Vector", ...; empty for any other value.
template <std::same_as<message> M = message>
std::string type_of(const std::type_identity_t<M>& m) {
    return detail::tag_of(m);
}

namespace detail {

template <std::same_as<message> M>
M tagged_array(const char* type, M items) {
    if (items.is_array()) return tagged(type, std::move(items));
    throw error(errc::invalid_argument, "fedbiomed: a " + std::string(type) + " is made of an array, not of " +
                                            kind_of(items) + ": say message::array({...})");
}

}  // namespace detail

/// A Python tuple of the items of an array. Throws `error{invalid_argument}` for anything but an array.
template <std::same_as<message> M = message>
M tuple(std::type_identity_t<M> items) {
    return detail::tagged_array("tuple", std::move(items));
}

/// A Python set of the items of an array, which should differ. Throws `error{invalid_argument}` for anything but an array.
template <std::same_as<message> M = message>
M set(std::type_identity_t<M> items) {
    return detail::tagged_array("set", std::move(items));
}

/// The items of a tuple, a set or an array; a part of `m`. Throws `error{decode_failed}` for anything else.
template <std::same_as<message> M = message>
const M& items_of(const std::type_identity_t<M>& m) {
    if (m.is_array()) return m;
    const auto type = detail::tag_of(m);
    if (type != "tuple" && type != "set") {
        detail::undecodable("wanted a tuple, a set or an array, got " + detail::what_is(m));
    }
    const auto& items = detail::tagged_value(m);
    if (!items.is_array()) {
        detail::undecodable("the items of a " + type + " must be an array, are " + detail::kind_of(items));
    }
    return items;
}
const message& items_of(const message&&) = delete;

/// The original's enumerator of a metric, by its name: "ACCURACY", "F1_SCORE", ...
template <std::same_as<message> M = message>
M metric_type(std::string name) {
    return detail::tagged<M>("MetricTypes", std::move(name));
}

/// The name of a metric's enumerator. Throws `error{decode_failed}` for anything else.
template <std::same_as<message> M = message>
std::string metric_type_of(const std::type_identity_t<M>& m) {
    if (detail::tag_of(m) != "MetricTypes" || !detail::tagged_value(m).is_string()) {
        detail::undecodable("wanted MetricTypes with a name, got " + detail::what_is(m));
    }
    return detail::tagged_value(m).template get<std::string>();
}

}  // namespace ferry::fedbiomed
