"""TensorBoard event files from the same records that go to metrics.jsonl; torch's writer is loaded only when one is opened."""

import math
import weakref
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError

_SKIPPED = ("step", "sample", "samples")


class TensorBoardWriter:
    """A log of one run; a record's numbers become `train/…` and `val/…` scalars, its sample becomes a text."""

    def __init__(self, folder: Path, *, resume_step: int | None = None) -> None:
        """Open a log in `folder`. A run that goes on after `resume_step` hides what an earlier life logged later than that.

        Raises: ConfigError when the tensorboard package is missing.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "TensorBoard logs need the tensorboard package — pip install tensorboard, or switch them off"
            ) from error
        purge = None if resume_step is None else resume_step + 1
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)
        # The writer's thread is a daemon: without this, an owner that never closes loses the last two minutes at exit.
        self._close = weakref.finalize(self, self._writer.close)

    def write(self, record: dict[str, Any]) -> None:
        """Log one record of metrics.jsonl; values that are not finite numbers are left out."""
        step = int(record["step"])
        for name, value in record.items():
            if name not in _SKIPPED and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                self._writer.add_scalar(tag(name), value, step)
        sample = record.get("sample")
        if isinstance(sample, dict):
            # Four spaces make a Markdown code block: TensorBoard would otherwise read the model's text as markup.
            text = f"{sample.get('prompt', '')}{sample.get('text', '')}"
            self._writer.add_text(f"sample/{str(sample.get('prompt', ''))[:40]}", "    " + text.replace("\n", "\n    "), step)

    def close(self) -> None:
        """Write out what is left and close the file."""
        self._close()


def tag(name: str) -> str:
    """Return the scalar's name on the board: `loss` → `train/loss`, `val_loss` → `val/loss`."""
    return f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
