"""What a token may do: Datasette's ``_r`` as a frozen value. Pure; no request and no database here.

An empty set allows nothing. "Unrestricted" is not a value of this type: it is ``None``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from asgi_token_auth.errors import InvalidInput

Actions: TypeAlias = tuple[str, ...]

#: Datasette's own abbreviations. Tokens carry either form and both mean the same.
DATASETTE_ABBREVIATIONS: Mapping[str, str] = MappingProxyType(
    {
        "view-instance": "vi",
        "permissions-debug": "pd",
        "debug-menu": "dm",
        "view-database": "vd",
        "view-database-download": "vdd",
        "execute-sql": "es",
        "execute-write-sql": "ews",
        "create-table": "ct",
        "create-view": "cv",
        "store-query": "sq",
        "view-table": "vt",
        "insert-row": "ir",
        "delete-row": "dr",
        "update-row": "ur",
        "alter-table": "at",
        "set-column-type": "sct",
        "drop-table": "dt",
        "drop-view": "dv",
        "view-query": "vq",
        "update-query": "uq",
        "delete-query": "dq",
    }
)
_FULL_NAMES: Mapping[str, str] = MappingProxyType({abbr: name for name, abbr in DATASETTE_ABBREVIATIONS.items()})

# SQLite folds ASCII only when it compares names, so str.lower() would join names that differ.
_FOLD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def full_name(action: str) -> str:
    """The action's long name if ``action`` is one of Datasette's abbreviations, else ``action``."""
    return _FULL_NAMES.get(action, action)


@dataclass(frozen=True, slots=True)
class Restrictions:
    """The actions a token is limited to: everywhere, in one database, on one resource of a database.

    Build one with :meth:`allow_all`, :meth:`allow_database` and :meth:`allow_resource`, each of which
    returns a new value. ``Restrictions()`` allows nothing at all.
    """

    all: Actions = ()
    database: Mapping[str, Actions] = field(default_factory=lambda: MappingProxyType({}))
    resource: Mapping[str, Mapping[str, Actions]] = field(default_factory=lambda: MappingProxyType({}))

    def allow_all(self, action: str) -> Restrictions:
        """The same, and ``action`` on everything."""
        return replace(self, all=_with(self.all, _text(action, "an action")))

    def allow_database(self, database: str, action: str) -> Restrictions:
        """The same, and ``action`` on ``database`` and everything in it."""
        _text(database, "a database")
        merged = {**self.database, database: _with(self.database.get(database, ()), _text(action, "an action"))}
        return replace(self, database=MappingProxyType(merged))

    def allow_resource(self, database: str, resource: str, action: str) -> Restrictions:
        """The same, and ``action`` on one table, view or query of ``database``."""
        _text(database, "a database")
        _text(resource, "a resource")
        inner = dict(self.resource.get(database, {}))
        inner[resource] = _with(inner.get(resource, ()), _text(action, "an action"))
        return replace(self, resource=MappingProxyType({**self.resource, database: MappingProxyType(inner)}))

    def allows(self, action: str, database: str | None = None, resource: str | None = None) -> bool:
        """Whether ``action`` is within these restrictions, by the rules of Datasette 1.0.

        An abbreviation and its long name mean the same. Resource names are compared as SQLite compares
        them: ASCII letters without regard to case.
        """
        wanted = full_name(action)
        if _holds(self.all, wanted):
            return True
        if database is None:
            return False
        if _holds(self.database.get(database, ()), wanted):
            return True
        if resource is None:
            return False
        folded = resource.translate(_FOLD)
        return any(
            name.translate(_FOLD) == folded and _holds(actions, wanted)
            for name, actions in self.resource.get(database, {}).items()
        )

    def is_subset(self, other: Restrictions | None) -> bool:
        """Whether ``other`` (``None``: unrestricted) allows everything that these restrictions allow."""
        return other is None or all(other._covers(*grant) for grant in self._grants())

    def intersect(self, other: Restrictions | None) -> Restrictions:
        """What both allow. ``None`` is unrestricted, so it takes nothing away."""
        if other is None:
            return self
        both = Restrictions()
        for one, two in ((self, other), (other, self)):
            for database, resource, action in one._grants():
                if two._covers(database, resource, action) and not both._covers(database, resource, action):
                    both = both._granting(database, resource, action)
        return both

    def to_wire(self, abbreviations: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The ``_r`` object, with keys in Datasette's order. ``abbreviations`` maps long names to short."""
        short = (abbreviations or {}).get
        wire: dict[str, Any] = {}
        if self.all:
            wire["a"] = [short(action, action) for action in self.all]
        if self.database:
            wire["d"] = {name: [short(action, action) for action in actions] for name, actions in self.database.items()}
        if self.resource:
            wire["r"] = {
                database: {name: [short(action, action) for action in actions] for name, actions in resources.items()}
                for database, resources in self.resource.items()
            }
        return wire

    @classmethod
    def from_wire(cls, value: object) -> Restrictions:
        """Read an ``_r`` object.

        Raises:
            InvalidInput: the value is not exactly an object of lists of action names. Nothing is guessed
                from a malformed one, since guessing could only add rights.
        """
        if not isinstance(value, dict) or not value.keys() <= {"a", "d", "r"}:
            raise InvalidInput("Restrictions must be an object with no keys but a, d and r.")
        return cls(
            all=_actions(value.get("a", [])),
            database=MappingProxyType({name: _actions(actions) for name, actions in _items(value.get("d", {}))}),
            resource=MappingProxyType(
                {
                    database: MappingProxyType({name: _actions(actions) for name, actions in _items(resources)})
                    for database, resources in _items(value.get("r", {}))
                }
            ),
        )

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_wire(), sort_keys=True))

    def _grants(self) -> Iterator[tuple[str | None, str | None, str]]:
        for action in self.all:
            yield None, None, action
        for database, actions in self.database.items():
            for action in actions:
                yield database, None, action
        for database, resources in self.resource.items():
            for resource, actions in resources.items():
                for action in actions:
                    yield database, resource, action

    def _covers(self, database: str | None, resource: str | None, action: str) -> bool:
        # Exact names, unlike allows(): whether case matters depends on the kind of resource, which is
        # unknown here, and a wrong "no" costs a refusal where a wrong "yes" would be a right gained.
        wanted = full_name(action)
        if _holds(self.all, wanted):
            return True
        if database is None:
            return False
        if _holds(self.database.get(database, ()), wanted):
            return True
        return resource is not None and _holds(self.resource.get(database, {}).get(resource, ()), wanted)

    def _granting(self, database: str | None, resource: str | None, action: str) -> Restrictions:
        if database is None:
            return self.allow_all(action)
        if resource is None:
            return self.allow_database(database, action)
        return self.allow_resource(database, resource, action)


def _holds(actions: Actions, wanted: str) -> bool:
    return any(full_name(action) == wanted for action in actions)


def _with(actions: Actions, action: str) -> Actions:
    return actions if action in actions else (*actions, action)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"The name of {what} must be a string that is not empty.")
    return value


def _actions(value: object) -> Actions:
    if not isinstance(value, list) or not all(isinstance(action, str) for action in value):
        raise InvalidInput("Restrictions must hold lists of action names.")
    return tuple(value)


def _items(value: object) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidInput("Restrictions under d and r must be objects keyed by name.")
    return list(value.items())
