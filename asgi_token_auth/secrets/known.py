"""Which secrets are asked for, which the environment gives, and the record of each, with what is stored of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Final

from asgi_token_auth.databases.protocol import Row
from asgi_token_auth.decoding import one_line_or_all, without_mark
from asgi_token_auth.errors import ConfigurationError, InvalidInput, SecretUnreadable
from asgi_token_auth.secrets.record import Secret, SecretRecord, SecretVersion, check_secret_name
from asgi_token_auth.secrets.table import version_of
from asgi_token_auth.storage.values import as_text, is_text

#: An environment variable that starts so, and ends in the name of a secret, goes before what is stored.
ENVIRONMENT_PREFIX: Final = "DATASETTE_SECRETS_"

_NO_VERSION: Final = SecretVersion(*[None] * len(fields(SecretVersion)))


def environment_secret(environ: Mapping[str, str], name: str) -> str | None:
    """The value of the secret ``name`` in ``environ``, without what env files and shells put around it.

    Raises:
        SecretUnreadable: it is no text. The message names the variable.
    """
    if not (given := environ.get(ENVIRONMENT_PREFIX + name)):
        return None
    # Before anybody encodes it, because Python's own error would have the value in it.
    if not is_text(given):
        raise SecretUnreadable(
            f"The environment variable {ENVIRONMENT_PREFIX}{name} is not valid UTF-8: set it again as UTF-8."
        )
    return one_line_or_all(without_mark(given).text) or None


class KnownSecrets:
    """The secrets that were registered, and those in ``environ``."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._registered: dict[str, Secret] = {}

    @property
    def registered(self) -> Mapping[str, Secret]:
        """The registered secrets by name, in the order in which they came."""
        return MappingProxyType(self._registered)

    def register(self, *secrets: Secret) -> None:
        """Of several with one name the first stays.

        Raises:
            ConfigurationError: a name or a text of one cannot be used. None of them was registered.
        """
        for secret in secrets:
            if isinstance(secret, str) or not hasattr(secret, "obtain_label"):
                raise ConfigurationError('secrets: give a list of Secret objects, for example [Secret("API_KEY")].')
            try:
                check_secret_name(secret.name)
            except InvalidInput as error:
                raise ConfigurationError(f"The secret {secret.name!r} cannot be registered: {error}") from error
            for text in (secret.description, secret.obtain_url, secret.obtain_label):
                if text is not None and not isinstance(text, str):
                    raise ConfigurationError(f"The secret {secret.name!r} cannot be registered: {text!r} is no text.")
        for secret in secrets:
            self._registered.setdefault(secret.name, secret)

    def from_environment(self, name: str) -> str | None:
        """The value of a secret in the environment, if there is one.

        Raises:
            SecretUnreadable: it is no text. The message names the variable.
        """
        return environment_secret(self._environ, name)

    def is_in_environment(self, name: str) -> bool:
        """Whether there is one, be it readable or not."""
        try:
            return self.from_environment(name) is not None
        except SecretUnreadable:
            # It goes before what is stored all the same.
            return True

    def record(self, row: Row) -> SecretRecord:
        """The record of a row of the columns in ``SHOWN``."""
        return self.record_of(as_text(row[0]) or "", version_of(row))

    def record_of(self, name: str, version: SecretVersion | None) -> SecretRecord:
        """The record of a secret. ``version``: what is stored now; ``None``: nothing."""
        secret = self._registered.get(name, Secret(name))
        known = version or _NO_VERSION
        return SecretRecord(
            name=name,
            description=secret.description,
            obtain_url=secret.obtain_url,
            obtain_label=secret.obtain_label,
            registered=name in self._registered,
            source="environment" if self.is_in_environment(name) else "stored" if version else None,
            note=known.note,
            version=known.version,
            created_at=known.created_at,
            created_by=known.created_by,
            updated_at=known.updated_at,
            updated_by=known.updated_by,
            last_used_at=known.last_used_at,
            last_used_by=known.last_used_by,
        )
