"""A run from its settings to its figures: refusing what does not fit before anything is touched, training, and closing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkstone import machine
from inkstone.assemble import build_model, choose_device, choose_precision
from inkstone.base.errors import CheckpointError, Interrupted
from inkstone.base.files import explain_os_errors, write_atomic, write_json
from inkstone.base.log import say
from inkstone.base.seeds import derive_seed
from inkstone.base.settings import resolve, to_toml
from inkstone.checkpoint.model_folder import load_model
from inkstone.checkpoint.store import require_space
from inkstone.data.shards import TokenSplit, load_manifest, open_split
from inkstone.nn import cost
from inkstone.text.tokenizer import Tokenizer
from inkstone.train.batch_size import find_batch_size
from inkstone.train.config import PretrainSettings
from inkstone.train.fit import require_fit
from inkstone.train.folder import (
    CONFIG,
    SUMMARY,
    check_resume,
    clear,
    finished_figures,
    locked,
    refuse_quickstart,
    require_clearable,
    require_no_file,
)
from inkstone.train.loop import Hooks, Trainer, make_loader
from inkstone.train.stopping import StopRequest

_BYTES_A_PARAM = 4 * 4  # of a checkpoint: weights, average, and two optimizer states in float32


@dataclass(frozen=True)
class Checked:
    """A run that nothing speaks against: its effective settings, and what it starts from.

    `done` holds the figures when it is complete already; the splits are opened only when it is not.
    """

    settings: PretrainSettings
    tokenizer: Tokenizer
    weights: dict[str, Tensor] | None
    done: dict[str, Any] | None
    splits: tuple[TokenSplit, TokenSplit] | None


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

    `init` is a run or model folder whose weights to start from (its architecture then replaces settings.model). With `overwrite` the
    old run is removed when everything that can be refused was checked.

    Raises: ConfigError, DataError, CheckpointError, ResourceError; Interrupted after a signal, when everything is saved.
    """
    stop = StopRequest("the same command without --overwrite" if overwrite else "the same command")
    with stop.listening(), locked(out):
        checked = _check(settings, data, out, overwrite=overwrite, init=init)
        if checked.done is not None:
            say(f"{out} is already complete; --overwrite starts anew, a larger limit goes on")
            return checked.done
        trainer = _build(checked, out, hooks or Hooks())
        if overwrite:
            if stop.name:
                raise Interrupted(f"{stop.name}: {out} is left as it is")
            clear(out)
        checkpoint = trainer.store.latest()
        if checkpoint is not None:
            trainer.resume(checkpoint)
            say(f"going on from step {checkpoint.step}")
        _write_facts(out, trainer.settings, data)
        torch.manual_seed(derive_seed(settings.train.seed, "dropout")) if checkpoint is None else None
        reason = trainer.fit(stop)
        return _close(out, trainer, reason)


def check(
    settings: PretrainSettings, *, data: Path, out: Path, overwrite: bool = False, init: Path | None = None
) -> PretrainSettings:
    """Return the effective settings of a run after refusing all that `pretrain` would refuse before it builds; nothing is written."""
    with explain_os_errors(str(out)):  # a name that is too long
        require_no_file(out)
    checked = _check(settings, data, out, overwrite=overwrite, init=init)
    if checked.splits is not None:
        make_loader(checked.settings, checked.splits[0])
    return checked.settings


def _check(settings: PretrainSettings, data: Path, out: Path, *, overwrite: bool, init: Path | None) -> Checked:
    """Refuse what cannot be trained, from what costs least to the reading of all data; decide what the settings leave open."""
    require_no_file(out)
    require_clearable(out) if overwrite else refuse_quickstart(out, "--out")
    load_manifest(data)
    tokenizer = Tokenizer.load(data)
    settings = _choose(settings, None if overwrite or not (out / CONFIG).exists() else out)
    torch.set_num_threads(settings.train.threads)
    machine.keep_freed_memory()
    weights = None
    if init is not None:
        settings, weights = _start_from(init, settings, tokenizer, data)
    settings = _with_vocabulary(settings, tokenizer)
    done = None if overwrite else finished_figures(out, settings)
    if done is not None:
        return Checked(settings, tokenizer, weights, done, None)
    _check_memory(settings)
    train, val = (open_split(data, split, tokenizer_fingerprint=tokenizer.fingerprint) for split in ("train", "val"))
    if not overwrite:
        check_resume(out, settings)
    require_space(out, _BYTES_A_PARAM * cost.num_params(settings.model))
    return Checked(settings, tokenizer, weights, None, (train, val))


def _choose(settings: PretrainSettings, begun_in: Path | None) -> PretrainSettings:
    """Return the settings with what was left open decided: as the run did when it began, else by what is fast here."""
    train = settings.train
    begun = None if begun_in is None else resolve(PretrainSettings, recipe=begun_in / CONFIG).train
    chosen: dict[str, Any] = {}
    if train.precision == "auto":
        chosen["precision"] = begun.precision if begun else choose_precision("auto", choose_device(train.device))
    if train.threads == 0:
        chosen["threads"] = begun.threads if begun else machine.choose_threads()
    if train.batch_size == 0 and begun:
        chosen["batch_size"] = begun.batch_size
    choose_precision(chosen.get("precision", train.precision), choose_device(train.device))
    return settings.model_copy(update={"train": train.model_copy(update=chosen)})


def _start_from(
    init: Path, settings: PretrainSettings, tokenizer: Tokenizer, data: Path
) -> tuple[PretrainSettings, dict[str, Tensor]]:
    """Return the settings with the architecture of the model at `init`, and its weights."""
    source, source_tokenizer = load_model(init, packed=False)
    if source_tokenizer.fingerprint != tokenizer.fingerprint:
        raise CheckpointError(f"{init} was trained with another tokenizer than {data} — prepare the data with --tokenizer {init}")
    kept = {"dropout": settings.model.dropout, "attention_dropout": settings.model.attention_dropout}
    return settings.model_copy(update={"model": source.config.model_copy(update=kept)}), source.state_dict()


def _with_vocabulary(settings: PretrainSettings, tokenizer: Tokenizer) -> PretrainSettings:
    given = settings.model.vocab_size
    if 0 < given < tokenizer.vocab_size:
        raise CheckpointError(
            f"model.vocab_size is {given}, the data's tokenizer has {tokenizer.vocab_size} — use 0 to take the tokenizer's"
        )
    model = settings.model.model_copy(update={"vocab_size": given or tokenizer.vocab_size})
    return settings.model_copy(update={"model": model})


def _check_memory(settings: PretrainSettings) -> None:
    if choose_device(settings.train.device).type == "cpu":
        require_fit(
            settings.model, machine.available_memory(), batch_size=settings.train.batch_size or 1, precision=settings.train.precision,
            optimizer=settings.optim.kind, ema=bool(settings.train.ema),
        )  # fmt: skip


def _build(checked: Checked, out: Path, hooks: Hooks) -> Trainer:
    """Return the trainer of a checked run, after finding its batch size if that was left open."""
    settings = checked.settings
    assert checked.splits is not None
    model = build_model(
        settings.model, seed=derive_seed(settings.train.seed, "init"), weights=checked.weights,
        device=choose_device(settings.train.device), precision=settings.train.precision, compile=settings.train.compile,
    )  # fmt: skip
    if settings.train.batch_size == 0:
        batch_size = find_batch_size(model, settings)
        settings = settings.model_copy(update={"train": settings.train.model_copy(update={"batch_size": batch_size})})
        say(f"batch size {batch_size}: the largest that fits and still pays")
    train, val = checked.splits
    return Trainer(settings, out, model=model, tokenizer=checked.tokenizer, train=train, val=val, hooks=hooks)


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
        "num_params": sum(p.numel() for p in trainer.model.parameters()), "skipped_steps": trainer.num_skipped, "stopped_by": reason,
        "best_step": trainer.best.step,
    }  # fmt: skip
    with explain_os_errors(str(out)):
        write_json(out / SUMMARY, figures)
    return figures
