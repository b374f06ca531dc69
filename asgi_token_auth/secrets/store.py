"""The store of encrypted secrets: arguments are checked here, and the steps of each change run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from asgi_token_auth.databases.protocol import Database, Row
from asgi_token_auth.errors import ConfigurationError, InvalidInput, SecretNotFound, SecretUnreadable
from asgi_token_auth.secrets.changes import SecretChanges, decrypt, not_found
from asgi_token_auth.secrets.known import ENVIRONMENT_PREFIX as ENVIRONMENT_PREFIX
from asgi_token_auth.secrets.known import KnownSecrets
from asgi_token_auth.secrets.record import (
    Rotation,
    Secret,
    SecretRecord,
    SecretVersion,
    ValueShape,
    check_note,
    check_secret_name,
    check_value,
    shape_of,
)
from asgi_token_auth.secrets.table import DECRYPTED, DELETED_AT, NEWEST, SHOWN, migrations, version_of
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.storage.migrations import Migration
from asgi_token_auth.storage.store import TableStore, system_clock
from asgi_token_auth.storage.usage import Use
from asgi_token_auth.storage.values import MAX_ACTOR_ID, check_actor_id, is_text, text_or_none

if TYPE_CHECKING:
    from asgi_token_auth.secrets.encryption import Encryption

logger: Final = logging.getLogger("asgi_token_auth")

#: The table of datasette-secrets, which this store reads and extends.
DEFAULT_TABLE: Final = "datasette_secrets"


class SecretStore(TableStore):
    """Secrets: set, noted, listed, deleted and used, the values encrypted.

    Every value that is set is a new version; the earlier ones stay in the table, encrypted, until the secret is
    deleted. An environment variable DATASETTE_SECRETS_<NAME> goes before what is stored.

    Args:
        database: where the rows are.
        encryption_key: one key, or a list with the newest last. Each decrypts, the newest encrypts. ``None``:
            only environment variables are of use, and nothing can be set.
        secrets: those that the app needs.
        table: the table's name. More tables start with it.
        environ: in place of the environment variables.
        clock: seconds since the epoch, for tests.

    Raises:
        ConfigurationError: an argument cannot work, or the extra ``secrets`` is not installed.
    """

    def __init__(
        self,
        database: Database,
        *,
        encryption_key: str | Sequence[str] | None,
        secrets: Iterable[Secret] = (),
        table: str = DEFAULT_TABLE,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        self._encryption = None if encryption_key is None else _encryption(encryption_key)
        digest_key = b"" if self._encryption is None else self._encryption.digest_key
        super().__init__(database, table=table, clock=clock, digest_key=digest_key)
        self._changes = SecretChanges(self._table)
        # Not a default of the signature, which help() would show with all its values.
        self._known = KnownSecrets(os.environ if environ is None else environ)
        self.register(*secrets)

    @property
    def registered(self) -> Mapping[str, Secret]:
        """The registered secrets by name, in the order in which they came."""
        return self._known.registered

    @property
    def can_encrypt(self) -> bool:
        """Whether there is an encryption key, so that secrets can be set."""
        return self._encryption is not None

    def register(self, *secrets: Secret) -> None:
        """Make known which secrets are needed. Of several with one name the first stays.

        Raises:
            ConfigurationError: a name or a text of one cannot be used. None of them was registered.
        """
        self._known.register(*secrets)

    async def open(self) -> None:
        """Open and migrate the database, and count one more user of this store.

        Raises:
            ConfigurationError: an encryption key stands in the very table that it protects.
            StorageError: the database cannot be opened or migrated.
        """
        await super().open()
        try:
            await self._refuse_keys_inside()
        except BaseException:
            await self.close()
            raise

    async def get_secret(self, name: str, actor_id: str | None = None) -> str | None:
        """The value of a secret, or ``None`` if it is not set.

        Args:
            actor_id: for whom it is used, to be shown with the time of last use.

        Raises:
            SecretUnreadable: it is stored, and the key is missing or wrong, or the row is damaged; or it is no text.
            StorageError: the database cannot answer.
        """
        if not isinstance(name, str) or not is_text(name):
            return None
        if value := self._known.from_environment(name):
            return value
        await self.ensure_ready()
        found = await self.database.query(
            f"select {DECRYPTED} from {self._table} where name = :name {NEWEST}", {"name": name}
        )
        # If the newest version was deleted, no earlier one may come back to life.
        if not found.rows or found.rows[0][-1] is not None:
            return None
        row = found.rows[0]
        value = decrypt(self._encryption, row)
        self._usage.note(row[0], int(self.clock()), _user(actor_id))
        return value

    async def shape(self, name: str) -> ValueShape | None:
        """How long the stored value is, in characters and lines; ``None`` if none is stored. It is not a use.

        Raises:
            SecretUnreadable: the key is missing or wrong, or the row is damaged.
            StorageError: the database cannot answer.
        """
        await self.ensure_ready()
        found = await self.database.query(
            f"select {DECRYPTED} from {self._table} where name = :name {NEWEST}", {"name": name}
        )
        if not found.rows or found.rows[0][-1] is not None:
            return None
        return shape_of(decrypt(self._encryption, found.rows[0]))

    async def set(
        self,
        name: str,
        value: str,
        *,
        note: str | None = None,
        by: str | None = None,
        idempotency_key: str | IdempotencyKey | None = None,
    ) -> SecretRecord:
        """Store a value as a new version.

        Args:
            note: for people, at most 100 characters; ``None``: as it was before; empty: none.
            by: the actor who sets it.
            idempotency_key: stands for this one request of ``by``. With a key that ``by`` used within 48 hours,
                nothing is done.

        Raises:
            AlreadyDone: the key was used for the same call.
            IdempotencyKeyReused: the key was used for something else.
            InvalidInput: an argument is unusable.
            ConfigurationError: there is no encryption key.
            StorageError: nothing was stored.
        """
        check_secret_name(name)
        check_value(value)
        check_note(note)
        by = None if by is None else check_actor_id(by)
        if self._encryption is None:
            raise ConfigurationError("Secrets cannot be set, because there is no encryption key; configure one.")
        for text in (name, value, note or ""):
            self._refuse_key(text)
        await self.ensure_ready()
        now = int(self.clock())
        request = self._requests.request(idempotency_key, by, f"set {name}", (value, note))
        steps = self._changes.set(self._encryption, name, value, note, by, now)
        steps = self._requests.once(request, steps, "set", _version_in, now)
        return self._known.record(await self.database.transaction(steps))

    async def set_note(
        self,
        name: str,
        note: str | None,
        *,
        by: str | None = None,
        idempotency_key: str | IdempotencyKey | None = None,
    ) -> SecretRecord:
        """Change the note of a stored secret, at most 100 characters; ``None`` or empty: none.

        Args:
            idempotency_key: as for :meth:`set`.

        Raises:
            AlreadyDone, IdempotencyKeyReused: as for :meth:`set`.
            InvalidInput: an argument is unusable.
            SecretNotFound: no such secret is stored.
            StorageError: nothing was changed.
        """
        check_note(note)
        self._refuse_key(note or "")
        by = None if by is None else check_actor_id(by)
        self._check_sought(name)
        await self.ensure_ready()
        now = int(self.clock())
        # One form sets either.
        request = self._requests.request(idempotency_key, by, f"set {name}", note)
        steps = self._changes.set_note(name, note or "", by, now)
        steps = self._requests.once(request, steps, "noted", _version_in, now)
        try:
            return self._known.record(await self.database.transaction(steps))
        except SecretNotFound:
            raise self._not_stored(name) from None

    async def get(self, name: str) -> SecretRecord:
        """One secret.

        Raises:
            SecretNotFound: it is neither registered nor stored.
            StorageError: the database cannot answer.
        """
        self._check_sought(name)
        await self.ensure_ready()
        found = await self.database.query(
            f"select {SHOWN} from {self._table} where name = :name {NEWEST}", {"name": name}
        )
        row = next((row for row in found.rows if row[DELETED_AT] is None), None)
        if row is not None:
            return self._known.record(row)
        if name not in self._known.registered:
            raise not_found(name)
        return self._known.record_of(name, None)

    async def list(self) -> Sequence[SecretRecord]:
        """The registered and the stored secrets, by name.

        Raises:
            StorageError: the database cannot answer.
        """
        await self.ensure_ready()
        found = await self.database.query(
            f"select {SHOWN} from {self._table} newest where deleted_at is null "
            f"and id = (select id from {self._table} same where same.name = newest.name {NEWEST})",
            {},
        )
        records = {record.name: record for record in map(self._known.record, found.rows)}
        for name in self._known.registered:
            if name not in records:
                records[name] = self._known.record_of(name, None)
        return [records[name] for name in sorted(records)]

    async def history(self, name: str) -> Sequence[SecretVersion]:
        """The versions of a secret, newest first, deleted ones too.

        Raises:
            SecretNotFound: it is not registered, and nothing of it was ever stored.
            StorageError: the database cannot answer.
        """
        self._check_sought(name)
        await self.ensure_ready()
        found = await self.database.query(
            f"select {SHOWN} from {self._table} where name = :name order by version desc, id desc", {"name": name}
        )
        if not found.rows and name not in self._known.registered:
            raise not_found(name)
        return [version_of(row) for row in found.rows]

    async def delete(
        self, name: str, *, by: str | None = None, idempotency_key: str | IdempotencyKey | None = None
    ) -> SecretRecord:
        """End every version of a secret. Who set them and when is kept; the values are gone.

        Args:
            idempotency_key: as for :meth:`set`. What was set since is not deleted by a repeat.

        Raises:
            AlreadyDone, IdempotencyKeyReused: as for :meth:`set`.
            InvalidInput: ``by`` is no actor id.
            SecretNotFound: no such secret is stored.
            StorageError: nothing was deleted.
        """
        by = None if by is None else check_actor_id(by)
        self._check_sought(name)
        await self.ensure_ready()
        now = int(self.clock())
        request = self._requests.request(idempotency_key, by, f"delete {name}")
        steps = self._changes.delete(name, by, now)
        try:
            await self.database.transaction(self._requests.once(request, steps, "deleted", lambda _: None, now))
        except SecretNotFound:
            raise self._not_stored(name) from None
        return self._known.record_of(name, None)

    async def rotate(self, *, by: str | None = None) -> Rotation:
        """Encrypt every version of every secret with the newest key, all of them or none.

        Values of datasette-secrets become bound to their name and version by this.

        Raises:
            InvalidInput: ``by`` is no actor id.
            ConfigurationError: there is no encryption key.
            SecretUnreadable: one cannot be decrypted; the message names it. Nothing was changed.
            StorageError: nothing was changed.
        """
        by = None if by is None else check_actor_id(by)
        if self._encryption is None:
            raise ConfigurationError("Secrets cannot be rotated, because there is no encryption key; configure one.")
        await self.ensure_ready()
        rotation = await self.database.transaction(self._changes.rotate(self._encryption))
        logger.info("encrypted %d secret values anew, asked for by %r", rotation.rewritten, by)
        return rotation

    async def problems(self) -> Sequence[str]:
        """A sentence about every version that cannot be decrypted; none where all is well. Notes no use.

        Raises:
            StorageError: the database cannot answer.
        """
        await self.ensure_ready()
        found = await self.database.query(
            f"select {DECRYPTED} from {self._table} where deleted_at is null order by name, version", {}
        )
        sentences: list[str] = []
        for row in found.rows:
            try:
                decrypt(self._encryption, row)
            except SecretUnreadable as error:
                sentences.append(str(error))
        return sentences

    async def _write_usage(self, uses: Sequence[Use]) -> None:
        await self.database.run_many(*self._changes.note_uses(uses))

    # Checks

    async def _refuse_keys_inside(self) -> None:
        if self._encryption is None:
            return
        found = await self.database.query(f"select name, note from {self._table}", {})
        for name, note in found.rows:
            if any(isinstance(text, str) and self._encryption.reveals_a_key(text) for text in (name, note)):
                raise ConfigurationError(
                    "encryption_key: a key stands in a name or note of the table of secrets, where whoever gets the "
                    "database gets it too. Make a new key, rotate, and remove the old one from the table."
                )

    def _refuse_key(self, text: str) -> None:
        if self._encryption is not None and self._encryption.reveals_a_key(text):
            raise InvalidInput(
                "This holds the encryption key, which must not be kept in the database that it protects."
            )

    def _check_sought(self, name: object) -> None:
        # What can be no name was never stored; but datasette-secrets had other limits than ours.
        if not isinstance(name, str) or not is_text(name):
            raise SecretNotFound("There is no such secret.")

    def _not_stored(self, name: str) -> SecretNotFound:
        if self._known.is_in_environment(name):
            return SecretNotFound(
                f"The secret {name!r} comes from the environment variable {ENVIRONMENT_PREFIX}{name} and is not "
                "stored; change the variable."
            )
        return not_found(name)

    def _migrations(self) -> Sequence[Migration]:
        return migrations(self.database, self.table, self._requests)


def _encryption(key: str | Sequence[str]) -> Encryption:
    try:
        # Here and not above: registering secrets and reading the environment need no further package.
        from asgi_token_auth.secrets.encryption import Encryption
    except ImportError as error:
        raise ConfigurationError(
            "encryption_key: encrypting needs one more package: pip install 'asgi-token-auth[secrets]'."
        ) from error
    return Encryption(key)


def _version_in(row: Row) -> int | None:
    return version_of(row).version


def _user(actor_id: object) -> str | None:
    # Not worth failing for: whoever asks for a secret must get it.
    return text_or_none(str(actor_id), MAX_ACTOR_ID) if actor_id else None
