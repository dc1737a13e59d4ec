"""The architectures that GGUF files have for our models: what they can say, their metadata and tensor names, as data.

Their matrices lie as ours do, (out, in), and a rule's tensors are ours or rows of ours, so nothing is transposed or permuted.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from inkstone.base.errors import ConfigError
from inkstone.base.family import Family
from inkstone.checkpoint.architectures import ARCHITECTURES, Rule, switch_obstacles
from inkstone.nn.config import ModelConfig

Metadata = dict[str, str | int | float | bool | list[str] | list[int]]
_BLOCK = {"attn_norm": "attn_norm", "attn.out": "attn_output", "mlp_norm": "ffn_norm", "mlp.down": "ffn_down"}


@dataclass(frozen=True)
class GgufArchitecture:
    """One `general.architecture`: the Hugging Face class with the same arithmetic, what it cannot say besides, and its rules."""

    name: str
    model_type: str
    switches: Mapping[str, object]  # on top of those of the class
    metadata: Callable[[ModelConfig], Metadata]  # keys without the architecture's name before them
    rules: Callable[[ModelConfig], Iterator[Rule]]

    def obstacles(self, config: ModelConfig) -> list[str]:
        """Return the switches of `config` that the architecture does not have, as `window is 5, must be 0`."""
        return ARCHITECTURES[self.model_type].obstacles(config) + switch_obstacles(self.switches, config)


def find_gguf_architecture(config: ModelConfig) -> GgufArchitecture:
    """Return the GGUF architecture that computes exactly this model.

    Raises: ConfigError that names the switches in the way.
    """
    found = {one.name: one.obstacles(config) for one in GGUF_ARCHITECTURES.rows.values()}
    closest = min(found, key=lambda name: len(found[name]))
    if not found[closest]:
        return GGUF_ARCHITECTURES[closest]
    if config.norm_place == "post":
        raise ConfigError(
            "no GGUF architecture normalizes after each part, as GPT-1 does (norm_place is 'post') — export it --to hf"
        )
    raise ConfigError(f"no GGUF architecture computes this model; {closest} is closest: {'; '.join(found[closest])}")


def _common(config: ModelConfig) -> Metadata:
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.context,
        "embedding_length": config.width,
        "block_count": config.num_layers,
        "feed_forward_length": config.ffn_width,
        "attention.head_count": config.num_heads,
    }


def _gpt2_metadata(config: ModelConfig) -> Metadata:
    return _common(config) | {"attention.layer_norm_epsilon": config.norm_eps}


def _qwen3_metadata(config: ModelConfig) -> Metadata:
    return _common(config) | {
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_width,
        "attention.value_length": config.head_width,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope_base,
        "rope.dimension_count": config.head_width,
    }


def _gpt2_rules(config: ModelConfig) -> Iterator[Rule]:
    yield Rule("embed.weight", ("token_embd.weight",))
    yield Rule("position.weight", ("position_embd.weight",))
    for layer in range(config.num_layers):
        for ours, theirs in (_BLOCK | {"attn.qkv": "attn_qkv", "mlp.up": "ffn_up"}).items():
            for kind in ("weight", "bias"):
                yield Rule(f"blocks.{layer}.{ours}.{kind}", (f"blk.{layer}.{theirs}.{kind}",))
    yield Rule("final_norm.bias", ("output_norm.bias",))
    yield from _output_rules(config)


def _qwen3_rules(config: ModelConfig) -> Iterator[Rule]:
    q_rows, kv_rows = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    yield Rule("embed.weight", ("token_embd.weight",))
    for layer in range(config.num_layers):
        ours, theirs = f"blocks.{layer}", f"blk.{layer}"
        for part, name in (_BLOCK | {"attn.q_norm": "attn_q_norm", "attn.k_norm": "attn_k_norm"}).items():
            yield Rule(f"{ours}.{part}.weight", (f"{theirs}.{name}.weight",))
        qkv = tuple(f"{theirs}.attn_{part}.weight" for part in "qkv")
        yield Rule(f"{ours}.attn.qkv.weight", qkv, rows=(q_rows, kv_rows, kv_rows))
        gate_up = (f"{theirs}.ffn_gate.weight", f"{theirs}.ffn_up.weight")
        yield Rule(f"{ours}.mlp.up.weight", gate_up, rows=(config.ffn_width, config.ffn_width))
    yield from _output_rules(config)


def _output_rules(config: ModelConfig) -> Iterator[Rule]:
    yield Rule("final_norm.weight", ("output_norm.weight",))
    if not config.tie_embeddings:  # a file without output.weight uses the embedding
        yield Rule("head.weight", ("output.weight",))


# llama.cpp computes tanh-GELU whatever a file of gpt2 says, and knows no windows of qwen3.
GGUF_ARCHITECTURES: Family[GgufArchitecture] = Family(
    "GGUF architecture",
    {
        "gpt2": GgufArchitecture("gpt2", "gpt2", {"activation": "gelu_tanh"}, _gpt2_metadata, _gpt2_rules),
        "qwen3": GgufArchitecture("qwen3", "qwen3", {"window": 0}, _qwen3_metadata, _qwen3_rules),
    },
)
