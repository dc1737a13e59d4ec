"""What a model is: every switch of the transformer, and the presets that set them. No torch here, so that help pages are fast."""

from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from inkstone.base.errors import ConfigError
from inkstone.base.family import Family
from inkstone.base.settings import Settings, setting

Position = Literal["learned", "sinusoidal", "rope", "none"]
Activation = Literal["gelu", "gelu_tanh", "relu2", "swiglu"]

_GPT = {
    "position": "learned", "norm": "layernorm", "norm_place": "pre", "norm_eps": 1e-5, "activation": "gelu_tanh",
    "bias": True, "qk_norm": False, "tie_embeddings": True, "init": "gpt2", "dropout": 0.1,
    "attention_dropout": 0.1,
}  # fmt: skip


def _gpt(num_layers: int, num_heads: int, width: int, context: int, **changes: Any) -> dict[str, Any]:
    return _GPT | {"num_layers": num_layers, "num_heads": num_heads, "width": width, "context": context} | changes


# GPT-1: Radford et al. 2018, section 4.1. GPT-2: Radford et al. 2019, table 2. GPT-3: Brown et al. 2020, table 2.1 (its alternating
# banded-sparse layers are dense here: the paper does not give their width; `window` and `full_every` make such layers).
# GPT-3's 13B has 40 heads of 128 = 5120, where the table prints a width of 5140.
PRESETS: Family[dict[str, Any]] = Family(
    "preset",
    {
        "modern": {},
        "article": _gpt(2, 4, 256, 256, attention_gate=True, init="article"),
        "gpt": _gpt(4, 4, 256, 256),
        "gpt1": _gpt(12, 12, 768, 512, norm_place="post"),
        "gpt2": _gpt(12, 12, 768, 1024),
        "gpt2-medium": _gpt(24, 16, 1024, 1024),
        "gpt2-large": _gpt(36, 20, 1280, 1024),
        "gpt2-xl": _gpt(48, 25, 1600, 1024),
        "gpt3-small": _gpt(12, 12, 768, 2048),
        "gpt3-medium": _gpt(24, 16, 1024, 2048),
        "gpt3-large": _gpt(24, 16, 1536, 2048),
        "gpt3-xl": _gpt(24, 16, 2048, 2048),
        "gpt3-2.7b": _gpt(32, 32, 2560, 2048),
        "gpt3-6.7b": _gpt(32, 32, 4096, 2048),
        "gpt3-13b": _gpt(40, 40, 5120, 2048),
        "gpt3-175b": _gpt(96, 96, 12288, 2048),
    },
)
HEAD_WIDTH = 64  # of `modern`; its width is depth * HEAD_WIDTH


class ModelConfig(Settings):
    """One transformer. A preset fills what is not given; `depth` sizes the modern family with one dial."""

    preset: str = setting("modern", "named starting point: modern, article, gpt, gpt1, gpt2, …, gpt3-175b")
    depth: int | None = setting(None, "the one size dial of `modern`: layers; width is 64 a layer", ge=1, le=256)
    vocab_size: int = setting(0, "tokens in the vocabulary; 0 takes the tokenizer's", ge=0, le=2**24)
    num_layers: int = setting(4, "transformer blocks", ge=1, le=1024)
    num_heads: int = setting(4, "query heads", ge=1, le=1024)
    num_kv_heads: int = setting(0, "key and value heads (grouped-query attention); 0 = as many as query heads", ge=0, le=1024)
    head_width: int = setting(0, "width of one head; 0 = width / num_heads", ge=0, le=1024)
    width: int = setting(256, "width of the residual stream", ge=1, le=65536)
    ffn_width: int = setting(
        0, "hidden width of the feed-forward part; 0 = 4 x width (swiglu: 8/3 x, rounded up to 64)", ge=0, le=2**20
    )
    context: int = setting(256, "longest sequence, tokens", ge=1, le=2**20)
    position: Position = setting("rope", "how positions enter: learned, sinusoidal, rope, none")
    rope_base: float = setting(10000.0, "base of the rotary frequencies", gt=1)
    norm: Literal["layernorm", "rmsnorm"] = setting("rmsnorm", "layernorm or rmsnorm")
    norm_eps: float = setting(1e-6, "added to the variance", gt=0, lt=1)
    norm_place: Literal["pre", "post"] = setting("pre", "normalize before each part (GPT-2) or after the sum (GPT-1)")
    activation: Activation = setting("swiglu", "gelu, gelu_tanh, relu2 or swiglu")
    window: int = setting(0, "attend to this many latest tokens; 0 = all", ge=0)
    full_every: int = setting(0, "with a window: each n-th layer attends to all; 0 = none", ge=0)
    qk_norm: bool = setting(True, "RMS-normalize queries and keys per head")
    attention_gate: bool = setting(False, "sigmoid gate on the attention output")
    value_residual: bool = setting(False, "mix the first layer's values into later layers")
    ngram_buckets: int = setting(0, "rows a length of the hashed n-gram embedding added to the input; 0 = none", ge=0, le=2**24)
    ngram_max: int = setting(2, "longest n-gram of that embedding; each length from 2 on has rows of its own", ge=2, le=8)
    bias: bool = setting(False, "biases in linear layers and LayerNorm")
    tie_embeddings: bool = setting(True, "one matrix for input embedding and output projection")
    dropout: float = setting(0.0, "share of activations dropped in training", ge=0, lt=1)
    attention_dropout: float = setting(0.0, "share of attention weights dropped in training (slow on CPUs)", ge=0, lt=1)
    logit_softcap: float = setting(0.0, "cap logits smoothly at ± this; 0 = off", ge=0)
    init: Literal["gpt2", "modern", "article"] = setting("modern", "initialization: gpt2, modern, article")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        try:
            values = dict(PRESETS[str(given.get("preset", "modern"))])
        except ConfigError as error:
            raise ValueError(str(error)) from error
        depth = given.get("depth")
        if isinstance(depth, str | float) and str(depth).removesuffix(".0").isdecimal():
            depth = int(float(depth))
        if isinstance(depth, int) and depth > 0:
            if given.get("preset", "modern") != "modern":
                raise ValueError("depth sizes only the preset 'modern'; set num_layers and width for the others")
            sized = {"num_layers": depth, "num_heads": depth, "width": HEAD_WIDTH * depth}
            _refuse_other_sizes(depth, {"num_layers": sized["num_layers"], "width": sized["width"]}, given)
            values |= sized
        return values | dict(given)

    @pydantic.model_validator(mode="after")
    def _fill_and_check(self) -> "ModelConfig":
        problems = []
        if self.num_kv_heads == 0:
            object.__setattr__(self, "num_kv_heads", self.num_heads)
        if self.num_heads % self.num_kv_heads:
            divisors = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            problems.append(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads} (possible: {divisors})"
            )
        if self.head_width == 0:
            if self.width % self.num_heads:
                near = round(self.width / self.num_heads) * self.num_heads or self.num_heads
                problems.append(f"width {self.width} is not a multiple of num_heads {self.num_heads} (nearest: {near})")
            object.__setattr__(self, "head_width", max(1, self.width // self.num_heads))
        if self.position == "rope" and self.head_width % 2:
            problems.append(f"head_width {self.head_width} is odd, and rope needs pairs (nearest: {self.head_width + 1})")
        if self.position == "sinusoidal" and self.width % 2:
            problems.append(f"width {self.width} is odd, and sinusoidal positions need pairs (nearest: {self.width + 1})")
        if self.ffn_width == 0:
            wide = -(-8 * self.width // 3 // 64) * 64 if self.activation == "swiglu" else 4 * self.width
            object.__setattr__(self, "ffn_width", max(wide, 64 if self.activation == "swiglu" else 1))
        if self.full_every and not self.window:
            problems.append("full_every has no meaning without a window; set window, or full_every = 0")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def layer_window(self, layer: int) -> int:
        """Return the window of one layer in tokens; 0 means all."""
        return 0 if self.full_every and (layer + 1) % self.full_every == 0 else self.window


def _refuse_other_sizes(depth: int, sizes: Mapping[str, int], given: Mapping[str, Any]) -> None:
    """Raise ValueError for sizes beside `depth` that are not those it means; equal ones are what a run's config.toml lists."""
    wrong = [
        f"{name} {given[name]}"
        for name, size in sizes.items()
        if name in given and str(given[name]).removesuffix(".0") != str(size)
    ]
    if wrong:
        means = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"depth {depth} means {means}, but {' and '.join(wrong)} is given too; leave out depth or the others")
