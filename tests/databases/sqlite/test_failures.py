"""Each failure of a file names its cause and what to do next."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from asgi_token_auth import StorageError
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.databases.sqlite.failures import sentence

pytestmark = pytest.mark.anyio


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def failed(code: int, words: str = "some words") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


async def opening(path: Path) -> str:
    with pytest.raises(StorageError) as refused:
        await SQLite(path).open()
    return str(refused.value)


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert (await opening(tmp_path / "a" / "t.db")).endswith(
        f"there is no folder {tmp_path / 'a'}; create it, or correct the path."
    )


async def test_that_no_thread_can_be_started_is_a_failure_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    database = SQLite(tmp_path / "t.db")
    await database.open()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        for attempt in (database.open(), database.run_many("select 1", []), database.query("select 1", {})):
            with pytest.raises(StorageError, match=r"no thread can be started; .* Raise the limit"):
                await attempt
    assert (await database.query("select 1", {})).rows == [(1,)]
    await database.close()


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "it is a folder; give the path of a file." in await opening(tmp_path)


async def test_a_file_in_the_place_of_a_folder_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a" / "t.db", tmp_path / "a" / "b" / "t.db"):
        assert f"{tmp_path / 'a'} is no folder; correct the path." in await opening(path)


PIPE = """
import asyncio, os, sys
# Not later: the packages may lie where only their owner reads.
import aiosqlite
from asgi_token_auth import StorageError
from asgi_token_auth.databases.sqlite import SQLite

async def main():
    for create in (True, False):
        try:
            await SQLite(sys.argv[1], create=create).open()
        except StorageError as error:
            print(error)
    try:
        await SQLite(sys.argv[1]).lookup("t", "id").fetch(1)
    except StorageError as error:
        print(error)

# The owner of the machine never waits for a pipe, because SQLite changes its owner first.
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main())
"""


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    # Not in the test's own folder, whose parents are closed to the user without rights.
    with tempfile.TemporaryDirectory() as name:
        pipe = Path(name) / "t.db"
        os.mkfifo(pipe)
        pipe.chmod(0o666)
        Path(name).chmod(0o777)
        ran = subprocess.run([sys.executable, "-c", PIPE, str(pipe)], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines() == [f"SQLite file {pipe}: it is a pipe; give the path of a file."] * 3, ran.stderr


async def test_a_device_or_a_socket_is_no_file(tmp_path: Path) -> None:
    for device in ("/dev/null", "/dev/zero"):
        assert f"SQLite file {device}: it is a device; give the path of a file." == await opening(Path(device))
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(tmp_path):
        bound.bind("s")
        assert "it is a socket; give the path of a file." in await opening(tmp_path / "s")


async def test_a_link_in_a_circle_and_a_name_too_long_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "it is a link that leads nowhere; correct it." in await opening(tmp_path / "loop")
    assert "its name is too long for a file." in await opening(tmp_path / ("x" * 300))


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_what_is_in_the_way_beside_the_file_is_named(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.db"
    await SQLite(path).open()
    beside = tmp_path / f"t.db{suffix}"
    beside.mkdir()
    with pytest.raises(StorageError, match=f"t.db{suffix} beside it is no file; move it away."):
        await SQLite(path).run_many("create table t (x)", [{}])
    beside.rmdir()
    beside.touch()
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith(suffix))
    for code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        said = sentence(failed(code), path)
        assert f"this process may not read and write t.db{suffix} beside it" in said
        assert "run both as one user, or give both the right" in said


def test_too_many_open_files_are_said_only_where_it_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.db"
    path.touch()

    def refuse(number: int) -> Any:
        def open_(*arguments: Any) -> int:
            raise OSError(number, os.strerror(number))

        return open_

    monkeypatch.setattr("os.open", refuse(errno.EMFILE))
    assert "too many files are open in this process" in sentence(failed(sqlite3.SQLITE_CANTOPEN), path)
    monkeypatch.setattr("os.open", refuse(errno.EROFS))
    assert sentence(failed(sqlite3.SQLITE_CANTOPEN), path) == "it cannot be opened: Read-only file system."


def test_a_file_that_is_not_there_is_told_from_one_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.db"
    assert sentence(failed(sqlite3.SQLITE_CANTOPEN), path) == "it is not there; check the path."
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "cannot be made, because the folder" in sentence(failed(sqlite3.SQLITE_CANTOPEN), path)
    path.write_bytes(b"")
    assert "it may not be read" in sentence(failed(sqlite3.SQLITE_CANTOPEN), path)


def test_input_and_output_that_fail_on_a_full_disk_are_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = failed(sqlite3.SQLITE_IOERR | (19 << 8), "disk I/O error")
    assert "look at the machine's log" in sentence(error, tmp_path / "t.db")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1_000_000, 990_000, 10_000))
    assert sentence(error, tmp_path / "t.db") == "the disk is full; nothing was changed."
