"""What a run folder says about itself, read whole into plain values; whatever is missing or torn is left out, never an error.

Files: `metrics.jsonl`, `config.toml`, `summary.json`, `machine.json`, `data.json`, `figures.json`. The shape of `figures.json` is
described in `inkstone.report.figures`.
"""

import json
import math
import statistics
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkstone.base.errors import DataError

RUN_FILES = ("metrics.jsonl", "config.toml", "summary.json")
MAX_LINE_BYTES = 1_000_000  # a longer line of metrics.jsonl is damage, not a measurement
MAX_FILE_BYTES = 5_000_000
MAX_SERIES = 64
_NOT_SERIES = ("step", "sample", "samples")


@dataclass(frozen=True)
class Series:
    """One measured quantity over training. Units: `steps` are optimizer steps, ascending and distinct."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """Return the newest value."""
        return self.values[-1]


@dataclass(frozen=True)
class Sample:
    """A text that the model wrote at `step`; `text` is what follows the prompt."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class RunData:
    """Everything a page can show about one run; empty where the run has nothing."""

    path: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    series: dict[str, Series] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    figures: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def steps(self) -> int | None:
        """Return the number of finished steps, or None when the run has none on record."""
        known = self._summary_number("steps")
        if known is not None:
            return int(known)
        return max((series.steps[-1] for series in self.series.values()), default=None)

    def number(self, name: str) -> float | None:
        """Return a figure of the run by its `--json` name: the summary's, else the newest measured one; None where unknown."""
        known = self._summary_number(name)
        if known is not None:
            return known
        if name == "train_loss":
            return self._last("loss")
        if name == "val_perplexity" and "val_perplexity" not in self.series:
            loss = self.number("val_loss")
            return None if loss is None or loss > 700 else math.exp(loss)
        if name == "tokens_per_second" and name in self.series:
            return statistics.median(self.series[name].values)
        return self._last(name)

    def _last(self, name: str) -> float | None:
        return self.series[name].last if name in self.series else None

    def _summary_number(self, name: str) -> float | None:
        return _number(self.summary.get(name))


def is_run(folder: Path) -> bool:
    """Return whether the folder looks like a run: it has metrics, or settings and a summary (a lone config.toml is many things)."""
    metrics, config, summary = ((folder / name).is_file() for name in RUN_FILES)
    return metrics or (config and summary)


def read_run(run: Path) -> RunData:
    """Return what the run folder holds; unreadable parts are named in `problems`.

    Raises: DataError when `run` is not a folder with at least one of a run's files.
    """
    run = Path(run)
    if not any((run / name).is_file() for name in RUN_FILES):
        found = "it does not exist" if not run.exists() else "it is not a folder" if not run.is_dir() else "it has none of them"
        raise DataError(f"expected a run folder (with {', '.join(RUN_FILES[:-1])} or {RUN_FILES[-1]}) at {run}, but {found}")
    problems: list[str] = []
    series, samples = _read_metrics(run / "metrics.jsonl", problems)
    config_text = _read_text(run / "config.toml", problems)
    return RunData(
        path=run, name=run.resolve().name or str(run), config=_parse_toml(config_text, problems), config_text=config_text,
        series=series, samples=samples, summary=_read_object(run / "summary.json", problems),
        machine=_read_object(run / "machine.json", problems), data=_read_object(run / "data.json", problems),
        figures=_read_figures(run / "figures.json", problems), problems=tuple(problems),
    )  # fmt: skip


def _read_metrics(path: Path, problems: list[str]) -> tuple[dict[str, Series], tuple[Sample, ...]]:
    """Return the series and samples; where a resumed run wrote a step twice, the later line counts."""
    columns: dict[str, dict[int, float]] = {}
    samples: dict[tuple[int, str], Sample] = {}
    damaged = 0
    if path.is_file():
        with path.open("rb") as stream:
            for line in stream:
                record = _parse_line(line)
                if record is None:
                    damaged += line.endswith(b"\n")  # a last line without its end is a run still being written
                    continue
                step = int(record["step"])
                for name, value in record.items():
                    number = _number(value)
                    if number is not None and name not in _NOT_SERIES and (name in columns or len(columns) < MAX_SERIES):
                        columns.setdefault(name, {})[step] = number
                for sample in _samples(step, record):
                    samples[step, sample.prompt] = sample
    if damaged:
        problems.append(f"metrics.jsonl: {damaged} unreadable line{'s' if damaged > 1 else ''} left out")
    series = {}
    for name, column in columns.items():
        steps = sorted(column)
        series[name] = Series(tuple(steps), tuple(column[step] for step in steps))
    return series, tuple(samples[key] for key in sorted(samples, key=lambda key: key[0]))


def _parse_line(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        record = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    usable = isinstance(record, dict) and _number(record.get("step")) is not None
    return record if usable else None


def _samples(step: int, record: dict[str, Any]) -> list[Sample]:
    found = record.get("sample", record.get("samples", []))
    rows = found if isinstance(found, list) else [found]
    texts = [(str(row.get("prompt", "")), str(row.get("text", ""))) for row in rows if isinstance(row, dict)]
    return [Sample(step, prompt, text[len(prompt) :] if prompt and text.startswith(prompt) else text) for prompt, text in texts]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _read_text(path: Path, problems: list[str]) -> str:
    if not path.is_file():
        return ""
    if path.stat().st_size > MAX_FILE_BYTES:
        problems.append(f"{path.name}: larger than {MAX_FILE_BYTES:,} bytes, left out")
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror or error}")
        return ""


def _parse_toml(text: str, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"config.toml: not valid TOML ({error})")
        return {}


def _read_json(path: Path, problems: list[str]) -> Any:
    text = _read_text(path, problems)
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        problems.append(f"{path.name}: not valid JSON")
        return None


def _read_object(path: Path, problems: list[str]) -> dict[str, Any]:
    value = _read_json(path, problems)
    return value if isinstance(value, dict) else {}


def _read_figures(path: Path, problems: list[str]) -> tuple[dict[str, Any], ...]:
    value = _read_json(path, problems)
    if isinstance(value, dict):
        value = value.get("figures", [value])
    return tuple(figure for figure in value if isinstance(figure, dict)) if isinstance(value, list) else ()
