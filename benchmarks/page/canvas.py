"""Small line pictures as SVG text: panels with axes, lines, bands, dots, words.

Written by hand, so that a picture is a few kilobytes, follows the reader's light or dark page, and
is the same file each time it is made. The one thing not to break: colours are classes, never
attributes, or half of the readers see dark on dark.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ink = Literal["ours", "other", "third", "bad", "grey"]

#: Light, dark.
_INKS: Final[dict[Ink, tuple[str, str]]] = {
    "ours": ("#0969da", "#58a6ff"),
    "other": ("#bc4c00", "#f0883e"),
    "third": ("#1a7f37", "#3fb950"),
    "bad": ("#cf222e", "#ff7b72"),
    "grey": ("#6e7781", "#8b949e"),
}
_PAGE: Final = (("#ffffff", "#24292f", "#d8dee4"), ("#0d1117", "#e6edf3", "#30363d"))
#: A line keeps the least and the greatest of so many stretches: no pixel shows more.
_STRETCHES: Final = 260


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From `low` to `high`, named with its unit; `ticks` are places and what is written there."""

    low: float
    high: float
    title: str
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, values: Floats) -> Floats:
        """Give where values lie, 0 to 1; beyond the ends at the ends."""
        low, high = self.low, self.high
        if self.log:
            values = np.log(np.maximum(values, low))
            low, high = math.log(low), math.log(high)
        places: Floats = np.clip((values - low) / (high - low), 0.0, 1.0)
        return places


class Panel:
    """One pair of axes inside a picture, `left` to `left + width` and `top` to `top + height`."""

    def __init__(self, x: Axis, y: Axis, box: tuple[float, float, float, float]) -> None:
        self._x, self._y = x, y
        self._left, self._top, self._width, self._height = box
        self.parts: list[str] = []
        self._frame()

    def _frame(self) -> None:
        left, top, right = self._left, self._top, self._left + self._width
        bottom = top + self._height
        for value, text in self._y.ticks:
            y = self._at_y(value)
            self.parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
            self._word(left - 6, y + 4, text, "end")
        for value, text in self._x.ticks:
            x = self._at_x(value)
            self.parts.append(f'<path class="axis" d="M{x:.1f} {bottom:.1f}v4"/>')
            self._word(x, bottom + 18, text, "middle")
        self.parts.append(f'<path class="axis" d="M{left:.1f} {bottom:.1f}H{right:.1f}"/>')
        self._word(left + self._width / 2, bottom + 38, self._x.title, "middle")
        middle = top + self._height / 2
        self.parts.append(
            f'<text class="mid" transform="translate({max(left - 62, 14):.1f} {middle:.1f}) '
            f'rotate(-90)">{html.escape(self._y.title)}</text>'
        )

    def line(self, xs: Floats, ys: Floats, ink: Ink, *, dashed: bool = False) -> None:
        """Draw a line through the points, in their order."""
        xs, ys = _fewer(np.asarray(xs, np.float64), np.asarray(ys, np.float64))
        kind = f"line {ink} dashed" if dashed else f"line {ink}"
        self.parts.append(f'<path class="{kind}" d="{self._path(xs, ys)}"/>')

    def band(self, xs: Floats, low: Floats, high: Floats, ink: Ink) -> None:
        """Fill between two lines."""
        around = np.concatenate([xs, xs[::-1]]), np.concatenate([low, high[::-1]])
        self.parts.append(f'<path class="band {ink}" d="{self._path(*around)}Z"/>')

    def dots(self, xs: Floats, ys: Floats, ink: Ink) -> None:
        """Draw a dot at each point; all of them are one path."""
        points = zip(self._xs(xs), self._ys(ys), strict=True)
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
        self.parts.append(f'<path class="dots {ink}" d="{path}"/>')

    def level(self, value: float, ink: Ink) -> None:
        """Draw a dashed line all the way across."""
        ends = np.array([self._x.low, self._x.high])
        self.line(ends, np.array([value, value]), ink, dashed=True)

    def mark(self, value: float, text: str, *, share: float = 1.0, anchor: str = "start") -> None:
        """Draw a thin line upwards at an x with a word beside its top, at a share of the height."""
        x, top = self._at_x(value), self._top + self._height * (1 - share)
        self.parts.append(
            f'<path class="axis" d="M{x:.1f} {top:.1f}V{self._top + self._height:.1f}"/>'
        )
        self._word(x + (5 if anchor == "start" else -5), top + 11, text, anchor)

    def word(
        self, x: float, y: float, text: str, *, ink: Ink | None = None, anchor: str = "start"
    ) -> None:
        """Write at a point of the axes."""
        self._word(self._at_x(x), self._at_y(y), text, anchor, ink)

    def _word(self, x: float, y: float, text: str, anchor: str, ink: Ink | None = None) -> None:
        kind = {"start": "", "middle": "mid", "end": "end"}[anchor]
        kind = f"{kind} {ink}".strip() if ink else kind
        named = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{named} x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>')

    def _path(self, xs: Floats, ys: Floats) -> str:
        points = zip(self._xs(xs), self._ys(ys), strict=True)
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)

    def _xs(self, values: Floats) -> list[float]:
        places: list[float] = (
            self._left + self._x.place(np.asarray(values)) * self._width
        ).tolist()
        return places

    def _ys(self, values: Floats) -> list[float]:
        shares = 1 - self._y.place(np.asarray(values))
        places: list[float] = (self._top + shares * self._height).tolist()
        return places

    def _at_x(self, value: float) -> float:
        return self._xs(np.array([value]))[0]

    def _at_y(self, value: float) -> float:
        return self._ys(np.array([value]))[0]


def picture(panels: Iterable[Panel], *, title: str, size: tuple[int, int] = (720, 330)) -> str:
    """Give the panels as one SVG; `title` says what is to be seen to those who cannot see it."""
    width, height = size
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        *(part for panel in panels for part in panel.parts),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _style() -> str:
    rules = [
        "text{font:13px system-ui,sans-serif}.mid{text-anchor:middle}.end{text-anchor:end}",
        "path{fill:none}.grid{stroke-width:1}.axis{stroke-width:1}",
        ".line{stroke-width:2;stroke-linejoin:round}.dashed{stroke-dasharray:6 4}",
        ".dots{stroke-width:4;stroke-linecap:round;opacity:.7}.band{stroke:none;opacity:.18}",
    ]
    dark = "".join(_colours(1))
    return "".join([*rules, *_colours(0), f"@media(prefers-color-scheme:dark){{{dark}}}"])


def _colours(theme: int) -> Iterable[str]:
    page, ink, grid = _PAGE[theme]
    yield f".page{{fill:{page}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}.axis{{stroke:{ink}}}"
    for name, colours in _INKS.items():
        colour = colours[theme]
        yield f".line.{name},.dots.{name}{{stroke:{colour}}}"
        yield f".band.{name},text.{name}{{fill:{colour}}}"


def _fewer(xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
    """Keep the least and the greatest point of each stretch of a long line."""
    if len(xs) <= 2 * _STRETCHES:
        return xs, ys
    kept: set[int] = {0, len(xs) - 1}
    for part in np.array_split(np.arange(len(xs)), _STRETCHES):
        kept |= {int(part[np.argmin(ys[part])]), int(part[np.argmax(ys[part])])}
    order = sorted(kept)
    return xs[order], ys[order]
