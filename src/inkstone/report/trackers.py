"""Where a run's rows go besides metrics.jsonl: TensorBoard, and Weights & Biases or trackio when asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError
from inkstone.report.tensorboard import TensorBoardWriter

Row = dict[str, Any]
ROWS_APART = 10  # training steps; a row costs a tracker up to a millisecond


class Trackers:
    """Fans one row out to every tracker; each is opened at the first row, when it is known where a resumed run goes on."""

    def __init__(self, run: Path, *, tensorboard: bool, wandb: str, trackio: str) -> None:
        self._openers: list[Callable[[int], Callable[[Row], None]]] = []
        if tensorboard:
            self._openers.append(
                lambda step: TensorBoardWriter(run / "tensorboard", resume_step=step - 1 if step > 1 else None).write
            )
        for module, project in (("wandb", wandb), ("trackio", trackio)):
            if project:
                self._openers.append(_account_opener(module, project, run.name))
        self._writers: list[Callable[[Row], None]] | None = None

    def write(self, row: Row) -> None:
        """Send one row of metrics.jsonl to every tracker; of the training steps after the first few only each tenth."""
        if "loss" in row and row["step"] % ROWS_APART and row["step"] > ROWS_APART:
            return
        if self._writers is None:
            self._writers = [opener(int(row["step"])) for opener in self._openers]
        for writer in self._writers:
            writer(row)


def _account_opener(module: str, project: str, name: str) -> Callable[[int], Callable[[Row], None]]:
    """Return an opener for wandb or trackio, which share one interface; a missing package is reported at once."""
    import importlib

    try:
        library = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"log.{module} needs a package that is not installed — pip install 'inkstone[track]'") from error

    def open_project(step: int) -> Callable[[Row], None]:
        library.init(project=project, name=name)
        return lambda row: library.log(
            {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}, step=int(row["step"])
        )

    return open_project
