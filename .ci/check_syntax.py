"""Has a compiler check units of a configured build, without writing anything, which takes a fraction of compiling them.

usage: check_syntax.py COMPILER BUILD [--not-in BUILT]

Without --not-in, each header alone; with it, whatever else BUILD compiles and BUILT doesn't. BUILD is one with g++.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OF_GCC = {"-fpch-preprocess"}
HEADERS_ALONE = "_verify_interface_header_sets/"


def units(build):
    """Command by name, which is the file's in the sources or in the build; precompiled headers aside."""
    found = {}
    for each in json.loads((build / "compile_commands.json").read_text()):
        file = Path(each["file"])
        if not file.name.startswith("cmake_pch."):
            found[str(file.relative_to(build) if file.is_relative_to(build) else file)] = each
    return found


def check(compiler, unit):
    words = iter(shlex.split(unit["command"]))
    while Path(next(words)).name != "g++":  # behind the one that ccache is called with
        pass
    command = [compiler, "-fsyntax-only"]
    for word in words:
        if word in ("-o", "-include"):  # what is included in this way is a precompiled header
            next(words)
        elif word != "-c" and word not in OF_GCC:
            command.append(word)
    return command, subprocess.run(command, cwd=unit["directory"], capture_output=True, text=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("compiler")
    parser.add_argument("build", type=Path)
    parser.add_argument("--not-in", type=Path, metavar="BUILT")
    args = parser.parse_args()

    wanted = {name: unit for name, unit in units(args.build.resolve()).items()
              if (HEADERS_ALONE in name) == (args.not_in is None)}
    for name in units(args.not_in.resolve()) if args.not_in else []:
        wanted.pop(name, None)
    if not wanted:
        sys.exit(f"error: there is nothing to check in {args.build}")
    print(f"Checking {len(wanted)} units of {args.build} with {args.compiler}", flush=True)

    refused = []
    with ThreadPoolExecutor(int(os.environ.get("FERRY_JOBS") or len(os.sched_getaffinity(0)))) as threads:
        for name, (command, run) in zip(wanted, threads.map(lambda unit: check(args.compiler, unit), wanted.values())):
            if run.returncode != 0:
                refused.append(name)
                print(f"{run.stdout}{run.stderr}error: {name}, exit code {run.returncode}: {shlex.join(command)}",
                      file=sys.stderr)
    if refused:
        sys.exit(f"error: {args.compiler} refuses {len(refused)} of {len(wanted)} units: {', '.join(refused)}")


main()
