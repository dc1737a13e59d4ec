"""What a person sees while work goes on: stderr lines, and a live bar on a terminal. Answers go to stdout, never here."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

PLAIN_EVERY_SECONDS = 5.0


def say(message: str) -> None:
    """Print one line to stderr; a closed stderr is not an error."""
    if sys.stderr is None:
        return
    with contextlib.suppress(BrokenPipeError, ValueError):
        encoding = sys.stderr.encoding or "utf-8"
        print(message.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print a warning line to stderr."""
    say(f"warning: {message}")


class Progress:
    """A running figure: a live bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, title: str, total: float | None) -> None:
        self.title, self.total = title, total
        self._last = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(title, total=total, note="")
            self._bar.start()

    def update(self, done: float, note: str = "") -> None:
        """Show that `done` of the total is reached; `note` stands beside it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY_SECONDS:
            self._last = now
            share = f"{100 * done / self.total:3.0f}% " if self.total else ""
            say(f"{self.title}: {share}{note}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextlib.contextmanager
def progress(title: str, total: float | None = None) -> Iterator[Progress]:
    """Yield a `Progress` that is closed at the end, whatever happens."""
    shown = Progress(title, total)
    try:
        yield shown
    finally:
        shown.close()
