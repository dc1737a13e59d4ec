"""Modules around packed weights: a linear layer and an embedding that hold small integers and scales instead of a float matrix."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inkstone.quant.schemes import SCHEMES


class PackedWeight(nn.Module):
    """A matrix of `shape` (O outputs, I inputs) in a scheme's packed form, in the buffers `weight` and `weight_scale`.

    The buffers are made empty; `fill` packs a matrix into them, and loading a state dict replaces them.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, scheme: str, num_out: int, num_in: int, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        row = SCHEMES[scheme]
        self.scheme, self.shape = scheme, (num_out, num_in)
        self.register_buffer("weight", torch.empty(row.stored_shape(num_out, num_in), dtype=row.stored_dtype, device=device))
        self.register_buffer("weight_scale", torch.empty(row.scale_shape(num_out, num_in), dtype=row.scale_dtype, device=device))

    @property
    def scale(self) -> Tensor:
        """The scales, of the shape and dtype that the scheme says."""
        return self.weight_scale

    def fill(self, matrix_OI: Tensor) -> None:
        """Pack a float matrix of this shape into the buffers."""
        assert matrix_OI.shape == self.shape, f"{tuple(matrix_OI.shape)} into {self.shape}"
        self.weight, self.weight_scale = SCHEMES[self.scheme].pack(matrix_OI)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the whole matrix (O, I)."""
        return SCHEMES[self.scheme].unpack(self.weight, self.weight_scale).to(dtype)

    def rows(self, index: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the rows (…, I) of the indices (…), as an embedding does."""
        return SCHEMES[self.scheme].unpack(self.weight[index], self.weight_scale[index]).to(dtype)

    def extra_repr(self) -> str:
        """Return what stands between the brackets when the module is printed."""
        return f"{self.shape[0]}, {self.shape[1]}, scheme={self.scheme}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedWeight":
        """Move with the model, but keep the scale's dtype, which is part of the format, when the model is cast."""
        scale = self.weight_scale
        super()._apply(fn, recurse)
        self.weight_scale = scale.to(self.weight.device)
        return self


class PackedLinear(PackedWeight):
    """x @ weight.T + bias with the weight unpacked at each call: right everywhere, fast nowhere."""

    def __init__(
        self, scheme: str, num_out: int, num_in: int, *, bias: nn.Parameter | None, device: torch.device | str | None = None
    ) -> None:
        super().__init__(scheme, num_out, num_in, device=device)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, O) from (…, I), in the dtype of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.dequantize(x.dtype), bias)


class PackedEmbedding(PackedWeight):
    """Rows by index; where the embedding is tied, the same buffers give the logits."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 rows (…, I) of the ids (…)."""
        return self.rows(ids)

    def project(self, hidden: Tensor) -> Tensor:
        """Return (…, O) from (…, I), in the dtype of `hidden`."""
        return F.linear(hidden, self.dequantize(hidden.dtype))
