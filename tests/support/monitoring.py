"""The alerts, the dashboard and the runbook as the tests read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.prometheus import RULES

DEPLOY = Path(__file__).parents[2] / "deploy"
README = (DEPLOY / "README.md").read_text()

DASHBOARD: dict[str, Any] = json.loads(
    (DEPLOY / "grafana" / "dashboards" / "external-task-bridge.json").read_text()
)
PANELS: list[dict[str, Any]] = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
}


def section(heading: str) -> str:
    """A section of deploy/README.md."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"deploy/README.md has no section {heading}"
    return found.group(1)


def filled(expression: str, interval: str = "5m") -> str:
    """A query of the dashboard as Grafana asks it for everything."""
    everything = re.sub(r"\$(job|instance|topic)\b", ".*", expression)
    return everything.replace("$__rate_interval", interval)


def dashboard_queries() -> list[str]:
    """What the dashboard asks Prometheus: its panels, and the marks on their time line."""
    targets = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return targets + [one["expr"] for one in DASHBOARD["annotations"]["list"]]
