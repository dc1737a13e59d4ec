"""Norms, attention, feed-forward and the block made of them. Weights are float32; the activations' dtype decides the arithmetic."""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inkstone.nn.attention import attend
from inkstone.nn.cache import KVCache, RowsCache
from inkstone.nn.config import ModelConfig
from inkstone.nn.functional import drop, rms_norm, rotate


class Linear(nn.Module):
    """x @ weight.T + bias, with the weight cast to the dtype of x."""

    def __init__(self, num_in: int, num_out: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.zeros(num_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, num_out) from (…, num_in)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Embedding(nn.Embedding):
    """A row for each token, which is also a row of the projection back to the vocabulary where both are tied."""

    def project(self, hidden: Tensor) -> Tensor:
        """Return (…, V) from (…, D), with the weight cast to the dtype of `hidden`."""
        return F.linear(hidden, self.weight.to(hidden.dtype))


class Norm(nn.Module):
    """LayerNorm or RMSNorm over the last dimension."""

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.centered = config.norm == "layernorm"
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if self.centered and config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized x, same shape and dtype."""
        if not self.centered:
            return rms_norm(x, self.weight, self.eps)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), bias, self.eps)


class Attention(nn.Module):
    """Causal self-attention: multi-head, grouped-query or windowed, with optional QK-norm, output gate and value residual."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads, self.num_kv_heads, self.head_width = config.num_heads, config.num_kv_heads, config.head_width
        self.window = config.layer_window(layer)
        self.dropout, self.weight_dropout = config.dropout, config.attention_dropout
        out_width = self.num_heads * self.head_width
        self.qkv = Linear(config.width, out_width + 2 * self.num_kv_heads * self.head_width, config.bias)
        kv_width = self.num_kv_heads * self.head_width
        self.qkv.weight.row_parts = (out_width, kv_width, kv_width)  # type: ignore[attr-defined]  # three matrices, for Muon
        self.out = Linear(out_width, config.width, config.bias)
        self.q_norm = Norm(self.head_width, config.model_copy(update={"norm": "rmsnorm"})) if config.qk_norm else None
        self.k_norm = Norm(self.head_width, config.model_copy(update={"norm": "rmsnorm"})) if config.qk_norm else None
        self.gate = Linear(config.width, out_width, config.bias) if config.attention_gate else None
        self.value_mix = nn.Parameter(torch.tensor(0.5)) if config.value_residual and layer > 0 else None

    def forward(
        self,
        x_BTD: Tensor,
        *,
        rotary: tuple[Tensor, Tensor] | None,
        bias: Tensor | None,
        first_v_BTKE: Tensor | None,
        cache: KVCache | RowsCache | None,
    ) -> tuple[Tensor, Tensor]:
        """Return (output_BTD, this layer's own values_BTKE)."""
        batch, time, _ = x_BTD.shape
        H, K, E = self.num_heads, self.num_kv_heads, self.head_width
        q, k, v = self.qkv(x_BTD).view(batch, time, H + 2 * K, E).split([H, K, K], dim=2)
        own_v = v
        if self.value_mix is not None:
            assert first_v_BTKE is not None
            v = torch.lerp(v, first_v_BTKE, self.value_mix.to(v.dtype))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = (x.transpose(1, 2) if rotary is None else rotate(x, *rotary) for x in (q, k))
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = (kept.to(x_BTD.dtype) for kept in cache.write(self.layer, k, v))
            if self.window and time == 1 and bias is None:
                k, v = k[:, :, -self.window :], v[:, :, -self.window :]
        mixed = attend(q, k, v, bias=bias, window=self.window, dropout=self.weight_dropout if self.training else 0.0)
        mixed = mixed.transpose(1, 2).reshape(batch, time, H * E)
        if self.gate is not None:
            mixed = mixed * torch.sigmoid(self.gate(x_BTD))
        return drop(self.out(mixed), self.dropout, self.training), own_v


class FeedForward(nn.Module):
    """Two linear layers around an activation; `swiglu` gates the second half of a doubled first layer by its first half."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.dropout = config.activation, config.dropout
        self.up = Linear(config.width, config.ffn_width * (2 if config.activation == "swiglu" else 1), config.bias)
        self.down = Linear(config.ffn_width, config.width, config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D) from (B, T, D)."""
        up = self.up(x_BTD)
        if self.activation == "swiglu":
            gate, value = up.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        elif self.activation == "relu2":
            hidden = F.relu(up).square()
        else:
            hidden = F.gelu(up, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        return drop(self.down(hidden), self.dropout, self.training)


class Block(nn.Module):
    """Attention and feed-forward, each with a residual path; norms before (pre) or after the sum (post).

    pre:  x + f(norm(x))        post:  norm(x + f(x))
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.post = config.norm_place == "post"
        self.attn_norm = Norm(config.width, config)
        self.attn = Attention(config, layer)
        self.mlp_norm = Norm(config.width, config)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x_BTD: Tensor,
        *,
        rotary: tuple[Tensor, Tensor] | None,
        bias: Tensor | None,
        first_v_BTKE: Tensor | None,
        cache: KVCache | RowsCache | None,
    ) -> tuple[Tensor, Tensor]:
        """Return (output_BTD, the attention's own values_BTKE)."""
        inner = x_BTD if self.post else self.attn_norm(x_BTD)
        mixed, own_v = self.attn(inner, rotary=rotary, bias=bias, first_v_BTKE=first_v_BTKE, cache=cache)
        x_BTD = x_BTD + mixed
        if self.post:
            x_BTD = self.attn_norm(x_BTD)
            return self.mlp_norm(x_BTD + self.mlp(x_BTD)), own_v
        return x_BTD + self.mlp(self.mlp_norm(x_BTD)), own_v


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)  # the table outlives the call, and training may use it next
def sinusoidal_table(num_positions: int, width: int) -> Tensor:
    """Return (num_positions, width) of sines (even columns) and cosines (odd columns).

    Source: Vaswani et al. 2017, section 3.5.
    """
    position = torch.arange(num_positions)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([torch.sin(position * frequency), torch.cos(position * frequency)], dim=-1).view(num_positions, width)
