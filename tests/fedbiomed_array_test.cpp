#include <ferry/fedbiomed/array.hpp>

#include <ferry/serializer/msgpack.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

template <>
inline constexpr std::string_view ferry::fedbiomed::dtype_name<std::complex<float>> = "complex64";

namespace {

using namespace ferry::fedbiomed;
using ferry::bytes;
using ferry::errc;
using ferry::message;
using ferry_test::fails;
using ferry_test::from_hex;
using ferry_test::pattern;
using ferry_test::to_hex;
using shape = std::vector<std::size_t>;

const ferry::msgpack_serializer<> msgpack_format;

bytes encoded(const message& m) { return msgpack_format.encode(m).flatten(); }

message array_map(const char* type, message parts) { return {{"__type__", type}, {"value", std::move(parts)}}; }
message ndarray_map(const bytes& data, const char* dtype, message extents) {
    return array_map("np.ndarray", message::array({data, dtype, std::move(extents)}));
}

// --- as Python writes it ---------------------------------------------------------------------------------------------------

/// Succeeds where the values as an ndarray are written as Python does, and what Python writes is read as the values.
template <class T>
testing::AssertionResult is(std::string_view hex, const std::vector<T>& values, const shape& extents) {
    const auto written = encoded(ndarray(std::vector<T>(values), extents));
    if (written != from_hex(hex)) return testing::AssertionFailure() << "is written as " << to_hex(written, 1000);
    const auto view = as_array<T>(msgpack_format.decode(from_hex(hex)));
    if (!std::ranges::equal(view.values(), values)) return testing::AssertionFailure() << "other values";
    if (view.shape() != extents || view.kind() != array_kind::ndarray)
        return testing::AssertionFailure() << "other shape";
    return testing::AssertionSuccess();
}

// tests/peers/wire.py: dumps(numpy.array([0, 1, 1], dtype=...)).hex(); the first bytes are {"__type__": "np.ndarray", "value":
constexpr std::string_view head = "82a85f5f747970655f5faa6e702e6e646172726179a576616c7565";

template <class T>
struct sample;
template <class T>
std::string python() {
    return std::string(head) + sample<T>::hex;
}
template <>
struct sample<std::int8_t> {
    static constexpr const char* hex = "93c403000101a4696e74389103";
};
template <>
struct sample<std::int16_t> {
    static constexpr const char* hex = "93c406000001000100a5696e7431369103";
};
template <>
struct sample<std::int32_t> {
    static constexpr const char* hex = "93c40c000000000100000001000000a5696e7433329103";
};
template <>
struct sample<std::int64_t> {
    static constexpr const char* hex = "93c418000000000000000001000000000000000100000000000000a5696e7436349103";
};
template <>
struct sample<std::uint8_t> {
    static constexpr const char* hex = "93c403000101a575696e74389103";
};
template <>
struct sample<std::uint16_t> {
    static constexpr const char* hex = "93c406000001000100a675696e7431369103";
};
template <>
struct sample<std::uint32_t> {
    static constexpr const char* hex = "93c40c000000000100000001000000a675696e7433329103";
};
template <>
struct sample<std::uint64_t> {
    static constexpr const char* hex = "93c418000000000000000001000000000000000100000000000000a675696e7436349103";
};
template <>
struct sample<float> {
    static constexpr const char* hex = "93c40c000000000000803f0000803fa7666c6f617433329103";
};
template <>
struct sample<double> {
    static constexpr const char* hex = "93c4180000000000000000000000000000f03f000000000000f03fa7666c6f617436349103";
};
template <>
struct sample<std::complex<float>> {
    static constexpr const char* hex = "93c41800000000000000000000803f000000000000803f00000000a9636f6d706c657836349103";
};

template <class T>
class fedbiomed_array_of : public testing::Test {};
using element_types = testing::Types<std::int8_t, std::int16_t, std::int32_t, std::int64_t, std::uint8_t, std::uint16_t,
                                     std::uint32_t, std::uint64_t, float, double, std::complex<float>>;
TYPED_TEST_SUITE(fedbiomed_array_of, element_types);

TYPED_TEST(fedbiomed_array_of, is_what_python_writes) {
    using type = TypeParam;
    EXPECT_TRUE(is<type>(python<type>(), {type(0), type(1), type(1)}, {3}));
}

TYPED_TEST(fedbiomed_array_of, is_read_at_any_address) {
    using type = TypeParam;
    const auto content = pattern(6 * sizeof(type));
    for (std::size_t offset = 0; offset < 16; ++offset) {
        auto memory = pattern(offset);
        memory.insert(memory.end(), content.begin(), content.end());
        auto* const begin = memory.data();
        const auto run = bytes::own(std::move(memory)).slice(offset);
        ASSERT_EQ(run.data(), begin + offset);
        const auto view = as_array<type>(ndarray_map(run, dtype_name<type>.data(), {2, 3}));
        ASSERT_EQ(view.values().size(), 6U);
        std::vector<std::uint8_t> read(content.size());
        auto* to = read.data();
        for (const type value : view.values()) {  // each at its own address, as a `type`
            std::memcpy(to, &value, sizeof value);
            to += sizeof value;
        }
        EXPECT_EQ(read, content) << offset;
        const bool aligned = reinterpret_cast<std::uintptr_t>(run.data()) % alignof(type) == 0;
        EXPECT_EQ(view.data().data() == run.data(), aligned) << "copied only where it must be, at " << offset;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.values().data()) % alignof(type), 0U);
    }
}

TYPED_TEST(fedbiomed_array_of, may_be_empty) {
    using type = TypeParam;
    for (const shape& extents : {shape{0}, shape{0, 3}, shape{3, 0, 2}}) {
        const auto view = as_array<type>(ndarray(std::vector<type>{}, extents));
        EXPECT_TRUE(view.values().empty());
        EXPECT_EQ(view.shape(), extents);
    }
}

TYPED_TEST(fedbiomed_array_of, may_have_no_dimensions) {
    using type = TypeParam;
    const auto view = as_array<type>(ndarray(std::vector<type>{type(5)}, {}));
    EXPECT_TRUE(view.shape().empty());
    ASSERT_EQ(view.values().size(), 1U);
    EXPECT_EQ(view.values()[0], type(5));
}

TYPED_TEST(fedbiomed_array_of, may_be_a_scalar) {
    using type = TypeParam;
    const auto m = msgpack_format.decode(encoded(generic(type(5))));
    EXPECT_EQ(m["__type__"], "np.generic");
    EXPECT_EQ(m["value"].size(), 2U);
    EXPECT_EQ(as_array(m).kind, array_kind::generic);
    EXPECT_EQ(as_scalar<type>(m), type(5));
    EXPECT_EQ(as_scalar<type>(ndarray(std::vector<type>{type(5)}, {})), type(5));
}

TEST(fedbiomed_array, of_bool_is_what_python_writes) {
    const auto hex = std::string(head) + "93c403000101a4626f6f6c9103";
    EXPECT_EQ(encoded(ndarray(std::array<bool, 3>{false, true, true}, {3})), from_hex(hex));
    const auto view = as_array<bool>(msgpack_format.decode(from_hex(hex)));
    EXPECT_TRUE(std::ranges::equal(view.values(), std::array<bool, 3>{false, true, true}));
    EXPECT_TRUE(as_scalar<bool>(generic(true)));
    EXPECT_TRUE(fails(
        [] {
            as_array<bool>(ndarray_map({0, 1, 2}, "bool", {3}));
        },
        errc::decode_failed, "neither 0 nor 1"));
}

TEST(fedbiomed_array, shapes_are_what_python_writes) {
    // dumps(array([[1, 2, 3], [4, 5, 6]], float32)), dumps(array(2.5)), dumps(zeros((0, 3), int16)), dumps(float32(1.5)),
    // dumps(int64(-2))
    EXPECT_TRUE(
        is<float>(std::string(head) + "93c4180000803f0000004000004040000080400000a0400000c040a7666c6f61743332920203",
                  {1, 2, 3, 4, 5, 6}, {2, 3}));
    EXPECT_TRUE(is<double>(std::string(head) + "93c4080000000000000440a7666c6f6174363490", {2.5}, {}));
    EXPECT_TRUE(is<std::int16_t>(std::string(head) + "93c400a5696e743136920003", {}, {0, 3}));
    EXPECT_EQ(encoded(generic(1.5F)),
              from_hex("82a85f5f747970655f5faa6e702e67656e65726963a576616c756592c4040000c03fa7666c6f61743332"));
    EXPECT_EQ(encoded(generic(std::int64_t{-2})),
              from_hex("82a85f5f747970655f5faa6e702e67656e65726963a576616c756592c408feffffffffffffffa5696e743634"));
}

TEST(fedbiomed_array, a_tensor_differs_in_its_tag) {
    const auto m = tensor(std::vector<float>{1, 2}, {2, 1});
    EXPECT_EQ(m["__type__"], "torch.Tensor");
    EXPECT_EQ(m["value"], ndarray(std::vector<float>{1, 2}, {2, 1})["value"]);
    EXPECT_EQ(as_array<float>(m).kind(), array_kind::tensor);
}

// --- memory ----------------------------------------------------------------------------------------------------------------

TEST(fedbiomed_array, data_is_shared_in_both_directions) {
    std::vector<double> values(1000, 1.5);
    const auto* const memory = reinterpret_cast<const std::uint8_t*>(values.data());
    const auto m = ndarray(std::move(values), {1000});
    EXPECT_EQ(m["value"][0].get_binary().data(), memory);
    EXPECT_EQ(as_array(m).data.data(), memory);
    EXPECT_EQ(as_array<double>(m).data().data(), memory);
    EXPECT_EQ(to_message(as_array(m))["value"][0].get_binary().data(), memory);
    const auto runs = msgpack_format.encode(m).runs();
    EXPECT_TRUE(std::ranges::any_of(runs, [&](const bytes& run) { return run.data() == memory; }));
}

TEST(fedbiomed_array, a_view_outlives_its_message) {
    for (const std::size_t offset : {0U, 1U}) {
        std::optional<array_view<double>> view;
        {
            std::vector<std::uint8_t> memory(offset + 16);
            memory[offset + 15] = 0x40;  // 2.0
            view = as_array<double>(ndarray_map(bytes::own(std::move(memory)).slice(offset), "float64", {2}));
        }
        const auto copy = *view;
        view.reset();
        EXPECT_EQ(copy.values()[0], 0.0);
        EXPECT_EQ(copy.values()[1], 2.0);
    }
}

template <class View>
concept values_of_a_temporary = requires(View v) {
    std::move(v).values();
};
static_assert(!values_of_a_temporary<array_view<float>>);

// --- dtypes ----------------------------------------------------------------------------------------------------------------

TEST(fedbiomed_array, dtypes_have_several_names) {
    struct names {
        const char* plain;
        const char* code;
        std::size_t size;
    };
    for (const auto& [plain, code, size] : std::vector<names>{{"bool", "|b1", 1},
                                                              {"int8", "|i1", 1},
                                                              {"int16", "<i2", 2},
                                                              {"int32", "<i4", 4},
                                                              {"int64", "<i8", 8},
                                                              {"uint8", "|u1", 1},
                                                              {"uint16", "<u2", 2},
                                                              {"uint32", "<u4", 4},
                                                              {"uint64", "<u8", 8},
                                                              {"float16", "<f2", 2},
                                                              {"float32", "<f4", 4},
                                                              {"float64", "<f8", 8},
                                                              {"complex64", "<c8", 8},
                                                              {"complex128", "<c16", 16},
                                                              {"bfloat16", "torch.bfloat16", 2}}) {
        for (const auto& name : {std::string(plain), std::string(code), "torch." + std::string(plain)}) {
            const auto data = bytes::own(pattern(size * 6));
            const auto a = as_array(ndarray_map(data, name.c_str(), {2, 3}));
            EXPECT_EQ(a.dtype, plain) << name;
            EXPECT_EQ(a.data.data(), data.data());
            EXPECT_EQ(to_message(a), ndarray_map(data, plain, {2, 3}));
            EXPECT_TRUE(
                fails([&] { as_array(ndarray_map(data, name.c_str(), {7})); }, errc::decode_failed,
                      "with shape [7] takes " + std::to_string(7 * size) + " bytes, has " + std::to_string(6 * size)));
        }
    }
}

TEST(fedbiomed_array, an_unknown_dtype_is_handed_over_as_it_came) {
    for (const auto* name : {"<U5", "datetime64[ns]", "object", ">f4", "", "<", "torch.", "f4", "Float32"}) {
        const auto m = ndarray_map({1, 2, 3}, name, {2});
        EXPECT_EQ(as_array(m).dtype, name);
        EXPECT_EQ(to_message(as_array(m)), m);
        EXPECT_TRUE(fails([&] { as_array<float>(m); }, errc::decode_failed, "wanted an array of float32, got one of"));
    }
}

TEST(fedbiomed_array, a_view_has_the_type_it_asks_for) {
    const auto m = ndarray(std::vector<std::int32_t>{1, 2}, {2});
    EXPECT_TRUE(
        fails([&] { as_array<float>(m); }, errc::decode_failed, "wanted an array of float32, got one of int32"));
    EXPECT_TRUE(fails([&] { as_array<std::uint32_t>(m); }, errc::decode_failed, "got one of int32"));
    EXPECT_TRUE(fails([&] { as_scalar<std::int32_t>(m); }, errc::decode_failed, "got an array with shape [2]"));
    EXPECT_NO_THROW(as_array<std::int32_t>(m));
}

static_assert(array_element<bool> && array_element<double> && array_element<std::uint64_t>);
static_assert(!array_element<char> && !array_element<long double> && !array_element<message>);
static_assert(array_container<std::vector<float>> && array_container<std::array<bool, 2>>);
static_assert(!array_container<std::vector<bool>> && !array_container<std::span<float>>);
static_assert(!array_container<std::vector<float>&> && !array_container<const std::vector<float>>);

// --- what is refused -------------------------------------------------------------------------------------------------------

TEST(fedbiomed_array, anything_else_is_no_array) {
    const bytes two_floats{0, 0, 0, 0, 0, 0, 0, 0};
    struct refusal {
        message m;
        const char* text;
    };
    for (const auto& each : std::vector<refusal>{
             {nullptr, "wanted an array, got nil"},
             {1.5, "wanted an array, got a float"},
             {message::array({1, 2}), "wanted an array, got an array"},
             {two_floats, "wanted an array, got a binary"},
             {{{"__type__", "np.ndarray"}}, "wanted an array, got a map"},
             {array_map("tuple", message::array({1, 2})), "wanted an array, got a tuple"},
             {array_map("np.ndarray", two_floats), "the value of a np.ndarray must be [binary, dtype, shape]"},
             {array_map("np.ndarray", message::array({two_floats, "float32"})), "must be [binary, dtype, shape]"},
             {array_map("np.generic", message::array({two_floats, "float64", message::array()})),
              "must be [binary, dtype]"},
             {array_map("torch.Tensor", message::array({"12345678", "float32", message::array({2})})),
              "the value of a torch.Tensor must be"},
             {array_map("np.ndarray", message::array({message::binary(two_floats, 1), "float32", message::array({2})})),
              "the value of a np.ndarray must be"},
             {array_map("np.ndarray", message::array({two_floats, 4, message::array({2})})), "must be [binary, dtype"},
             {ndarray_map(two_floats, "float32", 2), "the shape of a np.ndarray must be an array, is an integer"},
             {ndarray_map(two_floats, "float32", message::array({-2})), "must hold integers from 0 on, holds -2"},
             {ndarray_map(two_floats, "float32", message::array({2.0})), "must hold integers from 0 on, holds 2.0"},
             {ndarray_map(two_floats, "float32", message::array({"\xff"})), "holds a string"},
             {ndarray_map(two_floats, "float32", message::array({true, 2})), "holds a bool"},
             {ndarray_map(two_floats, "float32", message::array({3})), "shape [3] takes 12 bytes, has 8"},
             {ndarray_map(two_floats, "float32", message::array({1, 1})), "shape [1, 1] takes 4 bytes, has 8"},
             {ndarray_map(two_floats, "float32", message::array()), "shape [] takes 4 bytes, has 8"},
             {ndarray_map(two_floats, "float32", message::array({2, 0})), "shape [2, 0] takes 0 bytes, has 8"},
             {array_map("np.generic", message::array({two_floats, "float32"})), "shape [] takes 4 bytes, has 8"},
         }) {
        EXPECT_TRUE(fails([&] { as_array(each.m); }, errc::decode_failed, each.text));
        EXPECT_TRUE(fails([&] { as_array<float>(each.m); }, errc::decode_failed, each.text));
    }
}

TEST(fedbiomed_array, a_shape_that_overflows_is_beyond_memory) {
    constexpr auto most = std::numeric_limits<std::uint64_t>::max();
    const auto half = std::uint64_t{1} << 32;
    for (const message& extents : {message::array({most}), message::array({half, half}), message::array({most, most}),
                                   message::array({std::uint64_t{1} << 62}), message::array({0, most}),
                                   message::array({most, 0}), message::array({half, half, 0})}) {
        // Multiplied carelessly, each of these products is a small number.
        EXPECT_TRUE(
            fails([&] { as_array(ndarray_map({}, "float32", extents)); }, errc::decode_failed, "is beyond memory"))
            << extents;
        EXPECT_TRUE(fails(
            [&] {
                as_array<float>(ndarray_map({0, 0, 0, 0}, "<f4", extents));
            },
            errc::decode_failed, "beyond"));
    }
    EXPECT_TRUE(fails(
        [&] {
            as_array(ndarray_map({}, "object", message::array({half, half})));
        },
        errc::decode_failed, "is beyond memory"));
    EXPECT_NO_THROW(as_array(ndarray_map({}, "uint8", message::array({most, 0}))));
}

TEST(fedbiomed_array, what_is_sent_must_fit_too) {
    EXPECT_TRUE(fails(
        [] {
            ndarray(std::vector<float>(5), {2, 3});
        },
        errc::invalid_argument, "an array of float32 with shape [2, 3] takes 24 bytes, has 20"));
    EXPECT_TRUE(fails([] { tensor(std::vector<float>(5), {}); }, errc::invalid_argument, "shape [] takes 4"));
    EXPECT_TRUE(fails(
        [] {
            to_message(array{array_kind::tensor, bytes{1, 2, 3}, "bfloat16", {2}});
        },
        errc::invalid_argument, "takes 4 bytes, has 3"));
    EXPECT_TRUE(fails(
        [] {
            to_message(array{array_kind::generic, bytes{1, 2}, "uint8", {2}});
        },
        errc::invalid_argument, "an np.generic has no shape"));
    EXPECT_TRUE(fails(
        [] {
            array_view<float>(array{array_kind::ndarray, bytes{1, 2, 3}, "float32", {1}});
        },
        errc::decode_failed, "takes 4 bytes, has 3"));
}

}  // namespace
