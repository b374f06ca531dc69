"""What is given as a database: what is none is refused before anything is made, and a password is never repeated."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.terminal import Terminal, environment, through_shell

PASSWORD = "hunter2"
OTHER_KINDS = (
    f"postgresql+asyncpg://u:{PASSWORD}@h/db",
    f"POSTGRESQL://u:{PASSWORD}@h/db",
    f"postgresql:/u:{PASSWORD}@h/db",
    f"mysql://u:{PASSWORD}@h/db",
    f"jdbc:postgresql://h/db?password={PASSWORD}",
    f"host=h password={PASSWORD} dbname=x",
    f"user=u password = {PASSWORD}",
    "sqlite:///tokens.db",
    "file:tokens.db?mode=ro",
)
# Of the right kind, and not usable.
BROKEN = (f"postgresql://u:{PASSWORD}@[::1/db", f"postgresql://u:{PASSWORD}", f"postgresql://u:{PASSWORD},h:5432/db")
COMMANDS = (
    ["tokens", "list"],
    ["tokens", "create", "alice"],
    ["tokens", "import", "there.db"],
    ["tokens", "import", "there.db", "--dry-run"],
    ["secrets", "list"],
)


@pytest.mark.parametrize("address", [*OTHER_KINDS, ":memory:"])
def test_another_kind_of_database(terminal: Terminal, address: str) -> None:
    terminal.quick("tokens", "create", "bob", "--database", "there.db")
    for arguments in COMMANDS:
        done = terminal.quick(*arguments, code=2, ASGI_TOKEN_AUTH_DATABASE=address)
        assert ("in memory" if address == ":memory:" else "no such kind of database") in done.err
        assert PASSWORD not in done.err
    done = terminal.quick("tokens", "import", address, "--database", "there.db", code=2)
    assert PASSWORD not in done.err
    assert [path.name for path in terminal.folder.iterdir()] == ["there.db"]


@pytest.mark.parametrize("address", BROKEN)
def test_a_dsn_that_cannot_be_used_is_a_sentence_without_its_password(terminal: Terminal, address: str) -> None:
    refused = terminal.fails("tokens", "list", ASGI_TOKEN_AUTH_DATABASE=address)
    assert "PostgreSQL database" in refused or "it cannot be read; write it as" in refused
    assert PASSWORD not in refused


@pytest.mark.parametrize("address", [*OTHER_KINDS, *BROKEN, f"postgresql://u:{PASSWORD}@127.0.0.1:1/x?sslmode=disable"])
def test_check_repeats_none_either(terminal: Terminal, address: str) -> None:
    (terminal.folder / "config.json").write_text(json.dumps({"plugins": {"asgi-token-auth": {"manage_tokens": True}}}))
    for given in (address, f"tokens={address}"):
        done = terminal.quick("check", "config.json", "--database", given, code=2 if given in OTHER_KINDS else None)
        assert done.code in (1, 2), done
        assert PASSWORD not in done.out + done.err


def test_check_wants_each_name_once(terminal: Terminal) -> None:
    (terminal.folder / "config.json").write_text("{}")
    assert "two have the same name" in terminal.fails(
        "check", "config.json", "--database", "a=one.db", "--database", "a=two.db", code=2
    )


@pytest.mark.parametrize("arguments", [["decode", "--database"], ["check", "config.json", "--database"]], ids=str)
def test_a_password_in_an_option_is_hinted_at_by_every_command(terminal: Terminal, arguments: list[str]) -> None:
    (terminal.folder / "config.json").write_text("{}")
    address = f"postgresql://u:{PASSWORD}@127.0.0.1:1/db"
    done = terminal.quick(*arguments, f"tokens={address}" if arguments[0] == "check" else address, code=None, stdin="x")
    assert "PGPASSWORD and ~/.pgpass are not" in done.err
    assert PASSWORD not in done.err


def test_a_file_may_have_any_name_all_the_same(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice", "--database", "./host=1")
    assert (terminal.folder / "host=1").exists()


READING = (["list"], ["show", "1"], ["prune", "--ended-for", "1d", "--dry-run"])


CHANGING = (["edit", "1", "--never"], ["rotate", "1"], ["revoke", "1"], ["revoke", "--all-of", "alice", "-y"])


@pytest.mark.parametrize("arguments", [*READING, *CHANGING], ids=" ".join)
def test_a_missing_database_is_not_made(terminal: Terminal, arguments: list[str]) -> None:
    assert "There is no file tokens.db" in terminal.fails("tokens", *arguments)
    assert list(terminal.folder.iterdir()) == []


@pytest.mark.parametrize("arguments", [*READING, *CHANGING], ids=" ".join)
def test_a_foreign_database_is_left_as_it_is(terminal: Terminal, arguments: list[str]) -> None:
    terminal.sql("create table t (x)")
    before = (terminal.folder / "tokens.db").read_bytes()
    assert "holds no tokens" in terminal.fails("tokens", *arguments)
    assert (terminal.folder / "tokens.db").read_bytes() == before


@pytest.mark.parametrize("arguments", [READING[0], CHANGING[2], ["create", "alice"]], ids=" ".join)
def test_what_is_no_database(terminal: Terminal, arguments: list[str]) -> None:
    (terminal.folder / "tokens.db").write_bytes(b"no database" * 200)
    assert "not a SQLite database" in terminal.fails("tokens", *arguments)
    assert "It is a folder" in terminal.fails("tokens", *arguments, "--database", ".", code=2)
    refused = terminal.run("tokens", *arguments, "--database", "postgres://u:hunter2@127.0.0.1:9/d", code=1).err
    assert "cannot be reached" in refused
    assert "options are seen by other users" in refused
    assert "hunter2" not in refused


def test_tables_of_the_predecessor_are_not_migrated_by_reading(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    terminal.sql("drop table _datasette_auth_tokens_migrations")
    before = terminal.tables("tokens.db")
    for arguments in READING:
        assert "this command only reads" in terminal.fails("tokens", *arguments)
    assert terminal.tables("tokens.db") == before
    terminal.quick("tokens", "revoke", "1")
    assert terminal.quick("tokens", "show", "1", "--json").json["status"] == "revoked"


def test_a_locked_database_changes_nothing_and_says_so(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    with closing(sqlite3.connect(terminal.folder / "tokens.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        processes = [terminal.start("tokens", *arguments) for arguments in (["create", "bob"], ["revoke", "1"])]
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 1
            assert b"another writer holds its lock; it is safe to try again" in err
            assert out == b""
        # Reading does not wait for a writer.
        assert len(terminal.run("tokens", "list", "--json").json) == 1
        other.execute("rollback")
    assert terminal.sql("select actor_id, token_status from _datasette_auth_tokens") == [("alice", "A")]


AS_NOBODY = """
import os, sys
import aiosqlite, click
import asgi_token_auth.cli.commands, asgi_token_auth.cli.process, asgi_token_auth.databases.sqlite
from asgi_token_auth.cli import main

# Not earlier: the packages may lie where only their owner reads.
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
main()
"""


def test_a_file_that_cannot_be_written(terminal: Terminal) -> None:
    # Not in the test's own folder, whose parents are closed to the user without rights.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = str(folder / "tokens.db")
        terminal.quick("tokens", "create", "alice", "--database", database)
        # Without the files beside it, which this user may not make, WAL cannot be read.
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("pragma journal_mode = delete")
        Path(database).chmod(0o444)
        folder.chmod(0o555)
        try:
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, "tokens", "revoke", "1", "--database", database],
                env=environment(**terminal.variables),
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            folder.chmod(0o755)
    assert done.returncode == 1
    assert "can only be read" in done.stderr
    assert "Traceback" not in done.stderr


LONG = "x" * 5_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokens", "list", "--database", LONG],
        ["tokens", "create", "alice", "--database", LONG],
        ["tokens", "import", LONG],
        ["tokens", "import", "tokens.db", "--database", LONG],
        ["create-token", "root", "--secret-file", LONG],
        ["check", f"{LONG}.json"],
        ["check", "config.json", "--database", f"tokens={LONG}"],
        ["decode", "--database", LONG],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_path_that_is_too_long(terminal: Terminal, arguments: list[str]) -> None:
    token = terminal.quick("tokens", "create", "alice").out
    (terminal.folder / "config.json").write_text('{"manage_tokens": true}')
    done = terminal.run(*arguments, stdin=token, code=1)
    assert "name too long" in (done.out + done.err).replace("File name", "name") or "no file" in done.err.lower()
    assert "output could not be written" not in done.err


def test_a_file_is_not_called_new_by_a_command_that_failed(terminal: Terminal) -> None:
    done = terminal.run("tokens", "create", "alice", "--database", "nowhere/tokens.db", code=1)
    assert "is new" not in done.err
    assert "is new" not in through_shell(terminal, "$it tokens create alice >/dev/full").stderr.decode()
