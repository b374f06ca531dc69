"""Restrictions hold: enforced by Datasette 1.0, refused where Datasette 0.65 would ignore them."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer

from asgi_token_auth import Restrictions
from tests.support.sites import (
    BOT,
    SECRET,
    TABLE,
    bearer,
    demo_files,
    full_block,
    issue,
    make,
    needs_0_65,
    needs_1_0,
    only,
    signed,
    who,
    wrapped,
)

pytestmark = pytest.mark.anyio

PATHS = (
    "/.json",
    "/demo.json",
    "/demo/foo.json",
    "/tokens/notes.json",
    "/demo/-/query.json?sql=select+1",
    "/-/versions.json",
)

#: What each set of restrictions lets through, path by path.
ENFORCED: list[tuple[Any, tuple[int, ...]]] = [
    ({}, (403, 403, 403, 403, 403, 403)),
    ({"a": []}, (403, 403, 403, 403, 403, 403)),
    ({"a": ["*"]}, (403, 403, 403, 403, 403, 403)),
    ({"a": ["vi"]}, (200, 403, 403, 403, 403, 200)),
    ({"a": ["view-instance"]}, (200, 403, 403, 403, 403, 200)),
    ({"a": ["vt"]}, (403, 403, 200, 200, 403, 403)),
    ({"d": {"demo": ["vt"]}}, (403, 403, 200, 403, 403, 403)),
    ({"r": {"demo": {"foo": ["vt"]}}}, (403, 403, 200, 403, 403, 403)),
    ({"r": {"demo": {"FOO": ["vt"]}}}, (403, 403, 200, 403, 403, 403)),
    ({"a": ["vi"], "d": {"demo": ["vd"]}, "r": {"demo": {"foo": ["vt"]}}}, (200, 200, 200, 403, 403, 200)),
    ({"d": {"demo": ["es"]}}, (403, 403, 403, 403, 403, 403)),
    ({"d": {"demo": ["es", "vd"]}}, (403, 200, 403, 403, 200, 403)),
]

MALFORMED: list[Any] = [None, [], "vt", 5, {"a": None}, {"d": []}, {"r": {"demo": ["vt"]}}, {"a": "vt"}, {"z": 1}, True]


def signed_with(restrictions: Any) -> str:
    payload = {"a": "ann", "t": int(time.time()), "_r": restrictions}
    return "dstok_" + URLSafeSerializer(SECRET, salt="token").dumps(payload)


@needs_1_0
@pytest.mark.parametrize(("restrictions", "statuses"), ENFORCED, ids=[json.dumps(row) for row, _ in ENFORCED])
async def test_1_0_enforces_the_restrictions_of_every_kind_of_token(
    restrictions: Any, statuses: tuple[int, ...], tmp_path: Path
) -> None:
    actor = {"id": "bot", "_r": restrictions}
    datasette = make(demo_files(tmp_path))
    async with wrapped(datasette, full_block(tokens=[{"token": BOT, "actor": actor}])) as client:
        managed = await issue(datasette, restrictions=Restrictions.from_wire(restrictions))
        for token in (managed.token, signed_with(restrictions), BOT):
            found = [(await client.get(path, headers=bearer(token))).status_code for path in PATHS]
            assert tuple(found) == statuses
            assert isinstance(await who(client, token), dict), "who asks about themselves is told"


@pytest.mark.parametrize("restrictions", MALFORMED, ids=json.dumps)
async def test_malformed_restrictions_are_no_token(restrictions: Any, tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        assert await who(client, signed_with(restrictions)) == 401
        if restrictions is not None:
            issued = await issue(datasette)
            assert (await who(client, issued.token))["id"] == "alice"
            with closing(sqlite3.connect(files[1])) as connection:
                connection.execute(f"update {TABLE} set permissions = ?", (json.dumps(restrictions),))
                connection.commit()
            assert await who(client, issued.token) == 401


@needs_1_0
async def test_1_0_writes_only_what_the_restrictions_name(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), config={"permissions": {"insert-row": True, "delete-row": True}})
    async with wrapped(datasette, full_block()) as client:
        limits = Restrictions().allow_resource("demo", "foo", "insert-row")
        token = (await issue(datasette, restrictions=limits)).token
        row = {"row": {"name": "by token"}}
        assert (await client.post("/demo/foo/-/insert", json=row, headers=bearer(token))).status_code == 201
        assert (await client.post("/tokens/notes/-/insert", json=row, headers=bearer(token))).status_code == 403
        assert (await client.post("/demo/foo/1/-/delete", json={}, headers=bearer(token))).status_code == 403


@needs_1_0
async def test_restrictions_never_grant_what_the_actor_may_not(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), config={"databases": {"demo": {"allow": {"id": "root"}}}})
    async with wrapped(datasette, full_block()) as client:
        limits = Restrictions().allow_all("view-table").allow_all("view-database").allow_all("insert-row")
        token = (await issue(datasette, "ann", restrictions=limits)).token
        assert (await client.get("/demo/foo.json", headers=bearer(token))).status_code == 403
        rows = {"row": {"name": "x"}}
        assert (await client.post("/tokens/notes/-/insert", json=rows, headers=bearer(token))).status_code == 403


@needs_0_65
async def test_0_65_refuses_restricted_tokens_with_a_sentence(tmp_path: Path) -> None:
    actor = {"id": "bot", "_r": {"a": ["vi"]}}
    datasette = make(demo_files(tmp_path))
    async with wrapped(datasette, full_block(tokens=[{"token": BOT, "actor": actor}])) as client:
        managed = await issue(datasette, restrictions=only())
        for token in (managed.token, signed(restrict_all=["view-instance"]), signed(restrict_all=[]), BOT):
            for path in ("/-/actor.json", "/demo/foo.json"):
                answer = await client.get(path, headers=bearer(token))
                assert answer.status_code == 403
                assert answer.json()["error"].startswith("This token is restricted, and Datasette 0.65 cannot limit")
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
            assert await who(client, params={"_auth_token": token}) == 403
            assert await who(datasette.client, token) == 403
        assert (await who(client, (await issue(datasette)).token))["id"] == "alice"
