"""What a configuration file holds, and the values that it leaves to the environment and to other files."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

from asgi_token_auth.decoding import Undecodable, decode, read_bytes, read_value, shown_path, shown_variable, value_of
from asgi_token_auth.errors import ConfigurationError

logger: Final = logging.getLogger("asgi_token_auth")

#: Bytes of a configuration file.
MAX_CONFIG_FILE: Final = 16 * 1_048_576


def read_config_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The block in a ``.json`` or ``.toml`` file.

    Raises:
        ConfigurationError: the file cannot be read as such.
    """
    file = Path(path)
    if isinstance(path, str) and ("\n" in path or path.lstrip().startswith(("{", "["))):
        # It is not repeated, because it may hold a secret.
        raise ConfigurationError("The configuration is text; give the path of a file, or an object of keys and values.")
    suffix, shown = file.suffix.lower(), shown_path(file)
    if suffix not in (".json", ".toml"):
        raise ConfigurationError(
            f"{shown}: a configuration file ends in .json or .toml."
            + (" A .yaml file is read by Datasette alone." if suffix in (".yaml", ".yml") else "")
        )
    kind = suffix[1:].upper()
    try:
        text = decode(read_bytes(file, MAX_CONFIG_FILE)).log_dropped(str(file))
    except Undecodable as error:
        raise ConfigurationError(f"{shown} {error}") from error
    try:
        block: dict[str, Any] = (
            json.loads(text, object_pairs_hook=_Objects(text)) if suffix == ".json" else tomllib.loads(text)
        )
    except _RepeatedKey as error:
        raise ConfigurationError(
            f"{file} has the same key twice in the object that ends at line {error.line}; remove one."
        ) from None
    except RecursionError as error:
        raise ConfigurationError(f"{file} is not valid {kind}: it is nested too deeply.") from error
    except ValueError as error:
        # Not as the cause: the error has the whole file in it, which may hold a secret, and its words may quote it.
        raise ConfigurationError(f"{file} is not valid {kind}: {_place_of(error, text)}.") from None
    if not is_object(block):
        raise ConfigurationError(f"{file} must hold one object of configuration keys.")
    return block


#: What parsers say of a fault without quoting anything, and our words for it. Others are told by their place alone.
_FAULTS: Final = (
    ("Expecting ',' delimiter", "a comma or a closing bracket is missing"),
    ("Expecting ':' delimiter", "a colon is missing"),
    ("Expecting property name", "a key in double quotes is missing, or there is a comma too many"),
    ("Illegal trailing comma", "there is a comma too many"),
    ("Expecting value", "a value is missing, or there is a comma too many"),
    ("Extra data", "there is something after the end"),
    ("Unterminated string", "a string begins that never ends"),
    ("Invalid control character", "a string holds a line end or another control character"),
    ("Invalid \\escape", "a backslash is not doubled"),
    ("Invalid \\u", "a backslash is not doubled"),
    ("Cannot overwrite", "the same key stands twice"),
    ("Cannot declare", "the same table stands twice"),
    ("Cannot mutate", "the same table stands twice"),
    ("Duplicate inline table key", "the same key stands twice"),
    ("Unclosed array", "a bracket is missing"),
    ("Unclosed inline table", "a brace is missing, or there is a comma or a line end too many"),
    ("Expected '='", "a key has no ="),
    ("Invalid initial character for a key part", "a key is missing, or there is a comma too many"),
    ("Invalid value", "the value is none; put text in quotes"),
    ("Unescaped '\\'", "a backslash is not doubled"),
)


def _place_of(error: ValueError, text: str) -> str:
    """Where a parser stopped, and why where that can be said without quoting the file."""
    message = str(error)
    line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    if isinstance(error, json.JSONDecodeError):
        line, column = error.lineno, error.colno
    elif place := re.search(r"\(at line ([0-9]+), column ([0-9]+)\)$", message):
        line, column = int(place[1]), int(place[2])
    why = next((reason for start, reason in _FAULTS if message.startswith(start)), None)
    return f"see line {line}, column {column}" + (f": {why}" if why else "")


class _Objects:
    """Makes the objects of a JSON text, in the order in which they end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._made = 0

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(pairs)
        if len(read) != len(pairs):
            # json keeps the last one and says nothing; TOML refuses by itself.
            raise _RepeatedKey(line_of_object(self._text, self._made))
        self._made += 1
        return read


def line_of_object(text: str, number: int) -> int:
    """The line where an object of a JSON text ends. ``number``: how many ended before."""
    ends = [part.start() for part in re.finditer(r'"(?:[^"\\]|\\.)*"|}', text) if part[0] == "}"]
    return text.count("\n", 0, ends[number]) + 1


class _RepeatedKey(ValueError):
    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


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
        _refuse_misspelled(value, where)
        return {key: resolve(inner, f"{where}.{key}") for key, inner in value.items()}
    if is_array(value):
        return [resolve(inner, f"{where}[{number}]") for number, inner in enumerate(value)]
    return value


def _refuse_misspelled(value: Mapping[Any, Any], where: str) -> None:
    """Refuse what nearly names a variable or a file."""
    for key in value:
        bare = str(key).lower().lstrip("$")
        if bare not in ("env", "file"):
            continue
        # Elsewhere "env" is a name like any other: of an actor's team, of an action.
        if str(key).startswith("$") or (len(value) == 1 and not re.search(r"\.actor\b|^permissions|^scopes", where)):
            name = "NAME" if bare == "env" else "PATH"
            raise ConfigurationError(
                f'{where}: write {{"${bare}": "{name}"}}, with the $, in small letters and without another key.'
            )


def _environment(name: object, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}: $env needs the name of an environment variable.")
    try:
        value = os.environ.get(name)
    except ValueError:
        # A lone surrogate, which JSON can spell.
        raise ConfigurationError(f"{where}: $env needs the name of an environment variable, which is text.") from None
    if not value:
        state = "not set" if value is None else "empty"
        raise ConfigurationError(
            f"{where}: the environment variable {shown_variable(name)} is {state}; set it or change $env."
        )
    read = value_of(value).log_dropped(f"{where}: the environment variable {name}")
    if not read:
        raise ConfigurationError(f"{where}: the environment variable {name} holds nothing but a line end; set it.")
    # What stands around a secret that signs has signed tokens, which shall go on verifying.
    return value if _signs(where) else read


def _signs(where: str) -> bool:
    return where.partition("[")[0] == "secret"


def _file(path: object, where: str) -> str:
    if not isinstance(path, str) or not path:
        raise ConfigurationError(f"{where}: $file needs the path of a file.")
    try:
        # Of encryption keys, a file may hold one in each line.
        read = read_value(path, lines=where.startswith("secrets."), signs=_signs(where))
    except Undecodable as error:
        raise ConfigurationError(f"{where}: the file {shown_path(path)} {error}") from error
    if where.startswith("secrets.") and is_readable_by_group_or_others(path):
        logger.warning(
            "%s: other users of this machine, or of the group, may read the file %s; chmod go-rwx takes that away",
            where,
            path,
        )
    return read.log_dropped(f"{where}: the file {path}")


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
