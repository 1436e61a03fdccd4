"""The protocol as a Python peer of another make knows it: the service's messages, chunks, msgpack with its tagged values,
and the message classes. Written without ferry's proto file, so that a wrong number in either shows."""

import math
import ssl
import socket
import subprocess
import threading
import time

import grpc
import msgpack
import numpy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTOCOL_VERSION = "7"
MAX_MESSAGE_BYTES_LENGTH = 4_000_000 - 33
MAX_GRPC_MESSAGE_BYTES = 100 * 1024 * 1024
SERVICE = "researcher.ResearcherService"

# --- the service -----------------------------------------------------------------------------------------------------------

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _FIELD.TYPE_STRING, "int32": _FIELD.TYPE_INT32, "bytes": _FIELD.TYPE_BYTES, "bool": _FIELD.TYPE_BOOL,
    "float": _FIELD.TYPE_FLOAT,
}


def _add_field(to, name, number, kind, optional=False):
    field = to.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
    if kind in _TYPES:
        field.type = _TYPES[kind]
    else:
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = kind
    if optional:
        field.proto3_optional = True
        field.oneof_index = len(to.oneof_decl)
        to.oneof_decl.add(name="_" + name)
    return field


def _file():
    file = descriptor_pb2.FileDescriptorProto(name="peer.proto", package="researcher", syntax="proto3")
    file.message_type.add(name="Empty")
    request = file.message_type.add(name="TaskRequest")
    _add_field(request, "node", 1, "string")
    _add_field(request, "protocol_version", 2, "string")
    for name in ("TaskResponse", "TaskResult"):
        chunk = file.message_type.add(name=name)
        _add_field(chunk, "size", 1, "int32")
        _add_field(chunk, "iteration", 2, "int32")
        _add_field(chunk, "bytes_", 3, "bytes")
    feedback = file.message_type.add(name="FeedbackMessage")
    log = feedback.nested_type.add(name="Log")
    for number, name in enumerate(("node_id", "level", "msg"), 1):
        _add_field(log, name, number, "string")
    scalar = feedback.nested_type.add(name="Scalar")
    _add_field(scalar, "node_id", 1, "string")
    _add_field(scalar, "experiment_id", 2, "string")
    for number, name in enumerate(("train", "test", "test_on_local_updates", "test_on_global_updates"), 3):
        _add_field(scalar, name, number, "bool")
    entry = scalar.nested_type.add(name="MetricEntry")
    entry.options.map_entry = True
    _add_field(entry, "key", 1, "string")
    _add_field(entry, "value", 2, "float")
    metric = _add_field(scalar, "metric", 7, ".researcher.FeedbackMessage.Scalar.MetricEntry")
    metric.label = _FIELD.LABEL_REPEATED
    _add_field(scalar, "epoch", 8, "int32", optional=True)
    for number, name in enumerate(("total_samples", "batch_samples", "num_batches"), 9):
        _add_field(scalar, name, number, "int32")
    _add_field(scalar, "num_samples_trained", 12, "int32", optional=True)
    _add_field(scalar, "iteration", 13, "int32")
    _add_field(scalar, "node_name", 14, "string")
    _add_field(feedback, "protocol_version", 1, "string")
    feedback.oneof_decl.add(name="feedback_type")
    for number, name in ((3, "scalar"), (4, "log")):
        _add_field(feedback, name, number, ".researcher.FeedbackMessage." + name.capitalize()).oneof_index = 0
    _add_field(feedback, "researcher_id", 2, "string", optional=True)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
_factory = message_factory.MessageFactory(_pool)


def _message(name):
    return _factory.GetPrototype(_pool.FindMessageTypeByName("researcher." + name))


Empty = _message("Empty")
TaskRequest = _message("TaskRequest")
TaskResponse = _message("TaskResponse")
TaskResult = _message("TaskResult")
FeedbackMessage = _message("FeedbackMessage")


class Stub:
    """A node's calls over a channel."""

    def __init__(self, channel):
        def call(kind, name, request, response):
            return getattr(channel, kind)(f"/{SERVICE}/{name}", request.SerializeToString, response.FromString)

        self.get_task_unary = call("unary_stream", "GetTaskUnary", TaskRequest, TaskResponse)
        self.reply_task = call("stream_unary", "ReplyTask", TaskResult, Empty)
        self.feedback = call("unary_unary", "Feedback", FeedbackMessage, Empty)
        self.get_task = call("stream_stream", "GetTask", TaskRequest, TaskResponse)


def add_service(server, get_task_unary, reply_task, feedback):
    """Serves the three methods with functions of (request or requests, context)."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
        "GetTaskUnary": grpc.unary_stream_rpc_method_handler(
            get_task_unary, TaskRequest.FromString, TaskResponse.SerializeToString),
        "ReplyTask": grpc.stream_unary_rpc_method_handler(reply_task, TaskResult.FromString, Empty.SerializeToString),
        "Feedback": grpc.unary_unary_rpc_method_handler(
            feedback, FeedbackMessage.FromString, Empty.SerializeToString),
    }),))


# --- chunks ----------------------------------------------------------------------------------------------------------------


def cut(payload, kind, length=MAX_MESSAGE_BYTES_LENGTH):
    """The chunks of a payload, of `length` bytes each but the last."""
    size = max(1, math.ceil(len(payload) / length))
    for iteration in range(1, size + 1):
        yield kind(size=size, iteration=iteration, bytes_=payload[(iteration - 1) * length:iteration * length])


def payloads(chunks):
    """The payloads that a stream of chunks carries. A stream that ends early ends in EOFError."""
    parts, size = [], 0
    for chunk in chunks:
        size = size if parts else chunk.size
        parts.append(chunk.bytes_)
        if size < 1 or chunk.size != size or chunk.iteration != len(parts) or chunk.iteration > size:
            raise ValueError(f"chunk {chunk.iteration} of {chunk.size} came as number {len(parts)} of {size}")
        if size == chunk.iteration:
            yield b"".join(parts)
            parts = []
    if parts:
        raise EOFError(f"the stream ended after {len(parts)} chunks")


# --- values ----------------------------------------------------------------------------------------------------------------


def _tagged(value):
    if isinstance(value, tuple):
        return {"__type__": "tuple", "value": [_plain(v) for v in value]}
    if isinstance(value, (set, frozenset)):
        return {"__type__": "set", "value": [_plain(v) for v in value]}
    if isinstance(value, numpy.ndarray):
        little = numpy.ascontiguousarray(value).reshape(value.shape)
        little = little.astype(little.dtype.newbyteorder("<"), copy=False)
        return {"__type__": "np.ndarray", "value": [little.tobytes(), little.dtype.name, list(value.shape)]}
    if isinstance(value, numpy.generic):
        return {"__type__": "np.generic", "value": [value.tobytes(), value.dtype.name]}
    return value


def _plain(value):
    """What msgpack can say by itself."""
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        length = math.ceil(value.bit_length() / 8) + 1
        return {"__type__": "int", "value": value.to_bytes(length, "big", signed=True)}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return _tagged(value)


def _hook(value):
    kind = value.get("__type__")
    if kind is None or "value" not in value:
        return value
    inner = value["value"]
    if kind == "tuple":
        return tuple(inner)
    if kind == "set":
        return set(inner)
    if kind == "int":
        return int.from_bytes(inner, "big", signed=True)
    if kind in ("np.ndarray", "torch.Tensor"):
        return numpy.frombuffer(inner[0], dtype=inner[1]).reshape(inner[2])
    if kind == "np.generic":
        return numpy.frombuffer(inner[0], dtype=inner[1])[0]
    return value


def dumps(value):
    return msgpack.packb(_plain(value), use_bin_type=True)


def loads(data):
    """Trailing bytes are an error."""
    return msgpack.unpackb(data, raw=False, strict_map_key=False, object_hook=_hook)


# --- messages --------------------------------------------------------------------------------------------------------------

_STR, _INT, _LIST, _BOOL, _BYTES, _ANY_STR = str, int, list, bool, bytes, (str, type(None))
CLASSES = {
    "PingRequest": {"request_id": _STR},
    "PingReply": {"request_id": _STR, "node_id": _STR, "node_name": _STR},
    "SearchRequest": {"request_id": _STR, "tags": _LIST},
    "SearchReply": {"request_id": _STR, "databases": _LIST, "node_id": _STR, "node_name": _STR, "count": _INT},
    "ListRequest": {"request_id": _STR},
    "ListReply": {"request_id": _STR, "success": _BOOL, "databases": _LIST, "node_id": _STR, "node_name": _STR,
                  "count": _INT},
    "ErrorMessage": {"request_id": _STR, "node_id": _STR, "node_name": _STR, "extra_msg": _STR, "errnum": _ANY_STR},
    "OverlayMessage": {"node_id": _STR, "dest_node_id": _STR, "overlay": _BYTES, "setup": _BOOL, "salt": _BYTES,
                       "nonce": _BYTES},
}


def make(kind, researcher_id, **fields):
    """A message of a class, checked."""
    message = {"protocol_version": PROTOCOL_VERSION, "researcher_id": researcher_id,
               "__type_message__": {"module": "fedbiomed.common.message", "class": kind}, **fields}
    check(message)
    return message


def check(message):
    """Refuses what the original's receivers refuse, by ValueError. Returns the class's name."""
    kind = message.get("__type_message__")
    if not isinstance(kind, dict) or "module" not in kind or "class" not in kind:
        raise ValueError(f"__type_message__ is {kind!r}")
    wanted = CLASSES.get(kind["class"])
    if wanted is None:
        raise ValueError(f"no such class: {kind['class']}")
    if message.get("protocol_version") != PROTOCOL_VERSION:
        raise ValueError(f"protocol_version is {message.get('protocol_version')!r}")
    if not isinstance(message.get("researcher_id"), str):
        raise ValueError(f"researcher_id is {message.get('researcher_id')!r}")
    fields = {k: v for k, v in message.items()
              if k not in ("protocol_version", "researcher_id", "__type_message__")}
    if fields.keys() != wanted.keys():
        raise ValueError(f"{kind['class']} has the fields {sorted(fields)}, not {sorted(wanted)}")
    for name, value in fields.items():
        if not isinstance(value, wanted[name]) or (wanted[name] is int and isinstance(value, bool)):
            raise ValueError(f"{kind['class']}.{name} is a {type(value).__name__}")
    return kind["class"]


# --- waiting ---------------------------------------------------------------------------------------------------------------


class Watched:
    """What threads change while a test waits for it. `changed` guards it, and is notified of each change."""

    PATIENCE = 60

    def __init__(self):
        self.changed = threading.Condition(threading.RLock())

    def wait(self, condition, what, within=PATIENCE):
        """The condition's value, once that is true; an AssertionError where it never is. Time alone may make it true."""
        deadline = time.monotonic() + within
        with self.changed:
            while not (value := condition()):
                if time.monotonic() > deadline:
                    raise AssertionError(f"not within {within} s: {what}")
                self.changed.wait(0.1)
            return value


# --- TLS -------------------------------------------------------------------------------------------------------------------


def make_certificate(folder, name="server", organisation="a-researcher"):
    """A fresh self-signed certificate: paths of its key and certificate."""
    key, cert = f"{folder}/{name}.key", f"{folder}/{name}.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", f"/O={organisation}/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return key, cert


def knock(host, port):
    """A bare TCP connect and close."""
    socket.create_connection((host, port), timeout=10).close()


def fetch_certificate(host, port):
    """The server's certificate, by a TLS handshake without ALPN, as PEM text."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=host) as tls:
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))


def channel(host, port, pem, extra=()):
    """A node's channel: the leaf certificate is its only root, pings also without calls."""
    return grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(pem.encode()), options=(
        ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 2_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
        *extra))
