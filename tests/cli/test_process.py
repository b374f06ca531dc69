"""Whatever happens to the process, a command ends with a sentence and its exit code, and nothing is half done."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.terminal import Terminal, command, environment, through_shell, wait_until_waiting


def test_closed_streams(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    for line, words in (
        ("$it decode <&-", b"Standard input is closed"),
        ("$it tokens revoke --all-of alice <&-", b"nobody said yes"),
        ("$it tokens create bob >&-", b"Standard output is closed"),
        ("$it tokens show 9 2>&-", b""),
    ):
        done = through_shell(terminal, line)
        assert done.returncode == 1, done
        assert words in done.stderr
        assert b"Traceback" not in done.stderr
    assert terminal.sql("select actor_id, token_status from _datasette_auth_tokens") == [("alice", "A")]


def test_a_reader_that_has_gone(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    terminal.sql(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < 5000) insert into "
        "_datasette_auth_tokens (id, actor_id, permissions, created_timestamp) select i, 'bob', 'null', 1 from n"
    )
    for arguments in ("tokens list", "tokens list --json", "generate-secret", "--help"):
        done = through_shell(terminal, f"($it {arguments}; echo $? >code) | true")
        assert done.stderr == b""
        assert int((terminal.folder / "code").read_text()) in (0, 1)
    done = through_shell(terminal, "$it tokens list | head -n 1")
    assert done.stdout.startswith(b"ID ")
    assert done.stderr == b""
    reader, writer = os.pipe()
    os.close(reader)
    for words in (["tokens", "list"], ["generate-secret"]):
        process = terminal.start(*words, stdout=writer)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (1, b"")
    for words, sentence in (
        (["tokens", "create", "carol"], b"No token was created"),
        (["tokens", "revoke", "1"], b"The change was made, but what tells so could not be written"),
    ):
        process = terminal.start(*words, stdout=writer)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert sentence in err
    os.close(writer)
    # Nobody would have the text of that token.
    assert terminal.sql("select count(*) from _datasette_auth_tokens where actor_id = 'carol'") == [(0,)]
    assert terminal.sql("select token_status from _datasette_auth_tokens where id = 1") == [("R",)]


def test_a_full_disk_behind_standard_output(terminal: Terminal) -> None:
    done = through_shell(terminal, "$it generate-secret >/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"Error: The output could not be written: No space left on device.\n"


def test_ctrl_c_at_a_question(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    process = terminal.start("tokens", "revoke", "--all-of", "alice")
    assert process.stderr is not None
    question = b""
    while b"[y/N]" not in question:
        question += os.read(process.stderr.fileno(), 1_000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"Interrupted; nothing was changed.\n")
    assert terminal.quick("tokens", "show", "1", "--json").json["status"] == "active"


def test_without_click_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError('no click', name='click')")
    done = subprocess.run(
        [sys.executable, "-m", "asgi_token_auth"],
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "The command line needs one more package: pip install 'asgi-token-auth[cli]'.\n"


# Modules of ours and of others, early and late, each of which is interrupted while it is imported.
@pytest.mark.parametrize("module", ["asyncio", "itsdangerous", "click", "aiosqlite", "sqlite3"])
@pytest.mark.parametrize("way", ["module", "script"])
def test_ctrl_c_while_the_command_starts(terminal: Terminal, module: str, way: str) -> None:
    fakes = terminal.folder / "fakes"
    fakes.mkdir()
    (fakes / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport nothing_more\n")
    script = shutil.which("asgi-token-auth", path=os.path.dirname(sys.executable))
    assert script is not None
    process = subprocess.run(
        [*(command() if way == "module" else [script]), "tokens", "create", "alice"],
        cwd=terminal.folder,
        env=environment(**terminal.variables, PYTHONPATH=str(fakes)),
        capture_output=True,
        timeout=60,
    )
    assert (process.returncode, process.stdout) == (130, b"")
    assert process.stderr == b"Interrupted; nothing was changed.\n"
    assert not (terminal.folder / "tokens.db").exists()


def test_a_shell_may_have_said_that_ctrl_c_is_not_for_the_command(terminal: Terminal) -> None:
    """As for commands in the background of a script."""
    done = through_shell(terminal, "trap '' INT; $it decode & pid=$!; kill -INT $pid; wait $pid")
    assert done.returncode == 1
    assert b"Interrupted" not in done.stderr


def test_ctrl_c_during_a_change_waits_for_it(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    script = """
import os, signal
from asgi_token_auth.cli import main
from asgi_token_auth.databases.sqlite import database

drive = database.drive

async def interrupted(steps, run):
    os.kill(os.getpid(), signal.SIGINT)
    return await drive(steps, run)

database.drive = interrupted
main()
"""
    for arguments, told in (
        (["create", "bob"], b"dsatok_"),
        (["rotate", "1"], b"dsatok_"),
        (["edit", "1", "--description", "x"], b"Description: x"),
        (["revoke", "1"], b"Token 1 is revoked"),
        (["revoke", "--all-of", "bob", "-y"], b"Revoked 1 token"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, "tokens", *arguments],
            cwd=terminal.folder,
            env=environment(**terminal.variables),
            capture_output=True,
            timeout=60,
        )
        assert told in done.stdout, (arguments, done)
        assert done.returncode == 0


def test_ctrl_c_while_another_process_holds_the_lock(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    with closing(sqlite3.connect(terminal.folder / "tokens.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        process = terminal.start("tokens", "revoke", "1")
        wait_until_waiting(process.pid, "epoll_wait", "ep_poll")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == b"Interrupted; waiting for the change that has begun.\n"
        other.execute("rollback")
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == b"Token 1 is revoked, and so are those created through it.\n"
    assert err == b""


def test_ctrl_c_on_standard_input_and_in_the_output(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    terminal.sql(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < 5000) insert into "
        "_datasette_auth_tokens (id, actor_id, permissions, created_timestamp) select i, 'bob', 'null', 1 from n"
    )
    for arguments in (["tokens", "list"], ["tokens", "revoke", "-"]):
        process = terminal.start(*arguments)
        assert process.stdout is not None
        if arguments[1] == "list":
            # More comes than the pipe can hold, so the command waits for its reader.
            os.read(process.stdout.fileno(), 1)
        wait_until_waiting(process.pid)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, b"Interrupted; nothing was changed.\n")


def test_a_reader_that_does_not_read_holds_up_nobody_else(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(writer, b"x")
    os.set_blocking(writer, True)
    process = terminal.start("tokens", "rotate", "1", stdout=writer)
    os.close(writer)
    wait_until_waiting(process.pid)
    with closing(sqlite3.connect(terminal.folder / "tokens.db", isolation_level=None, timeout=0)) as other:
        other.execute("begin immediate")
        other.execute("rollback")
    with open(reader, "rb") as output:
        shown = output.read()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, shown[filled : filled + 7]) == (0, b"dsatok_"), err


def test_misuse_is_misuse_where_nothing_can_be_said(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    for line, code in (
        ("$it nope 2>/dev/full", 2),
        ("$it tokens show 2 2>/dev/full", 1),
        ("$it tokens list --owner nobody 2>/dev/full", 0),
        ("echo y | $it tokens revoke --all-of alice 2>/dev/full", 1),
        ("$it --help >/dev/full", 1),
        ("$it tokens list --help >/dev/full", 1),
    ):
        assert through_shell(terminal, line).returncode == code, line
    assert terminal.sql("select token_status from _datasette_auth_tokens") == [("A",)]


def test_a_change_that_could_not_be_told_is_told_as_made(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    done = through_shell(terminal, "$it tokens revoke 1 >/dev/full")
    assert done.returncode == 1
    assert b"The change was made, but" in done.stderr
