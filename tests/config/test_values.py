"""Where values come from: files, variables, and what is no part of them."""

import json
import time
from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer

from asgi_token_auth import from_config
from asgi_token_auth.config.block import read_configuration
from asgi_token_auth.config.values import MAX_CONFIG_FILE
from asgi_token_auth.decoding import MAX_SECRET_FILE
from asgi_token_auth.encryption import generate_key
from asgi_token_auth.errors import ConfigurationError
from tests.support.configured import BOT, HIDDEN, SECRET, TOKEN, actor_of, ask, nobody, signed, whoami

pytestmark = pytest.mark.anyio


async def test_a_mapping_a_json_file_and_a_toml_file_mean_the_same(tmp_path: Path) -> None:
    block = {"tokens": [BOT], "param": "_auth_token", "unknown": "pass", "realm": "files"}
    as_json, as_toml = tmp_path / "block.json", tmp_path / "block.toml"
    as_json.write_text(json.dumps(block), encoding="utf-8")
    as_toml.write_text(
        f"""
        param = "_auth_token"
        unknown = "pass"
        realm = "files"
        [[tokens]]
        token = "{TOKEN}"
        actor = {{id = "bot"}}
        """,
        encoding="utf-8",
    )
    for given_ in (block, as_json, str(as_json), as_toml):
        app = from_config(whoami, given_)
        assert await actor_of(app, TOKEN) == {"id": "bot"}
        assert (await ask(app, url=f"/?_auth_token={TOKEN}")).json() == {"id": "bot"}
        assert (await ask(app, "unknown-to-everybody")).json() is None
        assert 'realm="files"' in (await ask(app, "a,b")).headers["www-authenticate"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("block.yaml", b"{}", "a configuration file ends in .json or .toml"),
        ("block", b"{}", "a configuration file ends in .json or .toml"),
        ("block.json", None, "cannot be read: No such file"),
        ("block.json", b'{"secret": "hunter2", }', "is not valid JSON"),
        ("block.json", b"[" * 100_000, "is not valid JSON"),
        ("block.json", b'{"secret": "hunter2\xff"}', "is not valid UTF-8 (byte 0xFF at line 1, byte 20)"),
        ("block.json", b'["hunter2"]', "must hold one object"),
        ("block.toml", b"secret = hunter2", "is not valid TOML"),
        ("block.toml", b"\xff", "is not valid UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_not_quoted(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        from_config(whoami, file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)
    assert HIDDEN not in str(caught.value)


def test_an_enormous_configuration_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "block.json"
    with file.open("wb") as sparse:
        sparse.truncate(MAX_CONFIG_FILE + 1)
    with pytest.raises(ConfigurationError, match="is longer than"):
        from_config(whoami, file)


async def test_variables_and_files_are_resolved_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    monkeypatch.setenv("BOT_TEAM", "blue")
    (tmp_path / "secret").write_text(SECRET + "\n", encoding="utf-8")
    (tmp_path / "token").write_bytes(b"another-hard-coded-token\r\n")
    block = {
        "tokens": [
            {"token": {"$env": "BOT_TOKEN"}, "actor": {"id": "bot", "teams": [{"$env": "BOT_TEAM"}]}},
            {"token": {"$file": str(tmp_path / "token")}, "actor": {"id": "other"}},
        ],
        "secret": {"$file": str(tmp_path / "secret")},
    }
    app = from_config(whoami, block)
    assert await actor_of(app, TOKEN) == {"id": "bot", "teams": ["blue"]}
    assert await actor_of(app, "another-hard-coded-token") == {"id": "other"}
    assert await actor_of(app, signed(SECRET)) == {"id": "root", "token": "dstok"}


async def test_values_are_resolved_once_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable holds is a value, even where it looks like the name of another one."""
    monkeypatch.setenv("BOT_TOKEN", TOKEN)
    app = from_config(whoami, {"tokens": [{"token": {"$env": "BOT_TOKEN"}, "actor": {"id": "bot"}}]})
    monkeypatch.setenv("BOT_TOKEN", "changed-after-the-start")
    assert await actor_of(app, TOKEN) == {"id": "bot"}
    assert (await ask(app, "changed-after-the-start")).status_code == 401


@pytest.mark.parametrize("content", [b"", b"\n", b"a" * (MAX_SECRET_FILE + 1), b"\xff"])
def test_a_secret_file_that_is_empty_too_long_or_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        from_config(whoami, {"secret": {"$file": str(file)}})
    assert str(caught.value).startswith(f"secret: the file {file} ")


def test_a_file_without_end_is_read_to_the_limit() -> None:
    with pytest.raises(ConfigurationError, match=r"^secret: the file /dev/zero is longer than 65,536"):
        from_config(whoami, {"secret": {"$file": "/dev/zero"}})


ARGUMENT, BLOCK, ENVIRONMENT = "argument-secret-of-this-test", "block-secret-of-this-test", "env-secret-of-this-test"


def test_a_key_that_stands_twice_in_a_json_file_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"param": "_one", "param": "_two"}')
    with pytest.raises(ConfigurationError, match="the same key twice"):
        from_config(nobody, file)


def test_a_file_of_two_lines_is_no_secret_and_a_byte_order_mark_no_part_of_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xef\xbb\xbfa-token-in-a-file\r\n")
    block = {"tokens": [{"token": {"$file": str(file)}, "actor": {"id": "bot"}}]}
    assert list(read_configuration(block).tokens) == ["a-token-in-a-file"]
    file.write_text("a-token-in-a-file\nand-another\n")
    with pytest.raises(ConfigurationError, match="more than one line"):
        read_configuration(block)


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "\ufeff{}", ' "{}" '], ids=repr)
async def test_a_secret_of_a_variable_verifies_what_its_raw_text_has_signed(
    around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = around.format(SECRET)
    monkeypatch.setenv("A_SECRET", raw)
    app = from_config(whoami, {"secret": {"$env": "A_SECRET"}})
    for signing in (raw, SECRET):
        token = "dstok_" + str(URLSafeSerializer(signing, salt="token").dumps({"a": "root", "t": int(time.time())}))
        assert (await actor_of(app, token))["id"] == "root"


def test_no_repr_of_a_configuration_tells_the_password_of_a_dsn() -> None:
    dsn = f"postgresql://u:{HIDDEN}@db.example/tokens"
    block = {
        "manage_tokens": True,
        "secret": SECRET,
        "manage_tokens_database": {"dsn": f' "{dsn}" ', "schema": "s"},
        "query": {"sql": "select 1", "database": dsn},
        "secrets": {"encryption_key": generate_key(), "database": dsn},
    }
    configuration = read_configuration(block)
    assert HIDDEN not in repr(configuration)
    # What stands around a DSN is no part of it, with options behind it neither.
    assert configuration.manage_tokens_database == f"{dsn}?schema=s"
