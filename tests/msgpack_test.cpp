#include <ferry/serializer/msgpack.hpp>

#include "support.hpp"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <fstream>
#include <initializer_list>
#include <latch>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::message;
using ferry::payload;
using ferry_test::fails;
using ferry_test::from_hex;
using ferry_test::pattern;
using ferry_test::to_hex;

const ferry::msgpack_serializer<> msgpack_format;

bytes encoded(message m) { return msgpack_format.encode(std::move(m)).flatten(); }
message decoded(const bytes& run) { return msgpack_format.decode(run); }
message decoded(std::string_view hex) { return decoded(from_hex(hex)); }
std::string hex_of(message m) { return to_hex(encoded(std::move(m))); }

message pairs(message list) { return {{"__type__", "ferry.map"}, {"value", std::move(list)}}; }

/// Succeeds where `hex` decodes to `m`, and `m` encodes to `hex`.
testing::AssertionResult is(std::string_view hex, const message& m) {
    const auto written = encoded(m);
    if (written != from_hex(hex)) return testing::AssertionFailure() << m << " encodes to " << to_hex(written);
    const auto read = decoded(written);
    if (read != m || read.type() != m.type()) {
        return testing::AssertionFailure() << hex << " decodes to " << read << ", a " << read.type_name();
    }
    return testing::AssertionSuccess();
}

/// Succeeds where `m` comes back, and its encoding begins with `header` and has `size` bytes.
testing::AssertionResult comes_back(const message& m, std::string_view header, std::size_t size) {
    const auto written = encoded(m);
    if (written.size() != size) return testing::AssertionFailure() << "encodes to " << written.size() << " bytes";
    if (written.slice(0, header.size() / 2) != from_hex(header)) {
        return testing::AssertionFailure() << "begins with " << to_hex(written, header.size() / 2);
    }
    const auto read = decoded(written);
    if (read != m) return testing::AssertionFailure() << "comes back as another";
    if (encoded(read) != written) return testing::AssertionFailure() << "encodes to other bytes the second time";
    return testing::AssertionSuccess();
}

TEST(msgpack, a_small_message_holds_little_memory) {
    const auto out = msgpack_format.encode({{"command", "train"}, {"rounds", 5U}});
    ASSERT_EQ(out.runs().size(), 1U);
    EXPECT_LT(::malloc_usable_size(out.runs()[0].block().get()), 200U);
}

// --- as others write it ------------------------------------------------------------------------------------------------------

TEST(msgpack, is_what_python_writes) {
    EXPECT_TRUE(is("81 a161 01", {{"a", 1U}}));
    EXPECT_TRUE(
        is("85"
           "a7 636f6d6d616e64  a5 747261696e"          // "command": "train"
           "a6 706172616d73  c4 03 000102"             // "params": b"\x00\x01\x02"
           "a6 726f756e6473  93 01 cd012c ce00011170"  // "rounds": [1, 300, 70000]
           "a5 7374617465  c0"                         // "state": None
           "a2 7631  92 cb3ff8000000000000 c3",        // "v1": [1.5, True]
           {{"command", "train"},
            {"params", bytes{0, 1, 2}},
            {"rounds", {1U, 300U, 70000U}},
            {"state", nullptr},
            {"v1", {1.5, true}}}));
}

TEST(msgpack, reads_integers_that_are_longer_than_need_be) {
    for (const auto* hex : {"05", "cc05", "cd0005", "ce00000005", "cf0000000000000005", "d005", "d10005", "d200000005",
                            "d30000000000000005"}) {
        EXPECT_EQ(decoded(hex), message(5)) << hex;
        EXPECT_EQ(hex_of(decoded(hex)), "05") << hex;
    }
}

TEST(msgpack, reads_single_precision) {
    EXPECT_EQ(decoded("ca3fc00000"), message(1.5));
    EXPECT_TRUE(decoded("ca3fc00000").is_number_float());
    EXPECT_EQ(decoded("ca7f800000"), message(std::numeric_limits<double>::infinity()));
}

TEST(msgpack, reads_lengths_that_are_longer_than_need_be) {
    for (const auto* hex : {"a161", "d90161", "da000161", "db0000000161"}) EXPECT_EQ(decoded(hex), message("a")) << hex;
    for (const auto* hex : {"c40161", "c5000161", "c60000000161"}) EXPECT_EQ(decoded(hex), message(bytes{0x61})) << hex;
    for (const auto* hex : {"9101", "dc000101", "dd0000000101"}) EXPECT_EQ(decoded(hex), message::array({1})) << hex;
    for (const auto* hex : {"81a16101", "de0001a16101", "df00000001a16101"}) {
        EXPECT_EQ(decoded(hex), (message{{"a", 1}})) << hex;
    }
    for (const auto* hex : {"d40561", "c7010561", "c800010561", "c9000000010561"}) {
        EXPECT_EQ(decoded(hex), message::binary(bytes{0x61}, 5)) << hex;
    }
    for (const auto* hex : {"a0", "d900", "da0000", "db00000000"}) EXPECT_EQ(decoded(hex), message("")) << hex;
}

// --- every type there and back ---------------------------------------------------------------------------------------------

TEST(msgpack, null_and_booleans) {
    EXPECT_TRUE(is("c0", nullptr));
    EXPECT_TRUE(is("c2", false));
    EXPECT_TRUE(is("c3", true));
}

TEST(msgpack, integers_at_each_edge) {
    EXPECT_TRUE(is("00", 0U));
    EXPECT_TRUE(is("7f", 127U));
    EXPECT_TRUE(is("cc80", 128U));
    EXPECT_TRUE(is("ccff", 255U));
    EXPECT_TRUE(is("cd0100", 256U));
    EXPECT_TRUE(is("cdffff", 65535U));
    EXPECT_TRUE(is("ce00010000", 65536U));
    EXPECT_TRUE(is("ceffffffff", 4294967295U));
    EXPECT_TRUE(is("cf0000000100000000", std::uint64_t{1} << 32));
    EXPECT_TRUE(is("cf7fffffffffffffff", static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())));
    EXPECT_TRUE(is("cf8000000000000000", std::uint64_t{1} << 63));
    EXPECT_TRUE(is("cfffffffffffffffff", std::numeric_limits<std::uint64_t>::max()));
    EXPECT_TRUE(is("ff", -1));
    EXPECT_TRUE(is("e0", -32));
    EXPECT_TRUE(is("d0df", -33));
    EXPECT_TRUE(is("d080", -128));
    EXPECT_TRUE(is("d1ff7f", -129));
    EXPECT_TRUE(is("d18000", -32768));
    EXPECT_TRUE(is("d2ffff7fff", -32769));
    EXPECT_TRUE(is("d280000000", std::numeric_limits<std::int32_t>::min()));
    EXPECT_TRUE(is("d3ffffffff7fffffff", std::int64_t{std::numeric_limits<std::int32_t>::min()} - 1));
    EXPECT_TRUE(is("d38000000000000000", std::numeric_limits<std::int64_t>::min()));
}

TEST(msgpack, a_signed_integer_that_is_not_negative_takes_the_short_form) {
    EXPECT_EQ(hex_of(std::int64_t{5}), "05");
    EXPECT_EQ(hex_of(std::int64_t{300}), "cd012c");
    EXPECT_EQ(hex_of(std::numeric_limits<std::int64_t>::max()), "cf7fffffffffffffff");
}

TEST(msgpack, floats_keep_their_type_and_every_bit) {
    for (const std::uint64_t bits : std::initializer_list<std::uint64_t>{
             0x0000000000000000U,  // 0.0
             0x8000000000000000U,  // -0.0
             0x3ff0000000000000U,  // 1.0
             0xc000000000000000U,  // -2.0
             0x3ff8000000000000U,  // 1.5
             0x40c3880000000000U,  // 10000.0
             0x43f0000000000000U,  // 2^64
             0xc3e0000000000000U,  // -2^63
             0x0000000000000001U,  // the least positive
             0x7fefffffffffffffU,  // the largest
             0x7ff0000000000000U,  // infinity
             0xfff0000000000000U,  // -infinity
             0x7ff8000000000000U,  // a quiet NaN
             0xfff8000000000000U,  // a negative one
             0x7ff8dead0000beefU,  // one with a payload
             0x7ff0000000000001U,  // a signalling NaN
         }) {
        const auto written = encoded(std::bit_cast<double>(bits));
        ASSERT_EQ(written.size(), 9U) << std::hex << bits;
        EXPECT_EQ(written[0], 0xcb);
        for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(written[i + 1], (bits >> (56 - 8 * i)) & 255) << std::hex << bits;
        const auto read = decoded(written);
        ASSERT_TRUE(read.is_number_float()) << std::hex << bits;
        EXPECT_EQ(std::bit_cast<std::uint64_t>(read.get<double>()), bits);
    }
}

TEST(msgpack, strings_at_each_length) {
    EXPECT_TRUE(is("a0", ""));
    EXPECT_TRUE(is("a3 610062", std::string("a\0b", 3)));
    EXPECT_TRUE(is("a4 f09f9ab2", "\xf0\x9f\x9a\xb2"));
    EXPECT_TRUE(comes_back(std::string(31, 'x'), "bf78", 32));
    EXPECT_TRUE(comes_back(std::string(32, 'x'), "d92078", 34));
    EXPECT_TRUE(comes_back(std::string(255, 'x'), "d9ff78", 257));
    EXPECT_TRUE(comes_back(std::string(256, 'x'), "da010078", 259));
    EXPECT_TRUE(comes_back(std::string(65535, 'x'), "daffff78", 65538));
    EXPECT_TRUE(comes_back(std::string(65536, 'x'), "db0001000078", 65541));
}

TEST(msgpack, strings_need_not_be_utf8) { EXPECT_EQ(hex_of(decoded("a2 ff80")), "a2ff80"); }

TEST(msgpack, binaries_at_each_length) {
    EXPECT_TRUE(is("c400", bytes()));
    EXPECT_TRUE(is("c403 0080ff", bytes{0, 128, 255}));
    const auto binary = [](std::size_t size) { return message(bytes::own(pattern(size))); };
    EXPECT_TRUE(comes_back(binary(255), "c4ff", 257));
    EXPECT_TRUE(comes_back(binary(256), "c50100", 259));
    EXPECT_TRUE(comes_back(binary(1023), "c503ff", 1026));
    EXPECT_TRUE(comes_back(binary(1024), "c50400", 1027));
    EXPECT_TRUE(comes_back(binary(65535), "c5ffff", 65538));
    EXPECT_TRUE(comes_back(binary(65536), "c600010000", 65541));
}

TEST(msgpack, extensions_are_binaries_with_a_subtype) {
    const auto extension = [](std::size_t size, std::uint8_t type) {
        return message::binary(bytes::own(pattern(size)), type);
    };
    EXPECT_TRUE(is("c70005", extension(0, 5)));
    EXPECT_TRUE(is("d4 05 aa", message::binary(bytes{0xaa}, 5)));
    EXPECT_TRUE(comes_back(extension(2, 5), "d505", 4));
    EXPECT_TRUE(comes_back(extension(3, 5), "c70305", 6));
    EXPECT_TRUE(comes_back(extension(4, 5), "d605", 6));
    EXPECT_TRUE(comes_back(extension(8, 5), "d705", 10));
    EXPECT_TRUE(comes_back(extension(16, 5), "d805", 18));
    EXPECT_TRUE(comes_back(extension(17, 5), "c71105", 20));
    EXPECT_TRUE(comes_back(extension(255, 5), "c7ff05", 258));
    EXPECT_TRUE(comes_back(extension(256, 5), "c8010005", 260));
    EXPECT_TRUE(comes_back(extension(65535, 5), "c8ffff05", 65539));
    EXPECT_TRUE(comes_back(extension(65536, 5), "c90001000005", 65542));
}

TEST(msgpack, extension_types_are_a_byte) {
    EXPECT_TRUE(is("d4 00 aa", message::binary(bytes{0xaa}, 0)));
    EXPECT_TRUE(is("d4 7f aa", message::binary(bytes{0xaa}, 127)));
    EXPECT_TRUE(is("d4 80 aa", message::binary(bytes{0xaa}, 128)));
    EXPECT_TRUE(is("d6 ff 00000001", message::binary(bytes{0, 0, 0, 1}, 255)));  // a timestamp
    EXPECT_TRUE(fails([] { encoded(message::binary(bytes{1}, 256)); }, errc::encode_failed, "subtype"));
    EXPECT_TRUE(fails([] { encoded(message::binary(bytes{1}, static_cast<std::uint64_t>(-1))); }, errc::encode_failed,
                      "subtype"));
}

TEST(msgpack, arrays_at_each_length) {
    EXPECT_TRUE(is("90", message::array()));
    EXPECT_TRUE(is("93 90 80 9190", {message::array(), message::object(), message::array({message::array()})}));
    const auto array = [](std::size_t size) { return message(std::vector<unsigned>(size, 7U)); };
    EXPECT_TRUE(comes_back(array(15), "9f07", 16));
    EXPECT_TRUE(comes_back(array(16), "dc001007", 19));
    EXPECT_TRUE(comes_back(array(65535), "dcffff07", 65538));
    EXPECT_TRUE(comes_back(array(65536), "dd0001000007", 65541));
}

TEST(msgpack, maps_are_written_with_sorted_keys) {
    EXPECT_EQ(hex_of(decoded("83 a16301 a16102 a16203")), "83a16102a16203a16301");
}

TEST(msgpack, maps_at_each_length) {
    EXPECT_TRUE(is("80", message::object()));
    EXPECT_TRUE(is("81 a0 80", {{"", message::object()}}));
    const auto map = [](std::size_t size) {
        message m = message::object();
        for (std::size_t i = 0; i < size; ++i) m[std::to_string(100'000 + i)] = nullptr;
        return m;
    };
    EXPECT_TRUE(comes_back(map(15), "8fa6", 1 + 15 * 8));
    EXPECT_TRUE(comes_back(map(16), "de0010a6", 3 + 16 * 8));
    EXPECT_TRUE(comes_back(map(65535), "deffffa6", 3 + 65535 * 8));
    EXPECT_TRUE(comes_back(map(65536), "df00010000a6", 5 + 65536 * 8));
}

// --- maps with keys that are not strings -----------------------------------------------------------------------------------

TEST(msgpack_pairs, stand_for_keys_of_any_type) {
    EXPECT_TRUE(is("82 01 a161 02 a162", pairs({{1U, "a"}, {2U, "b"}})));
    EXPECT_TRUE(is("81 c0 01", pairs(message::array({{nullptr, 1U}}))));
    EXPECT_TRUE(is("81 c3 01", pairs(message::array({{true, 1U}}))));
    EXPECT_TRUE(is("81 ff c0", pairs(message::array({{-1, nullptr}}))));
    EXPECT_TRUE(is("81 cb4000000000000000 01", pairs(message::array({{2.0, 1U}}))));
    EXPECT_TRUE(is("81 c40161 01", pairs(message::array({message::array({bytes{0x61}, 1U})}))));
    EXPECT_TRUE(is("81 d40561 01", pairs(message::array({message::array({message::binary(bytes{0x61}, 5), 1U})}))));
    EXPECT_TRUE(is("81 9201a161 80", pairs(message::array({message::array({{1U, "a"}, message::object()})}))));
    EXPECT_TRUE(is("81 81a16101 90", pairs(message::array({message::array({{{"a", 1U}}, message::array()})}))));
    EXPECT_TRUE(is("81 80 90", pairs(message::array({message::array({message::object(), message::array()})}))));
}

TEST(msgpack_pairs, nest_as_values_and_as_keys) {
    EXPECT_TRUE(
        is("81 01 81 02 81 03 c0",
           pairs(message::array({message::array(
               {1U, pairs(message::array({message::array({2U, pairs(message::array({{3U, nullptr}}))})}))})}))));
    EXPECT_TRUE(is("81 81 02 03 04", pairs(message::array({message::array({pairs(message::array({{2U, 3U}})), 4U})}))));
    EXPECT_TRUE(is("81 a161 81 01 02", {{"a", pairs(message::array({{1U, 2U}}))}}));
    EXPECT_TRUE(is("81 01 81 a161 02", pairs(message::array({message::array({1U, {{"a", 2U}}})}))));
}

TEST(msgpack_pairs, mix_with_strings_in_any_order) {
    EXPECT_TRUE(is("83 01c0 a161c2 a162c3", pairs({{1U, nullptr}, {"a", false}, {"b", true}})));
    EXPECT_TRUE(is("83 a161c2 01c0 a162c3", pairs({{"a", false}, {1U, nullptr}, {"b", true}})));
    EXPECT_TRUE(is("83 a161c2 a162c3 01c0", pairs({{"a", false}, {"b", true}, {1U, nullptr}})));
    EXPECT_TRUE(is("83 01c0 a162c3 02a0", pairs({{1U, nullptr}, {"b", true}, {2U, ""}})));
}

TEST(msgpack_pairs, keep_keys_that_occur_twice) {
    EXPECT_TRUE(is("82 01c0 01c2", pairs({{1U, nullptr}, {1U, false}})));
    EXPECT_TRUE(is("83 01c0 a161c2 a161c3", pairs({{1U, nullptr}, {"a", false}, {"a", true}})));
}

TEST(msgpack_pairs, sort_the_strings_before_the_first_other_key) {
    EXPECT_EQ(hex_of(decoded("84 a162c3 a161c2 01c0 a15ac0")), "84a161c2a162c301c0a15ac0");
}

TEST(msgpack_pairs, large_binaries_are_slices_too) {
    const auto big = bytes::own(pattern(3000));
    const auto sent = msgpack_format.encode(pairs(message::array({message::array({1U, big})})));
    ASSERT_EQ(sent.runs().size(), 2U);
    EXPECT_EQ(sent.runs()[1].data(), big.data());
    const auto run = sent.flatten();
    EXPECT_EQ(decoded(run)["value"][0][1].get<bytes>().data(), run.data() + run.size() - 3000);
}

TEST(msgpack_pairs, anything_else_with_that_tag_is_an_ordinary_map) {
    const auto tagged = [](const message& value) { return message{{"__type__", "ferry.map"}, {"value", value}}; };
    const std::string head = "82 a85f5f747970655f5f a966657272792e6d6170 a576616c7565 ";
    EXPECT_TRUE(is(head + "01", tagged(1U)));
    EXPECT_TRUE(is(head + "9101", tagged(message::array({1U}))));
    EXPECT_TRUE(is(head + "919101", tagged(message::array({message::array({1U})}))));
    EXPECT_TRUE(is("82 a85f5f747970655f5f a1 78 a576616c7565 90", {{"__type__", "x"}, {"value", message::array()}}));
    EXPECT_TRUE(is("81 a85f5f747970655f5f a966657272792e6d6170", {{"__type__", "ferry.map"}}));
}

// --- depth -----------------------------------------------------------------------------------------------------------------

bytes nested(std::string_view opening_hex, std::size_t levels, std::string_view end_hex) {
    const auto opening = from_hex(opening_hex);
    std::string all;
    for (std::size_t i = 0; i < levels; ++i) all += opening.view();
    all += from_hex(end_hex).view();
    return bytes::own(std::move(all));
}

TEST(msgpack_depth, is_512_levels_in_both_directions) {
    for (const std::string_view opening : {"91", "81a161", "8101", "dd00000001"}) {
        for (const std::string_view end : {"90", "80"}) {
            EXPECT_EQ(encoded(decoded(nested("91", 511, end))), nested("91", 511, end));
            EXPECT_NO_THROW(encoded(decoded(nested(opening, 511, end)))) << opening << end;
            EXPECT_TRUE(
                fails([&] { decoded(nested(opening, 512, end)); }, errc::decode_failed, "deeper than 512 levels"))
                << opening << end;
        }
        EXPECT_NO_THROW(encoded(decoded(nested(opening, 512, "c0")))) << opening;
        EXPECT_TRUE(fails([&] { decoded(nested(opening, 513, "c0")); }, errc::decode_failed, "deeper than 512 levels"))
            << opening;
    }
}

TEST(msgpack_depth, what_can_be_encoded_can_be_decoded) {
    const auto arrays = [](std::size_t levels, message inner) {
        for (std::size_t i = 0; i < levels; ++i) inner = message::array({std::move(inner)});
        return inner;
    };
    const auto maps = [](std::size_t levels, message inner) {
        for (std::size_t i = 0; i < levels; ++i) inner = message{{"a", std::move(inner)}};
        return inner;
    };
    const auto odd_maps = [](std::size_t levels, message inner) {
        for (std::size_t i = 0; i < levels; ++i)
            inner = pairs(message::array({message::array({1U, std::move(inner)})}));
        return inner;
    };
    for (const message& end : {message(1U), message::array(), message::object()}) {
        const std::size_t own = end.is_structured() ? 1 : 0;
        for (const auto& fits : {arrays(512 - own, end), maps(512 - own, end), odd_maps(512 - own, end)}) {
            EXPECT_EQ(decoded(encoded(fits)), fits);
        }
        for (const auto& too_deep : {arrays(513 - own, end), maps(513 - own, end), odd_maps(513 - own, end)}) {
            EXPECT_TRUE(fails([&] { encoded(too_deep); }, errc::encode_failed, "deeper than 512 levels")) << own;
        }
    }
    EXPECT_TRUE(fails([&] { encoded(arrays(100'000, 1)); }, errc::encode_failed, "deeper than 512 levels"));
}

TEST(msgpack_depth, does_not_use_up_the_stack) {
    EXPECT_TRUE(fails([] { decoded(nested("91", 10'000'000, "c0")); }, errc::decode_failed, "deeper than 512 levels"));
}

// --- what is no message ------------------------------------------------------------------------------------------------------

TEST(msgpack_errors, an_empty_payload_is_no_message) {
    EXPECT_TRUE(fails([] { decoded(bytes()); }, errc::decode_failed, "empty payload"));
}

TEST(msgpack_errors, what_nobody_could_read_is_not_written) {
    EXPECT_TRUE(fails(
        [] {
            encoded(
                pairs(message::array({message::array({"a", 1}), message::array({"b", 2}), message::array({"a", 3})})));
        },
        errc::encode_failed, "the key \"a\" occurs twice"));
    const auto odd = pairs({{1U, 1U}, {"a", 2U}, {"a", 3U}});
    EXPECT_EQ(decoded(encoded(odd)), odd) << "with other keys than texts";
}

TEST(msgpack_errors, a_key_must_not_occur_twice) {
    EXPECT_TRUE(fails([] { decoded("82 a161 01 a161 02"); }, errc::decode_failed, "the key \"a\" occurs twice"));
    EXPECT_TRUE(fails([] { decoded("82 a161 01 d90161 01"); }, errc::decode_failed, "the key \"a\" occurs twice"));
    EXPECT_TRUE(fails([] { decoded("82 a0 01 a0 02"); }, errc::decode_failed, "the key \"\" occurs twice"));
    EXPECT_TRUE(
        fails([] { decoded("91 81 a178 82 a16b 90 a16b 90"); }, errc::decode_failed, "the key \"k\" occurs twice"));
    EXPECT_EQ(decoded("82 a161 81 a161 01 a162 81 a161 02"), (message{{"a", {{"a", 1}}}, {"b", {{"a", 2}}}}));
}

TEST(msgpack_errors, nothing_may_follow_the_message) {
    EXPECT_TRUE(
        fails([] { decoded("01 02"); }, errc::decode_failed, "1 bytes follow the message, which ends at byte 1"));
    EXPECT_TRUE(fails([] { decoded("81 a161 01 c1 00 00"); }, errc::decode_failed,
                      "3 bytes follow the message, which ends at byte 4"));
    EXPECT_TRUE(fails([] { decoded("90 c0"); }, errc::decode_failed, "ends at byte 1"));
}

TEST(msgpack_errors, the_byte_that_is_never_used_is_found) {
    EXPECT_TRUE(fails([] { decoded("c1"); }, errc::decode_failed, "not msgpack at byte 0"));
    EXPECT_TRUE(fails([] { decoded("82 a161 01 c1 02"); }, errc::decode_failed, "not msgpack at byte 4"));
    EXPECT_TRUE(fails([] { decoded("93 01 02 c1"); }, errc::decode_failed, "not msgpack at byte 3"));
}

/// One of each kind of value, with lengths of every width.
message one_of_each() {
    return {{"null", nullptr},
            {"yes", true},
            {"no", false},
            {"integers",
             {0U, 127U, 200U, 60000U, 4000000000U, std::uint64_t{1} << 60, -1, -100, -30000, -2000000000,
              std::numeric_limits<std::int64_t>::min()}},
            {"floats", {0.5, -0.0, 1.0, std::numeric_limits<double>::infinity()}},
            {"text", std::string(40, 't')},
            {"long text", std::string(300, 'l')},
            {"binary", bytes::own(pattern(20))},
            {"large binary", bytes::own(pattern(1500))},
            {"extensions",
             {message::binary(bytes{1}, 1), message::binary(bytes{1, 2, 3}, 255), message::binary(bytes(), 3),
              message::binary(bytes::own(pattern(300)), 200)}},
            {"array", std::vector<unsigned>(20, 5U)},
            {"empty", {message::array(), message::object(), "", bytes()}},
            {"odd keys", pairs({{1U, "a"}, {"b", 2U}, {-3, {{"c", nullptr}}}})}};
}

TEST(msgpack_errors, one_of_each_comes_back) {
    const auto written = encoded(one_of_each());
    EXPECT_EQ(decoded(written), one_of_each());
    EXPECT_EQ(encoded(decoded(written)), written);
}

TEST(msgpack_errors, a_message_may_be_cut_off_nowhere) {
    const auto whole = encoded(one_of_each());
    ASSERT_GT(whole.size(), 2000U);
    for (std::size_t size = 1; size < whole.size(); ++size) {
        const auto exact = bytes::copy(std::span(whole.data(), size));  // so that reading on is seen by a sanitizer
        ASSERT_TRUE(fails([&] { decoded(exact); }, errc::decode_failed, "ends too early")) << size;
    }
}

TEST(msgpack_errors, claims_of_four_gigabytes_cost_nothing) {
    for (const std::string_view hex :
         {"ddffffffff", "ddffffffff c0", "dfffffffff", "dfffffffff a161 c0", "dcffff c0", "deffff a161", "c6ffffffff",
          "c6ffffffff 00", "dbffffffff", "dbffffffff 61", "c9ffffffff 05", "c9ffffffff", "c9fffffffe 05 00",
          "c9ffffffff 05 00000000 00000000"}) {
        EXPECT_TRUE(fails([&] { decoded(hex); }, errc::decode_failed, "msgpack: ")) << hex;
    }
}

std::uint64_t peak_address_space_kib() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        std::uint64_t peak = 0;
        if (word == "VmPeak:" && status >> peak) return peak;
    }
    return 0;
}

TEST(msgpack_errors, nested_claims_cost_nothing) {
    // 511 open arrays of 4 billion values each, before a long binary that is cut off. What is set aside for them must not
    // grow with the payload.
    auto claims = std::string(nested("ddffffffff", 511, "c67fffffff").view());
    claims.resize(claims.size() + (std::size_t{16} << 20));
    const auto run = bytes::own(std::move(claims));
    const auto before = peak_address_space_kib();
    ASSERT_GT(before, 0U);
    EXPECT_TRUE(fails([&] { decoded(run); }, errc::decode_failed, "ends too early"));
    EXPECT_LT(peak_address_space_kib() - before, 256U << 10);
}

TEST(msgpack_errors, a_discarded_value_is_no_message) {
    const message discarded(message::value_t::discarded);
    EXPECT_TRUE(fails([&] { encoded(discarded); }, errc::encode_failed, "discarded"));
    EXPECT_TRUE(fails([&] { encoded(message::array({1, discarded})); }, errc::encode_failed, "discarded"));
}

TEST(msgpack_errors, a_binary_ends_where_the_format_does) {
    constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
    void* at = ::mmap(nullptr, most + 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(at, MAP_FAILED);
    {
        const auto run = bytes::borrow_static({static_cast<const char*>(at), most + 1});
        EXPECT_TRUE(fails(
            [&] {
                msgpack_format.encode({{"w", run}});
            },
            errc::too_large, "a binary of 4294967296 is beyond"));
        EXPECT_TRUE(fails([&] { msgpack_format.encode(message::binary(run, 5)); }, errc::too_large, "split it"));
        const auto sent = msgpack_format.encode(message(run.slice(0, most)));
        ASSERT_EQ(sent.runs().size(), 2U);
        EXPECT_EQ(to_hex(sent.runs()[0]), "c6ffffffff");
        EXPECT_EQ(sent.runs()[1].data(), run.data());
        EXPECT_EQ(sent.size(), std::uint64_t{5} + most);
    }
    ::munmap(at, most + 1);
}

// --- fuzzed --------------------------------------------------------------------------------------------------------------------

TEST(msgpack_fuzz, only_a_ferry_error_comes_out) {
    std::mt19937_64 random(20240229);
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    message small = one_of_each();
    small.erase("large binary");
    small.erase("long text");
    const std::vector<bytes> seeds{encoded(one_of_each()), encoded(small), encoded(one_of_each()["odd keys"]),
                                   encoded(one_of_each()["extensions"]), encoded(one_of_each()["integers"])};
    int accepted = 0;
    int refused = 0;
    for (int round = 0; round < ferry_test::rounds(30'000); ++round) {
        std::string input(seeds[below(seeds.size())].view());
        const std::size_t mutations = 1 + below(6);
        for (std::size_t i = 0; i < mutations && !input.empty(); ++i) {
            const auto at = below(input.size());
            switch (below(6)) {
                case 0: input[at] = static_cast<char>(below(256)); break;
                case 1: input[at] = static_cast<char>(0xc0 + below(32)); break;  // where the formats are
                case 2: input[at] = static_cast<char>(input[at] ^ (1 << below(8))); break;
                case 3: input.erase(at, 1 + below(8)); break;
                case 4: input.insert(at, input.substr(below(input.size()), below(40))); break;
                case 5: input.insert(at, 1 + below(5), static_cast<char>(below(2) * 255)); break;
            }
        }
        const auto run = bytes::own(std::vector<char>(input.begin(), input.end()));
        try {
            const auto first = encoded(decoded(run));
            ++accepted;
            ASSERT_EQ(encoded(decoded(first)), first) << round;  // what was understood can be told again
        } catch (const ferry::error& e) {
            ASSERT_EQ(e.code(), errc::decode_failed) << round << ": " << e.what();
            ASSERT_GT(std::string_view(e.what()).size(), std::string_view("msgpack: ").size()) << round;
            ++refused;
        } catch (const std::exception& e) {
            FAIL() << round << ": " << e.what();
        }
    }
    EXPECT_GT(accepted, ferry_test::rounds(1000));
    EXPECT_GT(refused, ferry_test::rounds(1000));
}

TEST(msgpack_fuzz, any_few_bytes_are_a_message_or_an_error) {
    int accepted = 0;
    for (unsigned first = 0; first < 256; first += ferry_test::sanitized ? 5 : 1) {
        for (unsigned second = 0; second < 256; ++second) {
            const bytes run{static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(second)};
            try {
                encoded(decoded(run));
                ++accepted;
            } catch (const ferry::error& e) {
                ASSERT_EQ(e.code(), errc::decode_failed) << to_hex(run) << ": " << e.what();
            }
        }
    }
    // bin8, str8, fixstr of one byte, a fixarray of one one-byte value, uint8, int8
    constexpr int one_byte_values = 128 + 32 + 3 + 3;  // fixints, nil and booleans, the empty ones
    if (!ferry_test::sanitized) {
        EXPECT_EQ(accepted, 1 + 1 + 256 + one_byte_values + 256 + 256);
    }
}

// --- without copies -----------------------------------------------------------------------------------------------------------

TEST(msgpack_binaries, of_one_kibibyte_and_more_are_not_copied_on_the_way_out) {
    const auto small = bytes::own(pattern(1023));
    const auto edge = bytes::own(pattern(1024));
    const auto large = bytes::own(pattern(1 << 20));
    const auto sent = msgpack_format.encode({{"a", small}, {"b", edge}, {"c", large}, {"d", 1}});
    ASSERT_EQ(sent.runs().size(), 5U);
    EXPECT_EQ(sent.runs()[1].data(), edge.data());
    EXPECT_EQ(sent.runs()[1].size(), 1024U);
    EXPECT_EQ(sent.runs()[3].data(), large.data());
    EXPECT_EQ(sent.runs()[3].size(), std::size_t{1} << 20);
    EXPECT_EQ(sent.runs()[0].slice(sent.runs()[0].size() - 5 - 1023, 1023), small) << "copied between the headers";
    EXPECT_EQ(decoded(sent.flatten()), (message{{"a", small}, {"b", edge}, {"c", large}, {"d", 1}}));
}

TEST(msgpack_binaries, extensions_are_not_copied_either) {
    const auto large = bytes::own(pattern(4096));
    const auto sent = msgpack_format.encode(message::binary(large, 7));
    ASSERT_EQ(sent.runs().size(), 2U);
    EXPECT_EQ(to_hex(sent.runs()[0]), "c8100007");
    EXPECT_EQ(sent.runs()[1].data(), large.data());
    const auto run = sent.flatten();
    EXPECT_EQ(decoded(run).get_binary().data(), run.data() + 4);
    EXPECT_EQ(decoded(run).get_binary().subtype(), 7U);
}

TEST(msgpack_binaries, are_kept_alive_by_the_payload) {
    auto owner = std::make_shared<std::vector<std::uint8_t>>(pattern(5000));
    const std::weak_ptr<const void> alive = owner;
    message m{{"w", bytes::borrow(*owner, owner)}};
    owner.reset();
    auto sent = msgpack_format.encode(std::move(m));
    m = nullptr;
    EXPECT_FALSE(alive.expired());
    EXPECT_EQ(sent.runs()[1], bytes::own(pattern(5000)));
    sent = {};
    EXPECT_TRUE(alive.expired());
}

TEST(msgpack_binaries, of_any_size_are_slices_of_the_received_run) {
    const auto content = encoded({{"a", bytes{1, 2, 3}}, {"b", bytes::own(pattern(100'000))}});
    auto owner = std::make_shared<std::string>(content.view());
    const std::weak_ptr<const void> alive = owner;
    const auto* received = reinterpret_cast<const std::uint8_t*>(owner->data());
    auto run = bytes::borrow({received, owner->size()}, owner);
    owner.reset();
    auto m = decoded(run);
    EXPECT_EQ(m["a"].get_binary().data(), received + 1 + 2 + 2);
    EXPECT_EQ(m["b"].get_binary().data(), received + content.size() - 100'000);
    run = {};
    EXPECT_FALSE(alive.expired());
    m.erase("a");
    EXPECT_EQ(m["b"].get<bytes>(), bytes::own(pattern(100'000)));
    m = nullptr;
    EXPECT_TRUE(alive.expired());
}

TEST(msgpack, concurrent_threads_share_one_serializer_and_one_message) {
    const auto m = one_of_each();
    const auto expected = encoded(m);
    std::latch start(4);
    std::vector<int> right(4, 0);
    {
        std::vector<std::jthread> workers;
        for (std::size_t worker = 0; worker < right.size(); ++worker) {
            workers.emplace_back([&, worker] {
                start.arrive_and_wait();
                for (int round = 0; round < 50; ++round) {
                    right[worker] += encoded(m) == expected && decoded(expected) == m ? 1 : 0;
                }
            });
        }
    }
    EXPECT_EQ(right, std::vector<int>(4, 50));
}

}  // namespace
