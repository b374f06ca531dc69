"""Times, lengths of time and restrictions in English."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from asgi_token_auth.restrictions import Restrictions, full_name

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
# From how many seconds on a distance is given in a unit: ninety days are not "2 months".
_DISTANCES = ((2 * 31_557_600, 31_557_600, "year"), (100 * 86_400, 2_629_800, "month"), *((s, s, n) for s, n in _UNITS))


def exact(timestamp: float | None) -> str | None:
    """A time in UTC as ISO 8601, or ``None`` where it is unknown or outside of the calendar."""
    if timestamp is None:
        return None
    try:
        return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return None


def relative(timestamp: float, now: float) -> str:
    """``in 3 days`` or ``5 minutes ago``."""
    seconds = timestamp - now
    if abs(seconds) < 1:
        return "now"
    # Rounded first, lest something between two units become "60 minutes".
    distance = round(abs(seconds))
    size, name = next((size, name) for start, size, name in _DISTANCES if distance >= start)
    span = _counted(round(distance / size), name)
    return f"in {span}" if seconds > 0 else f"{span} ago"


def duration(seconds: float) -> str:
    """A length of time, exactly, in the largest unit that divides it: ``90 days``, ``36 hours``."""
    total = int(seconds)
    size, name = next(((size, name) for size, name in _UNITS if total and total % size == 0), _UNITS[-1])
    return _counted(total // size, name)


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def describe(restrictions: Restrictions | None) -> list[tuple[str, list[str]]]:
    """Restrictions as headings with the actions under each, in the order in which they reach less and less."""
    if restrictions is None:
        return []
    return list(_groups(restrictions))


def brief(restrictions: Restrictions | None, most: int = 3) -> tuple[str, list[str], int]:
    """The first heading of :func:`describe`, ``most`` of the actions under it, and how many more there are in all.

    Without an action the heading is empty. What a list does not show is only counted: it may be thousands.
    """
    if restrictions is None or (first := next(_groups(restrictions), None)) is None:
        return "", [], 0
    count = len(restrictions.all) + sum(map(len, restrictions.database.values()))
    count += sum(len(actions) for resources in restrictions.resource.values() for actions in resources.values())
    heading, actions = first
    return heading, actions[:most], count - len(actions[:most])


def _groups(restrictions: Restrictions) -> Iterator[tuple[str, list[str]]]:
    if restrictions.all:
        yield "Everywhere", [full_name(action) for action in restrictions.all]
    for database, actions in restrictions.database.items():
        if actions:
            yield f"Database: {database}", [full_name(action) for action in actions]
    for database, resources in restrictions.resource.items():
        for resource, actions in resources.items():
            if actions:
                yield f"Table: {database}/{resource}", [full_name(action) for action in actions]
