"""Datasette 1.0's token handlers: those of other plugins as a source, and ours for ``datasette.create_token()``."""

from __future__ import annotations

from typing import Any

from asgi_token_auth.authentication import Authenticated, Credential, Outcome, Reason, Rejected, actor_outcome
from asgi_token_auth.errors import StorageError
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.sources.managed import ManagedTokens


class OtherHandlers:
    """The token handlers that other plugins registered, asked about tokens that nobody here claims."""

    name = "datasette"
    prefixes: tuple[str, ...] = ()
    exact = False

    def __init__(self, datasette: Any) -> None:
        self._datasette = datasette

    async def authenticate(self, credential: Credential) -> Outcome:
        """Ask ``datasette.verify_token()``."""
        from datasette import TokenInvalid

        try:
            actor = await self._datasette.verify_token(credential.token)
        except TokenInvalid:
            return Rejected(Reason.MALFORMED)
        return actor_outcome(actor, source=self, credential=credential) if actor else None


def managed_token_handler(managed: ManagedTokens) -> Any:
    """A ``TokenHandler`` that mints and verifies the tokens of ``managed``."""
    from datasette.tokens import TokenHandler, TokenInvalid

    class ManagedTokenHandler(TokenHandler):  # type: ignore[misc]
        name = "dsatok"

        async def create_token(
            self, datasette: Any, actor_id: str, *, expires_after: int | None = None, restrictions: Any = None
        ) -> str:
            limits = None
            if restrictions is not None:
                wire = restrictions.abbreviated(datasette)
                if wire is None:
                    raise ValueError(
                        "These TokenRestrictions are empty, which allows nothing here but everything in Datasette: "
                        "leave restrictions out for an unrestricted token."
                    )
                limits = Restrictions.from_wire(wire)
            issued = await managed.store.issue(actor_id, expires_after=expires_after, restrictions=limits)
            return issued.token

        async def verify_token(self, datasette: Any, token: str) -> dict[str, Any] | None:
            if not token.startswith(managed.store.text.prefix):
                return None
            try:
                outcome = await managed.authenticate(Credential(token))
            except StorageError as error:
                # Datasette has no way to say "cannot tell"; refusing is the safe half of it.
                raise TokenInvalid("The access token cannot be checked at the moment; try again soon.") from error
            if isinstance(outcome, Authenticated):
                return outcome.actor()
            raise TokenInvalid("The access token is not valid.")

    return ManagedTokenHandler()
