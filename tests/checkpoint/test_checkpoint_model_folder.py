"""Model folders: what is saved loads, from a run, a checkpoint or a folder; whatever is wrong is refused before a weight is used."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inkstone.base.errors import CheckpointError, ConfigError, DataError, ResourceError
from inkstone.base.files import MANIFEST_NAME
from inkstone.checkpoint import tensors as tensors_module
from inkstone.checkpoint import weights
from inkstone.checkpoint.model_folder import checkpoint_files, load_model, save_model
from inkstone.checkpoint.store import CheckpointStore
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import build_char, train_bpe

torch.set_num_threads(1)
SMALL = {"num_layers": 2, "num_heads": 2, "width": 16, "context": 24}
WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the ink is ground on the stone 砚台"], 270)


def make(tokenizer, seed=0, **changes):
    return Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **SMALL | changes), seed=seed)


@pytest.fixture
def folder(tokenizer, tmp_path):
    """A saved model without its manifest: a folder from elsewhere."""
    save_model(tmp_path / "m", make(tokenizer), tokenizer)
    (tmp_path / "m" / MANIFEST_NAME).unlink()
    return tmp_path / "m"


def same(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def edit(path, **changes):
    values = json.loads(path.read_text())
    values = {key: value for key, value in (values | changes).items() if value is not ...}
    path.write_text(json.dumps(values))


def save_checkpoint(run, step, model, tokenizer):
    files = checkpoint_files(model.config, tokenizer)
    return CheckpointStore(run).save(step, {"model": model.state_dict(), "optimizer": {"m": torch.ones(3)}}, {}, extra_files=files)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"preset": "gpt"},
        {"preset": "gpt1"},
        {"preset": "article"},
        {"attention_gate": True, "value_residual": True, "ngram_buckets": 7},
        {"depth": 1, "num_layers": 1, "width": 64, "num_heads": 1},
    ],
    ids=["modern", "gpt", "gpt1", "article", "native", "depth"],
)
def test_a_saved_model_loads_bit_for_bit(tokenizer, tmp_path, changes):
    model = make(tokenizer, **changes)
    save_model(tmp_path / "m", model, tokenizer, {"temperature": 0.5})
    loaded, loaded_tokenizer = load_model(tmp_path / "m")
    assert same(model, loaded) and not loaded.training
    assert loaded_tokenizer.fingerprint == tokenizer.fingerprint
    assert json.loads((tmp_path / "m" / "generation_config.json").read_text())["temperature"] == 0.5
    assert all(weight.requires_grad for weight in loaded.parameters())
    tokens = torch.tensor([tokenizer.encode("the ink stone")])
    torch.testing.assert_close(model.eval().logits(model(tokens)), loaded.logits(loaded(tokens)), atol=0, rtol=0)


def test_loading_as_bf16_casts_parameters_and_arithmetic(tokenizer, folder):
    loaded, _ = load_model(folder, dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16} and loaded.compute_dtype == torch.bfloat16
    assert torch.isfinite(loaded.logits(loaded(torch.tensor([[1, 2, 3]])))).all()


def test_a_loaded_model_outlives_its_files(tokenizer, folder):
    loaded, _ = load_model(folder)
    (folder / WEIGHTS).write_bytes(b"")
    assert same(loaded, make(tokenizer))


def test_a_run_prefers_best_then_final_then_the_newest_checkpoint(tokenizer, tmp_path, capfd):
    models = [make(tokenizer, seed) for seed in range(4)]
    save_checkpoint(tmp_path, 1, models[0], tokenizer)
    newest = save_checkpoint(tmp_path, 2, models[1], tokenizer)
    assert same(load_model(tmp_path)[0], models[1]) and same(load_model(newest)[0], models[1])
    save_model(tmp_path / "final", models[2], tokenizer)
    assert same(load_model(tmp_path)[0], models[2])
    save_model(tmp_path / "best", models[3], tokenizer)
    assert same(load_model(tmp_path)[0], models[3])
    for bad, expected in ((tmp_path / "best", 2), (tmp_path / "final", 1), (newest, 0)):
        capfd.readouterr()
        data = bytearray((bad / WEIGHTS).read_bytes())
        data[-1] ^= 1
        (bad / WEIGHTS).write_bytes(data)
        assert same(load_model(tmp_path)[0], models[expected])
        err = capfd.readouterr().err
        assert "MODEL SKIPPED" in err and str(bad / WEIGHTS) in err and "SHA-256" in err


def test_a_damaged_optimizer_does_not_matter_to_a_reader_of_the_model(tokenizer, tmp_path):
    model = make(tokenizer)
    step = save_checkpoint(tmp_path, 1, model, tokenizer)
    (step / "optimizer.safetensors").unlink()
    assert same(load_model(step)[0], model)


def test_editing_the_card_or_the_sampling_defaults_is_allowed(tokenizer, tmp_path):
    save_model(tmp_path / "m", make(tokenizer), tokenizer)
    (tmp_path / "m" / "README.md").write_text("# mine")
    edit(tmp_path / "m" / "generation_config.json", temperature=1.5)
    load_model(tmp_path / "m")
    edit(tmp_path / "m" / CONFIG, rms_norm_eps=0.5)
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        load_model(tmp_path / "m")


def test_a_checkpoint_without_manifest_is_refused(tokenizer, tmp_path):
    step = save_checkpoint(tmp_path, 1, make(tokenizer), tokenizer)
    (step / MANIFEST_NAME).unlink()
    for path in (step, tmp_path):
        with pytest.raises(CheckpointError, match="never completed"):
            load_model(path)


def test_a_nonfinite_model_is_not_written(tokenizer, tmp_path):
    model = make(tokenizer)
    save_model(tmp_path / "m", model, tokenizer)
    with torch.no_grad():
        model.final_norm.weight[3] = float("nan")
    with pytest.raises(DataError, match=r"final_norm.weight \(1 element\)"):
        save_model(tmp_path / "m", model, tokenizer)
    assert same(load_model(tmp_path / "m")[0], make(tokenizer))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_tokenizer_that_is_too_large_is_refused(tokenizer, folder, tmp_path):
    small = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size - 1, **SMALL))
    with pytest.raises(ConfigError, match=r"270 tokens.*269"):
        save_model(tmp_path / "x", small, tokenizer)
    train_bpe(["a completely different text, longer than the other one" * 3], 290).save(folder)
    with pytest.raises(CheckpointError, match="another model"):
        load_model(folder)


def test_a_character_tokenizer_is_kept(tmp_path):
    tokenizer = build_char(["abc 砚台"])
    save_model(tmp_path / "m", make(tokenizer), tokenizer)
    assert load_model(tmp_path / "m")[1].kind == "char"


# K02, K03, K04, K10: files that are not what they say


def header_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BAD_FILES = {
    "empty": b"",
    "seven bytes": b"1234567",
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "header of 200 MB": struct.pack("<Q", 200 * 2**20) + b"{}",
    "header is no JSON": header_file(b"{hello}"),
    "header is a list": header_file(b"[1, 2]"),
    "deep nesting": header_file(b"[" * 200_000),
    "overlap": header_file({"a": F32, "b": F32}, bytes(4)),
    "hole": header_file({"a": F32, "b": F32 | {"data_offsets": [8, 12]}}, bytes(12)),
    "shape overflow": header_file({"a": F32 | {"shape": [2**62, 2**62]}}, bytes(4)),
    "negative shape": header_file({"a": F32 | {"shape": [-1]}}, bytes(4)),
    "unknown dtype": header_file({"a": F32 | {"dtype": "F99"}}, bytes(4)),
    "metadata is no text": header_file({"__metadata__": {"a": 1}, "a": F32}, bytes(4)),
    "no shape": header_file({"a": {"dtype": "F32"}}),
    "the same name twice": header_file(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "a pickle": pickle.dumps({"a": [1, 2, 3] * 50}),
    "a zip": b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_broken_weight_files_are_refused(folder, name):
    (folder / WEIGHTS).write_bytes(BAD_FILES[name])
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}|the tensors are not those"):
        load_model(folder)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d[: len(d) // 2], lambda d: d + b"x"])
def test_truncated_and_extended_weights_are_refused(folder, change):
    (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes()))
    with pytest.raises(CheckpointError, match="not a valid safetensors"):
        load_model(folder)


def test_too_many_tensors_are_refused(folder, monkeypatch):
    monkeypatch.setattr(tensors_module, "MAX_TENSORS", 5)
    with pytest.raises(CheckpointError, match="at most 5"):
        load_model(folder)


# K01, K03, K17: several files and an index


@pytest.fixture
def sharded(folder):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_several_files_load_like_one(tokenizer, sharded):
    assert same(load_model(sharded)[0], make(tokenizer))


def test_missing_shards_are_all_listed(sharded):
    (sharded / "model-1.safetensors").unlink()
    (sharded / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-1.safetensors is missing\n.*model-2.safetensors is missing"):
        load_model(sharded)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/x.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "a\\b.safetensors",
        "a\0.safetensors",
        "..",
        "",
        "model.bin",
        5,
        None,
        ".hidden.safetensors",
    ],
)
def test_shard_names_that_leave_the_folder_are_refused(sharded, name):
    index = json.loads((sharded / INDEX).read_text())
    first = next(iter(index["weight_map"]))
    index["weight_map"][first] = name
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="nothing outside the folder is read"):
        load_model(sharded)


@pytest.mark.parametrize("name", ["model-1.safetensors", CONFIG, WEIGHTS])
def test_links_out_of_the_folder_are_refused(sharded, tmp_path, name):
    target = tmp_path / "outside"
    target.write_bytes((sharded / name).read_bytes() if (sharded / name).exists() else b"x")
    (sharded / name).unlink(missing_ok=True)
    (sharded / name).symlink_to(target)
    with pytest.raises(CheckpointError, match="link that leads out"):
        load_model(sharded)


def test_a_link_loop_is_refused(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(WEIGHTS)
    with pytest.raises(CheckpointError):
        load_model(folder)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}', '{"weight_map": 5}'])
def test_a_broken_index_is_refused(sharded, index):
    (sharded / INDEX).write_text(index)
    with pytest.raises(CheckpointError, match=r"index.json"):
        load_model(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded):
    one = load_file(sharded / "model-1.safetensors")
    two = load_file(sharded / "model-2.safetensors")
    save_file(two | dict([next(iter(one.items()))]), sharded / "model-2.safetensors")
    with pytest.raises(CheckpointError, match=r"0 tensors are missing .*1 are not listed"):
        load_model(sharded)


# K05, K06, K07: weights that are not the model's


def rewrite(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_nonfinite_weights_are_refused_with_names_and_counts(folder):
    def change(tensors):
        tensors["model.norm.weight"][:2] = float("inf")
        tensors["model.embed_tokens.weight"][0, 0] = float("nan")

    rewrite(folder, change)
    with pytest.raises(
        CheckpointError, match=r"NaN or infinite(?=.*embed_tokens.weight \(1 element\))(?=.*norm.weight \(2 elements\))"
    ):
        load_model(folder)


def test_all_kinds_of_mismatch_are_reported_together(folder):
    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["extra.weight"] = torch.ones(2)
        gate = "model.layers.0.mlp.gate_proj.weight"
        tensors[gate] = tensors[gate].t().contiguous()

    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "1 missing, 1 unexpected, 1 of another shape" in message
    assert "gate_proj.weight: expected [64, 16], found [16, 64] — transposed?" in message
    assert "model.norm.weight: missing, expected [16]" in message and "extra.weight: not a tensor of the model" in message


def test_only_the_first_ten_problems_are_listed(folder):
    rewrite(folder, lambda tensors: tensors.update({f"x{i}": torch.ones(1) for i in range(50)}))
    with pytest.raises(CheckpointError, match="50 unexpected") as caught:
        load_model(folder)
    assert len(str(caught.value).splitlines()) == 11


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integer_weights_are_refused(folder, dtype):
    rewrite(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(16, dtype=dtype)}))
    with pytest.raises(CheckpointError, match=r"must be floating-point.*model.norm.weight \("):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_converted(folder, capfd, dtype):
    rewrite(folder, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    loaded, _ = load_model(folder)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert ("float64" in capfd.readouterr().err) == (dtype == torch.float64)


# K08: configs


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "mamba"}, "unknown model_type 'mamba'.*supported: gpt2"),
        ({"model_type": "qwen"}, "did you mean 'qwen3'"),
        ({"model_type": ...}, "unknown model_type"),
        ({"model_type": ["qwen3"]}, "unknown model_type"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "only Qwen3ForCausalLM"),
        ({"auto_map": {"AutoModel": "evil.py"}}, "auto_map.*not supported"),
        ({"_attn_implementation_internal": "evil/kernel"}, "_attn_implementation_internal"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_hidden_layers": 10**9}, "num_layers.*1024.*1000000000"),
        ({"num_hidden_layers": 0}, "num_layers"),
        ({"hidden_size": -16}, "width"),
        ({"hidden_size": 2**40}, "width"),
        ({"hidden_size": "big"}, "width"),
        ({"hidden_size": ...}, "no 'hidden_size'"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"vocab_size": 0}, "vocab_size must be a positive number"),
        ({"vocab_size": "many"}, "vocab_size must be a positive number"),
        ({"num_key_value_heads": 3}, "num_kv_heads 3"),
        ({"head_dim": 7}, "head_width 7 is odd"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "rope_parameters"),
        ({"rope_parameters": 7}, "rope_parameters"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        (
            {"use_sliding_window": True, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]},
            "every n-th layer",
        ),
        ({"use_sliding_window": True, "layer_types": None}, "layer_types"),
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types"),
        ({"layer_types": 5}, "config.json"),
        ({"rms_norm_eps": 0}, "norm_eps"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"tie_word_embeddings": False}, "lm_head.weight: missing"),
    ],
)
def test_configs_of_other_models_are_refused_before_allocation(folder, changes, message):
    edit(folder / CONFIG, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "preset, changes, message",
    [
        ("gpt", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt", {"activation_function": "swish"}, "activation_function is 'swish'"),
        ("gpt", {"activation_function": ["gelu"]}, "wrong type|activation_function"),
        ("gpt", {"n_inner": 7}, "of another shape"),
        ("gpt", {"n_head": 3}, "not a multiple"),
        ("gpt1", {"afn": "relu"}, "afn is 'relu'"),
        ("gpt1", {"n_layer": 1025}, "num_layers"),
    ],
)
def test_gpt_configs_of_other_models_are_refused(tokenizer, tmp_path, preset, changes, message):
    save_model(tmp_path / "m", make(tokenizer, preset=preset), tokenizer)
    (tmp_path / "m" / MANIFEST_NAME).unlink()
    edit(tmp_path / "m" / CONFIG, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("model", [..., 5, {"vocab_size": 270, "layers": 3}, {"vocab_size": 270, "num_layers": 10**9}, {}])
def test_native_configs_are_strict(tokenizer, tmp_path, model):
    save_model(tmp_path / "m", make(tokenizer, attention_gate=True), tokenizer)
    (tmp_path / "m" / MANIFEST_NAME).unlink()
    edit(tmp_path / "m" / CONFIG, model=model)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(folder, content):
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config.json"):
        load_model(folder)


def test_old_gpt2_files_load(tokenizer, tmp_path):
    """OpenAI's own file has no prefix, carries the causal masks, and repeats the embedding as the head."""
    model = make(tokenizer, preset="gpt")
    save_model(tmp_path / "m", model, tokenizer)
    (tmp_path / "m" / MANIFEST_NAME).unlink()
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(tmp_path / "m" / WEIGHTS).items()}
    tensors |= {
        "h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "h.1.attn.masked_bias": torch.tensor(-1e4),
        "lm_head.weight": tensors["wte.weight"].clone(),
    }
    save_file(tensors, tmp_path / "m" / WEIGHTS)
    edit(tmp_path / "m" / CONFIG, n_ctx=1024, summary_type="cls_index", task_specific_params={"x": 1}, tie_word_embeddings=...)
    assert same(load_model(tmp_path / "m")[0], model)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "m" / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs"):
        load_model(tmp_path / "m")


# K09, K22: pickle, memory, and folders that are no model


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "lit_model.pth", "last.ckpt"])
def test_pickle_is_never_read(folder, name):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (folder / "executed",))

    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Evil()))
    for path in (folder, folder / name):
        with pytest.raises(CheckpointError, match=f"{name} is in an unsafe format.*convert it to safetensors"):
            load_model(path)
    assert not (folder / "executed").exists()


def test_a_model_larger_than_memory_is_refused_before_reading(folder, monkeypatch):
    monkeypatch.setattr(weights, "available_memory", lambda: 100)
    with pytest.raises(ResourceError, match="100 B of memory are free"):
        load_model(folder)


def test_what_is_no_model_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in (("file", "found a file"), ("missing", "found nothing"), ("empty", "expected config.json")):
        with pytest.raises(CheckpointError, match=message):
            load_model(tmp_path / name)


@pytest.mark.parametrize("missing, message", [(WEIGHTS, "no weights"), ("tokenizer.json", "tokenizer.json is missing")])
def test_missing_files_are_named(folder, missing, message):
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_a_tokenizer_with_code_is_refused(folder):
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": "evil.py"})
    with pytest.raises(CheckpointError, match="auto_map"):
        load_model(folder)
