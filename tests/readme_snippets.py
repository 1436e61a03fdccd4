"""Checks that each code block in C++ of README.md is marked, and is the marked region of the example it names; --write
puts it there."""

import pathlib
import re
import sys
import textwrap

root = pathlib.Path(sys.argv[1])
readme = root / "README.md"
text = readme.read_text(encoding="utf-8")
block = re.compile(r"<!-- from (?P<file>\S+): (?P<name>\w+) -->\n```cpp\n(?P<code>.*?)```\n", re.S)


def region(match):
    source = (root / match["file"]).read_text(encoding="utf-8")
    found = re.search(rf"^ *// readme: {match['name']}\n(.*?)^ *// readme: ", source, re.S | re.M)
    if not found:
        sys.exit(f"{match['file']} has no region '{match['name']}'")
    code = textwrap.dedent(found[1])
    return f"<!-- from {match['file']}: {match['name']} -->\n```cpp\n{code}```\n"


marked = {text.count("\n", 0, match.start("code")) for match in block.finditer(text)}
for number, line in enumerate(text.splitlines(), 1):
    if re.match(r" *(```|~~~) *(cpp|c\+\+|cc|cxx)\b", line, re.I) and number not in marked:
        sys.exit(f"README.md:{number}: a code block without the line before it that says which example it is from")
    if line.lstrip().startswith("<!-- from") and number + 1 not in marked:
        sys.exit(f"README.md:{number}: a mark without a code block that follows")
if not marked:
    sys.exit("README.md has no marked code block")
expected = block.sub(region, text)
if "--write" in sys.argv:
    readme.write_text(expected, encoding="utf-8")
elif expected != text:
    sys.exit("README.md shows code that is not in the examples; run: python3 tests/readme_snippets.py . --write")
