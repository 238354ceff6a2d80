"""What the operator's commands print: for people on a terminal, for programs elsewhere."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.cli.printing import ago, as_json, printable, table

ROOT = Path(__file__).parents[2]
PROGRAM = "from bridge.cli.printing import table; print(table(['ID', 'N'], [['a', '1']]))"


def test_columns_are_aligned_and_rows_are_one_line() -> None:
    """awk and cut read it: nothing is cut off or folded, however long it is."""
    long = "x" * 500

    text = table(("ID", "BYTES", "WHY"), [("a", "7", long), ("bb", "1000", "")], right=("BYTES",))

    assert text.splitlines() == [
        "ID  BYTES  WHY",
        f"a       7  {long}",
        "bb   1000",
    ]


def test_markup_and_emoji_names_stay_as_they_are() -> None:
    """A topic may be called so; the library behind the table would swallow it."""
    assert "[red]x[/red] :tada:" in table(("A",), [("[red]x[/red] :tada:",)])


def test_nothing_from_outside_moves_a_cursor() -> None:
    """A worker's header must not repaint an operator's terminal."""
    text = table(("A",), [("a\x1b[2Jb\r\n\u009bc",)])

    assert text.splitlines()[1] == r"a\x1b[2Jb\r\n\x9bc"


def test_a_body_keeps_its_lines() -> None:
    """And nothing else that is not printable."""
    assert printable("a\n\tb\x07", lines=True) == "a\n\tb\\x07"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (172_800, "2 d")],
)
def test_ages_are_told_in_one_unit(seconds: float, text: str) -> None:
    """The size matters, not the digits."""
    assert ago(seconds) == text


def test_json_is_json_whatever_it_holds() -> None:
    """Letters stay readable; what a terminal might obey is escaped."""
    value = {"ü": "\x1b\x9b\u2028\ud800"}

    text = as_json(value)

    assert json.loads(text) == value
    assert "ü" in text
    assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize(("variable", "colored"), [("", True), ("1", False)])
def test_a_terminal_gets_color_unless_it_is_unwanted(variable: str, colored: bool) -> None:
    """https://no-color.org"""
    ours, theirs = pty.openpty()
    environ = {"PYTHONPATH": str(ROOT), "NO_COLOR": variable, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, env=environ) as process:
        os.close(theirs)
        assert process.wait(30) == 0
    seen = os.read(ours, 4096)
    os.close(ours)

    assert b"ID" in seen
    assert (b"\x1b[" in seen) is colored
