"""Made-up models: the vocabulary has exactly the asked size, loses nothing, and other programs load the folder."""

import pytest
import torch

from inkstone.checkpoint.model_folder import load_model
from inkstone.infer.made_up import made_up_tokenizer, write_made_up_model
from inkstone.nn.config import ModelConfig

torch.set_num_threads(1)


@pytest.mark.parametrize("vocab_size", [257, 258, 257 + 26**2 + 1, 20_000])
def test_a_made_up_vocabulary_has_the_asked_size_and_loses_nothing(vocab_size):
    tokenizer = made_up_tokenizer(vocab_size)
    text = "zebra aa 中文 🙂\n"
    assert tokenizer.vocab_size == vocab_size and tokenizer.eos_id == vocab_size - 1
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(set(tokenizer.token_bytes)) == vocab_size


def test_a_made_up_model_is_one_that_transformers_computes_alike(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(preset="gpt2", num_layers=2, num_heads=2, width=32, context=64, vocab_size=300)
    write_made_up_model(tmp_path / "model", config, seed=3)
    network, tokenizer = load_model(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([tokenizer.encode("some words of a text")])
    with torch.inference_mode():
        torch.testing.assert_close(theirs(ids).logits, network.logits(network(ids)), atol=1e-4, rtol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model")("some words of a text").input_ids == ids[0].tolist()
