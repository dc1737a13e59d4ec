"""The dataset card: what a prepared folder holds, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from inkstone.base.quantity import format_bytes

_MAX_SOURCES = 50


def render_card(manifest: Mapping[str, Any]) -> str:
    """Return the card of a manifest as Markdown; the same manifest gives the same text."""
    lines = ["# Prepared data", "", f"Made by `inkstone data prepare`. {_summary(manifest)}", ""]
    lines += ["## Splits", "", *_table(("split", "documents", "tokens", "bytes", "bytes per token"), _split_rows(manifest)), ""]
    divided = f"Divided by: {manifest['split']} (seed {manifest['seed']})."
    lines += [f"{divided} Training documents that equal a validation document, left out: {manifest['overlap']:,}.", ""]
    lines += ["## Scripts", "", "By the letters at the beginning of each document.", ""]
    total = sum(row["bytes"] for row in manifest["scripts"].values()) or 1
    rows = [(name, f"{row['documents']:,}", f"{100 * row['bytes'] / total:.1f} %") for name, row in manifest["scripts"].items()]
    lines += [*_table(("script", "documents", "share of bytes"), rows), "", "## Left out", ""]
    lines += _dropped(manifest)
    lines += ["", "## Changed in the text", "", *(_counts(manifest["cleaned"]) or ["Nothing but line ends."])]
    lines += ["", "## Sources", ""]
    shown = manifest["sources"][:_MAX_SOURCES]
    lines += _table(("source", "format", "documents"), [(_cell(s["name"]), s["format"], f"{s['documents']:,}") for s in shown])
    if len(manifest["sources"]) > _MAX_SOURCES:
        lines += ["", f"… and {len(manifest['sources']) - _MAX_SOURCES:,} more (see manifest.json)."]
    lines += [
        "",
        "## Licence",
        "",
        "Unknown: the sources do not say. Check the rights of every source before you share this data or a model made from it.",
        "",
    ]
    return "\n".join(lines)


def _summary(manifest: Mapping[str, Any]) -> str:
    return (
        f"{manifest['documents_out']:,} of {manifest['documents_in']:,} documents kept; {manifest['kind']}; tokenizer: "
        f"{manifest['tokenizer']} with {manifest['vocab_size']:,} ids (fingerprint {manifest['tokenizer_fingerprint'][:12]})."
    )


def _split_rows(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name, f"{entry['documents']:,}", f"{entry['tokens']:,}", format_bytes(entry["bytes"]),
            f"{entry['bytes'] / max(1, entry['tokens']):.2f}",
        )
        for name, entry in manifest["splits"].items()
    ]  # fmt: skip


def _dropped(manifest: Mapping[str, Any]) -> list[str]:
    if not manifest["dropped"]:
        return ["Nothing."]
    lines = []
    for reason, count in manifest["dropped"].items():
        lines.append(f"- {reason}: {count:,}")
        lines += [f"  - `{_cell(sample).replace('`', ' ')}`" for sample in manifest["dropped_samples"].get(reason, [])]
    return lines


def _counts(counts: Mapping[str, int]) -> list[str]:
    return [f"- {name}: {count:,}" for name, count in counts.items()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
