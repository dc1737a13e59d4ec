"""What a run folder tells about a model in it: the data it was trained on, and how it was trained."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkstone.report.run_data import is_run, read_run

CHECKPOINTS, MODELS = "checkpoints", ("best", "final")


@dataclass(frozen=True)
class OwnData:
    """The prepared folder that `run` was trained on, and its manifest (without the shards) as it was then."""

    run: Path
    folder: Path
    manifest: dict[str, Any]

    def is_unchanged(self, manifest: dict[str, Any]) -> bool:
        """Return whether the folder still holds the splits that the run was trained on, as far as their counts tell."""
        return _identity(self.manifest) == _identity(manifest)


@dataclass(frozen=True)
class Choices:
    """What changes a measurement: the precision of training (None: unknown), and whether attention stays inside documents."""

    precision: str | None = None
    document_mask: bool = True


def find_own_data(model: Path) -> OwnData | None:
    """Return the data of the run that `model` (a run, or a checkpoint or model folder of one) belongs to; None when unknown."""
    run = find_run(model)
    if run is None:
        return None
    data = read_run(run).data
    folder = data.get("folder")
    return OwnData(run, Path(folder), data) if isinstance(folder, str) else None


def read_choices(model: Path) -> Choices:
    """Return how the model was trained, as its run's config.toml says; the defaults where there is none."""
    run = find_run(model)
    train = read_run(run).config.get("train") if run is not None else None
    if not isinstance(train, dict):
        return Choices()
    precision = train.get("precision")
    return Choices(precision if precision in ("bf16", "fp16", "fp32") else None, train.get("document_mask") is not False)


def find_run(model: Path) -> Path | None:
    """Return the run folder that holds a model: itself, or the one that its place in a run tells; None when there is none."""
    if is_run(model):
        return model
    resolved = model.resolve()
    parent = resolved.parent
    if resolved.name in MODELS and is_run(parent):
        return parent
    return parent.parent if parent.name == CHECKPOINTS and is_run(parent.parent) else None


def _identity(manifest: dict[str, Any]) -> str:
    splits = manifest.get("splits")
    rows = {
        name: {key: value for key, value in split.items() if key != "shards"}
        for name, split in (splits.items() if isinstance(splits, dict) else ())
        if isinstance(split, dict)
    }
    return json.dumps([manifest.get("tokenizer_fingerprint"), rows], sort_keys=True)
