"""The text of managed tokens: an id and a nonce, and nothing else is read as one."""

import hashlib
import json
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeSerializer
from itsdangerous.encoding import base64_encode

from asgi_token_auth.signing import TokenSigner
from asgi_token_auth.storage.values import MAX_ID
from asgi_token_auth.tokens.text import ManagedTokenText, digest_nonce, new_nonce
from tests.support.signing import ALPHABET, SECRET, secrets_of, sha1_signer


def text_of(*values: str) -> ManagedTokenText:
    return ManagedTokenText(secrets_of(*(values or (SECRET,))))


def predecessors(value: object, secret: str = SECRET) -> str:
    """A token as datasette-auth-tokens makes it."""
    return "dsatok_" + str(URLSafeSerializer(secret, salt="dsatok").dumps(value))


def ours(value: object, secret: str = SECRET) -> str:
    """A managed token of ours with anything inside."""
    signer = TokenSigner(secrets_of(secret), salt="asgi-token-auth:dsatok_", digest=hashlib.sha256)
    return "dsatok_" + signer.sign(value)


def test_managed_tokens_of_an_old_secret_are_read_and_new_ones_are_of_the_newest() -> None:
    old, both, new = text_of("old"), text_of("old", "new"), text_of("new")
    assert both.read(old.build(7, "nonce")) == (7, "nonce")
    assert both.read(predecessors(7, "old")) == (7, "")
    assert new.read(both.build(7, "nonce")) == (7, "nonce")
    assert new.read(old.build(7, "nonce")) is None


NO_ID: list[Any] = [True, False, None, 1.0, "1", "", 0, -1, MAX_ID + 1, 2**70, [], [1], {}, {"id": 1}]


@pytest.mark.parametrize("value", NO_ID, ids=repr)
def test_only_a_whole_number_that_a_database_can_hold_is_an_id(value: Any) -> None:
    assert text_of().read(predecessors(value)) is None
    assert text_of().read(ours([value, "nonce"])) is None


@pytest.mark.parametrize("token_id", [1, 255, MAX_ID])
def test_ids_are_read_as_they_were_written(token_id: int) -> None:
    assert text_of().read(text_of().build(token_id, "nonce")) == (token_id, "nonce")
    assert text_of().read(predecessors(token_id)) == (token_id, "")


@pytest.mark.parametrize(
    "value", [1, [1], [1, "n", "n"], {"0": 1, "1": "n"}, "1n", [1, ""], [1, None], [1, 5], [1, "é"]]
)
def test_a_managed_token_holds_an_id_and_a_nonce_and_nothing_else(value: object) -> None:
    """A bare id under our own salt is none of the predecessor's: an empty nonce is theirs alone."""
    assert text_of().read(ours(value)) is None


@pytest.mark.parametrize("payload", [b"!", b"A", base64_encode(b"{"), b"." + base64_encode(b"no zlib")])
def test_d28_a_well_signed_managed_token_that_cannot_be_read_is_none(payload: bytes) -> None:
    predecessor = Signer(SECRET, salt="dsatok").sign(payload).decode()
    own = Signer(SECRET, salt="asgi-token-auth:dsatok_", digest_method=hashlib.sha256).sign(payload).decode()
    assert text_of().read("dsatok_" + predecessor) is None
    assert text_of().read("dsatok_" + own) is None


@pytest.mark.parametrize("legacy", [False, True], ids=["ours", "the predecessor's"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text + "\0",
        lambda text: text + " ",
        lambda text: " " + text,
        lambda text: text.replace(",", ", "),
        lambda text: text.replace("1", "1e0"),
        lambda text: text.replace("nonce", "\\u006eonce"),
        lambda text: "\ufeff" + text,
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-32"),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
def test_only_the_canonical_payload_is_a_token(spell: Any, legacy: bool, packed: bool) -> None:
    canonical = "17" if legacy else '[17,"nonce"]'

    def signed(text: str | bytes) -> str:
        raw = text.encode() if isinstance(text, str) else text
        payload = b"." + base64_encode(zlib.compress(raw)) if packed else base64_encode(raw)
        if legacy:
            return "dsatok_" + Signer(SECRET, salt="dsatok").sign(payload).decode()
        signer = Signer(SECRET, salt="asgi-token-auth:dsatok_", digest_method=hashlib.sha256)
        return "dsatok_" + signer.sign(payload).decode()

    good = (17, "" if legacy else "nonce")
    assert text_of().read(signed(canonical)) == (None if packed else good)
    if (other := spell(canonical)) != canonical:
        assert text_of().read(signed(other)) is None


@pytest.mark.parametrize(
    "value", [[1, "a" * 22], [1, "abc" * 8], [1_111_111_111_111_111_111, "nonce"], [9, "ab" * 40], [9, "n" * 300]]
)
def test_what_signing_compresses_is_read_in_that_spelling_only(value: list[Any]) -> None:
    compressed = ours(value)
    assert compressed.startswith("dsatok_.")
    assert text_of().read(compressed) == tuple(value)
    plain = base64_encode(json.dumps(value, separators=(",", ":")).encode())
    signer = Signer(SECRET, salt="asgi-token-auth:dsatok_", digest_method=hashlib.sha256)
    assert text_of().read("dsatok_" + signer.sign(plain).decode()) is None


@given(
    st.integers(min_value=1, max_value=MAX_ID) | st.integers(min_value=1, max_value=10**6),
    st.text(st.sampled_from("ab01-_"), min_size=1, max_size=90) | st.text(st.characters(codec="ascii"), min_size=1),
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_signed_is_read(token_id: int, nonce: str) -> None:
    assert text_of().read(ours([token_id, nonce])) == (token_id, nonce)


def test_a_nonce_under_the_predecessors_salt_is_not_read() -> None:
    assert text_of().read(predecessors([1, "nonce"])) is None


def test_the_prefix_is_part_of_the_token() -> None:
    token = text_of().build(1, "nonce")
    for spelled in (token[7:], "xxxxxxx" + token[7:], token.upper(), token[6:], " " + token):
        assert text_of().read(spelled) is None


def test_another_prefix_has_its_own_key_and_reads_no_predecessors_tokens() -> None:
    """Two stores that share a secret must not accept each other's tokens under a swapped prefix."""
    mine = ManagedTokenText(secrets_of(SECRET), prefix="mine_")
    assert mine.read(mine.build(1, "nonce")) == (1, "nonce")
    assert mine.read("mine_" + text_of().build(1, "nonce")[7:]) is None
    assert mine.read("mine_" + predecessors(1)[7:]) is None


@given(st.text(st.characters(), max_size=60))
@example("dsatok_\ud800.\udfff")
@example("dsatok_" + "é" * 20 + "." + "é" * 43)
@example("dsatok_" + "a" * 20 + "." + "\ud800" * 27)
@settings(max_examples=300, deadline=None)
def test_no_text_raises(text: str) -> None:
    managed, signer = text_of(), sha1_signer()
    for shaped in (text, "dsatok_" + text, f"dsatok_{text}.{'A' * 27}", f"dsatok_{text}.{'A' * 43}"):
        assert managed.read(shaped) is None
        assert signer.verify(shaped) is None


def test_nonces_are_128_random_bits_and_kept_as_a_digest_only() -> None:
    nonces = {new_nonce() for _ in range(200)}
    assert len(nonces) == 200
    assert all(len(nonce) == 22 and set(nonce) <= set(ALPHABET) for nonce in nonces)
    nonce = nonces.pop()
    assert digest_nonce(nonce) == hashlib.sha256(nonce.encode()).hexdigest()
