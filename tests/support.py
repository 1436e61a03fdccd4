"""What the scripts that start processes share."""

import os
import shutil
import socket
import subprocess
import sys
import time


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def lines_of(file):
    """The words of each line. Whole ones only: the last may have been cut by a kill."""
    text = file.read_text()
    return [line.split() for line in text[:text.rfind("\n") + 1].splitlines()]


class Redis:
    """One of its own, at a socket in a folder that only its owner can enter. It dies with this process."""

    def __init__(self, folder, *more):
        self.socket, self._log = folder / "redis.socket", folder / "redis.log"
        program = shutil.which("redis-server")
        if not program:
            sys.exit("error: there is no redis-server: install Debian's package redis-server")
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, "--port", "0", "--unixsocket", self.socket, "--dir", folder,
                 "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", *map(str, more)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < deadline:
            if os.path.exists(self.socket) and self._cli("PING") == "PONG":
                return
            time.sleep(0.01)
        self.stop()
        sys.exit("error: redis-server does not answer:\n" + self._log.read_text(errors="replace")[-1000:])

    def _cli(self, *command):
        return subprocess.run(["redis-cli", "-s", self.socket, *command], capture_output=True, text=True).stdout.strip()

    def keys(self):
        return sorted(self._cli("--scan").splitlines())

    def stop(self):
        self._process.kill()
        self._process.wait()
