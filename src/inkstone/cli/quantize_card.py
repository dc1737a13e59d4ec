"""What `inkstone quantize` says of a packed model: rows for the terminal, and the model's card."""

from typing import Any

from inkstone.base.quantity import format_bytes


def table_rows(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return (what, before, after, change) of each measured figure."""
    return [
        (
            "weights", format_bytes(figures["bytes_before"]), format_bytes(figures["bytes_after"]),
            f"{figures['bytes_before'] / figures['bytes_after']:.2f} times smaller",
        ),
        (
            "perplexity", _shown(figures["perplexity_before"]), _shown(figures["perplexity_after"]),
            f"{figures['perplexity_after'] / figures['perplexity_before'] - 1:+.2%}",
        ),
        (
            "tokens/s", _shown(figures["tokens_per_second_before"]), _shown(figures["tokens_per_second_after"]),
            "one stream, greedy",
        ),
        ("divergence", "", f"{figures['kl']:.2e}", "KL from the original, nats per token"),
        ("agreement", "", f"{figures['agreement']:.2%}", "same likeliest token"),
    ]  # fmt: skip


def notes(figures: dict[str, Any]) -> list[str]:
    """Return a line each on what was measured and what is not packed."""
    lines = [f"measured on {figures['tokens']:,} tokens of {figures['data']}"]
    lines.append(f"{figures['share_left']:.2%} of the weights stay in float (norms, biases, position and n-gram tables)")
    if figures.get("calibrated_on"):
        lines.append("calibrated on a text, so that the layers' outputs change least")
    if figures["left"]:
        lines.append(f"not packed, because their inputs are no multiple of 32: {', '.join(figures['left'])}")
    return lines


def card(name: str, source: str, figures: dict[str, Any]) -> str:
    """Return the README.md of a packed model's folder as Markdown; `source` is the name of the model that it was made from."""
    head = ["---", "pipeline_tag: text-generation", "tags:", "- inkstone", "- gpt", f"- {figures['scheme']}", "---", ""]
    about = [f"# {name}", "", f"`{source}` with its weights in {figures['scheme']}, made with Inkstone.", "", "## Figures", ""]
    table = ["| | before | after | |", "|---|---:|---:|---|"]
    table += [f"| {what} | {before} | {after} | {change} |" for what, before, after, change in table_rows(figures)]
    told = ["", *[f"- {line}" for line in notes(figures)]]
    use = ["", "## Use", "", "```", 'inkstone generate RUN --prompt "…"', "```", "", "`RUN` is this folder."]
    return "\n".join([*head, *about, *table, *told, *use]) + "\n"


def _shown(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
