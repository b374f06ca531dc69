"""Secrets as rows: set, noted, used, deleted, rotated; and what is refused without harm."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from asgi_token_auth import (
    ConfigurationError,
    InvalidInput,
    Secret,
    SecretNotFound,
    SecretRecord,
    SecretStore,
    SecretUnreadable,
    SecretVersion,
    StorageError,
)
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.secrets.encryption import generate_key
from asgi_token_auth.secrets.record import MAX_VALUE, Rotation
from tests.support.asgi import Clock
from tests.support.places import Place, only_sqlite

pytestmark = pytest.mark.anyio

# The same in every process that collects these tests, whose names hold them.
KEY, NEWER = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (250, 251))


class Home:
    """Where secrets are kept, and the environment around it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.environ: dict[str, str] = {}
        self.clock = Clock(1_800_000_000.0)

    def store(self, key: Any = KEY, **more: Any) -> SecretStore:
        return SecretStore(self.place.database(), encryption_key=key, environ=self.environ, clock=self.clock, **more)

    def sql(self, statement: str, *parameters: object) -> list[Any]:
        """What an operator, or an accident, does from outside."""
        return self.place.run(statement, *parameters)

    def rows(self) -> list[Any]:
        return self.sql("select * from datasette_secrets order by id")

    @property
    def path(self) -> Path:
        database = self.place.database()
        assert isinstance(database, SQLite)
        return database.path


@pytest.fixture
def home(place: Place) -> Home:
    return Home(place)


@pytest.fixture
async def store(home: Home, anyio_backend: str) -> AsyncIterator[SecretStore]:
    async with home.store(secrets=[Secret("API_KEY", "For the API", "https://example.com/", "Get one")]) as store:
        yield store


# Set and get


async def test_a_secret_is_set_read_and_described(store: SecretStore, home: Home) -> None:
    assert await store.get_secret("API_KEY") is None
    record = await store.set("API_KEY", "s3cret välue\n", note="from the vendor", by="alice")
    assert record == SecretRecord(
        name="API_KEY",
        description="For the API",
        obtain_url="https://example.com/",
        obtain_label="Get one",
        registered=True,
        source="stored",
        note="from the vendor",
        version=1,
        created_at=1_800_000_000,
        created_by="alice",
        updated_at=1_800_000_000,
        updated_by="alice",
        last_used_at=None,
        last_used_by=None,
    )
    assert await store.get("API_KEY") == record
    assert await store.list() == [record]
    assert await store.get_secret("API_KEY") == "s3cret välue\n"


async def test_each_value_is_a_new_version_and_the_newest_counts(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one", note="first", by="alice")
    home.clock.now += 60
    record = await store.set("API_KEY", "two", by="bob")
    # The note stays unless another one is given.
    assert (record.version, record.note, record.updated_by) == (2, "first", "bob")
    assert (await store.set("API_KEY", "three", note="")).note is None
    assert await store.get_secret("API_KEY") == "three"
    assert [(v.version, v.note, v.created_at, v.created_by) for v in await store.history("API_KEY")] == [
        (3, None, 1_800_000_060, None),
        (2, "first", 1_800_000_060, "bob"),
        (1, "first", 1_800_000_000, "alice"),
    ]
    # As datasette-secrets does, the earlier values stay, encrypted.
    assert [len(blob) > 50 for (blob,) in home.sql("select encrypted from datasette_secrets")] == [True] * 3


async def test_a_note_is_changed_alone(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one", by="alice")
    home.clock.now += 60
    record = await store.set_note("API_KEY", "rotate in May", by="bob")
    assert (record.version, record.note) == (1, "rotate in May")
    assert (record.created_at, record.created_by) == (1_800_000_000, "alice")
    assert (record.updated_at, record.updated_by) == (1_800_000_060, "bob")
    assert (await store.set_note("API_KEY", None)).note is None
    assert await store.get_secret("API_KEY") == "one"
    with pytest.raises(SecretNotFound, match="'OTHER'"):
        await store.set_note("OTHER", "x")


async def test_registered_and_stored_secrets_are_listed_by_name(store: SecretStore, home: Home) -> None:
    store.register(Secret("Z"), Secret("API_KEY", "another description"), Secret("M"))
    await store.set("M", "value")
    await store.set("C", "value")
    home.environ["DATASETTE_SECRETS_Z"] = "from outside"
    assert [(r.name, r.registered, r.source) for r in await store.list()] == [
        ("API_KEY", True, None),
        ("C", False, "stored"),
        ("M", True, "stored"),
        ("Z", True, "environment"),
    ]
    assert store.registered["API_KEY"].description == "For the API"
    with pytest.raises(SecretNotFound, match="There is no secret 'B'"):
        await store.get("B")
    with pytest.raises(SecretNotFound):
        await store.history("B")
    assert await store.history("Z") == []


async def test_the_environment_goes_before_what_is_stored(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "stored")
    home.environ["DATASETTE_SECRETS_API_KEY"] = "from outside"
    assert await store.get_secret("API_KEY") == "from outside"
    assert (await store.get("API_KEY")).source == "environment"
    assert (await store.get("API_KEY")).version == 1
    home.environ["DATASETTE_SECRETS_API_KEY"] = ""
    assert await store.get_secret("API_KEY") == "stored"


async def test_what_env_files_leave_around_a_secret_is_no_part_of_it(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "stored")
    for given, read in (
        ("sk-1\r", "sk-1"),
        ("sk-1\r\n", "sk-1"),
        ("\ufeffsk-1\n", "sk-1"),
        (' "sk-1" ', ' "sk-1" '),
        ("-----BEGIN\nxyz\n", "-----BEGIN\nxyz\n"),
        ("sk-1\n\n", "sk-1\n\n"),
        ("\r", "stored"),
    ):
        home.environ["DATASETTE_SECRETS_API_KEY"] = given
        assert await store.get_secret("API_KEY") == read
    home.environ["DATASETTE_SECRETS_API_KEY"] = "hunter2\udcff"
    with pytest.raises(SecretUnreadable, match="variable DATASETTE_SECRETS_API_KEY is not valid UTF-8") as raised:
        await store.get_secret("API_KEY")
    assert "hunter2" not in str(raised.value)
    assert (await store.get("API_KEY")).source == "environment"


@only_sqlite
async def test_the_environment_needs_neither_database_nor_key(home: Home, tmp_path: Path) -> None:
    home.environ["DATASETTE_SECRETS_API_KEY"] = "from outside"
    store = home.store(None)
    assert not store.can_encrypt
    assert home.store().can_encrypt
    assert await store.get_secret("API_KEY") == "from outside"
    assert not home.path.exists()
    async with store:
        assert await store.get_secret("OTHER") is None
        with pytest.raises(ConfigurationError, match="no encryption key; configure one"):
            await store.set("OTHER", "value")
        with pytest.raises(ConfigurationError, match="no encryption key"):
            await store.rotate()
    assert home.rows() == []


# Delete


async def test_a_deleted_secret_leaves_who_and_when_and_no_value(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one", by="alice")
    await store.set("API_KEY", "two", by="bob")
    home.clock.now += 60
    record = await store.delete("API_KEY", by="carol")
    assert (record.source, record.version, record.updated_by) == (None, None, None)
    assert await store.get_secret("API_KEY") is None
    assert home.sql("select encrypted, deleted_by from datasette_secrets") == [(b"", "carol")] * 2
    assert [(v.version, v.created_by, v.deleted_at, v.deleted_by) for v in await store.history("API_KEY")] == [
        (2, "bob", 1_800_000_060, "carol"),
        (1, "alice", 1_800_000_060, "carol"),
    ]
    with pytest.raises(SecretNotFound):
        await store.delete("API_KEY")
    again = await store.set("API_KEY", "three")
    assert (again.version, again.note) == (3, None)
    assert await store.get_secret("API_KEY") == "three"
    assert (await store.rotate()) == Rotation(rewritten=0, unchanged=1)


async def test_no_earlier_version_comes_back_when_the_newest_was_deleted_from_outside(
    store: SecretStore, home: Home
) -> None:
    await store.set("API_KEY", "one")
    await store.set("API_KEY", "two")
    home.sql("update datasette_secrets set deleted_at = '2026-01-01 00:00:00' where version = 2")
    assert await store.get_secret("API_KEY") is None
    assert (await store.get("API_KEY")).source is None
    assert [record.source for record in await store.list()] == [None]


async def test_what_comes_from_the_environment_cannot_be_deleted_here(store: SecretStore, home: Home) -> None:
    home.environ["DATASETTE_SECRETS_API_KEY"] = "from outside"
    with pytest.raises(SecretNotFound, match="environment variable DATASETTE_SECRETS_API_KEY"):
        await store.delete("API_KEY")


# Use


async def test_uses_are_written_later_and_never_backwards(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one")
    before = home.rows()
    for actor in ("alice", None, "bob"):
        home.clock.now += 10
        await store.get_secret("API_KEY", actor)
    assert home.rows() == before
    await store.flush()
    record = await store.get("API_KEY")
    assert (record.last_used_at, record.last_used_by) == (1_800_000_030, "bob")
    assert home.sql("select last_used_at from datasette_secrets") == [("2027-01-15 08:00:30",)]
    home.clock.now -= 3_600
    await store.get_secret("API_KEY", "mallory")
    await store.flush()
    assert (await store.get("API_KEY")).last_used_by == "bob"
    home.clock.now += 100
    assert await store.get_secret("API_KEY", "x" * 501)
    await store.flush()
    assert (await store.get("API_KEY")).last_used_by == "bob"
    home.clock.now += 7_100
    await store.get_secret("API_KEY")
    await store.flush()
    assert (await store.get("API_KEY")).last_used_by is None
    # A new value has not been used yet, which tells when the old one is out of use.
    assert (await store.set("API_KEY", "two")).last_used_at is None


@only_sqlite
async def test_a_secret_is_given_although_its_use_cannot_be_written(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one")
    home.path.chmod(0o400)
    assert await store.get_secret("API_KEY", 5) == "one"  # type: ignore[arg-type]
    assert await store.get_secret("API_KEY", "\ud800") == "one"


# Wrong keys, damage


async def test_a_wrong_or_missing_key_names_the_secret_and_gives_no_earlier_version(home: Home) -> None:
    async with home.store() as store:
        await store.set("API_KEY", "one")
    async with home.store([KEY, NEWER]) as store:
        assert await store.get_secret("API_KEY") == "one"
        await store.set("API_KEY", "two")
    async with home.store() as store:
        with pytest.raises(SecretUnreadable, match=r"'API_KEY' \(version 2\) cannot be decrypted.*add the key"):
            await store.get_secret("API_KEY")
    async with home.store(None) as store:
        with pytest.raises(SecretUnreadable, match="'API_KEY' is stored encrypted, and there is no encryption key"):
            await store.get_secret("API_KEY")
        assert [record.source for record in await store.list()] == ["stored"]


@only_sqlite
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("encrypted = x'00'", "damaged"),
        ("encrypted = x''", "damaged"),
        ("encrypted = null", "damaged"),
        ("encrypted = 5", "damaged"),
        ("encrypted = 'text'", "damaged"),
        ("encrypted = substr(encrypted, 1, length(encrypted) - 4)", "damaged"),
        ("version = 'two'", "damaged.*take that row out of the table"),
        ("version = 99", "another secret or version"),
    ],
)
async def test_a_damaged_row_is_named_and_harms_no_other(
    store: SecretStore, home: Home, change: str, sentence: str
) -> None:
    await store.set("API_KEY", "one")
    await store.set("API_KEY", "two")
    await store.set("OTHER", "fine")
    home.sql(f"update datasette_secrets set {change} where name = 'API_KEY' and version = 2")
    with pytest.raises(SecretUnreadable, match=f"'API_KEY'.*{sentence}.*set it again"):
        await store.get_secret("API_KEY")
    before = home.rows()
    with pytest.raises(SecretUnreadable, match="'API_KEY'"):
        await store.rotate()
    assert home.rows() == before
    assert await store.get_secret("OTHER") == "fine"
    assert len(await store.list()) == 2
    assert len(await store.history("API_KEY")) == 2


async def test_a_row_copied_over_another_is_found(store: SecretStore, home: Home) -> None:
    for name in ("API_KEY", "OTHER"):
        await store.set(name, f"value of {name}")
    await store.set("API_KEY", "newer")
    home.sql("update datasette_secrets set encrypted = (select encrypted from datasette_secrets where name = 'OTHER')")
    with pytest.raises(SecretUnreadable, match=r"'API_KEY' \(version 2\) holds the value of another secret"):
        await store.get_secret("API_KEY")
    assert await store.get_secret("OTHER") == "value of OTHER"


async def test_an_old_version_cannot_be_made_the_newest(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one")
    await store.set("API_KEY", "two")
    home.sql("update datasette_secrets set version = 3 where version = 1")
    with pytest.raises(SecretUnreadable, match="another secret or version"):
        await store.get_secret("API_KEY")


@only_sqlite
async def test_times_and_texts_that_are_none_are_shown_as_unknown(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one")
    home.sql(
        "update datasette_secrets set note = 5, created_at = 'soon', created_by = x'ff', updated_at = 7, "
        "last_used_at = null"
    )
    [version] = await store.history("API_KEY")
    assert version == SecretVersion(1, "5", None, None, None, None, None, None, None, None)
    assert (await store.get("API_KEY")).created_by is None


@only_sqlite
async def test_a_table_of_the_first_datasette_secrets_is_used_as_it_is(home: Home) -> None:
    # 0.1a0 had one more column.
    home.sql(
        "create table datasette_secrets (id integer primary key, name text not null, note text, version integer not "
        "null default 1, encrypted blob, encryption_key_name text not null, redacted text, created_at text, "
        "created_by text, updated_at text, updated_by text, deleted_at text, deleted_by text, last_used_at text, "
        "last_used_by text)"
    )
    home.sql(
        "insert into datasette_secrets (name, encrypted, encryption_key_name, redacted) "
        "values ('A', ?, 'default', 'o')",
        Fernet(KEY).encrypt(b"one"),
    )
    async with home.store() as store:
        assert await store.get_secret("A") == "one"
        assert (await store.set("A", "two")).version == 2
        assert await store.get_secret("A") == "two"
        assert await store.rotate() == Rotation(rewritten=1, unchanged=1)


# Rotation


async def test_rotation_makes_the_old_key_needless_for_every_version(home: Home) -> None:
    async with home.store() as store:
        for value in ("one", "two"):
            await store.set("API_KEY", value)
        await store.set("OTHER", "three")
        await store.delete("OTHER")
    async with home.store([KEY, NEWER]) as store:
        await store.set("NEW", "four")
        assert await store.rotate(by="alice") == Rotation(rewritten=2, unchanged=1)
        assert await store.rotate() == Rotation(rewritten=0, unchanged=3)
    async with home.store(NEWER) as store:
        assert await store.get_secret("API_KEY") == "two"
        assert await store.get_secret("NEW") == "four"
        assert await store.rotate() == Rotation(rewritten=0, unchanged=3)
        record = await store.get("API_KEY")
        # Nobody changed the secret itself.
        assert (record.updated_at, record.version) == (1_800_000_000, 2)


async def test_rotation_binds_what_datasette_secrets_wrote(store: SecretStore, home: Home) -> None:
    for name in ("A", "B"):
        home.sql(
            "insert into datasette_secrets (name, version, note, encrypted, encryption_key_name) "
            "values (?, 1, '', ?, 'default')",
            name,
            Fernet(KEY).encrypt(f"value of {name}".encode()),
        )
    assert await store.get_secret("A") == "value of A"
    assert await store.rotate() == Rotation(rewritten=2, unchanged=0)
    assert await store.get_secret("A") == "value of A"
    home.sql("update datasette_secrets set encrypted = (select encrypted from datasette_secrets where name = 'B')")
    with pytest.raises(SecretUnreadable, match="another secret"):
        await store.get_secret("A")


async def test_rotation_stops_at_one_that_cannot_be_read_and_changes_nothing(home: Home) -> None:
    async with home.store() as store:
        for number in range(10):
            await store.set(f"S{number}", "value")
    async with home.store(generate_key()) as store:
        await store.set("S5", "another key")
    before = home.rows()
    async with home.store([KEY, NEWER]) as store:
        with pytest.raises(SecretUnreadable, match=r"'S5' \(version 2\)"):
            await store.rotate()
    assert home.rows() == before


async def test_a_lost_version_is_let_go_by_deleting_its_secret(store: SecretStore, home: Home) -> None:
    async with home.store(generate_key()) as other:
        await other.set("API_KEY", "with a key that is lost")
    await store.set("API_KEY", "two")
    assert await store.get_secret("API_KEY") == "two"
    with pytest.raises(SecretUnreadable, match=r"\(version 1\) .* Nothing was rotated.* if the secret is deleted"):
        await store.rotate()
    assert len(await store.problems()) == 1
    await store.delete("API_KEY")
    await store.set("API_KEY", "two")
    assert await store.rotate() == Rotation(0, 1)
    assert await store.problems() == []


@pytest.mark.parametrize("version", [-1, 2**31 - 1])
async def test_a_version_that_cannot_be_counted_on_from_is_a_sentence(
    store: SecretStore, home: Home, version: int
) -> None:
    await store.set("API_KEY", "one")
    home.sql(f"update datasette_secrets set version = {version}")
    with pytest.raises(StorageError, match="'API_KEY' has a version that cannot be counted on from"):
        await store.set("API_KEY", "two")
    assert len(home.rows()) == 1


# Input


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "1 to 200 characters"),
        ("x" * 201, "1 to 200 characters"),
        ("x" * 10_000, "1 to 200 characters"),
        ("a\0b", "control characters"),
        ("a\nb", "control characters"),
        ("a\x7fb", "control characters"),
        ("a\ud800", "control characters"),
        ("..", "mean something else in a URL"),
        (None, "must be text"),
        (5, "must be text"),
        (b"bytes", "must be text"),
    ],
)
async def test_a_name_that_cannot_be_one_is_refused(store: SecretStore, home: Home, name: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        await store.set(name, "value")
    with pytest.raises(ConfigurationError, match=sentence):
        store.register(Secret("FINE"), Secret(name))
    assert list(store.registered) == ["API_KEY"]
    assert await store.get_secret(name) is None
    for call in (store.get, store.history, store.delete):
        with pytest.raises(SecretNotFound):
            await call(name)
    with pytest.raises(SecretNotFound):
        await store.set_note(name, "note")
    assert home.rows() == []


@pytest.mark.parametrize("name", ["a/b", "a b", "../x", "äöü 日本語 🔑", "%", "'; drop table x; --", "x" * 200, "a=b"])
async def test_unusual_names_work(store: SecretStore, name: str) -> None:
    await store.set(name, "value")
    assert await store.get_secret(name) == "value"
    assert (await store.get(name)).name == name
    await store.set_note(name, "note")
    await store.delete(name)
    assert await store.get_secret(name) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("", "not empty"),
        (" \n", "not empty"),
        (None, "must be text"),
        (b"bytes", "must be text"),
        (5, "must be text"),
        ("\ud800", "valid text"),
        ("x" * (MAX_VALUE + 1), "at most 65,536 bytes"),
        ("ä" * (MAX_VALUE // 2 + 1), "at most 65,536 bytes"),
        (f"the key {KEY}", "encryption key, which must not be kept"),
    ],
)
async def test_a_value_that_cannot_be_one_is_refused_and_not_quoted(
    store: SecretStore, home: Home, value: Any, sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence) as refused:
        await store.set("API_KEY", value)
    assert len(str(refused.value)) < 200
    assert KEY not in str(refused.value)
    # An error of Python's about it would have the value in it, for whoever reports errors with what caused them.
    assert refused.value.__context__ is None
    assert home.rows() == []


async def test_the_longest_value_and_note_work(store: SecretStore) -> None:
    await store.set("API_KEY", "ä" * (MAX_VALUE // 2), note="ü" * 100)
    assert await store.get_secret("API_KEY") == "ä" * (MAX_VALUE // 2)


@pytest.mark.parametrize("note", ["x" * 101, "\0", "\ud800", 5, KEY])
async def test_a_note_that_cannot_be_one_is_refused(store: SecretStore, home: Home, note: Any) -> None:
    await store.set("API_KEY", "one", note="before")
    with pytest.raises(InvalidInput):
        await store.set_note("API_KEY", note)
    with pytest.raises(InvalidInput):
        await store.set("API_KEY", "two", note=note)
    assert [(v.version, v.note) for v in await store.history("API_KEY")] == [(1, "before")]


async def test_whoever_changes_a_secret_has_an_id(store: SecretStore, home: Home) -> None:
    await store.set("API_KEY", "one")
    for call in (
        store.set("API_KEY", "two", by=""),
        store.set_note("API_KEY", "x", by="x" * 501),
        store.delete("API_KEY", by="\0"),
        store.rotate(by=""),
    ):
        with pytest.raises(InvalidInput, match="actor id"):
            await call
    assert len(home.rows()) == 1


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [(Secret("A", description=5), "5 is no text"), (Secret("A", obtain_url=b"x"), "is no text")],  # type: ignore[arg-type]
)
async def test_what_is_registered_is_text(store: SecretStore, secret: Secret, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        store.register(secret)


def test_a_bad_key_or_table_stops_the_construction(home: Home) -> None:
    with pytest.raises(ConfigurationError, match="44 characters"):
        home.store("too short")
    with pytest.raises(ConfigurationError, match="table"):
        home.store(table="x; drop")
    with pytest.raises(ConfigurationError, match="give a database"):
        SecretStore("secrets.db", encryption_key=KEY)  # type: ignore[arg-type]


def test_without_the_extra_a_key_is_refused_and_the_environment_works(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asgi_token_auth.secrets.encryption", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'asgi-token-auth\[secrets\]'") as refused:
        home.store()
    assert KEY not in str(refused.value)
    home.environ["DATASETTE_SECRETS_A"] = "value"
    assert asyncio.run(home.store(None).get_secret("A")) == "value"


@pytest.mark.parametrize("column", ["note", "name"])
async def test_a_key_inside_of_its_own_table_stops_the_start(home: Home, column: str) -> None:
    async with home.store() as store:
        await store.set("API_KEY", "one")
    home.sql(f"update datasette_secrets set {column} = ?", f"key: {KEY}")
    with pytest.raises(ConfigurationError, match="stands in a name or note") as refused:
        await home.store().open()
    assert KEY not in str(refused.value)
    # The mend, which needs no key.
    async with home.store(None) as store:
        [record] = await store.list()
        await store.delete(record.name)
    home.sql("delete from datasette_secrets")
    async with home.store():
        pass


# Together


async def test_two_people_who_set_at_once_both_land(home: Home) -> None:
    async with home.store() as one, home.store() as two:
        await asyncio.gather(*(s.set("API_KEY", f"{n}", by=f"p{n}") for n, s in enumerate([one, two] * 20)))
        history = await one.history("API_KEY")
    assert [version.version for version in history] == list(range(40, 0, -1))
    assert {version.created_by for version in history} == {f"p{n}" for n in range(40)}


@only_sqlite
async def test_a_locked_database_is_a_sentence_and_nothing_is_lost(
    store: SecretStore, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_token_auth.databases.sqlite.database.WRITE_TIMEOUT", 0.05)
    await store.set("API_KEY", "one", note="n")
    connection = sqlite3.connect(home.path, isolation_level=None)
    try:
        connection.execute("begin immediate")
        for call in (
            store.set("API_KEY", "two"),
            store.set_note("API_KEY", "x"),
            store.delete("API_KEY"),
            store.rotate(),
        ):
            with pytest.raises(StorageError, match="safe to try again"):
                await call
        # Readers do not wait for writers, and a use is no reason to wait either.
        assert await store.get_secret("API_KEY") == "one"
    finally:
        connection.close()
    assert [(v.version, v.note) for v in await store.history("API_KEY")] == [(1, "n")]


@only_sqlite
async def test_nothing_of_a_value_or_key_is_in_the_file_or_in_a_repr(store: SecretStore, home: Home) -> None:
    record = await store.set("API_KEY", "a-value-to-look-for")
    assert "a-value-to-look-for" not in repr(record)
    assert KEY not in repr(store) + repr(vars(store))
    await store.close()
    for file in home.path.parent.iterdir():
        for text in (b"a-value-to-look-for", KEY.encode()):
            assert text not in file.read_bytes()
