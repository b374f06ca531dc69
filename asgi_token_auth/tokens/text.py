"""The text of managed tokens: an id and a nonce, signed."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any, Final

from asgi_token_auth.errors import ConfigurationError
from asgi_token_auth.signing import MANAGED_PREFIX, SigningSecrets, TokenSigner, plain_payload, read_payload
from asgi_token_auth.storage.values import MAX_ID

# An id and a nonce of ours as they are signed: JSON of which every byte could be spelled in this way only.
_PLAIN: Final = re.compile(rb'\[([1-9][0-9]{0,18}),"([A-Za-z0-9_-]+)"\]')


def check_prefix(prefix: str) -> str:
    """``prefix``, with which the tokens of a store begin.

    Raises:
        ConfigurationError: it cannot be one.
    """
    if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9]{1,29}_", prefix):
        raise ConfigurationError(f"prefix: {prefix!r} must be letters and digits followed by an underscore.")
    return prefix


class ManagedTokenText:
    """The text of managed tokens: the prefix, then the signed id and nonce.

    The nonce (128 random bits) is known to nobody but the holder: a store keeps its digest only. Tokens of
    datasette-auth-tokens, which sign the bare id, are read too and reported with an empty nonce.
    """

    __slots__ = ("_legacy", "_signer", "prefix")

    def __init__(self, secrets: SigningSecrets, *, prefix: str = MANAGED_PREFIX) -> None:
        self.prefix: str = prefix
        self._signer = TokenSigner(secrets, salt=f"asgi-token-auth:{prefix}", digest=hashlib.sha256)
        # Salt and digest are those of Datasette.sign(id, "dsatok").
        self._legacy = TokenSigner(secrets, salt="dsatok", digest=hashlib.sha1) if prefix == MANAGED_PREFIX else None

    def build(self, token_id: int, nonce: str) -> str:
        """The token of row ``token_id``."""
        return self.prefix + self._signer.sign([token_id, nonce])

    def read(self, token: str) -> tuple[int, str] | None:
        """``(id, nonce)`` of the one canonical text of a token, else ``None``."""
        if not token.startswith(self.prefix):
            return None
        body = token[len(self.prefix) :]
        signer, data = self._signer, self._signer.verify(body)
        if data is not None and (plain := _read_plain(data)) is not None:
            return plain
        if data is None and self._legacy is not None:
            signer, data = self._legacy, self._legacy.verify(body)
        if data is None:
            return None
        try:
            value = read_payload(data)
        except ValueError:
            return None
        # Whoever has the secret could sign the same value in other spellings; only ours is a token.
        if not _is_id_and_nonce(value, legacy=signer is self._legacy) or signer.payload(value) != data:
            return None
        return (value, "") if signer is self._legacy else (value[0], value[1])


def _read_plain(data: bytes) -> tuple[int, str] | None:
    """What nearly every token holds, in a tenth of the time; ``None``: it has to be looked at more closely."""
    raw = plain_payload(data)
    if raw is None or (found := _PLAIN.fullmatch(raw)) is None:
        return None
    token_id = int(found[1])
    return (token_id, found[2].decode()) if token_id <= MAX_ID else None


def _is_id_and_nonce(value: Any, *, legacy: bool) -> bool:
    if legacy:
        return _is_id(value)
    match value:
        case [token_id, str(nonce)]:
            return _is_id(token_id) and nonce != "" and nonce.isascii()
        case _:
            return False


def new_nonce() -> str:
    """128 random bits as 22 URL-safe characters."""
    return secrets.token_urlsafe(16)


def digest_nonce(nonce: str) -> str:
    """What a store keeps of a nonce. A nonce has full entropy, so a plain fast hash hides it."""
    return hashlib.sha256(nonce.encode()).hexdigest()


def _is_id(value: object) -> bool:
    # bool is an int and 1.0 == 1: neither is an id.
    return type(value) is int and 1 <= value <= MAX_ID
