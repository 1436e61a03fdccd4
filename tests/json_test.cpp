#include <ferry/serializer/json.hpp>

#include "support.hpp"

#include <ferry/serializer/msgpack.hpp>
#ifdef FERRY_TEST_SIMDJSON
#include <ferry/serializer/simdjson.hpp>
#endif

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::message;
using ferry_test::fails;
using ferry_test::rounds;

/// The same for each parser.
template <class Serializer>
class json_by : public testing::Test {
protected:
    static std::string text(const message& m) { return std::string(Serializer().encode(m).flatten().view()); }
    static message decoded(std::string_view text) { return Serializer().decode(bytes::copy(text)); }

    /// Succeeds where `m` is written as `expected`, and that is read as `m`, of the same type.
    static testing::AssertionResult is(const message& m, std::string_view expected) {
        const auto written = text(m);
        if (written != expected) return testing::AssertionFailure() << "is written as " << written;
        const auto read = decoded(written);
        if (read != m || read.type() != m.type()) {
            return testing::AssertionFailure() << expected << " is read as " << read << ", a " << read.type_name();
        }
        return testing::AssertionSuccess();
    }

    static testing::AssertionResult comes_back(const message& m) { return is(m, text(m)); }

    static testing::AssertionResult is_refused(std::string_view text, const std::string& why) {
        return fails([&] { decoded(text); }, errc::decode_failed, why);
    }
};

using by_nlohmann = ferry::json_serializer<message, ferry::nlohmann_parser>;

#ifdef FERRY_TEST_SIMDJSON
using serializers = testing::Types<ferry::json_serializer<>, by_nlohmann, ferry::simdjson_serializer<>>;
#else
using serializers = testing::Types<ferry::json_serializer<>, by_nlohmann>;
#endif
struct parser_names {
    template <class Serializer>
    static std::string GetName(int) {
        if (std::is_same_v<Serializer, ferry::json_serializer<>>) return "itself";
        return std::is_same_v<Serializer, by_nlohmann> ? "nlohmann" : "simdjson";
    }
};
TYPED_TEST_SUITE(json_by, serializers, parser_names);

message pairs(message list) { return {{"__type__", "ferry.map"}, {"value", std::move(list)}}; }

bytes pattern(std::size_t size) { return bytes::own(ferry_test::pattern(size)); }

std::uint64_t bits_of(const message& m) { return std::bit_cast<std::uint64_t>(m.get<double>()); }

// --- as it is written ---------------------------------------------------------------------------------------------------------

TYPED_TEST(json_by, scalars) {
    EXPECT_TRUE(this->is(nullptr, "null"));
    EXPECT_TRUE(this->is(true, "true"));
    EXPECT_TRUE(this->is(false, "false"));
    EXPECT_TRUE(this->is("", R"("")"));
    EXPECT_TRUE(this->is("train", R"("train")"));
}

TYPED_TEST(json_by, integers_at_the_edges_of_64_bits) {
    EXPECT_TRUE(this->is(0U, "0"));
    EXPECT_TRUE(this->is(-1, "-1"));
    EXPECT_TRUE(this->is(std::numeric_limits<std::int64_t>::min(), "-9223372036854775808"));
    EXPECT_TRUE(this->is(std::uint64_t{std::numeric_limits<std::int64_t>::max()}, "9223372036854775807"));
    EXPECT_TRUE(this->is(std::uint64_t{1} << 63, "9223372036854775808"));
    EXPECT_TRUE(this->is(std::numeric_limits<std::uint64_t>::max(), "18446744073709551615"));
}

TYPED_TEST(json_by, integers_beyond_64_bits_are_refused) {
    for (const auto* text : {"18446744073709551616", "-9223372036854775809", "[1,100000000000000000000000000000]"}) {
        EXPECT_TRUE(this->is_refused(text, "json: ")) << text;
    }
}

TYPED_TEST(json_by, floats_are_short_and_stay_floats) {
    EXPECT_TRUE(this->is(0.0, "0.0"));
    EXPECT_TRUE(this->is(1.0, "1.0"));
    EXPECT_TRUE(this->is(0.1, "0.1"));
    EXPECT_TRUE(this->is(-2.5, "-2.5"));
    EXPECT_TRUE(this->is(1e300, "1.0e+300"));
    EXPECT_TRUE(this->is(123456789012345680.0, "1.2345678901234568e+17"));
    EXPECT_TRUE(this->is(9223372036854775808.0, "9.223372036854776e+18"));
    EXPECT_TRUE(this->is(1.0 / 3, "0.3333333333333333"));
    EXPECT_EQ(this->text(-0.0), "-0.0");
    EXPECT_TRUE(std::signbit(this->decoded("-0.0").template get<double>()));
}

TYPED_TEST(json_by, floats_keep_every_bit) {
    std::mt19937_64 random(3);
    std::vector<double> all = {std::numeric_limits<double>::max(), std::numeric_limits<double>::min(),
                               std::numeric_limits<double>::denorm_min(), -std::numeric_limits<double>::denorm_min()};
    while (all.size() < 20'000) all.push_back(std::bit_cast<double>(random()));
    message list = message::array();
    for (const auto v : all) list.push_back(v);
    const auto read = this->decoded(this->text(list));
    ASSERT_EQ(read.size(), all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        ASSERT_TRUE(read[i].is_number_float()) << all[i];
        ASSERT_EQ(bits_of(read[i]), std::bit_cast<std::uint64_t>(all[i])) << all[i];
    }
}

TYPED_TEST(json_by, nan_and_infinities_are_maps_with_a_type) {
    constexpr auto inf = std::numeric_limits<double>::infinity();
    EXPECT_TRUE(this->is(inf, R"({"__type__":"ferry.float","value":"inf"})"));
    EXPECT_TRUE(this->is({-inf, 1.0}, R"([{"__type__":"ferry.float","value":"-inf"},1.0])"));
    EXPECT_EQ(this->text({{"loss", std::bit_cast<double>(0x7ff8000000000000)}}),
              R"({"loss":{"__type__":"ferry.float","value":"nan"}})");
    EXPECT_EQ(this->text(std::bit_cast<double>(0xfff8000000000001)),
              R"({"__type__":"ferry.float","value":"nan:fff8000000000001"})");
    for (const std::uint64_t bits : std::initializer_list<std::uint64_t>{
             0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0x7fffffffffffffff, 0x7ff8000000000123}) {
        EXPECT_EQ(bits_of(this->decoded(this->text(std::bit_cast<double>(bits)))), bits) << std::hex << bits;
    }
}

TYPED_TEST(json_by, arrays_and_maps) {
    EXPECT_TRUE(this->is(message::array(), "[]"));
    EXPECT_TRUE(this->is(message::object(), "{}"));
    EXPECT_TRUE(this->is({1U, {2U, message::array(), message::object()}, "x"}, R"([1,[2,[],{}],"x"])"));
    EXPECT_TRUE(this->is({{"a", {{"", nullptr}}}, {"b", message::object()}}, R"({"a":{"":null},"b":{}})"));
}

TYPED_TEST(json_by, keys_come_sorted_by_their_bytes) {
    EXPECT_TRUE(this->is({{"b", 1U}, {"a", 2U}, {"B", 3U}, {"\xc3\xa4", 4U}}, R"({"B":3,"a":2,"b":1,"ä":4})"));
}

TYPED_TEST(json_by, texts_are_escaped_where_they_must_be) {
    EXPECT_TRUE(this->is("\"\\/\n\r\t\b\f\x1f\x7f", R"("\"\\/\n\r\t\u0008\u000c\u001f)"
                                                    "\x7f\""));
    EXPECT_TRUE(this->is(std::string("a\0b", 3), R"("a\u0000b")"));
    EXPECT_TRUE(this->is({{"\n\"", 1U}}, R"({"\n\"":1})"));
    EXPECT_TRUE(this->is("Zürich, 東京, 🚢", R"("Zürich, 東京, 🚢")"));
    EXPECT_EQ(this->decoded(R"("\u00e4\ud83d\udea2\/")"), message("ä🚢/"));
}

// --- what JSON has no word for ------------------------------------------------------------------------------------------------

TYPED_TEST(json_by, binaries_are_base64) {
    EXPECT_TRUE(this->is(message::binary(bytes()), R"({"__type__":"bytes","value":""})"));
    EXPECT_TRUE(this->is(bytes{'f'}, R"({"__type__":"bytes","value":"Zg=="})"));
    EXPECT_TRUE(this->is(bytes{'f', 'o'}, R"({"__type__":"bytes","value":"Zm8="})"));
    EXPECT_TRUE(this->is(bytes{'f', 'o', 'o'}, R"({"__type__":"bytes","value":"Zm9v"})"));
    EXPECT_TRUE(this->is({{"w", bytes{0xff, 0xfe, 0xfb, 0}}, {"x", 1U}},
                         R"({"w":{"__type__":"bytes","value":"//77AA=="},"x":1})"));
    for (std::size_t size = 0; size < 300; ++size) ASSERT_TRUE(this->comes_back(pattern(size))) << size;
}

TYPED_TEST(json_by, a_binary_longer_than_a_block_comes_back) {
    const auto large = pattern(1'000'003);
    const message m = {{"a", large}, {"b", {large.slice(1), "x"}}};
    EXPECT_EQ(this->decoded(this->text(m)), m);
}

TYPED_TEST(json_by, extensions_keep_their_subtype) {
    EXPECT_TRUE(this->is(message::binary(bytes{1}, 5), R"({"__type__":"ferry.ext","subtype":5,"value":"AQ=="})"));
    EXPECT_TRUE(this->comes_back({message::binary(bytes{1, 2}, 255), message::binary(bytes(), 0)}));
}

TYPED_TEST(json_by, keys_that_are_no_text_are_a_list_of_pairs) {
    EXPECT_TRUE(
        this->is(pairs({{1U, "a"}, {nullptr, 2.5}}), R"({"__type__":"ferry.map","value":[[1,"a"],[null,2.5]]})"));
}

TYPED_TEST(json_by, members_may_come_in_any_layout) {
    EXPECT_EQ(this->decoded(" { \"a\" :\n{ \"__type__\" : \"bytes\" , \"value\" : \"AQ==\" } , \"b\":[ ] } "),
              (message{{"a", bytes{1}}, {"b", message::array()}}));
}

// --- maps that only look like one of these ------------------------------------------------------------------------------------

TYPED_TEST(json_by, a_map_that_looks_like_a_binary_stays_a_map) {
    EXPECT_TRUE(this->is({{"__type__", "bytes"}, {"value", "AQ=="}},
                         R"({"__type__":"ferry.literal","value":{"__type__":"bytes","value":"AQ=="}})"));
    for (const auto* type : {"bytes", "ferry.ext", "ferry.float", "ferry.literal"}) {
        EXPECT_TRUE(this->comes_back({{"__type__", type}})) << type;
        EXPECT_TRUE(this->comes_back({{"__type__", type}, {"value", "AQ=="}})) << type;
        EXPECT_TRUE(this->comes_back({{"__type__", type}, {"value", {{"__type__", type}}}})) << type;
        EXPECT_TRUE(this->comes_back({{"A", 1U}, {"__type__", type}, {"b", {{"c", bytes{1}}}}})) << type;
        EXPECT_TRUE(this->comes_back({{"m", {{{"__type__", type}, {"x", {1U}}}, {{"__type__", type}}, bytes{2}}}}))
            << type;
    }
}

TYPED_TEST(json_by, any_other_type_is_nothing_special) {
    EXPECT_TRUE(this->is({{"__type__", "np.ndarray"}, {"value", bytes{1}}},
                         R"({"__type__":"np.ndarray","value":{"__type__":"bytes","value":"AQ=="}})"));
    EXPECT_TRUE(this->is({{"__type__", 5U}, {"value", "AQ=="}}, R"({"__type__":5,"value":"AQ=="})"));
    EXPECT_TRUE(this->is({{"__type__", {"bytes"}}}, R"({"__type__":["bytes"]})"));
    EXPECT_TRUE(this->is({{"__type__", {{"__type__", "bytes"}}}},
                         R"({"__type__":{"__type__":"ferry.literal","value":{"__type__":"bytes"}}})"));
    EXPECT_TRUE(this->is({{"__type__", bytes{1}}}, R"({"__type__":{"__type__":"bytes","value":"AQ=="}})"));
    EXPECT_TRUE(this->is({{"__type__", message::object()}}, R"({"__type__":{}})"));
    EXPECT_TRUE(this->is({{"A", 1U}, {"__type__", "tuple"}}, R"({"A":1,"__type__":"tuple"})"));
}

TYPED_TEST(json_by, a_malformed_one_is_refused) {
    for (const auto* text : {
             R"({"__type__":"bytes"})",
             R"({"__type__":"bytes","value":5})",
             R"({"__type__":"bytes","value":{}})",
             R"({"__type__":"bytes","value":[]})",
             R"({"__type__":"bytes","value":null})",
             R"({"__type__":"bytes","data":"AQ=="})",
             R"({"__type__":"bytes","value":"AQ==","more":1})",
             R"({"__type__":"bytes","subtype":1,"value":"AQ=="})",
             R"({"__type__":"ferry.ext","value":"AQ=="})",
             R"({"__type__":"ferry.ext","subtype":-1,"value":"AQ=="})",
             R"({"__type__":"ferry.ext","subtype":"1","value":"AQ=="})",
             R"({"__type__":"ferry.literal","value":"x"})",
             R"({"__type__":"ferry.literal","value":[]})",
             R"({"__type__":"ferry.literal","value":{},"more":{}})",
             R"({"__type__":"ferry.float","value":1.5})",
         }) {
        EXPECT_TRUE(this->is_refused(text, "must hold just")) << text;
    }
    for (const auto* value :
         {"AQ", "AQ=", "A===", "====", "AQ==AQ==", "A Q=", "AQ=\\n", "AR==", "AQI", "AQJ=", "-_8=", "AAAA="}) {
        const auto text = std::string(R"({"__type__":"bytes","value":")") + value + "\"}";
        EXPECT_TRUE(this->is_refused(text, "not base64")) << text;
    }
    for (const auto* value : {"", "Inf", "nan:", "nan:7ff800000000000", "nan:3ff0000000000000", "nan:7ff0000000000000",
                              "nan:7ff800000000000g", "+inf"}) {
        const auto text = std::string(R"({"__type__":"ferry.float","value":")") + value + "\"}";
        EXPECT_TRUE(this->is_refused(text, "16 digits")) << text;
    }
}

TYPED_TEST(json_by, one_whose_type_is_not_first_is_refused) {
    EXPECT_TRUE(this->is_refused(R"({"value":"AQ==","__type__":"bytes"})", "must come first"));
    EXPECT_TRUE(this->is_refused(R"([{"a":{"b":1},"__type__":"ferry.float"}])", "must come first"));
}

// --- what is refused ----------------------------------------------------------------------------------------------------------

TYPED_TEST(json_by, a_text_must_be_utf8) {
    for (const auto* text : {"\xff", "\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                             "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "ok\xe2\x82", "\xe2\x28\xa1", "\xc3\xc3"}) {
        EXPECT_TRUE(fails([&] { this->text({{"site", text}}); }, errc::encode_failed, "not UTF-8"));
        EXPECT_TRUE(fails([&] { this->text({{text, 1}}); }, errc::encode_failed, "key"));
        EXPECT_TRUE(this->is_refused("\"" + std::string(text) + "\"", "json: "));
    }
    EXPECT_TRUE(fails(
        [&] {
            this->text({{"a", "fine"}, {"site", {"ok\xff"}}});
        },
        errc::encode_failed, "below the key \"site\" is not UTF-8, from its byte 2 on"));
    for (const auto* text : {"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                             "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
        EXPECT_TRUE(this->comes_back(text));
    }
}

TYPED_TEST(json_by, a_key_must_not_occur_twice) {
    EXPECT_TRUE(this->is_refused(R"({"a":1,"b":2,"a":3})", "the key \"a\" occurs twice"));
    EXPECT_TRUE(this->is_refused(R"([{"":1,"":3}])", "occurs twice"));
}

TYPED_TEST(json_by, what_is_no_json_is_refused) {
    for (const auto* text :
         {"",    " ",  "nul", "tru",  "[1,]",   "[1 2]",   "{\"a\"}",     "{\"a\":1,}", "{a:1}",    "'a'",
          "\"a", "[",  "{",   "]",    "1 2",    "{} x",    "[]]",         "NaN",        "Infinity", "01",
          "1.",  ".5", "+1",  "0x10", "\"\t\"", "\"\\x\"", "\"\\ud800\"", "// no\n1",   "1e999",    "\xef\xbb\xbf"}) {
        EXPECT_TRUE(this->is_refused(text, "json: ")) << text;
    }
}

TYPED_TEST(json_by, a_byte_of_0_does_not_end_the_text) {
    for (const auto* text : {"{}", "[1]", "\"a\"", "null"}) {
        EXPECT_TRUE(this->is_refused(text + std::string(1, '\0'), "json: ")) << text;
        EXPECT_TRUE(this->is_refused(text + std::string("\0{}", 3), "json: ")) << text;
        EXPECT_TRUE(this->is_refused(std::string(1, '\0') + text, "json: ")) << text;
    }
    EXPECT_TRUE(this->is_refused(std::string("[\"a\0b\"]", 7), "json: "));
}

TYPED_TEST(json_by, a_byte_order_mark_is_refused) {
    EXPECT_TRUE(this->is_refused("\xef\xbb\xbf{}", "byte order mark"));
}

TYPED_TEST(json_by, every_truncation_is_refused) {
    const auto whole = this->text({{"a", {1U, -2, 2.5, "xä\n"}}, {"b", bytes{1, 2}}, {"c", {{"__type__", "bytes"}}}});
    for (std::size_t size = 0; size < whole.size(); ++size) {
        EXPECT_TRUE(this->is_refused(whole.substr(0, size), "json: ")) << size;
    }
}

TYPED_TEST(json_by, a_depth_of_512_levels_in_both_directions) {
    const auto nested = [](std::size_t levels, bool map) {
        message m = 1U;
        for (std::size_t i = 0; i < levels; ++i)
            m = map ? message{{"__type__", "bytes"}, {"k", m}} : message::array({m});
        return m;
    };
    for (const bool map : {false, true}) {
        EXPECT_TRUE(this->comes_back(nested(512, map)));
        EXPECT_TRUE(fails([&] { this->text(nested(513, map)); }, errc::encode_failed, "512 levels"));
    }
    EXPECT_TRUE(this->is_refused(std::string(513, '[') + std::string(513, ']'), "json: "));
    EXPECT_TRUE(this->is_refused(std::string(100'000, '['), "json: "));
}

TYPED_TEST(json_by, a_discarded_value_is_refused) {
    EXPECT_TRUE(fails([&] { this->text(message(message::value_t::discarded)); }, errc::encode_failed, "discarded"));
}

// --- beside msgpack -----------------------------------------------------------------------------------------------------------

/// Any message, but for texts that are not UTF-8.
message any_message(std::mt19937_64& random, int depth = 0) {
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    const auto word = [&] {
        static const std::vector<std::string> words = {"__type__",
                                                       "value",
                                                       "subtype",
                                                       "bytes",
                                                       "ferry.map",
                                                       "ferry.ext",
                                                       "ferry.float",
                                                       "ferry.literal",
                                                       "",
                                                       "ä\"\\\n",
                                                       std::string("\0", 1),
                                                       "k1",
                                                       "k2",
                                                       "inf"};
        return words[below(words.size())];
    };
    switch (below(depth < 5 ? 11 : 8)) {
        case 0: return nullptr;
        case 1: return below(2) == 0;
        case 2: return std::bit_cast<std::int64_t>(random()) >> below(64);
        case 3: return random() >> below(64);
        case 4:
            return std::bit_cast<double>(random() & ~(std::uint64_t{1} << 62));  // never a NaN, which equals nothing
        case 5: return static_cast<double>(below(100));
        case 6: return word();
        case 7: {
            const auto content = pattern(below(40));
            return below(2) == 0 ? message::binary(content) : message::binary(content, below(256));
        }
        case 8: {
            message list = message::array();
            for (auto n = below(5); n > 0; --n) list.push_back(any_message(random, depth + 1));
            return list;
        }
        case 9: {
            message list = message::array();
            for (auto n = below(4); n > 0; --n)
                list.push_back({any_message(random, depth + 1), any_message(random, depth + 1)});
            return pairs(std::move(list));
        }
        default: {
            message map = message::object();
            for (auto n = below(5); n > 0; --n) map[word()] = any_message(random, depth + 1);
            return map;
        }
    }
}

TYPED_TEST(json_by, every_message_that_msgpack_carries_goes_through_json) {
    const ferry::msgpack_serializer<> msgpack;
    std::mt19937_64 random(11);
    const int all = rounds(20'000);
    int checked = 0;
    for (int i = 0; i < all; ++i) {
        const auto from = any_message(random);
        message carried;
        try {
            carried = msgpack.decode(msgpack.encode(from).flatten());
        } catch (const ferry::error&) {
            continue;  // a list of pairs with the same text twice
        }
        const auto back = this->decoded(this->text(carried));
        ASSERT_EQ(back, carried);
        ASSERT_EQ(msgpack.encode(back).flatten(), msgpack.encode(carried).flatten()) << carried;  // to the last bit
        ++checked;
    }
    EXPECT_GT(checked, all / 20 * 19);
}

// --- the parsers beside each other --------------------------------------------------------------------------------------------

TYPED_TEST(json_by, what_nlohmann_reads_is_read_as_the_same) {
    const by_nlohmann one;
    const TypeParam other;
    std::mt19937_64 random(5);
    const std::string alphabet = R"({}[]",:\0123456789.eE+-truefalsn _typvb/=AdD)"
                                 "\n\x1f\x7f\xc3\xa4\xed\xa0";
    const std::string start = R"({"a":[1,-2.5e3,0.1E-22,"x\n\u00e4\ud83d\udea2ä",null,true],)"
                              R"("b":{"__type__":"bytes","value":"AQ=="}})";
    const auto read = [](const auto& by, const bytes& run) -> std::pair<bool, message> {
        try {
            return {true, by.decode(run)};
        } catch (const ferry::error&) {
            return {false, nullptr};
        }
    };
    const int all = rounds(50'000);
    int good = 0;
    for (int i = 0; i < all; ++i) {
        auto text = start;
        for (auto n = random() % 3; n > 0; --n) text[random() % text.size()] = alphabet[random() % alphabet.size()];
        const auto run = bytes::copy(text);
        const auto a = read(one, run), b = read(other, run);
        ASSERT_EQ(a.first, b.first) << text;
        ASSERT_EQ(a.second, b.second) << text;
        good += a.first;
    }
    EXPECT_GT(good, all / 5);
    EXPECT_LT(good, all / 5 * 4);
}

TEST(json, says_where_a_text_is_wrong_and_what_is) {
    const ferry::json_serializer<> by;
    const auto says = [&](std::string_view text, const std::string& why) {
        return fails([&] { by.decode(bytes::copy(text)); }, errc::decode_failed, "json: " + why);
    };
    EXPECT_TRUE(says("[1,2", "line 1, column 5: expected ',' or ']', found the end"));
    EXPECT_TRUE(says("[1 2]", "line 1, column 4: expected ',' or ']', found '2'"));
    EXPECT_TRUE(says("[01]", "line 1, column 3: expected ',' or ']', found '1'"));
    EXPECT_TRUE(says("{\n \"a\" 1}", "line 2, column 6: expected ':', found '1'"));
    EXPECT_TRUE(says("{\"a\":1,\n\n}", "line 3, column 1: expected a key in quotes, found '}'"));
    EXPECT_TRUE(says("{\"a\":1]", "line 1, column 7: expected ',' or '}', found ']'"));
    EXPECT_TRUE(says("[1,]", "line 1, column 4: expected a value, found ']'"));
    EXPECT_TRUE(says("[nil]", "line 1, column 2: expected a value, found 'n'"));
    EXPECT_TRUE(says("1.e", "line 1, column 3: expected a digit, found 'e'"));
    EXPECT_TRUE(says("-", "line 1, column 2: expected a digit, found the end"));
    EXPECT_TRUE(says("1 \xff", "line 1, column 3: expected the end, found a byte of 255"));
    EXPECT_TRUE(says(std::string("\0", 1), "line 1, column 1: expected a value, found a byte of 0"));
    EXPECT_TRUE(says("[\"ab", "line 1, column 2: a text has no end"));
    EXPECT_TRUE(says("\"ab\xff\"", "line 1, column 4: a text is not UTF-8"));
    EXPECT_TRUE(says("\"a\n\"", "line 1, column 3: a control character must be escaped in a text"));
    EXPECT_TRUE(says(R"("a\x")", "line 1, column 3: no such escape"));
    EXPECT_TRUE(says(R"("\u12g4")", "line 1, column 2: \\u needs 4 hexadecimal digits"));
    EXPECT_TRUE(says(R"("\udc00\ud800")", "line 1, column 2: half of a surrogate pair"));
    EXPECT_TRUE(says("[-1e400]", "line 1, column 2: the number -1e400 is beyond float64"));
    EXPECT_TRUE(says("18446744073709551616", "line 1, column 1: the integer 18446744073709551616 is beyond 64 bits"));
}

TYPED_TEST(json_by, a_number_too_small_for_a_float64_is_0_and_one_too_large_is_refused) {
    const std::string zeros(400, '0');
    for (const auto& text : {std::string("1e-400"), "0." + zeros + "1", "0." + zeros + "1e+50", "1" + zeros + "E-800",
                             std::string("1e-99999999999999999999")}) {
        EXPECT_EQ(bits_of(this->decoded(text)), 0U) << text;
        EXPECT_EQ(bits_of(this->decoded("-" + text)), std::uint64_t{1} << 63) << text;
    }
    for (const auto& text : {std::string("1e400"), "1" + zeros + ".0", "1" + zeros + "e-50", "0." + zeros + "1E800",
                             std::string("1.8e+308"), std::string("1e99999999999999999999")}) {
        EXPECT_TRUE(this->is_refused(text, "json: ")) << text;
        EXPECT_TRUE(this->is_refused("-" + text, "json: ")) << text;
    }
    EXPECT_EQ(this->decoded("0." + zeros + "1e401"), message(1.0));
    EXPECT_EQ(this->decoded("0e99999999999999999999"), message(0.0));
}

TYPED_TEST(json_by, an_integer_minus_zero_is_zero) {
    EXPECT_EQ(this->decoded("-0"), message(0U));
    EXPECT_EQ(this->decoded("-0").type(), message::value_t::number_unsigned);
    EXPECT_EQ(this->decoded(R"({"__type__":"ferry.ext","subtype":-0,"value":""})"),
              this->decoded(R"({"__type__":"ferry.ext","subtype":0,"value":""})"));
}

#ifdef FERRY_TEST_SIMDJSON
TEST(simdjson, reads_a_text_of_any_length) {
    const ferry::simdjson_serializer<> by;
    for (const std::size_t size : {100UL, 200'000UL, ferry::simdjson_parser::kept_bytes, 1'000'000UL, 100UL}) {
        const message m = {{"a", std::string(size, 'x')}, {"b", 1.5}};
        EXPECT_EQ(by.decode(by.encode(m).flatten()), m) << size;
    }
}
#endif

}  // namespace
