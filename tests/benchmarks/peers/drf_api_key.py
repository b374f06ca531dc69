"""djangorestframework-api-key: HasAPIKey.has_permission()."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import rest_framework_api_key

from tests.benchmarks.harness import App
from tests.benchmarks.peers import django_site
from tests.benchmarks.stores import IN_ROTATION

assert rest_framework_api_key.__name__


async def case(stack: AsyncExitStack, folder: Path) -> tuple[App, list[str]]:
    django_site.set_up(folder)
    # Models can be imported only now.
    from rest_framework_api_key.models import APIKey
    from rest_framework_api_key.permissions import HasAPIKey, KeyParser

    class Bearer(KeyParser):
        keyword = "Bearer"

    class Permission(HasAPIKey):
        key_parser = Bearer()

    permission = Permission()

    def check(request: Any) -> bool:
        return bool(permission.has_permission(request, None))

    return django_site.behind(check), [APIKey.objects.create_key(name=f"{n}")[1] for n in range(IN_ROTATION)]
