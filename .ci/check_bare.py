"""Checks in an environment without any extra: the package imports, and a token opens an app."""

import asyncio
import importlib.util
import tempfile
from pathlib import Path

for name in ("datasette", "fastapi", "click", "cryptography", "jinja2", "asyncpg", "uvicorn"):
    if importlib.util.find_spec(name) is not None:
        raise SystemExit(f"{name} is installed: this check is for the core dependencies alone")

import asgi_token_auth  # noqa: E402
from asgi_token_auth.databases.sqlite import SQLite  # noqa: E402


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["actor"]["id"].encode()})


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = asgi_token_auth.TokenStore(SQLite(Path(folder) / "tokens.db"), secret="bare-environment-secret")
        wrapped = asgi_token_auth.TokenAuthMiddleware(app, sources=[asgi_token_auth.ManagedTokens(store)])
        async with store:
            issued = await store.issue("alice")
            sent = []

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
            headers = [(b"authorization", f"Bearer {issued.token}".encode())]
            await wrapped({**scope, "headers": headers}, None, send)
            assert sent[0]["status"] == 200, sent
            assert sent[1]["body"] == b"alice", sent
            await store.revoke(issued.record.id, owner="alice")
            await wrapped({**scope, "headers": headers}, None, send)
            assert sent[2]["status"] == 401, sent
        # Secrets of the environment need nothing more; encrypted ones say what they need.
        database = SQLite(Path(folder) / "secrets.db")
        secrets = asgi_token_auth.SecretStore(database, encryption_key=None, environ={"DATASETTE_SECRETS_KEY": "value"})
        assert await secrets.get_secret("KEY") == "value"
        try:
            asgi_token_auth.SecretStore(database, encryption_key="any")
        except asgi_token_auth.ConfigurationError as error:
            refused = str(error)
        assert "asgi-token-auth[secrets]" in refused
    print("asgi_token_auth works with its core dependencies alone")


asyncio.run(main())
