"""What is sent to create or change a token is checked, and what is wrong has a sentence."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_token_auth import Restrictions
from asgi_token_auth.tokens.record import MAX_DESCRIPTION, MAX_EXPIRES_AFTER, MAX_PERMISSIONS
from asgi_token_auth.web.choices import Choices
from asgi_token_auth.web.tokens.forms import DEFAULT_EXPIRES_AFTER, TokenForm, form_fields, read_form, read_json
from tests.support.page_sites import BAD_EXPIRIES

CHOICES = Choices(
    everywhere={"view-instance": "", "items:read": ""},
    per_database={"execute-sql": ""},
    per_resource={"view-table": ""},
    databases={"d": ["t"]},
    known=frozenset({"auth-tokens-create", "vt"}),
)

NEVER = {"expire_type": ""}


def form(fields: dict[str, str], **more: Any) -> TokenForm:
    return read_form(fields, CHOICES, **more)


def sentence(errors: dict[str, str], name: str) -> str:
    """The one error, which is a sentence."""
    assert list(errors) == [name]
    assert errors[name][0].isupper()
    assert errors[name].endswith(".")
    return errors[name]


@pytest.mark.parametrize("name", BAD_EXPIRIES)
def test_a_bad_expiry_is_an_error_and_never_no_expiry(name: str) -> None:
    fields, where = BAD_EXPIRIES[name]
    read = form(fields)
    sentence(read.errors, where)
    assert read.typed == fields


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        (NEVER, None),
        ({**NEVER, "expire_duration": "90"}, None),
        ({"expire_type": "minutes", "expire_duration": "1"}, 60),
        ({"expire_type": "hours", "expire_duration": " 2 "}, 7_200),
        ({"expire_type": "days", "expire_duration": "0090"}, DEFAULT_EXPIRES_AFTER),
        ({"expire_type": "days", "expire_duration": "36600"}, MAX_EXPIRES_AFTER),
    ],
)
def test_an_expiry_is_a_number_of_a_unit_or_never(fields: dict[str, str], seconds: int | None) -> None:
    read = form(fields)
    assert (read.errors, read.expires_after) == ({}, seconds)


@pytest.mark.parametrize("fields", [NEVER, {"expire_type": "minutes", "expire_duration": "2"}])
def test_the_limit_of_life_is_said_in_a_form(fields: dict[str, str]) -> None:
    assert "at most 90 seconds" in sentence(form(fields, max_expires_after=90).errors, "expire_duration")
    assert form({"expire_type": "minutes", "expire_duration": "1"}, max_expires_after=90).errors == {}


GOOD_BOXES: list[tuple[list[str], Restrictions]] = [
    (["all:view-instance"], Restrictions(all=("view-instance",))),
    (["all:items:read"], Restrictions(all=("items:read",))),
    (["database:d:execute-sql"], Restrictions().allow_database("d", "execute-sql")),
    (["resource:d:t:view-table"], Restrictions().allow_resource("d", "t", "view-table")),
    (["resource:a~3Ab:~25:vt"], Restrictions().allow_resource("a:b", "%", "vt")),
    (["all:auth-tokens-create"], Restrictions(all=("auth-tokens-create",))),
]


@pytest.mark.parametrize(("boxes", "restrictions"), GOOD_BOXES, ids=repr)
@pytest.mark.parametrize("value", ["1", "", "off"])
@pytest.mark.parametrize("limit", [{}, {"limit": "only"}], ids=["predecessor's form", "ours"])
def test_a_box_counts_whatever_its_value_is(
    boxes: list[str], restrictions: Restrictions, value: str, limit: dict[str, str]
) -> None:
    read = form({**NEVER, **limit, **dict.fromkeys(boxes, value)})
    assert (read.errors, read.restrictions) == ({}, restrictions)
    assert all(read.checked(name) for name in boxes)


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": "only"},
        {"limit": "some"},
        {"limit": ""},
        {"limit": "all", "all:view-instance": "1"},
        {"all:": "1"},
        {"all:no-such-action": "1"},
        {"database:d": "1"},
        {"database:d:": "1"},
        {"database::execute-sql": "1"},
        {"database:d:no-such": "1"},
        {"database:~:execute-sql": "1"},
        {"database:~F:execute-sql": "1"},
        {"database:~FF:execute-sql": "1"},
        {"database:d d:execute-sql": "1"},
        {"database:~00:execute-sql": "1"},
        {"database:~ED~A0~80:execute-sql": "1"},
        {"resource:d:view-table": "1"},
        {"resource:d:t:": "1"},
        {"resource:d:t:view-table:x": "1"},
        {"resource:d::view-table": "1"},
    ],
    ids=repr,
)
def test_an_unknown_or_unreadable_box_is_an_error_and_never_no_limit(fields: dict[str, str]) -> None:
    sentence(form({**NEVER, **fields}).errors, "limit")


@pytest.mark.parametrize(
    "name", ["tables:d:t:view-table", "All:view-table", "restrictions", "a", "", "x" * 500_000, "\u202e"]
)
def test_an_unknown_field_is_an_error(name: str) -> None:
    assert len(sentence(form({**NEVER, name: "1"}).errors, "form")) < 300


def test_the_field_that_other_apps_add_to_a_form_is_no_error() -> None:
    assert form({**NEVER, "csrftoken": "x"}).errors == {}


@pytest.mark.parametrize("text", ["x" * (MAX_DESCRIPTION + 1), "a\0b", "\ud800", " " * (MAX_DESCRIPTION + 1)])
def test_a_bad_description_is_an_error(text: str) -> None:
    sentence(form({**NEVER, "description": text}).errors, "description")
    sentence(read_json({"description": text}, CHOICES).errors, "description")


@pytest.mark.parametrize(("text", "kept"), [("", None), ("  ", None), (" x ", " x "), ("é" * 1_000, "é" * 1_000)])
def test_a_description_is_kept_as_it_is(text: str, kept: str | None) -> None:
    assert form({**NEVER, "description": text}).description == kept
    assert read_json({"description": text}, CHOICES).description == kept


def test_ten_thousand_boxes_are_read_at_once() -> None:
    boxes = {f"resource:d:t{number}:view-table": "1" for number in range(9_000)}
    started = time.perf_counter()
    form({**NEVER, **boxes})
    # A value copied per box took minutes.
    assert time.perf_counter() - started < 5


def test_json_without_an_expiry_gets_ninety_days_or_the_limit_and_null_is_never() -> None:
    assert read_json({}, CHOICES).expires_after == 90 * 86_400
    assert read_json({}, CHOICES, max_expires_after=60).expires_after == 60
    assert read_json({}, CHOICES, max_expires_after=91 * 86_400).expires_after == 90 * 86_400
    assert read_json({"expires_after": None}, CHOICES).expires_after is None
    assert "at most 60" not in sentence(
        read_json({"expires_after": None}, CHOICES, max_expires_after=60).errors, "expires_after"
    )


BAD_JSON: list[tuple[str, Any]] = [
    *(("expires_after", bad) for bad in [0, -1, 1.5, "60", True, False, [], {}, "", float("nan"), float("inf")]),
    *(("expires_after", bad) for bad in [10**20, MAX_EXPIRES_AFTER + 1]),
    *(("description", bad) for bad in [5, True, [], {}, 1.5]),
    *(("restrictions", bad) for bad in [5, True, "vt", [], ["vt"], {"a": "vt"}, {"a": [1]}, {"a": {}}, {"x": []}]),
    *(
        ("restrictions", bad)
        for bad in [{"d": ["vt"]}, {"d": {"d": "vt"}}, {"r": {"d": ["vt"]}}, {"r": {"d": {"t": 5}}}]
    ),
    *(("restrictions", bad) for bad in [{"a": ["no-such"]}, {"a": ["\ud800"]}, {"a": [""]}, {"d": {"\ud800": ["vt"]}}]),
    *(("restrictions", bad) for bad in [{"d": {"a\0": ["vt"]}}, {"a": ["vt"] * MAX_PERMISSIONS}, {"a": None}]),
]


@pytest.mark.parametrize(("name", "value"), BAD_JSON, ids=lambda value: repr(value)[:40])
def test_a_bad_value_in_json_is_an_error_beside_its_field(name: str, value: Any) -> None:
    assert len(sentence(read_json({name: value}, CHOICES).errors, name)) < 300


def test_unknown_fields_in_json_are_named_but_not_repeated_at_length() -> None:
    assert "There is no field expire_after" in sentence(read_json({"expire_after": 5}, CHOICES).errors, "expire_after")
    errors = read_json({f"{number}{'x' * 1_000}": 1 for number in range(1_000)}, CHOICES).errors
    assert len(str(errors)) < 5_000
    assert read_json({"\ud800": 1}, CHOICES).errors


def test_an_empty_set_in_json_allows_nothing_and_an_absent_one_everything() -> None:
    assert read_json({"restrictions": {}}, CHOICES).restrictions == Restrictions()
    assert read_json({"restrictions": None}, CHOICES).restrictions is None
    assert read_json({}, CHOICES).restrictions is None


NAMES = st.text(st.characters(codec="utf-8"), min_size=1)

ACTIONS = st.lists(st.sampled_from(["view-instance", "items:read", "view-table"]), min_size=1, unique=True)


@given(
    st.builds(
        Restrictions,
        all=ACTIONS,
        database=st.dictionaries(NAMES, ACTIONS, max_size=3),
        resource=st.dictionaries(NAMES, st.dictionaries(NAMES, ACTIONS, min_size=1, max_size=3), max_size=3),
    )
)
def test_what_the_boxes_show_is_what_they_send_back(restrictions: Restrictions) -> None:
    # Fields cannot hold NUL, so such names cannot be ticked.
    if "\\u0000" in repr(restrictions) or "\\x00" in repr(restrictions):
        return
    read = read_form({**NEVER, **form_fields(restrictions)}, Choices().including(restrictions))
    assert (read.errors, read.restrictions) == ({}, restrictions)
    assert form_fields(None) == {"limit": "all"}
