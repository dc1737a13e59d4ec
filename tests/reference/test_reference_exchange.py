"""transformers loads what we export, and what transformers saves becomes a run here: same logits, same ids, the same bits."""

import json

import pytest
import torch
from safetensors.torch import load_file

from inkstone.base.errors import CheckpointError
from inkstone.checkpoint.exchange import export_huggingface, import_folder
from inkstone.checkpoint.model_folder import load_model, save_model
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.chat import render_chat
from inkstone.text.tokenizer import train_bpe

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
TEXTS = [
    "The ink is ground on the stone. 砚台磨墨，墨写字。\n",
    "def f(x):\n    return x ** 2  # 12,345\n",
    "👩‍👩‍👧 混合 mixed\r\n\t 文本 e\u0301 don't",
    "",
    "<|im_end|> a\x00b \u3000",
]
CHAT = [
    {"role": "system", "content": "Be brief. 简短。"}, {"role": "user", "content": "你好 ink?"}, {"role": "assistant", "content": "墨。It's 12!"},
    {"role": "user", "content": "Why?\n\nSay 3 words 🖋️"},
]  # fmt: skip
GPT = {"num_layers": 2, "num_heads": 2, "width": 16, "context": 24}
OURS = {
    "gpt": GPT | {"preset": "gpt"},
    "gpt untied": GPT | {"preset": "gpt", "tie_embeddings": False},
    "gpt1": GPT | {"preset": "gpt1"},
    "modern": {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_width": 8, "width": 24, "context": 24},
    "modern untied": {"num_layers": 1, "num_heads": 2, "width": 16, "context": 24, "tie_embeddings": False},
}
SMALL_GPT = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 24, "bos_token_id": 0, "eos_token_id": 0}
SMALL_QWEN = {
    "num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 24,
}  # fmt: skip
THEIRS = {
    "gpt2": ("gpt2", SMALL_GPT),
    "gpt2 untied": ("gpt2", SMALL_GPT | {"tie_word_embeddings": False, "n_inner": 20}),
    "gpt1": ("openai-gpt", SMALL_GPT),
    "qwen3": ("qwen3", SMALL_QWEN),
    "qwen3 tied": ("qwen3", SMALL_QWEN | {"tie_word_embeddings": True, "num_key_value_heads": 4}),
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS * 2, 320)


def loud(model, seed=7):
    """Give a model weights with which logits are far from zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_norm = "norm" in name or "ln_" in name
            weight.normal_(1.0 if is_norm and name.endswith("weight") else 0.0, 0.2, generator=generator)
    return model.eval()


def our_logits(path, tokens):
    model, _ = load_model(path)
    with torch.no_grad():
        return model.logits(model(tokens))


def their_logits(path, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        return model(tokens).logits


def some_tokens(size):
    return torch.randint(size, (2, 24), generator=torch.Generator().manual_seed(1))


def read_all(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def same_bits(one, other):
    assert one.keys() == other.keys()
    return all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("shard_bytes", [None, 4096])
@pytest.mark.parametrize("row", OURS)
def test_transformers_computes_the_same_logits_from_an_export(tokenizer, tmp_path, row, shard_bytes):
    model = loud(Transformer(ModelConfig(vocab_size=tokenizer.vocab_size + 3, **OURS[row])))
    save_model(tmp_path / "run" / "final", model, tokenizer)
    figures = export_huggingface(tmp_path / "run", tmp_path / "hf", max_shard_bytes=shard_bytes)
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == (figures["files"] > 1) == (shard_bytes is not None)
    tokens = some_tokens(model.config.vocab_size)
    theirs = their_logits(tmp_path / "hf", tokens)
    assert theirs.std() > 0.1
    torch.testing.assert_close(theirs, our_logits(tmp_path / "run", tokens), atol=1e-4, rtol=0)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").state_dict()
    exported = read_all(tmp_path / "hf")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in exported.items())
    assert same_bits(exported, read_all(tmp_path / "run" / "final"))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_an_export_in_half_precision_is_that_of_transformers(tokenizer, tmp_path, dtype):
    model = loud(Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **OURS["modern"])))
    save_model(tmp_path / "m", model, tokenizer)
    export_huggingface(tmp_path / "m", tmp_path / "hf", dtype=dtype)
    halved = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "m", dtype={"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    )
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype="auto")
    assert same_bits(loaded.state_dict(), halved.state_dict())


def test_auto_tokenizer_gives_our_ids_and_our_chat(tokenizer, tmp_path):
    save_model(tmp_path / "m", Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **OURS["gpt"])), tokenizer)
    export_huggingface(tmp_path / "m", tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False, split_special_tokens=True) == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    for prompt in (True, False):
        made = theirs.apply_chat_template(CHAT, add_generation_prompt=prompt, return_dict=False)
        assert made == render_chat(CHAT, tokenizer, add_generation_prompt=prompt)[0]
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "hf")
    assert (
        generation.eos_token_id == [tokenizer.eos_id, tokenizer.special["<|im_end|>"]]
        and generation.pad_token_id == tokenizer.pad_id
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shard_size", ["1GB", "5KB"])
@pytest.mark.parametrize("row", THEIRS)
def test_what_transformers_saves_comes_in_and_goes_out_bit_for_bit(tokenizer, tmp_path, row, shard_size, dtype):
    kind, values = THEIRS[row]
    config = transformers.AutoConfig.for_model(kind, vocab_size=tokenizer.vocab_size + 3, **values)
    torch.manual_seed(3)
    theirs = loud(transformers.AutoModelForCausalLM.from_config(config)).to(dtype)
    theirs.save_pretrained(tmp_path / "hf", max_shard_size=shard_size)
    tokenizer.save(tmp_path / "hf")
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == (shard_size == "5KB")
    figures = import_folder(tmp_path / "hf", tmp_path / "run")
    assert figures["architecture"] == type(theirs).__name__ and figures["dtype"] == str(dtype).removeprefix("torch.")
    assert same_bits(read_all(tmp_path / "run" / "final"), read_all(tmp_path / "hf"))
    tokens = some_tokens(config.vocab_size)
    logits = their_logits(tmp_path / "hf", tokens)
    torch.testing.assert_close(our_logits(tmp_path / "run", tokens), logits, atol=1e-4, rtol=0)
    export_huggingface(tmp_path / "run", tmp_path / "back")
    assert same_bits(read_all(tmp_path / "back"), read_all(tmp_path / "hf"))
    assert torch.equal(their_logits(tmp_path / "back", tokens), logits)


def test_files_of_the_bare_model_come_in_too(tokenizer, tmp_path):
    config = transformers.AutoConfig.for_model("gpt2", vocab_size=tokenizer.vocab_size, **SMALL_GPT)
    theirs = loud(transformers.GPT2LMHeadModel(config))
    theirs.transformer.save_pretrained(tmp_path / "bare")
    values = json.loads((tmp_path / "bare" / "config.json").read_text()) | {"architectures": ["GPT2LMHeadModel"]}
    (tmp_path / "bare" / "config.json").write_text(json.dumps(values))
    tokenizer.save(tmp_path / "bare")
    assert not any(name.startswith("transformer.") for name in read_all(tmp_path / "bare"))
    import_folder(tmp_path / "bare", tmp_path / "run")
    theirs.save_pretrained(tmp_path / "whole")
    tokens = some_tokens(config.vocab_size)
    torch.testing.assert_close(our_logits(tmp_path / "run", tokens), their_logits(tmp_path / "whole", tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "qwen2"])
def test_classes_that_we_do_not_have_are_refused_by_name(tokenizer, tmp_path, kind):
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = transformers.AutoConfig.for_model(kind, vocab_size=tokenizer.vocab_size, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "hf")
    tokenizer.save(tmp_path / "hf")
    with pytest.raises(CheckpointError, match=rf"unknown model_type '{kind}'.*supported: gpt2, openai-gpt, qwen3"):
        import_folder(tmp_path / "hf", tmp_path / "run")
    assert not (tmp_path / "run").exists()
