"""The command line with a PostgreSQL database: the same commands, and the way there from a SQLite file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from asgi_token_auth import Authenticated, Credential, ManagedTokens, TokenStore
from asgi_token_auth.databases.postgres import Postgres
from tests.support import postgres
from tests.support.terminal import SECRET, Terminal


@pytest.fixture
def dsn(postgres_server: postgres.Server) -> Iterator[str]:
    postgres_server.run("create schema command_line")
    yield f"{postgres_server.dsn()}&search_path=command_line"
    postgres_server.run("drop schema command_line cascade")


@pytest.fixture
def there(terminal: Terminal, dsn: str) -> Terminal:
    """A shell whose database is in PostgreSQL."""
    return Terminal(terminal.folder, DATASETTE_SECRET=SECRET, ASGI_TOKEN_AUTH_DATABASE=dsn)


def accepted(dsn: str, tokens: list[str]) -> list[bool]:
    async def ask() -> list[bool]:
        async with TokenStore(Postgres(dsn), secret=SECRET) as store:
            source = ManagedTokens(store)
            return [isinstance(await source.authenticate(Credential(token)), Authenticated) for token in tokens]

    return asyncio.run(ask())


def test_the_life_of_a_token(there: Terminal, dsn: str) -> None:
    assert "holds no tokens" in there.fails("tokens", "list")
    first = there.run("tokens", "create", "alice", "--description", "CI", "-a", "view-table").out.strip()
    assert accepted(dsn, [first]) == [True]
    (listed,) = json.loads(there.run("tokens", "list", "--json").out)
    assert (listed["id"], listed["actor_id"], listed["description"]) == (1, "alice", "CI")
    there.run("tokens", "edit", "1", "--description", "nightly")
    second = there.run("tokens", "rotate", "1").out.strip()
    assert accepted(dsn, [first, second]) == [False, True]
    assert "nightly" in there.run("tokens", "show", "1").out
    there.run("tokens", "revoke", "-", stdin=second)
    assert accepted(dsn, [second]) == [False]
    there.run("tokens", "prune", "--ended-for", "1s", "--yes")


def test_tokens_move_from_a_file_and_go_on_working(terminal: Terminal, there: Terminal, dsn: str) -> None:
    tokens = [terminal.run("tokens", "create", f"actor{number}").out.strip() for number in range(5)]
    terminal.run("tokens", "revoke", "3")
    dry = json.loads(there.run("tokens", "import", "tokens.db", "--dry-run", "--json").out)
    assert (dry["imported"], len(dry["tokens"])) == (0, 5)
    assert "holds no tokens" in there.fails("tokens", "list")
    there.run("tokens", "import", "tokens.db")
    assert accepted(dsn, tokens) == [True, True, False, True, True]
    # Ids go on after those that came in.
    new = there.run("tokens", "create", "another").out.strip()
    assert accepted(dsn, [new, *tokens]) == [True, True, True, False, True, True]
    assert json.loads(there.run("tokens", "import", "tokens.db", "--json").out)["present"] == 5
    # And back.
    terminal.run("tokens", "import", dsn, "--database", "back.db")
    back = json.loads(terminal.run("tokens", "list", "--database", "back.db", "--json").out)
    assert sorted(token["id"] for token in back) == [1, 2, 3, 4, 5, 6]


def test_ten_thousand_tokens_move_in_one_transaction(terminal: Terminal, there: Terminal, dsn: str) -> None:
    token = terminal.run("tokens", "create", "alice").out.strip()
    terminal.sql(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < 10000) "
        "insert into _datasette_auth_tokens (id, token_status, actor_id, permissions, created_timestamp, "
        "secret_version, token_digest) select i, 'A', 'alice', 'null', 1, 0, hex(randomblob(32)) from n"
    )
    there.run("tokens", "import", "tokens.db")
    assert accepted(dsn, [token]) == [True]
    assert postgres.run(dsn, "select count(*), max(id) from _datasette_auth_tokens") == [(10_000, 10_000)]


def test_secrets_and_check(there: Terminal, dsn: str) -> None:
    key = there.run("secrets", "generate-encryption-key").out.strip()
    there = Terminal(
        there.folder, DATASETTE_SECRET=SECRET, ASGI_TOKEN_AUTH_DATABASE=dsn, ASGI_TOKEN_AUTH_ENCRYPTION_KEY=key, DSN=dsn
    )
    there.run("secrets", "set", "WEATHER", stdin="sunny")
    assert "WEATHER" in there.run("secrets", "list").out
    there.run("tokens", "create", "alice")
    (there.folder / "config.json").write_text(
        json.dumps(
            {
                "manage_tokens": True,
                "manage_tokens_database": {"$env": "DSN"},
                "secrets": {"encryption_key": {"$env": "ASGI_TOKEN_AUTH_ENCRYPTION_KEY"}, "database": {"$env": "DSN"}},
            }
        )
    )
    there.run("check", "config.json")


def test_a_password_is_never_shown(there: Terminal, postgres_server: postgres.Server) -> None:
    for number, (dsn, sentence) in enumerate(
        (
            (postgres_server.dsn(user="guarded", password="hunter2"), "refuses the user or the password"),
            (f"postgresql://owner:hunter2@127.0.0.1:{postgres_server.port}/nothing?sslmode=disable", "create it"),
            ("postgresql://owner:hunter2@127.0.0.1:1/nothing", "cannot be reached"),
            ("postgresql://owner:hunter2/x@127.0.0.1/nothing", "cannot be read"),
        )
    ):
        shell = Terminal(there.folder, DATASETTE_SECRET=SECRET, ASGI_TOKEN_AUTH_DATABASE=dsn)
        refused = shell.fails("tokens", "list")
        assert sentence in refused, number
        assert "hunter2" not in refused
