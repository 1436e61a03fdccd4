"""What the benchmarks came to: a table of what was measured, what it is compared with, the ratio, the target, and whether it is met.

    table.py RESULTS [--json FILE]

RESULTS is the folder with the benchmarks' JSON, as bench/run.sh leaves it. Ratios of large and small messages are medians
of pairs that ran one after the other; the others are ratios of medians.
"""

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path

MB = 1 << 20


class Results:
    """All runs of all benchmarks, by name."""

    def __init__(self, folder):
        self.runs = {}
        for file in sorted(Path(folder).glob("*.json")):
            for run in json.loads(file.read_text())["benchmarks"]:
                if run.get("run_type") == "iteration":
                    self.runs.setdefault(self.short(run["name"]), []).append(run)

    @staticmethod
    def short(name):
        return "/".join(part for part in name.split("/")
                        if not part.startswith(("iterations:", "repeats:", "manual_time", "real_time")))

    def find(self, *parts):
        """Benchmarks whose name begins with the first part and has all of them."""
        return [name for name in self.runs if name.startswith(parts[0]) and all(part in name for part in parts)]

    def value(self, name, key):
        """The median, of times in seconds."""
        scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}
        values = [run[key] * (scale[run["time_unit"]] if key in ("real_time", "cpu_time") else 1) for run in self.runs[name]]
        return statistics.median(values)


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
        """A target of None is one that nothing is asked of: the row is only printed."""
        met = None
        if target is not None and ratio is not None:
            met = ratio <= target if at_most else ratio >= target
        self.rows.append({"what": what, "measured": measured, "compared with": opponent, "ratio": ratio,
                          "target": target, "at most": at_most, "met": met})

    # --- between processes ----------------------------------------------------------------------------------------------

    def transport(self):
        r = self.results
        for way, text in (("down", "to a node"), ("up", "as a reply")):
            for how in ("plain", "tls"):
                for name in r.find(f"{way}/", f"/{how}"):
                    size = name.split("/")[1]
                    get = lambda key: r.value(name, key)
                    self.row(f"{size} {text}, {how}", time_text(get("ferry_s")), f"raw {time_text(get('raw_s'))}",
                             get("ratio"), get("target"))
                    self.row("    the first one", time_text(get("ferry_first_s")), f"raw {time_text(get('raw_first_s'))}",
                             get("first_ratio"), None)
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
            self.row(f"{size} to {nodes} nodes", time_text(get("ferry_s")), f"raw {time_text(get('raw_s'))}", get("ratio"),
                     get("target"))
            self.row("    memory of the server over one payload", f"{get('ferry_server_over_payload_mb'):.0f} MB",
                     f"raw {get('raw_server_over_payload_mb'):.0f} MB", get("ferry_server_over_payload_mb"),
                     32 + int(nodes), at_most=True)
        for name in r.find("nodes/"):
            get = lambda key: r.value(name, key)
            _, size, nodes = name.split("/")[:3]
            self.row(f"{size} to {nodes} node{'s' * (nodes != '1')}", time_text(get("ferry_s")),
                     f"raw {time_text(get('raw_s'))}", get("ratio"), None)
        for name in r.find("chunk_size/"):
            get = lambda key: r.value(name, key)
            _, size, chunk = name.split("/")[:3]
            self.row(f"{size} in chunks of {int(chunk):,} bytes", time_text(get("ferry_s")),
                     f"raw {time_text(get('raw_s'))}", get("ratio"), None)
        for kind, text in (("requests", "1 KB requests and replies, one outstanding"), ("sends", "1 KB sends, 256 in flight"),
                           ("polls", "1 KB tasks by poll")):
            for name in r.find(f"{kind}/"):
                get = lambda key: r.value(name, key)
                nodes = int(name.split("/")[1])
                self.row(f"{text}, {nodes} node{'s' * (nodes > 1)}", rate_text(get("ferry_per_second")),
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
            self.row(f"{name.split('/')[1]} idle nodes: memory a node, more than raw (KB)",
                     f"{get('ferry_kb_a_node'):.1f} KB", f"raw {get('raw_kb_a_node'):.1f} KB", more, 1, at_most=True)
            self.row("    threads, more than raw", f"{get('ferry_threads'):.0f}", f"raw {get('raw_threads'):.0f}",
                     get("ferry_threads") - get("raw_threads"), 0, at_most=True)
            self.row("    one small task to all", time_text(get("ferry_s")), f"raw {time_text(get('raw_s'))}", get("ratio"),
                     get("target"))

    # --- in one process -------------------------------------------------------------------------------------------------

    def pair(self, what, mine, other, target, at_most=True, key="real_time", name="raw"):
        r = self.results
        if mine not in r.runs or other not in r.runs:
            return
        a, b = r.value(mine, key), r.value(other, key)
        self.row(what, time_text(a), f"{name} {time_text(b)}", a / b if at_most else b / a, target, at_most)

    def chunks(self):
        r = self.results
        for name in r.find("BM_split_and_header"):
            kind, size = name.split("<")[1].split(">/")
            if int(size) <= MB:
                continue
            cost, what = r.value(name, "per_chunk"), f"{kind.replace('_', ' ')}, of {int(size) // MB} MB"
            self.row(f"split and encode a header, {what}, a chunk (target in ns)", time_text(cost), "-", cost * 1e9, 60,
                     at_most=True)
            write, by_hand = (r.value(name.replace("split_and_header", other), "per_chunk")
                              for other in ("split_and_write", "two_slices"))
            self.row("    and write it as gRPC's buffer", time_text(write), f"gRPC's two slices {time_text(by_hand)}",
                     write / by_hand, None)
        for name in r.find("BM_assemble"):
            kind, size = name.split("<")[1].split(">/")
            if int(size) < MB:
                continue
            self.pair(f"assemble {int(size) // MB} MB from {kind.replace('_', ' ')}", name, f"BM_memcpy_fresh/{size}", 0.9,
                      at_most=False, name="memcpy")

    def queues(self):
        r = self.results
        for name in r.find("BM_task_life"):
            resends, threads = name.split(">/")[1].split("/")
            other = f"BM_minimal_life/{threads}"
            if other not in r.runs:
                continue
            mine, least = r.value(name, "real_time"), r.value(other, "real_time")
            number = threads.split(":")[1]
            target = max(2, 500e-9 / least) if resends == "0" else None
            self.row(f"a task's life in the queue{', with a resend' * (resends == '1')}, {number} thread"
                     f"{'s' * (number != '1')}", time_text(mine), f"minimal {time_text(least)}", mine / least, target,
                     at_most=True)
        if "BM_hand_over_and_back" in r.runs:
            self.row("a hand-over to a thread that waits", time_text(r.value("BM_hand_over_and_back", "real_time") / 2), "-",
                     None, None)
        few, many = r.find("BM_send_among_known", ">/100")[:1], r.find("BM_send_among_known", ">/100000")[:1]
        if few and many:
            self.pair("a send among 100,000 known nodes", many[0], few[0], 1.5, name="among 100")
            self.pair("    beside a plain hash map", many[0], "BM_plain_map/100000", None, name="map")
            self.pair("    a plain hash map's own", "BM_plain_map/100000", "BM_plain_map/100", None, name="among 100")
            mine, plain = r.value(many[0], "bytes_a_node"), r.value("BM_plain_map/100000", "bytes_a_node")
            self.row("    memory a known node", f"{mine:.0f} B", f"map {plain:.0f} B", mine / plain, None)
        for what, text in (("BM_broadcast_to_known", "a broadcast to 100,000 nodes, a node"),
                           ("BM_status_of_known", "the status of 100,000 nodes, a node")):
            for name in r.find(what, "100000"):
                self.row(text, time_text(r.value(name, "real_time") / 100_000), "-", None, None)

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
            self.pair(f"    posted, fetched, ended and told: {what}", f"BM_shared_life/{size}/{most}", by_hand, None, name="by hand")
        for size, most in ((1024, 1), (1024, 256)):
            name = f"BM_store<in_memory>/{size}/{most}"
            if name in r.runs:
                self.row(f"memory store: 1 KB, {most} under way", time_text(r.value(name, "real_time")), "-", None, None)

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
            ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
            target = "-" if row["target"] is None else f"{'<=' if row['at most'] else '>='} {row['target']:.3g}"
            lines.append((row["what"], row["measured"], row["compared with"], ratio, target,
                          {True: "met", False: "NOT MET", None: ""}[row["met"]]))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        for line in lines:
            cells = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:5], widths[1:5])]
            print("  ".join([*cells, line[5]]).rstrip())
        asked = [row for row in self.rows if row["met"] is not None]
        print(f"\n{sum(row['met'] for row in asked)} of {len(asked)} targets met, on {platform.machine()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE")
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
    table.print()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(table.rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
