// numpy's arrays and scalars and torch's tensors, as Fed-BioMed's transport sends them: a tagged map around one binary, in
// C order, little-endian. Data is shared on its way in and out; there is no arithmetic and there are no strides.
#pragma once

#include <ferry/detail/tagged_value.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

static_assert(std::endian::native == std::endian::little, "fedbiomed/array.hpp: this machine is not little-endian");

namespace ferry::fedbiomed {

/// Whose array it is, which is its tag on the wire.
enum class array_kind {
    ndarray,  ///< np.ndarray
    tensor,   ///< torch.Tensor
    generic,  ///< np.generic, a scalar: its shape is empty
};

/// An array whose elements have a type that is only known by name.
struct array {
    array_kind kind = array_kind::ndarray;
    bytes data{};         ///< the elements, in C order, little-endian
    std::string dtype{};  ///< "bool", "int8" ... "uint64", "float16", "bfloat16", "float32", "complex64", ...
    std::vector<std::size_t> shape{};  ///< empty for a single element without dimensions
};

/// The dtype of a C++ type; empty for a type that has none. Specialise it for a trivially copyable type that is another of
/// the dtypes: `std::complex<float>` is "complex64".
template <class T>
inline constexpr std::string_view dtype_name{};
template <>
inline constexpr std::string_view dtype_name<bool> = "bool";
template <>
inline constexpr std::string_view dtype_name<std::int8_t> = "int8";
template <>
inline constexpr std::string_view dtype_name<std::int16_t> = "int16";
template <>
inline constexpr std::string_view dtype_name<std::int32_t> = "int32";
template <>
inline constexpr std::string_view dtype_name<std::int64_t> = "int64";
template <>
inline constexpr std::string_view dtype_name<std::uint8_t> = "uint8";
template <>
inline constexpr std::string_view dtype_name<std::uint16_t> = "uint16";
template <>
inline constexpr std::string_view dtype_name<std::uint32_t> = "uint32";
template <>
inline constexpr std::string_view dtype_name<std::uint64_t> = "uint64";
template <>
inline constexpr std::string_view dtype_name<float> = "float32";
template <>
inline constexpr std::string_view dtype_name<double> = "float64";

/// True for a type that a typed array can have.
template <class T>
concept array_element = !dtype_name<T>.empty();

namespace detail {

struct dtype_row {
    std::string_view name;
    std::string_view code;  // numpy's, after its mark of the byte order
    std::size_t size;
};

inline constexpr std::array<dtype_row, 15> dtypes{{{"bool", "b1", 1},
                                                   {"int8", "i1", 1},
                                                   {"int16", "i2", 2},
                                                   {"int32", "i4", 4},
                                                   {"int64", "i8", 8},
                                                   {"uint8", "u1", 1},
                                                   {"uint16", "u2", 2},
                                                   {"uint32", "u4", 4},
                                                   {"uint64", "u8", 8},
                                                   {"float16", "f2", 2},
                                                   {"bfloat16", "bfloat16", 2},
                                                   {"float32", "f4", 4},
                                                   {"float64", "f8", 8},
                                                   {"complex64", "c8", 8},
                                                   {"complex128", "c16", 16}}};

/// Finds "float32", "torch.float32" and "<f4"; null for a dtype that this header doesn't know.
inline const dtype_row* find_dtype(std::string_view name) {
    const bool coded = name.starts_with('<') || name.starts_with('|');
    name.remove_prefix(coded ? 1 : name.starts_with("torch.") ? 6 : 0);
    const auto* found = std::ranges::find(dtypes, name, coded ? &dtype_row::code : &dtype_row::name);
    return found != dtypes.end() ? found : nullptr;
}

inline std::string shape_text(const std::vector<std::size_t>& shape) {
    std::string out;
    for (const auto extent : shape) out += (out.empty() ? "" : ", ") + std::to_string(extent);
    return "[" + out + "]";
}

/// Nothing where the product, without its zeros as numpy has it, is beyond memory.
inline std::optional<std::size_t> size_in_bytes(const std::vector<std::size_t>& shape, std::size_t item_size) {
    std::size_t size = item_size;
    bool empty = false;
    for (const auto extent : shape) {
        if (extent == 0) {
            empty = true;
        } else if (size > std::numeric_limits<std::size_t>::max() / extent) {
            return std::nullopt;
        } else {
            size *= extent;
        }
    }
    return empty ? 0 : size;
}

/// Gives a known dtype its plain name, and refuses data that is not of its shape.
inline void check_array(array& a, errc code) {
    const auto* dtype = find_dtype(a.dtype);
    if (dtype) a.dtype = dtype->name;
    const auto size = size_in_bytes(a.shape, dtype ? dtype->size : 1);
    if (size && (!dtype || *size == a.data.size())) return;
    throw error(code, "fedbiomed: an array of " + a.dtype + " with shape " + shape_text(a.shape) +
                          (size ? " takes " + std::to_string(*size) + " bytes, has " + std::to_string(a.data.size())
                                : " is beyond memory"));
}

inline constexpr std::array<std::string_view, 3> array_tags{"np.ndarray", "torch.Tensor", "np.generic"};

std::vector<std::size_t> read_shape(const std::same_as<message> auto& m, const std::string& tag) {
    if (!m.is_array()) undecodable("the shape of a " + tag + " must be an array, is " + kind_of(m));
    std::vector<std::size_t> shape;
    shape.reserve(m.size());
    for (const auto& extent : m) {
        if (!extent.is_number_unsigned() && !(extent.is_number_integer() && extent.template get<std::int64_t>() >= 0)) {
            undecodable("the shape of a " + tag + " must hold integers from 0 on, holds " +
                        (extent.is_number() ? extent.dump() : kind_of(extent)));
        }
        shape.push_back(extent.template get<std::size_t>());
    }
    return shape;
}

}  // namespace detail

/// The array in a message; shares its memory. A known dtype gets its plain name ("float32" for "torch.float32" and for
/// "<f4"), and its data is checked against the shape; an unknown one is handed over as it came. Throws
/// `error{decode_failed}` for anything that is no array.
template <std::same_as<message> M = message>
array as_array(const std::type_identity_t<M>& m) {
    const auto tag = detail::tag_of(m);
    const auto at = std::ranges::find(detail::array_tags, tag);
    if (at == detail::array_tags.end()) detail::undecodable("wanted an array, got " + detail::what_is(m));
    array a;
    a.kind = static_cast<array_kind>(at - detail::array_tags.begin());
    const bool has_shape = a.kind != array_kind::generic;
    const auto& parts = detail::tagged_value(m);
    if (!parts.is_array() || parts.size() != (has_shape ? 3 : 2) || !detail::is_bin(parts[0]) ||
        !parts[1].is_string()) {
        detail::undecodable("the value of a " + tag + " must be [binary, dtype" + (has_shape ? ", shape]" : "]"));
    }
    a.data = parts[0].template get<bytes>();
    a.dtype = parts[1].template get<std::string>();
    if (has_shape) a.shape = detail::read_shape(parts[2], tag);
    detail::check_array(a, errc::decode_failed);
    return a;
}

/// The message for an array; shares its memory. Throws `error{invalid_argument}` where its data, shape and kind contradict
/// each other.
template <std::same_as<message> M = message>
M to_message(array a) {
    detail::check_array(a, errc::invalid_argument);
    M parts = M::array({std::move(a.data), std::move(a.dtype)});
    if (a.kind != array_kind::generic) {
        parts.push_back(std::move(a.shape));
    } else if (!a.shape.empty()) {
        throw error(errc::invalid_argument, "fedbiomed: an np.generic has no shape: say ndarray");
    }
    return detail::tagged<M>(detail::array_tags[static_cast<std::size_t>(a.kind)], std::move(parts));
}

/// An array of `T`s to look at. It may be copied and kept: it keeps the memory alive.
///
/// A binary in a received message lies where the bytes before it have put it. Where that is no address for a `T`, `values`
/// is a copy of it, made once, at the constructor; an array of bytes or of bools, or one that lies well, is never copied.
template <array_element T>
class array_view {
public:
    /// Throws `error{decode_failed}` for elements of another type, data that is not of the shape, or a bool that is neither
    /// 0 nor 1.
    explicit array_view(array from) : array_(std::move(from)) {
        detail::check_array(array_, errc::decode_failed);
        if (array_.dtype != dtype_name<T>) {
            detail::undecodable("wanted an array of " + std::string(dtype_name<T>) + ", got one of " + array_.dtype);
        }
        if constexpr (std::same_as<T, bool>) {
            if (std::ranges::any_of(array_.data, [](std::uint8_t byte) { return byte > 1; })) {
                detail::undecodable("an array of bool holds a byte that is neither 0 nor 1");
            }
        }
        if (std::bit_cast<std::uintptr_t>(array_.data.data()) % alignof(T) != 0) {
            array_.data = bytes::copy(std::span(array_.data.data(), array_.data.size()));
        }
    }

    /// All elements, in C order. Valid while this view, a copy of it, or a slice of its `data` lives.
    std::span<const T> values() const& noexcept {
        return {reinterpret_cast<const T*>(array_.data.data()), array_.data.size() / sizeof(T)};
    }
    void values() const&& = delete;

    /// Empty for a single element without dimensions.
    const std::vector<std::size_t>& shape() const noexcept { return array_.shape; }

    array_kind kind() const noexcept { return array_.kind; }

    /// The memory of `values`.
    const bytes& data() const noexcept { return array_.data; }

private:
    // bytes::copy hands out memory behind a block.
    static_assert(sizeof(ferry::detail::block) % alignof(T) == 0);

    array array_;
};

/// The array in a message, typed. Throws `error{decode_failed}` as `as_array` and `array_view` do.
template <array_element T>
array_view<T> as_array(const message& m) {
    return array_view<T>(as_array(m));
}

/// The one element of an np.generic or of an array without dimensions. Throws `error{decode_failed}` for anything else.
template <array_element T>
T as_scalar(const message& m) {
    const auto view = as_array<T>(m);
    if (!view.shape().empty()) {
        detail::undecodable("wanted a scalar, got an array with shape " + detail::shape_text(view.shape()));
    }
    return view.values().front();
}

/// True for a container that can be given away as the memory of an array: a `std::vector<float>`, a `std::array<bool, 4>`.
template <class C>
concept array_container = !std::is_reference_v<C> && !std::is_const_v<C> && std::ranges::contiguous_range<C> &&
                          !std::ranges::borrowed_range<C> && array_element<typename C::value_type>;

namespace detail {

template <class C>
message own_array(array_kind kind, C&& values, std::vector<std::size_t> shape) {
    const std::string dtype(dtype_name<typename C::value_type>);
    return to_message(array{kind, bytes::own(std::forward<C>(values)), dtype, std::move(shape)});
}

}  // namespace detail

/// An np.ndarray that keeps `values`, without a copy of them: hand them over with `std::move`. An empty shape is that of a
/// single element. Throws `error{invalid_argument}` where the shape is not that of so many values.
template <array_container C>
message ndarray(C&& values, std::vector<std::size_t> shape) {
    return detail::own_array(array_kind::ndarray, std::forward<C>(values), std::move(shape));
}

/// The same as a torch.Tensor.
template <array_container C>
message tensor(C&& values, std::vector<std::size_t> shape) {
    return detail::own_array(array_kind::tensor, std::forward<C>(values), std::move(shape));
}

/// An np.generic: a scalar that remembers its dtype.
template <array_element T>
message generic(T value) {
    return detail::own_array(array_kind::generic, std::array<T, 1>{value}, {});
}

}  // namespace ferry::fedbiomed
