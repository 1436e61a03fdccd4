# The Debian packages by purpose, and the one routine that installs them. Sourced by bash.

# Prints the packages for one purpose.
ferry_packages() {
    case $1 in
        core)
            echo g++ cmake ninja-build pkg-config ccache libgrpc++-dev libprotobuf-dev protobuf-compiler \
                protobuf-compiler-grpc libmsgpack-cxx-dev nlohmann-json3-dev
            ;;
        examples) echo libcli11-dev libssl-dev libsqlite3-dev libhiredis-dev openssl ;;
        tests) echo libgtest-dev libgmock-dev libbenchmark-dev libconcurrentqueue-dev libsimdjson-dev libsqlite3-dev libhiredis-dev \
                redis-server libcli11-dev libssl-dev openssl python3 python3-grpcio python3-protobuf python3-msgpack python3-numpy ;;
        ci) echo clang-14 clang clang-format-14 clang-tidy-14 libclang-rt-14-dev git ;;
        *)
            echo "ferry_packages: no such purpose: $1" >&2
            return 1
            ;;
    esac
}

# Prints those packages for the purposes given that are not installed, in one line.
ferry_missing() {
    local purpose package installed
    local -a wanted=() missing=()
    for purpose in "$@"; do
        # The names hold no blanks.
        # shellcheck disable=SC2207
        wanted+=($(ferry_packages "$purpose"))
    done
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
    for package in "${wanted[@]}"; do
        if ! grep -qxF "installed $package" <<<"$installed" && [[ " ${missing[*]:-} " != *" $package "* ]]; then
            missing+=("$package")
        fi
    done
    echo "${missing[*]:-}"
}

# Installs what is missing for the purposes given, or says what to do. Silent where nothing is missing.
ferry_require() {
    local missing log purpose
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        {
            echo "error: this system has no dpkg-query or no apt-get, so it is not Debian, and nothing can be installed here."
            echo "Install the equivalents of these Debian 12 packages yourself:"
            for purpose in "$@"; do echo "    $(ferry_packages "$purpose")"; done
            echo "Then build with: cmake --preset default && cmake --build --preset default"
        } >&2
        exit 1
    fi
    missing=$(ferry_missing "$@")
    [[ -z $missing ]] && return 0

    if [[ $(id -u) -ne 0 ]]; then
        {
            echo "error: these packages are missing: $missing"
            echo "Only root can install them. Run this as root, then run this script again:"
            echo "    apt-get update && apt-get install -y --no-install-recommends $missing"
        } >&2
        exit 1
    fi

    echo "Installing packages: $missing"
    log=$(mktemp "${TMPDIR:-/tmp}/ferry-packages.XXXXXX")
    # shellcheck disable=SC2086
    if ! {
        apt-get -o DPkg::Lock::Timeout=300 update &&
            DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing
    } </dev/null >"$log" 2>&1; then
        {
            tail -n 25 "$log"
            echo "error: apt-get could not install: $missing"
            echo "Above are its last lines; the whole log is $log."
            echo "Check the network and the package sources, then run this script again."
        } >&2
        exit 1
    fi
    rm -f "$log"
    missing=$(ferry_missing "$@")
    if [[ -n $missing ]]; then
        echo "error: apt-get reported success, but these packages are still missing: $missing" >&2
        exit 1
    fi
}
