"""A curve as inline SVG that stretches to any width: the lines are drawings, every letter around them is HTML.

The script reads each line's points from `data-x`, `data-y`, `data-low` and `data-high` and the axes from the plot's `data-*`, so
the read-out and the logarithmic axis need nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inkstone.report.html import Html, both, el, join
from inkstone.report.numbers import figure, percent
from inkstone.report.thinning import Curve, nice_ticks

WIDTH, HEIGHT = 1000, 400  # of the drawing's own coordinates; the page stretches it
NUM_COLORS = 8


@dataclass(frozen=True)
class Line:
    """One line of a chart. `style` is `train` or `val` for one run, or a run's `c0` … `c7`, with `thin` for the lesser line."""

    label: Html
    style: str
    curve: Curve


@dataclass(frozen=True)
class Axes:
    """The ranges of a chart, in the units of the data."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Return the drawing's x of a step."""
        return WIDTH * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        """Return the drawing's y of a value; up is smaller."""
        return HEIGHT * (1 - (value - self.y_low) / (self.y_high - self.y_low))


def chart(key: str, title: Html, lines: Sequence[Line], *, form: Callable[[float], str] = figure) -> Html:
    """Return a chart with its legend, which is also the read-out: it shows the last values, or those under the pointer."""
    axes = fit_axes([line.curve for line in lines])
    heading = f"chart-{key}"
    last_step = max(line.curve.x[-1] for line in lines)
    legend = [
        el("li", el("i", class_=f"swatch {line.style}"), el("span", line.label, class_="name"), " ",
           el("b", form(line.curve.y[-1]), class_="value"))
        for line in lines
    ]  # fmt: skip
    step = el("p", both("step", "第"), " ", el("b", f"{last_step:,.0f}", class_="at"), both("", " 步"), class_="step")
    caption = el("figcaption", el("h3", title, id=heading), step, el("ul", *legend, class_="legend", aria_live="off"))
    drawing = el(
        "svg",
        *[_line(line, axes) for line in lines],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    plot = el(
        "div", _y_labels(axes, form), drawing, _x_labels(axes), el("div", class_="cursor"),
        class_="plot", role="group", tabindex="0", aria_labelledby=heading, data_form="percent" if form is percent else "figure",
        data_x0=f"{axes.x_low:g}", data_x1=f"{axes.x_high:g}", data_y0=f"{axes.y_low:.6g}", data_y1=f"{axes.y_high:.6g}",
    )  # fmt: skip
    return el("figure", caption, plot, class_="chart", id=f"curve-{key}")


def fit_axes(curves: Sequence[Curve]) -> Axes:
    """Return ranges that hold every line with a little air; not every band, whose spikes would flatten the lines."""
    x_low = min(curve.x[0] for curve in curves)
    x_high = max(curve.x[-1] for curve in curves)
    y_low = min(min(curve.y) for curve in curves)
    y_high = max(max(curve.y) for curve in curves)
    air = 0.06 * (y_high - y_low) or 0.1 * abs(y_high) or 1.0
    floor = 0.0 if 0 <= y_low < 0.15 * y_high else y_low - air
    return Axes(x_low, x_high if x_high > x_low else x_low + 1, floor, y_high + air)


def _line(line: Line, axes: Axes) -> Html:
    curve = line.curve
    path = _polyline(axes, curve.x, curve.y)
    points = {"data_x": _numbers(curve.x), "data_y": _numbers(curve.y)}
    band = None
    if curve.has_band:
        upper = _polyline(axes, curve.x, curve.high)
        lower = _polyline(axes, curve.x[::-1], curve.low[::-1]).replace("M", "L", 1)
        band = el("path", class_="band", d=f"{upper}{lower}Z")
        points |= {"data_low": _numbers(curve.low), "data_high": _numbers(curve.high)}
    return el("g", band, el("path", class_="line", d=path), class_=f"series {line.style}", **points)


def _polyline(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> str:
    points = [f"{axes.x(x):.0f} {axes.y(y):.0f}" for x, y in zip(xs, ys, strict=True)]
    if len(points) == 1:
        points.append(points[0])  # a zero-length line with round ends is a dot
    return "M" + "L".join(points)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" if abs(value) < 1e4 or value != int(value) else f"{value:.0f}" for value in values)


def _y_labels(axes: Axes, form: Callable[[float], str]) -> Html:
    ticks = nice_ticks(axes.y_low, axes.y_high)
    places = [f"top:{100 * axes.y(tick) / HEIGHT:.2f}%" for tick in ticks]
    rules = [el("i", style=place) for place in places]
    labels = [el("span", form(tick), style=place) for tick, place in zip(ticks, places, strict=True)]
    return el("div", *rules, *labels, class_="y-axis", aria_hidden="true")


def _x_labels(axes: Axes) -> Html:
    linear = [(axes.x(tick) / WIDTH, tick) for tick in nice_ticks(axes.x_low, axes.x_high, 4)]
    low, high = math.log10(max(1.0, axes.x_low)), math.log10(max(2.0, axes.x_high))
    factors = (1, 2, 5) if high - low < 2 else (1,)
    ticks = [factor * 10.0**power for power in range(math.floor(low), math.floor(high) + 1) for factor in factors]
    logarithmic = [((math.log10(tick) - low) / (high - low), tick) for tick in ticks if low <= math.log10(tick) <= high]
    rows = []
    for name, marks in (("linear", linear), ("log", logarithmic)):
        labels = [el("span", f"{tick:,.0f}", style=f"left:{100 * place:.2f}%") for place, tick in marks]
        rows.append(el("div", *labels, class_=f"x-axis {name}"))
    return el("div", join(*rows), aria_hidden="true")
