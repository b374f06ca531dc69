"""Secrets at rest: what is encrypted opens under its own name and version, with any of the keys, and else never."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import assume, given
from hypothesis import strategies as st

from asgi_token_auth.encryption import generate_key
from asgi_token_auth.errors import ConfigurationError, SecretUnreadable
from asgi_token_auth.secrets.encryption import Encryption

# The same in every process that collects these tests, whose names hold them.
OLD, NEW, OTHER = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (250, 251, 252))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
versions = st.integers(1, 2**63 - 1)


@given(names, versions, values)
def test_what_was_encrypted_is_decrypted(name: str, version: int, value: str) -> None:
    encryption = Encryption(NEW)
    assert encryption.decrypt(name, version, encryption.encrypt(name, version, value)) == value


@given(names, versions, values, names, versions)
def test_a_value_opens_in_its_own_row_only(name: str, version: int, value: str, other: str, another: int) -> None:
    assume((name, version) != (other, another))
    encryption = Encryption(NEW)
    with pytest.raises(SecretUnreadable, match="another secret or version"):
        encryption.decrypt(other, another, encryption.encrypt(name, version, value))


@given(names, versions, values)
def test_what_datasette_secrets_encrypted_is_decrypted_whatever_it_says(name: str, version: int, value: str) -> None:
    blob = Fernet(OLD).encrypt(value.encode())
    assert Encryption([OLD, NEW]).decrypt(name, version, blob) == value
    assert not Encryption(OLD).is_current(blob)


def test_a_value_of_datasette_secrets_cannot_look_like_a_bound_one() -> None:
    inside = Fernet(NEW).decrypt(Encryption(NEW).encrypt("name", 1, "value"))
    with pytest.raises(UnicodeDecodeError):
        inside.decode()


@given(values, st.data())
def test_a_changed_or_shortened_value_is_refused(value: str, data: st.DataObject) -> None:
    encryption = Encryption(NEW)
    raw = bytearray(base64.urlsafe_b64decode(encryption.encrypt("name", 1, value)))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] ^= data.draw(st.integers(1, 255))
    else:
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    with pytest.raises(SecretUnreadable, match="'name'"):
        encryption.decrypt("name", 1, base64.urlsafe_b64encode(bytes(raw)))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_sentence(blob: bytes) -> None:
    encryption = Encryption([OLD, NEW])
    assert not encryption.is_current(blob)
    with pytest.raises(SecretUnreadable, match=r"set it again|set the secret again"):
        encryption.decrypt("name", 1, blob)


@given(st.permutations([OLD, NEW, OTHER]), st.integers(0, 2), values)
def test_every_key_decrypts_and_the_last_encrypts(keys: list[str], which: int, value: str) -> None:
    encryption = Encryption(keys)
    blob = Encryption(keys[which]).encrypt("name", 1, value)
    assert encryption.decrypt("name", 1, blob) == value
    assert encryption.is_current(blob) == (which == 2)
    assert Encryption(keys[-1]).decrypt("name", 1, encryption.encrypt("name", 1, value)) == value
    with pytest.raises(SecretUnreadable):
        Encryption(keys[0]).decrypt("name", 1, encryption.encrypt("name", 1, value))


def test_a_wrong_key_and_damage_are_told_apart() -> None:
    made = Encryption(OLD)
    blob = made.encrypt("name", 3, "value")
    with pytest.raises(SecretUnreadable, match=r"'name' \(version 3\) cannot be decrypted .* add the key"):
        Encryption(NEW).decrypt("name", 3, blob, key_name=made.key_name)
    damaged = blob[:-8] + b"AAAAAAA="
    with pytest.raises(SecretUnreadable, match=r"'name' \(version 3\) is damaged"):
        made.decrypt("name", 3, damaged, key_name=made.key_name)
    with pytest.raises(SecretUnreadable, match="is damaged"):
        made.decrypt("name", 3, b"")


@pytest.mark.parametrize("plain", [b"\xff\x02another form", b"caf\xe9"])
def test_what_is_neither_form_is_refused(plain: bytes) -> None:
    with pytest.raises(SecretUnreadable, match=r"'name' \(version 1\) holds no text: set it again") as raised:
        Encryption(NEW).decrypt("name", 1, Fernet(NEW).encrypt(plain))
    # An error of Python's about it would have the value in it, for whoever reports errors with what caused them.
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("", "the key is not 32 bytes"),
        ([], "there is none"),
        (NEW.encode(), "give text, or a list of texts"),
        ({OLD, NEW}, "give text, or a list of texts"),
        (5, "give text, or a list of texts"),
        ([OLD, NEW.encode()], "key 2 of 2 is not 32 bytes"),
        ("x" * 44, "the key is not 32 bytes"),
        (NEW[:-2] + "=", "the key is not 32 bytes"),
        (NEW + NEW, "the key is not 32 bytes"),
        (NEW.replace("=", ""), "the key is not 32 bytes"),
        ('"' + NEW + '"', "the key is not 32 bytes"),
        ("schlüssel", "the key is not 32 bytes"),
        ([OLD, ""], "key 2 of 2 is not 32 bytes"),
        ([OLD, None], "key 2 of 2 is not 32 bytes"),
        ([OLD, NEW, OLD], "key 3 of 3 is there twice"),
        ([OLD, OLD + "\n"], "key 2 of 2 is there twice"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_and_not_quoted(keys: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        Encryption(keys)
    assert str(refused.value).startswith("encryption_key: ")
    for key in (OLD, NEW, *([keys] if isinstance(keys, str) else [])):
        assert not key or key not in str(refused.value)


def test_a_key_in_standard_base64_is_what_it_is_for_fernet() -> None:
    raw = b"\xfb\xef\xbe" * 10 + b"\xff\xff"
    standard, safe = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
    assert "+" in standard
    assert "-" in safe
    assert Encryption(safe).decrypt("name", 1, Fernet(standard).encrypt(b"value")) == "value"
    assert Encryption(standard + "\n").decrypt("name", 1, Fernet(safe).encrypt(b"value")) == "value"
    with pytest.raises(ConfigurationError, match="twice"):
        Encryption([standard, safe])


def test_no_key_is_shown() -> None:
    encryption = Encryption([OLD, NEW])
    for key in (OLD, NEW):
        assert key not in repr(encryption) + str(encryption)
        assert key not in encryption.key_name
    assert encryption.key_name == Encryption(NEW).key_name != Encryption(OLD).key_name


def test_a_key_inside_of_a_text_is_seen() -> None:
    encryption = Encryption([OLD, NEW])
    assert encryption.reveals_a_key(f"the key is {OLD}, keep it")
    assert encryption.reveals_a_key(NEW.rstrip("="))
    assert not encryption.reveals_a_key(OTHER)


def test_a_key_is_made_at_the_public_address() -> None:
    key = generate_key()
    assert key != generate_key()
    assert Encryption(key).decrypt("A", 1, Encryption(key).encrypt("A", 1, "value")) == "value"
