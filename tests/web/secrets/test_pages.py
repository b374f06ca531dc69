"""The pages of secrets: what they answer, what they keep, and never a value."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path

import pytest

from tests.support.page_sites import KINDS
from tests.support.secret_sites import PATH, assert_error, error_of, get, post, running, send

pytestmark = pytest.mark.anyio

RECORD = {
    "name",
    "description",
    "obtain_url",
    "obtain_label",
    "registered",
    "source",
    "note",
    "version",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "last_used_at",
    "last_used_by",
}

VERSION = {
    "version",
    "note",
    "created_at",
    "created_by",
    "updated_at",
    "updated_by",
    "deleted_at",
    "deleted_by",
    "last_used_at",
    "last_used_by",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_life_of_a_secret_in_pages(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        listed = (await get(site)).text
        for words in ("OPENAI_KEY", "For the robot", "Not set", "FROM_ENVIRONMENT", "From the environment"):
            assert words in listed
        assert '<a href="https://example.com/keys" rel="noreferrer"><bdi>Get a key</bdi></a>' in listed
        assert f'href="{PATH}/OPENAI_KEY"' in listed
        page = (await get(site, "/OPENAI_KEY")).text
        field = re.search(r"<textarea[^>]*name=\"secret\"[^>]*></textarea>", page)
        assert field is not None
        assert 'autocomplete="off"' in field[0]
        assert 'type="password"' not in page
        done = await post(site, "/OPENAI_KEY", {"secret": "sk-first", "note": " for tests "})
        assert (done.status_code, done.headers["location"]) == (302, PATH)
        assert await site.store.get_secret("OPENAI_KEY", "robot") == "sk-first"
        assert (await site.store.get("OPENAI_KEY")).note == " for tests "
        await site.store.flush()
        changed = await post(site, "/OPENAI_KEY", {"secret": "sk-second", "note": "for tests"}, "bob")
        assert changed.status_code == 302
        assert await site.store.get_secret("OPENAI_KEY", "robot") == "sk-second"
        await site.store.flush()
        page = (await get(site, "/OPENAI_KEY")).text
        for words in ("Set", "Version 2 by <bdi>bob<", "Version 1 by <bdi>ann<", 'value="for tests"', "by <bdi>robot<"):
            assert words in page
        await post(site, "/OPENAI_KEY", {"secret": "", "note": "only the note"})
        record = await site.store.get("OPENAI_KEY")
        assert (record.version, record.note, record.updated_by) == (2, "only the note", "ann")
        listed = (await get(site)).text
        assert "only the note" in listed
        await post(site, "/OPENAI_KEY", {"secret": "", "note": ""})
        assert (await site.store.get("OPENAI_KEY")).note is None
        for text in (page, listed):
            assert "sk-" not in text
        ended = await post(site, "/OPENAI_KEY", {"delete": "1"})
        assert (ended.status_code, ended.headers["location"]) == (302, PATH)
        assert await site.store.get_secret("OPENAI_KEY") is None
        page = (await get(site, "/OPENAI_KEY")).text
        assert "Not set" in page
        assert "deleted by ann" in html.unescape(re.sub(r"<[^>]*>", "", page))
        assert 'name="delete"' not in page


@pytest.mark.parametrize("kind", KINDS)
async def test_the_life_of_a_secret_in_json(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        listed = (await get(site, ".json")).json()
        assert listed.keys() == {"ok", "secrets"}
        assert all(one.keys() == RECORD for one in listed["secrets"])
        assert {one["name"]: one["source"] for one in listed["secrets"]}.items() >= {
            ("OPENAI_KEY", None),
            ("FROM_ENVIRONMENT", "environment"),
        }
        made = (await send(site, "/OPENAI_KEY.json", {"value": " spaces stay ", "note": " n "})).json()
        assert made.keys() == {"ok", "details"}
        assert made["details"].keys() == RECORD
        assert {key: made["details"][key] for key in ("source", "version", "note", "updated_by")} == {
            "source": "stored",
            "version": 1,
            "note": " n ",
            "updated_by": "ann",
        }
        assert made["details"]["updated_at"].endswith("Z")
        assert await site.store.get_secret("OPENAI_KEY") == " spaces stay "
        again = (await send(site, "/OPENAI_KEY.json", {"value": "two\nlines"}, "bob")).json()["details"]
        assert (again["version"], again["note"], again["updated_by"]) == (2, " n ", "bob")
        assert await site.store.get_secret("OPENAI_KEY") == "two\nlines"
        noted = (await send(site, "/OPENAI_KEY.json", {"note": None})).json()["details"]
        assert (noted["version"], noted["note"]) == (2, None)
        shown = (await get(site, "/OPENAI_KEY.json")).json()
        assert shown.keys() == {"ok", "details", "versions"}
        assert [one.keys() for one in shown["versions"]] == [VERSION] * 2
        assert [one["version"] for one in shown["versions"]] == [2, 1]
        ended = (await send(site, "/OPENAI_KEY.json", {"delete": True})).json()["details"]
        assert (ended["source"], ended["version"]) == (None, None)
        assert_error(await send(site, "/OPENAI_KEY.json", {"delete": True}), 404)
        shown = (await get(site, "/OPENAI_KEY.json")).json()
        assert [one["deleted_by"] for one in shown["versions"]] == ["ann", "ann"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_form_keeps_the_note_and_never_the_value(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        answer = await post(site, "/OPENAI_KEY", {"secret": "sk-typed", "note": "<n>" + "n" * 100})
        assert answer.status_code == 400
        assert "at most 100 characters" in error_of(answer)
        assert "typed again" in error_of(answer)
        assert "&lt;n&gt;nnn" in answer.text
        assert "sk-typed" not in answer.text
        assert 'id="error-note"' in answer.text
        answer = await post(site, "/OPENAI_KEY", {"secret": "sk-typed", "note": "a\0b"})
        assert 'id="error-note"' in answer.text
        assert 'id="error-secret"' not in answer.text


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_from_the_environment_is_not_set_here(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        page = (await get(site, "/FROM_ENVIRONMENT")).text
        assert "DATASETTE_SECRETS_FROM_ENVIRONMENT" in page
        assert "cannot be set here" in page
        assert 'name="secret"' not in page
        before = site.rows()
        assert "cannot be set here" in error_of(await post(site, "/FROM_ENVIRONMENT", {"secret": "x"}))
        assert_error(await send(site, "/FROM_ENVIRONMENT.json", {"value": "x"}), 400)
        assert_error(await send(site, "/FROM_ENVIRONMENT.json", {"delete": True}), 404)
        assert site.rows() == before
        assert "of the environment" not in page
        # What was stored before the variable came can still be erased.
        await site.store.set("FROM_ENVIRONMENT", "stored")
        page = (await get(site, "/FROM_ENVIRONMENT")).text
        assert "what is stored here is not used" in page
        assert (await post(site, "/FROM_ENVIRONMENT", {"delete": "1"})).status_code == 302
        assert (await get(site, "/FROM_ENVIRONMENT.json")).json()["details"]["version"] is None


@pytest.mark.parametrize("kind", KINDS)
async def test_damaged_rows_are_shown_beside_the_others(tmp_path: Path, kind: str) -> None:
    changes = [
        "created_at = 'never', updated_at = '', last_used_at = 'x'",
        "created_at = null, updated_at = null",
        "created_by = null, updated_by = x'ff'",
        "note = cast(x'ff' as text)",
        "encrypted = null",
        "encrypted = 'garbage'",
        "encryption_key_name = 'another'",
    ]
    async with running(kind, tmp_path) as site:
        for number, change in enumerate(changes):
            await site.store.set(f"D{number}", "x", by="ann")
            site.run_sql(f"update {site.store.table} set {change} where name = 'D{number}'")
        await site.store.set("GOOD", "x", note="the good one")
        for path in ("", ".json"):
            assert (await get(site, path)).status_code == 200
        assert "the good one" in (await get(site)).text
        for number in range(len(changes)):
            for path in (f"/D{number}", f"/D{number}.json"):
                assert (await get(site, path)).status_code == 200, changes[number]
            assert (await post(site, f"/D{number}", {"secret": "y"})).status_code == 302, changes[number]
            assert await site.store.get_secret(f"D{number}") == "y"


@pytest.mark.parametrize("kind", KINDS)
async def test_two_people_who_set_at_once_make_two_versions(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        sent = [("ann", f"value {number}") for number in range(4)] + [("bob", f"value {number}") for number in range(4)]
        answers = await asyncio.gather(*(post(site, "/OPENAI_KEY", {"secret": value}, who) for who, value in sent))
        assert [answer.status_code for answer in answers] == [302] * 8
        versions = (await get(site, "/OPENAI_KEY.json")).json()["versions"]
        assert [one["version"] for one in versions] == list(range(8, 0, -1))
        assert sorted(one["created_by"] for one in versions) == ["ann"] * 4 + ["bob"] * 4


async def test_a_page_lists_the_newest_versions_and_the_json_all(tmp_path: Path) -> None:
    async with running("any app", tmp_path) as site:
        for number in range(53):
            await site.store.set("OFTEN", f"{number}")
        page = (await get(site, "/OFTEN")).text
        assert page.count('class="ata-event"') == 50
        assert "Version 53<" in page
        assert "And 3 earlier ones." in page
        assert len((await get(site, "/OFTEN.json")).json()["versions"]) == 53
