// ferry against gRPC used by hand: whole messages, server and nodes in processes of their own, and in each iteration both, in
// turns. A row has the medians, and the median of the pairs' ratios.
//
//   transport_bench [--scale quick|smoke] [Google Benchmark's flags]
//
// The memory that large messages use is kept in all processes that have some, as a program would have it: see ferry/malloc.hpp.
// With `--malloc default` it isn't.
#include "raw/sides.hpp"
#include "raw/typed_sides.hpp"
#include "transport/ferry_sides.hpp"
#include "transport/process.hpp"
#include "transport/security.hpp"
#include "transport/timing.hpp"

#include <ferry/malloc.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using bench::order;
using bench::process;
using bench::what;

constexpr std::uint64_t mib = 1 << 20;

enum class scale { full, quick, smoke };
scale how_much = scale::full;
bool keeps_memory = true;

template <class T>
T scaled(T full, T quick, T smoke) {
    return how_much == scale::full ? full : how_much == scale::quick ? quick : smoke;
}

const bench::certificate& the_certificate() {
    static const bench::certificate made;
    return made;
}
bench::files files(bool tls) {
    return tls ? bench::files{the_certificate().key(), the_certificate().cert()} : bench::files{};
}
raw::security pem(bool tls) {
    if (!tls) return {};
    return {bench::certificate::read(the_certificate().key()), bench::certificate::read(the_certificate().cert())};
}

/// Of the messages.
enum class sizes { small, large };

/// Both sides, each a process.
struct world {
    process server, node;

    world(std::function<std::unique_ptr<bench::side>()> make_server,
          std::function<std::unique_ptr<bench::side>()> make_node, order start, sizes of = sizes::small)
        : server(prepared(std::move(make_server), of)), node(prepared(std::move(make_node), of)) {
        start.kind = what::start;
        start.port = server.ask(start).port;
        if (start.nodes > 0) node.ask(start);
        port = start.port;
    }
    int port = 0;

private:
    static std::function<std::unique_ptr<bench::side>()> prepared(std::function<std::unique_ptr<bench::side>()> make,
                                                                  sizes of) {
        return [make = std::move(make), of] {
            if (keeps_memory && of == sizes::large) ferry::keep_memory_of_large_messages();
            return make();
        };
    }
};

template <class Server = ferry::grpc_server>
std::unique_ptr<world> make_ferry(bool tls, bool polls, const order& start, sizes of = sizes::large) {
    const auto with = files(tls);
    return std::make_unique<world>([=] { return std::make_unique<bench::ferry_server_side<Server>>(with); },
                                   [=] { return std::make_unique<bench::ferry_node_side<>>(with, polls); }, start, of);
}
std::unique_ptr<world> make_raw(bool tls, bool polls, const order& start, sizes of = sizes::large,
                                bool hands_over = false, std::size_t chunk_bytes = raw::usual_chunk_bytes) {
    const auto with = pem(tls);
    return std::make_unique<world>([=] { return std::make_unique<raw::server_side>(with, hands_over, chunk_bytes); },
                                   [=] { return std::make_unique<raw::node_side>(with, polls, hands_over); }, start,
                                   of);
}
std::unique_ptr<world> make_typed(bool tls, bool checksums, const order& start) {
    const auto with = pem(tls);
    return std::make_unique<world>([=] { return std::make_unique<raw::typed_server_side>(with, checksums); },
                                   [=] { return std::make_unique<raw::typed_node_side>(with, checksums); }, start,
                                   sizes::large);
}

/// What one of the two came to, in all iterations.
struct series {
    std::vector<double> seconds, server_cpu, node_cpu, p50, p99;
    double server_peak_mb = 0, node_peak_mb = 0;
    std::vector<double> first;

    void run(world& in, const order& o) {
        in.server.ask({});
        in.node.ask({});
        const auto a = in.server.ask(o);
        const auto server = in.server.ask({}), node = in.node.ask({});
        seconds.push_back(a.seconds);
        p50.push_back(a.p50);
        p99.push_back(a.p99);
        server_cpu.push_back(server.cpu);
        node_cpu.push_back(node.cpu);
        server_peak_mb = std::max(server_peak_mb, server.peak_mb);
        node_peak_mb = std::max(node_peak_mb, node.peak_mb);
    }
    /// The first one counts by itself: connections, threads and memory are made.
    void warm_up(world& in, const order& o) { first.push_back(in.server.ask(o).seconds); }

    void report(benchmark::State& state, const std::string& name) const {
        state.counters[name + "_s"] = bench::share_of(seconds, 0.5);
        state.counters[name + "_first_s"] = bench::share_of(first, 0.5);
        state.counters[name + "_server_cpu_s"] = bench::share_of(server_cpu, 0.5);
        state.counters[name + "_node_cpu_s"] = bench::share_of(node_cpu, 0.5);
        state.counters[name + "_server_mb"] = server_peak_mb;
        state.counters[name + "_node_mb"] = node_peak_mb;
        if (p50.empty() || p50.front() == 0) return;
        state.counters[name + "_p50_us"] = 1e6 * bench::share_of(p50, 0.5);
        state.counters[name + "_p99_us"] = 1e6 * bench::share_of(p99, 0.5);
    }
};

double median_ratio(const std::vector<double>& above, const std::vector<double>& below) {
    std::vector<double> all;
    for (std::size_t i = 0; i < above.size(); ++i) all.push_back(above[i] / below[i]);
    return bench::share_of(all, 0.5);
}

using make_world = std::function<std::unique_ptr<world>()>;

/// Each iteration is one run of each; who is first, and who comes after whom, changes. So it does where the first
/// transfer of processes is what counts: these are made `firsts` times. Empty where one fails. ferry comes first in
/// what is returned.
template <std::size_t N>
std::array<series, N> run_in_turns(benchmark::State& state, const order& o, const make_world (&make)[N],
                                   int firsts = 1) {
    std::array<series, N> out;
    const auto in_turn = [](std::size_t turn, auto&& run) {
        for (std::size_t i = 0; i < N; ++i) run((turn % 2 == 0 ? turn / 2 + i : turn / 2 + N - i) % N);
    };
    try {
        std::unique_ptr<world> worlds[N];
        for (std::size_t turn = 0; turn < static_cast<std::size_t>(firsts); ++turn) {
            for (auto& each : worlds) each.reset();
            for (std::size_t i = 0; i < N; ++i) worlds[i] = make[i]();
            in_turn(turn, [&](std::size_t which) { out[which].warm_up(*worlds[which], o); });
        }
        std::size_t turn = 0;
        for (auto _ : state) {
            in_turn(turn++, [&](std::size_t which) { out[which].run(*worlds[which], o); });
            state.SetIterationTime(out[0].seconds.back());
        }
    } catch (const std::exception& e) {
        state.SkipWithError(e.what());
        return {};
    }
    return out;
}

void tell(benchmark::State& state, double ratio, double target) {
    state.counters["ratio"] = ratio;
    state.counters["target"] = target;
}

// --- large messages ----------------------------------------------------------------------------------------------------

/// How often the first transfer of new processes is measured.
int firsts() { return scaled(4, 2, 1); }

void BM_down(benchmark::State& state, bool tls, std::uint64_t bytes, int nodes, double target) {
    const order o{what::download, bytes, 0, nodes};
    const order start{.nodes = nodes};
    const auto [ferry, other] = run_in_turns(
        state, o, {[&] { return make_ferry(tls, false, start); }, [&] { return make_raw(tls, false, start); }},
        nodes == 1 && target > 0 ? firsts() : 1);
    if (ferry.seconds.empty()) return;
    const auto mb = static_cast<double>(bytes) / mib;
    tell(state, median_ratio(other.seconds, ferry.seconds), target);
    state.counters["first_ratio"] = median_ratio(other.first, ferry.first);
    state.counters["mb_each"] = mb;
    state.counters["nodes"] = nodes;
    ferry.report(state, "ferry");
    other.report(state, "raw");
    state.counters["ferry_server_over_payload_mb"] = ferry.server_peak_mb - mb;
    state.counters["raw_server_over_payload_mb"] = other.server_peak_mb - mb;
}

void BM_up(benchmark::State& state, bool tls, std::uint64_t bytes, double target) {
    const order o{what::upload, bytes, 0, 1};
    const order start{.bytes = bytes, .nodes = 1};
    const auto [ferry, other] = run_in_turns(
        state, o, {[&] { return make_ferry(tls, false, start); }, [&] { return make_raw(tls, false, start); }},
        firsts());
    if (ferry.seconds.empty()) return;
    tell(state, median_ratio(other.seconds, ferry.seconds), target);
    state.counters["first_ratio"] = median_ratio(other.first, ferry.first);
    ferry.report(state, "ferry");
    other.report(state, "raw");
}

/// What the chunk size does, to both.
template <std::uint32_t Bytes>
void BM_chunk_size(benchmark::State& state, std::uint64_t bytes) {
    using server = ferry::basic_grpc_server<ferry::max_message_bytes_length<Bytes>>;
    const order o{what::download, bytes, 0, 1};
    const order start{.nodes = 1};
    const auto [ferry, other] =
        run_in_turns(state, o,
                     {[&] { return make_ferry<server>(false, false, start); },
                      [&] { return make_raw(false, false, start, sizes::large, false, Bytes); }});
    if (ferry.seconds.empty()) return;
    tell(state, median_ratio(other.seconds, ferry.seconds), 0);
    state.counters["mb"] = static_cast<double>(bytes) / mib;
    ferry.report(state, "ferry");
    other.report(state, "raw");
}

/// Processor time of the server; typed messages with and without the checksum that ferry has. What raw takes is the least.
void BM_cpu(benchmark::State& state, bool tls, std::uint64_t bytes, double target) {
    const order o{what::download, bytes, 0, 1};
    const order start{.nodes = 1};
    const auto [ferry, typed, checked, by_hand] =
        run_in_turns(state, o,
                     {[&] { return make_ferry(tls, false, start); }, [&] { return make_typed(tls, false, start); },
                      [&] { return make_typed(tls, true, start); }, [&] { return make_raw(tls, false, start); }});
    if (ferry.seconds.empty()) return;
    tell(state, median_ratio(ferry.server_cpu, typed.server_cpu), target);
    state.counters["ratio_to_checked"] = median_ratio(ferry.server_cpu, checked.server_cpu);
    state.counters["ratio_of_raw"] = median_ratio(by_hand.server_cpu, typed.server_cpu);
    ferry.report(state, "ferry");
    typed.report(state, "typed");
    checked.report(state, "checked");
    by_hand.report(state, "raw");
}

// --- small messages ----------------------------------------------------------------------------------------------------

void report_small(benchmark::State& state, const order& o, const std::array<series, 3>& all, double target) {
    const auto& [ferry, other, handed_over] = all;
    if (ferry.seconds.empty()) return;
    const double messages = static_cast<double>(o.count) * o.nodes;
    tell(state, median_ratio(other.seconds, ferry.seconds), target);
    ferry.report(state, "ferry");
    other.report(state, "raw");
    state.counters["ferry_per_second"] = messages / bench::share_of(ferry.seconds, 0.5);
    state.counters["raw_per_second"] = messages / bench::share_of(other.seconds, 0.5);
    state.counters["ratio_of_handed_over"] = median_ratio(other.seconds, handed_over.seconds);
    state.counters["handed_over_per_second"] = messages / bench::share_of(handed_over.seconds, 0.5);
}

/// Also beside gRPC by hand whose callbacks run on threads of their own, as ferry's do.
void small_messages(benchmark::State& state, bool polls, const order& o, double target) {
    const order start{.nodes = o.nodes, .window = o.window};
    const make_world ferry = [&] { return make_ferry(false, polls, start, sizes::small); },
                     by_hand = [&] { return make_raw(false, polls, start, sizes::small); },
                     handed_over = [&] { return make_raw(false, polls, start, sizes::small, true); };
    report_small(state, o, run_in_turns(state, o, {ferry, by_hand, handed_over}), target);
}

void BM_requests(benchmark::State& state, int nodes, int count, double target) {
    small_messages(state, false, {what::requests, 1024, count, nodes}, target);
}
void BM_sends(benchmark::State& state, int nodes, int count, double target) {
    small_messages(state, false, {what::sends, 1024, count, nodes, 256}, target);
}
void BM_polls(benchmark::State& state, int nodes, int count, double target) {
    small_messages(state, true, {what::sends, 1024, count, nodes}, target);
}

// --- nodes that wait ---------------------------------------------------------------------------------------------------

/// Polls parked at a server, and then one small message to all of them.
struct idle_result {
    double kb_a_node = 0, seconds = 0;
    int threads = 0;
};

idle_result run_idle(bool ferry, int nodes, int connections) {
    world w(
        [ferry]() -> std::unique_ptr<bench::side> {
            if (ferry) return std::make_unique<bench::ferry_server_side<>>(files(false), true);
            return std::make_unique<raw::server_side>(pem(false));
        },
        [] { return std::make_unique<raw::node_side>(pem(false), true); }, {});
    const auto before = w.server.ask({});
    w.node.ask({what::idle, 0, nodes, connections, 0, w.port});
    w.server.ask({what::idle, 0, nodes});
    const auto after = w.server.ask({});
    w.node.tell({what::to_all, 0, nodes});
    const auto began = bench::clock::now();
    w.server.ask({what::to_all, 256, nodes});
    w.node.hear();
    return {(after.rss_mb - before.rss_mb) * 1024 / nodes, bench::seconds_since(began), after.threads};
}

void BM_idle(benchmark::State& state, int nodes, int connections, double target) {
    std::vector<double> kb[2], seconds[2];
    int threads[2] = {};
    bool ferry_first = false;
    try {
        for (auto _ : state) {
            ferry_first = !ferry_first;
            for (const bool ferry : {ferry_first, !ferry_first}) {
                const auto result = run_idle(ferry, nodes, connections);
                kb[ferry].push_back(result.kb_a_node);
                seconds[ferry].push_back(result.seconds);
                threads[ferry] = std::max(threads[ferry], result.threads);
            }
            state.SetIterationTime(seconds[true].back());
        }
    } catch (const std::exception& e) {
        return state.SkipWithError(e.what());
    }
    tell(state, median_ratio(seconds[false], seconds[true]), target);
    state.counters["ferry_s"] = bench::share_of(seconds[true], 0.5);
    state.counters["raw_s"] = bench::share_of(seconds[false], 0.5);
    state.counters["ferry_kb_a_node"] = bench::share_of(kb[true], 0.5);
    state.counters["raw_kb_a_node"] = bench::share_of(kb[false], 0.5);
    state.counters["ferry_threads"] = threads[true];
    state.counters["raw_threads"] = threads[false];
}

// --- all of them -------------------------------------------------------------------------------------------------------

template <class Run>
void add(const std::string& name, int times, Run run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->Iterations(times)->UseManualTime()->Unit(benchmark::kMillisecond);
}

template <std::uint32_t... Bytes>
void add_chunk_sizes(std::uint64_t bytes, const std::string& name, int times) {
    (add("chunk_size/" + name + "/" + std::to_string(Bytes), times,
         [=](auto& state) { BM_chunk_size<Bytes>(state, bytes); }),
     ...);
}

void add_all() {
    const auto large = scaled(256 * mib, 64 * mib, 12 * mib), middle = scaled(64 * mib, 32 * mib, 8 * mib);
    const int times = scaled(15, 5, 1), many = scaled(15, 5, 1);
    const auto mb = [](std::uint64_t bytes) { return std::to_string(bytes / mib) + "MB"; };
    for (const bool tls : {false, true}) {
        const std::string how = tls ? "/tls" : "/plain";
        add("down/" + mb(large) + how, times, [=](auto& state) { BM_down(state, tls, large, 1, 0.95); });
        add("up/" + mb(large) + how, times, [=](auto& state) { BM_up(state, tls, large, 0.95); });
        add("server_cpu/" + mb(large) + how, times, [=](auto& state) { BM_cpu(state, tls, large, tls ? 0 : 0.6); });
    }
    const int some = scaled(8, 8, 2), more = scaled(32, 8, 3);
    add("fan_out/" + mb(middle) + "/" + std::to_string(some), times,
        [=](auto& state) { BM_down(state, false, middle, some, 0.95); });
    add("fan_out/" + mb(large) + "/" + std::to_string(more), scaled(3, 3, 1),
        [=](auto& state) { BM_down(state, false, large, more, 0.95); });
    const auto each = scaled(64 * mib, 32 * mib, 8 * mib);
    for (int count = 1; count <= scaled(32, 8, 2); count *= 2) {
        add("nodes/" + mb(each) + "/" + std::to_string(count), scaled(7, 3, 1),
            [=](auto& state) { BM_down(state, false, each, count, 0); });
    }
    add_chunk_sizes<65'536, 262'144, 1'048'576, 3'999'967, 16'000'000>(large, mb(large), scaled(7, 3, 1));
    const int nodes = scaled(64, 64, 4);
    add("requests/1", many, [=](auto& state) { BM_requests(state, 1, scaled(4000, 2000, 50), 0.85); });
    add("requests/" + std::to_string(nodes), many,
        [=](auto& state) { BM_requests(state, nodes, scaled(200, 100, 5), 0.6); });
    add("sends/1", many, [=](auto& state) { BM_sends(state, 1, scaled(100'000, 50'000, 500), 0.6); });
    add("sends/" + std::to_string(nodes), many,
        [=](auto& state) { BM_sends(state, nodes, scaled(2000, 1000, 20), 0.6); });
    add("polls/1", many, [=](auto& state) { BM_polls(state, 1, scaled(4000, 2000, 50), 0.85); });
    add("polls/" + std::to_string(nodes), many,
        [=](auto& state) { BM_polls(state, nodes, scaled(200, 100, 5), 0.85); });
    const int idle = scaled(20'000, 5'000, 200), connections = scaled(100, 100, 4);
    add("idle/" + std::to_string(idle), scaled(5, 2, 1), [=](auto& state) { BM_idle(state, idle, connections, 0.9); });
}

/// Takes the program's own flag and its value out of the arguments.
std::string take_flag(int& argc, char** argv, const char* name) {
    for (int i = 1; i + 1 < argc; ++i) {
        if (std::strcmp(argv[i], name) != 0) continue;
        std::string value = argv[i + 1];
        std::copy(argv + i + 2, argv + argc, argv + i);
        argc -= 2;
        return value;
    }
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    const auto size = take_flag(argc, argv, "--scale"), memory = take_flag(argc, argv, "--malloc");
    if ((!size.empty() && size != "full" && size != "quick" && size != "smoke") ||
        (!memory.empty() && memory != "default" && memory != "kept")) {
        std::fprintf(stderr, "usage: transport_bench [--scale full|quick|smoke] [--malloc kept|default] ...\n");
        return 2;
    }
    how_much = size == "smoke" ? scale::smoke : size == "quick" ? scale::quick : scale::full;
    keeps_memory = memory != "default";
    add_all();
    benchmark::AddCustomContext("scale", size.empty() ? "full" : size);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
