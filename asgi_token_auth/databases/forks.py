"""What was open in a process when it was forked belongs to the parent alone."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """A database that may be open when the process forks."""

    def leave_to_parent(self) -> list[object]:
        """In the child: forget every connection without closing it, and hand them over."""
        ...


_every_database: weakref.WeakSet[Inherited] = weakref.WeakSet()
# Were these collected in the child, they would be closed there, and take the parent's files or sessions with them.
_inherited_connections: list[object] = []


def watch(database: Inherited) -> None:
    """Tell ``database`` when this process is forked."""
    _every_database.add(database)


def _after_fork() -> None:
    for database in list(_every_database):
        _inherited_connections.extend(database.leave_to_parent())


# Forking cannot be observed from an instance, and the hook cannot be removed again, so there is one for all.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
