"""How many system calls a remembered request makes: a count, which is the same on every machine, however busy.

A process is watched with ptrace by the one that started it, which needs no right and no program. It sends itself a
signal before and after the requests; the system calls of all its threads in between are counted.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from asgi_token_auth import ManagedTokens, SignedTokens, StaticTokens
from tests.benchmarks.apps import SECRET, bare, protected
from tests.benchmarks.harness import App, Scope, http_scope
from tests.benchmarks.report import Report, Table
from tests.benchmarks.sizes import Size
from tests.benchmarks.stores import managed_tokens
from tests.support import ROOT

REQUESTS: Final = 10_000
MANAGED: Final = "managed, WAL"
KINDS: Final = ("bare app", "hard-coded", "signed", MANAGED, "managed, rollback journal")

_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_TRACESYSGOOD, _TRACECLONE, _EXITKILL = 1, 8, 0x100000
_MARK: Final = signal.SIGUSR1
_WALL: Final = 0x40000000


class NotPossible(Exception):
    """This system does not let a process watch its own child. The sentence says why."""


async def _app(kind: str, stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    if kind == "bare app":
        return bare, ["unused"]
    if kind == "hard-coded":
        return protected(StaticTokens({"a-hard-coded-token": {"id": "bot"}})), ["a-hard-coded-token"]
    if kind == "signed":
        source = SignedTokens(SECRET)
        return protected(source), [source.create_token(f"actor {number}") for number in range(100)]
    store, tokens = await managed_tokens(stack, folder / "tokens.db", wal=kind == MANAGED)
    return protected(ManagedTokens(store)), tokens


async def _be_watched(kind: str, requests: int) -> None:
    """Make the requests, in a process that is watched."""
    statuses = set()

    async def send(message: Scope) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    signal.signal(_MARK, signal.SIG_IGN)
    own = os.getpid()
    with tempfile.TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            app, tokens = await _app(kind, stack, Path(name))
            for token in tokens * 2:
                await app(http_scope(token), None, send)
            # Whatever has to be done for the first uses is done now.
            await asyncio.sleep(0.3)
            left = requests
            while left > 0:
                scopes = [http_scope(tokens[at % len(tokens)]) for at in range(min(left, 100))]
                os.kill(own, _MARK)
                for scope in scopes:
                    await app(scope, None, send)
                os.kill(own, _MARK)
                left -= len(scopes)
    assert statuses == {200}, statuses


def _trace(request: int, pid: int, data: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    answer: int = libc.ptrace(request, pid, None, data)
    return answer


def count(kind: str, requests: int = REQUESTS) -> float:
    """System calls per request of this kind.

    Raises:
        NotPossible: no process can be watched here.
    """
    if sys.platform != "linux":
        raise NotPossible("System calls are counted with ptrace as Linux has it.")
    # A group of its own, so that waiting for its threads takes no other child's end from whoever waits for that.
    command = [sys.executable, "-m", "tests.benchmarks.call_count", kind, str(requests)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        calls = _watch(process)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    return calls / requests


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Count the system calls of ``process`` between its signals, until it ends."""
    stops, own, counting, started = 0, 0, False, False
    while True:
        pid, status = os.waitpid(-process.pid, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if pid != process.pid:
                continue
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode == 77:
                raise NotPossible("This system forbids ptrace, with which system calls are counted.")
            if process.returncode != 0:
                raise RuntimeError("the process that was watched has failed")
            # A call is two stops: one when it begins and one when it ends.
            return stops // 2 - own
        passed_on, stopped = 0, os.WSTOPSIG(status)
        if not started:
            started = True
            _trace(_SETOPTIONS, pid, _TRACESYSGOOD | _TRACECLONE | _EXITKILL)
        elif stopped == signal.SIGTRAP | 0x80:
            stops += counting
        elif stopped == _MARK:
            # The second signal of each pair is a call of the watched process itself.
            own += counting
            counting = not counting
        elif stopped not in (signal.SIGTRAP, signal.SIGSTOP):
            passed_on = stopped
        _trace(_SYSCALL, pid, passed_on)


def benchmark(size: Size) -> Report:
    """Count."""
    requests = min(REQUESTS, size.junk)
    found = Report()
    try:
        counts = {kind: count(kind, requests) for kind in KINDS}
    except NotPossible as error:
        found.missing.append(str(error))
        return found
    found.values["system calls per remembered request"] = counts[MANAGED]
    rows = [(kind, f"{calls:.4f}") for kind, calls in counts.items()]
    found.tables.append(Table(f"System calls, of {requests:,} requests", ("", "per request"), rows))
    return found


def main(arguments: list[str]) -> None:
    """Be the process that is watched."""
    if _trace(_TRACEME, 0, 0) != 0:
        sys.exit(77)
    os.kill(os.getpid(), signal.SIGSTOP)
    asyncio.run(_be_watched(arguments[0], int(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
