"""A retry policy from the process model: extension properties of an activity.  No I/O.

`<camunda:property name="retries" value="5"/>` and `name="retryPauses" value="5s, 30s, 5m"` in the
activity's `<camunda:properties>` overrule the topic's settings.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from bridge.protocol import RetryPolicy

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PAUSE = re.compile(r"\s*(\d+)\s*(ms|s|m|h|d)\s*")


def policy_for(xml: str, activity_id: str, default: RetryPolicy) -> RetryPolicy:
    """The activity's own policy; what the model leaves out or misspells comes from `default`."""
    properties = _extension_properties(xml, activity_id)
    attempts = properties.get("retries", "")
    pauses = [_PAUSE.fullmatch(part) for part in properties.get("retryPauses", "").split(",")]
    read = tuple(int(p[1]) * _UNITS[p[2]] for p in pauses if p is not None)
    return RetryPolicy(
        attempts=int(attempts) if re.fullmatch(r"[1-9]\d{0,5}", attempts) else default.attempts,
        pauses=read if len(read) == len(pauses) else default.pauses,
    )


def _extension_properties(xml: str, activity_id: str) -> dict[str, str]:
    try:
        root = ET.fromstring(xml)  # noqa: S314
    except ET.ParseError:
        return {}
    for activity in root.iter():
        if activity.get("id") == activity_id:
            return {
                element.get("name", ""): element.get("value", "")
                for element in activity.iterfind("./{*}extensionElements/{*}properties/{*}property")
            }
    return {}
