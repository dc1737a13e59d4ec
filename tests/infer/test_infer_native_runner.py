"""The kernels against torch, for every kind of model and weight; and rows that do not depend on their neighbours, to the bit."""

import pytest
import torch
from test_infer_torch_runner import VARIANTS, build, forward

from inkstone.infer.native.build import find_compiler, load_kernels
from inkstone.infer.native_runner import FEW_TOKENS, NativeRunner
from inkstone.infer.runners import make_runner
from inkstone.infer.torch_runner import TorchRunner
from inkstone.quant.apply import pack_model

torch.set_num_threads(2)
pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
IDS = [9, 8, 7, 6, 5, 4, 3, 2, 1, 50, 51, 90, 91, 17, 17, 4, 60, 61, 62, 63]


def runner_of(network, **options):
    library = load_kernels()
    assert library is not None
    return NativeRunner(network, library, **({"num_slots": 4} | options))


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoding_equals_the_full_forward(variant):
    network = build(variant)
    wanted = forward(network, IDS)
    runner = runner_of(network)
    found = [runner.prefill(2, IDS[:10], 0), runner.decode(IDS[10:13], [2] * 3, [10, 11, 12])]
    found += [runner.decode([IDS[at]], [2], [at]) for at in range(13, len(IDS))]
    torch.testing.assert_close(torch.cat(found), wanted, atol=3e-5, rtol=3e-5)
    with torch.inference_mode():
        torch.testing.assert_close(runner.logits(wanted), network.logits(wanted), atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("variant", ["gpt", "modern", "extras"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_to_the_bit_alone_and_among_others(variant, dtype):
    network = build(variant).to(dtype)
    network.compute_dtype = torch.float32
    alone, among = runner_of(network, cache_dtype=dtype), runner_of(network, cache_dtype=dtype)
    for slot in range(4):
        alone.prefill(slot, IDS[slot : slot + 3], 0)
        among.prefill(slot, IDS[slot : slot + 3], 0)
    together = among.decode([1, 2, 3, 4, 5, 6], [3, 1, 0, 0, 0, 2], [3, 3, 3, 4, 5, 3])
    wanted = [
        alone.decode([token], [slot], [at])
        for token, slot, at in [(1, 3, 3), (2, 1, 3), (3, 0, 3), (4, 0, 4), (5, 0, 5), (6, 2, 3)]
    ]
    assert torch.equal(together, torch.cat(wanted))
    assert torch.equal(among.logits(together), torch.cat([alone.logits(hidden) for hidden in wanted]))


def test_the_number_of_threads_changes_no_bit():
    network = build("modern")
    torch.set_num_threads(1)
    single = runner_of(network)
    torch.set_num_threads(2)
    double = runner_of(network)
    for at, token in enumerate(IDS):
        assert torch.equal(single.decode([token], [0], [at]), double.decode([token], [0], [at]))


def test_short_and_long_prompts_agree():
    network = build("gpt")
    runner = runner_of(network)
    short = torch.cat([runner.prefill(0, IDS[at : at + FEW_TOKENS], at) for at in range(0, 16, FEW_TOKENS)])
    torch.testing.assert_close(short, runner.prefill(1, IDS[:16], 0), atol=3e-5, rtol=3e-5)


def test_a_bfloat16_cache_loses_what_rounding_loses():
    network = build("modern")
    exact, rounded = runner_of(network), runner_of(network, cache_dtype=torch.bfloat16)
    reference = TorchRunner(network, num_slots=1, cache_dtype=torch.bfloat16)
    for at, token in enumerate(IDS):
        wide, narrow, wanted = (one.decode([token], [0], [at]) for one in (exact, rounded, reference))
    torch.testing.assert_close(narrow, wanted, atol=2e-3, rtol=2e-3)
    assert 0 < (narrow - wide).abs().max() < 0.1


def test_more_rows_than_one_call_takes_are_split():
    network = build("gpt")
    runner = runner_of(network, num_slots=2)
    ids = list(range(1, 41))
    torch.testing.assert_close(runner.decode(ids, [1] * 40, range(40)), forward(network, ids), atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize("width", [64, 96])  # pairs of groups, and a group without a partner
def test_packed_weights_give_what_their_unpacked_matrices_give(scheme, width):
    network = build("gpt", width=width, num_heads=4)
    pack_model(network, scheme)
    wanted = forward(network, IDS)
    runner = runner_of(network)
    found = torch.cat([runner.decode([token], [0], [at]) for at, token in enumerate(IDS)])
    # Activations are rounded to 1/127 of the largest of 32: that is the whole difference.
    assert (found - wanted).square().mean().sqrt() < 0.03 * wanted.square().mean().sqrt()
    rows = runner_of(network).decode(IDS, [3] * len(IDS), range(len(IDS)))
    assert torch.equal(rows, found)
    with torch.inference_mode():
        difference = runner.logits(wanted) - network.logits(wanted)
        assert difference.square().mean().sqrt() < 0.03 * network.logits(wanted).square().mean().sqrt()


def test_the_kernels_are_chosen_on_a_processor():
    assert isinstance(make_runner(build("modern"), num_slots=1), NativeRunner)
