"""Two servers with one database: of requests with one key that reach both of them at once, one does something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.support import postgres
from tests.support.apps import DATABASE
from tests.support.processes import PATIENCE, running, uvicorn

PATH = "/-/api/tokens"
ANN = {"x-user": "ann"}
TOKEN = re.compile(r"dsatok_[\w-]+")
#: For each change. Where nothing keeps the processes apart, nearly every one makes two.
ROUNDS = 3
#: Requests with one key, by turns to each of the servers.
AT_ONCE = 6


class Both:
    """Clients that have connected already, each in a thread of its own."""

    def __init__(self, addresses: list[str], stack: ExitStack) -> None:
        self.clients = [
            stack.enter_context(httpx.Client(base_url=addresses[lane % 2], headers=ANN, timeout=PATIENCE))
            for lane in range(AT_ONCE)
        ]
        self._pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        for client in self.clients:
            assert client.get(f"{PATH}.json").status_code == 200

    def post(self, path: str, **more: Any) -> list[httpx.Response]:
        """One request, by every client at once."""
        barrier = Barrier(AT_ONCE)

        def send(client: httpx.Client) -> httpx.Response:
            barrier.wait(PATIENCE)
            return client.post(PATH + path, **more)

        return list(self._pool.map(send, self.clients))

    def details(self, token_id: int) -> Any:
        return self.clients[token_id % AT_ONCE].get(f"{PATH}/{token_id}.json").json()

    def count(self) -> int:
        return len(self.clients[0].get(f"{PATH}.json?size=1000").json()["tokens"])


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("one_key")
    with ExitStack() as stack:
        database = str(folder / "tokens.db")
        if request.param == "postgres":
            server: postgres.Server = request.getfixturevalue("postgres_server")
            server.run("create schema one_key")
            stack.callback(server.run, "drop schema one_key cascade")
            database = f"{server.dsn()}&search_path=one_key"

        def start(number: int) -> str:
            place = folder / str(number)
            place.mkdir()
            one = running(uvicorn("pages"), place, environment={DATABASE: database})
            return stack.enter_context(one).address

        with ThreadPoolExecutor(2) as pool:
            addresses = list(pool.map(start, range(2)))
        yield Both(addresses, stack)


def by_json(both: Both, path: str, key: str, **sent: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The answer to whoever did it, and those to the others."""
    answers = both.post(path, json=sent, headers={"idempotency-key": key})
    assert {answer.status_code for answer in answers} <= {200, 201}, [answer.text for answer in answers]
    said = [answer.json() for answer in answers]
    [first] = [one for one in said if "repeated" not in one]
    return first, [one for one in said if "repeated" in one]


def check_repeats(repeats: list[dict[str, Any]], event: str, token_id: int) -> None:
    assert len(repeats) == AT_ONCE - 1
    for repeat in repeats:
        assert repeat["repeated"] is True
        assert (repeat["done"]["event"], repeat["done"]["token_id"]) == (event, token_id)
        assert not TOKEN.search(str(repeat)), "a text is shown once"


def test_one_idempotency_key_does_one_thing(both: Both, tmp_path: Path) -> None:
    before = both.count()
    for number in range(ROUNDS):
        key = f"{tmp_path}-{number}"
        created, repeats = by_json(both, "/create.json", f"{key} create", description=f"once {number}")
        token_id = created["details"]["id"]
        check_repeats(repeats, "created", token_id)
        assert both.count() == before + number + 1
        rotated, repeats = by_json(both, f"/{token_id}.json", f"{key} rotate", rotate=True, grace=600)
        check_repeats(repeats, "rotated", token_id)
        assert rotated["token"] != created["token"]
        _, repeats = by_json(both, f"/{token_id}.json", f"{key} revoke", revoke=True)
        check_repeats(repeats, "revoked", token_id)
        events = [event["event"] for event in both.details(token_id)["events"]]
        assert events == ["created", "rotated", "revoked"]


def test_one_key_with_two_bodies_does_one_of_them(both: Both, tmp_path: Path) -> None:
    before = both.count()
    headers = {"idempotency-key": f"{tmp_path} of two bodies"}
    answers = [both.post("/create.json", json={"description": text}, headers=headers) for text in ("one", "two")]
    assert [answer.status_code for answer in answers[1]] == [422] * AT_ONCE
    assert sorted(answer.status_code for answer in answers[0]) == [200] * (AT_ONCE - 1) + [201]
    assert both.count() == before + 1


def form_key(page: str, action: str) -> str:
    found = re.search(rf'name="form_key" value="([^"]+)" data-ata-once="{action}', page)
    assert found is not None
    return found[1]


def test_one_form_does_one_thing(both: Both) -> None:
    before = both.count()
    for number in range(ROUNDS):
        # Whichever loaded it: a form is good on both.
        client = both.clients[number % 2]
        page = client.get(f"{PATH}/create").text
        form = {"form_key": form_key(page, "create"), "expire_type": "", "description": f"form {number}"}
        answers = both.post("/create", data=form)
        assert [answer.status_code for answer in answers] == [200] * AT_ONCE
        [shown] = [answer for answer in answers if TOKEN.search(answer.text)]
        assert sum("This form was already used" in answer.text for answer in answers) == AT_ONCE - 1
        assert both.count() == before + number + 1
        found = re.search(rf'href="{PATH}/([0-9]+)"', shown.text)
        assert found is not None
        page = client.get(f"{PATH}/{found[1]}").text
        answers = both.post(
            f"/{found[1]}", data={"form_key": form_key(page, "rotate"), "rotate": "1", "grace": "604800"}
        )
        assert sum(bool(TOKEN.search(answer.text)) for answer in answers) == 1
        assert sum("This form was already used" in answer.text for answer in answers) == AT_ONCE - 1
        events = [event["event"] for event in both.details(int(found[1]))["events"]]
        assert events == ["created", "rotated"]
