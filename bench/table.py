"""What the benchmarks came to: a table of what was measured, what it is compared with, the ratio, and the target.

    table.py RESULTS [--json FILE] [--all] [--without simdjson]

RESULTS is the folder with the benchmarks' JSON, as bench/run.sh leaves it. Ratios of large and small messages are medians
of pairs that ran one after the other; the others are ratios of medians. With --all each row that has a target has to be
there: what isn't counts as not met, and the program fails.
"""

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path

MB = 1 << 20


class Results:
    """All runs of all benchmarks, by name; and what the programs say about themselves."""

    def __init__(self, folder):
        self.runs = {}
        self.context = {}
        for file in sorted(Path(folder).glob("*.json")):
            content = json.loads(file.read_text())
            self.context[file.stem] = content["context"]
            for run in content["benchmarks"]:
                if run.get("run_type") == "iteration" and not run.get("error_occurred"):
                    self.runs.setdefault(self.short(run["name"]), []).append(run)

    @property
    def scale(self):
        return self.context.get("transport_bench", {}).get("scale", "full")

    @staticmethod
    def short(name):
        return "/".join(part for part in name.split("/")
                        if not part.startswith(("iterations:", "repeats:", "manual_time", "real_time")))

    def find(self, *parts):
        """Benchmarks whose name begins with the first part and has all of them."""
        return [name for name in self.runs if name.startswith(parts[0]) and all(part in name for part in parts)]

    def of_policies(self, function):
        """(policies, arguments, name) of each "function<policies>/arguments"."""
        found = []
        for name in self.find(f"{function}<"):
            policies, closed, arguments = name[len(function) + 1:].rpartition(">/")
            if closed:
                found.append((policies, arguments, name))
        return sorted(found, key=lambda each: (each[0], [(len(part), part) for part in each[1].split("/")]))

    def value(self, name, key):
        """The median, of times in seconds."""
        scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}
        is_time = key in ("real_time", "cpu_time")
        return statistics.median(run[key] * (scale[run["time_unit"]] if is_time else 1) for run in self.runs[name])


def size_text(size):
    return f"{size // MB} MB" if size >= MB else f"{size / 1024:.3g} KB"


def policy_text(policies):
    return policies.replace("ferry::", "").replace("_chunks", " chunks")


def nodes_text(count):
    return f"{count} node{'s' * (int(count) != 1)}"


def life_text(policies, resends, threads):
    return (f"a task's life in the queue ({policy_text(policies)}){', with a resend' * (int(resends) == 1)}, "
            f"{threads} thread{'s' * (int(threads) != 1)}")


def split_text(policies, size):
    return f"split and encode a header, {policy_text(policies)}, of {size_text(size)}, a chunk (target in ns)"


def assemble_text(policies, size):
    return f"assemble {size_text(size)} from {policy_text(policies)}"


SMALL = {"requests": "1 KB requests and replies, one outstanding", "sends": "1 KB sends, 256 in flight",
         "polls": "1 KB tasks by poll"}
WAYS = {"down": "to a node", "up": "as a reply"}
OVER_PAYLOAD = "memory of the server over one payload"
AMONG_KNOWN = "a send among 100,000 known nodes"
CORE = "ferry::memory_agent_store, ferry::bounded_retry"  # what queue_bench measures by itself


def idle_text(count):
    return f"{count} idle nodes: memory a node, more than raw (KB)"


def targets(scale, simdjson):
    """Each row that something is asked of, in a run of all benchmarks: what it's part of, or None, and its name."""
    large, middle, some, more, many, idle = {"full": ("256MB", "64MB", 8, 32, 64, 20_000),
                                             "quick": ("64MB", "32MB", 8, 8, 64, 5_000),
                                             "smoke": ("12MB", "8MB", 2, 3, 4, 200)}[scale]
    rows = [(None, f"{large} {way}, {how}") for how in ("plain", "tls") for way in WAYS.values()]
    rows += [(None, f"{large}, processor of the server, plain")]
    for size, count in ((middle, some), (large, more)):
        what = f"{size} to {nodes_text(count)}"
        rows += [(None, what), (what, OVER_PAYLOAD)]
    for text in SMALL.values():
        rows += [(None, f"{text}, {nodes_text(count)}") for count in (1, many)]
    rows += [(f"{SMALL['sends']}, 1 node", "a second"), (None, idle_text(idle)),
             (idle_text(idle), "threads, more than raw"), (idle_text(idle), "one small task to all")]
    largest = [1024 * MB] * (scale == "full")
    for policy, split, assembled in (("small_chunks", [1024, 64 * MB], [1024, MB, 64 * MB]),
                                     ("usual_chunks", [1024, 64 * MB] + largest, [1024, MB, 64 * MB] + largest),
                                     ("large_chunks", [64 * MB] + largest, [64 * MB] + largest)):
        rows += [(None, split_text(policy, size)) for size in split]
        rows += [(None, assemble_text(policy, size)) for size in assembled]
    rows += [(None, life_text(CORE, resends, threads)) for resends in (0, 1) for threads in (1, 2, 4)]
    rows += [(None, f"{AMONG_KNOWN} ({policy_text(CORE)})")]
    rows += [(None, f"msgpack, {way} 1 KB as a {form}") for way in ("encode", "decode")
             for form in ("message", "struct of views")]
    for size in ("500,000 doubles", "1 KB"):
        rows += [(None, f"JSON, {way} {size}") for way in ("encode", "decode")]
        rows += [(None, f"JSON, decode {size}, simdjson")] * simdjson
    return rows


def time_text(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def rate_text(number):
    return f"{number:,.0f}/s"


class Table:
    def __init__(self, results):
        self.results = results
        self.rows = []

    def row(self, what, measured, opponent, ratio, target, at_most=False):
        """A target of None is one that nothing is asked of: the row is only printed. One whose name is indented is part
        of the last one that isn't."""
        met = None
        if target is not None and ratio is not None:
            met = ratio <= target if at_most else ratio >= target
        part_of = None
        if what.startswith(" "):
            part_of = next(row["what"] for row in reversed(self.rows) if row["part of"] is None)
        self.rows.append({"part of": part_of, "what": what.strip(), "measured": measured, "compared with": opponent,
                          "ratio": ratio, "target": target, "at most": at_most, "met": met})

    def add_missing(self, simdjson):
        """Rows for the targets that nothing was measured for. Returns how many there are."""
        have = {(row["part of"], row["what"]) for row in self.rows if row["met"] is not None}
        missing = [each for each in targets(self.results.scale, simdjson) if each not in have]
        for part_of, what in missing:
            self.rows.append({"part of": part_of, "what": what, "measured": "not measured", "compared with": "-",
                              "ratio": None, "target": None, "at most": False, "met": False})
        return len(missing)

    # --- between processes --------------------------------------------------------------------------------------------

    def transport(self):
        r = self.results
        for way, text in WAYS.items():
            for how in ("plain", "tls"):
                for name in r.find(f"{way}/", f"/{how}"):
                    size = name.split("/")[1]
                    get = lambda key: r.value(name, key)
                    self.row(f"{size} {text}, {how}", time_text(get("ferry_s")), f"raw {time_text(get('raw_s'))}",
                             get("ratio"), get("target"))
                    self.row("    the first one", time_text(get("ferry_first_s")),
                             f"raw {time_text(get('raw_first_s'))}", get("first_ratio"), None)
        for name in r.find("server_cpu/"):
            get = lambda key: r.value(name, key)
            _, size, how = name.split("/")[:3]
            self.row(f"{size}, processor of the server, {how}", time_text(get("ferry_server_cpu_s")),
                     f"typed {time_text(get('typed_server_cpu_s'))}", get("ratio"), get("target") or None, at_most=True)
            self.row("    beside typed messages with ferry's checksum", time_text(get("ferry_server_cpu_s")),
                     f"typed {time_text(get('checked_server_cpu_s'))}", get("ratio_to_checked"), None)
            self.row("    gRPC by hand, raw, with the checksum", time_text(get("raw_server_cpu_s")),
                     f"typed {time_text(get('typed_server_cpu_s'))}", get("ratio_of_raw"), None)
        for name in r.find("fan_out/"):
            get = lambda key: r.value(name, key)
            _, size, nodes = name.split("/")[:3]
            self.row(f"{size} to {nodes_text(nodes)}", time_text(get("ferry_s")), f"raw {time_text(get('raw_s'))}",
                     get("ratio"), get("target"))
            self.row(f"    {OVER_PAYLOAD}", f"{get('ferry_server_over_payload_mb'):.0f} MB",
                     f"raw {get('raw_server_over_payload_mb'):.0f} MB", get("ferry_server_over_payload_mb"),
                     32 + int(nodes), at_most=True)
        for name in r.find("nodes/"):
            get = lambda key: r.value(name, key)
            _, size, nodes = name.split("/")[:3]
            self.row(f"by number of nodes: {size} to {nodes_text(nodes)}", time_text(get("ferry_s")),
                     f"raw {time_text(get('raw_s'))}", get("ratio"), None)
        for name in r.find("chunk_size/"):
            get = lambda key: r.value(name, key)
            _, size, chunk = name.split("/")[:3]
            self.row(f"{size} in chunks of {int(chunk):,} bytes", time_text(get("ferry_s")),
                     f"raw {time_text(get('raw_s'))}", get("ratio"), None)
        for kind, text in SMALL.items():
            for name in r.find(f"{kind}/"):
                get = lambda key: r.value(name, key)
                nodes = int(name.split("/")[1])
                self.row(f"{text}, {nodes_text(nodes)}", rate_text(get("ferry_per_second")),
                         f"raw {rate_text(get('raw_per_second'))}", get("ratio"), get("target"))
                if "handed_over_per_second" in r.runs[name][0]:
                    deadline = "a deadline and " if kind == "polls" else ""
                    self.row(f"    gRPC by hand, {deadline}callbacks on threads of their own",
                             rate_text(get("handed_over_per_second")), f"raw {rate_text(get('raw_per_second'))}",
                             get("ratio_of_handed_over"), None)
                if kind == "requests":
                    for share in ("p50", "p99"):
                        mine, other = get(f"ferry_{share}_us"), get(f"raw_{share}_us")
                        self.row(f"    {share}", f"{mine:.0f} us", f"raw {other:.0f} us", mine / other, None)
                if kind == "sends" and nodes == 1:
                    self.row("    a second", rate_text(get("ferry_per_second")), "100,000/s",
                             get("ferry_per_second") / 100_000, 1)
        for name in r.find("idle/"):
            get = lambda key: r.value(name, key)
            more = get("ferry_kb_a_node") - get("raw_kb_a_node")
            self.row(idle_text(name.split("/")[1]), f"{get('ferry_kb_a_node'):.1f} KB",
                     f"raw {get('raw_kb_a_node'):.1f} KB", more, 1, at_most=True)
            self.row("    threads, more than raw", f"{get('ferry_threads'):.0f}", f"raw {get('raw_threads'):.0f}",
                     get("ferry_threads") - get("raw_threads"), 0, at_most=True)
            self.row("    one small task to all", time_text(get("ferry_s")), f"raw {time_text(get('raw_s'))}",
                     get("ratio"), get("target"))

    # --- in one process -----------------------------------------------------------------------------------------------

    def pair(self, what, mine, other, target, at_most=True, key="real_time", name="raw", each=1):
        """Nothing where one of the two was not measured. `mine` is one of `each`."""
        r = self.results
        if mine not in r.runs or other not in r.runs:
            return
        a, b = r.value(mine, key) / each, r.value(other, key)
        self.row(what, time_text(a), f"{name} {time_text(b)}", a / b if at_most else b / a, target, at_most)

    def chunks(self):
        r = self.results
        for policies, size, name in r.of_policies("BM_split_and_header"):
            cost = r.value(name, "per_chunk")
            self.row(split_text(policies, int(size)), time_text(cost), "-", cost * 1e9, 60, at_most=True)
            self.pair("    and write it as gRPC's buffer", f"BM_split_and_write<{policies}>/{size}",
                      f"BM_two_slices<{policies}>/{size}", None, key="per_chunk", name="gRPC's two slices")
        for policies, size, name in r.of_policies("BM_assemble"):
            pieces, whole = f"BM_memcpy_fresh<{policies}>/{size}", f"BM_memcpy_whole/{size}"
            if pieces in r.runs:
                self.pair(assemble_text(policies, int(size)), name, pieces, 0.9, at_most=False,
                          name="memcpy in such pieces")
                self.pair("    beside one memcpy of all", name, whole, None, at_most=False, name="memcpy")
            else:
                self.pair(f"{assemble_text(policies, int(size))}, beside one memcpy of all", name, whole, None,
                          at_most=False, name="memcpy")

    def queues(self):
        r = self.results
        for policies, arguments, name in r.of_policies("BM_task_life"):
            resends, _, threads = arguments.partition("/threads:")
            other = f"BM_minimal_life/threads:{threads}"
            if other not in r.runs:
                continue
            target = max(2, 500e-9 / r.value(other, "real_time"))
            self.pair(life_text(policies, resends, threads), name, other, target, name="minimal")
            if resends == "0":
                for plain, text in (("BM_mutex_deque", "a mutex and a deque"), ("BM_moodycamel", "moodycamel's queue")):
                    self.pair(f"    beside {text}, a number put in and taken out", name, f"{plain}/threads:{threads}",
                              None, name="queue")
        if "BM_hand_over_and_back" in r.runs:
            half = r.value("BM_hand_over_and_back", "real_time") / 2
            self.row("a hand-over to a thread that waits", time_text(half), "-", None, None)
        plain_few, plain = "BM_plain_map/100", "BM_plain_map/100000"
        for policies, nodes, name in r.of_policies("BM_send_among_known"):
            few = f"BM_send_among_known<{policies}>/100"
            if nodes != "100000" or few not in r.runs:
                continue
            self.pair(f"{AMONG_KNOWN} ({policy_text(policies)})", name, few, 1.5, name="among 100")
            self.pair("    beside three look-ups in a plain hash map", name, plain, None, name="map")
            self.pair("    three look-ups in a plain hash map by themselves", plain, plain_few, None, name="among 100")
            if plain in r.runs:
                mine, map_has = r.value(name, "bytes_a_node"), r.value(plain, "bytes_a_node")
                self.row("    memory a known node", f"{mine:.0f} B", f"map {map_has:.0f} B", mine / map_has, None)
        for what, text in (("BM_broadcast_to_known", "100,000 sends, one to each node, a send"),
                           ("BM_status_of_known", "the status of 100,000 nodes, a node")):
            for policies, nodes, name in r.of_policies(what):
                if nodes == "100000":
                    self.pair(f"{text} ({policy_text(policies)})", name, plain, None, name="three look-ups in a map",
                              each=100_000)

    def stores(self):
        r = self.results
        for durability, text in (("survives", "each waits for the disk"), ("loses_the_last", "the last may be lost")):
            by_hand = {"survives": "survives_power_cut", "loses_the_last": "power_cut_loses_the_last"}[durability]
            for size, most, what in ((1024, 1, "1 KB, one by one"), (1024, 256, "1 KB, 256 under way"),
                                     (1_000_000, 1, "1 MB, one by one")):
                self.pair(f"SQLite store, {text}: {what}", f"BM_store<{durability}>/{size}/{most}",
                          f"BM_sqlite_by_hand<ferry::sqlite_durability::{by_hand}>/{size}/{most}", None, name="by hand")
        for size, most, what in ((1024, 1, "1 KB, one by one"), (1024, 256, "1 KB, 256 under way"),
                                 (1_000_000, 1, "1 MB, one by one")):
            by_hand = f"BM_redis_by_hand/{size}/{most}"
            self.pair(f"Redis store: {what}", f"BM_store<in_redis>/{size}/{most}", by_hand, None, name="by hand")
            self.pair(f"    posted, fetched, ended and told: {what}", f"BM_shared_life/{size}/{most}", by_hand, None,
                      name="by hand")
        for size, most in ((1024, 1), (1024, 256)):
            name = f"BM_store<in_memory>/{size}/{most}"
            if name in r.runs:
                cost = time_text(r.value(name, "real_time"))
                self.row(f"memory store: 1 KB, {most} under way", cost, "-", None, None)

    def serializers(self):
        m, j = "ferry::msgpack_serializer<>", "ferry::json_serializer<>"
        for way, least in (("encode", "pack"), ("decode", "unpack")):
            by_reference = f"BM_msgpack_{least}_by_reference"
            self.pair(f"msgpack, {way} 1 KB as a message", f"BM_{way}<{m}, kilobyte>", f"{by_reference}<kilobyte>", 6,
                      name="by reference")
            self.pair(f"msgpack, {way} 1 KB as a struct of views",
                      f"BM_{way}<ferry::msgpack_serializer<viewed>, viewed, viewed>", f"{by_reference}<viewed>", 1.5,
                      name="by reference")
            self.pair(f"msgpack, {way} a binary of 64 MB", f"BM_{way}<{m}, binary>", f"{by_reference}<binary>", None,
                      name="by reference")
        for size, text in (("doubles", "500,000 doubles"), ("kilobyte", "1 KB")):
            big = size == "doubles"
            self.pair(f"JSON, encode {text}", f"BM_encode<{j}, {size}>", f"BM_nlohmann_dump<{size}>", 1.7 if big else 1,
                      at_most=False, name="nlohmann")
            self.pair(f"JSON, decode {text}", f"BM_decode<{j}, {size}>", f"BM_nlohmann_parse<{size}>", 1, at_most=False,
                      name="nlohmann")
            self.pair(f"JSON, decode {text}, simdjson", f"BM_decode<ferry::simdjson_serializer<>, {size}>",
                      f"BM_nlohmann_parse<{size}>", 3 if big else 1, at_most=False, name="nlohmann")

    def print(self):
        head = ("what", "measured", "compared with", "ratio", "target", "")
        lines = [head]
        for row in self.rows:
            what = f"    {row['what']}" if row["part of"] and row["measured"] != "not measured" else row["what"]
            if row["part of"] and row["measured"] == "not measured":
                what = f"{row['part of']}: {what}"
            ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
            target = "-" if row["target"] is None else f"{'<=' if row['at most'] else '>='} {row['target']:.3g}"
            lines.append((what, row["measured"], row["compared with"], ratio, target,
                          {True: "met", False: "NOT MET", None: ""}[row["met"]]))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        for line in lines:
            cells = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:5], widths[1:5])]
            print("  ".join([*cells, line[5]]).rstrip())
        asked = [row["met"] for row in self.rows if row["met"] is not None]
        print(f"\n{sum(asked)} of {len(asked)} targets met, on {platform.machine()}")

    def write(self, file):
        told = ("date", "num_cpus", "mhz_per_cpu", "cpu_scaling_enabled", "load_avg")
        context = {name: {key: each[key] for key in told if key in each} for name, each in self.results.context.items()}
        asked = [row["met"] for row in self.rows if row["met"] is not None]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"scale": self.results.scale, "machine": platform.machine(),
                                    "date": min(each["date"] for each in context.values()), "context": context,
                                    "targets": len(asked), "met": sum(asked), "rows": self.rows}, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--all", action="store_true", help="each row with a target has to be there")
    parser.add_argument("--without", choices=["simdjson"], help="what was not there when the benchmarks were built")
    args = parser.parse_args()
    results = Results(args.results)
    if not results.runs:
        parser.error(f"no results in {args.results}: run bash bench/run.sh")
    table = Table(results)
    table.transport()
    table.chunks()
    table.queues()
    table.stores()
    table.serializers()
    missing = table.add_missing(args.without != "simdjson") if args.all else 0
    table.print()
    if args.json:
        table.write(args.json)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
