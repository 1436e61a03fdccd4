// Serializers beside the libraries beneath them: msgpack beside msgpack-cxx by reference, JSON beside nlohmann's own dump and
// parse. Each is a template over the serializer: add one of your own to the lists at the end.
//
// To compare, interleave: --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
#include <ferry/fields.hpp>
#include <ferry/message.hpp>
#include <ferry/serializer/json.hpp>
#include <ferry/serializer/msgpack.hpp>
#ifdef FERRY_BENCH_SIMDJSON
#include <ferry/serializer/simdjson.hpp>
#endif

#include <benchmark/benchmark.h>
#include <msgpack/pack.hpp>
#include <msgpack/unpack.hpp>
#include <msgpack/vrefbuffer.hpp>
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

/// One binary of 64 MB in a map.
struct binary {
    template <class Json>
    static Json make() {
        return Json{{"request_id", "r-1"}, {"weights", bytes::own(std::vector<std::uint8_t>(64'000'000, 0x5a))}};
    }
};

/// A kilobyte as a struct of one's own, whose binary is a view into what came.
struct viewed {
    std::string request_id, node_id;
    std::int64_t rounds = 0;
    double rate = 0;
    bool ok = false;
    bytes blob;

    template <class Json>
    static Json make() {
        return Json{{"request_id", "r-1"}, {"node_id", "hospital-7"},
                    {"rounds", 20},        {"rate", 0.0125},
                    {"ok", true},          {"blob", bytes::own(std::vector<std::uint8_t>(950))}};
    }
};

}  // namespace

template <>
struct ferry::message_traits<viewed> : ferry::message_ids<&viewed::request_id, &viewed::node_id> {
    static constexpr auto fields =
        ferry::fields(ferry::field("request_id", &viewed::request_id), ferry::field("node_id", &viewed::node_id),
                      ferry::field("rounds", &viewed::rounds), ferry::field("rate", &viewed::rate),
                      ferry::field("ok", &viewed::ok), ferry::field("blob", &viewed::blob));
};

namespace {

const auto by_reference = [](msgpack::type::object_type, std::size_t, void*) { return true; };

template <class Serializer, class What, class Message = message>
void BM_encode(benchmark::State& state) {
    const Serializer serializer;
    const auto run = ferry::msgpack_serializer<>{}.encode(What::template make<message>()).flatten();
    const auto m = ferry::msgpack_serializer<Message>{}.decode(run);
    std::uint64_t size = 0;
    for (auto _ : state) {
        const auto out = serializer.encode(m);
        size = out.size();
        benchmark::DoNotOptimize(&out);
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(size));
}

template <class Serializer, class What, class Message = message>
void BM_decode(benchmark::State& state) {
    const Serializer serializer;
    const auto start = ferry::msgpack_serializer<>{}.encode(What::template make<message>()).flatten();
    const bytes run = serializer.encode(ferry::msgpack_serializer<Message>{}.decode(start)).flatten();
    for (auto _ : state) benchmark::DoNotOptimize(serializer.decode(run));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(run.size()));
}

// --- msgpack by reference: the least that can be done ------------------------------------------------------------------------

/// Packed so that long binaries are referred to, unpacked so that texts and binaries point into what came.
template <class What>
void BM_msgpack_pack_by_reference(benchmark::State& state) {
    const auto run = ferry::msgpack_serializer<>{}.encode(What::template make<message>()).flatten();
    const auto unpacked = msgpack::unpack(reinterpret_cast<const char*>(run.data()), run.size(), by_reference);
    for (auto _ : state) {
        msgpack::vrefbuffer out(64);
        msgpack::pack(out, unpacked.get());
        benchmark::DoNotOptimize(out.vector_size());
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(run.size()));
}

template <class What>
void BM_msgpack_unpack_by_reference(benchmark::State& state) {
    const auto run = ferry::msgpack_serializer<>{}.encode(What::template make<message>()).flatten();
    for (auto _ : state) {
        benchmark::DoNotOptimize(
            msgpack::unpack(reinterpret_cast<const char*>(run.data()), run.size(), by_reference).get());
    }
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

BENCHMARK_TEMPLATE(BM_msgpack_pack_by_reference, kilobyte);
BENCHMARK_TEMPLATE(BM_encode, ferry::msgpack_serializer<>, kilobyte);
BENCHMARK_TEMPLATE(BM_msgpack_unpack_by_reference, kilobyte);
BENCHMARK_TEMPLATE(BM_decode, ferry::msgpack_serializer<>, kilobyte);
BENCHMARK_TEMPLATE(BM_msgpack_pack_by_reference, viewed);
BENCHMARK_TEMPLATE(BM_encode, ferry::msgpack_serializer<viewed>, viewed, viewed);
BENCHMARK_TEMPLATE(BM_msgpack_unpack_by_reference, viewed);
BENCHMARK_TEMPLATE(BM_decode, ferry::msgpack_serializer<viewed>, viewed, viewed);
BENCHMARK_TEMPLATE(BM_msgpack_pack_by_reference, binary);
BENCHMARK_TEMPLATE(BM_encode, ferry::msgpack_serializer<>, binary);
BENCHMARK_TEMPLATE(BM_msgpack_unpack_by_reference, binary);
BENCHMARK_TEMPLATE(BM_decode, ferry::msgpack_serializer<>, binary);

}  // namespace
