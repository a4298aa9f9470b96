"""
Read the output of pytest runs: fail on tests that were skipped without being listed, and repeat the closing lines.

Takes the output and a list of skips, a line each: a part of pytest's own line, ` # ` and a reason.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# "3 passed in 0.1s" between equals signs, alone in quiet runs; of whatever outcome.
_CLOSING = re.compile(
    r"^=*\s*(?:\d+ \w+, )*\d+ (?:passed|failed|skipped|errors?|xfailed|deselected)\b.* in [\d.]+s.*"
)
_SKIPPED = re.compile(r"^(?:SKIPPED|XFAIL) .*")
_COUNT = re.compile(r"(\d+) (?:skipped|xfailed)\b")


def main(output: Path, listed: Path) -> int:
    """Print the closing lines; return 1 if there are none or a skip is not listed."""
    lines = _COLOURS.sub("", output.read_text(encoding="utf-8", errors="replace")).splitlines()
    allowed = [
        line.split(" # ")[0].strip()
        for line in listed.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    closing = [line for line in lines if _CLOSING.match(line)]
    skips = [line for line in lines if _SKIPPED.match(line)]
    unlisted = [line for line in skips if not any(each in line for each in allowed)]
    counted = sum(int(number) for line in closing for number in _COUNT.findall(line))
    for line in unlisted:
        sys.stdout.write(f"not listed in {listed}: {line}\n")
    if counted and not skips:
        sys.stdout.write("expected pytest to say what was skipped (-ra), found only their number\n")
    if not closing:
        sys.stdout.write("expected the closing line of a pytest run, found none\n")
    sys.stdout.write("\n".join(["", *closing, ""]))
    return 1 if unlisted or not closing or (counted and not skips) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
