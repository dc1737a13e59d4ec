"""Inkstone: a complete GPT system, from raw text to a served model."""

from typing import Any

__version__ = "0.1.0"
_LAZY = ("load", "pretrain")  # of inkstone.api, which imports torch: only where it is used


def __getattr__(name: str) -> Any:
    """Return `inkstone.load` or `inkstone.pretrain`, imported at its first use."""
    if name in _LAZY:
        from inkstone import api

        return getattr(api, name)
    raise AttributeError(f"module 'inkstone' has no attribute '{name}'")
