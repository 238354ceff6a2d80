"""What the commands print: tables, JSON, ages, and when in color.  Asks nobody, decides nothing.

Headers of a message, and what an engine says, are other people's texts: no control character of
theirs reaches a terminal.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Sequence

_UNBOUNDED = 100_000
_GAP = 2
# What people read and nobody types: the columns that may continue on the next line.
_TEXTS = frozenset({"LAST ERROR", "MESSAGE", "REASON", "SAYS", "STATE", "VALUE", "WHAT"})
_TEXT_LEAST, _WORD_MOST = 16, 40
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# What json.dumps leaves as it is, and a terminal may obey or an encoding refuse.
_UNPRINTABLE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> str:
    """Aligned columns under their headings, without a last line end; columns named in `right` are
    aligned right.  On a terminal what is too wide continues on the next line, at words, in columns
    of text alone: an id, a topic or a key is never broken, even where the line then is longer than
    the terminal.  Elsewhere a row is one line, however long, so that other programs can read it.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heads = [printable(heading) for heading in headings]
    cells = [[printable(cell) for cell in row] for row in rows]
    console = Console(
        file=io.StringIO(),
        width=_UNBOUNDED,
        force_terminal=colored(),
        color_system="standard" if colored() else None,
        legacy_windows=False,
    )
    heads, widths = _fitted(heads, cells)
    grid = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for heading, head, width in zip(headings, heads, widths, strict=True):
        grid.add_column(
            Text(head),
            justify="right" if heading in right else "left",
            overflow="fold",
            no_wrap=width is None,
            width=width,
        )
    for row in cells:
        grid.add_row(*map(Text, row))
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _fitted(heads: list[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[int | None]]:
    """The headings, a word a line where there is too little room, and what each column of text may
    take; None: what it needs.
    """
    widths: list[int | None] = [None] * len(heads)
    room = shutil.get_terminal_size().columns - _GAP * (len(heads) - 1)
    if not sys.stdout.isatty() or sum(_widest(c) for c in zip(heads, *rows, strict=True)) <= room:
        return heads, widths
    stacked = [head.replace(" ", "\n") for head in heads]
    columns = list(zip(stacked, *rows, strict=True))
    needs = [_widest((head.split("\n")) + list(cells)) for head, *cells in columns]
    texts = [place for place, head in enumerate(heads) if head in _TEXTS]
    room -= sum(need for place, need in enumerate(needs) if place not in texts)
    for left, place in zip(
        range(len(texts), 0, -1), sorted(texts, key=needs.__getitem__), strict=True
    ):
        word = _widest([word for cell in columns[place] for word in cell.split()])
        least = min(needs[place], max(_TEXT_LEAST, min(word, _WORD_MOST)))
        width = widths[place] = max(least, min(needs[place], room // left))
        room -= width
    return stacked, widths


def _widest(texts: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


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


def colored() -> bool:
    """Whether color helps: a terminal, and no NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


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
