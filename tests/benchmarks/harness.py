"""Compares what ASGI apps cost per request: one process, one event loop, no sockets.

Four rules keep the comparison fair on a machine that does other things too. Every round visits all apps in a new
random order and only numbers of one round are compared with each other. Header bytes are new for every request,
because Python remembers the hash of bytes that it has seen. Every status is checked, so that a refusal or an
error is never taken for a fast answer. The event loop turns between the batches, so that what an app leaves for later
is done.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

# More scopes than this fall out of the processor's cache before they are used.
_MOST_SCOPES = 128
_BATCH_SECONDS = 0.002

_HEADERS = {
    "host": "127.0.0.1:8000",
    "user-agent": "python-httpx/0.28.1",
    "accept": "application/json",
    "accept-encoding": "gzip, deflate, br",
    "connection": "keep-alive",
    "x-forwarded-for": "203.0.113.7",
    "x-forwarded-proto": "https",
    "x-request-id": "0b0f3b1c-6f0e-4a51-9f3d-3a4b0f6a2f10",
    "content-type": "application/json",
}


def http_scope(token: str | None = None) -> Scope:
    """A request as a server hands it over: ten headers, Authorization last."""
    headers = [(_fresh(name), _fresh(value)) for name, value in _HEADERS.items()]
    if token is not None:
        headers.append((_fresh("authorization"), _fresh(f"Bearer {token}")))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": headers,
        "state": {},
    }


def _fresh(text: str) -> bytes:
    return bytes(bytearray(text, "latin-1"))


@dataclass(frozen=True)
class Case:
    """An app, and the requests that it is measured with."""

    name: str
    app: App
    #: Presented in rotation. Empty: requests without a credential.
    tokens: Sequence[str] = ()
    status: int = 200
    #: Called before and after each of the case's turns.
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None


class Turn(NamedTuple):
    """A case in one round, in nanoseconds per request."""

    median: float
    #: Of all but the slowest hundredth, which other programs have slowed.
    mean: float


class Results:
    """Every case in every round. The first case is the base."""

    def __init__(self, turns: dict[str, list[Turn]]) -> None:
        self._medians = {name: [turn.median for turn in found] for name, found in turns.items()}
        self._means = {name: [turn.mean for turn in found] for name, found in turns.items()}
        self._base = next(iter(self._medians.values()))

    def __iter__(self) -> Any:
        return iter(self._medians)

    def __contains__(self, name: str) -> bool:
        return name in self._medians

    def microseconds(self, name: str) -> float:
        """For orientation: the clock of the machine is in it."""
        return statistics.median(self._medians[name]) / 1000

    def over(self, name: str) -> float:
        """Microseconds that the case adds to the base."""
        return statistics.median(a - base for a, base in zip(self._medians[name], self._base, strict=True)) / 1000

    def ratio(self, name: str, other: str) -> float:
        """The whole request against another case's."""
        return statistics.median(a / b for a, b in zip(self._medians[name], self._medians[other], strict=True))

    def mean(self, name: str) -> float:
        """As ``microseconds()``. Far from the median where a case has two kinds of request."""
        return statistics.median(self._means[name]) / 1000

    def cost(self, name: str, unit: str) -> float:
        """What the case adds to the base, in what ``unit`` adds to it."""
        return statistics.median(
            (a - base) / max(b - base, 1.0)
            for a, b, base in zip(self._medians[name], self._medians[unit], self._base, strict=True)
        )


async def measure(cases: Sequence[Case], *, rounds: int, seconds: float, seed: int = 0) -> Results:
    """Give every case a turn of ``seconds`` in every one of ``rounds``."""
    drivers = [_Driver(case) for case in cases]
    for driver in drivers:
        await driver.warm_up(seconds * 3)
    order = random.Random(seed)
    gc.collect()
    gc.freeze()
    try:
        for _ in range(rounds):
            for driver in order.sample(drivers, len(drivers)):
                driver.turns.append(await driver.turn(seconds))
    finally:
        gc.unfreeze()
    return Results({driver.case.name: driver.turns for driver in drivers})


class _Driver:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.turns: list[Turn] = []
        self._batch = 1
        self._presented = 0

    async def warm_up(self, seconds: float) -> None:
        # Every token once, so that what can be remembered is.
        await self._requests(max(len(self.case.tokens), 1), [])
        turn = await self.turn(seconds)
        self._batch = max(1, min(_MOST_SCOPES, int(_BATCH_SECONDS * 1e9 / max(turn.median, 1.0))))

    async def turn(self, seconds: float) -> Turn:
        """One turn of the case."""
        if self.case.before is not None:
            self.case.before()
        samples: list[int] = []
        end = time.perf_counter() + seconds
        while not samples or time.perf_counter() < end:
            await self._requests(self._batch, samples)
            await asyncio.sleep(0)
        if self.case.after is not None:
            self.case.after()
        samples.sort()
        kept = samples[: max(1, len(samples) * 99 // 100)]
        return Turn(statistics.median(samples), statistics.fmean(kept))

    async def _requests(self, count: int, samples: list[int]) -> None:
        app, clock = self.case.app, time.perf_counter_ns
        while count > 0:
            for scope in [self._scope() for _ in range(min(count, _MOST_SCOPES))]:
                answer = _Answer()
                started = clock()
                await app(scope, _receive, answer)
                samples.append(clock() - started)
                if answer.status != self.case.status:
                    raise RuntimeError(f"{self.case.name}: expected {self.case.status}, got {answer.status}")
            count -= _MOST_SCOPES

    def _scope(self) -> Scope:
        tokens = self.case.tokens
        self._presented += 1
        return http_scope(tokens[self._presented % len(tokens)] if tokens else None)


class _Answer:
    __slots__ = ("status",)

    def __init__(self) -> None:
        self.status = 0

    async def __call__(self, message: Scope) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]


async def _receive() -> Scope:
    return {"type": "http.request", "body": b"", "more_body": False}
