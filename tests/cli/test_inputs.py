"""What commands read that is no text, or that comes slowly."""

from __future__ import annotations

import os
import subprocess

from tests.support.terminal import Terminal, command, environment, wait_until_waiting


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
