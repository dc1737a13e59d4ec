"""Embeddings against transformers' hidden states and against a slow mean, without effects of the others in the batch."""

import pytest
import torch

from inkstone.base.errors import RequestError
from inkstone.checkpoint.model_folder import save_model
from inkstone.infer.embed import embed, embed_texts
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)
LISTS = [[5, 6, 7], [9], list(range(16)), [1, 2] * 30, [30, 31], [4] * 17, [5, 6, 7]]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["hello 你好"], 270)


def network(tokenizer, **shape):
    base = {"num_layers": 2, "num_heads": 2, "width": 16, "context": 16, "vocab_size": tokenizer.vocab_size}
    return Transformer(ModelConfig(**(base | shape)), seed=2).eval()


@pytest.mark.parametrize("shape", [{}, {"preset": "gpt"}, {"window": 3}, {"ngram_buckets": 32}], ids=str)
def test_an_embedding_is_the_mean_of_the_hidden_states_of_all_tokens(tokenizer, shape):
    model = network(tokenizer, **shape)
    found_ND = embed(model, LISTS)
    assert (found_ND.shape, found_ND.dtype) == ((7, 16), torch.float32)
    for ids, found_D in zip(LISTS, found_ND, strict=True):
        with torch.inference_mode():
            states = [model(torch.tensor([ids[at : at + 16]]))[0] for at in range(0, len(ids), 16)]
        torch.testing.assert_close(found_D, torch.cat(states).mean(0), atol=1e-5, rtol=0)


def test_a_text_has_the_same_embedding_alone_and_among_others(tokenizer):
    model = network(tokenizer)
    together_ND = embed(model, LISTS)
    for ids, found_D in zip(LISTS, together_ND, strict=True):
        torch.testing.assert_close(embed(model, [ids])[0], found_D, atol=1e-6, rtol=0)
    assert embed(model, []).shape == (0, 16)


def test_hidden_states_are_those_of_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = network(tokenizer, preset="gpt")
    save_model(tmp_path / "m", model, tokenizer)
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "m", attn_implementation="eager").eval()
    texts = ["hello 你好", "墨", "a b c"]
    for text, found_D in zip(texts, embed_texts(model, tokenizer, texts), strict=True):
        with torch.no_grad():
            expected_D = theirs(torch.tensor([tokenizer.encode(text)])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(found_D, expected_D, atol=1e-4, rtol=0)


def test_normalized_vectors_have_length_one_and_the_same_direction(tokenizer):
    model = network(tokenizer)
    plain_ND, unit_ND = embed(model, LISTS), embed(model, LISTS, normalize=True)
    torch.testing.assert_close(unit_ND.norm(dim=1), torch.ones(len(LISTS)))
    torch.testing.assert_close(unit_ND, plain_ND / plain_ND.norm(dim=1, keepdim=True))


def test_an_empty_text_is_the_end_token_and_an_empty_list_is_refused(tokenizer):
    model = network(tokenizer)
    torch.testing.assert_close(embed_texts(model, tokenizer, ["", "a"])[0], embed(model, [[tokenizer.eos_id]])[0])
    with pytest.raises(RequestError, match=r"texts\[1\]: expected at least one token"):
        embed(model, [[1], []])
    with pytest.raises(RequestError, match=r"texts\[1\]: expected text, found NoneType"):
        embed_texts(model, tokenizer, ["a", None])
