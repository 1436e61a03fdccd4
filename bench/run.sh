#!/usr/bin/env bash
# Builds the benchmarks as users would build them, runs all of them, and prints what they come to beside what they are compared
# with.
#
#   bash bench/run.sh [--quick] [--json FILE] [--plots FOLDER]
#
# --quick takes smaller messages and fewer runs. --json writes the table there as well, --plots the README's pictures (SVG);
# without it they are in build/bench/bench/plots. Other programs should rest meanwhile. Fails where something that has a
# target was not measured.
set -euo pipefail

usage() {
    echo "usage: bash bench/run.sh [--quick] [--json FILE] [--plots FOLDER]" >&2
    exit 2
}
scale=full
table=(--all)
plots=build/bench/bench/plots
while [[ $# -gt 0 ]]; do
    case $1 in
        --quick) scale=quick ;;
        --json)
            [[ $# -ge 2 ]] || usage
            table+=("$1" "$(realpath -m "$2")")
            shift
            ;;
        --plots)
            [[ $# -ge 2 ]] || usage
            plots=$(realpath -m "$2")
            shift
            ;;
        *) usage ;;
    esac
    shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/packages.sh
. .ci/build.sh
ferry_require core tests
ferry_configure bench
ferry_build bench

programs=build/bench/bench
results=build/bench/results
rm -rf "$results"
mkdir -p "$results"
if [[ $scale == quick ]]; then
    often=(--benchmark_repetitions=3 --benchmark_min_time=0.02 '--benchmark_filter=-/1073741824$') # without those of 1 GiB
else
    often=(--benchmark_repetitions=9 --benchmark_min_time=0.1)
fi

# run NAME ARGUMENTS...: its JSON goes to the results, its own table to a log beside it.
run() {
    local name=$1 began=$SECONDS
    shift
    printf 'Running %s ... ' "$name"
    # A benchmark that ran into an error says so and exits with 0 all the same.
    if ! "$programs/$name" --benchmark_out="$results/$name.json" --benchmark_out_format=json "$@" >"$results/$name.log" 2>&1 ||
        grep -q "ERROR OCCURRED" "$results/$name.log"; then
        {
            echo "failed. From $results/$name.log:"
            grep "ERROR OCCURRED" "$results/$name.log" || tail -20 "$results/$name.log"
        } >&2
        exit 1
    fi
    echo "$((SECONDS - began)) s"
}

run transport_bench --scale "$scale"
for name in chunk_bench queue_bench store_bench serializer_bench; do
    run "$name" "${often[@]}" --benchmark_enable_random_interleaving=true
done
echo
status=0
/usr/bin/python3 -B bench/table.py "$results" "${table[@]}" || status=$?
echo
/usr/bin/python3 -B bench/plots.py "$results" "$plots"
exit "$status"
