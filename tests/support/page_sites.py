"""Two sites with the pages of managed tokens, alike to the tests: any app, and the installed Datasette."""

from __future__ import annotations

import html
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from asgi_token_auth import TokenStore, from_config
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.asgi import App
from tests.support.sites import IS_1_0, SECRET, TABLE, cookie, demo_files, full_block, make, serving

PATH = "/-/api/tokens"

#: Who may do what, on both sites.
PERMISSIONS: dict[str, Any] = {
    "auth-tokens-create": {"id": ["ann", "bob", "viewer", "revoker", "both"]},
    "auth-tokens-view-all": {"id": ["viewer", "both"]},
    "auth-tokens-revoke-all": {"id": ["revoker", "both"]},
}
SCOPES = {"items:read": "Read items", "items:write": ""}

KINDS = ["any app", "Datasette"]

#: The fields of a form for a token that lives for a day.
DAY = {"expire_type": "days", "expire_duration": "1"}

#: Fields of a form, and the one that is wrong.
BAD_EXPIRIES: dict[str, tuple[dict[str, str], str]] = {
    "missing": ({}, "expire_type"),
    "unit missing": ({"expire_duration": "5"}, "expire_type"),
    "unit weeks": ({"expire_type": "weeks", "expire_duration": "5"}, "expire_type"),
    "unit with a blank": ({"expire_type": "days ", "expire_duration": "5"}, "expire_type"),
    "unit keep on a new token": ({"expire_type": "keep", "expire_duration": "5"}, "expire_type"),
    "number missing": ({"expire_type": "days"}, "expire_duration"),
    **{
        repr(text): ({"expire_type": "days", "expire_duration": text}, "expire_duration")
        for text in [
            "",
            " ",
            "abc",
            "-5",
            "0",
            "000",
            "+5",
            "1.5",
            "1e3",
            "²",
            "٣",
            "\uff15",
            "1_0",
            "0x5",
            "5 5",
            "9" * 6_000,
        ]
    },
    "10^20": ({"expire_type": "days", "expire_duration": str(10**20)}, "expire_duration"),
    "above a hundred years": ({"expire_type": "days", "expire_duration": "36601"}, "expire_duration"),
}


@dataclass
class Site:
    """A running site, and its store as another process would open it."""

    client: httpx.AsyncClient
    store: TokenStore
    file: Path
    #: Headers of a request by an actor who came without a token.
    as_: Callable[[Mapping[str, Any]], dict[str, str]]
    #: An action that tokens can be restricted to here.
    action: str

    def user(self, actor_id: str) -> dict[str, str]:
        return self.as_({"id": actor_id})

    def rows(self) -> list[Any]:
        """All that is stored, but for what use writes."""
        with closing(sqlite3.connect(self.file)) as connection:
            columns = "id, token_status, description, actor_id, permissions, ended_timestamp, expires_after_seconds"
            return [
                connection.execute(f"select {columns}, token_digest, previous_digest from {TABLE}").fetchall(),
                connection.execute(f"select * from {TABLE}_events").fetchall(),
            ]

    def run_sql(self, sql: str, *parameters: object) -> list[Any]:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()


async def signed_in(scope: Any) -> Any:
    """The app's own way to say who is asking, as a header; only a test may do so."""
    return next((json.loads(value) for name, value in scope["headers"] if name == b"x-user"), None)


def by_header(actor: Mapping[str, Any]) -> dict[str, str]:
    return {"x-user": json.dumps(actor)}


@asynccontextmanager
async def running(kind: str, folder: Path, **more: Any) -> AsyncIterator[Site]:
    """One of :data:`KINDS`. ``more`` goes into the configuration block."""
    files = demo_files(folder)
    if kind == "any app":
        block = {"manage_tokens": True, "permissions": PERMISSIONS, "scopes": SCOPES, **more}
        app: Any = from_config(App(), block, databases={"tokens": files[1]}, secret=SECRET, signed_in=signed_in)
        as_ = by_header
    else:
        if IS_1_0:
            datasette = make(files, full_block(**more), config={"permissions": PERMISSIONS})
        else:
            datasette = make(files, full_block(permissions=PERMISSIONS, **more))
        app = datasette.app()

        def as_(actor: Mapping[str, Any]) -> dict[str, str]:
            return cookie(datasette, actor)

    action = "items:read" if kind == "any app" else "view-table"
    async with serving(app) as client, TokenStore(SQLite(files[1], journal_mode=None), secret=SECRET) as store:
        yield Site(client, store, files[1], as_, action)


async def post(site: Site, path: str, fields: Any, actor_id: str = "ann", **headers: str) -> Any:
    return await site.client.post(PATH + path, headers={**site.user(actor_id), **headers}, data=fields)


async def get(site: Site, path: str = "", actor_id: str = "ann") -> Any:
    return await site.client.get(PATH + path, headers=site.user(actor_id))


def error_of(answer: Any) -> str:
    """The sentence in the page."""
    found = re.search(r'class="[^"]*message-error[^"]*"[^>]*>(.*?)</', answer.text, re.DOTALL)
    found = found or re.search(r"<h1>[^<]*</h1>\s*<p>(.*?)</p>", answer.text, re.DOTALL)
    assert found, answer.text[-1_000:]
    sentence = html.unescape(found[1]).strip()
    assert sentence.endswith(".")
    return sentence
