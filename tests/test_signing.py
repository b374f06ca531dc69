"""Signed text: byte for byte as itsdangerous and Datasette have it, and read strictly."""

import contextlib
import hashlib
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.signing import MAX_PAYLOAD_BYTES, SigningSecrets, TokenSigner, read_payload
from asgi_token_auth.tokens.text import ManagedTokenText
from tests.support.signing import ALPHABET, SECRET, secrets_of, sha1_signer

BYTE_EXACT = {
    "managed, id 1": ("dsatok", 1, "MQ.WfOAU9AMz24lxLyYZv1UCAIoNGI"),
    "managed, id 255": ("dsatok", 255, "MjU1.Yv2fXInx6gPae1og5zCUsNEga7I"),
    "signed": (
        "token",
        {"a": "root", "t": 1700000000},
        "eyJhIjoicm9vdCIsInQiOjE3MDAwMDAwMDB9.PPK7LWmFBbt4LFcVHODaF5DyAE8",
    ),
    "signed, restricted and compressed": (
        "token",
        {
            "a": "root",
            "t": 1700000000,
            "d": 3600,
            "_r": {"a": ["vi"], "d": {"mydb": ["ct"]}, "r": {"mydb": {"t": ["ir"]}}},
        },
        ".eJyrVkpUslIqys8vUdJRKlGyMjQ3gAIdpRQlK2MzECO-SMmqGqQwWqksUykWLFOtlFuZkgQSSi5Riq3VUSpCiFWDTIpWyiwCSgABAB7UG-w"
        ".RpFV0cBX31tH8MGqZhZKEDcJ94M",
    ),
}


@pytest.mark.parametrize(("salt", "value", "text"), BYTE_EXACT.values(), ids=BYTE_EXACT.keys())
def test_the_published_examples_are_written_and_read(salt: str, value: object, text: str) -> None:
    signer = sha1_signer(salt=salt)
    data = signer.verify(text)
    assert data is not None
    assert read_payload(data) == value
    if not text.startswith("."):
        # How well zlib compresses is its own business and differs between its builds.
        assert signer.sign(value) == text


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé", max_size=3), inner, max_size=4),
    max_leaves=15,
)


@given(json_data)
@example("a" * 500)
@example({"a": "é☃", "t": 1})
@settings(max_examples=100, deadline=None)
def test_itsdangerous_and_we_write_and_read_the_same_text(value: object) -> None:
    theirs: URLSafeSerializer = URLSafeSerializer(SECRET, salt="token")
    signer = sha1_signer()
    assert signer.sign(value) == theirs.dumps(value)
    assert theirs.loads(signer.sign(value)) == value
    data = signer.verify(str(theirs.dumps(value)))
    assert data is not None
    assert read_payload(data) == value


@pytest.mark.parametrize("digest", [hashlib.sha1, hashlib.sha256])
def test_only_the_canonical_text_of_a_signature_verifies(digest: Callable[..., Any]) -> None:
    """Base64 has several spellings of the same bytes: here the last character carries bits that are dropped."""
    signer = TokenSigner(secrets_of(SECRET), salt="token", digest=digest)
    theirs: URLSafeSerializer = URLSafeSerializer(SECRET, salt="token", signer_kwargs={"digest_method": digest})
    text = signer.sign({"a": "root", "t": 1})
    also_read_elsewhere = []
    for character in ALPHABET:
        spelled = text[:-1] + character
        assert (signer.verify(spelled) is not None) == (spelled == text)
        if spelled != text and theirs.loads_unsafe(spelled)[0]:
            also_read_elsewhere.append(spelled)
    assert len(also_read_elsewhere) == 3


JUNK = ["=", "==", "!", "!!!!", "é", "\n", " ", "\x00", ".", "A"]


@pytest.mark.parametrize("junk", JUNK)
def test_nothing_may_stand_around_or_within_a_token(junk: str) -> None:
    signer = sha1_signer()
    text = signer.sign({"a": "root"})
    payload, _, signature = text.partition(".")
    assert signer.verify(text) is not None
    for spelled in (
        text + junk,
        junk + text,
        payload + junk + "." + signature,
        payload + "." + junk + signature,
        payload + "." + signature[:5] + junk + signature[5:],
        payload + "." + signature[:-1] + junk,
    ):
        assert spelled == text or signer.verify(spelled) is None, spelled


def test_text_beyond_ascii_is_not_taken_for_what_it_could_be_replaced_by() -> None:
    signer = sha1_signer()
    text = Signer(SECRET, salt="token").sign(b"a?b").decode()
    assert signer.verify(text) == b"a?b"
    assert signer.verify(text.replace("?", "é")) is None


@pytest.mark.parametrize("text", ["", ".", "..", "a", "a.", ".a", "MQ.WfOAU9AMz24lxLyYZv1UCAIoNGI"])
def test_what_was_not_signed_for_this_purpose_does_not_verify(text: str) -> None:
    assert sha1_signer().verify(text) is None


def test_every_secret_verifies_and_the_newest_signs() -> None:
    old, new, both = sha1_signer("old"), sha1_signer("new"), sha1_signer("old", "new")
    assert both.verify(old.sign(1)) is not None
    assert both.verify(new.sign(1)) is not None
    assert both.sign(1) == new.sign(1) != old.sign(1)
    assert new.verify(old.sign(1)) is None
    assert old.verify(both.sign(1)) is None


def test_a_compressed_bomb_is_refused_without_being_inflated() -> None:
    bomb = b"." + base64_encode(zlib.compress(json.dumps("A" * 5_000_000).encode(), 9))
    assert len(bomb) < 8192
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cannot be read"):
            read_payload(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(("size", "readable"), [(MAX_PAYLOAD_BYTES, True), (MAX_PAYLOAD_BYTES + 1, False)])
def test_a_payload_may_inflate_to_the_limit_and_no_further(size: int, readable: bool) -> None:
    data = b"." + base64_encode(zlib.compress(json.dumps("A" * (size - 2)).encode()))
    if readable:
        assert len(read_payload(data)) == size - 2
    else:
        with pytest.raises(ValueError, match="cannot be read"):
            read_payload(data)


UNREADABLE = {
    "empty": b"",
    "a dot alone": b".",
    "not base64": b"!",
    "base64 of the wrong length": b"A",
    "base64 of what is no JSON": base64_encode(b"{"),
    "base64 of what is no UTF-8": base64_encode(b"\xff\xfe\xfd"),
    "not zlib": b"." + base64_encode(b"{}"),
    "zlib cut off": b"." + base64_encode(zlib.compress(b'"' + b"abc" * 100 + b'"')[:-6]),
    "zlib of what is no JSON": b"." + base64_encode(zlib.compress(b"{")),
    "nested too deeply": base64_encode(b"[" * 100_000),
    "a number of too many digits": base64_encode(b"1" * 5_000),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_payload_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="the payload cannot be read"):
        read_payload(data)


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_signed_bytes_raise_anything_but_value_error(data: bytes) -> None:
    for shaped in (data, base64_encode(data), b"." + base64_encode(data), b"." + base64_encode(zlib.compress(data))):
        with contextlib.suppress(ValueError):
            read_payload(shaped)


LONG = "a-long-random-string"


def test_secrets_are_taken_as_one_string_or_several_newest_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SigningSecrets.of(LONG).reveal() == [LONG]
    assert SigningSecrets.of([LONG, LONG + "2"]).reveal() == [LONG, LONG + "2"]
    assert SigningSecrets.of((LONG,)).reveal() == [LONG]
    checked = SigningSecrets.of(LONG)
    assert SigningSecrets.of(checked) is checked
    monkeypatch.setenv("DATASETTE_SECRET", LONG + "-of-the-environment")
    assert SigningSecrets.of(None).reveal() == [LONG + "-of-the-environment"]


BAD_SECRETS: dict[str, tuple[Any, str]] = {
    "missing": (None, "secret: there is none"),
    "empty": ("", "secret: is empty"),
    "short": ("s3cret-s3cret-1", "secret: is shorter than 16"),
    "an empty list": ([], "secret: is an empty list"),
    "a short one among others": ([LONG, "s3cret"], "secret: is shorter than 16"),
    "a number": (5, "secret: must be a string"),
    "bytes": (b"s3cret-s3cret-s3cret", "secret: must be a string"),
    "a number among others": ([LONG, 5], "secret: must be a string"),
    "lone surrogates": ("s3cret-s3cret-s3cret\ud800", "secret: holds characters"),
}


@pytest.mark.parametrize(("secret", "message"), BAD_SECRETS.values(), ids=BAD_SECRETS.keys())
def test_an_unusable_secret_is_refused_and_not_repeated(
    secret: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATASETTE_SECRET", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        SigningSecrets.of(secret)
    assert str(caught.value).startswith(message)
    assert "s3cret" not in str(caught.value)
    assert LONG not in str(caught.value)


def test_a_short_secret_of_the_environment_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETTE_SECRET", "s3cret")
    with pytest.raises(ConfigurationError, match=r"^DATASETTE_SECRET: is shorter than 16 characters"):
        SigningSecrets.of(None)


@pytest.mark.parametrize("values", ["a-string-is-no-list", [], ()])
def test_secrets_made_directly_are_a_list_with_something_in_it(values: Any) -> None:
    """A string is a sequence of letters, each of which would be a secret of its own."""
    with pytest.raises(ConfigurationError, match="takes a list"):
        SigningSecrets(values)


def test_weak_tells_a_secret_that_datasette_would_take_and_we_would_not() -> None:
    assert SigningSecrets([LONG, SECRET]).weak
    assert not SigningSecrets([LONG]).weak


def test_no_repr_tells_a_secret_or_a_token() -> None:
    secrets = secrets_of(SECRET)
    objects = [secrets, TokenSigner(secrets, salt="token", digest=hashlib.sha1), ManagedTokenText(secrets)]
    for value in objects:
        assert SECRET not in repr(value)
        assert SECRET not in str(value)
    assert repr(secrets) == "SigningSecrets(<1 hidden>)"


def test_an_environment_that_holds_the_name_of_a_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETTE_SECRET", "${DATASETTE_SECRET}")
    with pytest.raises(ConfigurationError, match="DATASETTE_SECRET: is the name of a variable and not its value"):
        SigningSecrets.of(None)
