"""What the tests share and is no test itself."""

from pathlib import Path
from typing import Final

#: The checkout, which processes of their own need on their path to import ``tests.support``.
ROOT: Final = Path(__file__).resolve().parents[2]
