"""Keys that stand twice in Datasette's configuration, of which its parsers take the last and say nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asgi_token_auth.datasette.files import repeated_key
from tests.support.processes import PATIENCE
from tests.support.sites import IS_1_0

TOKENS = "    tokens:\n    - token: a-long-random-string-for-a-bot\n      actor: {id: bot}\n"
BLOCK = f"plugins:\n  asgi-token-auth:\n{TOKENS}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"{BLOCK}{TOKENS}", "line 6"),
        (f"{BLOCK}{BLOCK}", "line 6"),
        (f"{BLOCK}  asgi-token-auth:\n{TOKENS}", "line 6"),
        (f'{BLOCK}      actor: {{id: bot, "id": root}}\n'.replace("      actor: {id: bot}\n", "", 1), "line 5"),
        ('{"plugins": {"p": {"a": 1,\n "a": 2}}}', "the object that ends at line 2"),
        ('{"plugins": {},\n\n "plugins": {}}', "the object that ends at line 3"),
    ],
)
def test_where_plugins_are_configured_it_is_found(text: str, place: str) -> None:
    found = repeated_key(text)
    assert found is not None
    assert (found.place, found.in_plugins) == (place, True)


def test_elsewhere_it_is_told_from_that() -> None:
    for text in (f"title: a\n{BLOCK}title: b\n", '{"a": {"b": 1, "b": 2}, "plugins": {}}', "- {a: 1, a: 2}"):
        found = repeated_key(text)
        assert found is not None
        assert not found.in_plugins


def test_what_is_no_repetition_is_none() -> None:
    merged = "base: &base {a: 1}\nother: &other {b: 2}\nplugins: {<<: *base, a: 2}\nmore: {<<: *base, <<: *other}\n"
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
    )
    for text in (BLOCK, merged, bomb, "{1: a, '1': b}", "", '{"a": {"x": 1}, "b": {"x": 1}}'):
        assert repeated_key(text) is None


@pytest.mark.parametrize("way", ["file", "folder"])
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_server_does_not_start_with_one(tmp_path: Path, way: str, suffix: str) -> None:
    stem = "datasette" if IS_1_0 else "metadata"
    path = tmp_path / f"{stem}.{suffix}"
    tokens = '"tokens": [{"token": "a-long-random-string-for-a-bot", "actor": {"id": "bot"}}]'
    path.write_text(
        f"{BLOCK}{TOKENS}" if suffix == "yaml" else f'{{"plugins": {{"asgi-token-auth": {{{tokens}, {tokens}}}}}}}'
    )
    arguments = [str(tmp_path)] if way == "folder" else ["-c" if IS_1_0 else "-m", str(path)]
    ran = subprocess.run(
        [sys.executable, "-m", "datasette", "serve", *arguments, "--get", "/-/actor.json"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.returncode == 1, ran.stdout
    assert f"{path} has the same key twice in" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "a-long-random-string" not in ran.stderr
