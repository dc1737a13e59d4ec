"""What models are called. No web framework here: the command line checks names before anything is loaded."""

import re
from collections.abc import Iterable
from pathlib import Path

MAX_NAME_CHARACTERS = 100


def model_names(folders: Iterable[Path], given: Iterable[str] = ()) -> list[str]:
    """Return a name for each folder: the given ones first, else the folder's own, with -2, -3 behind a name that is taken.

    model_names([a/run, b/run, c/运行 1]) == ["run", "run-2", "运行-1"]
    """
    folders = list(folders)
    wanted = [*given][: len(folders)]
    wanted += [clean_name(folder.resolve().name) for folder in folders[len(wanted) :]]
    names: list[str] = []
    for name in wanted:
        number, unique = 2, name
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.append(unique)
    return names


def clean_name(text: str) -> str:
    """Return a folder's name as letters (of any script), digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "-", text)[:MAX_NAME_CHARACTERS].strip(".-") or "model"


def is_clean_name(name: str) -> bool:
    """Return whether a model may be called so."""
    return bool(name) and clean_name(name) == name
