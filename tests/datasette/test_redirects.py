"""A token in the URL outlasts Datasette's own redirects, without being put into a URL again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import BOT, bearer, bot_block, demo_files, make, needs_1_0, registered, serving

pytestmark = pytest.mark.anyio


def site(tmp_path: Path, **more: Any) -> Any:
    return make(demo_files(tmp_path), bot_block(param="_auth_token"), config={"allow": {"id": "bot"}}, **more)


@pytest.mark.parametrize("base_url", ["/", "/below/"])
async def test_what_datasette_redirects_is_answered_at_once(base_url: str, tmp_path: Path) -> None:
    async with serving(site(tmp_path, settings={"base_url": base_url}).app()) as client:
        filtered = "demo/foo?_filter_column_1=id&_filter_op_1=exact&_filter_value_1=7"
        # With a base_url Datasette redirects the latter to where nothing is, whoever asks.
        for path in ("demo?sql=select+42+as+answer", *([filtered] if base_url == "/" else [])):
            plain = await client.get(base_url + path, headers=bearer(BOT), follow_redirects=True)
            assert plain.status_code == 200
            url = f"{base_url}{path}&_auth_token={BOT}"
            answer = await client.get(url)
            assert answer.status_code == 200, answer.headers.get("location")
            assert answer.headers["cache-control"] == "private, no-store"
            assert BOT not in answer.text + repr(answer.headers)
            assert (await client.head(url)).status_code == 200
            assert (await client.get(base_url + path, follow_redirects=True)).status_code == 403


@needs_1_0
async def test_a_token_in_the_header_is_redirected_as_ever(tmp_path: Path) -> None:
    async with serving(site(tmp_path).app()) as client:
        answer = await client.get("/demo?sql=select+42", headers=bearer(BOT))
        assert (answer.status_code, BOT in answer.headers["location"]) == (302, False)


@pytest.mark.parametrize(
    "location",
    ["https://elsewhere.example/x", "//elsewhere.example/x", "/\\elsewhere.example", "?again=1", "/other/demo"],
)
async def test_other_redirects_go_to_the_client(location: str, tmp_path: Path) -> None:
    from datasette import Response

    def away() -> Any:
        return Response.redirect(location)

    def register_routes(datasette: Any) -> Any:
        return [(r"^/-/away$", away)]

    with registered(register_routes=register_routes):
        async with serving(site(tmp_path, settings={"base_url": "/below/"}).app()) as client:
            answer = await client.get(f"/below/-/away?_auth_token={BOT}")
            assert (answer.status_code, answer.headers["location"]) == (302, location)


async def test_a_circle_ends_with_a_redirect_and_a_cookie_is_not_lost(tmp_path: Path) -> None:
    from datasette import Response

    calls: list[int] = []

    def circle() -> Any:
        calls.append(1)
        return Response.redirect("/-/circle")

    def greet() -> Any:
        response = Response.redirect("/-/actor.json")
        response.set_cookie("greeted", "yes")
        return response

    def register_routes(datasette: Any) -> Any:
        return [(r"^/-/circle$", circle), (r"^/-/greet$", greet)]

    with registered(register_routes=register_routes):
        async with serving(site(tmp_path).app()) as client:
            answer = await client.get(f"/-/circle?_auth_token={BOT}")
            assert (answer.status_code, len(calls)) == (302, 6)
            answer = await client.get(f"/-/greet?_auth_token={BOT}")
            assert (answer.status_code, "greeted" in answer.headers["set-cookie"]) == (302, True)
