"""Real servers with the pages of tokens and secrets on them, and the browser that looks at them.

    python -m tests.support.browser_sites bare|datasette FOLDER [--tables N] [--seed]

serves until it is ended, and prints one line of JSON: its address, and how to log in.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from asgi_token_auth import Restrictions, Secret, SecretStore, TokenStore, from_config, secret_store_of
from asgi_token_auth.databases.sqlite import SQLite
from tests.support import ROOT

SECRET = "a secret that is only used in tests"
PATH = "/-/api/tokens"
SECRETS = "/-/secrets"
#: Made for these tests, and used for nothing else. Other keys can stand in ``keys.json`` in the folder of a site.
KEY = "dGVzdHMgb25seSB0ZXN0cyBvbmx5IHRlc3RzIG9ubHk="
TABLE = "_datasette_auth_tokens"
NAMES = {"ada": "Ada Lovelace", "grace": "Grace Hopper", "linus": "Linus"}
ALLOW = {
    "auth-tokens-create": {"id": ["ada", "grace", "root"]},
    "auth-tokens-view-all": {"id": "root"},
    "auth-tokens-revoke-all": {"id": "root"},
    "manage-secrets": {"id": ["grace", "root"]},
}
SCOPES = {
    "reports:read": "Read reports",
    "reports:write": "Write reports",
    "orders:read": "Read orders",
    "orders:refund": "Refund orders",
}
ASKED = [
    Secret("WEATHER_KEY", "Forecasts on the start page", "https://weather.example/account/keys", "Get a key"),
    Secret("MAIL_PASSWORD", "Sends the monthly figures"),
    Secret("MAP_KEY", "Aerial pictures of the beds", "https://maps.example/", "Sign up"),
]
DAY = 86_400

# A server that runs as root needs the first; the others keep a test's browser from calling home.
CHROMIUM_ARGUMENTS = [
    *(["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []),
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The path of a Chromium: the one that was named, or the first that is installed."""
    named = os.environ.get("ASGI_TOKEN_AUTH_CHROMIUM")
    if named:
        return shutil.which(named)
    names = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class Site:
    """A server that is running."""

    address: str
    folder: Path
    kind: str
    #: What the cookie of each actor is; somebody logs in with :attr:`login` as well.
    cookies: Mapping[str, Mapping[str, str]]
    #: Logs in as root (Datasette, once) or shows a form (bare).
    login: str
    is_1_0: bool

    def url(self, path: str = "") -> str:
        return self.address + PATH + path

    @property
    def database(self) -> Path:
        return self.folder / "tokens.db"

    def secret_url(self, path: str = "") -> str:
        return self.address + SECRETS + path

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets.db"

    @contextmanager
    def broken(self) -> Iterator[None]:
        """As long as this lasts, no token and no secret can be looked up."""
        tables = [(self.database, TABLE), (self.secrets, "datasette_secrets")]
        for file, table in tables:
            _execute(file, f"alter table {table} rename to moved_away")
        try:
            yield
        finally:
            for file, table in tables:
                _execute(file, f"alter table moved_away rename to {table}")


def _execute(file: Path, sql: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(sql)


@contextmanager
def running(kind: str, folder: Path, *options: str) -> Iterator[Site]:
    """A server in a process of its own, on a free port of this machine only."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.browser_sites", kind, str(folder), *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "DATASETTE_SECRETS_MAIL_PASSWORD": "of the environment"},
        )
        stopper = threading.Timer(300, process.kill)
        stopper.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise RuntimeError(f"the server did not start:\n{log.read()}")
            yield Site(folder=folder, kind=kind, **json.loads(line))
        finally:
            stopper.cancel()
            process.terminate()
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()


class _Clock:
    """A clock that is set back to write what happened long ago."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


async def seed(database: Path, *, scopes: bool) -> None:
    """Tokens in every state, with made-up owners and purposes; ids 1 to 8."""
    clock = _Clock()
    present = clock.now
    store = TokenStore(SQLite(str(database)), secret=SECRET, clock=clock)
    if scopes:
        reader = Restrictions().allow_all("reports:read")
        one = Restrictions().allow_all("reports:write")
        many = reader.allow_all("reports:write").allow_all("orders:read").allow_all("orders:refund")
    else:
        reader = Restrictions().allow_all("view-instance").allow_database("plants", "view-database")
        one = Restrictions().allow_resource("plants", "measurements", "insert-row")
        many = reader
        for action in ("view-table", "insert-row", "update-row", "delete-row"):
            many = many.allow_resource("plants", "measurements", action).allow_resource("plants", "plants", action)
    async with store:

        async def issue(days_ago: float, owner: str, description: str | None, **more: Any) -> int:
            clock.now = present - days_ago * DAY
            issued = await store.issue(owner, by=owner, description=description, **more)
            return issued.record.id

        old = await issue(420, "ada", "Old laptop", expires_after=90 * DAY)
        backup = await issue(210, "ada", "Nightly backup")
        leaked = await issue(75, "ada", "Build server", expires_after=365 * DAY, restrictions=reader)
        roof = await issue(62, "ada", "Weather station on the roof", expires_after=365 * DAY, restrictions=one)
        await issue(33, "grace", "Monthly figures", expires_after=90 * DAY, restrictions=reader)
        sync = await issue(24, "ada", "Sync with the herbarium", expires_after=180 * DAY, restrictions=many)
        await issue(3, "linus", "Try-out", expires_after=7 * DAY)
        await issue(0.2, "ada", None, expires_after=90 * DAY, restrictions=reader)
        clock.now = present - 40 * DAY
        await store.revoke(leaked, owner="ada", by="ada")
        clock.now = present - 30 * DAY
        await store.edit(roof, owner="ada", by="ada", description="Weather station, greenhouse roof")
        clock.now = present - 2 * DAY
        await store.rotate(roof, owner="ada", by="ada", grace=7 * DAY)
    used = {old: 335 * DAY, backup: 9 * 3600, leaked: 41 * DAY, roof: 180, sync: 5 * DAY}
    with closing(sqlite3.connect(database)) as connection, connection:
        for token_id, ago in used.items():
            connection.execute(
                f"update {TABLE} set last_used_timestamp = ? where id = ?", (int(present - ago), token_id)
            )


async def seed_secrets(database: Path) -> None:
    """Secrets in every state, with made-up purposes."""
    clock = _Clock()
    present = clock.now
    async with SecretStore(SQLite(str(database)), encryption_key=KEY, secrets=ASKED, clock=clock) as store:
        for days_ago, name, note, by in [
            (130, "WEATHER_KEY", "Free plan", "ada"),
            (41, "WEATHER_KEY", "Paid plan, renews in March", "grace"),
            (12, "Herbarium / upload", "Asked for by the herbarium, room 12", "grace"),
        ]:
            clock.now = present - days_ago * DAY
            await store.set(name, "made up", note=note, by=by)
        clock.now = present - 240
        await store.get_secret("WEATHER_KEY", "linus")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["bare", "datasette"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", type=int, default=0)
    parser.add_argument("--seed", action="store_true", help="with tokens in every state")
    arguments = parser.parse_args()
    keys = arguments.folder / "keys.json"
    block: dict[str, Any] = {
        "manage_tokens": True,
        "manage_tokens_database": "tokens",
        "secrets": {"encryption_key": json.loads(keys.read_text()) if keys.exists() else KEY, "database": "secrets"},
    }
    if arguments.seed:
        asyncio.run(seed(arguments.folder / "tokens.db", scopes=arguments.kind == "bare"))
        asyncio.run(seed_secrets(arguments.folder / "secrets.db"))
    make = _bare if arguments.kind == "bare" else _datasette
    app, about = make(arguments, block)
    asyncio.run(_serve(app, about))


async def _serve(app: Any, about: Callable[[], dict[str, Any]]) -> None:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="info"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        known = about()
        print(json.dumps({"address": address, **known, "login": address + known["login"]}), flush=True)
    await serving


def _bare(arguments: Any, block: dict[str, Any]) -> tuple[Any, Callable[[], dict[str, Any]]]:
    """An app that knows nothing of tokens: a login with a signed cookie, and a page that says who is asking."""
    from itsdangerous import URLSafeSerializer
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
    from starlette.routing import Route

    cookies = URLSafeSerializer(SECRET, salt="login")

    async def signed_in(scope: Any) -> dict[str, Any] | None:
        cookie = HTTPConnection(scope).cookies.get("login")
        actor_id = cookies.loads_unsafe(cookie)[1] if cookie and cookies.loads_unsafe(cookie)[0] else None
        return None if actor_id is None else {"id": actor_id, "name": NAMES.get(actor_id, actor_id)}

    async def login(request: Request) -> Response:
        if request.method == "POST":
            name = (await request.body()).decode().removeprefix("name=")
            answer = RedirectResponse(PATH, 303)
            answer.set_cookie("login", str(cookies.dumps(name)), httponly=True, samesite="lax")
            return answer
        return HTMLResponse(
            '<!DOCTYPE html><html lang="en"><title>Log in</title><main><h1>Log in</h1><form method="post">'
            '<label>Name <input name="name"></label> <button>Log in</button></form></main>'
        )

    async def whoami(request: Request) -> Response:
        return JSONResponse({"actor": request.scope.get("actor")})

    async def use(request: Request) -> Response:
        return JSONResponse(_told_of(await store.get_secret(request.query_params["name"], "linus")))

    app = Starlette(
        routes=[
            Route("/login", login, methods=["GET", "POST"]),
            Route("/-/actor.json", whoami),
            Route("/-/use.json", use),
        ]
    )
    block.update(permissions=ALLOW, scopes=SCOPES)
    databases = {name: str(arguments.folder / f"{name}.db") for name in ("tokens", "secrets")}
    wrapped = from_config(app, block, databases=databases, secret=SECRET, signed_in=signed_in)
    store = secret_store_of(wrapped)
    store.register(*ASKED)
    jar = {name: {"name": "login", "value": str(cookies.dumps(name))} for name in (*NAMES, "root")}
    return wrapped, lambda: {"login": "/login", "cookies": jar, "is_1_0": False}


def _told_of(value: str | None) -> dict[str, str | None]:
    """What may be known of a value that an app uses."""
    return {"digest": None if value is None else hashlib.sha256(value.encode()).hexdigest()}


def _datasette(arguments: Any, block: dict[str, Any]) -> tuple[Any, Callable[[], dict[str, Any]]]:
    from datasette import hookimpl
    from datasette.app import Datasette
    from datasette.plugins import pm
    from datasette.utils.asgi import Response

    from asgi_token_auth.datasette import get_secret, wrap_datasette
    from asgi_token_auth.datasette.version import IS_1_0

    def actors_from_ids(actor_ids: list[str]) -> dict[str, dict[str, str]]:
        return {actor_id: {"id": actor_id, "name": NAMES.get(actor_id, actor_id)} for actor_id in actor_ids}

    def register_secrets() -> list[Secret]:
        return ASKED

    async def use(datasette: Any, request: Any) -> Any:
        return Response.json(_told_of(await get_secret(datasette, request.args["name"], "linus")))

    def register_routes() -> list[Any]:
        return [(r"^/-/use\.json$", use)]

    plugin = ModuleType("plugin_of_the_site")
    if IS_1_0:
        plugin.__dict__["actors_from_ids"] = hookimpl(actors_from_ids)
    plugin.__dict__["register_secrets"] = hookimpl(register_secrets)
    plugin.__dict__["register_routes"] = hookimpl(register_routes)
    pm.register(plugin)
    plants, tokens, secrets = (arguments.folder / f"{name}.db" for name in ("plants", "tokens", "secrets"))
    with closing(sqlite3.connect(plants)) as connection, connection:
        connection.execute("create table if not exists plants (id integer primary key, name text, family text)")
        connection.execute("create table if not exists measurements (id integer primary key, at text, value real)")
        for number in range(arguments.tables):
            connection.execute(f"create table if not exists survey_{2000 + number} (id integer primary key)")
    for file in (tokens, secrets):
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("pragma journal_mode = wal").fetchall()
            connection.execute("create table if not exists notes (id integer primary key)")
    config: dict[str, Any] = {"databases": {name: {"allow": {"id": "root"}} for name in ("tokens", "secrets")}}
    if IS_1_0:
        config["permissions"] = ALLOW
    else:
        block["permissions"] = ALLOW
    config["plugins"] = {"asgi-token-auth": block}
    place = "config" if IS_1_0 else "metadata"
    datasette = Datasette([str(plants), str(tokens), str(secrets)], secret=SECRET, **{place: config})
    app = wrap_datasette(datasette)

    def about() -> dict[str, Any]:
        datasette.root_enabled = True
        jar = {
            name: {"name": "ds_actor", "value": datasette.sign({"a": {"id": name, "name": called}}, "actor")}
            for name, called in {**NAMES, "root": "root"}.items()
        }
        return {"login": f"/-/auth-token?token={datasette._root_token}", "cookies": jar, "is_1_0": IS_1_0}

    return app, about


if __name__ == "__main__":
    main()
