"""Initializations: GPT-2's, the modern one and the article's."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from inkstone.base.family import Family
from inkstone.nn.config import ModelConfig

EMBEDDINGS = ("embed.weight", "position.weight", "head.weight", "ngram.weight")
RESIDUAL_OUTPUTS = ("attn.out.weight", "mlp.down.weight")


def _gpt2_std(name: str, weight: Tensor, config: ModelConfig) -> float:
    """0.02, and 0.02 / sqrt(2 layers) where a block writes into the residual stream. Source: Radford et al. 2019, section 2.3."""
    return 0.02 / math.sqrt(2 * config.num_layers) if name.endswith(RESIDUAL_OUTPUTS) else 0.02


def _modern_std(name: str, weight: Tensor, config: ModelConfig) -> float:
    """1 / sqrt(fan-in) for matrices, 0 where a block writes into the residual stream, 0.02 for tables (n-grams start at 0)."""
    if name.endswith("ngram.weight") or name.endswith(RESIDUAL_OUTPUTS):
        return 0.0
    return 0.02 if name.endswith(EMBEDDINGS) else weight.shape[1] ** -0.5


def _article_std(name: str, weight: Tensor, config: ModelConfig) -> float:
    """sqrt(2 / d_h) with d_h the number of inputs: the article's formula, usually called He initialization; tables get 0.02."""
    return 0.02 if name.endswith(EMBEDDINGS) else math.sqrt(2 / weight.shape[1])


INITIALIZATIONS: Family[Callable[[str, Tensor, ModelConfig], float]] = Family(
    "initialization", {"gpt2": _gpt2_std, "modern": _modern_std, "article": _article_std}
)


def initialize(model: nn.Module, config: ModelConfig, generator: torch.Generator) -> None:
    """Draw every matrix of the model, in the order of its names; vectors keep their ones, zeros and constants."""
    std_of = INITIALIZATIONS[config.init]
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            std = std_of(name, weight, config)
            with torch.no_grad():
                weight.normal_(0.0, std, generator=generator) if std else weight.zero_()
