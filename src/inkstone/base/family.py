"""The family table: names to variants, so that adding a row enrols the variant everywhere."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from inkstone.base.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest of `names`, or an empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


class Family(Generic[T]):
    """A fixed table from name to variant.

    >>> FRUIT = Family("fruit", {"apple": 1})
    >>> FRUIT["apple"]
    1
    """

    def __init__(self, noun: str, rows: dict[str, T]) -> None:
        self.noun = noun
        self.rows = dict(rows)

    def __getitem__(self, name: str) -> T:
        if name not in self.rows:
            raise ConfigError(f"unknown {self.noun} '{name}'{nearest(name, self.rows)} (one of: {', '.join(self.rows)})")
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __contains__(self, name: object) -> bool:
        return name in self.rows

    def __len__(self) -> int:
        return len(self.rows)
