"""Which runner a model gets: the C kernels on a processor that can have them, torch everywhere else."""

from typing import TYPE_CHECKING

import torch

from inkstone.infer.native.build import load_kernels
from inkstone.infer.native.plan import is_supported
from inkstone.infer.native_runner import NativeRunner
from inkstone.infer.runner import Runner
from inkstone.infer.torch_runner import TorchRunner
from inkstone.nn.layers import Embedding

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer


def make_runner(network: "Transformer", *, num_slots: int, max_tokens: int | None = None) -> Runner:
    """Return the fastest runner for a network where it is; `max_tokens` None gives each slot the whole context."""
    library = load_kernels() if is_supported(network) else None
    if library is None:
        return TorchRunner(network, num_slots=num_slots, max_tokens=max_tokens)
    is_exact = isinstance(network.embed, Embedding) and network.embed.weight.dtype == torch.float32
    cache_dtype = torch.float32 if is_exact else torch.bfloat16  # a rounded model gains nothing from exact keys and values
    return NativeRunner(network, library, num_slots=num_slots, max_tokens=max_tokens, cache_dtype=cache_dtype)
