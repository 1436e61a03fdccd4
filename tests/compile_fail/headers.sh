#!/usr/bin/env bash
# Precompiles headers.hpp for the cases of check.sh.
#
#   headers.sh FOLDER COMPILER FLAGS...
#
# Into FOLDER, for this compiler and these flags alone.
set -euo pipefail

if [[ $# -lt 2 ]]; then
    echo "usage: headers.sh FOLDER COMPILER FLAGS..." >&2
    exit 2
fi
folder=$1
compiler=$2
flags=("${@:3}")
source=$(dirname "${BASH_SOURCE[0]}")/headers.hpp

mkdir -p "$folder"
case $("$compiler" --version) in
    *clang*) "$compiler" "${flags[@]}" -fpch-instantiate-templates -x c++-header "$source" -o "$folder/headers.hpp.pch" ;;
    *) "$compiler" "${flags[@]}" -x c++-header "$source" -o "$folder/headers.hpp.gch" ;;
esac
