"""Reasons to stop before the limit: a signal, or a metric that no longer improves."""

import contextlib
import math
import signal
from collections.abc import Iterator
from types import FrameType

from inkstone.base.log import say
from inkstone.train.config import EarlyStopSettings


class StopRequest:
    """Set by SIGTERM and the first SIGINT; the second SIGINT ends the process at once. `go_on` names the command that goes on."""

    def __init__(self, go_on: str = "the same command") -> None:
        self.name, self.go_on = "", go_on
        self._may_interrupt = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals within the block (only a main thread can; elsewhere nothing changes)."""
        try:
            old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within the block a signal raises KeyboardInterrupt at once: for work that need not be finished."""
        self._may_interrupt = True
        try:
            yield
        finally:
            self._may_interrupt = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = bool(self.name)
        self.name = signal.Signals(number).name
        if again and number == signal.SIGINT:
            raise SystemExit(130)
        if not again:
            say(f"{self.name}: saving after this step; {self.go_on} goes on later (Ctrl-C again: stop at once)")
        if self._may_interrupt:
            raise KeyboardInterrupt


class BestMetric:
    """Keeps the best value of the chosen metric and counts the evaluations since."""

    def __init__(self, settings: EarlyStopSettings) -> None:
        self.settings = settings
        self.value, self.step, self.stale = math.nan, 0, 0

    def offer(self, row: dict[str, float], step: int) -> bool:
        """Take an evaluation; return whether it is the best so far."""
        value = row[self.settings.metric]
        sign = 1 if self.settings.metric == "val_accuracy" else -1
        is_first = math.isnan(self.value) and not math.isnan(value)
        if is_first or sign * (value - self.value) > self.settings.min_delta:
            self.value, self.step, self.stale = value, step, 0
            return True
        self.stale += 1
        return False

    @property
    def is_exhausted(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.settings.patience <= self.stale

    def state(self) -> dict[str, float | int | None]:
        """Return the state as JSON-able values."""
        return {"value": None if math.isnan(self.value) else self.value, "step": self.step, "stale": self.stale}

    def load_state(self, state: dict[str, float | int | None]) -> None:
        """Put back what `state` returned."""
        self.value = math.nan if state["value"] is None else float(state["value"])
        self.step, self.stale = int(state["step"] or 0), int(state["stale"] or 0)
