"""What the operator's commands print: for people on a terminal, for programs elsewhere."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from bridge.cli.options import refuse
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


def test_a_refusal_moves_no_cursor_either(capsys: pytest.CaptureFixture[str]) -> None:
    """It quotes what engine, broker or a proxy between them have said."""
    with pytest.raises(typer.Exit):
        refuse(("the engine says \x1b[2J\nall is well",))

    assert capsys.readouterr().err == "the engine says \\x1b[2J\\nall is well\n"


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


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


TASK = "2f1c9a58-c6b1-11f0-9e5a-0242ac110002"
KEY = "topics.payment-processing.process_definition_key"
SAYS = "! queue 'payment-processing' has 1204 ready and no consumer; start its workers"


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_breaks_texts_at_words_and_never_an_id(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """A half of an id cannot be copied into the next command; a longer line can be."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")

    text = table(("TASK", "IN FLIGHT", "KEY", "SAYS"), [(TASK, "12/1000", KEY, SAYS)])

    assert [word for word in SAYS.split() if word not in text.split()] == []
    (row,) = (line for line in text.splitlines() if TASK in line)
    assert KEY in row
    assert len(text.splitlines()) > 3
    assert "12/1000" in row


def test_a_terminal_folds_texts_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits, fits: no line is longer than the terminal, and none is broken needlessly."""
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")

    wide = table(("TASK", "STATE", "LAST ERROR"), [(TASK, "waits", "no money " * 12)])
    short = table(("TASK", "LAST ERROR"), [(TASK, "no money")])

    assert 60 < max(map(len, wide.splitlines())) <= 80
    assert short.splitlines()[1] == f"{TASK}  no money"


@pytest.mark.parametrize(("variable", "colored"), [("", True), ("1", False)])
def test_a_terminal_gets_color_unless_it_is_unwanted(variable: str, colored: bool) -> None:
    """https://no-color.org"""
    ours, theirs = pty.openpty()
    environ = {"PYTHONPATH": str(ROOT), "NO_COLOR": variable, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, env=environ) as process:
        os.close(theirs)
        assert process.wait(30) == 0
    seen = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(ours, 4096):
            seen += part
    os.close(ours)

    assert b"ID" in seen
    assert (b"\x1b[" in seen) is colored
