"""What a training run can be told; no torch here, so that help pages are fast."""

from typing import Annotated, Any, Literal

import pydantic

from inkstone.base.quantity import parse_count, parse_minutes
from inkstone.base.settings import Settings, setting
from inkstone.nn.config import ModelConfig
from inkstone.optim.config import OptimSettings
from inkstone.optim.schedule_config import ScheduleSettings, schedule_problems

Count = Annotated[int, pydantic.BeforeValidator(lambda v: parse_count(v) if isinstance(v, str) else v)]
Minutes = Annotated[float, pydantic.BeforeValidator(lambda v: parse_minutes(v) if isinstance(v, str) else v)]
Metric = Literal["val_accuracy", "val_loss", "val_bits_per_byte"]
DEFAULT_MINUTES = 10.0


class TrainSettings(Settings):
    """Batches, limits and precision. The first limit that is reached ends the run; without any it is ten minutes."""

    batch_size: int = setting(16, "sequences a step and process; 0 = the largest power of two that fits and pays", ge=0, le=65536)
    accumulate: int = setting(1, "batches added up before an update", ge=1, le=65536)
    ramp_from: float = setting(1.0, "batch ramp: start with this share of batch_size", gt=0, le=1)
    ramp_share: float = setting(0.0, "batch ramp: reach the full batch_size after this share of the run", ge=0, lt=1)
    max_steps: Count = setting(0, "stop after so many updates; 0 = no limit", ge=0)
    max_tokens: Count = setting(0, "stop after so many tokens, such as 10M; 0 = no limit", ge=0)
    max_minutes: Minutes = setting(
        0.0, "stop after so much training, such as 8 or 1h30m; evaluation not counted; 0 = no limit", ge=0
    )
    max_epochs: float = setting(0.0, "stop after so many passes over the data; 0 = no limit", ge=0)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = setting(
        "auto", "of activations and products; weights stay fp32; auto = what is fast"
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, …")
    threads: int = setting(0, "processor threads; 0 = one a core", ge=0, le=1024)
    seed: int = setting(1, "root of every random decision", ge=0, lt=2**63)
    packing: Literal["stream", "fit"] = setting("stream", "rows: windows over the stream of documents, or whole documents fitted")
    document_mask: bool = setting(True, "attention does not cross documents")
    clip_norm: float = setting(1.0, "clip the gradient's norm; 0 = off", ge=0, le=1e6)
    clip_value: float = setting(0.0, "clip each gradient entry's absolute value (the article's clipping); 0 = off", ge=0, le=1e6)
    ema: float = setting(
        0.0, "decay of an exponential moving average of the weights, which is then what is evaluated and kept; 0 = off", ge=0, lt=1
    )
    compile: bool = setting(False, "torch.compile the model (needs a C++ compiler; slow start)")
    max_skipped: int = setting(3, "end the run after so many non-finite steps in a row", ge=1, le=1000)


class EvalSettings(Settings):
    """When and how the validation split is measured."""

    every: Count = setting(0, "steps between evaluations; 0 = twenty times a run", ge=0)
    max_tokens: Count = setting(0, "validation tokens; 0 = the whole split", ge=0)
    stride: int = setting(0, "tokens between windows; 0 = the context (each token once, no overlap)", ge=0)
    batch_size: int = setting(0, "sequences at once; 0 = as in training", ge=0, le=65536)
    sample_tokens: int = setting(120, "length of the sample written at each evaluation; 0 = none", ge=0, le=4096)
    sample_prompt: str = setting("", "what the samples continue; empty = the start of the validation split")


class CheckpointSettings(Settings):
    """When the complete state is saved."""

    every: Count = setting(0, "steps between checkpoints; 0 = by time", ge=0)
    every_minutes: Minutes = setting(2.0, "minutes between checkpoints, where `every` is 0", gt=0)
    keep: int = setting(2, "newest checkpoints to keep", ge=2, le=10000)
    keep_every: Count = setting(0, "also keep each checkpoint whose step is a multiple of this; 0 = none", ge=0)


class EarlyStopSettings(Settings):
    """Stop when a metric no longer improves; the best state is kept in any case."""

    metric: Metric = setting("val_accuracy", "val_accuracy (the article's), val_loss or val_bits_per_byte")
    patience: int = setting(0, "evaluations without improvement before stopping; 0 = never stop", ge=0, le=10**6)
    min_delta: float = setting(0.0, "smallest change that counts as improvement", ge=0)


class ObjectiveSettings(Settings):
    """What is minimized."""

    kind: Literal["lm"] = setting("lm", "lm: next-token cross-entropy")


class LogSettings(Settings):
    """Where figures go, beside metrics.jsonl."""

    tensorboard: bool = setting(True, "write TensorBoard events")
    wandb: str = setting("", "project name to log to Weights & Biases (needs inkstone[track]); empty = off")
    trackio: str = setting("", "project name to log to trackio (needs inkstone[track]); empty = off")


class PretrainSettings(Settings):
    """A complete pretraining run."""

    model: ModelConfig = ModelConfig()
    train: TrainSettings = TrainSettings()
    optim: OptimSettings = OptimSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    eval: EvalSettings = EvalSettings()
    early_stop: EarlyStopSettings = EarlyStopSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _limit(cls, given: Any) -> Any:
        """Give a run without any limit its default one, visibly."""
        train = given.get("train", {}) if isinstance(given, dict) else None
        if isinstance(train, dict) and not any(train.get(f"max_{unit}") for unit in ("steps", "tokens", "minutes", "epochs")):
            return given | {"train": train | {"max_minutes": DEFAULT_MINUTES}}
        return given

    @pydantic.model_validator(mode="after")
    def _check(self) -> "PretrainSettings":
        problems = schedule_problems(self.schedule, total_steps=self.train.max_steps or None)
        if self.eval.stride > self.model.context:
            problems.append(
                f"eval.stride: {self.eval.stride} is larger than model.context {self.model.context}, so tokens would be skipped"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


# What may differ between a run's folder and the command that goes on with it: none of these changes what has been done so far.
FREE_TO_CHANGE = (
    "train.max_steps", "train.max_tokens", "train.max_minutes", "train.max_epochs", "train.max_skipped", "checkpoint.", "early_stop.", "log.",
    "eval.sample_",
)  # fmt: skip
