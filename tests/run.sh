#!/usr/bin/env bash
# Installs what is missing, builds and runs all tests.
#
#   bash tests/run.sh [CTEST OPTIONS...]      for example: bash tests/run.sh -L core -R chunk
#
# FERRY_JOBS sets how much is built and tested at a time; all processors without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. .ci/packages.sh
. .ci/build.sh

ferry_require core examples tests
ferry_configure default -DFERRY_BUILD_TESTS=ON -DFERRY_BUILD_EXAMPLES=ON -DFERRY_BUILD_BENCH=ON
ferry_build default
echo "Testing build/default"
exec ctest --preset default --parallel "$CTEST_PARALLEL_LEVEL" "$@"
