"""Two sites with the pages of secrets, alike to the tests: any app, and the installed Datasette."""

from __future__ import annotations

import html
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from asgi_token_auth import TokenStore, from_config, secret_store_of
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.record import Secret
from asgi_token_auth.secrets.store import SecretStore
from tests.support.asgi import App
from tests.support.page_sites import by_header, signed_in
from tests.support.sites import IS_1_0, SECRET, cookie, demo_files, full_block, make, registered, serving

PATH = "/-/secrets"
TABLE = "datasette_secrets"
#: Made for these tests, and used for nothing else.
KEY = "dGVzdHMgb25seSB0ZXN0cyBvbmx5IHRlc3RzIG9ubHk="

MANAGERS = ["ann", "bob"]

#: Everybody may create tokens, and some manage secrets.
PERMISSIONS: dict[str, Any] = {
    "auth-tokens-create": {"id": "*"},
    "manage-secrets": {"id": MANAGERS},
}

ASKED = [
    Secret("OPENAI_KEY", "For the robot", "https://example.com/keys", "Get a key"),
    Secret("FROM_ENVIRONMENT", "Set where the server is started"),
]


@dataclass
class Site:
    """A running site, and its secrets as another process would open them."""

    client: httpx.AsyncClient
    store: SecretStore
    tokens: TokenStore
    file: Path
    #: Headers of a request by an actor who came without a token.
    as_: Callable[[Mapping[str, Any]], dict[str, str]]

    def user(self, actor_id: str) -> dict[str, str]:
        return self.as_({"id": actor_id})

    def rows(self) -> list[Any]:
        """All that is stored, but for what use writes."""
        with closing(sqlite3.connect(self.file)) as connection:
            columns = "id, name, version, note, encrypted, created_by, updated_at, updated_by, deleted_at, deleted_by"
            return connection.execute(f"select {columns} from {TABLE}").fetchall()

    def run_sql(self, sql: str, *parameters: object) -> list[Any]:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()


@asynccontextmanager
async def running(kind: str, folder: Path, **more: Any) -> AsyncIterator[Site]:
    """One of ``page_sites.KINDS``. ``more`` goes into the configuration block."""
    files = demo_files(folder)
    kept = folder / "secrets.db"
    with closing(sqlite3.connect(kept)) as connection:
        connection.execute("pragma journal_mode = wal").fetchall()
        connection.execute("create table notes (id integer primary key)")
    secrets = {"encryption_key": KEY, "database": "secrets"}
    if kind == "any app":
        block = {"manage_tokens": True, "manage_tokens_database": "tokens", "secrets": secrets, **more}
        app: Any = from_config(
            App(),
            {**block, "permissions": PERMISSIONS},
            databases={"tokens": files[1], "secrets": kept},
            secret=SECRET,
            signed_in=signed_in,
        )
        secret_store_of(app).register(*ASKED)
        as_ = by_header
    else:
        if IS_1_0:
            block = full_block(secrets=secrets, **more)
            datasette = make([*files, kept], block, config={"permissions": PERMISSIONS})
        else:
            datasette = make([*files, kept], full_block(secrets=secrets, permissions=PERMISSIONS, **more))
        app = datasette.app()

        def as_(actor: Mapping[str, Any]) -> dict[str, str]:
            return cookie(datasette, actor)

    with registered(register_secrets=lambda datasette: ASKED):
        async with (
            serving(app) as client,
            SecretStore(SQLite(kept, journal_mode=None), encryption_key=KEY, secrets=ASKED) as store,
            TokenStore(SQLite(files[1], journal_mode=None), secret=SECRET) as tokens,
        ):
            yield Site(client, store, tokens, kept, as_)


async def get(site: Site, path: str = "", actor_id: str = "ann") -> Any:
    return await site.client.get(PATH + path, headers=site.user(actor_id))


async def post(site: Site, path: str, fields: Any, actor_id: str = "ann", **headers: str) -> Any:
    return await site.client.post(PATH + path, headers={**site.user(actor_id), **headers}, data=fields)


async def send(site: Site, path: str, body: Any, actor_id: str = "ann") -> Any:
    return await site.client.post(PATH + path, headers=site.user(actor_id), json=body)


def error_of(answer: Any) -> str:
    """The sentence in the page."""
    found = re.search(r'class="[^"]*message-error[^"]*"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    found = found or re.search(r"<h1>[^<]*</h1>\s*<p>(.*?)</p>", answer.text, re.DOTALL)
    assert found, answer.text[-1_000:]
    sentence = html.unescape(re.sub(r"<[^>]*>", "", found[1])).strip()
    assert sentence.endswith("."), sentence
    return sentence


def assert_error(answer: Any, status: int) -> None:
    body = answer.json()
    assert answer.status_code == status, body
    assert (body["ok"], body["status"]) == (False, status)
    assert isinstance(body["errors"], list)
    assert all(isinstance(sentence, str) and sentence.endswith(".") for sentence in body["errors"])
    assert answer.headers["content-type"] == "application/json"
