"""A Datasette over a small database, with every kind of token in front of it, and encrypted secrets.

    python example_app.py [--port 8001] [--host 127.0.0.1]

It keeps its files in the folder example-data, which may be deleted at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import socket
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any

try:
    import uvicorn
    from datasette.app import Datasette

    from asgi_token_auth import SignedTokens
    from asgi_token_auth.datasette import token_store, wrap_datasette
    from asgi_token_auth.encryption import generate_key
except ImportError as error:
    sys.exit(f"{error}. Install what the example needs: python -m pip install -e '.[all]'")

FOLDER = Path(__file__).resolve().parent / "example-data"


def main() -> None:
    """Create the files, start the server, print what to try."""
    parser = argparse.ArgumentParser(description="Datasette with API tokens.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.host, arguments.port))


async def serve(host: str, port: int) -> None:
    """Serve until the process is told to stop."""
    prepare(FOLDER)
    secret = (FOLDER / "secret").read_text()
    bot_token = secrets.token_urlsafe(24)
    datasette = Datasette(
        [str(FOLDER / name) for name in ("plants.db", "sensors.db", "tokens.db", "secrets.db")],
        secret=secret,
        # Secrets and tokens are in databases of their own, which nobody but root may look at.
        metadata={"databases": {name: {"allow": {"id": "root"}} for name in ("sensors", "tokens", "secrets")}},
    )
    app = wrap_datasette(datasette, configuration(bot_token))

    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        sys.exit(f"Port {port} cannot be used ({error.strerror}): choose another with --port.")
    address = f"http://{host}:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        issued = await token_store(datasette).issue("alice", description="Printed by the example", expires_after=86_400)
        tokens = {
            "hard-coded": bot_token,
            "managed": issued.token,
            "custom SQL": "1-" + sensor_secret(FOLDER),
            "signed": SignedTokens(secret).create_token("carol", expires_after=86_400),
        }
        show(address, datasette, tokens)
    await serving


def configuration(bot_token: str) -> dict[str, Any]:
    """The block that would stand under ``plugins: asgi-token-auth`` in Datasette's configuration."""
    return {
        "tokens": [{"token": bot_token, "actor": {"id": "bot", "name": "The hard-coded bot"}}],
        "param": "_auth_token",
        "manage_tokens": True,
        "manage_tokens_database": "tokens",
        "query": {
            "sql": """
                select 'sensor-' || id as actor_id, name as actor_name, token_secret
                from sensors where id = :token_id
            """,
            "database": "sensors",
        },
        "secrets": {"encryption_key": {"$file": str(FOLDER / "encryption-key")}, "database": "secrets"},
    }


def show(address: str, datasette: Datasette, tokens: dict[str, str]) -> None:
    """Print the addresses, a login and a command for each kind of token."""
    datasette.root_enabled = True
    print(f"Datasette: {address}/")
    print(f"Tokens: {address}/-/api/tokens    Secrets: {address}/-/secrets    (when logged in)")
    print(f"Log in as root (works once): {address}/-/auth-token?token={datasette._root_token}")
    for kind, token in tokens.items():
        print(f"\nA {kind} token:")
        print(f"  curl -H 'Authorization: Bearer {token}' {address}/-/actor.json")
    print("\nThe same in the query string, for clients that cannot send headers:")
    print(f"  curl '{address}/-/actor.json?_auth_token={tokens['managed']}'")
    print("\nStop with Ctrl-C.", flush=True)


def prepare(folder: Path) -> None:
    """Create the databases, the secret and the encryption key, unless they are there."""
    folder.mkdir(exist_ok=True)
    for name, make in (("secret", partial(secrets.token_hex, 32)), ("encryption-key", generate_key)):
        file = folder / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(make())
    for name in ("tokens.db", "secrets.db"):
        with contextlib.closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("pragma journal_mode = wal")
    with contextlib.closing(sqlite3.connect(folder / "plants.db")) as connection, connection:
        connection.execute(
            "create table if not exists plants (id integer primary key, name text, family text, height_cm integer)"
        )
        plants = [
            (1, "Sea holly", "Apiaceae", 60),
            (2, "Foxglove", "Plantaginaceae", 150),
            (3, "Avens", "Rosaceae", 40),
        ]
        connection.executemany("insert or ignore into plants values (?, ?, ?, ?)", plants)
    with contextlib.closing(sqlite3.connect(folder / "sensors.db")) as connection, connection:
        connection.execute("create table if not exists sensors (id integer primary key, name text, token_secret text)")
        sensor = (1, "Greenhouse", secrets.token_urlsafe(24))
        connection.execute("insert or ignore into sensors values (?, ?, ?)", sensor)


def sensor_secret(folder: Path) -> str:
    """The secret of the sensor that the example's query knows."""
    with contextlib.closing(sqlite3.connect(folder / "sensors.db")) as connection:
        found: str = connection.execute("select token_secret from sensors where id = 1").fetchone()[0]
    return found


if __name__ == "__main__":
    main()
