"""Texts with something in front or behind, read alike by everybody."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer

from asgi_token_auth import ConfigurationError, from_config
from asgi_token_auth.config.block import read_configuration
from asgi_token_auth.databases.address import database_at, is_dsn
from asgi_token_auth.decoding import Undecodable, decode, keys_of, read_value, secret_of, token_of, value_of
from asgi_token_auth.signing import SigningSecrets, datasette_signer
from tests.support.configured import nobody

SECRET = "keep-this-secret-and-the-same-everywhere"
TOKEN = "a-long-random-string-for-a-bot"
#: What editors, shells, env files and copying put around a secret.
AROUND = (
    "{}\n",
    "{}\r\n",
    "{}\r",
    "\ufeff{}",
    "\ufeff{}\r\n",
    '"{}"',
    "'{}'\r\n",
    "\u201c{}\u201d",
    " {} ",
    "\t{}\n\n",
    "{}\u200b",
    "\u00a0{}",
    '\ufeff"{}"\r\n',
)


@pytest.mark.parametrize("around", AROUND)
def test_a_secret_is_the_same_whatever_stands_around_it(around: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = SigningSecrets.of(around.format(SECRET))
    plain = SigningSecrets.of(SECRET)
    assert "left out" in caplog.text
    assert SECRET not in caplog.text
    # What either makes, the other one takes.
    for signs, verifies in ((given, plain), (plain, given)):
        assert datasette_signer(verifies).verify(datasette_signer(signs).sign({"a": 1}))
    # And what was signed before this was so is good still.
    earlier = URLSafeSerializer(around.format(SECRET), salt="token", signer_kwargs={"digest_method": hashlib.sha1})
    assert datasette_signer(given).verify(str(earlier.dumps({"a": 1})))


def test_the_newest_of_several_secrets_still_signs() -> None:
    signing = SigningSecrets.of([f"{SECRET}-old\n", f'"{SECRET}-new"'])
    assert signing.reveal() == [f"{SECRET}-old\n", f"{SECRET}-old", f'"{SECRET}-new"', f"{SECRET}-new"]
    # A former spelling of the newest one does not take its place.
    assert SigningSecrets([SECRET, f"{SECRET}\n"]).reveal() == [f"{SECRET}\n", SECRET]
    assert SigningSecrets([SECRET]).reveal() == [SECRET]
    assert SigningSecrets([SECRET]).dropped == ()


@pytest.mark.parametrize("around", [*AROUND, "Bearer {}", "bearer  {}\n", 'Authorization: Bearer "{}"', '"Bearer {}"'])
def test_a_token_is_the_same_whatever_stands_around_it(around: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert token_of(around.format(TOKEN)).text == TOKEN
    block = {"tokens": [{"token": around.format(TOKEN), "actor": {"id": "bot"}}]}
    assert list(read_configuration(block).tokens) == [TOKEN]
    assert TOKEN not in caplog.text


def test_what_is_dropped_is_named() -> None:
    assert token_of("Bearer x").dropped == ("the word Bearer in front",)
    assert secret_of(' "x"').dropped == ('a pair of quotes (") around it',)
    assert secret_of("\t x\u200b").dropped == ("white space (0x09, 0x20, U+200B) around it",)
    assert value_of("\ufeffx\r\n").dropped == ("a byte-order mark in front",)
    # What belongs to a value of any kind stays: a name, a query or a password may have it.
    assert value_of(' "x" ').text == ' "x" '
    # One quote is a part of it, and so are two that differ.
    for text in ('"x', "x'", "\"x'", '"'):
        assert secret_of(text).text == text
    assert "hunter2" not in repr(secret_of('"hunter2"'))


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (SECRET.encode("utf-16"), "but UTF-16 (it begins with 0xFF 0xFE)"),
        (b"\xfe\xff" + SECRET.encode("utf-16-be"), "but UTF-16 (it begins with 0xFE 0xFF)"),
        (SECRET.encode("utf-16-le"), "but UTF-16 (every other byte is 0x00)"),
        (SECRET.encode("utf-16-be"), "but UTF-16 (every other byte is 0x00)"),
        (SECRET.encode("utf-32"), "but UTF-32"),
        (b"one\ntwo\xe9", "byte 0xE9 at line 2, byte 4"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, raw: bytes, sentence: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(raw)
    assert sentence in str(caught.value)
    for name in ("c.json", "c.toml"):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ConfigurationError) as refused:
            from_config(nobody, tmp_path / name)
        assert sentence in str(refused.value)
    (tmp_path / "secret").write_bytes(raw)
    with pytest.raises(ConfigurationError) as refused:
        read_configuration({"secret": {"$file": str(tmp_path / "secret")}})
    assert sentence in str(refused.value)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    file = tmp_path / "value"
    for content, sentence in (
        (b"", "is empty"),
        (b"\r\n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b"a\nb", "more than one line"),
        (b"a\x00bcd", "the byte 0x00"),
        (b"x" * 65_537, "longer than 65,536"),
    ):
        file.write_bytes(content)
        with pytest.raises(Undecodable, match=sentence):
            read_value(file)
    file.write_bytes(b"\xef\xbb\xbf" + b"x" * 65_536 + b"\r\n")
    assert len(read_value(file).text) == 65_536
    with pytest.raises(Undecodable, match=r"there is no folder .*/nowhere"):
        read_value(tmp_path / "nowhere" / "further" / "value")


def test_keys_are_read_alike_by_servers_and_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = "A" * 43 + "=", "B" * 43 + "="
    for text in (f"{one} {two}", f"{one},{two}\r\n", f"\ufeff{one}\n{two}\n", f'"{one}" "{two}"', f'"{one},{two}"'):
        assert keys_of(text)[0] == [one, two]
        monkeypatch.setenv("KEYS", text)
        (tmp_path / "keys").write_text(text, encoding="utf-8")
        for given in (text, {"$env": "KEYS"}, {"$file": str(tmp_path / "keys")}):
            assert read_configuration({"secrets": {"encryption_key": given}}).encryption_keys == (one, two)


@pytest.mark.parametrize("around", AROUND)
def test_a_dsn_is_the_same_whatever_stands_around_it(around: str) -> None:
    dsn = around.format("postgresql://u:hunter2@h/db")
    assert is_dsn(dsn)
    assert database_at(dsn).name == "PostgreSQL database db on h"


@pytest.mark.parametrize(
    ("path", "byte"),
    [
        ("tokens.db\r", "line end"),
        ("tokens.db\n", "line end"),
        ("\ufefftokens.db", "byte-order mark"),
        ('"tokens.db"', "quotes"),
        ("tokens.db ", "0x20"),
    ],
)
def test_a_path_is_never_changed_but_refused(path: str, byte: str) -> None:
    with pytest.raises(ConfigurationError, match=byte):
        database_at(path)


def test_variables_lose_what_an_env_file_of_windows_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IT", "\ufeffalice\r")
    block = {"tokens": [{"token": TOKEN, "actor": {"id": {"$env": "IT"}}}]}
    assert read_configuration(block).tokens[TOKEN]["id"] == "alice"
    monkeypatch.setenv("IT", "\r")
    with pytest.raises(ConfigurationError, match="nothing but a line end"):
        read_configuration(block)
    monkeypatch.setenv("DATASETTE_SECRET", SECRET + "\r")
    assert SigningSecrets.of(None).reveal()[-1] == SECRET


def test_a_file_with_a_mark_verifies_what_was_signed_with_the_mark(tmp_path: Path) -> None:
    """As the command did at first, whose --secret-file kept it."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n")
    earlier = URLSafeSerializer("\ufeff" + SECRET, salt="token", signer_kwargs={"digest_method": hashlib.sha1})
    read = read_configuration({"secret": {"$file": str(file)}}).secret
    assert isinstance(read, SigningSecrets)
    for text in (earlier.dumps({"a": 1}), datasette_signer(SigningSecrets.of(SECRET)).sign({"a": 1})):
        assert datasette_signer(read).verify(str(text))
    assert read.dropped == ("a byte-order mark in front",)
    # What signs is what everybody else has.
    assert read.reveal()[-1] == SECRET
    # Other values never have it.
    block = {"tokens": [{"token": TOKEN, "actor": {"id": {"$file": str(file)}}}]}
    assert read_configuration(block).tokens[TOKEN]["id"] == SECRET


def test_the_name_of_a_database_is_not_taken_for_words_of_a_message() -> None:
    for dsn, name in (
        ("postgresql://u:hunter2@h/db", "PostgreSQL database db on h"),
        ("postgresql://u@h/caf%C3%A9-1.x", "PostgreSQL database caf\u00e9-1.x on h"),
        ("postgresql://u@h/a%20on%20b%0ANOTE", "PostgreSQL database 'a on b\\nNOTE' on h"),
        ("postgresql://u@/db?host=/run/pg,h%0Ax", "PostgreSQL database db on '/run/pg,h\\nx'"),
    ):
        assert database_at(dsn).name == name
        assert name.isprintable()
