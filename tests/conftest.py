import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from asgi_token_auth import TokenStore
from tests.support import postgres
from tests.support.asgi import SECRET, Clock
from tests.support.places import Place, PostgresPlace, SQLitePlace

_numbers = itertools.count(1)

# A busy machine must not fail a test that is right.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """One server for all tests that do it no harm."""
    postgres.need()
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each test that asks for it is run on every kind of database."""
    if request.param == "sqlite":
        yield SQLitePlace(tmp_path)
        return
    server: Any = request.getfixturevalue("postgres_server")
    place = PostgresPlace(server, f"test_{next(_numbers)}")
    yield place
    place.remove()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(place: Place, clock: Clock, anyio_backend: str) -> AsyncIterator[TokenStore]:
    """An open store of managed tokens."""
    async with TokenStore(place.database(), secret=SECRET, clock=clock) as store:
        yield store


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about another Datasette than the installed one."""
    try:
        from asgi_token_auth.datasette.version import IS_1_0
    except ImportError:
        return
    installed = "1.0" if IS_1_0 else "0.65"
    other = [item for item in items if (mark := item.get_closest_marker("datasette")) and mark.args != (installed,)]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in set(other)]
