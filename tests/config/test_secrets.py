"""Encrypted secrets of a configuration block."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import Secret, from_config, secret_store_of
from asgi_token_auth.config.block import read_configuration
from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.middleware import OUTCOME_KEY, TokenAuthMiddleware
from asgi_token_auth.secrets.encryption import generate_key
from asgi_token_auth.sources.signed import SignedTokens
from tests.support.configured import BOT, HIDDEN, SECRET, TOKEN, actor_of, ask, nobody, whoami

pytestmark = pytest.mark.anyio


ARGUMENT, BLOCK, ENVIRONMENT = "argument-secret-of-this-test", "block-secret-of-this-test", "env-secret-of-this-test"


@contextlib.asynccontextmanager
async def open_resources(app: TokenAuthMiddleware) -> AsyncIterator[None]:
    """What a server does from its start to its end."""
    async with contextlib.AsyncExitStack() as opened:
        for resource in app.resources:
            await resource.open()
            opened.push_async_callback(resource.close)
        yield


# Secrets


@pytest.fixture
def secrets_block() -> dict[str, Any]:
    return {"secrets": {"encryption_key": [generate_key(), generate_key()], "database": "secrets"}}


async def test_secrets_are_kept_where_the_block_says_and_opened_with_the_server(
    secrets_block: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "secrets.db"
    app = from_config(whoami, {"tokens": [BOT], **secrets_block}, databases={"secrets": file, "app": tmp_path / "x.db"})
    store = secret_store_of(app)
    store.register(Secret("API_KEY", "For the API"))
    assert not file.exists()
    async with open_resources(app):
        await store.set("API_KEY", "value")
        assert await store.get_secret("API_KEY", "alice") == "value"
        assert await actor_of(app, TOKEN) == {"id": "bot"}
    # Closing wrote down the use.
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("select last_used_by from datasette_secrets").fetchall() == [("alice",)]


@pytest.mark.parametrize("variable", [None, SECRET])
async def test_secrets_alone_let_every_request_pass_as_it_came(
    secrets_block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    # It may be there for the command line, or for another program.
    if variable is not None:
        monkeypatch.setenv("DATASETTE_SECRET", variable)
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await whoami(scope, receive, send)

    del secrets_block["secrets"]["database"]
    wrapped = from_config(app, secrets_block, databases={"any": tmp_path / "secrets.db"})
    # Tokens are the app's own business then.
    response = await ask(wrapped, "a-token-of-the-app")
    assert (response.status_code, response.json()) == (200, None)
    assert "vary" not in response.headers
    assert dict(scopes[0]["headers"])[b"authorization"] == b"Bearer a-token-of-the-app"
    assert OUTCOME_KEY not in scopes[0]
    # Without lifespan events the first use opens the database.
    assert await secret_store_of(wrapped).get_secret("API_KEY") is None
    await secret_store_of(wrapped).close()


async def test_signed_tokens_beside_secrets_are_checked_where_the_block_asks_for_them(
    secrets_block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASETTE_SECRET", SECRET)
    databases = {"secrets": tmp_path / "secrets.db"}
    app = from_config(whoami, {**secrets_block, "signed_tokens": True}, databases=databases)
    assert await actor_of(app, SignedTokens(SECRET).create_token("alice")) == {"id": "alice", "token": "dstok"}
    assert (await ask(app, "a-token-of-nobody")).status_code == 401


@pytest.mark.parametrize(
    ("key", "value"),
    [("param", "_t"), ("required", True), ("unknown", "pass"), ("realm", "club"), ("hide_credentials", False)],
)
def test_with_secrets_alone_a_key_about_tokens_stops_the_start(
    secrets_block: dict[str, Any], tmp_path: Path, key: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{key}: has no effect, because nothing is configured"):
        from_config(nobody, {**secrets_block, key: value}, databases={"secrets": tmp_path / "secrets.db"})


def test_an_app_without_secrets_has_no_store_of_them() -> None:
    with pytest.raises(ConfigurationError, match=r"^secrets: is not configured"):
        secret_store_of(from_config(nobody, {"tokens": [BOT]}))


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ({"encryption_key": HIDDEN}, "the key is not 32 bytes"),
        ({"encryption_key": ["A" * 43 + "=", HIDDEN]}, "key 2 of 2 is not 32 bytes"),
        ({"encryption-key": ["A" * 43 + "="] * 2}, "key 2 of 2 is there twice"),
    ],
)
def test_an_encryption_key_that_cannot_be_one_stops_the_start(secrets: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^secrets\.encryption_key: {message}") as refused:
        from_config(nobody, {"secrets": secrets}, databases={"secrets": tmp_path / "secrets.db"})
    assert HIDDEN not in str(refused.value)


def test_the_database_of_secrets_must_be_known(secrets_block: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^secrets\.database: names no entry"):
        from_config(nobody, secrets_block, databases={"other": tmp_path / "x.db"})
    with pytest.raises(ConfigurationError, match=r"^secrets\.database: no database is known"):
        from_config(nobody, {"secrets": {"encryption_key": generate_key()}})


async def test_a_key_inside_of_the_very_table_stops_the_start(secrets_block: dict[str, Any], tmp_path: Path) -> None:
    app = from_config(nobody, secrets_block, databases={"secrets": tmp_path / "secrets.db"})
    async with open_resources(app):
        await secret_store_of(app).set("API_KEY", "value")
    with contextlib.closing(sqlite3.connect(tmp_path / "secrets.db", isolation_level=None)) as connection:
        connection.execute("update datasette_secrets set note = ?", secrets_block["secrets"]["encryption_key"][:1])
    with pytest.raises(ConfigurationError, match="a key stands in a name or note"):
        async with open_resources(app):
            pass


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_key_file_that_others_may_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    file = tmp_path / "key"
    key = generate_key()
    file.write_text(key + "\n")
    file.chmod(mode)
    block = {"secrets": {"encryption-key": [{"$file": str(file)}]}}
    assert read_configuration(block).encryption_keys == (key,)
    assert (f"the file {file}; chmod go-rwx" in caplog.text) == warned
    assert ("secrets.encryption-key[0]: other users" in caplog.text) == warned
    assert key not in caplog.text
