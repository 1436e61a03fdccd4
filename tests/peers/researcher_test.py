"""ferry's node and a researcher of another make."""

import collections
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zlib

import grpc
import numpy

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import wire
from connect_proxy import ConnectProxy, Relay
from researcher import ACTIVE, DISCONNECTED, WAITING, Always, Researcher
from support import mortal

HERE = os.path.dirname(os.path.abspath(__file__))
MB = 1_000_000
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")
NARROW = {"grpc.http2.bdp_probe": 0}  # little is on its way that has not been read
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


class Node(wire.Watched):
    """A process of tests/peers/node.cpp."""

    def __init__(self, *arguments, environment=None):
        super().__init__()
        program = os.path.join(os.environ["FERRY_PEERS"], "ferry_peer_node")
        clean = {k: v for k, v in os.environ.items() if k.lower() not in PROXY_VARIABLES}
        self.said = []
        self._process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         env={**clean, **(environment or {})})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            with self.changed:
                self.said.append(json.loads(line))
                self.changed.notify_all()

    def order(self, **what):
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def events(self, event, **fields):
        with self.changed:
            return [e for e in self.said if e["event"] == event and all(e.get(k) == v for k, v in fields.items())]

    def wait_event(self, event, times=1, within=wire.Watched.PATIENCE, **fields):
        return self.wait(lambda: len(self.events(event, **fields)) >= times and self.events(event, **fields),
                         f"{times} times {event} {fields}", within)[times - 1]

    def logs(self):
        return [e["text"] for e in self.events("log")]

    def wait_log(self, text):
        return self.wait(lambda: [e for e in self.logs() if text in e], f"a log line of the node's with {text!r}")[-1]

    def outcome(self, request_id, within=wire.Watched.PATIENCE):
        return self.wait_event("outcome", of=request_id, within=within)

    def tasks(self):
        return [e["message"] for e in self.events("task")]

    def close(self):
        """Its exit code."""
        self._process.stdin.close()
        try:
            code = self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(10)
        self._process.stdout.close()
        return code


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ferry_peer_")
        self.addCleanup(shutil.rmtree, self.folder)
        self.certificate = wire.make_certificate(self.folder)
        self.ids = (f"request-{i}" for i in itertools.count(1))

    def researcher(self, **options):
        made = Researcher(options.pop("certificate", self.certificate), **options)
        self.addCleanup(lambda: self.assertEqual(made.problems, []))
        self.addCleanup(made.stop)
        return made

    def node(self, port, *arguments, host="localhost", trust=None, environment=None):
        """It dials again soon, and what stands still is a failure that no retry hides."""
        made = Node("--id", "node-1", "--researcher", f"{host}:{port}", *(trust or ("--cert", self.certificate[1])),
                    "--pause", "20", "--idle", "600000", *arguments, environment=environment)
        self.addCleanup(self._close, made)
        return made

    def _close(self, node):
        code = node.close()
        result = self._outcome.result
        failed = [getattr(test, "test_case", test) for test, _ in result.failures + result.errors]  # also of a subtest
        if code or any(test is self for test in failed):
            print("the node said:", *[json.dumps(e)[:500] for e in node.said[-40:]], sep="\n  ", file=sys.stderr)
        self.assertEqual(code, 0)

    def pair(self, *arguments, **options):
        researcher = self.researcher(**options)
        node = self.node(researcher.port, *arguments)
        researcher.wait_polled("node-1")
        return researcher, node

    def relayed(self, **options):
        """With a relay between them."""
        researcher = self.researcher(**options)
        relay = self.relay(Relay(("127.0.0.1", researcher.port)))
        node = self.node(relay.port)
        researcher.wait_polled("node-1")
        return researcher, relay, node

    def relay(self, made):
        self.addCleanup(made.close)
        return made

    def make(self, kind, **fields):
        return wire.make(kind, "a-researcher", request_id=next(self.ids), **fields)

    def command(self, name, **fields):
        return {"command": name, "researcher_id": "a-researcher", "request_id": next(self.ids), **fields}

    def ask(self, researcher, message, length=wire.MAX_MESSAGE_BYTES_LENGTH, within=wire.Watched.PATIENCE):
        """The reply to it."""
        self.assertTrue(researcher.send("node-1", message, length))
        return researcher.wait_reply(message["request_id"], within)

    def assert_works(self, researcher):
        self.assertEqual(self.ask(researcher, self.command("echo", text="hello")).message["text"], "hello")

    def assert_tasks(self, node, number):
        """What a node says may come later than its reply."""
        node.wait_event("task", times=number)
        self.assertEqual(len(node.tasks()), number)

    def cut(self, relay, researcher):
        """Once the node is back: what a researcher writes to a connection of which it doesn't know yet that it is gone, is
        lost."""
        polls = len(researcher.nodes["node-1"].polls)
        relay.cut()
        researcher.wait_polled("node-1", polls + 1)

    def assert_echo(self, reply, message):
        got = dict(reply.message)
        self.assertEqual(got.pop("node_id"), "node-1")
        self.assertTrue(same(got, message), f"{got} is not {message}")

    def free_port(self):
        """Of a researcher that is gone."""
        gone = Researcher(self.certificate)
        gone.stop()
        return gone.port

    def stalling(self, stall, task, after):
        """A researcher in a process of its own that can be killed, and its port."""
        path = os.path.join(self.folder, "task")
        with open(path, "wb") as file:
            file.write(wire.dumps(task))
        process = subprocess.Popen(
            mortal(sys.executable, "-B", os.path.join(HERE, "researcher.py"), "--key", self.certificate[0], "--cert",
                   self.certificate[1], "--task", path, "--stall", stall, "--after", after),
            stdout=subprocess.PIPE, text=True)

        def kill():
            process.kill()
            process.wait()
            process.stdout.close()

        self.addCleanup(kill)
        port = json.loads(process.stdout.readline())["port"]
        return kill, port, lambda: json.loads(process.stdout.readline())["event"]


def same(a, b):
    """Equal in value and type, also where numpy is inside."""
    if isinstance(a, (numpy.ndarray, numpy.generic)) or isinstance(b, (numpy.ndarray, numpy.generic)):
        return (type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def some_bytes(size):
    return numpy.random.default_rng(size).bytes(size)


def pattern(size):
    """What a node's reply to `make` holds."""
    return ((numpy.arange(size, dtype=numpy.uint32) * numpy.uint32(2654435761)) >> numpy.uint32(24)).astype(
        numpy.uint8).tobytes()


def chunk(size, iteration, data=b""):
    return wire.TaskResponse(size=size, iteration=iteration, bytes_=data)


def ends(code, read=False):
    """A call that ends so; with `read`, after all that was sent."""
    def end(requests, context):
        if read:
            for _ in requests:
                pass
        context.abort(code, f"as scripted: {code.name}")
    return end


def ends_poll(code):
    def end(_, context):
        context.abort(code, f"as scripted: {code.name}")
        yield
    return end


def streams(*chunks):
    """A poll that carries these and ends OK."""
    return lambda *_: iter(chunks)


def hang(_, context):
    """No answer as long as the call lives."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait()


class Messages(Case):
    def test_ping(self):
        researcher, node = self.pair()
        reply = self.ask(researcher, self.make("PingRequest"))
        self.assertEqual(wire.check(reply.message), "PingReply")
        self.assertEqual(reply.message["node_id"], "node-1")
        self.assertEqual(node.outcome(reply.message["request_id"])["kind"], "taken")

    def test_search(self):
        researcher, _ = self.pair()
        reply = self.ask(researcher, self.make("SearchRequest", tags=["#MNIST", "#dataset"])).message
        self.assertEqual(wire.check(reply), "SearchReply")
        self.assertEqual(reply["databases"], [{"tags": ["#MNIST", "#dataset"]}])
        self.assertEqual(reply["count"], 1)

    def test_list(self):
        researcher, _ = self.pair()
        reply = self.ask(researcher, self.make("ListRequest")).message
        self.assertEqual(wire.check(reply), "ListReply")
        self.assertIs(reply["success"], True)

    def test_error_message(self):
        researcher, _ = self.pair()
        for errnum in (None, "FB300"):
            reply = self.ask(researcher, self.command("error", text="no such thing \u2260", errnum=errnum)).message
            self.assertEqual(wire.check(reply), "ErrorMessage")
            self.assertEqual((reply["extra_msg"], reply["errnum"]), ("no such thing \u2260", errnum))

    def test_overlay_message(self):
        researcher, node = self.pair()
        message = wire.make("OverlayMessage", "a-researcher", node_id="node-2", dest_node_id="node-1",
                            overlay=some_bytes(10_000), setup=True, salt=b"salt", nonce=b"")
        researcher.send("node-1", message)
        got = node.wait_event("task")["message"]
        self.assertEqual(got.keys(), message.keys())
        self.assertEqual(got["overlay"], {"size": 10_000, "crc32": zlib.crc32(message["overlay"])})

    def test_20_mb_both_ways(self):
        researcher, node = self.pair()
        message = self.command("echo", payload=some_bytes(20 * MB))
        reply = self.ask(researcher, message)
        self.assert_echo(reply, message)
        got = node.wait_event("task")["message"]
        self.assertEqual(got["payload"], {"size": 20 * MB, "crc32": zlib.crc32(message["payload"])})
        made = self.ask(researcher, self.command("make", bytes=20 * MB))
        self.assertEqual(made.message["payload"], pattern(20 * MB))
        self.assertEqual(made.lengths[:-1], [wire.MAX_MESSAGE_BYTES_LENGTH] * 5)

    def test_tasks_in_chunks(self):
        researcher, _ = self.pair()
        for length, size in ((1, 500), (1_000, MB), (wire.MAX_MESSAGE_BYTES_LENGTH, 20 * MB), (4_000_000, 20 * MB)):
            with self.subTest(length=length):
                message = self.command("echo", payload=some_bytes(size))
                self.assert_echo(self.ask(researcher, message, length), message)

    def test_replies_in_chunks(self):
        for chunk_arguments, length, size in ((("--chunk", "1"), 1, 500), (("--chunk", "1000"), 1_000, MB),
                                              ((), wire.MAX_MESSAGE_BYTES_LENGTH, 20 * MB)):
            with self.subTest(length=length):
                researcher, _ = self.pair(*chunk_arguments)
                message = self.command("echo", payload=some_bytes(size))
                reply = self.ask(researcher, message)
                self.assert_echo(reply, message)
                whole, rest = divmod(len(reply.payload), length)
                self.assertEqual(reply.lengths, [length] * whole + [rest] * (rest > 0))

    def test_values(self):
        researcher, _ = self.pair()
        arrays = [numpy.arange(24, dtype=kind).reshape(shape) for kind, shape in itertools.product(
            ("float32", "float64", "float16", "int8", "int64", "uint16", "complex64"), ((24,), (2, 3, 4), (4, 6)))]
        arrays += [numpy.array(True), numpy.array(2.5), numpy.zeros((0, 3), "float32"), numpy.array([True, False])]
        message = self.command(
            "echo", arrays=arrays, generics=[numpy.float32(0.1), numpy.int64(-5), numpy.bool_(True)],
            tuples=((), (1, "two", (3.0, b"4")), [(5,)]), sets={1, 2, "three"},
            ints=[0, -1, 2**63 - 1, 2**64 - 1, -2**63, 2**64, -2**63 - 1, 2**200, -2**200, 10**300],
            floats=[0.0, -0.0, 1.0, 1e308, 5e-324, float("inf")], nested={"a": {"b": [{"c": None}, True, False]}},
            int_keys={1: "one", -2: "minus two", 2**40: {3: [4]}}, mixed_keys={"a": 1, 2: "b"}, empty=[{}, [], "", b""],
            text="\u00e4\u4e2d\U0001f6a2", binary=bytes(range(256)), metric={"__type__": "MetricTypes", "value": "LOSS"},
            vector={"__type__": "Vector", "value": {"x": 1}})
        self.assert_echo(self.ask(researcher, message), message)

    def test_logs(self):
        researcher, node = self.pair()
        self.ask(researcher, self.command("log", text="from a \"task\" \u00e4"))
        node.order(log="from the client")
        for text, level in (("from a \"task\" \u00e4", "INFO"), ("from the client", "WARNING")):
            log = researcher.wait_log(text)
            self.assertEqual(log.keys(), {"asctime", "node_id", "name", "level", "message"})
            self.assertEqual((log["node_id"], log["level"], log["message"]), ("node-1", level, text))

    def test_scalars(self):
        researcher, _ = self.pair()
        self.ask(researcher, self.command("scalars"))
        got = researcher.wait(lambda: researcher.scalars, "scalars")[0]
        self.assertEqual(dict(got.metric), {"accuracy": 0.75, "loss": 0.5})
        self.assertTrue(got.HasField("epoch") and got.HasField("num_samples_trained"))
        self.assertEqual(
            {f.name: getattr(got, f.name) for f in got.DESCRIPTOR.fields if f.name != "metric"},
            {"node_id": "node-1", "experiment_id": "experiment-1", "train": True, "test": False,
             "test_on_local_updates": False, "test_on_global_updates": True, "epoch": 0, "total_samples": 100,
             "batch_samples": 20, "num_batches": 5, "num_samples_trained": 40, "iteration": 2,
             "node_name": "a node's name"})

    def test_two_replies_to_a_task(self):
        researcher, node = self.pair()
        message = self.command("twice")
        researcher.send("node-1", message)
        researcher.wait(lambda: len(researcher.replies_to(message["request_id"])) == 2, "both replies")
        node.wait_event("outcome", times=2, of=message["request_id"], kind="taken")

    def test_message_that_answers_nothing(self):
        researcher, node = self.pair()
        node.order(send={"request_id": "mine", "text": "unasked"})
        self.assertEqual(researcher.wait_reply("mine").message["node_id"], "node-1")

    def test_callback_that_throws(self):
        researcher, node = self.pair()
        researcher.send("node-1", self.command("throw", text="thrown on purpose"))
        researcher.wait_log("thrown on purpose")
        node.wait_log("thrown on purpose")
        self.assert_works(researcher)


class Damage(Case):
    """A task's stream goes wrong: reported, costs that one task, and the node goes on."""

    def assert_costs_one_task(self, *chunks, says):
        researcher = self.researcher()
        researcher.on_poll.append(streams(*chunks))
        node = self.node(researcher.port)
        self.assertIn(says, node.wait_log(says))
        researcher.wait_polled("node-1", 2)
        self.assert_works(researcher)
        self.assert_tasks(node, 1)
        return researcher

    def test_task_that_ends_early(self):
        self.assert_costs_one_task(chunk(3, 1, b"ab"), chunk(3, 2, b"cd"), says="before the task's last chunk")

    def test_chunk_0_of_0(self):
        self.assert_costs_one_task(chunk(0, 0, b"ab"), says="damaged")

    def test_chunk_that_jumps(self):
        self.assert_costs_one_task(chunk(3, 1, b"ab"), chunk(3, 3, b"cd"), says="damaged")

    def test_chunk_that_changes_size(self):
        self.assert_costs_one_task(chunk(3, 1, b"ab"), chunk(4, 2, b"cd"), says="damaged")

    def test_chunk_beyond_size(self):
        self.assert_costs_one_task(chunk(2, 3, b"ab"), says="damaged")

    def test_chunk_with_negative_numbers(self):
        self.assert_costs_one_task(chunk(-1, -1, b"ab"), says="damaged")

    def test_two_tasks_in_a_poll(self):
        payload = wire.dumps(self.command("echo"))
        self.assert_costs_one_task(chunk(1, 1, payload), chunk(1, 1, payload), says="damaged")

    def test_task_that_is_no_msgpack(self):
        self.assert_costs_one_task(chunk(1, 1, b"\xc1\xc1\xc1"), says="not msgpack").wait_log("not msgpack")

    def test_task_with_trailing_bytes(self):
        payload = wire.dumps(self.command("echo")) + b"\x00"
        self.assert_costs_one_task(chunk(1, 1, payload), says="follow the message").wait_log("follow the message")

    def test_task_cut_short(self):
        payload = wire.dumps(self.command("echo"))[:-1]
        self.assert_costs_one_task(chunk(1, 1, payload), says="ends too early").wait_log("ends too early")

    def test_empty_payload(self):
        self.assert_costs_one_task(chunk(1, 1), says="no message").wait_log("no message")

    def test_many_bad_tasks_in_a_row(self):
        researcher = self.researcher()
        researcher.on_poll.extend([streams(chunk(0, 0)), streams(chunk(1, 1, b"\xc1"))] * 10)
        self.node(researcher.port)
        researcher.wait_polled("node-1", 21)
        self.assert_works(researcher)

    def test_poll_that_brings_nothing(self):
        """The pauses grow from 100 ms by a factor of 2, and are at least the half of that."""
        researcher = self.researcher()
        researcher.on_poll.extend([streams()] * 6)
        self.node(researcher.port)
        researcher.wait_polled("node-1", 7)
        polls = researcher.nodes["node-1"].polls
        for number, (before, after) in enumerate(itertools.pairwise(polls)):
            self.assertGreaterEqual(after - before, 0.05 * 2**number)
        self.assert_works(researcher)


class Statuses(Case):
    """Each status code that a server can give, as the end of each call."""

    def test_every_status_ends_a_poll(self):
        researcher = self.researcher()
        for code in CODES:
            researcher.on_poll.extend([ends_poll(code), None])  # then one that brings a task
        node = self.node(researcher.port)
        researcher.wait_polled("node-1")
        for _ in CODES:
            self.assert_works(researcher)
        self.assertFalse(researcher.on_poll)
        self.assert_tasks(node, len(CODES))

    def test_every_status_answers_a_reply(self):
        ends_it = {"INVALID_ARGUMENT": ("refused", "protocol error"), "RESOURCE_EXHAUSTED": ("too large", "too large"),
                   "PERMISSION_DENIED": ("not permitted", "not permitted"),
                   "UNAUTHENTICATED": ("not permitted", "not permitted")}
        counts_as_attempt = {"DEADLINE_EXCEEDED", "DATA_LOSS"}
        researcher, node = self.pair()
        for code, read in itertools.product(CODES, (True, False)):
            with self.subTest(code=code.name, read=read):
                researcher.on_reply.append(ends(code, read))
                message = self.command("echo")
                researcher.send("node-1", message)
                outcome = node.outcome(message["request_id"])
                self.assertFalse(researcher.on_reply)
                if code.name in ends_it:
                    self.assertEqual((outcome["kind"], outcome["reason"]), ends_it[code.name])
                    self.assertIn(f"as scripted: {code.name}", outcome["text"])
                    self.assertEqual(researcher.replies_to(message["request_id"]), [])
                else:
                    self.assertEqual((outcome["kind"], outcome["attempts"]),
                                     ("taken", 2 if code.name in counts_as_attempt else 1))
                    self.assertEqual(len(researcher.replies_to(message["request_id"])), 1)
        self.assert_works(researcher)

    def test_every_status_answers_feedback(self):
        drops_it = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAUTHENTICATED"}
        researcher, node = self.pair()
        for code in CODES:
            with self.subTest(code=code.name):
                researcher.on_feedback.append(ends(code))
                node.order(log=f"first {code.name}")
                node.order(log=f"second {code.name}")
                researcher.wait_log(f"second {code.name}")
                self.assertFalse(researcher.on_feedback)
                lines = [each["message"] for each in researcher.logs]
                self.assertEqual(f"first {code.name}" in lines, code.name not in drops_it)
                if code.name in drops_it:
                    self.assertIn("feedback was dropped", node.wait_log(f"as scripted: {code.name}"))
        self.assert_works(researcher)

    def test_feedback_unimplemented(self):
        """Each line is tried so often, and dropped with a warning, and keeps neither tasks back nor later lines."""
        researcher, node = self.pair()
        tried = collections.Counter()

        def refuse(request, context):
            tried[request.log.msg] += 1
            ends(grpc.StatusCode.UNIMPLEMENTED)(request, context)

        researcher.on_feedback = Always(refuse)
        for number in range(10):
            node.order(log=f"of the node {number}")
            self.ask(researcher, self.command("log", text=f"of a task {number}"))
        node.wait(lambda: sum("feedback was dropped" in text for text in node.logs()) == 20, "a warning for each line")
        self.assertEqual(sorted(tried.values()), [6] * 20)
        researcher.on_feedback = collections.deque()
        node.order(log="to somebody")
        researcher.wait_log("to somebody")
        self.assertEqual(len(researcher.logs), 1)

    def test_feedback_that_is_poison(self):
        """A line that the researcher can't stand, each time anew, does not keep the others back for ever."""
        researcher, node = self.pair()

        def choke(request, context):
            if "poison" in request.log.msg:
                context.abort(grpc.StatusCode.UNKNOWN, "Exception calling application")
            return request

        researcher.on_feedback = Always(choke)
        node.order(log="poison")
        node.order(log="after it")
        researcher.wait(lambda: [each for each in researcher.logs if each["message"] == "after it"], "the other line", 20)

    def test_feedback_without_an_answer(self):
        researcher, node = self.pair()
        researcher.on_feedback.append(hang)
        node.order(log="awaits an answer")
        researcher.wait(lambda: not researcher.on_feedback, "the feedback is there")
        node.order(log="is told when that was answered")
        made = self.ask(researcher, self.command("make", bytes=20 * MB))
        self.assertEqual(made.message["payload"], pattern(20 * MB))
        self.assertEqual(researcher.logs, [])

    def test_reply_that_is_poison(self):
        researcher, node = self.pair()

        def choke(requests, context):
            first = next(requests)
            if b"poison" in first.bytes_:
                context.abort(grpc.StatusCode.UNKNOWN, "Exception iterating responses")
            return itertools.chain([first], requests)

        researcher.on_reply = Always(choke)
        researcher.send("node-1", self.command("echo", text="poison"))
        for _ in range(3):
            self.assert_works(researcher)
        self.assert_tasks(node, 4)


    def test_large_replies_that_are_poison(self):
        """Two of them, as many as are under way at once, do not keep a third back for ever."""
        researcher, _ = self.pair()
        good = self.command("make", bytes=6 * MB)

        def choke(requests, context):
            chunks = list(requests)
            if good["request_id"].encode() not in chunks[-1].bytes_:
                context.abort(grpc.StatusCode.UNKNOWN, "Exception iterating responses")
            return iter(chunks)

        researcher.on_reply = Always(choke)
        for _ in range(2):
            researcher.send("node-1", self.command("make", bytes=5 * MB))
        self.ask(researcher, good, within=20)


class Replies(Case):
    def test_answer_after_all_was_read(self):
        researcher, node = self.pair()

        def read_first(requests, _):
            return iter(list(requests))

        researcher.on_reply.append(read_first)
        made = self.ask(researcher, self.command("make", bytes=20 * MB))
        self.assertEqual(made.message["payload"], pattern(20 * MB))
        self.assertEqual(node.outcome(made.message["request_id"])["attempts"], 1)

    def test_answer_before_all_was_read(self):
        """An OK for a part is no receipt: the reply is sent again."""
        researcher, node = self.pair(settings=NARROW)
        researcher.on_reply.append(lambda requests, _: next(requests) and None)
        made = self.ask(researcher, self.command("make", bytes=20 * MB))
        self.assertEqual(made.message["payload"], pattern(20 * MB))
        outcome = node.outcome(made.message["request_id"])
        self.assertEqual((outcome["kind"], outcome["attempts"]), ("taken", 2))

    def test_answer_always_before_all_was_read(self):
        researcher, node = self.pair(settings=NARROW)
        researcher.on_reply.extend([lambda requests, _: next(requests) and None] * 6)
        message = self.command("make", bytes=20 * MB)
        researcher.send("node-1", message)
        outcome = node.outcome(message["request_id"])
        self.assertEqual((outcome["kind"], outcome["reason"], outcome["attempts"]), ("retries exhausted", "unconfirmed", 6))
        self.assert_works(researcher)

    def test_upload_that_failed_is_sent_again(self):
        """The status comes after the last write; a Python node would not notice it."""
        researcher, node = self.pair()
        for read in (True, False):
            researcher.on_reply.append(ends(grpc.StatusCode.UNAVAILABLE, read))
            made = self.ask(researcher, self.command("make", bytes=20 * MB))
            self.assertEqual(made.message["payload"], pattern(20 * MB))
            self.assertFalse(researcher.on_reply)
            self.assertEqual(node.outcome(made.message["request_id"])["kind"], "taken")
            self.assertEqual(len(researcher.replies_to(made.message["request_id"])), 1)

    def test_replies_in_any_order(self):
        researcher, node = self.pair()
        held = [self.command("hold", bytes=size) for size in (10, 5 * MB, 0, 20 * MB, 1)]
        for message in held:
            researcher.send("node-1", message)
        node.wait_event("task", times=len(held))
        for place in (2, 4, 0, 3, 1):
            node.order(release=held[place]["request_id"])
            reply = researcher.wait_reply(held[place]["request_id"])
            self.assertEqual(reply.message["payload"], pattern(held[place]["bytes"]))
        self.assertEqual([r.message["request_id"] for r in researcher.replies],
                         [held[place]["request_id"] for place in (2, 4, 0, 3, 1)])

    def test_replies_overlap(self):
        """Small ones don't wait for two that are large and stand still, and those two don't wait for one another."""
        researcher, node = self.pair()
        go_on = threading.Event()
        begun = []

        def stand_still(requests, _):
            first = next(requests)
            with researcher.changed:
                begun.append(first)
                researcher.changed.notify_all()
            go_on.wait(researcher.PATIENCE)
            return itertools.chain([first], requests)

        researcher.on_reply.extend([stand_still] * 2)
        large = [self.command("make", bytes=20 * MB) for _ in range(2)]
        for message in large:
            researcher.send("node-1", message)
        researcher.wait(lambda: len(begun) == 2, "both are under way")
        for _ in range(5):
            self.assert_works(researcher)
        for message in large:
            self.assertEqual(researcher.replies_to(message["request_id"]), [])
        go_on.set()
        for message in large:
            self.assertEqual(researcher.wait_reply(message["request_id"]).message["payload"], pattern(20 * MB))
            self.assertEqual(node.outcome(message["request_id"])["attempts"], 1)

    def test_reply_to_a_researcher_that_forgot_the_node(self):
        """It answers UNKNOWN until the node polls again."""
        researcher, relay, node = self.relayed()
        message = self.command("hold", bytes=10)
        researcher.send("node-1", message)
        node.wait_event("task")
        researcher.wait_polled("node-1", 2)
        with researcher.changed:
            researcher.nodes.clear()
        node.order(release=message["request_id"])
        researcher.wait(lambda: researcher.unknown >= 2, "the reply is answered UNKNOWN and sent again", 15)
        self.assertEqual(node.events("outcome"), [])
        relay.cut()
        researcher.wait_reply(message["request_id"])
        self.assertEqual(node.outcome(message["request_id"])["kind"], "taken")


class Losses(Case):
    def test_killed_in_mid_task(self):
        message = self.command("echo", payload=some_bytes(20 * MB))
        kill, port, said = self.stalling("task", message, after=3)
        node = self.node(port)
        self.assertEqual(said(), "stalled")
        kill()
        node.wait_log("the poll failed")
        researcher = self.researcher(port=port)
        researcher.wait_polled("node-1")
        self.assertEqual(node.tasks(), [])
        self.assert_echo(self.ask(researcher, message), message)
        self.assert_tasks(node, 1)

    def test_killed_in_mid_reply(self):
        message = self.command("make", bytes=20 * MB)
        kill, port, said = self.stalling("reply", message, after=3)
        node = self.node(port)
        self.assertEqual(said(), "stalled")
        kill()
        node.wait_log("the poll failed")
        researcher = self.researcher(port=port)
        self.assertEqual(researcher.wait_reply(message["request_id"]).message["payload"], pattern(20 * MB))
        self.assertEqual(node.outcome(message["request_id"])["kind"], "taken")
        self.assert_tasks(node, 1)

    def test_gone_and_back(self):
        before, node = self.pair()
        held = self.command("hold", bytes=5 * MB)
        before.send("node-1", held)
        node.wait_event("task")
        before.stop()
        node.wait_log("the poll failed")
        node.order(release=held["request_id"])
        node.order(log="said while nobody listened")
        after = self.researcher(port=before.port)
        self.assertEqual(after.wait_reply(held["request_id"]).message["payload"], pattern(5 * MB))
        after.wait_log("said while nobody listened")
        self.assert_works(after)

    def test_not_there_yet(self):
        port = self.free_port()
        node = self.node(port)
        node.wait_log("the poll failed")
        researcher = self.researcher(port=port)
        researcher.wait_polled("node-1")
        self.assert_works(researcher)

    def test_connections_reset(self):
        """In mid-task, in mid-reply, and while nothing moves."""
        researcher, relay, node = self.relayed()
        message = self.command("echo", payload=some_bytes(20 * MB))
        down = relay.open()[0].down
        researcher.send("node-1", message)
        relay.wait(lambda: sum(c.down for c in relay.connections) > down + MB, "a part of the task")
        relay.cut()
        up = sum(c.up for c in relay.connections)
        relay.wait(lambda: sum(c.up for c in relay.connections) > up + MB, "a part of the reply")
        relay.cut()
        self.assert_echo(researcher.wait_reply(message["request_id"]), message)
        self.assert_tasks(node, 1)
        self.cut(relay, researcher)
        self.assert_works(researcher)

    def test_pauses_start_anew_after_polls_that_lived(self):
        """A researcher says nothing to a poll before it has a task. A node whose connection breaks now and then must not
        take longer each time to come back, or it is taken for DISCONNECTED, and its tasks are discarded."""
        researcher = self.researcher(settings={"grpc.keepalive_time_ms": 500})
        relay = self.relay(Relay(("127.0.0.1", researcher.port)))
        self.node(relay.port, "--pause", "1000")  # at most; 2, 4 and 8 s after failures in a row
        researcher.wait_polled("node-1")
        for _ in range(4):
            polled = relay.connections[-1]
            before = polled.up
            relay.wait(lambda: polled.up >= before + 6 * 17, "the server's pings are answered for longer than a pause")
            cut = time.monotonic()
            self.cut(relay, researcher)
            self.assertLess(researcher.nodes["node-1"].polls[-1] - cut, 3.5)

    def test_status_by_polls(self):
        researcher, node = self.pair(disconnect_after=0.5)
        self.assertEqual(researcher.status("node-1"), ACTIVE)
        self.assertEqual(researcher.status("node-2"), None)
        self.assertEqual(node.close(), 0)
        researcher.wait(lambda: researcher.status("node-1") in (WAITING, DISCONNECTED), "the poll ends")
        researcher.wait(lambda: researcher.status("node-1") == DISCONNECTED, "the node is taken for gone")
        self.assertFalse(researcher.send("node-1", self.command("echo")))
        self.node(researcher.port)
        researcher.wait(lambda: researcher.status("node-1") == ACTIVE, "it is back")
        self.assert_works(researcher)


class Connections(Case):
    """What a server does with connections, and what may stand between."""

    def test_maximum_age_while_polls_are_open(self):
        researcher, node = self.pair(settings={"grpc.max_connection_age_ms": 500, "grpc.max_connection_age_grace_ms": 500})
        seen = researcher.nodes["node-1"]
        asked, deadline = 0, time.monotonic() + researcher.PATIENCE
        while len(set(seen.peers)) < 4:
            self.assertLess(time.monotonic(), deadline, "connections of no great age are not replaced")
            self.assert_works(researcher)
            asked += 1
        self.assertEqual(len({r.message["request_id"] for r in researcher.replies}), asked)
        connections = len(set(seen.peers))
        researcher.wait(lambda: len(set(seen.peers)) >= connections + 2, "two more connections without a task")
        self.assert_works(researcher)
        self.assertEqual(node.outcome(researcher.replies[-1].message["request_id"])["kind"], "taken")

    def test_maximum_age_while_a_task_is_under_way(self):
        researcher = self.researcher(settings={"grpc.max_connection_age_ms": 500})

        def outlast(_, context):
            yield chunk(3, 1, b"ab")
            hang(_, context)

        researcher.on_poll.append(outlast)
        node = self.node(researcher.port)
        researcher.wait_polled("node-1", 2)
        node.wait_log("the poll failed")
        self.assert_works(researcher)
        self.assert_tasks(node, 1)

    def test_maximum_age_while_a_reply_is_under_way(self):
        researcher, node = self.pair(settings={"grpc.max_connection_age_ms": 500})
        ended = threading.Event()

        def outlast(requests, context):
            next(requests)
            hang(requests, context)
            ended.set()

        researcher.on_reply.append(outlast)
        made = self.ask(researcher, self.command("make", bytes=20 * MB))
        self.assertTrue(ended.is_set())
        self.assertEqual(made.message["payload"], pattern(20 * MB))
        self.assertEqual(node.outcome(made.message["request_id"])["attempts"], 1)
        self.assert_tasks(node, 1)

    def test_idle_limit(self):
        researcher, relay, _ = self.relayed(settings={"grpc.max_connection_idle_ms": 1_000})
        self.assert_works(researcher)
        uploads = relay.connections[1]
        relay.wait(lambda: uploads.closed, "the connection of the replies is idle for too long")
        self.assert_works(researcher)
        self.assertFalse(relay.connections[0].closed, "an open poll is not idle")
        self.assertEqual(len(relay.connections), 3)

    def test_pings_are_answered_while_a_callback_is_busy(self):
        researcher, relay, node = self.relayed(
            settings={"grpc.keepalive_time_ms": 1_000, "grpc.keepalive_timeout_ms": 2_000})
        self.assert_works(researcher)
        message = self.command("block")
        researcher.send("node-1", message)
        node.wait_event("task", times=2)
        researcher.wait_polled("node-1", 3)
        before = {c: c.up for c in relay.connections}
        relay.wait(lambda: all(c.up >= up + 5 * 17 for c, up in before.items()), "pings are answered on each connection")
        node.order(unblock=1)
        researcher.wait_reply(message["request_id"])
        self.assertEqual(relay.open(), list(before))
        self.assertEqual(node.logs(), [])

    def test_certificate_replaced(self):
        before, node = self.pair()
        before.stop()
        node.wait_log("the poll failed")
        other = wire.make_certificate(self.folder, "other")
        after = self.researcher(port=before.port, certificate=other)
        node.wait_log("certificate")
        self.assertEqual(after.nodes, {}, "it polled a server that it does not know")
        os.replace(other[1], self.certificate[1])
        after.wait_polled("node-1")
        self.assert_works(after)

    def test_certificate_of_another(self):
        other = wire.make_certificate(self.folder, "other")
        researcher = self.researcher(certificate=other)
        node = self.node(researcher.port)
        self.assertIn("certificate", node.wait_log("the poll failed"))
        self.assertEqual(researcher.nodes, {})

    def test_trust_on_first_use(self):
        researcher = self.researcher()
        path = os.path.join(self.folder, "seen.pem")
        self.node(researcher.port, trust=("--tofu", path))
        researcher.wait_polled("node-1")
        self.assert_works(researcher)
        with open(path, encoding="ascii") as seen, open(self.certificate[1], encoding="ascii") as real:
            self.assertEqual(seen.read().strip(), real.read().strip())

    def test_ipv4(self):
        researcher = self.researcher()
        self.node(researcher.port, host="127.0.0.1")
        researcher.wait_polled("node-1")
        self.assert_works(researcher)

    def test_ipv6(self):
        researcher = self.researcher(host="::1")
        for host in ("::1", "[::1]"):
            polls = len(researcher.nodes["node-1"].polls)
            node = self.node(researcher.port, host=host)
            researcher.wait_polled("node-1", polls + 1)
            self.assert_works(researcher)
            self.assertTrue(researcher.replies[-1].peer.startswith("ipv6:"), researcher.replies[-1].peer)
            self.assertEqual(node.close(), 0)
            researcher.wait(lambda: researcher.status("node-1") != ACTIVE, "it has left")


class Proxy(Case):
    """Through an HTTP proxy that the environment names."""

    def behind(self, proxy, variable="https_proxy", login="", more=None, **arguments):
        self.relay(proxy)
        researcher = self.researcher()
        node = self.node(researcher.port, environment={
            variable: f"http://{login}127.0.0.1:{proxy.port}", **(more or {})}, **arguments)
        return researcher, node

    def assert_all_through(self, proxy, researcher):
        targets = {(method, target) for method, target, _ in proxy.requests}
        self.assertEqual(targets, {("CONNECT", f"localhost:{researcher.port}")})
        peers = {*researcher.nodes["node-1"].peers, *(r.peer for r in researcher.replies)}
        self.assertLessEqual(peers, {f"ipv4:127.0.0.1:{c.leaves_from}" for c in proxy.connections})

    def test_proxy_carries_20_mb(self):
        proxy = ConnectProxy()
        researcher, _ = self.behind(proxy)
        researcher.wait_polled("node-1")
        message = self.command("echo", payload=some_bytes(20 * MB))
        self.assert_echo(self.ask(researcher, message), message)
        self.assert_all_through(proxy, researcher)
        self.assertGreater(sum(c.up for c in proxy.connections), 20 * MB)
        self.assertGreater(sum(c.down for c in proxy.connections), 20 * MB)

    def test_proxy_variables(self):
        for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
            with self.subTest(variable=variable):
                proxy = ConnectProxy()
                researcher, node = self.behind(proxy, variable)
                researcher.wait_polled("node-1")
                self.assert_works(researcher)
                self.assert_all_through(proxy, researcher)
                self.assertEqual(node.close(), 0)

    def test_no_proxy(self):
        for variable, value in (("no_proxy", "localhost"), ("no_grpc_proxy", "example.org,localhost")):
            with self.subTest(variable=variable):
                proxy = ConnectProxy()
                researcher, _ = self.behind(proxy, more={variable: value})
                researcher.wait_polled("node-1")
                self.assert_works(researcher)
                self.assertEqual(proxy.requests, [])

    def test_proxy_that_refuses(self):
        for answer in ("403 Forbidden", "407 Proxy Authentication Required"):
            with self.subTest(answer=answer):
                proxy = ConnectProxy(refuse=answer)
                researcher, node = self.behind(proxy)
                self.assertIn(answer.split()[0], node.wait_log("the poll failed"))
                proxy.wait(lambda: len(proxy.requests) >= 3, "it tries again")
                self.assertEqual(researcher.nodes, {})
                proxy.refuse = None
                researcher.wait_polled("node-1")
                self.assert_works(researcher)

    def test_proxy_with_a_login(self):
        proxy = ConnectProxy(login="user:pass word")
        researcher, _ = self.behind(proxy, login="user:pass%20word@")
        researcher.wait_polled("node-1")
        self.assert_works(researcher)
        self.assert_all_through(proxy, researcher)

    def test_proxy_with_a_wrong_login(self):
        proxy = ConnectProxy(login="user:password")
        researcher, node = self.behind(proxy, login="user:guess@")
        self.assertIn("407", node.wait_log("the poll failed"))
        self.assertEqual(researcher.nodes, {})

    def test_proxy_and_trust_on_first_use(self):
        proxy = ConnectProxy()
        researcher, _ = self.behind(proxy, trust=("--tofu", os.path.join(self.folder, "seen.pem")))
        researcher.wait_polled("node-1")
        self.assert_works(researcher)
        self.assert_all_through(proxy, researcher)
        self.assertEqual(len(proxy.requests), 3)  # for the certificate, the polls and the replies

    def test_proxy_that_breaks(self):
        proxy = ConnectProxy()
        researcher, _ = self.behind(proxy)
        researcher.wait_polled("node-1")
        self.assert_works(researcher)
        self.cut(proxy, researcher)
        self.assert_works(researcher)
        self.assert_all_through(proxy, researcher)


class SlowNodePings(Case):
    """A node without work for longer than five minutes, after which a gRPC server of default settings has had enough of its
    pings."""

    def idle(self, settings):
        researcher, relay, node = self.relayed(settings=settings)
        self.assert_works(researcher)
        before = list(relay.connections)
        self.assertEqual(len(before), 2)  # of the polls and of the replies
        time.sleep(330)  # the time itself is what is tested
        return researcher, relay, node, before

    def test_node_pings_as_the_original_allows(self):
        researcher, relay, node, before = self.idle({})
        self.assertEqual(relay.open(), before)
        message = self.command("echo", payload=some_bytes(20 * MB))
        self.assert_echo(self.ask(researcher, message), message)
        self.assertEqual(relay.connections, before)
        self.assertEqual(node.logs(), [])

    def test_node_pings_a_server_of_default_settings(self):
        researcher, relay, node, before = self.idle({
            "grpc.http2.min_ping_interval_without_data_ms": 300_000, "grpc.keepalive_permit_without_calls": 0})
        print("connections:", len(relay.connections), "the node's log:", node.logs())
        message = self.command("echo", payload=some_bytes(20 * MB))
        self.assert_echo(self.ask(researcher, message), message)
        self.assert_tasks(node, 2)


if __name__ == "__main__":
    unittest.main()
