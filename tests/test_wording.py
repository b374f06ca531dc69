"""Times and restrictions in words."""

from __future__ import annotations

import math

import pytest

from asgi_token_auth import Restrictions
from asgi_token_auth.wording import brief, describe, duration, exact, relative

DAY = 86_400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (90, "90 seconds"),
        (3_600, "1 hour"),
        (5_400, "90 minutes"),
        (DAY, "1 day"),
        (90 * DAY, "90 days"),
        (366 * DAY, "366 days"),
        (100_000_000, "1,666,666 minutes" if 100_000_000 % 60 == 0 else "100,000,000 seconds"),
    ],
)
def test_a_limit_is_told_exactly(seconds: int, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (0.9, "now"),
        (-0.9, "now"),
        (1, "in 1 second"),
        (-1, "1 second ago"),
        (-90, "2 minutes ago"),
        (3_600, "in 1 hour"),
        (-5 * DAY, "5 days ago"),
        (90 * DAY, "in 90 days"),
        (90 * DAY - 0.5, "in 90 days"),
        (100 * DAY, "in 3 months"),
        (366 * DAY, "in 12 months"),
        (-731 * DAY, "2 years ago"),
        (10**11, "in 3,169 years"),
    ],
)
def test_a_distance_is_told_in_a_fitting_unit(seconds: float, words: str) -> None:
    assert relative(1_700_000_000 + seconds, 1_700_000_000) == words


@pytest.mark.parametrize("timestamp", [None, 10**18, -(10**18), math.inf, math.nan, 2**63])
def test_a_time_outside_of_the_calendar_is_none(timestamp: float | None) -> None:
    assert exact(timestamp) is None


def test_a_time_is_told_in_utc() -> None:
    assert exact(1_700_000_000) == "2023-11-14T22:13:20Z"
    assert exact(0) == "1970-01-01T00:00:00Z"


def test_restrictions_are_told_from_wide_to_narrow_in_long_names() -> None:
    restrictions = Restrictions(
        all=("vi",), database={"d": ("es",), "empty": ()}, resource={"d": {"t": ("vt", "ir"), "none": ()}}
    )
    assert describe(restrictions) == [
        ("Everywhere", ["view-instance"]),
        ("Database: d", ["execute-sql"]),
        ("Table: d/t", ["view-table", "insert-row"]),
    ]
    assert describe(None) == []
    assert describe(Restrictions()) == []
    assert brief(restrictions) == ("Everywhere", ["view-instance"], 3)
    assert brief(Restrictions(database=restrictions.database)) == ("Database: d", ["execute-sql"], 0)
    assert brief(Restrictions(resource=restrictions.resource), 1) == ("Table: d/t", ["view-table"], 1)
    assert brief(Restrictions(database={"empty": ()})) == brief(Restrictions()) == brief(None) == ("", [], 0)
