"""Secrets as plain JSON data, the same for the pages' API and the command line. No value is in it."""

from __future__ import annotations

from typing import Any

from asgi_token_auth.secrets.record import SecretRecord, SecretVersion
from asgi_token_auth.wording import exact


def secret_json(secret: SecretRecord) -> dict[str, Any]:
    """A secret as JSON data, with times in UTC as ISO 8601. It holds no value."""
    return {
        "name": secret.name,
        "description": secret.description,
        "obtain_url": secret.obtain_url,
        "obtain_label": secret.obtain_label,
        "registered": secret.registered,
        "source": secret.source,
        "note": secret.note,
        "version": secret.version,
        "created_at": exact(secret.created_at),
        "created_by": secret.created_by,
        "updated_at": exact(secret.updated_at),
        "updated_by": secret.updated_by,
        "last_used_at": exact(secret.last_used_at),
        "last_used_by": secret.last_used_by,
    }


def version_json(one: SecretVersion) -> dict[str, Any]:
    """One version of a secret as JSON data, with times in UTC as ISO 8601."""
    return {
        "version": one.version,
        "note": one.note,
        "created_at": exact(one.created_at),
        "created_by": one.created_by,
        "updated_at": exact(one.updated_at),
        "updated_by": one.updated_by,
        "deleted_at": exact(one.deleted_at),
        "deleted_by": one.deleted_by,
        "last_used_at": exact(one.last_used_at),
        "last_used_by": one.last_used_by,
    }
