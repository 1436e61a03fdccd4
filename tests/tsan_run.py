"""Runs a test under ThreadSanitizer and fails on races of ferry's own.

ThreadSanitizer does not see how the packaged gRPC hands memory from one thread to another, so it reports accesses as races
that gRPC has put in order. A report counts where both accesses are made by ferry's code or a test's: what ferry shares
between threads is guarded by ferry's own mutexes, which ThreadSanitizer sees.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

LIBRARY = re.compile(
    r"(std::|__gnu_cxx::|operator (new|delete)|mem(cpy|move|set|cmp)\b|(malloc|free|calloc|realloc|strlen)\b|<null>)")
FERRY = re.compile(r"(^|[ *&<])ferry::|/tests/|_Test::TestBody|loopback::")


def owner_is_ferry(stack):
    """True where the first frame that is no library function is ferry's."""
    for frame in re.findall(r"^ +#\d+ (.*)$", stack, re.M):
        if not LIBRARY.search(frame.split("(")[0].split("<")[0] or frame):
            return FERRY.search(frame) is not None
    return False


def counts(report):
    if "data race" not in report.splitlines()[0]:
        return "ferry::" in report
    stacks = [s for s in report.split("\n\n") if re.search(r"^ +(Previous )?\[?(atomic )?(read|write) of size", s, re.M | re.I)]
    return len(stacks) >= 2 and all(owner_is_ferry(s) for s in stacks[:2])


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
