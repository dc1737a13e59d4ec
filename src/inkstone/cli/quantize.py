"""`inkstone quantize RUN`: a model with weights in int8 or int4, and what that costs in quality and gains in size and speed."""

import argparse
import contextlib
import copy
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from inkstone.base.log import say
from inkstone.base.quantity import format_count, parse_count
from inkstone.base.settings import Settings
from inkstone.cli.evaluated_run import find_own_data, read_choices
from inkstone.cli.loading import add_model_arguments
from inkstone.cli.quantize_card import card, notes, table_rows
from inkstone.quant.config import SchemeName

if TYPE_CHECKING:
    from torch import Tensor

    from inkstone.api import Model
    from inkstone.checkpoint.model_folder import StoredModel
    from inkstone.data.shards import TokenSplit
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

BUILTIN = "builtin:microworld=200000"  # bytes: what is scored when the model's own data is not there
MAX_TOKENS = 100_000
CALIBRATION_TOKENS = 32_768
BATCH_SIZE = 16
PROMPT_TOKENS, NEW_TOKENS = 16, 64


def settings_class() -> type[Settings] | None:
    """Return None: the flags say everything."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the scheme, the place and the text."""
    add_model_arguments(parser)
    parser.add_argument("--scheme", required=True, choices=get_args(SchemeName), help="the weights' form")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN2", help="the folder to make")
    parser.add_argument(
        "--data", metavar="PATH",
        help="what to measure on: a prepared data folder, or any text [the run's own data, else a built-in text]",
    )  # fmt: skip
    parser.add_argument(
        "--max-tokens", type=_count, default=MAX_TOKENS, metavar="N", help="measure on the first N tokens; 0 = all [100k]"
    )
    parser.add_argument(
        "--calibrate", metavar="PATH",
        help="int4: adapt the weights to this text, a prepared folder (its training split) or any text; slower, and closer to the original",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace RUN2 when it is a quantized model")


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Pack the model, measure it beside the original, write it, and print the table."""
    import torch

    from inkstone.api import check_device
    from inkstone.checkpoint.exchange import check_folder, generation_of
    from inkstone.checkpoint.model_folder import StoredModel, load_model, read_model, save_stored
    from inkstone.checkpoint.tensors import tensor_bytes
    from inkstone.machine import choose_threads
    from inkstone.quant.apply import pack_model

    check_folder(args.out, args.model, _is_quantized, overwrite=args.overwrite)
    torch.set_num_threads(choose_threads())
    check_device(args.device)
    began = time.monotonic()
    stored = read_model(args.model)
    original, tokenizer = load_model(stored.folder, device=args.device)
    packed = copy.deepcopy(original)
    with _open_text(_find_text(args), "val", tokenizer) as (name, split):
        if args.calibrate:
            _calibrate(packed, args, tokenizer)
        say(f"packing the matrices as {args.scheme} …")
        report = pack_model(packed, args.scheme)
        say(f"measuring both on {format_count(min(args.max_tokens or split.num_tokens, split.num_tokens))} tokens of {name} …")
        measured = _measure_quality(args, (original, packed), tokenizer, split)
        measured |= _measure_speed(stored, packed, split, device=args.device)
    figures = {
        "run": str(args.out), "model": str(args.model), "scheme": args.scheme, "data": name, "calibrated_on": args.calibrate,
        "bytes_before": tensor_bytes(stored.tensors), "bytes_after": tensor_bytes(packed.state_dict()), **measured,
        "share_left": report.share_left, "left": list(report.left), "seconds": time.monotonic() - began,
    }  # fmt: skip
    made = StoredModel(args.out, packed.config, packed.state_dict(), tokenizer, args.scheme)
    text = card(args.out.absolute().name, args.model.absolute().name, figures)
    save_stored(args.out, made, generation_of(stored), extra_files={"README.md": text.encode()})
    if not args.json:
        _print(figures)
    return figures


def _is_quantized(folder: Path) -> bool:
    """Return whether a folder is one that this command makes, so that it may be replaced."""
    from inkstone.checkpoint.model_folder import CONFIG_NAME
    from inkstone.checkpoint.packed import SECTION
    from inkstone.checkpoint.weights import read_json

    return (folder / CONFIG_NAME).is_file() and SECTION in read_json(folder, CONFIG_NAME)


def _find_text(args: argparse.Namespace) -> str:
    """Return the path of what is measured: `--data`, the data of the model's run, or a built-in text, saying so."""
    from inkstone.data.shards import MANIFEST

    own = find_own_data(args.model)
    if args.data is not None:
        return str(args.data)
    if own is not None and (own.folder / MANIFEST).is_file():
        return str(own.folder)
    say(f"the data that {args.model} was trained on is not here: measuring on {BUILTIN} (or give --data PATH)")
    return BUILTIN


@contextlib.contextmanager
def _open_text(given: str, wanted: str, tokenizer: "Tokenizer") -> Iterator[tuple[str, "TokenSplit"]]:
    """Yield the name and the split of a text: of a prepared folder the split that is `wanted`, of any other text all."""
    from inkstone.data.shards import MANIFEST, open_split
    from inkstone.evaluate.text_split import write_text_split

    if (Path(given) / MANIFEST).is_file():
        yield f"{given} ({wanted})", open_split(Path(given), wanted, tokenizer_fingerprint=tokenizer.fingerprint)
        return
    with tempfile.TemporaryDirectory(prefix="inkstone-quantize-") as folder:
        yield given, write_text_split([given], Path(folder), tokenizer)


def _calibrate(network: "Transformer", args: argparse.Namespace, tokenizer: "Tokenizer") -> None:
    from inkstone.quant.calibrate import calibrate

    with _open_text(args.calibrate, "train", tokenizer) as (name, split):
        say(f"calibrating on {format_count(min(CALIBRATION_TOKENS, split.num_tokens))} tokens of {name} …")
        calibrate(network, args.scheme, _rows(split, network.config.context, CALIBRATION_TOKENS, args.device))


def _measure_quality(
    args: argparse.Namespace, models: "tuple[Transformer, Transformer]", tokenizer: "Tokenizer", split: "TokenSplit"
) -> dict[str, Any]:
    """Return perplexity before and after, divergence and agreement, all with products in float32: what the weights alone cost."""
    from inkstone.assemble import build_model
    from inkstone.evaluate.language import evaluate_language
    from inkstone.quant.apply import dense_state
    from inkstone.quant.divergence import divergence

    original, packed = models
    unpacked = build_model(packed.config, weights=dense_state(packed), device=args.device).eval()  # once, not at each batch
    mask = read_choices(args.model).document_mask
    scores = [
        evaluate_language(model, tokenizer, split, max_tokens=args.max_tokens, batch_size=BATCH_SIZE, document_mask=mask)
        for model in (original, unpacked)
    ]
    found = divergence(original, unpacked, _rows(split, original.config.context, args.max_tokens, args.device))
    return {
        "tokens": scores[0]["tokens"], "perplexity_before": scores[0]["perplexity"], "perplexity_after": scores[1]["perplexity"],
        "kl": found.kl, "agreement": found.agreement,
    }  # fmt: skip


def _rows(split: "TokenSplit", context: int, max_tokens: int, device: str) -> "Iterator[Tensor]":
    """Yield the split's ids as batches (B, T) of whole contexts; a split shorter than one is one row."""
    import numpy as np
    import torch

    num_tokens = min(max_tokens or split.num_tokens, split.num_tokens)
    width = min(context, num_tokens)
    for start in range(0, num_tokens // width * width, width * BATCH_SIZE):
        stop = min(start + width * BATCH_SIZE, num_tokens // width * width)
        yield torch.from_numpy(split.read(start, stop).astype(np.int64)).view(-1, width).to(device)


def _measure_speed(stored: "StoredModel", packed: "Transformer", split: "TokenSplit", *, device: str) -> dict[str, float]:
    """Return greedy tokens per second: before in the dtype that `load` chooses, after packed with activations in that dtype."""
    from inkstone.api import Model, load

    before = load(stored.folder, device=device)
    dtype = before.network.compute_dtype
    network = copy.deepcopy(packed).to(dtype)
    network.compute_dtype = dtype
    after = Model(network, stored.tokenizer)
    prompt = stored.tokenizer.decode(split.read(0, min(PROMPT_TOKENS, split.num_tokens, packed.config.context // 2)).tolist())
    return {f"tokens_per_second_{when}": _speed(model, prompt) for when, model in (("before", before), ("after", after))}


def _speed(model: "Model", prompt: str) -> float:
    """Return the median of three replies, after one that warms up."""
    sampling = {"temperature": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram": 0, "max_tokens": NEW_TOKENS}
    rates = [model.generate(prompt, **sampling).tokens_per_second for _ in range(4)]
    return statistics.median(rates[1:])


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{figures['model']} as {figures['scheme']}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title in ("", "before", "after", ""):
        table.add_column(title, justify="right" if title else "left")
    for row in table_rows(figures):
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(table)
    for line in notes(figures):
        console.print(line)
    say(f"next: inkstone chat {figures['run']}")
    console.print(figures["run"])


def _count(text: str) -> int:
    try:
        return parse_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
