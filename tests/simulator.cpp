// Runs the simulation over many seeds, and prints what was simulated and what was violated.
#include "simulation.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

namespace {

struct wanted {
    std::uint64_t from = 1, to = 1000;
    double seconds = 0;  // 0: until the last seed
    bool trace = false, memory = true, durable = true;
};

[[noreturn]] void usage() {
    std::cerr << "usage: ferry_simulator [--seeds FROM-TO] [--seconds N] [--trace] [--store memory|durable|both]\n";
    std::exit(2);
}

wanted parse(int argc, char** argv) {
    wanted out;
    bool seeds_given = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view name = argv[i];
        const auto value = [&]() -> std::string {
            if (++i >= argc) usage();
            return argv[i];
        };
        if (name == "--trace") {
            out.trace = true;
        } else if (name == "--seconds") {
            out.seconds = std::stod(value());
        } else if (name == "--seeds") {
            const auto text = value();
            const auto dash = text.find('-');
            out.from = std::stoull(text);
            out.to = dash == std::string::npos ? out.from : std::stoull(text.substr(dash + 1));
            seeds_given = true;
        } else if (name == "--store") {
            const auto which = value();
            if (which != "memory" && which != "durable" && which != "both") usage();
            out.memory = which != "durable";
            out.durable = which != "memory";
        } else {
            usage();
        }
    }
    if (out.seconds > 0 && !seeds_given) out.to = UINT64_MAX;
    return out;
}

struct total {
    std::uint64_t seeds = 0, tasks = 0, deliveries = 0, resumed = 0, runs = 0, replies = 0, events = 0, violations = 0;
    double hours = 0;
    std::array<std::uint64_t, ferry_test::fault_names.size()> faults{};

    void add(const ferry_test::simulation_result& r) {
        ++seeds;
        tasks += r.tasks;
        deliveries += r.deliveries;
        resumed += r.resumed;
        runs += r.runs;
        replies += r.replies;
        events += r.events;
        violations += r.violations.empty() ? 0 : 1;
        hours += std::chrono::duration<double, std::ratio<3600>>(r.simulated).count();
        for (std::size_t i = 0; i < faults.size(); ++i) faults[i] += r.faults[i];
    }

    void print(double seconds) const {
        const auto row = [](const char* name, std::uint64_t n) {
            std::printf("%-22s %12llu\n", name, static_cast<unsigned long long>(n));
        };
        row("seeds", seeds);
        std::printf("%-22s %12.1f\n", "simulated hours", hours);
        row("events", events);
        row("tasks", tasks);
        row("deliveries", deliveries);
        row("  resumed", resumed);
        row("callbacks", runs);
        row("replies", replies);
        for (std::size_t i = 0; i < faults.size(); ++i) row(ferry_test::fault_names[i], faults[i]);
        row("seeds with violations", violations);
        std::printf("%-22s %12.1f\n", "seconds", seconds);
    }
};

}  // namespace

int main(int argc, char** argv) {
    const auto what = parse(argc, argv);
    const auto start = std::chrono::steady_clock::now();
    const auto seconds = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    total all;
    for (auto seed = what.from; seed <= what.to; ++seed) {
        for (const bool durable : {false, true}) {
            if (durable ? !what.durable : !what.memory) continue;
            ferry_test::simulation run(seed, durable,
                                       what.trace ? [](const std::string& line) { std::cout << line << "\n"; }
                                                  : ferry_test::simulation::tracer{});
            const auto result = run.run();
            all.add(result);
            for (const auto& text : result.violations) {
                std::cout << "seed " << seed << ", " << (durable ? "durable" : "memory") << ": " << text << "\n";
            }
        }
        if (what.seconds > 0 && seconds() >= what.seconds) break;
    }
    all.print(seconds());
    return all.violations > 0 ? 1 : 0;
}
