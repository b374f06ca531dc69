"""Every statement that changes secrets, as the steps of transactions. Nothing is run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from asgi_token_auth.databases.protocol import Row, Steps
from asgi_token_auth.errors import SecretNotFound, SecretUnreadable, StorageError
from asgi_token_auth.secrets.record import MAX_NAME, Rotation
from asgi_token_auth.secrets.table import DECRYPTED, NEWEST, SHOWN, time_text
from asgi_token_auth.storage.usage import Use
from asgi_token_auth.storage.values import as_text

if TYPE_CHECKING:
    from asgi_token_auth.secrets.encryption import Encryption

# The column has 32 bits in some databases.
_MAX_VERSION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SecretChanges:
    """The changes of one table of secrets.

    Args:
        table: its name as statements must say it.
    """

    table: str

    def set(
        self, encryption: Encryption, name: str, value: str, note: str | None, by: str | None, now: int
    ) -> Steps[Row]:
        """Add a version of a secret; its row in the columns of ``SHOWN``."""
        rows = yield f"select version, note, deleted_at from {self.table} where name = :name {NEWEST}", {"name": name}
        before, old_note, deleted = rows[0] if rows else (0, None, None)
        if type(before) is not int or not 0 <= before < _MAX_VERSION:
            raise StorageError(
                f"The secret {name!r} has a version that cannot be counted on from; repair its row in the database."
            )
        version = before + 1
        rows = yield (
            f"insert into {self.table} (name, version, note, encrypted, encryption_key_name, created_at, created_by, "
            "updated_at, updated_by) values (:name, :version, :note, :encrypted, :key_name, :now, :by, :now, :by) "
            f"returning {SHOWN}",
            {
                "name": name,
                "version": version,
                "note": (as_text(old_note) or "" if deleted is None else "") if note is None else note,
                "encrypted": encryption.encrypt(name, version, value),
                "key_name": encryption.key_name,
                "now": time_text(now),
                "by": by,
            },
        )
        return rows[0]

    def set_note(self, name: str, note: str, by: str | None, now: int) -> Steps[Row]:
        """Change the note of the newest version; its row."""
        rows = yield f"select id, deleted_at from {self.table} where name = :name {NEWEST}", {"name": name}
        if not rows or rows[0][1] is not None:
            raise not_found(name)
        rows = yield (
            f"update {self.table} set note = :note, updated_at = :now, updated_by = :by where id = :id "
            f"returning {SHOWN}",
            {"note": note, "now": time_text(now), "by": by, "id": rows[0][0]},
        )
        return rows[0]

    def delete(self, name: str, by: str | None, now: int) -> Steps[None]:
        """End every version of a secret."""
        ended = yield (
            f"update {self.table} set encrypted = :nothing, deleted_at = :now, deleted_by = :by "
            "where name = :name and deleted_at is null returning id",
            {"nothing": b"", "now": time_text(now), "by": by, "name": name},
        )
        if not ended:
            raise not_found(name)

    def rotate(self, encryption: Encryption) -> Steps[Rotation]:
        """Encrypt what the newest key has not encrypted."""
        rewritten = unchanged = 0
        # In the order in which uses are written, so that neither waits for a row that the other has.
        rows = yield f"select {DECRYPTED} from {self.table} where deleted_at is null order by id", {}
        for row in rows:
            row_id, name, version, encrypted, _, _ = row
            try:
                value = decrypt(encryption, row)
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
                f"update {self.table} set encrypted = :encrypted, encryption_key_name = :key_name where id = :id",
                {"encrypted": again, "key_name": encryption.key_name, "id": row_id},
            )
            rewritten += 1
        return Rotation(rewritten, unchanged)

    def note_uses(self, uses: Sequence[Use]) -> tuple[str, list[dict[str, Any]]]:
        """One statement for a batch of last uses, never backwards."""
        return (
            f"update {self.table} set last_used_at = :at, last_used_by = :by where id = :id "
            "and (last_used_at is null or last_used_at <= :at)",
            # In one order, so that two processes never wait for each other's rows.
            [{"id": row_id, "at": time_text(when), "by": by} for row_id, when, by in sorted(uses, key=itemgetter(0))],
        )


def decrypt(encryption: Encryption | None, row: Row) -> str:
    """The value in a row of the columns in ``DECRYPTED``.

    Raises:
        SecretUnreadable: the key is missing or wrong, or the row is damaged. The message names the secret.
    """
    _, name, version, encrypted, key_name, _ = row
    if encryption is None:
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
    return encryption.decrypt(name, version, encrypted, key_name=as_text(key_name))


def not_found(name: str) -> SecretNotFound:
    """What to raise where there is no secret ``name``."""
    shown = name if len(name) <= MAX_NAME else name[:MAX_NAME] + "..."
    return SecretNotFound(f"There is no secret {shown!r}.")
