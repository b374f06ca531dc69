"""``create-token``: what Datasette's own command prints, but for what it should not have taken."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asgi_token_auth.cli import actions
from asgi_token_auth.cli.commands import root
from asgi_token_auth.restrictions import DATASETTE_ABBREVIATIONS
from asgi_token_auth.signing import SigningSecrets, datasette_signer
from tests.support.sites import needs_1_0
from tests.support.terminal import SECRET, Terminal, environment

NOW = 1_700_000_000

_NAMES = ["demo", "my db", "ünïcode", "a.b/c", "", "x" * 200, "☃", "'quoted\"", "-dash"]
_ACTIONS = [*DATASETTE_ABBREVIATIONS, "vi", "vt", "auth-tokens-create", "no-such-action", "", "a b"]
_SECRETS = ["s", "secret", SECRET, "pass phrase with ünïcode ☃", "0" * 500, " "]


def random_arguments(seed: int) -> list[str]:
    """One set of arguments; repetitions are likely, because Datasette keeps them and their order."""
    chance = random.Random(seed)
    arguments = ["--secret", chance.choice(_SECRETS)]
    for _ in range(chance.choice([0, 0, 1, 2, 5])):
        arguments += [chance.choice(["-a", "--all"]), chance.choice(_ACTIONS)]
    for _ in range(chance.choice([0, 0, 1, 3])):
        arguments += [chance.choice(["-d", "--database"]), chance.choice(_NAMES[:3]), chance.choice(_ACTIONS)]
    for _ in range(chance.choice([0, 0, 1, 3])):
        names = chance.choice(_NAMES[:3]), chance.choice(_NAMES)
        arguments += [chance.choice(["-r", "--resource"]), *names, chance.choice(_ACTIONS)]
    if chance.random() < 0.5:
        arguments += [chance.choice(["-e", "--expires-after"]), str(chance.choice([1, 60, 3_600, 10**9, 10**30]))]
    if chance.random() < 0.5:
        arguments.append("--debug")
    return [*arguments, "--", chance.choice(["root", "12", "ünïcode", "a b", "-x", "☃" * 50, '"'])]


@pytest.fixture
def theirs() -> Callable[[list[str]], str]:
    from datasette.cli import cli

    def run(arguments: list[str]) -> str:
        done = CliRunner().invoke(cli, ["create-token", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def ours(arguments: list[str]) -> str:
    done = CliRunner().invoke(root, ["create-token", *arguments])
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout


@pytest.mark.datasette("1.0")
def test_two_hundred_random_sets_of_arguments_give_what_datasette_gives(
    theirs: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + 0.9)
    # Datasette is asked for its actions once and not 200 times.
    monkeypatch.setattr("asgi_token_auth.cli.create_token.known_actions", functools.cache(actions.known_actions))
    seen = set()
    for seed in range(200):
        arguments = random_arguments(seed)
        expected = theirs(arguments)
        assert ours(arguments) == expected, arguments
        seen.add(expected)
    # The sets differ from each other, or the comparison would prove little.
    assert len(seen) > 150


@pytest.mark.datasette("1.0")
def test_actions_of_a_plugin_are_shortened_as_datasette_shortens_them(
    theirs: Callable[[list[str]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    (tmp_path / "plugin_of_this_test.py").write_text(
        "from datasette import hookimpl\n"
        "from datasette.permissions import Action\n"
        "@hookimpl\n"
        "def register_actions(datasette):\n"
        "    return [Action(name='bake-cake', abbr='bc', description='Bake')]\n"
    )
    arguments = ["root", "--secret", SECRET, "-a", "bake-cake", "--debug", "--plugins-dir", str(tmp_path)]
    try:
        printed = theirs(arguments)
        assert ours(arguments) == printed
        assert '"bc"' in printed
    finally:
        from datasette.plugins import pm

        for plugin in pm.get_plugins():
            if getattr(plugin, "__name__", "").startswith("plugin_of_this_test"):
                pm.unregister(plugin)


async def _actor_of(token: str, secret: str) -> Any:
    from datasette.app import Datasette

    datasette = Datasette(secret=secret)
    try:
        return await datasette.verify_token(token)
    finally:
        datasette.close()


@needs_1_0
@pytest.mark.anyio
async def test_datasette_accepts_the_token(terminal: Terminal) -> None:
    done = terminal.run("create-token", "root", "-e", "600", "-a", "view-instance")
    actor = await _actor_of(done.out.strip(), SECRET)
    assert (actor["id"], actor["_r"]) == ("root", {"a": ["vi"]})
    assert done.err == ""


@needs_1_0
def test_the_same_as_datasette_as_real_processes(terminal: Terminal) -> None:
    arguments = ["create-token", "root", "-a", "view-instance", "-d", "demo", "insert-row", "--debug"]
    printed = terminal.run(*arguments).out
    theirs = subprocess.run(
        [sys.executable, "-m", "datasette", *arguments],
        env=environment(**terminal.variables),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # They may have run in different seconds, so their second is put in place of ours.
    payload = json.loads(printed.partition("Decoded:")[2])
    payload["t"] = json.loads(theirs.partition("Decoded:")[2])["t"]
    token = "dstok_" + datasette_signer(SigningSecrets([SECRET])).sign(payload)
    assert theirs == f"{token}\n\nDecoded:\n\n{json.dumps(payload, indent=2)}\n"
    assert printed.splitlines()[1:4] == theirs.splitlines()[1:4]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["", "--secret", "s"], "The actor ID is empty."),
        (["root", "--secret", ""], "The secret is empty"),
        (["root", "-e", "0"], "--expires-after must be 1 second or more"),
        (["root", "-e", "-5"], "--expires-after must be 1 second or more"),
        (["root", "-e", "abc"], "must be a whole number"),
        (["root", "-d", "demo"], "requires 2 arguments"),
        (["root", "--plugins-dir", "nowhere"], "There is no such folder"),
        ([], "Missing argument 'ID'"),
        (["root", "--secret", "s", "--secret-file", "f"], "not both"),
    ],
)
def test_misuse_is_refused_with_a_sentence(terminal: Terminal, arguments: list[str], sentence: str) -> None:
    assert sentence in terminal.fails("create-token", *arguments, code=2)


def test_without_a_secret_it_says_where_one_may_come_from(tmp_path: Path) -> None:
    sentence = Terminal(tmp_path).fails("create-token", "root", code=2)
    assert "DATASETTE_SECRET" in sentence
    assert "--secret-file" in sentence


def test_a_secret_given_by_option_brings_a_hint_and_wins_over_the_variable(terminal: Terminal) -> None:
    done = terminal.run("create-token", "root", "-s", "short")
    assert "the variable DATASETTE_SECRET is not" in done.err
    assert "shorter than 16 characters" in done.err
    assert done.out != terminal.run("create-token", "root").out


def test_a_secret_may_stand_in_a_file(terminal: Terminal) -> None:
    file = terminal.folder / "secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    done = terminal.run("create-token", "root", "--secret-file", "secret", DATASETTE_SECRET="another")
    assert done.err == ""
    assert "Signature: good" in terminal.run("decode", stdin=done.out).out
    file.chmod(0o644)
    assert "every user of this machine may read" in terminal.run("create-token", "root", "--secret-file", "secret").err


@pytest.mark.parametrize(("content", "code"), [(b"", 1), (b"\xff\xfe", 1), (b"x" * 70_000, 1), (None, 1)])
def test_a_file_without_a_usable_secret_is_refused(terminal: Terminal, content: bytes | None, code: int) -> None:
    if content is not None:
        (terminal.folder / "secret").write_bytes(content)
    assert "secret" in terminal.fails("create-token", "root", "--secret-file", "secret", code=code)


def test_an_unknown_action_brings_a_warning_and_a_token(terminal: Terminal) -> None:
    done = terminal.run("create-token", "root", "-a", "no-such-action", "-a", "vt", "-d", "demo", "view-table")
    assert done.err == "Warning: unknown action 'no-such-action'; it is written into the token all the same.\n"
    assert done.out.startswith("dstok_")


def test_where_no_datasette_is_installed_the_built_in_actions_serve(tmp_path: Path) -> None:
    (tmp_path / "datasette.py").write_text("raise ImportError('not here')")
    terminal = Terminal(tmp_path, DATASETTE_SECRET=SECRET, PYTHONPATH=str(tmp_path))
    done = terminal.run("create-token", "root", "-a", "view-instance", "-a", "what", "--debug")
    assert json.loads(done.out.partition("Decoded:")[2])["_r"] == {"a": ["vi", "what"]}
    assert "unknown action 'what'" in done.err
    assert "needs Datasette" in terminal.fails("create-token", "root", "--plugins-dir", str(tmp_path))


@needs_1_0
def test_a_plugin_that_fails_is_a_sentence(terminal: Terminal) -> None:
    (terminal.folder / "plugins").mkdir()
    (terminal.folder / "plugins" / "broken.py").write_text("raise RuntimeError('broken on purpose')")
    sentence = terminal.fails("create-token", "root", "--plugins-dir", "plugins")
    assert "broken on purpose" in sentence


def test_the_name_of_a_variable_in_place_of_a_secret_is_warned_of(terminal: Terminal) -> None:
    done = terminal.quick("create-token", "root", DATASETTE_SECRET="${DATASETTE_SECRET_KEY}")
    assert done.err == "Warning: the secret is the name of a variable and not its value; servers refuse it.\n"
    assert done.out.startswith("dstok_")
