"""Peers that are installed, next to the bare app and managed tokens, in one interleaved run.

Each has a module of its own with ``async def case(stack, folder)``; where its package is missing, the report says what
to install. Peers are measured at their best: nothing but their own check of a token, and then the bare app.
"""

from __future__ import annotations

import asyncio
import importlib
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, NamedTuple

from asgi_token_auth import ManagedTokens
from tests.benchmarks.apps import bare, protected, starlette_with_a_dict
from tests.benchmarks.harness import Case, measure
from tests.benchmarks.report import Bar, Report
from tests.benchmarks.request_cost import BARE, MANAGED, STARLETTE, table
from tests.benchmarks.sizes import Size
from tests.benchmarks.stores import managed_tokens


class Peer(NamedTuple):
    """A module of this folder, and what pip must install for it."""

    module: str
    packages: str


PEERS: Final = {
    "authstar": Peer("authstar_dict", "authstar"),
    "PyJWT": Peer("pyjwt", "PyJWT"),
    "djangorestframework-api-key": Peer("drf_api_key", "djangorestframework-api-key"),
    "djangorestframework's tokens": Peer("drf_tokens", "djangorestframework"),
    "django-rest-knox": Peer("knox_tokens", "django-rest-knox"),
    "fastapi-users": Peer("fastapi_users_database", "'fastapi-users[sqlalchemy]'"),
    "datasette-auth-tokens": Peer("datasette_managed", "datasette-auth-tokens"),
}
#: What the chart calls them.
_LABELS: Final = {
    "authstar": "authstar, a dict",
    "PyJWT": "PyJWT, HS256",
    "djangorestframework-api-key": "drf-api-key",
    "django-rest-knox": "django-rest-knox",
    "fastapi-users": "fastapi-users, database",
    "datasette-auth-tokens": "datasette-auth-tokens, managed",
}


async def installed(stack: AsyncExitStack, folder: Path, report: Report) -> list[Case]:
    """The cases of all peers that are installed."""
    cases = []
    for name, peer in PEERS.items():
        try:
            module = importlib.import_module(f"tests.benchmarks.peers.{peer.module}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("tests."):
                raise
            report.missing.append(f"{name} is not installed: pip install {peer.packages}")
            continue
        app, tokens = await module.case(stack, folder)
        cases.append(Case(name, app, tokens))
    return cases


async def run(size: Size) -> Report:
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            folder = Path(name)
            store, tokens = await managed_tokens(stack, folder / "wal.db")
            known = [f"{number:032}" for number in range(len(tokens))]
            peers = await installed(stack, folder, report)
            cases = [
                Case(BARE, bare),
                Case(STARLETTE, starlette_with_a_dict(known), known),
                Case(MANAGED, protected(ManagedTokens(store)), tokens),
                *peers,
            ]
            results = await measure(cases, rounds=size.rounds, seconds=size.seconds)
    report.tables.append(table("Peers, in one process without sockets", results, BARE, MANAGED, "managed"))
    for peer in peers:
        report.values[f"{peer.name} / managed"] = results.cost(peer.name, MANAGED)
        if peer.name in _LABELS:
            report.bars.append(
                Bar(_LABELS[peer.name], results.over(peer.name), ours=False, anew=peer.name != "authstar")
            )
    return report


def benchmark(size: Size) -> Report:
    """Measure."""
    return asyncio.run(run(size))
