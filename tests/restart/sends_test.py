"""A server whose store lasts sends tasks to two nodes, and is killed (SIGKILL) at moments of chance and started again on the
same file. In the end:

  lost      what was accepted was run, whole and with its bytes as they were
  twice     nothing was run twice: the nodes, which nobody kills, know a task again that a later server sends
  settled   nothing was run after a server had said that it had ended
  order     each node ran its tasks in the order of sending

    sends_test.py PEER [--kills N] [--seed N]
"""

import argparse
import collections
import itertools
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import end_of, end_within, folder_of_run, free_port, lines_of

SECONDS_LIMIT = 200
LEAST = 100  # tasks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(10**6)
    with folder_of_run("ferry-restart.", seed) as folder:
        run(given, seed, folder)


def run(given, seed, folder):
    chance = random.Random(seed)
    deadline = time.monotonic() + SECONDS_LIMIT
    store, port = folder / "journals", free_port()
    processes = []

    def start(log, *arguments):
        with open(folder / log, "wb") as out, open(folder / f"{log}.log", "wb") as errors:
            processes.append(subprocess.Popen([given.peer, *map(str, arguments)], stdout=out, stderr=errors))
        return processes[-1]

    def fail(why):
        sys.exit(f"error: {why} (--seed {seed})")

    def check_nodes():
        for i, node in enumerate(nodes):
            if node.poll() is not None:
                fail(f"node {i} ended by itself ({node.returncode}):\n" + end_of(folder / f"node-{i}.log"))

    try:
        nodes = [start(f"node-{i}", "node", f"node-{i}", port) for i in range(2)]
        sending, accepted, ended, opened = 0, {}, {}, []
        for life in itertools.count():
            # On a slow machine, until there is enough to look at.
            is_enough = len(accepted.keys() | ended.keys()) >= LEAST or time.monotonic() > deadline - SECONDS_LIMIT / 2
            last = life >= given.kills and is_enough
            server = start(f"server-{life}", "server", store, port, "-" if last else sending + 1)
            status = end_within(server, deadline - time.monotonic() if last else chance.uniform(0.02, 0.5), check_nodes)
            if status is None and last:
                fail("the tasks did not come to an end in time")
            if status is None:
                server.kill()
                server.wait()
            elif status != 0:
                fail(f"server {life} failed ({status}):\n" + end_of(folder / f"server-{life}.log"))
            for what, number, *more in lines_of(folder / f"server-{life}"):
                number = int(number)
                if what == "sending":
                    sending = number
                elif what == "accepted":
                    accepted[number] = int(more[-1])
                elif what == "ended":
                    if more[0] != "taken":
                        fail(f"task {number} ended as {more[0]}")
                    ended[number] = int(more[-1])
                elif what == "open":
                    opened.append(number)
                else:
                    fail(f"server {life} said: {what} {number} {' '.join(more)}")
            if last:
                break
        check_nodes()
        runs = collections.defaultdict(list)
        for i in range(len(nodes)):
            order = []
            for what, number, *more in lines_of(folder / f"node-{i}"):
                if what != "run":
                    fail(f"node {i} said: {what} {number} {' '.join(more)}")
                runs[int(number)].append(int(more[-1]))
                order.append(int(number))
            if order != sorted(order):
                fail(f"order: node {i} ran {order}")
        must_run = set(accepted) | set(ended)
        for kind, numbers in (
                ("lost", [n for n in must_run if n not in runs]),
                ("twice", [n for n, times in runs.items() if len(times) > 1]),
                ("settled", [n for n, when in ended.items() if n in runs and max(runs[n]) > when])):
            if numbers:
                fail(f"{kind}: {sorted(numbers)}")
        if len(must_run) < LEAST:
            fail(f"only {len(must_run)} tasks were accepted: the machine is too slow for the test")
        if max(opened) == 0:
            fail("no server found a task open: they do not share the file, or nothing was on its way at a kill")
        print(f"{sending} tasks, {len(must_run)} of them known to be accepted, {len(runs)} run; the server killed {life} "
              f"times, with {max(opened)} tasks open at most; none lost, none run twice (seed {seed})")
    finally:
        for each in processes:
            each.kill()
            each.wait()


main()
