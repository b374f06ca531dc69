"""Who manages tokens, and which of them they may see, change and revoke."""

from __future__ import annotations

from dataclasses import dataclass

from asgi_token_auth.access.permissions import CREATE_TOKENS, REVOKE_ALL_TOKENS, VIEW_ALL_TOKENS, no_permission
from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.errors import InvalidInput, TokenNotFound
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.storage.idempotency import IdempotencyKey
from asgi_token_auth.tokens.record import ANY_OWNER, Family, Owner, TokenRecord
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.web.http import HTTPError
from asgi_token_auth.web.pages import PageRequest, Pages, Person


@dataclass(frozen=True, slots=True)
class Requester(Person):
    """Who is asking, what they have permission for, and which tokens are within their reach."""

    may_create: bool
    may_view_all: bool
    may_revoke_all: bool

    @property
    def changeable(self) -> Owner:
        """The tokens that they may change."""
        if self.token is not None and self.token.auth.token_id is not None:
            return Family(self.id, self.token.auth.token_id)
        return self.id

    @property
    def visible(self) -> Owner:
        """The tokens that they may see."""
        return ANY_OWNER if self.may_view_all else self.changeable

    @property
    def revocable(self) -> Owner:
        """The tokens that they may revoke."""
        return ANY_OWNER if self.may_revoke_all else self.changeable

    def may_view_details(self, token: TokenRecord) -> bool:
        """Whether they may see more of the token than what is needed to revoke it."""
        return self.may_view_all or token.actor_id == self.id

    @property
    def parent(self) -> int | None:
        """The token that new ones are created through."""
        return self.token.auth.token_id if self.token is not None else None


class TokenAccess:
    """Decides what people may do with the tokens of a store.

    Args:
        tokens_may_manage: whether a token that names ``auth-tokens-create`` in its restrictions may manage
            itself and the tokens that it created.
    """

    def __init__(self, store: TokenStore, pages: Pages, *, tokens_may_manage: bool) -> None:
        self._store = store
        self._pages = pages
        self._tokens_may_manage = tokens_may_manage
        self._max_expires_after = store.max_expires_after

    async def requester(self, request: PageRequest) -> Requester:
        """Who is asking.

        Raises:
            HTTPError: 403: nobody, or one who may not manage tokens at all.
            StorageError: it cannot be found out.
        """
        person = await self._pages.person(request)
        if person.token is not None and not await self._may_manage(person.token, person.id):
            raise self._pages.token_refused()
        if not person.within_limits(CREATE_TOKENS):
            raise HTTPError(
                403, f"You are limited, and {CREATE_TOKENS} is not among what you may do; come in a way that may."
            )
        may_create = await self._pages.has_permission(request, person, CREATE_TOKENS)
        # A token manages itself and its children, whatever its actor may do besides.
        in_person = person.token is None
        return Requester(
            person.actor,
            person.id,
            person.token,
            person.limits,
            may_create,
            in_person and await self._pages.has_permission(request, person, VIEW_ALL_TOKENS),
            in_person and await self._pages.has_permission(request, person, REVOKE_ALL_TOKENS),
        )

    async def _may_manage(self, token: Authenticated, actor_id: str) -> bool:
        token_id, limits = token.auth.token_id, token.restrictions
        if not self._tokens_may_manage or token_id is None or limits is None or not limits.allows(CREATE_TOKENS):
            return False
        try:
            record = await self._store.get(token_id, owner=Family(actor_id, token_id))
        except TokenNotFound:
            return False
        # The old text of a rotated token ends sooner than the row, and a token of another store is another row:
        # what they create within the row would reach further than they do.
        return record.restrictions == limits and record.expires_at == token.auth.expires_at

    async def get_visible(self, requester: Requester, token_id: int) -> tuple[TokenRecord, bool]:
        """The token and whether all of it may be seen, or only what is needed to revoke it.

        Raises:
            TokenNotFound: there is none, as far as they may know.
        """
        try:
            return await self._store.get(token_id, owner=requester.visible), True
        except TokenNotFound:
            if not requester.may_revoke_all:
                raise
            return await self._store.get(token_id, owner=ANY_OWNER), False

    async def get_changeable(self, requester: Requester, token_id: int) -> TokenRecord:
        """A token that they may change.

        Raises:
            TokenNotFound: there is none, as far as they may know.
            HTTPError: 403: they see it and may not change it.
        """
        token = await self._store.get(token_id, owner=requester.visible)
        if token.actor_id != requester.id:
            raise HTTPError(403, "Only its owner may change a token; others may at most revoke it.")
        if not requester.may_create:
            raise HTTPError(403, f"{no_permission('create a token', CREATE_TOKENS)} Changing one takes it too.")
        if token_id == requester.parent:
            raise HTTPError(403, "A token cannot change itself; log in without it.")
        try:
            # Its new text would be theirs.
            check_within_limits(requester, token.restrictions)
        except InvalidInput as error:
            raise HTTPError(403, str(error)) from error
        return token

    async def revoke(
        self, requester: Requester, token_id: int, *, version: str | None = None, key: IdempotencyKey | None = None
    ) -> TokenRecord:
        """Revoke a token. ``version`` and ``key`` as :meth:`TokenStore.revoke` takes them.

        Raises:
            AlreadyDone, IdempotencyKeyReused, EditConflict: as there.
            TokenNotFound: there is none, as far as they may know.
            HTTPError: 403: they see it and may not revoke it.
        """
        try:
            return await self._store.revoke(
                token_id, owner=requester.revocable, by=requester.id, version=version, idempotency_key=key
            )
        except TokenNotFound:
            if not requester.may_view_all:
                raise
            await self._store.get(token_id, owner=ANY_OWNER)
            raise HTTPError(403, no_permission("revoke other people's tokens", REVOKE_ALL_TOKENS)) from None

    def max_expires_after(self, requester: Requester) -> int | None:
        """How many seconds this requester may give to a token; ``None``: no limit."""
        expires_at = None if requester.token is None else requester.token.auth.expires_at
        if expires_at is None:
            return self._max_expires_after
        left = max(1, int(expires_at - self._store.clock()))
        return left if self._max_expires_after is None else min(left, self._max_expires_after)


def check_within_limits(requester: Requester, restrictions: Restrictions | None) -> None:
    """Make sure that a token with these restrictions may do no more than whoever gets it.

    Raises:
        InvalidInput: it may.
    """
    limits = requester.limits
    if limits is not None and (restrictions is None or not restrictions.is_subset(limits)):
        raise InvalidInput("You are limited yourself, and cannot have a token that may do more than you.")
