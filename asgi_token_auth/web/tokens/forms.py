"""What people and scripts send to create or change a token, checked: what is wrong has a sentence per field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from asgi_token_auth.errors import InvalidInput
from asgi_token_auth.restrictions import Restrictions, full_name
from asgi_token_auth.storage.values import is_text
from asgi_token_auth.tokens.record import MAX_DESCRIPTION, MAX_EXPIRES_AFTER, TokenRecord, permissions_text
from asgi_token_auth.web.boxes import BOX_PREFIXES, box, read_box
from asgi_token_auth.web.choices import Choices
from asgi_token_auth.web.http import CSRF_FIELD, HTTPError
from asgi_token_auth.wording import duration

#: Seconds that a token lives unless something else is chosen.
DEFAULT_EXPIRES_AFTER: Final = 90 * 86_400

_UNIT_SECONDS: Final = {"minutes": 60, "hours": 3_600, "days": 86_400}

_FORM_FIELDS: Final = {"description", "expire_type", "expire_duration", "limit", CSRF_FIELD}
_JSON_FIELDS: Final = {"description", "expires_after", "restrictions"}
#: Of the fields that do not exist, so many are named, and so many characters of each.
_MAX_NAMED: Final = 10
_MAX_NAME: Final = 100


@dataclass(slots=True)
class TokenForm:
    """The values that were sent, and what is wrong with them."""

    description: str | None = None
    expires_after: int | None = None
    restrictions: Restrictions | None = None
    #: Field name to sentence. Nothing is created or changed unless it is empty.
    errors: dict[str, str] = field(default_factory=dict[str, str])
    #: As they were typed, to be shown again.
    typed: Mapping[str, str] = field(default_factory=dict[str, str])

    def checked(self, box: str) -> bool:
        """Whether the checkbox ``box`` was ticked."""
        return box in self.typed


@dataclass(frozen=True, slots=True)
class TokenEdit:
    """A change of a token."""

    form: TokenForm
    #: What shall be otherwise, as :meth:`TokenStore.edit` takes it.
    changes: Mapping[str, Any]
    #: The version of the token that was changed; ``None``: whichever it is by now.
    version: str | None


def read_form(values: Mapping[str, str], choices: Choices, *, max_expires_after: int | None = None) -> TokenForm:
    """Read the fields that a browser sends."""
    form = TokenForm(typed=values)
    for name in sorted(values.keys() - _FORM_FIELDS):
        # A misspelt box that nobody noticed would leave the token without its limits.
        if not name.startswith(BOX_PREFIXES):
            form.errors["form"] = f"There is no field {_shortened(name)!r} in this form."
            break
    form.description = _description(values.get("description", ""), form.errors)
    form.expires_after = _form_expiry(values, form.errors)
    _check_expiry(form, max_expires_after, "expire_duration")
    form.restrictions = _form_restrictions(values, choices, form.errors)
    return form


def read_json(values: Mapping[str, Any], choices: Choices, *, max_expires_after: int | None = None) -> TokenForm:
    """Read the fields that a script sends. Absent ``expires_after``: the default; ``null``: never."""
    form = TokenForm()
    for name in sorted(values.keys() - _JSON_FIELDS)[:_MAX_NAMED]:
        shown = _shortened(name)
        form.errors[shown] = f"There is no field {shown}; the fields are description, expires_after and restrictions."
    description = values.get("description")
    if description is None or isinstance(description, str):
        form.description = _description(description or "", form.errors)
    else:
        form.errors["description"] = "A description is text."
    form.expires_after = _json_expiry(values, form.errors, max_expires_after)
    _check_expiry(form, max_expires_after, "expires_after")
    if values.get("restrictions") is not None:
        try:
            form.restrictions = Restrictions.from_wire(values["restrictions"])
            permissions_text(form.restrictions)
        except InvalidInput as error:
            form.errors["restrictions"] = str(error)
        else:
            _check_actions(form.restrictions, choices, form.errors)
    return form


def read_form_edit(sent: Mapping[str, str], choices: Choices, *, max_expires_after: int | None = None) -> TokenEdit:
    """Read the change that a browser sends.

    Raises:
        InvalidInput: the version cannot be one.
    """
    version, fields = _split_version(sent)
    keeps_expiry = fields.get("expire_type") == "keep"
    form = read_form(
        {**fields, "expire_type": ""} if keeps_expiry else fields,
        choices,
        max_expires_after=None if keeps_expiry else max_expires_after,
    )
    form.typed = sent
    changes: dict[str, Any] = {"description": form.description}
    # A form without that question is no wish to lift the limits.
    if "limit" in fields or form.restrictions is not None:
        changes["restrictions"] = form.restrictions
    if not keeps_expiry:
        changes["expires_after"] = form.expires_after
    return TokenEdit(form, changes, version)


def read_json_edit(sent: Mapping[str, Any], choices: Choices, *, max_expires_after: int | None = None) -> TokenEdit:
    """Read the change that a script sends. What it does not name stays as it is.

    Raises:
        InvalidInput: the version cannot be one.
    """
    version, fields = _split_version(sent)
    form = read_json(
        {"expires_after": None, **fields},
        choices,
        max_expires_after=max_expires_after if "expires_after" in fields else None,
    )
    return TokenEdit(form, {name: getattr(form, name) for name in _JSON_FIELDS if name in fields}, version)


def default_form(*, max_expires_after: int | None = None) -> TokenForm:
    """The form to create a token, as it is opened."""
    typed = {"expire_type": "days", "expire_duration": "90"}
    if max_expires_after is not None and max_expires_after < DEFAULT_EXPIRES_AFTER:
        units = ("days", "hours", "minutes")
        unit = next((unit for unit in units if max_expires_after >= _UNIT_SECONDS[unit]), "minutes")
        typed = {"expire_type": unit, "expire_duration": str(max(1, max_expires_after // _UNIT_SECONDS[unit]))}
    return TokenForm(typed=typed)


def form_of(token: TokenRecord) -> TokenForm:
    """The form to change ``token``, as it is opened."""
    typed = {
        "description": token.description or "",
        "expire_type": "keep",
        "version": token.version,
        **form_fields(token.restrictions),
    }
    return TokenForm(typed=typed)


def form_fields(restrictions: Restrictions | None) -> dict[str, str]:
    """The checkboxes that stand for ``restrictions``."""
    if restrictions is None:
        return {"limit": "all"}
    boxes = {"limit": "only"}
    for action in restrictions.all:
        boxes[box(full_name(action))] = "1"
    for database, actions in restrictions.database.items():
        for action in actions:
            boxes[box(full_name(action), database)] = "1"
    for database, resources in restrictions.resource.items():
        for resource, actions in resources.items():
            for action in actions:
                boxes[box(full_name(action), database, resource)] = "1"
    return boxes


def check_errors(form: TokenForm) -> None:
    """Make sure that a script sent nothing wrong.

    Raises:
        HTTPError: 400: it did, with the sentence for each field.
    """
    if form.errors:
        raise HTTPError(400, " ".join(form.errors.values()), errors=form.errors)


def read_version(sent: Mapping[str, Any]) -> str | None:
    """The version of the token that a change was made for; ``None``: whichever it is by now.

    Raises:
        InvalidInput: it cannot be one.
    """
    version = sent.get("version")
    if "version" in sent and not isinstance(version, str):
        raise InvalidInput("version must be the text that came with the token.")
    return version


def _split_version(sent: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    return read_version(sent), {name: value for name, value in sent.items() if name != "version"}


def _description(text: str, errors: dict[str, str]) -> str | None:
    if len(text) > MAX_DESCRIPTION:
        errors["description"] = f"A description has at most {MAX_DESCRIPTION:,} characters; this one has {len(text):,}."
    elif not is_text(text):
        errors["description"] = "The description holds characters that are not text."
    # Blanks alone are nothing to read, and in a list nobody would see them.
    return text if text.strip() else None


def _form_expiry(values: Mapping[str, str], errors: dict[str, str]) -> int | None:
    unit = values.get("expire_type")
    if unit is None:
        errors["expire_type"] = "Choose when the token expires."
        return None
    if unit == "":
        return None
    if unit not in _UNIT_SECONDS:
        errors["expire_type"] = "Choose minutes, hours or days, or that the token never expires."
        return None
    text = values.get("expire_duration", "").strip()
    # isdigit() would take "²", and int() other alphabets' digits.
    if not re.fullmatch(r"[0-9]+", text) or not text.strip("0"):
        errors["expire_duration"] = "Give a whole number, 1 or more."
        return None
    # Ten digits are beyond every limit, and int() refuses thousands of them.
    return int(text.lstrip("0")[:10]) * _UNIT_SECONDS[unit]


def _json_expiry(values: Mapping[str, Any], errors: dict[str, str], limit: int | None) -> int | None:
    if "expires_after" not in values:
        return min(DEFAULT_EXPIRES_AFTER, limit) if limit is not None else DEFAULT_EXPIRES_AFTER
    value = values["expires_after"]
    if value is None:
        return None
    if type(value) is not int or value < 1:
        errors["expires_after"] = "Give a whole number of seconds, 1 or more; null for a token that never expires."
        return None
    return value


def _check_expiry(form: TokenForm, limit: int | None, name: str) -> None:
    if form.errors.keys() & {"expire_type", "expire_duration", "expires_after"}:
        return
    if form.expires_after is not None and form.expires_after > MAX_EXPIRES_AFTER:
        form.errors[name] = "A token can live for a hundred years at most."
    elif limit is not None and (form.expires_after is None or form.expires_after > limit):
        form.errors[name] = f"Tokens live for at most {duration(limit)} here."


def _form_restrictions(values: Mapping[str, str], choices: Choices, errors: dict[str, str]) -> Restrictions | None:
    boxes = [name for name in values if name.startswith(BOX_PREFIXES)]
    limit = values.get("limit")
    if limit not in (None, "all", "only"):
        errors["limit"] = "Choose whether the token is limited."
        return None
    if limit == "all" and boxes:
        errors["limit"] = "Choose “Only what is ticked here”, or untick the boxes."
        return None
    if not boxes:
        if limit == "only":
            errors["limit"] = "Tick at least one box, or let the token do everything that you may do."
        return None
    wire: dict[str, Any] = {"a": [], "d": {}, "r": {}}
    for name in boxes:
        try:
            action, database, resource = read_box(name)
        except ValueError:
            errors["limit"] = "One of the boxes has a name that cannot be read. Reload the page and try again."
            return None
        if database is None:
            wire["a"].append(action)
        elif resource is None:
            wire["d"].setdefault(database, []).append(action)
        else:
            wire["r"].setdefault(database, {}).setdefault(resource, []).append(action)
    restrictions = Restrictions.from_wire(wire)
    try:
        permissions_text(restrictions)
    except InvalidInput as error:
        errors["limit"] = str(error)
        return None
    _check_actions(restrictions, choices, errors, name="limit")
    return restrictions


def _check_actions(
    restrictions: Restrictions, choices: Choices, errors: dict[str, str], *, name: str = "restrictions"
) -> None:
    known = choices.actions
    for action in _actions_of(restrictions):
        if full_name(action) not in known and action not in known:
            errors[name] = f"There is no action {_shortened(action)!r} here; GET create.json has the list of them."
            return


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_NAME else text[:_MAX_NAME] + "…"


def _actions_of(restrictions: Restrictions) -> Iterator[str]:
    yield from restrictions.all
    for actions in restrictions.database.values():
        yield from actions
    for resources in restrictions.resource.values():
        for actions in resources.values():
            yield from actions
