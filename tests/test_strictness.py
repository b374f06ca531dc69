"""No answer is ever older than the request: a check of linearizability against other processes that write.

One process flips a token between active and revoked and notes, before and after each commit, the time of the
clock that all processes share. Another one makes noise and runs checkpoints. This one asks through the
middleware. An answer must be the state of some flip between "the last whose commit had returned when the
request began" and "the last that had begun when it ended". TEST_STRICTNESS_SECONDS makes the run longer.
"""

from __future__ import annotations

import asyncio
import bisect
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from asgi_token_auth import ManagedTokens, TokenAuthMiddleware, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.sqlite import SQLite
from tests.support import postgres
from tests.support.asgi import SECRET, App, bearer, http

pytestmark = pytest.mark.anyio

SECONDS = float(os.environ.get("TEST_STRICTNESS_SECONDS", "2.5"))
MOST_FLIPS = 2_000_000

FLIPPER = """
import mmap, random, sqlite3, struct, sys, time

path, notes, rest, most = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
with open(notes, "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
connection = sqlite3.connect(path, isolation_level=None, timeout=5)
connection.execute("pragma synchronous = off")
random.seed(1)
for flip in range(1, most):
    if memory[0]:
        break
    word = "AR"[flip % 2]
    struct.pack_into("q", memory, 16 * flip, time.monotonic_ns())
    # Without WAL a reader that never rests can keep a writer out for long.
    while not memory[0]:
        try:
            connection.execute("update _datasette_auth_tokens set token_status = ? where id = 1", [word])
        except sqlite3.OperationalError:
            continue
        struct.pack_into("q", memory, 16 * flip + 8, time.monotonic_ns())
        break
    # Rest of every length: in a hurry most answers could be either, and nothing would be decided.
    if random.random() < 0.7:
        time.sleep(random.random() * rest)
connection.close()
"""

NOISE = """
import mmap, random, sqlite3, sys, time

path, notes, rest = sys.argv[1], sys.argv[2], float(sys.argv[3])
with open(notes, "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
connection = sqlite3.connect(path, isolation_level=None, timeout=5)
connection.execute("create table noise (id integer primary key, word text)")
connection.execute("pragma synchronous = off")
random.seed(2)
number = 0
while not memory[0]:
    number += 1
    try:
        connection.execute("insert into noise (word) values (?)", ["x" * random.randrange(3000)])
        if number % 5 == 0:
            connection.execute("begin immediate")
            connection.execute("update _datasette_auth_tokens set token_status = 'Z' where id = 1")
            connection.execute("rollback")
        if number % 7 == 0:
            kind = random.choice(["passive", "full", "restart", "truncate"])
            connection.execute(f"pragma wal_checkpoint({kind})").fetchall()
    except sqlite3.OperationalError:
        pass
    time.sleep(random.random() * rest * 3)
connection.close()
"""


@pytest.mark.parametrize("journal_mode", ["wal", None], ids=["wal", "rollback journal"])
async def test_every_answer_is_a_state_that_the_token_had_during_the_request(
    tmp_path: Path, journal_mode: Literal["wal"] | None
) -> None:
    path, notes = tmp_path / "t.db", tmp_path / "notes"
    notes.touch()
    os.truncate(notes, 16 * MOST_FLIPS)
    with notes.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    answers: list[tuple[int, int, int]] = []
    async with TokenStore(SQLite(path, journal_mode=journal_mode), secret=SECRET) as store:
        issued = await store.issue("ann")
        assert issued.record.id == 1
        app = TokenAuthMiddleware(App(), sources=[ManagedTokens(store)])
        status = 0

        async def receive() -> dict[str, object]:
            raise AssertionError("nothing is read from the client")

        async def send(message: dict[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                found = message["status"]
                assert isinstance(found, int)
                status = found

        # Without WAL a commit takes longer, and nobody can read while it lasts.
        rest = "0.001" if journal_mode == "wal" else "0.02"
        processes = [
            subprocess.Popen([sys.executable, "-c", FLIPPER, str(path), str(notes), rest, str(MOST_FLIPS)]),
            subprocess.Popen([sys.executable, "-c", NOISE, str(path), str(notes), rest]),
        ]
        try:
            while not struct.unpack_from("q", memory, 24)[0]:
                assert all(process.poll() is None for process in processes)
                time.sleep(0.01)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                began = time.monotonic_ns()
                await app(http([bearer(issued.token)]), receive, send)  # type: ignore[arg-type]
                answers.append((began, time.monotonic_ns(), status))
        finally:
            memory[0] = 1
            for process in processes:
                process.wait(timeout=60)
        assert [process.returncode for process in processes] == [0, 0]

    decidable, busy, flips = judged(answers, memory)
    memory.close()
    assert decidable > 100
    assert flips > 20
    # Readers of WAL never wait for a writer.
    assert busy == 0 or journal_mode is None


def judged(answers: Sequence[tuple[int, int, int]], memory: mmap.mmap) -> tuple[int, int, int]:
    """How many answers could be only one thing, and were it; how many were 503; how many flips there were."""
    begun, returned = [0], [0]
    for flip in range(1, MOST_FLIPS):
        start, stop = struct.unpack_from("qq", memory, 16 * flip)
        if not start:
            break
        begun.append(start)
        returned.append(stop or sys.maxsize)
    decidable, wrong, busy = 0, [], 0
    for start, stop, answer in answers:
        first = bisect.bisect_right(returned, start) - 1
        last = bisect.bisect_right(begun, stop) - 1
        if answer == 503:
            busy += 1
        elif first == last:
            decidable += 1
            if answer != (401 if first % 2 else 200):
                wrong.append((start, stop, answer, first))
        else:
            assert answer in (200, 401)
    print(f"{len(answers)} answers, {decidable} decidable, {len(begun)} flips, {busy} busy, {len(wrong)} wrong")
    assert wrong == []
    return decidable, busy, len(begun)


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
    notes = tmp_path / "notes"
    notes.touch()
    os.truncate(notes, 16 * MOST_FLIPS)
    with notes.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
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
        process = subprocess.Popen([sys.executable, "-c", POSTGRES_FLIPPER, dsn, str(notes), str(MOST_FLIPS)])
        try:
            while not struct.unpack_from("q", memory, 24)[0]:
                assert process.poll() is None
                await asyncio.sleep(0.01)
            end = time.monotonic() + SECONDS
            await asyncio.gather(*(ask_again_and_again(app, issued.token, end) for _ in range(at_once)))
        finally:
            memory[0] = 1
            process.wait(timeout=60)
        assert process.returncode == 0
    decidable, busy, flips = judged(answers, memory)
    memory.close()
    postgres_server.run(f"drop schema {schema} cascade")
    assert decidable > 100
    assert flips > 20
    # A server that is kept from answering for a second is said to be busy, and an answer is never made up.
    assert busy <= len(answers) // 100
