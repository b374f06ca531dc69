"""What is given as a database and is none: refused before anything is made, and never repeated."""

from __future__ import annotations

import json

import pytest

from tests.support.terminal import Terminal

PASSWORD = "hunter2"
OTHER_KINDS = (
    f"postgresql+asyncpg://u:{PASSWORD}@h/db",
    f"POSTGRESQL://u:{PASSWORD}@h/db",
    f" postgresql://u:{PASSWORD}@h/db",
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
        assert "no such kind of database" in done.err
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
