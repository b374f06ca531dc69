"""What people may do: the four actions, and the allow blocks that say who may, in the form that Datasette uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

CREATE_TOKENS: Final = "auth-tokens-create"
VIEW_ALL_TOKENS: Final = "auth-tokens-view-all"
REVOKE_ALL_TOKENS: Final = "auth-tokens-revoke-all"
MANAGE_SECRETS: Final = "manage-secrets"

#: The actions that people may be allowed.
ACTIONS: Final = (CREATE_TOKENS, VIEW_ALL_TOKENS, REVOKE_ALL_TOKENS, MANAGE_SECRETS)


def matches(actor: Mapping[str, Any] | None, allow: Mapping[str, Any] | bool | None) -> bool:
    """Whether an allow block covers an actor.

    ``True`` covers everybody and ``False`` nobody. An object covers an actor if any of its keys does: the
    actor has the key, and its value (or one of them) is listed, or ``"*"`` is. Anything else covers nobody.
    """
    if isinstance(allow, bool):
        return allow
    if not isinstance(allow, Mapping) or actor is None:
        return False
    return any(_covers(actor.get(key), wanted) for key, wanted in allow.items())


def _covers(value: object, wanted: object) -> bool:
    if value is None:
        return False
    # Compared with their types: 1 is not True, and "5" is not 5.
    return any(
        choice == "*" or (type(choice) is type(one) and choice == one)
        for one in _listed(value)
        for choice in _listed(wanted)
    )


def _listed(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]


def no_permission(to: str, action: str) -> str:
    """What to say to whoever lacks ``action``, which is needed ``to`` do something."""
    return f"You do not have permission to {to}. Whoever runs this site can give it: {action}."
