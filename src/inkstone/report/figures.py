"""Figures beside their baselines: `figures.json` as bars.

`figures.json` is a list (or `{"figures": [list]}`, or one of its entries alone). An entry is

    {"title": "Bits per byte of held-out text", "unit": "bits per byte", "better": "lower", "note": "…",
     "rows": [{"name": "this model", "value": 1.62, "low": 1.60, "high": 1.64, "kind": "model"},
              {"name": "xz -9", "value": 2.31, "kind": "baseline"}]}

`title`, `note`, `unit` and a row's `name` may be `{"en": …, "zh": …}`. `unit` "proportion" shows percentages on a full scale. A
row's `kind` is "model" unless it says "baseline". Rows of any other shape become a table. An entry with `conversation` is a chat.
"""

from collections.abc import Sequence
from typing import Any

from inkstone.base.quantity import format_bytes
from inkstone.report.html import Html, both, el, escape, join, localized
from inkstone.report.numbers import figure, percent
from inkstone.report.run_data import RunData

MAX_ROWS = 60
_UNITS = {"bits per byte": "比特 / 字节", "nats per token": "奈特 / token"}


def figures(runs: Sequence[RunData]) -> Html | None:
    """Return every figure of every run; None when there is none."""
    drawn = []
    for run in runs:
        shown = [part for entry in run.figures if (part := _entry(entry)) is not None]
        if shown and len(runs) > 1:
            drawn.append(el("h3", run.name))
        if shown:
            drawn.append(el("div", *shown, class_="figures"))
    return join(*drawn) if drawn else None


def baseline_figure(
    bits_per_byte: float, baselines: dict[str, dict[str, float]], interval: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return the `figures.json` entry that sets a model's bits per byte beside `{"xz -9": {"bits_per_byte": …}, …}`.

    A baseline that learned from less than all of the training text says under `train_bytes` from how much; its bar names that.
    """
    own: dict[str, Any] = {"name": {"en": "this model", "zh": "本模型"}, "value": bits_per_byte, "kind": "model"}
    if interval is not None:
        own |= {"low": interval[0], "high": interval[1]}
    rows = [
        {"name": _baseline_name(name, found.get("train_bytes")), "value": found["bits_per_byte"], "kind": "baseline"}
        for name, found in baselines.items()
    ]
    return {
        "title": {"en": "Held-out text, against what needs no neural network", "zh": "验证文本：与不用神经网络的方法相比"},
        "unit": "bits per byte", "better": "lower", "rows": sorted([own, *rows], key=lambda row: row["value"]),
    }  # fmt: skip


def _baseline_name(name: str, train_bytes: float | None) -> str | dict[str, str]:
    if train_bytes is None:
        return name
    size = format_bytes(train_bytes)
    return {"en": f"{name} of {size}", "zh": f"{name}（{size} 训练文本）"}


def _entry(entry: dict[str, Any]) -> Html | None:
    rows = entry.get("rows")
    rows = [row for row in rows if isinstance(row, dict)][:MAX_ROWS] if isinstance(rows, list) else []
    if not rows:
        return None
    caption = el("figcaption", el("h3", localized(entry.get("title", ""))), _scale_note(entry))
    are_bars = all(_is_number(row.get("value")) and "name" in row for row in rows)
    body = _bars(entry, rows) if are_bars else _table(rows)
    note = el("p", localized(entry["note"]), class_="note") if entry.get("note") else None
    return el("figure", caption, body, note, class_="figure")


def _scale_note(entry: dict[str, Any]) -> Html | None:
    unit, better = entry.get("unit"), entry.get("better")
    words = []
    if unit and unit != "proportion":
        words.append(both(unit, _UNITS[unit]) if unit in _UNITS else localized(unit))
    if better in ("lower", "higher"):
        words.append(both("lower is better", "越低越好") if better == "lower" else both("higher is better", "越高越好"))
    return el("p", *[el("span", word) for word in words], class_="scale") if words else None


def _bars(entry: dict[str, Any], rows: list[dict[str, Any]]) -> Html:
    share = entry.get("unit") == "proportion"
    form = percent if share else figure
    top = max((float(max(row["value"], row.get("high", 0) if _is_number(row.get("high")) else 0)) for row in rows), default=0.0)
    full = 1.0 if share else top or 1.0
    lines = []
    for row in rows:
        value = float(row["value"])
        kind = "baseline" if row.get("kind") == "baseline" else "model"
        whisker = None
        if _is_number(row.get("low")) and _is_number(row.get("high")):
            low, high = _place(row["low"], full), _place(row["high"], full)
            whisker = el("i", class_="whisker", style=f"left:{low:.2f}%;width:{max(0.0, high - low):.2f}%")
        bar = el(
            "span", el("i", class_="bar", style=f"width:{_place(value, full):.2f}%"), whisker, class_="track", aria_hidden="true"
        )
        limits = el("small", f"{form(row['low'])} – {form(row['high'])}") if whisker is not None else None
        lines.append(el("li", el("span", localized(row["name"]), class_="name"), el("b", form(value), limits), bar, class_=kind))
    return el("ul", *lines, class_="bars")


def _table(rows: list[dict[str, Any]]) -> Html:
    names = list(dict.fromkeys(str(name) for row in rows for name in row))[:12]
    head = el("tr", *[el("th", name, scope="col") for name in names])
    body = [
        el("tr", *[el("td", _cell(row.get(name)), class_="num" if _is_number(row.get(name)) else None) for name in names])
        for row in rows
    ]
    return el("div", el("table", el("thead", head), el("tbody", *body)), class_="scroll", tabindex="0")


def _cell(value: Any) -> Html:
    if _is_number(value):
        return escape(f"{value:,}" if isinstance(value, int) else figure(value))
    return localized(value) if isinstance(value, dict | str) or value is None else escape(str(value)[:200])


def _place(value: float, full: float) -> float:
    return 100 * min(1.0, max(0.0, float(value) / full))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) != float("inf")
