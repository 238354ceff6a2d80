"""The pure parts of the benchmarks: what is counted, how it is shown.  Starts and times nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.benchmarks import suite
from tests.benchmarks.calls import Calls, parse
from tests.benchmarks.figures import FIGURES, Figure, Measured
from tests.benchmarks.plot import rates, svg
from tests.benchmarks.receipts import Receipt, receipts, waits
from tests.benchmarks.results import Results, load
from tests.benchmarks.scenarios.share import ratios
from tests.benchmarks.spread import median, percentile, spread
from tests.benchmarks.table import growth_table, number, table
from tests.benchmarks.turn import Turn

SVG = "{http://www.w3.org/2000/svg}"
TASK = "POST /engine-rest/external-task"


def turn(contender: str, rate: float) -> Turn:
    return Turn(contender, 1000, 1000 / rate, 0.5, 0.3, 0.1, 4.0, 0.6, {})


def results(**changes: Any) -> Results:
    shares = [
        [
            turn("raw 8", 400).as_json(),
            turn("bridge", 300).as_json(),
            turn("raw 32", 350).as_json(),
        ],
        [
            turn("raw 8", 380).as_json(),
            turn("bridge", 360).as_json(),
            turn("raw 32", 420).as_json(),
        ],
    ]
    known: dict[str, Any] = {
        "conditions": {"engine": "Camunda <7.24>", "machine": "2 cores"},
        "figures": [Measured("share", (0.75, 0.86), "1000 tasks")],
        "details": {"share": shares, "latency": {"bridge": [9.0, 12.0], "javascript": [10.0]}},
        "growth": {"topics": [{"at": 1, "tasks/s": 900.0}, {"at": 10, "tasks/s": 850.5}]},
    }
    return Results(**(known | changes))


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 5.0), (51, 6.0), (95, 10.0), (99, 10.0), (10, 1.0)]
)
def test_a_percentile_is_one_of_the_values(percent: float, expected: float) -> None:
    """An interpolated p99 of ten values would be a wait that nobody had."""
    values = [float(n) for n in (3, 1, 2, 9, 8, 10, 7, 4, 6, 5)]

    assert percentile(values, percent) == expected


def test_the_spread_is_the_range_as_a_share_of_the_median() -> None:
    """Rounds that lie far apart make a figure worthless, and the table must say so."""
    assert median([400.0, 380.0, 420.0]) == 400.0
    assert spread([400.0, 380.0, 420.0]) == pytest.approx(0.1)
    assert spread([7.0]) == 0.0
    assert spread([0.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("better", "value", "expected"),
    [
        ("more", 0.95, "aim"),
        ("more", 0.90, "aim"),
        ("more", 0.85, "must"),
        ("more", 0.79, "MISSED"),
        ("less", 0.80, "aim"),
        ("less", 0.85, "must"),
        ("less", 0.90, "must"),
        ("less", 0.91, "MISSED"),
    ],
)
def test_a_figure_is_judged_by_its_better_side(better: Any, value: float, expected: str) -> None:
    """More tasks a second are better, more milliseconds are not."""
    must, aim = (0.80, 0.90) if better == "more" else (0.90, 0.80)

    assert Figure("k", "t", "", better, must, aim).verdict(value) == expected


def test_every_aim_is_at_least_as_good_as_its_bound() -> None:
    """A table in which the aim is easier than the bound would be misread."""
    assert [f.key for f in FIGURES if f.verdict(f.aim) != "aim"] == []
    assert len({f.key for f in FIGURES}) == len(FIGURES)


def test_every_figure_has_a_scenario() -> None:
    """A figure that nothing measures would be missing from the table without a word."""
    measured = [key for scenario in suite.SCENARIOS for key in scenario.figures]

    assert sorted(measured) == sorted(f.key for f in FIGURES)


def test_scenarios_are_chosen_by_figure_or_by_name() -> None:
    """`ONLY=cpu` must bring the scenario that measures it, once."""
    assert [s.name for s in suite.chosen("cpu, share,growth")] == ["share", "growth"]
    assert suite.chosen("") == list(suite.SCENARIOS)


def test_a_wrong_name_is_told_with_the_nearest_right_one() -> None:
    """Nobody should wait an hour for a figure that was misspelt."""
    with pytest.raises(
        ValueError, match="ONLY=latency_p9: no such figure, did you mean latency_p99"
    ):
        suite.chosen("share,latency_p9")


def test_the_share_is_that_of_the_better_raw_client_of_the_same_round() -> None:
    """Another round's ceiling was another machine's, for all that one knows."""
    taken = [
        [turn("raw 8", 400), turn("bridge", 300), turn("raw 32", 350)],
        [turn("raw 8", 100), turn("bridge", 90), turn("raw 32", 120)],
    ]

    assert ratios(taken, ("raw 8", "raw 32")) == pytest.approx((0.75, 0.75))


def test_the_table_shows_what_was_measured_in_the_order_of_the_figures() -> None:
    """Whoever compares two runs compares line by line."""
    lines = table([Measured("cpu", (0.62, 0.60), "two rounds"), Measured("share", (0.92,))])

    head, first, second, blank, note = lines.splitlines()
    assert head.split() == ["figure", "naive", "must", "aim", "median", "spread"]
    assert first.split()[-5:] == ["0.49", "0.80", "0.90", "0.92", "aim"]
    assert second.endswith("  0.80 ms  0.50 ms  0.61 ms    ±2 %  must")
    assert blank == ""
    assert note == "  cpu: two rounds"


def test_a_value_of_less_than_the_title_says_is_not_judged() -> None:
    """Five thousand tasks in flight say nothing of fifty thousand."""
    lines = table([Measured("in_flight_rss", (70.0,), "5000 in flight", whole=False)])

    assert lines.splitlines()[1].endswith("70 MB          not judged: see its note")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, "0.50"), (12.34, "12.3"), (1234.5, "1,234"), (50_000.0, "50,000"), (0.0, "0")],
)
def test_numbers_are_short(value: float, expected: str) -> None:
    """Digits that the noise has made would look like knowledge."""
    assert number(value) == expected


def test_growth_has_a_column_for_each_thing_measured() -> None:
    """The number of something stands first, whatever its name."""
    lines = growth_table(results().growth).splitlines()

    assert [line.split() for line in lines] == [
        ["topics", "tasks/s"],
        ["1", "900"],
        ["10", "850"],
    ]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A run of today is compared with one of last month."""
    written, file = results(), tmp_path / "deep" / "results.json"

    written.save(file)

    assert load(file) == written
    told = json.loads(file.read_text())
    assert told["figures"]["share"]["median"] == pytest.approx(0.805)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"figures": {"share": {}}}', None])
def test_a_file_that_holds_no_run_is_named(tmp_path: Path, content: str | None) -> None:
    """The command line takes any path; the answer says which and what writes one."""
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ValueError, match=r"other\.json: no results of a run .*make bench"):
        load(file)


def test_the_picture_ranks_medians_and_takes_the_better_raw_client() -> None:
    """The ceiling of a picture is that of the table."""
    bars = rates(results().details["share"])

    assert [(b.name, round(b.value), round(b.low), round(b.high)) for b in bars] == [
        ("ceiling", 410, 400, 420),
        ("bridge", 330, 300, 360),
    ]


def test_the_picture_is_svg_with_its_content_in_words() -> None:
    """Who cannot see it reads the same figures, and nothing of them breaks the document."""
    root = ElementTree.fromstring(svg(results()))

    told = root.findtext(f"{SVG}desc") or ""
    assert "bridge over RabbitMQ: 330 tasks/s" in told
    assert "JavaScript client: 10.0 / 10.0 / 10.0 ms" in told
    assert "Camunda <7.24>" in told
    widths = [float(r.attrib["width"]) for r in root.findall(f"{SVG}rect[@height='18']")]
    assert widths[1] / widths[0] == pytest.approx(330 / 410, abs=0.01)
    assert len(root.findall(f"{SVG}circle")) == 6
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")


def test_a_run_without_throughput_and_latency_is_not_drawn() -> None:
    """An empty picture would be taken for a result."""
    with pytest.raises(ValueError, match="run the figures share and latency"):
        svg(results(details={}))


def test_a_line_of_the_access_log_is_a_call() -> None:
    """The time that Tomcat writes as taken is in microseconds."""
    call = parse(f"1700000000500 20500 200 {TASK}/fetchAndLock")

    assert call is not None
    assert (call.began, call.took_ms, call.status, call.verb) == (
        1700000000500.0,
        20.5,
        200,
        "fetchAndLock",
    )
    assert parse("1700000000500 2000 200 POST /engine-rest/process-definition/key/a/start") is None


def test_a_turn_is_timed_from_its_first_fetch_to_its_last_completion(tmp_path: Path) -> None:
    """What began before, is refused, or is not written to its end does not count: a poll of the
    contender before ends in this one's turn.
    """
    log = tmp_path / "access.log"
    log.write_text(f"1000 0 200 {TASK}/fetchAndLock\n1001 0 204 {TASK}/t0/complete\n")
    calls = Calls.from_now(log, 4000)

    with log.open("a") as more:
        more.write(f"5100 1000 204 {TASK}/t1/complete\n5000 99000 200 {TASK}/fetchAndLock\n")
        more.write(f"3999 9000000 200 {TASK}/fetchAndLock\n")
        more.write(f"6000 500000 204 {TASK}/t2/complete\n7000 0 500 {TASK}/t3/complete\n")
        more.write(f"7500 0 204 {TASK}/t4/com")
    calls.read()

    assert calls.completed == 2
    assert calls.counts["complete 500"] == 1
    assert calls.seconds == pytest.approx(1.5)

    with log.open("a") as more:
        more.write("plete\n")
    assert calls.read().completed == 3


def test_a_receipt_is_counted_from_the_tasks_creation(tmp_path: Path) -> None:
    """Dates have an offset, bodies may have tabs; a line half written is left for later."""
    told = tmp_path / "worker.log"
    body = '{"createTime":"1970-01-01T00:00:01.250+0000","note":"a\\tb"}'
    told.write_text(f"ready\nquiet\t1260.500\t{body}\nloud\t1300\t{body}\nquiet\t1400\t{body}")

    found = receipts(told)

    assert found == [Receipt("quiet", 1260.5, 10.5), Receipt("loud", 1300.0, 50.0)]
    assert waits(found, "quiet") == [10.5]
    assert waits(found, "quiet", skip=1) == []
