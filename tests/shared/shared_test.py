"""Servers that share a store send tasks to nodes that are connected to any of them. They are killed (SIGKILL) at moments of
chance and started again at the same port under the same name, or stopped (SIGSTOP) for longer than their lease and continued.
What a server was still telling when it was killed its next life sends again, under the same request id. In the end all run,
and the books must balance:

  lost       what was accepted was run, and did not fail; what was not accepted was run, or its failure was reported
  twice      nothing was run more often than it was sent, or twice after it was accepted: nodes know a task again
  settled    nothing was run after a server had said that it had ended
  order      each node ran what one life of a server had sent it in the order of sending
  ended      each handle of a life that nobody killed has ended exactly once, those of the others at most once
  reply      the reply to each request has come: to its handle, to one of a later life, or as an unclaimed one; and once, but
             where a server was killed that had it already; never more than once in one life, or once for each run
  bytes      no task or reply has a wrong byte
  process    no process ended by itself, and all end well when told to
  left       nothing but bookkeeping is left in Redis, and no content counts there
  late       all of it was over in time

    shared_test.py PEER [--tasks N] [--kills N] [--seed N] [--sqlite] [--keep]

With --sqlite one server has a store of its own, which tries the test itself; --keep leaves the folder with what all
have told, as a failure does.
"""

import argparse
import collections
import dataclasses
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support import Redis, end_of, folder_of_run, free_port, lines_of

NODES = 12
LARGE = 5_000_000  # each 50th; the others are small
FAILURES = {"store_failed", "queue_full"}  # may be reported of what was not accepted, which is counted
MOST_FAILURES = 0.01  # of all tasks
SECONDS_TO_END = 60  # after the last fault, for what is open
BETWEEN_FAULTS = (0.3, 3.0)
DOWN = ((0.5, 0, 0.1), (0.3, 0.1, 1.5), (0.2, 2.5, 4))  # seconds after a kill, and how often: the last is past the lease
STOPPED = (2.5, 4)  # past the lease
KILLS_TO_A_STOP = 4

# Keys that may be left, and how many at most; `redis_scripts.hpp` has them all.
BOOKKEEPING = re.compile(r"^ferry:(format|servers|nodes|places|bytes|run|grace|forget_after|(alive|known|owned):server-\d+|[ns]:node-\d+)$")
MOST_KEYS = 20 + 2 * NODES


@dataclasses.dataclass
class Task:
    number: int
    server: int
    node: str
    asks: bool
    size: int
    sent: list = dataclasses.field(default_factory=list)  # by which life
    accepted: int = 0  # when
    ends: list = dataclasses.field(default_factory=list)  # (life, kind, time)
    runs: list = dataclasses.field(default_factory=list)  # times
    handled: list = dataclasses.field(default_factory=list)  # by which life

    def failed(self):
        return any(kind in FAILURES for _, kind, _ in self.ends)

    def is_lost(self):
        """One that was sent again may fail where it had been run: its reply is known."""
        if self.failed():
            return bool(self.accepted) and (len(self.sent) == 1 or not self.runs)
        return not self.runs

    def is_over(self):
        if self.failed():
            return True
        return bool(self.sent) and bool(self.runs) and (bool(self.handled) or not self.asks)


class Broken(Exception):
    pass


class Life:
    """A process, and what it tells."""

    def __init__(self, folder, name, peer, *arguments):
        self.name, self.out, self.log = name, folder / name, folder / f"{name}.log"
        with open(self.out, "wb") as out, open(self.log, "wb") as errors:
            self.process = subprocess.Popen([peer, *map(str, arguments)], stdin=subprocess.PIPE, stdout=out, stderr=errors)
        self.killed, self.read, self.known, self.open = False, 0, 0, None

    def tell(self, line):
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            self.kill()
            raise Broken(f"process: {self.name} ended by itself ({self.process.returncode})") from None

    def new_lines(self):
        with open(self.out, "rb") as file:
            file.seek(self.read)
            told = file.read()
        told = told[:told.rfind(b"\n") + 1]
        self.read += len(told)
        return [line.split() for line in told.decode().splitlines()]

    def check(self):
        if not self.killed and self.process.poll() is not None:
            raise Broken(f"process: {self.name} ended by itself ({self.process.returncode})")

    def kill(self):
        self.killed = True
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.stdin.close()
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise Broken(f"process: {self.name} does not stop") from None
        if status != 0:
            raise Broken(f"process: {self.name} failed ({status})")


class Server:
    """All lives under one name."""

    def __init__(self, index, port):
        self.index, self.port, self.lives = index, port, []
        self.waiting = collections.deque()  # tasks to be sent
        self.given = []  # to the life of now, in their order
        self.down_until, self.stopped_until = None, None

    def is_running(self):
        return self.down_until is None and self.stopped_until is None


class Run:
    def __init__(self, given, seed, folder):
        self.given, self.chance, self.folder = given, random.Random(seed), folder
        self.redis, self.nodes = None, None
        count = 1 if given.sqlite else 3
        self.servers = [Server(i, free_port()) for i in range(count)]
        self.tasks, self.to_release = [], [collections.deque() for _ in self.servers]
        for number in range(given.tasks):
            server, k = number % count, number // count
            self.tasks.append(Task(number, server, f"node-{k % NODES}", (k + k // NODES) % 2 == 1,
                                   LARGE if number % 50 == 49 else 200 + number % 1000))
            self.to_release[server].append(self.tasks[-1])
        self.kills = self.stops = self.sent_again = 0

    # --- what the processes do ---------------------------------------------------------------------------------------------

    def begin(self):
        if self.given.sqlite:
            self.store = f"sqlite:{self.folder}/journals"
        else:
            self.redis = Redis(self.folder)
            self.store = f"redis:{self.redis.socket}"
        for server in self.servers:
            self.start(server)
        self.nodes = Life(self.folder, "nodes", self.given.peer, "nodes", NODES, *(each.port for each in self.servers))
        deadline = time.monotonic() + 30
        while any(each.lives[0].known < NODES for each in self.servers):  # each knows them before it sends to them
            if time.monotonic() > deadline:
                raise Broken(f"late: known nodes: {[each.lives[0].known for each in self.servers]}")
            self.count()
            time.sleep(0.1)
            self.step()
            self.read()

    def start(self, server):
        """What the life before was not known to have got rid of comes first."""
        again = [task for task in server.given if not task.accepted and not any(life == server.lives[-1].name
                                                                                 for life, _, _ in task.ends)]
        self.sent_again += sum(bool(task.sent) for task in again)
        server.waiting.extendleft(reversed(again))
        server.given, server.down_until = [], None
        name = f"server-{server.index}-life-{len(server.lives)}"
        server.lives.append(Life(self.folder, name, self.given.peer, "server", self.store, f"server-{server.index}",
                                 server.port))

    def feed(self, server):
        while server.waiting and server.is_running():
            task = server.waiting.popleft()
            server.given.append(task)
            server.lives[-1].tell(f"send {task.number} {task.node} {'request' if task.asks else 'send'} {task.size}")

    def release(self, number, server=None):
        """In bursts, each at one server."""
        while number > 0 and any(self.to_release):
            at = server.index if server else self.chance.choice([i for i, each in enumerate(self.to_release) if each])
            if not self.to_release[at]:
                return
            for _ in range(min(number, self.chance.randint(1, 8), len(self.to_release[at]))):
                self.servers[at].waiting.append(self.to_release[at].popleft())
                number -= 1

    def read(self):
        for server in self.servers:
            self.read_life(server.lives[-1])
        self.read_life(self.nodes)

    def read_life(self, life):
        for what, *rest in life.new_lines():
            if what == "serving":
                continue
            number, at = int(rest[0]), int(rest[-1])
            if what in ("known", "open"):
                setattr(life, what, number)
                continue
            if what == "wrong":
                raise Broken(f"bytes: {life.name} had wrong ones with task {number}")
            task = self.tasks[number]
            if what == "sending":
                task.sent.append(life.name)
            elif what == "accepted":
                task.accepted = task.accepted or at
            elif what == "ended":
                task.ends.append((life.name, rest[1], at))
            elif what in ("handled", "unclaimed"):
                task.handled.append(life.name)
            elif what == "run":
                if rest[1] != task.node:
                    raise Broken(f"bytes: task {number} for {task.node} was run by {rest[1]}")
                task.runs.append(at)
            else:
                raise Broken(f"process: {life.name} said: {what} {' '.join(rest)}")

    def step(self):
        now = time.monotonic()
        for server in self.servers:
            if server.down_until is not None and now >= server.down_until:
                self.start(server)
            if server.stopped_until is not None and now >= server.stopped_until:
                server.lives[-1].process.send_signal(signal.SIGCONT)
                server.stopped_until = None
            if server.down_until is None:
                server.lives[-1].check()
            self.feed(server)
        self.nodes.check()
        time.sleep(0.01)

    def disturb(self):
        """Kills one, and stops another now and then, while tasks are sent."""
        released = 0
        while self.kills < self.given.kills:
            pause = self.chance.uniform(*BETWEEN_FAULTS)
            begun, before = time.monotonic(), released
            share = (self.kills + 1) * self.given.tasks // (self.given.kills + 1) - before
            while (passed := time.monotonic() - begun) < pause or not any(each.is_running() for each in self.servers):
                due = before + int(share * min(1, passed / pause))
                self.release(due - released)
                released = max(released, due)
                self.step()
            victim = self.chance.choice([each for each in self.servers if each.is_running()])
            if self.kills % KILLS_TO_A_STOP == KILLS_TO_A_STOP - 1 and self.stops < (self.kills + 1) // KILLS_TO_A_STOP:
                victim.lives[-1].process.send_signal(signal.SIGSTOP)
                victim.stopped_until = time.monotonic() + self.chance.uniform(*STOPPED)
                self.stops += 1
                continue
            if self.chance.random() < 0.5:  # it has just begun to send
                self.release(min(8, self.given.tasks // 20), victim)
                self.feed(victim)
                time.sleep(self.chance.uniform(0, 0.01))
            victim.lives[-1].kill()
            self.read_life(victim.lives[-1])
            _, least, most = self.chance.choices(DOWN, [often for often, _, _ in DOWN])[0]
            victim.down_until = time.monotonic() + self.chance.uniform(least, most)
            self.kills += 1
        self.release(self.given.tasks)

    def finish(self):
        """Returns when nothing is open."""
        deadline, asked = time.monotonic() + SECONDS_TO_END, 0
        while True:
            self.step()
            if time.monotonic() < asked + 0.3:
                continue
            self.read()
            idle = all(each.is_running() and not each.waiting and each.lives[-1].open == 0 for each in self.servers)
            if idle and all(task.is_over() for task in self.tasks) and not self.unended():
                return
            if time.monotonic() > deadline:
                missing = [task for task in self.tasks if not task.is_over()]
                raise Broken(f"late: open at the servers: {[each.lives[-1].open for each in self.servers]}; handles that "
                             f"have not ended: {self.unended()[:10]}; {len(missing)} tasks are not over: {missing[:5]}")
            self.count()
            asked = time.monotonic()

    def count(self):
        for server in self.servers:
            if server.is_running():
                server.lives[-1].open = None
                server.lives[-1].tell("count")

    def end(self):
        for server in self.servers:
            server.lives[-1].end()
        self.nodes.end()
        self.read()

    def stop(self):
        for life in self.processes():
            life.process.kill()
            life.process.wait()
        if self.redis:
            self.redis.stop()

    # --- the books ---------------------------------------------------------------------------------------------------------

    def lives(self):
        return [life for server in self.servers for life in server.lives]

    def processes(self):
        return self.lives() + ([self.nodes] if self.nodes else [])

    def unended(self):
        living = {life.name for life in self.lives() if not life.killed}
        return [(task.number, life) for task in self.tasks for life in task.sent
                if life in living and not any(ended == life for ended, _, _ in task.ends)]

    def balance(self):
        killed = {life.name for life in self.lives() if life.killed}
        faults = collections.defaultdict(list)
        counts = collections.Counter()
        for task in self.tasks:
            if task.failed():
                counts["failures"] += 1
                counts["failures of tasks that were run"] += bool(task.runs)
            if task.is_lost():
                faults["lost"].append(f"{task.number}, {'accepted' if task.accepted else 'sent'}, ended: {task.ends}")
            if len(task.runs) > len(task.sent) or task.accepted and sum(at > task.accepted for at in task.runs) > 1:
                faults["twice"].append(task.number)
            counts["run"] += len(task.runs)
            counts["run again"] += max(0, len(task.runs) - 1)
            over = [at for _, kind, at in task.ends if kind not in FAILURES or len(task.sent) == 1]
            if over and min(over) < max(task.runs, default=0):
                faults["settled"].append(task.number)
            for life, kind, _ in task.ends:
                if kind != ("replied" if task.asks else "taken") and kind not in FAILURES:
                    faults["ended"].append(f"{task.number} at {life} as {kind}")
            for life in task.sent:
                if sum(ended == life for ended, _, _ in task.ends) > 1:
                    faults["ended"].append(f"{task.number} at {life} more than once")
            if task.asks:
                counts["replies"] += bool(task.handled)
                by_life = collections.Counter(task.handled)
                of_living = sum(times for life, times in by_life.items() if life not in killed)
                most = max(1, len(task.runs))
                too_often = of_living > most or max(by_life.values(), default=0) > most
                if too_often or not task.handled and not task.failed():
                    faults["reply"].append(f"{task.number} to {task.handled}")
                counts["replies again"] += max(0, len(task.handled) - 1)
            elif task.handled:
                faults["reply"].append(f"{task.number}, which had asked for none, to {task.handled}")
        faults["ended"] += self.unended()
        for life in self.lives():
            for node in range(NODES):
                times = [self.tasks[number].runs[0] for number in self.sent_by(life) if
                         self.tasks[number].node == f"node-{node}" and self.tasks[number].runs and
                         len(self.tasks[number].sent) == 1]
                if times != sorted(times):
                    faults["order"].append(f"{life.name} to node-{node}")
        for kind, texts in faults.items():
            if texts:
                raise Broken(f"{kind}: {len(texts)}: {texts[:10]}")
        if counts["failures"] > MOST_FAILURES * self.given.tasks:
            raise Broken(f"lost: {counts['failures']} tasks failed")
        return counts

    @staticmethod
    def sent_by(life):
        return [int(number) for what, number, *_ in lines_of(life.out) if what == "sending"]

    def left_in_redis(self):
        if not self.redis:
            return []
        try:
            keys, contents = self.redis.keys(), self.redis.hash("ferry:bytes")
        except RuntimeError as e:
            raise Broken(f"left: {e}") from None
        wrong = [key for key in keys if not BOOKKEEPING.match(key)]
        if wrong or len(keys) > MOST_KEYS or "ferry:format" not in keys:
            raise Broken(f"left: {len(wrong)} of {len(keys)} keys: {(wrong or keys)[:20]}")
        if not contents or any(int(size) for size in contents.values()):
            raise Broken(f"left: contents of so many bytes: {contents}")
        return keys


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--sqlite", action="store_true")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(10**6)
    begun = time.monotonic()
    with folder_of_run("ferry-shared.", seed, given.keep) as folder:
        run = Run(given, seed, folder)
        try:
            run.begin()
            run.disturb()
            run.finish()
            run.end()
            counts = run.balance()
            keys = run.left_in_redis()
        except Broken as e:
            named = [life for life in run.processes() if life.name in str(e)]
            for life in (named or [each.lives[-1] for each in run.servers if each.lives])[:3]:
                print(f"--- the end of the log of {life.name}:\n" + end_of(life.log), file=sys.stderr)
            sys.exit(f"error: {e} (--seed {seed})")
        finally:
            run.stop()
        print(f"{given.tasks} tasks from {len(run.servers)} servers to {NODES} nodes in {time.monotonic() - begun:.0f} s: "
              f"{counts['run']} run, {counts['replies']} replies; killed {run.kills} times, stopped {run.stops} times; "
              f"{run.sent_again} sent again, {counts['run again']} of those run again; {counts['replies again']} replies came "
              f"again; {counts['failures']} failures reported, {counts['failures of tasks that were run']} of those run; "
              f"{len(keys)} keys left (seed {seed})")


main()
