"""A form or a request that comes a second time does nothing more to a secret."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_sites import KINDS
from tests.support.secret_sites import PATH, Site, error_of, get, post, running

pytestmark = pytest.mark.anyio

#: What a person would send besides what is hidden, and the action that the form's key is for.
FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "set": ("set", {"secret": "a new value", "note": "new"}),
    "set the note": ("set", {"secret": "", "note": "only the note"}),
    "delete": ("delete", {"delete": "1"}),
}
REQUESTS: dict[str, dict[str, Any]] = {
    "set": {"value": "a new value", "note": "new"},
    "set the note": {"note": "only the note"},
    "delete": {"delete": True},
}


async def key_of(site: Site, action: str, name: str = "OPENAI_KEY", actor_id: str = "ann") -> dict[str, str]:
    page = await get(site, f"/{name}", actor_id)
    found = re.search(rf'name="form_key" value="([^"]+)" data-ata-once="{action} {name}"', page.text)
    assert found is not None, page.text
    return {"form_key": found[1]}


async def send(site: Site, body: Any, key: Any, path: str = "/OPENAI_KEY.json") -> Any:
    headers = {**site.user("ann"), "idempotency-key": key}
    return await site.client.post(PATH + path, headers=headers, json=body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
async def test_a_form_that_is_sent_again_does_nothing_more(tmp_path: Path, kind: str, name: str) -> None:
    action, fields = FORMS[name]
    async with running(kind, tmp_path) as site:
        await site.store.set("OPENAI_KEY", "first", note="old")
        sent = {**fields, **await key_of(site, action)}
        first = await post(site, "/OPENAI_KEY", sent)
        # Somebody else's later value stays what it is.
        await site.store.set("OPENAI_KEY", "a later one", note="later")
        done = site.rows()
        again = await post(site, "/OPENAI_KEY", sent)
        assert (first.status_code, again.status_code) == (302, 302)
        assert first.headers["location"] == again.headers["location"]
        assert site.rows() == done


@pytest.mark.parametrize("kind", KINDS)
async def test_forms_that_come_at_once_make_one_version(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        sent = {**FORMS["set"][1], **await key_of(site, "set")}
        answers = await asyncio.gather(*[post(site, "/OPENAI_KEY", sent) for _ in range(5)])
        assert {answer.status_code for answer in answers} == {302}
        assert len(site.rows()) == 1
        # Without a key it is as it ever was.
        for count in (2, 3):
            await post(site, "/OPENAI_KEY", FORMS["set"][1])
            assert len(site.rows()) == count


@pytest.mark.parametrize("kind", KINDS)
async def test_a_form_is_that_of_who_loaded_it_and_for_one_secret(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.set("OPENAI_KEY", "first")
        await site.store.set("OTHER", "first")
        before = site.rows()
        for name, (action, fields) in FORMS.items():
            key = await key_of(site, action)
            other = "delete" if action == "set" else "set"
            answers = [
                await post(site, "/OPENAI_KEY", {**fields, **key}, "bob"),
                await post(site, "/OTHER", {**fields, **key}),
                await post(site, "/OPENAI_KEY", {**FORMS[other][1], **key}),
                await post(site, "/OPENAI_KEY", {**fields, "form_key": "x"}),
            ]
            for answer in answers:
                assert answer.status_code == 409, (name, answer.text)
                assert "Load its page again" in error_of(answer)
            assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_used_form_with_another_value_in_it_stores_nothing_before_it_is_sent_again(
    tmp_path: Path, kind: str
) -> None:
    async with running(kind, tmp_path) as site:
        key = await key_of(site, "set")
        await post(site, "/OPENAI_KEY", {"secret": "one", "note": "n", **key})
        before = site.rows()
        answer = await post(site, "/OPENAI_KEY", {"secret": "another-value", "note": "m", **key})
        assert answer.status_code == 409
        assert "This form was used before" in answer.text
        assert "The value has to be typed again." in answer.text
        assert "another-value" not in answer.text
        assert 'value="m"' in answer.text
        assert site.rows() == before
        fresh = re.search(r'name="form_key" value="([^"]+)" data-ata-once="set ', answer.text)
        assert fresh is not None
        assert fresh[1] != key["form_key"]
        sent = {"secret": "another-value", "note": "m", "form_key": fresh[1]}
        assert (await post(site, "/OPENAI_KEY", sent)).status_code == 302
        assert await site.store.get_secret("OPENAI_KEY") == "another-value"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
async def test_a_form_that_comes_back_when_its_key_is_forgotten_does_nothing_more(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    action, fields = FORMS[name]
    async with running(kind, tmp_path) as site:
        await site.store.set("OPENAI_KEY", "first")
        sent = {**fields, **await key_of(site, action)}
        await post(site, "/OPENAI_KEY", sent)
        await site.store.set("OPENAI_KEY", "later")
        before = site.rows()
        monkeypatch.setattr("asgi_token_auth.storage.idempotency.KEPT", -10)
        monkeypatch.setattr("asgi_token_auth.web.idempotency.FORM_LIFE", -1)
        answer = await post(site, "/OPENAI_KEY", sent)
        assert answer.status_code == 409
        assert "loaded more than a day ago" in answer.text
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_with_a_key_that_is_sent_again_says_what_it_did(tmp_path: Path, kind: str, name: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.set("OPENAI_KEY", "first", note="old")
        first = await send(site, REQUESTS[name], "k")
        assert (first.status_code, "repeated" in first.json()) == (200, False)
        done = site.rows()
        again = await send(site, REQUESTS[name], "k")
        told = again.json()
        assert (again.status_code, told["ok"], told["repeated"]) == (200, True, True)
        what = {"set": ("set", 2), "set the note": ("noted", 1), "delete": ("deleted", None)}[name]
        assert (told["done"]["event"], told["done"]["version"]) == what
        assert told["details"] == first.json()["details"]
        for body in ({"value": "another"}, {"note": "another"}, {"value": 7}, {"delete": True}):
            if body != REQUESTS[name]:
                other = await send(site, body, "k")
                assert other.status_code == 422, (body, other.text)
        assert (await send(site, REQUESTS[name], "k", "/OTHER.json")).status_code == 422
        assert site.rows() == done
        assert (await send(site, REQUESTS["set"], "é".encode())).status_code == 400
        kept = repr(site.run_sql("select * from datasette_secrets_requests"))
        assert "new value" not in kept
