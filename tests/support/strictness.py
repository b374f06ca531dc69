"""Whether an answer is ever older than its request: a check of linearizability against other processes that write.

One process flips a token between active and revoked and notes, before and after each commit, the time of the clock
that all processes share. Another one makes noise and runs checkpoints. An answer must be the state of some flip between
"the last whose commit had returned when the request began" and "the last that had begun when it ended".
"""

from __future__ import annotations

import bisect
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

MOST_FLIPS: Final = 2_000_000

_FLIPPER: Final = """
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

_NOISE: Final = """
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


class Answer(NamedTuple):
    """When a request began and ended, by the clock that all processes share, and its status."""

    began: int
    ended: int
    status: int


class Judgement(NamedTuple):
    """How many answers there were of each kind."""

    answers: int
    #: Those that could be only one thing.
    decidable: int
    wrong: list[Answer]
    #: 503.
    busy: int
    flips: int


class Notes:
    """What the flipper has done, in memory that is shared with it."""

    def __init__(self, folder: Path) -> None:
        self.path: Path = folder / "notes"
        self.path.touch()
        os.truncate(self.path, 16 * MOST_FLIPS)
        with self.path.open("r+b") as file:
            self._memory: mmap.mmap = mmap.mmap(file.fileno(), 0)

    def begun(self) -> bool:
        """Whether the first flip has been committed."""
        return bool(struct.unpack_from("q", self._memory, 24)[0])

    def stop(self) -> None:
        """Ask every process that writes to end."""
        self._memory[0] = 1

    def close(self) -> None:
        self._memory.close()

    def judge(self, answers: Sequence[tuple[int, int, int]]) -> Judgement:
        """Compare each answer with the states that the token had during its request."""
        begun, returned = [0], [0]
        for flip in range(1, MOST_FLIPS):
            start, stop = struct.unpack_from("qq", self._memory, 16 * flip)
            if not start:
                break
            begun.append(start)
            returned.append(stop or sys.maxsize)
        decidable, wrong, busy = 0, [], 0
        for start, stop, status in answers:
            first = bisect.bisect_right(returned, start) - 1
            last = bisect.bisect_right(begun, stop) - 1
            if status == 503:
                busy += 1
            elif first == last:
                decidable += 1
                if status != (401 if first % 2 else 200):
                    wrong.append(Answer(start, stop, status))
            elif status not in (200, 401):
                wrong.append(Answer(start, stop, status))
        return Judgement(len(answers), decidable, wrong, busy, len(begun))


class Writers:
    """Processes that write to a SQLite file: the flipper of token 1, and the noise.

    Args:
        rest: seconds that they rest at most. Without WAL a commit takes longer, and nobody can read while it lasts.
    """

    def __init__(self, path: Path, notes: Notes, *, rest: float) -> None:
        self._notes = notes
        shared = [str(path), str(notes.path), str(rest)]
        self._processes: list[subprocess.Popen[bytes]] = [
            subprocess.Popen([sys.executable, "-c", _FLIPPER, *shared, str(MOST_FLIPS)]),
            subprocess.Popen([sys.executable, "-c", _NOISE, *shared]),
        ]

    def __enter__(self) -> Self:
        """Wait until the first flip has been committed."""
        while not self._notes.begun():
            if any(process.poll() is not None for process in self._processes):
                self.__exit__()
            time.sleep(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        self._notes.stop()
        codes = [process.wait(timeout=60) for process in self._processes]
        if any(codes):
            raise RuntimeError(f"a process that writes has failed: {codes}")


def rest(journal_mode: str | None) -> float:
    """Seconds that writers rest at most."""
    return 0.001 if journal_mode == "wal" else 0.02
