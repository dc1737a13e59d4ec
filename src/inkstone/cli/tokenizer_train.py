"""`inkstone tokenizer train INPUT… --out PATH`: a tokenizer of one's own from text."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.base.errors import ConfigError
from inkstone.base.log import say
from inkstone.base.quantity import format_bytes, format_count, format_seconds, parse_count

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

DEFAULT_VOCAB_SIZE = 8192
DEFAULT_SAMPLE_BYTES = 64_000_000  # 50 MB of Chinese and English took 20 s on two cores and 1.2 GB for 32k tokens
_NOT_FOR_CHAR = "--vocab-size says nothing to --kind char, whose vocabulary is the characters of the text"


def settings_class() -> None:
    """Return that this verb has no recipe."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files, folders or - for stdin")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="a folder, or a file that ends in .json")
    parser.add_argument("--kind", choices=("bpe", "char"), default="bpe", help="byte-level BPE, or single characters")
    add_training_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a tokenizer that is already there")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training from text needs, here and in `tokenizer report`."""
    parser.add_argument(
        "--vocab-size", type=_count, metavar="N", help=f"tokens, for instance 32k, for --kind bpe [{DEFAULT_VOCAB_SIZE}]"
    )
    parser.add_argument(
        "--sample-bytes", type=_count, default=DEFAULT_SAMPLE_BYTES, metavar="N",
        help="train on an even sample of at most so much text, since memory grows with it [64M]",
    )  # fmt: skip


def run(args: argparse.Namespace, settings: None) -> dict[str, Any]:
    """Train, write, and return the figures.

    Raises: ConfigError before anything is read when the output is there already; what reading and training raise.
    """
    from inkstone.text.tokenizer_file import CONFIG_NAME, FILE_NAME

    is_file = args.out.suffix == ".json"
    target = args.out if is_file else args.out / FILE_NAME
    if args.kind == "char" and args.vocab_size is not None:
        raise ConfigError(_NOT_FOR_CHAR)
    if target.is_dir() or (args.out.exists() and not args.out.is_dir() and not is_file):
        raise ConfigError(f"--out {args.out} is {'a folder' if target.is_dir() else 'a file'}; expected a folder or a .json file")
    for path in (target,) if is_file else (target, target.with_name(CONFIG_NAME)):
        if path.exists() and not args.overwrite:
            raise ConfigError(f"{path} exists — choose another --out, or say --overwrite to replace it")
    started = time.monotonic()
    tokenizer, read = train(args.inputs, kind=args.kind, vocab_size=args.vocab_size, sample_bytes=args.sample_bytes)
    _write(tokenizer, target, is_file=is_file)
    seconds = time.monotonic() - started
    print(f"{target}: {tokenizer.kind}, {tokenizer.vocab_size:,} tokens, fingerprint {tokenizer.fingerprint[:12]}")
    say(f"from {read['documents']:,} documents ({format_bytes(read['bytes'])}) in {format_seconds(seconds)}")
    return {
        "tokenizer": str(target),
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        **read,
        "seconds": round(seconds, 3),
    }


def train(inputs: list[str], *, kind: str, vocab_size: int | None, sample_bytes: int) -> tuple["Tokenizer", dict[str, int]]:
    """Return a tokenizer trained on the inputs, and the `documents` and `bytes` that were read and `sample_bytes` used.

    A character tokenizer sees every document; byte-level BPE an even sample of at most `sample_bytes`.
    """
    from inkstone.data.sources import read_documents
    from inkstone.text.sample import sample_texts
    from inkstone.text.tokenizer import build_char, check_vocab_size, train_bpe

    vocab_size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
    check_vocab_size(vocab_size)
    read = {"documents": 0, "bytes": 0}

    def texts() -> Iterator[str]:
        for document in read_documents(inputs):
            read["documents"] += 1
            read["bytes"] += len(document.text.encode("utf-8", "surrogatepass"))
            yield document.text

    if kind == "char":
        return build_char(texts()), {**read, "sample_bytes": read["bytes"]}
    sample = sample_texts(texts(), sample_bytes)
    used = sum(len(text.encode("utf-8", "surrogatepass")) for text in sample)
    if used < read["bytes"]:
        say(f"training on an even sample of {format_count(used)} of {format_count(read['bytes'])} bytes")
    return train_bpe(sample, vocab_size), {**read, "sample_bytes": used}


def _write(tokenizer: "Tokenizer", target: Path, *, is_file: bool) -> None:
    from inkstone.base.files import explain_os_errors, write_atomic
    from inkstone.text.tokenizer_file import FILE_NAME

    if not is_file:
        tokenizer.save(target.parent)
        return
    with explain_os_errors(str(target)):
        write_atomic(target, tokenizer.files()[FILE_NAME])


def _count(text: str) -> int:
    try:
        return parse_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
