"""Packed folders: what is saved loads bit by bit, and whatever does not fit the scheme is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from inkstone.base.errors import CheckpointError, ConfigError, DataError
from inkstone.base.files import MANIFEST_NAME
from inkstone.checkpoint.model_folder import load_model, read_model, save_model
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import pack_model, packed_weights, scheme_of
from inkstone.quant.schemes import SCHEMES
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)
NAMES = list(SCHEMES)
SMALL = {"num_layers": 2, "num_heads": 2, "width": 32, "context": 24}
CODES, SCALES = "blocks.1.attn.out.weight", "blocks.1.attn.out.weight_scale"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the ink is ground on the stone 砚台"], 270)


def make(tokenizer, scheme=None, **changes):
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **SMALL | changes), seed=3)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    if scheme:
        pack_model(model, scheme)
    return model


@pytest.fixture(params=NAMES)
def packed(request, tokenizer, tmp_path):
    """(folder without its manifest, scheme): a packed folder whose files a test may change."""
    save_model(tmp_path / "m", make(tokenizer, request.param), tokenizer)
    (tmp_path / "m" / MANIFEST_NAME).unlink()
    return tmp_path / "m", request.param


def edit_config(folder, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "changes", [{}, {"tie_embeddings": False}, {"preset": "gpt"}, {"attention_gate": True, "ngram_buckets": 40}]
)
@pytest.mark.parametrize("scheme", NAMES)
def test_what_is_saved_loads_bit_by_bit(tokenizer, tmp_path, scheme, changes):
    model = make(tokenizer, scheme, **changes)
    save_model(tmp_path / "m", model, tokenizer)
    loaded, _ = load_model(tmp_path / "m")
    assert scheme_of(loaded) == scheme and loaded.config == model.config
    one, other = model.state_dict(), loaded.state_dict()
    assert one.keys() == other.keys()
    assert all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


def test_the_file_and_its_config_say_what_the_format_promises(packed):
    folder, scheme = packed
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["quantization"]) == ("inkstone", {"scheme": scheme, "group": SCHEMES[scheme].group})
    tensors = load_file(folder / "model.safetensors")
    assert tensors[CODES].dtype == SCHEMES[scheme].stored_dtype and tensors[SCALES].dtype == SCHEMES[scheme].scale_dtype
    assert tensors["final_norm.weight"].dtype == torch.float32
    assert "embed.weight_scale" in tensors and not any("head" in name for name in tensors)


@pytest.mark.parametrize("scheme", NAMES)
def test_packing_at_loading_gives_what_packing_and_saving_gives(tokenizer, tmp_path, scheme):
    save_model(tmp_path / "plain", make(tokenizer), tokenizer)
    save_model(tmp_path / "packed", make(tokenizer, scheme), tokenizer)
    one, _ = load_model(tmp_path / "plain", scheme=scheme)
    other, _ = load_model(tmp_path / "packed", scheme=scheme)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("stored", [None, "int4"])
def test_another_dtype_is_for_the_rest_of_the_model(tokenizer, tmp_path, stored):
    save_model(tmp_path / "m", make(tokenizer, stored, preset="gpt"), tokenizer)
    model, _ = load_model(tmp_path / "m", dtype=torch.bfloat16, scheme="int4")
    assert model.compute_dtype == torch.bfloat16 and {p.dtype for p in model.parameters()} == {torch.bfloat16}
    exact, _ = load_model(tmp_path / "m", scheme="int4")
    for (name, one), (_, other) in zip(packed_weights(model), packed_weights(exact), strict=True):
        assert one.scale.dtype == other.scale.dtype, name
        assert torch.equal(one.weight, other.weight) and torch.equal(one.scale, other.scale)


def test_a_run_with_a_packed_best_falls_back_from_a_damaged_one(tokenizer, tmp_path, capsys):
    for name, scheme in (("best", "int4"), ("final", "int8")):
        save_model(tmp_path / name, make(tokenizer, scheme), tokenizer)
    edit_config(tmp_path / "best", quantization={"scheme": "int4", "group": 64})
    assert scheme_of(load_model(tmp_path)[0]) == "int8"
    assert "falling back from best" in capsys.readouterr().err


def test_another_scheme_than_the_stored_one_is_refused(packed):
    folder, scheme = packed
    other = next(name for name in NAMES if name != scheme)
    with pytest.raises(ConfigError, match=rf"packed already \({scheme}\)"):
        load_model(folder, scheme=other)


def test_who_cannot_use_packed_weights_is_told_so(packed):
    folder, scheme = packed
    for refused in (lambda: read_model(folder), lambda: load_model(folder, packed=False)):
        with pytest.raises(CheckpointError, match=rf"packed \({scheme}\).* not trained, converted or exported.*made from"):
            refused()
    assert read_model(folder, packed=True).scheme == scheme


def test_scales_that_are_no_numbers_are_not_written(tokenizer, tmp_path):
    model = make(tokenizer, "int8")
    model.blocks[1].attn.out.weight_scale[2] = torch.nan
    with pytest.raises(DataError, match=r"blocks\.1\.attn\.out\.weight_scale"):
        save_model(tmp_path / "m", model, tokenizer)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"scheme": "int3", "group": 0}, "quantization.scheme"),
        ({"scheme": "int4", "group": 64}, "group 32, found 64"),
        ({"scheme": "int8", "group": 32}, "group 0, found 32"),
        ({"scheme": "int4"}, "quantization.group"),
        ({"scheme": "int4", "group": 32, "bits": 4}, "quantization.bits"),
        ({"scheme": ["int4"], "group": 32}, "quantization.scheme"),
        ([], "quantization"),
        (None, "quantization"),
        ("int4", "quantization"),
    ],
)
def test_a_section_that_we_do_not_write_is_refused(packed, section, words):
    folder, _ = packed
    edit_config(folder, quantization=section)
    with pytest.raises(CheckpointError, match=f"config.json: .*{words}"):
        load_model(folder)


def test_a_section_that_does_not_fit_the_tensors_is_refused(packed):
    folder, scheme = packed
    other = next(name for name in NAMES if name != scheme)
    edit_config(folder, quantization={"scheme": other, "group": SCHEMES[other].group})
    with pytest.raises(CheckpointError, match=r"embed\.weight"):
        load_model(folder)
    edit_config(folder, quantization=...)
    with pytest.raises(CheckpointError, match="must be floating-point"):
        load_model(folder)


def _drop_scale(tensors):
    del tensors[SCALES]


def _turn_scale(tensors):
    tensors[SCALES] = tensors[SCALES].reshape(1, -1)


def _cut_codes(tensors):
    tensors[CODES] = tensors[CODES][:, :8].contiguous()


def _float_codes(tensors):
    tensors[CODES] = tensors[CODES].float()


def _other_scale(tensors):
    tensors[SCALES] = tensors[SCALES].half()


def _infinite_scale(tensors):
    tensors[SCALES].view(-1)[1] = torch.inf


def _no_number_scale(tensors):
    tensors[SCALES].view(-1)[0] = torch.nan


def _extra(tensors):
    tensors["final_norm.weight_scale"] = torch.ones(32)


def _integer_norm(tensors):
    tensors["final_norm.weight"] = torch.ones(32, dtype=torch.int8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop_scale, rf"{SCALES}: missing"),
        (_turn_scale, rf"{SCALES}: expected"),
        (_cut_codes, rf"{CODES}: expected \[32, (32|16)\], found \[32, 8\]"),
        (_float_codes, rf"{CODES} \(F32 instead of (I8|U8)\)"),
        (_other_scale, rf"{SCALES} \(F16 instead of (F32|BF16)\)"),
        (_infinite_scale, rf"NaN or infinite.*{SCALES} \(1 element\)"),
        (_no_number_scale, rf"NaN or infinite.*{SCALES} \(1 element\)"),
        (_extra, r"final_norm\.weight_scale: not a tensor of the model"),
        (_integer_norm, r"must be floating-point.*final_norm\.weight \(I8\)"),
    ],
)
def test_tensors_that_are_not_those_of_the_scheme_are_refused(packed, change, words):
    folder, _ = packed
    edit_tensors(folder, change)
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


def test_a_code_outside_of_int8s_range_is_refused(tokenizer, tmp_path):
    model = make(tokenizer, "int8")
    model.blocks[1].attn.out.weight[0, 0] = -128
    save_model(tmp_path / "m", model, tokenizer)
    with pytest.raises(CheckpointError, match=rf"{CODES} holds the code -128; int8 has -127 to 127"):
        load_model(tmp_path / "m")


def test_a_flipped_bit_in_packed_weights_is_found_by_the_manifest(tokenizer, tmp_path):
    save_model(tmp_path / "m", make(tokenizer, "int4"), tokenizer)
    path = tmp_path / "m" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_a_folder_of_another_program_never_carries_our_packing(tokenizer, tmp_path, key):
    save_model(tmp_path / "m", make(tokenizer), tokenizer)
    (tmp_path / "m" / MANIFEST_NAME).unlink()
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model_type"] == "qwen3"
    edit_config(tmp_path / "m", **{key: {"scheme": "int8", "group": 0}})
    with pytest.raises(CheckpointError, match=f"'{key}'.*export plain weights"):
        load_model(tmp_path / "m")
