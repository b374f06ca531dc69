"""What the README says of the command line is what the commands say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from asgi_token_auth.cli.commands import root

README = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text()
SECTION = README.split("## Command line")[1].split("\n## ")[0]
QUOTED = dict(re.findall(r"```text\n\$ asgi-token-auth ?(.*?) ?--help\n(.*?)```", SECTION, re.DOTALL))
WIDTH = 100


def commands(command: click.Command = root, path: str = "") -> Iterator[str]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}".strip())


def help_of(path: str) -> str:
    done = CliRunner(env={"COLUMNS": None}).invoke(
        root, [*path.split(), "--help"], prog_name="asgi-token-auth", terminal_width=WIDTH, max_content_width=WIDTH
    )
    assert done.exit_code == 0
    return done.stdout


def words(text: str) -> list[str]:
    # Versions of click break lines and close brackets differently.
    return re.findall(r"[\w-]+", text)


@pytest.mark.parametrize("path", list(commands()))
def test_the_help_of_every_command_is_quoted(path: str) -> None:
    assert words(QUOTED[path]) == words(help_of(path))


def test_nothing_else_is_quoted() -> None:
    assert set(QUOTED) == set(commands())


def test_every_command_of_the_examples_exists() -> None:
    examples = re.findall(r"^asgi-token-auth ((?:tokens |secrets )?[a-z-]+)", SECTION, re.MULTILINE)
    assert len(examples) > 10
    assert set(examples) <= set(commands())


def test_the_examples_take_options_that_there_are() -> None:
    for line in re.findall(r"^asgi-token-auth (.*?)(?: <.*| +#.*)?$", SECTION, re.MULTILINE):
        words = shlex.split(line)
        path = words[0] if words[0] not in ("tokens", "secrets") else " ".join(words[:2])
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", line):
            assert option in help_of(path), line
