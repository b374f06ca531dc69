"""A Django with a SQLite file, for the peers that live in one.

Their checks are called on a request that Django made of the scope, on the thread of the event loop: as little around
them as possible.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import django
import rest_framework
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.management import call_command

from tests.benchmarks.apps import SECRET, bare
from tests.benchmarks.harness import App
from tests.benchmarks.stores import IN_ROTATION

assert rest_framework.VERSION


def _available(*names: str) -> list[str]:
    from importlib.util import find_spec

    return [name for name in names if find_spec(name.partition(".")[0]) is not None]


def set_up(folder: Path) -> None:
    """Make the database, once for all of them."""
    if settings.configured:
        return
    # Queries on the thread of the event loop: quicker here than any thread, and nobody else waits.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    apps = _available("rest_framework.authtoken", "rest_framework_api_key", "knox")
    settings.configure(
        SECRET_KEY=SECRET,
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", *apps],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "django.db")}},
        REST_KNOX={"AUTH_HEADER_PREFIX": "Bearer"},
    )
    django.setup()
    call_command("migrate", verbosity=0)


def users() -> list[Any]:
    """One for each token: some peers look at all tokens of a user."""
    from django.contrib.auth.models import User

    names = [f"user {number}" for number in range(IN_ROTATION)]
    return [User.objects.get_or_create(username=name)[0] for name in names]


def behind(check: Callable[[Any], Any]) -> App:
    """The bare app behind a check of a request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not check(ASGIRequest(scope, BytesIO())):
            raise RuntimeError("a good token was refused")
        await bare(scope, receive, send)

    return app
