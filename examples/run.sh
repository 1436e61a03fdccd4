#!/usr/bin/env bash
# Installs what is missing, builds the examples and runs the main job.
#
#   bash examples/run.sh
#
# FERRY_JOBS sets how much is built at a time; all processors without it.
set -euo pipefail
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

# === The job starts here =================================================================================================
# "$programs/researcher" and "$programs/node" are built.
if [[ ! -x $programs/researcher || ! -x $programs/node ]]; then
    echo "error: the job needs $programs/researcher and $programs/node, and they were not built." >&2
    exit 1
fi
