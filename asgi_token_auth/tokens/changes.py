"""Every statement that changes managed tokens, as the steps of transactions. Nothing is run here.

Each step yields a statement and is sent its rows, so the same steps run on every kind of database, and a test can read
what a change does without one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from asgi_token_auth.databases.protocol import Dialect, Row, Steps
from asgi_token_auth.errors import EditConflict, InvalidInput, TokenNotFound
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.storage.parts import PART, Part
from asgi_token_auth.storage.usage import Use
from asgi_token_auth.storage.values import MAX_ID, is_text
from asgi_token_auth.tokens import copying
from asgi_token_auth.tokens.record import AnyOwner, Family, Owner, StoredToken, check_id, permissions_text
from asgi_token_auth.tokens.table import DECIDING, ENDS, HAS_STATUS, OPEN_UNTIL, SHOWN, record_of

#: Active tokens that were created through one token, however far away, and that token itself.
MAX_FAMILY: Final = 100

# What an edit may change, as the record of events calls it.
_EDITED_NAMES: Final = {"description": "description", "expires_after_seconds": "expiry", "permissions": "restrictions"}


@dataclass(frozen=True, slots=True)
class TokenChanges:
    """The changes of one table of tokens.

    Args:
        table: its name as statements must say it. The table of events starts with it.
        dialect: of the database that it is in.
    """

    table: str
    dialect: Dialect

    def issue(self, values: dict[str, Any], digest: str, by: str | None, now: int) -> Steps[Row]:
        """Add a token; the row in the columns of ``SHOWN``. ``values``: what the store has checked."""
        if values["parent"] is not None:
            life = values["expires_after"]
            yield from self._check_parent(
                values["parent"], values["actor_id"], values["permissions"], None if life is None else now + life, now
            )
            yield from self._check_family_size(values["parent"], now)
        rows = yield (
            f"insert into {self.table} (token_status, description, actor_id, permissions, created_timestamp, "
            "expires_after_seconds, secret_version, token_digest, parent_id) values ('A', :description, :actor_id, "
            f":permissions, :now, :expires_after, 0, :digest, :parent) returning {SHOWN}",
            {**values, "now": now, "digest": digest},
        )
        yield self._event(rows[0][0], "created", by, now)
        return rows[0]

    def _check_parent(
        self, parent_id: int, actor_id: object, permissions: object, until: int | None, now: int
    ) -> Steps[None]:
        rows = yield (
            f"select {DECIDING} from {self.table} where id = :parent and actor_id = :actor_id",
            {"parent": parent_id, "actor_id": actor_id},
        )
        parent = StoredToken(*rows[0]) if rows else None
        if parent is None or parent.status(now) != "active":
            raise TokenNotFound(f"Token {parent_id} is not an active token of this actor.")
        permitted, wanted = parent.restrictions(), json.loads(str(permissions))
        if permitted is not None and (wanted is None or not Restrictions.from_wire(wanted).is_subset(permitted)):
            raise InvalidInput("A token cannot create a token that may do more than itself; limit it more.")
        if parent.expires_at is not None and (until is None or until > parent.expires_at):
            raise InvalidInput("A token cannot create a token that lives longer than itself; let it expire sooner.")

    def _check_family_size(self, parent_id: int, now: int) -> Steps[None]:
        # Whoever narrows or ends the first of them changes all of them in one transaction, which others wait for.
        rows = yield (
            "with recursive ancestors(id, parent_id) as ("
            f"select id, parent_id from {self.table} where id = :parent union "
            f"select above.id, above.parent_id from {self.table} above join ancestors on above.id = ancestors.parent_id"
            "), family(id) as (select id from ancestors union "
            f"select child.id from {self.table} child join family on child.parent_id = family.id "
            f"where {OPEN_UNTIL} > :now) "
            f"select count(*) from {self.table} where id in (select id from family) and {HAS_STATUS['active']}",
            {"parent": parent_id, "now": now},
        )
        if rows[0][0] >= MAX_FAMILY:
            raise InvalidInput(
                f"At most {MAX_FAMILY} active tokens may come from one; revoke some of them, or let them expire sooner."
            )

    def revoke(self, token_id: int, owner: Owner, by: str | None, now: int, version: str | None = None) -> Steps[Row]:
        """End a token and all that were created through it; its row. ``version``: as for :meth:`edit`."""
        where, parameters = self.owned(owner)
        found = yield f"select id from {self.table} where id = :id and {where}", {"id": token_id, **parameters}
        if not found:
            raise TokenNotFound(f"There is no token {token_id}.")
        yield from self._check_version(token_id, version, now)
        family = yield self._family(token_id, now)
        yield from self._end(family, by, now)
        return (yield self._shown(token_id))[0]

    def edit(
        self,
        token_id: int,
        owner: Owner,
        by: str | None,
        now: int,
        changes: dict[str, Any],
        version: str | None,
    ) -> Steps[Row]:
        """Change an active token, and narrow what was created through it; its row.

        Args:
            changes: ``description``, ``expires_at`` (seconds since the epoch) and ``permissions``, those that change.
            version: of the record that the change was made for; ``None``: any.
        """
        token = yield from self._active(token_id, owner, now)
        if version is not None:
            # A rotation changes nothing that an edit could undo.
            record = record_of((yield self._shown(token_id))[0], now)
            if version.partition("-")[0] != record.edition:
                raise EditConflict("This token has been changed meanwhile; nothing was saved. Look at what it is now.")
        rows = yield f"select description, parent_id from {self.table} where id = :id", {"id": token_id}
        description, parent = rows[0]
        before = {
            "description": description,
            "expires_after_seconds": token.expires_after,
            "permissions": token.permissions,
        }
        values = {name: value for name, value in changes.items() if name != "expires_at"}
        if "expires_at" in changes:
            values["expires_after_seconds"] = _expires_after(token, changes["expires_at"])
        # A form sends everything; only what differs is a change.
        values = {name: value for name, value in values.items() if value != before[name]}
        if values:
            if parent is not None and values.keys() != {"description"}:
                wanted = values.get("permissions", token.permissions)
                until = changes.get("expires_at", token.expires_at)
                try:
                    yield from self._check_parent(parent, token.actor_id, wanted, until, now)
                except TokenNotFound as error:
                    # The token itself was found, so this is no answer to whoever asked for it.
                    raise InvalidInput(
                        "The token that this one was created through is gone, so only its description can change. "
                        "Create another one."
                    ) from error
            assignments = ", ".join(f"{column} = :{column}" for column in values)
            yield f"update {self.table} set {assignments} where id = :id", {"id": token_id, **values}
            yield self._event(token_id, "edited", by, now, ", ".join(_EDITED_NAMES[name] for name in values))
            if values.keys() != {"description"}:
                yield from self._narrow_children(token_id, by, now)
        return (yield self._shown(token_id))[0]

    def _narrow_children(self, token_id: int, by: str | None, now: int) -> Steps[None]:
        rows = yield f"select {DECIDING} from {self.table} where id = :id", {"id": token_id}
        token = StoredToken(*rows[0])
        limits, until = token.restrictions(), token.expires_at
        family = yield self._family(token_id, now)
        for row in family:
            child = StoredToken(*row)
            if child.id == token_id or child.status(now) != "active":
                continue
            has, ends = child.restrictions(), child.expires_at
            narrowed = limits if has is None else has if has.is_subset(limits) else has.intersect(limits)
            sooner = until if ends is None else ends if until is None else min(ends, until)
            if narrowed == has and sooner == ends:
                continue
            try:
                life = child.expires_after if sooner == ends else _expires_after(child, sooner)
            except InvalidInput:
                # Its expiry cannot be written down, so it cannot be let live.
                yield from self._end([row], by, now)
                continue
            yield (
                f"update {self.table} set permissions = :permissions, expires_after_seconds = :life where id = :id",
                {"permissions": permissions_text(narrowed), "life": life, "id": child.id},
            )
            yield self._event(child.id, "edited", by, now, f"narrowed with token {token_id}")

    def rotate(
        self, token_id: int, owner: Owner, by: str | None, now: int, digest: str, grace: int, version: str | None = None
    ) -> Steps[Row]:
        """Give an active token a new digest. The former one works for ``grace`` more seconds; its row.

        Args:
            version: as for :meth:`edit`.
        """
        token = yield from self._active(token_id, owner, now)
        yield from self._check_version(token_id, version, now)
        # An empty text stands for the predecessor's tokens, which have no nonce and so no digest.
        previous = None if grace == 0 else "" if token.digest is None else token.digest
        rows = yield (
            f"update {self.table} set token_digest = :digest, previous_digest = :previous, previous_until = :until "
            f"where id = :id returning {SHOWN}",
            {"digest": digest, "previous": previous, "until": None if grace == 0 else now + grace, "id": token_id},
        )
        yield self._event(token_id, "rotated", by, now, f"the old text works for {grace} seconds" if grace else None)
        return rows[0]

    def revoke_part(self, owner: Owner, by: str | None, now: int, after: int) -> Steps[Part]:
        """End the first active tokens of ``owner`` that have an id above ``after``."""
        # The last part leaves nothing above it, so it ends too what a token created that was ended only meanwhile.
        where, parameters = self.owned(owner, self.open_family("family"))
        if isinstance(owner, Family):
            parameters["now"] = now
        rows = yield (
            f"select {DECIDING} from {self.table} where {where} and id > :after and ended_timestamp is null "
            "and coalesce(token_status, '') not in ('R', 'E') order by id limit :part",
            {**parameters, "after": after, "part": PART},
        )
        return (yield from self._end(rows, by, now)), rows[-1][0] if len(rows) == PART else None

    def prunable(self) -> str:
        """A query for the ids of what ended before the time ``:before``, but never the highest one."""
        # The casts leave rows alone whose times are damaged: SQLite would take 'soon' for 0.
        return (
            f"select id from {self.table} where id < (select max(id) from {self.table}) "
            "and (ended_timestamp < :before or (ended_timestamp is null "
            f"and {ENDS} < :before "
            "and cast(created_timestamp as bigint) = created_timestamp "
            "and cast(expires_after_seconds as bigint) = expires_after_seconds))"
        )

    def prune_part(self, before: int, after: int) -> Steps[Part]:
        """Delete the first of :meth:`prunable` that have an id above ``after``, and their events."""
        rows = yield (
            f"{self.prunable()} and id > :after order by id limit :part",
            {"before": before, "after": after, "part": PART},
        )
        ids = [{"id": token_id} for (token_id,) in rows]
        if ids:
            yield f"delete from {self.table}_events where token_id = :id", ids
            yield f"delete from {self.table} where id = :id", ids
        return len(ids), rows[-1][0] if len(ids) == PART else None

    def import_(self, rows: Sequence[Row], events: Sequence[Row]) -> Steps[set[int]]:
        """Add rows of another database, and the events of those that are new; the ids of these."""
        here: Sequence[Row] = []
        if rows:
            here = yield (
                f"select {', '.join(copying.COPIED)} from {self.table} where id between :first and :last",
                {"first": rows[0][0], "last": rows[-1][0]},
            )
        new = copying.missing(rows, here)
        values = ", ".join(f":{name}" for name in copying.COPIED)
        yield (
            f"insert into {self.table} ({', '.join(copying.COPIED)}) values ({values})",
            [dict(zip(copying.COPIED, row, strict=True)) for row in rows if row[0] in new],
        )
        copied = [self._event(*event) for event in events if event[0] in new]
        if copied:
            yield copied[0][0], [parameters for _, parameters in copied]
        if self.dialect.continue_ids is not None and new:
            yield self.dialect.continue_ids.format(table=self.table), {}
        return new

    def note_uses(self, uses: Sequence[Use]) -> tuple[str, list[dict[str, Any]]]:
        """One statement for a batch of last uses: at most once a minute for each token, and never backwards."""
        return (
            f"update {self.table} set last_used_timestamp = :at, "
            "last_used_address = coalesce(:address, last_used_address) where id = :id "
            "and (last_used_timestamp is null or last_used_timestamp <= :due)",
            # In one order, so that two processes never wait for each other's rows.
            [
                {"id": token_id, "at": when, "due": when - 60, "address": address}
                for token_id, when, address in sorted(uses, key=itemgetter(0))
            ],
        )

    def _active(self, token_id: int, owner: Owner, now: int) -> Steps[StoredToken]:
        where, parameters = self.owned(owner)
        rows = yield (
            f"select {DECIDING} from {self.table} where id = :id and {where}",
            {"id": token_id, **parameters},
        )
        if not rows:
            raise TokenNotFound(f"There is no token {token_id}.")
        token = StoredToken(*rows[0])
        if (status := token.status(now)) != "active":
            raise InvalidInput(f"This token is {status}; only an active one can be changed. Create another one.")
        return token

    def _shown(self, token_id: int) -> tuple[str, dict[str, Any]]:
        return f"select {SHOWN} from {self.table} where id = :id", {"id": token_id}

    def _check_version(self, token_id: int, version: str | None, now: int) -> Steps[None]:
        if version is not None and record_of((yield self._shown(token_id))[0], now).version != version:
            raise EditConflict("This token has been changed meanwhile; nothing was done. Look at what it is now.")

    def _family(self, token_id: int, now: int) -> tuple[str, dict[str, Any]]:
        """The rows of a token and of all that were created through it and may be good, now or once repaired."""
        return (
            f"select {DECIDING} from {self.table} where id in ({self.open_family('id')}) order by id",
            {"id": token_id, "now": now},
        )

    def open_family(self, parameter: str) -> str:
        """A query for the ids of a token and of all that were created through it and have not ended for good.

        It costs by those, however many have ended. It has the parameter ``now`` too.
        """
        # Who ends a token ends its family. But another program on the same table may have ended one alone, and what
        # was created through that one lives on: of the owner's own, it is found from below.
        orphan = (
            f"select child.id, child.parent_id from {self.table} child "
            f"where child.actor_id = (select actor_id from {self.table} where id = :{parameter}) "
            # Looked up for each that is open, and not joined: PostgreSQL 15 would go through all that have ended.
            f"and child.parent_id is not null and {OPEN_UNTIL} > :now and coalesce(("
            f"select {OPEN_UNTIL} from {self.table} above where above.id = child.parent_id), 0) <= :now"
        )
        return (
            f"with recursive orphan(id, above_id) as ({orphan} union "
            f"select orphan.id, above.parent_id from orphan join {self.table} above on above.id = orphan.above_id "
            "where above.parent_id is not null), "
            # union, not union all: a damaged table whose parents form a ring must not loop for ever.
            f"family(id) as (select id from {self.table} where id = :{parameter} union "
            f"select id from orphan where above_id = :{parameter} union "
            f"select child.id from {self.table} child join family on child.parent_id = family.id "
            f"where {OPEN_UNTIL} > :now) select id from family"
        )

    @property
    def _ancestors(self) -> str:
        # The first select has no table of its own: its id is that of the row that is looked at.
        return (
            "with recursive ancestors(ancestor_id) as (select id union "
            f"select above.parent_id from {self.table} above join ancestors on above.id = ancestors.ancestor_id "
            "where above.parent_id is not null) select ancestor_id from ancestors"
        )

    def whole_family(self, parameter: str) -> str:
        """The same with all that have ended. It costs by those too."""
        return (
            f"with recursive family(id) as (select id from {self.table} where id = :{parameter} union "
            f"select child.id from {self.table} child join family on child.parent_id = family.id) "
            "select id from family"
        )

    def _end(self, rows: Sequence[Row], by: str | None, now: int) -> Steps[int]:
        # A damaged row is ended too, lest whoever repairs it brings a revoked token back to life.
        ending = [
            token.id
            for token in (StoredToken(*row) for row in rows)
            if token.ended is None and token.marked not in ("R", "E") and token.status(now) in ("active", "damaged")
        ]
        if ending:
            yield (
                f"update {self.table} set token_status = 'R', ended_timestamp = :now where id = :id "
                "and ended_timestamp is null and (token_status is null or token_status not in ('R', 'E'))",
                [{"id": token_id, "now": now} for token_id in ending],
            )
            events = [self._event(token_id, "revoked", by, now) for token_id in ending]
            yield events[0][0], [parameters for _, parameters in events]
        return len(ending)

    def owned(self, owner: Owner, family: str | None = None) -> tuple[str, dict[str, Any]]:
        """The one condition that limits a statement to what ``owner`` may reach.

        Args:
            family: a query for the ids of a family, of the parameter ``family``. ``None``: each row is looked at from
                below, which is quicker where there is but one.
        """
        if isinstance(owner, AnyOwner):
            return "1 = 1", {}
        if isinstance(owner, Family):
            where, parameters = self.owned(owner.actor_id)
            reached = f"id in ({family})" if family else f":family in ({self._ancestors})"
            return f"{where} and {reached}", {**parameters, "family": check_id(owner.token_id)}
        if not isinstance(owner, str) or not owner or not is_text(owner):
            raise InvalidInput("owner must be an actor id or ANY_OWNER.")
        return "actor_id = :owner", {"owner": owner}

    def _event(
        self, token_id: int, event: str, by: str | None, now: int, details: str | None = None
    ) -> tuple[str, dict[str, Any]]:
        return (
            f"insert into {self.table}_events (token_id, event, by_actor_id, at_timestamp, details) "
            "values (:token_id, :event, :by, :now, :details)",
            {"token_id": token_id, "event": event, "by": by, "now": now, "details": details},
        )


def _expires_after(token: StoredToken, until: int | None) -> int | None:
    """``until`` as the column holds it: seconds after the token was created."""
    if until is None:
        return None
    if type(token.created) is not int or not -MAX_ID <= until - token.created <= MAX_ID:
        raise InvalidInput("This token has no time of creation, so its expiry cannot be changed; rotate or revoke it.")
    return until - token.created
