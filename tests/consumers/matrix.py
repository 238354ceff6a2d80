"""Prints the matrix of workers and cases at the end of a run, however the tests were spread.

A plugin, since only the process that prints has a terminal, and with pytest-xdist that one collects
no test: the cells come to it with the reports.  The tests of the samples take part by themselves;
any other one may, with `record_property("matrix", "<worker>/<case>")`.
"""

from __future__ import annotations

import pytest

from tests.consumers.samples import SAMPLES, Sample

NAME = "tests.consumers.matrix"
WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
LAST = "conformance kit"
Cells = dict[str, dict[str, str]]
_cells: Cells = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test that runs a sample is known before it does, so that a skipped one is shown, too."""
    if not isinstance(item, pytest.Function) or "broker_node" not in item.fixturenames:
        return
    params = item.callspec.params if hasattr(item, "callspec") else {}
    for sample in (value for value in params.values() if isinstance(value, Sample)):
        said = item.originalname.removeprefix("test_").replace("_", " ")
        cell = f"{sample.name}/{params.get('case', said)}"
        item.user_properties.append(("matrix", cell))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note(_cells, report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _cells:
        terminalreporter.section("workers and cases")
        for line in table(_cells):
            terminalreporter.write_line(line)


def note(cells: Cells, report: pytest.TestReport) -> None:
    """Remember what a report says of its cell: the worst of several."""
    for name, value in report.user_properties:
        if name == "matrix" and (report.when == "call" or not report.passed):
            worker, _, case = str(value).partition("/")
            known = cells.setdefault(case, {})
            if known.get(worker) != WORDS["failed"]:
                known[worker] = WORDS[report.outcome]


def table(cells: Cells) -> list[str]:
    """A line for each case; the order of the reports, which differs from run to run, counts only
    for what is not known.
    """
    found = {worker for of_case in cells.values() for worker in of_case}
    known = [sample.name for sample in SAMPLES if sample.name in found]
    workers = [*known, *sorted(found - set(known))]
    widths = [max(len(worker), len(WORDS["skipped"])) for worker in workers]
    first = max(map(len, cells))
    rows = [("", dict(zip(workers, workers, strict=True)))]
    rows += sorted(cells.items(), key=lambda row: row[0] == LAST)
    return [
        "  ".join(
            [case.ljust(first)]
            + [of_case.get(w, "-").ljust(width) for w, width in zip(workers, widths, strict=True)]
        ).rstrip()
        for case, of_case in rows
    ]
