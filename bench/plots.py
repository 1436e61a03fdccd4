"""Draws what the benchmarks came to, as the SVG pictures that the README shows.

    plots.py RESULTS FOLDER [--all]

RESULTS is the folder with the benchmarks' JSON, as bench/run.sh leaves it. Where a benchmark was left out, so is its
picture; with --all the program fails then.
"""

import argparse
import html
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from table import MB, Results  # noqa: E402

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 84, 20, 64, 56
INK, FAINT = "#24292f", "#d0d7de"
FERRY, RAW, OTHER = "#0969da", "#8250df", "#9a6700"

# Seconds for 256 MiB to one peer, from and to, from another day on a machine of the same kind (2 cores at 2.6 GHz,
# loopback).
ANOTHER_DAY = (("Fed-BioMed's Python transport, TLS", 6.7, 6.7), ("NVFlare F3 on gRPC, plain", 0.52, 0.64),
               ("NVFlare F3 on TCP, plain", 0.38, 0.45))


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

    def upwards(self, x, y, what):
        """Text that is read from below."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="middle" fill="#57606a" '
                          f'transform="rotate(-90 {x:.1f} {y:.1f})">{html.escape(what)}</text>')

    def rect(self, x, y, width, height, color, opacity=1):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}" '
                          f'fill-opacity="{opacity}" rx="2"/>')

    def write(self, file):
        file.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="Helvetica, Arial, sans-serif">\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def round_up(value):
    """The next of 1, 2, 2.5, 3 and 5 times a power of ten."""
    power = 10 ** (len(str(int(value))) - 1)
    return next(power * step for step in (1, 2, 2.5, 3, 5, 10) if power * step >= value)


def curves(title, note, labels, series, across_what, up_what):
    """Lines over categories. `series` is (name, color, values); a value of None is left out."""
    out = Picture(title, note)
    most = round_up(max(v for _, _, values in series for v in values if v is not None))
    bottom, right, top = HEIGHT - BOTTOM, WIDTH - RIGHT, TOP + 28
    across = lambda i: LEFT + (right - LEFT) * (i + 0.5) / len(labels)
    up = lambda v: bottom - (bottom - top) * v / most
    for step in range(6):
        value = most * step / 5
        out.line(LEFT, up(value), right, up(value))
        out.text(LEFT - 8, up(value) + 4, f"{value:,.0f}", "end")
    for i, label in enumerate(labels):
        out.text(across(i), bottom + 18, label)
    out.text((LEFT + right) / 2, HEIGHT - 10, across_what, fill="#57606a")
    out.upwards(20, (bottom + top) / 2, up_what)
    for k, (name, color, values) in enumerate(series):
        points = [(across(i), up(v)) for i, v in enumerate(values) if v is not None]
        for a, b in zip(points, points[1:]):
            out.line(*a, *b, color, 2)
        for x, y in points:
            out.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
        out.rect(LEFT + 130 * k, TOP, 12, 12, color)
        out.text(LEFT + 18 + 130 * k, TOP + 10, name, "start")
    return out


def bars(title, notes, rows):
    """Horizontal bars of (name, seconds from, seconds to, color), the shortest first. One that is much longer than all
    others is cut."""
    out = Picture(title, notes[0])
    for i, note in enumerate(notes[1:]):
        out.text(16, 62 + 16 * i, note, "start", fill="#57606a")
    left, right, top = 250, WIDTH - 90, 56 + 16 * len(notes)
    rows = sorted(rows, key=lambda row: row[2])
    longest, second = rows[-1][2], rows[-2][2]
    limit = 1.25 * second if longest > 3 * second else longest
    height = (HEIGHT - top - 12) / len(rows)
    for i, (name, least, most, color) in enumerate(rows):
        y, thick = top + i * height, height * 0.6
        across = lambda seconds: left + max((right - left) * min(seconds, limit) / limit, 1)
        out.text(left - 10, y + height / 2 + 4, name, "end")
        out.rect(left, y + height * 0.2, across(least) - left, thick, color)
        if most > least:
            out.rect(across(least), y + height * 0.2, across(most) - across(least), thick, color, 0.45)
        if most > limit:
            for x in (right - 40, right - 32):
                out.line(x - 5, y + height * 0.85, x + 5, y + height * 0.15, "#ffffff", 4)
        said = f"{least:.3g} s" if least == most else f"{least:.2f}-{most:.2f} s"
        out.text(across(most) + 6, y + height / 2 + 4, said, "start")
    return out


def spaced(size):
    """"256 MB" from "256MB"."""
    return size.replace("MB", " MB")


def chunk_sizes(r):
    names = sorted(r.find("chunk_size/"), key=lambda name: int(name.split("/")[2]))
    if not names:
        return None
    size = names[0].split("/")[1]
    sizes = [int(name.split("/")[2]) for name in names]
    label = lambda n: f"{n / 1024:.0f} KiB" if n < MB else f"{n // MB} MiB" if n % MB == 0 else f"{n / 1e6:.3g} MB"
    rates = [r.value(name, "mb") / r.value(name, "ferry_s") for name in names]
    raw = [r.value(name, "mb") / r.value(name, "raw_s") for name in names]
    return curves("Throughput by chunk size",
                  f"{spaced(size)} to one node, plain text, loopback; 1 MB = 1,048,576 bytes",
                  [label(n) for n in sizes], (("ferry", FERRY, rates), ("gRPC by hand", RAW, raw)),
                  "chunk size (MAX_MESSAGE_BYTES_LENGTH)", "MB/s")


def node_counts(r):
    names = sorted(r.find("nodes/"), key=lambda name: int(name.split("/")[2]))
    if not names:
        return None
    size = names[0].split("/")[1]
    counts = [int(name.split("/")[2]) for name in names]
    rate = lambda name, who: r.value(name, "mb_each") * r.value(name, "nodes") / r.value(name, who)
    return curves("Throughput by number of nodes",
                  f"{spaced(size)} to each node, all at once, plain text, loopback; 1 MB = 1,048,576 bytes",
                  [str(n) for n in counts], (("ferry", FERRY, [rate(name, "ferry_s") for name in names]),
                                             ("gRPC by hand", RAW, [rate(name, "raw_s") for name in names])),
                  "nodes", "MB/s in all")


def beside_others(r):
    names = [name for name in r.find("down/") if name.endswith(("/plain", "/tls"))]
    if not names:
        return None
    rows = [(f"{name} *", least, most, OTHER) for name, least, most in ANOTHER_DAY]
    size = names[0].split("/")[1]
    for name in names:
        text = {"plain": "plain", "tls": "TLS"}[name.split("/")[2]]
        for who, key, color in (("ferry", "ferry_s", FERRY), ("gRPC by hand", "raw_s", RAW)):
            seconds = r.value(name, key)
            rows.append((f"{who}, {text}", seconds, seconds, color))
    if size != "256MB":  # a quick run: nothing that others can stand beside
        rows = rows[len(ANOTHER_DAY):]
    return bars(f"{spaced(size)} to one node",
                ("seconds, loopback, steady state; ferry and gRPC by hand keep the memory of large messages",
                 "* measured on another day, on a machine of the same kind")[:1 + (size == "256MB")], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="each picture has to be there")
    args = parser.parse_args()
    results = Results(args.results)
    args.folder.mkdir(parents=True, exist_ok=True)
    missing = False
    for name, draw in (("chunk_sizes", chunk_sizes), ("node_counts", node_counts), ("beside_others", beside_others)):
        picture = draw(results)
        if picture is None:
            print(f"{name}: not measured")
            missing = True
            continue
        picture.write(args.folder / f"{name}.svg")
        print(f"{name}: {args.folder / name}.svg")
    return 1 if missing and args.all else 0


if __name__ == "__main__":
    sys.exit(main())
