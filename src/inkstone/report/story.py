"""The head of the page: the run's name, its story in one sentence, its way in five steps, and its key figures."""

from collections.abc import Callable, Sequence
from typing import Any

from inkstone.base.quantity import format_bytes, format_count, format_seconds
from inkstone.report.chart import NUM_COLORS
from inkstone.report.html import Html, both, el, join
from inkstone.report.numbers import chinese_count, chinese_seconds, count, duration, figure, percent, size
from inkstone.report.run_data import RunData


def story(run: RunData) -> Html | None:
    """Return what was done in one sentence, of the parts that are known; None when none is."""
    text_bytes = split_total(run, "bytes")
    vocab = model_number(run, "vocab_size")
    layers, params, tokens = model_number(run, "num_layers", "depth"), run.number("num_params"), run.number("tokens")
    seconds, bits, loss = run.number("seconds"), run.number("val_bits_per_byte"), run.number("val_loss")
    english, chinese = [], []
    if text_bytes:
        pieces = split_total(run, "tokens")
        kinds_en, kinds_zh = (f" of {vocab:,.0f} kinds", f"（共 {vocab:,.0f} 种）") if vocab else ("", "")
        cut_en, cut_zh = (
            (f" became {format_count(pieces)} tokens{kinds_en}", f"切成 {chinese_count(pieces)}个 token{kinds_zh}")
            if pieces
            else ("", "")
        )
        english.append(f"{format_bytes(text_bytes)} of text{cut_en}")
        chinese.append(f"{format_bytes(text_bytes)} 文本{cut_zh}")
    if params or tokens:
        size_en, size_zh = (f" with {format_count(params)} parameters", f"（{chinese_count(params)}参数）") if params else ("", "")
        depth_en, depth_zh = (f"{layers:.0f}-layer ", f" {layers:.0f} 层 ") if layers else ("", "")
        read_en = f" read {format_count(tokens)} tokens" if tokens else " was trained"
        read_zh = f"读了 {chinese_count(tokens)}个 token" if tokens else "完成训练"
        time_en, time_zh = (f" in {format_seconds(seconds)}", f"，用时 {chinese_seconds(seconds)}") if seconds else ("", "")
        english.append(f"a {depth_en}GPT{size_en}{read_en}{time_en}")
        chinese.append(f"一个{depth_zh}GPT{size_zh}{read_zh}{time_zh}")
    if bits:
        english.append(f"it now needs {figure(bits)} bits for each byte of text it has never seen")
        chinese.append(f"如今对没见过的文本，每字节只需 {figure(bits)} 比特")
    elif loss:
        english.append(f"its loss on text it has never seen is {figure(loss)} nats a token")
        chinese.append(f"在没见过的文本上，损失为每 token {figure(loss)} 奈特")
    if not english:
        return None
    sentence = "; ".join(english)
    return el("p", both(sentence[0].upper() + sentence[1:] + ".", "；".join(chinese) + "。"), class_="story")


def way(run: RunData) -> Html | None:
    """Return the run's way, data to tokenizer to model to training to use, one figure each; None when nothing is known."""
    model = section(run, "model")
    steps = []
    documents = split_total(run, "documents")
    if run.data:
        facts = [size(split_total(run, "bytes"))]
        facts += [join(count(documents), " ", both("documents", "篇文档"))] if documents else []
        steps.append((both("Text", "文本"), facts))
        tokens, num_bytes = split_total(run, "tokens"), split_total(run, "bytes")
        facts = [join(count(tokens), " ", both("tokens", "token"))] if tokens else []
        facts += (
            [both(f"{num_bytes / tokens:.2f} bytes each", f"每个 {num_bytes / tokens:.2f} 字节")] if tokens and num_bytes else []
        )
        steps.append((both("Tokenizer", "分词"), facts))
    if model or run.number("num_params"):
        preset = str(model.get("preset", "GPT"))
        layers, width = model_number(run, "num_layers", "depth"), model_number(run, "width")
        shape = f"{layers:.0f} × {width:.0f}" if layers and width else None
        params = run.number("num_params")
        facts = [join(" · ".join(filter(None, (preset, shape))))]
        facts += [join(count(params), " ", both("parameters", "参数"))] if params else []
        steps.append((both("Model", "模型"), facts))
    if run.steps:
        seconds = run.number("seconds")
        facts = [both(f"{run.steps:,} steps", f"{run.steps:,} 步")]
        facts += [duration(seconds)] if seconds else []
        steps.append((both("Training", "训练"), facts))
    loss = run.number("val_loss")
    if loss is not None:
        talks = any(isinstance(entry.get("conversation"), list) for entry in run.figures)
        result = both(f"validation loss {figure(loss)}", f"验证损失 {figure(loss)}")
        link = el("a", both("Read a conversation", "看一段对话"), href="#chat")
        steps.append((both("Chat", "对话"), [link]) if talks else (both("Result", "结果"), [result]))
    if not steps:
        return None
    return el("ol", *[el("li", el("h2", name), *[el("p", fact) for fact in facts]) for name, facts in steps], class_="way")


def cards(run: RunData) -> Html | None:
    """Return the key figures that are known, each with a plain sentence; None when none is."""
    found = [
        el("div", el("dt", name), el("dd", shown, class_="value"), el("dd", meaning, class_="meaning") if meaning else None)
        for key, name, show, explain in KEY_FIGURES
        if (value := run.number(key)) is not None
        for shown, meaning in [(show(value), explain(value) if explain else None)]
    ]
    return el("dl", *found, class_="cards") if found else None


def verdict(runs: Sequence[RunData]) -> Html | None:
    """Return which run ends best on held-out text, in bits per byte where known (they compare across tokenizers); None without two."""
    for name, english, chinese in (
        ("val_bits_per_byte", "bits per byte", "比特 / 字节"),
        ("val_loss", "nats per token", "奈特 / token"),
    ):
        scored = sorted((value, index) for index, run in enumerate(runs) if (value := run.number(name)) is not None)
        if len(scored) < 2:
            continue
        value, index = scored[0]
        best, next_best, gap = runs[index].name, runs[scored[1][1]].name, scored[1][0] - value
        if not gap:
            return el(
                "p",
                both(f"The best two end level, at {figure(value)} {english}.", f"最好的两个打平：{figure(value)} {chinese}。"),
                class_="story",
            )
        en = f"{best} ends lowest on held-out text, at {figure(value)} {english}; {next_best} follows {figure(gap)} behind."
        zh = f"在验证文本上，{best} 最低，为 {figure(value)} {chinese}；其次是 {next_best}，相差 {figure(gap)}。"
        return el("p", both(en, zh), class_="story")
    return None


def comparison(runs: Sequence[RunData]) -> Html:
    """Return a table of the key figures of several runs; each run has the colour of its curves."""
    known = [row for row in KEY_FIGURES if any(run.number(row[0]) is not None for run in runs)]
    head = el("tr", el("th", both("run", "运行"), scope="col"), *[el("th", row[1], scope="col", class_="num") for row in known])
    body = []
    for index, run in enumerate(runs):
        name = join(el("i", class_=f"swatch c{index % NUM_COLORS}" + (" dashed" if index >= NUM_COLORS else "")), run.name)
        cells = [(run.number(key), show) for key, _, show, _ in known]
        body.append(
            el("tr", el("th", name, scope="row"), *[el("td", "—" if v is None else show(v), class_="num") for v, show in cells])
        )
    table = el("table", el("thead", head), el("tbody", *body))
    return el("div", table, class_="scroll", tabindex="0", role="region", aria_labelledby="title")


def section(run: RunData, name: str) -> dict[str, Any]:
    """Return one section of the run's config, empty where there is none."""
    found = run.config.get(name)
    return found if isinstance(found, dict) else {}


def model_number(run: RunData, *names: str) -> float | None:
    """Return the first positive number of these names in the model's config, then in the data's manifest; None if unknown."""
    for source in (section(run, "model"), run.data):
        for name in names:
            value = source.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(value)
    return None


def split_total(run: RunData, name: str) -> float:
    """Return `tokens`, `bytes` or `documents` summed over the data's splits; 0 where unknown."""
    splits = run.data.get("splits")
    values = [split.get(name) for split in splits.values() if isinstance(split, dict)] if isinstance(splits, dict) else []
    return float(sum(value for value in values if isinstance(value, int | float)))


def _same(form: Callable[[float], str]) -> Callable[[float], Html]:
    return lambda value: join(form(value))


KEY_FIGURES: tuple[tuple[str, Html, Callable[[float], Html], Callable[[float], Html] | None], ...] = (
    ("val_bits_per_byte", both("Bits per byte", "每字节比特数"), _same(figure),
     lambda v: both(f"packs unseen text into {v / 8:.0%} of its size", f"可把没见过的文本压到原大小的 {v / 8:.0%}")),
    ("val_loss", both("Validation loss", "验证损失"), _same(figure), lambda _: both("nats per token", "奈特 / token")),
    ("val_perplexity", both("Perplexity", "困惑度"), _same(figure),
     lambda v: both(f"as unsure as among {figure(v)} equal choices", f"相当于在 {figure(v)} 个同等选项间犹豫")),
    ("val_accuracy", both("Accuracy", "准确率"), _same(percent),
     lambda _: both("of next tokens guessed right", "下一个 token 猜中的比例")),
    ("tokens", both("Tokens read", "读过的 token"), count, None),
    ("seconds", both("Time", "用时"), duration, None),
    ("num_params", both("Parameters", "参数量"), count, None),
    ("tokens_per_second", both("Tokens per second", "每秒 token 数"), count, None),
)  # fmt: skip
