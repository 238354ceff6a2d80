"""The results of a run as one JSON document: conditions, figures, turns, growth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Measured

Point = Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """What one scenario brings: values of figures, and what stands behind them."""

    figures: Sequence[Measured] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    growth: Mapping[str, Sequence[Point]] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """Everything of a run."""

    conditions: Mapping[str, str]
    figures: Sequence[Measured]
    details: Mapping[str, Any]
    growth: Mapping[str, Sequence[Point]]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")

    def as_json(self) -> dict[str, Any]:
        figures = {
            m.key: {
                "median": m.median,
                "spread": m.spread,
                "rounds": list(m.values),
                "note": m.note,
                "whole": m.whole,
            }
            for m in self.figures
        }
        return {
            "conditions": dict(self.conditions),
            "figures": figures,
            "details": dict(self.details),
            "growth": {k: [dict(p) for p in v] for k, v in self.growth.items()},
        }


def load(path: Path) -> Results:
    """A saved run.  ValueError with the cure where the file is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        figures = [
            Measured(key, tuple(one["rounds"]), one["note"], one["whole"])
            for key, one in told["figures"].items()
        ]
        return Results(told["conditions"], figures, told["details"], told["growth"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no results of a run ({error!r}): make bench writes them"
        ) from error
