"""Secrets at rest: Fernet tokens that belong to one name and version, and several keys. Needs the extra ``secrets``."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Sequence
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from asgi_token_auth.errors import ConfigurationError, SecretUnreadable

# No UTF-8 text begins with this byte, and what datasette-secrets encrypts is UTF-8 text. So neither kind of
# plaintext can be taken for the other.
_BOUND: Final = b"\xff\x01"
_KEY_BYTES: Final = 32
# A Fernet token is its version, a time, 16 bytes, one or more blocks of 16 and 32 bytes.
_FERNET_VERSION: Final = 0x80
_FERNET_LEAST: Final = 1 + 8 + 16 + 16 + 32
_FERNET_BLOCK: Final = 16
_MAKE_ONE: Final = "make one with asgi-token-auth secrets generate-encryption-key."


def generate_key() -> str:
    """A new encryption key: 256 random bits as 44 characters of url-safe base64."""
    return Fernet.generate_key().decode()


class Encryption:
    """Encrypts with the newest key, decrypts with each.

    Fernet has no associated data, so a name and a version stand inside of what is encrypted, and what was copied
    to another row of a table does not open there.

    Args:
        keys: one key, or several with the newest last; as :func:`generate_key` or datasette-secrets makes them.

    Raises:
        ConfigurationError: there is no key, one is malformed, or one is given twice.
    """

    def __init__(self, keys: str | Sequence[str]) -> None:
        given = [keys] if isinstance(keys, str) else keys
        if isinstance(given, bytes) or not isinstance(given, Sequence):
            raise ConfigurationError("encryption_key: give text, or a list of texts with the newest key last.")
        if not given:
            raise ConfigurationError(f"encryption_key: there is none; {_MAKE_ONE}")
        decoded: list[bytes] = []
        for number, key in enumerate(given, start=1):
            which = "the key" if len(given) == 1 else f"key {number} of {len(given)}"
            raw = _decoded(key)
            if raw is None:
                raise ConfigurationError(
                    f"encryption_key: {which} is not {_KEY_BYTES} bytes in url-safe base64 (44 characters); {_MAKE_ONE}"
                )
            if raw in decoded:
                raise ConfigurationError(f"encryption_key: {which} is there twice; remove one of them.")
            decoded.append(raw)
        fernets = [Fernet(base64.urlsafe_b64encode(raw)) for raw in decoded]
        self._newest = fernets[-1]
        self._any = MultiFernet(reversed(fernets))
        self._names = [_name_of(raw) for raw in decoded]
        # Without what pads them, which people leave out when they copy.
        self._texts = [key.strip().rstrip("=") for key in given]

        # Where a key is added, what was sent before is another request; nothing is done twice for it.
        self.digest_key: bytes = hashlib.sha256(b"asgi-token-auth digest key\0" + decoded[-1]).digest()

    def __repr__(self) -> str:
        return f"Encryption(keys={self._names})"

    @property
    def key_name(self) -> str:
        """What the newest key is called where its values are stored. It tells nothing of the key."""
        return self._names[-1]

    def encrypt(self, name: str, version: int, value: str) -> bytes:
        """``value`` as it may be stored, for this name and version only."""
        return self._newest.encrypt(_bound_to(name, version) + value.encode())

    def decrypt(self, name: str, version: int, blob: bytes, *, key_name: str | None = None) -> str:
        """The value that was encrypted for this name and version, or by datasette-secrets, which binds nothing.

        Args:
            key_name: what is stored as the name of the key, for the message.

        Raises:
            SecretUnreadable: it cannot be decrypted, or belongs to another name or version. The message names the
                secret and the mend.
        """
        which = f"The secret {name!r} (version {version})"
        try:
            plain = self._any.decrypt(blob)
        except InvalidToken as error:
            if not _is_fernet(blob) or key_name in self._names:
                raise SecretUnreadable(
                    f"{which} is damaged in the database: restore it from a backup, or set it again."
                ) from error
            raise SecretUnreadable(
                f"{which} cannot be decrypted with the encryption key that is configured: add the key that it was set "
                "with, in front of the newer ones, or set the secret again."
            ) from error
        if plain.startswith(_BOUND):
            bound = _bound_to(name, version)
            if not plain.startswith(bound):
                raise SecretUnreadable(
                    f"{which} holds the value of another secret or version, copied there from outside: set it again, "
                    "and find out who else writes to this database."
                )
            plain = plain[len(bound) :]
        with contextlib.suppress(UnicodeDecodeError):
            return plain.decode()
        # Raised out here, because Python's own error has the value in it, and a report of one shows what it came from.
        raise SecretUnreadable(f"{which} holds no text: set it again.")

    def is_current(self, blob: bytes) -> bool:
        """Whether it was encrypted by :meth:`encrypt` with the newest key."""
        try:
            return self._newest.decrypt(blob).startswith(_BOUND)
        except InvalidToken:
            return False

    def reveals_a_key(self, text: str) -> bool:
        """Whether one of the keys stands in ``text``."""
        return any(key in text for key in self._texts)


def _bound_to(name: str, version: int) -> bytes:
    # With its length in front, no name can run over into the value.
    encoded = name.encode()
    return _BOUND + version.to_bytes(8, "big", signed=True) + len(encoded).to_bytes(4, "big") + encoded


def _decoded(key: object) -> bytes | None:
    # Both alphabets, because Fernet takes both; but not what it silently leaves out.
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_+/-]{43}=", key.strip()):
        return None
    return base64.urlsafe_b64decode(key.strip())


def _name_of(raw: bytes) -> str:
    return "key-" + hashlib.sha256(b"asgi-token-auth encryption key\0" + raw).hexdigest()[:12]


def _is_fernet(blob: bytes) -> bool:
    try:
        raw = base64.urlsafe_b64decode(blob)
    except (binascii.Error, ValueError):
        return False
    return len(raw) >= _FERNET_LEAST and raw[0] == _FERNET_VERSION and (len(raw) - _FERNET_LEAST) % _FERNET_BLOCK == 0
