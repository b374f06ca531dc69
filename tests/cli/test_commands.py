"""The root of the command line, and what needs no module of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support.terminal import SECRET, Terminal, environment


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
    assert "did you mean tokens?" in terminal.fails("tokenz", code=2)
    assert "No such option" in terminal.fails("tokens", "list", "--what", code=2)
    assert SECRET not in terminal.quick("tokens", "create", "--help").out
