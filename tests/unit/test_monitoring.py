"""Alerts, dashboard and runbook, held by reading the files and by Debian's promtool."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bridge.cli import app
from tests.support.monitoring import (
    ALERTS,
    DASHBOARD,
    DEPLOY,
    PANELS,
    README,
    dashboard_queries,
    filled,
    section,
)

TESTS = DEPLOY / "prometheus" / "rules_test.yml"
PROMTOOL_SECONDS = 60

each_alert = pytest.mark.parametrize("alert", ALERTS)
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


@pytest.fixture
def promtool() -> Callable[..., str]:
    """Runs Debian's promtool; its output where it finds nothing wrong."""
    program = shutil.which("promtool")
    if program is None:
        cure = "no promtool: apt-get install -y --no-install-recommends prometheus"
        if os.environ.get("CI"):
            pytest.fail(cure)
        pytest.skip(f"REAL PART MISSING: {cure}")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PROMTOOL_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def anchors() -> set[str]:
    """The anchors that a reader of deploy/README.md can jump to."""
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_alerts_fire_and_are_quiet_as_their_tests_say(promtool: Callable[..., str]) -> None:
    """An alert that nobody has seen firing is a hope, one that cries wolf is switched off."""
    assert "SUCCESS" in promtool("test", "rules", TESTS)


def test_prometheus_takes_the_settings(promtool: Callable[..., str]) -> None:
    """A Prometheus with bad settings does not start, and then nothing is watched."""
    said = promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")

    assert f"{len(ALERTS)} rules found" in said


@each_alert
def test_an_alert_has_a_test_where_it_fires_and_one_where_it_does_not(alert: str) -> None:
    """Both are needed: a rule that is always true passes the one, one that never is the other."""
    fires, quiet = 0, 0
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in test.get("promql_expr_test", ()):
            if f'alertname="{alert}"' in case["expr"]:
                fires += bool(case["exp_samples"])
                quiet += not case["exp_samples"]

    assert fires
    assert quiet


@each_alert
def test_an_alert_says_what_where_and_how_bad(alert: str) -> None:
    """Whoever is woken reads a line of it on a telephone."""
    rule = ALERTS[alert]
    labels, annotations = rule["labels"], rule["annotations"]
    kept = re.findall(r"by \(([^)]*)\)", rule["expr"])

    assert labels["severity"] in {"critical", "warning"}
    assert labels["service"] == "external-task-bridge"
    assert annotations["description"].strip().endswith(".")
    if any("topic" in labels for labels in kept):
        assert "{{ $labels.topic }}" in annotations["summary"]


@each_alert
def test_an_alert_leads_to_its_entry_in_the_runbook(alert: str) -> None:
    """At night nobody searches; and the entry says how to see it and what to do."""
    file, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    entry = section("Runbook").partition(f"### {alert}\n")[2].partition("\n### ")[0]

    assert (DEPLOY.parent / file) == DEPLOY / "README.md"
    assert anchor == alert.lower()
    assert anchor in anchors()
    assert re.search(r"^- See: .+\n- Do: .+", entry, re.MULTILINE)


def test_the_runbook_has_no_entry_too_many() -> None:
    """An entry whose alert is gone sends people looking for what no longer exists."""
    assert re.findall(r"^### (.*)$", section("Runbook"), re.MULTILINE) == list(ALERTS)


@pytest.mark.parametrize("heading", ["Monitoring", "Runbook", "Walk-through"])
def test_every_command_that_is_named_exists(heading: str) -> None:
    """A command that does not exist costs trust when there is least time."""
    named = re.findall(r"external-task-bridge ([a-z][^`\n]*)", section(heading))

    for line in named:
        command: Any = typer.main.get_command(app)
        for word in line.split():
            if word.startswith("--"):
                assert word in {name for option in command.params for name in option.opts}, line
            elif commands := getattr(command, "commands", None):
                assert word in commands, line
                command = commands[word]


def test_the_runbook_jumps_only_to_places_that_exist() -> None:
    """A dead link in the middle of an incident leads nowhere."""
    wanted = re.findall(r"\]\(#([\w-]+)\)", section("Runbook") + section("Walk-through"))

    assert wanted
    assert set(wanted) <= anchors()


def test_what_the_runbook_looks_for_in_the_log_is_written_there() -> None:
    """Whoever greps for a phrase that no longer exists concludes that nothing is wrong."""
    source = "".join(file.read_text() for file in (DEPLOY.parent / "bridge").rglob("*.py"))
    sentences = re.findall(r"[^.;]*in the log[^.;]*", section("Runbook"))
    phrases = [one for told in sentences for one in re.findall(r"`([a-z]+ [a-z ]+)`", told)]

    assert len(phrases) == 3
    for phrase in phrases:
        assert f'("{phrase}"' in source, phrase


def test_every_query_of_the_dashboard_can_be_parsed(
    promtool: Callable[..., str], tmp_path: Path
) -> None:
    """A panel with a broken query shows a red corner that everybody gets used to."""
    queries = [filled(query) for query in dashboard_queries()]
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(queries)} rules found" in promtool("check", "rules", file)


@each_panel
def test_a_panel_explains_itself_and_asks_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    """The dashboard is imported into other people's Grafana, whose data source has another name."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_panel
def test_a_panel_names_only_entries_of_the_runbook_that_exist(panel: dict[str, Any]) -> None:
    """The way from a red number to what to do."""
    for entry in re.findall(r"Runbook: (\w+)", panel["description"]):
        assert entry in ALERTS


def test_the_panels_lie_side_by_side() -> None:
    """Panels on top of each other are pushed down, and the picture falls apart."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells

    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_variable_is_used_and_defined() -> None:
    """An undefined one is sent to Prometheus as it is, and the panel stays empty."""
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))

    assert used == defined


def test_grafana_finds_the_dashboard_where_it_is_told_to_look() -> None:
    """With a wrong path Grafana starts, says nothing, and is empty."""
    provisioning = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load(
        (provisioning / "dashboards" / "external-task-bridge.yaml").read_text()
    )["providers"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]

    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert source["type"] == "prometheus"
