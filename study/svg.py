"""Plots as SVG, written by hand: the same text on every machine, so that a test can compare.

They scale with the page, and take their colours from its text, so that they are readable on a
phone and in the dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#3366cc", "#d9480f", "#2b8a3e", "#9c36b5", "#c2255c", "#0b7285", "#846200", "#5f3dc4",
           "#495057", "#e8590c")  # fmt: skip
WIDE = 640


@dataclass(frozen=True)
class Dots:
    """One line of a dot plot: every seed's value, and their mean."""

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Line:
    label: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float], ...] = ()  # lowest and highest at each point


def dots(title: str, rows: Sequence[Dots], form: str = "{:.1f}") -> str:
    """A row for each arm, a dot for each seed, a bar at the mean."""
    rows = [Dots(r.label, tuple(filter(math.isfinite, r.values))) for r in rows]
    rows = [r for r in rows if r.values]
    if not rows:
        return ""
    low, high = _around([v for r in rows for v in r.values])
    left, right, top, step = 230, 600, 46, 26
    tall = top + step * len(rows) + 30
    parts = [_text(8, 20, title, bold=True)]
    for tick in ticks(low, high, 4):
        x = _place(tick, low, high, left, right)
        parts.append(_stroke(x, top - 10, x, tall - 26, 0.15))
        parts.append(_text(x, tall - 10, _tick(tick), anchor="middle", small=True))
    for i, row in enumerate(rows):
        y = top + step * i
        mean = sum(row.values) / len(row.values)
        parts.append(_text(left - 12, y + 4, row.label, anchor="end", small=True))
        xs = [_place(v, low, high, left, right) for v in row.values]
        colour = COLOURS[i % len(COLOURS)]
        parts.append(
            f'<line x1="{min(xs):.1f}" y1="{y}" x2="{max(xs):.1f}" y2="{y}" stroke="{colour}"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colour}"/>' for x in xs]
        x = _place(mean, low, high, left, right)
        parts.append(
            f'<line x1="{x:.1f}" y1="{y - 8}" x2="{x:.1f}" y2="{y + 8}" stroke="{colour}" '
            'stroke-width="2"/>'
        )
    return _svg(title, tall, parts)


def lines(title: str, across: str, series: Sequence[Line]) -> str:
    """Curves with their names below; where several seeds went in, with the band that they span."""
    series = [s for s in series if s.points]
    if not series:
        return ""
    xs = [x for s in series for x, _ in s.points]
    ys = [v for s in series for pair in (s.band or ()) for v in pair]
    ys += [y for s in series for _, y in s.points]
    x0, x1 = min(xs), max(max(xs), min(xs) + 1e-9)
    low, high = _around(ys)
    left, right, top, bottom = 60, 625, 36, 300
    tall = bottom + 46 + 18 * math.ceil(len(series) / 2)
    parts = [_text(8, 20, title, bold=True)]
    for tick in ticks(low, high, 5):
        y = _place(tick, low, high, bottom, top)
        parts.append(_stroke(left, y, right, y, 0.15))
        parts.append(_text(left - 8, y + 4, _tick(tick), anchor="end", small=True))
    for tick in ticks(x0, x1, 5):
        x = _place(tick, x0, x1, left, right)
        parts.append(_text(x, bottom + 16, _tick(tick), anchor="middle", small=True))
    parts.append(_text((left + right) / 2, bottom + 32, across, anchor="middle", small=True))
    for i, s in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        at = [_place(x, x0, x1, left, right) for x, _ in s.points]
        if s.band:
            edge = [
                (x, _place(b[0], low, high, bottom, top)) for x, b in zip(at, s.band, strict=True)
            ]
            back = [
                (x, _place(b[1], low, high, bottom, top)) for x, b in zip(at, s.band, strict=True)
            ]
            parts.append(
                f'<polygon points="{_points([*edge, *back[::-1]])}" fill="{colour}" opacity=".18"/>'
            )
        path = [
            (x, _place(y, low, high, bottom, top)) for x, (_, y) in zip(at, s.points, strict=True)
        ]
        parts.append(
            f'<polyline points="{_points(path)}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        )
        x, y = left + 300 * (i % 2), bottom + 50 + 18 * (i // 2)
        parts.append(f'<rect x="{x}" y="{y - 9}" width="14" height="9" fill="{colour}"/>')
        parts.append(_text(x + 20, y, s.label, small=True))
    return _svg(title, tall, parts)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= about)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _around(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def _place(value: float, low: float, high: float, a: float, b: float) -> float:
    return a + (value - low) / (high - low) * (b - a)


def _tick(value: float) -> str:
    if abs(value) >= 1e5:
        return f"{value:.1e}".replace("e+", "e")
    return f"{round(value, 6):g}"


def _points(path: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in path)


def _stroke(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" '
        f'opacity="{opacity}"/>'
    )


def _text(
    x: float, y: float, text: str, anchor: str = "start", bold: bool = False, small: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{12 if small else 14}"'
        f'{weight} fill="currentColor">{html.escape(text)}</text>'
    )


def _svg(title: str, tall: int, parts: Sequence[str]) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {tall}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="system-ui, sans-serif">\n{inner}\n</svg>\n'
    )
