"""Whether a training step fits into memory, before anything is allocated, and what to change where it does not."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inkstone import machine
from inkstone.base.errors import ResourceError
from inkstone.base.quantity import format_bytes, format_count
from inkstone.nn.config import ModelConfig
from inkstone.nn.cost import num_params, training_memory, ways_to_fit

if TYPE_CHECKING:
    import torch

USABLE_SHARE = 0.9  # of the free memory: the allocator, evaluation and the data's pages need the rest
MAX_BATCH_SIZE = 64  # the largest that is chosen automatically: on two cores the speed stops rising well before


@dataclass(frozen=True)
class MemoryNeed:
    """What one training step takes, by part, and what is free; both in bytes."""

    parts: dict[str, int]
    available_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the step fits and leaves something over."""
        return self.total_bytes <= USABLE_SHARE * self.available_bytes


def available_memory(device: "torch.device") -> int:
    """Return the bytes that training on a device can still take: the machine's, or the GPU's own."""
    if device.type != "cuda":
        return machine.available_memory()
    import torch

    return torch.cuda.mem_get_info(device)[0]


def memory_need(
    config: ModelConfig, available_bytes: int, *, batch_size: int, precision: str, optimizer: str, ema: bool = False
) -> MemoryNeed:
    """Return what a training step of `batch_size` rows needs beside what is free."""
    return MemoryNeed(
        training_memory(config, batch_size=batch_size, precision=precision, optimizer=optimizer, ema=ema), available_bytes
    )


def require_fit(
    config: ModelConfig, available_bytes: int, *, batch_size: int, precision: str, optimizer: str, ema: bool = False
) -> None:
    """Refuse a training step that would not fit.

    Raises: ResourceError with the estimate and three ways to make it fit.
    """
    need = memory_need(config, available_bytes, batch_size=batch_size, precision=precision, optimizer=optimizer, ema=ema)
    if need.fits:
        return
    budget = int(USABLE_SHARE * available_bytes)
    options = ways_to_fit(config, budget, batch_size=batch_size, precision=precision, optimizer=optimizer, ema=ema)
    found = f"training {format_count(num_params(config))} parameters with a batch of {batch_size} x {config.context} tokens"
    raise ResourceError(
        f"{found} needs about {format_bytes(need.total_bytes)} of memory, {format_bytes(available_bytes)} are free"
        f" — choose {'; or '.join(options)}"
    )


def largest_batch(
    config: ModelConfig, available_bytes: int, *, precision: str, optimizer: str, ema: bool = False, most: int = MAX_BATCH_SIZE
) -> int:
    """Return the largest power of two of rows, up to `most`, whose training step fits; 1 where not even that does."""
    rows = 1
    while rows * 2 <= most:
        need = memory_need(config, available_bytes, batch_size=2 * rows, precision=precision, optimizer=optimizer, ema=ema)
        if not need.fits:
            break
        rows *= 2
    return rows
