"""What a token may be restricted to in the app around the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from asgi_token_auth.restrictions import Restrictions, full_name


@dataclass(frozen=True, slots=True)
class Choices:
    """The actions that a token may be restricted to, here."""

    #: Action to description; for everything, per database, per table.
    everywhere: Mapping[str, str] = field(default_factory=dict[str, str])
    per_database: Mapping[str, str] = field(default_factory=dict[str, str])
    per_resource: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Databases and their tables.
    databases: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    #: Other actions that may be sent by a script that knows them.
    known: frozenset[str] = frozenset()

    @property
    def any(self) -> bool:
        """Whether there is anything to choose from."""
        return bool(self.everywhere or self.per_database or self.per_resource)

    @property
    def actions(self) -> frozenset[str]:
        """Everything that a token may be restricted to, offered or not."""
        return self.known | {*self.everywhere, *self.per_database, *self.per_resource}

    def including(self, restrictions: Restrictions | None) -> Choices:
        """The same, and whatever ``restrictions`` hold: a form must not lose what it does not offer."""
        if restrictions is None:
            return self
        everywhere, per_database, per_resource = dict(self.everywhere), dict(self.per_database), dict(self.per_resource)
        databases = {name: list(tables) for name, tables in self.databases.items()}
        for action in restrictions.all:
            everywhere.setdefault(full_name(action), "")
        for database, actions in restrictions.database.items():
            databases.setdefault(database, [])
            for action in actions:
                per_database.setdefault(full_name(action), "")
        for database, resources in restrictions.resource.items():
            tables = databases.setdefault(database, [])
            for resource, actions in resources.items():
                if resource not in tables:
                    tables.append(resource)
                for action in actions:
                    per_resource.setdefault(full_name(action), "")
        return replace(
            self, everywhere=everywhere, per_database=per_database, per_resource=per_resource, databases=databases
        )
