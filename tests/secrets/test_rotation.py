"""Rotation of many secrets: one transaction, which a kill -9 in its middle leaves as if it had not begun."""

from __future__ import annotations

import logging
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import SecretStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.encryption import Encryption, generate_key
from asgi_token_auth.secrets.record import Rotation

pytestmark = pytest.mark.anyio

SECRETS = 1_000
OLD, NEW = generate_key(), generate_key()

#: Rotates, and dies at the given call of Encryption.encrypt; at 0 when it is done.
DYING = """
import asyncio, os, signal, sys
from asgi_token_auth import SecretStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.encryption import Encryption
path, keys, dies_at = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
encrypt, calls = Encryption.encrypt, 0

def counted(self, name, version, value):
    global calls
    calls += 1
    if calls == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return encrypt(self, name, version, value)

Encryption.encrypt = counted

async def main():
    async with SecretStore(SQLite(path), encryption_key=keys) as store:
        await store.rotate()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def value_of(number: int) -> str:
    return f"the-value-of-secret-{number:04}"


@pytest.fixture(scope="module")
async def filled(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> Path:
    """A thousand secrets under the old key."""
    file = tmp_path_factory.mktemp("filled") / "secrets.db"
    async with SecretStore(SQLite(file), encryption_key=OLD) as store:
        await store.set("S0000", "first")
    encryption = Encryption(OLD)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("delete from datasette_secrets")
        connection.executemany(
            "insert into datasette_secrets (name, version, note, encrypted, encryption_key_name) "
            "values (?, 1, '', ?, ?)",
            [
                (f"S{number:04}", encryption.encrypt(f"S{number:04}", 1, value_of(number)), encryption.key_name)
                for number in range(SECRETS)
            ],
        )
        connection.commit()
        connection.execute("pragma wal_checkpoint(truncate)")
    return file


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def file(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "secrets.db"))


def store(file: Path, *keys: str) -> SecretStore:
    return SecretStore(SQLite(file), encryption_key=keys, environ={})


def current(file: Path) -> int:
    """How many are encrypted with the new key."""
    new = Encryption(NEW)
    with closing(sqlite3.connect(file)) as connection:
        rows: list[Any] = connection.execute("select encrypted from datasette_secrets").fetchall()
    assert len(rows) == SECRETS
    return sum(new.is_current(blob) for (blob,) in rows)


async def test_a_thousand_secrets_are_rotated_in_one_transaction(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    transactions = 0
    async with store(file, OLD, NEW) as rotating:
        transaction = rotating.database.transaction

        async def counted(steps: Any) -> Any:
            nonlocal transactions
            transactions += 1
            return await transaction(steps)

        monkeypatch.setattr(rotating.database, "transaction", counted)
        assert await rotating.rotate(by="alice") == Rotation(SECRETS, 0)
        assert transactions == 1
        # While it is open there is a WAL beside it.
        held = b"".join(found.read_bytes() for found in file.parent.iterdir())
    assert current(file) == SECRETS
    async with store(file, NEW) as reading:
        for number in range(0, SECRETS, 99):
            assert await reading.get_secret(f"S{number:04}") == value_of(number)
        assert await reading.problems() == []
        assert len(await reading.list()) == SECRETS
    for text in (b"the-value-of-secret", OLD.encode(), NEW.encode()):
        assert text not in held
        assert text.decode() not in caplog.text
    assert "encrypted 1000 secret values anew, asked for by 'alice'" in caplog.text


@pytest.mark.parametrize("dies_at", [1, SECRETS // 2, SECRETS, 0])
async def test_kill_9_in_the_middle_leaves_every_secret_readable(file: Path, dies_at: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(file), f"{OLD},{NEW}", str(dies_at)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    # All or none, and what was acknowledged holds.
    assert current(file) == (0 if dies_at else SECRETS)
    async with store(file, OLD if dies_at else NEW) as reading:
        assert await reading.problems() == []
    async with store(file, OLD, NEW) as rotating:
        assert await rotating.rotate() == (Rotation(SECRETS, 0) if dies_at else Rotation(0, SECRETS))
