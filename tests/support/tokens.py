"""Shorthand for tests about the tokens of a store."""

from __future__ import annotations

from typing import Any

from asgi_token_auth import (
    ANY_OWNER,
    Restrictions,
    TokenStore,
)
from tests.support.places import run_sql


def only(*actions: str) -> Restrictions:
    return Restrictions(all=actions)


async def issue(store: TokenStore, actor_id: str = "ann", **more: Any) -> int:
    return (await store.issue(actor_id, **more)).record.id


async def listed(store: TokenStore, **more: Any) -> list[int]:
    return [token.id for token in (await store.list(**{"owner": ANY_OWNER, **more})).items]


async def names_of_events(store: TokenStore, token_id: int) -> list[str]:
    return [event.name for event in await store.events(token_id, owner=ANY_OWNER)]


def everything(store: TokenStore) -> list[Any]:
    return [run_sql(store, f"select * from {store.table}"), run_sql(store, f"select * from {store.table}_events")]
