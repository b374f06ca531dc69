"""Allow blocks."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_token_auth.access.permissions import matches

ANN = {"id": "ann", "roles": ["staff", "ops"], "age": 5, "admin": True, "nothing": None}


@pytest.mark.parametrize(
    ("actor", "allow", "covered"),
    [
        (ANN, True, True),
        (None, True, True),
        (ANN, False, False),
        (ANN, {}, False),
        (None, {}, False),
        (None, {"id": "*"}, False),
        ({}, {"id": "*"}, False),
        ({"name": "x"}, {"id": "*"}, False),
        (ANN, {"id": "*"}, True),
        (ANN, {"id": "ann"}, True),
        (ANN, {"id": ["bob", "ann"]}, True),
        (ANN, {"id": ["bob"]}, False),
        (ANN, {"id": []}, False),
        (ANN, {"id": "Ann"}, False),
        (ANN, {"id": "an"}, False),
        (ANN, {"roles": "ops"}, True),
        (ANN, {"roles": ["ops"]}, True),
        (ANN, {"roles": "dev"}, False),
        (ANN, {"id": "bob", "roles": "ops"}, True),
        (ANN, {"nothing": "*"}, False),
        (ANN, {"nothing": None}, False),
        (ANN, {"unknown": None}, False),
        (ANN, {"age": 5}, True),
        (ANN, {"age": "5"}, False),
        (ANN, {"age": 5.0}, False),
        (ANN, {"admin": 1}, False),
        (ANN, {"admin": True}, True),
        (ANN, None, False),
        (ANN, "ann", False),
        (ANN, "*", False),
        (ANN, 1, False),
        (ANN, ["ann"], False),
        (ANN, {"id": {"ann": True}}, False),
    ],
)
def test_an_allow_block_covers_whom_it_names(actor: Any, allow: Any, covered: bool) -> None:
    assert matches(actor, allow) is covered
