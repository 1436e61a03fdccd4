"""A Python node of another make: it dials, polls, replies and tells as the protocol says that Python nodes do.

It fetches the server's certificate before anything else, opens up to three channels when they are first needed, awaits its
feedback, and never looks at the answer to a reply."""

import queue
import subprocess
import threading

import grpc

import wire

POLL_DEADLINE = 3600  # seconds
FAILURES_THAT_STOP = 6  # malformed tasks in a row
GOES_ON_AFTER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED)


def organisation(pem):
    """O= of a certificate's subject, which is the researcher's id. ValueError where there is none."""
    text = subprocess.run(["openssl", "x509", "-noout", "-subject", "-nameopt", "multiline"], input=pem.encode(),
                          check=True, capture_output=True).stdout.decode()
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "organizationName":
            return value.strip()
    raise ValueError("the certificate's subject has no O=")


def url_host(host):
    return f"[{host}]" if ":" in host else host


class Node:
    """Polls from `start` to `stop`. Tasks come to `tasks` as they are, or, with `answer`, go through it: what it returns is
    sent as a reply."""

    def __init__(self, host, port, node_id="node", answer=None, pause=2.0, deadline=POLL_DEADLINE):
        self.host, self.port, self.node_id = host, port, node_id
        self.node_name = "name of " + node_id
        self.tasks = queue.Queue()
        self.polls = 0
        self.poll_ends = []  # why each poll ended: a status code, or the text of what was wrong with the task
        self.stopped_by = None  # what ended the node, where it wasn't `stop`
        self._answer, self._pause, self._deadline = answer, pause, deadline
        self._stubs = {}
        self._channels = {}
        self._replies = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._call = None
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._work_queue = queue.Queue()

    def start(self):
        wire.knock(self.host, self.port)
        self.certificate = wire.fetch_certificate(self.host, self.port)
        self.researcher_id = organisation(self.certificate)
        self._worker.start()
        self._poller.start()
        return self

    def stop(self):
        with self._lock:
            self._stopping.set()
            call = self._call
        if call:
            call.cancel()
        self._work_queue.put(None)
        for thread in (self._poller, self._worker):
            if thread.ident:
                thread.join(10)
        for channel in self._channels.values():
            channel.close()

    def make(self, kind, **fields):
        """A message of this node's."""
        if "node_id" in wire.CLASSES[kind]:
            fields.setdefault("node_id", self.node_id)
        if "node_name" in wire.CLASSES[kind]:
            fields.setdefault("node_name", self.node_name)
        return wire.make(kind, self.researcher_id, **fields)

    def channel(self, use):
        """The channel for "poll", "reply" or "feedback"."""
        self.stub(use)
        return self._channels[use]

    def stub(self, use):
        with self._lock:
            if use not in self._stubs:
                self._channels[use] = wire.channel(url_host(self.host), self.port, self.certificate)
                self._stubs[use] = wire.Stub(self._channels[use])
            return self._stubs[use]

    def reply(self, *messages, length=wire.MAX_MESSAGE_BYTES_LENGTH):
        """Sends messages in one stream. Returns the call, which a node never awaits."""
        payloads = [wire.dumps(m) for m in messages]
        call = self.stub("reply").reply_task.future(
            chunk for payload in payloads for chunk in wire.cut(payload, wire.TaskResult, length))
        self._replies.add(call)  # a call that nothing refers to is cancelled
        call.add_done_callback(self._replies.discard)
        return call

    def tell(self, message):
        """Sends feedback, and waits for the answer as long as it takes."""
        return self.stub("feedback").feedback(message)

    # --- threads ---------------------------------------------------------------------------------------------------------

    def _poll(self):
        failures = 0
        while not self._stopping.is_set():
            try:
                for payload in list(wire.payloads(self._open_poll())):
                    self._receive(payload)
                    failures = 0
                self.poll_ends.append(grpc.StatusCode.OK)
            except grpc.RpcError as e:
                if self._stopping.is_set():
                    return
                self.poll_ends.append(e.code())
                if e.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue
                if e.code() not in GOES_ON_AFTER:
                    self.stopped_by = e
                    return
                self._stopping.wait(self._pause)
                self._drop_poll_channel()
            except (ValueError, EOFError) as e:  # a malformed task
                self.poll_ends.append(str(e))
                self._call.cancel()  # of no effect where the stream has ended
                failures += 1
                if failures == FAILURES_THAT_STOP:
                    self.stopped_by = e
                    return
                self._stopping.wait(self._pause)

    def _open_poll(self):
        asked = wire.TaskRequest(node=self.node_id, protocol_version=wire.PROTOCOL_VERSION)
        call = self.stub("poll").get_task_unary(asked, timeout=self._deadline)
        with self._lock:
            self.polls += 1
            self._call = call
            if self._stopping.is_set():
                call.cancel()
        return call

    def _drop_poll_channel(self):
        with self._lock:
            del self._stubs["poll"]
            self._channels.pop("poll").close()

    def _receive(self, payload):
        message = wire.loads(payload)
        if not isinstance(message, dict):
            raise ValueError(f"a task is a {type(message).__name__}")
        wire.check(message)
        if message["researcher_id"] != self.researcher_id:
            raise ValueError(f"a task of {message['researcher_id']}, not of {self.researcher_id}")
        (self._work_queue if self._answer else self.tasks).put(message)

    def _work(self):
        for message in iter(self._work_queue.get, None):
            reply = self._answer(self, message)
            if reply is not None:
                self.reply(reply)
