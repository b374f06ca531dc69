"""No answer is ever older than its request, whoever writes meanwhile. ``tests/support/strictness.py`` says how.

TEST_STRICTNESS_SECONDS makes the run longer; ``python -m tests.benchmarks --only strict`` asks in more ways.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from tests.support import postgres
from tests.support.asgi import SECRET, App, bearer, http
from tests.support.strict_ways import WAYS, Way, judge
from tests.support.strictness import MOST_FLIPS, Notes

pytestmark = pytest.mark.anyio

SECONDS = float(os.environ.get("TEST_STRICTNESS_SECONDS", "2.5"))
USUAL = (Way("wal"), Way(None))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
def test_every_answer_is_a_state_that_the_token_had_during_the_request(tmp_path: Path, way: Way) -> None:
    # Some ways are rarer than others, and all together take their time.
    found = judge(way, tmp_path, SECONDS if way in USUAL else SECONDS / 2)
    print(f"{found.answers} answers, {found.decidable} decidable, {found.flips} flips, {found.busy} busy")
    assert found.wrong == []
    assert found.decidable > 100
    assert found.flips > 20
    assert found.busy == 0 or way.waits


POSTGRES_FLIPPER = """
import asyncio, mmap, random, struct, sys, time
import asyncpg

dsn, notes, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(notes, "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
random.seed(1)

async def flip_for_ever():
    connection = await asyncpg.connect(dsn)
    change = await connection.prepare("update _datasette_auth_tokens set token_status = $1 where id = 1")
    for flip in range(1, most):
        if memory[0]:
            break
        struct.pack_into("q", memory, 16 * flip, time.monotonic_ns())
        await change.fetch("AR"[flip % 2])
        struct.pack_into("q", memory, 16 * flip + 8, time.monotonic_ns())
        # Rest of every length: in a hurry most answers could be either, and nothing would be decided.
        if random.random() < 0.7:
            time.sleep(random.random() * 0.003)
    await connection.close()

asyncio.run(flip_for_ever())
"""


@pytest.mark.parametrize("at_once", [2, 32])
async def test_every_answer_from_postgresql_is_a_state_of_the_token_during_the_request(
    tmp_path: Path, postgres_server: postgres.Server, at_once: int
) -> None:
    notes = Notes(tmp_path)
    schema = f"strictness_{at_once}"
    postgres_server.run(f"create schema {schema}")
    dsn = f"{postgres_server.dsn()}&search_path={schema}"
    answers: list[tuple[int, int, int]] = []

    async def receive() -> dict[str, object]:
        raise AssertionError("nothing is read from the client")

    async def ask_again_and_again(app: TokenAuthMiddleware, token: str, end: float) -> None:
        status = 0

        async def send(message: dict[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                found = message["status"]
                assert isinstance(found, int)
                status = found

        while time.monotonic() < end:
            began = time.monotonic_ns()
            await app(http([bearer(token)]), receive, send)  # type: ignore[arg-type]
            answers.append((began, time.monotonic_ns(), status))

    async with TokenStore(Postgres(dsn), secret=SECRET) as store:
        issued = await store.issue("ann")
        app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
        process = subprocess.Popen([sys.executable, "-c", POSTGRES_FLIPPER, dsn, str(notes.path), str(MOST_FLIPS)])
        try:
            while not notes.begun():
                assert process.poll() is None
                await asyncio.sleep(0.01)
            end = time.monotonic() + SECONDS
            await asyncio.gather(*(ask_again_and_again(app, issued.token, end) for _ in range(at_once)))
        finally:
            notes.stop()
            process.wait(timeout=60)
        assert process.returncode == 0
    found = notes.judge(answers)
    notes.close()
    print(f"{found.answers} answers, {found.decidable} decidable, {found.flips} flips, {found.busy} busy")
    assert found.wrong == []
    postgres_server.run(f"drop schema {schema} cascade")
    assert found.decidable > 100
    assert found.flips > 20
    # A server that is kept from answering for a second is said to be busy, and an answer is never made up.
    assert found.busy <= len(answers) // 100
