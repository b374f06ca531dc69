"""Bodies have limits that fit what they are for: the largest that is permitted gets through, however it is spelled."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.tokens.as_json import record_json
from asgi_token_auth.tokens.record import MAX_DESCRIPTION, MAX_PERMISSIONS
from asgi_token_auth.web.tokens.forms import form_fields
from tests.support import secret_sites
from tests.support.page_sites import DAY, KINDS, PATH, running
from tests.support.sites import IS_1_0

pytestmark = pytest.mark.anyio

FORM = {"content-type": "application/x-www-form-urlencoded"}


def largest(action: str) -> Restrictions:
    """As many tables as restrictions may name, of short names, which make the longest form."""
    tables: dict[str, list[str]] = {}
    while len(json.dumps({"r": {"d": {**tables, f"é{len(tables)}": [action]}}})) <= MAX_PERMISSIONS:
        tables[f"é{len(tables)}"] = [action]
    return Restrictions.from_wire({"r": {"d": tables}})


@pytest.mark.parametrize("kind", KINDS if IS_1_0 else KINDS[:1])
async def test_the_largest_restrictions_get_through_as_json_and_as_a_form(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        restrictions, description = largest(site.action), "\U0001f600" * MAX_DESCRIPTION
        body = json.dumps({"restrictions": restrictions.to_wire(), "description": description}, indent=4)
        headers = {**site.user("ann"), "content-type": "application/json"}
        answer = await site.client.post(f"{PATH}/create.json", headers=headers, content=body)
        assert answer.status_code == 201, answer.text[:200]
        fields = {**DAY, **form_fields(restrictions), "description": description}
        answer = await site.client.post(f"{PATH}/create", headers={**site.user("ann"), **FORM}, data=fields)
        assert answer.status_code == 200, answer.text[:200]
        tokens = (await site.store.list(owner="ann")).items
        assert [token.restrictions for token in tokens] == [restrictions, restrictions]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_largest_secret_gets_through_as_json_and_as_a_form(tmp_path: Path, kind: str) -> None:
    # Six bytes of JSON for each, and three of a form.
    value = "\x01" * 65_536
    async with secret_sites.running(kind, tmp_path) as site:
        path, ann = f"{secret_sites.PATH}/LARGE", site.user("ann")
        answer = await site.client.post(f"{path}.json", headers=ann, json={"value": value, "note": "n" * 100})
        assert answer.status_code == 200, answer.text[:200]
        answer = await site.client.post(path, headers={**ann, **FORM}, content=urlencode({"secret": value, "note": ""}))
        assert answer.status_code == 302, answer.text[:200]
        assert [one.version for one in await site.store.history("LARGE")] == [2, 1]


async def test_a_long_form_is_taken_apart_while_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def noted(*arguments: Any, **more: Any) -> Any:
        threads.append(threading.get_ident())
        return parse_qsl(*arguments, **more)

    monkeypatch.setattr("asgi_token_auth.web.http.parse_qsl", noted)
    async with running(KINDS[0], tmp_path) as site:
        for description in ("short", "x" * 400_000):
            sent = {**DAY, "description": description}
            await site.client.post(f"{PATH}/create", headers={**site.user("ann"), **FORM}, data=sent)
    assert threads[0] == threading.get_ident() != threads[1]


async def test_a_list_is_written_as_json_piece_by_piece_while_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    largest_piece = 0
    dumps = json.dumps

    def noted(token: Any) -> Any:
        pieces.append(threading.get_ident())
        return record_json(token)

    def measured(*arguments: Any, **more: Any) -> str:
        nonlocal largest_piece
        text = dumps(*arguments, **more)
        largest_piece = max(largest_piece, len(text))
        return text

    async with running(KINDS[0], tmp_path) as site:
        for _ in range(20):
            await site.store.issue("ann", description="\U0001f600" * MAX_DESCRIPTION)
        monkeypatch.setattr("asgi_token_auth.web.tokens.pages.record_json", noted)
        monkeypatch.setattr("asgi_token_auth.web.http.json.dumps", measured)
        answer = await site.client.get(f"{PATH}.json?size=19", headers=site.user("ann"))
    told = answer.json()
    assert list(told) == ["ok", "tokens", "next", "next_url"]
    assert [token["id"] for token in told["tokens"]] == list(range(20, 1, -1))
    # The encoder lets nobody else run before it is done, in whatever thread.
    assert largest_piece < len(answer.text) / 10
    assert len(pieces) == 19
    assert threading.get_ident() not in pieces
