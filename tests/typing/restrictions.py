"""What a token may do, built and asked."""

from collections.abc import Mapping
from typing import Any, assert_type

from asgi_token_auth import Restrictions

limited = Restrictions().allow_all("view-instance").allow_database("logs", "view-table")
assert_type(limited, Restrictions)
assert_type(limited.allow_resource("logs", "requests", "insert-row"), Restrictions)
assert_type(limited.all, tuple[str, ...])
assert_type(limited.database, Mapping[str, tuple[str, ...]])
assert_type(limited.resource, Mapping[str, Mapping[str, tuple[str, ...]]])
assert_type(limited.allows("view-table", "logs", "requests"), bool)
assert_type(limited.is_subset(None), bool)
assert_type(limited.intersect(Restrictions(("view-instance",))), Restrictions)
assert_type(limited.to_wire(), dict[str, Any])
assert_type(Restrictions.from_wire({"a": ["vi"]}), Restrictions)

limited.all = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
limited.database["logs"] = ()  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
limited.allow_database("logs")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
limited.allows(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
