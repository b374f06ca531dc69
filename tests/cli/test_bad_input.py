"""Whatever comes, a command ends with a sentence, exit code 1 or 2, and nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer
from itsdangerous.encoding import base64_encode

from tests.support.terminal import SECRET, Terminal, command, environment

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
    assert "is a directory" in terminal.fails("tokens", *arguments, "--database", ".", code=2)
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
            assert b"another process holds its lock; it is safe to try again" in err
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


def test_arguments_and_input_that_are_no_utf_8(terminal: Terminal) -> None:
    for raw in ([b"create-token", b"\xff"], [b"tokens", b"create", b"\xff"], [b"\xff"]):
        done = subprocess.run(
            [*(os.fsencode(part) for part in command()), *raw],
            cwd=terminal.folder,
            env=environment(**terminal.variables),
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"Error: An argument is not valid UTF-8.\n")
    for arguments in (["decode"], ["tokens", "revoke", "-"]):
        terminal.quick("tokens", "create", "alice")
        assert "not valid UTF-8" in terminal.fails(*arguments, stdin=b"\xff\xfe")
        assert "holds no token" in terminal.fails(*arguments, stdin=b" \n")
        assert "more than" in terminal.fails(*arguments, stdin=b"x" * 100_000)


def test_variables_that_are_no_utf_8(terminal: Terminal) -> None:
    done = subprocess.run(
        command("create-token", "root"),
        env={**os.environb, b"DATASETTE_SECRET": b"\xff" * 20},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, b"Error: The secret is not valid UTF-8.\n")
    done = subprocess.run(
        command("tokens", "list"),
        env={**os.environb, b"ASGI_TOKEN_AUTH_DATABASE": b"\xff.db"},
        capture_output=True,
        timeout=60,
    )
    sentence = b"Error: The path of a database cannot be used: it is not valid UTF-8.\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def through_shell(terminal: Terminal, line: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in which ``$it`` is the command."""
    return subprocess.run(
        ["/bin/sh", "-c", line.replace("$it", " ".join(command()))],
        cwd=terminal.folder,
        env=environment(**terminal.variables),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


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


def test_version_completion_and_the_installed_script(terminal: Terminal) -> None:
    assert terminal.run("--version").out.startswith("asgi-token-auth ")
    script = shutil.which("asgi-token-auth", path=os.path.dirname(sys.executable))
    assert script is not None
    done = subprocess.run(
        [script], env=environment(_ASGI_TOKEN_AUTH_COMPLETE="bash_source"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "_asgi_token_auth_completion" in done.stdout
    words = environment(
        _ASGI_TOKEN_AUTH_COMPLETE="bash_complete", COMP_WORDS="asgi-token-auth tokens re", COMP_CWORD="2"
    )
    done = subprocess.run([script], env=words, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["plain,revoke"]


def test_generated_secrets_differ_and_serve(terminal: Terminal) -> None:
    first, second = (terminal.run("generate-secret").out.strip() for _ in range(2))
    assert len(first) == len(second) == 64
    assert first != second
    assert terminal.run("create-token", "root", DATASETTE_SECRET=first).err == ""


def test_unknown_commands_are_misuse(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    assert "at most 200 characters" in terminal.quick("tokens", "list", "--search", "x" * 201, code=2).err
    assert "is empty" in terminal.quick("tokens", "list", "--database", "", code=2).err
    assert "No such command" in terminal.fails("tokenz", code=2)
    assert "No such option" in terminal.fails("tokens", "list", "--what", code=2)
    assert SECRET not in terminal.quick("tokens", "create", "--help").out


def test_names_that_somebody_else_chose_cannot_write_on_the_terminal(terminal: Terminal) -> None:
    """A token that is handed to somebody must not be able to print a verdict of its own."""
    evil = "\x1b[2J\nVerdict: accepted"
    signed = URLSafeSerializer("a secret of somebody else", salt="token")
    token = "dstok_" + signed.dumps({"a": "x", "t": 1, "_r": {"d": {evil: ["vi"]}}})
    shown = terminal.run("decode", stdin=token, code=1).out
    assert "\x1b" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("Verdict: accepted")]


@pytest.mark.parametrize("payload", [{"a": "\ud800", "t": 1}, {"a": "x", "t": 1, "_r": {"d": {"\ud800": ["vi"]}}}])
def test_a_token_that_spells_what_is_no_text_is_told_apart_calmly(
    terminal: Terminal, payload: dict[str, object]
) -> None:
    text = base64_encode(json.dumps(payload)).decode()
    for options in ([], ["--json"]):
        assert "bad signature" in terminal.run("decode", *options, stdin=f"dstok_{text}.{'x' * 27}", code=1).out


@pytest.mark.parametrize("block", [None, [], "text", {}])
def test_an_empty_section_of_a_configuration_is_said_to_be_empty(terminal: Terminal, block: object) -> None:
    (terminal.folder / "config.json").write_text(json.dumps({"plugins": {"asgi-token-auth": block}}))
    done = terminal.run("check", "config.json", code=1)
    assert "nothing is configured" in done.out + done.err


def test_times_before_the_epoch_match_nothing(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    assert "alice" not in terminal.run("tokens", "list", "--unused-for", "30000").out
    terminal.run("tokens", "prune", "--ended-for", "30000d", "--yes")


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
from asgi_token_auth.databases import sqlite

drive = sqlite.drive

async def interrupted(steps, run):
    os.kill(os.getpid(), signal.SIGINT)
    return await drive(steps, run)

sqlite.drive = interrupted
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
        wait_until_waiting(process.pid, "hrtimer_nanosleep")
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


def wait_until_waiting(pid: int, *places: str) -> None:
    """Until a process, or one of its threads, sleeps in a read or a write, or in ``places``."""
    deadline = time.monotonic() + 60
    seen = 0
    while seen < 10 and time.monotonic() < deadline:
        where = ""
        for thread in Path(f"/proc/{pid}/task").glob("*/wchan"):
            # Threads end.
            with suppress(OSError):
                where += thread.read_text()
        seen = seen + 1 if any(place in where for place in places or ("pipe", "poll_schedule")) else 0
        time.sleep(0.01)
    assert seen == 10, "it did not wait"


def test_streams_that_do_not_wait(terminal: Terminal) -> None:
    """Whoever has the other end may have made them so, a Node process for one."""
    token = terminal.quick("tokens", "create", "alice").out
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    for words, text in ((["decode"], token.encode()), (["tokens", "revoke", "--all-of", "alice"], b"y\n")):
        process = terminal.start(*words, stdin=reader)
        wait_until_waiting(process.pid)
        os.write(writer, text[:1])
        os.write(writer, text[1:])
        if words == ["decode"]:
            os.close(writer)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert b"Traceback" not in err
        os.close(reader)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
    os.close(reader)
    os.close(writer)
    terminal.sql(
        "with recursive n(i) as (select 2 union all select i + 1 from n where i < 5000) insert into "
        "_datasette_auth_tokens (id, actor_id, permissions, created_timestamp) select i, 'bob', 'null', 1 from n"
    )
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = terminal.start("tokens", "list", stdout=writer)
    os.close(writer)
    wait_until_waiting(process.pid)
    with open(reader, "rb") as output:
        shown = output.read()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert shown.count(b"\n") == 5_001


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
