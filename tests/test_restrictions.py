"""What a token may do: building, reading, comparing, and agreement with Datasette's own check."""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.restrictions import DATASETTE_ABBREVIATIONS, Restrictions, full_name

pytestmark = pytest.mark.anyio

NOTHING = Restrictions()

# Long names and abbreviations, actions on tables, on queries and on databases, and one that nobody knows.
ACTIONS = ["view-table", "vt", "view-query", "vq", "execute-sql", "es", "custom"]
DATABASES = ["one", "One"]
RESOURCES = ["people", "People", "ÉTÉ", "été"]

action_lists = st.lists(st.sampled_from(ACTIONS), max_size=3)
wire_values = st.fixed_dictionaries(
    {},
    optional={
        "a": action_lists,
        "d": st.dictionaries(st.sampled_from(DATABASES), action_lists, max_size=2),
        "r": st.dictionaries(
            st.sampled_from(DATABASES),
            st.dictionaries(st.sampled_from(RESOURCES), action_lists, max_size=3),
            max_size=2,
        ),
    },
)
restrictions = wire_values.map(Restrictions.from_wire)

# With names that no restriction here mentions, since a token for every table differs from one for all that exist.
UNIVERSE: list[tuple[str, str | None, str | None]] = [
    (action, database, resource)
    for action in [*ACTIONS, "unheard-of"]
    for database, resource in [
        (None, None),
        *itertools.product([*DATABASES, "other"], [None, *RESOURCES, "other"]),
    ]
]


def allowed(value: Restrictions) -> set[tuple[str, str | None, str | None]]:
    return {asked for asked in UNIVERSE if value.allows(*asked)}


def test_empty_restrictions_allow_nothing() -> None:
    assert allowed(NOTHING) == set()
    assert allowed(Restrictions.from_wire({"a": [], "d": {"one": []}, "r": {"one": {"people": []}}})) == set()


def test_each_level_allows_itself_and_what_lies_within() -> None:
    everywhere = NOTHING.allow_all("view-table")
    assert everywhere.allows("view-table")
    assert everywhere.allows("view-table", "one")
    assert everywhere.allows("view-table", "one", "people")
    database = NOTHING.allow_database("one", "view-table")
    assert not database.allows("view-table")
    assert database.allows("view-table", "one")
    assert database.allows("view-table", "one", "people")
    assert not database.allows("view-table", "other", "people")
    resource = NOTHING.allow_resource("one", "people", "view-table")
    assert not resource.allows("view-table")
    assert not resource.allows("view-table", "one")
    assert resource.allows("view-table", "one", "people")
    assert not resource.allows("view-table", "one", "other")
    assert not resource.allows("view-table", "other", "people")


def test_one_action_never_implies_another() -> None:
    assert not NOTHING.allow_all("view-table").allows("view-database")
    assert not NOTHING.allow_all("update-row").allows("view-table", "one", "people")


@pytest.mark.parametrize(("name", "abbreviation"), DATASETTE_ABBREVIATIONS.items())
def test_an_abbreviation_and_its_long_name_mean_the_same(name: str, abbreviation: str) -> None:
    assert full_name(abbreviation) == full_name(name) == name
    for given_, asked in itertools.product((name, abbreviation), repeat=2):
        assert NOTHING.allow_all(given_).allows(asked)
        assert NOTHING.allow_database("one", given_).allows(asked, "one")
        assert NOTHING.allow_resource("one", "people", given_).allows(asked, "one", "people")


def test_tables_are_compared_as_sqlite_compares_them_and_all_else_exactly() -> None:
    table = NOTHING.allow_resource("one", "People É", "view-table")
    assert table.allows("view-table", "one", "pEOPLE É")
    assert not table.allows("view-table", "one", "people é")
    assert not table.allows("view-table", "ONE", "People É")
    query = NOTHING.allow_resource("one", "Report", "view-query")
    assert query.allows("view-query", "one", "Report")
    assert not query.allows("view-query", "one", "report")


def test_building_returns_new_values_and_leaves_the_old_ones_alone() -> None:
    first = NOTHING.allow_all("vi")
    second = first.allow_database("one", "es").allow_resource("one", "people", "vt")
    assert NOTHING.to_wire() == {}
    assert first.to_wire() == {"a": ["vi"]}
    assert second.to_wire() == {"a": ["vi"], "d": {"one": ["es"]}, "r": {"one": {"people": ["vt"]}}}


def test_building_twice_adds_nothing() -> None:
    once = NOTHING.allow_all("vi").allow_database("one", "es").allow_resource("one", "people", "vt")
    assert once.allow_all("vi").allow_database("one", "es").allow_resource("one", "people", "vt") == once


def test_a_value_can_be_changed_in_no_way() -> None:
    value = Restrictions.from_wire({"a": ["vi"], "d": {"one": ["es"]}, "r": {"one": {"people": ["vt"]}}})
    with pytest.raises(FrozenInstanceError):
        value.all = ("vt",)  # type: ignore[misc]
    for mapping in (value.database, value.resource, value.resource["one"]):
        with pytest.raises(TypeError):
            mapping["two"] = ()  # type: ignore[index]
    assert isinstance(value.all, tuple)
    assert isinstance(value.database["one"], tuple)
    assert isinstance(value.resource["one"]["people"], tuple)


def test_a_value_shares_nothing_with_what_it_was_made_of() -> None:
    wire: dict[str, Any] = {"a": ["vi"], "d": {"one": ["es"]}, "r": {"one": {"people": ["vt"]}}}
    database: dict[str, tuple[str, ...]] = {"one": ("es",)}
    read, built = Restrictions.from_wire(wire), Restrictions(database=database)
    wire["a"].append("pd")
    wire["d"]["two"] = ["es"]
    wire["d"]["one"].append("ct")
    wire["r"]["one"]["people"].append("ir")
    database["two"] = ("es",)
    assert read.to_wire() == {"a": ["vi"], "d": {"one": ["es"]}, "r": {"one": {"people": ["vt"]}}}
    assert built.to_wire() == {"d": {"one": ["es"]}}
    read.to_wire()["a"].append("pd")
    assert read.all == ("vi",)


@pytest.mark.parametrize(
    "arguments",
    [
        {"all": "view-table"},
        {"all": ["vt", 5]},
        {"database": {"one": "view-table"}},
        {"database": ["one"]},
        {"database": {5: ()}},
        {"resource": {"one": ["people"]}},
        {"resource": {"one": {"people": "vt"}}},
    ],
)
def test_the_constructor_refuses_what_is_no_restriction(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Restrictions(**arguments)


@pytest.mark.parametrize("name", ["", None, 5, b"vt", ["vt"]])
def test_a_name_is_text_that_is_not_empty(name: Any) -> None:
    builds: list[Callable[[], Restrictions]] = [
        lambda: NOTHING.allow_all(name),
        lambda: NOTHING.allow_database(name, "vt"),
        lambda: NOTHING.allow_database("one", name),
        lambda: NOTHING.allow_resource(name, "people", "vt"),
        lambda: NOTHING.allow_resource("one", name, "vt"),
        lambda: NOTHING.allow_resource("one", "people", name),
    ]
    for build in builds:
        with pytest.raises(InvalidInput):
            build()


MALFORMED: dict[str, object] = {
    "null": None,
    "a list": [],
    "a string": "vt",
    "a number": 5,
    "true": True,
    "an unknown key": {"z": 1},
    "an unknown key beside good ones": {"a": ["vt"], "z": []},
    "a key that is no string": {1: []},
    "a is null": {"a": None},
    "a is a string": {"a": "vt"},
    "a is an object": {"a": {"vt": True}},
    "a number among actions": {"a": ["vt", 1]},
    "null among actions": {"a": ["vt", None]},
    "d is a list": {"d": []},
    "d is null": {"d": None},
    "d holds a string": {"d": {"one": "vt"}},
    "d holds null": {"d": {"one": None}},
    "d is keyed by a number": {"d": {1: []}},
    "r is a list": {"r": []},
    "r holds a list": {"r": {"one": ["vt"]}},
    "r holds null": {"r": {"one": None}},
    "r holds a string": {"r": {"one": {"people": "vt"}}},
    "r is keyed by a number": {"r": {"one": {1: []}}},
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_restrictions_are_refused_whole(value: object) -> None:
    """Reading the good half of a malformed value would guess, and here a guess may add rights."""
    with pytest.raises(InvalidInput):
        Restrictions.from_wire(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["a", "d", "r", "vt"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "d", "r", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(json_values)
@settings(max_examples=150, deadline=None)
def test_any_json_is_read_or_refused_and_what_is_read_is_written_back_without_loss(value: object) -> None:
    try:
        read = Restrictions.from_wire(value)
    except InvalidInput:
        return
    assert Restrictions.from_wire(read.to_wire()) == read


@given(wire_values)
@settings(max_examples=100, deadline=None)
def test_the_wire_form_allows_the_same_with_and_without_abbreviations(wire: dict[str, Any]) -> None:
    value = Restrictions.from_wire(wire)
    short = Restrictions.from_wire(json.loads(json.dumps(value.to_wire(DATASETTE_ABBREVIATIONS))))
    assert allowed(value) == allowed(short)


def test_the_wire_form_has_datasettes_order_and_omits_what_is_empty() -> None:
    value = NOTHING.allow_resource("one", "people", "view-table").allow_database("one", "es").allow_all("view-instance")
    assert json.dumps(value.to_wire(DATASETTE_ABBREVIATIONS)) == (
        '{"a": ["vi"], "d": {"one": ["es"]}, "r": {"one": {"people": ["vt"]}}}'
    )
    assert NOTHING.to_wire() == {}


@given(restrictions, restrictions)
@settings(max_examples=200, deadline=None)
@example(
    Restrictions.from_wire({"r": {"one": {"People": ["vt"]}}}), Restrictions.from_wire({"d": {"one": ["view-table"]}})
)
def test_intersect_allows_exactly_what_both_allow(one: Restrictions, two: Restrictions) -> None:
    both = one.intersect(two)
    assert allowed(both) == allowed(one) & allowed(two)
    assert both.is_subset(one)
    assert both.is_subset(two)
    assert allowed(both) == allowed(two.intersect(one))


@given(restrictions, restrictions)
@settings(max_examples=200, deadline=None)
@example(
    Restrictions.from_wire({"r": {"one": {"People": ["vt"]}}}),
    Restrictions.from_wire({"r": {"one": {"people": ["vt"]}}}),
)
@example(
    Restrictions.from_wire({"r": {"one": {"People": ["vq"]}}}),
    Restrictions.from_wire({"r": {"one": {"people": ["vq"]}}}),
)
def test_is_subset_agrees_with_allows(one: Restrictions, two: Restrictions) -> None:
    assert one.is_subset(two) == (allowed(one) <= allowed(two))


@given(restrictions)
@settings(max_examples=50, deadline=None)
def test_unrestricted_contains_everything_and_takes_nothing_away(value: Restrictions) -> None:
    assert value.is_subset(None)
    assert value.intersect(None) == value
    assert NOTHING.is_subset(value)
    assert value.intersect(NOTHING) == NOTHING


def test_intersect_keeps_the_spelling_of_a_table() -> None:
    one = NOTHING.allow_resource("one", "People", "vt")
    assert one.intersect(NOTHING.allow_resource("one", "people", "view-table")).resource["one"].keys() == {"People"}


@pytest.mark.timeout(20)
def test_large_restrictions_are_compared_in_linear_time() -> None:
    """20,000 permissions against themselves would take minutes if each were compared with each."""
    wire = {"a": [f"action-{n}" for n in range(10_000)], "r": {"one": {f"t{n}": ["vt"] for n in range(10_000)}}}
    value = Restrictions.from_wire(wire)
    assert value.is_subset(value)
    assert allowed(value.intersect(value)) == allowed(value)


@given(wire_values)
@settings(max_examples=50, deadline=None)
def test_equal_values_have_equal_hashes(wire: dict[str, Any]) -> None:
    turned = {key: dict(reversed(inner.items())) if key != "a" else inner for key, inner in reversed(wire.items())}
    one, two = Restrictions.from_wire(wire), Restrictions.from_wire(turned)
    assert one == two
    assert hash(one) == hash(two)


@pytest.mark.datasette("1.0")
async def test_allows_agrees_with_datasette() -> None:
    """Against the function with which Datasette 1.0 itself answers."""
    from datasette.app import Datasette
    from datasette.default_permissions.restrictions import restrictions_allow_action

    datasette = Datasette(memory=True)
    await datasette.invoke_startup()

    @given(wire_values)
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def agree(wire: dict[str, Any]) -> None:
        value = Restrictions.from_wire(wire)
        for action, database, resource in UNIVERSE:
            # Datasette is never asked by abbreviation.
            asked: Any = None if database is None else database if resource is None else (database, resource)
            theirs = restrictions_allow_action(datasette, wire, full_name(action), asked)
            assert value.allows(action, database, resource) == theirs, (wire, action, asked)

    agree()
    known = {action.name: action.abbr for action in datasette.actions.values() if action.abbr}
    assert known == dict(DATASETTE_ABBREVIATIONS)


@pytest.mark.parametrize(
    "wire", [{"a": ["\ud800"]}, {"d": {"\ud800": ["vt"]}}, {"d": {"x": ["\udfff"]}}, {"r": {"x": {"\ud800": ["vt"]}}}]
)
def test_names_that_are_no_text_are_refused(wire: dict[str, Any]) -> None:
    """A signed token may spell them, and no database could be asked about them."""
    with pytest.raises(InvalidInput):
        Restrictions.from_wire(wire)


def test_thousands_of_names_are_read_about_as_quickly_as_their_json() -> None:
    """A list shows thirty tokens, of which each may have as many, while every other request waits."""
    text = json.dumps({"r": {"data": {f"table {number}": ["vt", "ir"] for number in range(8_000)}}})

    def seconds(read: Callable[[], object]) -> float:
        start = time.perf_counter()
        read()
        return time.perf_counter() - start

    wire = json.loads(text)
    ratios = [seconds(lambda: Restrictions.from_wire(wire)) / seconds(lambda: json.loads(text)) for _ in range(10)]
    assert min(ratios) < 4
