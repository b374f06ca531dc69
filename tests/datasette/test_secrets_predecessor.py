"""The real datasette-secrets and we, on one table: it writes, we read and write, it reads again, and back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from asgi_token_auth import Secret, SecretStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.datasette import get_secret
from asgi_token_auth.secrets.encryption import Encryption, generate_key
from asgi_token_auth.secrets.record import Rotation
from tests.support.predecessors import interpreter, ran
from tests.support.sites import demo_files, make, needs_1_0, registered, serving

pytestmark = [pytest.mark.anyio, needs_1_0]

NAMES = ("PLAIN", "CHANGED", "USED", "EXAMPLE_SECRET")

#: Runs in the predecessor's interpreter: sets or reads secrets as its users would.
PROGRAM = """
import asyncio, json, sqlite3, sys
from urllib.parse import quote
from datasette import hookimpl
from datasette.app import Datasette
from datasette.plugins import pm
from datasette_secrets import Secret, get_secret
path, key, task, names, given = *sys.argv[1:4], json.loads(sys.argv[4]), json.loads(sys.argv[5])

class Plugin:
    __name__ = "asks"
    @hookimpl
    def register_secrets(datasette):
        return [Secret(name, description="For " + name) for name in names]

pm.register(Plugin, name="asks")

async def main():
    datasette = Datasette([path], config={
        "permissions": {"manage-secrets": {"id": "*"}},
        "plugins": {"datasette-secrets": {"encryption-key": key, "database": "tokens"}},
    })
    await datasette.invoke_startup()
    for name, actor, value, note in given:
        answer = await datasette.client.post("/-/secrets/" + quote(name), actor={"id": actor},
            data={"secret": value, "note": note})
        assert answer.status_code == 302, answer.text
    found = {}
    for name in names:
        try:
            found[name] = await get_secret(datasette, name, "reader")
        except Exception as error:
            found[name] = [type(error).__name__]
    page = await datasette.client.get("/-/secrets", actor={"id": "root"})
    print("RESULT" + json.dumps({"found": found, "status": page.status_code, "page": page.text}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def python() -> str:
    return interpreter()


def predecessor(python: str, file: Path, key: str, given: Any = ()) -> Any:
    return ran(python, PROGRAM, str(file), key, "", json.dumps(NAMES), json.dumps(list(given)), folder=file.parent)


def rows(file: Path, columns: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(f"select {columns} from datasette_secrets order by id").fetchall()


def store(file: Path, *keys: str) -> SecretStore:
    return SecretStore(SQLite(file, journal_mode=None), encryption_key=keys, environ={})


async def test_secrets_of_the_real_predecessor_work_here_and_its_own_stay_readable_by_it(
    python: str, tmp_path: Path
) -> None:
    file, key = demo_files(tmp_path)[1], generate_key()
    written = [
        ("PLAIN", "alice", "value one", "from the vendor"),
        ("CHANGED", "alice", "old value", ""),
        ("CHANGED", "bob", "new välue 日本語", "second"),
        ("CHANGED", "carol", "", "only the note"),
        ("A NAME", "alice", "spaced", ""),
        ("USED", "alice", "x" * 100_000, ""),
        ("UNREGISTERED", "alice", "kept", ""),
    ]
    before = predecessor(python, file, key, written)
    values = {"PLAIN": "value one", "CHANGED": "new välue 日本語"}
    assert {name: before["found"][name] for name in values} == values

    # Every value and version, by the table and key as they are.
    for name, version, blob in rows(file, "name, version, encrypted"):
        assert Encryption(key).decrypt(name, version, blob) in [value for _, _, value, _ in written]
    columns = rows(file, "name, version, note, encrypted, created_by, updated_by, last_used_by, encryption_key_name")
    async with store(file, key) as ours:
        assert {name: await ours.get_secret(name) for name in values} == values
        assert await ours.get_secret("USED") == "x" * 100_000
        assert await ours.get_secret("UNREGISTERED") == "kept"
        assert await ours.get_secret("EXAMPLE_SECRET") is None
        assert await ours.problems() == []
        record = await ours.get("CHANGED")
        assert (record.version, record.note, record.created_by, record.updated_by) == (
            2,
            "only the note",
            "bob",
            "carol",
        )
        assert record.created_at is not None
        assert record.last_used_at is not None
        assert record.last_used_by == "reader"
        assert [(v.version, v.created_by) for v in await ours.history("CHANGED")] == [(2, "bob"), (1, "alice")]
        # It stores a name as the URL of its page spells it.
        assert [secret.name for secret in await ours.list()] == sorted({quote(name) for name, *_ in written})
        assert await ours.get_secret("A%20NAME") == "spaced"
        await ours.flush()
    # Reading has written nothing but the time of last use.
    unused = "name, version, note, encrypted, created_by, updated_by, encryption_key_name"
    assert rows(file, unused) == [(*row[:6], row[7]) for row in columns]

    # Inside of Datasette, with the predecessor's own section.
    section = {"datasette-secrets": {"encryption-key": key, "database": "tokens"}}
    datasette = make([file], config={"plugins": section})
    with registered(register_secrets=lambda datasette: [Secret(name) for name in NAMES]):
        async with serving(datasette.app()):
            assert await get_secret(datasette, "CHANGED", "plugin") == values["CHANGED"]

    async with store(file, key) as ours:
        await ours.set_note("PLAIN", "noted by us", by="dora")
        await ours.set("CHANGED", "set by us", by="dora")
        await ours.delete("USED", by="dora")

    after = predecessor(python, file, key)
    # It does not know our form and says so; what is its own it reads.
    assert after["found"] == {
        "PLAIN": "value one",
        "EXAMPLE_SECRET": None,
        "CHANGED": ["UnicodeDecodeError"],
        "USED": ["InvalidToken"],
    }
    assert after["status"] == 200
    assert "noted by us" in after["page"]

    # And back again: what it sets meanwhile is the newest here.
    again = predecessor(python, file, key, [("CHANGED", "alice", "set by it again", ""), ("USED", "alice", "anew", "")])
    assert (again["found"]["CHANGED"], again["found"]["USED"]) == ("set by it again", "anew")
    newer = generate_key()
    async with store(file, key, newer) as ours:
        assert await ours.get_secret("CHANGED") == "set by it again"
        assert await ours.get_secret("USED") == "anew"
        assert [v.version for v in await ours.history("CHANGED")] == [4, 3, 2, 1]
        assert await ours.rotate() == Rotation(rewritten=8, unchanged=0)
    async with store(file, newer) as ours:
        assert await ours.problems() == []
        assert {name: await ours.get_secret(name) for name in ("PLAIN", "CHANGED", "USED")} == {
            "PLAIN": "value one",
            "CHANGED": "set by it again",
            "USED": "anew",
        }
