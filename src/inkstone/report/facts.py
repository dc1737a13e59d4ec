"""The quiet end of the page: the data card, the settings and the machine."""

from collections.abc import Sequence
from typing import Any

from inkstone.base.quantity import format_bytes
from inkstone.report.html import Html, both, el, escape, join
from inkstone.report.numbers import count
from inkstone.report.run_data import RunData

MAX_CONFIG_TEXT = 20_000
MAX_FACTS = 80
_COUNTED = {"documents": both("documents", "篇文档"), "tokens": both("tokens", "个 token")}
_REASONS = {
    "duplicate": both("duplicate", "重复"), "duplicates": both("duplicates", "重复"), "empty": both("empty", "空文档"),
    "too_short": both("too short", "过短"), "too_long": both("too long", "过长"),
}  # fmt: skip


def data_card(run: RunData) -> Html | None:
    """Return what the model learned from: splits, sources, what was dropped; None when nothing is known."""
    splits = run.data.get("splits")
    details: dict[str, Any] = {name: run.data[name] for name in ("kind", "vocab_size", "dtype", "seed") if name in run.data}
    if "tokenizer_fingerprint" in run.data:
        details["tokenizer"] = str(run.data["tokenizer_fingerprint"])[:12]
    parts = [
        _splits({name: split for name, split in splits.items() if isinstance(split, dict)}) if isinstance(splits, dict) else None,
        _sources(run.data.get("sources")),
        _dropped(run.data),
        _list(details),
    ]
    shown = [part for part in parts if part is not None]
    return el("div", *shown, class_="data-card") if shown else None


def machine(run: RunData) -> Html | None:
    """Return the machine's facts; None when nothing is known."""
    facts = flatten(run.machine)
    for name, value in facts.items():
        if ("memory" in name or name.endswith("bytes")) and isinstance(value, int | float) and value > 1e6:
            facts[name] = format_bytes(value)
    return _list(facts)


def config(runs: Sequence[RunData]) -> Html | None:
    """Return the settings: of one run by section, of several those that differ; and each file as it stands."""
    having = [run for run in runs if run.config_text]
    if not having:
        return None
    top = _sections(having[0].config) if len(runs) == 1 else _differences(having)
    files = [
        el("details", el("summary", join(f"{run.name}/" if len(runs) > 1 else None, "config.toml")),
           el("pre", el("code", run.config_text[:MAX_CONFIG_TEXT // len(having)]), tabindex="0"))
        for run in having
    ]  # fmt: skip
    return join(top, *files)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as dotted names.

    >>> flatten({"train": {"seed": 1}})
    {'train.seed': 1}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _splits(splits: dict[str, dict[str, Any]]) -> Html | None:
    if not splits:
        return None
    columns = (("tokens", both("tokens", "token")), ("bytes", both("text", "文本")), ("documents", both("documents", "文档")))
    head = el(
        "tr", el("th", both("split", "划分"), scope="col"), *[el("th", title, scope="col", class_="num") for _, title in columns]
    )
    names = {"train": both("training", "训练"), "val": both("held out", "验证")}
    rows = []
    for name, split in splits.items():
        cells = []
        for key, _ in columns:
            value = split.get(key)
            shown: Any = "—"
            if isinstance(value, int | float):
                shown = format_bytes(value) if key == "bytes" else count(value)
            cells.append(el("td", shown, class_="num"))
        rows.append(el("tr", el("th", names.get(name, escape(name)), scope="row"), *cells))
    return el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll")


def _sources(sources: Any) -> Html | None:
    if not isinstance(sources, list) or not sources:
        return None
    rows = []
    for source in sources[:20]:
        if isinstance(source, dict):
            name = source.get("name") or source.get("path") or source.get("source") or next(iter(source.values()), "")
            rows.append(el("li", el("span", str(name)[:200]), _source_numbers(source)))
        else:
            rows.append(el("li", str(source)[:200]))
    more = len(sources) - len(rows)
    rows += [el("li", both(f"and {more:,} more", f"另有 {more:,} 个"))] if more else []
    return el("div", el("h3", both("Sources", "来源")), el("ul", *rows, class_="sources"))


def _source_numbers(source: dict[str, Any]) -> Html | None:
    shown: list[Html | str] = []
    for key, value in source.items():
        if isinstance(value, int) and not isinstance(value, bool):
            shown.append(format_bytes(value) if key == "bytes" else join(f"{value:,} ", _COUNTED.get(key, key)))
    return el("small", *[part for value in shown for part in (" · ", value)][1:]) if shown else None


def _dropped(data: dict[str, Any]) -> Html | None:
    dropped = data.get("dropped")
    counts = {name: n for name, n in dropped.items() if isinstance(n, int) and n} if isinstance(dropped, dict) else {}
    went_in, came_out = data.get("documents_in"), data.get("documents_out")
    words = None
    if isinstance(went_in, int) and isinstance(came_out, int):
        words = el("p", both(f"{came_out:,} of {went_in:,} documents were kept.", f"{went_in:,} 篇文档中保留了 {came_out:,} 篇。"))
    rows = [el("li", _REASONS.get(name, escape(name.replace("_", " "))), el("small", f"{n:,}")) for name, n in counts.items()]
    if words is None and not rows:
        return None
    return el("div", el("h3", both("Left out", "舍弃")), words, el("ul", *rows, class_="sources") if rows else None)


def _sections(config: dict[str, Any]) -> Html | None:
    loose = {name: value for name, value in config.items() if not isinstance(value, dict)}
    groups = ([("", loose)] if loose else []) + [
        (name, value) for name, value in config.items() if isinstance(value, dict) and value
    ]
    parts = [el("div", el("h3", name) if name else None, _list(flatten(values))) for name, values in groups]
    return el("div", *parts, class_="settings") if parts else None


def _differences(runs: Sequence[RunData]) -> Html | None:
    flat = [flatten(run.config) for run in runs]
    names = list(dict.fromkeys(name for values in flat for name in values))
    differing = [name for name in names if len({str(values.get(name)) for values in flat}) > 1][:MAX_FACTS]
    if not differing:
        return el("p", both("All settings are the same.", "所有设置相同。"))
    head = el("tr", el("th", both("setting", "设置"), scope="col"), *[el("th", run.name, scope="col") for run in runs])
    rows = [
        el(
            "tr",
            el("th", el("code", name), scope="row"),
            *[el("td", _value(values[name]) if name in values else "—") for values in flat],
        )
        for name in differing
    ]
    return el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll", tabindex="0")


def _list(values: dict[str, Any]) -> Html | None:
    rows = [
        el("div", el("dt", name.replace("_", " ")), el("dd", _value(value))) for name, value in list(values.items())[:MAX_FACTS]
    ]
    return el("dl", *rows, class_="facts") if rows else None


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value[:20])
    text = f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)
    return text if len(text) <= 120 else text[:117] + "…"
