"""Checks that each test that README.md names is there: `name` in the last column of a table whose head ends in "test". A
star stands for anything. No other table names tests in its last column."""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys

root, build = pathlib.Path(sys.argv[1]), sys.argv[2]
listed = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True, check=True)
names = {test["name"] for test in json.loads(listed.stdout)["tests"]}
named = missing = 0
in_table = False
for number, line in enumerate((root / "README.md").read_text(encoding="utf-8").splitlines(), 1):
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    if not line.startswith("|"):
        in_table = False
    elif cells[-1] == "test":
        in_table = True
    elif not set(line) <= set("|-: "):
        patterns = re.findall(r"`([^`]+)`", cells[-1])
        if not in_table:
            for pattern in patterns:
                if fnmatch.filter(names, pattern):
                    print(f"README.md:{number}: a table whose head does not end in \"test\" names {pattern}")
                    missing += 1
            continue
        if not patterns:
            print(f"README.md:{number}: the row names no test")
            missing += 1
        for pattern in patterns:
            named += 1
            if not fnmatch.filter(names, pattern):
                print(f"README.md:{number}: there is no test {pattern}")
                missing += 1
if named == 0:
    sys.exit("README.md names no tests")
if missing:
    sys.exit(f"README.md is wrong about {missing} tests; there are {len(names)}")
