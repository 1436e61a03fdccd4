#!/usr/bin/env bash
# Checks that a file does not compile, for the reason that it states.
#
#   check.sh FOLDER COMPILER FLAGS... FILE
#
# The file's first line is "// expect: <extended regex>". The compiler must fail, with exactly one error, and that error's
# line must match. A second line "// note: <extended regex>" may ask for more, anywhere in what the compiler says.
# FOLDER has what headers.sh precompiled with the same compiler and flags.
set -uo pipefail
export LC_ALL=C

if [[ $# -lt 3 ]]; then
    echo "usage: check.sh FOLDER COMPILER FLAGS... FILE" >&2
    exit 2
fi
folder=$1
compiler=$2
file=${!#}
flags=("${@:3:$#-3}")

expect=$(sed -n '1s|^// expect: ||p' "$file")
note=$(sed -n '2s|^// note: ||p' "$file")
if [[ -z $expect ]]; then
    echo "$file: the first line must be '// expect: <extended regex>'" >&2
    exit 2
fi

# Without the quoted source, which may itself hold the word. A precompiled header that doesn't fit is an error.
case $("$compiler" --version) in
    *clang*) flags+=(-fno-caret-diagnostics -include-pch "$folder/headers.hpp.pch") ;;
    *) flags+=(-fno-diagnostics-show-caret -Werror=invalid-pch -include "$folder/headers.hpp") ;;
esac

status=0
output=$("$compiler" "${flags[@]}" -fsyntax-only "$file" 2>&1) || status=$?
errors=$(grep 'error:' <<<"$output") || true

failed() {
    printf '%s\n' "$output"
    echo "---"
    echo "$file, $compiler: $1" >&2
    exit 1
}

[[ $status -ne 0 ]] || failed "it compiles, but must not"
[[ -n $errors ]] || failed "the compiler exited with $status and reported no error"
count=$(wc -l <<<"$errors")
[[ $count -eq 1 ]] || failed "$count errors instead of one"
grep -qE -e "$expect" <<<"$errors" || failed "the error does not match: $expect"
[[ -z $note ]] || grep -qE -e "$note" <<<"$output" || failed "the output does not match: $note"
echo "$errors"
