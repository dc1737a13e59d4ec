"""A run is a folder: opening it, refusing what does not fit, training in it, and closing it with its figures."""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from inkstone import machine
from inkstone.assemble import build_model, choose_device, choose_precision
from inkstone.base.errors import CheckpointError, ConfigError, ResourceError
from inkstone.base.files import explain_os_errors, remove_folder, write_atomic, write_json
from inkstone.base.log import say
from inkstone.base.seeds import derive_seed
from inkstone.base.settings import resolve, to_toml
from inkstone.checkpoint.model_folder import load_model
from inkstone.data.shards import load_manifest, open_split
from inkstone.nn import cost
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import Tokenizer
from inkstone.train.batch_size import find_batch_size
from inkstone.train.config import FREE_TO_CHANGE, PretrainSettings
from inkstone.train.fit import require_fit
from inkstone.train.loop import Hooks, Trainer
from inkstone.train.stopping import StopRequest

CONFIG, SUMMARY, LOCK = "config.toml", "summary.json", ".lock"


@dataclass(frozen=True)
class Prepared:
    """What a run needs before its first step."""

    settings: PretrainSettings
    tokenizer: Tokenizer
    model: Transformer


def pretrain(
    settings: PretrainSettings,
    *,
    data: Path,
    out: Path,
    overwrite: bool = False,
    init: Path | None = None,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Train a model on a prepared data folder and return the run's figures; the same call goes on after an interruption.

    `init` is a run or model folder whose weights to start from (its architecture then replaces settings.model).

    Raises: ConfigError, DataError, CheckpointError, ResourceError; Interrupted after a signal, when everything is saved.
    """
    stop = StopRequest()
    with stop.listening(), locked(out):
        if overwrite:
            _clear(out)
        prepared = _prepare(settings, data, out, init)
        settings = prepared.settings
        done = _finished(out, settings)
        if done is not None:
            say(f"{out} is already complete; --overwrite starts anew, a larger limit goes on")
            return done
        train, val = (open_split(data, split, tokenizer_fingerprint=prepared.tokenizer.fingerprint) for split in ("train", "val"))
        _check_resume(out, settings)
        trainer = Trainer(
            settings, out, model=prepared.model, tokenizer=prepared.tokenizer, train=train, val=val, hooks=hooks or Hooks()
        )
        trainer.store.require_space(4 * 4 * cost.num_params(settings.model))
        checkpoint = trainer.store.latest()
        if checkpoint is not None:
            trainer.resume(checkpoint)
            say(f"going on from step {checkpoint.step}")
        _write_facts(out, settings, data)
        torch.manual_seed(derive_seed(settings.train.seed, "dropout")) if checkpoint is None else None
        reason = trainer.fit(stop)
        return _close(out, trainer, reason)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the run folder for this process.

    Raises: ConfigError when another process has it, or `out` is a file; ResourceError when it cannot be written.
    """
    try:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file; a run is a folder")
        out.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(out / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = (out / f"{LOCK}.owner").read_text() if (out / f"{LOCK}.owner").exists() else "unknown"
        raise ConfigError(f"{out} is in use by process {owner} — wait for it, or choose another --out") from None
    except (OSError, ValueError) as error:
        raise ResourceError(f"cannot use {str(out)!r} as a run folder: {getattr(error, 'strerror', None) or error}") from error
    try:
        with explain_os_errors(str(out)):
            (out / f"{LOCK}.owner").write_text(f"{os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


def _prepare(settings: PretrainSettings, data: Path, out: Path, init: Path | None) -> Prepared:
    """Return the effective settings, the tokenizer and the model; everything that can be refused is refused here."""
    load_manifest(data)
    tokenizer = Tokenizer.load(data)
    settings = _choose(settings, out)
    torch.set_num_threads(settings.train.threads)
    device, precision = choose_device(settings.train.device), settings.train.precision
    weights = None
    if init is not None:
        source, source_tokenizer = load_model(init)
        if source_tokenizer.fingerprint != tokenizer.fingerprint:
            raise CheckpointError(
                f"{init} was trained with another tokenizer than {data} — prepare the data with --tokenizer {init}"
            )
        weights = source.state_dict()
        kept = {"dropout": settings.model.dropout, "attention_dropout": settings.model.attention_dropout}
        settings = settings.model_copy(update={"model": source.config.model_copy(update=kept)})
    settings = _with_vocabulary(settings, tokenizer)
    _check_memory(settings, precision, device)
    model = build_model(
        settings.model, seed=derive_seed(settings.train.seed, "init"), weights=weights, device=device, precision=precision
    )  # fmt: skip
    if settings.train.compile:
        model.compile()
    if settings.train.batch_size == 0:
        batch_size = find_batch_size(model, settings)
        settings = settings.model_copy(update={"train": settings.train.model_copy(update={"batch_size": batch_size})})
        say(f"batch size {batch_size}: the largest that fits and still pays")
    return Prepared(settings, tokenizer, model)


def _choose(settings: PretrainSettings, out: Path) -> PretrainSettings:
    """Return the settings with what was left open decided: as the run did when it began, else by what is fast here."""
    train = settings.train
    begun = resolve(PretrainSettings, recipe=out / CONFIG).train if (out / CONFIG).exists() else None
    chosen: dict[str, Any] = {}
    if train.precision == "auto":
        chosen["precision"] = begun.precision if begun else choose_precision("auto", choose_device(train.device))
    if train.threads == 0:
        chosen["threads"] = begun.threads if begun else machine.choose_threads()
    if train.batch_size == 0 and begun:
        chosen["batch_size"] = begun.batch_size
    choose_precision(chosen.get("precision", train.precision), choose_device(train.device))
    return settings.model_copy(update={"train": train.model_copy(update=chosen)})


def _with_vocabulary(settings: PretrainSettings, tokenizer: Tokenizer) -> PretrainSettings:
    given = settings.model.vocab_size
    if 0 < given < tokenizer.vocab_size:
        raise CheckpointError(
            f"model.vocab_size is {given}, the data's tokenizer has {tokenizer.vocab_size} — use 0 to take the tokenizer's"
        )
    model = settings.model.model_copy(update={"vocab_size": given or tokenizer.vocab_size})
    return settings.model_copy(update={"model": model})


def _check_memory(settings: PretrainSettings, precision: str, device: torch.device) -> None:
    if device.type == "cpu":
        require_fit(
            settings.model, machine.available_memory(), batch_size=settings.train.batch_size or 1, precision=precision,
            optimizer=settings.optim.kind, ema=bool(settings.train.ema),
        )  # fmt: skip


def _clear(out: Path) -> None:
    """Remove what a run writes, and only if it is a run."""
    entries = [path for path in out.iterdir() if not path.name.startswith(LOCK)]
    if entries and not (out / CONFIG).exists():
        raise ConfigError(f"--overwrite: {out} is not a run folder (no {CONFIG}); it is left as it is")
    for path in entries:
        remove_folder(path) if path.is_dir() else path.unlink()


def _finished(out: Path, settings: PretrainSettings) -> dict[str, Any] | None:
    """Return the figures of a run that is complete under these settings."""
    if not (out / SUMMARY).exists():
        return None
    if not (out / CONFIG).exists() or to_toml(resolve(PretrainSettings, recipe=out / CONFIG)) != to_toml(settings):
        return None
    return json.loads((out / SUMMARY).read_text(encoding="utf-8"))


def _check_resume(out: Path, settings: PretrainSettings) -> None:
    """Refuse a folder of another kind, and a resume whose settings would have made another run; all differences at once."""
    names = [path.name for path in out.iterdir() if not path.name.startswith(LOCK)]
    if not names:
        return
    if CONFIG not in names:
        raise ConfigError(f"--out {out} is not empty and not a run ({', '.join(sorted(names)[:5])}) — choose another folder")
    old, new = (_leaves(s.model_dump()) for s in (resolve(PretrainSettings, recipe=out / CONFIG), settings))
    changed = [
        f"{key}: was {old[key]}, now {new[key]}" for key in old if old[key] != new[key] and not key.startswith(FREE_TO_CHANGE)
    ]
    if changed:
        raise ConfigError(
            "\n".join([*changed, f"{out} was begun with other settings — repeat them, or start anew with --overwrite"])
        )


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _write_facts(out: Path, settings: PretrainSettings, data: Path) -> None:
    manifest = load_manifest(data)
    for split in manifest["splits"].values():
        split.pop("shards", None)
    with explain_os_errors(str(out)):
        write_atomic(out / CONFIG, to_toml(settings))
        write_json(out / "data.json", {"folder": str(data), **manifest})
        write_json(
            out / "machine.json", machine.describe() | {"precision": settings.train.precision, "threads": settings.train.threads}
        )


def _close(out: Path, trainer: Trainer, reason: str) -> dict[str, Any]:
    """Write and return the run's figures."""
    spent, val = trainer.spent, trainer.last_evaluation
    figures = {
        "run": str(out), "steps": spent.steps, "tokens": spent.tokens, "seconds": spent.seconds,
        "tokens_per_second": spent.tokens / spent.seconds if spent.seconds else 0.0,
        "train_loss": trainer.last_loss, "val_loss": val["val_loss"],
        "val_perplexity": val["val_perplexity"], "val_accuracy": val["val_accuracy"], "val_bits_per_byte": val["val_bits_per_byte"],
        "num_params": sum(p.numel() for p in trainer.model.parameters()), "skipped_steps": len(trainer.skipped_steps), "stopped_by": reason,
        "best_step": trainer.best.step,
    }  # fmt: skip
    write_json(out / SUMMARY, figures)
    return figures
