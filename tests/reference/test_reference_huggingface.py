"""Our models and Hugging Face's compute the same logits from the same weights, and each reads what the other wrote."""

import json

import pytest
import torch

from inkstone.checkpoint.huggingface import from_huggingface, huggingface_shapes, to_huggingface
from inkstone.checkpoint.model_folder import load_model, save_model
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import train_bpe

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
TEXTS = ["The ink is ground on the stone. 砚台磨墨，墨写字。\n", "a bb ccc 1234 你好"] * 3
GPT = {"num_layers": 2, "num_heads": 2, "width": 16, "context": 24}
MODERN = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_width": 8, "width": 24, "context": 24}
CONFIGS = {
    "gpt": GPT | {"preset": "gpt"},
    "gpt untied": GPT | {"preset": "gpt", "tie_embeddings": False},
    "gpt narrow": GPT | {"preset": "gpt2", "ffn_width": 20, "activation": "gelu", "norm_eps": 1e-3},
    "gpt relu2": GPT | {"preset": "gpt", "activation": "relu2"},
    "gpt1": GPT | {"preset": "gpt1"},
    "gpt1 untied": GPT | {"preset": "gpt1", "tie_embeddings": False},
    "modern": MODERN,
    "modern untied": MODERN | {"tie_embeddings": False, "rope_base": 500.0, "ffn_width": 40},
    "modern all heads": MODERN | {"num_kv_heads": 0, "norm_eps": 1e-4},
    "modern one kv head": MODERN | {"num_kv_heads": 1},
    "modern windows": MODERN | {"num_layers": 4, "window": 5, "full_every": 2},
    "modern all windows": MODERN | {"window": 3},
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 300)


@pytest.fixture(params=CONFIGS)
def model(request, tokenizer):
    config = ModelConfig(vocab_size=tokenizer.vocab_size + 3, **CONFIGS[request.param])
    return random_model(config)


def random_model(config):
    model = Transformer(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=generator)
    return model.eval()


def our_logits(model, tokens):
    with torch.no_grad():
        return model.logits(model(tokens))


def their_logits(model, tokens):
    with torch.no_grad():
        return model(tokens).logits


def tokens_of(config):
    return torch.randint(config.vocab_size, (2, config.context), generator=torch.Generator().manual_seed(1))


def their_model(config_json):
    config = transformers.AutoConfig.for_model(
        config_json["model_type"], **{k: v for k, v in config_json.items() if k != "model_type"}
    )
    return getattr(transformers, config_json["architectures"][0])(config).eval()


def test_exported_names_and_shapes_are_those_of_the_class(model):
    config_json, tensors = to_huggingface(model.config, model.state_dict())
    theirs = {name: tuple(tensor.shape) for name, tensor in their_model(config_json).state_dict().items()}
    if model.config.tie_embeddings:
        del theirs["lm_head.weight"]
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == theirs == huggingface_shapes(model.config)


def test_saved_folder_gives_the_same_logits_in_transformers(model, tokenizer, tmp_path):
    save_model(tmp_path / "m", model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", attn_implementation="eager").eval()
    tokens = tokens_of(model.config)
    ours = our_logits(model, tokens)
    assert ours.std() > 0.1
    torch.testing.assert_close(their_logits(theirs, tokens), ours, atol=1e-4, rtol=0)


def test_folder_of_transformers_loads_here_with_the_same_logits(model, tokenizer, tmp_path):
    config_json, tensors = to_huggingface(model.config, model.state_dict())
    theirs = their_model(config_json)
    theirs.load_state_dict(tensors, strict=False)
    theirs.tie_weights()
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours, _ = load_model(tmp_path)
    tokens = tokens_of(model.config)
    torch.testing.assert_close(our_logits(ours, tokens), their_logits(theirs, tokens), atol=1e-4, rtol=0)


def test_export_then_import_is_the_identity(model, tokenizer, tmp_path):
    config_json, tensors = to_huggingface(model.config, model.state_dict())
    _, state = from_huggingface(json.loads(json.dumps(config_json)), tensors)
    assert {k: v.tolist() for k, v in state.items()} == {k: v.tolist() for k, v in model.state_dict().items()}
    save_model(tmp_path / "m", model, tokenizer)
    loaded, loaded_tokenizer = load_model(tmp_path / "m")
    tokens = tokens_of(model.config)
    assert torch.equal(our_logits(loaded, tokens), our_logits(model, tokens))
    assert loaded_tokenizer.fingerprint == tokenizer.fingerprint
    forgotten = {"preset", "depth", "init", "dropout"}
    assert loaded.config.model_dump(exclude=forgotten) == model.config.model_dump(exclude=forgotten)


def test_auto_tokenizer_reads_the_folder(tokenizer, tmp_path):
    save_model(
        tmp_path / "m", random_model(ModelConfig(vocab_size=tokenizer.vocab_size, **MODERN)), tokenizer, {"temperature": 0.7}
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    for text in [*TEXTS, "混合 mixed 文本\n\n  spaces"]:
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert theirs.eos_token_id == tokenizer.eos_id and theirs.pad_token_id == tokenizer.pad_id
    assert theirs.model_max_length == MODERN["context"]
    chat = theirs.apply_chat_template([{"role": "user", "content": "你好"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "m")
    assert generation.temperature == 0.7 and tokenizer.special["<|im_end|>"] in generation.eos_token_id


def test_a_short_generation_agrees_greedily(tokenizer, tmp_path):
    model = random_model(ModelConfig(vocab_size=tokenizer.vocab_size, **MODERN))
    save_model(tmp_path / "m", model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    ids = tokenizer.encode("The ink")
    made = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8, min_new_tokens=8, eos_token_id=None)[0].tolist()
    ours = list(ids)
    for _ in range(8):
        ours.append(int(our_logits(model, torch.tensor([ours]))[0, -1].argmax()))
    assert made == ours
