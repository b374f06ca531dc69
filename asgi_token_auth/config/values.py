"""What a configuration file holds, and the values that it leaves to the environment and to other files."""

from __future__ import annotations

import json
import logging
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

from asgi_token_auth.errors import ConfigurationError

logger: Final = logging.getLogger("asgi_token_auth")

#: Characters of a file named by ``$file``.
MAX_SECRET_FILE: Final = 65_536

#: Bytes of a configuration file.
MAX_CONFIG_FILE: Final = 16 * 1_048_576


def read_config_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The block in a ``.json`` or ``.toml`` file.

    Raises:
        ConfigurationError: the file cannot be read as such.
    """
    file = Path(path)
    if file.suffix not in (".json", ".toml"):
        raise ConfigurationError(f"{file}: a configuration file ends in .json or .toml.")
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_CONFIG_FILE + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no path"
        raise ConfigurationError(f"{file} cannot be read: {why}.") from error
    if len(raw) > MAX_CONFIG_FILE:
        raise ConfigurationError(f"{file} is larger than {MAX_CONFIG_FILE:,} bytes.")
    try:
        text = raw.decode()
        block: dict[str, Any] = (
            json.loads(text, object_pairs_hook=_object) if file.suffix == ".json" else tomllib.loads(text)
        )
    except _RepeatedKey as error:
        raise ConfigurationError(f"{file} has the same key twice in one object; remove one.") from error
    except (ValueError, RecursionError) as error:
        # The error's own text quotes the file, which may hold a secret.
        raise ConfigurationError(f"{file} is not valid {file.suffix[1:].upper()} in UTF-8.") from error
    if not is_object(block):
        raise ConfigurationError(f"{file} must hold one object of configuration keys.")
    return block


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        # json keeps the last one and says nothing; TOML refuses by itself.
        raise _RepeatedKey
    return read


class _RepeatedKey(ValueError):
    pass


def resolve(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...] | str | float | None, where: str) -> Any:
    """``value`` with every ``{"$env": NAME}`` and ``{"$file": PATH}`` in it replaced by what it names.

    Raises:
        ConfigurationError: a variable is unset or a file cannot be read; named, never quoted.
    """
    if is_object(value):
        if set(value) == {"$env"}:
            return _environment(value["$env"], where)
        if set(value) == {"$file"}:
            return _file(value["$file"], where)
        return {key: resolve(inner, f"{where}.{key}") for key, inner in value.items()}
    if is_array(value):
        return [resolve(inner, f"{where}[{number}]") for number, inner in enumerate(value)]
    return value


def _environment(name: object, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}: $env needs the name of an environment variable.")
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"{where}: the environment variable {name} is not set; set it or change $env.")
    return value


def _file(path: object, where: str) -> str:
    if not isinstance(path, str) or not path:
        raise ConfigurationError(f"{where}: $file needs the path of a file.")
    try:
        # Windows editors begin a file with a mark that is no part of its text.
        with Path(path).open(encoding="utf-8-sig") as file:
            text = file.read(MAX_SECRET_FILE + 1)
    except (OSError, ValueError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "that is no path"
        why = (error.strerror or why) if isinstance(error, OSError) else why
        raise ConfigurationError(f"{where}: the file {path} cannot be read: {why}.") from error
    if len(text) > MAX_SECRET_FILE:
        raise ConfigurationError(f"{where}: the file {path} is longer than {MAX_SECRET_FILE:,} characters.")
    value = text.rstrip("\r\n")
    if not value:
        raise ConfigurationError(f"{where}: the file {path} is empty.")
    if "\n" in value or "\r" in value:
        raise ConfigurationError(f"{where}: the file {path} holds more than one line.")
    if where.startswith("secrets.") and is_readable_by_group_or_others(path):
        logger.warning(
            "%s: other users of this machine, or of the group, may read the file %s; chmod go-rwx takes that away",
            where,
            path,
        )
    return value


def is_readable_by_everyone(path: str | os.PathLike[str]) -> bool:
    """Whether every user of the machine may read the file: too many for any secret. A directory is none."""
    mode = _mode(path)
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def is_readable_by_group_or_others(path: str | os.PathLike[str]) -> bool:
    """The same, or only the file's group: too many for an encryption key.

    Keys are judged more strictly than other secrets, because they are kept apart from what they protect, which is in
    vain if others can get them.
    """
    return bool(_mode(path) & (stat.S_IRGRP | stat.S_IROTH))


def _mode(path: str | os.PathLike[str]) -> int:
    """What a file is and who may do what with it; 0 where that cannot be told."""
    try:
        return os.stat(path).st_mode if os.name == "posix" else 0  # noqa: PTH116 - either kind of path
    except (OSError, ValueError):
        return 0


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether ``value`` is what JSON calls an object."""
    return isinstance(value, Mapping)


def is_array(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether ``value`` is what JSON calls an array."""
    return isinstance(value, (list, tuple))


def kind_of(value: object) -> str:
    """What ``value`` is, in the words of JSON."""
    names: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
