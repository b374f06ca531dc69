"""What this package promises about its speed, in ratios of one run. One table; ``--check`` compares with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tests.benchmarks.report import Report, Table

Verdict: TypeAlias = Literal["met", "MISSED", "NOT MEASURED"]


@dataclass(frozen=True)
class Goal:
    """One value of one benchmark, and the most or the least that it may be."""

    benchmark: str
    value: str
    limit: float
    at_least: bool = False
    #: From CPython 3.13 on, where that is another one.
    limit_3_13: float | None = None
    #: About the speed of other people's code, or not promised: told, but no reason for ``--check`` to fail.
    told: bool = False

    def now(self) -> float:
        """The limit for the Python that runs."""
        return self.limit if self.limit_3_13 is None or sys.version_info < (3, 13) else self.limit_3_13

    def verdict(self, measured: float | None) -> Verdict:
        if measured is None:
            return "NOT MEASURED"
        return "met" if (measured >= self.now() if self.at_least else measured <= self.now()) else "MISSED"


def _goals(benchmark: str, *goals: tuple[str, str, float]) -> list[Goal]:
    return [Goal(benchmark, value, limit, at_least=sign == ">=") for value, sign, limit in goals]


GOALS: Final = [
    Goal("requests", "managed / Starlette's dict", 1.0, limit_3_13=0.95),
    *_goals(
        "requests",
        ("hard-coded 100 / Starlette's dict", "<=", 0.8),
        ("hard-coded 10,000 / 1, whole request", "<=", 1.25),
        ("signed / Starlette's dict", "<=", 0.95),
        ("no credential / Starlette's dict", "<=", 0.65),
        ("100 commits/s / idle, whole request", "<=", 1.1),
        ("1,000 commits/s / idle, whole request", "<=", 2.5),
        ("large table / 1,000 rows, whole request", "<=", 1.05),
        ("bad signature / itsdangerous loads()", "<=", 1.0),
        ("many tokens, reads of rows per request", "<=", 1.0),
    ),
    *_goals("calls", ("system calls per remembered request", "<=", 0.01)),
    *_goals(
        "memory",
        ("bytes per remembered token", "<=", 1_100),
        ("MB more after different junk values", "<=", 1.0),
    ),
    *_goals("writes", ("32 issues at once / one by one, rate", ">=", 0.8)),
    *_goals(
        "http",
        ("managed / bare, rate", ">=", 0.80),
        ("managed / Starlette's dict, rate", ">=", 0.97),
        ("managed / bare, p99", "<=", 1.25),
        ("PostgreSQL / bare, rate, worst of five runs", ">=", 0.65),
    ),
    *_goals("lists", ("longest list / the same of few tokens, worst page", "<=", 3.0)),
    *_goals(
        "sizes",
        ("ms that the largest tokens hold others up", "<=", 50),
        ("seconds of a revocation during a large edit", "<=", 1.0),
        ("MB more after the largest tokens", "<=", 100),
    ),
    *_goals(
        "strict",
        ("decidable answers", ">=", 2_000_000),
        ("wrong answers", "<=", 0),
        ("decidable answers of two workers", ">=", 10_000),
        ("wrong answers of two workers", "<=", 0),
    ),
    Goal("requests", "many tokens / signature and SELECT", 2.5, told=True),
    Goal("requests", "aiosqlite SELECT / managed", 60, at_least=True, told=True),
    Goal("peers", "djangorestframework-api-key / managed", 120, at_least=True, told=True),
    Goal("peers", "django-rest-knox / managed", 250, at_least=True, told=True),
    Goal("peers", "fastapi-users / managed", 1_000, at_least=True, told=True),
    Goal("peers", "datasette-auth-tokens / managed", 250, at_least=True, told=True),
]


def judge(reports: Mapping[str, Report]) -> list[tuple[Goal, float | None, Verdict]]:
    """Every goal of the benchmarks that ran. One that could not be measured is not met, unless it is only told."""
    judged = []
    for goal in GOALS:
        if goal.benchmark in reports:
            measured = reports[goal.benchmark].values.get(goal.value)
            if measured is not None or not goal.told:
                judged.append((goal, measured, goal.verdict(measured)))
    return judged


def table(judged: list[tuple[Goal, float | None, Verdict]]) -> Table:
    rows = [
        (
            f"{goal.benchmark}: {goal.value}",
            f"{'>=' if goal.at_least else '<='} {goal.now():,g}",
            "-" if measured is None else f"{measured:,.4g}" if measured < 10_000 else f"{measured:,.0f}",
            verdict + " (told only)" * goal.told,
        )
        for goal, measured, verdict in judged
    ]
    return Table("Goals", ("goal", "limit", "measured", "verdict"), rows)
