"""Tokens issued one by one and all at once: writers of one process must not stand in each other's way."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.benchmarks.apps import SECRET
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size

AT_ONCE: Final = 32
_ONE_BY_ONE: Final = "one by one"
_TOGETHER: Final = f"{AT_ONCE} at once"


async def run(rounds: int) -> dict[str, list[float]]:
    """Seconds for ``AT_ONCE`` tokens, in both ways, in the order of a coin."""
    took: dict[str, list[float]] = {_ONE_BY_ONE: [], _TOGETHER: []}
    with tempfile.TemporaryDirectory() as name:
        async with TokenStore(SQLite(Path(name) / "tokens.db"), secret=SECRET) as store:

            async def one_by_one() -> None:
                for _ in range(AT_ONCE):
                    await store.issue("bot")

            async def together() -> None:
                await asyncio.gather(*(store.issue("bot") for _ in range(AT_ONCE)))

            ways: list[tuple[str, Callable[[], Awaitable[None]]]] = [(_ONE_BY_ONE, one_by_one), (_TOGETHER, together)]
            await one_by_one()
            for _ in range(rounds):
                for title, way in random.sample(ways, len(ways)):
                    began = time.perf_counter()
                    await way()
                    took[title].append(time.perf_counter() - began)
    return took


def benchmark(size: Size) -> Report:
    """Measure."""
    took = asyncio.run(run(size.write_rounds))
    ratio = statistics.median(a / b for a, b in zip(took[_ONE_BY_ONE], took[_TOGETHER], strict=True))
    rows = [
        (title, f"{AT_ONCE / statistics.median(seconds):,.0f}", f"{max(seconds) / AT_ONCE * 1000:.1f}")
        for title, seconds in took.items()
    ]
    return Report(
        [Table("Issuing tokens in SQLite", ("", "tokens/s", "ms each, worst round"), rows)],
        {"32 issues at once / one by one, rate": ratio},
    )
