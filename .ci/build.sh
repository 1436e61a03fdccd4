# Configures and builds a preset, quietly, with a log that is shown where it fails. Sourced by bash, in the top folder.

export FERRY_JOBS=${FERRY_JOBS:-$(nproc)}
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$FERRY_JOBS}

# ferry_logged LOG WHAT COMMAND...: runs the command into the log. On a terminal its newest line is shown meanwhile.
ferry_logged() {
    local log=$1 what=$2 status=0 columns=${COLUMNS:-80} line
    shift 2
    mkdir -p "$(dirname "$log")"
    if [[ -t 1 ]]; then
        "$@" </dev/null 2>&1 | tee "$log" | while IFS= read -r line; do
            printf '\r\033[K%s' "${line:0:columns-1}"
        done || status=$?
        printf '\r\033[K'
    else
        "$@" </dev/null >"$log" 2>&1 || status=$?
    fi
    if [[ $status -ne 0 ]]; then
        {
            tail -n 40 "$log"
            echo "error: $what failed (exit code $status). Above are the last lines of $log."
            [[ $what != configuring* ]] ||
                echo "If $(dirname "$log") is old or came from another place, delete it and run this again."
        } >&2
        exit 1
    fi
}

# ferry_configure PRESET [CMAKE OPTIONS...]
ferry_configure() {
    local preset=$1
    shift
    echo "Configuring build/$preset"
    ferry_logged "build/$preset/configure.log" "configuring build/$preset" cmake --preset "$preset" "$@"
}

# ferry_build PRESET [BUILD OPTIONS...]
ferry_build() {
    local preset=$1
    shift
    echo "Building build/$preset with $FERRY_JOBS jobs (log: build/$preset/build.log)"
    ferry_logged "build/$preset/build.log" "building build/$preset" \
        cmake --build --preset "$preset" --parallel "$FERRY_JOBS" "$@"
}
