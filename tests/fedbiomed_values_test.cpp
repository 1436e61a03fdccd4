#include <ferry/fedbiomed/values.hpp>

#include <ferry/serializer/msgpack.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace {

using namespace ferry::fedbiomed;
using ferry::bytes;
using ferry::errc;
using ferry::message;
using ferry_test::fails;
using ferry_test::from_hex;
using ferry_test::to_hex;

const ferry::msgpack_serializer<> msgpack_format;

/// Succeeds where `m` is written as `hex` and comes back.
testing::AssertionResult is(std::string_view hex, const message& m) {
    const auto written = msgpack_format.encode(m).flatten();
    if (written != from_hex(hex)) return testing::AssertionFailure() << m << " encodes to " << to_hex(written);
    if (msgpack_format.decode(written) != m) return testing::AssertionFailure() << hex << " does not come back";
    return testing::AssertionSuccess();
}

TEST(fedbiomed_values, are_what_python_writes) {
    // tests/peers/wire.py: dumps((1, "a")), dumps(()), dumps({5}), dumps(set())
    EXPECT_TRUE(is("82a85f5f747970655f5fa57475706c65a576616c75659201a161", tuple({1, "a"})));
    EXPECT_TRUE(is("82a85f5f747970655f5fa57475706c65a576616c756590", tuple(message::array())));
    EXPECT_TRUE(is("82a85f5f747970655f5fa3736574a576616c75659105", set(message::array({5}))));
    EXPECT_TRUE(is("82a85f5f747970655f5fa3736574a576616c756590", set(message::array())));
}

TEST(fedbiomed_values, tell_their_types) {
    EXPECT_EQ(type_of(tuple({1, 2})), "tuple");
    EXPECT_EQ(type_of(set({1, 2})), "set");
    EXPECT_EQ(type_of(metric_type("ACCURACY")), "MetricTypes");
    EXPECT_EQ(type_of({{"__type__", "Vector"}, {"value", {{"a", 1.5}}}}), "Vector");
    for (const message& m :
         {message(), message("tuple"), message{1, 2}, message::object(), message{{"__type__", "tuple"}},
          message{{"value", {1, 2}}}, message{{"__type__", 5}, {"value", {1, 2}}}}) {
        EXPECT_EQ(type_of(m), "") << m;
    }
}

TEST(fedbiomed_values, give_their_items_without_a_copy) {
    const message items = {1, "a", nullptr};
    for (const auto& m : {tuple(items), set(items), items}) EXPECT_EQ(items_of(m), items);
    const auto m = tuple(items);
    EXPECT_EQ(&items_of(m), &m["value"]);
    EXPECT_EQ(&items_of(items), &items);
}

TEST(fedbiomed_values, are_made_of_arrays_only) {
    for (const message& m : {message(), message("a"), message(5), message{{"a", 1}}, message(bytes{1})}) {
        EXPECT_TRUE(fails([&] { tuple(m); }, errc::invalid_argument, "a tuple is made of an array, not of ")) << m;
        EXPECT_TRUE(fails([&] { set(m); }, errc::invalid_argument, "a set is made of an array, not of ")) << m;
    }
}

TEST(fedbiomed_values, anything_else_has_no_items) {
    for (const message& m : {message(), message("a"), message{{"a", 1}}, metric_type("ACCURACY"),
                             message{{"__type__", "list"}, {"value", {1, 2}}}}) {
        EXPECT_TRUE(fails([&] { items_of(m); }, errc::decode_failed, "wanted a tuple, a set or an array, got ")) << m;
    }
    const message odd{{"__type__", "set"}, {"value", bytes{1}}};
    EXPECT_TRUE(
        fails([&] { items_of(odd); }, errc::decode_failed, "the items of a set must be an array, are a binary"));
}

TEST(fedbiomed_values, a_metric_is_its_name) {
    EXPECT_EQ(metric_type("F1_SCORE"), (message{{"__type__", "MetricTypes"}, {"value", "F1_SCORE"}}));
    EXPECT_EQ(metric_type_of(metric_type("F1_SCORE")), "F1_SCORE");
    for (const message& m : {message("F1_SCORE"), tuple({1, 2}), message{{"__type__", "MetricTypes"}, {"value", 1}}}) {
        EXPECT_TRUE(fails([&] { metric_type_of(m); }, errc::decode_failed, "wanted MetricTypes with a name")) << m;
    }
}

}  // namespace
