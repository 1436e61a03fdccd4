#!/usr/bin/env bash
# Installs what is missing, builds the examples and runs the main job.
#
#   bash examples/run.sh
#   bash examples/run.sh --job-only BUILD_DIR     runs the job alone, with the programs that were built there
#
# FERRY_JOBS sets how much is built at a time; all processors without it. FERRY_EXAMPLE_PAYLOAD_MB and
# FERRY_EXAMPLE_REPLY_MB set what each node is sent and sends back; 256 and 64 without them.
set -euo pipefail
if [[ ${1:-} == --job-only && $# -eq 2 ]]; then
    programs=$(cd "$2" && pwd)/examples
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
elif [[ $# -gt 0 ]]; then
    echo "usage: bash examples/run.sh [--job-only BUILD_DIR]" >&2
    exit 2
else
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    . .ci/packages.sh
    . .ci/build.sh

    ferry_require core examples
    # The tests share this build folder. Where their packages are missing they are left out, otherwise left as they are.
    options=(-DFERRY_BUILD_EXAMPLES=ON)
    if [[ -n $(ferry_missing tests) ]]; then
        options+=(-DFERRY_BUILD_TESTS=OFF -DFERRY_BUILD_BENCH=OFF)
    fi
    ferry_configure default "${options[@]}"
    ferry_build default --target ferry_examples
    programs=$PWD/build/default/examples
fi

# === The job starts here =================================================================================================
# "$programs/researcher" and "$programs/node" are built.
if [[ ! -x $programs/researcher || ! -x $programs/node ]]; then
    echo "error: the job needs $programs/researcher and $programs/node, and they were not built." >&2
    exit 1
fi

nodes=4
victim=node-2 # killed while its payload is on its way, and started again
seconds=180   # for the whole job

# Keys, logs and the port are kept where nobody else can read them, and go when the job ends, as do all its processes.
umask 077
folder=$(mktemp -d "${TMPDIR:-/tmp}/ferry-example.XXXXXX")
declare -A names # of the processes, by their ids
clean_up() {
    local status=$?
    trap - EXIT
    kill "${!names[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# fail TEXT [NAME]: says what went wrong, and shows the end of that process's log, or of each node's.
fail() {
    local log
    for log in "$folder/${2:-node-}"*.log; do
        [[ -s $log ]] || continue
        echo "--- the end of $(basename "$log" .log)'s log:" >&2
        tail -n 5 "$log" >&2
    done
    echo "error: $1" >&2
    exit 1
}

# A certificate for this run alone. The nodes get it as a file, and trust no other.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/O=researcher-1/CN=localhost" \
    -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" -keyout "$folder/server.key" -out "$folder/server.pem" \
    2>"$folder/openssl.log" || fail "openssl could not make a certificate" openssl

mkfifo "$folder/in-transfer"
timeout --foreground "$seconds" "$programs/researcher" --port 0 --port-file "$folder/port" --nodes "$nodes" \
    --key "$folder/server.key" --cert "$folder/server.pem" --data examples/data/breast_cancer.csv \
    --payload-mb "${FERRY_EXAMPLE_PAYLOAD_MB:-256}" --reply-mb "${FERRY_EXAMPLE_REPLY_MB:-64}" --patience 60 \
    --tell-of "$victim" --tell-to "$folder/in-transfer" &
names[$!]=researcher
researcher=$!
until [[ -e $folder/port ]]; do
    kill -0 "$researcher" 2>/dev/null || fail "the researcher ended before it listened"
    sleep 0.05
done

# start_node I: starts node-I. What it prints goes to a log.
start_node() {
    "$programs/node" --id "node-$1" --researcher "localhost:$(<"$folder/port")" --cert "$folder/server.pem" \
        --shard "$1/$nodes" --data examples/data/breast_cancer.csv >>"$folder/node-$1.log" 2>&1 &
    names[$!]=node-$1
}
for ((i = 1; i <= nodes; ++i)); do
    start_node "$i"
    [[ node-$i != "$victim" ]] || victim_process=$!
done

# The researcher writes to the FIFO when a part of the victim's payload is out.
(read -r _ <"$folder/in-transfer" && kill -KILL "$victim_process") &
names[$!]=killer

# All end by themselves, the nodes when the researcher tells them to. The first failure ends the job.
while ((${#names[@]} > 0)); do
    status=0
    wait -n -p ended "${!names[@]}" 2>/dev/null || status=$? # bash would tell of the killed one
    name=${names[$ended]}
    unset "names[$ended]"
    if [[ $name == "$victim" && $status -eq 137 && -n $victim_process ]]; then
        victim_process=""
        start_node "${victim#node-}"
        continue
    fi
    case $status in
        0) ;;
        130) exit 130 ;; # interrupted
        124) fail "$name did not end within $seconds s" ;;
        *)
            [[ $name == researcher ]] && fail "the researcher failed (exit code $status)"
            fail "$name failed (exit code $status)" "$name"
            ;;
    esac
done
