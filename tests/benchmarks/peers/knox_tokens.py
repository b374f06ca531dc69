"""django-rest-knox: TokenAuthentication.authenticate()."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import knox

from tests.benchmarks.harness import App
from tests.benchmarks.peers import django_site

assert knox.__name__


async def case(stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    django_site.set_up(folder)
    # Models can be imported only now.
    from knox.auth import TokenAuthentication
    from knox.models import AuthToken

    tokens = [AuthToken.objects.create(user=user)[1] for user in django_site.users()]
    return django_site.behind(TokenAuthentication().authenticate), tokens
