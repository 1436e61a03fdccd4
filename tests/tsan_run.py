"""Runs a test under ThreadSanitizer and fails on races of ferry's own.

ThreadSanitizer does not see how the packaged gRPC hands memory from one thread to another, so it reports accesses as races
that gRPC has put in order. A report counts where both accesses are made by ferry's code or a test's: what ferry shares between
threads is guarded by ferry's own mutexes, which ThreadSanitizer sees. One whose stack is lost may be gRPC's.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

LIBRARY = re.compile(
    r"(std::|__gnu_cxx::|operator (new|delete)|mem(cpy|move|set|cmp)\b|(malloc|free|calloc|realloc|strlen)\b)")
LIBRARYS_FILE = "/usr/include/c++/"
FERRY = re.compile(r"ferry::|loopback::|.*_Test::TestBody")
FERRYS_FILE = re.compile(r"/tests/|/include/ferry/")
ARGUMENTS = re.compile(r"<[^<>()]*>|\([^<>()]*\)")  # innermost ones


def name_of(function):
    """Without what it returns, and without the arguments of templates and calls, which may name anything."""
    name = function.replace("(anonymous namespace)", "anonymous")
    name = re.sub(r"operator(<=>|<<|>>|->\*?|<=|>=|<|>|\(\))", "operator_", name)
    while (shorter := ARGUMENTS.sub("", name)) != name:
        name = shorter
    name = re.sub(r" \[clone.*", "", re.sub(r" const\b", "", name)).strip()
    return re.search(r"(\S*\boperator [\w:]+|\S*)$", name)[0]


def owner(stack):
    """Whose the first frame is that is no library function: "ferry" or "other"."""
    for function, file in re.findall(r"^ +#\d+ (.*) (\S+) \S+$", stack, re.M):
        name = name_of(function)
        if FERRY.match(name):
            return "ferry"
        if function != "<null>" and not LIBRARY.match(name) and not file.startswith(LIBRARYS_FILE):
            return "ferry" if FERRYS_FILE.search(file) else "other"
    return "other"


def counts(report):
    if "data race" not in report.splitlines()[0]:
        return "ferry::" in report
    stacks = [s for s in report.split("\n\n") if re.search(r"^ +(Previous )?\[?(atomic )?(read|write) of size", s, re.M | re.I)]
    owners = {owner(stack) for stack in stacks[:2]}
    return len(stacks) >= 2 and owners == {"ferry"}


with tempfile.TemporaryDirectory() as folder:
    environment = dict(os.environ)
    options = environment.get("TSAN_OPTIONS", "")
    environment["TSAN_OPTIONS"] = f"{options}:exitcode=0:log_path={folder}/report"
    status = subprocess.run(sys.argv[1:], env=environment, check=False).returncode
    text = "".join(p.read_text(errors="replace") for p in sorted(pathlib.Path(folder).iterdir()))

reports = re.split(r"^WARNING: ThreadSanitizer: ", text, flags=re.M)[1:]
own = [r for r in reports if counts(r)]
for each in own:
    print("WARNING: ThreadSanitizer: " + each)
if reports:
    print(f"ThreadSanitizer: {len(reports)} reports, {len(own)} of them ferry's own")
sys.exit(1 if status == 0 and own else status)
