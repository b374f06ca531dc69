"""The templates, rendered with everything escaped that is not a template's own text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from asgi_token_auth.web.forms import box
from asgi_token_auth.words import describe, duration, exact, relative

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


_environment.globals.update(
    box=box, describe=describe, duration=duration, exact=exact, relative=relative, in_units=_in_units
)


def render(name: str, **values: Any) -> Markup:
    """The template ``name``, filled in."""
    return Markup(_environment.get_template(name).render(values))  # noqa: S704 - autoescaped just now
