"""Write the parts of docs/ that come from the code; with --check, only tell whether they are up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from kling_async.protocol.codes import CODES

PAGE = Path(__file__).parent / "errors.md"
BEGIN, END = "<!-- codes: written by docs/tables.py -->\n", "<!-- end of codes -->\n"


def codes() -> str:
    """Return the table of the service's codes in Markdown."""
    rows = [
        f"| {row.code} | {row.http_status} | {row.meaning} | `{row.error.__name__}` | {row.remedy} |"
        for row in CODES.values()
    ]
    return "\n".join(["| code | HTTP | meaning | raised | what to do |", "|---|---|---|---|---|", *rows, ""])


def main(arguments: list[str]) -> int:
    """Write the page, or return 1 if it is not as it should be and only a check was asked for."""
    found = PAGE.read_text(encoding="utf-8")
    before, _, rest = found.partition(BEGIN)
    wanted = before + BEGIN + codes() + END + rest.partition(END)[2]
    if found == wanted:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{PAGE.name}: expected the table of the code; run: nox -s tables\n")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
