"""How fast a model writes here: the same prompts for whatever is measured, times that mean the same, and the memory's own limit."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from inkstone.infer.engine import Engine
    from inkstone.infer.request import Request
    from inkstone.nn.transformer import Transformer

BANDWIDTH_BYTES = 2**28  # of the array that is read: far beyond any cache
GPU_BANDWIDTH_BYTES = 2**31
BANDWIDTH_ROUNDS = 5
_LOOKED_UP = ("position.", "ngram.")  # tables of which a token reads a row or a few


@dataclass(frozen=True)
class Load:
    """So many streams at once, each with a prompt and new tokens."""

    streams: int = 1
    prompt_tokens: int = 64
    new_tokens: int = 128


@dataclass(frozen=True)
class Timing:
    """What one load took. `first_seconds`: until every stream had its first token; `late_tokens`: drawn after that, all streams.

    `tokens` are what was drawn, a row a stream.
    """

    load: Load
    first_seconds: float
    total_seconds: float
    late_tokens: int
    tokens: tuple[tuple[int, ...], ...]

    @property
    def prefill_rate(self) -> float:
        """Tokens of the prompts a second, up to the first tokens."""
        return self.load.streams * self.load.prompt_tokens / self.first_seconds

    @property
    def decode_rate(self) -> float:
        """New tokens a second behind the first ones; 0 where there are none."""
        return self.late_tokens / (self.total_seconds - self.first_seconds) if self.late_tokens else 0.0

    @property
    def total_rate(self) -> float:
        """New tokens a second, reading of the prompts included."""
        return sum(map(len, self.tokens)) / self.total_seconds


def random_prompts(load: Load, vocab_size: int, seed: int) -> list[list[int]]:
    """Return a prompt a stream. Other seeds give other prompts, so that no cache of prefixes helps."""
    rng = random.Random(seed)  # noqa: S311
    return [[rng.randrange(vocab_size) for _ in range(load.prompt_tokens)] for _ in range(load.streams)]


def greedy_request(prompt: Sequence[int], new_tokens: int) -> "Request":
    """Return a request for exactly so many of the likeliest tokens, behind end tokens too."""
    from inkstone.infer.config import SamplingSettings
    from inkstone.infer.request import Request

    settings = SamplingSettings(max_tokens=new_tokens, temperature=0.0, top_p=1.0)
    return Request(tuple(prompt), settings, seed=0, ignore_end=True)


def time_engine(engine: "Engine", load: Load, *, seed: int) -> Timing:
    """Return what the load takes with every stream submitted at once, and the engine stepped by this thread.

    Raises: the first error of a sequence.
    """
    from inkstone.infer.request import Piece

    prompts = random_prompts(load, engine.tokenizer.vocab_size, seed)
    heard: list[list[int]] = [[] for _ in prompts]
    errors: list[Exception] = []

    def submit(prompt: list[int], row: list[int]) -> None:
        def listen(piece: Piece) -> None:
            row.extend(token.token_id for token in piece.tokens)
            errors.extend([] if piece.error is None else [piece.error])

        engine.submit(greedy_request(prompt, load.new_tokens), listen)

    start = time.perf_counter()
    for prompt, row in zip(prompts, heard, strict=True):
        submit(prompt, row)
    first_seconds, num_early = 0.0, 0
    while engine.step():
        if not num_early and all(heard):
            first_seconds, num_early = time.perf_counter() - start, sum(map(len, heard))
    total_seconds = time.perf_counter() - start
    if errors:
        raise errors[0]
    tokens = tuple(map(tuple, heard))
    return Timing(load, first_seconds, total_seconds, sum(map(len, tokens)) - num_early, tokens)


def bytes_per_step(network: "Transformer", load: Load, cache_dtype: "torch.dtype | None" = None) -> int:
    """Return the bytes that one decoding step must read at least: every weight that multiplies once, and the caches of all streams.

    The caches hold the prompts and half of the new tokens; `cache_dtype` None is that of the model's activations.
    """
    from inkstone.nn.cost import cache_bytes_per_token

    skipped = _LOOKED_UP + (() if network.config.tie_embeddings else ("embed.",))
    weights = sum(t.numel() * t.element_size() for name, t in network.state_dict().items() if not name.startswith(skipped))
    per_token = cache_bytes_per_token(network.config, precision="fp32") * (cache_dtype or network.compute_dtype).itemsize // 4
    return weights + load.streams * (load.prompt_tokens + load.new_tokens // 2) * per_token


def memory_bandwidth(device: str = "cpu") -> float:
    """Return bytes a second of reading memory with all of torch's threads, the best of a few passes over a large array."""
    import torch

    num_bytes = BANDWIDTH_BYTES if device == "cpu" else GPU_BANDWIDTH_BYTES
    array = torch.ones(num_bytes // 4, device=device)  # written once, so that every page is there
    best = float("inf")
    for _ in range(BANDWIDTH_ROUNDS):
        start = time.perf_counter()
        array.sum().item()
        best = min(best, time.perf_counter() - start)
    return num_bytes / best
