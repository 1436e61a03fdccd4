#include <ferry/fields.hpp>

#include "support.hpp"

#include <ferry/serializer/json.hpp>
#include <ferry/serializer/msgpack.hpp>
#ifdef FERRY_TEST_SIMDJSON
#include <ferry/serializer/simdjson.hpp>
#endif

#include <gtest/gtest.h>
#include <msgpack.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::message;
using ferry_test::fails;

enum class mode : std::uint8_t { train, test };

struct tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    bytes data;

    bool operator==(const tensor&) const = default;
};

struct training {
    std::string request_id;
    std::string node_id;
    bool dry_run = false;
    std::int8_t small = 0;
    std::int32_t rounds = 0;
    std::uint16_t batch = 0;
    std::uint64_t seed = 0;
    float rate = 0;
    double loss = 0;
    ::mode mode = mode::train;
    std::vector<tensor> tensors;
    std::vector<std::byte> raw;
    std::vector<unsigned char> more;
    std::array<int, 3> corner{};
    std::optional<std::string> note;
    std::optional<tensor> mask;
    std::map<std::string, double> metrics;
    std::unordered_map<std::string, std::vector<std::string>> sites;
    message extra;

    bool operator==(const training&) const = default;
};

/// Only ids, and one number that may be anything.
template <class Number>
struct holder {
    std::string request_id;
    std::string node_id;
    Number number{};
};

struct tree {
    std::string request_id;
    std::string node_id;
    std::vector<tree> children;
};

/// A megabyte.
struct wide {
    std::array<double, 131'072> all{};
};

enum class flag : bool { down, up };

struct identified {
    std::string request_id;
    std::string node_id;
};

/// Two of its fields are of its base.
struct derived : identified {
    flag way = flag::down;
};

}  // namespace

template <>
struct ferry::message_traits<tensor> {
    static constexpr auto fields =
        ferry::fields(ferry::field("name", &tensor::name), ferry::field("shape", &tensor::shape),
                      ferry::field("data", &tensor::data));
};

template <>
struct ferry::message_traits<training> : ferry::message_ids<&training::request_id, &training::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("request_id", &training::request_id), ferry::field("node_id", &training::node_id),
                      ferry::field("dry_run", &training::dry_run), ferry::field("small", &training::small),
                      ferry::field("rounds", &training::rounds), ferry::field("batch", &training::batch),
                      ferry::field("seed", &training::seed), ferry::field("rate", &training::rate),
                      ferry::field("loss", &training::loss), ferry::field("mode", &training::mode),
                      ferry::field("tensors", &training::tensors), ferry::field("raw", &training::raw),
                      ferry::field("more", &training::more), ferry::field("corner", &training::corner),
                      ferry::field("note", &training::note), ferry::field("mask", &training::mask),
                      ferry::field("metrics", &training::metrics), ferry::field("sites", &training::sites),
                      ferry::field("extra", &training::extra));
};

template <>
struct ferry::message_traits<derived> : ferry::message_ids<&derived::request_id, &derived::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("request_id", &derived::request_id), ferry::field("node_id", &derived::node_id),
                      ferry::field("way", &derived::way));
};

template <>
struct ferry::message_traits<wide> {
    static constexpr auto fields = ferry::fields(ferry::field("all", &wide::all));
};

template <class Number>
struct ferry::message_traits<holder<Number>>
    : ferry::message_ids<&holder<Number>::request_id, &holder<Number>::node_id> {
    static constexpr auto fields = ferry::fields(ferry::field("number", &holder<Number>::number));
};

template <>
struct ferry::message_traits<tree> : ferry::message_ids<&tree::request_id, &tree::node_id> {
    static constexpr auto fields = ferry::fields(ferry::field("children", &tree::children));
};

namespace {

static_assert(ferry::message_type<training>);
static_assert(ferry::has_fields<training> && ferry::has_fields<tensor>);
static_assert(!ferry::message_type<tensor>);  // it has no ids
static_assert(!ferry::has_fields<message> && !ferry::has_fields<std::string>);
static_assert(ferry::serializer<ferry::msgpack_serializer<training>>);
static_assert(ferry::serializer<ferry::json_serializer<training>>);

training example() {
    training t;
    t.request_id = "r-1";
    t.node_id = "node-1";
    t.dry_run = true;
    t.small = -128;
    t.rounds = std::numeric_limits<std::int32_t>::min();
    t.batch = 65535;
    t.seed = std::numeric_limits<std::uint64_t>::max();
    t.rate = 0.1F;
    t.loss = -0.1;
    t.mode = mode::test;
    t.tensors = {{"w", {2, 3}, bytes{1, 2, 3}}, {"b", {}, {}}};
    t.raw = {std::byte{0}, std::byte{255}};
    t.more = {7};
    t.corner = {1, -2, 3};
    t.note = "ä\"\n";
    t.metrics = {{"accuracy", 0.5}, {"", 1.0}};
    t.sites = {{"Oslo", {"a", "b"}}, {"Graz", {}}};
    t.extra = {{"__type__", "bytes"}, {"value", {1U, bytes{9}, {{"x", nullptr}}}}};
    return t;
}

/// The same for each format.
template <class Format>
class fields_in : public testing::Test {
protected:
    template <class T>
    static bytes encoded(T value) {
        return typename Format::template of<T>().encode(std::move(value)).flatten();
    }
    template <class T>
    static T decoded(const bytes& run) {
        return typename Format::template of<T>().decode(run);
    }
    /// What `m` says, as a T.
    template <class T>
    static T from(const message& m) {
        return decoded<T>(encoded(m));
    }
    template <class T>
    static testing::AssertionResult is_refused(const message& m, const std::string& why) {
        return fails([&] { from<T>(m); }, errc::decode_failed, std::string(Format::name) + ": " + why);
    }
};

struct as_msgpack {
    static constexpr const char* name = "msgpack";
    template <class T>
    using of = ferry::msgpack_serializer<T>;
};
struct as_json {
    static constexpr const char* name = "json";
    template <class T>
    using of = ferry::json_serializer<T>;
};
#ifdef FERRY_TEST_SIMDJSON
struct as_simdjson {
    static constexpr const char* name = "json";
    template <class T>
    using of = ferry::simdjson_serializer<T>;
};
using formats = testing::Types<as_msgpack, as_json, as_simdjson>;
#else
using formats = testing::Types<as_msgpack, as_json>;
#endif
struct format_names {
    template <class Format>
    static std::string GetName(int which) {
        return which == 2 ? "simdjson" : Format::name;
    }
};
TYPED_TEST_SUITE(fields_in, formats, format_names);

TYPED_TEST(fields_in, all_types_come_back) {
    const auto t = example();
    EXPECT_EQ(this->template decoded<training>(this->encoded(t)), t);
    EXPECT_EQ(this->template decoded<training>(this->encoded(training())), training());
}

TYPED_TEST(fields_in, are_what_a_message_of_the_same_names_is) {
    const auto t = example();
    const auto m = this->template decoded<message>(this->encoded(t));
    EXPECT_EQ(m.size(), 19U);
    EXPECT_EQ(m["rounds"], message(t.rounds));
    EXPECT_EQ(m["tensors"][0]["data"], message(bytes{1, 2, 3}));
    EXPECT_EQ(m["raw"], message(bytes{0, 255}));
    EXPECT_EQ(m["mode"], message(1));
    EXPECT_EQ(m["mask"], message(nullptr));
    EXPECT_EQ(m["extra"], t.extra);
    EXPECT_EQ(this->template from<training>(m), t);
}

TYPED_TEST(fields_in, that_are_unknown_are_passed_over) {
    auto m = this->template decoded<message>(this->encoded(example()));
    m["a new one"] = {{"x", {1U, {{"y", bytes{1}}}, nullptr, -2.5, "z"}}};
    m["zz"] = message::array();
    m["tensors"][1]["more"] = {true, {{"children", 1}}};
    EXPECT_EQ(this->template from<training>(m), example());
}

TYPED_TEST(fields_in, that_are_missing_are_named_unless_they_are_optional) {
    const auto whole = this->template decoded<message>(this->encoded(example()));
    for (const auto& [key, value] : whole.items()) {
        auto m = whole;
        m.erase(key);
        if (key == "note" || key == "mask") {
            const auto back = this->template from<training>(m);
            EXPECT_EQ(back.note.has_value(), key != "note");
            EXPECT_FALSE(back.mask.has_value());
        } else {
            EXPECT_TRUE(this->template is_refused<training>(m, "the message has no field \"" + key + "\""));
        }
    }
    auto m = whole;
    m["tensors"][1].erase("shape");
    EXPECT_TRUE(this->template is_refused<training>(m, "tensors[1] has no field \"shape\""));
    m = whole;
    m["mask"] = message::object();
    EXPECT_TRUE(this->template is_refused<training>(m, "mask has no field \"name\""));
}

TYPED_TEST(fields_in, of_another_type_are_refused_by_their_path) {
    const auto whole = this->template decoded<message>(this->encoded(example()));
    const auto with = [&](const char* pointer, const message& value) {
        auto m = whole;
        m[message::json_pointer(pointer)] = value;
        return m;
    };
    const auto refused = [&](const char* pointer, const message& value, const std::string& why) {
        return this->template is_refused<training>(with(pointer, value), why);
    };
    EXPECT_TRUE(refused("/dry_run", 1, "dry_run must be a bool, is an integer"));
    EXPECT_TRUE(refused("/rounds", true, "rounds must be an integer from -2147483648 to 2147483647, is a bool"));
    EXPECT_TRUE(refused("/rounds", 1.0, "rounds must be an integer from -2147483648 to 2147483647, is a float"));
    EXPECT_TRUE(refused("/rounds", nullptr, "rounds must be an integer from -2147483648 to 2147483647, is null"));
    EXPECT_TRUE(refused("/loss", "x", "loss must be a number, is a text"));
    EXPECT_TRUE(refused("/mode", 256, "mode must be an integer from 0 to 255, is an integer"));
    EXPECT_TRUE(refused("/node_id", bytes{1}, "node_id must be a text, is a binary"));
    EXPECT_TRUE(refused("/raw", "x", "raw must be a binary, is a text"));
    EXPECT_TRUE(refused("/raw", message::binary(bytes{1}, 5), "raw must be a binary, is an extension"));
    EXPECT_TRUE(refused("/note", 5, "note must be a text, is an integer"));
    EXPECT_TRUE(refused("/mask", 5, "mask must be a map, is an integer"));
    EXPECT_TRUE(refused("/metrics", message::array(), "metrics must be a map, is an array"));
    EXPECT_TRUE(refused("/metrics/accuracy", "high", "metrics.accuracy must be a number, is a text"));
    EXPECT_TRUE(refused("/tensors", message::object(), "tensors must be an array, is a map"));
    EXPECT_TRUE(refused("/tensors/1", 1, "tensors[1] must be a map, is an integer"));
    EXPECT_TRUE(refused("/tensors/0/shape/1", 1.5, "tensors[0].shape[1] must be an integer from"));
    EXPECT_TRUE(refused("/sites/Oslo/1", nullptr, "sites.Oslo[1] must be a text, is null"));
    EXPECT_TRUE(refused("/corner", {1, 2}, "corner has only 2 items"));
    EXPECT_TRUE(refused("/corner", {1, 2, 3, 4}, "corner must be an array of 3 items, has more"));
    EXPECT_TRUE(this->template is_refused<training>({1, 2}, "the message must be a map, is an array"));
    EXPECT_TRUE(this->template is_refused<training>(5, "the message must be a map, is an integer"));
}

template <class Number, class Test>
void takes_just_what_fits(const Test& from) {
    using limits = std::numeric_limits<Number>;
    for (const message& m : {message(limits::min()), message(limits::max()), message(0)}) {
        EXPECT_EQ(from({{"number", m}}), m.get<Number>());
    }
    if constexpr (sizeof(Number) < 8) {
        EXPECT_THROW(from({{"number", std::int64_t{limits::max()} + 1}}), ferry::error);
        EXPECT_THROW(from({{"number", std::int64_t{limits::min()} - 1}}), ferry::error);
    }
    if constexpr (std::is_unsigned_v<Number>) {
        EXPECT_THROW(from({{"number", -1}}), ferry::error);
    } else {
        EXPECT_THROW(from({{"number", std::uint64_t{1} << 63}}), ferry::error);
    }
}

TYPED_TEST(fields_in, integers_must_fit) {
    const auto check = [&]<class Number>(Number) {
        takes_just_what_fits<Number>([&](const message& m) { return this->template from<holder<Number>>(m).number; });
    };
    check(std::int8_t{});
    check(std::uint8_t{});
    check(std::int16_t{});
    check(std::uint16_t{});
    check(std::int32_t{});
    check(std::uint32_t{});
    check(std::int64_t{});
    check(std::uint64_t{});
}

TYPED_TEST(fields_in, floats_take_integers_of_the_same_value) {
    const auto number = [&](const message& v) { return this->template from<holder<double>>({{"number", v}}).number; };
    EXPECT_EQ(number(3), 3.0);
    EXPECT_EQ(number(-3), -3.0);
    EXPECT_EQ(number(std::int64_t{1} << 53), 9007199254740992.0);
    EXPECT_THROW(number((std::int64_t{1} << 53) + 1), ferry::error);
    EXPECT_THROW(number(std::numeric_limits<std::uint64_t>::max()), ferry::error);
    EXPECT_TRUE(std::isnan(number(std::nan(""))));
    EXPECT_TRUE(std::isinf(number(HUGE_VAL)));
    const auto single = [&](const message& v) { return this->template from<holder<float>>({{"number", v}}).number; };
    EXPECT_EQ(single(0.1), 0.1F);
    EXPECT_EQ(single(1 << 24), 16777216.0F);
    EXPECT_THROW(single((1 << 24) + 1), ferry::error);
    EXPECT_THROW(single(1e300), ferry::error);
    EXPECT_TRUE(std::isinf(single(-HUGE_VAL)));
}

TYPED_TEST(fields_in, a_struct_may_hold_itself) {
    tree root;
    root.children.resize(2);
    root.children[1].children.resize(3);
    const auto back = this->template decoded<tree>(this->encoded(root));
    ASSERT_EQ(back.children.size(), 2U);
    EXPECT_EQ(back.children[1].children.size(), 3U);
}

// Not in the template below: there, clang 14 loses a temporary of each assignment.
message maps_and_lists(int of_each) {
    message m = {{"children", message::array()}};
    for (int i = 1; i < of_each; ++i) m = {{"children", {m}}};
    return m;
}

TYPED_TEST(fields_in, nesting_ends_at_512_levels) {
    EXPECT_NO_THROW(this->template from<tree>(maps_and_lists(255)));
    EXPECT_NO_THROW(this->template from<tree>(maps_and_lists(256)));
    EXPECT_TRUE(fails([&] { this->template from<tree>(maps_and_lists(257)); }, errc::encode_failed, "512 levels"));
}

TYPED_TEST(fields_in, nothing_cut_off_is_taken) {
    auto t = example();
    t.note.reset();
    const auto run = this->encoded(t);
    for (std::size_t size = 0; size < run.size(); ++size) {
        EXPECT_TRUE(fails([&] { this->template decoded<training>(run.slice(0, size)); }, errc::decode_failed, ""))
            << size;
    }
    EXPECT_TRUE(fails([&] { this->template decoded<training>(bytes::copy(std::string(run.view()) + "1")); },
                      errc::decode_failed, ""));
}

// --- msgpack alone ------------------------------------------------------------------------------------------------------------

TYPED_TEST(fields_in, memory_is_taken_for_items_as_they_come) {
    message many = {{"number", message::array()}};
    for (int i = 0; i < 1'000'000; ++i) many["number"].push_back(0);
    const auto text = typename TypeParam::template of<message>().encode(many).flatten();
    EXPECT_TRUE(fails([&] { typename TypeParam::template of<holder<std::vector<wide>>>().decode(text); },
                      errc::decode_failed, "number[0] must be a map"));
}

/// Counts the structs that are alive.
struct large {
    std::string request_id, node_id;
    std::vector<unsigned char> weights;
    std::string text;
    bytes shared;
    std::shared_ptr<int> alive;
};

}  // namespace

template <>
struct ferry::message_traits<large> : ferry::message_ids<&large::request_id, &large::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("weights", &large::weights), ferry::field("text", &large::text),
                      ferry::field("shared", &large::shared));
};

namespace {

bool holds(const ferry::payload& p, const void* at) {
    for (const auto& run : p.runs()) {
        if (run.data() == at) return true;
    }
    return false;
}

TEST(fields_msgpack, large_members_are_not_copied_and_the_struct_lives_until_the_last_slice) {
    large m;
    m.weights = ferry_test::pattern(100'000);
    m.text = std::string(5000, 'x');
    m.shared = bytes::own(ferry_test::pattern(3000));
    m.alive = std::make_shared<int>(1);
    const std::weak_ptr<int> alive = m.alive;
    const void *weights = m.weights.data(), *text = m.text.data(), *shared = m.shared.data();
    auto out = ferry::msgpack_serializer<large>().encode(std::move(m));
    EXPECT_TRUE(holds(out, weights));
    EXPECT_TRUE(holds(out, text));
    EXPECT_TRUE(holds(out, shared));
    const auto back = ferry::msgpack_serializer<large>().decode(out.flatten());
    EXPECT_EQ(back.weights, ferry_test::pattern(100'000));
    auto part = out.slice(50'000, 10).runs().front();
    out = ferry::payload();
    EXPECT_FALSE(alive.expired());
    EXPECT_EQ(part.size(), 10U);
    part = bytes();
    EXPECT_TRUE(alive.expired());
}

TEST(fields_msgpack, a_struct_without_large_members_is_let_go_at_once) {
    large m;
    m.weights = ferry_test::pattern(1000);
    m.alive = std::make_shared<int>(1);
    const std::weak_ptr<int> alive = m.alive;
    const auto out = ferry::msgpack_serializer<large>().encode(std::move(m));
    EXPECT_TRUE(alive.expired());
    EXPECT_EQ(ferry::msgpack_serializer<large>().decode(out.flatten()).weights, ferry_test::pattern(1000));
}

TEST(fields_msgpack, binaries_of_the_type_bytes_are_slices_of_what_came) {
    const tensor t{"w", {}, bytes::own(ferry_test::pattern(5000))};
    training all = example();
    all.tensors = {t};
    const auto whole = ferry::msgpack_serializer<training>().encode(all).flatten();
    const auto read = ferry::msgpack_serializer<training>().decode(whole);
    EXPECT_EQ(read.tensors[0].data, t.data);
    EXPECT_GE(read.tensors[0].data.data(), whole.data());
    EXPECT_LT(read.tensors[0].data.data(), whole.data() + whole.size());
}

TEST(fields_msgpack, keys_that_are_no_text_are_refused_but_passed_over_in_what_is_unknown) {
    const ferry::msgpack_serializer<message> plain;
    const ferry::msgpack_serializer<holder<int>> typed;
    const message odd = {{"__type__", "ferry.map"}, {"value", {{{1U, {2U}}, {{"a", 1U}}}, {nullptr, 5U}, {"t", 1U}}}};
    EXPECT_EQ(typed.decode(plain.encode({{"number", 5}, {"unknown", {odd, 1}}}).flatten()).number, 5);
    EXPECT_TRUE(fails([&] { typed.decode(plain.encode(odd).flatten()); }, errc::decode_failed,
                      "the keys of the message must be texts"));
    auto t = example();
    t.extra = odd;
    EXPECT_EQ(ferry::msgpack_serializer<training>().decode(ferry::msgpack_serializer<training>().encode(t).flatten()),
              t);
}

TEST(fields_msgpack, a_claimed_size_takes_no_memory) {
    // {"children": [... 4 billion of them
    EXPECT_TRUE(fails(
        [] { ferry::msgpack_serializer<tree>().decode(ferry_test::from_hex("81 a8 6368696c6472656e ddffffffff")); },
        errc::decode_failed, "ends too early"));
}

// --- both formats ------------------------------------------------------------------------------------------------------

template <class Format>
void members_of_a_base_are_fields_too() {
    const Format format;
    derived from{{"r", "n"}, flag::up};
    const auto back = format.decode(format.encode(from).flatten());
    EXPECT_EQ(back.request_id, "r");
    EXPECT_EQ(back.node_id, "n");
    EXPECT_EQ(back.way, flag::up);
}

TEST(fields_of_both, members_of_a_base_and_flags) {
    members_of_a_base_are_fields_too<ferry::msgpack_serializer<derived>>();
    members_of_a_base_are_fields_too<ferry::json_serializer<derived>>();
    members_of_a_base_are_fields_too<ferry::json_serializer<derived, ferry::nlohmann_parser>>();
}

tree chain(int levels) {
    tree top;
    for (tree* at = &top; levels > 1; --levels) at = &at->children.emplace_back();
    return top;
}

template <class Format>
void a_struct_is_nested_as_deep_as_can_be_read() {
    const Format format;
    const auto deepest = format.encode(chain(256)).flatten();  // each has a list in it
    EXPECT_EQ(format.decode(deepest).children.size(), 1U);
    EXPECT_TRUE(fails([&] { format.encode(chain(257)); }, errc::encode_failed, "nested deeper than 512 levels"));
}

TEST(fields_of_both, depth) {
    a_struct_is_nested_as_deep_as_can_be_read<ferry::msgpack_serializer<tree>>();
    a_struct_is_nested_as_deep_as_can_be_read<ferry::json_serializer<tree>>();
}

/// In a message that is a field, too.
template <class Format>
void a_key_that_occurs_twice_is_refused() {
    const Format format;
    for (const std::string text : {R"({"number":{"lr":1,"lr":2}})", R"({"number":{"a":{"lr":1,"lr":2}}})"}) {
        EXPECT_TRUE(fails([&] { format.decode(bytes::copy(text)); }, errc::decode_failed,
                          "number: the key \"lr\" occurs twice in a map"))
            << text;
    }
    const std::string far(1000, 'x');
    EXPECT_TRUE(fails([&] { format.decode(bytes::copy("{\"number\":{\"" + far + "\":1,\"" + far + "\":2}}")); },
                      errc::decode_failed, std::string(100, 'x') + "\" occurs twice"));
}

TEST(fields_json, a_key_of_a_message_that_is_a_field_must_not_occur_twice) {
    a_key_that_occurs_twice_is_refused<as_json::of<holder<message>>>();
#ifdef FERRY_TEST_SIMDJSON
    a_key_that_occurs_twice_is_refused<as_simdjson::of<holder<message>>>();
#endif
    a_key_that_occurs_twice_is_refused<ferry::json_serializer<holder<message>, ferry::nlohmann_parser>>();
}

// --- the ecosystem's own ways -------------------------------------------------------------------------------------------------

struct classic {
    std::string request_id, node_id;
    std::vector<int> steps;
    bytes weights;
    MSGPACK_DEFINE_MAP(request_id, node_id, steps, weights)
    NLOHMANN_DEFINE_TYPE_INTRUSIVE(classic, request_id, node_id, steps, weights)
};

}  // namespace

template <>
struct ferry::message_traits<classic> : ferry::message_ids<&classic::request_id, &classic::node_id> {};

namespace {

/// What its functions throw is none of nlohmann's.
struct moody {
    std::string request_id, node_id;

    friend void to_json(nlohmann::json&, const moody&) { throw std::runtime_error("not today"); }
    friend void from_json(const nlohmann::json&, moody&) { throw std::runtime_error("not today"); }
};

}  // namespace

template <>
struct ferry::message_traits<moody> : ferry::message_ids<&moody::request_id, &moody::node_id> {};

namespace {

static_assert(ferry::serializer<ferry::msgpack_serializer<classic>>);
static_assert(ferry::serializer<ferry::json_serializer<classic>>);

TEST(fields_of_others, msgpack_define_map) {
    const ferry::msgpack_serializer<classic> format;
    const classic from{"r", "n", {1, 2}, bytes::own(ferry_test::pattern(5000))};
    const auto out = format.encode(from);
    EXPECT_TRUE(holds(out, from.weights.data()));
    const auto run = out.flatten();
    EXPECT_EQ(ferry::msgpack_serializer<>().decode(run),
              (message{{"request_id", "r"}, {"node_id", "n"}, {"steps", {1, 2}}, {"weights", from.weights}}));
    const auto back = format.decode(run);
    EXPECT_EQ(back.steps, from.steps);
    EXPECT_EQ(back.weights, from.weights);
    EXPECT_TRUE(fails([&] { format.decode(run.slice(0, run.size() - 1)); }, errc::decode_failed, "ends too early"));
    EXPECT_TRUE(
        fails([&] { format.decode(bytes::copy(std::string(run.view()) + "x")); }, errc::decode_failed, "follow"));
    EXPECT_TRUE(fails([&] { format.decode(bytes{0x91, 1}); }, errc::decode_failed, "msgpack: "));
    EXPECT_TRUE(
        fails([&] { format.decode(ferry_test::from_hex("ddffffffff")); }, errc::decode_failed, "ends too early"));
    EXPECT_TRUE(fails([&] { format.decode(bytes::copy(std::string(600, '\x91') + "\xc0")); }, errc::decode_failed,
                      "512 levels"));
}

TEST(fields_of_others, what_their_functions_throw_is_an_error_of_the_serializer) {
    const ferry::json_serializer<moody> format;
    EXPECT_TRUE(fails([&] { format.encode({}); }, errc::encode_failed, "json: not today"));
    EXPECT_TRUE(fails([&] { format.decode(bytes::copy("{}")); }, errc::decode_failed, "json: not today"));
}

TEST(fields_of_others, nlohmann_to_json) {
    const ferry::json_serializer<classic> format;
    const classic from{"r", "n", {1, 2}, bytes{1, 2}};
    const auto run = format.encode(from).flatten();
    EXPECT_EQ(run.view(),
              R"({"node_id":"n","request_id":"r","steps":[1,2],"weights":{"__type__":"bytes","value":"AQI="}})");
    const auto back = format.decode(run);
    EXPECT_EQ(back.steps, from.steps);
    EXPECT_EQ(back.weights, from.weights);
    EXPECT_TRUE(fails([&] { format.decode(bytes::copy("{}")); }, errc::decode_failed, "json: "));
    EXPECT_TRUE(fails([&] { format.decode(bytes::copy("{")); }, errc::decode_failed, "json: "));
    EXPECT_TRUE(fails([&] { format.encode({"\xff", "", {}, {}}); }, errc::encode_failed, "request_id"));
}

}  // namespace
