"""`init` on a real engine: what is deployed there becomes a settings file that `check` passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bridge.settings import load
from tests.support.engine import EngineRest, unique

MODEL = """<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="urn:test">
  <error id="refused" errorCode="CARD_REFUSED"/>
  <process id="{key}" name="Order entry" isExecutable="true" camunda:historyTimeToLive="1">
    <startEvent id="start"/>
    <sequenceFlow id="f1" sourceRef="start" targetRef="charge"/>
    <serviceTask id="charge" name="Charge the card" camunda:type="external"
        camunda:topic="{key} pay"/>
    <boundaryEvent id="caught" attachedToRef="charge"><errorEventDefinition errorRef="refused"/>
    </boundaryEvent>
    <sequenceFlow id="f2" sourceRef="caught" targetRef="end"/>
    <sequenceFlow id="f3" sourceRef="charge" targetRef="rate"/>
    <businessRuleTask id="rate" camunda:type="external" camunda:topic="{key}.rate"/>
    <sequenceFlow id="f4" sourceRef="rate" targetRef="end"/>
    <endEvent id="end">
      <messageEventDefinition camunda:type="external" camunda:topic="{key}.told"/>
    </endEvent>
  </process>
</definitions>"""


def command(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: text for key, text in os.environ.items() if not key.startswith("BRIDGE_")}
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=directory,
        env={**clean, "PYTHONPATH": str(Path(__file__).parents[2]), **environ},
    )


def test_the_processes_of_an_engine_become_settings(
    engine: EngineRest, amqp_url: str, tmp_path: Path
) -> None:
    """From an engine to a bridge that could start, in two commands."""
    key = unique("order")
    engine.deploy(MODEL.format(key=key))

    made = command(tmp_path, "init", "--engine-url", engine.url)
    environ = {"BRIDGE_BROKER__URL": amqp_url, "BRIDGE_STATUS__LISTEN": ""}
    checked = command(tmp_path, "check", "--json", **environ)

    assert (made.returncode, made.stderr) == (0, "")
    text = (tmp_path / "bridge.toml").read_text(encoding="utf-8")
    topics = load(tmp_path / "bridge.toml", {}).topics
    assert topics[f"{key} pay"].queue == f"{key}-pay"
    assert {f"{key}.rate", f"{key}.told"} <= set(topics)
    assert (
        f"# process {key} (Order entry), activity charge (Charge the card), "
        f'error codes: CARD_REFUSED\n[topics."{key} pay"]'
    ) in text
    report: dict[str, Any] = json.loads(checked.stdout)
    # Other tests' topics are in the same engine, and may have what is worth a warning.
    assert [found for found in report["findings"] if found["mark"] == "problem"] == []
