"""Encrypted secrets from code."""

import os
from collections.abc import Mapping, Sequence
from typing import Literal, assert_type

from starlette.applications import Starlette

from asgi_token_auth import Rotation, Secret, SecretRecord, SecretStore, SecretVersion, TokenAuthMiddleware
from asgi_token_auth.databases.sqlite import SQLite

store = SecretStore(
    SQLite("secrets.db"),
    encryption_key=os.environ["ENCRYPTION_KEY"],
    secrets=[Secret("WEATHER_KEY", "For the weather service", "https://weather.example/keys", "Get a key")],
)
TokenAuthMiddleware(Starlette(), sources=[], resources=[store])


async def use() -> None:
    async with SecretStore(SQLite("secrets.db"), encryption_key=["older", "newer"]) as opened:
        assert_type(opened, SecretStore)
        assert_type(await opened.get_secret("WEATHER_KEY", "alice"), str | None)
        record = await opened.set("WEATHER_KEY", "value", note="expires in May", by="root")
        assert_type(record, SecretRecord)
        assert_type(record.source, Literal["environment", "stored"] | None)
        assert_type(record.version, int | None)
        assert_type(await opened.set_note("WEATHER_KEY", None), SecretRecord)
        assert_type(await opened.list(), Sequence[SecretRecord])
        assert_type(await opened.history("WEATHER_KEY"), Sequence[SecretVersion])
        assert_type(await opened.delete("WEATHER_KEY", by="root"), SecretRecord)
        assert_type(await opened.rotate(), Rotation)
        assert_type(await opened.problems(), Sequence[str])
        assert_type(opened.registered, Mapping[str, Secret])


async def mistakes() -> None:
    # A secret that is not set is None, and no header takes that.
    (await store.get_secret("WEATHER_KEY")).encode()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    (await store.get("WEATHER_KEY")).value  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]  # noqa: B018
    await store.set("WEATHER_KEY", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SecretStore(SQLite("secrets.db"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    store.register("WEATHER_KEY")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TokenAuthMiddleware(Starlette(), sources=[store])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
