"""GGUF files: what the gguf package reads back is what we have, and what a file cannot say is refused. llama.cpp's word: tests/reference."""

import builtins
import errno

import numpy as np
import pytest
import torch

from inkstone.base.errors import ConfigError, DataError, ResourceError
from inkstone.checkpoint.gguf import GGUF_TYPES, stored_type, write_gguf
from inkstone.checkpoint.gguf_architectures import GGUF_ARCHITECTURES, find_gguf_architecture
from inkstone.checkpoint.gguf_tokenizer import CONTROL, NORMAL, UNUSED, USER_DEFINED, tokenizer_metadata
from inkstone.checkpoint.huggingface import native_shapes
from inkstone.checkpoint.model_folder import StoredModel
from inkstone.nn.config import PRESETS, ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.pretokenizers import PATTERNS, pre_tokenizer_document
from inkstone.text.tokenizer import Tokenizer, build_char, train_bpe

gguf = pytest.importorskip("gguf")
torch.set_num_threads(1)
GPT = {"preset": "gpt", "num_layers": 2, "num_heads": 2, "width": 32, "context": 16}
MODERN = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_width": 8, "width": 32, "ffn_width": 64, "context": 16}
CONFIGS = {
    "gpt": GPT,
    "gpt untied": GPT | {"tie_embeddings": False},
    "modern": MODERN,
    "modern untied": MODERN | {"tie_embeddings": False},
}
HALF_STEPS = {"F32": 0.0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 0.5 / 127, "Q4_0": 1 / 8}  # of the largest weight of a block


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the ink is ground on the stone 砚台磨墨"] * 2, 280)


def make(tokenizer, **changes):
    config = ModelConfig(vocab_size=tokenizer.vocab_size + 5, **((GPT if "preset" in changes else MODERN) | changes))
    tensors = {name: tensor.detach() for name, tensor in Transformer(config, seed=3).state_dict().items()}
    return StoredModel(None, config, tensors, tokenizer)


def read(path):
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return values, {tensor.name: tensor for tensor in reader.tensors}


def number_of(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape([int(size) for size in reversed(tensor.shape)])


@pytest.mark.parametrize("name", GGUF_ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_rules_cover_every_tensor_once_with_names_that_the_package_knows(name, tied):
    config = ModelConfig(vocab_size=300, tie_embeddings=tied, **(GPT if name == "gpt2" else MODERN))
    rules = list(GGUF_ARCHITECTURES[name].rules(config))
    assert sorted(rule.ours for rule in rules) == sorted(native_shapes(config))
    theirs = [part for rule in rules for part in rule.theirs]
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    known = [gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[architecture]]
    known = {one.format(bid=layer) for one in known for layer in range(config.num_layers)}
    assert len(theirs) == len(set(theirs)) and {part.rpartition(".")[0] for part in theirs} <= known


@pytest.mark.parametrize("type_name", GGUF_TYPES)
@pytest.mark.parametrize("row", CONFIGS)
def test_what_is_read_back_is_what_was_written_within_half_a_step_of_the_type(tokenizer, tmp_path, row, type_name):
    stored = make(tokenizer, **CONFIGS[row])
    count = write_gguf(tmp_path / "m.gguf", stored, type_name=type_name, name="m")
    _, tensors = read(tmp_path / "m.gguf")
    assert len(tensors) == count
    for rule in find_gguf_architecture(stored.config).rules(stored.config):
        for name, tensor in rule.export(stored.tensors[rule.ours]).items():
            ours, theirs = tensor.numpy(), number_of(tensors[name])
            kind = tensors[name].tensor_type.name
            block = np.abs(ours).reshape(-1, 32 if kind.startswith("Q") else 1).max(1, keepdims=True)
            slack = 2**-25 if kind == "F16" else 2e-3 * block  # F16 has a smallest number; the scale of a block is F16 itself
            assert theirs.shape == ours.shape and kind in ("F32", GGUF_TYPES[type_name].matrix, GGUF_TYPES[type_name].head)
            assert (np.abs(theirs - ours).reshape(block.shape[0], -1) <= HALF_STEPS[kind] * block + slack * (kind != "F32")).all()


def test_vectors_and_positions_stay_float32_and_the_head_keeps_eight_bits(tokenizer, tmp_path):
    write_gguf(tmp_path / "m.gguf", make(tokenizer, **GPT), type_name="q4_0", name="m")
    kinds = {name: tensor.tensor_type.name for name, tensor in read(tmp_path / "m.gguf")[1].items()}
    assert kinds["position_embd.weight"] == kinds["blk.0.attn_norm.weight"] == kinds["blk.1.ffn_up.bias"] == "F32"
    assert kinds["token_embd.weight"] == "Q8_0" and kinds["blk.1.ffn_up.weight"] == "Q4_0" and "output.weight" not in kinds
    write_gguf(tmp_path / "u.gguf", make(tokenizer, tie_embeddings=False), type_name="q4_0", name="m")
    kinds = {name: tensor.tensor_type.name for name, tensor in read(tmp_path / "u.gguf")[1].items()}
    assert kinds["token_embd.weight"] == "Q4_0" and kinds["output.weight"] == "Q8_0"


@pytest.mark.parametrize("type_name", ["q8_0", "q4_0"])
def test_rows_that_are_no_multiple_of_32_stay_float16(tokenizer, tmp_path, type_name):
    write_gguf(tmp_path / "m.gguf", make(tokenizer, width=48, ffn_width=64), type_name=type_name, name="m")
    kinds = {name: tensor.tensor_type.name for name, tensor in read(tmp_path / "m.gguf")[1].items()}
    assert kinds["blk.0.ffn_down.weight"] == type_name.upper()  # its rows have 64
    assert kinds["blk.0.ffn_up.weight"] == kinds["token_embd.weight"] == "F16" and kinds["output_norm.weight"] == "F32"


def test_metadata_say_what_the_model_is(tokenizer, tmp_path):
    write_gguf(tmp_path / "m.gguf", make(tokenizer, rope_base=500.0, norm_eps=1e-4), type_name="q8_0", name="My Model")
    values, _ = read(tmp_path / "m.gguf")
    expected = {
        "general.architecture": "qwen3", "general.name": "My Model", "general.file_type": 7, "general.quantization_version": 2,
        "qwen3.context_length": 16, "qwen3.embedding_length": 32, "qwen3.block_count": 2, "qwen3.feed_forward_length": 64,
        "qwen3.attention.head_count": 4, "qwen3.attention.head_count_kv": 2, "qwen3.attention.key_length": 8,
        "qwen3.attention.value_length": 8, "qwen3.rope.freq_base": 500.0, "qwen3.vocab_size": tokenizer.vocab_size + 5,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "deepseek-v3", "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 1, "tokenizer.ggml.eot_token_id": 3, "tokenizer.ggml.add_bos_token": False,
    }  # fmt: skip
    assert {key: values[key] for key in expected} == expected
    assert values["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-4)
    assert "<|im_start|>" in values["tokenizer.chat_template"]
    write_gguf(tmp_path / "g.gguf", make(tokenizer, **GPT, norm_eps=1e-3), type_name="f32", name="g")
    values, _ = read(tmp_path / "g.gguf")
    assert values["general.architecture"] == "gpt2" and values["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-3)
    assert "general.quantization_version" not in values and "gpt2.attention.head_count_kv" not in values


def test_every_id_of_the_model_has_a_token_of_its_kind(tokenizer):
    document = {**tokenizer.document, "added_tokens": [dict(entry) for entry in tokenizer.document["added_tokens"]]}
    plain = {"id": tokenizer.vocab_size + 1, "content": "Inkstone 砚", "special": False, "lstrip": False, "rstrip": False}
    document["added_tokens"].append(plain | {"single_word": False, "normalized": False})
    made = tokenizer_metadata(Tokenizer(document), tokenizer.vocab_size + 4)
    tokens, kinds = made["tokenizer.ggml.tokens"], made["tokenizer.ggml.token_type"]
    size = tokenizer.vocab_size
    assert len(tokens) == len(kinds) == len(set(tokens)) == size + 4
    assert kinds == [CONTROL] * 8 + [NORMAL] * (size - 8) + [UNUSED, USER_DEFINED, UNUSED, UNUSED]
    assert tokens[:2] == ["<|endoftext|>", "<|pad|>"] and tokens[size + 1] == "Inkstone 砚"
    assert made["tokenizer.ggml.merges"] == [" ".join(merge) for merge in tokenizer.document["model"]["merges"]]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("whole_words", [False, True])
def test_each_pre_tokenizer_has_a_name_or_is_refused(tokenizer, name, whole_words):
    model = tokenizer.document["model"] | {"ignore_merges": whole_words}
    made = Tokenizer({**tokenizer.document, "model": model, "pre_tokenizer": pre_tokenizer_document(name)})
    if whole_words and name != "llama-bpe":
        with pytest.raises(ConfigError, match=r"ignore_merges.*--to hf"):
            tokenizer_metadata(made, made.vocab_size)
    else:
        expected = "dbrx" if name == "llama-bpe" and not whole_words else name
        assert tokenizer_metadata(made, made.vocab_size)["tokenizer.ggml.pre"] == expected


def test_tokenizers_without_a_form_are_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"character tokenizer.*--to hf"):
        tokenizer_metadata(build_char(["abc"]), 10)
    with pytest.raises(ConfigError, match=r"no merges.*--to hf"):
        tokenizer_metadata(train_bpe(["ab"], 264), 264)


def test_composing_tokenizers_export_with_a_warning(tokenizer, capfd):
    made = Tokenizer({**tokenizer.document, "normalizer": {"type": "NFC"}})
    assert tokenizer_metadata(made, made.vocab_size)["tokenizer.ggml.pre"] == "deepseek-v3"
    assert "NFC" in capfd.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_has_its_architecture_or_is_refused(preset):
    config = ModelConfig(preset=preset, vocab_size=100)
    if preset in ("article", "gpt1"):
        with pytest.raises(
            ConfigError, match="attention_gate is True, must be False" if preset == "article" else "as GPT-1 does.*--to hf"
        ):
            find_gguf_architecture(config)
    else:
        assert find_gguf_architecture(config).name == ("qwen3" if preset == "modern" else "gpt2")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"window": 4}, "qwen3 is closest: window is 4, must be 0"),
        (GPT | {"activation": "gelu"}, "gpt2 is closest: activation is 'gelu', must be 'gelu_tanh'"),
        (GPT | {"activation": "relu2"}, "activation is 'relu2'"),
        ({"logit_softcap": 20.0, "value_residual": True}, "value_residual is True.*; logit_softcap is 20.0"),
    ],
)
def test_what_no_architecture_computes_names_the_switches(tokenizer, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        write_gguf(tmp_path / "m.gguf", make(tokenizer, **changes), type_name="f32", name="m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "dtype, expected", [(torch.float32, "f32"), (torch.float16, "f16"), (torch.bfloat16, "bf16"), (torch.float64, "f32")]
)
def test_the_type_that_loses_nothing_is_that_of_the_weights(tokenizer, tmp_path, dtype, expected):
    stored = make(tokenizer)
    tensors = {name: tensor.to(dtype) for name, tensor in stored.tensors.items()}
    stored = StoredModel(None, stored.config, tensors, tokenizer)
    assert stored_type(stored) == expected
    write_gguf(tmp_path / "m.gguf", stored, type_name=expected, name="m")
    theirs = number_of(read(tmp_path / "m.gguf")[1]["token_embd.weight"])
    assert np.array_equal(theirs, tensors["embed.weight"].float().numpy())


@pytest.mark.parametrize("type_name, weight", [("f16", 70_000.0), ("q4_0", 1e6), ("q8_0", 1e7)])
def test_a_weight_too_large_for_the_type_leaves_nothing_behind(tokenizer, tmp_path, type_name, weight):
    stored = make(tokenizer, tie_embeddings=False)
    stored.tensors["blocks.1.mlp.down.weight"][0, 0] = weight
    with pytest.raises(DataError, match=r"blk.1.ffn_down.weight has weights up to .*choose bf16 or f32"):
        write_gguf(tmp_path / "m.gguf", stored, type_name=type_name, name="m")
    assert list(tmp_path.iterdir()) == []
    write_gguf(tmp_path / "m.gguf", stored, type_name="bf16", name="m")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError("40000 requested and 12 written")])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(tokenizer, tmp_path, monkeypatch, error):
    (tmp_path / "m.gguf").write_bytes(b"GGUF old")
    count = iter(range(100))

    def write_tensor_data(self, tensor, *args):
        if next(count) == 3:
            raise error

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", write_tensor_data)
    with pytest.raises(ResourceError, match=r"m.gguf"):
        write_gguf(tmp_path / "m.gguf", make(tokenizer), type_name="f32", name="m")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"] and (tmp_path / "m.gguf").read_bytes() == b"GGUF old"


def test_a_missing_package_names_the_extra(tokenizer, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "gguf":
            raise ImportError("No module named 'gguf'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'inkstone\[export\]'"):
        write_gguf(tmp_path / "m.gguf", make(tokenizer), type_name="f32", name="m")
