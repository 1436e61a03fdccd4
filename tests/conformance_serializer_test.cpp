#include <ferry/conformance/serializer.hpp>
#include <ferry/serializer/msgpack.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

/// A message type of a user's own, which has no `==`.
struct reading {
    std::string request_id;
    std::string node_id;
    std::uint64_t value = 0;
};

/// Its format: a number, and two texts behind their lengths.
struct reading_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = reading;

    static constexpr std::string_view name = "reading";

    ferry::payload encode(const reading& m) const {
        std::string out(sizeof m.value, '\0');
        std::memcpy(out.data(), &m.value, sizeof m.value);
        for (const auto* text : {&m.request_id, &m.node_id}) {
            if (text->size() > 0xffff) throw ferry::error(ferry::errc::too_large, "reading: an id of 64 KiB");
            out += static_cast<char>(text->size() >> 8);
            out += static_cast<char>(text->size() & 255);
            out += *text;
        }
        return ferry::bytes::own(std::move(out));
    }

    reading decode(const ferry::bytes& run) const {
        reading out;
        std::string_view rest = run.view();
        const auto take = [&](std::size_t size) {
            if (rest.size() < size) throw ferry::error(ferry::errc::decode_failed, "reading: ends too early");
            const auto part = rest.substr(0, size);
            rest.remove_prefix(size);
            return part;
        };
        std::memcpy(&out.value, take(sizeof out.value).data(), sizeof out.value);
        for (auto* text : {&out.request_id, &out.node_id}) {
            const auto size = take(2);
            *text = take(
                static_cast<std::size_t>(static_cast<std::uint8_t>(size[0]) << 8 | static_cast<std::uint8_t>(size[1])));
        }
        if (!rest.empty()) throw ferry::error(ferry::errc::decode_failed, "reading: something follows");
        return out;
    }
};

/// Says that it can't carry binaries with a subtype, nor NaNs.
struct plain_serializer : ferry::msgpack_serializer<> {
    ferry::payload encode(ferry::message m) const {
        check(m);
        return msgpack_serializer::encode(std::move(m));
    }

    static void check(const ferry::message& m) {
        if (m.is_structured()) {
            for (const auto& each : m) check(each);
        }
        if ((m.is_binary() && m.get_binary().has_subtype()) || (m.is_number_float() && !(m >= m))) {
            throw ferry::error(ferry::errc::encode_failed, "plain: can't be carried");
        }
    }
};

/// Puts a number drawn at random before each message, and mixes its beginning with what grows from it: no encoding comes
/// twice.
struct mixed_serializer : ferry::msgpack_serializer<> {
    static constexpr std::string_view name = "mixed";

    ferry::payload encode(ferry::message m) const {
        thread_local std::mt19937_64 random{std::random_device{}()};
        const std::uint64_t nonce = random();
        std::string out(sizeof nonce, '\0');
        std::memcpy(out.data(), &nonce, sizeof nonce);
        out += msgpack_serializer::encode(std::move(m)).flatten().view();
        mix(out, nonce);
        return ferry::bytes::own(std::move(out));
    }

    ferry::message decode(const ferry::bytes& run) const {
        std::uint64_t nonce = 0;
        if (run.size() < sizeof nonce) throw ferry::error(ferry::errc::decode_failed, "mixed: ends too early");
        std::memcpy(&nonce, run.data(), sizeof nonce);
        std::string rest(run.view());
        mix(rest, nonce);
        return msgpack_serializer::decode(ferry::bytes::own(std::move(rest)).slice(sizeof nonce));
    }

private:
    static void mix(std::string& message, std::uint64_t nonce) {
        const auto end = message.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(message.size(), 1000));
        for (auto at = message.begin() + sizeof nonce; at != end; ++at) {
            nonce = nonce * 6364136223846793005U + 1442695040888963407U;
            *at = static_cast<char>(static_cast<std::uint8_t>(*at) ^ (nonce >> 56));
        }
    }
};

}  // namespace

template <>
struct ferry::message_traits<reading> {
    static std::string request_id(const reading& m) { return m.request_id; }
    static std::string node_id(const reading& m) { return m.node_id; }
    static void set_request_id(reading& m, const std::string& id) { m.request_id = id; }
    static void set_node_id(reading& m, const std::string& id) { m.node_id = id; }
};

namespace ferry::conformance {

template <>
struct samples_of<reading> {
    static std::vector<sample<reading>> all() { return {{"empty", {}}, {"full", {"r", "n", 0x0123456789abcdef}}}; }
    static std::vector<sample<reading>> awkward() { return {{"too long", {std::string(70'000, 'r'), "n", 1}}}; }
    static bool equal(const reading& a, const reading& b) {
        return a.value == b.value && a.request_id == b.request_id && a.node_id == b.node_id;
    }
};

template <>
struct model_of<plain_serializer> {
    static plain_serializer make() { return {}; }
    static bool carries(const sample<message>& s) {
        return !s.name.starts_with("binary subtype") && !s.name.starts_with("float nan");
    }
};

template <>
struct model_of<mixed_serializer> {
    static constexpr bool has_one_encoding = false;
    static mixed_serializer make() { return {}; }
};

INSTANTIATE_TYPED_TEST_SUITE_P(mixed_conformance, serializer_suite, mixed_serializer);
INSTANTIATE_TYPED_TEST_SUITE_P(plain_conformance, serializer_suite, plain_serializer);
INSTANTIATE_TYPED_TEST_SUITE_P(msgpack_conformance, serializer_suite, msgpack_serializer<>);
INSTANTIATE_TYPED_TEST_SUITE_P(own_message_conformance, serializer_suite, reading_serializer);

namespace {

using samples = samples_of<message>;

// What the suite's equality must tell apart, although `==` doesn't.
TEST(conformance_samples, equality_is_that_of_every_bit) {
    EXPECT_TRUE(message(1) == message(1.0));
    EXPECT_FALSE(samples::equal(message(1), message(1.0)));
    EXPECT_FALSE(samples::equal(message(0.0), message(-0.0)));
    EXPECT_FALSE(samples::equal(message::array({0.0}), message::array({-0.0})));
    EXPECT_FALSE(samples::equal(message{{"a", 1}}, message{{"a", 1.0}}));
    EXPECT_FALSE(samples::equal(message{{"a", 1}}, message{{"b", 1}}));
    EXPECT_FALSE(samples::equal(message{{"a", 1}}, message{{"a", 1}, {"b", 1}}));
    EXPECT_FALSE(samples::equal(message(bytes{1}), message::binary(bytes{1}, 0)));
    EXPECT_FALSE(samples::equal(message::binary(bytes{1}, 1), message::binary(bytes{1}, 2)));
    EXPECT_FALSE(samples::equal(message::binary(bytes{1}, 1), message::binary(bytes{2}, 1)));
    EXPECT_FALSE(samples::equal(message(bytes{1, 2}), message::array({1, 2})));
    EXPECT_FALSE(samples::equal(message(nullptr), message(0)));
    EXPECT_TRUE(samples::equal(message(std::int64_t{5}), message(std::uint64_t{5})));
    EXPECT_FALSE(samples::equal(message(std::int64_t{-1}), message(~std::uint64_t{0})));
    const message nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(nan == nan);
    EXPECT_TRUE(samples::equal(nan, nan));
}

TEST(conformance_samples, are_equal_to_themselves_and_no_other) {
    auto all = samples::all();
    std::erase_if(all,
                  [](const auto& each) { return each.name == "integer 2^63-1, signed"; });  // there is the unsigned one
    const auto again = all;
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (std::size_t j = 0; j < all.size(); ++j) {
            EXPECT_EQ(samples::equal(all[i].value, again[j].value), i == j) << all[i].name << " and " << all[j].name;
        }
    }
}

TEST(received_run, is_overwritten_when_nobody_owns_it) {
    received_run memory(bytes{1, 2, 3});
    auto run = memory.take();
    auto kept = run.slice(1, 1);
    const auto* dangling = run.data();
    run = {};
    EXPECT_FALSE(memory.is_released());
    EXPECT_EQ(kept, (bytes{2}));
    kept = {};
    EXPECT_TRUE(memory.is_released());
    EXPECT_EQ(*dangling, 0xdb);
}

}  // namespace

}  // namespace ferry::conformance
