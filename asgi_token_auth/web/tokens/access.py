"""Who looks after tokens, and which tokens they may see, change and end."""

from __future__ import annotations

from dataclasses import dataclass

from asgi_token_auth.authentication import Authenticated
from asgi_token_auth.errors import InvalidInput, TokenNotFound
from asgi_token_auth.permissions import CREATE_TOKENS, REVOKE_ALL_TOKENS, VIEW_ALL_TOKENS
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.tokens.record import ANY_OWNER, Family, Owner, TokenRecord
from asgi_token_auth.tokens.store import TokenStore
from asgi_token_auth.web.http import Refused
from asgi_token_auth.web.pages import Pages, Person, Visit


@dataclass(frozen=True, slots=True)
class Visitor(Person):
    """Who is asking, and how far they reach."""

    may_create: bool
    may_view_all: bool
    may_revoke_all: bool

    @property
    def own(self) -> Owner:
        """What they may change."""
        if self.token is not None and self.token.auth.token_id is not None:
            return Family(self.id, self.token.auth.token_id)
        return self.id

    @property
    def sees(self) -> Owner:
        """What they may look at."""
        return ANY_OWNER if self.may_view_all else self.own

    @property
    def ends(self) -> Owner:
        """What they may revoke."""
        return ANY_OWNER if self.may_revoke_all else self.own

    def sees_all_of(self, token: TokenRecord) -> bool:
        """Whether nothing of the token is to be kept from them."""
        return self.may_view_all or token.actor_id == self.id

    @property
    def parent(self) -> int | None:
        """The token that new ones are created through."""
        return self.token.auth.token_id if self.token is not None else None


class Visitors:
    """What people may do with the tokens of a store.

    Args:
        tokens_may_manage: whether a token that names ``auth-tokens-create`` in its restrictions may look after
            itself and the tokens that it created.
    """

    def __init__(self, store: TokenStore, pages: Pages, *, tokens_may_manage: bool) -> None:
        self._store = store
        self._pages = pages
        self._tokens_may_manage = tokens_may_manage
        self._limit = store.max_expires_after

    async def of(self, visit: Visit) -> Visitor:
        """Who is asking.

        Raises:
            Refused: 403: nobody, or one who may not look after tokens at all.
            StorageError: it cannot be told.
        """
        person = await self._pages.person(visit)
        if person.token is not None and not await self._may_manage(person.token, person.id):
            raise self._pages.no_tokens()
        if not person.within_limits(CREATE_TOKENS):
            raise Refused(403, f"You are limited, and {CREATE_TOKENS} is not among what you may do.")
        may_create = await self._pages.may(visit, person, CREATE_TOKENS)
        # A token looks after itself and its children, whatever its actor may do besides.
        beyond = person.token is None
        return Visitor(
            person.actor,
            person.id,
            person.token,
            person.limits,
            may_create,
            beyond and await self._pages.may(visit, person, VIEW_ALL_TOKENS),
            beyond and await self._pages.may(visit, person, REVOKE_ALL_TOKENS),
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

    async def look_up(self, visitor: Visitor, token_id: int) -> tuple[TokenRecord, bool]:
        """The token and whether all of it may be seen, or only what is needed to revoke it.

        Raises:
            TokenNotFound: there is none, as far as they may know.
        """
        try:
            return await self._store.get(token_id, owner=visitor.sees), True
        except TokenNotFound:
            if not visitor.may_revoke_all:
                raise
            return await self._store.get(token_id, owner=ANY_OWNER), False

    async def look_up_own(self, visitor: Visitor, token_id: int) -> TokenRecord:
        """A token that they may change.

        Raises:
            TokenNotFound: there is none, as far as they may know.
            Refused: 403: they see it and may not change it.
        """
        token = await self._store.get(token_id, owner=visitor.sees)
        if token.actor_id != visitor.id:
            raise Refused(403, "Only its owner may change a token.")
        if not visitor.may_create:
            raise Refused(403, "You do not have permission to create a token, and so none to change one.")
        if token_id == visitor.parent:
            raise Refused(403, "A token cannot change itself.")
        try:
            # Its new text would be theirs.
            check_within(visitor, token.restrictions)
        except InvalidInput as error:
            raise Refused(403, str(error)) from error
        return token

    async def revoke(self, visitor: Visitor, token_id: int) -> TokenRecord:
        """End a token.

        Raises:
            TokenNotFound: there is none, as far as they may know.
            Refused: 403: they see it and may not end it.
        """
        try:
            return await self._store.revoke(token_id, owner=visitor.ends, by=visitor.id)
        except TokenNotFound:
            if not visitor.may_view_all:
                raise
            await self._store.get(token_id, owner=ANY_OWNER)
            raise Refused(403, "You do not have permission to revoke other people's tokens.") from None

    def longest_life(self, visitor: Visitor) -> int | None:
        """How many seconds this visitor may give to a token; ``None``: no limit."""
        until = None if visitor.token is None else visitor.token.auth.expires_at
        if until is None:
            return self._limit
        left = max(1, int(until - self._store.clock()))
        return left if self._limit is None else min(left, self._limit)


def check_within(visitor: Visitor, restrictions: Restrictions | None) -> None:
    """A token with these restrictions may do no more than whoever gets it.

    Raises:
        InvalidInput: it may.
    """
    limits = visitor.limits
    if limits is not None and (restrictions is None or not restrictions.is_subset(limits)):
        raise InvalidInput("You are limited yourself, and cannot have a token that may do more than you.")
