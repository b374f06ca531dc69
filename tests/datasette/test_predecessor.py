"""The real datasette-auth-tokens and we, on one table: it writes, we verify, it reads again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth.datasette import token_store
from tests.support.predecessors import interpreter, ran
from tests.support.sites import SECRET, demo_files, full_block, issue, make, needs_1_0, serving, who, wrapped

pytestmark = [pytest.mark.anyio, needs_1_0]

#: Runs in the predecessor's interpreter: makes or reads tokens as its users would.
PROGRAM = """
import asyncio, json, sqlite3, sys, time
from datasette.app import Datasette
from datasette.tokens import TokenRestrictions
assert "datasette_auth_tokens" in str(__import__("datasette.plugins").plugins.pm.get_plugins())
path, secret, task, given = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])

def make():
    datasette = Datasette([path], secret=secret, config={
        "permissions": {"auth-tokens-create": True, "auth-tokens-view-all": {"id": "root"}},
        "plugins": {"datasette-auth-tokens": {"manage_tokens": True, "manage_tokens_database": "tokens"}},
    })
    return datasette

async def write(datasette):
    made = {}
    async def create(name, actor_id, **more):
        made[name] = await datasette.create_token(actor_id, **more)
    await create("plain", "alice")
    await create("expiring", "bob", expires_after=3600)
    await create("expired", "bob", expires_after=3600)
    await create("restricted", "carol", restrictions=TokenRestrictions()
        .allow_all("view-instance").allow_resource("tokens", "notes", "view-table"))
    await create("revoked", "dora")
    page = await datasette.client.post("/-/api/tokens/create", actor={"id": "by-form"},
        data={"description": "made by the form", "expire_type": "hours", "expire_duration": "2"})
    made["form"] = "dsatok_" + page.text.split('value="dsatok_')[1].split('"')[0]
    await datasette.client.post("/-/api/tokens/5", actor={"id": "dora"}, data={"revoke": "1"})
    connection = sqlite3.connect(path)
    connection.execute("update _datasette_auth_tokens set created_timestamp = created_timestamp - 7200 where id = 3")
    connection.commit()
    return made

async def read(datasette):
    found = {}
    for name, token in given.items():
        answer = await datasette.client.get("/-/actor.json", headers={"authorization": "Bearer " + token})
        found[name] = answer.json()["actor"]
    page = await datasette.client.get("/-/api/tokens", actor={"id": "root"})
    rows = sqlite3.connect(path).execute("select id, token_status from _datasette_auth_tokens order by id").fetchall()
    return {"actors": found, "status": page.status_code, "page": page.text, "rows": rows}

async def main():
    datasette = make()
    await datasette.invoke_startup()
    print("RESULT" + json.dumps(await {"write": write, "read": read}[task](datasette)))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def python() -> str:
    return interpreter()


def predecessor(python: str, file: Path, task: str, given: dict[str, str] | None = None) -> Any:
    return ran(python, PROGRAM, str(file), SECRET, task, json.dumps(given or {}), folder=file.parent)


async def test_tokens_of_the_real_predecessor_work_here_and_its_table_stays_readable_by_it(
    python: str, tmp_path: Path
) -> None:
    files = demo_files(tmp_path)
    made = predecessor(python, files[1], "write")
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        assert await who(client, made["plain"]) == {"id": "alice", "token": "dsatok", "token_id": 1}
        assert (await who(client, made["expiring"]))["id"] == "bob"
        assert (await who(client, made["form"]))["id"] == "by-form"
        restricted = await who(client, made["restricted"])
        assert (restricted["id"], restricted["_r"]) == ("carol", {"a": ["vi"], "r": {"tokens": {"notes": ["vt"]}}})
        headers = {"authorization": "Bearer " + made["restricted"]}
        assert (await client.get("/tokens/notes.json", headers=headers)).status_code == 200
        assert (await client.get("/demo/foo.json", headers=headers)).status_code == 403
        assert await who(client, made["revoked"]) == 401
        assert await who(client, made["expired"]) == 401

        record = await token_store(datasette).get(6, owner="by-form")
        assert record.description == "made by the form"
        assert record.expires_at == (record.created_at or 0) + 7_200

        ours = await issue(datasette, "eve", description="made by us")
        await token_store(datasette).revoke(1, owner="alice")
        assert await who(client, made["plain"]) == 401

    after = predecessor(python, files[1], "read", made)
    assert after["actors"] == {
        "plain": None,
        "expiring": {"id": "bob", "token": "dsatok", "token_id": 2},
        "expired": None,
        "restricted": restricted,
        "revoked": None,
        "form": {"id": "by-form", "token": "dsatok", "token_id": 6},
    }
    assert after["status"] == 200
    assert "made by us" in after["page"]
    assert ours.record.id == 7
    assert dict(after["rows"]) == {1: "R", 2: "A", 3: "E", 4: "A", 5: "R", 6: "A", 7: "A"}

    # And back again: what it wrote meanwhile hurts nothing here.
    again = make(files, full_block(), section="datasette-auth-tokens")
    async with serving(again.app()) as client:
        assert (await who(client, ours.token))["id"] == "eve"
        assert (await who(client, made["expiring"]))["id"] == "bob"
        assert await who(client, made["plain"]) == 401
