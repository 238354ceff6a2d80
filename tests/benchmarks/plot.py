"""Draws a run as SVG: throughput of all contenders, and latency.  Pure: results in, text out.

Readable on light and dark pages: it brings its own background, in the page's scheme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.benchmarks.results import Results
from tests.benchmarks.scenarios.share import CEILING
from tests.benchmarks.spread import median, percentile

WIDTH, LEFT, RIGHT, ROW = 760, 190, 170, 30
PERCENTS = (50, 95, 99)
NAMES = {
    "ceiling": "raw client, no broker",
    "bridge": "bridge over RabbitMQ",
    "javascript": "JavaScript client",
    "java": "Java client",
    "python": "Python client",
    "javascript, its default pause": "JavaScript, 300 ms pause",
    "raw 8, fetching ahead": "raw, fetching ahead",
}
STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de } .ink { fill: #1f2328 } .faint { fill: #59636e }
  .other { fill: #a3b1c2 } .ours { fill: #1f6feb } .range { stroke: #59636e }
  text { font: 13px system-ui, sans-serif } .head { font-weight: 600; font-size: 15px }
  .small { font-size: 11px }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d } .ink { fill: #f0f6fc } .faint { fill: #9198a1 }
    .other { fill: #57606a } .ours { fill: #4493f8 } .range { stroke: #9198a1 }
  }"""


@dataclass(frozen=True)
class Bar:
    """One contender's line: what is drawn long, and the range around it."""

    name: str
    value: float
    low: float
    high: float

    @property
    def title(self) -> str:
        return NAMES.get(self.name, self.name)


def svg(results: Results) -> str:
    """The picture, with its content in words for who cannot see it.  ValueError where the run has
    neither throughput nor latency.
    """
    throughput = rates(results.details.get("share", []))
    latency = results.details.get("latency", {})
    if not throughput and not latency:
        raise ValueError("nothing to draw: run the figures share and latency")
    body, said, top = [], [], 30
    if throughput:
        body.append(_throughput(throughput, top))
        said += [f"{bar.title}: {bar.value:.0f} tasks/s" for bar in throughput]
        top += 60 + ROW * len(throughput)
    if latency:
        body.append(_latency(latency, top))
        said += [f"{NAMES.get(n, n)}: {_percents(values)}" for n, values in latency.items()]
        top += 60 + ROW * len(latency)
    notes = _conditions(results.conditions)
    body += [_text(20, top + 14 * n, note, "faint small") for n, note in enumerate(notes)]
    height = top + 14 * len(notes) + 6
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
            ' aria-labelledby="title description">',
            '<title id="title">Throughput and latency of the External Task Bridge</title>',
            f'<desc id="description">{escape("; ".join([*said, *notes]))}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
            *body,
            "</svg>\n",
        ]
    )


def rates(rounds: Sequence[Sequence[Mapping[str, object]]]) -> list[Bar]:
    """Of each contender the median rate and the range of its rounds, fastest first.  The ceiling is
    the better raw client of each round.
    """
    by_name: dict[str, list[float]] = {}
    for turns in rounds:
        told = {str(turn["contender"]): float(str(turn["rate"])) for turn in turns}
        raw = [told.pop(name) for name in CEILING if name in told]
        for name, rate in {**told, **({"ceiling": max(raw)} if raw else {})}.items():
            by_name.setdefault(name, []).append(rate)
    bars = [Bar(name, median(v), min(v), max(v)) for name, v in by_name.items()]
    return sorted(bars, key=lambda bar: -bar.value)


def _throughput(bars: Sequence[Bar], top: int) -> str:
    scale = (WIDTH - LEFT - RIGHT) / max(bar.high for bar in bars)
    ceiling = next((bar for bar in bars if bar.name == "ceiling"), bars[0]).value
    lines = [_text(20, top, "Tasks a second, from engine to worker and back", "ink head")]
    for row, bar in enumerate(bars):
        y = top + 16 + row * ROW
        kind = "ours" if bar.name == "bridge" else "other"
        lines += [
            _text(20, y + 16, bar.title, "ink"),
            f'<rect class="{kind}" x="{LEFT}" y="{y + 3}" width="{bar.value * scale:.1f}"'
            ' height="18" rx="3"/>',
            _range(LEFT + bar.low * scale, LEFT + bar.high * scale, y + 12),
            _text(LEFT + bar.high * scale + 8, y + 16, _told(bar, ceiling), "faint"),
        ]
    return "\n".join(lines)


def _told(bar: Bar, ceiling: float) -> str:
    return f"{bar.value:.0f}/s, {bar.value / ceiling:.2f} x"


def _latency(waits: Mapping[str, Sequence[float]], top: int) -> str:
    longest = max(percentile(values, PERCENTS[-1]) for values in waits.values())
    scale = (WIDTH - LEFT - RIGHT) / longest
    head = "Milliseconds from a task's creation to its worker: p50, p95, p99"
    lines = [_text(20, top, head, "ink head")]
    for row, (name, values) in enumerate(waits.items()):
        y = top + 16 + row * ROW
        at = [LEFT + percentile(values, percent) * scale for percent in PERCENTS]
        kind = "ours" if name == "bridge" else "other"
        lines += [_text(20, y + 16, NAMES.get(name, name), "ink"), _range(at[0], at[-1], y + 12)]
        lines += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y + 12}" r="6"/>' for x in at]
        lines.append(_text(at[-1] + 12, y + 16, _percents(values), "faint"))
    return "\n".join(lines)


def _percents(values: Sequence[float]) -> str:
    return " / ".join(f"{percentile(values, percent):.1f}" for percent in PERCENTS) + " ms"


def _conditions(told: Mapping[str, str]) -> list[str]:
    lines = [("engine", "database"), ("broker", "queues"), ("machine", "python")]
    return ["; ".join(f"{key}: {told[key]}" for key in keys if key in told) for keys in lines]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _range(low: float, high: float, y: float) -> str:
    return f'<path class="range" stroke-width="1.5" d="M{low:.1f} {y}H{high:.1f}"/>'
