"""What consumers/ claims of its samples, held by reading the files."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from bridge.broker.properties import properties_of
from bridge.messages import Publication, TaskBody
from bridge.task_message import TRACE_VARIABLE
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.consumers import test_samples
from tests.consumers.matrix import LAST, Cells, note, table
from tests.consumers.samples import SAMPLES, Sample
from tests.consumers.stacks import CONSUMERS

FIFTY = 50
Outcome = Literal["passed", "failed", "skipped"]
README = (CONSUMERS / "README.md").read_text(encoding="utf-8")
SOURCES = sorted(
    {*(CONSUMERS / "python").glob("*.py"), *(sample.folder / sample.source for sample in SAMPLES)}
)
EACH = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


def code_lines(source: Path) -> list[str]:
    """What the page calls lines of code: no comments, no imports, no blanks, no lone brackets."""
    apart = re.compile(r'"""[^"]*"""|/\*\*.*?\*/|^import \(.*?^\)', re.DOTALL | re.MULTILINE)
    text = apart.sub("", source.read_text(encoding="utf-8"))
    dull = re.compile(r"\s*((//|#|import |package ).*|[\])}\s;,]*)")
    return [line for line in text.splitlines() if not dull.fullmatch(line)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_sample_has_fewer_than_fifty_lines_of_code(source: Path) -> None:
    """A worker developer copies what fits on one screen; the page says how it is counted."""
    assert "fewer than fifty lines of code (comments, imports, blank lines and lone" in README

    assert 20 < len(code_lines(source)) < FIFTY, len(code_lines(source))


@EACH
def test_a_sample_leaves_the_queues_to_the_bridge(sample: Sample) -> None:
    """Declared again with other arguments, a queue closes the channel of whoever comes second."""
    source = (sample.folder / sample.source).read_text(encoding="utf-8").lower()

    assert not re.search(r"queue_?declare|assertqueue", source)


@EACH
def test_a_sample_has_a_page_with_its_command(sample: Sample) -> None:
    """One screen, one command."""
    page = (sample.folder / "README.md").read_text(encoding="utf-8")

    assert len(page.splitlines()) <= 40
    assert "AMQP_URL=" in page
    assert sample.source in page
    assert f"]({sample.folder.name}/" in README


def test_a_missing_toolchain_skips_on_a_laptop_and_fails_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loudly, with the cure; a green run of CI that has tried nothing would be a lie."""
    needy = replace(SAMPLES[0], needs=("no-such-program",), cure="apt-get install it")
    with pytest.raises(PartError, match="needs no-such-program: apt-get install it") as refused:
        needy.command()

    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"REAL PART MISSING: .* apt-get install it"):
        missing(refused.value)

    monkeypatch.setenv("CI", "true")
    with pytest.raises(PartError):
        missing(refused.value)


def test_the_matrix_has_every_worker_and_the_worst_of_a_case() -> None:
    """Made of reports alone, as they come from the processes that ran the tests."""
    cells: Cells = {}
    told: tuple[tuple[str, Outcome], ...] = (
        ("go/conformance kit", "passed"),
        ("go/success", "passed"),
        ("other/success", "skipped"),
        ("python/success", "failed"),
        ("python/success", "passed"),
    )
    for said, outcome in told:
        note(cells, report(said, outcome))

    assert table(cells) == [
        "                 python   go       other",
        "success          FAILED   ok       skipped",
        "conformance kit  -        ok       -",
    ]


def test_the_page_shows_the_matrix_as_it_is_printed() -> None:
    """A case or a sample that is renamed or dropped leaves no row behind that nothing runs."""
    [shown] = re.findall(r"```\n( .*?)```", README, re.DOTALL)

    assert shown.splitlines() == table(known_cells())


def known_cells() -> Cells:
    """What the tests say for the matrix, read from them, all of it `ok`."""
    names = list[str]()
    for name, test in vars(test_samples).items():
        if name.startswith("test_"):
            cases = "case" in inspect.signature(test).parameters
            names += test_samples.PAID if cases else [name[len("test_") :].replace("_", " ")]
    cells: Cells = {case: {sample.name: "ok" for sample in SAMPLES} for case in [*names, LAST]}
    for source in Path(__file__).parent.glob("test_*.py"):
        said = re.findall(r'record_property\("matrix", "(.+?)/(.+?)"\)', source.read_text())
        for worker, case in said:
            cells[case][worker] = "ok"
    return cells


def test_the_page_names_all_that_a_task_message_has() -> None:
    """A worker developer reads no other page: what is not here is not used."""
    _, _, below = README.partition("## Properties of a task message")
    section, _, _ = below.partition("\n## ")
    full = Publication(
        lane="", exchange="", routing_key="", body=b"", headers={"any": 1}, message_id="m",
        correlation_id="c", reply_to="r", type="t", timestamp=1, expiration_ms=1, priority=1,
        app_id="a",
    )  # fmt: skip
    carried = {name for name, value in vars(properties_of(full, 1)).items() if value is not None}
    carried -= {"headers", "cluster_id"}  # described one by one; the publisher's own
    fields = {str(field.alias) for field in TaskBody.model_fields.values()}

    missed = {name for name in carried | fields | {TRACE_VARIABLE} if f"`{name}`" not in section}

    assert len(carried) > 10
    assert not missed


def report(said: str, outcome: Outcome) -> pytest.TestReport:
    return pytest.TestReport(
        "t", ("t", 0, "t"), {}, outcome, None, "call", user_properties=[("matrix", said)]
    )


def test_no_lock_file_names_a_registry() -> None:
    """Behind a company's mirror such an address would not be reached."""
    lock = (CONSUMERS / "javascript" / "package-lock.json").read_text()

    assert "integrity" in lock
    assert "http" not in lock
