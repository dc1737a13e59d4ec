"""`inkstone export RUN`: a model for other programs, as a Hugging Face folder or a GGUF file."""

import argparse
import time
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError
from inkstone.base.family import Family
from inkstone.base.log import say
from inkstone.base.quantity import format_bytes, format_seconds, parse_count
from inkstone.base.settings import Settings

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
DTYPES = ("fp32", "fp16", "bf16")
DEFAULT_SHARD_BYTES = 5 * 10**9


def settings_class() -> type[Settings] | None:
    """Return None: a conversion has no recipe."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the format and the place."""
    parser.add_argument("model", type=Path, metavar="RUN", help="a run, one of its checkpoints, or a Hugging Face-style folder")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="hf (a folder for transformers) or gguf (a file for llama.cpp)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="the folder (hf) or file (gguf) to make")
    parser.add_argument("--type", choices=TYPES, help="gguf: how matrices are stored [without loss: as they are]")
    parser.add_argument("--dtype", choices=DTYPES, help="hf: the dtype of every tensor [as it is]")
    parser.add_argument(
        "--max-shard-size", type=_parse_bytes, metavar="SIZE", help="hf: several files of at most this size, as in 500MB [5GB]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Write the model and say where and how large it is."""
    if args.to == "peft":
        raise ConfigError("--to peft: there are no adapters to export yet (they come with fine-tuning) — use hf or gguf")
    write = FORMATS[args.to]
    begun = time.monotonic()
    figures = write(args) | {"seconds": round(time.monotonic() - begun, 3)}
    kind = figures.get("type") or figures["dtype"]
    say(f"{figures['tensors']} tensors as {kind}, {format_bytes(figures['bytes'])}, in {format_seconds(figures['seconds'])}")
    if not args.json:
        print(args.out)
    return figures


def _write_huggingface(args: argparse.Namespace) -> dict[str, Any]:
    if args.type:
        raise ConfigError(f"--type {args.type} is for --to gguf; a Hugging Face folder has --dtype ({', '.join(DTYPES)})")
    from inkstone.checkpoint.exchange import export_huggingface

    size = args.max_shard_size or DEFAULT_SHARD_BYTES
    return export_huggingface(args.model, args.out, dtype=args.dtype, max_shard_bytes=size, overwrite=args.overwrite)


def _write_gguf(args: argparse.Namespace) -> dict[str, Any]:
    if args.dtype:
        raise ConfigError(f"--dtype {args.dtype} is for --to hf; a GGUF file has --type ({', '.join(TYPES)})")
    if args.max_shard_size:
        raise ConfigError("--max-shard-size is for --to hf; a GGUF export is one file")
    from inkstone.checkpoint.exchange import export_gguf

    return export_gguf(args.model, args.out, type_name=args.type, overwrite=args.overwrite)


def _parse_bytes(text: str) -> int:
    """Return bytes from `500MB`, `5G` or `1048576`: here a last B means bytes. Raises: argparse's error."""
    try:
        size = parse_count(text.strip().lower().removesuffix("b"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a size such as 500MB, found '{text}'") from error
    if size < 1:
        raise argparse.ArgumentTypeError(f"expected a size of at least one byte, found '{text}'")
    return size


FORMATS = Family("format", {"hf": _write_huggingface, "gguf": _write_gguf})
