"""The names of actors, as Datasette's plugins tell them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_sites import PATH, running
from tests.support.sites import needs_1_0, registered

pytestmark = [pytest.mark.anyio, needs_1_0]


@pytest.mark.parametrize("answer", [{}, {"ann": None}, {"ann": {}}, {"ann": {"id": "ann"}}, {"other": {"id": "other"}}])
async def test_an_actor_without_a_name_is_shown_by_id(answer: Any, tmp_path: Path) -> None:
    with registered(actors_from_ids=lambda: answer):
        async with running("Datasette", tmp_path) as site:
            await site.store.issue("ann")
            page = await site.client.get(f"{PATH}/1", headers=site.user("viewer"))
            assert page.status_code == 200
            assert "<dd><bdi>ann</bdi></dd>" in page.text


@pytest.mark.parametrize("answer", [RuntimeError("ldap://user:password@host is down"), [], {"ann": "Ann"}, 5])
async def test_a_plugin_that_fails_keeps_nobody_from_revoking(
    answer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def actors_from_ids() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with registered(actors_from_ids=actors_from_ids), caplog.at_level(logging.WARNING, "asgi_token_auth"):
        async with running("Datasette", tmp_path) as site:
            await site.store.issue("ann")
            for path in ("", "/1", "/create", "/1/edit"):
                assert (await site.client.get(PATH + path, headers=site.user("ann"))).status_code == 200, path
            ended = await site.client.post(f"{PATH}/1", data={"revoke": "1"}, headers=site.user("ann"))
            assert ended.status_code == 302
            assert "Revoked" in (await site.client.get(f"{PATH}/1", headers=site.user("ann"))).text
    assert "actors_from_ids failed" in caplog.text
    assert "password" not in caplog.text
