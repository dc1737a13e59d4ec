"""How well a model predicts a split: loss, perplexity, bits per byte and accuracy, each with its interval, beside its baselines."""

import math
from typing import TYPE_CHECKING, Any

from inkstone.base.errors import ConfigError, DataError
from inkstone.data.unknown import count_unknown
from inkstone.evaluate.baselines import MAX_TRAIN_BYTES, NGRAM_NAME, baselines, xz_bits_per_byte
from inkstone.evaluate.intervals import Interval, bootstrap_ratio
from inkstone.evaluate.split_bytes import sampled_bytes, scored_bytes
from inkstone.train.validate import Validation, validate

if TYPE_CHECKING:
    from inkstone.data.shards import TokenSplit
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

SEED = 0  # of the bootstrap: the same evaluation gives the same limits
MAX_EXPONENT = 700.0  # exp of more is no longer a float


def evaluate_language(
    model: "Transformer", tokenizer: "Tokenizer", split: "TokenSplit", *, stride: int = 0, max_tokens: int = 0, batch_size: int = 16,
    document_mask: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of `inkstone evaluate`: flat values, and `metrics` {name: {value, low, high}} with 95 % intervals.

    Windows of the model's context advance by `stride` (0: half the context), so that each token has at least half a context
    before it; `max_tokens` 0 is the whole split.

    Units: `loss` nats per token, `bits_per_byte` of UTF-8 text, `tokens` and `bytes` that were scored.
    Raises: ConfigError for a stride outside 1 … context; DataError for a split with nothing to score or with characters that the
    tokenizer does not know, or a loss that is not finite.
    """
    num_unknown, first = count_unknown(split, tokenizer)
    if num_unknown:
        raise DataError(
            f"split '{split.name}' has {num_unknown:,} characters that the tokenizer does not know (the first at token {first:,}): its "
            "figures would be those of another text — prepare it with a tokenizer that has them, or take them out"
        )
    context = model.config.context
    chosen = choose_stride(stride, context)
    if split.num_tokens < 2:
        raise DataError(f"split '{split.name}' has {split.num_tokens} tokens — expected at least 2, one of them to predict")
    result = validate(
        model, split, tokenizer.byte_lengths, context=context, stride=chosen, batch_size=batch_size, max_tokens=max_tokens,
        document_mask=document_mask,
    )  # fmt: skip
    if result.tokens == 0 or result.num_bytes == 0:
        raise DataError(f"split '{split.name}' has no text to score: {result.tokens} tokens, {result.num_bytes} bytes")
    if not math.isfinite(result.nats):
        raise DataError(f"the loss on split '{split.name}' is {result.nats} — the model overflows; try --precision fp32")
    metrics = _intervals(result)
    return {name: interval.value for name, interval in metrics.items()} | {
        "tokens": result.tokens,
        "bytes": result.num_bytes,
        "metrics": {name: vars(interval) for name, interval in metrics.items()},
        "context": context,
        "stride": chosen,
        "windows": len(result.window_tokens),
    }


def choose_stride(stride: int, context: int) -> int:
    """Return the stride, 0 being half the context.

    Raises: ConfigError when tokens would be skipped.
    """
    if not 0 <= stride <= context:
        raise ConfigError(f"--stride: expected 1 to {context}, the model's context (0 = half of it), found {stride}")
    return stride or max(1, context // 2)


def language_baselines(
    tokenizer: "Tokenizer", split: "TokenSplit", train: "TokenSplit | None", *, max_tokens: int = 0
) -> dict[str, dict[str, float]]:
    """Return `{name: {"bits_per_byte": …}}` of the very bytes that `evaluate_language` scores.

    The n-gram model learns from `train`, and is left out where that is None. Of a large one it sees an even sample; its entry then
    says under `train_bytes` how much.
    """
    text = scored_bytes(split, tokenizer, max_tokens=max_tokens)
    if train is None:
        return {"xz -9": {"bits_per_byte": xz_bits_per_byte(text)}}
    found = baselines(sampled_bytes(train, tokenizer, MAX_TRAIN_BYTES), text)
    if train.num_bytes > MAX_TRAIN_BYTES:
        found[NGRAM_NAME]["train_bytes"] = MAX_TRAIN_BYTES
    return found


def _intervals(result: Validation) -> dict[str, Interval]:
    """Return the headline figures, each with an interval from resampled windows."""
    loss = bootstrap_ratio(result.window_nats, result.window_tokens, seed=SEED)
    by_byte = bootstrap_ratio(result.window_nats, result.window_bytes, seed=SEED)
    return {
        "loss": loss,
        "perplexity": _exp(loss),
        "perplexity_per_byte": _exp(by_byte),
        "bits_per_byte": by_byte.scaled(1 / math.log(2)),
        "accuracy": bootstrap_ratio(result.window_correct, result.window_tokens, seed=SEED),
    }


def _exp(interval: Interval) -> Interval:
    value, low, high = (math.exp(min(nats, MAX_EXPONENT)) for nats in (interval.value, interval.low, interval.high))
    return Interval(value, low, high)
