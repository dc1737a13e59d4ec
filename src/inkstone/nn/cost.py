"""What a model costs, from its config alone: parameters, FLOPs and memory. No torch, nothing is built.

Shape letters as in `nn.functional`; N is the tokens of one micro-batch.
"""

from collections.abc import Callable

from inkstone.nn.config import PRESETS, ModelConfig

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
BATCHED_ATTENTION_UP_TO = 512  # as in nn.attention (on a CPU): up to here the probabilities stay for the way back
LOGITS_AT_A_TIME = 2**24  # as in nn.functional.linear_cross_entropy
# float32 values an optimizer keeps for each parameter: (of matrices inside the blocks, of everything else)
STATE_PER_PARAM = {"sgd": (1, 1), "adagrad": (1, 1), "adam": (2, 2), "adamw": (2, 2), "muon": (1, 2)}


def param_counts(config: ModelConfig) -> dict[str, int]:
    """Return the number of parameters by part; the sum equals the built Transformer's."""
    D, F, L, V = config.width, config.ffn_width, config.num_layers, config.vocab_size
    query_width, key_width = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    bias = int(config.bias)
    norm = D * (2 if config.norm == "layernorm" and config.bias else 1)
    qkv_width = query_width + 2 * key_width
    attention = qkv_width * (D + bias) + D * (query_width + bias)
    attention += query_width * (D + bias) if config.attention_gate else 0
    up_width = F * (2 if config.activation == "swiglu" else 1)
    return {
        "embedding": V * D,
        "position": config.context * D if config.position == "learned" else 0,
        "ngram": (config.ngram_max - 1) * config.ngram_buckets * D,
        "attention": L * attention + (L - 1 if config.value_residual else 0),
        "feed_forward": L * (up_width * (D + bias) + D * (F + bias)),
        "norms": L * (2 * norm + (2 * config.head_width if config.qk_norm else 0)) + (norm if config.norm_place == "pre" else 0),
        "head": 0 if config.tie_embeddings else V * D,
    }


def num_params(config: ModelConfig) -> int:
    """Return the number of parameters; a tied embedding counts once."""
    return sum(param_counts(config).values())


def flops_per_token(config: ModelConfig, *, context: int | None = None, training: bool = True) -> int:
    """Return the floating-point operations of matrix products for one token: forward, or three times that for training.

    Two for each weight that multiplies (the head counts, lookups do not), and 4 x H x E x span in every layer's attention. The span
    is the whole row or the window: what the causal mask hides is counted, as is usual.
    Source: Chowdhery et al. 2022 (PaLM), appendix B.
    """
    time = context or config.context
    windows = [config.layer_window(layer) for layer in range(config.num_layers)]
    spans = sum(min(window, time) if window else time for window in windows)
    forward = 2 * _matrix_params(config) + 4 * config.num_heads * config.head_width * spans
    return 3 * forward if training else forward


def training_memory(
    config: ModelConfig,
    *,
    batch_size: int,
    context: int | None = None,
    precision: str = "fp32",
    optimizer: str = "adamw",
    ema: bool = False,
) -> dict[str, int]:
    """Return the bytes by part at the peak of one training step of `batch_size` rows.

    Parameters, gradients and optimizer state are float32; with a narrower precision each matrix has a copy in it during the step.
    """
    total = num_params(config)
    matrices, others = STATE_PER_PARAM[optimizer]
    in_blocks = _matrix_params(config) - config.vocab_size * config.width
    tokens = batch_size * (context or config.context)
    width = BYTES[precision]
    return {
        "weights": 4 * total * (2 if ema else 1),
        "gradients": 4 * total,
        "optimizer": 4 * (matrices * in_blocks + others * (total - in_blocks)),
        "copies": width * _matrix_params(config) if precision != "fp32" else 0,
        "activations": tokens * activation_bytes_per_token(config, context=context, precision=precision),
        "logits": _logits_bytes(config, tokens, width),
    }


def activation_bytes_per_token(config: ModelConfig, *, context: int | None = None, precision: str = "fp32") -> int:
    """Return the bytes that one token leaves behind for the way back: what autograd saves, layer by layer."""
    D, width = config.width, BYTES[precision]
    masks = D if config.dropout else 0
    edges = 3 * D + masks  # the final norm, its output and that one's gradient
    layer = 4 * D + 2 * masks + _feed_forward_saved(config)  # 4 D: two norms and what they give
    attention = _attention_saved(config, context or config.context, width)
    return width * edges + config.num_layers * (width * layer + attention)


def cache_bytes_per_token(config: ModelConfig, *, precision: str = "bf16") -> int:
    """Return the bytes of keys and values that generation keeps for each token of one sequence."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_width * BYTES[precision]


def ways_to_fit(
    config: ModelConfig, budget_bytes: int, *, batch_size: int, precision: str = "fp32", optimizer: str = "adamw", ema: bool = False
) -> list[str]:
    """Return three changes, each of which alone brings a training step below `budget_bytes` where so many do."""

    def fits(changed: ModelConfig = config, rows: int = batch_size, width: str = precision, kind: str = optimizer) -> bool:
        parts = training_memory(changed, batch_size=rows, precision=width, optimizer=kind, ema=ema)
        return sum(parts.values()) <= budget_bytes

    options = []
    rows = _largest(batch_size - 1, lambda n: fits(rows=n))
    if rows:
        options.append(f"a smaller batch: --train.batch-size {rows} --train.accumulate {-(-batch_size // rows)}")
    context = 16 * _largest((config.context - 1) // 16, lambda n: fits(config.model_copy(update={"context": 16 * n})))
    if context:
        options.append(f"a shorter context: --model.context {context}")
    layers = _largest(config.num_layers - 1, lambda n: fits(config.model_copy(update={"num_layers": n})))
    if layers:
        options.append(f"fewer layers: --model.num-layers {layers}")
    if precision == "fp32" and fits(width="bf16"):
        options.append("half the width of activations: --train.precision bf16")
    if optimizer != "sgd" and fits(kind="sgd"):
        options.append("an optimizer with less state: --optim.kind sgd")
    smaller = [ModelConfig(preset=name, vocab_size=config.vocab_size) for name in PRESETS if name != config.preset]
    smaller = [other for other in smaller if num_params(other) < num_params(config) and fits(other)]
    if smaller:
        options.append(f"a smaller preset: --model.preset {max(smaller, key=num_params).preset}")
    need = sum(training_memory(config, batch_size=1, precision=precision, optimizer=optimizer, ema=ema).values())
    options.append(f"a machine with {need / 2**30:.1f} GiB of free memory (for a batch of 1)")
    options.append("a small model: --model.preset modern --model.depth 2")
    return options[:3]


def _matrix_params(config: ModelConfig) -> int:
    """Return the weights that multiply activations: the blocks' matrices and the head (tied or not)."""
    D, query_width = config.width, config.num_heads * config.head_width
    attention = D * (2 * query_width + 2 * config.num_kv_heads * config.head_width + (query_width if config.attention_gate else 0))
    feed_forward = D * config.ffn_width * (3 if config.activation == "swiglu" else 2)
    return config.num_layers * (attention + feed_forward) + config.vocab_size * D


def _attention_saved(config: ModelConfig, time: int, width: int) -> int:
    """Return the bytes that one token leaves in one attention layer on a CPU (a GPU's fused kernel never keeps the weights)."""
    query_width, key_width = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    saved = query_width + 2 * key_width  # the joint projection, which the values are a view of
    saved += query_width + key_width  # scaled or rotated queries, rotated keys
    saved += query_width + key_width if config.qk_norm else 0
    saved += key_width if config.value_residual else 0
    saved += query_width  # what the output projection takes in
    saved += 2 * query_width if config.attention_gate else 0
    if config.attention_dropout:  # torch's plain path: float32 weights before and after the mask, and the mask in bytes
        copies = 0 if width == 4 else 4 * (query_width + 2 * key_width)
        return width * saved + copies + 9 * config.num_heads * time
    if time > BATCHED_ATTENTION_UP_TO:
        return width * (saved + query_width)
    saved += 2 * query_width - key_width if query_width != key_width else 0  # keys and values repeated for every query head
    return width * (saved + config.num_heads * time)


def _feed_forward_saved(config: ModelConfig) -> int:
    """Return the values that one token leaves in one feed-forward layer: the activation's input and its output."""
    return config.ffn_width * (4 if config.activation == "swiglu" else 2)


def _logits_bytes(config: ModelConfig, tokens: int, width: int) -> int:
    """Return the bytes of the chunked loss: one chunk as product, float32, probabilities and gradient, and the head's gradient."""
    rows = max(64, min(tokens, LOGITS_AT_A_TIME // config.vocab_size))
    return rows * config.vocab_size * (4 + 4 + width) + 4 * config.vocab_size * config.width


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest n in 1..most that fits, by bisection, or 0; what it returns does fit."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
