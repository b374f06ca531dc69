"""Names of checkboxes: whatever a database or a table is called, it comes back as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asgi_token_auth.web.boxes import box, tilde, untilde

NAMES = st.text(st.characters(codec="utf-8"), min_size=1)


@given(NAMES)
def test_every_name_comes_back_from_its_encoding(name: str) -> None:
    assert ":" not in tilde(name)
    assert untilde(tilde(name)) == name


def test_a_name_that_is_no_text_can_still_be_shown_as_a_box() -> None:
    assert box("vt", "\ud800") == "database:~ED~A0~80:vt"
