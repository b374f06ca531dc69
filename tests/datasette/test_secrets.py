"""Secrets inside Datasette: what plugins ask for and are given, where they are configured, and who reaches them."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from datasette.database import Database
from datasette.plugins import pm

from asgi_token_auth import ConfigurationError, SecretStore
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.datasette import Secret, get_secret, wrap_datasette
from asgi_token_auth.errors import SecretUnreadable, StorageError
from asgi_token_auth.secrets.encryption import generate_key
from tests.support.sites import (
    BOT,
    IS_1_0,
    StartFailed,
    cookie,
    make,
    needs_0_65,
    needs_1_0,
    registered,
    serving,
    wrapped,
)

pytestmark = pytest.mark.anyio

PATH = "/-/secrets"
TABLE = "datasette_secrets"
KEY = generate_key()
ALLOW = {"manage-secrets": {"id": "ann"}}


def secrets_file(folder: Path) -> Path:
    file = folder / "secrets.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("create table if not exists notes (id integer primary key, note text)")
        connection.commit()
    return file


def block(**more: Any) -> dict[str, Any]:
    """Ours, with secrets in secrets.db, which ann manages."""
    configured = {"secrets": {"encryption_key": KEY, "database": "secrets"}, **more}
    return configured if IS_1_0 else {**configured, "permissions": ALLOW}


def site(folder: Path, configured: Any = None, **more: Any) -> Any:
    return make([secrets_file(folder)], configured or block(), config={"permissions": ALLOW} if IS_1_0 else {}, **more)


def sections(folder: Path, **plugins: Any) -> Any:
    """A Datasette with these sections in its configuration."""
    named = {name.replace("_", "-"): section for name, section in plugins.items()}
    return make([secrets_file(folder)], config={"plugins": named, **({"permissions": ALLOW} if IS_1_0 else {})})


async def set_in_page(client: Any, datasette: Any, name: str, value: str) -> None:
    answer = await client.post(f"{PATH}/{name}", headers=cookie(datasette, {"id": "ann"}), data={"secret": value})
    assert answer.status_code == 302, answer.text[-500:]


# What plugins ask for and are given


async def test_a_plugin_is_given_what_it_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETTE_SECRETS_FROM_ENV", "of the environment")
    monkeypatch.setenv("DATASETTE_SECRETS_EMPTY_ENV", "")
    monkeypatch.setenv("DATASETTE_SECRETS_UNREGISTERED", "never")
    names = ("STORED", "UNSET", "FROM_ENV", "EMPTY_ENV")
    datasette = site(tmp_path)
    with registered(register_secrets=lambda datasette: [Secret(name) for name in names]):
        async with serving(datasette.app()) as client:
            for name in ("STORED", "FROM_ENV_LATER", "UNREGISTERED", "EXAMPLE_SECRET"):
                await set_in_page(client, datasette, name, f"value of {name}")
            assert await get_secret(datasette, "STORED", "robot") == "value of STORED"
            assert await get_secret(datasette, secret_name="STORED", actor_id=None) == "value of STORED"
            assert await get_secret(datasette, "EXAMPLE_SECRET") == "value of EXAMPLE_SECRET"
            assert await get_secret(datasette, "FROM_ENV") == "of the environment"
            for name in ("UNSET", "EMPTY_ENV", "UNREGISTERED", "NEVER_HEARD_OF", "", "a\0b"):
                assert await get_secret(datasette, name) is None, name
            page = (await client.get(f"{PATH}/UNREGISTERED", headers=cookie(datasette, {"id": "ann"}))).text
            assert "No plugin asks for this secret" in page
            assert "Set another secret" not in (await client.get(PATH, headers=cookie(datasette, {"id": "ann"}))).text
    async with SecretStore(SQLite(tmp_path / "secrets.db", journal_mode=None), encryption_key=KEY) as store:
        record = await store.get("STORED")
        assert record.last_used_at is not None
        assert record.updated_by == "ann"


async def test_the_hook_takes_lists_and_async_functions_and_the_first_of_a_name(tmp_path: Path) -> None:
    async def later() -> Any:
        return [SimpleNamespace(name="ODD", description="a class of its own", obtain_url=None, obtain_label=None)]

    datasette = site(tmp_path)
    with (
        registered(register_secrets=lambda datasette: [Secret("SAME", "the first"), Secret("SAME", "the second")]),
        registered(register_secrets=lambda datasette: later),
        registered(register_secrets=lambda: None),
    ):
        async with serving(datasette.app()) as client:
            headers = cookie(datasette, {"id": "ann"})
            listed = (await client.get(f"{PATH}.json", headers=headers)).json()["secrets"]
    assert {one["name"]: one["description"] for one in listed} == {
        "SAME": "the first",
        "ODD": "a class of its own",
        "EXAMPLE_SECRET": "An example secret",
    }


async def test_a_plugin_that_fails_to_say_keeps_no_page_from_its_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> Any:
        raise RuntimeError("cannot say")

    datasette = site(tmp_path)
    with registered(register_secrets=lambda datasette: fails):
        async with serving(datasette.app()) as client:
            assert (await client.get(PATH, headers=cookie(datasette, {"id": "ann"}))).status_code == 200
            assert "RuntimeError, raised at tests.datasette.test_secrets" in caplog.text
            assert "cannot say" not in caplog.text
            with pytest.raises(StorageError, match="register_secrets failed: RuntimeError, raised at"):
                await get_secret(datasette, "EXAMPLE_SECRET")
    datasette = site(tmp_path)
    with registered(register_secrets=lambda datasette: [Secret("a\0b"), Secret("GOOD")]):
        async with serving(datasette.app()) as client:
            assert "GOOD" in (await client.get(PATH, headers=cookie(datasette, {"id": "ann"}))).text
            assert await get_secret(datasette, "GOOD") is None


async def test_without_configuration_there_is_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETTE_SECRETS_EXAMPLE_SECRET", "of the environment")
    datasette = make()
    async with serving(datasette.app()) as client:
        assert await get_secret(datasette, "EXAMPLE_SECRET") == "of the environment"
        assert await get_secret(datasette, "OTHER") is None
        monkeypatch.delenv("DATASETTE_SECRETS_EXAMPLE_SECRET")
        assert await get_secret(datasette, "EXAMPLE_SECRET") is None
        for path in (PATH, f"{PATH}/X", f"{PATH}.json"):
            assert (await client.get(path)).status_code == 404


async def test_a_startup_hook_may_use_a_secret(tmp_path: Path) -> None:
    file = secrets_file(tmp_path)
    async with SecretStore(SQLite(file, journal_mode=None), encryption_key=KEY) as store:
        await store.set("EXAMPLE_SECRET", "the value")
    seen: list[Any] = []

    def startup(datasette: Any) -> Any:
        async def use() -> None:
            seen.append(await get_secret(datasette, "EXAMPLE_SECRET"))

        return use

    datasette = make([file], block())
    with registered(startup=startup):
        async with serving(datasette.app()):
            assert seen == ["the value"]


async def test_a_wrong_key_names_the_secret_and_the_pages_still_work(tmp_path: Path) -> None:
    async with SecretStore(SQLite(secrets_file(tmp_path), journal_mode=None), encryption_key=generate_key()) as store:
        await store.set("EXAMPLE_SECRET", "the value")
    datasette = make([tmp_path / "secrets.db"], block(), config={"permissions": ALLOW} if IS_1_0 else {})
    async with serving(datasette.app()) as client:
        with pytest.raises(SecretUnreadable, match="EXAMPLE_SECRET"):
            await get_secret(datasette, "EXAMPLE_SECRET")
        headers = cookie(datasette, {"id": "ann"})
        for path in (PATH, f"{PATH}/EXAMPLE_SECRET", f"{PATH}.json"):
            assert (await client.get(path, headers=headers)).status_code == 200
        await set_in_page(client, datasette, "EXAMPLE_SECRET", "a new one")
        assert await get_secret(datasette, "EXAMPLE_SECRET") == "a new one"


async def test_a_named_database_in_memory_holds_them_too() -> None:
    configured = block(secrets={"encryption_key": KEY, "database": "kept"})
    datasette = make([], configured, config={"permissions": ALLOW} if IS_1_0 else {})
    datasette.add_memory_database("secrets_of_a_test", name="kept") if IS_1_0 else datasette.add_database(
        _memory(datasette), name="kept"
    )
    async with serving(datasette.app()) as client:
        await set_in_page(client, datasette, "EXAMPLE_SECRET", "the value")
        assert await get_secret(datasette, "EXAMPLE_SECRET") == "the value"


def _memory(datasette: Any) -> Any:
    from datasette.database import Database

    return Database(datasette, memory_name="secrets_of_a_test")


# Where they are configured


async def test_the_section_of_datasette_secrets_does_as_it_stands(tmp_path: Path) -> None:
    section = {"encryption-key": KEY, "database": "secrets"}
    more: dict[str, Any] = {} if IS_1_0 else {"asgi_token_auth": {"tokens": [_bot()], "permissions": ALLOW}}
    datasette = sections(tmp_path, datasette_secrets=section, **more)
    async with serving(datasette.app()) as client:
        await set_in_page(client, datasette, "EXAMPLE_SECRET", "the value")
        assert await get_secret(datasette, "EXAMPLE_SECRET") == "the value"
    async with SecretStore(SQLite(tmp_path / "secrets.db", journal_mode=None), encryption_key=KEY) as store:
        assert await store.get_secret("EXAMPLE_SECRET") == "the value"


async def test_a_block_of_ours_takes_its_secrets_from_there_unless_it_has_its_own(tmp_path: Path) -> None:
    theirs = {"encryption-key": KEY, "database": "secrets"}
    tokens = {"tokens": [_bot()], **({} if IS_1_0 else {"permissions": ALLOW})}
    datasette = sections(tmp_path, datasette_secrets=theirs, asgi_token_auth=tokens)
    async with serving(datasette.app()) as client:
        await set_in_page(client, datasette, "EXAMPLE_SECRET", "the value")
    datasette = sections(
        tmp_path, datasette_secrets={"encryption-key": "no key", "database": "none"}, asgi_token_auth=block()
    )
    async with serving(datasette.app()):
        assert await get_secret(datasette, "EXAMPLE_SECRET") == "the value"
    by_hand = sections(tmp_path, datasette_secrets=theirs)
    async with wrapped(by_hand, tokens):
        assert await get_secret(by_hand, "EXAMPLE_SECRET") == "the value"


def _bot() -> dict[str, Any]:
    return {"token": BOT, "actor": {"id": "bot"}}


@needs_1_0
async def test_the_internal_database_is_the_default_and_a_temporary_one_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for section in ({"encryption-key": KEY}, {"encryption-key": KEY, "database": "_internal"}):
        datasette = sections(tmp_path, datasette_secrets=section)
        async with serving(datasette.app()) as client:
            await set_in_page(client, datasette, "EXAMPLE_SECRET", "the value")
            assert await get_secret(datasette, "EXAMPLE_SECRET") == "the value"
            page = (await client.get(PATH, headers=cookie(datasette, {"id": "ann"}))).text
            assert "lost when the server stops" in page
        assert "encrypted secrets are in Datasette's temporary internal database" in caplog.text
    lasting = site(tmp_path, {"secrets": {"encryption_key": KEY}}, internal=str(tmp_path / "internal.db"))
    caplog.clear()
    async with serving(lasting.app()) as client:
        await set_in_page(client, lasting, "EXAMPLE_SECRET", "the value")
        assert "lost when" not in (await client.get(PATH, headers=cookie(lasting, {"id": "ann"}))).text
    assert "temporary" not in caplog.text


@needs_0_65
async def test_0_65_has_no_lasting_internal_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"secrets\.database: .* name an attached one"):
        wrap_datasette(make([secrets_file(tmp_path)]), {"secrets": {"encryption_key": KEY}})


@pytest.mark.parametrize(
    ("secrets", "sentence"),
    [
        ({"encryption_key": KEY, "database": "absent"}, r"secrets\.database: no database 'absent' is attached"),
        ({"encryption_key": "short", "database": "secrets"}, r"encryption_key: the key is not 32 bytes"),
        ({"encryption_key": [KEY, KEY], "database": "secrets"}, r"encryption_key: .* is there twice"),
        ({"encryption_key": {"$env": "NOT_SET"}, "database": "secrets"}, "NOT_SET is not set"),
        ({"database": "secrets"}, r"secrets\.encryption_key: give one key"),
    ],
)
async def test_what_cannot_work_does_not_start(tmp_path: Path, secrets: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        wrap_datasette(make([secrets_file(tmp_path)]), {"secrets": secrets})
    assert KEY not in str(refused.value)


async def test_an_immutable_database_cannot_hold_them(tmp_path: Path) -> None:
    datasette = make([], immutables=[str(secrets_file(tmp_path))])
    with pytest.raises(ConfigurationError, match=r"secrets\.database: .*immutable"):
        wrap_datasette(datasette, block())


async def test_the_key_in_the_database_that_it_protects_stops_the_start(tmp_path: Path) -> None:
    async with SecretStore(SQLite(secrets_file(tmp_path), journal_mode=None), encryption_key=generate_key()) as store:
        await store.set("X", "x", note=f"the key is {KEY}")
    datasette = make([tmp_path / "secrets.db"], block())
    with pytest.raises(StartFailed, match="a key stands in") as refused:
        async with serving(datasette.app()):
            pass
    assert KEY not in str(refused.value)


async def test_the_predecessor_beside_us_stops_the_start_and_says_why(tmp_path: Path) -> None:
    plugin = ModuleType("datasette_secrets")
    pm.register(plugin)
    try:
        for configured in ({"asgi_token_auth": block()}, {"datasette_secrets": {"encryption-key": KEY}}):
            with pytest.raises(Exception, match="pip uninstall datasette-secrets"):
                async with serving(sections(tmp_path, **configured).app()):
                    pass
        with pytest.raises(ConfigurationError, match="pip uninstall datasette-secrets"):
            wrap_datasette(make([tmp_path / "secrets.db"]), block())
        # Nobody asked us for secrets.
        async with serving(make([tmp_path / "secrets.db"], {"tokens": [_bot()]}).app()):
            pass
    finally:
        pm.unregister(plugin)


@pytest.mark.parametrize("name", ["asgi_token_auth", "datasette_secrets"])
async def test_the_key_is_published_nowhere(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    section = block() if name == "asgi_token_auth" else {"encryption-key": KEY, "database": "secrets"}
    datasette = sections(tmp_path, **{name: section})
    if IS_1_0:
        datasette.root_enabled = True
    async with serving(datasette.app()) as client:
        published = ["/-/config.json", "/-/config"] if IS_1_0 else ["/-/metadata.json", "/-/metadata"]
        for path in (*published, "/-/plugins.json", "/-/settings.json"):
            for headers in ({}, cookie(datasette, {"id": "root"})):
                answer = await client.get(path, headers=headers)
                assert answer.status_code == 200, path
                assert KEY not in answer.text, path
    assert KEY not in caplog.text
    assert KEY not in repr(vars(datasette._asgi_token_auth))
    # Other people's own copy of the configuration is theirs.
    assert KEY in str(section)


@needs_0_65
async def test_a_section_that_is_left_beside_ours_is_published_neither(tmp_path: Path) -> None:
    beside = {"datasette_auth_tokens": {"tokens": [_bot()]}, "datasette_secrets": {"encryption-key": generate_key()}}
    async with serving(sections(tmp_path, asgi_token_auth=block(), **beside).app()) as client:
        published = (await client.get("/-/metadata.json")).json()["plugins"]
        assert set(published["datasette-auth-tokens"].values()) == {"***"}
        assert set(published["datasette-secrets"].values()) == {"***"}


# Who reaches them


async def test_the_menu_leads_managers_to_the_pages(tmp_path: Path) -> None:
    datasette = site(tmp_path)
    async with serving(datasette.app()) as client:
        for actor_id, shown in (("ann", True), ("eve", False)):
            page = (await client.get("/", headers=cookie(datasette, {"id": actor_id}))).text
            assert (f'href="{PATH}"' in page) is shown
            assert ("Manage secrets" in page) is shown
        assert "Manage secrets" not in (await client.get("/")).text
    without = make([tmp_path / "secrets.db"], {"tokens": [_bot()]})
    async with serving(without.app()) as client:
        assert "Manage secrets" not in (await client.get("/", headers=cookie(without, {"id": "root"}))).text


async def test_root_manages_secrets(tmp_path: Path) -> None:
    datasette = make([secrets_file(tmp_path)], block())
    if IS_1_0:
        datasette.root_enabled = True
    async with serving(datasette.app()) as client:
        assert (await client.get(PATH, headers=cookie(datasette, {"id": "root"}))).status_code == 200
        # Without an allow block nobody else does in 1.0; in 0.65 those whom the block names do.
        ann = await client.get(PATH, headers=cookie(datasette, {"id": "ann"}))
        assert ann.status_code == (403 if IS_1_0 else 200)


TABLES = (TABLE, f"{TABLE}_migrations")

READS = [
    *(f"/secrets/{name}{rest}" for name in TABLES for rest in ("", ".json", ".csv", "/1.json", ".json?_where=1=1")),
    f"/secrets/{TABLE.upper()}.json",
    f"/secrets/{TABLE}/-/fragment",
    f"/secrets/{TABLE}/-/autocomplete?q=a",
    f"/other/{TABLE}.json",
    f"/secrets/{TABLE}/1.blob?_blob_column=encrypted",
    "/secrets.db",
]

POSTS: list[tuple[str, dict[str, Any]]] = [
    (f"/secrets/{TABLE}/-/insert", {"row": {"name": "X", "encryption_key_name": "x"}}),
    (f"/secrets/{TABLE}/-/upsert", {"rows": [{"id": 1, "name": "Y"}]}),
    (f"/secrets/{TABLE}/1/-/update", {"update": {"name": "Y"}}),
    (f"/secrets/{TABLE}/1/-/delete", {}),
    (f"/secrets/{TABLE}/-/drop", {"confirm": True}),
    (f"/secrets/{TABLE}_migrations/-/drop", {"confirm": True}),
    ("/secrets/-/create", {"table": TABLE, "rows": [{"id": 1, "name": "Y"}], "replace": True, "pk": "id"}),
    ("/secrets/-/execute-write", {"sql": f"update {TABLE} set name = 'Y'"}),
    ("/other/-/execute-write", {"sql": f"drop table {TABLE}"}),
]


@pytest.mark.parametrize("exposed", [False, True], ids=["", "token tables exposed"])
async def test_nobody_reaches_the_table_by_datasettes_own_pages(tmp_path: Path, exposed: bool) -> None:
    file = secrets_file(tmp_path)
    other = tmp_path / "other.db"
    other.symlink_to(file)
    generous = {**ALLOW, **dict.fromkeys(("view-table", "insert-row", "update-row", "delete-row"), True)}
    generous |= dict.fromkeys(("drop-table", "create-table", "alter-table", "execute-write-sql"), True)
    # The tokens are in the same database, and may be seen there on purpose.
    managed = {"manage_tokens": True, "manage_tokens_database": "secrets", "expose_token_tables": exposed}
    datasette = make([file, other], block(**managed), config={"permissions": generous} if IS_1_0 else {"allow": True})
    if IS_1_0:
        datasette.root_enabled = True
    async with serving(datasette.app()) as client:
        await set_in_page(client, datasette, "EXAMPLE_SECRET", "the value")
        before = _rows(file)
        for headers in ({}, cookie(datasette, {"id": "root"}), cookie(datasette, {"id": "ann"})):
            assert (await client.get("/secrets/notes.json", headers=headers)).status_code == 200
            tokens = await client.get("/secrets/_datasette_auth_tokens.json", headers=headers)
            assert (tokens.status_code == 200) is exposed
            for path in READS:
                answer = await client.get(path, headers=headers)
                assert answer.status_code in (403, 404), path
            for path, body in POSTS if IS_1_0 else []:
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status_code in (403, 404), (path, answer.text[:200])
        assert _rows(file) == before


@pytest.mark.parametrize("kept_by", ["a path", "an object"])
async def test_a_file_given_to_wrap_datasette_is_protected_where_it_is_attached_too(
    tmp_path: Path, kept_by: str
) -> None:
    file = secrets_file(tmp_path)
    datasette = make([file], config={"permissions": ALLOW} if IS_1_0 else {})
    given = file if kept_by == "a path" else SQLite(file, journal_mode=None)
    kept = block(secrets={"encryption_key": KEY, "database": "kept"})
    async with serving(wrap_datasette(datasette, kept, databases={"kept": given})) as client:
        await set_in_page(client, datasette, "EXAMPLE_SECRET", "the value")
        assert (await client.get("/secrets/notes.json")).status_code == 200
        assert (await client.get(f"/secrets/{TABLE}.json", headers=cookie(datasette, {"id": "ann"}))).status_code == 403


async def test_a_database_in_memory_is_protected_under_each_of_its_names(tmp_path: Path) -> None:
    kept = block(secrets={"encryption_key": KEY, "database": "one"})
    datasette = make([], kept, config={"permissions": ALLOW} if IS_1_0 else {})
    for name in ("one", "two"):
        datasette.add_database(Database(datasette, memory_name=f"shared by {tmp_path.name}"), name=name)
    async with serving(datasette.app()) as client:
        await set_in_page(client, datasette, "EXAMPLE_SECRET", "the value")
        for name in ("one", "two"):
            answer = await client.get(f"/{name}/{TABLE}.json", headers=cookie(datasette, {"id": "ann"}))
            assert answer.status_code == 403, name


def _rows(file: Path) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(f"select id, name, version, encrypted from {TABLE}").fetchall()


@pytest.mark.parametrize("allowed", [True, False])
async def test_whoever_may_run_sql_there_is_warned_about(
    tmp_path: Path, allowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"databases": {"secrets": {"allow_sql": allowed}}}
    async with serving(make([secrets_file(tmp_path)], block(), config=limits).app()):
        assert ("secrets holds the secrets, and people may run SQL on it" in caplog.text) is allowed


@pytest.mark.parametrize("crossdb", [True, False])
async def test_whoever_may_run_sql_on_all_databases_at_once_is_warned_about(
    tmp_path: Path, crossdb: bool, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"databases": {"secrets": {"allow_sql": False}}}
    async with serving(make([secrets_file(tmp_path)], block(), config=limits, crossdb=crossdb).app()):
        assert ("secrets holds the secrets, and people may run SQL on it" in caplog.text) is crossdb


async def test_both_kinds_of_pages_stand_side_by_side(tmp_path: Path) -> None:
    datasette = site(tmp_path, block(manage_tokens=True, manage_tokens_database="secrets"))
    async with serving(datasette.app()) as client:
        headers = cookie(datasette, {"id": "ann"})
        for path in (PATH, "/-/api/tokens"):
            assert (await client.get(path, headers=headers)).status_code == 200
        assert 'class="crumbs"' in (await client.get(f"{PATH}/X", headers=headers)).text
