"""The templates, rendered with everything escaped that is not a template's own text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
from markupsafe import Markup

from asgi_token_auth.web.boxes import box
from asgi_token_auth.wording import brief, describe, duration, exact, relative

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _in_units(details: str) -> str:
    """What the record of events says, with its seconds in larger units."""
    return re.sub(r"\b([0-9]{1,12}) seconds\b", lambda found: duration(int(found[1])), details)


def web_address(text: str | None) -> str | None:
    """``text`` if a link may lead there: an address of the web, and not a script, a file or the like."""
    try:
        parts = urlsplit(text or "")
    except ValueError:
        return None
    return text if parts.scheme in ("http", "https") and parts.netloc else None


#: The functions that templates call.
_functions: dict[str, Any] = {
    "box": box,
    "brief_words": brief,
    "describe": describe,
    "duration": duration,
    "exact": exact,
    "in_units": _in_units,
    "relative": relative,
    "web_address": web_address,
}
_environment.globals.update(_functions)


def render(template: str, /, **values: Any) -> Markup:
    """The template of this name, filled in."""
    return Markup(_environment.get_template(template).render(values))  # noqa: S704 - autoescaped just now
