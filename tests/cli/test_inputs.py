"""What commands read that is no text, or that comes slowly."""

from __future__ import annotations

import asyncio
import os
import subprocess

from asgi_token_auth import SecretStore
from asgi_token_auth.databases.sqlite import SQLite
from tests.support.terminal import SECRET, Terminal, command, environment, verdict, wait_until_waiting


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


def test_what_stands_around_secrets_tokens_and_keys_is_read_as_servers_read_it(terminal: Terminal) -> None:
    """PowerShell, Notepad and env files."""
    file = terminal.folder / "secret.txt"
    file.write_bytes(b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n")
    file.chmod(0o600)
    token = terminal.run("tokens", "create", "alice", "--secret-file", "secret.txt").out.strip()
    assert verdict(terminal, token)["id"] == "alice"
    for secret in (f'"{SECRET}"', f"{SECRET}\r", f"\ufeff{SECRET}\n"):
        done = terminal.quick("tokens", "create", "bob", DATASETTE_SECRET=secret)
        assert verdict(terminal, done.out)["id"] == "bob"
        assert "Warning: the secret:" in done.err
        assert SECRET not in done.err
    for around in ("\ufeff{}\r\n", "Bearer {}", '"{}"', "Authorization: Bearer {}\n"):
        given = around.format(token)
        assert "accepted" in terminal.quick("decode", stdin=given).out
        assert "accepted" in terminal.quick("decode", given).out
    assert "is revoked" in terminal.run("tokens", "revoke", "-", stdin=f"\ufeffBearer {token}\r\n").out
    # What may be meant is refused by its name.
    assert "UTF-16" in terminal.fails("decode", stdin=token.encode("utf-16"))
    assert "UTF-16" in terminal.fails("tokens", "revoke", "-", stdin=token.encode("utf-16-le"))
    file.write_bytes(SECRET.encode("utf-16"))
    assert "UTF-16" in terminal.fails("create-token", "root", "--secret-file", "secret.txt")
    file.write_text(f"{SECRET}\nand another line\n")
    assert "more than one line" in terminal.fails("create-token", "root", "--secret-file", "secret.txt")
    sentence = terminal.quick("tokens", "list", ASGI_TOKEN_AUTH_DATABASE="tokens.db\r", code=2).err
    assert "a line end behind it" in sentence
    assert "quotes" in terminal.quick("tokens", "list", "--database", '"tokens.db"', code=2).err


def test_a_yes_that_begins_with_a_mark(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    done = terminal.run("tokens", "revoke", "--all-of", "alice", stdin=b"\xef\xbb\xbfy\r\n")
    assert "Revoked 1 token" in done.out


def test_a_value_that_begins_with_a_mark_is_stored_without_it(terminal: Terminal) -> None:
    key = terminal.quick("secrets", "generate-encryption-key").out.strip()
    (terminal.folder / "key").write_bytes(b"\xef\xbb\xbf'" + key.encode() + b"'\r\n")
    (terminal.folder / "key").chmod(0o600)
    arguments = ("secrets", "set", "A", "--encryption-key-file", "key")
    assert "byte-order mark" in terminal.run(*arguments, stdin=b'\xef\xbb\xbf"quoted"\r\n').err
    assert "UTF-16" in terminal.fails(*arguments, stdin="value".encode("utf-16"))

    async def read() -> str:
        async with SecretStore(SQLite(terminal.folder / "tokens.db"), encryption_key=key) as store:
            return await store.get_secret("A") or ""

    assert asyncio.run(read()) == '"quoted"'
