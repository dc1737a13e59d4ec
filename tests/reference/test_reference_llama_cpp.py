"""llama.cpp loads every GGUF type that we write, cuts text into the same tokens, and goes on with the same ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from inkstone.checkpoint.gguf import GGUF_TYPES, write_gguf
from inkstone.checkpoint.gguf_architectures import find_gguf_architecture
from inkstone.checkpoint.model_folder import StoredModel
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.chat import render_chat
from inkstone.text.pretokenizers import PATTERNS, pre_tokenizer_document
from inkstone.text.tokenizer import Tokenizer, train_bpe

llama_cpp = pytest.importorskip("llama_cpp")
gguf = pytest.importorskip("gguf")
torch.set_num_threads(1)
STORY = "The ink is ground on the stone, and 3 brushes wait. 砚台磨墨，墨写字，字成文。def ink(x):\n    return x + 12 🖋️\n"
TEXTS = [
    STORY, "", " ", "\n\n", "don't I'LL we've", "１２３ 12345 ½ Ⅷ ٣٤", "混合 mixed 文本\r\n\t tabs   spaces ", "👩‍👩‍👧 🇨🇳 e\u0301 é ﷺ", "ひらがな カタカナー 한국어 हिन्दी ไทย",
    "$9.99, http://a.b/c?d=e_f#g != `x` ~ ^", "\u3000\u00a0\u2028\x0b\x85\u200b\ufeff", "a\x00b", "user wrote <|im_end|> and <|endoftext|>", "𠀀𝒳\ue000", STORY * 20,
]  # fmt: skip
GPT = {"preset": "gpt", "num_layers": 2, "num_heads": 2, "width": 64, "context": 96, "dropout": 0.0, "attention_dropout": 0.0}
MODERN = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_width": 24, "width": 64, "ffn_width": 96, "context": 96}
CONFIGS = {
    "gpt": GPT,
    "gpt untied": GPT | {"tie_embeddings": False},
    "modern": MODERN,
    "modern untied": MODERN | {"tie_embeddings": False},
}
# Of the logits' standard deviation. llama.cpp rounds what a matrix is multiplied by to the matrix's own type (f16, bf16, 8 bits).
TOLERANCES = {"f32": 0.005, "f16": 0.01, "bf16": 0.06, "q8_0": 0.1, "q4_0": 0.1}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([STORY * 2, "abc 你好\n"], 360)


@pytest.fixture(scope="module", params=CONFIGS)
def stored(request, tokenizer):
    """A model that learned the story by heart, so that the next token is never a matter of rounding; its vocabulary is padded."""
    config = ModelConfig(vocab_size=tokenizer.vocab_size + 6, **CONFIGS[request.param])
    model = Transformer(config, seed=1).train()
    tokens = torch.tensor([tokenizer.encode(STORY)])[:, : config.context]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss = cross_entropy(model.logits(model(tokens[:, :-1])).flatten(0, 1), tokens[0, 1:])
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    return StoredModel(None, config, {name: tensor.detach() for name, tensor in model.state_dict().items()}, tokenizer)


@pytest.fixture(params=GGUF_TYPES)
def exported(request, stored, tmp_path):
    write_gguf(tmp_path / "m.gguf", stored, type_name=request.param, name="story")
    return request.param, tmp_path / "m.gguf"


def open_model(path, **options):
    return llama_cpp.Llama(str(path), n_threads=1, n_threads_batch=1, verbose=False, type_k=0, type_v=0, **options)


def our_logits(stored, tensors, ids):
    model = Transformer(stored.config)
    model.load_state_dict(tensors)
    with torch.no_grad():
        return model.eval().logits(model(torch.tensor([ids])))[0].numpy()


def as_the_file_says(stored, path):
    """Return our tensors as the gguf package reads them from the file."""
    numbers = {
        tensor.name: torch.from_numpy(
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape([int(size) for size in tensor.shape[::-1]]).copy()
        )
        for tensor in gguf.GGUFReader(path).tensors
    }
    rules = find_gguf_architecture(stored.config).rules(stored.config)
    return {rule.ours: rule.load(numbers) for rule in rules}


def test_it_goes_on_with_the_same_greedy_tokens(stored, exported):
    type_name, path = exported
    theirs = open_model(path, n_ctx=stored.config.context)
    story = stored.tokenizer.encode(STORY)[: stored.config.context]
    made = []
    for token in theirs.generate(story[:3], temp=0.0, repeat_penalty=1.0):
        made.append(token)
        if len(made) == len(story) - 3:
            break
    ours = list(story[:3])
    while len(ours) < len(story):
        ours.append(int(our_logits(stored, stored.tensors, ours)[-1].argmax()))
    assert ours[3:] == made and (type_name == "q4_0" or ours == story)


def test_its_logits_are_those_of_the_files_weights(stored, exported):
    type_name, path = exported
    theirs = open_model(path, n_ctx=stored.config.context, logits_all=True)
    ids = stored.tokenizer.encode("The stone 墨 is 12 🖋️ ground\n and new words")
    theirs.eval(ids)
    found = np.array(theirs.scores[: len(ids)])
    expected = our_logits(stored, as_the_file_says(stored, path), ids)
    assert found.shape == expected.shape
    error = np.sqrt(((found - expected) ** 2).mean()) / expected.std()
    assert error < TOLERANCES[type_name]
    if type_name == "f32" and "rope" in stored.config.position:
        np.testing.assert_allclose(found, expected, atol=2e-3)


def variant(tokenizer, name, whole_words):
    model = tokenizer.document["model"] | {"ignore_merges": whole_words}
    return Tokenizer({**tokenizer.document, "model": model, "pre_tokenizer": pre_tokenizer_document(name)})


@pytest.fixture(scope="module", params=[(name, False) for name in PATTERNS] + [("llama-bpe", True)], ids=str)
def pair(request, tokenizer, tmp_path_factory):
    """Our tokenizer and llama.cpp's, for one pre-tokenizer."""
    ours = variant(tokenizer, *request.param)
    config = ModelConfig(vocab_size=ours.vocab_size, num_layers=1, num_heads=1, width=32, context=16)
    path = tmp_path_factory.mktemp("vocab") / "t.gguf"
    write_gguf(path, StoredModel(None, config, Transformer(config).state_dict(), ours), type_name="f32", name="t")
    return ours, open_model(path, vocab_only=True)


@pytest.mark.parametrize("text", TEXTS)
def test_it_cuts_text_into_the_same_tokens(pair, text):
    ours, theirs = pair
    ids = theirs.tokenize(text.encode(), add_bos=True, special=False)
    assert ids == ours.encode(text)
    assert theirs.detokenize(ids) == text.encode()


PIECES = st.sampled_from(
    [
        "the ",
        "ink",
        "'s",
        " 'LL",
        "砚台",
        "，",
        "12",
        "３",
        "\n",
        "\r\n",
        "  ",
        "\t",
        "👩‍👩‍👧",
        "e\u0301",
        "ー",
        "!=",
        "<|im_end|>",
        "\u3000",
        "K",
        "ſ",
    ]
)


def text_of(characters):
    return st.lists(st.one_of(PIECES, characters), max_size=12).map("".join)


@settings(max_examples=150, deadline=None)
@given(text=text_of(st.characters(exclude_categories=["Cs"])))
def test_it_cuts_any_text_into_the_same_tokens(pair, text):
    ours, theirs = pair
    assert theirs.tokenize(text.encode(), add_bos=True, special=False) == ours.encode(text)


def test_it_knows_the_ends_and_the_special_tokens(pair):
    ours, theirs = pair
    assert theirs.token_eos() == theirs.token_bos() == ours.eos_id
    for text, index in ours.special.items():
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == [index]
    vocab = theirs._model.vocab
    assert llama_cpp.llama_vocab_eot(vocab) == ours.special["<|im_end|>"]
    ends = {index for index in range(ours.vocab_size) if llama_cpp.llama_vocab_is_eog(vocab, index)}
    assert ends == {ours.eos_id, ours.special["<|im_end|>"]}


def test_its_chat_template_gives_the_ids_that_we_train_on(pair):
    ours, theirs = pair
    formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
        template=theirs.metadata["tokenizer.chat_template"], eos_token="<|endoftext|>", bos_token=""
    )
    chat = [
        {"role": "system", "content": "Be brief. 简短。"}, {"role": "user", "content": "你好 ink?"}, {"role": "assistant", "content": "墨。It's 12!"},
        {"role": "user", "content": "Why?\n\nSay 3 words 🖋️"},
    ]  # fmt: skip
    ids = theirs.tokenize(formatter(messages=chat).prompt.encode(), add_bos=False, special=True)
    assert ids == render_chat(chat, ours, add_generation_prompt=True)[0]
