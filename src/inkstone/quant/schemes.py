"""The schemes: how a matrix of weights is written as small integers and scales, and read back.

A packed weight is a pair of tensors, rows contiguous, O outputs and I inputs, I a multiple of 32:

int8: codes int8 (O, I), scale float32 (O,):          w = code * scale[o]
int4: codes uint8 (O, I / 2), scale bfloat16 (O, I / 32):  w = (nibble - 8) * scale[o, g]; byte b of a group's 16 holds element b of
      the group in its low nibble and element b + 16 in its high one.

Scales have so few significant bits that code * scale is exact in float32; therefore a matrix that was packed and unpacked packs to
itself. A scale below the smallest normal number is written as 0, and so is all that it scales.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from inkstone.base.family import Family
from inkstone.quant.config import GROUP

_CHUNK = 1 << 17  # weights that are searched at once: they and three temporaries stay in the cache
_SMALLEST = torch.finfo(torch.float32).tiny
_LARGEST = torch.finfo(torch.bfloat16).max / 8  # of a scale whose products are finite
# int4 tries scales that put the extreme value of a group at each of these codes; beyond 7 it is clipped, which pays where it stands
# far out. Whole numbers find the scale of a group that was packed before, whatever its largest code is.
_EXTREMES = [sign * code / 4 for code in (4, 8, 12, 16, 20, *range(24, 37)) for sign in (-1, 1)]


def _int8_scale(x_OGN: Tensor) -> Tensor:
    """Return the scale that puts the largest value at 127, cut (never rounded up) to 17 significant bits."""
    exact_OG = x_OGN.abs().amax(-1) / 127
    return exact_OG.view(torch.int32).bitwise_and(-128).view(torch.float32)


def _int4_scale(x_OGN: Tensor) -> Tensor:
    """Return the bfloat16 scale (as float32) with the smallest squared error among the candidates."""
    x_NOG = x_OGN.permute(2, 0, 1).contiguous()  # sums over a group then run along whole vectors
    low_OG, high_OG = x_NOG.amin(0), x_NOG.amax(0)
    extreme_OG = torch.where(-low_OG > high_OG, low_OG, high_OG)
    size_OG = extreme_OG.abs().clamp_(min=_SMALLEST)
    x_NOG /= size_OG  # errors are compared in units of the extreme value: their squares neither overflow nor vanish
    best_OG, least_OG = torch.zeros_like(size_OG), torch.full_like(size_OG, torch.inf)
    codes_NOG, error_NOG = torch.empty_like(x_NOG), torch.empty_like(x_NOG)
    for code in _EXTREMES:
        scale_OG = (extreme_OG / code).clamp_(-_LARGEST, _LARGEST).bfloat16().float()
        unit_OG = scale_OG / size_OG
        torch.mul(x_NOG, unit_OG.reciprocal().nan_to_num_(0, 0, 0), out=codes_NOG).round_().clamp_(-8, 7)
        error_OG = torch.mul(codes_NOG, unit_OG, out=error_NOG).sub_(x_NOG).square_().sum(0)
        better_OG = error_OG < least_OG
        best_OG = torch.where(better_OG, scale_OG, best_OG)
        least_OG = torch.where(better_OG, error_OG, least_OG)
    return best_OG


def _join_nibbles(codes_OGN: Tensor) -> Tensor:
    low, high = (codes_OGN + 8).to(torch.uint8).chunk(2, dim=-1)
    return (low | high << 4).flatten(-2)


def _split_nibbles(stored: Tensor) -> Tensor:
    grouped = stored.unflatten(-1, (-1, GROUP // 2))
    return torch.cat([grouped & 15, grouped >> 4], dim=-1).to(torch.int8) - 8


@dataclasses.dataclass(frozen=True)
class Scheme:
    """One packed form. Shape letters: O outputs, I inputs, G groups of a row, N inputs of a group."""

    name: str
    group: int  # inputs that share a scale; 0 = all of a row
    lowest: int
    highest: int
    stored_dtype: torch.dtype
    scale_dtype: torch.dtype
    choose_scale: Callable[[Tensor], Tensor]  # x_OGN → scale_OG, float32, exact in scale_dtype
    join: Callable[[Tensor], Tensor]  # codes_OGN, float32 → what is stored, a row each
    split: Callable[[Tensor], Tensor]  # what is stored → int8 codes (…, G, N)

    def pack(self, matrix_OI: Tensor) -> tuple[Tensor, Tensor]:
        """Return (stored weight, scale) of a matrix in any float dtype."""
        num_out, num_in = matrix_OI.shape
        group = self.group or num_in
        stored, scales = [], []
        for rows_OI in matrix_OI.detach().split(max(1, _CHUNK // num_in)):
            x_OGN = rows_OI.float().reshape(-1, num_in // group, group)
            scale_OG = self.scale_of(x_OGN)
            stored.append(self.join(self.codes(x_OGN, scale_OG)))
            scales.append(scale_OG.to(self.scale_dtype))
        return torch.cat(stored), torch.cat(scales).view(self.scale_shape(num_out, num_in))

    def scale_of(self, x_OGN: Tensor) -> Tensor:
        """Return scale_OG of float32 groups, with 0 in the place of numbers that are too small for all their bits."""
        scale_OG = self.choose_scale(x_OGN)
        return torch.where(scale_OG.abs() < _SMALLEST, 0.0, scale_OG)

    def codes(self, x_OGN: Tensor, scale_OG: Tensor) -> Tensor:
        """Return the nearest codes as float32; 0 where the scale is 0."""
        divisor_OG = torch.where(scale_OG == 0, torch.inf, scale_OG)
        return (x_OGN / divisor_OG[..., None]).round_().clamp_(self.lowest, self.highest)

    def unpack(self, stored: Tensor, scale: Tensor) -> Tensor:
        """Return float32 (…, I) of whole rows: stored (…, I or I / 2), scale (…) or (…, I / 32)."""
        codes = self.split(stored)
        return (codes.float() * scale.float().view(codes.shape[:-1])[..., None]).flatten(-2)

    def stored_shape(self, num_out: int, num_in: int) -> tuple[int, int]:
        """Return the shape of the stored weight."""
        return (num_out, num_in // 2 if self.stored_dtype == torch.uint8 else num_in)

    def scale_shape(self, num_out: int, num_in: int) -> tuple[int, ...]:
        """Return the shape of the scales."""
        return (num_out, num_in // self.group) if self.group else (num_out,)


SCHEMES: Family[Scheme] = Family(
    "quantization scheme",
    {
        "int8": Scheme(
            "int8", 0, -127, 127, torch.int8, torch.float32, _int8_scale,
            join=lambda codes: codes.to(torch.int8).flatten(-2), split=lambda stored: stored.unsqueeze(-2),
        ),
        "int4": Scheme("int4", GROUP, -8, 7, torch.uint8, torch.bfloat16, _int4_scale, _join_nibbles, _split_nibbles),
    },
)  # fmt: skip
