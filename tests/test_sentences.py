"""Slips that people make, and that the sentence names what to write instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_token_auth import (
    ConfigurationError,
    InvalidInput,
    ManagedTokens,
    Restrictions,
    SecretStore,
    SQLTokens,
    TokenAuthMiddleware,
    TokenNotFound,
    TokenStore,
    from_config,
)
from asgi_token_auth.databases.postgres import Postgres
from asgi_token_auth.databases.sqlite import SQLite
from asgi_token_auth.web.http import MAX_BODY
from tests.support import page_sites, secret_sites
from tests.support.configured import BOT, SECRET, nobody

pytestmark = pytest.mark.anyio

FILE = SQLite("never-opened.db")
STORE = TokenStore(FILE, secret=SECRET)
SOURCE = ManagedTokens(STORE)

#: What is called with something else than its types say, and what it answers.
CALLS: dict[str, tuple[Callable[[Any], Any], Any, str]] = {
    "a source without its list": (lambda it: TokenAuthMiddleware(nobody, sources=it), SOURCE, "sources: give a list"),
    "a function without its list": (lambda it: TokenAuthMiddleware(nobody, sources=it), nobody, "sources: give a list"),
    "tokens in place of sources": (
        lambda it: TokenAuthMiddleware(nobody, sources=it),
        {"token": {"id": "bot"}},
        "sources: give a list",
    ),
    "tokens as a source": (
        lambda it: TokenAuthMiddleware(nobody, sources=it),
        [{"hunter2": {"id": "bot"}}],
        "write StaticTokens",
    ),
    "a store as a source": (lambda it: TokenAuthMiddleware(nobody, sources=it), [STORE], "write ManagedTokens"),
    "a resource without its list": (
        lambda it: TokenAuthMiddleware(nobody, sources=[SOURCE], resources=it),
        STORE,
        "resources: give a list",
    ),
    "no function of events": (
        lambda it: TokenAuthMiddleware(nobody, sources=[SOURCE], on_event=it),
        "print",
        "on_event: give a function",
    ),
    "nobody signed in": (
        lambda it: TokenAuthMiddleware(nobody, sources=[SOURCE], signed_in=it),
        {"id": "ann"},
        "signed_in: give a function",
    ),
    "the database as the store": (ManagedTokens, FILE, "store: give a TokenStore"),
    "a path as the store": (ManagedTokens, "tokens.db", "store: give a TokenStore"),
    "a path as the database": (lambda it: SQLTokens(it, "select :token_id"), "app.db", "database: give a database"),
    "a table that is no text": (lambda it: TokenStore(FILE, secret=SECRET, table=it), 5, "table: 5 must be"),
    "a time as the clock": (lambda it: TokenStore(FILE, secret=SECRET, clock=it), 5.0, "clock: give a function"),
    "names as secrets": (
        lambda it: SecretStore(FILE, encryption_key=None, secrets=it),
        ["API_KEY"],
        "secrets: give a list of Secret",
    ),
    "a name as secrets": (
        lambda it: SecretStore(FILE, encryption_key=None, secrets=it),
        "API_KEY",
        "secrets: give a list of Secret",
    ),
    "a number as the path": (SQLite, 5, "give the path of a file, not int"),
    "nothing as the path": (SQLite, None, "give the path of a file, not NoneType"),
    "a DSN as the path": (SQLite, "postgresql://u:hunter2@h/d", r"Postgres\(\) takes those"),
    "an address as the path": (SQLite, "sqlite:///tokens.db", "not an address"),
    "another journal": (lambda it: SQLite("tokens.db", journal_mode=it), "delete", "journal_mode is"),
    "a schema that is no text": (lambda it: Postgres("postgresql://h/d", schema=it), 5, "schema: give the name"),
    "a DSN of SQLAlchemy": (Postgres, "postgresql+asyncpg://u:hunter2@h/d", "without the [+] and the driver's name"),
    "the configuration first": (lambda it: from_config(it, nobody), {"tokens": [BOT]}, "app: give the ASGI app"),  # type: ignore[arg-type]
    "JSON in place of a path": (lambda it: from_config(nobody, it), json.dumps({"tokens": [BOT]}), "is text; give"),
    "another file": (lambda it: from_config(nobody, it), "config.yaml", "read by Datasette alone"),
}


@pytest.mark.parametrize("slip", CALLS)
def test_a_slip_in_python_is_a_sentence(slip: str) -> None:
    call, given, says = CALLS[slip]
    with pytest.raises(ConfigurationError, match=says) as raised:
        call(given)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"secret": {"env": "X"}}, r'secret: write {"\$env": "NAME"}'),
        ({"secret": {"$ENV": "X"}}, r'secret: write {"\$env": "NAME"}'),
        ({"secret": {"$env": "X", "default": "hunter2"}}, r'secret: write {"\$env": "NAME"}'),
        ({"secret": {"file": "X"}}, r'secret: write {"\$file": "PATH"}'),
        ({"secret": [{"env": "X"}]}, r"secret\[0\]: write"),
        ({"tokens": [{"token": {"env": "X"}, "actor": {"id": "b"}}]}, r"tokens\[0\]\.token: write"),
        ({"secrets": {"encryption_key": {"env": "X"}}}, r"secrets\.encryption_key: write"),
        ({"manage_tokens": True, "manage_tokens_database": {"env": "X"}}, "manage_tokens_database: write"),
        ({"manage_tokens": True, "secret": "${DATASETTE_SECRET}"}, "secret: is the name of a variable"),
        ({"manage_tokens": True, "secret": "%DATASETTE_SECRET%"}, "secret: is the name of a variable"),
        ({"manage_tokens": True, "secret": "${{ secrets.DATASETTE_SECRET }}"}, "secret: is the name of a variable"),
        ({"manage_tokens": True, "secret": "${DATASETTE_SECRET:-}"}, "secret: is the name of a variable"),
        ({"manage_tokens": True, "secret": "$(cat /run/secrets/key)"}, "secret: is the name of a variable"),
        ({"manage_tokens": True, "secret": '{"$env": "DATASETTE_SECRET"}'}, "secret: is the name of a variable"),
        ({"manage_tokens": True, "secret": '"' + " " * 14 + 'x"'}, "secret: is shorter than 16 characters"),
        ({"manage_tokens": True, "secret": "$env:DATASETTE_SECRET"}, "secret: is the name of a variable"),
        ({"tokens": [{"token": "$BOT_TOKEN", "actor": {"id": "b"}}]}, "tokens: number 1: is the name of a variable"),
        ({"secrets": {"encryption_key": "$KEY"}}, "secrets.encryption_key: is the name of a variable"),
        ({"plugins": {"asgi-token-auth": {"tokens": [BOT]}}}, "plugins: this is Datasette's configuration"),
    ],
)
def test_a_slip_in_a_block_is_a_sentence(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        from_config(nobody, block, databases={"tokens": "never-opened.db"})
    assert "hunter2" not in str(raised.value)


def test_what_only_looks_like_one_is_read() -> None:
    """An actor may have a team of this name."""
    from_config(nobody, {"tokens": [{**BOT, "actor": {"id": "bot", "team": {"env": "staging"}}}]})


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("postgresql+asyncpg://u:hunter2@h/d", "without the [+] and the driver's name"),
        ("postgresql+psycopg2://u:hunter2@h/d", "without the [+] and the driver's name"),
        ("POSTGRESQL://u:hunter2@h/d", "in small letters"),
        ("postgresql:/u:hunter2@h/d", "with two slashes"),
        ("jdbc:postgresql://h/d?password=hunter2", "nothing before it"),
        ("sqlite:///tokens.db", "the path of the SQLite file alone"),
        ("sqlite+aiosqlite:///tokens.db", "the path of the SQLite file alone"),
        ("file:tokens.db?mode=ro", "the path of the SQLite file alone"),
        ("mysql://u:hunter2@h/d", "give the path of a SQLite file, or postgresql://"),
    ],
)
def test_an_address_of_another_library_has_its_mend(address: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"databases.tokens: there is no such kind.*{says}") as raised:
        from_config(nobody, {"manage_tokens": True}, databases={"tokens": address}, secret=SECRET)
    assert "hunter2" not in str(raised.value)


async def test_a_token_is_named_by_its_number(tmp_path: Path) -> None:
    async with TokenStore(SQLite(tmp_path / "tokens.db"), secret=SECRET) as store:
        issued = await store.issue("ann")
        name: Any
        for name in (issued.token, issued, issued.record, "1", 1.0, None):
            for call in (store.get, store.edit, store.rotate, store.revoke, store.events):
                with pytest.raises(TokenNotFound, match=r"named by its number, such as record\.id") as raised:
                    await call(name, owner="ann")
                assert issued.token not in str(raised.value)
        assert (await store.get(issued.record.id, owner="ann")).status == "active"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "config.json", tmp_path / "nowhere" / "further" / "config.toml"):
        with pytest.raises(ConfigurationError, match=f"there is no folder {tmp_path / 'nowhere'}"):
            from_config(nobody, path)
    with pytest.raises(ConfigurationError, match=f"there is no folder {tmp_path / 'nowhere'}"):
        from_config(nobody, {"manage_tokens": True, "secret": {"$file": str(tmp_path / "nowhere" / "secret")}})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("c.json", '{\n  "tokens": [],\n}', "see line "),
        ("c.json", '{\n  "tokens": []\n  "param": "hunter2"}', "see line 3, column 3: a comma or a closing bracket"),
        ("c.json", '{"param" "hunter2"}', "see line 1, column 10: a colon is missing"),
        ("c.json", '{"param": hunter2}', "see line 1, column 11: a value is missing"),
        ("c.json", '{"param": "hunter2}', "a string begins that never ends"),
        ("c.json", "{'param': 'hunter2'}", "see line 1, column 2: a key in double quotes"),
        ("c.json", '{"param": "x"}\n{"param": "hunter2"}', "see line 2, column 1: there is something after the end"),
        ("c.json", '{"param": "C:\\hunter2"}', "a backslash is not doubled"),
        ("c.json", "", "see line 1, column 1"),
        ("c.toml", 'param = "x"\nparam = "hunter2"', "see line 2, column"),
        ("c.toml", "param = hunter2", "see line 1, column 9: the value is none; put text in quotes"),
        ("c.toml", 'param "hunter2"', "see line 1, column"),
        ("c.toml", 'tokens = [\n  {token = "hunter2"', "see line 2, column"),
    ],
)
def test_a_fault_of_a_file_is_told_by_its_place(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError) as raised:
        from_config(nobody, tmp_path / name)
    assert says in str(raised.value)
    assert "hunter2" not in str(raised.value)
    # Nor in what a report of the error would show besides.
    assert raised.value.__cause__ is None


def test_a_key_that_stands_twice_is_told_by_its_object(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(
        '{\n "tokens": [{"a": "}"}, {}],\n "query": {\n  "sql": "x", "sql": "hunter2"\n }\n}'
    )
    with pytest.raises(ConfigurationError, match="the same key twice in the object that ends at line 5") as raised:
        from_config(nobody, tmp_path / "c.json")
    assert "hunter2" not in str(raised.value)


def test_an_empty_variable_is_not_called_unset_nor_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IT", "")
    with pytest.raises(ConfigurationError, match="secret: the environment variable IT is empty"):
        from_config(nobody, {"manage_tokens": True, "secret": {"$env": "IT"}})
    monkeypatch.setenv("DATASETTE_SECRET", "")
    with pytest.raises(ConfigurationError, match="DATASETTE_SECRET: is empty"):
        from_config(nobody, {"manage_tokens": True}, databases={"tokens": "tokens.db"})


def test_a_path_in_place_of_a_name(tmp_path: Path) -> None:
    block = {"manage_tokens": True, "manage_tokens_database": "tokens.db"}
    with pytest.raises(ConfigurationError, match=r"they are: tokens\. A path belongs there, under a name"):
        from_config(nobody, block, databases={"tokens": tmp_path / "tokens.db"}, secret=SECRET)


#: What is sent to the pages of tokens by whom, and what the answer says: the cause, and what to do.
TOKEN_PAGES: list[tuple[str, str, str, Any, int, str]] = [
    ("ann", "GET", "/nowhere", None, 404, "There is no such page; all tokens are at /-/api/tokens."),
    ("ann", "GET", "/99", None, 404, "There is no such token for you."),
    ("ann", "PUT", "/create", None, 405, "This address takes GET and POST, and nothing else."),
    ("eve", "POST", "/create", {"expire_type": ""}, 403, "can give it: auth-tokens-create."),
    ("eve", "POST", "/create.json", b"{}", 403, "can give it: auth-tokens-create."),
    ("viewer", "POST", "/1", {"revoke": "1"}, 403, "can give it: auth-tokens-revoke-all."),
    ("viewer", "POST", ".json", b'{"revoke_all": true, "owner": "ann"}', 403, "can give it: auth-tokens-revoke-all."),
    ("viewer", "GET", "/1/edit", None, 403, "Only its owner may change a token; others may at most revoke it."),
    ("ann", "GET", "/2/edit", None, 400, "only an active one can be changed. Create another one."),
    ("ann", "POST", "/2/edit.json", b'{"description": "x"}', 400, "only an active one can be changed. Create another"),
    ("ann", "POST", "/create.json", b'{"hunter2": 1,}', 400, "not valid JSON in UTF-8: see line 1, column 1"),
    ("ann", "POST", "/create.json", b'{\n "hunter2" 1}', 400, "not valid JSON in UTF-8: see line 2, column 12."),
    ("ann", "POST", "/create.json", b'{"hunter2\xff": 1}', 400, "not valid JSON in UTF-8: see its byte 10."),
    ("ann", "POST", "/create.json", b"[" * 100_000, 400, "not valid JSON in UTF-8: it is nested too deeply."),
    ("ann", "POST", "/create.json", b"[]", 400, "must be a JSON object, which stands in braces."),
    ("ann", "POST", "/create.json", b" " * (MAX_BODY + 1), 413, "larger than 131,072 bytes"),
    ("ann", "POST", "/create.json", b'{"restrictions": {"a": ["none"]}}', 400, "here; GET create.json has the list"),
    ("ann", "POST", "/create.json", b'{"expires_after": "x"}', 400, "whole number of seconds, 1 or more; null for"),
    ("ann", "POST", "/1.json", b"{}", 400, "Send either revoke, or rotate with grace in seconds."),
]
SECRET_PAGES: list[tuple[str, str, str, Any, int, str]] = [
    ("ann", "GET", "/NONE.json", None, 404, "There is no such secret"),
    ("eve", "GET", "", None, 403, "can give it: manage-secrets."),
    ("ann", "POST", "/A.json", b'{"valu": "hunter2"}', 400, "the fields are value and note, or delete alone."),
    ("ann", "POST", "/A.json", b'{"value": "hunter2}', 400, "not valid JSON in UTF-8: see line 1, column 11."),
    ("ann", "POST", "/A.json", b'{"value": "hunter2 \\ud800"}', 400, "holds half of a character (a lone surrogate)."),
    ("ann", "POST", "/A.json", b"{}", 400, "Send value, note or both, or delete."),
    (
        "ann",
        "POST",
        "/A.json",
        b'{"note": 5, "value": "hunter2"}',
        400,
        "is text; null or an empty one for none.",
    ),
    ("ann", "POST", "/FROM_ENVIRONMENT", {"secret": "hunter2"}, 400, "cannot be set here: change the variable there."),
]


async def assert_sentences(site: Any, path: str, rows: list[tuple[str, str, str, Any, int, str]]) -> None:
    for who, method, where, body, status, says in rows:
        headers = {**site.user(who), **({"content-type": "application/json"} if isinstance(body, bytes) else {})}
        sent: Any = {"content": body} if isinstance(body, bytes) else {"data": body}
        answer = await site.client.request(method, path + where, headers=headers, **sent)
        assert answer.status_code == status, (where, answer.text)
        sentence = answer.json()["error"] if ".json" in where else page_sites.error_of(answer)
        assert says in sentence, (where, sentence)
        assert "hunter2" not in answer.text, where


async def test_what_the_pages_of_tokens_refuse_is_a_sentence(tmp_path: Path) -> None:
    async with page_sites.running("any app", tmp_path) as site:
        await site.store.issue("ann")
        await site.store.issue("ann")
        await site.store.revoke(2, owner="ann")
        await assert_sentences(site, page_sites.PATH, TOKEN_PAGES)


async def test_what_the_pages_of_secrets_refuse_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETTE_SECRETS_FROM_ENVIRONMENT", "x")
    async with secret_sites.running("any app", tmp_path) as site:
        await assert_sentences(site, secret_sites.PATH, SECRET_PAGES)


async def test_a_token_that_may_not_is_told_what_would(tmp_path: Path) -> None:
    async with TokenStore(SQLite(tmp_path / "tokens.db"), secret=SECRET) as store:
        limits = Restrictions(all=("a",))
        await store.issue("ann", restrictions=limits, expires_after=60)
        with pytest.raises(InvalidInput, match=r"may do more than itself; limit it more\."):
            await store.issue("ann", parent=1, expires_after=60)
        with pytest.raises(InvalidInput, match=r"lives longer than itself; let it expire sooner\."):
            await store.issue("ann", parent=1, restrictions=limits)
        await store.issue("ann", parent=1, restrictions=limits, expires_after=60)
        await store.revoke(1, owner="ann")
        with pytest.raises(InvalidInput, match=r"only an active one can be changed\. Create another one\."):
            await store.edit(2, owner="ann", description="x")
