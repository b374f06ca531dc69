"""``from datasette_secrets import Secret, get_secret`` where datasette-secrets is not installed, for its plugins.

The last of all finders of modules answers: where the real one is installed, it is found before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

#: The module of datasette-secrets.
MODULE: Final = "datasette_secrets"


class _Loader(Loader):
    """Fills the module with what there is of it here."""

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Both names, from where they are for everybody else."""
        from asgi_token_auth.datasette import Secret, get_secret

        module.__doc__ = "Stands in for datasette-secrets, which is not installed: asgi-token-auth keeps the secrets."
        vars(module).update(Secret=Secret, get_secret=get_secret, __all__=["Secret", "get_secret"])


class StandIn(MetaPathFinder):
    """Finds :data:`MODULE`, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the import system asks."""
        return ModuleSpec(fullname, _Loader(), origin="asgi-token-auth") if fullname == MODULE else None


def install() -> None:
    """Be asked last of all finders, once."""
    if not any(isinstance(finder, StandIn) for finder in sys.meta_path):
        sys.meta_path.append(StandIn())


def real_one_is_installed() -> bool:
    """Whether datasette-secrets itself can be imported."""
    loaded = sys.modules.get(MODULE)
    if loaded is not None:
        return not isinstance(getattr(loaded.__spec__, "loader", None), _Loader)
    return PathFinder.find_spec(MODULE) is not None
