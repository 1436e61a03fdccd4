"""The main job with a store that lasts, its researcher killed (SIGKILL) at moments of chance and started again on the same
file, or on the same Redis. What it comes to must equal a run that nobody disturbed, number by number.

    job_test.py PROGRAMS DATA [--kills N] [--seed N] [--redis]

PROGRAMS is the folder with the examples that were built. Exits with 0 where all is equal.
"""

import argparse
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import Redis, end_of, end_within, folder_of_run, free_port, mortal

NODES = 4
ROUNDS = 200
SECONDS_LIMIT = 240
ROUND = re.compile(r"^ +(\d+) +\S+ +(\d+\.\d+) +(\d+\.\d+)$")  # without the training loss: it is told beside the replies
END = re.compile(r"held-out accuracy: (\S+) federated, (\S+) trained")


class Job:
    """The nodes run through; the researcher is started as often as it takes."""

    def __init__(self, programs, data, folder, store):
        self.programs, self.data, self.folder, self.store = programs, data, folder, store
        self.port = free_port()
        self.rounds, self.end, self.output = {}, None, []
        self.nodes = [self.start("node", f"node-{i}", "--id", f"node-{i}", "--researcher", f"localhost:{self.port}",
                                 "--cert", folder / "server.pem", "--shard", f"{i}/{NODES}", "--data", data)
                      for i in range(1, NODES + 1)]

    def start(self, program, log, *arguments):
        with open(self.folder / f"{log}.log", "ab") as out:
            return subprocess.Popen(mortal(self.programs / program, *arguments), stdout=out, stderr=out)

    def researcher(self):
        store = ["--store", self.store, "--checkpoint", f"{self.folder}/model"] if self.store else []
        return self.start("researcher", "researcher", "--port", self.port, "--nodes", NODES, "--rounds", ROUNDS,
                          "--key", self.folder / "server.key", "--cert", self.folder / "server.pem", "--data", self.data,
                          "--payload-mb", 1, "--reply-mb", 1, "--patience", 60, *store)

    def read(self):
        """What has been told of rounds so far: a round that was told twice must have been told alike."""
        for line in (self.folder / "researcher.log").read_text(errors="replace").splitlines():
            if told := ROUND.match(line):
                before = self.rounds.setdefault(int(told[1]), told.groups())
                if before != told.groups():
                    sys.exit(f"error: round {told[1]} came to {told.groups()} after it had come to {before}")
            if told := END.search(line):
                self.end = told.groups()

    def check_nodes(self):
        """They end when the researcher says so, and well."""
        for i, node in enumerate(self.nodes, 1):
            if node.poll():
                sys.exit(f"error: node-{i} ended by itself ({node.returncode}):\n" +
                         end_of(self.folder / f"node-{i}.log"))

    def stop(self):
        for each in self.nodes:
            each.kill()
            each.wait()


def run(job, kills, chance, deadline):
    """Kills the researcher so often: some seconds after it has told of a round, or at its start. Returns how often it was."""
    life = None
    try:
        killed = 0
        while True:
            life = job.researcher()
            status = None
            if killed < kills:
                if chance.random() < 0.8:
                    known = len(job.rounds)
                    while status is None and len(job.rounds) == known and time.monotonic() < deadline:
                        status = end_within(life, 0.005, job.check_nodes)
                        job.read()
                if status is None:
                    status = end_within(life, chance.uniform(0, 0.08), job.check_nodes)
                if status is None and job.end is None:
                    life.send_signal(signal.SIGKILL)
                    life.wait()
                    killed += 1
                    continue
            if status is None:
                status = end_within(life, max(0, deadline - time.monotonic()), job.check_nodes)
            job.read()
            if status == 0:
                job.check_nodes()
                return killed
            sys.exit(f"error: the researcher {'did not end in time' if status is None else f'failed ({status})'}:\n" +
                     end_of(job.folder / "researcher.log"))
    finally:
        if life:
            life.kill()
            life.wait()
        job.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--redis", action="store_true")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(10**6)
    with folder_of_run("ferry-restart.", seed) as folder:
        compare(given, seed, folder)


def compare(given, seed, folder):
    chance = random.Random(seed)
    deadline = time.monotonic() + SECONDS_LIMIT
    redis = None
    try:
        for each in ("quiet", "killed"):
            (folder / each).mkdir(mode=0o700)
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                            "-days", "2", "-subj", "/O=researcher-1/CN=localhost", "-addext",
                            "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / each / "server.key", "-out",
                            folder / each / "server.pem"], check=True, capture_output=True)
        quiet = Job(given.programs, given.data, folder / "quiet", store=None)
        run(quiet, 0, chance, deadline)
        redis = Redis(folder) if given.redis else None
        store = f"redis:{redis.socket}" if redis else f"sqlite:{folder}/killed/journals"
        killed = Job(given.programs, given.data, folder / "killed", store)
        kills = run(killed, given.kills, chance, deadline)
        went_on = (folder / "killed" / "researcher.log").read_text().count("of the run before")
        if killed.rounds != quiet.rounds or len(quiet.rounds) != ROUNDS or killed.end != quiet.end:
            sys.exit(f"error: the results differ (--seed {seed}):\n{quiet.rounds}\n{quiet.end}\n{killed.rounds}\n{killed.end}")
        if kills < given.kills:
            sys.exit(f"error: the rounds were over after {kills} kills (--seed {seed}): too few rounds for the test")
        if went_on < kills // 6:
            sys.exit(f"error: only {went_on} of {kills} kills left tasks open for the next life (--seed {seed})")
        print(f"{ROUNDS} rounds with {NODES} nodes, the researcher killed {kills} times (seed {seed}), {went_on} times with "
              f"tasks open: loss and accuracy of each round and the end equal the undisturbed run's ({quiet.end[0]})")
    finally:
        if redis:
            redis.stop()


main()
