"""Whether an answer is ever older than its request, asked as often as possible and in every way.

In WAL and with a rollback journal, with SQLite's shared memory and without, by one event loop and by four threads with
a loop each, with a second copy of SQLite in the process, and over HTTP by two workers, while other processes revoke
and restore the token, write, roll back and run checkpoints. ``tests/support/strictness.py`` says how an answer is told
to be too old.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from asgi_token_auth import TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.benchmarks.apps import SECRET
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size
from tests.benchmarks.two_workers import ask_all, connect, two_workers
from tests.support.strict_ways import JOURNALS, WAYS, judge
from tests.support.strictness import Judgement, Notes, Writers


async def _issue(path: Path, journal: Literal["wal"] | None) -> str:
    async with TokenStore(SQLite(path, journal_mode=journal), secret=SECRET) as store:
        return (await store.issue("bot")).token


async def check_two_workers(journal: Literal["wal"] | None, requests: int) -> Judgement:
    """Over HTTP by two workers."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        path, notes = folder / "tokens.db", Notes(folder)
        stack.callback(notes.close)
        token = await _issue(path, journal)
        connections = await connect(stack.enter_context(two_workers(folder, path, journal)), token)
        # Longer rests: a request over HTTP takes a hundred times as long, and must fit between two flips.
        with Writers(path, notes, rest=0.02):
            answers = await ask_all(connections, requests)
        return notes.judge(answers)


def benchmark(size: Size) -> Report:
    """Check."""
    rows: list[tuple[str, ...]] = []
    decidable = wrong = 0
    for way in WAYS:
        with tempfile.TemporaryDirectory() as name:
            found = judge(way, Path(name), size.strict_seconds)
        rows.append(_row(way.title, found))
        decidable += found.decidable
        wrong += len(found.wrong)
    over_http = 0
    wrong_over_http = 0
    for journal in JOURNALS:
        found = asyncio.run(check_two_workers(journal, size.strict_requests))
        rows.append(_row(f"{'WAL' if journal else 'rollback journal'}, two workers over HTTP", found))
        over_http += found.decidable
        wrong_over_http += len(found.wrong)
    return Report(
        [Table("Answers and the states of the token", ("", "answers", "decidable", "flips", "busy", "wrong"), rows)],
        {
            "decidable answers": decidable,
            "wrong answers": wrong,
            "decidable answers of two workers": over_http,
            "wrong answers of two workers": wrong_over_http,
        },
    )


def _row(title: str, found: Judgement) -> tuple[str, ...]:
    counts = (found.answers, found.decidable, found.flips, found.busy, len(found.wrong))
    return title, *(f"{count:,}" for count in counts)
