"""``from datasette_secrets import Secret, get_secret`` where datasette-secrets is not installed, for its plugins.

The finder looks whether any other one has the real module, and only answers where none has. It must be asked before
them, because a mere folder of that name, somewhere on the path, would be taken for a package without a file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
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
    """Finds :data:`MODULE` where no other finder does, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the import system asks."""
        if fullname != MODULE:
            return None
        return _of_others() or ModuleSpec(fullname, _Loader(), origin="asgi-token-auth")


def install() -> None:
    """Be asked first of all finders, once."""
    if not any(isinstance(finder, StandIn) for finder in sys.meta_path):
        sys.meta_path.insert(0, StandIn())


def real_one_is_installed() -> bool:
    """Whether datasette-secrets itself can be imported.

    A file of that name which somebody has written, with nothing in it but what is ours, is known once it was imported.
    """
    loaded = sys.modules.get(MODULE)
    if loaded is None or _is_folder(loaded.__spec__):
        return _of_others() is not None
    from asgi_token_auth.datasette import get_secret

    return getattr(loaded, "get_secret", None) is not get_secret


def _of_others() -> ModuleSpec | None:
    """What the other finders know of the module, if it is more than a folder."""
    for finder in sys.meta_path:
        if isinstance(finder, StandIn):
            continue
        spec = finder.find_spec(MODULE, None)
        if spec is not None and not _is_folder(spec):
            return spec
    return None


def _is_folder(spec: ModuleSpec | None) -> bool:
    """Whether it is a namespace package: any folder, without a file that says what is in it."""
    return spec is not None and spec.origin is None and spec.submodule_search_locations is not None
