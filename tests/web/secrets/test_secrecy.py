"""A value that was set is anywhere but encrypted only where it is used: in what ``get_secret`` returns."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_sites import KINDS
from tests.support.secret_sites import KEY, PATH, Site, running
from tests.support.sites import bearer

pytestmark = pytest.mark.anyio

SECRETS = 1_000


class Answers:
    """Everything that came back, headers and all."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.all: list[bytes] = []

    async def __call__(self, method: str, path: str, *, expect: int | None = None, **more: Any) -> None:
        headers = {**self.site.user("ann"), **more.pop("headers", {})}
        answer = await self.site.client.request(method, PATH + path, headers=headers, **more)
        assert answer.status_code < 500, (method, path, answer.text[-500:])
        assert expect is None or answer.status_code == expect, (method, path, answer.text[-500:])
        self.all.append(answer.content + repr([*answer.headers.multi_items(), str(answer.url)]).encode())


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_thousand_secrets_no_value_is_anywhere(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    values: dict[str, str] = {}

    def value() -> str:
        made = f"sk-{len(values):04}-needle-{len(values) * 7_919:07}-\u00e9"
        values[made] = made
        return made

    async with running(kind, tmp_path) as site:
        ask = Answers(site)
        names = [f"SECRET {number}/x" for number in range(SECRETS)]
        for number, name in enumerate(names):
            path = f"/{name.replace(' ', '%20').replace('/', '%2F')}"
            if number % 2:
                await ask("POST", path, expect=302, data={"secret": value(), "note": f"note {number}"})
            else:
                await ask("POST", f"{path}.json", expect=200, json={"value": value()})
        first = next(iter(values))
        assert await site.store.get_secret(names[0]) == first
        await site.store.flush()
        one = "/SECRET%200%2Fx"
        for path in ("", ".json", one, f"{one}.json", "/OPENAI_KEY", "/NEW", "/NEW.json", "/" + "x" * 300):
            await ask("GET", path)
            await ask("HEAD", path)
            await ask("PUT", path)
            await ask("GET", path, headers=site.user("eve"))
            await ask("GET", path, headers={"origin": "https://x.net"})
        token = (await site.tokens.issue("ann")).token
        for path in (one, f"{one}.json"):
            # Refused for every reason that there is, with a value in what was sent.
            for sent in (
                {"data": {"secret": value(), "note": "n" * 101}},
                {"data": {"secret": value(), "nonsense": "1"}},
                {"data": {"secret": value(), "delete": "1"}},
                {"data": {value(): "1"}},
                {"json": {"value": value(), "note": "n" * 101}},
                {"json": {"value": value(), "nonsense": 1}},
                {"json": {"value": value(), "delete": True}},
                {"json": {"value": [value()]}},
                {"json": {value(): 1}},
                {"content": value().encode(), "headers": {"content-type": "application/json"}},
                {"content": value().encode() + b"\xff", "headers": {"content-type": "text/plain"}},
            ):
                await ask("POST", path, **sent)
            for headers in ({"origin": "https://x.net"}, {"sec-fetch-site": "cross-site"}, bearer(token)):
                await ask("POST", path, headers=headers, json={"value": value()})
            await ask("POST", path, headers=site.user("eve"), json={"value": value()})
        await ask("POST", "/" + "x" * 300, data={"secret": value()})
        await ask("POST", one, expect=302, data={"secret": value()})
        await ask("POST", one, expect=302, data={"secret": "", "note": "changed"})
        await ask("POST", "/SECRET%201%2Fx", expect=302, data={"delete": "1"})
        await ask("GET", "/SECRET%201%2Fx.json")
        # A value that was written over, one that was damaged and one under another key.
        site.run_sql(f"update {site.store.table} set encrypted = x'00' where name = 'SECRET 2/x'")
        await ask("GET", "/SECRET%202%2Fx")
        with pytest.raises(Exception, match="SECRET 2/x") as refused:
            await site.store.get_secret("SECRET 2/x")

        assert len(values) >= SECRETS + 30
        places = {
            **{file.name: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()},
            "logs": "\n".join(record.getMessage() + repr(record.args) for record in caplog.records).encode(),
            "answers": b"\n".join(ask.all),
            "errors and reprs": f"{refused.value!r} {site.store!r} {await site.store.list()!r}".encode(),
        }
        told = capfd.readouterr()
        places["console"] = (told.out + told.err).encode()
        if sys.platform == "linux":
            places["process list"] = b"".join(
                file.read_bytes() for name in ("cmdline", "environ") for file in [Path("/proc/self") / name]
            )
        assert {"secrets.db", "secrets.db-wal", "logs", "answers"} <= places.keys()
        for name, content in places.items():
            found = [needle for needle in values if needle.encode() in content]
            assert found == [], name
            assert b"needle" not in content, name
            assert KEY.encode() not in content, name
