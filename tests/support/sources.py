"""Sources that answer as they are told to."""

from typing import Any

from asgi_token_auth.authentication import (
    Credential,
    Outcome,
    Reason,
    Rejected,
    actor_outcome,
)
from asgi_token_auth.errors import StorageError
from asgi_token_auth.sources.static import StaticTokens
from tests.support.asgi import Scripted, authenticated


class FakeSource:
    """Answers what it is told, and remembers that it was asked."""

    def __init__(
        self,
        name: str,
        asked: list[str],
        *,
        answer: str = "pass",
        prefixes: tuple[str, ...] = (),
        exact: bool = False,
    ) -> None:
        self.name = name
        self.prefixes = prefixes
        self.exact = exact
        self._asked = asked
        self._answer = answer

    async def authenticate(self, credential: Credential) -> Outcome:
        self._asked.append(self.name)
        if self._answer == "fail":
            raise StorageError("the database is down")
        if self._answer == "reject":
            return Rejected(Reason.EXPIRED)
        if self._answer == "accept":
            return actor_outcome({"id": self.name}, source=self, credential=credential)
        return None


GOOD = "good-token-0123456789"


def sources() -> list[Any]:
    """One of every answer that there is, by a token that says which."""
    answers: dict[str, Outcome | BaseException] = {
        "own_good": authenticated(),
        "own_signature": Rejected(Reason.BAD_SIGNATURE),
        "own_malformed": Rejected(Reason.MALFORMED),
        "own_revoked": Rejected(Reason.REVOKED, 7),
        "own_expired": Rejected(Reason.EXPIRED, 7),
        "own_row": Rejected(Reason.UNKNOWN_TOKEN, 7),
        "own_damaged": Rejected(Reason.DAMAGED, 7),
        "own_off": Rejected(Reason.SWITCHED_OFF),
        "own_future": Rejected(Reason.NOT_YET_VALID),
        "own_locked": StorageError("locked"),
        "own_bug": ZeroDivisionError("1/0"),
    }
    wrong = Scripted({"4-wrong": Rejected(Reason.WRONG_SECRET)}, name="sql")
    return [StaticTokens({GOOD: {"id": "bot"}}), Scripted(answers, prefixes=("own_",)), wrong]
