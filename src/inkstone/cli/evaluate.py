"""`inkstone evaluate RUN`: perplexity, accuracy and bits per byte of held-out text, with intervals and baselines."""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.base.errors import ConfigError, InkstoneError
from inkstone.base.log import say, warn
from inkstone.base.quantity import format_bytes, format_count, parse_count
from inkstone.base.settings import Settings
from inkstone.cli.evaluated_run import OwnData, find_own_data, read_choices
from inkstone.cli.loading import add_model_arguments

if TYPE_CHECKING:
    from inkstone.data.shards import TokenSplit
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

VALIDATION = "val"
HEADLINES = (
    ("loss", "nats per token"), ("perplexity", "per token"), ("perplexity_per_byte", ""), ("bits_per_byte", ""),
    ("accuracy", "of next tokens"),
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """What is scored: a split, the training split beside it (None: there is none), and whether it is the run's own split."""

    name: str
    split: "TokenSplit"
    train: "TokenSplit | None"
    own: OwnData | None


def settings_class() -> type[Settings] | None:
    """Return None: the flags say everything."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the text and how it is cut."""
    add_model_arguments(parser)
    parser.add_argument(
        "--data", metavar="PATH", help="a prepared data folder, or any text that data prepare reads [the run's own data]"
    )
    parser.add_argument("--split", metavar="NAME", help=f"which split of a prepared folder [{VALIDATION}]")
    parser.add_argument("--stride", type=_count, default=0, metavar="N", help="tokens from window to window [half the context]")
    parser.add_argument(
        "--max-tokens", type=_count, default=0, metavar="N", help="score only the first N tokens, such as 100k [all]"
    )
    parser.add_argument("--batch-size", type=_count, default=16, metavar="N", help="windows at once [16]")
    parser.add_argument(
        "--precision",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="auto = as the run was trained, else what is fast here",
    )
    parser.add_argument(
        "--baselines", action=argparse.BooleanOptionalAction, default=True, help="also xz and an n-gram model [yes]"
    )


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Score the text, print the figures, and put them on the run's page when the split is the run's own."""
    from inkstone.evaluate.language import choose_stride, evaluate_language, language_baselines

    if not 1 <= args.batch_size <= 65536:
        raise ConfigError(f"--batch-size: expected 1 to 65536, found {args.batch_size}")
    own, choices = find_own_data(args.model), read_choices(args.model)
    began = time.monotonic()
    model, tokenizer = _load(args, choices.precision)
    choose_stride(args.stride, model.config.context)
    with _open(args, tokenizer, own) as text:
        say(f"scoring {format_count(args.max_tokens or text.split.num_tokens)} tokens of {text.name} …")
        found = evaluate_language(
            model, tokenizer, text.split, stride=args.stride, max_tokens=args.max_tokens, batch_size=args.batch_size,
            document_mask=choices.document_mask,
        )  # fmt: skip
        if args.baselines:
            say(f"the same {format_bytes(found['bytes'])} with xz -9{' and n-grams' if text.train else ''} …")
            found["baselines"] = language_baselines(tokenizer, text.split, text.train, max_tokens=args.max_tokens)
    figures = {"run": str(args.model), "data": text.name, "split": text.split.name, "seconds": time.monotonic() - began, **found}
    if not args.json:
        _print(figures)
    if text.own is not None and text.own.run == args.model and text.split.name == VALIDATION and not args.max_tokens:
        _publish(text.own.run, figures)
    return figures


def _load(args: argparse.Namespace, trained_in: str | None) -> "tuple[Transformer, Tokenizer]":
    """Return the model as training evaluates it: float32 weights (packed ones unpacked, once), products in the precision."""
    import torch

    from inkstone.api import check_device
    from inkstone.assemble import build_model, choose_precision
    from inkstone.checkpoint.model_folder import load_model
    from inkstone.machine import choose_threads
    from inkstone.quant.apply import dense_state

    torch.set_num_threads(choose_threads())
    check_device(args.device)
    loaded, tokenizer = load_model(args.model)
    device = torch.device(args.device)
    precision = trained_in if args.precision == "auto" and trained_in else args.precision
    if precision == "fp16" and device.type == "cpu":
        precision = "auto"  # trained on a GPU, measured here
    chosen = choose_precision(precision, device)
    return build_model(loaded.config, weights=dense_state(loaded), device=device, precision=chosen).eval(), tokenizer


@contextlib.contextmanager
def _open(args: argparse.Namespace, tokenizer: "Tokenizer", own: OwnData | None) -> Iterator[Text]:
    """Yield the text that `args` name.

    Raises: ConfigError when it cannot be found; CheckpointError for another tokenizer; DataError for damaged or empty data.
    """
    from inkstone.data.shards import MANIFEST

    given = args.data
    if given is None:
        if own is None:
            raise ConfigError(f"{args.model} does not say what it was trained on — give --data PATH")
        if not own.folder.exists():
            raise ConfigError(f"the data that {own.run} was trained on is no longer at {own.folder} — give --data PATH")
        given = str(own.folder)
    if (Path(given) / MANIFEST).is_file() or args.data is None:
        yield _open_prepared(Path(given), args.split or VALIDATION, tokenizer, own)
        return
    if args.split is not None:
        raise ConfigError(f"--split {args.split}: {given} is not a prepared data folder, so it has no splits — leave --split out")
    from inkstone.evaluate.text_split import write_text_split

    with tempfile.TemporaryDirectory(prefix="inkstone-evaluate-") as folder:
        split = write_text_split([given], Path(folder), tokenizer)
        yield Text("stdin" if given == "-" else given, split, _own_train(own, tokenizer) if args.baselines else None, None)


def _open_prepared(folder: Path, name: str, tokenizer: "Tokenizer", own: OwnData | None) -> Text:
    """Return a split of a prepared folder; the n-gram baseline learns from the training split beside it, never from itself."""
    from inkstone.data.shards import load_manifest, open_split

    split = open_split(folder, name, tokenizer_fingerprint=tokenizer.fingerprint)
    manifest = load_manifest(folder)
    has_train = name != "train" and manifest["splits"].get("train", {}).get("bytes", 0) > 0
    is_own = own is not None and own.folder.exists() and own.folder.samefile(folder)
    if is_own and own is not None and not own.is_unchanged(manifest):
        warn(f"{folder} was prepared anew after {own.run} was trained on it: its splits may mix what was learned and what was not")
        is_own = False
    train = open_split(folder, "train", tokenizer_fingerprint=tokenizer.fingerprint, verify=False) if has_train else None
    return Text(f"{folder} ({name})", split, train, own if is_own else None)


def _own_train(own: OwnData | None, tokenizer: "Tokenizer") -> "TokenSplit | None":
    """Return what the model itself learned from, for the n-gram baseline of a plain text; None when it cannot be had."""
    from inkstone.data.shards import open_split

    if own is None:
        return None
    try:
        return open_split(own.folder, "train", tokenizer_fingerprint=tokenizer.fingerprint, verify=False)
    except InkstoneError as error:
        warn(f"no n-gram baseline: {error}")
        return None


def _publish(run: Path, figures: dict[str, Any]) -> None:
    """Put the model beside its baselines in the run's figures.json, replacing an earlier such entry, and write its page again."""
    from inkstone.api import is_chat_tuned

    if not figures.get("baselines"):
        return
    if is_chat_tuned(run):
        say("the run's page keeps what it says of the model before its tuning for chat")
        return
    from inkstone.base.files import explain_os_errors, write_json
    from inkstone.report.figures import baseline_figure
    from inkstone.report.page import write_report
    from inkstone.report.run_data import read_run

    bits = figures["metrics"]["bits_per_byte"]
    entry = baseline_figure(bits["value"], figures["baselines"], (bits["low"], bits["high"]))
    kept = [other for other in read_run(run).figures if other.get("title") != entry["title"]]
    try:
        with explain_os_errors(str(run / "figures.json")):
            write_json(run / "figures.json", [entry, *kept])
        write_report([run], run / "report.html")
    except InkstoneError as error:
        warn(f"the run's page is as it was: {error}")
        return
    say(f"page: {run / 'report.html'}")


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{figures['run']} on {figures['data']}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title in ("", "value", "95 % interval", ""):
        table.add_column(title, justify="right" if title == "value" else "left")
    for name, unit in HEADLINES:
        found = figures["metrics"][name]
        table.add_row(name.replace("_", " "), _shown(found["value"]), f"{_shown(found['low'])} – {_shown(found['high'])}", unit)
    for name, found in figures.get("baselines", {}).items():
        table.add_row(name, _shown(found["bits_per_byte"]), "", "bits per byte")
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(table)
    windows = f"{figures['windows']:,} windows of {figures['context']}, {figures['stride']} apart"
    console.print(f"{figures['tokens']:,} tokens, {figures['bytes']:,} bytes, {windows}")


def _shown(value: float) -> str:
    return f"{value:.4f}" if value < 1000 else f"{value:.4g}"


def _count(text: str) -> int:
    try:
        return parse_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
