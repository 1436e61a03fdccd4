"""Checks that the headers keep to their layers.

    include_layers.py INCLUDE_DIR

A header includes only headers of lower layers, or of its own without a cycle; a model of layer 2 includes no other model;
only layer 4 and above see gRPC, protobuf and the generated code. A header that the table does not name, such as one in
detail/, states its layer in one of its first lines: "// layer N".
"""

import re
import sys
from pathlib import Path

LAYERS = {
    0: "version error outcome node_info feedback payload policy growing_pause malloc",
    1: "chunk chunk_assembler spool message fields serializer retry agent_store identity observer",
    2: "serializer/* agent_store/* observer/* fedbiomed fedbiomed/*",
    3: "frames dispatch_events dispatch intake_events intake delivery task conformance/*",
    4: "wire credentials server_options client_options grpc_server grpc_client",
    5: "ferry",
}
MODELS = 2
REFINES = {"ferry/serializer/simdjson.hpp": "ferry/serializer/json.hpp"}  # a model that is another one, but for a part
FIRST_WITH_GRPC = 4
LINES_FOR_A_LAYER = 10
GRPC = re.compile(r"(grpc|grpcpp|grpc\+\+|google/protobuf|absl)/|.*\.pb\.h$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def layer_of(name, text):
    stated = re.search(r"^// layer (\d+)\s*$", "\n".join(text.splitlines()[:LINES_FOR_A_LAYER]), re.MULTILINE)
    if stated:
        return int(stated.group(1))
    stem = name.removeprefix("ferry/").removesuffix(".hpp")
    for layer, entries in LAYERS.items():
        for entry in entries.split():
            if stem == entry or (entry.endswith("/*") and re.fullmatch(re.escape(entry[:-1]) + r"[^/]+", stem)):
                return layer
    return None


def cycles(graph):
    """Yields each cycle that a walk over the graph closes."""
    done, path = set(), []

    def walk(node):
        if node in path:
            yield path[path.index(node):] + [node]
            return
        if node in done:
            return
        path.append(node)
        for following in graph.get(node, []):
            yield from walk(following)
        path.pop()
        done.add(node)

    for node in graph:
        yield from walk(node)


def main(include_dir):
    headers = {str(path.relative_to(include_dir)): path.read_text() for path in sorted(include_dir.rglob("*.hpp"))}
    if not headers:
        return [f"{include_dir} holds no headers"]
    faults = []
    layers = {name: layer_of(name, text) for name, text in headers.items()}
    graph = {}
    for name, text in headers.items():
        own = layers[name]
        if own is None:
            faults.append(f"{name}: its layer is unknown; state it in one of its first lines: // layer N")
            continue
        for quote, target in INCLUDE.findall(text):
            if GRPC.match(target):
                if own < FIRST_WITH_GRPC:
                    faults.append(f"{name}: layer {own} must not include {target}")
            elif quote == '"':
                faults.append(f'{name}: write <ferry/...> in place of "{target}"')
            elif target.startswith("ferry/"):
                graph.setdefault(name, []).append(target)
                other = layers.get(target)
                if target not in headers:
                    faults.append(f"{name}: {target} is not there")
                elif other is not None and other > own:
                    faults.append(f"{name}: layer {own} must not include {target} of layer {other}")
                elif other == own == MODELS and "/detail/" not in target and REFINES.get(name) != target:
                    faults.append(f"{name}: a model must not include another one, {target}")
    faults += ["a cycle: " + " -> ".join(cycle) for cycle in cycles(graph)]
    return faults


if __name__ == "__main__":
    found = main(Path(sys.argv[1]))
    for fault in found:
        print(fault, file=sys.stderr)
    sys.exit(1 if found else 0)
