import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about another Datasette than the installed one."""
    try:
        from asgi_token_auth.datasette.version import IS_1_0
    except ImportError:
        return
    installed = "1.0" if IS_1_0 else "0.65"
    other = [item for item in items if (mark := item.get_closest_marker("datasette")) and mark.args != (installed,)]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in set(other)]
