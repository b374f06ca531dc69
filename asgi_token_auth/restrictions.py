"""What a token may do: Datasette's ``_r`` as a frozen value. Pure; no request and no database here.

An empty set allows nothing. "Unrestricted" is not a value of this type: it is ``None``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from asgi_token_auth.errors import InvalidInput

T = TypeVar("T")
V = TypeVar("V")

Actions: TypeAlias = tuple[str, ...]

#: One permission: a database and a resource, ``None`` for every one, and the long name of an action.
_Grant: TypeAlias = tuple[str | None, str | None, str]

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

# Actions on tables and views, whose names SQLite compares without regard to case. Queries, and whatever other
# actions act on, are named exactly.
_TABLE_ACTIONS: Final = frozenset(
    (
        "view-table",
        "insert-row",
        "delete-row",
        "update-row",
        "alter-table",
        "set-column-type",
        "drop-table",
        "drop-view",
    )
)
# JSON can spell lone surrogates, which no database and no answer could hold.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# SQLite folds ASCII only when it compares names, so str.lower() would join names that differ.
_FOLD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def full_name(action: str) -> str:
    """The action's long name if ``action`` is one of Datasette's abbreviations, else ``action``."""
    return _FULL_NAMES.get(action, action)


@dataclass(frozen=True, slots=True)
class Restrictions:
    """The actions a token is limited to: everywhere, in one database, on one resource of a database.

    Build one with :meth:`allow_all`, :meth:`allow_database` and :meth:`allow_resource`, each of which
    returns a new value. ``Restrictions()`` allows nothing at all. Nothing of what is passed in is shared, so
    a value never changes.

    Raises:
        InvalidInput: something else than names of actions, by database, by resource.
    """

    all: Actions = ()
    database: Mapping[str, Actions] = field(default_factory=lambda: MappingProxyType({}))
    resource: Mapping[str, Mapping[str, Actions]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "all", _actions(self.all))
        object.__setattr__(self, "database", _by_name(self.database, _actions))
        object.__setattr__(self, "resource", _by_name(self.resource, lambda resources: _by_name(resources, _actions)))

    def allow_all(self, action: str) -> Restrictions:
        """The same, and ``action`` on everything."""
        return replace(self, all=_with(self.all, _text(action, "an action")))

    def allow_database(self, database: str, action: str) -> Restrictions:
        """The same, and ``action`` on ``database`` and everything in it."""
        _text(database, "a database")
        actions = _with(self.database.get(database, ()), _text(action, "an action"))
        return replace(self, database={**self.database, database: actions})

    def allow_resource(self, database: str, resource: str, action: str) -> Restrictions:
        """The same, and ``action`` on one table, view or query of ``database``."""
        _text(database, "a database")
        _text(resource, "a resource")
        inner = dict(self.resource.get(database, {}))
        inner[resource] = _with(inner.get(resource, ()), _text(action, "an action"))
        return replace(self, resource={**self.resource, database: inner})

    def allows(self, action: str, database: str | None = None, resource: str | None = None) -> bool:
        """Whether ``action`` is within these restrictions, by the rules of Datasette 1.0.

        An abbreviation and its long name mean the same. Tables and views are compared as SQLite compares
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
        name = _comparable(resource, wanted)
        return any(
            _comparable(listed, wanted) == name and _holds(actions, wanted)
            for listed, actions in self.resource.get(database, {}).items()
        )

    def is_subset(self, other: Restrictions | None) -> bool:
        """Whether ``other`` (``None``: unrestricted) allows everything that these restrictions allow."""
        if other is None:
            return True
        theirs = {_key(grant) for grant in other._grants()}
        return all(_covered(_key(grant), theirs) for grant in self._grants())

    def intersect(self, other: Restrictions | None) -> Restrictions:
        """What both allow. ``None`` is unrestricted, so it takes nothing away."""
        if other is None:
            return self
        both: dict[_Grant, _Grant] = {}
        for one, two in ((self, other), (other, self)):
            theirs = {_key(grant) for grant in two._grants()}
            for grant in one._grants():
                key = _key(grant)
                if _covered(key, theirs) and not _covered(key, both):
                    both[key] = grant
        return _of_grants(both.values())

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
    def from_wire(cls, value: Any) -> Restrictions:
        """Read an ``_r`` object.

        Raises:
            InvalidInput: the value is not exactly an object of lists of action names. Nothing is guessed
                from a malformed one, since guessing could only add rights.
        """
        wire: dict[str, Any] = value
        if not isinstance(wire, dict) or not wire.keys() <= {"a", "d", "r"}:
            raise InvalidInput("Restrictions must be an object with no keys but a, d and r.")
        return cls(all=wire.get("a", ()), database=wire.get("d", {}), resource=wire.get("r", {}))

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_wire(), sort_keys=True))

    def _grants(self) -> Iterator[_Grant]:
        for action in self.all:
            yield None, None, full_name(action)
        for database, actions in self.database.items():
            for action in actions:
                yield database, None, full_name(action)
        for database, resources in self.resource.items():
            for resource, actions in resources.items():
                for action in actions:
                    yield database, resource, full_name(action)


def _key(grant: _Grant) -> _Grant:
    database, resource, action = grant
    return grant if resource is None else (database, _comparable(resource, action), action)


def _covered(key: _Grant, grants: Container[_Grant]) -> bool:
    """Whether ``grants`` hold this one or a wider one."""
    database, resource, action = key
    return (
        (None, None, action) in grants or (database, None, action) in grants or (database, resource, action) in grants
    )


def _of_grants(grants: Iterable[_Grant]) -> Restrictions:
    everywhere: list[str] = []
    databases: dict[str, list[str]] = {}
    resources: dict[str, dict[str, list[str]]] = {}
    for database, resource, action in grants:
        if database is None:
            everywhere.append(action)
        elif resource is None:
            databases.setdefault(database, []).append(action)
        else:
            resources.setdefault(database, {}).setdefault(resource, []).append(action)
    return Restrictions.from_wire({"a": everywhere, "d": databases, "r": resources})


def _comparable(resource: str, action: str) -> str:
    return resource.translate(_FOLD) if action in _TABLE_ACTIONS else resource


def _holds(actions: Actions, wanted: str) -> bool:
    return any(full_name(action) == wanted for action in actions)


def _with(actions: Actions, action: str) -> Actions:
    return actions if action in actions else (*actions, action)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"The name of {what} must be a string that is not empty.")
    return value


def _actions(value: Sequence[str]) -> Actions:
    if not isinstance(value, (list, tuple)) or not _are_names(value):
        raise InvalidInput("Restrictions must hold lists of action names.")
    return tuple(value)


def _by_name(value: Mapping[str, V], read: Callable[[V], T]) -> Mapping[str, T]:
    if not isinstance(value, Mapping) or not _are_names(value):
        raise InvalidInput("Restrictions of databases and of resources must be objects keyed by name.")
    return MappingProxyType({name: read(inner) for name, inner in value.items()})


def _are_names(values: Iterable[Any]) -> bool:
    # All at once: a token's restrictions may hold thousands of names, and a list of tokens thirty such.
    try:
        text = "".join(values)
    except TypeError:
        return False
    return text.isascii() or _SURROGATE.search(text) is None
