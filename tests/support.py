"""What the scripts that start processes share. SIGTERM ends them in order."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: told to end by SIGTERM"))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def lines_of(file):
    """The words of each line. Whole ones only: the last may have been cut by a kill."""
    text = file.read_text()
    return [line.split() for line in text[:text.rfind("\n") + 1].splitlines()]


def mortal(*command):
    """The same command, of a process that is killed when the one that has started it dies."""
    return ["setpriv", "--pdeathsig", "KILL", *map(str, command)]


def end_within(process, seconds, check):
    """How it ended, or None. Meanwhile check() is called again and again."""
    until = time.monotonic() + seconds
    while True:
        check()
        left = until - time.monotonic()
        try:
            return process.wait(max(0, min(left, 0.1)))
        except subprocess.TimeoutExpired:
            if left <= 0.1:
                return None


def end_of(file, size=2000):
    return file.read_text(errors="replace")[-size:]


@contextlib.contextmanager
def folder_of_run(prefix, seed, keep=False):
    """One that only its owner can enter. It is removed, unless what is done in it fails, which tells where it is."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    keeps = True
    try:
        yield folder
        keeps = keep
    finally:
        if keeps:
            print(f"logs, and what all have told: {folder} (--seed {seed})", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(folder)


class Redis:
    """One of its own, at a socket in a folder that only its owner can enter. It dies with this process."""

    def __init__(self, folder, *more):
        self.socket, self._log = folder / "redis.socket", folder / "redis.log"
        program = shutil.which("redis-server")
        if not program:
            sys.exit("error: there is no redis-server: install Debian's package redis-server")
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                mortal(program, "--port", "0", "--unixsocket", self.socket, "--dir", folder, "--save", "",
                       "--appendonly", "no", "--maxmemory-policy", "noeviction", *more),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < deadline:
            if os.path.exists(self.socket) and self._cli("PING").stdout == "PONG\n":
                return
            time.sleep(0.01)
        self.stop()
        sys.exit("error: redis-server does not answer:\n" + end_of(self._log, 1000))

    def _cli(self, *command):
        return subprocess.run(["redis-cli", "-e", "-s", self.socket, *command], capture_output=True, text=True,
                              timeout=20)

    def ask(self, *command):
        """The lines of the answer. RuntimeError where there is none, or an error."""
        try:
            answer = self._cli(*command)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"redis-server does not answer {command}") from None
        if answer.returncode != 0:
            raise RuntimeError(f"redis-server answers {command} so: {answer.stdout}{answer.stderr}")
        return answer.stdout.splitlines()

    def keys(self):
        return sorted(self.ask("--scan"))

    def hash(self, key):
        """The fields of one, and their values."""
        lines = self.ask("HGETALL", key)
        return dict(zip(lines[::2], lines[1::2]))

    def stop(self):
        self._process.kill()
        self._process.wait()
