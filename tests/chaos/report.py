"""A round as a table for people."""

from __future__ import annotations

from collections import Counter

from tests.chaos.round import Result

SHOWN = 5  # violations of one invariant


def table(result: Result) -> str:
    """Faults, figures and every invariant, with the first violations of each."""
    seen, options = result.evidence, result.options
    kinds = Counter(fault.kind for fault in seen.struck)
    failed = sum(not entry.success for entry in seen.told)
    rows = [
        ("seed", str(options.seed)),
        ("faults", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))),
        ("workers", ", ".join(f"{n} {manner}" for manner, n in sorted(result.manners.items()))),
        ("instances", f"{len(seen.instances)} ({len(seen.incidents)} with an incident)"),
        ("attempts", f"{len(seen.copies)}, {failed} of them failed"),
        ("messages", f"{len(seen.published)} published, {seen.redelivered} redelivered"),
        ("duplicates", f"{seen.duplicates} published again, {seen.allowed} may be"),
        ("purged, expired", f"{sum(f.purged for f in seen.struck)}, {seen.expired}"),
        ("parked", str(len(seen.parked))),
        ("last replicas", ", ".join(f"{n} {event}" for event, n in sorted(seen.counts.items()))),
        ("time", f"{result.faulty_seconds:.0f} s faults, {result.healing_seconds:.0f} s healing"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    for name, violations in result.violations.items():
        lines.append(f"{name:<34} {'VIOLATED' if violations else 'ok'}")
        lines += [f"    {text}" for text in violations[:SHOWN]]
        if len(violations) > SHOWN:
            lines.append(f"    and {len(violations) - SHOWN} more")
    return "\n".join(lines)
