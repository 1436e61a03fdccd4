"""What including ferry costs: compile time and memory of a unit with ferry, beside one with its third-party headers alone.

    compile_cost.py [--quick] [--runs N] [--compilers CXX ...] [--proto DIR] [--json FILE] [--check]

The third-party headers are those that ferry's own headers include, found by reading them, so the comparison keeps itself
up to date. Times are CPU seconds (median of the runs, which take turns), memory is the peak of the largest process.
The target is about the unit that only includes ferry.hpp. ccache is switched off, precompiled headers are not used.

Exits with 1 where a unit doesn't compile, and with --check also where the target is missed.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = 1.3  # times the third-party headers
TARGET_UNIT = "ferry.hpp"
FLAGS = ["-std=c++20", "-DMSGPACK_NO_BOOST"]
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
STANDARD = re.compile(r"[a-z_]+|[a-z]+\.h|sys/.+")  # of C++, C and POSIX

SERVER = """
void serve() {
    ferry::server_options options;
    options.ssl = ferry::plain_text{};
    ferry::grpc_server server(options);
    server.start();
    server.send({{"name", "ferry"}}, "node-1").wait();
    server.request({{"name", "ferry"}}, "node-1").get();
}
"""
CLIENT = """
void answer() {
    ferry::client_options options;
    options.node_id = "node-1";
    options.researchers = {{"localhost", 50051, ferry::plain_text{}}};
    ferry::grpc_client client(options, [](ferry::task task) { task.reply({{"name", "ferry"}}); });
    client.start();
}
"""


def included_by(header, include_dir):
    """The headers of others that a header of ferry's includes, directly or by way of ferry's: third-party, standard."""
    seen, third_party, standard = set(), set(), set()

    def walk(name):
        if name in seen:
            return
        seen.add(name)
        for inner in INCLUDE.findall((include_dir / name).read_text()):
            if (include_dir / inner).is_file():
                walk(inner)
            else:
                (standard if STANDARD.fullmatch(inner) else third_party).add(inner)

    walk(header)
    return sorted(third_party), sorted(standard)


def read_by(compiler, flags):
    """The files that a unit with ferry.hpp reads here, one line: some headers are for other kinds of machines."""
    unit = subprocess.run([compiler, *flags, "-M", "-x", "c++", "-"], input="#include <ferry/ferry.hpp>\n", text=True,
                          stdout=subprocess.PIPE, check=True)
    return " ".join(unit.stdout.replace("\\\n", " ").split()) + " "


def units(include_dir, compiler, flags):
    third_party, standard = included_by("ferry/ferry.hpp", include_dir)
    files = read_by(compiler, flags)
    third_party = [name for name in third_party if f"/{name} " in files]

    def include(names):
        return "".join(f"#include <{name}>\n" for name in names)

    ferry = include(["ferry/ferry.hpp"])
    return {
        "third-party headers": include(third_party),
        "... and the standard ones": include(third_party + standard),
        TARGET_UNIT: ferry,
        "... and one server": ferry + SERVER,
        "... and one client": ferry + CLIENT,
    }


def compile_unit(command):
    """CPU seconds and peak megabytes; nothing where it doesn't compile, whose reason is on stderr then."""
    with subprocess.Popen(command, env={**os.environ, "CCACHE_DISABLE": "1"}) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        return None
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(compiler, optimisation, sources, flags, runs):
    """A row for each unit, or nothing where one doesn't compile."""
    taken = {name: [] for name in sources}
    for _ in range(runs):
        for name, source in sources.items():
            result = compile_unit([compiler, *flags, optimisation, "-c", str(source), "-o", os.devnull])
            if result is None:
                print(f"{compiler} {optimisation}: {name} does not compile", file=sys.stderr)
                return None
            taken[name].append(result)
    rows, base = [], None
    for name, results in taken.items():
        seconds = statistics.median(seconds for seconds, _ in results)
        base = base or seconds
        rows.append({"compiler": compiler, "optimisation": optimisation, "unit": name, "seconds": round(seconds, 3),
                     "megabytes": round(max(megabytes for _, megabytes in results)), "ratio": round(seconds / base, 3)})
    return rows


def default_compilers():
    """g++ and one clang, as far as they are there."""
    clang = next((name for name in ("clang++", "clang++-14") if shutil.which(name)), None)
    return [name for name in ("g++", clang) if name and shutil.which(name)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one run, one compiler, -O0")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--compilers", nargs="+", default=default_compilers(), metavar="CXX")
    parser.add_argument("--proto", type=Path, default=ROOT / "build/default/proto", help="of the generated headers")
    parser.add_argument("--flags", default="", help="more for the compilers, such as '-isystem DIR'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--check", action="store_true", help="fail where the target is missed")
    args = parser.parse_args()
    if not args.compilers:
        parser.error("neither g++ nor clang++ is there: name a compiler by --compilers")
    if not (args.proto / "ferry/researcher.pb.h").is_file():
        parser.error(f"no generated headers in {args.proto}: build ferry::proto, or name their folder by --proto")
    compilers = args.compilers[:1] if args.quick else args.compilers
    optimisations = ["-O0"] if args.quick else ["-O0", "-O2"]
    flags = [*FLAGS, f"-I{ROOT / 'include'}", "-isystem", str(args.proto), *shlex.split(args.flags)]

    all_rows, missed = [], False
    print(f"{'compiler':<12} {'':<4} {'unit':<26} {'seconds':>8} {'MB':>6} {'ratio':>6}  target")
    with tempfile.TemporaryDirectory() as folder:
        sources = {}
        for i, (name, text) in enumerate(units(ROOT / "include", compilers[0], flags).items()):
            sources[name] = Path(folder) / f"unit_{i}.cpp"
            sources[name].write_text(text)
        for compiler in compilers:
            for optimisation in optimisations:
                rows = measure(compiler, optimisation, sources, flags, 1 if args.quick else args.runs)
                if rows is None:
                    return 1
                for row in rows:
                    verdict = ""
                    if row["unit"] == TARGET_UNIT:
                        met = row["seconds"] <= TARGET * rows[0]["seconds"]
                        missed = missed or not met
                        verdict = f"{TARGET}: {'met' if met else 'missed'}"
                    print(f"{Path(compiler).name:<12} {optimisation:<4} {row['unit']:<26} {row['seconds']:>8.2f} "
                          f"{row['megabytes']:>6} {row['ratio']:>6.2f}  {verdict}".rstrip(), flush=True)
                all_rows += rows
    if args.json:
        args.json.write_text(json.dumps({"target": TARGET, "rows": all_rows}, indent=2) + "\n")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
