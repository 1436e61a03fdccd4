// Serializers beside the libraries beneath them: msgpack beside msgpack-cxx by reference, JSON beside nlohmann's own dump and
// parse. Each is a template over the serializer: add one of your own to the lists at the end.
//
// To compare, interleave: --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
#include <ferry/message.hpp>
#include <ferry/serializer/json.hpp>
#include <ferry/serializer/msgpack.hpp>
#ifdef FERRY_BENCH_SIMDJSON
#include <ferry/serializer/simdjson.hpp>
#endif

#include <benchmark/benchmark.h>
#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::message;

// What is measured is built for ferry's message and for nlohmann's own.

/// The numbers have as many digits as a float64 has.
struct doubles {
    template <class Json>
    static Json make() {
        std::mt19937_64 random(1);
        std::normal_distribution<double> normal;
        Json list = Json::array();
        for (int i = 0; i < 500'000; ++i) list.push_back(normal(random));
        return Json{{"request_id", "r-1"}, {"weights", std::move(list)}};
    }
};

struct kilobyte {
    template <class Json>
    static Json make() {
        Json m = {{"request_id", "0123456789abcdef0123456789abcdef"},
                  {"node_id", "hospital-7"},
                  {"command", "train"},
                  {"rounds", 20},
                  {"rate", 0.0125},
                  {"ok", true},
                  {"state", nullptr},
                  {"history", {0.5, 0.25, 0.125, 0.0625, 0.03125}}};
        for (int i = 0; i < 16; ++i) {
            m["arguments"]["argument number " + std::to_string(i)] = {{"value", i * 1000}, {"unit", "mm"}};
        }
        return m;
    }
};

template <class Serializer, class What>
void BM_encode(benchmark::State& state) {
    const Serializer serializer;
    const auto m = What::template make<message>();
    std::uint64_t size = 0;
    for (auto _ : state) {
        const auto out = serializer.encode(m);
        size = out.size();
        benchmark::DoNotOptimize(&out);
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}

template <class Serializer, class What>
void BM_decode(benchmark::State& state) {
    const Serializer serializer;
    const bytes run = serializer.encode(What::template make<message>()).flatten();
    for (auto _ : state) benchmark::DoNotOptimize(serializer.decode(run));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(run.size()));
}

template <class What>
void BM_nlohmann_dump(benchmark::State& state) {
    const auto m = What::template make<nlohmann::json>();
    std::size_t size = 0;
    for (auto _ : state) {
        const auto out = m.dump();
        size = out.size();
        benchmark::DoNotOptimize(&out);
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}

template <class What>
void BM_nlohmann_parse(benchmark::State& state) {
    const auto text = What::template make<nlohmann::json>().dump();
    for (auto _ : state) benchmark::DoNotOptimize(nlohmann::json::parse(text));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}

BENCHMARK_TEMPLATE(BM_nlohmann_dump, doubles)->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(BM_encode, ferry::json_serializer<>, doubles)->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(BM_nlohmann_parse, doubles)->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(BM_decode, ferry::json_serializer<>, doubles)->Unit(benchmark::kMillisecond);

BENCHMARK_TEMPLATE(BM_nlohmann_dump, kilobyte);
BENCHMARK_TEMPLATE(BM_encode, ferry::json_serializer<>, kilobyte);
BENCHMARK_TEMPLATE(BM_nlohmann_parse, kilobyte);
BENCHMARK_TEMPLATE(BM_decode, ferry::json_serializer<>, kilobyte);

#ifdef FERRY_BENCH_SIMDJSON
BENCHMARK_TEMPLATE(BM_decode, ferry::simdjson_serializer<>, doubles)->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(BM_decode, ferry::simdjson_serializer<>, kilobyte);
#endif

BENCHMARK_TEMPLATE(BM_encode, ferry::msgpack_serializer<>, kilobyte);
BENCHMARK_TEMPLATE(BM_decode, ferry::msgpack_serializer<>, kilobyte);

}  // namespace
