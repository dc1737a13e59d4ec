"""Where a run's rows go besides metrics.jsonl: TensorBoard, and Weights & Biases or trackio when asked for."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError
from inkstone.base.log import warn
from inkstone.report.tensorboard import TensorBoardWriter

Row = dict[str, Any]
Opener = Callable[[int], Callable[[Row], None]]  # the step of the first row → what takes rows
ROWS_APART = 10  # training steps; a row costs a tracker up to a millisecond


class Trackers:
    """Fans one row out to every tracker; each is opened at the first row, when it is known where a resumed run goes on.

    A tracker that fails is switched off with a warning: metrics.jsonl has every row, and the run goes on.
    Raises: ConfigError at once when a package is not installed.
    """

    def __init__(self, run: Path, *, tensorboard: bool, wandb: str, trackio: str) -> None:
        self._openers: dict[str, Opener] = {}
        if tensorboard:
            self._openers["tensorboard"] = lambda step: (
                TensorBoardWriter(run / "tensorboard", resume_step=step - 1 if step > 1 else None).write
            )
        for module, project in (("wandb", wandb), ("trackio", trackio)):
            if project:
                self._openers[module] = _account_opener(module, project, run.name)
        self._writers: dict[str, Callable[[Row], None]] | None = None

    def write(self, row: Row) -> None:
        """Send one row of metrics.jsonl to every tracker; of the training steps after the first few only each tenth."""
        if "loss" in row and row["step"] % ROWS_APART and row["step"] > ROWS_APART:
            return
        if self._writers is None:
            self._writers = {}
            for name, opener in self._openers.items():
                with _switching_off(name, self._writers):
                    self._writers[name] = opener(int(row["step"]))
        for name, writer in list(self._writers.items()):
            with _switching_off(name, self._writers):
                writer(row)


@contextlib.contextmanager
def _switching_off(name: str, writers: dict[str, Callable[[Row], None]]) -> Iterator[None]:
    """Let no failure of a tracker out of the block, whatever its library raises; a tracker that failed gets no further rows."""
    try:
        yield
    except Exception as error:  # anything can go wrong in an account, a network or a disk that the run does not need
        writers.pop(name, None)
        warn(f"log.{name} is switched off: {type(error).__name__}: {error} — training goes on, metrics.jsonl has every figure")


def _account_opener(module: str, project: str, name: str) -> Opener:
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
