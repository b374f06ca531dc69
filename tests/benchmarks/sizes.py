"""How much is measured: enough to judge, a first look, or hardly anything, to prove that it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Size:
    """Of all benchmarks."""

    #: Of cases that take microseconds, and the seconds of each case's turn in a round.
    rounds: int = 40
    seconds: float = 0.04
    #: Rows of the large table that must cost no more than a thousand.
    rows: int = 1_000_000
    #: Of many good tokens, most of which are not remembered.
    many_tokens: int = 60_000
    junk: int = 1_000_000
    remembered: int = 2_000
    #: Of requests over HTTP: rounds, seconds of each server in a round, connections.
    http_rounds: int = 30
    http_seconds: int = 1
    connections: tuple[int, ...] = (32, 1)
    #: Of lists: tokens, and rounds.
    listed: int = 100_000
    list_rounds: int = 20
    list_seconds: float = 0.1
    #: Of 32 tokens issued at once.
    write_rounds: int = 15
    #: The largest tokens of one owner.
    largest: int = 400
    #: Of the check that no answer is older than its request: seconds of each of its ways, and requests
    #: over HTTP.
    strict_seconds: float = 15.0
    strict_requests: int = 12_000


FULL: Final = Size()
QUICK: Final = replace(
    FULL,
    rounds=10,
    rows=100_000,
    junk=100_000,
    http_rounds=5,
    connections=(32,),
    listed=20_000,
    list_rounds=3,
    write_rounds=5,
    largest=50,
    strict_seconds=1.0,
    strict_requests=2_000,
)
SMOKE: Final = replace(
    FULL,
    rounds=1,
    seconds=0.001,
    rows=2_000,
    many_tokens=300,
    junk=400,
    remembered=200,
    http_rounds=1,
    connections=(4,),
    listed=2_000,
    list_rounds=1,
    list_seconds=0.001,
    write_rounds=1,
    largest=5,
    strict_seconds=0.2,
    strict_requests=100,
)
SIZES: Final = {"full": FULL, "quick": QUICK, "smoke": SMOKE}
