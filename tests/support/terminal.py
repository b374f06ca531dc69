"""The command line as people run it: a process of its own, what it wrote, and whether its tokens work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from asgi_token_auth import Authenticated, Credential, ManagedTokens, Rejected, TokenStore
from asgi_token_auth.cli.commands import root
from asgi_token_auth.databases.sqlite import SQLite

#: Seconds. What hangs, hangs for ever.
PATIENCE = 60.0
SECRET = "a secret that is only used in tests"


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change a command's answer."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DATASETTE_SECRET", "COLUMNS")}
    return {**kept, **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "asgi_token_auth", *arguments]


class Terminal:
    """A folder with a shell in it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.variables = variables

    def run(self, *arguments: str, stdin: str | bytes = b"", code: int = 0, **more: str) -> Done:
        """Run a command, which must exit with ``code`` and never with a traceback."""
        done = subprocess.run(
            command(*arguments),
            cwd=self.folder,
            env=environment(**{**self.variables, **more}),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=PATIENCE,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        assert done.returncode == code, (done.returncode, out, err)
        return Done(done.returncode, out, err)

    def quick(self, *arguments: str, stdin: str = "", code: int | None = 0, **more: str) -> Done:
        """The same in this process, at a tenth of the time: for what a test only needs on its way."""
        variables = {"DATASETTE_SECRET": None, "COLUMNS": None, **self.variables, **more}
        with contextlib.chdir(self.folder):
            done = CliRunner(env=variables).invoke(root, arguments, input=stdin)
        assert code in (None, done.exit_code), (done.exit_code, done.stdout, done.stderr, done.exception)
        return Done(done.exit_code, done.stdout, done.stderr)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start a command with pipes, which the caller waits for."""
        return subprocess.Popen(
            command(*arguments),
            cwd=self.folder,
            env=environment(**self.variables),
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
        )

    def fails(self, *arguments: str, code: int = 1, **more: Any) -> str:
        """Run a command that must fail; the sentence that it ends with."""
        done = self.run(*arguments, code=code, **more)
        assert done.out == ""
        last = done.err.strip().splitlines()[-1]
        # A question that was answered from a pipe stands in the same line.
        _, error, sentence = last.partition("Error: ")
        assert error
        return sentence

    def sql(self, statement: str, *parameters: object, file: str = "tokens.db") -> list[Any]:
        """What an accident does to the file from outside, or what is really in it."""
        with closing(sqlite3.connect(self.folder / file, isolation_level=None)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def tables(self, file: str) -> set[str]:
        return {name for (name,) in self.sql("select name from sqlite_master", file=file)}

    @contextmanager
    def at(self, *arguments: str) -> Iterator[Screen]:
        """A command at a terminal, which is ended in any case."""
        ours, theirs = pty.openpty()
        # Without a controlling terminal, so that this one is asked and not the tester's.
        process = self.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        try:
            yield Screen(ours, process)
        finally:
            process.kill()
            process.wait(PATIENCE)
            os.close(ours)


class Screen:
    """A terminal from outside: what a command shows, and what is typed."""

    def __init__(self, terminal: int, process: subprocess.Popen[bytes]) -> None:
        self._terminal = terminal
        self.process = process
        self.shown = b""
        self._place = 0

    def wait_for(self, text: bytes) -> None:
        """Wait until ``text`` comes after what was waited for before."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.shown.find(text, self._place)) < 0:
            assert select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))[0], self.shown
            self.shown += os.read(self._terminal, 1024)
        self._place = found + len(text)

    def type(self, text: bytes) -> None:
        os.write(self._terminal, text)


def through_shell(terminal: Terminal, line: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in which ``$it`` is the command."""
    return subprocess.run(
        ["/bin/sh", "-c", line.replace("$it", " ".join(command()))],
        cwd=terminal.folder,
        env=environment(**terminal.variables),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def wait_until_waiting(pid: int, *places: str) -> None:
    """Until a process, or one of its threads, sleeps in a read or a write, or in ``places``."""
    deadline = time.monotonic() + 60
    seen = 0
    while seen < 10 and time.monotonic() < deadline:
        where = ""
        for thread in Path(f"/proc/{pid}/task").glob("*/wchan"):
            # Threads end.
            with suppress(OSError):
                where += thread.read_text()
        seen = seen + 1 if any(place in where for place in places or ("pipe", "poll_schedule")) else 0
        time.sleep(0.01)
    assert seen == 10, "it did not wait"


def verdict(terminal: Terminal, token: str) -> Any:
    """What a server would say: the actor, or the reason."""

    async def ask() -> Any:
        async with TokenStore(SQLite(terminal.folder / "tokens.db"), secret=SECRET) as store:
            outcome = await ManagedTokens(store).authenticate(Credential(token.strip()))
            match outcome:
                case Authenticated():
                    return outcome.actor()
                case Rejected(reason):
                    return str(reason)

    return asyncio.run(ask())


def create(terminal: Terminal, *arguments: str) -> Any:
    """A new token: its text and its details."""
    return terminal.quick("tokens", "create", *arguments, "--json").json
