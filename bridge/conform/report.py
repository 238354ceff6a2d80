"""Verdicts as text for people, as JSON and JUnit XML for programs.  Judges nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from bridge.conform.verdict import Mark, Verdict

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_UNTRIED = 2

_COLORS: dict[Mark, str] = {"passed": "32", "failed": "31", "not tried": "33"}


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """1 where something failed, 0 where something passed, 2 where nothing was tried."""
    marks = {verdict.mark for verdict in verdicts}
    if "failed" in marks:
        return EXIT_FAILED
    return EXIT_PASSED if "passed" in marks else EXIT_UNTRIED


def line(verdict: Verdict, *, color: bool) -> str:
    """One row of the table."""
    mark = f"{verdict.mark:<10}"
    if color:
        mark = f"\x1b[{_COLORS[verdict.mark]}m{mark}\x1b[0m"
    seconds = "      ·" if verdict.mark == "not tried" else f"{verdict.seconds:5.1f} s"
    return f"  {verdict.case:<16} {mark} {seconds}"


def as_text(verdicts: Sequence[Verdict]) -> str:
    """What follows the table: a sentence for each case that did not pass, and the sum."""
    counts = Counter(verdict.mark for verdict in verdicts)
    told = [
        f"{verdict.case}: {' '.join(filter(None, (_sentence(verdict.detail), verdict.advice)))}"
        for verdict in verdicts
        if verdict.mark != "passed"
    ]
    total = ", ".join(f"{counts[mark]} {mark}" for mark in _COLORS if counts[mark])
    return "\n".join(["", *told, *([""] if told else []), total])


def as_json(verdicts: Sequence[Verdict]) -> str:
    """`{"exitCode", "passed", "failed", "notTried", "cases": [{"case", "mark", ...}]}`."""
    counts = Counter(verdict.mark for verdict in verdicts)
    report = {
        "exitCode": exit_code(verdicts),
        "passed": counts["passed"],
        "failed": counts["failed"],
        "notTried": counts["not tried"],
        "cases": [asdict(verdict) for verdict in verdicts],
    }
    return json.dumps(report, indent=2, ensure_ascii=False)


def as_junit(verdicts: Sequence[Verdict]) -> bytes:
    """A JUnit XML document, as continuous integration reads it."""
    counts = Counter(verdict.mark for verdict in verdicts)
    suite = ElementTree.Element(
        "testsuite",
        name="external-task-bridge conform",
        tests=str(len(verdicts)),
        failures=str(counts["failed"]),
        skipped=str(counts["not tried"]),
        errors="0",
        time=f"{sum(verdict.seconds for verdict in verdicts):.3f}",
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", classname="conform", name=verdict.case, time=f"{verdict.seconds:.3f}"
        )
        if verdict.mark == "failed":
            failure = ElementTree.SubElement(case, "failure", message=_printable(verdict.detail))
            failure.text = verdict.advice
        elif verdict.mark == "not tried":
            ElementTree.SubElement(case, "skipped", message=_printable(verdict.detail))
    ElementTree.indent(suite)
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}." if text else ""


def _printable(text: str) -> str:
    # What a worker said last may hold characters that no XML can.
    return "".join(c if c.isprintable() else " " for c in text)
