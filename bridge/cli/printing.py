"""What the operator's commands print: tables, JSON, ages.  Asks nobody and decides nothing.

Headers of a message, and what an engine says, are other people's texts: no control character of
theirs reaches a terminal.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Collection, Sequence

from bridge.cli.options import colored

_UNBOUNDED = 100_000
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# What json.dumps leaves as it is, and a terminal may obey or an encoding refuse.
_UNPRINTABLE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> str:
    """Aligned columns under their headings, without a last line end; columns named in `right` are
    aligned right.  On a terminal what is too wide continues on the next line; elsewhere a row is
    one line, however long, so that other programs can read it.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        width=None if terminal else _UNBOUNDED,
        force_terminal=colored(),
        color_system="standard" if colored() else None,
        legacy_windows=False,
    )
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        grid.add_column(
            Text(printable(heading)),
            justify="right" if heading in right else "left",
            overflow="fold",
            no_wrap=not terminal,
        )
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def printable(text: str, *, lines: bool = False) -> str:
    """The text with every control character spelled out, such as `\\x1b`; with `lines` line ends
    and tabs stay.
    """
    kept = "\n\t" if lines else ""
    return "".join(
        char
        if char.isprintable() or char in kept
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def as_json(value: object) -> str:
    """Plain values as an indented JSON document, safe to print on a terminal."""
    document = json.dumps(value, indent=2, ensure_ascii=False)
    return _UNPRINTABLE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def ago(seconds: float) -> str:
    """A length of time in its largest whole unit: "34 s", "5 min", "2 h", "3 d"."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR} h"
    return f"{whole // _DAY} d"
