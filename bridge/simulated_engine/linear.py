"""Makes the BPMN file of a plain chain of external tasks, for tests.  Reads none."""

from itertools import pairwise
from xml.sax.saxutils import quoteattr

_BPMN = "http://www.omg.org/spec/BPMN/20100524/MODEL"
_CAMUNDA = "http://camunda.org/schema/1.0/bpmn"


def linear_process(key: str, *topics: str, error_codes: tuple[str, ...] = ()) -> bytes:
    """A BPMN file of one process: a task per topic (`task-1`, …) in a row.

    Each task has a boundary event for each error code, which leads to an end of its own.
    """
    ids = ["start", *(f"task-{number}" for number in range(1, len(topics) + 1)), "end"]
    parts = ['<startEvent id="start"/>', '<endEvent id="end"/>']
    flows = list(pairwise(ids))
    for task_id, topic in zip(ids[1:], topics, strict=False):
        parts.append(
            f'<serviceTask id="{task_id}" camunda:type="external" '
            f"camunda:topic={quoteattr(topic)}/>"
        )
        for number in range(len(error_codes)):
            event = f"{task_id}-error-{number}"
            parts.append(
                f'<boundaryEvent id="{event}" attachedToRef="{task_id}">'
                f'<errorEventDefinition errorRef="error-{number}"/></boundaryEvent>'
                f'<endEvent id="{event}-end"/>'
            )
            flows.append((event, f"{event}-end"))
    parts += [
        f'<sequenceFlow id="flow-{number}" sourceRef="{source}" targetRef="{target}"/>'
        for number, (source, target) in enumerate(flows)
    ]
    errors = "".join(
        f'<error id="error-{number}" name="error" errorCode={quoteattr(code)}/>'
        for number, code in enumerate(error_codes)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<definitions xmlns="{_BPMN}" xmlns:camunda="{_CAMUNDA}" '
        f'targetNamespace="linear">{errors}<process id={quoteattr(key)} isExecutable="true" '
        f'camunda:historyTimeToLive="P1D">{"".join(parts)}</process></definitions>'
    ).encode()
