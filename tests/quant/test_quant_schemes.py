"""Laws of every scheme: bounded errors, a packed matrix packs to itself, and the layout that other code reads."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.base.errors import ConfigError
from inkstone.quant.config import GROUP, Quantization, quantization_section
from inkstone.quant.schemes import SCHEMES

torch.set_num_threads(1)
NAMES = list(SCHEMES)
LARGEST = torch.finfo(torch.float32).max
SHARE = {"int8": 1 / 127, "int4": 1 / 7}  # of a group's extreme value, that two neighbouring codes are apart


def drawn(rows=6, columns=64, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def extreme(matrix, scheme):
    """The largest size in each group, as a matrix of the same shape."""
    grouped = matrix.float().unflatten(-1, (-1, scheme.group or matrix.shape[1]))
    return grouped.abs().amax(-1, keepdim=True).expand_as(grouped).flatten(-2)


MATRICES = {
    "drawn": drawn(),
    "one group": drawn(columns=GROUP),
    "one row": drawn(rows=1),
    "zeros": torch.zeros(3, GROUP),
    "a zero row": drawn() * torch.tensor([1, 0, 1, 1, 0, 1.0])[:, None],
    "constant rows": torch.tensor([1.0, -0.3, 1e-3])[:, None].expand(3, GROUP),
    "one value a row": torch.eye(GROUP)[:5] * -0.7,
    "huge": drawn().sign() * LARGEST,
    "large": drawn() * 1e30,
    "tiny": drawn() * 1e-30,
    "an outlier": drawn() + 100 * torch.eye(6, 64),
    "all sizes": drawn() * 10.0 ** torch.arange(-32, 32),
    "too small for a scale": drawn() * 1e-42,
    "not contiguous": drawn(64, 96).T,
    "a strided view": drawn(12, 128)[::2, ::2],
    "bfloat16": drawn().bfloat16(),
    "float16": drawn().half(),
    "float64": drawn().double(),
}


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", NAMES)
def test_no_element_moves_further_than_a_code(name, kind):
    scheme, matrix = SCHEMES[name], MATRICES[kind]
    back = scheme.unpack(*scheme.pack(matrix))
    assert back.dtype == torch.float32 and torch.isfinite(back).all()
    error = (back.double() - matrix.double()).abs()
    bound = extreme(matrix, scheme).double() * SHARE[name] + 130 * torch.finfo(torch.float32).tiny
    assert (error <= bound).all()


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("name", NAMES)
def test_packing_what_was_packed_is_the_identity(name, kind):
    scheme = SCHEMES[name]
    once = scheme.unpack(*scheme.pack(MATRICES[kind]))
    assert torch.equal(scheme.unpack(*scheme.pack(once)), once)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**30), power=st.integers(-36, 36), spread=st.floats(0, 3))
def test_packing_what_was_packed_is_the_identity_at_any_size_and_spread(name, seed, power, spread):
    scheme, normal = SCHEMES[name], drawn(2, 64, seed)
    matrix = normal * torch.exp(spread * drawn(2, 64, seed + 1)) * 10.0**power
    once = scheme.unpack(*scheme.pack(matrix.clamp(-LARGEST, LARGEST)))
    assert torch.isfinite(once).all()
    assert torch.equal(scheme.unpack(*scheme.pack(once)), once)


@pytest.mark.parametrize("name", NAMES)
def test_any_code_that_can_be_stored_packs_to_itself(name):
    scheme, generator = SCHEMES[name], torch.Generator().manual_seed(1)
    for _ in range(50):
        most = int(torch.randint(1, scheme.highest + 1, (), generator=generator))
        codes = torch.randint(-most - (most == 7), most + 1, (4, 1, GROUP), generator=generator)
        if name == "int8":
            codes[:, :, 0] = 127  # a row always has one
        scale = torch.randn(4, 1, generator=generator).bfloat16().float()
        stored = scheme.join(codes.float()), scale.to(scheme.scale_dtype).view(scheme.scale_shape(4, GROUP))
        dense = scheme.unpack(*stored)
        assert torch.equal(scheme.unpack(*scheme.pack(dense)), dense)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_the_rows_beside_it(name):
    scheme, matrix = SCHEMES[name], drawn(5000, 64)  # several chunks
    stored, scale = scheme.pack(matrix)
    for row in (0, 1, 2047, 2048, 4999):
        alone = scheme.pack(matrix[row : row + 1])
        assert torch.equal(alone[0][0], stored[row]) and torch.equal(alone[1][0], scale[row])


@pytest.mark.parametrize("name", NAMES)
def test_some_rows_unpack_to_the_same_rows_of_the_whole(name):
    scheme = SCHEMES[name]
    stored, scale = scheme.pack(drawn(8))
    index = torch.tensor([[3, 3, 0], [7, 1, 2]])
    assert torch.equal(scheme.unpack(stored[index], scale[index]), scheme.unpack(stored, scale)[index])


def test_int8_stores_what_the_kernels_read():
    stored, scale = SCHEMES["int8"].pack(drawn(3, 96))
    assert (stored.dtype, stored.shape, stored.is_contiguous()) == (torch.int8, (3, 96), True)
    assert (scale.dtype, scale.shape, scale.is_contiguous()) == (torch.float32, (3,), True)
    assert stored.abs().amax(1).tolist() == [127] * 3
    by_hand = [[int(stored[o, i]) * float(scale[o]) for i in range(96)] for o in range(3)]
    assert SCHEMES["int8"].unpack(stored, scale).tolist() == by_hand


def test_int4_stores_what_the_kernels_read():
    """Byte b of a group holds element b in its low nibble and element b + 16 in its high one, each code plus 8."""
    stored, scale = SCHEMES["int4"].pack(drawn(3, 96))
    assert (stored.dtype, stored.shape, stored.is_contiguous()) == (torch.uint8, (3, 48), True)
    assert (scale.dtype, scale.shape, scale.is_contiguous()) == (torch.bfloat16, (3, 3), True)
    by_hand = []
    for o in range(3):
        row = []
        for i in range(96):
            byte = int(stored[o, i // 32 * 16 + i % 16])
            nibble = byte & 15 if i % 32 < 16 else byte >> 4
            row.append((nibble - 8) * float(scale[o, i // 32]))
        by_hand.append(row)
    assert SCHEMES["int4"].unpack(stored, scale).tolist() == by_hand


def test_int4_finds_a_scale_as_good_as_the_plain_ones():
    """The plain ones put the extreme value at -8, or the largest size at 7, and never look at the error."""
    x = drawn(64, GROUP, seed=3)
    chosen = SCHEMES["int4"].unpack(*SCHEMES["int4"].pack(x))
    error = (chosen - x).square().sum(1)
    at = x.gather(1, x.abs().argmax(1, keepdim=True))
    for plain in (at / -8, at.abs() / 7):
        scale = plain.bfloat16().float()
        other = ((x / scale).round().clamp(-8, 7) * scale - x).square().sum(1)
        assert (error <= other * (1 + 1e-5)).all() and error.sum() < 0.95 * other.sum()


@pytest.mark.parametrize("name", NAMES)
def test_a_section_is_read_back_and_nothing_else_is(name):
    section = quantization_section(name)
    assert Quantization.model_validate(section).scheme == name
    assert section["group"] == SCHEMES[name].group
    for wrong in ({"group": 64}, {"scheme": "int3"}, {"group": True}, {"bits": 4}, {"group": math.nan}):
        with pytest.raises(ValueError):
            Quantization.model_validate(section | wrong)
    with pytest.raises(ValueError):
        Quantization.model_validate({"scheme": name})


def test_an_unknown_scheme_names_those_there_are():
    with pytest.raises(ConfigError, match=r"unknown quantization scheme 'int5'; did you mean 'int[48]'.*int8, int4"):
        SCHEMES["int5"]
