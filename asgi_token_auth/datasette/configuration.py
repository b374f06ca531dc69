"""The configuration block inside Datasette: where it stands, and what Datasette decides itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import click
from datasette.plugins import pm

from asgi_token_auth.config.block import Configuration, read_configuration
from asgi_token_auth.config.sections import (
    PLUGIN,
    PREDECESSOR,
    SECRETS_PREDECESSOR,
    section_in,
    with_secrets_section,
)
from asgi_token_auth.datasette.files import refuse_repeated_keys
from asgi_token_auth.datasette.version import IS_1_0, check_version
from asgi_token_auth.errors import ConfigurationError, TokenAuthError

if TYPE_CHECKING:

    class StartupError(Exception):
        """Datasette has no types, and this is the base class of a public one."""

else:
    from datasette.utils import StartupError

_SECRETS: Final = "_asgi_token_auth_secrets"

#: Query parameters that Datasette reads itself.
_PARAMETERS: Final = frozenset(
    """
    token sql next action actor parent child permission q database table name csrftoken path json source type
    _size _sort _sort_desc _sort_by_desc _next _search _shape _labels _label _json _json_infinity _col _nocol _where
    _through _trace _timelimit _nl _facet _nofacet _nosuggest _nocount _extra _ttl _stream _dl _header _blob_column
    _blob_hash _filter_column _filter_op _filter_value _show_sql _hide_sql _memory _page _hash _config _format
    """.split()
)
_PARAMETER_FAMILIES: Final = ("_facet", "_search", "_sort", "_col")


class StartupRefused(StartupError, click.ClickException):
    """Datasette must not start. Its command line prints the sentence and exits with 1.

    Both kinds, because 0.65 catches the one only around its constructor; the other is caught everywhere.
    """

    def __init__(self, error: TokenAuthError) -> None:
        super().__init__(f"{PLUGIN}: {error}")


def own_block(datasette: Any) -> Any:
    """The raw block of this instance, with its secrets, or ``None``.

    Read from where Datasette keeps it, because ``plugin_config()`` turns an unset ``$env`` into ``None``.
    """
    plugins = _sections(datasette)
    section = section_in(plugins)
    if section is None:
        if "asgi_token_auth" in plugins:
            raise ConfigurationError(f"plugins.asgi_token_auth: the section is called {PLUGIN}, with hyphens.")
        if SECRETS_PREDECESSOR in plugins:
            refuse_repeated_keys(datasette)
        return with_secrets(datasette, {}) or None
    refuse_repeated_keys(datasette)
    block = plugins[section]
    if not block:
        raise ConfigurationError(f"plugins.{section}: nothing is configured there; fill the section or remove it.")
    for each in (PLUGIN, PREDECESSOR):
        # That of the predecessor, left beside ours, is read by nobody and would still be published.
        _mask(datasette, each)
    return with_secrets(datasette, block)


def with_secrets(datasette: Any, block: Any) -> Any:
    """``block``, and the section of datasette-secrets as its ``secrets`` where it has none."""
    if not hasattr(datasette, _SECRETS):
        # Read once: on 0.65 it is masked from then on.
        setattr(datasette, _SECRETS, _sections(datasette).get(SECRETS_PREDECESSOR))
        _mask(datasette, SECRETS_PREDECESSOR)
    if not isinstance(block, Mapping):
        return block
    return with_secrets_section(cast("Mapping[str, Any]", block), getattr(datasette, _SECRETS))


def _sections(datasette: Any) -> dict[str, Any]:
    content: Any = datasette.config if IS_1_0 else datasette._metadata_local
    plugins: Any = content.get("plugins") if content else None
    return cast("dict[str, Any]", plugins) if isinstance(plugins, dict) else {}


def _mask(datasette: Any, section: str) -> None:
    """0.65 publishes its metadata to everybody: leave no value of ``section`` there."""
    plugins = _sections(datasette)
    if IS_1_0 or section not in plugins:
        return
    # New objects, because the old ones may be the caller's.
    block: dict[str, Any] | None = plugins[section] if isinstance(plugins[section], dict) else None
    masked: dict[str, Any] = {**plugins, section: "***" if block is None else dict.fromkeys(block, "***")}
    datasette._metadata_local = {**datasette._metadata_local, "plugins": masked}


def read_block(block: object) -> Configuration:
    """Check a block for use inside Datasette.

    Raises:
        ConfigurationError: it cannot work, this Datasette is not supported, or the predecessor is installed too.
    """
    check_version()
    active = {getattr(plugin, "__name__", "").partition(".")[0] for plugin in pm.get_plugins()}
    if "datasette_auth_tokens" in active:
        raise ConfigurationError(
            f"{PREDECESSOR} is installed too, and two plugins cannot both own the tokens: uninstall it with "
            f"pip uninstall {PREDECESSOR}. Its configuration and tokens keep working here."
        )
    if isinstance(block, Mapping) and "secrets" in block and "datasette_secrets" in active:
        raise ConfigurationError(
            f"secrets: {SECRETS_PREDECESSOR} is installed too, and two plugins cannot both own the secrets: uninstall "
            f"it with pip uninstall {SECRETS_PREDECESSOR}. Its configuration, key and secrets keep working here; "
            "plugins that import get_secret from it get it from here."
        )
    configuration = read_configuration(block)
    if configuration.required:
        raise ConfigurationError(
            "required: Datasette's own users cannot be seen from outside it; use Datasette's allow block instead."
        )
    if configuration.scopes:
        raise ConfigurationError("scopes: Datasette has actions of its own; remove the key.")
    parameter = configuration.param
    if parameter is not None and (parameter in _PARAMETERS or parameter.startswith(_PARAMETER_FAMILIES)):
        raise ConfigurationError(f"param: Datasette uses {parameter!r} itself; use _auth_token.")
    if IS_1_0:
        _check_1_0(configuration)
    elif configuration.manage_tokens and configuration.manage_tokens_database is None:
        raise ConfigurationError(
            "manage_tokens_database: Datasette 0.65 has no lasting internal database; name an attached one."
        )
    elif configuration.encryption_keys and configuration.secrets_database is None:
        raise ConfigurationError(
            "secrets.database: Datasette 0.65 has no lasting internal database; name an attached one."
        )
    return configuration


def _check_1_0(configuration: Configuration) -> None:
    if configuration.permissions is not None:
        raise ConfigurationError(
            "permissions: Datasette 1.0 has its own permissions block at the top of its configuration; move it there."
        )
    if configuration.trusted_origins:
        raise ConfigurationError(
            "trusted_origins: Datasette 1.0 refuses such forms itself, whatever stands here; let the proxy in front of "
            "it pass the Host header on as it came, and remove the key."
        )
    if configuration.signed_tokens is not None:
        raise ConfigurationError("signed_tokens: Datasette 1.0 decides that; use its setting allow_signed_tokens.")
    if configuration.max_signed_tokens_ttl is not None:
        raise ConfigurationError("max_signed_tokens_ttl: Datasette 1.0 decides that; use its setting of the same name.")
