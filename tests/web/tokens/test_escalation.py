"""A token never gains a right, a minute or an actor, whatever it asks for.

What a token may do is judged by Datasette's own check of restrictions, not by the comparison that lets it through.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import InvalidInput, Restrictions, TokenNotFound, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.tokens.record import TokenRecord
from tests.support.asgi import Clock
from tests.support.page_sites import PATH
from tests.support.sites import SECRET, TABLE, bearer, close_store, demo_files, full_block, make, needs_1_0, serving

pytestmark = [pytest.mark.anyio, needs_1_0]

#: Pairs of a parent and a child; set the variable for more.
PAIRS = int(os.environ.get("ASGI_TOKEN_AUTH_PAIRS", "2000"))
SAMPLE = 500
SEED = int(os.environ.get("ASGI_TOKEN_AUTH_SEED", "20261122"))
CREATE = "auth-tokens-create"

DATABASES = ["demo", "tokens", "Demo", "a:b"]
RESOURCES = ["foo", "FOO", "Foo", "bar", "é", "É", "a/b"]
NAMES = [
    "view-table",
    "insert-row",
    "view-query",
    "execute-sql",
    "view-database",
    "view-instance",
    "drop-table",
    CREATE,
]
SHORT = {"vt": "view-table", "ir": "insert-row", "vq": "view-query", "es": "execute-sql", "vd": "view-database"}
ACTIONS = [*NAMES, *SHORT, "no-such-action"]
UNIVERSE: list[tuple[str, Any]] = [
    (action, resource)
    for action in NAMES
    for resource in [None, *DATABASES, *((database, name) for database in DATABASES for name in RESOURCES)]
]


def random_restrictions(chance: random.Random, *, widest: int = 4) -> Restrictions:
    def actions(most: int) -> list[str]:
        return chance.sample(ACTIONS, chance.randint(0, most))

    return Restrictions(
        all=tuple(actions(widest)),
        database={name: tuple(actions(3)) for name in chance.sample(DATABASES, chance.randint(0, 2))},
        resource={
            name: {inner: tuple(actions(3)) for inner in chance.sample(RESOURCES, chance.randint(0, 3))}
            for name in chance.sample(DATABASES, chance.randint(0, 2))
        },
    )


def part_of(chance: random.Random, whole: Restrictions) -> Restrictions:
    """Something near the border of ``whole``: pieces of it, narrowed, renamed, and at times one thing too many."""
    long = dict(SHORT)
    short = {name: key for key, name in SHORT.items()}

    def other_name(action: str) -> str:
        return chance.choice([action, long.get(action, action), short.get(action, action)])

    part = Restrictions()
    for action in whole.all:
        match chance.randrange(4):
            case 0:
                part = part.allow_all(other_name(action))
            case 1:
                part = part.allow_database(chance.choice(DATABASES), other_name(action))
            case 2:
                part = part.allow_resource(chance.choice(DATABASES), chance.choice(RESOURCES), other_name(action))
    for database, actions in whole.database.items():
        for action in actions:
            match chance.randrange(3):
                case 0:
                    part = part.allow_database(database, other_name(action))
                case 1:
                    part = part.allow_resource(database, chance.choice(RESOURCES), other_name(action))
    for database, resources in whole.resource.items():
        for resource, actions in resources.items():
            for action in actions:
                if chance.random() < 0.5:
                    spelt = chance.choice([resource, resource, resource.upper(), resource.lower()])
                    part = part.allow_resource(database, spelt, other_name(action))
    if chance.random() < 0.15:
        one_more = random_restrictions(chance, widest=1)
        part = Restrictions(
            all=(*part.all, *one_more.all),
            database={**part.database, **one_more.database},
            resource={**part.resource, **one_more.resource},
        )
    return part


def random_child(chance: random.Random, parent: TokenRecord, now: float) -> dict[str, Any]:
    """What a child asks for: often near the border of what it may have."""
    match chance.randrange(10):
        case 0:
            restrictions = None
        case 1:
            restrictions = random_restrictions(chance)
        case _:
            restrictions = (
                random_restrictions(chance) if parent.restrictions is None else part_of(chance, parent.restrictions)
            )
    life: int | None = None
    if chance.random() > 0.1:
        left = 500 if parent.expires_at is None else int(parent.expires_at - now)
        life = max(
            1, chance.choice([left, left - 1, left + 1, chance.randint(1, 1_000), chance.randint(1, max(1, left))])
        )
    actor_id = "ann" if chance.random() < 0.95 else "root"
    return {"actor_id": actor_id, "restrictions": restrictions, "expires_after": life}


class Judge:
    """Datasette's own word on what restrictions allow, over everything that there is to allow."""

    def __init__(self, datasette: Any) -> None:
        from datasette.default_permissions.restrictions import restrictions_allow_action

        self._datasette = datasette
        self._allows = restrictions_allow_action

    def allowed(self, restrictions: Restrictions | None) -> set[tuple[str, Any]]:
        if restrictions is None:
            return set(UNIVERSE)
        wire = restrictions.to_wire()
        return {thing for thing in UNIVERSE if self._allows(self._datasette, wire, *thing)}


@dataclass
class Setting:
    datasette: Any
    client: Any
    store: TokenStore
    clock: Clock
    judge: Judge


@asynccontextmanager
async def setting(folder: Path) -> AsyncIterator[Setting]:
    files = demo_files(folder)
    permissions = {CREATE: {"id": "ann"}, **{name: True for name in NAMES if name != CREATE}}
    datasette = make(files, full_block(tokens_may_manage_tokens=True), config={"permissions": permissions})
    clock = Clock()
    async with (
        serving(datasette.app()) as client,
        TokenStore(SQLite(files[1]), secret=SECRET, clock=clock) as store,
    ):
        yield Setting(datasette, client, store, clock, Judge(datasette))
        await close_store(datasette)


def assert_nothing_gained(judge: Judge, parent: TokenRecord, child: TokenRecord) -> int:
    """Return how many things the child may do."""
    assert (child.actor_id, child.parent_id) == (parent.actor_id, parent.id)
    if parent.expires_at is not None:
        assert child.expires_at is not None
        assert child.expires_at <= parent.expires_at
    gained = judge.allowed(child.restrictions) - judge.allowed(parent.restrictions)
    assert gained == set(), (parent.restrictions, child.restrictions)
    return len(judge.allowed(child.restrictions))


@pytest.mark.timeout(3_600)
async def test_no_child_of_any_parent_gains_anything_in_the_store(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with setting(tmp_path) as site:
        accepted = refused = not_empty = 0
        pairs = 0
        while pairs < PAIRS:
            parent = (
                await site.store.issue(
                    "ann",
                    restrictions=None if chance.random() < 0.05 else random_restrictions(chance),
                    expires_after=chance.choice([None, chance.randint(1, 1_000)]),
                )
            ).record
            for _ in range(10):
                pairs += 1
                site.clock.now += chance.choice([0, 0, 0.5])
                asked = random_child(chance, parent, site.clock.now)
                try:
                    child = (await site.store.issue(asked.pop("actor_id"), parent=parent.id, **asked)).record
                except (InvalidInput, TokenNotFound):
                    refused += 1
                    continue
                accepted += 1
                may = assert_nothing_gained(site.judge, parent, child)
                not_empty += may > 0
                if chance.random() < 0.3:
                    wider = random_child(chance, parent, site.clock.now)
                    wider.pop("actor_id")
                    with suppress(InvalidInput):
                        child = await site.store.edit(child.id, owner="ann", **wider)
                    assert_nothing_gained(site.judge, parent, child)
                # Half of the time a child is the parent of the next one.
                if chance.random() < 0.5:
                    parent = child
            if chance.random() < 0.2:
                await check_after_narrowing(site, chance, parent)
        print(f"{pairs:,} pairs: {accepted:,} accepted, {refused:,} refused, {not_empty:,} of the accepted not empty")
        assert accepted > pairs / 10
        assert refused > pairs / 10
        assert not_empty >= accepted / 3


async def check_after_narrowing(site: Setting, chance: random.Random, token: TokenRecord) -> None:
    """Narrow the token's first ancestor: the whole family shrinks with it."""
    tokens = {token.id: token}
    while token.parent_id is not None:
        token = await site.store.get(token.parent_id, owner="ann")
        tokens[token.id] = token
    limits = part_of(chance, token.restrictions or random_restrictions(chance))
    try:
        await site.store.edit(token.id, owner="ann", restrictions=limits, expires_after=chance.randint(1, 500))
    except InvalidInput:
        return
    now = {token_id: await site.store.get(token_id, owner="ann") for token_id in tokens}
    for record in now.values():
        # One whose time is over keeps what it had: it can do nothing with it.
        if record.parent_id is not None and record.status == "active":
            assert_nothing_gained(site.judge, now[record.parent_id], record)


async def test_no_child_of_any_parent_gains_anything_through_the_api(tmp_path: Path) -> None:
    chance = random.Random(SEED + 1)
    async with setting(tmp_path) as site:
        site.clock.now = time.time()
        accepted = not_empty = 0
        for number in range(SAMPLE):
            if number % 10 == 0:
                limits = random_restrictions(chance).allow_all(CREATE)
                issued = await site.store.issue("ann", restrictions=limits, expires_after=chance.choice([None, 900]))
            body = random_child(chance, issued.record, site.clock.now)
            actor_id, restrictions = body.pop("actor_id"), body.pop("restrictions")
            body["restrictions"] = None if restrictions is None else restrictions.to_wire()
            if actor_id != "ann":
                body["actor_id"] = actor_id
            answer = await site.client.post(f"{PATH}/create.json", headers=bearer(issued.token), json=body)
            assert answer.status_code in (201, 400), answer.text
            if answer.status_code == 201:
                accepted += 1
                child = await site.store.get(answer.json()["details"]["id"], owner="ann")
                not_empty += assert_nothing_gained(site.judge, issued.record, child) > 0
        assert accepted > SAMPLE / 10
        assert not_empty >= accepted / 3
        rows = await site.store.database.query(f"select distinct actor_id from {TABLE}", {})
        assert rows.rows == [("ann",)]


async def test_datasette_itself_allows_no_child_more_than_its_parent(tmp_path: Path) -> None:
    from datasette.resources import DatabaseResource, QueryResource, TableResource

    chance = random.Random(SEED + 2)
    async with setting(tmp_path) as site:

        async def allowed(record: TokenRecord, action: str, database: str, name: str) -> bool:
            kind = site.datasette.actions[action].resource_class
            resource: Any = None
            if kind is DatabaseResource:
                resource = DatabaseResource(database)
            elif kind is TableResource:
                resource = TableResource(database, name)
            elif kind is QueryResource:
                resource = QueryResource(database, name)
            actor: dict[str, Any] = {"id": "ann", "token": "dsatok"}
            if record.restrictions is not None:
                actor["_r"] = record.restrictions.to_wire()
            return bool(await site.datasette.allowed(action=action, resource=resource, actor=actor))

        checked = both = 0
        while checked < SAMPLE:
            parent = (await site.store.issue("ann", restrictions=random_restrictions(chance))).record
            asked = random_child(chance, parent, site.clock.now)
            try:
                child = (await site.store.issue("ann", parent=parent.id, restrictions=asked["restrictions"])).record
            except InvalidInput:
                continue
            checked += 1
            for _ in range(3):
                thing = chance.choice(NAMES), chance.choice(["demo", "tokens"]), chance.choice(["foo", "FOO", "Foo"])
                if await allowed(child, *thing):
                    both += 1
                    assert await allowed(parent, *thing), (parent.restrictions, child.restrictions, thing)
        assert both > 0


async def test_the_judge_can_say_no(tmp_path: Path) -> None:
    async with setting(tmp_path) as site:
        wide, narrow = Restrictions(all=("vt",)), Restrictions().allow_resource("demo", "foo", "vt")
        assert site.judge.allowed(wide) - site.judge.allowed(narrow)
        assert {name for _, name in site.judge.allowed(narrow)} == {("demo", "foo"), ("demo", "FOO"), ("demo", "Foo")}
        assert site.judge.allowed(Restrictions()) == set()
