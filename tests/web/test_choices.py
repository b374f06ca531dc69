"""What a form offers to restrict a token to."""

from __future__ import annotations

from asgi_token_auth import Restrictions
from asgi_token_auth.web.choices import Choices

CHOICES = Choices(
    everywhere={"view-instance": "", "items:read": ""},
    per_database={"execute-sql": ""},
    per_resource={"view-table": ""},
    databases={"d": ["t"]},
    known=frozenset({"auth-tokens-create", "vt"}),
)


def test_a_form_offers_what_a_token_may_do_already() -> None:
    held = Restrictions(all=("odd",), database={"x": ("es", "odd")}, resource={"d": {"t": ("vt",), "_t": ("odd",)}})
    choices = CHOICES.including(held)
    assert choices.everywhere.keys() == {"view-instance", "items:read", "odd"}
    assert choices.per_database.keys() == {"execute-sql", "odd"}
    assert choices.per_resource.keys() == {"view-table", "odd"}
    assert choices.databases == {"d": ["t", "_t"], "x": []}
    assert CHOICES.databases == {"d": ["t"]}
    assert CHOICES.including(None) is CHOICES
