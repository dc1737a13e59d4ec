"""How fast a model trains here: predicted from matrix products, or measured on real steps with random tokens."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from inkstone import machine
from inkstone.nn.config import ModelConfig
from inkstone.nn.cost import flops_per_token, num_params
from inkstone.optim.config import OptimSettings

# Share of the products' speed that a training step reaches. Measured on one AVX-512-BF16 core, widths 128 to 512: fp32 0.60 to 1.07
# (large products are faster than the probe's), bf16 0.33 to 0.80, more for wider models.
EFFICIENCY = {"fp32": 0.7, "bf16": 0.5, "fp16": 0.5}
INIT_PARAMS_PER_SECOND = 5e7  # drawing the initial weights, one core
WARMUP_STEPS = 2  # pages, kernels and tables are made in the first ones
MIN_STEPS, MAX_STEPS = 3, 200


@dataclass(frozen=True)
class Speed:
    """Tokens a second of training; `steps` is how many were timed, 0 for a prediction."""

    tokens_per_second: float
    steps: int
    low: float
    high: float


def predict_speed(config: ModelConfig, *, precision: str) -> Speed:
    """Return the speed that this processor's matrix products let expect, right within a factor of about two."""
    products = machine.product_speeds()["bf16" if precision == "bf16" else "fp32"] * machine.usable_cores()
    tokens = EFFICIENCY[precision] * products / flops_per_token(config)
    return Speed(tokens_per_second=tokens, steps=0, low=tokens / 2, high=2 * tokens)


def measurable_rows(config: ModelConfig, predicted: Speed, *, batch_size: int, seconds: float) -> int:
    """Return how many rows a timed step can have so that enough steps fit into `seconds`; 0 where not even one row can."""
    left = seconds - num_params(config) / INIT_PARAMS_PER_SECOND
    tokens = left * predicted.tokens_per_second / (WARMUP_STEPS + MIN_STEPS)
    return max(0, min(batch_size, int(tokens // config.context)))


def measure_speed(
    config: ModelConfig,
    optim: OptimSettings,
    *,
    batch_size: int,
    precision: str,
    seconds: float,
    seed: int = 0,
    device: str = "cpu",
) -> Speed:
    """Return the median speed (and quartiles) of whole training steps on random tokens, made for about `seconds` in all.

    Steps of one row say first how many rows, up to `batch_size`, let enough steps fit into the time on a machine as busy as it is now.
    """
    deadline = time.perf_counter() + seconds
    step = _training_step(config, optim, precision=precision, seed=seed, device=device)
    for _ in range(WARMUP_STEPS):
        row_seconds = step(1)
    left = max(0.0, deadline - time.perf_counter())
    rows = max(1, min(batch_size, int(left / (row_seconds * (WARMUP_STEPS + MIN_STEPS)))))
    times: list[float] = []
    while len(times) < MIN_STEPS or (len(times) < MAX_STEPS and time.perf_counter() < deadline):
        times.append(step(rows))
    warm = times[min(WARMUP_STEPS, len(times) - 1) :] if rows > 1 else times
    speeds = sorted(rows * config.context / spent for spent in warm)
    low, high = speeds[len(speeds) // 4], speeds[3 * len(speeds) // 4]
    return Speed(tokens_per_second=statistics.median(speeds), steps=len(speeds), low=low, high=high)


def top_costs(
    config: ModelConfig, optim: OptimSettings, *, batch_size: int, precision: str, count: int = 12, device: str = "cpu"
) -> list[tuple[str, float, int]]:
    """Return the operations in which a training step spends most of its own time: (torch's name, share of the step, calls a step)."""
    from torch.profiler import ProfilerActivity, profile

    step = _training_step(config, optim, precision=precision, seed=0, device=device)
    for _ in range(WARMUP_STEPS):
        step(batch_size)
    on_gpu = device != "cpu"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        step(batch_size)
    rows = [(row.key, row.self_device_time_total if on_gpu else row.self_cpu_time_total, row.count) for row in found.key_averages()]
    total = sum(seconds for _, seconds, _ in rows) or 1.0
    return [(name, seconds / total, calls) for name, seconds, calls in sorted(rows, key=lambda row: -row[1])[:count]]


def _training_step(config: ModelConfig, optim: OptimSettings, *, precision: str, seed: int, device: str) -> Callable[[int], float]:
    """Return a function that trains a fresh model on so many random rows and returns the seconds that took."""
    import torch

    from inkstone.assemble import build_model
    from inkstone.data.loader import Batch
    from inkstone.optim.optimizers import OptimizerSet
    from inkstone.train.objectives import OBJECTIVES
    from inkstone.train.step import TrainStep

    model = build_model(config, seed=seed, device=device, precision=precision)
    train = TrainStep(model, OptimizerSet(model, optim), OBJECTIVES["lm"], clip_norm=1.0, clip_value=0.0)
    generator = torch.Generator().manual_seed(seed)

    def step(rows: int) -> float:
        tokens = torch.randint(config.vocab_size, (rows, config.context + 1), generator=generator)
        batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), None)
        start = time.perf_counter()
        train([batch], 1.0)
        return time.perf_counter() - start

    return step
