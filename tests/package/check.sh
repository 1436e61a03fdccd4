#!/usr/bin/env bash
# Includes ferry in a project of someone else's, in one way, outside the tree: configures, builds and runs it there.
#
#   check.sh WAY SOURCE_DIR BUILD_DIR COMPILER VERSION
#
# WAY is install, components, subdirectory or fetch_content. BUILD_DIR holds ferry's build, from which the first two install.
set -euo pipefail
export LC_ALL=C

if [[ $# -ne 5 ]]; then
    echo "usage: check.sh WAY SOURCE_DIR BUILD_DIR COMPILER VERSION" >&2
    exit 2
fi
way=$1 source=$2 build=$3 compiler=$4 version=$5
work=$(mktemp -d "${TMPDIR:-/tmp}/ferry-package.XXXXXX")
trap 'rm -rf "$work"' EXIT
work=$(cd "$work" && pwd -P)

# The surroundings must not tell where ferry is. The compiler's cache takes what another run has compiled elsewhere.
unset CMAKE_PREFIX_PATH ferry_DIR ferry_ROOT DESTDIR CXXFLAGS LDFLAGS
# A host may ask for more than what ferry keeps to itself.
useless_cast=$([[ $compiler == *clang* ]] || echo -Wuseless-cast)  # a host may ask for more than ferry's own headers keep to
settings=(-G Ninja "-DCMAKE_CXX_COMPILER=$compiler" -DCMAKE_BUILD_TYPE=Debug
    "-DCMAKE_CXX_FLAGS_DEBUG=-O0 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wold-style-cast $useless_cast -Werror")
if command -v ccache >/dev/null; then
    export CCACHE_BASEDIR=$work CCACHE_NOHASHDIR=1
    settings+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi

failed() {
    [[ ! -s $work/log ]] || cat "$work/log"
    echo "package.$way: $1" >&2
    exit 1
}

# CMake breaks its sentences into lines.
says() { grep -qF -e "$1" <<<"$(tr -s ' \n' ' ' <"$work/log")" || failed "the output does not say: $1"; }
says_not() { ! grep -qE -e "$1" "$work/log" || failed "the output says: $1"; }

# configure NAME OPTIONS...: the consumer in "$work/project", into "$work/NAME".
configure() { cmake -S "$work/project" -B "$work/$1" "${settings[@]}" "${@:2}" >"$work/log" 2>&1; }

# accepted NAME OPTIONS... and refused NAME TEXT OPTIONS...: whether it can be configured; where not, what is said.
accepted() { configure "$@" || failed "the consumer can't be configured with: ${*:2}"; }
refused() {
    ! configure "$1" "${@:3}" || failed "the consumer can be configured with: ${*:3}"
    says "$2"
}

# built_and_run NAME PROGRAMS...: in "$work", for the files that they leave
built_and_run() {
    local name=$1 program
    shift
    cmake --build "$work/$name" --parallel 1 >"$work/log" 2>&1 || failed "the consumer can't be built"
    for program in "$@"; do
        (cd "$work" && timeout 100 "$work/$name/uses_$program") >"$work/log" 2>&1 ||
            failed "uses_$program exits with $?"
        echo "$way: uses_$program: $(tail -n 1 "$work/log")"
    done
}

# no_path_of DIRECTORY: no installed file may name it, be it in the middle of a line or of a library.
no_path_of() {
    local path found
    path=$(sed 's/[][\\.*^$+?(){}|]/\\&/g' <<<"$1")
    found=$(grep -rlaE "(^|[^A-Za-z0-9_./}-])$path(/|$|[^A-Za-z0-9_.-])" "$prefix") || true
    [[ -z $found ]] || failed "these installed files name $1: $found"
}

# Installs ferry, and moves what was installed.
install_ferry() {
    cmake --install "$build" --prefix "$work/before" >"$work/log" 2>&1 || failed "ferry can't be installed"
    prefix=$work/moved
    mv "$work/before" "$prefix"
    no_path_of "$source"
    no_path_of "$build"
    no_path_of "$work/before"
    settings+=("-DCMAKE_PREFIX_PATH=$prefix")
}

# What a subproject needs of ferry, into the consumer's own tree, and nothing more.
copy_ferry() {
    mkdir "$work/project/ferry"
    cp -r "$source/CMakeLists.txt" "$source/cmake" "$source/include" "$source/proto" "$work/project/ferry/"
}

# subproject WAY OPTIONS...: ferry as a part of the consumer, which finds itself without anything else of it.
subproject() {
    copy_ferry
    accepted build "-DCONSUMER_WAY=$1" -DCONSUMER_PROGRAMS=ferry "${@:2}"
    says "consumer: target ferry::ferry"
    says_not "consumer: target ferry::(simdjson|sqlite|redis|conformance)"
    ! grep -qE '^(GTest|simdjson|SQLite3|hiredis|benchmark|CLI11|Python3)_' "$work/build/CMakeCache.txt" ||
        failed "libraries are looked for that nobody asked for"
    built_and_run build ferry
    cmake --install "$work/build" --prefix "$work/installed" >"$work/log" 2>&1 || failed "the consumer can't be installed"
    [[ ! -e $work/installed ]] || failed "ferry is installed with the consumer: $(find "$work/installed" -type f | head -n 3)"
}

cp -r "$source/tests/package/consumer" "$work/project"
find=(-DCONSUMER_WAY=find_package)
without_grpc=(-DCMAKE_DISABLE_FIND_PACKAGE_gRPC=ON -DCMAKE_DISABLE_FIND_PACKAGE_Protobuf=ON)
minor=${version%.*}

case $way in
    install)
        install_ferry
        accepted build "${find[@]}" "-DCONSUMER_VERSION=$minor" -DCONSUMER_PROGRAMS=ferry
        says "consumer: target ferry::ferry"
        built_and_run build ferry
        ;;

    components)
        install_ferry

        # The core alone: gRPC is neither needed nor looked for. The others are there where their libraries are.
        accepted core "${find[@]}" -DCONSUMER_COMPONENTS=core -DCONSUMER_PROGRAMS=core
        says_not "consumer: target ferry::(proto|ferry|simdjson|sqlite|redis|conformance)"
        ! grep -qiE '^(gRPC|Protobuf|GTest|simdjson|SQLite3|hiredis)_' "$work/core/CMakeCache.txt" ||
            failed "the core looks for libraries that it does without"
        accepted core "${without_grpc[@]}"
        built_and_run core core
        ldd "$work/core/uses_core" >"$work/log"
        says_not "grpc|protobuf"

        # Each optional component, once with its library and once without.
        for row in "simdjson simdjson libsimdjson-dev" "sqlite SQLite3 libsqlite3-dev" "redis hiredis libhiredis-dev" \
            "conformance GTest libgtest-dev"; do
            read -r component library package <<<"$row"
            without=("-DCMAKE_DISABLE_FIND_PACKAGE_$library=ON")
            refused "no_$component" "$package" "${find[@]}" "-DCONSUMER_COMPONENTS=$component" "${without[@]}"
            says "\"$component\" needs $library"
            accepted "less_$component" "${find[@]}" -DCONSUMER_COMPONENTS=core "-DCONSUMER_OPTIONAL=$component" "${without[@]}"
            says "consumer: ferry_${component}_FOUND FALSE"
            says_not "consumer: target ferry::$component"
            accepted "less_$component" "-DCMAKE_DISABLE_FIND_PACKAGE_$library=OFF"
            says "consumer: ferry_${component}_FOUND TRUE"
            says "consumer: target ferry::$component"
        done
        accepted optional "${find[@]}" "-DCONSUMER_COMPONENTS=simdjson;sqlite;redis;conformance" "${without_grpc[@]}" \
            "-DCONSUMER_PROGRAMS=simdjson;sqlite;redis;conformance"
        built_and_run optional simdjson sqlite redis conformance

        refused no_grpc "\"proto\" needs Protobuf and gRPC" "${find[@]}" -DCONSUMER_COMPONENTS=ferry "${without_grpc[@]}"
        says "libgrpc++-dev"
        refused no_default "\"proto\" needs Protobuf and gRPC" "${find[@]}" "${without_grpc[@]}"
        refused unknown "ferry has no component \"boat\". It has core, proto, ferry," "${find[@]}" -DCONSUMER_COMPONENTS=boat
        accepted unknown_optional "${find[@]}" -DCONSUMER_COMPONENTS=core -DCONSUMER_OPTIONAL=boat

        # Before 1.0 a minor version may break an interface.
        for wanted in "$minor" "$version"; do
            accepted version "${find[@]}" -DCONSUMER_COMPONENTS=core "-DCONSUMER_VERSION=$wanted"
        done
        major=${minor%.*}
        below=$major.$((${minor#*.} - 1))
        [[ $minor != *.0 ]] || below=$((major - 1)).9
        for other in "$major.$((${minor#*.} + 1))" "$((major + 1)).0" "$version.1" "$below"; do
            refused version "compatible with requested version \"$other\"" \
                "${find[@]}" -DCONSUMER_COMPONENTS=core "-DCONSUMER_VERSION=$other"
        done

        # An installation that was made without gRPC says so.
        copy_ferry
        cmake -S "$work/project/ferry" -B "$work/ferry_alone" "${settings[@]}" "${without_grpc[@]}" -DFERRY_COMPONENTS=core \
            >"$work/log" 2>&1 || failed "the core alone can't be configured"
        cmake --install "$work/ferry_alone" --prefix "$work/prefix_alone" >"$work/log" 2>&1 || failed "the core can't be installed"
        refused alone "was made without its component \"proto\"" "${find[@]}" "-Dferry_DIR=$work/prefix_alone/lib/cmake/ferry"
        accepted alone "-DCONSUMER_COMPONENTS=core"
        ;;

    subdirectory)
        subproject add_subdirectory
        # What is asked for by name is needed, and only that.
        refused named "libsimdjson-dev" -DCONSUMER_WAY=add_subdirectory "-DFERRY_COMPONENTS=core;simdjson" \
            "${without_grpc[@]}" -DCMAKE_DISABLE_FIND_PACKAGE_simdjson=ON
        refused named "has no component \"boat\"" -DFERRY_COMPONENTS=boat
        accepted named -DFERRY_COMPONENTS=core
        says_not "consumer: target ferry::(proto|ferry|simdjson|sqlite|redis|conformance)"
        accepted named "-DFERRY_COMPONENTS=core;simdjson" -DCMAKE_DISABLE_FIND_PACKAGE_simdjson=OFF \
            -DCONSUMER_PROGRAMS=simdjson
        says "consumer: target ferry::simdjson"
        built_and_run named simdjson
        # A library that the host has as a target of its own is not looked for.
        accepted brought -DCONSUMER_WAY=add_subdirectory -DFERRY_COMPONENTS=core \
            -DCONSUMER_BRINGS=nlohmann_json::nlohmann_json
        ! grep -q '^nlohmann_json_DIR' "$work/brought/CMakeCache.txt" || failed "a library is looked for that the host brings"
        ;;

    fetch_content) subproject fetch_content -DFETCHCONTENT_FULLY_DISCONNECTED=ON ;;

    *) failed "no such way" ;;
esac
