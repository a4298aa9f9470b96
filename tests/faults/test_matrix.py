"""The page of the fault matrix is true: each fault has its row, and each row names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"
_ROW = re.compile(r"^\| ([A-Z]\d\d)(?: to [A-Z](\d\d))? \|.*\| ([^|]+) \|$", re.MULTILINE)
LAST = {"N": (1, 20), "H": (1, 17), "T": (1, 10), "J": (0, 20), "M": (1, 4)}


def rows() -> dict[str, list[str]]:
    """Return the tests of each fault as the page names them."""
    found: dict[str, list[str]] = {}
    for first, last, names in _ROW.findall(PAGE.read_text(encoding="utf-8")):
        for number in range(int(first[1:]), int(last or first[1:]) + 1):
            found[f"{first[0]}{number:02}"] = names.split(", ")
    return found


def all_tests() -> set[str]:
    """Return the names of all tests."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py"))
    return {
        node.name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_fault_of_the_matrix_has_its_row() -> None:
    """No number is left out."""
    expected = {
        f"{letter}{number:02}" for letter, (first, last) in LAST.items() for number in range(first, last + 1)
    }

    assert expected - set(rows()) == set()


def test_every_row_names_tests_that_exist() -> None:
    """What the page says can be looked at."""
    known = all_tests()

    missing = {fault: set(names) - known for fault, names in rows().items() if set(names) - known}

    assert missing == {}


def test_every_test_that_bears_a_number_stands_on_the_page() -> None:
    """A test of a fault cannot be there without being found from the page."""
    named = {name for names in rows().values() for name in names}
    numbered = {name for name in all_tests() if re.match(r"test_(?:[nhtjma]\d\d_)+", name)}

    assert numbered - named == set()
