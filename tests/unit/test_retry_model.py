"""A retry policy from the process model: the activity overrules the topic, mistakes do not."""

from __future__ import annotations

import pytest

from bridge.protocol import RetryPolicy
from bridge.retry_model import policy_for

DEFAULT = RetryPolicy(3, (5.0,))


def model(properties: str, namespace: str = "http://camunda.org/schema/1.0/bpmn") -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:x="{namespace}">
      <process id="p">
        <serviceTask id="other"><extensionElements><x:properties>
          <x:property name="retries" value="99"/>
        </x:properties></extensionElements></serviceTask>
        <subProcess id="sub"><serviceTask id="pay"><extensionElements><x:properties>
          {properties}
        </x:properties></extensionElements></serviceTask></subProcess>
      </process>
    </definitions>"""


def policy(retries: str | None = None, pauses: str | None = None) -> RetryPolicy:
    named = {"retries": retries, "retryPauses": pauses}
    texts = [f'<x:property name="{n}" value="{v}"/>' for n, v in named.items() if v is not None]
    return policy_for(model("".join(texts)), "pay", DEFAULT)


def test_the_activity_has_the_last_word() -> None:
    """Whoever models the process knows how often the step may be tried."""
    assert policy("5", "500ms, 30s, 5m,1h,2d") == RetryPolicy(5, (0.5, 30, 300, 3600, 172_800))


def test_the_vendors_namespace_does_not_matter() -> None:
    """Operaton's modeler writes its own."""
    xml = model('<x:property name="retries" value="7"/>', "http://operaton.org/schema/1.0/bpmn")

    assert policy_for(xml, "pay", DEFAULT) == RetryPolicy(7, (5.0,))


@pytest.mark.parametrize(
    ("retries", "pauses", "expected"),
    [
        (None, None, DEFAULT),
        ("5", None, RetryPolicy(5, (5.0,))),
        (None, "1m", RetryPolicy(3, (60.0,))),
        ("0", None, DEFAULT),
        ("-1", None, DEFAULT),
        ("many", None, DEFAULT),
        ("5.0", None, DEFAULT),
        ("", "", DEFAULT),
        (None, "5s, soon", DEFAULT),
        (None, "5", DEFAULT),
        (None, "R3/PT10S", DEFAULT),
    ],
)
def test_what_is_missing_or_misspelt_comes_from_the_topic(
    retries: str | None, pauses: str | None, expected: RetryPolicy
) -> None:
    """A mistake in a model must not stop its tasks, and half a list is no list."""
    assert policy(retries, pauses) == expected


@pytest.mark.parametrize("xml", ["", "no xml", "<a>", model("")])
def test_a_model_that_says_nothing_leaves_the_topics_policy(xml: str) -> None:
    """The engine may answer with anything; the topic's own policy always exists."""
    assert policy_for(xml, "pay", DEFAULT) == DEFAULT


def test_another_activitys_properties_do_not_count() -> None:
    """Two service tasks of one process may differ."""
    assert policy_for(model(""), "unknown", DEFAULT) == DEFAULT
    assert policy_for(model(""), "other", DEFAULT).attempts == 99
