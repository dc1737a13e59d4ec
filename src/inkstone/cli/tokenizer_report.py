"""`inkstone tokenizer report INPUT…`: how many bytes a token carries, by language and by source."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.base.errors import ConfigError, DataError
from inkstone.base.log import say
from inkstone.cli.tokenizer_train import DEFAULT_VOCAB_SIZE, add_training_arguments, train

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

_COLUMNS = ("segments", "bytes", "tokens", "bytes_per_token", "characters_per_token")
_MAX_SOURCES = 20


def settings_class() -> None:
    """Return that this verb has no recipe."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files, folders or - for stdin")
    parser.add_argument(
        "--tokenizer", metavar="PATH",
        help="a tokenizer.json or a folder that holds one; without it one is trained on the inputs themselves",
    )  # fmt: skip
    add_training_arguments(parser)


def run(args: argparse.Namespace, settings: None) -> dict[str, Any]:
    """Measure and return the figures.

    Raises: ConfigError for flags that contradict each other; what loading, reading and training raise.
    """
    from inkstone.data.sources import read_documents
    from inkstone.text.languages import measure

    tokenizer = _tokenizer(args)
    started = time.monotonic()
    figures = measure(tokenizer, ((document.source, document.text) for document in read_documents(args.inputs)))
    seconds = time.monotonic() - started
    if not figures["total"]["bytes"]:
        raise DataError("0 documents with text in the inputs — nothing to measure")
    print(f"tokenizer {tokenizer.kind}, {tokenizer.vocab_size:,} tokens, fingerprint {tokenizer.fingerprint[:12]}")
    print(_table("language", figures["rows"], figures["total"]))
    if len(figures["sources"]) > 1:
        print()
        print(_table("source", figures["sources"][:_MAX_SOURCES], figures["total"]))
        if len(figures["sources"]) > _MAX_SOURCES:
            print(f"… and {len(figures['sources']) - _MAX_SOURCES} more sources (all of them with --json)")
    print(f"\n{figures['unused_tokens']:,} tokens never occurred; text came back {'exactly' if figures['exact'] else 'CHANGED'}")
    return {
        "tokenizer": args.tokenizer,
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        **figures,
        "seconds": round(seconds, 3),
    }


def _tokenizer(args: argparse.Namespace) -> "Tokenizer":
    from inkstone.text.tokenizer import Tokenizer

    if args.tokenizer is not None:
        if args.vocab_size is not None:
            raise ConfigError("--vocab-size trains a tokenizer and --tokenizer loads one: give one of the two")
        if not Path(args.tokenizer).exists():
            raise ConfigError(f"--tokenizer {args.tokenizer} does not exist")
        return Tokenizer.load(args.tokenizer)
    if "-" in args.inputs:
        raise ConfigError("stdin can be read only once: give --tokenizer PATH, or the text as a file")
    vocab_size = DEFAULT_VOCAB_SIZE if args.vocab_size is None else args.vocab_size
    say(f"no --tokenizer given: training one of {vocab_size:,} tokens on the inputs, so the figures flatter it")
    return train(args.inputs, kind="bpe", vocab_size=vocab_size, sample_bytes=args.sample_bytes)[0]


def _table(title: str, rows: list[dict[str, Any]], total: dict[str, Any]) -> str:
    cells = [[title, *(column.replace("_", " ") for column in _COLUMNS)]]
    for row in [*rows, {title: "total", **total}]:
        numbers = [f"{row[c]:.2f}" if isinstance(row[c], float) else f"{row[c]:,}" for c in _COLUMNS]
        cells.append([str(row[title]), *numbers])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells)
