"""`inkstone bench train|decode|serve|data`: this machine's figures, for a model of yours or for a preset with random weights."""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.base.errors import ConfigError
from inkstone.base.family import Family
from inkstone.base.log import say, warn
from inkstone.base.quantity import format_bytes, format_count, parse_minutes
from inkstone.base.settings import Settings
from inkstone.cli.plan import DEFAULT_VOCAB_SIZE, PUBLISHED_VOCAB_SIZES

if TYPE_CHECKING:
    from inkstone.nn.config import ModelConfig

PRECISIONS = ("fp32", "bf16", "int8", "int4")
DEFAULT_PRESETS = {"train": "modern", "decode": "gpt2", "serve": "gpt2"}
DEFAULT_MINUTES = 1.0
PROMPT_TOKENS, NEW_TOKENS, LONG_PROMPT_TOKENS = 64, 128, 1000
STREAMS = (1, 8, 32)
TEXT_BYTES = 4_000_000
_WARM_UP_TOKENS = 4


def settings_class() -> type[Settings] | None:
    """Return None: the flags say everything."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to measure, on what, and for how long."""
    text = "training; decode: reading and writing; serve: streams through HTTP; data: tokenizing"
    parser.add_argument("what", choices=list(PARTS), help=f"train: {text}")
    parser.add_argument(
        "model", type=Path, nargs="?", metavar="RUN", help="a run, one of its checkpoints, or a Hugging Face-style folder"
    )
    parser.add_argument("--preset", metavar="NAME", help="without RUN: random weights of this shape [gpt2; train: modern]")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the weights [decode: all; serve: int8]")
    parser.add_argument("--minutes", default=DEFAULT_MINUTES, type=_minutes, metavar="M", help="about so long, loading aside [1]")
    parser.add_argument("--profile", action="store_true", help="train: also the operations that take the time")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 [cpu]")


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Measure, print a table, and return the figures."""
    if args.model is not None and args.preset is not None:
        raise ConfigError(f"--preset {args.preset}: expected RUN or a preset, found both")
    import torch

    from inkstone import machine
    from inkstone.api import check_device

    check_device(args.device)
    torch.set_num_threads(machine.choose_threads())
    if (busy := machine.busy_cores()) > 0.75 * machine.usable_cores():
        warn(f"other programs keep {busy:.1f} of {machine.usable_cores()} cores busy: everything is slower than on an idle machine")
    figures = PARTS[args.what](args)
    return {"what": args.what, "cpu": machine.cpu_name(), "threads": torch.get_num_threads()} | figures


def bench_train(args: argparse.Namespace) -> dict[str, Any]:
    """Return how fast the shape trains, as a share of what this processor's matrix products reach."""
    from inkstone.assemble import choose_device, choose_precision
    from inkstone.machine import product_speeds, usable_cores
    from inkstone.nn.cost import flops_per_token, num_params
    from inkstone.train.config import PretrainSettings
    from inkstone.train.speed import measure_speed, top_costs

    config, settings = _config(args), PretrainSettings()
    precision = choose_precision("auto", choose_device(args.device))
    how: dict[str, Any] = {"batch_size": settings.train.batch_size, "precision": precision, "device": args.device}
    say(f"training {format_count(num_params(config))} parameters for about {60 * args.minutes:g} s …")
    speed = measure_speed(config, settings.optim, seconds=60 * args.minutes, **how)
    figures: dict[str, Any] = {
        "num_params": num_params(config), "precision": precision, "tokens_per_second": speed.tokens_per_second, "steps": speed.steps,
        "low": speed.low, "high": speed.high,
    }  # fmt: skip
    print(
        f"{format_count(speed.tokens_per_second)} tokens/s (quartiles {format_count(speed.low)} to {format_count(speed.high)}), {precision}"
    )
    if args.device == "cpu":
        products = product_speeds()["bf16" if precision == "bf16" else "fp32"] * usable_cores()
        figures |= {"mfu": speed.tokens_per_second * flops_per_token(config) / products, "product_flops_per_second": products}
        print(f"{figures['mfu']:.0%} of what matrix products reach here ({products / 1e9:,.0f} GFLOP/s)")
    if args.profile:
        figures["top_costs"] = top_costs(config, settings.optim, **how)
        for name, share, calls in figures["top_costs"]:
            print(f"{share:6.1%}  {name} ({calls} calls a step)")
    return figures


def bench_decode(args: argparse.Namespace) -> dict[str, Any]:
    """Return how fast the model reads and writes in each precision, as a share of what the memory gives."""
    from inkstone.infer.speed import memory_bandwidth

    bandwidth = memory_bandwidth(args.device)
    print(f"memory: {bandwidth / 1e9:.1f} GB/s")
    precisions = [args.precision] if args.precision else list(PRECISIONS)
    rows = []
    with _folder(args) as folder:
        for precision in precisions:
            rows.append(_decode_row(folder, precision, args.device, bandwidth, seconds=60 * args.minutes / len(precisions)))
            row = rows[-1]
            print(
                f"{precision}: 1 stream {row['decode_1']:,.1f} tokens/s ({row['bandwidth_share']:.0%} of the memory's speed), 8 streams"
                f" {row['decode_8']:,.1f}, prompts {row['prefill']:,.0f}",
                flush=True,
            )
    return {"memory_bytes_per_second": bandwidth, "precisions": rows}


def _decode_row(folder: Path, precision: str, device: str, bandwidth: float, *, seconds: float) -> dict[str, Any]:
    """Return the medians of one precision, of as many rounds as fit into the time, at least one."""
    from inkstone.cli.served_models import load_in_precision
    from inkstone.infer.engine import Engine
    from inkstone.infer.runners import make_runner
    from inkstone.infer.speed import Load, bytes_per_step, time_engine
    from inkstone.infer.torch_runner import TorchRunner

    model = load_in_precision(folder, precision, device=device)
    runner = make_runner(model.network, num_slots=8)
    engine = Engine(runner, model.tokenizer)
    prompt, new = _lengths(runner.max_tokens)
    loads = {"decode_1": Load(1, prompt, new), "decode_8": Load(8, prompt, new)}
    loads["prefill"] = Load(1, min(LONG_PROMPT_TOKENS, runner.max_tokens - 1), 1)
    found: dict[str, list[float]] = {name: [] for name in loads}
    for load in loads.values():
        time_engine(engine, Load(load.streams, load.prompt_tokens, min(_WARM_UP_TOKENS, load.new_tokens)), seed=-1)
    deadline, number = time.perf_counter() + seconds, 0
    while number == 0 or time.perf_counter() < deadline:
        for name, load in loads.items():
            timing = time_engine(engine, load, seed=number)
            found[name].append(timing.prefill_rate if name == "prefill" else timing.decode_rate)
        number += 1
    medians = {name: statistics.median(values) for name, values in found.items()}
    cache_dtype = runner.store.dtype if isinstance(runner, TorchRunner) else None
    step_bytes = bytes_per_step(model.network, loads["decode_1"], cache_dtype)
    share = medians["decode_1"] * step_bytes / bandwidth
    return {"precision": precision, **medians, "bandwidth_share": share, "bytes_per_step": step_bytes, "rounds": number}


def bench_serve(args: argparse.Namespace) -> dict[str, Any]:
    """Return what callers of 1, 8 and 32 streams get from a server, which is a process of its own."""
    import asyncio

    from inkstone.infer.speed import Load, random_prompts
    from inkstone.serve.child import NAME, serving
    from inkstone.serve.load import ask_together, completion_body, summarize

    config = _config(args)
    prompt, new = _lengths(config.context)
    flags = ["--parallel", str(max(STREAMS)), "--precision", args.precision or "int8", "--device", args.device]
    rows = []
    with _folder(args) as folder, serving(folder, flags) as child:
        deadline, number = time.perf_counter() + 60 * args.minutes, 0
        while number < 2 or time.perf_counter() < deadline:  # the first round warms up
            for streams in STREAMS:
                prompts = random_prompts(Load(streams, prompt, new), _vocab_size(folder), number)
                bodies = [completion_body(NAME, ids, new) for ids in prompts]
                answers, seconds = asyncio.run(ask_together(child.address, bodies))
                rows += [summarize(answers, seconds)] if number else []
            number += 1
    table = [_middle([row for row in rows if row["streams"] == streams]) for streams in STREAMS]
    for row in table:
        print(
            f"{row['streams']:2} streams: {row['tokens_per_second']:,.1f} tokens/s, first token after {1000 * row['first_token_p50']:.0f} ms"
            f" (p99 {1000 * row['first_token_p99']:.0f}), then every {1000 * row['inter_token_p50']:.1f} ms"
            f" (p99 {1000 * row['inter_token_p99']:.1f})"
        )
    return {"precision": args.precision or "int8", "rounds": number - 1, "loads": table}


def bench_data(args: argparse.Namespace) -> dict[str, Any]:
    """Return how fast text becomes tokens, and where there is no RUN how fast a tokenizer is trained."""
    from inkstone.data.encode import encode_documents
    from inkstone.data.sources import read_documents
    from inkstone.text.tokenizer import Tokenizer, train_bpe

    texts = [document.text for document in read_documents([f"builtin:microworld={TEXT_BYTES}"])]
    num_bytes = sum(len(text.encode()) for text in texts)
    start = time.perf_counter()
    tokenizer = train_bpe(texts, DEFAULT_VOCAB_SIZE) if args.model is None else Tokenizer.load(_model_folder(args.model))
    train_seconds = time.perf_counter() - start if args.model is None else None
    rates: list[float] = []
    num_tokens = 0
    deadline = time.perf_counter() + 60 * args.minutes
    while len(rates) < 2 or time.perf_counter() < deadline:
        start = time.perf_counter()
        num_tokens = sum(len(ids) for ids in encode_documents(tokenizer, texts))
        rates.append(num_bytes / (time.perf_counter() - start))
    rate = statistics.median(rates)
    print(f"tokenizing: {rate / 1e6:.1f} MB/s, {num_bytes / num_tokens:.2f} bytes a token, {tokenizer.vocab_size:,} tokens")
    if train_seconds is not None:
        print(f"training the tokenizer: {num_bytes / train_seconds / 1e6:.1f} MB/s")
    return {
        "bytes_per_second": rate, "bytes_per_token": num_bytes / num_tokens, "vocab_size": tokenizer.vocab_size, "rounds": len(rates),
        "training_bytes_per_second": None if train_seconds is None else num_bytes / train_seconds,
    }  # fmt: skip


PARTS: Family[Callable[[argparse.Namespace], dict[str, Any]]] = Family(
    "bench", {"train": bench_train, "decode": bench_decode, "serve": bench_serve, "data": bench_data}
)


def _config(args: argparse.Namespace) -> "ModelConfig":
    """Return the shape of RUN, or of the preset with its published vocabulary. Raises: ConfigError, CheckpointError."""
    from inkstone.nn.config import PRESETS, ModelConfig

    if args.model is not None:
        from inkstone.checkpoint.model_folder import read_model

        return read_model(args.model, packed=True).config
    preset = args.preset or DEFAULT_PRESETS[args.what]
    PRESETS[preset]
    return ModelConfig(preset=preset, vocab_size=PUBLISHED_VOCAB_SIZES.get(preset.partition("-")[0], DEFAULT_VOCAB_SIZE))


@contextlib.contextmanager
def _folder(args: argparse.Namespace) -> Iterator[Path]:
    """Give the model's folder: RUN itself, or one with random weights that is gone behind the block."""
    if args.model is not None:
        yield args.model
        return
    from inkstone.infer.made_up import write_made_up_model
    from inkstone.nn.cost import num_params

    config = _config(args)
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as folder:
        say(f"making {format_count(num_params(config))} random weights ({format_bytes(4 * num_params(config))} in {folder}) …")
        write_made_up_model(Path(folder, "model"), config)
        yield Path(folder, "model")


def _model_folder(path: Path) -> Path:
    from inkstone.checkpoint.model_folder import read_model

    return read_model(path, packed=True).folder


def _vocab_size(folder: Path) -> int:
    from inkstone.text.tokenizer import Tokenizer

    return Tokenizer.load(_model_folder(folder)).vocab_size


def _lengths(context: int) -> tuple[int, int]:
    """Return (tokens of a prompt, new ones): the usual ones, or what a short context holds."""
    prompt = min(PROMPT_TOKENS, context // 3)
    return prompt, min(NEW_TOKENS, context - prompt)


def _middle(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def _minutes(text: str) -> float:
    """Return minutes above 0. Raises: argparse.ArgumentTypeError."""
    try:
        minutes = parse_minutes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not 0 < minutes <= 60:
        raise argparse.ArgumentTypeError(f"expected up to 60 minutes, found {text}")
    return minutes
