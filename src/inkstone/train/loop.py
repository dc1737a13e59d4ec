"""The training loop: one page of plain verbs around the step."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inkstone.base.errors import CheckpointError, DataError, Interrupted, ResourceError
from inkstone.base.files import explain_os_errors, sha256_text, write_json
from inkstone.base.log import progress, warn
from inkstone.base.quantity import format_count
from inkstone.base.settings import to_toml
from inkstone.checkpoint.model_folder import checkpoint_files, save_model
from inkstone.checkpoint.state import capture_rng, restore_rng
from inkstone.checkpoint.store import CheckpointStore, LoadedCheckpoint
from inkstone.data.loader import Loader
from inkstone.data.shards import TokenSplit
from inkstone.nn.transformer import Transformer
from inkstone.optim.optimizers import OptimizerSet
from inkstone.optim.schedules import factor
from inkstone.text.tokenizer import Tokenizer
from inkstone.train.config import PretrainSettings
from inkstone.train.ema import WeightAverage
from inkstone.train.journal import Journal, plain, read_rows
from inkstone.train.limits import Spent, ramped_batch_size, share_used
from inkstone.train.objectives import OBJECTIVES
from inkstone.train.step import StepResult, TrainStep
from inkstone.train.stopping import BestMetric, StopRequest
from inkstone.train.validate import Validation, validate

EVALUATIONS_A_RUN = 20
MAX_FAILED_SAVES = 3
SKIP_WINDOW, SKIP_SHARE = 1000, 0.01  # at most one step in a hundred may be refused

Row = dict[str, Any]


@dataclass(frozen=True)
class Hooks:
    """What the caller adds: each row as it is written, and a sample of the model's text for the report."""

    on_row: Callable[[Row], None] = lambda row: None
    make_sample: Callable[[Transformer, int], Row] | None = None


class Trainer:
    """A run in progress: the model and everything that changes with it. `state` and the tensors are all that a resume needs."""

    def __init__(
        self,
        settings: PretrainSettings,
        run: Path,
        *,
        model: Transformer,
        tokenizer: Tokenizer,
        train: TokenSplit,
        val: TokenSplit,
        hooks: Hooks,
    ) -> None:
        self.settings, self.run, self.hooks = settings, run, hooks
        self.model, self.tokenizer, self.val = model, tokenizer, val
        self.optimizer = OptimizerSet(model, settings.optim)
        objective = OBJECTIVES[settings.objective.kind]
        self.step = TrainStep(
            model, self.optimizer, objective, clip_norm=settings.train.clip_norm, clip_value=settings.train.clip_value
        )  # fmt: skip
        self.loader = make_loader(settings, train)
        self.average = WeightAverage(model, settings.train.ema)
        self.best = BestMetric(settings.early_stop)
        self.store = CheckpointStore(run, keep=settings.checkpoint.keep, keep_every=settings.checkpoint.keep_every)
        self.spent = Spent()
        self.evaluated_at = -1  # number of the last evaluation that was due
        self.skipped_steps: list[int] = []  # the latest refused ones
        self.num_skipped = 0  # steps without an update, for whatever reason
        self.last_loss: float | None = None
        self.last_evaluation: Row = {}
        self._unwritten: list[Row] = []  # rows that the disk did not take
        self._begun_at = self._saved_step = -1  # -1: there is no checkpoint yet
        self._saved_mark: object = None
        self._go_on = "the same command"
        self._failed_saves = 0

    def fit(self, stop: StopRequest) -> str:
        """Train until a limit, early stopping or a signal; return the reason. The final weights are in `final/`.

        Raises: Interrupted (after saving), DataError (too many non-finite steps), ResourceError (cannot save).
        """
        self._go_on = stop.go_on
        evaluated_step = self.last_evaluation.get("step", -1)
        journal = Journal(self.run, resume_step=self._begun_at, evaluated_step=evaluated_step)
        last_save = time.monotonic()
        with contextlib.closing(journal), progress("train", 1.0) as bar:
            written = read_rows(self.run) if self._unwritten else []
            self._record(journal, [row for row in self._unwritten if row not in written])
            while True:
                share, limit = share_used(self.settings.train, self.spent)
                if not stop.name:
                    self._evaluate_if_due(share, journal, stop)
                if stop.name:
                    self._save(is_last_chance=True)
                    raise Interrupted(f"{stop.name}: saved at step {self.spent.steps} in {self.run}; {stop.go_on} goes on")
                if self.best.is_exhausted or share >= 1:
                    break
                if self._is_save_due(last_save):
                    self._save()
                    last_save = time.monotonic()
                row = self._train_one_step(share)
                self._record(journal, [row])
                bar.update(share, self._note(row))
        self._save()
        with self.average.applied_to(self.model):
            save_model(self.run / "final", self.model, self.tokenizer, None)
        return "early_stop" if self.best.is_exhausted else limit

    def resume(self, checkpoint: LoadedCheckpoint) -> None:
        """Continue exactly where a checkpoint was saved.

        Raises: CheckpointError when something is missing in it, or belongs to another model, optimizer or data.
        """
        state, tensors = checkpoint.state, checkpoint.tensors
        try:
            load_weights(self.model, tensors["model"], checkpoint.folder)
            self.optimizer.load_state_tensors(tensors["optimizer"])
            self.average.load(tensors.get("average", {}), state["average_updates"])
            self.loader.load_state(state["loader"])
            self.best.load_state(state["best"])
            self.spent = Spent(**state["spent"])
            self.step.loss_scale, self.step.good_steps = state["loss_scale"], state["good_steps"]
            self.evaluated_at, self.last_evaluation = state["evaluated_at"], state["last_evaluation"]
            self.skipped_steps, self.num_skipped = state["skipped_steps"], state["num_skipped"]
            self.last_loss, self._unwritten = state["last_loss"], state["unwritten"]
            restore_rng(state["rng"])
        except KeyError as error:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder} has no {error} — was it saved by another version? --overwrite starts anew"
            ) from error
        self._begun_at = self._saved_step = self.spent.steps
        self._saved_mark = self._mark()

    def state(self) -> dict[str, Any]:
        """Return everything but tensors, as JSON-able values."""
        return {
            "spent": vars(self.spent), "loader": self.loader.state(), "rng": capture_rng(), "best": self.best.state(),
            "loss_scale": self.step.loss_scale, "good_steps": self.step.good_steps, "evaluated_at": self.evaluated_at,
            "skipped_steps": self.skipped_steps, "num_skipped": self.num_skipped, "average_updates": self.average.updates,
            "last_evaluation": self.last_evaluation, "last_loss": self.last_loss, "unwritten": self._unwritten,
        }  # fmt: skip

    def _train_one_step(self, share: float) -> Row:
        train = self.settings.train
        began = time.perf_counter()
        self.loader.batch_size = ramped_batch_size(train, share)
        where = self.loader.state()
        batches = [self.loader.next() for _ in range(train.accumulate)]
        lr_factor = factor(self.settings.schedule, progress=share, step=self.spent.steps)
        result = self.step(batches, lr_factor)
        self.spent.steps += 1
        self.num_skipped += not result.applied
        if result.applied:
            self.average.update(self.model)
            self.last_loss = result.loss
        elif result.refused:
            self._refuse(result, where)
        seconds = time.perf_counter() - began
        num_tokens = sum(batch.tokens_BT.numel() for batch in batches)
        self.spent.tokens += num_tokens
        self.spent.seconds += seconds
        self.spent.epochs = self.loader.epoch + self.loader.cursor / self.loader.rows_per_epoch
        return {
            "step": self.spent.steps, "tokens": self.spent.tokens, "loss": result.loss, "accuracy": result.accuracy,
            "grad_norm": result.grad_norm, "lr": self.settings.optim.lr * lr_factor, "batch_size": self.loader.batch_size,
            "tokens_per_second": num_tokens / seconds, "seconds": self.spent.seconds, "epoch": self.spent.epochs,
            **({} if result.applied else {"skipped": True}),
        }  # fmt: skip

    def _refuse(self, result: StepResult, where: dict[str, Any]) -> None:
        """Count a step whose loss or gradient was not finite: its update was not applied."""
        self.skipped_steps = [s for s in self.skipped_steps if s > self.spent.steps - SKIP_WINDOW] + [self.spent.steps]
        warn(f"step {self.spent.steps}: loss {result.loss}, gradient norm {result.grad_norm}: update refused")
        in_a_row = 1
        while self.spent.steps - in_a_row in self.skipped_steps:
            in_a_row += 1
        if in_a_row < self.settings.train.max_skipped and len(self.skipped_steps) <= max(1, SKIP_SHARE * SKIP_WINDOW):
            return
        with explain_os_errors(str(self.run)):
            write_json(
                self.run / "nonfinite.json", {"step": self.spent.steps, "loader": where, "skipped_steps": self.skipped_steps}
            )
        raise DataError(
            f"training is not finite: {len(self.skipped_steps)} refused steps, {in_a_row} in a row, the last at step {self.spent.steps}"
            f" — lower optim.lr or look at the batch named in {self.run / 'nonfinite.json'}; the last checkpoint is good"
        )

    def _evaluate_if_due(self, share: float, journal: Journal, stop: StopRequest) -> None:
        """Measure, sample and keep the best; what a signal breaks off leaves no trace, so that it is due again after a resume."""
        every = self.settings.eval.every
        number = self.spent.steps // every if every else math.floor(min(share, 1.0) * EVALUATIONS_A_RUN + 1e-9)
        is_done = self.last_evaluation.get("step") == self.spent.steps
        if is_done or (number == self.evaluated_at and share < 1):
            self.evaluated_at = number
            return
        with self.average.applied_to(self.model):
            rows = self._measure(stop)
            if rows is None:
                return
            self._keep_best(rows[0])
        self.last_evaluation, self.evaluated_at = rows[0], number
        self._record(journal, rows)

    def _measure(self, stop: StopRequest) -> list[Row] | None:
        """Return the rows of an evaluation and, where asked for, a sample; None when a signal broke it off."""
        try:
            with stop.interrupting():
                result, sample = self.validate(), None
                if self.hooks.make_sample is not None and self.settings.eval.sample_tokens:
                    sample = self.hooks.make_sample(self.model, self.spent.steps)
        except KeyboardInterrupt:
            if not stop.name:
                raise
            return None
        row: Row = {
            "step": self.spent.steps, "tokens": self.spent.tokens, "seconds": self.spent.seconds, "val_loss": result.loss,
            "val_accuracy": result.accuracy, "val_bits_per_byte": result.bits_per_byte, "val_perplexity": result.perplexity,
        }  # fmt: skip
        return [row] if sample is None else [row, {"step": self.spent.steps, "sample": sample}]

    def _keep_best(self, row: Row) -> None:
        """Save the model if it is the best so far; where the disk is full, the best stays what it was."""
        before = self.best.state()
        if not self.best.offer(row, self.spent.steps):
            return
        try:
            save_model(self.run / "best", self.model, self.tokenizer, None)
        except ResourceError as error:
            self.best.load_state(before)
            self._count_failed_save(f"best model not saved: {error}", error)

    def _record(self, journal: Journal, rows: list[Row]) -> None:
        """Write rows to the journal and hand them on; what the disk does not take goes into the checkpoint, and the run ends.

        Raises: ResourceError.
        """
        self._unwritten = [plain(row) for row in rows]
        while self._unwritten:
            try:
                journal.write(self._unwritten[0])
            except ResourceError:
                self._save(is_last_chance=True)
                raise
            self.hooks.on_row(self._unwritten.pop(0))

    def validate(self) -> Validation:
        """Return the validation split's figures."""
        settings = self.settings
        return validate(
            self.model, self.val, self.tokenizer.byte_lengths, context=settings.model.context, stride=settings.eval.stride,
            batch_size=settings.eval.batch_size or settings.train.batch_size, max_tokens=settings.eval.max_tokens,
            document_mask=settings.train.document_mask,
        )  # fmt: skip

    def _is_save_due(self, last_save: float) -> bool:
        checkpoint = self.settings.checkpoint
        if checkpoint.every:
            return self.spent.steps % checkpoint.every == 0 and self.spent.steps not in (0, self._saved_step)
        return time.monotonic() - last_save >= 60 * checkpoint.every_minutes

    def _save(self, *, is_last_chance: bool = False) -> None:
        """Publish a checkpoint; a full disk is a warning until it has happened three times in a row, or nothing comes after.

        Raises: ResourceError.
        """
        if self._saved_mark == self._mark():
            return
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_tensors()}
        if self.average.decay:
            tensors["average"] = self.average.average
        files = checkpoint_files(self.model.config, self.tokenizer)
        try:
            self.store.save(self.spent.steps, tensors, self.state(), extra_files=files, manifest=self._manifest())
        except ResourceError as error:
            if is_last_chance:
                raise ResourceError(
                    f"{error}\nstep {self.spent.steps} could not be saved: {self._go_on} goes on from {self._last_saved()}"
                ) from error
            self._count_failed_save(f"checkpoint not saved: {error}", error)
            return
        self._failed_saves, self._saved_step, self._saved_mark = 0, self.spent.steps, self._mark()

    def _count_failed_save(self, message: str, error: ResourceError) -> None:
        warn(message)
        self._failed_saves += 1
        if self._failed_saves >= MAX_FAILED_SAVES:
            raise error

    def _last_saved(self) -> str:
        return f"the checkpoint of step {self._saved_step}" if self._saved_step >= 0 else "the beginning"

    def _mark(self) -> object:
        """Return what differs between two states of this run that are worth a checkpoint each."""
        return self.spent.steps, self.evaluated_at, self.last_evaluation.get("step"), len(self._unwritten)

    def _manifest(self) -> dict[str, Any]:
        return {
            "tokens": self.spent.tokens, "world_size": 1, "tokenizer_fingerprint": self.tokenizer.fingerprint,
            "data_fingerprint": self.loader.split.fingerprint, "config_sha256": sha256_text(to_toml(self.settings)),
        }  # fmt: skip

    def _note(self, row: Row) -> str:
        val = f" val {self.last_evaluation['val_loss']:.3f}" if self.last_evaluation else ""
        return f"step {row['step']} loss {row['loss']:.3f}{val} {format_count(row['tokens_per_second'])} tok/s"


def make_loader(settings: PretrainSettings, train: TokenSplit) -> Loader:
    """Return the loader of a run. Raises: DataError when the split is shorter than one row."""
    return Loader(
        train, batch_size=settings.train.batch_size, context=settings.model.context, seed=settings.train.seed,
        packing=settings.train.packing, document_mask=settings.train.document_mask,
    )  # fmt: skip


def load_weights(model: Transformer, weights: dict[str, Tensor], folder: Path) -> None:
    """Put a checkpoint's weights into the model. Raises: CheckpointError when names or shapes differ."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{folder} holds the weights of another model — {' '.join(str(error).split())[:300]}") from error
