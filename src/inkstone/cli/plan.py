"""`inkstone plan`: parameters, memory, FLOPs, time and fit on this machine, before anything starts."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.base.errors import ConfigError
from inkstone.base.log import say, warn
from inkstone.base.quantity import format_bytes, format_count, format_seconds
from inkstone.base.settings import Settings
from inkstone.nn.config import ModelConfig

if TYPE_CHECKING:
    from inkstone.train.config import PretrainSettings
    from inkstone.train.fit import MemoryNeed
    from inkstone.train.speed import Speed

DEFAULT_SECONDS = 20.0
DEFAULT_VOCAB_SIZE = 8192
PUBLISHED_VOCAB_SIZES = {"gpt1": 40478, "gpt2": 50257, "gpt3": 50257}  # by the preset's name before the dash


@dataclass(frozen=True)
class Plan:
    """Everything that is shown: the model, what a step needs, how fast it is, and how long the run takes."""

    config: ModelConfig
    vocab_source: str
    batch_size: int
    precision: str
    need: "MemoryNeed"
    speed: "Speed"
    predicted: "Speed"
    tokens: int
    seconds: float
    train_tokens: int | None


def settings_class() -> type[Settings] | None:
    """Return the settings of `inkstone pretrain`: a plan is made of the same command line."""
    from inkstone.train.config import PretrainSettings

    return PretrainSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `inkstone plan`."""
    parser.add_argument("--data", type=Path, metavar="DATA", help="the prepared data folder: gives the vocabulary and the epochs")
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        metavar="N",
        help="time for real training steps; 0 predicts without any [20]",
    )


def run(args: argparse.Namespace, settings: "PretrainSettings") -> dict[str, Any]:
    """Print the plan and return its figures."""
    if not 0 <= args.seconds <= 3600:
        raise ConfigError(f"--seconds: expected 0 to 3600, found {args.seconds:g}")
    plan = make_plan(settings, data=args.data, seconds=args.seconds)
    print_plan(plan, settings)
    return figures(plan)


def make_plan(settings: "PretrainSettings", *, data: Path | None, seconds: float) -> Plan:
    """Return the plan of a pretraining run, after real steps for about `seconds` where the model fits.

    Raises: ConfigError when the limit cannot be known; DataError for a broken data folder.
    """
    from inkstone.assemble import choose_device, choose_precision
    from inkstone.train.fit import available_memory, largest_batch, memory_need
    from inkstone.train.speed import predict_speed

    train, kind, ema = settings.train, settings.optim.kind, settings.train.ema > 0
    vocab_size, vocab_source, train_tokens = _vocabulary(settings.model, data)
    if train.max_epochs and train_tokens is None:
        raise ConfigError("train.max_epochs: how long an epoch is depends on the data — give --data DATA")
    config = settings.model.model_copy(update={"vocab_size": vocab_size})
    device = choose_device(train.device)
    precision = choose_precision(train.precision, device)
    free = available_memory(device)
    rows = train.batch_size or largest_batch(config, free, precision=precision, optimizer=kind, ema=ema)
    need = memory_need(config, free, batch_size=rows, precision=precision, optimizer=kind, ema=ema)
    predicted = predict_speed(config, precision=precision)
    speed = _measure(config, settings, predicted, rows=rows, precision=precision, seconds=seconds if need.fits else 0.0)
    tokens, spent = _length(
        settings, speed.tokens_per_second, tokens_per_step=rows * train.accumulate * config.context, epoch=train_tokens
    )
    return Plan(
        config=config, vocab_source=vocab_source, batch_size=rows, precision=precision, need=need, speed=speed, predicted=predicted,
        tokens=tokens, seconds=spent, train_tokens=train_tokens,
    )  # fmt: skip


def figures(plan: Plan) -> dict[str, Any]:
    """Return the plan's figures for --json. Units: bytes, seconds, tokens; FLOPs are of training."""
    from inkstone.nn.cost import cache_bytes_per_token, flops_per_token, num_params, param_counts

    return {
        "num_params": num_params(plan.config),
        "flops_per_token": flops_per_token(plan.config),
        "memory_bytes": plan.need.total_bytes,
        "tokens_per_second": plan.speed.tokens_per_second,
        "seconds": plan.seconds,
        "fits": plan.need.fits,
        "tokens": plan.tokens,
        "epochs": plan.tokens / plan.train_tokens if plan.train_tokens else None,
        "measured": plan.speed.steps > 0,
        "predicted_tokens_per_second": plan.predicted.tokens_per_second,
        "batch_size": plan.batch_size,
        "precision": plan.precision,
        "vocab_size": plan.config.vocab_size,
        "available_memory_bytes": plan.need.available_bytes,
        "params_by_part": param_counts(plan.config),
        "memory_by_part": plan.need.parts,
        "cache_bytes_per_token": cache_bytes_per_token(plan.config),
    }


def _vocabulary(config: ModelConfig, data: Path | None) -> tuple[int, str, int | None]:
    """Return (tokens in the vocabulary, where that is from, tokens in the training split or None)."""
    if data is None:
        if config.vocab_size:
            return config.vocab_size, "as given", None
        published = PUBLISHED_VOCAB_SIZES.get(config.preset.partition("-")[0])
        return (published, "as published", None) if published else (DEFAULT_VOCAB_SIZE, "assumed: give --data", None)
    from inkstone.data.shards import load_manifest

    manifest: Mapping[str, Any] = load_manifest(data)
    found = int(manifest["vocab_size"])
    if config.vocab_size and config.vocab_size < found:
        raise ConfigError(f"model.vocab_size: {config.vocab_size} is less than the {found} of the tokenizer in {data}")
    return config.vocab_size or found, f"of {data}", int(manifest["splits"].get("train", {}).get("tokens", 0)) or None


def _measure(
    config: ModelConfig, settings: "PretrainSettings", predicted: "Speed", *, rows: int, precision: str, seconds: float
) -> "Speed":
    """Return the measured speed, or the predicted one where not even a few steps of one row fit into `seconds`."""
    from inkstone.assemble import choose_device
    from inkstone.train.speed import measurable_rows, measure_speed

    device = choose_device(settings.train.device)
    on_processor = device.type == "cpu"
    if not seconds and not on_processor:
        warn(f"the speed is predicted for the processor; --seconds 20 measures it on {device}")
    timed = measurable_rows(config, predicted, batch_size=rows, seconds=seconds) if on_processor else int(seconds > 0)
    if timed == 0:
        return predicted
    import torch

    from inkstone.machine import busy_cores, choose_threads, usable_cores

    torch.set_num_threads(settings.train.threads or choose_threads())
    if on_processor and (busy := busy_cores()) > 0.75 * usable_cores():
        warn(f"other programs keep {busy:.1f} of {usable_cores()} cores busy: the speed is lower than on an idle machine")
    say(f"timing real training steps for about {seconds:g} s …")
    return measure_speed(config, settings.optim, batch_size=rows, precision=precision, seconds=seconds, device=str(device))


def _length(
    settings: "PretrainSettings", tokens_per_second: float, *, tokens_per_step: int, epoch: int | None
) -> tuple[int, float]:
    """Return (tokens, seconds) of the run: the first limit that is reached ends it."""
    train = settings.train
    limits = [train.max_tokens, train.max_steps * tokens_per_step, train.max_epochs * (epoch or 0)]
    limits += [train.max_minutes * 60 * tokens_per_second]
    tokens = min((limit for limit in limits if limit), default=0)
    return round(tokens), tokens / tokens_per_second


def print_plan(plan: Plan, settings: "PretrainSettings") -> None:
    """Print the plan as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, text in _rows(plan, settings):
        table.add_row(name, text)
    Console(highlight=False, markup=False, emoji=False).print(table)


def _rows(plan: Plan, settings: "PretrainSettings") -> list[tuple[str, str]]:
    config, found = plan.config, figures(plan)
    heads = f"{config.num_heads} heads" + (f" ({config.num_kv_heads} for keys)" if config.num_kv_heads != config.num_heads else "")
    rows = [
        ("model", f"{config.preset}: {config.num_layers} layers, {heads}, width {config.width}, context {config.context}"),
        ("vocabulary", f"{config.vocab_size:,} ({plan.vocab_source})"),
        ("parameters", f"{found['num_params']:,}{_parts(found['params_by_part'], format_count)}"),
        ("FLOPs", f"{format_count(found['flops_per_token'])} a token of training"),
        ("batch", f"{plan.batch_size} x {config.context} tokens, {settings.train.accumulate} to an update, {plan.precision}"),
        ("memory", f"{format_bytes(plan.need.total_bytes)}{_parts(plan.need.parts, format_bytes)}"),
        ("cache", f"{format_bytes(found['cache_bytes_per_token'])} a token of generation"),
        ("speed", f"{format_count(plan.speed.tokens_per_second)} tokens/s ({_how(plan)})"),
        ("run", f"{format_count(plan.tokens)} tokens" + (f", {found['epochs']:.3g} epochs" if found["epochs"] else "")),
        ("time", format_seconds(plan.seconds)),
    ]
    free = format_bytes(plan.need.available_bytes)
    rows.append(("fits", f"yes, {free} are free" if plan.need.fits else f"no, {free} are free"))
    return rows + [("", f"choose {option}") for option in _options(plan, settings)]


def _options(plan: Plan, settings: "PretrainSettings") -> list[str]:
    if plan.need.fits:
        return []
    from inkstone.nn.cost import ways_to_fit
    from inkstone.train.fit import USABLE_SHARE

    budget = int(USABLE_SHARE * plan.need.available_bytes)
    kind, ema = settings.optim.kind, settings.train.ema > 0
    return ways_to_fit(plan.config, budget, batch_size=plan.batch_size, precision=plan.precision, optimizer=kind, ema=ema)


def _parts(parts: Mapping[str, int], form: Any) -> str:
    return " = " + " + ".join(f"{name.replace('_', ' ')} {form(value)}" for name, value in parts.items() if value)


def _how(plan: Plan) -> str:
    speed = plan.speed
    span = f"{format_count(speed.low)} to {format_count(speed.high)}"
    if not speed.steps:
        return f"predicted, {span}"
    return f"measured, {speed.steps} steps, quartiles {span}; predicted {format_count(plan.predicted.tokens_per_second)}"
