"""The chart of the README: microseconds that each middleware adds to a request, as an SVG of a few kilobytes.

Two panels with an axis of their own each, because a query for each request would make everything else invisible. The
picture brings its background, so that it can be read wherever it is shown, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Final

from tests.benchmarks.report import Bar, Report

_WIDTH: Final = 880
_LEFT: Final = 330
_RIGHT: Final = 90
_BAR: Final = 22
_STEP: Final = 34
#: The bar that stands in both panels.
MANAGED: Final = "managed, WAL"

_STYLE: Final = """
  .card { fill: #ffffff; stroke: #d1d9e0 }
  text { font: 14px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 19px; font-weight: 600 }
  .panel { font-weight: 600 }
  .quiet { font-size: 12.5px; fill: #59636e }
  .ours { fill: #0969da }
  .theirs { fill: #9aa4af }
  .name { font-weight: 600 }
  .grid { stroke: #d1d9e0 }
  .value { paint-order: stroke; stroke: #ffffff; stroke-width: 5px; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .quiet { fill: #9198a1 }
    .ours { fill: #4493f8 }
    .theirs { fill: #656c76 }
    .grid { stroke: #3d444d }
    .value { stroke: #0d1117 }
  }
"""


def draw(reports: Mapping[str, Report], machine: Mapping[str, str]) -> str:
    """The chart of one run.

    Raises:
        SystemExit: the run has no requests in it.
    """
    bars = [bar for name in ("requests", "peers") if name in reports for bar in reports[name].bars]
    if not bars:
        raise SystemExit("--plot: there is nothing to draw without the benchmark requests.")
    parts: list[str] = []
    y = 44
    parts.append(f'<text class="title" x="28" y="{y}">What checking a token adds to a request</text>')
    y += 24
    about = "Microseconds over the bare app, median, one process, no sockets. Less is better."
    parts.append(f'<text class="quiet" x="28" y="{y}">{about}</text>')
    parts.append(_legend(y))
    y += 34
    remembered, anew = panels(bars)
    y = _panel(parts, "Answered from memory", remembered, y)
    if anew:
        y = _panel(parts, "Checked anew for each request (another scale)", anew, y + 30)
    y += 24
    told = "; ".join(machine[name] for name in ("processor", "Python") if name in machine)
    parts.append(f'<text class="quiet" x="28" y="{y}">{escape(told)}</text>')
    height = y + 24
    alternative = "; ".join(f"{bar.label}: {_number(bar.value)}" for bar in bars)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title description">\n'
        f'<title id="title">What checking a token adds to a request, in microseconds over the bare app</title>\n'
        f'<desc id="description">{escape(alternative)}</desc>\n<style>{_STYLE}</style>\n'
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def panels(bars: Sequence[Bar]) -> tuple[list[Bar], list[Bar]]:
    """Short bars first. What is remembered, and what is checked anew, with managed tokens to compare with."""
    ordered = sorted(bars, key=lambda bar: bar.value)
    anew = [bar for bar in ordered if bar.anew]
    compared = [replace(bar, label=f"{MANAGED} (from memory)") for bar in ordered if bar.label == MANAGED and anew]
    return [bar for bar in ordered if not bar.anew], sorted(compared + anew, key=lambda bar: bar.value)


def _legend(y: int) -> str:
    return "".join(
        f'<rect class="{kind}" x="{x}" y="{y - 10}" width="12" height="12" rx="2"/>'
        f'<text class="quiet" x="{x + 18}" y="{y}">{word}</text>'
        for kind, word, x in (("ours", "asgi-token-auth", _WIDTH - 210), ("theirs", "others", _WIDTH - 80))
    )


def _panel(parts: list[str], title: str, bars: Sequence[Bar], y: int) -> int:
    """Draw one panel from ``y`` on and return where it ends."""
    parts.append(f'<text class="panel" x="28" y="{y}">{title}</text>')
    y += 16
    top = y
    step = _tick(max(bar.value for bar in bars))
    longest = step * math.ceil(max(bar.value for bar in bars) / step)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    bottom = top + _STEP * len(bars)
    for tick in range(round(longest / step) + 1):
        x = _LEFT + tick * step * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        unit = " us" if tick == round(longest / step) else ""
        mark = f"{tick * step:,g}{unit}".replace("us", "µs")
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{mark}</text>')
    for bar in bars:
        kind = "ours" if bar.ours else "theirs"
        width = max(bar.value * scale, 1.5)
        middle = y + _STEP / 2
        name = ' class="name"' if bar.ours else ""
        parts.append(f'<text{name} x="{_LEFT - 12}" y="{middle + 5:.1f}" text-anchor="end">{escape(bar.label)}</text>')
        parts.append(
            f'<rect class="{kind}" x="{_LEFT}" y="{middle - _BAR / 2:.1f}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
        )
        parts.append(
            f'<text class="value" x="{_LEFT + width + 8:.1f}" y="{middle + 5:.1f}">{_number(bar.value)}</text>'
        )
        y += _STEP
    return bottom + 24


def _tick(longest: float) -> float:
    """A round distance between the lines of the axis, of which there are three to six."""
    power: float = 10.0 ** math.floor(math.log10(max(longest, 0.1) / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if longest / (power * factor) <= 5)


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
