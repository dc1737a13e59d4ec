"""The transformer: embeddings, blocks, and the projection back to the vocabulary. Every preset is this one class."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inkstone.nn.attention import document_bias
from inkstone.nn.cache import KVCache
from inkstone.nn.config import ModelConfig
from inkstone.nn.functional import drop, ngram_rows, rotary_table
from inkstone.nn.init import initialize
from inkstone.nn.layers import Block, Linear, Norm, sinusoidal_table


class Transformer(nn.Module):
    """A decoder-only language model.

    `compute_dtype` is the dtype of activations and products; parameters stay in float32 unless the model is cast.
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        assert config.vocab_size > 0, "vocab_size comes from the tokenizer"
        self.config = config
        self.compute_dtype = compute_dtype
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        num_ngrams = (config.ngram_max - 1) * config.ngram_buckets
        self.ngram = nn.EmbeddingBag(num_ngrams, config.width, mode="sum") if num_ngrams else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.final_norm = Norm(config.width, config) if config.norm_place == "pre" else None
        self.head = None if config.tie_embeddings else Linear(config.width, config.vocab_size, bias=False)
        initialize(self, config, torch.Generator().manual_seed(seed))

    @property
    def head_weight(self) -> Tensor:
        """The (V, D) matrix that turns hidden states into logits."""
        return self.embed.weight if self.head is None else self.head.weight

    def forward(self, tokens_BT: Tensor, document_BT: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Return hidden_BTD after the final norm.

        `document_BT` numbers the document of each position; attention stays inside one. With a cache the tokens stand at positions
        cache.length … and are appended to it.
        """
        start = 0 if cache is None else cache.length
        x = drop(self._embed(tokens_BT, document_BT, start, cache), self.config.dropout, self.training)
        rotary = self._rotary(start, tokens_BT.shape[1], x)
        biases = self._document_biases(document_BT, x.dtype)
        first_v = None
        for layer, block in enumerate(self.blocks):
            bias = biases.get(self.config.layer_window(layer))
            x, own_v = block(x, rotary=rotary, bias=bias, first_v_BTKE=first_v, cache=cache)
            first_v = own_v if layer == 0 and self.config.value_residual else first_v
        if cache is not None:
            cache.length += tokens_BT.shape[1]
            cache.recent_BN = self._history(tokens_BT, cache)[:, tokens_BT.shape[1] :]
        return x if self.final_norm is None else self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits (…, V) of hidden states (…, D)."""
        logits = F.linear(hidden, self.head_weight.to(hidden.dtype)).float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def new_cache(self, batch_size: int, max_tokens: int, dtype: torch.dtype | None = None) -> KVCache:
        """Return an empty cache for `batch_size` rows of up to `max_tokens` positions."""
        config = self.config
        return KVCache(
            num_layers=config.num_layers, batch_size=batch_size, num_kv_heads=config.num_kv_heads, max_tokens=max_tokens,
            head_width=config.head_width, dtype=dtype or self.compute_dtype, device=self.embed.weight.device,
        )  # fmt: skip

    def _embed(self, tokens_BT: Tensor, document_BT: Tensor | None, start: int, cache: KVCache | None) -> Tensor:
        num, dtype = tokens_BT.shape[1], self.compute_dtype
        if self.config.position in ("learned", "sinusoidal"):
            assert start + num <= self.config.context, f"{start + num} positions, context {self.config.context}"
        x = self.embed(tokens_BT).to(dtype)
        if self.ngram is not None:
            config = self.config
            rows_NG = ngram_rows(
                self._history(tokens_BT, cache),
                document_BT,
                longest=config.ngram_max,
                buckets=config.ngram_buckets,
                vocab_size=config.vocab_size,
            )
            x = x + self.ngram(rows_NG).view_as(x).to(dtype)
        if self.position is not None:
            x = x + self.position.weight[start : start + num].to(dtype)
        elif self.config.position == "sinusoidal":
            x = x + sinusoidal_table(self.config.context, self.config.width)[start : start + num].to(x)
        return x

    def _history(self, tokens_BT: Tensor, cache: KVCache | None) -> Tensor:
        """Return the tokens with the `ngram_max - 1` before them, id 0 standing for what is not there."""
        before = None if cache is None else cache.recent_BN
        if before is None:
            before = tokens_BT.new_zeros(len(tokens_BT), self.config.ngram_max - 1)
        return torch.cat([before, tokens_BT], dim=1)

    def _rotary(self, start: int, num: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.config.position != "rope":
            return None
        size = max(self.config.context, start + num)
        cos, sin = rotary_table(size, self.config.head_width, self.config.rope_base, x.dtype, str(x.device))
        return cos[start : start + num], sin[start : start + num]

    def _document_biases(self, document_BT: Tensor | None, dtype: torch.dtype) -> dict[int, Tensor]:
        """Return one bias for each window that some layer has; none without documents."""
        if document_BT is None:
            return {}
        windows = {self.config.layer_window(layer) for layer in range(self.config.num_layers)}
        return {window: document_bias(document_BT, window, self.config.num_heads, dtype) for window in windows}
