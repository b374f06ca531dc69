"""Tokens as plain JSON data, the same for the pages, their API and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_token_auth.tokens.record import StoredEvent, TokenRecord
from asgi_token_auth.wording import exact


def record_json(token: TokenRecord) -> dict[str, Any]:
    """A record as JSON data, with times in UTC as ISO 8601."""
    return {
        "id": token.id,
        "actor_id": token.actor_id,
        "status": token.status,
        "description": token.description,
        "restrictions": None if token.restrictions is None else token.restrictions.to_wire(),
        "created_at": exact(token.created_at),
        "expires_at": exact(token.expires_at),
        "last_used_at": exact(token.last_used_at),
        "last_used_address": token.last_used_address,
        "ended_at": exact(token.ended_at),
        "parent_id": token.parent_id,
        "previous_until": exact(token.previous_until),
        "version": token.version,
    }


def events_json(events: Sequence[StoredEvent]) -> list[dict[str, Any]]:
    """What happened to a token as JSON data, with times in UTC as ISO 8601."""
    return [{"at": exact(e.at), "event": e.name, "by": e.by, "details": e.details} for e in events]
