"""`inkstone data prepare`: clean, dedup, split and tokenize text into shards."""

import argparse
from pathlib import Path
from typing import Any

from inkstone.base.log import say
from inkstone.base.quantity import format_bytes, format_count, format_seconds
from inkstone.base.settings import Settings


def settings_class() -> type[Settings]:
    """Return the settings of this verb."""
    from inkstone.data.config import PrepareSettings

    return PrepareSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the inputs and the output."""
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help="file, folder, '-' for stdin, builtin:microworld[=BYTES] or builtin:stdlib[=BYTES]; "
        "txt, md, jsonl, json, csv, tsv, parquet, also .gz and .zst",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DATA", help="folder to make")
    parser.add_argument(
        "--val-input", action="append", default=[], metavar="INPUT", help="validation text; then INPUT is all for training"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DATA when it is a prepared folder")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be read")


def run(args: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """Prepare the data and say what came out."""
    from inkstone.data.prepare import prepare
    from inkstone.data.workspace import check_out

    check_out(args.out, args.overwrite)
    if args.dry_run:
        return _list_inputs(args)
    figures = prepare(args.inputs, args.out, settings=settings, val_inputs=args.val_input, overwrite=args.overwrite)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in figures["dropped"].items()) or "nothing"
    say(f"read {figures['documents_in']:,} documents, kept {figures['documents_out']:,} (dropped: {dropped})")
    say(
        f"{format_count(figures['train_tokens'])} training and {format_count(figures['val_tokens'])} validation tokens"
        f" ({figures['tokenizer']}, {figures['vocab_size']:,} ids, {figures['bytes_per_token']['train']:.2f} bytes per token)"
        f" in {format_seconds(figures['seconds'])}, {format_bytes(figures['peak_memory_bytes'])} of memory"
    )
    say(f"next: inkstone pretrain --data {args.out} --out RUN")
    if not args.json:
        print(args.out)
    return figures


def _list_inputs(args: argparse.Namespace) -> dict[str, Any]:
    from inkstone.data.paths import expand_inputs, show_path

    items = expand_inputs([*args.val_input, *args.inputs], exclude=args.out)
    sizes = [item.stat().st_size if isinstance(item, Path) else 0 for item in items]
    if not args.json:
        for item, size in zip(items, sizes, strict=True):
            print(f"{format_bytes(size) if size else '':>12}  {show_path(item)}")
    return {"inputs": [show_path(item) for item in items], "bytes": sum(sizes)}
