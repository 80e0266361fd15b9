"""Charts as SVG text. Colours and fonts are the page's: classes `s0`, `s1` ... are series, `rule` a grid line."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

Values = Sequence[float] | np.ndarray
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 32  # px around the field


class Chart:
    """A field with axes. Points are given in the axes' units and may lie outside: they are cut off."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        size: tuple[int, int] = (300, 190),
        labels: tuple[str, str] = ("", ""),
        log_y: bool = False,
        title: str = "",
        left: int = LEFT,
        right: int = RIGHT,
        rules: bool = True,
    ):
        """x, y: ends of the axes. labels: of the axes. title: what the chart shows, for those who do not see it.

        left, right: px beside the field. rules: whether y has ticks; without, `beside` names its places.
        """
        self.x, self.y, self.size, self.log_y, self.title = x, y, size, log_y, title
        self.left, self.right, self.rules = left, right, rules
        self._around, self._inside = list[str](), list[str]()
        self._axes(labels)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """px."""
        width, height = self.size
        low, high, value = (*self.y, y)
        if self.log_y:
            low, high, value = math.log(low), math.log(high), math.log(max(y, 1e-30))
        across = (x - self.x[0]) / (self.x[1] - self.x[0] or 1)
        up = (value - low) / (high - low or 1)
        return self.left + across * (width - self.left - self.right), height - BOTTOM - up * (height - TOP - BOTTOM)

    def line(self, x: Values, y: Values, style: str) -> None:
        if len(x):
            self._inside.append(f'<polyline class="line {style}" points="{self._points(x, y)}"/>')

    def area(self, x: Values, low: Values, high: Values, style: str) -> None:
        """What lies between two lines."""
        if len(x):
            points = f"{self._points(x, low)} {self._points(x[::-1], high[::-1])}"
            self._inside.append(f'<polygon class="area {style}" points="{points}"/>')

    def dots(self, x: Values, y: Values, style: str, radius: float = 3) -> None:
        for a, b in zip(x, y):
            left, top = self.place(a, b)
            self._inside.append(f'<circle class="dot {style}" cx="{left:.1f}" cy="{top:.1f}" r="{radius:g}"/>')

    def bar(self, x: tuple[float, float], y: float, style: str, told: str) -> None:
        """From the axis to y. told: shown on hovering."""
        (left, top), (right, bottom) = self.place(x[0], y), self.place(x[1], self.y[0])
        box = f'x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left):.1f}" height="{max(0, bottom - top):.1f}"'
        self._inside.append(f'<rect class="bar {style}" {box}><title>{escape(told)}</title></rect>')

    def block(self, x: tuple[float, float], y: float, style: str, told: str, high: int = 13) -> None:
        """A bar along x, `high` px, in the middle of a row. told: shown on hovering."""
        (left, middle), (right, _) = self.place(x[0], y), self.place(x[1], y)
        box = f'x="{left:.1f}" y="{middle - high / 2:.1f}" width="{max(0, right - left):.1f}" height="{high}"'
        self._inside.append(f'<rect class="bar {style}" {box}><title>{escape(told)}</title></rect>')

    def words(self, x: float, y: float, words: str, style: str = "") -> None:
        left, top = self.place(x, y)
        self._around.append(f'<text class="{style}" x="{left:.1f}" y="{top:.1f}">{escape(words)}</text>')

    def svg(self) -> str:
        width, height = self.size
        across, down = width - self.left - self.right, height - TOP - BOTTOM
        place = f'x="{self.left}" y="{TOP - 2}" width="{across + 2}" height="{down + 4}"'
        field = f'<svg {place} viewBox="{self.left} {TOP - 2} {across + 2} {down + 4}">{"".join(self._inside)}</svg>'
        around = f"{''.join(self._around)}{field}"
        return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.title)}">{around}</svg>'

    def beside(self, y: float, name: str, value: str) -> None:
        """Words on both sides of a place, and a line between."""
        top, end = self.place(self.x[0], y)[1], self.size[0]
        self._around.append(f'<path class="rule" d="M{self.left} {top:.1f}H{end - self.right}"/>')
        self._around.append(f'<text class="tick end" x="{self.left - 8}" y="{top + 3.5:.1f}">{escape(name)}</text>')
        self._around.append(
            f'<text class="value" x="{end - self.right + 8}" y="{top + 3.5:.1f}">{escape(value)}</text>'
        )

    def _rules(self) -> list[float]:
        if not self.rules:
            return []
        return log_ticks(*self.y) if self.log_y else ticks(*self.y, 4)

    def _axes(self, labels: tuple[str, str]) -> None:
        width, height = self.size
        for value in self._rules():
            top = self.place(self.x[0], value)[1]
            self._around.append(f'<path class="rule" d="M{self.left} {top:.1f}H{width - self.right}"/>')
            self._around.append(
                f'<text class="tick end" x="{self.left - 5}" y="{top + 3.5:.1f}">{number(value)}</text>'
            )
        for value in ticks(*self.x, 5):
            left = self.place(value, self.y[0])[0]
            anchor = "end" if left > width - self.right - 8 else "middle"
            place = f'x="{left:.1f}" y="{height - BOTTOM + 13}"'
            self._around.append(f'<text class="tick {anchor}" {place}>{number(value)}</text>')
        self._around.append(f'<path class="axis" d="M{self.left} {height - BOTTOM}H{width - self.right}"/>')
        middle = (self.left + width - self.right) / 2
        self._around.append(f'<text class="label middle" x="{middle}" y="{height - 4}">{escape(labels[0])}</text>')
        if labels[1]:
            turned = f'transform="translate(9 {(TOP + height - BOTTOM) / 2}) rotate(-90)"'
            self._around.append(f'<text class="label middle" {turned}>{escape(labels[1])}</text>')

    def _points(self, x: Values, y: Values) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in (self.place(float(u), float(v)) for u, v in zip(x, y)))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Of a logarithmic axis: some of every decade, the fewer the more there are."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 1.5, 2, 3, 5, 7) if high / low < 12 else (1, 2, 5) if high / low < 300 else (1,)
    return [v for d in decades for f in factors if low <= (v := f * 10.0**d) <= high]


def number(value: float) -> str:
    """A tick's words: short, and without a needless zero."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def spread(values: np.ndarray, margin: float = 0.06) -> tuple[float, float]:
    """Ends of an axis that shows all finite values, with a margin."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    return low - room, high + room
