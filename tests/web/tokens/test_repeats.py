"""A form or a request that comes a second time does nothing more, and says what it did."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import Restrictions
from asgi_token_auth.storage.idempotency import KEPT
from asgi_token_auth.web.idempotency import FORM_LIFE
from tests.support.page_sites import DAY, KINDS, PATH, Site, error_of, get, post, running
from tests.support.sites import IS_1_0, TABLE, bearer

pytestmark = pytest.mark.anyio

#: The page of each form, where it is sent, and what a person would send besides what is hidden.
FORMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "create": ("/create", "/create", {**DAY, "description": "mine"}),
    "edit": ("/1/edit", "/1/edit", {"description": "changed", "expire_type": "keep", "limit": "all"}),
    "rotate": ("/1", "/1", {"rotate": "1", "grace": "604800"}),
    "revoke": ("/1", "/1", {"revoke": "1"}),
    "revoke_all": ("", "", {"revoke_all": "1"}),
}

#: The same for scripts.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("/create.json", {"description": "mine"}),
    "edit": ("/1/edit.json", {"description": "changed"}),
    "rotate": ("/1.json", {"rotate": True, "grace": 604_800}),
    "revoke": ("/1.json", {"revoke": True}),
    "revoke_all": (".json", {"revoke_all": True}),
}


async def hidden(site: Site, name: str, actor_id: str = "ann") -> dict[str, str]:
    """What the form has in it that nobody sees."""
    page = await get(site, FORMS[name][0], actor_id)
    for form in re.findall(r'<form[^>]*method="post".*?</form>', page.text, re.DOTALL):
        if f'data-ata-once="{name}' in form:
            return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
    raise AssertionError(page.text)


async def send(site: Site, path: str, body: Any, key: Any = None, actor_id: str = "ann") -> Any:
    headers = {**site.user(actor_id), **({} if key is None else {"idempotency-key": key})}
    return await site.client.post(PATH + path, headers=headers, json=body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
async def test_a_form_that_is_sent_again_does_nothing_more(tmp_path: Path, kind: str, name: str) -> None:
    _, path, fields = FORMS[name]
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        sent = {**fields, **await hidden(site, name)}
        assert re.fullmatch(r"[0-9a-f]{32}-[0-9a-f]{8,9}-[0-9a-f]{16}", sent["form_key"])
        first = await post(site, path, sent)
        done = site.rows()
        later = await site.store.issue("ann") if name == "revoke_all" else None
        for _ in range(2):
            again = await post(site, path, sent)
            if name in ("create", "rotate"):
                assert (first.status_code, again.status_code) == (200, 200)
                text = re.search(r"dsatok_[^\"<]+", first.text)
                assert text is not None
                assert text[0] not in again.text
                assert "This form was already used" in again.text
                assert "rotate the token to get a new one" in again.text
                assert f'href="{PATH}/{2 if name == "create" else 1}"' in again.text
            else:
                assert again.status_code == first.status_code == 302
                assert again.headers["location"] == first.headers["location"]
        if later is None:
            assert site.rows() == done
        else:
            assert (await site.store.get(later.record.id, owner="ann")).status == "active"
        if name == "rotate":
            assert (await site.store.get(1, owner="ann")).previous_until is not None
        # The page that is loaded anew has a form that works again.
        assert (await hidden(site, "create"))["form_key"] != sent["form_key"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
async def test_forms_that_come_at_once_do_one_thing(tmp_path: Path, kind: str, name: str) -> None:
    _, path, fields = FORMS[name]
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        sent = {**fields, **await hidden(site, name)}
        answers = await asyncio.gather(*[post(site, path, sent) for _ in range(5)])
        assert {answer.status_code for answer in answers} == {200 if name in ("create", "rotate") else 302}
        assert sum("dsatok_" in answer.text for answer in answers) == (name in ("create", "rotate"))
        events = await site.store.events(2 if name == "create" else 1, owner="ann")
        assert len(events) == (1 if name == "create" else 2)
        assert len((await site.store.list(owner="ann")).items) == (2 if name == "create" else 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_forms_without_a_key_work_as_ever(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for count in (1, 2):
            assert "dsatok_" in (await post(site, "/create", DAY)).text
            assert len((await site.store.list(owner="ann")).items) == count
        for _ in range(2):
            assert "dsatok_" in (await post(site, "/1", {"rotate": "1", "grace": "60"})).text
        assert len(await site.store.events(1, owner="ann")) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_form_is_that_of_who_loaded_it_and_for_one_thing(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for owner in ("ann", "ann", "both"):
            await site.store.issue(owner)
        before = site.rows()
        for name, (_, path, fields) in FORMS.items():
            keys = await hidden(site, name)
            sent = {**fields, **keys}
            answers: list[Any] = []
            # Others may not even open the form of an edit.
            assert (await post(site, path, sent, "both")).status_code == (403 if name == "edit" else 409)
            if path.startswith("/1"):
                answers.append(await post(site, path.replace("1", "2"), sent))
            for other, (_, other_path, other_fields) in FORMS.items():
                if other != name:
                    answers.append(await post(site, other_path, {**other_fields, "form_key": keys["form_key"]}))
            for broken in ("", "x", keys["form_key"][:-1], keys["form_key"].upper() + "é", "0" * 32, "-" * 300):
                answers.append(await post(site, path, {**sent, "form_key": broken}))
            for answer in answers:
                assert answer.status_code == 409, (name, answer.text)
                assert "Load its page again" in error_of(answer)
            assert site.rows() == before
            twice = "&".join(f"{key}={value}" for key, value in [*sent.items(), ("form_key", keys["form_key"])])
            headers = {**site.user("ann"), "content-type": "application/x-www-form-urlencoded"}
            assert (await site.client.post(PATH + path, headers=headers, content=twice)).status_code == 400
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_used_form_with_other_words_in_it_is_shown_again_before_it_does_more(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        keys = await hidden(site, "create")
        await post(site, "/create", {**DAY, **keys, "description": "one"})
        before = site.rows()
        shown = await post(site, "/create", {**DAY, **keys, "description": "another"})
        assert shown.status_code == 409
        assert "already used, and made token 1" in error_of(shown)
        assert 'value="another"' in shown.text
        assert site.rows() == before
        key = re.search(r'name="form_key" value="([^"]+)"', shown.text)
        assert key is not None
        assert "dsatok_" in (await post(site, "/create", {**DAY, "form_key": key[1], "description": "another"})).text

        keys = await hidden(site, "rotate")
        await post(site, "/1", {"rotate": "1", "grace": "604800", **keys})
        before = site.rows()
        other = await post(site, "/1", {"rotate": "1", "grace": "0", **keys})
        assert other.status_code == 409
        assert "was not done" in other.text
        assert "dsatok_" not in other.text
        assert site.rows() == before

        keys = await hidden(site, "edit")
        edit = {"expire_type": "keep", "limit": "all"}
        assert (await post(site, "/1/edit", {**edit, **keys, "description": "first"})).status_code == 302
        before = site.rows()
        conflict = await post(site, "/1/edit", {**edit, **keys, "description": "second"})
        assert conflict.status_code == 409
        assert 'value="second"' in conflict.text
        assert "<bdi>first</bdi>" in conflict.text
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMS)
async def test_a_form_that_comes_back_when_its_key_is_forgotten_does_nothing_more(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FORM_LIFE < KEPT
    _, path, fields = FORMS[name]
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        sent = {**fields, **await hidden(site, name)}
        await post(site, path, sent)
        if name != "revoke":
            await site.store.issue("ann")
        before = site.rows()
        monkeypatch.setattr("asgi_token_auth.storage.idempotency.KEPT", -10)
        monkeypatch.setattr("asgi_token_auth.web.idempotency.FORM_LIFE", -1)
        answer = await post(site, path, sent)
        assert answer.status_code == (302 if name == "revoke" else 409)
        assert ("loaded more than a day ago" in answer.text) == (name in ("create", "rotate", "revoke_all"))
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_form_to_rotate_that_stood_open_beside_a_rotation_ends_nothing(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        old = await hidden(site, "rotate")
        await post(site, "/1", {"rotate": "1", "grace": "604800", **await hidden(site, "rotate")})
        before = site.rows()
        answer = await post(site, "/1", {"rotate": "1", "grace": "0", **old})
        assert answer.status_code == 409
        assert "changed meanwhile" in error_of(answer)
        assert site.rows() == before
        assert "dsatok_" in (await post(site, "/1", {"rotate": "1", "grace": "0", **await hidden(site, "rotate")})).text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_with_a_key_that_is_sent_again_says_what_it_did(tmp_path: Path, kind: str, name: str) -> None:
    path, body = REQUESTS[name]
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        first = await send(site, path, body, "a key")
        assert first.status_code == (201 if name == "create" else 200)
        assert "repeated" not in first.json()
        done = site.rows()
        # With its quotes it is the same key.
        for key in ("a key", '"a key"'):
            again = await send(site, path, body, key)
            assert again.status_code == 200
            told = again.json()
            assert (told["ok"], told["repeated"]) == (True, True)
            assert "token" not in told
            assert told["done"]["at"].endswith("Z")
            if name == "revoke_all":
                assert (told["done"]["event"], told["revoked"]) == ("revoked_all", 1)
                continue
            token_id = 2 if name == "create" else 1
            event = {"create": "created", "edit": "edited", "rotate": "rotated", "revoke": "revoked"}[name]
            assert (told["done"]["event"], told["done"]["token_id"]) == (event, token_id)
            assert told["details"]["id"] == token_id
            assert told["details"] == first.json()["details"]
            assert ("rotate the token" in told.get("message", "")) == (name in ("create", "rotate"))
            assert "dsatok_" not in again.text
        other = await send(site, path, {**body, "version": "x"} if "revoke" in body else {**body, "x": 1}, "a key")
        assert other.status_code in (400, 422)
        assert site.rows() == done


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_with_another_body_or_for_something_else_is_422(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await send(site, "/create.json", {"description": "one", "expires_after": 60}, "k")
        before = site.rows()
        for path, body in [
            ("/create.json", {"description": "two", "expires_after": 60}),
            ("/create.json", {"description": "one"}),
            # Looked at before anything else of it.
            ("/create.json", {"description": 7}),
            ("/1/edit.json", {"description": "one", "expires_after": 60}),
            ("/1.json", {"rotate": True}),
            ("/1.json", {"revoke": True}),
            (".json", {"revoke_all": True}),
        ]:
            answer = await send(site, path, body, "k")
            assert answer.status_code == 422, (path, body, answer.text)
            assert "Send a new key with each new request." in answer.json()["error"]
        assert site.rows() == before
        # The order of names makes no other body, and another actor's key is another one.
        same = await send(site, "/create.json", {"expires_after": 60, "description": "one"}, "k")
        assert same.json()["repeated"] is True
        assert (await send(site, "/create.json", {"description": "two"}, "k", "bob")).status_code == 201


@pytest.mark.parametrize("kind", KINDS)
async def test_what_cannot_be_a_key_is_400(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann")
        before = site.rows()
        for key in ("", '""', '"', '"a', 'a"b"\t', '"a\\b"', "x" * 256, '"' + "x" * 256 + '"', b"\xc3\xa9", b"\xff"):
            for path, body in REQUESTS.values():
                answer = await send(site, path, body, key)
                assert answer.status_code == 400, (key, answer.text)
                assert "Idempotency-Key must be printable ASCII" in answer.json()["error"]
        headers = [*site.user("ann").items(), ("idempotency-key", "a"), ("idempotency-key", "b")]
        answer = await site.client.post(PATH + ".json", headers=headers, json={"revoke_all": True})
        assert (answer.status_code, answer.json()["error"][:24]) == (400, "Idempotency-Key was sent")
        assert site.rows() == before
        assert (await send(site, "/1.json", {"revoke": True}, '"' + "x" * 255 + '"')).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_a_script_that_sends_forms_may_send_the_header(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        assert "dsatok_" in (await post(site, "/create", DAY, **{"idempotency-key": "k"})).text
        assert "already used" in (await post(site, "/create", DAY, **{"idempotency-key": "k"})).text
        assert len((await site.store.list(owner="ann")).items) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_rotate_and_revoke_take_the_version_that_was_read(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        record = (await site.store.issue("ann")).record
        rotated = await send(site, "/1.json", {"rotate": True, "grace": 60, "version": record.version})
        assert rotated.status_code == 200
        before = site.rows()
        for body in ({"rotate": True}, {"revoke": True}):
            answer = await send(site, "/1.json", {**body, "version": record.version})
            assert answer.status_code == 409
            assert "changed meanwhile" in answer.json()["error"]
            for wrong in (None, 7, ["x"]):
                assert (await send(site, "/1.json", {**body, "version": wrong})).status_code == 400
        assert (await post(site, "/1", {"revoke": "1", "version": record.version})).status_code == 409
        assert site.rows() == before
        version = rotated.json()["details"]["version"]
        assert (await send(site, "/1.json", {"revoke": True, "version": version})).status_code == 200


# Datasette 0.65 takes no restricted token.
@pytest.mark.parametrize("kind", KINDS if IS_1_0 else KINDS[:1])
async def test_a_key_is_that_of_the_token_that_it_was_sent_with(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens=True) as site:
        limits = Restrictions().allow_all("auth-tokens-create").allow_all(site.action)
        parents = [await site.store.issue("ann", restrictions=limits) for _ in range(2)]
        body = {"restrictions": {"a": [site.action]}}
        for parent, status in [(parents[0], 201), (parents[0], 200), (parents[1], 422)]:
            headers = {**bearer(parent.token), "idempotency-key": "k"}
            answer = await site.client.post(PATH + "/create.json", headers=headers, json=body)
            assert answer.status_code == status, answer.text


# Datasette 0.65 takes no restricted token.
@pytest.mark.parametrize("kind", KINDS if IS_1_0 else KINDS[:1])
async def test_a_token_learns_no_number_of_another_by_its_key(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens=True) as site:
        limits = Restrictions().allow_all("auth-tokens-create").allow_all(site.action)
        parents = [await site.store.issue("ann", restrictions=limits, expires_after=1_000) for _ in range(2)]
        wanted = {"expires_after": 60, "restrictions": {"a": [site.action]}}
        headers = {**bearer(parents[0].token), "idempotency-key": "k"}
        made = await site.client.post(PATH + "/create.json", headers=headers, json=wanted)
        assert made.status_code == 201, made.text
        # What it made, by a number that stands nowhere else.
        site.run_sql(f"update {TABLE}_requests set subject = 987654321")
        child = await site.store.issue(
            "ann", restrictions=Restrictions(), expires_after=60, parent=parents[1].record.id
        )
        before = site.rows()
        headers = {**bearer(parents[1].token), "idempotency-key": "k"}
        for path, body in {
            "/create.json": wanted,
            f"/{child.record.id}.json": {"revoke": True},
            ".json": {"revoke_all": True},
        }.items():
            answer = await site.client.post(PATH + path, headers=headers, json=body)
            assert answer.status_code == 422, answer.text
            assert "used for another request before, so nothing was done" in answer.json()["error"]
            assert "987654321" not in answer.text
        for path, fields in {
            "/create": {**DAY, "limit": "some"},
            f"/{child.record.id}": {"revoke": "1"},
            f"/{child.record.id}/edit": {"description": "x", "expire_type": "keep", "limit": "all"},
            "": {"revoke_all": "1"},
        }.items():
            answer = await site.client.post(PATH + path, headers=headers, data=fields)
            assert answer.status_code == 409, answer.text
            assert "987654321" not in answer.text
        assert site.rows() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_repeat_tells_no_more_than_its_sender_may_see(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await site.store.issue("ann", description="nobody's business")
        for repeated in (None, True):
            answer = await send(site, "/1.json", {"revoke": True}, "r", "revoker")
            assert (answer.status_code, answer.json().get("repeated")) == (200, repeated)
            assert "business" not in answer.text
        # A token that is gone from the table.
        await send(site, "/create.json", {}, "gone")
        site.run_sql(f"delete from {TABLE} where id = 2")
        answer = await send(site, "/create.json", {}, "gone")
        assert (answer.json()["done"]["token_id"], "details" in answer.json()) == (2, False)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_address_of_a_form_has_its_key_so_that_back_finds_the_form_that_was_used(
    tmp_path: Path, kind: str
) -> None:
    async with running(kind, tmp_path) as site:

        async def load(path: str, actor_id: str = "ann", accept: str = "text/html,*/*;q=0.8") -> Any:
            return await site.client.get(PATH + path, headers={**site.user(actor_id), "accept": accept})

        def key_in(page: Any) -> str:
            found = re.search(r'name="form_key" value="([^"]+)" data-ata-once="create"', page.text)
            assert found is not None
            return found[1]

        sent_on = await load("/create?lang=de")
        assert sent_on.status_code == 302
        assert "no-store" in sent_on.headers["cache-control"]
        address = sent_on.headers["location"].removeprefix(PATH)
        assert re.fullmatch(r"/create\?lang=de&form_key=[0-9a-f-]+", address)
        assert (await load("/create")).headers["location"] != (await load("/create")).headers["location"]
        page = await load(address)
        assert page.status_code == 200
        assert "no-store" in page.headers["cache-control"]
        key = key_in(page)
        assert address.endswith(key)
        # A form with a fault in it is not used yet.
        wrong = await post(site, "/create", {"form_key": key, "expire_type": "weeks"})
        assert (wrong.status_code, key_in(wrong)) == (400, key)
        assert (await post(site, "/create", {**DAY, "form_key": key})).status_code == 200
        before = site.rows()
        assert key_in(await load(address)) == key
        assert "This form was already used" in (await post(site, "/create", {**DAY, "form_key": key})).text
        # Another content is shown with a new key, and so is what is too old.
        shown = await post(site, "/create", {**DAY, "form_key": key, "description": "x"})
        assert (shown.status_code, key_in(shown) != key) == (409, True)
        assert site.rows() == before
        # Neither somebody else's address nor a broken one is used.
        for path, actor_id in [(address, "bob"), ("/create?form_key=", "ann"), (address + "0", "ann")]:
            other = await load(path, actor_id)
            assert other.status_code == 302
            assert key not in other.headers["location"]
        # Who may not create is told so, and whoever is no browser is sent nowhere.
        assert (await load("/create", "eve")).status_code == 403
        assert (await load("/create", accept="*/*")).status_code == 200
        assert key_in(await load(address + "0", accept="*/*")) != key


@pytest.mark.parametrize("kind", KINDS if IS_1_0 else KINDS[:1])
async def test_a_token_in_an_address_is_not_repeated_in_another_one(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path, tokens_may_manage_tokens=True, param="_auth_token") as site:
        limits = Restrictions().allow_all("auth-tokens-create")
        token = (await site.store.issue("ann", restrictions=limits)).token
        page = await site.client.get(f"{PATH}/create?_auth_token={token}", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert 'name="form_key"' in page.text
