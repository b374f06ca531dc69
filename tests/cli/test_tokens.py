"""``tokens``: every command as a process, what it does and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from click.testing import CliRunner

from asgi_token_auth.cli.commands import root
from asgi_token_auth.cli.output import format_table
from tests.support.terminal import SECRET, Terminal, create, environment, verdict

# create


def test_create_prints_the_token_and_nothing_else(terminal: Terminal) -> None:
    done = terminal.run("tokens", "create", "alice", "--description", "CI", "-a", "view-instance")
    assert done.out.count("\n") == 1
    assert verdict(terminal, done.out)["id"] == "alice"
    assert "expires in 90 days" in done.err
    assert "tokens.db is new" in done.err
    assert terminal.sql("select permissions from _datasette_auth_tokens") == [('{"a": ["view-instance"]}',)]


def test_create_as_json_with_every_option(terminal: Terminal) -> None:
    made = terminal.run(
        *("tokens", "create", "--json"),
        *("alice", "-e", "2h", "--by", "bob", "-a", "view-instance", "-a", "vd"),
        *("-d", "demo", "insert-row", "-r", "demo", "foo", "update-row"),
    ).json
    details = made["details"]
    assert details["restrictions"] == {
        "a": ["view-instance", "vd"],
        "d": {"demo": ["insert-row"]},
        "r": {"demo": {"foo": ["update-row"]}},
    }
    assert verdict(terminal, made["token"])["_r"] == details["restrictions"]
    life = terminal.sql("select expires_after_seconds from _datasette_auth_tokens")
    assert life == [(7_200,)]
    assert terminal.sql("select by_actor_id from _datasette_auth_tokens_events") == [("bob",)]
    assert create(terminal, "alice", "--never")["details"]["expires_at"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([""], "An actor id must be text"),
        (["alice", "-e", "0"], "Give 1 second or more"),
        (["alice", "-e", "-5"], "is no length of time"),
        (["alice", "-e", "soon"], "is no length of time"),
        (["alice", "-e", "1d", "--never"], "not both"),
        (["alice", "-e", "99999d"], "a hundred years"),
        (["alice", "--description", "x" * 1_001], "at most 1,000 characters"),
        (["alice", "-a", ""], "an action must be a string that is not empty"),
        (["alice", "-d", "demo", ""], "an action must be a string that is not empty"),
        ([], "Missing argument 'ACTOR'"),
    ],
)
def test_create_refuses_misuse_and_makes_nothing(terminal: Terminal, arguments: list[str], sentence: str) -> None:
    done = CliRunner(env=terminal.variables).invoke(
        root, ["tokens", "create", "--database", str(terminal.folder / "tokens.db"), *arguments]
    )
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert list(terminal.folder.iterdir()) == []


def test_create_warns_of_a_weak_secret_and_refuses_an_empty_one(terminal: Terminal) -> None:
    assert "may be guessed" in terminal.run("tokens", "create", "alice", DATASETTE_SECRET="short").err
    assert "empty" in terminal.fails("tokens", "create", "alice", "-s", "", code=2)
    assert "Missing secret" in terminal.fails("tokens", "create", "alice", DATASETTE_SECRET="", code=2)


def full(terminal: Terminal, *arguments: str) -> tuple[int, str]:
    """A command whose standard output is full: its exit code and its last words."""
    with open("/dev/full", "wb") as output:
        process = terminal.start(*arguments, stdout=output)
        _, err = process.communicate(timeout=60)
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_token_whose_text_cannot_be_written_is_not_created(terminal: Terminal, options: list[str]) -> None:
    create(terminal, "alice")
    sentence = "Error: The text of the token could not be written: No space left on device. No token was created.\n"
    assert full(terminal, "tokens", "create", "alice", *options) == (1, sentence)
    assert terminal.sql("select token_status from _datasette_auth_tokens") == [("A",)]
    assert terminal.sql("select count(*) from _datasette_auth_tokens_events") == [(1,)]


@pytest.mark.parametrize("options", [[], ["--json"], ["--grace", "1h"]])
def test_a_token_whose_new_text_cannot_be_written_keeps_the_old_one(terminal: Terminal, options: list[str]) -> None:
    old = create(terminal, "alice")["token"]
    code, err = full(terminal, "tokens", "rotate", "1", *options)
    assert (code, "the old text goes on working" in err) == (1, True)
    assert verdict(terminal, old)["id"] == "alice"
    assert terminal.sql("select event from _datasette_auth_tokens_events") == [("created",)]


KILLED = """
import os, signal, sys
from asgi_token_auth.cli import main
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.errors import StorageError

when = sys.argv.pop(1)
transaction = SQLite._transaction

async def killed(self, steps, *more):
    def until_the_end():
        result = yield from steps
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    result = await transaction(self, until_the_end(), *more)
    os.kill(os.getpid(), signal.SIGKILL)

SQLite._transaction = killed
main()
"""


ROTATE = ("tokens", "rotate", "1")
FAILING = "raise StorageError('the disk is gone.')"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_beside_the_commit_leaves_one_text_that_works(terminal: Terminal, when: str) -> None:
    old = create(terminal, "alice")["token"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, when, "tokens", "rotate", "1"],
        cwd=terminal.folder,
        env=environment(**terminal.variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    works = [text for text in (old, done.stdout) if isinstance(verdict(terminal, text), dict)]
    assert works == [old if when == "before" else done.stdout]


def test_a_commit_that_fails_takes_back_what_was_written(terminal: Terminal) -> None:
    old = create(terminal, "alice")["token"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", FAILING), "before", *ROTATE],
        cwd=terminal.folder,
        env=environment(**terminal.variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "The text that was written does not work. Nothing was changed" in done.stderr
    assert verdict(terminal, old)["id"] == "alice"
    assert verdict(terminal, done.stdout) == "unknown token"


@pytest.mark.parametrize("arguments", [["create", "bob"], ["rotate", "1"]])
def test_what_cannot_be_said_about_a_token_does_not_end_it(terminal: Terminal, arguments: list[str]) -> None:
    create(terminal, "alice")
    with open("/dev/full", "wb") as output:
        process = terminal.start("tokens", *arguments, stderr=output)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert isinstance(verdict(terminal, out.decode()), dict)


# list


def test_list_filters(terminal: Terminal) -> None:
    old, new, other = (create(terminal, owner)["details"]["id"] for owner in ("alice", "alice", "bob"))
    terminal.run("tokens", "revoke", str(new))
    terminal.sql(
        "update _datasette_auth_tokens set created_timestamp = created_timestamp - 86400 * 50 where id = ?", old
    )
    terminal.sql("update _datasette_auth_tokens set description = 'backup' where id = ?", other)

    def ids(*filters: str) -> list[int]:
        return [token["id"] for token in terminal.quick("tokens", "list", "--json", *filters).json]

    assert ids() == [other, new, old]
    assert ids("--status", "active") == [other, old]
    assert ids("--owner", "alice") == [new, old]
    assert ids("--search", "BACK") == [other]
    assert ids("--unused-for", "30") == [old]
    assert ids("--owner", "nobody") == []
    assert "no such tokens" in terminal.run("tokens", "list", "--owner", "nobody").err
    assert "Invalid value" in terminal.fails("tokens", "list", "--status", "gone", code=2)


def test_list_tells_every_token_beyond_one_page(terminal: Terminal) -> None:
    create(terminal, "alice")
    terminal.sql(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < 2500) insert into "
        "_datasette_auth_tokens (id, actor_id, permissions, created_timestamp) select i, 'bob', 'null', 1 from n"
    )
    assert len(terminal.run("tokens", "list", "--json").json) == 2_500
    assert len(terminal.run("tokens", "list").out.splitlines()) == 2_501


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_the_list_fits_the_terminal(terminal: Terminal, width: int) -> None:
    create(terminal, "a-rather-long-actor-id@example.com", "--description", "日本語の説明 " * 20)
    lines = terminal.run("tokens", "list", COLUMNS=str(width)).out.splitlines()
    assert len(lines) == 2
    import unicodedata

    for line in lines:
        assert sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) <= width
    assert lines[1].startswith("1   active")


def test_a_table_that_goes_into_a_file_is_not_shortened() -> None:
    text = format_table(["ID", "TEXT"], [["1", "x" * 500]], width=None, shrinks=["TEXT"])
    assert "x" * 500 in text


def test_what_people_wrote_cannot_command_the_terminal(terminal: Terminal) -> None:
    create(terminal, "alice\x1b[31m", "--description", "\x1b]0;gotcha\x07\n\u202etxt")
    for arguments in (("list",), ("show", "1"), ("revoke", "--all-of", "alice\x1b[31m", "-y")):
        done = terminal.run("tokens", *arguments)
        assert not {"\x1b", "\x07", "\u202e"} & set(done.out + done.err)


def test_times_are_told_in_words(terminal: Terminal) -> None:
    create(terminal, "alice", "-e", "36h")
    line = terminal.run("tokens", "list").out.splitlines()[1]
    assert "never" in line
    assert " in " in line
    assert "all" in line


# show


def test_show_tells_the_token_and_its_history(terminal: Terminal) -> None:
    create(terminal, "alice", "--by", "bob", "-d", "demo", "view-table")
    terminal.run("tokens", "revoke", "1", "--by", "carol")
    out = terminal.run("tokens", "show", "1").out
    assert "revoked" in out
    assert "by bob" in out
    assert "by carol" in out
    assert "Database: demo" in out
    shown = terminal.quick("tokens", "show", "1", "--json").json
    assert shown["status"] == "revoked"
    assert [(event["event"], event["by"]) for event in shown["events"]] == [("created", "bob"), ("revoked", "carol")]


def test_an_unknown_id_is_a_sentence(terminal: Terminal) -> None:
    create(terminal, "alice")
    for arguments in (["show", "99"], ["edit", "99", "--never"], ["rotate", "99"], ["revoke", "99"]):
        assert terminal.fails("tokens", *arguments) == "There is no token 99."
    for wrong in ("0", "-1", "abc", "1.5"):
        terminal.quick("tokens", "show", "--", wrong, code=2)
    assert "no such token" in terminal.fails("tokens", "show", str(2**63))


# edit


def test_edit_changes_what_is_named_and_nothing_else(terminal: Terminal) -> None:
    create(terminal, "alice", "--description", "old", "-a", "view-instance")
    before = terminal.quick("tokens", "show", "1", "--json").json
    after = terminal.run("tokens", "edit", "1", "--description", "new", "--json").json
    changed = {"description": "new", "version": after["version"]}
    assert after == {**{name: before[name] for name in after}, **changed}
    assert after["version"] != before["version"]
    edited = terminal.run("tokens", "edit", "1", "-e", "1d", "-a", "view-table", "--json").json
    assert edited["restrictions"] == {"a": ["view-table"]}
    assert edited["expires_at"] < before["expires_at"]
    assert "never" in terminal.run("tokens", "edit", "1", "--never", "--unrestricted").out
    freed = terminal.quick("tokens", "show", "1", "--json").json
    assert (freed["restrictions"], freed["expires_at"], freed["description"]) == (None, None, "new")
    assert terminal.run("tokens", "edit", "1", "--description", "", "--json").json["description"] is None


def test_edit_refuses_what_makes_no_sense(terminal: Terminal) -> None:
    create(terminal, "alice")
    assert "Nothing to change" in terminal.fails("tokens", "edit", "1", code=2)
    assert "not both" in terminal.fails("tokens", "edit", "1", "--unrestricted", "-a", "vi", code=2)
    terminal.run("tokens", "revoke", "1")
    assert "only an active one" in terminal.fails("tokens", "edit", "1", "--never")


# rotate


def test_rotate_prints_a_new_text_and_ends_the_old_one(terminal: Terminal) -> None:
    old = create(terminal, "alice")["token"]
    new = terminal.run("tokens", "rotate", "1").out
    assert verdict(terminal, new)["id"] == "alice"
    assert verdict(terminal, old) == "unknown token"
    newer = terminal.run("tokens", "rotate", "1", "--grace", "1h", "--json").json["token"]
    assert verdict(terminal, newer)["id"] == verdict(terminal, new)["id"] == "alice"
    assert "90 days at most" in terminal.fails("tokens", "rotate", "1", "--grace", "91d", code=2)
    terminal.run("tokens", "revoke", "1")
    assert "only an active one" in terminal.fails("tokens", "rotate", "1")


@pytest.mark.parametrize(
    "arguments",
    [["revoke"], ["show"], ["rotate"], ["edit", "--never"], ["show", "1"], ["list"], ["revoke", "--all-of", "x"]],
)
def test_a_token_in_a_wrong_place_is_not_repeated(terminal: Terminal, arguments: list[str]) -> None:
    token = create(terminal, "alice")["token"]
    done = terminal.run("tokens", *arguments, token, code=2)
    assert token[10:] not in done.out + done.err
    assert token[10:] not in terminal.run(token, code=2).err


# prune


def test_prune_deletes_what_ended_long_ago_and_asks_first(terminal: Terminal) -> None:
    for _ in range(3):
        create(terminal, "alice")
    terminal.quick("tokens", "revoke", "1")
    terminal.quick("tokens", "revoke", "2")
    terminal.sql("update _datasette_auth_tokens set ended_timestamp = ? where id = 1", int(time.time()) - 100 * 86_400)
    prune = ("tokens", "prune", "--ended-for", "90d")
    assert terminal.run(*prune, "--dry-run").out == "1 token would be deleted.\n"
    assert terminal.run(*prune, "--dry-run", "--json").json == {"pruned": 0, "found": 1}
    assert "nobody said yes" in terminal.fails(*prune)
    assert terminal.sql("select count(*) from _datasette_auth_tokens") == [(3,)]
    assert terminal.run(*prune, "--yes").out == "Deleted 1 token.\n"
    assert terminal.sql("select id from _datasette_auth_tokens order by id") == [(2,), (3,)]
    assert terminal.run(*prune, "--json").json == {"pruned": 0, "found": 0}
    assert "Missing option" in terminal.fails("tokens", "prune", code=2)


def test_a_table_of_something_else_is_left_alone(terminal: Terminal) -> None:
    terminal.sql("create table _datasette_auth_tokens (id integer primary key, token_status, ended_timestamp)")
    terminal.sql("insert into _datasette_auth_tokens values (1, 'R', 1), (2, 'A', null)")
    before = terminal.sql("select sql from sqlite_master")
    for arguments in (["prune", "--ended-for", "1d", "--yes"], ["list"], ["create", "alice"], ["revoke", "1"]):
        assert "is not one of tokens" in terminal.fails("tokens", *arguments)
    assert terminal.sql("select sql from sqlite_master") == before
    assert len(terminal.sql("select * from _datasette_auth_tokens")) == 2


def test_secrets_stay_out_of_the_process_list(terminal: Terminal) -> None:
    token = create(terminal, "alice")["token"]
    process = terminal.start("tokens", "revoke", "-")
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            shown = file.read()
        children = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
        out, err = process.communicate(token.encode(), timeout=60)
    finally:
        process.kill()
    assert b"is revoked" in out, err
    for secret in (SECRET, token):
        assert secret.encode() not in shown
        assert secret not in children
        assert secret.encode() not in out + err


def test_everything_that_shows_has_json(terminal: Terminal) -> None:
    create(terminal, "alice")
    for arguments in (["list"], ["show", "1"], ["edit", "1", "--never"], ["rotate", "1"], ["revoke", "1"]):
        json.loads(terminal.run("tokens", *arguments, "--json").out)


def test_times_before_the_epoch_match_nothing(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    assert "alice" not in terminal.run("tokens", "list", "--unused-for", "30000").out
    terminal.run("tokens", "prune", "--ended-for", "30000d", "--yes")


def test_tokens_that_begin_otherwise(terminal: Terminal) -> None:
    """A server whose block says so would not know those with the usual beginning."""
    variables: dict[str, Any] = {"ASGI_TOKEN_AUTH_PREFIX": "acme_"}
    token = terminal.quick("tokens", "create", "alice", "--prefix", "acme_").out.strip()
    assert token.startswith("acme_")
    assert "accepted" in terminal.quick("decode", stdin=token, **variables).out
    rotated = terminal.quick("tokens", "rotate", "1", **variables).out.strip().splitlines()[-1]
    assert rotated.startswith("acme_")
    assert "standard input" in terminal.quick("tokens", "revoke", rotated, code=2, **variables).err
    # Nor is it repeated by a command that does not know the beginning.
    assert rotated not in terminal.run("tokens", "list", "--status", rotated, code=2).err
    assert "is revoked" in terminal.quick("tokens", "revoke", "-", stdin=rotated, **variables).out
    sentence = terminal.quick("tokens", "create", "alice", "--prefix", token, code=2).err
    assert "letters and digits" in sentence
    assert token not in sentence
