"""Secrets that sign, and signed text: how it is made, and how it is read back strictly. Nothing is looked up.

Keys are derived as itsdangerous derives them, so its serializers read and write the same text. Reading is
our own for two reasons: only the one canonical spelling of a signature is accepted (base64 has several),
and nothing is inflated past a limit.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from itsdangerous import BadData, Signer, URLSafeSerializer
from itsdangerous.encoding import base64_decode, base64_encode

from asgi_token_auth.decoding import is_unfilled, listed, logger, secret_of
from asgi_token_auth.errors import ConfigurationError

#: The start of managed tokens, and of Datasette's signed tokens.
MANAGED_PREFIX: Final = "dsatok_"
SIGNED_PREFIX: Final = "dstok_"

#: The most bytes that a compressed payload may inflate to.
MAX_PAYLOAD_BYTES: Final = 65_536

MIN_SECRET_LENGTH: Final = 16

_MOST_PLAIN_BYTES: Final = 100


class SigningSecrets:
    """The secrets that sign and verify, oldest first: the newest signs, every one verifies.

    Rotation: append the new secret, wait until the tokens of the old one are replaced, remove the old one.

    A line end, a byte-order mark, white space or quotes around a secret come from the way it was stored, which need not
    be the same for the server and for a command. So what is left without them signs, and both texts verify.
    """

    __slots__ = ("_values", "dropped")

    def __init__(self, values: Sequence[str]) -> None:
        if isinstance(values, str) or not values:
            raise ConfigurationError("SigningSecrets takes a list of secrets with at least one in it.")
        dropped: dict[str, None] = {}
        read: list[str] = []
        for value in values:
            cleaned = secret_of(value)
            read += [value, cleaned.text] if cleaned.text else [value]
            dropped.update(dict.fromkeys(cleaned.dropped))
            if value.endswith(("\n", "\r")):
                dropped["a line end behind it"] = None
        # The last of each: the newest signs.
        self._values = tuple(reversed(dict.fromkeys(reversed(read))))
        #: What was taken away of them, in words.
        self.dropped: tuple[str, ...] = tuple(dropped)

    @classmethod
    def of(cls, secret: SecretInput | None) -> SigningSecrets:
        """Check what a user gave as ``secret``; ``None`` asks the environment for DATASETTE_SECRET.

        Raises:
            ConfigurationError: there is none, or one is empty, shorter than 16 characters or not text.
        """
        if isinstance(secret, SigningSecrets):
            return secret
        name = "secret"
        if secret is None:
            name = "DATASETTE_SECRET"
            secret = os.environ.get(name)
            if secret is None:
                raise ConfigurationError(
                    "secret: there is none; pass secret=, set `secret` in the configuration or set the environment "
                    "variable DATASETTE_SECRET to a long random string."
                )
        given: list[object] = list(secret) if isinstance(secret, (list, tuple)) else [secret]
        if not given:
            raise ConfigurationError("secret: is an empty list: give at least one long random string.")
        values: list[str] = []
        for value in given:
            if not isinstance(value, str):
                raise ConfigurationError("secret: must be a string or a list of strings, newest last.")
            if not value:
                raise ConfigurationError(f"{name}: is empty; set it to a long random string, or take it away.")
            if is_unfilled(value):
                mend = 'write {"$env": "NAME"}' if name == "secret" else "set it to a long random string"
                raise ConfigurationError(f"{name}: is the name of a variable and not its value; {mend}.")
            # What stands around it does not sign, so it does not count.
            if len(secret_of(value).text) < MIN_SECRET_LENGTH:
                raise ConfigurationError(
                    f"{name}: is shorter than {MIN_SECRET_LENGTH} characters: use a long random string, for example "
                    'from python -c "import secrets; print(secrets.token_hex(32))".'
                )
            if not _is_encodable(value):
                raise ConfigurationError(f"{name}: holds characters that are not text: use printable characters.")
            values.append(value)
        signing = cls(values)
        if signing.dropped:
            logger.info("%s: %s left out; take it away there", name, listed(signing.dropped))
        return signing

    @property
    def weak(self) -> bool:
        """Whether one of them is shorter than it should be."""
        return any(len(value) < MIN_SECRET_LENGTH for value in self._values)

    def reveal(self) -> list[str]:
        """The secrets themselves, oldest first. For signing only: keep the result out of logs."""
        return list(self._values)

    def __repr__(self) -> str:
        return f"SigningSecrets(<{len(self._values)} hidden>)"


SecretInput: TypeAlias = str | Sequence[str] | SigningSecrets


class TokenSigner:
    """Signs and reads URL-safe text under one salt: itsdangerous's URLSafeSerializer, read strictly."""

    __slots__ = ("_digest", "_keys", "_serializer", "_signature_length")

    def __init__(self, secrets: SigningSecrets, *, salt: str, digest: Callable[..., Any]) -> None:
        self._serializer = URLSafeSerializer(secrets.reveal(), salt=salt, signer_kwargs={"digest_method": digest})
        signer = Signer(secrets.reveal(), salt=salt, digest_method=digest)
        # Derived once: itsdangerous derives the key again for every token it reads.
        self._keys = [signer.derive_key(key) for key in reversed(signer.secret_keys)]
        self._digest = digest().name
        self._signature_length = len(base64_encode(b"\0" * digest().digest_size))

    def sign(self, value: object) -> str:
        """The text that carries ``value``, which must be plain JSON data."""
        return self._serializer.dumps(value)

    def payload(self, value: object) -> bytes:
        """What :meth:`sign` signs for ``value``: its one canonical spelling."""
        return self._serializer.dump_payload(value)

    def verify(self, text: str) -> bytes | None:
        """The signed part of ``text``, still encoded, or ``None`` if no secret of ours signed exactly this text."""
        signed, separator, signature = text.rpartition(".")
        if not separator or len(signature) != self._signature_length or not text.isascii():
            return None
        data, given = signed.encode(), signature.encode()
        for key in self._keys:
            expected = base64_encode(hmac.digest(key, data, self._digest))
            if hmac.compare_digest(expected, given):
                return data
        return None


def datasette_signer(secrets: SigningSecrets) -> TokenSigner:
    """What signs and reads the part of a ``dstok_`` token after its prefix, as ``Datasette.sign(value, "token")``."""
    return TokenSigner(secrets, salt="token", digest=hashlib.sha1)


def read_payload(data: bytes) -> Any:
    """The value inside the signed part of a token.

    Raises:
        ValueError: it is not base64, not JSON, or inflates to more than :data:`MAX_PAYLOAD_BYTES`.
    """
    try:
        if data.startswith(b"."):
            inflater = zlib.decompressobj()
            # One more than may be, because a stream that fills its limit does not yet know that it has ended.
            raw = inflater.decompress(base64_decode(data[1:]), MAX_PAYLOAD_BYTES + 1)
            if len(raw) > MAX_PAYLOAD_BYTES or not inflater.eof:
                raise ValueError("the payload is too large or cut off")
        else:
            raw = base64_decode(data)
        # Not the bytes, whose encoding would be guessed: UTF-16 and byte order marks are what nobody writes here.
        return json.loads(raw.decode())
    except (ValueError, RecursionError, zlib.error, BadData) as error:
        raise ValueError("the payload cannot be read") from error


def plain_payload(data: bytes) -> bytes | None:
    """The few bytes that :meth:`TokenSigner.payload` would spell as ``data``, without compressing them.

    ``None``: they are compressed, too many, spelled otherwise, or so regular that they might have been compressed.
    """
    try:
        raw = base64_decode(data)
    except BadData:
        return None
    if len(raw) > _MOST_PLAIN_BYTES or base64_encode(raw) != data:
        return None
    # What itsdangerous asks too, with room to spare, and without the quarter of a megabyte that is cleared for its own
    # question. A window of 512 bytes finds the same in so few.
    packer = zlib.compressobj(wbits=9, memLevel=1)
    return raw if len(packer.compress(raw)) + len(packer.flush()) >= len(raw) + 4 else None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
