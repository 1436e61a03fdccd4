"""Draws what the benchmarks came to, as the SVG pictures that the README shows.

    plots.py RESULTS FOLDER

RESULTS is the folder with the benchmarks' JSON, as bench/run.sh leaves it. Where a benchmark was left out, so is its picture.
"""

import argparse
import html
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from table import MB, Results  # noqa: E402

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 64, 56
INK, FAINT = "#24292f", "#d0d7de"
FERRY, RAW, OTHER = "#0969da", "#8250df", "#9a6700"

# Seconds for 256 MiB to one peer, from another day on a machine of the same kind (2 cores at 2.6 GHz, loopback).
ANOTHER_DAY = (("Fed-BioMed's Python transport, TLS", 6.7), ("NVFlare F3 on gRPC, plain", 0.58),
               ("NVFlare F3 on TCP, plain", 0.415))


class Picture:
    def __init__(self, title, note):
        self.parts = [f'<text x="16" y="26" font-size="16" font-weight="600">{html.escape(title)}</text>',
                      f'<text x="16" y="46" font-size="12" fill="#57606a">{html.escape(note)}</text>']

    def text(self, x, y, what, anchor="middle", size=12, fill=INK):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">'
                          f'{html.escape(what)}</text>')

    def line(self, x1, y1, x2, y2, color=FAINT, width=1):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
                          f'stroke-width="{width}"/>')

    def rect(self, x, y, width, height, color):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}" rx="2"/>')

    def write(self, file):
        file.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="Helvetica, Arial, sans-serif">\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def round_up(value):
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10 ** (len(str(int(value))) - 1)
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value)


def curves(title, note, labels, series, unit):
    """Lines over categories. `series` is (name, color, values); a value of None is left out."""
    out = Picture(title, note)
    most = round_up(max(v for _, _, values in series for v in values if v is not None))
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    across = lambda i: LEFT + (right - LEFT) * (i + 0.5) / len(labels)
    up = lambda v: bottom - (bottom - TOP - 16) * v / most
    for step in range(6):
        value = most * step / 5
        out.line(LEFT, up(value), right, up(value))
        out.text(LEFT - 8, up(value) + 4, f"{value:,.0f}", "end")
    for i, label in enumerate(labels):
        out.text(across(i), bottom + 18, label)
    out.text((LEFT + right) / 2, HEIGHT - 10, unit, fill="#57606a")
    for k, (name, color, values) in enumerate(series):
        points = [(across(i), up(v)) for i, v in enumerate(values) if v is not None]
        for a, b in zip(points, points[1:]):
            out.line(*a, *b, color, 2)
        for x, y in points:
            out.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
        out.rect(right - 150, TOP - 4 + 18 * k, 12, 12, color)
        out.text(right - 132, TOP + 6 + 18 * k, name, "start")
    return out


def bars(title, note, rows):
    """Horizontal bars of (name, value in seconds, color), the shortest first."""
    out = Picture(title, note)
    left, right = 250, WIDTH - 80
    rows = sorted(rows, key=lambda row: row[1])
    longest, height = rows[-1][1], (HEIGHT - TOP - 20) / len(rows)
    for i, (name, value, color) in enumerate(rows):
        y = TOP + i * height
        out.text(left - 10, y + height / 2 + 4, name, "end")
        out.rect(left, y + height * 0.2, max((right - left) * value / longest, 1), height * 0.6, color)
        out.text(left + (right - left) * value / longest + 6, y + height / 2 + 4, f"{value:.3g} s", "start")
    return out


def chunk_sizes(r):
    names = sorted(r.find("chunk_size/"), key=lambda name: int(name.split("/")[2]))
    if not names:
        return None
    size = names[0].split("/")[1]
    sizes = [int(name.split("/")[2]) for name in names]
    label = lambda n: f"{n / 1024:.0f} KiB" if n < MB else f"{n // MB} MiB" if n % MB == 0 else f"{n / 1e6:.3g} MB"
    rates = [r.value(name, "mb") / r.value(name, "ferry_s") for name in names]
    raw = [r.value(name, "mb") / r.value(name, "raw_s") for name in names]
    return curves("Throughput by chunk size", f"{size} to one node, plain text, loopback; 1 MB = 1,048,576 bytes",
                  [label(n) for n in sizes], (("ferry", FERRY, rates), ("gRPC by hand, 4 MB", RAW, raw)),
                  "MAX_MESSAGE_BYTES_LENGTH (MB/s upwards)")


def node_counts(r):
    names = sorted(r.find("nodes/"), key=lambda name: int(name.split("/")[2]))
    if not names:
        return None
    size = names[0].split("/")[1]
    counts = [int(name.split("/")[2]) for name in names]
    rate = lambda name, who: r.value(name, "mb_each") * r.value(name, "nodes") / r.value(name, who)
    return curves("Throughput by number of nodes", f"{size} to each node, all at once, plain text, loopback; 1 MB = 1,048,576 bytes",
                  [str(n) for n in counts], (("ferry", FERRY, [rate(name, "ferry_s") for name in names]),
                                             ("gRPC by hand", RAW, [rate(name, "raw_s") for name in names])),
                  "nodes (MB/s in all upwards)")


def beside_others(r):
    rows = [(f"{name} *", seconds, OTHER) for name, seconds in ANOTHER_DAY]
    for how, text in (("plain", "plain"), ("tls", "TLS")):
        for name in r.find("down/256MB", f"/{how}"):
            rows.append((f"ferry, {text}", r.value(name, "ferry_s"), FERRY))
            rows.append((f"gRPC by hand, {text}", r.value(name, "raw_s"), RAW))
    if len(rows) == len(ANOTHER_DAY):
        return None
    return bars("256 MB to one node", "seconds, loopback, steady state; * measured on another day, on a machine of the same kind",
                rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    results = Results(args.results)
    args.folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("chunk_sizes", chunk_sizes), ("node_counts", node_counts), ("beside_others", beside_others)):
        picture = draw(results)
        if picture is None:
            print(f"{name}: not measured")
            continue
        picture.write(args.folder / f"{name}.svg")
        print(f"{name}: {args.folder / name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
