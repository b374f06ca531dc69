"""Whether an answer is ever older than its request, asked as often as possible and in every way.

In WAL and with a rollback journal, by one event loop and by four threads with a loop each, and over HTTP by two
workers, while other processes revoke and restore the token, write, roll back and run checkpoints.
``tests/support/strictness.py`` says how an answer is told to be too old.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

from asgi_token_auth import ManagedTokens, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.benchmarks.apps import SECRET, protected
from tests.benchmarks.harness import App, Scope, http_scope
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size
from tests.benchmarks.two_workers import ask_all, connect, two_workers
from tests.support.strictness import Judgement, Notes, Writers, rest

THREADS: Final = 4
Journal = Literal["wal"] | None
#: Requests between two turns of the event loop: none, so that nothing may rely on a turn, and then a few.
_WITHOUT_A_TURN: Final = 1_000


def options() -> list[dict[str, Any]]:
    """Ways to tell whether a file has changed: as it is, and by SQLite's own answer alone."""
    switch = "wal_index"
    return [{}, {switch: False}] if switch in inspect.signature(SQLite).parameters else [{}]


async def _ask(app: App, token: str, end: float) -> list[tuple[int, int, int]]:
    answers: list[tuple[int, int, int]] = []
    status = 0

    async def send(message: Scope) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    clock = time.monotonic_ns
    while time.monotonic() < end:
        for _ in range(_WITHOUT_A_TURN if len(answers) % 3_000 < 2_000 else 10):
            scope = http_scope(token)
            began = clock()
            await app(scope, None, send)
            answers.append((began, clock(), status))
        await asyncio.sleep(0)
    return answers


async def _issue(path: Path, journal: Journal) -> str:
    async with TokenStore(SQLite(path, journal_mode=journal), secret=SECRET) as store:
        issued = await store.issue("bot")
        assert issued.record.id == 1
        return issued.token


def _in_threads(path: Path, journal: Journal, token: str, count: int, end: float, **more: Any) -> list[Any]:
    """Ask with one database, from an event loop in each of ``count`` threads."""
    store = TokenStore(SQLite(path, journal_mode=journal, **more), secret=SECRET)
    app = protected(ManagedTokens(store))
    found: list[list[Any]] = []
    failed: list[BaseException] = []

    def ask() -> None:
        async def open_and_ask() -> list[Any]:
            async with store:
                return await _ask(app, token, end)

        try:
            found.append(asyncio.run(open_and_ask()))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [answer for answers in found for answer in answers]


def check(journal: Journal, threads: int, seconds: float, **more: Any) -> Judgement:
    """One way, in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, notes = folder / "tokens.db", Notes(folder)
        token = asyncio.run(_issue(path, journal))
        with Writers(path, notes, rest=rest(journal)):
            answers = _in_threads(path, journal, token, threads, time.monotonic() + seconds, **more)
        try:
            return notes.judge(answers)
        finally:
            notes.close()


async def check_two_workers(journal: Journal, requests: int) -> Judgement:
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
    rows, decidable, wrong = [], 0, 0
    ways: list[tuple[str, Journal, int, float]] = [
        ("WAL", "wal", 1, size.strict_seconds),
        (f"WAL, {THREADS} threads", "wal", THREADS, size.strict_seconds / 2),
        ("rollback journal", None, 1, size.strict_seconds / 2),
        (f"rollback journal, {THREADS} threads", None, THREADS, size.strict_seconds / 2),
    ]
    for title, journal, threads, seconds in ways:
        for more in options():
            found = check(journal, threads, seconds, **more)
            said = title + "".join(f", {name}={value}" for name, value in more.items())
            rows.append(_row(said, found))
            decidable += found.decidable
            wrong += len(found.wrong)
    over_http = 0
    wrong_over_http = 0
    for title, journal in (("WAL, two workers over HTTP", "wal"), ("rollback journal, two workers over HTTP", None)):
        found = asyncio.run(check_two_workers(journal, size.strict_requests))
        rows.append(_row(title, found))
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
