"""What is different from datasette-auth-tokens, as "Coming from datasette-auth-tokens" of the README says."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import Restrictions
from tests.support.sites import (
    BOT,
    SENSOR,
    TABLE,
    bearer,
    cookie,
    demo_files,
    full_block,
    issue,
    make,
    needs_1_0,
    serving,
    who,
)

pytestmark = [pytest.mark.anyio, needs_1_0]

README = Path(__file__).resolve().parents[2] / "README.md"


def site(tmp_path: Path) -> Any:
    config = {"permissions": {"auth-tokens-create": {"id": "*"}}}
    return make(demo_files(tmp_path), full_block(), config=config, section="datasette-auth-tokens")


def test_the_section_names_them() -> None:
    section = README.read_text().split("## Coming from datasette-auth-tokens", 1)[1].split("\n## ", 1)[0]
    named = ["`unknown: pass`", "empty `Bearer`", "On POST", "`/db?sql=`", "`expire_type`", "404", "key `token`"]
    for words in (*named, "`_r`", "`E`", "Going back"):
        assert words in section, words


async def test_requests(tmp_path: Path) -> None:
    datasette = site(tmp_path)
    async with serving(datasette.app()) as client:
        url = "/-/actor.json"
        for headers in ({"authorization": "Bearer "}, {"authorization": "Bearer"}):
            assert (await client.get(url, headers=headers)).status_code == 400
        assert (await client.get(f"{url}?_auth_token=")).status_code == 400
        for method in ("POST", "PUT", "DELETE"):
            assert (await client.request(method, url, params={"_auth_token": BOT})).status_code == 400
        assert await who(client, SENSOR) == {"id": "sensor-1", "name": "Greenhouse", "token": "sql"}
        limited = await issue(datasette, restrictions=Restrictions().allow_all("view-table"))
        assert (await who(client, limited.token))["_r"] == {"a": ["view-table"]}


async def test_pages(tmp_path: Path) -> None:
    datasette = site(tmp_path)
    async with serving(datasette.app()) as client:
        headers = {**cookie(datasette, {"id": "alice"}), "origin": "http://localhost"}
        form = {"description": "made by a script"}
        assert (await client.post("/-/api/tokens/create", data=form, headers=headers)).status_code == 400
        made = await client.post("/-/api/tokens/create", data={**form, "expire_type": ""}, headers=headers)
        token = re.search(r"dsatok_[\w.~-]+", made.text)
        assert token is not None
        assert (await who(client, token[0]))["id"] == "alice"
        others = (await issue(datasette, "bob")).record.id
        assert (await client.get(f"/-/api/tokens/{others}", headers=headers)).status_code == 404


async def test_an_expired_row_keeps_its_status_and_is_expired(tmp_path: Path) -> None:
    datasette = site(tmp_path)
    async with serving(datasette.app()) as client:
        issued = await issue(datasette, "alice", expires_after=60)
        with closing(sqlite3.connect(tmp_path / "tokens.db")) as connection:
            connection.execute(f"update {TABLE} set created_timestamp = created_timestamp - 3600")
            connection.commit()
        listed = await client.get("/-/api/tokens.json", headers=cookie(datasette, {"id": "alice"}))
        assert [one["status"] for one in listed.json()["tokens"]] == ["expired"]
        assert (await client.get("/-/actor.json", headers=bearer(issued.token))).status_code == 401
        with closing(sqlite3.connect(tmp_path / "tokens.db")) as connection:
            assert connection.execute(f"select token_status from {TABLE}").fetchall() == [("A",)]
