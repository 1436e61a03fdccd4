"""A researcher of another make: what a Python researcher of the protocol does, for tests of ferry's node.

Run as a program it is one that stands still in the middle of a task or a reply, and waits there to be killed."""

import argparse
import collections
import json
import threading
import time
from concurrent import futures

import grpc

import wire

ACTIVE, WAITING, DISCONNECTED = "ACTIVE", "WAITING", "DISCONNECTED"
SETTINGS = {
    "grpc.max_send_message_length": wire.MAX_GRPC_MESSAGE_BYTES,
    "grpc.max_receive_message_length": wire.MAX_GRPC_MESSAGE_BYTES,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 2_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.http2.min_ping_interval_without_data_ms": 1_000,
    "grpc.max_connection_idle_ms": 3_602_000,
    "grpc.max_connection_age_ms": 3_605_000,
    "grpc.max_connection_age_grace_ms": 2_000,
    "grpc.so_reuseport": 0,
}


class _Node:
    def __init__(self):
        self.tasks = collections.deque()  # of [chunks]
        self.polls = []  # when each came
        self.peers = []  # over which connection
        self.open = 0
        self.last_end = time.monotonic()


class Always:
    """A queue that has the same function for each call."""

    def __init__(self, function):
        self.popleft = lambda: function


class Reply:
    def __init__(self, payload, lengths, peer):
        self.payload, self.lengths, self.peer = payload, lengths, peer
        self.message = wire.loads(payload)


class Researcher(wire.Watched):
    """Serves from its making on. A test may script it: `on_poll`, `on_reply` and `on_feedback` are queues of functions, of
    which each takes one call's place; None leaves it as it is. A function gets the request or requests and the context. A
    poll's is a generator of chunks; the others return the request or requests that the call is to go on with, or None."""

    def __init__(self, certificate, host="127.0.0.1", port=0, disconnect_after=10, settings=None):
        super().__init__()
        self.disconnect_after = disconnect_after
        self.on_poll, self.on_reply, self.on_feedback = (collections.deque() for _ in range(3))
        self.nodes = collections.defaultdict(_Node)
        self.replies, self.logs, self.scalars = [], [], []
        self.discarded = self.unknown = 0
        self.problems = []  # what a peer must not do
        self._stopped = threading.Event()
        with open(certificate[0], "rb") as key, open(certificate[1], "rb") as cert:
            credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=64),
                                   options=tuple({**SETTINGS, **(settings or {})}.items()))
        wire.add_service(self._server, self._get_task_unary, self._reply_task, self._feedback)
        self.port = self._bind(f"[{host}]" if ":" in host else host, port, credentials)
        self._server.start()

    def _bind(self, host, port, credentials):
        """A port that was let go just now is not free at once."""
        deadline = time.monotonic() + self.PATIENCE
        while True:
            try:
                bound = self._server.add_secure_port(f"{host}:{port}", credentials)
            except RuntimeError:
                bound = 0
            if bound:
                return bound
            if time.monotonic() > deadline:
                raise AssertionError(f"{host}:{port} can't be bound")
            self._stopped.wait(0.1)

    def stop(self):
        """Ends all calls, and returns when nobody can connect any more."""
        self._stopped.set()
        with self.changed:
            self.changed.notify_all()
        self._server.stop(0).wait(self.PATIENCE)

    # --- what a test asks -----------------------------------------------------------------------------------------------

    def status(self, node_id):
        with self.changed:
            node = self.nodes.get(node_id)
            if node is None:
                return None
            if node.open:
                return ACTIVE
            return WAITING if time.monotonic() - node.last_end < self.disconnect_after else DISCONNECTED

    def wait_polled(self, node_id, times=1, within=wire.Watched.PATIENCE):
        self.wait(lambda: node_id in self.nodes and len(self.nodes[node_id].polls) >= times,
                  f"{node_id} polls {times} times", within)

    def send(self, node_id, message, length=wire.MAX_MESSAGE_BYTES_LENGTH):
        """False where it was discarded."""
        return self.send_chunks(node_id, wire.cut(wire.dumps(message), wire.TaskResponse, length))

    def send_chunks(self, node_id, chunks):
        with self.changed:
            if self.status(node_id) in (None, DISCONNECTED):
                self.discarded += 1
                return False
            self.nodes[node_id].tasks.append(list(chunks))
            self.changed.notify_all()
            return True

    def replies_to(self, request_id):
        with self.changed:
            return [r for r in self.replies if r.message.get("request_id") == request_id]

    def wait_reply(self, request_id, within=wire.Watched.PATIENCE):
        return self.wait(lambda: self.replies_to(request_id), f"the reply to {request_id}", within)[0]

    def wait_log(self, text):
        return self.wait(lambda: [each for each in self.logs if text in each["message"]], f"a log line with {text!r}")[0]

    # --- the service ----------------------------------------------------------------------------------------------------

    def _problem(self, text):
        with self.changed:
            self.problems.append(text)
            self.changed.notify_all()

    def _plain(self, message):
        """Fields from 1000 up are nobody's business but the sender's."""
        surplus = [f.field_number for f in message.UnknownFields() if f.field_number < 1000]
        if surplus:
            self._problem(f"a {type(message).__name__} with unknown fields {surplus}")
        return message

    def _scripted(self, queue):
        with self.changed:
            return queue.popleft() if queue else None

    def _wake(self):
        with self.changed:
            self.changed.notify_all()

    def _get_task_unary(self, request, context):
        if self._plain(request).protocol_version != wire.PROTOCOL_VERSION:
            self._problem(f"a poll of version {request.protocol_version!r}")
        if not context.add_callback(self._wake):
            return
        with self.changed:
            node = self.nodes[request.node]
            node.polls.append(time.monotonic())
            node.peers.append(context.peer())
            node.open += 1
            scripted = self._scripted(self.on_poll)
            self.changed.notify_all()
        try:
            yield from scripted(request, context) if scripted else self._one_task(node, context)
        finally:
            with self.changed:
                node.open -= 1
                node.last_end = time.monotonic()
                self.changed.notify_all()

    def _one_task(self, node, context):
        with self.changed:
            self.changed.wait_for(lambda: node.tasks or self._stopped.is_set() or not context.is_active())
            if self._stopped.is_set() or not context.is_active():
                return
            task = node.tasks.popleft()
        sent = False
        try:
            yield from task
            sent = True
        finally:
            if not sent:
                with self.changed:
                    node.tasks.appendleft(task)
                    self.changed.notify_all()

    def _reply_task(self, requests, context):
        scripted = self._scripted(self.on_reply)
        if scripted and (requests := scripted(requests, context)) is None:
            return wire.Empty()
        lengths = []

        def noted():
            for chunk in requests:
                lengths.append(len(self._plain(chunk).bytes_))
                yield chunk

        try:
            for payload in wire.payloads(noted()):
                reply, lengths = Reply(payload, lengths, context.peer()), []
                if "__type_message__" in reply.message:
                    wire.check(reply.message)
                with self.changed:
                    known = reply.message.get("node_id") in self.nodes
                    if known:
                        self.replies.append(reply)
                    else:
                        self.unknown += 1
                    self.changed.notify_all()
                if not known:
                    context.abort(grpc.StatusCode.UNKNOWN, "a reply of a node that never polled")
        except (ValueError, EOFError) as e:
            self._problem(f"a reply: {e}")
            raise
        return wire.Empty()

    def _feedback(self, request, context):
        scripted = self._scripted(self.on_feedback)
        if scripted and (request := scripted(request, context)) is None:
            return wire.Empty()
        self._plain(request)
        if request.protocol_version != wire.PROTOCOL_VERSION:
            self._problem(f"feedback of version {request.protocol_version!r}")
        kind = request.WhichOneof("feedback_type")
        try:
            log = json.loads(request.log.msg) if kind == "log" else None
        except ValueError:
            log = {"message": request.log.msg}
        with self.changed:
            if kind == "log":
                self.logs.append({**log, "node_id": request.log.node_id, "level": request.log.level})
            elif kind == "scalar":
                self.scalars.append(request.scalar)
            else:
                self.problems.append("feedback of nothing")
            self.changed.notify_all()
        return wire.Empty()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", required=True)
    parser.add_argument("--cert", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--task", required=True, help="a file with the payload of the first poll's task")
    parser.add_argument("--stall", choices=("task", "reply"), required=True)
    parser.add_argument("--after", type=int, required=True, help="so many chunks")
    args = parser.parse_args()

    def say(event, **more):
        print(json.dumps({"event": event, **more}), flush=True)

    def stall():
        say("stalled")
        threading.Event().wait()

    def poll(*_):
        with open(args.task, "rb") as file:
            chunks = wire.cut(file.read(), wire.TaskResponse)
        for number, chunk in enumerate(chunks):
            if args.stall == "task" and number == args.after:
                stall()
            yield chunk

    def reply(requests, _):
        for _ in range(args.after):
            next(requests)
        stall()

    researcher = Researcher((args.key, args.cert), port=args.port)
    researcher.on_poll.append(poll)
    researcher.on_reply.append(reply)
    say("listening", port=researcher.port)
    threading.Event().wait()


if __name__ == "__main__":
    main()
