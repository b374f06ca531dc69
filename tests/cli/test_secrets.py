"""``secrets``: every command as a process, what it does and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet

from asgi_token_auth import SecretStore
from asgi_token_auth.cli.commands import root
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.encryption import generate_key
from tests.support.terminal import PATIENCE, Terminal

# The same in every process that collects these tests, whose names hold them.
OLD, NEW = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (250, 251))
VALUE = "a-value-that-nobody-may-see"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, ASGI_TOKEN_AUTH_DATABASE="secrets.db", ASGI_TOKEN_AUTH_ENCRYPTION_KEY=OLD)


def read(terminal: Terminal, name: str, *keys: str) -> str | None:
    """What a server would get."""

    async def ask() -> str | None:
        store = SecretStore(SQLite(terminal.folder / "secrets.db"), encryption_key=keys or [OLD], environ={})
        async with store:
            return await store.get_secret(name)

    return asyncio.run(ask())


def rows(terminal: Terminal) -> list[Any]:
    return terminal.sql("select * from datasette_secrets order by id", file="secrets.db")


def test_a_key_is_printed_and_nothing_else(terminal: Terminal) -> None:
    done = terminal.run("secrets", "generate-encryption-key")
    assert (done.out.count("\n"), done.err) == (1, "")
    Fernet(done.out.strip())
    assert terminal.quick("secrets", "generate-encryption-key").out != done.out


def test_a_value_from_standard_input_is_stored_and_never_told(terminal: Terminal) -> None:
    done = terminal.run("secrets", "set", "API_KEY", "--note", "from the vendor", "--by", "alice", stdin=VALUE + "\n")
    assert done.out == "Secret API_KEY is set, version 1.\n"
    assert done.err == "secrets.db is new.\n"
    assert read(terminal, "API_KEY") == VALUE
    assert terminal.sql("select created_by, note from datasette_secrets", file="secrets.db") == [
        ("alice", "from the vendor")
    ]
    done = terminal.run("secrets", "set", "API_KEY", "--json", stdin="line one\nline two\r\n\n")
    assert done.err == "What is stored: 20 characters in 3 lines. It ends with a line end.\n"
    again = done.json
    assert (again["name"], again["version"], again["note"], again["source"]) == (
        "API_KEY",
        2,
        "from the vendor",
        "stored",
    )
    assert read(terminal, "API_KEY") == "line one\nline two\r\n\n"


@pytest.mark.parametrize(
    ("given", "kept", "said"),
    [
        ("sk-1\r\n", "sk-1", ""),
        ("sk-1\n\n", "sk-1\n\n", "What is stored: 6 characters in 2 lines. It ends with a line end.\n"),
        ("sk-1\r", "sk-1", ""),
        (" sk-1", " sk-1", "What is stored: 5 characters in 1 line. It begins with a space.\n"),
        ("a\nb", "a\nb", "What is stored: 3 characters in 2 lines.\n"),
        ("a\nb\n", "a\nb\n", "What is stored: 4 characters in 2 lines. It ends with a line end.\n"),
    ],
)
def test_lines_are_stored_as_they_come_and_what_nobody_sees_is_said(
    terminal: Terminal, given: str, kept: str, said: str
) -> None:
    terminal.run("secrets", "set", "API_KEY", stdin="one")
    assert terminal.quick("secrets", "set", "API_KEY", stdin=given).err == said
    assert read(terminal, "API_KEY") == kept


@pytest.mark.parametrize("again", ["another value", VALUE])
def test_at_a_terminal_the_value_is_asked_for_twice_and_not_shown(terminal: Terminal, again: str) -> None:
    with terminal.at("secrets", "set", "API_KEY") as screen:
        screen.wait_for(b"Value of API_KEY: ")
        screen.type(VALUE.encode() + b"\n")
        screen.wait_for(b"The same again: ")
        screen.type(again.encode() + b"\n")
        if again == VALUE:
            screen.wait_for(b"Secret API_KEY is set, version 1.")
            assert screen.process.wait(PATIENCE) == 0
            assert read(terminal, "API_KEY") == VALUE
        else:
            screen.wait_for(b"do not match")
            screen.wait_for(b"Value of API_KEY: ")
            screen.type(b"\x04")
            screen.wait_for(b"Interrupted; nothing was changed.")
            assert screen.process.wait(PATIENCE) == 130
            assert not (terminal.folder / "secrets.db").exists()
    assert VALUE.encode() not in screen.shown


@pytest.mark.parametrize(
    ("typed", "errors", "sentence"),
    [
        (b"\xff\xfe", "strict", b"not valid UTF-8"),
        # As Python reads in the locale C.
        (b"\xff\xfe", "surrogateescape", b"not valid UTF-8"),
        (b"x" * 5_000, "strict", b"cuts off what is so long"),
    ],
)
def test_what_a_terminal_cannot_hand_over_is_refused(
    terminal: Terminal, typed: bytes, errors: str, sentence: bytes
) -> None:
    shell = Terminal(terminal.folder, **terminal.variables, PYTHONIOENCODING=f"utf-8:{errors}")
    with shell.at("secrets", "set", "API_KEY") as screen:
        screen.wait_for(b"Value of API_KEY: ")
        screen.type(typed + b"\n")
        if typed.isascii() or errors != "strict":
            screen.wait_for(b"The same again: ")
            screen.type(typed + b"\n")
        screen.wait_for(sentence)
        assert screen.process.wait(PATIENCE) == 1
    assert b"Unexpected" not in screen.shown
    assert not (terminal.folder / "secrets.db").exists()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"", "holds no secret"),
        (b"\n\r\n", "holds no secret"),
        (b"   ", "not empty"),
        (b"\xff", "not valid UTF-8"),
        (b"x" * 65_537, "more than 65,536 bytes"),
        (OLD.encode(), "encryption key, which must not be kept"),
    ],
)
def test_a_value_that_cannot_be_one_is_refused(terminal: Terminal, value: bytes, sentence: str) -> None:
    terminal.run("secrets", "set", "API_KEY", stdin="one")
    before = rows(terminal)
    assert sentence in terminal.fails("secrets", "set", "API_KEY", stdin=value)
    assert rows(terminal) == before


def test_the_longest_value_is_taken(terminal: Terminal) -> None:
    terminal.run("secrets", "set", "API_KEY", stdin="x" * 65_536 + "\r\n")
    assert read(terminal, "API_KEY") == "x" * 65_536


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["set", ""], {}, "1 to 200 characters"),
        (["set", "x" * 10_000], {}, "1 to 200 characters"),
        (["set", "a\nb"], {}, "control characters"),
        (["set", "A", "--note", "x" * 101], {}, "at most 100 characters"),
        (["set", "A", "--by", ""], {}, "actor id"),
        (["set"], {}, "Missing argument 'NAME'"),
        (["set", "A", "the value"], {}, "The value is read from standard input"),
        (["set", "A"], {"ASGI_TOKEN_AUTH_ENCRYPTION_KEY": None}, "set the variable ASGI_TOKEN_AUTH_ENCRYPTION_KEY"),
        (["set", "A"], {"ASGI_TOKEN_AUTH_ENCRYPTION_KEY": " , "}, "Missing encryption key"),
        (["set", "A"], {"ASGI_TOKEN_AUTH_ENCRYPTION_KEY": "short"}, "Encryption key: the key is not 32 bytes"),
        (["rotate"], {"ASGI_TOKEN_AUTH_ENCRYPTION_KEY": f"{OLD} {OLD}"}, "key 2 of 2 is there twice"),
        (["note", "A", "x" * 101], {}, "at most 100 characters"),
        (["list"], {"ASGI_TOKEN_AUTH_DATABASE": None}, "Missing option '--database'"),
    ],
)
def test_misuse_is_refused_and_nothing_made(
    terminal: Terminal, arguments: list[str], variables: dict[str, str | None], sentence: str
) -> None:
    done = CliRunner(env={**terminal.variables, **variables}).invoke(root, ["secrets", *arguments], input=VALUE)
    assert done.exit_code == 2
    assert sentence in " ".join(done.stderr.split())
    assert OLD not in done.stderr
    assert list(terminal.folder.iterdir()) == []


def test_a_note_is_changed_without_a_key(terminal: Terminal) -> None:
    terminal.quick("secrets", "set", "API_KEY", stdin="one")
    keyless: dict[str, Any] = {"ASGI_TOKEN_AUTH_ENCRYPTION_KEY": ""}
    assert terminal.run("secrets", "note", "API_KEY", "May", "--by", "bob", **keyless).out == (
        "The note of secret API_KEY is changed.\n"
    )
    assert terminal.quick("secrets", "note", "API_KEY", "June", "--json").json["note"] == "June"
    assert terminal.quick("secrets", "note", "API_KEY", "").out == "The note of secret API_KEY is removed.\n"
    assert terminal.fails("secrets", "note", "OTHER", "x") == "There is no secret 'OTHER'."


def test_the_list_tells_all_but_values(terminal: Terminal) -> None:
    for name in ("Z", "a/b c", "日本語"):
        terminal.quick("secrets", "set", name, "--note", f"note of {name}", "--by", "alice", stdin=VALUE)
    read(terminal, "Z")
    lines = terminal.run("secrets", "list", ASGI_TOKEN_AUTH_ENCRYPTION_KEY="").out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "CHANGED", "BY", "LAST", "USED", "NOTE"]
    assert len(lines) == 4
    assert "ago" in lines[1] or "now" in lines[1]
    assert "note of Z" in lines[1]
    assert "never" in lines[2]
    # What another process has in its environment says nothing of the server.
    listed = terminal.run("secrets", "list", "--json", DATASETTE_SECRETS_Z="from the environment").json
    assert [(secret["name"], secret["source"]) for secret in listed] == [
        ("Z", "stored"),
        ("a/b c", "stored"),
        ("日本語", "stored"),
    ]
    assert VALUE not in str(listed)
    terminal.quick("secrets", "delete", "-y", "Z")
    assert len(terminal.quick("secrets", "list", "--json").json) == 2
    for name in ("a/b c", "日本語"):
        terminal.quick("secrets", "delete", "-y", name)
    done = terminal.quick("secrets", "list")
    assert (done.out, done.err) == ("", "There are no secrets.\n")


def test_what_people_wrote_cannot_command_the_terminal(terminal: Terminal) -> None:
    terminal.quick("secrets", "set", "API_KEY", stdin="one")
    terminal.sql("update datasette_secrets set name = ?, note = ?", "a\x1b[31m", "\x1b]0;gotcha\x07", file="secrets.db")
    for arguments in (("list",), ("note", "a\x1b[31m", "x"), ("delete", "-y", "a\x1b[31m"), ("delete", "a\x1b[31m")):
        done = terminal.quick("secrets", *arguments, code=1 if arguments[:2] == ("delete", "a\x1b[31m") else 0)
        assert not {"\x1b", "\x07"} & set(done.out + done.err)


def test_delete_asks_first(terminal: Terminal) -> None:
    terminal.quick("secrets", "set", "API_KEY", stdin="one")
    before = rows(terminal)
    assert "nobody said yes" in terminal.fails("secrets", "delete", "API_KEY")
    assert rows(terminal) == before
    done = terminal.run("secrets", "delete", "API_KEY", "--by", "carol", stdin="y\n", ASGI_TOKEN_AUTH_ENCRYPTION_KEY="")
    assert done.out == "Secret API_KEY is deleted.\n"
    assert read(terminal, "API_KEY") is None
    assert terminal.sql("select encrypted, deleted_by from datasette_secrets", file="secrets.db") == [(b"", "carol")]
    assert terminal.fails("secrets", "delete", "API_KEY", "--yes") == "There is no secret 'API_KEY'."
    terminal.quick("secrets", "set", "API_KEY", stdin="two")
    assert terminal.run("secrets", "delete", "API_KEY", "--yes", "--json").json["source"] is None


def test_rotate_with_keys_from_the_variable_and_from_files(terminal: Terminal) -> None:
    terminal.quick("secrets", "set", "API_KEY", stdin="one")
    terminal.quick("secrets", "set", "API_KEY", stdin="two")
    both: dict[str, Any] = {"ASGI_TOKEN_AUTH_ENCRYPTION_KEY": f"{OLD}, {NEW}\n"}
    assert terminal.run("secrets", "rotate", "--by", "alice", **both).out == (
        "Encrypted 2 values with the newest key; 0 values had it already.\n"
    )
    assert terminal.run("secrets", "rotate", "--json", **both).json == {"rewritten": 0, "unchanged": 2}
    assert read(terminal, "API_KEY", NEW) == "two"
    for name, key, mode in (("new", NEW, 0o600), ("newest", generate_key(), 0o640)):
        file = terminal.folder / name
        file.write_text(f"\ufeff{key}\n")
        file.chmod(mode)
    done = terminal.run("secrets", "rotate", "--encryption-key-file", "new", "--encryption-key-file", "newest")
    assert done.out.startswith("Encrypted 2 values")
    # The variable is not asked, where files are named.
    assert read(terminal, "API_KEY", (terminal.folder / "newest").read_text().strip("\ufeff\n")) == "two"
    assert done.err.count("Warning: other users") == 1
    assert "newest; chmod go-rwx" in done.err


def test_rotate_stops_at_a_secret_that_cannot_be_read(terminal: Terminal) -> None:
    terminal.quick("secrets", "set", "FINE", stdin="one")
    terminal.quick("secrets", "set", "LOST", stdin="two", ASGI_TOKEN_AUTH_ENCRYPTION_KEY=generate_key())
    before = rows(terminal)
    sentence = terminal.fails("secrets", "rotate", ASGI_TOKEN_AUTH_ENCRYPTION_KEY=f"{OLD} {NEW}")
    assert "'LOST' (version 1) cannot be decrypted" in sentence
    assert rows(terminal) == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file"),
        (b"", "holds no key"),
        (b"\xff", "not valid UTF-8"),
        (b"x" * 70_000, "is longer than 65,536 bytes"),
    ],
)
def test_a_key_file_that_cannot_be_one_is_refused(terminal: Terminal, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (terminal.folder / "key").write_bytes(content)
        (terminal.folder / "key").chmod(0o600)
    assert sentence in terminal.fails("secrets", "set", "A", "--encryption-key-file", "key", stdin=VALUE)
    assert not (terminal.folder / "secrets.db").exists()


def test_a_database_without_secrets_is_a_sentence(terminal: Terminal) -> None:
    for arguments in (["list"], ["note", "A", "x"], ["delete", "A", "-y"], ["rotate"]):
        assert "There is no file" in terminal.quick("secrets", *arguments, code=1).err
    terminal.quick("tokens", "create", "alice", DATASETTE_SECRET="x" * 20, ASGI_TOKEN_AUTH_DATABASE="tokens.db")
    there: dict[str, Any] = {"ASGI_TOKEN_AUTH_DATABASE": "tokens.db"}
    for arguments in (["list"], ["note", "A", "x"], ["delete", "A", "-y"], ["rotate"]):
        assert "tokens.db holds no secrets" in terminal.quick("secrets", *arguments, code=1, **there).err
    assert "datasette_secrets" not in terminal.tables("tokens.db")
    done = terminal.quick("secrets", "set", "A", stdin="one", **there)
    assert "tokens.db held no secrets until now." in done.err


def test_a_table_of_datasette_secrets_is_only_changed_by_what_writes(terminal: Terminal) -> None:
    terminal.sql(
        "create table datasette_secrets (id integer primary key, name text not null, note text, version integer not "
        "null default 1, encrypted blob, encryption_key_name text not null, created_at text, created_by text, "
        "updated_at text, updated_by text, deleted_at text, deleted_by text, last_used_at text, last_used_by text)",
        file="secrets.db",
    )
    terminal.sql(
        "insert into datasette_secrets (name, encrypted, encryption_key_name) values ('A', ?, 'default')",
        Fernet(OLD).encrypt(b"one"),
        file="secrets.db",
    )
    assert "of datasette-secrets, and this command only reads" in terminal.fails("secrets", "list")
    assert terminal.tables("secrets.db") == {"datasette_secrets"}
    assert terminal.run("secrets", "rotate").out.startswith("Encrypted 1 value with")
    assert read(terminal, "A") == "one"


def test_values_and_keys_stay_out_of_the_process_list(terminal: Terminal) -> None:
    process = terminal.start("secrets", "set", "API_KEY")
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            shown = file.read()
        children = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
        out, err = process.communicate(VALUE.encode(), timeout=PATIENCE)
    finally:
        process.kill()
    assert b"is set" in out, err
    for secret in (VALUE, OLD):
        assert secret.encode() not in shown
        assert secret not in children
        assert secret.encode() not in out + err
        assert not any(secret.encode() in file.read_bytes() for file in terminal.folder.iterdir())


def test_without_the_extra_it_is_said_what_to_install(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("asgi_token_auth.secrets.encryption")
    monkeypatch.setitem(sys.modules, "asgi_token_auth.secrets.encryption", None)
    for arguments in (["generate-encryption-key"], ["set", "A"], ["rotate"]):
        done = terminal.quick("secrets", *arguments, code=1)
        assert done.err == "Error: Encrypting needs one more package: pip install 'asgi-token-auth[secrets]'.\n"


def test_everything_has_json(terminal: Terminal) -> None:
    terminal.quick("secrets", "set", "A", "--json", stdin="one")
    for arguments in (["list"], ["note", "A", "x"], ["rotate"], ["delete", "A", "-y"]):
        assert terminal.quick("secrets", *arguments, "--json").json
