"""The largest batch that fits in memory and still makes a token cheaper."""

import time

import torch

from inkstone import machine
from inkstone.data.loader import Batch
from inkstone.nn.transformer import Transformer
from inkstone.train.config import PretrainSettings
from inkstone.train.fit import memory_need
from inkstone.train.objectives import OBJECTIVES

LARGEST = 1024
MIN_GAIN = 1.05  # a doubling must make a token at least this much cheaper
TIMED_ROUNDS = 3


def find_batch_size(model: Transformer, settings: PretrainSettings) -> int:
    """Return the largest power of two that fits and whose last doubling still raised tokens/s by five per cent.

    Measures forward and backward passes with random tokens, from one sequence on; takes seconds. The weights are not changed.
    """
    best, best_speed = 1, 0.0
    size = 1
    while size <= LARGEST and _fits(settings, size, model):
        try:
            speed = _tokens_per_second(model, settings, size)
        except torch.OutOfMemoryError:
            break
        if best_speed and speed < best_speed * MIN_GAIN:
            break
        best, best_speed, size = size, speed, size * 2
    model.zero_grad(set_to_none=True)
    return best


def _fits(settings: PretrainSettings, size: int, model: Transformer) -> bool:
    if model.embed.weight.device.type != "cpu":
        return True  # the device itself says when it is full
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(model.compute_dtype, "fp32")
    need = memory_need(
        settings.model, machine.available_memory(), batch_size=size, precision=precision, optimizer=settings.optim.kind,
        ema=bool(settings.train.ema),
    )  # fmt: skip
    return size == 1 or need.fits


def _tokens_per_second(model: Transformer, settings: PretrainSettings, size: int) -> float:
    context, device = settings.model.context, model.embed.weight.device
    ids = torch.randint(
        settings.model.vocab_size, (size, context + 1), device=device, generator=torch.Generator(device).manual_seed(0)
    )
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None)
    objective = OBJECTIVES[settings.objective.kind]
    seconds = []
    for _ in range(TIMED_ROUNDS + 1):
        began = time.perf_counter()
        objective(model, batch).total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return size * context / min(seconds[1:])
