"""The table of faults in tests/README.md names, for every fault, tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Fetch to lease, workers and queues, results, engine, hosts and payloads, security.
ROWS = {"A": 21, "B": 7, "C": 15, "D": 13, "E": 13, "S": 19}
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+?) \| ([1-8, -]+) \| (.+) \|$", re.MULTILINE)
TEST_ID = re.compile(r"`((?:[a-z_]+/)+test_[a-z_]+\.py)::(test_\w+)`")

table = {row: shown for row, _, _, shown in ROW.findall((TESTS / "README.md").read_text())}


@cache
def functions_of(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef))


def test_every_fault_has_a_row() -> None:
    """A fault that is dropped from the table is a promise that nobody checks any more."""
    wanted = [f"{letter}{n}" for letter, count in ROWS.items() for n in range(1, count + 1)]

    assert [row for row in wanted if row not in table] == []


@pytest.mark.parametrize(("row", "shown"), table.items(), ids=table)
def test_every_row_names_tests_that_exist(row: str, shown: str) -> None:
    """A renamed test must not leave a row that only looks shown."""
    named = TEST_ID.findall(shown)

    assert named, f"{row} names no test"
    assert shown.count("::") == len(named), f"{row} has a name that is no test id: {shown}"
    for path, name in named:
        assert name in functions_of(TESTS / path), f"{row} names {path}::{name}"
