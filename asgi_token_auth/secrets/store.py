"""Encrypted secrets in a database. Every statement about them is in this module."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from asgi_token_auth.databases.protocol import Database, Row, Steps
from asgi_token_auth.errors import ConfigurationError, InvalidInput, SecretNotFound, SecretUnreadable, StorageError
from asgi_token_auth.secrets.record import (
    MAX_NAME,
    Rotation,
    Secret,
    SecretRecord,
    SecretVersion,
    check_note,
    check_secret_name,
    check_value,
)
from asgi_token_auth.storage.migrations import Migration
from asgi_token_auth.storage.store import TableStore
from asgi_token_auth.storage.usage import Use
from asgi_token_auth.storage.values import as_integer, as_text, check_actor_id, is_text

if TYPE_CHECKING:
    from asgi_token_auth.secrets.encryption import Encryption

logger = logging.getLogger("asgi_token_auth")

#: The table of datasette-secrets, which this store reads and extends.
DEFAULT_TABLE: Final = "datasette_secrets"
#: An environment variable that starts so, and ends in the name of a secret, goes before what is stored.
ENVIRONMENT_PREFIX: Final = "DATASETTE_SECRETS_"

_SHOWN: Final = (
    "name, version, note, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, "
    "last_used_at, last_used_by"
)
_DELETED: Final = _SHOWN.split(", ").index("deleted_at")
_DECRYPTED: Final = "id, name, version, encrypted, encryption_key_name, deleted_at"
# The column has 32 bits in some databases.
_MAX_VERSION: Final = 2**31 - 1
_NEWEST: Final = "order by version desc, id desc limit 1"


class SecretStore(TableStore):
    """Secrets: set, noted, listed, deleted and used, the values encrypted.

    Every value that is set is a new version; the earlier ones stay in the table, encrypted, until the secret is
    deleted. An environment variable DATASETTE_SECRETS_<NAME> goes before what is stored.

    Args:
        database: where the rows are.
        encryption_key: one key, or a list with the newest last. Each decrypts, the newest encrypts. ``None``:
            only environment variables are of use, and nothing can be set.
        secrets: those that the app needs.
        table: the table's name. Another table starts with it.
        environ: the environment variables.
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
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(database, table=table, clock=clock)
        self._encryption = None if encryption_key is None else _encryption(encryption_key)
        self._environ = environ
        self._registered: dict[str, Secret] = {}
        self.register(*secrets)

    @property
    def registered(self) -> Mapping[str, Secret]:
        """The registered secrets by name, in the order in which they came."""
        return MappingProxyType(self._registered)

    @property
    def can_encrypt(self) -> bool:
        """Whether there is an encryption key, so that secrets can be set."""
        return self._encryption is not None

    def register(self, *secrets: Secret) -> None:
        """Make known which secrets are needed. Of several with one name the first stays.

        Raises:
            ConfigurationError: a name or a text of one cannot be used. None of them was registered.
        """
        for secret in secrets:
            try:
                check_secret_name(secret.name)
            except InvalidInput as error:
                raise ConfigurationError(f"The secret {secret.name!r} cannot be registered: {error}") from error
            for text in (secret.description, secret.obtain_url, secret.obtain_label):
                if text is not None and not isinstance(text, str):
                    raise ConfigurationError(f"The secret {secret.name!r} cannot be registered: {text!r} is no text.")
        for secret in secrets:
            self._registered.setdefault(secret.name, secret)

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
            SecretUnreadable: it is stored, and the key is missing or wrong, or the row is damaged.
            StorageError: the database cannot answer.
        """
        if not isinstance(name, str) or not is_text(name):
            return None
        if value := self._from_environment(name):
            return value
        await self.ensure_ready()
        found = await self.database.query(
            f"select {_DECRYPTED} from {self._table} where name = :name {_NEWEST}", {"name": name}
        )
        # If the newest version was deleted, no earlier one may come back to life.
        if not found.rows or found.rows[0][-1] is not None:
            return None
        row = found.rows[0]
        value = self._decrypt(row)
        self._usage.note(row[0], int(self.clock()), _user(actor_id))
        return value

    async def set(self, name: str, value: str, *, note: str | None = None, by: str | None = None) -> SecretRecord:
        """Store a value as a new version.

        Args:
            note: for people, at most 100 characters; ``None``: as it was before; empty: none.
            by: the actor who sets it.

        Raises:
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
        return self._record(await self.database.transaction(self._set(self._encryption, name, value, note, by)))

    async def set_note(self, name: str, note: str | None, *, by: str | None = None) -> SecretRecord:
        """Change the note of a stored secret, at most 100 characters; ``None`` or empty: none.

        Raises:
            InvalidInput: an argument is unusable.
            SecretNotFound: no such secret is stored.
            StorageError: nothing was changed.
        """
        check_note(note)
        self._refuse_key(note or "")
        by = None if by is None else check_actor_id(by)
        self._check_sought(name)
        await self.ensure_ready()
        return self._record(await self.database.transaction(self._set_note(name, note or "", by)))

    async def get(self, name: str) -> SecretRecord:
        """One secret.

        Raises:
            SecretNotFound: it is neither registered nor stored.
            StorageError: the database cannot answer.
        """
        self._check_sought(name)
        await self.ensure_ready()
        found = await self.database.query(
            f"select {_SHOWN} from {self._table} where name = :name {_NEWEST}", {"name": name}
        )
        row = next((row for row in found.rows if row[_DELETED] is None), None)
        if row is not None:
            return self._record(row)
        if name not in self._registered:
            raise _not_found(name)
        return self._unset(name)

    async def list(self) -> Sequence[SecretRecord]:
        """The registered and the stored secrets, by name.

        Raises:
            StorageError: the database cannot answer.
        """
        await self.ensure_ready()
        found = await self.database.query(
            f"select {_SHOWN} from {self._table} kept where deleted_at is null "
            f"and id = (select id from {self._table} same where same.name = kept.name {_NEWEST})",
            {},
        )
        records = {record.name: record for record in map(self._record, found.rows)}
        for name in self._registered:
            if name not in records:
                records[name] = self._unset(name)
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
            f"select {_SHOWN} from {self._table} where name = :name order by version desc, id desc", {"name": name}
        )
        if not found.rows and name not in self._registered:
            raise _not_found(name)
        return [_version(row) for row in found.rows]

    async def delete(self, name: str, *, by: str | None = None) -> SecretRecord:
        """End every version of a secret. Who set them and when is kept; the values are gone.

        Raises:
            InvalidInput: ``by`` is no actor id.
            SecretNotFound: no such secret is stored.
            StorageError: nothing was deleted.
        """
        by = None if by is None else check_actor_id(by)
        self._check_sought(name)
        await self.ensure_ready()
        await self.database.transaction(self._delete(name, by))
        return self._unset(name)

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
        rotation = await self.database.transaction(self._rotate(self._encryption))
        logger.info("encrypted %d secret values anew, asked for by %r", rotation.rewritten, by)
        return rotation

    async def problems(self) -> Sequence[str]:
        """A sentence about every version that cannot be decrypted; none where all is well. Notes no use.

        Raises:
            StorageError: the database cannot answer.
        """
        await self.ensure_ready()
        found = await self.database.query(
            f"select {_DECRYPTED} from {self._table} where deleted_at is null order by name, version", {}
        )
        sentences: list[str] = []
        for row in found.rows:
            try:
                self._decrypt(row)
            except SecretUnreadable as error:
                sentences.append(str(error))
        return sentences

    # Transactions

    def _set(self, encryption: Encryption, name: str, value: str, note: str | None, by: str | None) -> Steps[Row]:
        rows = yield f"select version, note, deleted_at from {self._table} where name = :name {_NEWEST}", {"name": name}
        before, kept, deleted = rows[0] if rows else (0, None, None)
        if type(before) is not int or not 0 <= before < _MAX_VERSION:
            raise StorageError(
                f"The secret {name!r} has a version that cannot be counted on from; repair its row in the database."
            )
        version = before + 1
        rows = yield (
            f"insert into {self._table} (name, version, note, encrypted, encryption_key_name, created_at, created_by, "
            "updated_at, updated_by) values (:name, :version, :note, :encrypted, :key_name, :now, :by, :now, :by) "
            f"returning {_SHOWN}",
            {
                "name": name,
                "version": version,
                "note": (as_text(kept) or "" if deleted is None else "") if note is None else note,
                "encrypted": encryption.encrypt(name, version, value),
                "key_name": encryption.key_name,
                "now": self._now(),
                "by": by,
            },
        )
        return rows[0]

    def _set_note(self, name: str, note: str, by: str | None) -> Steps[Row]:
        rows = yield f"select id, deleted_at from {self._table} where name = :name {_NEWEST}", {"name": name}
        if not rows or rows[0][1] is not None:
            raise self._not_stored(name)
        rows = yield (
            f"update {self._table} set note = :note, updated_at = :now, updated_by = :by where id = :id "
            f"returning {_SHOWN}",
            {"note": note, "now": self._now(), "by": by, "id": rows[0][0]},
        )
        return rows[0]

    def _delete(self, name: str, by: str | None) -> Steps[None]:
        ended = yield (
            f"update {self._table} set encrypted = :nothing, deleted_at = :now, deleted_by = :by "
            "where name = :name and deleted_at is null returning id",
            {"nothing": b"", "now": self._now(), "by": by, "name": name},
        )
        if not ended:
            raise self._not_stored(name)

    def _rotate(self, encryption: Encryption) -> Steps[Rotation]:
        rewritten = unchanged = 0
        # In the order in which uses are written, so that neither waits for a row that the other has.
        rows = yield f"select {_DECRYPTED} from {self._table} where deleted_at is null order by id", {}
        for row in rows:
            row_id, name, version, encrypted, _, _ = row
            try:
                value = self._decrypt(row)
            except SecretUnreadable as error:
                raise SecretUnreadable(
                    f"{error} Nothing was rotated. A version that is lost for good goes away if the secret is deleted; "
                    "then set it again."
                ) from error
            if isinstance(encrypted, bytes) and encryption.is_current(encrypted):
                unchanged += 1
                continue
            again = encryption.encrypt(name, version, value)
            yield (
                f"update {self._table} set encrypted = :encrypted, encryption_key_name = :key_name where id = :id",
                {"encrypted": again, "key_name": encryption.key_name, "id": row_id},
            )
            rewritten += 1
        return Rotation(rewritten, unchanged)

    async def _write_usage(self, uses: Sequence[Use]) -> None:
        await self.database.run_many(
            f"update {self._table} set last_used_at = :at, last_used_by = :by where id = :id "
            "and (last_used_at is null or last_used_at <= :at)",
            # In one order, so that two processes never wait for each other's rows.
            [{"id": row_id, "at": _written(when), "by": by} for row_id, when, by in sorted(uses, key=itemgetter(0))],
        )

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
        if self._from_environment(name):
            return SecretNotFound(
                f"The secret {name!r} comes from the environment variable {ENVIRONMENT_PREFIX}{name} and is not "
                "stored; change the variable."
            )
        return _not_found(name)

    # Rows

    def _decrypt(self, row: Row) -> str:
        _, name, version, encrypted, key_name, _ = row
        if self._encryption is None:
            raise SecretUnreadable(
                f"The secret {name!r} is stored encrypted, and there is no encryption key: configure the key that it "
                "was set with."
            )
        if isinstance(encrypted, str):
            encrypted = encrypted.encode(errors="replace")
        if type(version) is not int or not isinstance(name, str) or not isinstance(encrypted, bytes):
            # Where the version is none, a newer one cannot be told from it, and deleting keeps it.
            mend = "delete it" if type(version) is int else "take that row out of the table"
            raise SecretUnreadable(
                f"The secret {name!r} is damaged in the database: restore its row from a backup, or {mend} and set it "
                "again."
            )
        return self._encryption.decrypt(name, version, encrypted, key_name=as_text(key_name))

    def _record(self, row: Row) -> SecretRecord:
        stored = _version(row)
        return self._told(
            as_text(row[0]) or "",
            stored=True,
            note=stored.note,
            version=stored.version,
            created_at=stored.created_at,
            created_by=stored.created_by,
            updated_at=stored.updated_at,
            updated_by=stored.updated_by,
            last_used_at=stored.last_used_at,
            last_used_by=stored.last_used_by,
        )

    def _unset(self, name: str) -> SecretRecord:
        return self._told(
            name,
            stored=False,
            note=None,
            version=None,
            created_at=None,
            created_by=None,
            updated_at=None,
            updated_by=None,
            last_used_at=None,
            last_used_by=None,
        )

    def _told(self, name: str, *, stored: bool, **known: Any) -> SecretRecord:
        secret = self._registered.get(name, Secret(name))
        return SecretRecord(
            name=name,
            description=secret.description,
            obtain_url=secret.obtain_url,
            obtain_label=secret.obtain_label,
            registered=name in self._registered,
            source="environment" if self._from_environment(name) else "stored" if stored else None,
            **known,
        )

    def _from_environment(self, name: str) -> str | None:
        return self._environ.get(ENVIRONMENT_PREFIX + name)

    def _now(self) -> str:
        return _written(int(self.clock()))

    def _migrations(self) -> Sequence[Migration]:
        def predecessor() -> Steps[None]:
            # The columns in the order and with the types that datasette-secrets gives them.
            yield (
                f"create table if not exists {self._table} (id {self.database.dialect.identity}, name text not null, "
                f"note text, version integer not null default 1, encrypted {self.database.dialect.blob}, "
                "encryption_key_name text not null, created_at text, created_by text, updated_at text, "
                "updated_by text, deleted_at text, deleted_by text, last_used_at text, last_used_by text)",
                {},
            )

        def names() -> Steps[None]:
            yield f"create index if not exists {self.table}_name on {self._table} (name, version)", {}

        return [("0001_predecessor", predecessor), ("0002_names", names)]


def _encryption(key: str | Sequence[str]) -> Encryption:
    try:
        # Here and not above: registering secrets and reading the environment need no further package.
        from asgi_token_auth.secrets.encryption import Encryption
    except ImportError as error:
        raise ConfigurationError(
            "encryption_key: encrypting needs one more package: pip install 'asgi-token-auth[secrets]'."
        ) from error
    return Encryption(key)


def _not_found(name: str) -> SecretNotFound:
    shown = name if len(name) <= MAX_NAME else name[:MAX_NAME] + "..."
    return SecretNotFound(f"There is no secret {shown!r}.")


def _user(actor_id: object) -> str | None:
    # Not worth failing for: whoever asks for a secret must get it.
    return str(actor_id) if actor_id and is_text(str(actor_id)) else None


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _seconds(text: object) -> int | None:
    """A time as datasette-secrets writes it, in UTC; ``None`` for what is none."""
    try:
        return int(datetime.strptime(str(text), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _version(row: Row) -> SecretVersion:
    # A row may have been written by anybody, so anything may stand in it.
    _, version, note, created_at, created_by, updated_at, updated_by, deleted_at, deleted_by, used_at, used_by = row
    return SecretVersion(
        version=as_integer(version),
        note=as_text(note) or None,
        created_at=_seconds(created_at),
        created_by=as_text(created_by),
        updated_at=_seconds(updated_at),
        updated_by=as_text(updated_by),
        deleted_at=_seconds(deleted_at),
        deleted_by=as_text(deleted_by),
        last_used_at=_seconds(used_at),
        last_used_by=as_text(used_by),
    )
