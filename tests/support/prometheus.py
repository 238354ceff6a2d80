"""A real Prometheus on loopback that scrapes one bridge and watches the real rules.

It scrapes every three seconds, not more often: a scrape must end before the next one, and the
bridge may take a second for it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests

from deploy.local.programs import PartError, Program, free_port
from deploy.local.system import install_command

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
JOB = "external-task-bridge"
START_SECONDS = 60

_SETTINGS = """\
global: {{scrape_interval: 3s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: ["{target}"]}}]
"""


def installed() -> str:
    """Where Debian's prometheus is; PartError with the cure where it is not."""
    program = shutil.which("prometheus")
    if program is None:
        raise PartError(f"no Prometheus: {install_command(('prometheus',))}")
    return program


class Prometheus:
    """Scrapes the bridge at `url`; the alerts named in `at_once` fire without their `for`."""

    def __init__(
        self, program: str, url: str, directory: Path, at_once: Iterable[str] = ()
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._directory = directory
        self._target = urlsplit(url).netloc
        self._at_once = tuple(at_once)
        self._path = program
        self._program: Program | None = None

    def __enter__(self) -> Self:
        folder = self._directory
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(_SETTINGS.format(job=JOB, target=self._target))
        (folder / "rules.yml").write_text(impatient(RULES.read_text(), self._at_once))
        command = [
            self._path,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={urlsplit(self.url).netloc}",
        ]
        self._program = Program("Prometheus", command, log=folder / "prometheus.log")
        self._program.wait_until(self._is_ready, limit_s=START_SECONDS)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._program is not None:
            self._program.stop(grace_s=10)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, each with `metric` and `value`."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The first sample's value, None where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def alerts(self) -> list[dict[str, Any]]:
        """What fires: `labels` and `annotations`."""
        return [one for one in self._get("alerts")["alerts"] if one["state"] == "firing"]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its `health` since the last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=params, timeout=30)
        assert answer.ok, f"{path} {params}: {answer.text}"
        data: dict[str, Any] = answer.json()["data"]
        return data

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False


def impatient(rules: str, alerts: Iterable[str]) -> str:
    """The rules with the `for` of these alerts left out; each must have one."""
    for alert in alerts:
        head, found, rest = rules.partition(f"      - alert: {alert}\n")
        assert found, f"no alert {alert}"
        this, dash, others = rest.partition("      - alert: ")
        this, changes = re.subn(r"        for: .*\n", "", this)
        assert changes == 1, f"{alert} has no `for`"
        rules = head + found + this + dash + others
    return rules
