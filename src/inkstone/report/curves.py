"""The section of curves: which quantities are drawn together, under which name, for one run or several."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inkstone.report.chart import HEIGHT, NUM_COLORS, WIDTH, Line, chart
from inkstone.report.html import Html, both, el, escape, join
from inkstone.report.numbers import figure, percent
from inkstone.report.run_data import RunData
from inkstone.report.thinning import thin

MAX_POINTS = 240  # a line on a screen shows no more
MAX_POINTS_TOGETHER = 1200  # per chart, so that a page of many runs stays small


@dataclass(frozen=True)
class Quantity:
    """One chart: the measured fields it draws, `train` first where there are two."""

    key: str
    english: str
    chinese: str
    fields: tuple[str, ...]
    form: Callable[[float], str] = figure
    width: str = "third"


QUANTITIES = (
    Quantity("loss", "Loss, nats per token", "损失（奈特 / token）", ("loss", "val_loss"), width="whole"),
    Quantity("bits", "Bits per byte, held out", "每字节比特数（验证集）", ("val_bits_per_byte",), width="half"),
    Quantity("accuracy", "Accuracy, next token", "准确率（下一个 token）", ("accuracy", "val_accuracy"), percent, "half"),
    Quantity("lr", "Learning rate", "学习率", ("lr",)),
    Quantity("grad", "Gradient norm", "梯度范数", ("grad_norm",)),
    Quantity("speed", "Tokens per second", "每秒 token 数", ("tokens_per_second",)),
)


def curves(runs: Sequence[RunData]) -> Html | None:
    """Return all charts for which any run has measurements; None when there are none."""
    rows = []
    for width in ("whole", "half", "third"):
        charts = [drawn for quantity in QUANTITIES if quantity.width == width and (drawn := _chart(quantity, runs)) is not None]
        rows += [el("div", *charts, class_=f"charts {width}")] if charts else []
    if not rows:
        return None
    note = both(
        "Point at a curve, or focus it and use the arrow keys, to read it. The soft band is the spread behind each point.",
        "把指针移到曲线上（或选中后按方向键）即可读数。浅色带是一个点所代表的各步的取值范围。",
    )
    button = el(
        "button", both("Logarithmic steps", "对数步数轴"), type="button", id="log-x", class_="needs-script", aria_pressed="false"
    )
    return join(el("div", el("p", note, class_="note"), button, class_="row"), *rows)


def stroke(run: RunData) -> Html | None:
    """Return the run as one brush stroke: the training loss, as heavy as the gradient was long; None without enough steps."""
    loss, grad = run.series.get("loss"), run.series.get("grad_norm")
    if loss is None or len(loss.steps) < 8 or loss.steps[-1] == loss.steps[0]:
        return None
    line = thin(loss.steps, _smooth(loss.values), 110)
    low, high = min(line.y), max(line.y)
    weights = [1.0] * len(line.x)
    if grad is not None and len(grad.steps) > 1:
        weights = _weights(grad.steps, grad.values, line.x)
    upper, lower = [], []
    for x, y, weight in zip(line.x, line.y, weights, strict=True):
        place = WIDTH * (x - line.x[0]) / (line.x[-1] - line.x[0])
        middle = 40 + (HEIGHT - 80) * (1 - (y - low) / (high - low or 1.0))
        upper.append(f"{place:.0f} {middle - 26 * weight:.0f}")
        lower.append(f"{place:.0f} {middle + 26 * weight:.0f}")
    outline = "M" + "L".join(upper) + "L" + "L".join(reversed(lower)) + "Z"
    drawing = el("svg", el("path", d=outline), viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none", aria_hidden="true")
    ends = join(
        el("span", figure(loss.values[0]), class_="from"),
        el("span", figure(line.y[-1]), class_="to", style=f"bottom:{100 * 40 / HEIGHT + 8:.0f}%"),
    )
    words = both(
        "The training loss as one stroke, first step to last; it is as heavy as the gradient was long.",
        "一笔写尽训练：笔迹是训练损失的走势，笔锋的轻重是梯度的大小。",
    )
    return el("figure", el("div", drawing, ends, class_="stroke"), el("figcaption", words), class_="hero")


def _chart(quantity: Quantity, runs: Sequence[RunData]) -> Html | None:
    present = [(index, run, name) for index, run in enumerate(runs) for name in quantity.fields if name in run.series]
    if not present:
        return None
    budget = min(MAX_POINTS, max(24, MAX_POINTS_TOGETHER // len(present)))
    lines = []
    for index, run, name in present:
        series = run.series[name]
        is_val = name.startswith("val_")
        role = both("validation", "验证") if is_val else both("training", "训练")
        if len(runs) == 1:
            label, style = role, "val" if is_val else "train"
        else:
            alone = len(quantity.fields) == 1
            label = escape(run.name) if alone else join(run.name, " · ", role)
            style = f"c{index % NUM_COLORS}" + (" dashed" if index >= NUM_COLORS else "") + ("" if is_val or alone else " thin")
        curve = thin(series.steps, series.values, budget)
        if len(runs) > 1:  # the bands of several runs would cover each other
            curve = replace(curve, low=curve.y, high=curve.y)
        lines.append(Line(label, style, curve))
    return chart(quantity.key, both(quantity.english, quantity.chinese), lines, form=quantity.form)


def _smooth(values: Sequence[float], share: float = 0.02) -> list[float]:
    """Return a running mean that looks back about `share` of the curve."""
    keep = 1 - 1 / max(2.0, len(values) * share)
    mean, smoothed = values[0], []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        smoothed.append(mean)
    return smoothed


def _weights(steps: Sequence[int], values: Sequence[float], at: Sequence[float]) -> list[float]:
    """Return pressures in [0.12, 1] from the gradient norms nearest to the places `at`, on a logarithmic scale."""
    curve = thin(steps, _smooth(values, 0.05), len(at))
    heights = [math.log(max(value, 1e-12)) for value in curve.y]
    low, high = min(heights), max(heights)
    pressure = [0.12 + 0.88 * (height - low) / (high - low or 1.0) for height in heights]
    found, cursor = [], 0
    for place in at:
        while cursor + 1 < len(curve.x) and abs(curve.x[cursor + 1] - place) <= abs(curve.x[cursor] - place):
            cursor += 1
        found.append(pressure[cursor])
    return found
