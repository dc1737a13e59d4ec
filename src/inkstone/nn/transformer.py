"""The transformer: embeddings, blocks, and the projection back to the vocabulary. Every preset is this one class."""

import torch
from torch import Tensor, nn

from inkstone.nn.attention import document_bias
from inkstone.nn.cache import KVCache, RowsCache
from inkstone.nn.config import ModelConfig
from inkstone.nn.functional import drop, ngram_rows, rotary_table
from inkstone.nn.init import initialize
from inkstone.nn.layers import Block, Embedding, Linear, Norm, sinusoidal_table


class Transformer(nn.Module):
    """A decoder-only language model.

    `compute_dtype` is the dtype of activations and products; parameters stay in float32 unless the model is cast.
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        assert config.vocab_size > 0, "vocab_size comes from the tokenizer"
        self.config = config
        self.compute_dtype = compute_dtype
        self.embed = Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        num_ngrams = (config.ngram_max - 1) * config.ngram_buckets
        self.ngram = nn.EmbeddingBag(num_ngrams, config.width, mode="sum") if num_ngrams else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.final_norm = Norm(config.width, config) if config.norm_place == "pre" else None
        self.head = None if config.tie_embeddings else Linear(config.width, config.vocab_size, bias=False)
        initialize(self, config, torch.Generator().manual_seed(seed))

    @property
    def head_weight(self) -> Tensor:
        """The (V, D) matrix that turns hidden states into logits; where it is packed (see quant/), a float copy of it."""
        head = self.embed if self.head is None else self.head
        return head.weight if isinstance(head, Embedding | Linear) else head.dequantize(self.compute_dtype)

    def forward(self, tokens_BT: Tensor, document_BT: Tensor | None = None, cache: KVCache | RowsCache | None = None) -> Tensor:
        """Return hidden_BTD after the final norm.

        `document_BT` numbers the document of each position; attention stays inside one. With a cache the tokens stand at positions
        cache.length … and are appended to it.
        """
        positions = slice(0, tokens_BT.shape[1]) if cache is None else cache.positions(tokens_BT.shape[1])
        history_BS = self._history(tokens_BT, cache)
        x = drop(self.embed_tokens(history_BS, positions, document_BT), self.config.dropout, self.training)
        rotary = self._rotary(positions, x)
        biases = self._biases(document_BT, cache, x.dtype)
        first_v = None
        for layer, block in enumerate(self.blocks):
            bias = biases.get(self.config.layer_window(layer))
            x, own_v = block(x, rotary=rotary, bias=bias, first_v_BTKE=first_v, cache=cache)
            first_v = own_v if layer == 0 and self.config.value_residual else first_v
        if cache is not None:
            cache.advance(tokens_BT.shape[1], history_BS[:, tokens_BT.shape[1] :])
        return x if self.final_norm is None else self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits (…, V) of hidden states (…, D)."""
        logits = (self.embed.project(hidden) if self.head is None else self.head(hidden)).float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def new_cache(self, batch_size: int, max_tokens: int, dtype: torch.dtype | None = None) -> KVCache:
        """Return an empty cache for `batch_size` rows of up to `max_tokens` positions."""
        config = self.config
        return KVCache(
            num_layers=config.num_layers, batch_size=batch_size, num_kv_heads=config.num_kv_heads, max_tokens=max_tokens,
            head_width=config.head_width, dtype=dtype or self.compute_dtype, device=self.embed.weight.device,
        )  # fmt: skip

    def embed_tokens(
        self, history_BS: Tensor, positions: slice | Tensor, document_BT: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return (B, T, D): tokens, n-grams and positions, in `dtype` (None: the dtype of activations).

        `history_BS` holds the T tokens with the `ngram_max - 1` before them; `positions` is a slice, or (B, T).
        """
        dtype = dtype or self.compute_dtype
        tokens_BT = history_BS[:, self.config.ngram_max - 1 :]
        if isinstance(positions, slice) and self.config.position in ("learned", "sinusoidal"):
            assert positions.stop <= self.config.context, f"{positions.stop} positions, context {self.config.context}"
        x = self.embed(tokens_BT).to(dtype)
        if self.ngram is not None:
            config = self.config
            rows_NG = ngram_rows(
                history_BS, document_BT, longest=config.ngram_max, buckets=config.ngram_buckets, vocab_size=config.vocab_size
            )
            x = x + self.ngram(rows_NG).view_as(x).to(dtype)
        if self.position is not None:
            x = x + self.position.weight[positions].to(dtype)
        elif self.config.position == "sinusoidal":
            x = x + sinusoidal_table(self.config.context, self.config.width)[positions].to(x)
        return x

    def _history(self, tokens_BT: Tensor, cache: KVCache | RowsCache | None) -> Tensor:
        """Return the tokens with the `ngram_max - 1` before them, id 0 standing for what is not there."""
        before = None if cache is None else cache.recent_BN
        if before is None:
            before = tokens_BT.new_zeros(len(tokens_BT), self.config.ngram_max - 1)
        return torch.cat([before, tokens_BT], dim=1)

    def _rotary(self, positions: slice | Tensor, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return cos and sin of shape (T, E), or (B, 1, 1, E) where each row has a position of its own."""
        if self.config.position != "rope":
            return None
        size = max(self.config.context, positions.stop) if isinstance(positions, slice) else self.config.context
        cos, sin = rotary_table(size, self.config.head_width, self.config.rope_base, x.dtype, str(x.device))
        if isinstance(positions, slice):
            return cos[positions], sin[positions]
        return cos[positions][:, None], sin[positions][:, None]

    def _biases(
        self, document_BT: Tensor | None, cache: KVCache | RowsCache | None, dtype: torch.dtype
    ) -> dict[int, Tensor | None]:
        """Return one bias for each window that some layer has; none where plain causal attention will do."""
        if document_BT is None and cache is None:
            return {}
        windows = {self.config.layer_window(layer) for layer in range(self.config.num_layers)}
        if document_BT is None:
            assert cache is not None
            return {window: cache.bias(window, dtype) for window in windows}
        return {window: document_bias(document_BT, window, self.config.num_heads, dtype) for window in windows}
