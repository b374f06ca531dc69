"""djangorestframework's own TokenAuthentication."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.benchmarks.harness import App
from tests.benchmarks.peers import django_site


async def case(stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    django_site.set_up(folder)
    # Models can be imported only now.
    from rest_framework.authentication import TokenAuthentication
    from rest_framework.authtoken.models import Token

    class Bearer(TokenAuthentication):
        keyword = "Bearer"

    authentication = Bearer()
    tokens = [Token.objects.create(user=user).key for user in django_site.users()]
    return django_site.behind(authentication.authenticate), tokens
