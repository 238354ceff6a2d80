"""What a check found, and how it is shown: as text for people, as JSON for programs.

Looks at nothing itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Mark = Literal["ok", "warning", "problem"]
Group = Literal["settings", "engine", "broker", "topics"]

EXIT_OK = 0
EXIT_WOULD_FAIL = 1
EXIT_SETTINGS = 2

_COLORS = {"ok": "32", "warning": "33", "problem": "31"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact.  `key` is the path of the setting it is about; `cure` what mends it."""

    group: Group
    mark: Mark
    key: str
    text: str
    cure: str = ""

    @property
    def line(self) -> str:
        """In one line, whatever an engine or a broker has said."""
        key = f"{self.key}: " if self.key and self.mark != "ok" else ""
        cure = f"; {self.cure}" if self.cure else ""
        return "".join(c if c.isprintable() else " " for c in f"{key}{self.text}{cure}")


def ok(group: Group, text: str, key: str = "") -> Finding:
    """As it should be, or good to know."""
    return Finding(group, "ok", key, text)


def warning(group: Group, key: str, text: str, cure: str) -> Finding:
    """`run` would work, but not as its user may think."""
    return Finding(group, "warning", key, text, cure)


def problem(group: Group, key: str, text: str, cure: str) -> Finding:
    """Something would fail."""
    return Finding(group, "problem", key, text, cure)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where nothing would fail, 2 where the settings cannot be used, else 1."""
    groups = {finding.group for finding in findings if finding.mark == "problem"}
    if "settings" in groups:
        return EXIT_SETTINGS
    return EXIT_WOULD_FAIL if groups else EXIT_OK


def as_text(findings: Sequence[Finding], *, color: bool) -> str:
    """One line per finding below the name of its group, and a last line that sums up."""
    lines: list[str] = []
    for group in get_args(Group):
        found = [finding for finding in findings if finding.group == group]
        lines += [group] if found else []
        lines += [f"  {_mark(finding.mark, color=color)} {finding.line}" for finding in found]
    return "\n".join([*lines, _summary(findings)])


def as_json(findings: Sequence[Finding]) -> str:
    """`{"exitCode", "problems", "warnings", "findings": [{"group", "mark", "key", ...}]}`."""
    counts = Counter(finding.mark for finding in findings)
    report = {
        "exitCode": exit_code(findings),
        "problems": counts["problem"],
        "warnings": counts["warning"],
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(report, indent=2, ensure_ascii=False)


def _mark(mark: Mark, *, color: bool) -> str:
    padded = f"{mark:<8}"
    return f"\x1b[{_COLORS[mark]}m{padded}\x1b[0m" if color else padded


def _summary(findings: Iterable[Finding]) -> str:
    counts = Counter(finding.mark for finding in findings)
    warnings = _number(counts["warning"], "warning")
    if counts["problem"] == 0:
        return f"nothing would fail, {warnings}"
    return f"{_number(counts['problem'], 'problem')}, {warnings}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
