"""The whole service as a subprocess, with its settings, its log and its status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.support.waiting import eventually

# Short times for tests; the rules between them hold (lease >= 10 P, P > 2 x (heartbeat + 5 s)).
QUICK = {"publish_window": "13s", "lease": "130s", "lease_after": "1s", "retry_pauses": ["1s"]}


def toml(tables: Mapping[str, Any], path: str = "") -> str:
    """A nested mapping as TOML text; keys of a table before its sub-tables."""
    lines = [f"{_key(k)} = {_value(v)}" for k, v in tables.items() if not isinstance(v, Mapping)]
    for key, value in tables.items():
        if isinstance(value, Mapping):
            name = f"{path}{_key(key)}"
            lines += [f"[{name}]", toml(value, f"{name}.")]
    return "\n".join(lines)


def _key(name: str) -> str:
    return json.dumps(name)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def settings(
    engine_url: str, amqp_url: str, topics: Mapping[str, Mapping[str, Any]], **top: Any
) -> dict[str, Any]:
    """Settings for a bridge in a test: quick times unless a topic says otherwise.  `top` adds to
    or replaces tables and keys at the top.
    """
    made: dict[str, Any] = {
        "worker_id": "bridge",
        "engine": {"url": engine_url, "poll_timeout": "1s"},
        "broker": {"url": amqp_url, "heartbeat": "1s", "wait": "1s"},
        "status": {"listen": "127.0.0.1:0"},
        "topic_defaults": QUICK,
        "topics": {name: dict(keys) for name, keys in topics.items()},
    }
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(made.get(key), dict):
            made[key] = {**made[key], **value}
        else:
            made[key] = value
    return made


class Bridge:
    """A running `external-task-bridge run`.  Leaving its `with` block ends it by SIGTERM.

    `module`: what is run instead of `bridge`, a launcher that changes something before it starts.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        wait_ready: bool = True,
        env: Mapping[str, str] | None = None,
        level: str = "debug",
        module: str = "bridge",
    ) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.config = Path(self._directory.name) / "bridge.toml"
        self.config.write_text(toml(settings))
        self.log_path = Path(self._directory.name) / "log.jsonl"
        self._wait_ready = wait_ready
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")}
        self._env.update(env or {})
        self._level = level
        self._module = module
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        command = [
            sys.executable, "-m", self._module, "run", "--config", str(self.config),
            "--log-format", "json", "--log-level", self._level,
        ]  # fmt: skip
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=self._env)
        if self._wait_ready:
            eventually(self.is_ready, 60, what="the bridge is ready")
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self._directory.cleanup()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, limit: float = 40) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(limit)

    def kill(self) -> None:
        """SIGKILL, as in a crash."""
        self.signal(signal.SIGKILL)
        self.wait(10)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, limit: float = 40) -> int:
        assert self.process is not None
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise

    # -- look --------------------------------------------------------------------------------

    def log(self) -> list[dict[str, Any]]:
        """The log lines so far.  A line that is not JSON fails the test: logs are one format."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def events(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The log lines of an event whose fields have these values."""
        return [
            line
            for line in self.log()
            if line["event"] == event and all(line.get(k) == v for k, v in fields.items())
        ]

    def tail(self) -> str:
        """The last lines of the log, for the message of a failing test."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        return "\n".join(lines[-8:])

    def is_ready(self) -> bool:
        """Whether /ready says 200; False too while it is not served yet."""
        assert self.process is not None
        assert self.process.poll() is None, f"the bridge ended: {self.log()[-5:]}"
        url = self.status_url()
        if url is None:
            return False
        try:
            return requests.get(f"{url}/ready", timeout=20).status_code == 200
        except requests.ConnectionError:
            return False

    def status_url(self) -> str | None:
        started = self.events("bridge started")
        return f"http://127.0.0.1:{started[-1]['status_port']}" if started else None

    def count(self, topic: str, event: str) -> int:
        """A topic's count of an event, read off /metrics."""
        url = eventually(self.status_url, what="the bridge has started")
        text = requests.get(f"{url}/metrics", timeout=20).text
        sample = f'bridge_tasks_total{{event="{event}",topic="{topic}"}} '
        for line in text.splitlines():
            if line.startswith(sample):
                return round(float(line.removeprefix(sample)))
        return 0
