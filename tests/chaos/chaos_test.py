"""A server and nodes over TLS, as processes that are killed, stopped and restarted and whose connections are cut, while
tasks of all sizes are on their way. In the end the books must balance:

  unended     a task that was accepted has ended in exactly one outcome
  failed      and well: it was taken or replied. Only a request that its node had done when it was killed may expire:
              its reply went with the node
  missing     all tasks were sent, and as many outcomes reported
  unrun       what was replied was begun by some life of its node
  lost        what was taken was begun by some life of its node
  unfinished  and finished
  unreplied   a request that was finished by a node's last life, which nobody killed, was replied
  twice       no task is begun twice in one life of a node
  order       first begins within a life are in the order of sending
  bytes       no task or reply has a wrong byte, or came to another node
  process     no process ended by itself, and all end well when told to
  late        all of it was over in time
  untried     the faults have hit something: tasks were sent again, and told to be a later attempt; with very many
              faults, some were in the middle of a large message

A life is a node's process from its start to its end. What is tolerated by --tolerate is counted, and fails nothing.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

SHORT = {"tasks": 400, "big": 4, "faults": 30, "seconds_limit": 120, "reply_within": 20}
LONG = {"tasks": 2000, "big": 12, "faults": 120, "seconds_limit": 600, "reply_within": 45}
VOLLEY = (1, 5)  # faults that follow the release of some tasks
PAUSES = {"in a volley": (0, 0.15), "between volleys": (0.5, 2.5)}  # in seconds
BYTES_PER_SECOND = (20e6, 80e6)  # of a connection; slow enough for a fault to hit a transfer
FAULTS = {
    "kill": "SIGKILL, and started again",
    "stop": "SIGSTOP, and SIGCONT after a while",
    "cut (RST)": "a node's connections are reset",
    "cut (FIN)": "a node's connections are closed",
    "held": "a node's connections hold all bytes, and are then cut",
    "swallowed": "a node's connections swallow all bytes, and are then cut",
}
# For something to be sent again, and for a large message to be hit, for certain; with ten times as many tasks.
ENOUGH_FAULTS, VERY_MANY_FAULTS = 30, 100
VIOLATIONS = ("unended", "failed", "missing", "unrun", "lost", "unfinished", "unreplied", "twice", "order", "bytes",
              "process", "late", "untried")
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


class Violations:
    def __init__(self, tolerated):
        self.tolerated = tolerated
        self.texts = collections.defaultdict(list)

    def add(self, kind, text):
        self.texts[kind].append(text)

    def fatal(self):
        return [kind for kind, texts in self.texts.items() if texts and kind not in self.tolerated]


# --- connections -----------------------------------------------------------------------------------------------------------


class Connection:
    def __init__(self, rate):
        self.over = asyncio.get_running_loop().create_future()
        self.mode = "flows"  # or "held", "swallowed"
        self.rate = rate
        self.reset = False
        self.recent = collections.deque(maxlen=8)  # (time, bytes)

    def end(self, reset):
        if not self.over.done():
            self.reset = reset
            self.over.set_result(None)

    def is_busy(self):
        """Whether a large message is under way."""
        now = time.monotonic()
        return sum(size for at, size in self.recent if now - at < 0.1) > 300_000


class Proxy:
    """Stands between a node and the server. All its bytes pass here."""

    def __init__(self, port, choices):
        self._target = ("127.0.0.1", port)
        self._choices = choices
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self.connections = set()
        self._serving = set()
        self._accepting = asyncio.create_task(self._accept())

    def flowing(self):
        return [c for c in self.connections if c.mode == "flows" and not c.over.done()]

    async def close(self):
        self._accepting.cancel()
        for each in list(self.connections):
            each.end(reset=False)
        await asyncio.gather(self._accepting, *self._serving, return_exceptions=True)
        self._listener.close()

    async def _accept(self):
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            task = asyncio.create_task(self._serve(client))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, client):
        each = Connection(self._choices.uniform(*BYTES_PER_SECOND))
        server = socket.socket()
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(server, self._target)
            self.connections.add(each)
            pumps = [asyncio.create_task(self._pump(each, *ends)) for ends in ((client, server), (server, client))]
            await asyncio.wait([each.over, *pumps], return_when=asyncio.FIRST_COMPLETED)
            self.connections.discard(each)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            if not each.reset:
                for end in (client, server):
                    try:
                        end.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass
                await asyncio.sleep(0.1)  # closed at once, what has not been read would make it a reset
        except OSError:
            pass
        finally:
            for end in (client, server):
                if each.reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    @staticmethod
    async def _pump(each, source, sink):
        """The end of a connection that stalls goes no further either."""
        loop = asyncio.get_running_loop()
        buffer = memoryview(bytearray(1 << 17))
        while True:
            try:
                size = await loop.sock_recv_into(source, buffer)
            except OSError:
                size = 0
            if each.mode == "held" or (each.mode == "swallowed" and not size):
                await asyncio.sleep(3600)
            elif not size:
                return
            elif each.mode == "flows":
                each.recent.append((time.monotonic(), size))
                await loop.sock_sendall(sink, buffer[:size])
                if each.is_busy():
                    await asyncio.sleep(size / each.rate)


# --- processes -------------------------------------------------------------------------------------------------------------


class Process:
    """One that should live until it is told to end."""

    def __init__(self, name, run):
        self.name = name
        self._run = run
        self._errors = os.path.join(run.folder, name + ".log")
        self._environment = {k: v for k, v in os.environ.items() if k.lower() not in PROXY_VARIABLES}
        self.process = self._watching = None
        self.stopped = False
        self._may_end = False

    async def start(self, *command):
        with open(self._errors, "ab") as errors:
            self.process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=self._environment)
        self._may_end = self.stopped = False
        self._watching = asyncio.create_task(self._watch(self.process))

    def lives(self):
        return self.process is not None and self.process.returncode is None

    async def _watch(self, process):
        code = await process.wait()
        if not self._may_end:
            self._complain(process, f"ended by itself, exit code {code}")
            self._run.changed.set()

    async def kill(self):
        self._may_end = True
        if self.lives():
            self.process.kill()
        if self._watching:
            await self._watching

    async def end(self, within=30):
        """Tells it to, and says where it doesn't."""
        if not self.lives():
            return
        self._may_end = True
        self.process.stdin.close()
        try:
            code = await asyncio.wait_for(self.process.wait(), within)
        except asyncio.TimeoutError:
            self._complain(self.process, f"did not end within {within} s")
            return await self.kill()
        if code:
            self._complain(self.process, f"ended with exit code {code}")

    def _complain(self, process, text):
        self._run.violations.add("process", f"{self.name} (process {process.pid}) {text}")

    def print_errors(self):
        with open(self._errors, encoding="utf-8", errors="replace") as file:
            print(f"the end of {self.name}'s log:", *file.read().splitlines()[-5:], sep="\n  ")


class Node(Process):
    def __init__(self, run, number):
        super().__init__(f"node-{number}", run)
        self.proxy = Proxy(run.port, run.choices)
        self.notes = os.path.join(run.folder, self.name + ".notes")
        self.life = 0

    async def begin_life(self):
        self.life += 1
        await self.start(self._run.program("node"), "--id", self.name, "--port", str(self.proxy.port), "--cert",
                         self._run.cert, "--notes", self.notes, "--life", f"{self.name}/{self.life}", "--seed",
                         str(self._run.options.seed), "--spool", os.path.join(self._run.folder, self.name + ".spool"))

    def is_busy(self):
        return any(c.is_busy() for c in self.proxy.connections)

    def can_bear(self, fault):
        if fault == "kill":
            return self.lives()
        if fault == "stop":
            return self.lives() and not self.stopped
        return bool(self.proxy.flowing())

    async def suffer(self, fault, seconds):
        """Until the fault has passed."""
        if fault == "kill":
            await self.kill()
            await asyncio.sleep(seconds / 3)
            await self.begin_life()
        elif fault == "stop":
            process = self.process
            process.send_signal(signal.SIGSTOP)
            self.stopped = True
            await asyncio.sleep(seconds)
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                self.stopped = False
        elif fault.startswith("cut"):
            for each in self.proxy.flowing():
                each.end(reset=fault == "cut (RST)")
        else:
            stalled = self.proxy.flowing()
            for each in stalled:
                each.mode = fault
            await asyncio.sleep(1 + 2 * seconds)
            for each in stalled:
                each.end(reset=True)


# --- the run ---------------------------------------------------------------------------------------------------------------


class Run:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.violations = Violations(options.tolerate)
        self.choices = random.Random(options.seed)
        self.accepted = {}  # task: node
        self.ended = collections.defaultdict(list)  # task: kinds
        self.texts = collections.Counter()  # of failures
        self.counts = None
        self.pending = []
        self.resends = 0
        self.faults = collections.Counter()
        self.faults_in_transfer = 0
        self.port = None
        self.changed = asyncio.Event()
        self.server = Process("server", self)
        self.nodes = []
        self.has_nodes = False
        self._suffering = []
        self._reading = None

    def program(self, name):
        return os.path.join(self.options.programs, "ferry_chaos_" + name)

    async def perform(self):
        began = time.monotonic()
        main = asyncio.create_task(self._main())
        try:
            await asyncio.wait_for(main, self.options.seconds_limit)
        except asyncio.TimeoutError:
            self.violations.add("late", f"not over within {self.options.seconds_limit} s")
            await self._ask_for_pending()
        finally:
            for task in self._suffering:
                task.cancel()
            await asyncio.gather(*self._suffering, return_exceptions=True)
            for each in (*self.nodes, self.server):
                await each.kill()
            for node in self.nodes:
                await node.proxy.close()
        self.seconds = time.monotonic() - began

    async def _main(self):
        options = self.options
        key, self.cert = await self._make_certificate()
        await self.server.start(self.program("server"), "--cert", self.cert, "--key", key, "--nodes",
                                str(options.nodes), "--tasks", str(options.tasks), "--big", str(options.big), "--seed",
                                str(options.seed), "--reply-within", str(options.reply_within))
        self._reading = asyncio.create_task(self._read_server())
        if not await self._until(lambda: self.port):
            return
        self.nodes = [Node(self, i) for i in range(options.nodes)]
        for node in self.nodes:
            await node.begin_life()
        if not await self._until(lambda: self.has_nodes):
            return
        done = 0
        while done < options.faults:
            volley = min(self.choices.randint(*VOLLEY), options.faults - done)
            self._order(f"go {options.tasks * (done + volley) // (options.faults + 1)}")
            for done in range(done + 1, done + volley + 1):
                await self._pause("in a volley")
                if not await self._inject(done - 1):
                    return
            await self._pause("between volleys")
        self._order(f"go {options.tasks}")
        await asyncio.gather(*self._suffering)
        if not await self._until(lambda: self.counts):
            return
        await asyncio.gather(*(node.end() for node in self.nodes))
        await self.server.end()
        await self._reading

    async def _inject(self, number):
        """The kinds take turns. Who has something to do is hit more often. False where a process is gone."""
        if number % len(FAULTS) == 0:
            self._deck = self.choices.sample(list(FAULTS), len(FAULTS))
        fault = self._deck[number % len(FAULTS)]
        while not (able := [node for node in self.nodes if node.can_bear(fault)]):
            await asyncio.sleep(0.05)
            if self._is_broken():
                return False
        owing = {node for task, node in self.accepted.items() if task not in self.ended}
        preferred = [([node for node in able if node.is_busy()], 0.5), ([n for n in able if n.name in owing], 0.8)]
        among = next((nodes for nodes, share in preferred if nodes and self.choices.random() < share), able)
        node = self.choices.choice(among)
        self.faults[fault] += 1
        self.faults_in_transfer += node.is_busy()
        self._suffering.append(asyncio.create_task(node.suffer(fault, self.choices.uniform(0.2, 3))))
        return not self._is_broken()

    def _is_broken(self):
        return self._reading.done() or bool(self.violations.texts["process"])

    async def _pause(self, kind):
        await asyncio.sleep(self.choices.uniform(*PAUSES[kind]))

    async def _until(self, condition):
        """False where a process has ended before that should not."""
        while not condition():
            self.changed.clear()
            if self._reading.done():
                await self._reading
            if self._is_broken():
                return False
            await self.changed.wait()
        return True

    def _order(self, line):
        self.server.process.stdin.write(line.encode() + b"\n")

    async def _read_server(self):
        try:
            while line := (await self.server.process.stdout.readline()).decode():
                self._take(line.rstrip("\n"))
                self.changed.set()
        finally:
            self.changed.set()

    def _take(self, line):
        what, _, rest = line.partition(" ")
        if what == "listening":
            self.port = int(rest)
        elif what == "nodes":
            self.has_nodes = True
        elif what == "accepted":
            task, node = rest.split(" ")
            self.accepted[int(task)] = node
        elif what == "ended":
            task, kind, attempts, text = rest.split(" ", 3)
            self.ended[int(task)].append(kind)
            self.resends += max(0, int(attempts) - 1)
            if kind not in ("taken", "replied"):
                self.texts[f"{kind}: {text}"] += 1
        elif what == "wrong":
            self.violations.add("bytes", "the reply to task " + rest)
        elif what == "pending":
            self.pending.append(rest)
        else:
            self.counts = json.loads(line)

    async def _ask_for_pending(self):
        if self.server.lives():
            self._order("pending")
            await asyncio.sleep(2)

    async def _make_certificate(self):
        key, cert = (os.path.join(self.folder, "server." + kind) for kind in ("key", "pem"))
        made = await asyncio.create_subprocess_exec(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "2", "-subj", "/O=a-researcher/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", key, "-out", cert, stderr=subprocess.DEVNULL)
        if await made.wait():
            raise RuntimeError("openssl could not make a certificate")
        return key, cert


# --- the tally -------------------------------------------------------------------------------------------------------------


class Tally:
    """What the nodes' notes and the server's words come to."""

    def __init__(self, run):
        self._run, self._violations = run, run.violations
        self.begun = collections.Counter()  # task: times
        self.finished = set()
        self.finished_at_last = set()
        self.lives = 0
        self.later_attempts = 0
        self.died_with_node = 0
        for node in run.nodes:
            self._read(node)
        self._balance()
        self._check_faults()

    def _read(self, node):
        begun = {}  # life: tasks
        for line in open(node.notes, encoding="utf-8") if os.path.exists(node.notes) else ():
            what, task, attempt, life, *more = line.split(maxsplit=4)
            task = int(task)
            if what == "bad":
                self._violations.add("bytes", f"task {task} in {life}: {''.join(more).strip()}")
            elif what == "end":
                self.finished.add(task)
                if life == f"{node.name}/{node.life}":
                    self.finished_at_last.add(task)
            else:
                self._begin(node, task, life, begun.setdefault(life, []))
                self.later_attempts += int(attempt) > 1
        self.lives += len(begun)

    def _begin(self, node, task, life, before):
        self.begun[task] += 1
        if self._run.accepted.get(task) != node.name:
            self._violations.add("bytes", f"task {task} of {self._run.accepted.get(task)} came to {node.name}")
        if task in before:
            return self._violations.add("twice", f"task {task} was begun twice in {life}")
        if before and task < max(before):
            self._violations.add("order", f"task {task} was begun after {max(before)} in {life}")
        before.append(task)

    def _balance(self):
        run, add = self._run, self._violations.add
        for task in run.accepted:
            kinds = run.ended.get(task, [])
            if len(kinds) != 1:
                add("unended", f"task {task} of {run.accepted[task]} ended {len(kinds)} times: {kinds}")
            elif kinds[0] not in ("taken", "replied"):
                self._failed(task, kinds[0])
            elif not self.begun[task]:
                add("lost" if kinds[0] == "taken" else "unrun",
                    f"task {task} of {run.accepted[task]} was {kinds[0]}, and never begun")
            elif kinds[0] == "taken" and task not in self.finished:
                add("unfinished", f"task {task} of {run.accepted[task]} was begun, and never finished")
        wanted = run.options.tasks
        if len(run.accepted) != wanted:
            add("missing", f"{len(run.accepted)} of {wanted} tasks were accepted")
        outcomes = sum(map(len, run.ended.values()))
        if outcomes != len(run.accepted):
            add("missing", f"{len(run.accepted)} tasks were accepted, and {outcomes} outcomes reported")
        if run.counts and (run.counts["sent"] != wanted or sum(run.counts["outcomes"].values()) != wanted):
            add("missing", f"the server's own counts: {run.counts}")
        if sum(run.faults.values()) != run.options.faults:
            add("missing", f"{sum(run.faults.values())} of {run.options.faults} faults were done")

    def _failed(self, task, kind):
        name = f"task {task} of {self._run.accepted[task]}"
        if task in self.finished_at_last:
            self._violations.add("unreplied", f"{name} was finished, and {kind}")
        elif task in self.finished and kind == "expired":
            self.died_with_node += 1
        else:
            self._violations.add("failed", f"{name} ended as {kind}")

    def _check_faults(self):
        run, faults = self._run, sum(self._run.faults.values())
        wanted = [("task was sent again", run.resends, ENOUGH_FAULTS),
                  ("task was told to be a later attempt", self.later_attempts, ENOUGH_FAULTS)]
        if run.options.big:
            wanted.append(("fault was in the middle of a large message", run.faults_in_transfer, VERY_MANY_FAULTS))
        for what, number, least in wanted:
            if min(faults, run.options.tasks // 10) >= least and not number:
                self._violations.add("untried", f"no {what}, with {faults} faults")

    def print(self):
        run, options = self._run, self._run.options
        outcomes = collections.Counter(kind for kinds in run.ended.values() for kind in kinds)
        again = sum(times - 1 for times in self.begun.values())

        def row(name, value, text=""):
            print(f"  {name:<22}{value:>8}  {text}".rstrip())

        row("seed", options.seed)
        row("seconds", f"{run.seconds:.1f}")
        row("nodes", len(run.nodes), f"in {self.lives} lives that began a task")
        row("faults", sum(run.faults.values()), f"of these, {run.faults_in_transfer} in the middle of a large message")
        for kind, text in FAULTS.items():
            row("  " + kind, run.faults[kind], text)
        row("tasks accepted", len(run.accepted), f"{options.big} of them of 50 MB; as many replies of 20 MB")
        for kind, number in sorted(outcomes.items()):
            row("  " + kind, number)
        row("died with their node", self.died_with_node, "requests whose replies did")
        row("sent again", run.resends)
        row("begun again", again, f"of these, {self.later_attempts} were told to be a later attempt")
        row("violations", sum(map(len, self._violations.texts.values())))
        for kind in VIOLATIONS:
            tolerated = "tolerated" if kind in self._violations.tolerated else ""
            row("  " + kind, len(self._violations.texts[kind]), tolerated)
        for title, lines in (("failures", [f"{n} times {text}" for text, n in run.texts.most_common(5)]),
                             ("still pending", run.pending[:40]),
                             *((kind, self._violations.texts[kind][:10]) for kind in VIOLATIONS)):
            if lines:
                print(f"{title}:", *lines, sep="\n  ")


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="the folder of ferry_chaos_server and ferry_chaos_node")
    parser.add_argument("--long", action="store_true", help=f"{LONG} instead of {SHORT}")
    for name in SHORT:
        parser.add_argument("--" + name.replace("_", "-"), type=int, metavar="N")
    parser.add_argument("--nodes", type=int, default=8, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of contents, and of which faults hit whom")
    parser.add_argument("--tolerate", default="", metavar="KIND,...", help="violations that fail nothing")
    parser.add_argument("--keep", action="store_true", help="keep the folder of logs, as a failure does")
    options = parser.parse_args()
    for name, value in (LONG if options.long else SHORT).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.tolerate = [kind for kind in options.tolerate.split(",") if kind]
    if unknown := set(options.tolerate) - set(VIOLATIONS):
        parser.error(f"there is no violation called {', '.join(unknown)}")
    return options


async def perform(options, folder):
    run = Run(options, folder)
    await run.perform()
    return run


def main():
    options = read_options()
    folder = tempfile.mkdtemp(prefix="ferry_chaos_")
    keep = True
    try:
        run = asyncio.run(perform(options, folder))
        Tally(run).print()
        fatal = run.violations.fatal()
        keep = options.keep or bool(fatal)
        if fatal:
            for each in (run.server, *run.nodes):
                each.print_errors()
            print(f"FAILED: {', '.join(fatal)}")
            return 1
        tolerated = [kind for kind, texts in run.violations.texts.items() if texts]
        print("The books balance" + (f", but for what is tolerated: {', '.join(tolerated)}." if tolerated else "."))
        return 0
    finally:
        if keep:
            print(f"logs and notes: {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
