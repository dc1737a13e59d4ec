"""`inkstone data show`: counts, samples, what was dropped and why."""

import argparse
from pathlib import Path
from typing import Any


def settings_class() -> None:
    """This verb has no settings."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder."""
    parser.add_argument("data", type=Path, metavar="DATA", help="a prepared folder")
    parser.add_argument("--samples", type=int, default=3, metavar="N", help="documents to show of each split (default 3)")
    parser.add_argument("--verify", action="store_true", help="check every checksum too")


def run(args: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """Print the card and some documents."""
    from inkstone.base.errors import RequestError
    from inkstone.data.card import render_card
    from inkstone.data.shards import load_manifest, open_split
    from inkstone.data.show import sample_documents
    from inkstone.text.tokenizer import Tokenizer

    if args.samples < 0:
        raise RequestError(f"--samples: expected 0 or more, found {args.samples}")
    manifest = load_manifest(args.data)
    tokenizer = Tokenizer.load(args.data)
    samples = {}
    for name in manifest["splits"]:
        split = open_split(args.data, name, tokenizer_fingerprint=tokenizer.fingerprint, verify=args.verify)
        samples[name] = sample_documents(split, tokenizer, args.samples)
    if not args.json:
        print(render_card(manifest))
        for name, texts in samples.items():
            for number, text in enumerate(texts, 1):
                print(f"--- {name}, sample {number}\n{text}\n")
    return {key: value for key, value in manifest.items() if key != "settings"} | {"samples": samples}
