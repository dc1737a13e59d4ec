"""`inkstone import PATH`: a Hugging Face-style folder as a run, usable by every verb."""

import argparse
import time
from pathlib import Path
from typing import Any

from inkstone.base.log import say
from inkstone.base.quantity import format_bytes, format_count
from inkstone.base.settings import Settings


def settings_class() -> type[Settings] | None:
    """Return None: a conversion has no recipe."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder that is read and the run that is made."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="PATH",
        help="a folder with config.json, *.safetensors and tokenizer.json (gpt2, openai-gpt, qwen3)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_argument("--chat", action="store_true", help="the model was tuned to answer in ChatML (<|im_start|> … <|im_end|>)")
    parser.add_argument("--overwrite", action="store_true", help="replace an imported run that is there")


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Make the run and say what it is."""
    from inkstone.checkpoint.exchange import import_folder

    begun = time.monotonic()
    figures = import_folder(args.source, args.out, is_chat=args.chat, overwrite=args.overwrite)
    figures["seconds"] = round(time.monotonic() - begun, 3)
    count, size = format_count(figures["num_params"]), format_bytes(figures["bytes"])
    say(f"{figures['architecture']}: {count} parameters in {figures['tensors']} tensors ({figures['dtype']}, {size})")
    say(f"next: inkstone generate {args.out} --prompt '…'")
    if not args.json:
        print(args.out)
    return figures
