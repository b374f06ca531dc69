"""No text of a token, nor its nonce, is anywhere but in the one answer that shows it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tests.support.page_sites import KINDS, PATH, Site, running
from tests.support.sites import bearer

pytestmark = pytest.mark.anyio

FORM = {"description": "x", "expire_type": "days", "expire_duration": "1"}
TEXT = re.compile(r"dsatok_[A-Za-z0-9_.-]{20,}")
TOKENS = 1_000


class Answers:
    """Everything that came back, headers and all."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.shown: list[str] = []
        self.others: list[bytes] = []

    async def __call__(self, method: str, path: str, *, shows: bool = False, **more: object) -> None:
        headers = {**self.site.user("both"), **more.pop("headers", {})}  # type: ignore[dict-item]
        answer = await self.site.client.request(method, PATH + path, headers=headers, **more)  # type: ignore[arg-type]
        around = repr([*answer.headers.multi_items(), str(answer.url)]).encode()
        if not shows:
            self.others.append(answer.content + around)
            return
        found = TEXT.findall(answer.text)
        assert len(found) == 1, answer.text[:300]
        self.shown += found
        self.others.append(answer.content.replace(found[0].encode(), b"") + around)


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_thousand_tokens_no_text_is_anywhere(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(kind, tmp_path) as site:
        ask = Answers(site)
        for number in range(TOKENS):
            if number % 2:
                await ask("POST", "/create", shows=True, data=FORM)
            else:
                await ask("POST", "/create.json", shows=True, json={})
        for number in range(1, 21):
            await ask("POST", f"/{number}.json", shows=True, json={"rotate": True, "grace": 60})
            await ask("POST", f"/{number + 20}", shows=True, data={"rotate": "1", "grace": "0"})
        first = ask.shown[0]
        for path in (
            "",
            ".json?size=1000",
            "/create",
            "/create.json",
            "/current.json",
            "/1",
            "/1.json",
            "/1/edit",
            "/99999",
        ):
            await ask("GET", path)
            await ask("HEAD", path)
            # A token where it does not belong is not repeated.
            await ask("GET", f"{path.partition('?')[0]}?search={first}&next=5&x={first}&status={first}")
            await ask("PUT", path)
            if path != "/create":
                await ask("GET", path, headers=bearer(first))
        for path in ("/1/edit", "/2/edit.json", "/1", "/2.json", "", ".json", "/create", "/create.json"):
            await ask("POST", path, data={"nonsense": "1"})
            await ask("POST", path, json={"nonsense": 1})
            await ask("POST", path, content=b"\xff", headers={"content-type": "application/json"})
        await ask("POST", "/1/edit", data={"description": "y", "expire_type": "keep"})
        await ask("POST", "/2/edit.json", json={"restrictions": {}})
        await ask("POST", "/3", data={"revoke": "1"})
        await ask("POST", "/4.json", json={"revoke": True})
        await ask("GET", "/current.json", headers=bearer(ask.shown[2]))
        await ask("POST", ".json", json={"revoke_all": True})

        assert len(set(ask.shown)) == TOKENS + 40
        secrets: list[bytes] = []
        for text in ask.shown:
            read = site.store.text.read(text)
            assert read is not None
            secrets += [text.encode(), read[1].encode()]
        places = {
            **{file.name: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()},
            "logs": "\n".join(record.getMessage() + repr(record.args) for record in caplog.records).encode(),
            "answers": b"\n".join(part for part in ask.others if first.encode() not in part),
        }
        assert {"tokens.db", "logs", "answers"} <= places.keys()
        for name, content in places.items():
            if name == "logs":
                # The client of this test logs the addresses that it asked for, with the text that was put there.
                content = content.replace(first.encode(), b"")
                secrets_here = [secret for secret in secrets if secret not in first.encode()]
            else:
                secrets_here = secrets
            assert [secret for secret in secrets_here if secret in content] == [], name
        # What was put into an address comes back as what was searched for, and nowhere else.
        echoed = [part for part in ask.others if first.encode() in part]
        assert all(part.count(b"search=" + first.encode()) for part in echoed)
