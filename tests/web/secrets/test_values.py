"""What is stored is what was given, to the last line end, and the page says how much of it arrived."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from asgi_token_auth.secrets.record import shape_of
from tests.support.page_sites import KINDS
from tests.support.secret_sites import Site, get, post, running, send

pytestmark = pytest.mark.anyio

PEM = "\n".join(
    ["-----BEGIN TEST KEY-----", "MIIEvQIBADANBgkqhkiG", "BKcwggSjAgEAAoIBAQC7", "-----END TEST KEY-----", ""]
)

VALUES = {
    "a key of several lines": PEM,
    "blanks around it": " \tsk-1 ",
    "a line end behind": "sk-1\n",
    "empty lines": "\n\na\n\n\nb\n\n",
    "one carriage return": "a\rb",
    "blanks at the ends of lines": "a \n b\n",
    "what HTML would fold": "<b>&amp;</b>\n  two  blanks\t\u00a0\u200b\ufeff",
    "two ways to write a letter": "e\u0301 \u00e9 \ufb01",
    "a NUL": "a\0b",
}


async def shown(site: Site, actor_id: str = "ann") -> str:
    """What the list says was stored."""
    page = (await get(site, "", actor_id)).text
    found = re.search(r'<p class="ata-stored" role="status">(.*?)</p>', page)
    return html.unescape(re.sub(r"<[^>]*>", "", found[1])) if found else ""


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_stored_is_what_was_given(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for name, value in VALUES.items():
            # A browser sends every line end of a form as CR LF; other clients do as they like.
            for sent in (re.sub(r"\n", "\r\n", value), value):
                assert (await post(site, "/OPENAI_KEY", {"secret": sent, "note": ""})).status_code == 302, name
                assert await site.store.get_secret("OPENAI_KEY") == value, name
                assert str(shape_of(value)) in await shown(site)
            for sent in (value, value.replace("\n", "\r\n")):
                assert (await send(site, "/OPENAI_KEY.json", {"value": sent})).status_code == 200
                assert await site.store.get_secret("OPENAI_KEY") == sent, name


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "1 character in 1 line."),
        ("x" * 1_234, "1,234 characters in 1 line."),
        (PEM, "90 characters in 4 lines. It ends with a line end."),
        (PEM.replace("\n", "\r\n"), "94 characters in 4 lines. It ends with a line end."),
        ("a\rb", "3 characters in 2 lines."),
        (" a\t", "3 characters in 1 line. It begins with a space and ends with a tab."),
        ("\na\u00a0", "3 characters in 2 lines. It begins with a line end and ends with a blank."),
    ],
)
def test_the_shape_of_a_value_in_words(value: str, words: str) -> None:
    assert str(shape_of(value)) == words


@pytest.mark.parametrize("kind", KINDS)
async def test_only_who_stored_it_is_told_and_only_at_first(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        assert await shown(site) == ""
        await post(site, "/OPENAI_KEY", {"secret": "abc", "note": ""})
        assert await shown(site) == "OPENAI_KEY is stored: 3 characters in 1 line."
        assert await shown(site, "bob") == ""
        # To be told is not a use, and no list of a script says it.
        await site.store.flush()
        details = (await get(site, "/OPENAI_KEY.json")).json()["details"]
        assert details["last_used_at"] is None
        assert "character" not in (await get(site, ".json")).text
        site.run_sql(f"update {site.store.table} set created_at = datetime(created_at, '-61 seconds')")
        assert await shown(site) == ""
        await post(site, "/OPENAI_KEY", {"secret": "", "note": "only the note"})
        assert await shown(site) == ""
        site.run_sql(f"update {site.store.table} set encrypted = 'garbage'")
        assert await shown(site) == ""
        await post(site, "/OPENAI_KEY", {"delete": "1"})
        assert await shown(site) == ""


@pytest.mark.parametrize("kind", KINDS)
async def test_notes_are_kept_as_they_are(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        for note in (" a  b ", "e\u0301", "\u00a0x"):
            await post(site, "/OPENAI_KEY", {"secret": "x", "note": note})
            assert (await site.store.get("OPENAI_KEY")).note == note
            await send(site, "/OPENAI_KEY.json", {"note": note + "!"})
            assert (await site.store.get("OPENAI_KEY")).note == note + "!"
        for nothing in ("", "  "):
            await post(site, "/OPENAI_KEY", {"secret": "x", "note": nothing})
            assert (await site.store.get("OPENAI_KEY")).note is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_note_alone_tells_nobody_about_the_value_and_blanks_are_no_value(tmp_path: Path, kind: str) -> None:
    async with running(kind, tmp_path) as site:
        await post(site, "/OPENAI_KEY", {"secret": "a value", "note": ""})
        await post(site, "/OPENAI_KEY", {"secret": "", "note": "by bob"}, "bob")
        assert await shown(site, "bob") == ""
        assert "7 characters" in await shown(site)
        refused = await post(site, "/OPENAI_KEY", {"secret": "   ", "note": "changed"})
        assert refused.status_code == 400
        assert "leave the field empty" in refused.text
        assert (await site.store.get("OPENAI_KEY")).note == "by bob"
