"""Behaviours of the systems we replace that are not carried over, as far as Datasette shows them.

The numbers are those of the list that the project keeps of them.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer
from itsdangerous.encoding import base64_encode

from asgi_token_auth.datasette import token_store, wrap_datasette
from asgi_token_auth.errors import ConfigurationError
from tests.support.sites import (
    BOT,
    IS_1_0,
    SECRET,
    SENSOR,
    TABLE,
    bearer,
    bot_block,
    cookie,
    demo_files,
    full_block,
    issue,
    make,
    needs_1_0,
    serving,
    signed,
    who,
    wrapped,
)

pytestmark = pytest.mark.anyio


def sign(value: Any, namespace: str) -> str:
    return URLSafeSerializer(SECRET, salt=namespace).dumps(value)


def predecessors_token(token_id: Any) -> str:
    return "dsatok_" + sign(token_id, "dsatok")


def alter(file: Path, sql: str, *parameters: Any) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(sql, parameters)
        connection.commit()


async def test_d5_d6_a_reused_row_id_opens_nothing_with_the_text_of_the_former_row(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        issued = await issue(datasette, "alice")
        assert (await who(client, issued.token))["id"] == "alice"
        alter(files[1], f"delete from {TABLE}")
        again = await issue(datasette, "bob")
        assert again.record.id == issued.record.id
        assert await who(client, issued.token) == 401
        assert (await who(client, again.token))["id"] == "bob"
        assert await who(client, predecessors_token(again.record.id)) == 401


async def test_d7_two_instances_with_one_secret_do_not_take_each_others_tokens(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    a, b = make(demo_files(tmp_path / "a")), make(demo_files(tmp_path / "b"))
    async with wrapped(a, full_block()) as client_a, wrapped(b, full_block()) as client_b:
        alice, root = await issue(a, "alice"), await issue(b, "root")
        assert alice.record.id == root.record.id
        assert (await who(client_a, alice.token))["id"] == "alice"
        assert await who(client_b, alice.token) == 401


@pytest.mark.parametrize("status", ["Z", "R ", "a", "", None, 1])
async def test_d14_an_unknown_status_is_not_active(status: object, tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        issued = await issue(datasette)
        assert (await who(client, issued.token))["id"] == "alice"
        alter(files[1], f"update {TABLE} set token_status = ?", status)
        assert await who(client, issued.token) == 401


async def test_d14_d15_rows_that_a_skipped_migration_left_live_work_and_still_expire(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    now = int(time.time())
    with closing(sqlite3.connect(files[1])) as connection:
        connection.executescript(
            f"""
            create table {TABLE} (id integer primary key, token_status text default 'L', description text,
                actor_id text, permissions text, created_timestamp integer, last_used_timestamp integer,
                expires_after_seconds integer, secret_version integer default 0);
            insert into {TABLE} values (1, 'L', null, 'alive', 'null', {now}, null, 600, 0);
            insert into {TABLE} values (2, 'L', null, 'fifty years late', 'null', {now - 50 * 31557600}, null, 600, 0);
            insert into {TABLE} values (3, 'R', null, 'revoked', 'null', {now}, null, null, 0);
            """
        )
    async with wrapped(make(files), full_block()) as client:
        assert (await who(client, predecessors_token(1)))["id"] == "alive"
        for number in (2, 3, 4):
            assert await who(client, predecessors_token(number)) == 401


async def test_d16_managed_tokens_do_not_switch_the_other_kinds_off(tmp_path: Path) -> None:
    for section in ("asgi-token-auth", "datasette-auth-tokens"):
        datasette = make(
            demo_files(tmp_path) if section == "asgi-token-auth" else sorted(tmp_path.glob("*.db")),
            full_block(),
            section=section,
        )
        async with serving(datasette.app()) as client:
            assert (await who(client, BOT))["id"] == "bot"
            assert (await who(client, SENSOR))["id"] == "sensor-1"
            assert (await who(client, signed()))["id"] == "carol"


async def test_d17_a_signed_token_with_hyphens_never_reaches_the_custom_query(tmp_path: Path) -> None:
    async with wrapped(make(demo_files(tmp_path)), full_block()) as client:
        tokens = [signed(f"actor-{number}") for number in range(2_000)]
        hyphens = [sum(token.count("-") >= least for token in tokens) for least in (1, 2)]
        assert min(hyphens) > 20, "or this proves nothing"
        for number, token in enumerate(tokens):
            if token.count("-") >= 2 or ("-" in token and number % 10 == 0):
                assert (await who(client, token))["id"] == f"actor-{number}"


async def test_d17_managed_tokens_with_hyphens_are_never_given_to_the_custom_query(tmp_path: Path) -> None:
    block = full_block()
    # It would accept whatever it is asked about.
    block["query"]["sql"] = (
        "select :token_id as actor_id, substr(:token_id, 1, 0) || 'x' as token_secret where :token_id like 'd%'"
    )
    async with wrapped(make(demo_files(tmp_path)), block) as client:
        for token in ("dsatok_a-x", "dstok_a-x", "dsatok_-x", "dstok_-x"):
            assert await who(client, token) == 401
        assert (await who(client, "dog-x"))["id"] == "dog"


@pytest.mark.parametrize("secret", ["a-b", "a-b-c", "-", "--"])
async def test_d18_a_custom_secret_may_hold_hyphens(secret: str, tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    alter(files[0], "update sensors set token_secret = ?", secret)
    async with wrapped(make(files), full_block()) as client:
        assert (await who(client, f"1-{secret}"))["id"] == "sensor-1"
        assert await who(client, f"1-{secret}-") == 401


@pytest.mark.parametrize("block", [full_block(), bot_block(param="_auth_token")], ids=["all sources", "hard-coded"])
async def test_d19_bytes_that_are_no_ascii_are_refused_without_an_error(block: dict[str, Any], tmp_path: Path) -> None:
    async with wrapped(make(demo_files(tmp_path)), block) as client:
        for value in ("Bearer ünicode".encode(), "Bearer ünicode".encode("latin-1"), b"Bearer \xff\xfe-\xff"):
            answer = await client.get("/-/actor.json", headers={b"authorization": value})
            assert answer.status_code == 400
        for raw in ("%C3%BC", "%ff", "%00", "ü"):
            assert (await client.get(f"/-/actor.json?_auth_token={raw}")).status_code == 400


@pytest.mark.parametrize(
    ("stored", "presented", "expected"),
    [
        (12345, "1-12345", "sensor-1"),
        (12345, "1-", 401),
        (None, "1-", 401),
        (None, "1-None", 401),
        ("", "1-", 401),
        (b"", "1-", 401),
        (b"raw", "1-raw", "sensor-1"),
        (1.5, "1-1.5", 401),
        ("ünicode", "1-unicode", 401),
    ],
)
async def test_d20_d21_any_stored_secret_is_compared_or_refused_and_an_empty_one_matches_nothing(
    stored: object, presented: str, expected: object, tmp_path: Path
) -> None:
    files = demo_files(tmp_path)
    with closing(sqlite3.connect(files[0])) as connection:
        connection.executescript(
            "drop table sensors; create table sensors (id integer primary key, name, token_secret)"
        )
        connection.execute("insert into sensors values (1, 'Greenhouse', ?)", (stored,))
        connection.commit()
    async with wrapped(make(files), full_block()) as client:
        found = await who(client, presented)
        assert (found if isinstance(found, int) else found["id"]) == expected


async def test_d20_a_query_that_breaks_or_takes_too_long_is_503_for_its_tokens_and_nothing_for_others(
    tmp_path: Path,
) -> None:
    files = demo_files(tmp_path)
    block = full_block()
    endless = "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c"
    block["query"]["sql"] = (
        "select case when :token_id = 'slow' then (" + endless + ") else id end as actor_id, token_secret "
        "from sensors where id = :token_id or :token_id = 'slow'"
    )
    async with wrapped(make(files), block) as client:
        answer = await client.get("/-/actor.json", headers=bearer("slow-open-sesame"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert (await who(client, SENSOR))["id"] == 1
        alter(files[0], "drop table sensors")
        assert await who(client, SENSOR) == 503
        assert (await who(client, BOT))["id"] == "bot"
        assert await who(client) is None


@pytest.mark.parametrize("token", ["", None, 5, "two words", "ünicode", "dsatok_x", {"$env": "ASGI_TOKEN_AUTH_UNSET"}])
async def test_d21_d22_a_hard_coded_token_that_nobody_could_send_does_not_start(token: object) -> None:
    for entry in ({"token": token, "actor": {"id": "bot"}}, {"token": BOT, "actor": "bot"}, {"token": BOT}):
        with pytest.raises(ConfigurationError, match="tokens"):
            wrap_datasette(make(), {"tokens": [entry]})
    with pytest.raises(ConfigurationError, match="tokens"):
        wrap_datasette(make(), {"tokens": {BOT: {"id": "bot"}}})


async def test_d23_a_table_page_reached_with_a_token_in_its_url_holds_no_token(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), settings={"default_page_size": 10})
    async with wrapped(datasette, full_block()) as client:
        issued = await issue(datasette)
        for token in (BOT, issued.token, SENSOR, signed()):
            for path in (
                f"/demo/foo?_auth_token={token}",
                f"/demo/foo?_size=5&_auth_token={token}&_sort=id&name__contains=row",
                f"/demo/foo.json?_auth_token={token}&_size=5",
                f"/demo/foo.json?_shape=objects&%5fauth%5ftoken={token}",
                f"/demo/foo/1?_auth_token={token}",
                f"/demo/-/query?sql=select+1&_auth_token={token}",
                f"/demo?sql=select+1&_auth_token={token}",
                f"/?_auth_token={token}",
                f"/demo/foo/?_auth_token={token}",
                f"/demo/foo?_filter_column=id&_filter_op=exact&_filter_value=3&_auth_token={token}",
                f"/demo/foo?_auth_token={token}&_sort=id&_sort_by_desc=on",
                f"/demo/nothing?_auth_token={token}",
            ):
                answer = await client.get(path)
                assert answer.status_code < 500, path
                told = answer.text + repr(answer.headers.multi_items())
                assert token not in told, path
                assert "_auth_token" not in told, path
                assert answer.headers["cache-control"] == "private, no-store"
                assert answer.headers["referrer-policy"] == "no-referrer"
        page = (await client.get(f"/demo/foo?_auth_token={BOT}&_size=5")).text
        assert re.search(r'href="[^"]*_next=5', page), "the links are there, and without the token"
        followed = await client.get(f"/demo/foo.json?_size=5&_auth_token={BOT}", follow_redirects=True)
        assert "_auth_token" not in repr(followed.headers)


async def test_d24_a_request_waits_for_no_writer(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        issued = await issue(datasette)
        with closing(sqlite3.connect(files[1], isolation_level=None)) as writer:
            writer.execute("begin immediate")
            started = time.monotonic()
            for _ in range(20):
                assert (await who(client, issued.token))["id"] == "alice"
            assert time.monotonic() - started < 4, "the former waited five seconds for each"
            writer.execute("rollback")


async def test_d25_d26_damaged_permissions_are_refused_and_hurt_nobody_else(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        good, bad = await issue(datasette, "good"), await issue(datasette, "bad")
        for permissions in (
            "not json",
            "",
            None,
            "[1]",
            '"vt"',
            "5",
            '{"a": "vt"}',
            '{"z": 1}',
            '{"r": {"demo": ["vt"]}}',
        ):
            alter(files[1], f"update {TABLE} set permissions = ? where id = ?", permissions, bad.record.id)
            assert await who(client, bad.token) == 401, permissions
            assert (await who(client, good.token))["id"] == "good"


async def test_d25_a_dropped_table_is_503_and_never_an_error_page(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        issued = await issue(datasette)
        assert (await who(client, issued.token))["id"] == "alice"
        alter(files[1], f"drop table {TABLE}")
        assert await who(client, issued.token) == 503
        assert (await who(client, BOT))["id"] == "bot"
        assert await who(client) is None


@pytest.mark.parametrize("value", [{"a": 1}, [1], 2**70, "1", True, 1.0, None, 0, -1, [1, "n"], ["1", "n"]])
async def test_d27_only_a_whole_number_is_an_id_of_the_predecessor(value: object, tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        await issue(datasette)
        alter(files[1], f"update {TABLE} set token_digest = null")
        assert (await who(client, predecessors_token(1)))["id"] == "alice", "the row itself is good"
        assert await who(client, predecessors_token(value)) == 401


async def test_d28_payloads_that_cannot_be_read_or_grow_without_end_are_401(tmp_path: Path) -> None:
    serializer = URLSafeSerializer(SECRET, salt="token")
    signer = serializer.make_signer("token")
    bomb = b"." + base64_encode(zlib.compress(json.dumps({"a": "A" * 5_000_000, "t": 1}).encode(), 9))
    undecodable = [b"!!!", base64_encode(b"{"), b"." + base64_encode(b"no zlib"), base64_encode(b"[" * 20_000), b""]
    async with wrapped(make(demo_files(tmp_path)), full_block()) as client:
        for payload in (bomb, *undecodable):
            token = "dstok_" + signer.sign(payload).decode()
            assert await who(client, token) == (401 if len(token) <= 8_192 else 400)
        for payload in undecodable:
            text = URLSafeSerializer(SECRET, salt="dsatok").make_signer("dsatok").sign(payload).decode()
            assert await who(client, "dsatok_" + text) in (400, 401)


async def test_d32_no_menu_item_leads_nowhere(tmp_path: Path) -> None:
    datasette = make(demo_files(tmp_path), bot_block())
    datasette.root_enabled = True
    async with serving(datasette.app()) as client:
        page = await client.get("/", headers=cookie(datasette, {"id": "root"}))
        assert "/-/api/tokens" not in page.text


async def test_d34_an_actors_id_keeps_its_type(tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    alter(files[0], "create table people (id integer primary key, secret text)")
    alter(files[0], "insert into people values (5, 'open-sesame')")
    block = full_block(tokens=[{"token": BOT, "actor": {"id": 5}}])
    block["query"]["sql"] = "select id as actor_id, secret as token_secret from people where id = :token_id"
    async with wrapped(make(files), block) as client:
        assert (await who(client, BOT))["id"] == 5
        assert (await who(client, "5-open-sesame"))["id"] == 5
        assert (await who(client, "dstok_" + sign({"a": 5, "t": int(time.time())}, "token")))["id"] == 5


async def test_d37_no_token_of_the_block_is_published(tmp_path: Path) -> None:
    block = full_block(secret=["the secret of last year"])
    for section in ("asgi-token-auth", "datasette-auth-tokens"):
        datasette = make(sorted(tmp_path.glob("*.db")) or demo_files(tmp_path), block, section=section)
        datasette.root_enabled = True
        async with serving(datasette.app()) as client:
            for path in ("config" if IS_1_0 else "metadata", "plugins", "settings", "databases", "actor", "versions"):
                for headers in ({}, bearer(BOT), cookie(datasette, {"id": "root"})):
                    answer = await client.get(f"/-/{path}.json", headers=headers)
                    assert answer.status_code == 200
                    for published in (BOT, "the secret of last year", "token_secret"):
                        assert published not in answer.text, path
            assert (await who(client, BOT))["id"] == "bot", "and it still works"
            if not IS_1_0:
                shown = (await client.get("/-/metadata.json")).json()["plugins"][section]
                assert set(shown.values()) == {"***"}
                assert (await who(datasette.client, BOT))["id"] == "bot"
    assert block == full_block(secret=["the secret of last year"])


@pytest.mark.parametrize("ended", ["revoked", "expired", "unknown", "another secret"])
async def test_d38_a_client_hears_that_its_managed_token_is_no_good(ended: str, tmp_path: Path) -> None:
    files = demo_files(tmp_path)
    datasette = make(files)
    async with wrapped(datasette, full_block()) as client:
        issued = await issue(datasette, expires_after=600)
        token, sentence = issued.token, "The access token is not valid."
        if ended == "revoked":
            await token_store(datasette).revoke(issued.record.id, owner="alice")
            sentence = "The access token has been revoked."
        elif ended == "expired":
            alter(files[1], f"update {TABLE} set created_timestamp = created_timestamp - 600")
            sentence = "The access token has expired."
        elif ended == "unknown":
            alter(files[1], f"delete from {TABLE}")
        else:
            token = "dsatok_" + URLSafeSerializer("some other secret", salt="dsatok").dumps(1)
        answer = await client.get("/", headers=bearer(token))
        assert (answer.status_code, answer.json()["error"]) == (401, sentence)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="api", error="invalid_token"')


async def test_d39_an_explicit_bearer_beats_the_login_cookie() -> None:
    datasette = make(block=bot_block())
    async with serving(datasette.app()) as client:
        assert (await who(client, BOT, headers=cookie(datasette, {"id": "root"})))["id"] == "bot"


@pytest.mark.parametrize(
    "payload",
    [
        [],
        5,
        "text",
        None,
        {},
        {"t": 1},
        {"a": None, "t": 1},
        {"a": {"id": 3}, "t": 1},
        {"a": "", "t": 1},
        {"a": "x"},
        {"a": "x", "t": "1"},
        {"a": "x", "t": True},
        {"a": "x", "t": 1.5},
        {"a": "x", "t": 1, "d": "60"},
        {"a": "x", "t": 1, "d": True},
        {"a": "x", "t": 1, "d": 0},
        {"a": "x", "t": 1, "d": -5},
        {"a": "x", "t": 2**40},
    ],
    ids=json.dumps,
)
async def test_d40_a_signed_payload_of_the_wrong_shape_is_401(payload: object, tmp_path: Path) -> None:
    async with wrapped(make(), bot_block()) as client:
        assert await who(client, "dstok_" + sign(payload, "token")) == 401


@needs_1_0
async def test_d40_the_longest_life_of_signed_tokens_cannot_be_got_round() -> None:
    async with wrapped(make(settings={"max_signed_tokens_ttl": 100}), bot_block()) as client:
        now = int(time.time())
        for payload, accepted in (
            ({"a": "x", "t": now}, True),
            ({"a": "x", "t": now, "d": 50}, True),
            ({"a": "x", "t": now, "d": 10_000}, True),
            ({"a": "x", "t": now - 200}, False),
            ({"a": "x", "t": now - 200, "d": 10_000}, False),
            ({"a": "x", "t": now - 200, "d": 0}, False),
            ({"a": "x", "t": now, "d": 0}, False),
            ({"a": "x", "t": now + 10_000, "d": 50}, False),
        ):
            found = await who(client, "dstok_" + sign(payload, "token"))
            if accepted:
                assert found["token_expires"] <= now + 100, payload
            else:
                assert found == 401, payload
