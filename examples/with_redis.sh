#!/usr/bin/env bash
# Runs a program with a Redis of its own, which is gone afterwards: the path of its socket is the program's last argument.
#
#   bash examples/with_redis.sh build/default/examples/shared
set -euo pipefail
if ! command -v redis-server >/dev/null; then
    echo "error: there is no redis-server: install Debian's package redis-server" >&2
    exit 1
fi

folder=$(mktemp -d "${TMPDIR:-/tmp}/ferry-redis.XXXXXX")
redis=
trap '[[ -z $redis ]] || kill "$redis" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
setpriv --pdeathsig KILL redis-server --port 0 --unixsocket "$folder/socket" --unixsocketperm 700 --dir "$folder" --save "" \
    --maxmemory-policy noeviction >"$folder/log" 2>&1 &
redis=$!
until [[ $(redis-cli -s "$folder/socket" PING 2>/dev/null) == PONG ]]; do
    if ! kill -0 "$redis" 2>/dev/null; then
        cat "$folder/log" >&2
        echo "error: redis-server has ended" >&2
        exit 1
    fi
    sleep 0.05
done
"$@" "$folder/socket"
