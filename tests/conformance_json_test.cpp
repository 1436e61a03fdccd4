// The serializers' suite over JSON, and over a struct in each format.
#include <ferry/conformance/serializer.hpp>
#include <ferry/fields.hpp>
#include <ferry/serializer/json.hpp>
#include <ferry/serializer/msgpack.hpp>
#ifdef FERRY_TEST_SIMDJSON
#include <ferry/serializer/simdjson.hpp>
#endif

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace {

struct measured {
    std::string request_id;
    std::string node_id;
    std::int64_t count = 0;
    std::vector<double> values;
    std::map<std::string, ferry::bytes> tensors;
    std::optional<std::vector<unsigned char>> raw;

    bool operator==(const measured&) const = default;
};

}  // namespace

template <>
struct ferry::message_traits<measured> : ferry::message_ids<&measured::request_id, &measured::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("request_id", &measured::request_id), ferry::field("node_id", &measured::node_id),
                      ferry::field("count", &measured::count), ferry::field("values", &measured::values),
                      ferry::field("tensors", &measured::tensors), ferry::field("raw", &measured::raw));
};

namespace ferry::conformance {

template <>
struct samples_of<measured> {
    static std::vector<sample<measured>> all() {
        constexpr auto inf = std::numeric_limits<double>::infinity();
        const auto noise = samples_of<message>::noise(20'000);
        return {{"empty", {}},
                {"small", {"r", "n", -1, {0.1, -0.0, inf}, {{"", {}}, {"w", bytes{1, 2}}}, std::nullopt}},
                {"large", {"r", "ä", 1, {}, {{"w", noise}}, std::vector<unsigned char>(noise.begin(), noise.end())}}};
    }
};

INSTANTIATE_TYPED_TEST_SUITE_P(json, serializer_suite, json_serializer<>);
INSTANTIATE_TYPED_TEST_SUITE_P(json_struct, serializer_suite, json_serializer<measured>);
INSTANTIATE_TYPED_TEST_SUITE_P(msgpack_struct, serializer_suite, msgpack_serializer<measured>);
#ifdef FERRY_TEST_SIMDJSON
INSTANTIATE_TYPED_TEST_SUITE_P(simdjson, serializer_suite, simdjson_serializer<>);
INSTANTIATE_TYPED_TEST_SUITE_P(simdjson_struct, serializer_suite, simdjson_serializer<measured>);
#endif

}  // namespace ferry::conformance
