"""A secret that stands in the wrong place of a command, or of a block, and is not repeated there."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import ConfigurationError, from_config
from asgi_token_auth.config.block import _KEYS  # pyright: ignore[reportPrivateUsage]
from asgi_token_auth.decoding import looks_like_path, shown_variable
from asgi_token_auth.secrets.encryption import generate_key
from tests.support.configured import nobody
from tests.support.terminal import Terminal

SECRET = "hunter2hunter2hunter2"
#: Where people put one, and what they are told.
SLIPS = {
    f"secrets set NAME {SECRET}": "standard input",
    f"secrets set NAME --encryption-key-file {SECRET}": "not repeated",
    f"secrets set NAME --encryption-key-file ab/{SECRET}==": "not repeated",
    f"secrets list {SECRET}": "more arguments",
    f"secrets --{SECRET}=x": "what begins with a hyphen",
    f"tokens list --database user:{SECRET}@host/db": "no such kind of database",
    f"tokens list --database {SECRET}": "not repeated",
    f"tokens list --database /{SECRET}": "not repeated",
    f"tokens import {SECRET}": "not repeated",
    f"tokens list --status {SECRET}": "one of active, revoked, expired",
    f"tokens list --unused-for {SECRET}": "a whole number from 0 to 36500",
    f"tokens prune --ended-for {SECRET}": "no length of time",
    f"tokens create alice -e {SECRET}": "no length of time",
    f"tokens create --{SECRET}": "what begins with a hyphen",
    f"tokens {SECRET}": "no such command",
    f"create-token alice -e {SECRET}": "a whole number",
    f"create-token alice {SECRET}": "more arguments",
    f"create-token alice --secret-file ab/{SECRET}": "cannot be read",
    f"create-token alice --plugins-dir {SECRET}": "no such folder",
    f"decode a {SECRET}": "more arguments",
    f"check {SECRET}": "ends in .json or .toml",
    f"check dsatok_{SECRET}.{SECRET}.{SECRET}": "ends in .json or .toml",
    f"check c.json --database {SECRET}": "a name and a path",
    f"check c.json --database db=user:{SECRET}@host/db": "no such kind of database",
    f"generate-secret {SECRET}": "more arguments",
    SECRET: "no such command",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_secret_in_the_wrong_place_is_not_repeated(terminal: Terminal, slip: str) -> None:
    done = terminal.quick(*slip.split(), stdin="value", code=None)
    assert done.code in (1, 2)
    assert SLIPS[slip] in done.out + done.err
    assert SECRET not in done.out + done.err
    assert not (terminal.folder / SECRET).exists()


def test_a_folder_in_place_of_a_file_is_called_one(terminal: Terminal) -> None:
    (terminal.folder / "folder").mkdir()
    for arguments in (["tokens", "list", "--database", "folder"], ["check", "folder"]):
        assert "It is a folder; give the path of a file." in terminal.quick(*arguments, code=2).err


def test_what_was_meant_is_told(terminal: Terminal) -> None:
    assert "did you mean tokens?" in terminal.quick("token", code=2).err
    assert "'--databas'" in terminal.quick("tokens", "list", "--databas", "x.db", code=2).err
    assert "There is no file nowhere.db" in terminal.quick("tokens", "list", "--database", "nowhere.db", code=1).err


def test_a_path_is_told_from_a_secret(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "there").touch()
    for path in ("a.db", "./word", "../word", str(tmp_path / "word"), str(tmp_path / "there"), "/etc/nowhere/word"):
        assert looks_like_path(path), path
    for path in (
        SECRET,
        generate_key(),
        f"dsatok_{SECRET}.{SECRET}",
        f"u:{SECRET}@h/d.db",
        "/word",
        "ab/cd==",
        "a\nb.db",
    ):
        assert not looks_like_path(path), path


def test_a_value_in_place_of_a_name_is_not_repeated(tmp_path: Path) -> None:
    for value in ({"$file": SECRET}, {"$env": SECRET}, {"$file": f"ab/{SECRET}"}):
        with pytest.raises(ConfigurationError, match=r"secret: the .*not repeated") as raised:
            from_config(nobody, {"manage_tokens": True, "secret": value})
        assert SECRET not in str(raised.value)
    with pytest.raises(ConfigurationError) as raised:
        from_config(nobody, SECRET)
    assert SECRET not in str(raised.value)
    assert shown_variable("BOT_TOKEN") == "BOT_TOKEN"
    assert shown_variable("JBSWY3DPEHPK3PXPJBSWY3DP") != "JBSWY3DPEHPK3PXPJBSWY3DP"


def test_no_key_of_a_block_repeats_what_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does what a report of the error shows besides, such as a path in the error of the operating system."""
    monkeypatch.setenv("DATASETTE_SECRET", "only-for-this-test-of-odd-values")
    odd: list[Any] = [
        {"$file": SECRET},
        {"$env": SECRET},
        {"$env": f"\ud800{SECRET}"},
        {"$file": f"\ud800{SECRET}"},
        {SECRET: True},
        [{SECRET: 1}],
        [{"token": SECRET, "actor": {"id": {1}}}],
        [f"https://user:{SECRET}@host"],
        [f"https://host/?token={SECRET}"],
        f"postgresql://user:{SECRET}@host:port/db",
        f"{SECRET}\0",
        f"\ud800{SECRET}",
    ]
    refused = 0
    for key in _KEYS:
        for value in odd:
            block = {"manage_tokens": True, "manage_tokens_database": "tokens", key: value}
            said = ""
            try:
                from_config(nobody, block, databases={"tokens": "never-opened.db"}, signed_in=lambda scope: None)
            except ConfigurationError as error:
                said = "".join(traceback.format_exception(error))
                refused += 1
            assert SECRET not in said, (key, value)
    assert refused > 250


def test_a_variable_that_nothing_filled_makes_no_file(terminal: Terminal) -> None:
    for path in ("${DB}", "$DB", "%DB%"):
        said = terminal.quick("tokens", "create", "alice", "--database", path, code=2).err
        assert "is the name of a variable and not its value" in said
        assert not (terminal.folder / path).exists()
