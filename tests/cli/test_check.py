"""``check``: what would be wrong with a server is told before there is one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import SecretStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.encryption import generate_key
from tests.support.sites import needs_1_0
from tests.support.terminal import SECRET, Done, Terminal

GOOD = {"manage_tokens": True, "manage_tokens_database": "tokens", "secret": {"$env": "DATASETTE_SECRET"}}


def store_secret(terminal: Terminal, key: str, name: str) -> None:
    async def store() -> None:
        async with SecretStore(SQLite(terminal.folder / "secrets.db"), encryption_key=key) as store:
            await store.set(name, "value")

    asyncio.run(store())


def check(
    terminal: Terminal,
    block: Any,
    *arguments: str,
    code: int = 0,
    name: str = "config.json",
    slow: bool = False,
    **more: str,
) -> Done:
    file = terminal.folder / name
    file.write_text(block if isinstance(block, str) else json.dumps(block))
    file.chmod(0o600)
    return (terminal.run if slow else terminal.quick)("check", name, *arguments, code=code, **more)


def test_nothing_wrong(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    before = {file: file.read_bytes() for file in terminal.folder.iterdir()}
    done = check(terminal, GOOD, "--database", "tokens=tokens.db", slow=True)
    assert (done.out, done.err) == ("No problems found.\n", "")
    after = {file: file.read_bytes() for file in terminal.folder.iterdir() if file.name != "config.json"}
    assert after == before
    assert check(terminal, GOOD, "--database", "tokens=tokens.db", "--json").json == {
        "ok": True,
        "problems": [],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({**GOOD, "reqired": True}, "did you mean required?"),
        ({**GOOD, "secret": {"$env": "NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE is not set"),
        ({**GOOD, "secret": "short"}, "shorter than 16 characters"),
        ({**GOOD, "secret": "a" * 40}, "is a pattern"),
        ({**GOOD, "manage_tokens_database": "other"}, "names no entry"),
        ({"tokens": [{"token": "short", "actor": {"id": "bot"}}]}, "fewer than 16 characters"),
        ({**GOOD, "query": {"sql": "drop table :token_id", "database": "tokens"}}, "must be one SELECT"),
        ("{", "not valid JSON"),
        ("[]", "one object"),
    ],
)
def test_problems(terminal: Terminal, block: Any, words: str) -> None:
    terminal.quick("tokens", "create", "alice")
    done = check(terminal, block, "--database", "tokens=tokens.db", "--json", code=1, slow=True)
    assert done.json["ok"] is False
    assert any(words in problem for problem in done.json["problems"]), done.json
    assert "Problem: " in check(terminal, block, "--database", "tokens=tokens.db", code=1).out


def test_a_configuration_file_in_toml_or_missing(terminal: Terminal) -> None:
    check(terminal, "manage_tokens = true\n", "--database", "tokens=tokens.db", name="config.toml")
    assert "cannot be read" in terminal.run("check", "nowhere.json", code=1).out
    assert not (terminal.folder / "tokens.db").exists()
    assert "must be a name and a path" in terminal.fails("check", "config.toml", "--database", "tokens.db", code=2)


def test_tokens_that_expire_soon(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice", "-e", "3d")
    terminal.quick("tokens", "create", "bob", "-e", "30d")
    terminal.quick("tokens", "create", "carol", "--never")
    arguments = ("--database", "tokens=tokens.db", "--json")
    assert len(check(terminal, GOOD, *arguments, code=1).json["problems"]) == 1
    assert "Token 1 of alice expires" in check(terminal, GOOD, *arguments, code=1).out
    assert len(check(terminal, GOOD, *arguments, "--expiring-within", "31", code=1).json["problems"]) == 2
    assert check(terminal, GOOD, *arguments, "--expiring-within", "0").json["problems"] == []


def test_secrets_that_everybody_may_read(terminal: Terminal) -> None:
    secret = terminal.folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    database = ("--database", "tokens=tokens.db")
    assert "a secret's file" in check(terminal, {**GOOD, "secret": {"$file": str(secret)}}, *database, code=1).out
    secret.chmod(0o600)
    assert check(terminal, {**GOOD, "secret": {"$file": str(secret)}}, *database).code == 0
    config = terminal.folder / "config.json"
    config.write_text(json.dumps({**GOOD, "secret": SECRET}))
    config.chmod(0o644)
    assert "config.json holds secrets" in terminal.run("check", "config.json", *database, code=1).out
    config.write_text(json.dumps(GOOD))
    terminal.run("check", "config.json", *database)


def test_a_damaged_database_a_damaged_row_and_none(terminal: Terminal) -> None:
    database = ("--database", "tokens=tokens.db")
    assert "is missing" in check(terminal, GOOD, *database).out
    terminal.sql("create table t (x)")
    assert "holds no tokens yet" in check(terminal, GOOD, *database).out
    terminal.quick("tokens", "create", "alice")
    terminal.sql("update _datasette_auth_tokens set permissions = '[1'")
    assert "Token 1 is refused, because its row is damaged" in check(terminal, GOOD, *database, code=1).out
    (terminal.folder / "tokens.db").write_bytes(b"this is no database" * 100)
    assert "not a SQLite database" in check(terminal, GOOD, *database, code=1).out


def test_the_secret_itself_is_never_told(terminal: Terminal, tmp_path: Path) -> None:
    for block in ({**GOOD, "secret": "tiny-secret"}, {**GOOD, "secret": SECRET, "x": 1}, '{"secret": "tiny-secret"'):
        done = check(terminal, block, code=1)
        assert "tiny-secret" not in done.out + done.err
        assert SECRET not in done.out + done.err


@needs_1_0
def test_a_configuration_of_datasette(terminal: Terminal) -> None:
    yaml = "plugins:\n  asgi-token-auth:\n    manage_tokens: true\n    {}\n"
    done = check(terminal, yaml.format(""), name="datasette.yaml")
    assert "The database of managed tokens was not checked" in done.out
    done = check(terminal, yaml.format("required: true"), name="datasette.yaml", code=1)
    assert "use Datasette's allow block" in done.out
    assert "no block asgi-token-auth" in check(terminal, {"plugins": {"x": {}}}, code=1).out
    assert "is not valid YAML" in check(terminal, "a: [", name="datasette.yaml", code=1).out
    done = check(terminal, yaml.format("manage_tokens: false"), name="datasette.yaml", code=1)
    assert "datasette.yaml has the same key twice in line 4; remove one." in done.out


# Encrypted secrets


def secrets_block(*keys: Any) -> dict[str, Any]:
    return {"secrets": {"encryption_key": list(keys), "database": "secrets"}}


def test_secrets_that_the_keys_open_are_no_problem(terminal: Terminal) -> None:
    key, newer = generate_key(), generate_key()
    store_secret(terminal, key, "API_KEY")
    before = (terminal.folder / "secrets.db").read_bytes()
    done = check(terminal, secrets_block(key, newer), "--database", "secrets=secrets.db")
    assert done.out == "No problems found.\n"
    assert (terminal.folder / "secrets.db").read_bytes() == before


def test_secrets_that_the_keys_do_not_open_are_named(terminal: Terminal) -> None:
    for number in range(25):
        store_secret(terminal, generate_key(), f"S{number:02}")
    done = check(terminal, secrets_block(generate_key()), "--database", "secrets=secrets.db", code=1)
    assert "'S00' (version 1) cannot be decrypted" in done.out
    assert "'S19'" in done.out
    assert "'S20'" not in done.out
    assert "5 more secrets cannot be decrypted" in done.out


def test_a_database_without_secrets_or_without_a_name_is_noted(terminal: Terminal) -> None:
    block = secrets_block(generate_key())
    terminal.quick("tokens", "create", "alice")
    done = check(terminal, block, "--database", "secrets=tokens.db")
    assert "tokens.db holds no secrets yet" in done.out


def test_encryption_keys_are_looked_at(terminal: Terminal) -> None:
    for mode, said in ((0o600, False), (0o640, True)):
        file = terminal.folder / "key"
        file.write_text(generate_key())
        file.chmod(mode)
        done = check(terminal, secrets_block({"$file": "key"}), "--database", "secrets=secrets.db", code=int(said))
        assert done.out.count("may read the file key; chmod go-rwx") == said
    pattern = "A" * 43 + "="
    done = check(terminal, secrets_block(pattern), "--database", "secrets=secrets.db", code=1)
    assert "secrets.encryption_key: is a pattern" in done.out
    done = check(terminal, secrets_block("short"), "--database", "secrets=secrets.db", code=1)
    assert "secrets.encryption_key: the key is not 32 bytes" in done.out


def test_a_secret_file_that_is_none(terminal: Terminal) -> None:
    for path, words in (
        ("/tmp", "Is a directory"),
        ("/dev/null", ""),
        ("/tmp\0x", "cannot be read"),
        ("x" * 5_000, ""),
    ):
        done = check(terminal, {**GOOD, "secret": {"$file": path}}, code=1)
        assert words in done.out
        assert "chmod" not in done.out
        assert "UTF-8" not in done.out
        assert done.out.count("Problem: ") == 1


@needs_1_0
def test_the_section_of_datasette_secrets_is_read_too(terminal: Terminal) -> None:
    key = generate_key()
    store_secret(terminal, key, "API_KEY")
    where = ("--database", "secrets=secrets.db")
    section = {"encryption-key": key, "database": "secrets"}
    assert check(terminal, {"plugins": {"datasette-secrets": section}}, *where).out == "No problems found.\n"
    own = {"tokens": [{"token": "a-hard-coded-token", "actor": {"id": "bot"}}]}
    section["encryption-key"] = generate_key()
    done = check(terminal, {"plugins": {"asgi-token-auth": own, "datasette-secrets": section}}, *where, code=1)
    assert "'API_KEY' (version 1) cannot be decrypted" in done.out
    own["secrets"] = {"encryption_key": key, "database": "secrets"}  # type: ignore[assignment]
    check(terminal, {"plugins": {"asgi-token-auth": own, "datasette-secrets": section}}, *where)
    section["database"] = "_internal"
    done = check(terminal, {"plugins": {"datasette-secrets": section}})
    assert "The database of secrets was not checked" in done.out


@pytest.mark.parametrize("block", [None, [], "text", {}])
def test_an_empty_section_of_a_configuration_is_said_to_be_empty(terminal: Terminal, block: object) -> None:
    (terminal.folder / "config.json").write_text(json.dumps({"plugins": {"asgi-token-auth": block}}))
    done = terminal.run("check", "config.json", code=1)
    assert "nothing is configured" in done.out + done.err


def test_what_was_left_out_of_a_text_is_a_note(terminal: Terminal) -> None:
    terminal.quick("tokens", "create", "alice")
    block = {**GOOD, "tokens": [{"token": "Bearer a-long-random-string-for-a-bot", "actor": {"id": "bot"}}]}
    done = check(
        terminal,
        "\ufeff" + json.dumps(block),
        "--database",
        "tokens=tokens.db",
        DATASETTE_SECRET=f"'{SECRET}'\r",
    )
    assert "Note: config.json: a byte-order mark in front is left out" in done.out
    assert "Note: tokens: number 1: the word Bearer in front is left out" in done.out
    assert "Note: secret: a pair of quotes (') around it" in done.out
    assert "No problems found." in done.out
    assert SECRET not in done.out
    done = check(terminal, {"manage_tokens": True}, "--database", "tokens=tokens.db", DATASETTE_SECRET=f"{SECRET}\r")
    assert "Note: DATASETTE_SECRET: a line end behind it is left out" in done.out


def test_a_configuration_of_datasette_that_cannot_be_read(terminal: Terminal) -> None:
    assert "there is no folder" in terminal.run("check", "nowhere/datasette.yaml", code=1).out
    broken = "plugins:\n  asgi-token-auth:\n    secret: 'hunter2\n"
    done = check(terminal, broken, name="datasette.yaml", code=1)
    assert "is not valid YAML: see line " in done.out
    assert "hunter2" not in done.out
    done = check(terminal, {"plugins": {"asgi_token_auth": {"manage_tokens": True}}}, code=1)
    assert "the section is called asgi-token-auth, with hyphens" in done.out


def test_a_folder_that_is_missing_is_named(terminal: Terminal) -> None:
    sentence = terminal.fails("tokens", "list", "--database", "nowhere/tokens.db")
    assert "There is no file nowhere/tokens.db, and no folder " in sentence


def test_secrets_in_the_environment_are_looked_at(terminal: Terminal) -> None:
    block = {"tokens": [{"token": "a-long-random-string-for-a-bot", "actor": {"id": "bot"}}]}
    done = check(terminal, block, DATASETTE_SECRETS_A="sk-hunter2\r", DATASETTE_SECRETS_B="sk-hunter2")
    assert "Note: DATASETTE_SECRETS_A: a byte-order mark or a line end is left out; take it away there.\n" in done.out
    assert "DATASETTE_SECRETS_B" not in done.out
    assert "hunter2" not in done.out
    done = check(terminal, block, code=1, DATASETTE_SECRETS_A="${API_KEY}")
    assert "Problem: DATASETTE_SECRETS_A: is the name of a variable and not its value" in done.out
