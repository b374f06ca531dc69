"""Each failure of a file names its cause and what to do next."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import NamedTuple

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


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "it is a folder; give the path of a file." in await opening(tmp_path)


async def test_a_file_in_the_place_of_a_folder_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    assert f"there is no folder {tmp_path / 'a'}" in await opening(tmp_path / "a" / "t.db")


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
