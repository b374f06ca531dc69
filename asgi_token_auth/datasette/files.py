"""Datasette's configuration files, looked at for what its parsers pass over: a key that stands twice.

Datasette hands over what it has parsed, so the files are read once more, where they are known: those of its command
line, and those of its folder.
"""

# The types of PyYAML are not installed everywhere.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import click
import yaml

from asgi_token_auth.config.values import MAX_CONFIG_FILE, line_of_object
from asgi_token_auth.decoding import Undecodable, decode, read_bytes
from asgi_token_auth.errors import ConfigurationError

logger: Final = logging.getLogger("asgi_token_auth")

_PLUGINS: Final = "plugins"
_MERGE: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class RepeatedKey:
    """A key that stands twice in one object. It is told by its place: what stands as a key may be a secret."""

    place: str
    in_plugins: bool


def refuse_repeated_keys(datasette: Any) -> None:
    """Look at the files that ``datasette`` was configured with.

    Raises:
        ConfigurationError: a key stands twice where plugins are configured. Elsewhere it is a warning.
    """
    for path in _files_of(datasette):
        try:
            found = repeated_key(decode(read_bytes(path, MAX_CONFIG_FILE)).text)
        except (Undecodable, ValueError, RecursionError, yaml.YAMLError):
            # Datasette has read it, so it has changed since, or says so itself.
            continue
        if found is None:
            continue
        if found.in_plugins:
            raise ConfigurationError(f"{path} has the same key twice in {found.place}; remove one.")
        logger.warning("%s has the same key twice in %s, of which Datasette takes the last", path, found.place)


def _files_of(datasette: Any) -> Iterator[Path]:
    context = click.get_current_context(silent=True)
    for option in ("config", "metadata"):
        name = getattr(None if context is None else context.params.get(option), "name", None)
        # Standard input can be read once only.
        if isinstance(name, str) and name not in ("-", "<stdin>"):
            yield Path(name)
    folder = getattr(datasette, "config_dir", None)
    if folder is not None:
        for stem in ("datasette", "metadata"):
            for suffix in (".json", ".yaml", ".yml"):
                if (path := Path(folder) / (stem + suffix)).is_file():
                    yield path


def repeated_key(text: str) -> RepeatedKey | None:
    """The first key that stands twice in JSON or YAML, as Datasette tells which it is.

    Raises:
        ValueError, RecursionError, yaml.YAMLError: it is neither.
    """
    try:
        return _repeated_in_json(text)
    except json.JSONDecodeError:
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if root is None else _repeated_in_yaml(cast("Any", root))


def _repeated_in_json(text: str) -> RepeatedKey | None:
    repeated: list[tuple[dict[str, Any], int, set[str]]] = []
    made = 0

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal made
        read = dict(pairs)
        if len(read) != len(pairs):
            names = [name for name, _ in pairs]
            repeated.append((read, made, {name for name in names if names.count(name) > 1}))
        made += 1
        return read

    root = json.loads(text, object_pairs_hook=make)
    if not repeated:
        return None
    # What stands under the first of two is lost by now; then the two themselves are found.
    plugins = root.get(_PLUGINS) if isinstance(root, dict) else None
    inside = {id(each) for each in _objects_in(plugins)}
    found = next(
        (each for each in repeated if id(each[0]) in inside or (each[0] is root and _PLUGINS in each[2])), None
    )
    _, number, _ = found or repeated[0]
    return RepeatedKey(f"the object that ends at line {line_of_object(text, number)}", in_plugins=found is not None)


def _objects_in(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _repeated_in_yaml(root: yaml.Node) -> RepeatedKey | None:
    elsewhere: RepeatedKey | None = None
    seen: set[int] = set()
    waiting = [(root, False)]
    while waiting:
        node, inside = waiting.pop()
        # An anchor may stand for the same node a billion times.
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(each, inside) for each in node.value]
        if not isinstance(node, yaml.MappingNode):
            continue
        keys: set[tuple[str, str]] = set()
        for key, value in node.value:
            name = (str(key.tag), str(key.value))
            plugins = inside or (node is root and key.value == _PLUGINS)
            if name in keys and key.tag != _MERGE:
                found = RepeatedKey(f"line {key.start_mark.line + 1}", in_plugins=plugins)
                if plugins:
                    return found
                elsewhere = elsewhere or found
            keys.add(name)
            waiting.append((value, plugins))
    return elsewhere
