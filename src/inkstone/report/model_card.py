"""The model card of a run: README.md with YAML front matter, from what the run folder says."""

import json
import re
from pathlib import Path
from typing import Any

from inkstone.base.files import explain_os_errors, write_atomic
from inkstone.base.quantity import format_bytes, format_count, format_seconds
from inkstone.report.html import has_chinese
from inkstone.report.numbers import figure, percent
from inkstone.report.run_data import RunData, read_run
from inkstone.report.story import model_number, split_total

_METRICS = (
    ("val_loss", "Validation loss (nats per token)", "loss"),
    ("val_perplexity", "Perplexity", "perplexity"),
    ("val_bits_per_byte", "Bits per byte", "bits_per_byte"),
    ("val_accuracy", "Next-token accuracy", "accuracy"),
)


def write_model_card(run: Path) -> Path:
    """Write `README.md` into the run folder from its other files and return its path.

    Raises: DataError when `run` is not a run, ResourceError when the file cannot be written.
    """
    path = Path(run) / "README.md"
    with explain_os_errors(str(path)):
        write_atomic(path, model_card(read_run(run)))
    return path


def model_card(run: RunData) -> str:
    """Return the card as Markdown; it says nothing that the run does not know, a licence included."""
    parts = [f"# {_line(run.name)}", _what(run)]
    for title, body in (("Figures", _figures(run)), ("Training", _training(run)), ("Data", _data(run)), ("Samples", _samples(run))):
        if body:
            parts.append(f"## {title}\n\n{body}")
    parts.append("## Use\n\n```\ninkstone generate RUN --prompt \"…\"\n```\n\n`RUN` is this folder.")  # fmt: skip
    return _front_matter(run) + "\n" + "\n\n".join(parts) + "\n"


def languages(run: RunData) -> list[str]:
    """Return the languages of the samples, `en` and `zh`, as far as the letters tell."""
    text = "".join(sample.prompt + sample.text for sample in run.samples)
    found = ["en"] if re.search("[A-Za-z]{3}", text) else []
    return [*found, "zh"] if has_chinese(text) else found


def _front_matter(run: RunData) -> str:
    """Return YAML between its fences; strings are written as JSON, which YAML reads as they are."""
    lines = ["---"]
    spoken = languages(run)
    if spoken:
        lines += ["language:", *[f"- {name}" for name in spoken]]
    lines += ["pipeline_tag: text-generation", "tags:", "- inkstone", "- gpt"]
    results = [(key, run.number(name)) for name, _, key in _METRICS]
    if any(value is not None for _, value in results):
        lines += [
            "model-index:", f"- name: {_yaml(run.name)}", "  results:", "  - task:", "      type: text-generation", "    dataset:",
            "      name: validation split", "      type: held-out", "    metrics:",
        ]  # fmt: skip
        for key, value in results:
            lines += [f"    - type: {key}", f"      value: {value:.6g}"] if value is not None else []
    return "\n".join([*lines, "---"]) + "\n"


def _what(run: RunData) -> str:
    layers, params, tokens = model_number(run, "num_layers", "depth"), run.number("num_params"), run.number("tokens")
    words = "A GPT" if not layers else f"A {layers:.0f}-layer GPT"
    words += f" with {format_count(params)} parameters" if params else ""
    words += f", trained on {format_count(tokens)} tokens" if tokens else ""
    return f"{words}, made with Inkstone."


def _figures(run: RunData) -> str:
    rows = []
    for name, title, _ in _METRICS:
        value = run.number(name)
        if value is not None:
            rows.append(f"| {title} | {percent(value) if name == 'val_accuracy' else figure(value)} |")
    return "\n".join(["| on held-out text | |", "|---|---:|", *rows]) if rows else ""


def _training(run: RunData) -> str:
    rows = []
    if run.steps:
        rows.append(f"- steps: {run.steps:,}")
    seconds, speed = run.number("seconds"), run.number("tokens_per_second")
    rows += [f"- time: {format_seconds(seconds)}"] if seconds else []
    rows += [f"- tokens per second: {format_count(speed)}"] if speed else []
    rows += [f"- {_line(name)}: {_line(value)}" for name, value in run.machine.items() if isinstance(value, str | int | float)]
    config = f"\n\n{fenced(run.config_text.strip(), 'toml')}" if run.config_text.strip() else ""
    return ("\n".join(rows) + config).strip()


def _data(run: RunData) -> str:
    rows = []
    documents, num_bytes, tokens = (split_total(run, name) for name in ("documents", "bytes", "tokens"))
    rows += [f"- documents: {documents:,.0f}"] if documents else []
    rows += [f"- text: {format_bytes(num_bytes)}"] if num_bytes else []
    rows += [f"- tokens: {tokens:,.0f}"] if tokens else []
    return "\n".join(rows)


def _samples(run: RunData) -> str:
    if not run.samples:
        return ""
    last = run.samples[-1].step
    newest = [sample for sample in run.samples if sample.step == last]
    return "\n\n".join([f"After {last:,} steps.", *[fenced(sample.prompt + sample.text[:2000], "text") for sample in newest[:6]]])


def fenced(text: str, language: str) -> str:
    """Return a code block whose fence is longer than any run of backticks in the text, so that no text can leave it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _line(value: Any) -> str:
    """Return a value as one line of Markdown text that starts no markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(value).split()))


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)
