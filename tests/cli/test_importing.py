"""``tokens import``: every token keeps working, or nothing was imported."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer

from asgi_token_auth import Authenticated, Credential, ManagedTokens, TokenStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.signing import SigningSecrets
from asgi_token_auth.tokens.text import ManagedTokenText, digest_nonce, new_nonce
from tests.support.terminal import PATIENCE, SECRET, Terminal, environment

MANY = 10_000
TABLE = "_datasette_auth_tokens"


def predecessor(file: Path, *, columns: str = "", rows: str) -> None:
    """The table as datasette-auth-tokens makes it, by its oldest or newest release."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(
            f"""CREATE TABLE "{TABLE}" ("id" INTEGER PRIMARY KEY, "token_status" TEXT DEFAULT 'A', "description" TEXT,
            "actor_id" TEXT, "permissions" TEXT, "created_timestamp" INTEGER, "last_used_timestamp" INTEGER,
            "expires_after_seconds" INTEGER, {columns} "secret_version" INTEGER DEFAULT '0')"""
        )
        connection.execute(
            f"insert into {TABLE} (id, token_status, actor_id, permissions, created_timestamp) values {rows}"
        )
        connection.commit()


def legacy(token_id: int) -> str:
    text: str = URLSafeSerializer(SECRET, salt="dsatok").dumps(token_id)
    return "dsatok_" + text


def many(file: Path) -> list[str]:
    """A database with ten thousand tokens and their events; the texts of the tokens."""

    async def prepare() -> None:
        async with TokenStore(SQLite(file), secret=SECRET):
            pass

    asyncio.run(prepare())
    text = ManagedTokenText(SigningSecrets([SECRET]))
    nonces = [new_nonce() for _ in range(MANY)]
    with closing(sqlite3.connect(file)) as connection:
        connection.executemany(
            f"insert into {TABLE} (id, actor_id, permissions, created_timestamp, token_digest) values (?, ?, ?, 1, ?)",
            [(n, f"actor-{n}", "null", digest_nonce(nonce)) for n, nonce in enumerate(nonces, start=1)],
        )
        connection.executemany(
            f"insert into {TABLE}_events (token_id, event, at_timestamp) values (?, 'created', 1)",
            [(n,) for n in range(1, MANY + 1)],
        )
        connection.commit()
    return [text.build(n, nonce) for n, nonce in enumerate(nonces, start=1)]


def accepted(file: Path, tokens: list[str]) -> list[str | None]:
    """The actors of tokens, ``None`` for those that are refused."""

    async def ask() -> list[str | None]:
        async with TokenStore(SQLite(file), secret=SECRET) as store:
            source = ManagedTokens(store)
            outcomes = [await source.authenticate(Credential(token)) for token in tokens]
            return [str(o.actor()["id"]) if isinstance(o, Authenticated) else None for o in outcomes]

    return asyncio.run(ask())


def test_everything_about_a_token_comes_along(terminal: Terminal) -> None:
    tokens = [terminal.quick("tokens", "create", owner, "-a", "vi").out.strip() for owner in ("alice", "bob", "carol")]
    rotated = terminal.quick("tokens", "rotate", "1", "--grace", "1h").out.strip()
    terminal.quick("tokens", "revoke", "2", "--by", "root")
    terminal.sql(f"update {TABLE} set parent_id = 1, last_used_timestamp = 5, last_used_address = 'x' where id = 3")
    done = terminal.run("tokens", "import", "tokens.db", "--database", "new.db")
    assert done.out.splitlines() == [
        "1  alice  active  imported",
        "2  bob  revoked  imported",
        "3  carol  active  imported",
    ]
    for table in (TABLE, f"{TABLE}_events"):
        statement = f"select * from {table} order by id"
        assert terminal.sql(statement, file="new.db") == terminal.sql(statement)
    assert accepted(terminal.folder / "new.db", [*tokens, rotated]) == ["alice", None, "carol", "alice"]


@pytest.mark.parametrize("columns", ["", '"ended_timestamp" INTEGER,'])
def test_tokens_of_the_predecessor_keep_working(terminal: Terminal, columns: str) -> None:
    source = terminal.folder / "old.db"
    predecessor(
        source,
        columns=columns,
        rows="(1, 'L', 'alice', 'null', 1), (7, 'A', 'bob', 'null', 1), (8, 'R', 'x', 'null', 1)",
    )
    before = source.read_bytes()
    done = terminal.run("tokens", "import", "old.db", "--json")
    assert (done.json["imported"], [t["status"] for t in done.json["tokens"]]) == (3, ["active", "active", "revoked"])
    assert source.read_bytes() == before
    file = terminal.folder / "tokens.db"
    assert accepted(file, [legacy(1), legacy(7), legacy(8), legacy(2)]) == ["alice", "bob", None, None]
    assert terminal.run("tokens", "import", "old.db", "--json").json["present"] == 3


def test_what_is_there_already_is_left_alone_and_new_ones_are_added(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    terminal.run("tokens", "import", "tokens.db", "--database", "new.db")
    terminal.quick("tokens", "create", "bob")
    # A server used it meanwhile, which makes it no other token.
    terminal.sql(f"update {TABLE} set last_used_timestamp = 5 where id = 1", file="new.db")
    done = terminal.run("tokens", "import", "tokens.db", "--database", "new.db")
    assert done.out.splitlines() == ["1  alice  active  there already", "2  bob  active  imported"]
    assert done.err == "Imported 1 token; 1 there already.\n"
    assert terminal.sql(f"select last_used_timestamp from {TABLE} where id = 1", file="new.db") == [(5,)]
    assert terminal.sql(f"select token_id from {TABLE}_events", file="new.db") == [(1,), (2,)]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_id_that_another_token_has_refuses_everything(terminal: Terminal, dry: list[str]) -> None:
    for owner in ("alice", "bob"):
        terminal.quick("tokens", "create", owner)
    terminal.quick("tokens", "create", "mallory", "--database", "new.db")
    sentence = terminal.fails("tokens", "import", "tokens.db", "--database", "new.db", *dry)
    assert "1 cannot keep their ids" in sentence
    assert terminal.sql(f"select actor_id from {TABLE}", file="new.db") == [("mallory",)]


def test_a_token_that_was_revoked_on_one_side_is_not_brought_back(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    terminal.run("tokens", "import", "tokens.db", "--database", "new.db")
    terminal.quick("tokens", "revoke", "1", "--database", "new.db")
    assert "other states" in terminal.fails("tokens", "import", "tokens.db", "--database", "new.db")
    assert terminal.sql(f"select token_status from {TABLE}", file="new.db") == [("R",)]


def test_a_dry_run_writes_nothing_anywhere(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    done = terminal.run("tokens", "import", "tokens.db", "--database", "new.db", "--dry-run")
    assert done.out == "1  alice  active  would be imported\n"
    assert done.err == "Would import 1 token; 0 there already.\n"
    assert not (terminal.folder / "new.db").exists()
    (terminal.folder / "new.db").touch()
    assert (
        terminal.run("tokens", "import", "tokens.db", "--database", "new.db", "--dry-run", "--json").json["imported"]
        == 0
    )
    assert terminal.tables("new.db") == set()


def test_sources_that_are_none_leave_the_target_alone(terminal: Terminal) -> None:
    terminal.sql("create table t (x)", file="foreign.db")
    (terminal.folder / "text.db").write_text("no database at all, but long enough to be looked at" * 50)
    assert "There is no file missing.db" in terminal.fails("tokens", "import", "missing.db")
    assert "of tokens; check which file it is" in terminal.fails("tokens", "import", "foreign.db")
    assert "not a SQLite database" in terminal.fails("tokens", "import", "text.db")
    assert not (terminal.folder / "tokens.db").exists()
    terminal.quick("tokens", "create", "alice")
    assert "the same database" in terminal.fails("tokens", "import", "tokens.db")
    terminal.sql(f"insert into {TABLE}_migrations (name) values ('9999_future')")
    assert "newer release" in terminal.fails("tokens", "import", "tokens.db", "--database", "new.db")


def test_ten_thousand_tokens_are_imported_and_all_verify(terminal: Terminal) -> None:
    tokens = many(terminal.folder / "many.db")
    done = terminal.run("tokens", "import", "many.db")
    assert len(done.out.splitlines()) == MANY
    assert accepted(terminal.folder / "tokens.db", tokens) == [f"actor-{n}" for n in range(1, MANY + 1)]


# Counts the rows that the transaction writes, and dies as by kill -9 at the one that is asked for.
DYING = """
import os, signal, sys
from collections.abc import Mapping
from asgi_token_auth.databases.sqlite import database
from asgi_token_auth.cli import main

last, drive = int(sys.argv.pop(1)), database.drive

async def dying(steps, run):
    count = 0

    def each(rows):
        nonlocal count
        for row in rows:
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            yield row

    def counted():
        rows = None
        while True:
            try:
                sql, parameters = next(steps) if rows is None else steps.send(rows)
            except StopIteration as end:
                return end.value
            rows = yield sql, parameters if isinstance(parameters, Mapping) else each(parameters)

    return await drive(counted(), run)

database.drive = dying
main()
"""


def test_a_kill_in_the_middle_leaves_none(terminal: Terminal) -> None:
    many(terminal.folder / "many.db")
    terminal.quick("tokens", "create", "alice")
    terminal.sql(f"update {TABLE} set id = 20000")
    for last in (1, 7_000, 2 * MANY):
        process = subprocess.run(
            [sys.executable, "-c", DYING, str(last), "tokens", "import", "many.db"],
            cwd=terminal.folder,
            env=environment(**terminal.variables),
            capture_output=True,
            timeout=PATIENCE,
        )
        assert process.returncode == -signal.SIGKILL
        assert terminal.sql(f"select actor_id from {TABLE}") == [("alice",)]
        assert terminal.sql(f"select count(*) from {TABLE}_events") == [(1,)]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupt_in_the_middle_leaves_none(terminal: Terminal, number: str) -> None:
    many(terminal.folder / "many.db")
    script = textwrap.dedent(DYING).replace("signal.SIGKILL", f"signal.{number}")
    process = subprocess.run(
        [sys.executable, "-c", script, "5000", "tokens", "import", "many.db"],
        cwd=terminal.folder,
        env=environment(**terminal.variables),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (process.returncode, process.stderr) == (130, b"Interrupted; nothing was changed.\n")
    assert [file.name for file in terminal.folder.iterdir()] == ["many.db"]


def test_ctrl_c_in_the_middle_leaves_what_was_there(terminal: Terminal) -> None:
    many(terminal.folder / "many.db")
    terminal.quick("tokens", "create", "alice")
    terminal.sql(f"update {TABLE} set id = 20000")
    script = DYING.replace("signal.SIGKILL", "signal.SIGINT")
    process = subprocess.run(
        [sys.executable, "-c", script, "5000", "tokens", "import", "many.db"],
        cwd=terminal.folder,
        env=environment(**terminal.variables),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (process.returncode, process.stderr) == (130, b"Interrupted; nothing was changed.\n")
    assert terminal.sql(f"select id from {TABLE}") == [(20_000,)]


def test_ctrl_c_after_the_commit_says_that_it_came_too_late(terminal: Terminal) -> None:
    """Also where nobody could say so but the database itself."""
    terminal.quick("tokens", "create", "alice")
    terminal.quick("tokens", "create", "bob", "--database", "new.db")
    terminal.sql(f"update {TABLE} set id = 2", file="new.db")
    script = textwrap.dedent(
        """
        import os, signal
        from asgi_token_auth.cli import main
        from asgi_token_auth.databases.sqlite import SQLite

        transaction = SQLite._transaction

        async def interrupted(self, steps, *more):
            result = await transaction(self, steps, *more)
            os.kill(os.getpid(), signal.SIGINT)
            return result

        SQLite._transaction = interrupted
        main()
        """
    )
    process = subprocess.run(
        [sys.executable, "-c", script, "tokens", "import", "tokens.db", "--database", "new.db"],
        cwd=terminal.folder,
        env=environment(**terminal.variables),
        capture_output=True,
        timeout=PATIENCE,
    )
    sentence = b"Interrupted; but the change had been made by then.\n"
    assert (process.returncode, process.stderr) in ((130, sentence), (0, b"Imported 1 token; 0 there already.\n"))
    assert terminal.sql(f"select id from {TABLE} order by id", file="new.db") == [(1,), (2,)]


@pytest.mark.parametrize(
    "values", ["('x')", "(null)", "(0)", "(-7)", "(1.5)", "(1e300)", "(9223372036854775808)", "(x'ff')", "(3), (3)"]
)
def test_ids_that_are_none_are_refused(terminal: Terminal, values: str) -> None:
    """A table without a key, as a spreadsheet or a copy of a copy makes one, may hold anything."""
    terminal.quick("tokens", "create", "alice", "--database", "source.db")
    terminal.sql(f"create table copied as select * from {TABLE} where 0", file="source.db")
    terminal.sql(f"drop table {TABLE}", file="source.db")
    terminal.sql("alter table copied rename to " + TABLE, file="source.db")
    terminal.sql(f"insert into {TABLE} (id) values {values}", file="source.db")
    for dry in ([], ["--dry-run"]):
        assert "must be a whole number from 1" in terminal.fails("tokens", "import", "source.db", *dry)
    assert [file.name for file in terminal.folder.iterdir()] == ["source.db"]


def test_events_that_cannot_be_read_are_refused(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice", "--database", "source.db")
    terminal.sql(f"update {TABLE}_events set at_timestamp = 'soon'", file="source.db")
    for dry in ([], ["--dry-run"]):
        assert "what happened to token 1 cannot be read" in terminal.fails("tokens", "import", "source.db", *dry)
    assert [file.name for file in terminal.folder.iterdir()] == ["source.db"]


def test_a_dry_run_refuses_a_target_that_the_import_would_refuse(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice", "--database", "source.db")
    terminal.quick("tokens", "create", "bob")
    terminal.sql(f"delete from {TABLE}")
    terminal.sql(f"insert into {TABLE}_migrations (name) values ('9999_future')")
    for dry in ([], ["--dry-run"]):
        assert "newer release" in terminal.fails("tokens", "import", "source.db", *dry)
    terminal.sql(f"create table {TABLE} (id integer primary key, note text)", file="foreign.db")
    before = terminal.sql("select sql from sqlite_master", file="foreign.db")
    for dry in ([], ["--dry-run"]):
        sentence = terminal.fails("tokens", "import", "source.db", "--database", "foreign.db", *dry)
        assert "is not one of tokens" in sentence
    assert terminal.sql("select sql from sqlite_master", file="foreign.db") == before


def test_a_folder_that_is_missing_is_a_sentence(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice", "--database", "source.db")
    sentence = terminal.fails("tokens", "import", "source.db", "--database", "nowhere/tokens.db")
    assert "cannot be made: No such file or directory" in sentence


def test_a_new_file_is_in_wal_and_nothing_is_beside_it(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice", "--database", "source.db")
    done = terminal.run("tokens", "import", "source.db")
    assert "tokens.db is new." in done.err
    assert {file.name for file in terminal.folder.iterdir()} == {"source.db", "tokens.db"}
    assert terminal.sql("pragma journal_mode") == [("wal",)]


def test_json_has_a_row_per_token(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    done = terminal.run("tokens", "import", "tokens.db", "--database", os.path.join(".", "new.db"), "--json")
    assert json.loads(done.out)["tokens"] == [{"id": 1, "actor_id": "alice", "status": "active", "new": True}]
