"""The table of figures as text.  Pure: takes what was measured and returns lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.benchmarks.figures import FIGURES, Figure, Measured

HEAD = ("figure", "naive", "must", "aim", "median", "spread", "")


def table(measured: Sequence[Measured]) -> str:
    """One line for each figure that was measured, in the order of the list of figures."""
    by_key = {m.key: m for m in measured}
    rows = [HEAD, *(_row(f, by_key[f.key]) for f in FIGURES if f.key in by_key)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    notes = [f"  {m.key}: {m.note}" for m in measured if m.note]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _row(figure: Figure, measured: Measured) -> tuple[str, ...]:
    spread = f"±{measured.spread * 50:.0f} %" if len(measured.values) > 1 else ""
    return (
        figure.title,
        "-" if figure.naive is None else number(figure.naive),
        f"{number(figure.must)} {figure.unit}".rstrip(),
        f"{number(figure.aim)} {figure.unit}".rstrip(),
        f"{number(measured.median)} {figure.unit}".rstrip(),
        spread,
        figure.verdict(measured.median) if measured.whole else "not judged: see its note",
    )


def growth_table(growth: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Each dimension of growth with its points, a column for each thing that was measured."""
    blocks = []
    for dimension, points in growth.items():
        columns = [dimension, *(name for name in points[0] if name != "at")]
        rows = [columns, *([number(v) for v in _ordered(point)] for point in points)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(columns))]
        blocks.append(
            "\n".join(
                "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows
            )
        )
    return "\n\n".join(blocks)


def _ordered(point: Mapping[str, float]) -> list[float]:
    return [point["at"], *(value for name, value in point.items() if name != "at")]


def number(value: float) -> str:
    """Short: three digits that count, none behind the point from a hundred on."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
