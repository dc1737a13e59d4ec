"""`inkstone report RUN…`: one HTML page about one or several runs."""

import argparse
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError
from inkstone.base.log import warn
from inkstone.base.settings import Settings

NAME = "report.html"


def settings_class() -> type[Settings] | None:
    """Return None: a report has no recipe."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and where the page goes."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder; several are compared on one page")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page [RUN/{NAME}; for several runs ./{NAME}]")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is not the run's own report")


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Write the page and print its path."""
    from inkstone.report.page import write_report
    from inkstone.report.run_data import read_run

    runs = list(dict.fromkeys(args.runs))
    out = choose_out(runs, args.out, overwrite=args.overwrite)
    write_report(runs, out)
    for folder in runs:
        for problem in read_run(folder).problems:
            warn(f"{folder}: {problem}")
    if not args.json:
        print(out)
    return {"report": str(out), "runs": [str(folder) for folder in runs], "bytes": out.stat().st_size}


def choose_out(runs: list[Path], out: Path | None, *, overwrite: bool) -> Path:
    """Return where the page goes; only a run's own `report.html` is replaced without being asked.

    Raises: ConfigError when `out` is a folder, or a file that would be lost.
    """
    own = runs[0] / NAME if len(runs) == 1 else None
    chosen = out or own or Path(NAME)
    if chosen.is_dir():
        raise ConfigError(f"--out {chosen} is a folder — name a file, such as {chosen / NAME}")
    is_own = own is not None and own.exists() and chosen.exists() and own.samefile(chosen)
    if chosen.exists() and not is_own and not overwrite:
        raise ConfigError(f"{chosen} exists already — choose another --out, or add --overwrite")
    return chosen
