"""Python nodes against a ferry server: what it must carry, refuse and survive. The server is a process of its own
(`server.cpp`); the nodes are `node.Node`, which behaves as a Python node does, and bare calls where a test must be more
exact than a node is."""

import itertools
import json
import os
import pathlib
import queue
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import grpc
import numpy

import node
import wire

PATIENCE = 30  # seconds, for what should happen at once; less than half of what a test may take
TO_END = 10  # for a server that is told to
RESEARCHER = "a-researcher"
Code = grpc.StatusCode


def until(done, what):
    """Waits for a condition that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what}")
        time.sleep(0.005)


class Ferry:
    """A ferry server in a process of its own, driven by JSON lines."""

    def __init__(self, folder, **options):
        self._folder = folder
        self._events = []
        self._news = threading.Condition()
        self._over = False
        self._ids = itertools.count(1)
        self._files = itertools.count(1)
        program = pathlib.Path(os.environ["FERRY_PEERS"]) / "ferry_peer_server"
        self._process = subprocess.Popen([program, json.dumps({"folder": folder, **options})], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = self.wait(event="started")["port"]

    def _read(self):
        for line in self._process.stdout:
            event = json.loads(line)
            with self._news:
                self._events.append(event)
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def events(self, **fields):
        """Those so far that have these fields."""
        with self._news:
            return [e for e in self._events if fields.items() <= e.items()]

    def wait(self, number=1, where=lambda event: True, **fields):
        """The event number `number` of those that have these fields."""
        def found():
            matching = [e for e in self._events
                        if all(e.get(k) == v for k, v in fields.items()) and where(e)]
            return matching[number - 1] if len(matching) >= number else None

        with self._news:
            self._news.wait_for(lambda: found() or self._over, PATIENCE)
            event = found()
            if event is None:
                raise AssertionError(f"no event {fields}; the last ones: {self._events[-5:]}")
            return event

    def command(self, do, **fields):
        self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self._process.stdin.flush()

    def send(self, to, message, do="send", **fields):
        """Sends a message, or the last reply that came where it is None. Returns the delivery's id."""
        number = next(self._ids)
        what = {"again": True} if message is None else {"message": self.view(message)}
        self.command(do, id=number, node=to, **what, **fields)
        return number

    def request(self, to, message, **fields):
        return self.send(to, message, "request", **fields)

    def ended(self, number):
        """How the delivery ended."""
        return self.wait(event="ended", id=number)

    def nodes(self):
        before = len(self.events(event="nodes"))
        self.command("nodes")
        return self.wait(before + 1, event="nodes")["nodes"]

    def until_status(self, of, status):
        until(lambda: self.nodes().get(of, {}).get("status") == status, f"{of} is {status}")

    def view(self, value):
        """A value as the server program reads it."""
        if isinstance(value, bytes):
            path = f"{self._folder}/sent-{id(self)}-{next(self._files)}"
            pathlib.Path(path).write_bytes(value)
            return {"file": path}
        if isinstance(value, dict):
            return {k: self.view(v) for k, v in value.items()}
        return [self.view(v) for v in value] if isinstance(value, list) else value

    @staticmethod
    def value(view):
        """What the server program has reported."""
        if isinstance(view, dict):
            if view.keys() == {"file"}:
                return pathlib.Path(view["file"]).read_bytes()
            return {k: Ferry.value(v) for k, v in view.items()}
        return [Ferry.value(v) for v in view] if isinstance(view, list) else view

    def close(self):
        """The server's exit code."""
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            return self._process.wait(TO_END)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()


class Case(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ferry-peers-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.key, self.cert = wire.make_certificate(self.folder, organisation=RESEARCHER)
        self.pem = pathlib.Path(self.cert).read_text()

    def serve(self, **options):
        server = Ferry(self.folder, key=self.key, cert=self.cert, **options)
        self.addCleanup(lambda: self.assertEqual(server.close(), 0, "how the server ended"))
        return server

    def node(self, server, node_id="node", host="localhost", **how):
        """A node that polls."""
        made = node.Node(host, server.port, node_id, pause=0.05, **how)
        self.addCleanup(made.stop)
        made.start()
        server.until_status(node_id, "ACTIVE")
        return made

    def channel(self, server, host="localhost"):
        made = wire.channel(host, server.port, self.pem)
        self.addCleanup(made.close)
        return made

    def stub(self, server):
        """Calls over a connection of their own."""
        return wire.Stub(self.channel(server))

    def ask(self, stub, node_id="node"):
        """A poll that has gone out."""
        call = stub.get_task_unary(wire.TaskRequest(node=node_id, protocol_version="7"), timeout=PATIENCE)
        self.addCleanup(call.cancel)
        return call

    def poll(self, server, stub, node_id="node"):
        """A poll that is open, where there is no task for it."""
        call = self.ask(stub, node_id)
        call.initial_metadata()  # of this poll, not of an older one, is the status below
        server.until_status(node_id, "ACTIVE")
        return call

    def chunks(self, call):
        """All of a poll that ends well."""
        got = list(call)
        self.assertEqual(call.code(), Code.OK)
        return got

    def task(self, call):
        """The one message of a poll that ends well."""
        messages = [wire.loads(payload) for payload in wire.payloads(self.chunks(call))]
        self.assertEqual(len(messages), 1)
        return messages[0]

    def upload(self, stub, chunks):
        """A ReplyTask call that has ended."""
        call = stub.reply_task.future(iter(chunks), timeout=PATIENCE)
        call.exception()
        return call

    def reply(self, stub, message, length=wire.MAX_MESSAGE_BYTES_LENGTH):
        """A message that is accepted."""
        call = self.upload(stub, wire.cut(wire.dumps(message), wire.TaskResult, length))
        self.assertEqual(call.code(), Code.OK, call.details())

    def assert_ended(self, server, number, kind, attempts=1):
        how = server.ended(number)
        self.assertEqual((how["kind"], how["attempts"]), (kind, attempts), how)
        return how

    def assert_serves(self, server, node_id="a-witness"):
        """A ping to a node that comes now is answered."""
        witness = self.node(server, node_id, answer=answer_pings)
        self.assert_ended(server, server.request(node_id, ping("witnessed")), "replied")
        witness.stop()


def ping(request_id="r"):
    return wire.make("PingRequest", RESEARCHER, request_id=request_id)


def answer_pings(by, message):
    return by.make("PingReply", request_id=message["request_id"])


def numbered(number, **fields):
    """A message that isn't of the original's."""
    return {"request_id": f"r{number}", "node_id": "node", "number": number, **fields}


class Arrivals(Case):
    def test_a_bare_connect_and_close_leaves_the_server_unharmed(self):
        server = self.serve()
        for _ in range(20):
            wire.knock("localhost", server.port)
        with socket.create_connection(("localhost", server.port), timeout=PATIENCE) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        self.assert_serves(server)

    def test_the_certificate_is_fetched_by_tls_without_alpn(self):
        server = self.serve()
        for _ in range(5):
            self.assertEqual(wire.fetch_certificate("localhost", server.port).strip(), self.pem.strip())
        self.assertEqual(node.organisation(self.pem), RESEARCHER)
        self.assert_serves(server)

    def serves_at(self, host):
        server = self.serve(host=host)
        at = self.node(server, host=host, answer=answer_pings)
        self.assertEqual(at.researcher_id, RESEARCHER)
        self.assert_ended(server, server.request("node", ping()), "replied")

    def test_nodes_come_over_ipv4(self):
        self.serves_at("127.0.0.1")

    def test_nodes_come_over_ipv6(self):
        self.serves_at("::1")


class Messages(Case):
    def exchange(self, request, answer):
        """Asks a node, which answers with `answer(node, request)`; compares at both ends."""
        server = self.serve()
        seen, replies = queue.Queue(), queue.Queue()

        def answer_and_note(by, message):
            seen.put(message)
            reply = answer(by, message)
            replies.put(reply)
            return reply

        self.node(server, answer=answer_and_note)
        how = self.assert_ended(server, server.request("node", request), "replied")
        self.assertEqual(seen.get(timeout=PATIENCE), request)
        self.assertEqual(server.value(how["message"]), replies.get(timeout=PATIENCE))
        self.assertEqual(how["node"], "node")

    def test_ping(self):
        self.exchange(ping(), answer_pings)

    def test_search(self):
        data_set = {"name": "MNIST", "tags": ["#MNIST", "#dataset"], "shape": [60000, 1, 28, 28], "mean": 0.1307,
                    "dtypes": [], "description": "Zürich\n☃", "parameters": None, "public": True}
        self.exchange(wire.make("SearchRequest", RESEARCHER, request_id="s", tags=["#MNIST", "#dataset", ""]),
                      lambda by, m: by.make("SearchReply", request_id=m["request_id"], databases=[data_set], count=1))

    def test_list(self):
        self.exchange(wire.make("ListRequest", RESEARCHER, request_id="l"),
                      lambda by, m: by.make("ListReply", request_id=m["request_id"], success=True, databases=[{}, {}],
                                            count=2))

    def test_an_error_is_a_reply(self):
        self.exchange(ping(), lambda by, m: by.make("ErrorMessage", request_id=m["request_id"], extra_msg="it failed",
                                                    errnum="FB319"))

    def test_an_error_without_a_number_is_a_reply(self):
        self.exchange(ping(), lambda by, m: by.make("ErrorMessage", request_id=m["request_id"], extra_msg="",
                                                    errnum=None))

    def task_in_chunks(self, length, size, **options):
        server = self.serve(**options)
        call = self.poll(server, self.stub(server))
        message = numbered(1, data=os.urandom(size))
        server.send("node", message)
        chunks = self.chunks(call)
        payload = b"".join(c.bytes_ for c in chunks)
        self.assertEqual(wire.loads(payload), message)
        self.assertEqual([(c.size, c.iteration, len(c.bytes_)) for c in chunks],
                         [(c.size, c.iteration, len(c.bytes_)) for c in wire.cut(payload, wire.TaskResponse, length)])
        self.assertGreater(len(chunks), 1)

    def test_a_task_in_chunks_of_1_byte(self):
        self.task_in_chunks(1, 20, chunk=1)

    def test_a_task_in_chunks_of_1000_bytes(self):
        self.task_in_chunks(1000, 54_321, chunk=1000)

    def test_a_task_in_chunks_of_the_usual_size(self):
        self.task_in_chunks(wire.MAX_MESSAGE_BYTES_LENGTH, 2 * wire.MAX_MESSAGE_BYTES_LENGTH + 17)

    def test_a_task_in_chunks_of_4_mb(self):
        self.task_in_chunks(4_000_000, 9_000_000, chunk=4_000_000)

    def reply_in_chunks(self, length, size):
        server = self.serve()
        stub = self.stub(server)
        self.poll(server, stub)
        message = numbered(1, data=os.urandom(size))
        number = server.request("node", {"request_id": "r1"})
        self.reply(stub, message, length)
        how = server.ended(number)
        self.assertEqual((how["kind"], server.value(how["message"])), ("replied", message))

    def test_a_reply_in_chunks_of_1_byte(self):
        self.reply_in_chunks(1, 300)

    def test_a_reply_in_chunks_of_1000_bytes(self):
        self.reply_in_chunks(1000, 54_321)

    def test_a_reply_in_chunks_of_the_usual_size(self):
        self.reply_in_chunks(wire.MAX_MESSAGE_BYTES_LENGTH, 2 * wire.MAX_MESSAGE_BYTES_LENGTH + 17)

    def test_a_reply_in_chunks_of_4_mb(self):
        self.reply_in_chunks(4_000_000, 9_000_000)

    def test_20_mb_both_ways(self):
        server = self.serve()
        stub = self.stub(server)
        call = self.poll(server, stub)
        down, up = os.urandom(20_000_000), os.urandom(20_000_000)
        number = server.request("node", numbered(1, data=down))
        self.assertTrue(self.task(call)["data"] == down, "what came down differs")
        self.reply(stub, numbered(1, data=up))
        how = self.assert_ended(server, number, "replied")
        self.assertTrue(server.value(how["message"])["data"] == up, "what came up differs")
        self.assertEqual(how["sent"], how["total"])

    def several_in_one_stream(self, count):
        server = self.serve()
        stub = self.stub(server)
        self.poll(server, stub)
        messages = [numbered(n, data=os.urandom(n * 500)) for n in range(1, count + 1)]
        stream = [c for m in messages for c in wire.cut(wire.dumps(m), wire.TaskResult, 1000)]
        self.assertEqual(self.upload(stub, stream).code(), Code.OK)
        replies = [server.wait(n, event="reply") for n in range(1, count + 1)]
        self.assertEqual([server.value(e["message"]) for e in replies], messages)

    def test_two_replies_in_one_stream(self):
        self.several_in_one_stream(2)

    def test_five_replies_in_one_stream(self):
        self.several_in_one_stream(5)

    def test_a_stream_of_no_reply_ends_well(self):
        server = self.serve()
        self.assertEqual(self.upload(self.stub(server), []).code(), Code.OK)

    def test_a_stream_that_ends_early_is_refused_and_its_request_stays_open(self):
        server = self.serve()
        stub = self.stub(server)
        call = self.poll(server, stub)
        number = server.request("node", numbered(1))
        self.task(call)
        self.poll(server, stub)  # it is taken
        chunks = list(wire.cut(wire.dumps(numbered(1, data=bytes(2500))), wire.TaskResult, 1000))
        upload = self.upload(stub, chunks[:-1])
        self.assertNotEqual(upload.code(), Code.OK)
        self.assertIn("2000 bytes", upload.details())
        self.assertEqual(server.nodes()["node"]["open_requests"], 1)
        self.assertEqual(server.events(event="ended"), [])
        self.reply(stub, numbered(1, data=b"whole"))
        how = self.assert_ended(server, number, "replied")
        self.assertEqual(server.value(how["message"])["data"], b"whole")
        self.assertEqual(len(server.events(event="ended")), 1)

    def test_tagged_values_come_back_as_they_were(self):
        server = self.serve()
        stub = self.stub(server)
        call = self.poll(server, stub)
        random = numpy.random.default_rng(7)
        arrays = [random.integers(0, 255, size=shape).astype(dtype)
                  for dtype in ("float16", "float32", "float64", "complex64", "bool", "int8", "uint8", "int16", "int32",
                                "int64", "uint64")
                  for shape in ((), (0,), (1,), (3,), (2, 3), (2, 0, 3), (4, 1, 2, 5))]
        values = {
            "arrays": arrays,
            "transposed": numpy.arange(12.0).reshape(3, 4).T,
            "odd floats": numpy.array([numpy.nan, numpy.inf, -numpy.inf, -0.0]),
            "generics": [numpy.float32(1.5), numpy.float64(-0.1), numpy.int64(-(2**63)), numpy.uint8(255),
                         numpy.bool_(True), numpy.float16(2.0)],
            "large array": random.random(100_000),
            "tuple": (1, "two", (3.0, None), [b"4"]),
            "set": {1, "two", (3, 4)},
            "empty": [(), set(), [], {}, "", b""],
            "ints": [0, -1, 127, 128, -128, -129, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)],
            "large ints": [2**64, -(2**63) - 1, 2**100, -(2**100), 2**255, 2**256],
            "floats": [0.0, -0.0, 1.0, 0.1, 1e308, 5e-324, float("inf"), float("-inf")],
            "int keys": {1: "one", 0: "none", -5: {2**63: [b"deep"]}},
            "mixed keys": {1: "one", "1": "text"},
            "text": "Zürich ☃ \U0001f6a2\0",
            "metric": {"__type__": "MetricTypes", "value": "ACCURACY"},
            "vector": {"__type__": "Vector", "value": {"values": {"w": [1.0]}, "version": 1}},
        }
        sent = numbered(1, values=values)
        self.reply(stub, sent)
        server.wait(event="reply")
        number = server.send("node", None)
        got = self.task(call)
        self.assert_same(got, sent)
        self.poll(server, stub)
        self.assert_ended(server, number, "taken")

    def assert_same(self, a, b, where="message"):
        """Equal in values and types, and floats bit by bit."""
        self.assertEqual(type(a), type(b), where)
        if isinstance(a, dict):
            self.assertEqual(a.keys(), b.keys(), where)
            for key in a:
                self.assert_same(a[key], b[key], f"{where}[{key!r}]")
        elif isinstance(a, (list, tuple)):
            self.assertEqual(len(a), len(b), where)
            for i, each in enumerate(a):
                self.assert_same(each, b[i], f"{where}[{i}]")
        elif isinstance(a, (numpy.ndarray, numpy.generic)):
            self.assertEqual((a.dtype, a.shape, a.tobytes()), (b.dtype, b.shape, b.tobytes()), where)
        elif isinstance(a, float):
            self.assertEqual(a.hex(), b.hex(), where)
        else:
            self.assertEqual(a, b, where)

    def test_replies_may_overlap_and_come_in_another_order(self):
        server = self.serve()
        stub = self.stub(server)
        taker = self.node(server)
        requests = [server.request("node", ping(f"r{n}")) for n in range(6)]
        for n in range(6):
            self.assertEqual(taker.tasks.get(timeout=PATIENCE)["request_id"], f"r{n}")
        gates = [threading.Event() for _ in requests]
        begun = [threading.Event() for _ in requests]

        def upload(n):
            first, *rest = wire.cut(wire.dumps(numbered(n, data=bytes(3000))), wire.TaskResult, 1000)
            yield first
            begun[n].set()  # asked for more: the first chunk has been written
            self.assertTrue(gates[n].wait(PATIENCE))
            yield from rest

        calls = [stub.reply_task.future(upload(n), timeout=PATIENCE) for n in range(6)]
        for each in begun:
            self.assertTrue(each.wait(PATIENCE))
        for n in (5, 0, 3, 4, 1, 2):
            gates[n].set()
            calls[n].result(PATIENCE)
            how = self.assert_ended(server, requests[n], "replied")
            self.assertEqual(how["message"]["number"], n)
        self.assertEqual(len(server.events(event="ended")), 6)

    def test_an_overlay_message_is_forwarded_byte_for_byte(self):
        server = self.serve()
        a, b = self.stub(server), self.stub(server)
        self.poll(server, a, "node-a")
        call = self.poll(server, b, "node-b")
        message = wire.make("OverlayMessage", RESEARCHER, node_id="node-a", dest_node_id="node-b", setup=False,
                            overlay=os.urandom(50_000), salt=os.urandom(16), nonce=os.urandom(12))
        payload = wire.dumps(message)
        upload = self.upload(a, wire.cut(payload, wire.TaskResult, 7000))
        self.assertEqual(upload.code(), Code.OK, upload.details())
        self.assertEqual(list(wire.payloads(self.chunks(call))), [payload])
        self.assertEqual(server.events(event="reply"), [])

    def test_an_overlay_message_to_an_unknown_node_is_dropped_with_a_log_line(self):
        server = self.serve()
        stub = self.stub(server)
        poll = self.poll(server, stub, "node-a")
        message = wire.make("OverlayMessage", RESEARCHER, node_id="node-a", dest_node_id="nobody-here", setup=True,
                            overlay=b"overlay", salt=b"salt", nonce=b"nonce")
        self.reply(stub, message)
        server.wait(event="log", where=lambda e: "nobody-here" in e["text"])
        self.assertEqual(server.nodes().keys(), {"node-a"})
        self.assertEqual(server.events(event="reply"), [])
        self.assertFalse(poll.done())


class Polls(Case):
    def test_a_poll_must_name_its_node(self):
        server = self.serve()
        stub = self.stub(server)
        for name in ("", "x" * 1025):
            call = self.ask(stub, name)
            self.assertRaises(grpc.RpcError, list, call)
            self.assertEqual(call.code(), Code.INVALID_ARGUMENT)
            self.assertIn("must name its node", call.details())
        self.assertEqual(server.nodes(), {})

    def test_a_second_poll_ends_the_older_as_unavailable(self):
        server = self.serve()
        same = self.stub(server)
        polls = [self.poll(server, stub) for stub in (same,)]
        for stub in (same, self.stub(server)):
            polls.append(self.poll(server, stub))
            self.assertRaises(grpc.RpcError, list, polls[-2])
            self.assertEqual(polls[-2].code(), Code.UNAVAILABLE)
            self.assertFalse(polls[-1].done())
        number = server.send("node", ping())
        self.assertEqual(self.task(polls[-1]), ping())
        server.wait(2, event="log", level="warning", where=lambda e: "node node polled" in e["text"])
        self.assertEqual(server.events(event="ended", id=number), [])

    def test_a_stop_ends_polls_and_nodes_come_back_to_a_new_server_on_the_port(self):
        first = self.serve()
        back = self.node(first, answer=answer_pings)
        self.assert_ended(first, first.request("node", ping()), "replied")
        first.command("stop", within=2000)
        first.wait(event="stopped")
        until(lambda: Code.UNAVAILABLE in back.poll_ends, "the poll has ended")
        self.assertEqual(first.close(), 0)
        second = self.serve(port=first.port)
        second.until_status("node", "ACTIVE")
        for number in [second.request("node", ping(f"r{n}")) for n in range(10)]:
            self.assertEqual(second.ended(number)["kind"], "replied")
        self.assertIsNone(back.stopped_by)
        self.assertEqual(back.poll_ends.count(Code.OK), 11)
        self.assertEqual(set(back.poll_ends), {Code.OK, Code.UNAVAILABLE})

    def test_a_poll_without_a_task_stays_open(self):
        server = self.serve(disconnect_after=300)
        stays = self.node(server, "stays")
        leaves = self.stub(server)
        for _ in range(4):  # more than a second passes
            self.poll(server, leaves, "leaves").cancel()
            server.until_status("leaves", "DISCONNECTED")
        self.assertEqual(server.nodes()["stays"]["status"], "ACTIVE")
        self.assertEqual((stays.polls, stays.poll_ends), (1, []))
        server.send("stays", ping())
        self.assertEqual(stays.tasks.get(timeout=PATIENCE), ping())

    def test_polls_that_reach_their_deadline_lose_no_task(self):
        server = self.serve()
        polls = self.node(server, deadline=1)
        sent = []
        for n in range(5):
            until(lambda: polls.poll_ends.count(Code.DEADLINE_EXCEEDED) > n, "a deadline was reached")
            sent.append(server.send("node", ping(f"r{n}")))
        for number in sent:
            self.assertEqual(server.ended(number)["kind"], "taken")
        got = [polls.tasks.get_nowait()["request_id"] for _ in range(polls.tasks.qsize())]
        self.assertEqual(list(dict.fromkeys(got)), [f"r{n}" for n in range(5)])
        self.assertLessEqual(set(polls.poll_ends), {Code.OK, Code.DEADLINE_EXCEEDED})

    def test_a_node_gets_its_tasks_in_order(self):
        server = self.serve()
        taker = self.node(server)
        sent = [server.send("node", ping(f"r{n}")) for n in range(50)]
        self.assertEqual([taker.tasks.get(timeout=PATIENCE)["request_id"] for _ in sent], [f"r{n}" for n in range(50)])
        for number in sent:
            self.assert_ended(server, number, "taken")
        self.assertEqual(taker.poll_ends, 50 * [Code.OK])

    def test_a_broadcast_reaches_every_node(self):
        server = self.serve()
        nodes = [self.node(server, f"node-{n}") for n in range(5)]
        number = server.send(None, ping(), "broadcast")
        for each in nodes:
            self.assertEqual(each.tasks.get(timeout=PATIENCE), ping())
            server.wait(event="ended", id=number, node=each.node_id, kind="taken", attempts=1)

    def test_malformed_tasks_stop_a_node_at_the_sixth_in_a_row(self):
        server = self.serve()
        stops = self.node(server)
        bad = {**ping(), "protocol_version": "6"}, {**ping(), "researcher_id": "another"}, {**ping(), "surplus": 1}
        for n in range(5):
            server.send("node", {**bad[n % 3], "request_id": f"bad{n}"})
        server.send("node", ping())
        self.assertEqual(stops.tasks.get(timeout=PATIENCE), ping())
        self.assertIsNone(stops.stopped_by)
        for n in range(6):
            server.send("node", {**bad[n % 3], "request_id": f"worse{n}"})
        until(lambda: stops.stopped_by is not None, "the node has stopped")
        self.assertIsInstance(stops.stopped_by, ValueError)

    def test_the_bidirectional_get_task_is_refused_without_a_hello(self):
        server = self.serve()
        call = self.stub(server).get_task(iter([wire.TaskRequest(node="node", protocol_version="7")]), timeout=PATIENCE)
        self.assertRaises(grpc.RpcError, list, call)
        self.assertEqual(call.code(), Code.INVALID_ARGUMENT)
        self.assert_serves(server)

    def test_an_unknown_method_is_not_implemented(self):
        server = self.serve()
        channel = self.channel(server)
        for method in (f"/{wire.SERVICE}/Nothing", "/researcher.Other/GetTaskUnary"):
            with self.assertRaises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"", timeout=PATIENCE)
            self.assertEqual(caught.exception.code(), Code.UNIMPLEMENTED)
        self.assert_serves(server)

    def test_a_stream_that_the_node_cancels_is_sent_again_in_its_place(self):
        server = self.serve(chunk=1000)
        stub = self.stub(server)
        call = self.poll(server, stub)
        large = numbered(1, data=os.urandom(20_000_000))
        numbers = [server.send("node", m) for m in (large, numbered(2), numbered(3))]
        self.assertEqual(next(call).iteration, 1)
        call.cancel()
        server.until_status("node", "WAITING")
        got = [self.task(self.ask(stub)) for _ in range(3)]
        self.poll(server, stub)
        self.assertEqual([m["number"] for m in got], [1, 2, 3])
        self.assertTrue(got[0]["data"] == large["data"], "the resend differs")
        for number, attempts in zip(numbers, (2, 1, 1)):
            self.assert_ended(server, number, "taken", attempts)

    def test_a_stream_that_stands_still_is_ended_and_sent_again(self):
        server = self.serve(idle_limit=1000)
        stub = self.stub(server)
        call = self.poll(server, stub)
        large = numbered(1, data=os.urandom(40_000_000))
        number = server.send("node", large)
        self.assertEqual(next(call).iteration, 1)
        server.until_status("node", "WAITING")
        self.assertRaises(grpc.RpcError, list, call)
        self.assertEqual(call.code(), Code.UNAVAILABLE)
        self.assertTrue(self.task(self.ask(stub))["data"] == large["data"], "the resend differs")
        self.poll(server, stub)
        self.assertEqual(server.ended(number)["kind"], "taken")
        self.assertGreater(server.ended(number)["attempts"], 1)

    def test_a_reply_that_comes_too_late_is_nobodys(self):
        server = self.serve()
        stub = self.stub(server)
        call = self.poll(server, stub)
        number = server.request("node", numbered(1), reply_within=1000)
        self.task(call)
        self.poll(server, stub)
        self.assert_ended(server, number, "expired")
        self.reply(stub, numbered(1))
        self.assertEqual(server.wait(event="reply")["message"], numbered(1))

    def test_a_poll_over_the_same_connection_confirms_the_task(self):
        server = self.serve()
        stub = self.stub(server)
        call = self.poll(server, stub)
        number = server.send("node", ping())
        self.task(call)
        self.assertEqual(server.nodes()["node"]["queued_tasks"], 1)
        self.assertEqual(server.events(event="ended"), [])
        again = self.poll(server, stub)
        self.assert_ended(server, number, "taken")
        self.assertFalse(again.done())

    def test_a_poll_over_another_connection_gets_the_task_again(self):
        server = self.serve()
        first, second = self.stub(server), self.stub(server)
        call = self.poll(server, first)
        numbers = [server.send("node", ping(f"r{n}")) for n in range(2)]
        self.assertEqual(self.task(call)["request_id"], "r0")
        got = [self.task(self.ask(second))["request_id"] for _ in range(2)]
        self.poll(server, second)
        self.assertEqual(got, ["r0", "r1"])
        self.assert_ended(server, numbers[0], "taken", attempts=2)
        self.assert_ended(server, numbers[1], "taken")

    def test_a_reply_shows_that_the_task_is_taken(self):
        server = self.serve()
        call = self.poll(server, self.stub(server))
        number = server.send("node", ping())
        self.task(call)
        reply = wire.make("PingReply", RESEARCHER, request_id="r", node_id="node", node_name="n")
        self.reply(self.stub(server), reply)
        self.assert_ended(server, number, "taken")
        self.assertEqual(server.wait(event="reply")["message"], reply)

    def test_a_node_that_stays_away_after_a_task_has_not_taken_it(self):
        server = self.serve(disconnect_after=200)
        stub = self.stub(server)
        call = self.poll(server, stub)
        number = server.send("node", ping())
        self.task(call)
        server.until_status("node", "DISCONNECTED")
        self.assertEqual(server.events(event="ended"), [])
        self.assertEqual(server.ended(server.send("node", ping("late")))["kind"], "node disconnected")
        self.task(self.ask(stub))
        self.poll(server, stub)
        self.assert_ended(server, number, "taken", attempts=2)


class Tells(Case):
    def feedback(self, **fields):
        return wire.FeedbackMessage(protocol_version="7", researcher_id=RESEARCHER, **fields)

    def test_a_log_line_arrives_as_sent(self):
        server = self.serve()
        told = self.node(server)
        text = json.dumps({"asctime": "2024-01-01 12:00:00,000", "node_id": "node", "name": "fedbiomed",
                           "level": "WARNING", "message": "Zürich ☃"})
        for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            told.tell(self.feedback(log=dict(node_id="node", level=level, msg=text)))
            self.assertEqual(server.wait(event="log_line", level=level),
                             {"event": "log_line", "node_id": "node", "level": level, "message": text})

    def test_a_scalar_arrives_as_sent(self):
        server = self.serve()
        told = self.node(server)
        full = {"node_id": "node", "experiment_id": "exp", "train": True, "test": True, "test_on_local_updates": True,
                "test_on_global_updates": True, "metric": {"loss": 0.125, "": -2.5, "ÄUC": 1e30}, "epoch": 3,
                "total_samples": 100, "batch_samples": 10, "num_batches": 11, "num_samples_trained": 2**31 - 1,
                "iteration": -1, "node_name": "name"}
        nothing = dict(full, experiment_id="", train=False, test=False, test_on_local_updates=False,
                       test_on_global_updates=False, metric={}, total_samples=0, batch_samples=0, num_batches=0,
                       iteration=0, node_name="")
        zero = dict(nothing, epoch=0, num_samples_trained=0)
        unset = dict(nothing, epoch=None, num_samples_trained=None)
        one_bool = [dict(unset, **{name: True})
                    for name in ("train", "test", "test_on_local_updates", "test_on_global_updates")]
        one_option = [dict(unset, **{name: 0}) for name in ("epoch", "num_samples_trained")]
        cases = [full, zero, unset, *one_bool, *one_option]
        for number, fields in enumerate(cases, 1):
            told.tell(self.feedback(scalar={k: v for k, v in fields.items() if v is not None}))
            got = server.wait(number, event="scalars")
            got["metric"] = {k: numpy.float32(v) for k, v in got["metric"].items()}
            self.assertEqual(got, {"event": "scalars", **fields,
                                   "metric": {k: numpy.float32(v) for k, v in fields["metric"].items()}})

    def test_feedback_without_a_researcher_id_is_taken(self):
        server = self.serve()
        log = dict(node_id="node", level="INFO", msg="hello")
        self.stub(server).feedback(wire.FeedbackMessage(log=log), timeout=PATIENCE)
        server.wait(event="log_line", message="hello")

    def test_empty_feedback_is_refused(self):
        server = self.serve()
        stub = self.stub(server)
        for empty in (self.feedback(), wire.FeedbackMessage()):
            with self.assertRaises(grpc.RpcError) as caught:
                stub.feedback(empty, timeout=PATIENCE)
            self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
            self.assertIn("must be a log or a scalar", caught.exception.details())
        stub.feedback(self.feedback(log=dict(node_id="node")), timeout=PATIENCE)
        server.wait(event="log_line")
        self.assertEqual(len(server.events(event="log_line")), 1)

    def test_feedback_is_answered_while_its_handler_blocks(self):
        server = self.serve()
        server.command("hold")
        server.nodes()  # it holds
        told = self.node(server)
        logs = [self.feedback(log=dict(node_id="node", level="INFO", msg=str(n)))
                for n in range(20)]
        for each in logs:
            told.stub("feedback").feedback(each, timeout=PATIENCE)
        server.wait(event="log_line", message="0")
        self.assertEqual(len(server.events(event="log_line")), 1)
        server.command("release")
        server.wait(20, event="log_line")
        self.assertEqual([e["message"] for e in server.events(event="log_line")], [str(n) for n in range(20)])

    def test_unknown_fields_are_ignored(self):
        server = self.serve()
        channel = self.channel(server)
        # Field 2000: a varint, 2001: bytes, 2002: a fixed64, 2003: a fixed32, 15: a varint.
        unknown = bytes.fromhex("807d2a" "8a7d03616263" "917d0102030405060708" "9d7d01020304" "7801")

        def call(kind, name, response):
            return getattr(channel, kind)(f"/{wire.SERVICE}/{name}", lambda m: unknown + m.SerializeToString() + unknown,
                                          response.FromString)

        poll = call("unary_stream", "GetTaskUnary", wire.TaskResponse)(
            wire.TaskRequest(node="node", protocol_version="7"), timeout=PATIENCE)
        server.until_status("node", "ACTIVE")
        number = server.request("node", numbered(1))
        self.assertEqual(self.task(poll), numbered(1))
        chunks = wire.cut(wire.dumps(numbered(1, data=bytes(range(200)))), wire.TaskResult, 50)
        call("stream_unary", "ReplyTask", wire.Empty)(chunks, timeout=PATIENCE)
        how = self.assert_ended(server, number, "replied")
        self.assertEqual(server.value(how["message"]), numbered(1, data=bytes(range(200))))
        log = dict(node_id="node", level="INFO", msg="hello")
        call("unary_unary", "Feedback", wire.Empty)(self.feedback(log=log), timeout=PATIENCE)
        server.wait(event="log_line", message="hello")


class Refusals(Case):
    def test_a_reply_of_a_node_that_never_polled_is_answered_unknown(self):
        server = self.serve()
        stub = self.stub(server)
        self.poll(server, stub)
        for message in (numbered(1) | {"node_id": "stranger"}, {"request_id": "r1"}):
            upload = self.upload(stub, wire.cut(wire.dumps(message), wire.TaskResult))
            self.assertEqual(upload.code(), Code.UNKNOWN)
            self.assertIn("never polled", upload.details())
        self.assertEqual(server.events(event="reply"), [])
        self.assertEqual(server.nodes().keys(), {"node"})

    def malformed(self):
        whole = wire.dumps(numbered(1))

        def chunk(size, iteration, data=b"x"):
            return wire.TaskResult(size=size, iteration=iteration, bytes_=data)

        return {
            "not msgpack": [chunk(1, 1, b"\xc1")],
            "msgpack cut off": [chunk(1, 1, whole[:-1])],
            "trailing bytes": [chunk(1, 1, whole + b"\0")],
            "empty": [chunk(1, 1, b"")],
            "chunk 0 of 0": [chunk(0, 0)],
            "chunk 0 of 0, empty": [wire.TaskResult()],
            "chunk 0 of 0 after a good one": [chunk(2, 1), chunk(0, 0)],
            "iteration jumps": [chunk(3, 1), chunk(3, 3)],
            "iteration repeats": [chunk(3, 1), chunk(3, 1)],
            "begins with the second": [chunk(2, 2)],
            "iteration beyond size": [chunk(1, 2)],
            "size grows": [chunk(2, 1), chunk(3, 2)],
            "size shrinks": [chunk(3, 1), chunk(2, 2)],
            "size below 0": [chunk(-1, 1)],
            "iteration below 0": [chunk(1, -1)],
        }

    def test_a_malformed_reply_is_refused_with_a_text(self):
        server = self.serve()
        stub = self.stub(server)
        self.poll(server, stub)
        number = server.request("node", numbered(1))
        for what, chunks in self.malformed().items():
            with self.subTest(what):
                upload = self.upload(stub, chunks)
                self.assertEqual(upload.code(), Code.INVALID_ARGUMENT, upload.details())
                self.assertGreater(len(upload.details()), 20)
        self.assertEqual(server.events(event="ended"), [])
        self.reply(stub, numbered(1))
        self.assertEqual(server.ended(number)["kind"], "replied")
        self.assertEqual(server.events(event="reply"), [])

    def test_bytes_that_are_no_chunk_are_refused_with_a_text(self):
        server = self.serve()
        call = self.channel(server).stream_unary(f"/{wire.SERVICE}/ReplyTask")
        for garbage in (b"\xff", b"\x1a\x7f", b"\x08\x01\x10\x01\x1a\x05ab", b"\x08"):
            with self.subTest(garbage):
                with self.assertRaises(grpc.RpcError) as caught:
                    call(iter([garbage]), timeout=PATIENCE)
                self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
                self.assertIn("not a valid protobuf message", caught.exception.details())
        self.assert_serves(server)

    def test_a_malformed_reply_does_not_undo_the_good_one_before_it(self):
        server = self.serve()
        stub = self.stub(server)
        self.poll(server, stub)
        good = list(wire.cut(wire.dumps(numbered(1)), wire.TaskResult))
        upload = self.upload(stub, good + [wire.TaskResult(size=1, iteration=1, bytes_=b"\xc1")])
        self.assertEqual(upload.code(), Code.INVALID_ARGUMENT)
        self.assertEqual(server.wait(event="reply")["message"], numbered(1))

    def test_every_refused_reply_is_logged(self):
        """A node never reads why: the server's log is the only place where it shows."""
        server = self.serve(reply_limit=1000)
        stub = self.stub(server)
        self.poll(server, stub)
        too_large = {"beyond the limit": list(wire.cut(bytes(2000), wire.TaskResult))}
        ends_early = {"ends early": [wire.TaskResult(size=2, iteration=1, bytes_=b"x")]}
        refused = {**self.malformed(), **too_large, **ends_early}
        for number, (what, chunks) in enumerate(refused.items(), 1):
            with self.subTest(what):
                why = self.upload(stub, chunks).details().partition(": ")[2]
                self.assertIn(why, server.wait(number, event="log", level="warning")["text"])
        self.assertEqual(len(server.events(event="log", level="warning")), len(refused))

    def test_a_reply_beyond_the_servers_limit_is_refused(self):
        server = self.serve(reply_limit=1_000_000)
        stub = self.stub(server)
        self.poll(server, stub)
        too_large = list(wire.cut(wire.dumps(numbered(1, data=bytes(1_000_001))), wire.TaskResult, 100_000))
        for chunks in (too_large, wire.cut(wire.dumps(numbered(1, data=bytes(1_000_001))), wire.TaskResult)):
            upload = self.upload(stub, chunks)
            self.assertEqual(upload.code(), Code.RESOURCE_EXHAUSTED)
            self.assertIn("1000000 bytes", upload.details())
        self.reply(stub, numbered(1, data=bytes(999_000)))
        server.wait(event="reply")

    def test_one_chunk_may_be_large_up_to_100_mib(self):
        server = self.serve()
        stub = self.stub(server)
        self.poll(server, stub)
        around = len(wire.dumps(numbered(1, data=bytes(100_000)))) - 100_000
        for number, size in enumerate((64_000_000, wire.MAX_GRPC_MESSAGE_BYTES - 100), 1):
            data = os.urandom(size - around)
            self.reply(stub, numbered(1, data=data), length=2**31)
            event = server.wait(number, event="reply")
            self.assertTrue(server.value(event["message"])["data"] == data, f"what came up of {size} bytes differs")
        options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        with grpc.secure_channel(f"localhost:{server.port}", grpc.ssl_channel_credentials(self.pem.encode()),
                                 options) as unlimited:
            upload = self.upload(wire.Stub(unlimited), [wire.TaskResult(size=2, iteration=1,
                                                                        bytes_=bytes(wire.MAX_GRPC_MESSAGE_BYTES))])
            self.assertEqual(upload.code(), Code.RESOURCE_EXHAUSTED)
        self.assert_serves(server)


class SlowNodePings(Case):
    def test_connections_that_ping_every_minute_live_on(self):
        """A server with gRPC's default settings would end them after five minutes."""
        server = self.serve()
        taker = self.node(server)
        first = server.request("node", ping("first"))
        taker.tasks.get(timeout=PATIENCE)
        taker.reply(taker.make("PingReply", request_id="first")).result(PATIENCE)
        self.assert_ended(server, first, "replied")
        states = {use: [] for use in ("poll", "reply")}
        for use, seen in states.items():
            taker.channel(use).subscribe(seen.append)
            until(lambda: seen, "the state is known")
        connections = self.connections_to(server.port)
        self.assertEqual(len(connections), 2)
        deadline = time.monotonic() + 330
        while time.monotonic() < deadline:
            self.assertEqual(self.connections_to(server.port), connections)
            time.sleep(1)
        last = server.request("node", ping("last"))
        taker.tasks.get(timeout=PATIENCE)
        taker.reply(taker.make("PingReply", request_id="last")).result(PATIENCE)
        self.assert_ended(server, last, "replied")
        ready = [grpc.ChannelConnectivity.READY]
        self.assertEqual(states, {"poll": ready, "reply": ready})
        self.assertEqual(self.connections_to(server.port), connections)
        self.assertEqual(taker.poll_ends, [Code.OK, Code.OK])

    @staticmethod
    def connections_to(port):
        """Local ends of the established connections to a port, as the system lists them."""
        found = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in pathlib.Path(table).read_text().splitlines()[1:]:
                _, local, remote, state, *_ = line.split()
                if state == "01" and int(remote.rpartition(":")[2], 16) == port:
                    found.add(local)
        return found


if __name__ == "__main__":
    unittest.main()
