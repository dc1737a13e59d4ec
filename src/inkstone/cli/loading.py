"""The model that a verb is asked to use: its arguments, and its loading with the threads that this process may use."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inkstone.api import Model


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model's folder and the device."""
    parser.add_argument("model", type=Path, metavar="RUN", help="a run, one of its checkpoints, or a Hugging Face-style folder")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, mps [cpu]")


def load_asked(args: argparse.Namespace) -> "Model":
    """Return the model that `args` name. Raises: as `inkstone.load`."""
    import torch

    from inkstone.api import load
    from inkstone.machine import choose_threads

    torch.set_num_threads(choose_threads())
    return load(args.model, device=args.device)
