#include <ferry/message.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::message;
using traits = ferry::message_traits<message>;

TEST(message, assigned_bytes_are_a_binary_that_shares_the_memory) {
    const auto weights = bytes::own(ferry_test::pattern(5000));
    message m;
    m["weights"] = weights;
    ASSERT_TRUE(m["weights"].is_binary());
    EXPECT_FALSE(m["weights"].get_binary().has_subtype());
    EXPECT_EQ(m["weights"].get_binary().data(), weights.data());
    EXPECT_EQ(m["weights"].get_binary().size(), 5000U);
}

TEST(message, bytes_are_a_binary_in_every_way_to_put_them_in) {
    const auto run = bytes::own(ferry_test::pattern(100));
    message array = message::array();
    array.push_back(run);
    array.emplace_back(run);
    array.push_back(message(run));
    array.push_back(message{{"w", run}}["w"]);
    array.push_back((message{nullptr, run})[1]);
    array.push_back(message(std::vector<bytes>{run, run})[1]);
    ASSERT_EQ(array.size(), 6U);
    for (const message& m : array) {
        ASSERT_TRUE(m.is_binary()) << m;
        EXPECT_EQ(m.get_binary().data(), run.data());
    }
}

TEST(message, empty_bytes_are_an_empty_binary) {
    message m;
    m["w"] = bytes();
    ASSERT_TRUE(m["w"].is_binary());
    EXPECT_TRUE(m["w"].get<bytes>().empty());
}

TEST(message, get_bytes_shares_the_memory) {
    const auto run = bytes::own(ferry_test::pattern(100));
    const message m{{"w", run}};
    EXPECT_EQ(m["w"].get<bytes>().data(), run.data());
    EXPECT_EQ(m.at("w").get<bytes>(), run);
    const bytes implicit = m["w"];
    EXPECT_EQ(implicit.data(), run.data());
    const auto both = message{run, run}.get<std::vector<bytes>>();
    ASSERT_EQ(both.size(), 2U);
    EXPECT_EQ(both[1].data(), run.data());
}

TEST(message, get_bytes_of_anything_else_is_a_type_error) {
    for (const message& m : {message(), message("text"), message(1), message{1, 2, 3}, message{{"a", 1}}}) {
        EXPECT_THROW(m.get<bytes>(), message::type_error) << m;
    }
}

TEST(message, copies_share_their_binaries) {
    message m;
    m["w"] = bytes::own(ferry_test::pattern(100));
    message copy = m;
    EXPECT_EQ(copy["w"].get_binary().data(), m["w"].get_binary().data());
    copy["w"] = bytes{1};
    EXPECT_EQ(m["w"].get<bytes>().size(), 100U);
}

TEST(message, keeps_a_binary_alive_and_releases_it) {
    auto owner = std::make_shared<std::vector<std::uint8_t>>(ferry_test::pattern(100));
    const std::weak_ptr<const void> alive = owner;
    message m;
    m["w"] = bytes::borrow(*owner, owner);
    owner.reset();
    message copy = m;
    m = nullptr;
    EXPECT_FALSE(alive.expired());
    copy.erase("w");
    EXPECT_TRUE(alive.expired());
}

TEST(message, compares_binaries_by_content_and_subtype) {
    const message a = bytes{1, 2};
    EXPECT_EQ(a, message(bytes{1, 2}));
    EXPECT_NE(a, message(bytes{1, 3}));
    EXPECT_NE(a, message::binary(bytes{1, 2}, 5));
    EXPECT_LT(a, message(bytes{1, 3}));
    EXPECT_NE(a, (message{1, 2}));
}

TEST(message, dumps_binaries) {
    const message m{{"w", bytes{1, 255}}};
    EXPECT_EQ(m.dump(), R"({"w":{"bytes":[1,255],"subtype":null}})");
}

TEST(message, an_overlay_message_with_class_and_module_has_a_destination) {
    message m = {{"__type_message__", {{"module", "m"}, {"class", "OverlayMessage"}}}, {"dest_node_id", "b"}};
    EXPECT_EQ(traits::class_name(m), "OverlayMessage");
    EXPECT_EQ(traits::destination(m), "b");
    m["__type_message__"].erase("module");
    EXPECT_EQ(traits::destination(m), "") << "both must be there";
    m["__type_message__"] = {{"module", "m"}, {"class", "SearchReply"}};
    EXPECT_EQ(traits::destination(m), "");
    m["__type_message__"] = {{"module", "m"}};
    EXPECT_EQ(traits::class_name(m), "");
}

TEST(message, keeps_its_keys_sorted) {
    message m;
    m["b"] = 1;
    m["a"] = 2;
    EXPECT_EQ(m.dump(), R"({"a":2,"b":1})");
}

TEST(message_traits, ids_are_those_of_the_map) {
    const message m{{"request_id", "r1"}, {"node_id", "n1"}, {"command", "train"}};
    EXPECT_EQ(traits::request_id(m), "r1");
    EXPECT_EQ(traits::node_id(m), "n1");
}

TEST(message_traits, an_id_that_is_missing_or_no_string_is_empty) {
    for (const message& m : {message(), message("request_id"), message(3), message{"request_id", "node_id"},
                             message::object(), message{{"request_id", nullptr}, {"node_id", 5}},
                             message{{"request_id", {{"a", 1}}}, {"node_id", bytes{1}}}}) {
        EXPECT_EQ(traits::request_id(m), "") << m;
        EXPECT_EQ(traits::node_id(m), "") << m;
    }
}

TEST(message_traits, ids_can_be_set_and_replaced) {
    message m{{"command", "train"}};
    traits::set_request_id(m, "r1");
    traits::set_node_id(m, "n1");
    EXPECT_EQ(m, (message{{"command", "train"}, {"request_id", "r1"}, {"node_id", "n1"}}));
    traits::set_request_id(m, "r2");
    traits::set_node_id(m, "n2");
    EXPECT_EQ(traits::request_id(m), "r2");
    EXPECT_EQ(traits::node_id(m), "n2");
}

TEST(message_traits, an_id_makes_a_map_of_null) {
    message m;
    traits::set_request_id(m, "r1");
    EXPECT_EQ(m, (message{{"request_id", "r1"}}));
}

TEST(message_traits, an_id_in_anything_but_a_map_is_misuse) {
    for (message m : {message("text"), message(3), message{1, 2}, message(bytes{1})}) {
        EXPECT_TRUE(ferry_test::fails([&] { traits::set_request_id(m, "r"); }, errc::invalid_argument, "request_id"));
        EXPECT_TRUE(ferry_test::fails([&] { traits::set_node_id(m, "n"); }, errc::invalid_argument, m.type_name()));
    }
}

}  // namespace
