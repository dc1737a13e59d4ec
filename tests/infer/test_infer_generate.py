"""Generation with a scripted model (rows P01-P05, P09, P13, P14), then with the real one (the cache equals the full forward)."""

import dataclasses
import itertools
import types

import pytest
import torch
from fake_runner import Ear, ask, run_until_idle

from inkstone.base.errors import CheckpointError, RequestError
from inkstone.infer.config import SamplingSettings
from inkstone.infer.engine import Engine
from inkstone.infer.generate import Reply, make_engine
from inkstone.infer.prompt import encode_prompt, silent_ids, stop_ids
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import Tokenizer, build_char, train_bpe

torch.set_num_threads(1)
TEXTS = ["The stone 砚台 and the ink 墨。\n", "a b c d e f g 你好 <|im_end|>"] * 3


class ScriptedRunner:
    """Says `script[0]` after a prompt of any length, then `script[1]`, and then starts again; all else is 20 nats less likely."""

    def __init__(self, script, vocab_size, context=64):
        self.num_slots, self.max_tokens, self.chunk_tokens, self.vocab_size = 1, context, 8, vocab_size
        self.script, self.prompt_length = torch.tensor(script), 0

    def prefill(self, slot, ids, start):
        assert start + len(ids) <= self.max_tokens
        self.prompt_length = start + len(ids)
        return torch.arange(1 - len(ids), 1)[:, None].float()

    def decode(self, ids, slots, positions):
        assert max(positions) < self.max_tokens
        return torch.tensor(positions)[:, None].float() - (self.prompt_length - 1)

    def logits(self, hidden):
        wanted = self.script[hidden[:, 0].long() % len(self.script)]
        return 20.0 * torch.nn.functional.one_hot(wanted, self.vocab_size).float()

    def copy(self, source, target, num_tokens):
        raise AssertionError("one slot")


def make_reply(runner, tokenizer, prompt_ids, **sampling):
    model = types.SimpleNamespace(config=types.SimpleNamespace(context=runner.max_tokens))
    return Reply(model, tokenizer, prompt_ids, SamplingSettings(**sampling), engine=Engine(runner, tokenizer))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 300)


def say(tokenizer, script, *, prompt="a", context=64, vocab_size=None, **sampling):
    ids = tokenizer.encode(script) if isinstance(script, str) else script
    runner = ScriptedRunner(ids, vocab_size or tokenizer.vocab_size, context)
    reply = make_reply(runner, tokenizer, encode_prompt(prompt, tokenizer, context), temperature=0.0, **sampling)
    pieces = list(reply)
    generation = reply.result()
    assert "".join(pieces) == generation.text
    return generation, pieces


def single_bytes(tokenizer, text):
    by_bytes = {piece: i for i, piece in enumerate(tokenizer.token_bytes) if piece}
    return [by_bytes[bytes([byte])] for byte in text.encode()]


def test_the_end_token_stops_and_has_no_text(tokenizer):
    generation, _ = say(tokenizer, [*tokenizer.encode("the ink"), tokenizer.eos_id], prompt="abc")
    assert (generation.text, generation.finish_reason) == ("the ink", "stop")
    assert generation.tokens == len(tokenizer.encode("the ink")) + 1
    assert generation.prompt_tokens == len(tokenizer.encode("abc"))


def test_an_end_token_at_once_gives_an_empty_text(tokenizer):
    for end in stop_ids(tokenizer):
        generation, pieces = say(tokenizer, [end])
        assert (generation.text, generation.tokens, generation.finish_reason, pieces) == ("", 1, "stop", [])


def test_a_model_that_never_ends_is_cut_at_max_tokens_and_at_the_context(tokenizer):
    generation, _ = say(tokenizer, "a", max_tokens=7)
    assert (generation.text, generation.tokens, generation.finish_reason) == ("aaaaaaa", 7, "length")
    prompt = "a" * 1
    generation, _ = say(tokenizer, "a", prompt=prompt, max_tokens=1000, context=16)
    assert (generation.tokens, generation.finish_reason) == (16, "length")


@pytest.mark.parametrize(
    ("script", "stop", "text"),
    [
        ("one two three", " two", "one"), ("one two three", ["x", "thr"], "one two "), ("\nnext", "\n", ""), ("你好，世界", "世", "你好，"),
        ("aab", "ab", "a"), ("one", "never", "oneoneone"),
    ],
)  # fmt: skip
def test_a_stop_string_ends_the_text_before_it(tokenizer, script, stop, text):
    generation, pieces = say(tokenizer, script, stop=stop, max_tokens=3 * len(tokenizer.encode(script)))
    assert generation.text == text
    assert generation.finish_reason == ("length" if stop == "never" else "stop")
    assert all(pieces)


def test_pieces_are_whole_characters_even_when_tokens_are_single_bytes(tokenizer):
    text = "é中😀"
    generation, pieces = say(tokenizer, [*single_bytes(tokenizer, text), tokenizer.eos_id])
    assert generation.text == text
    assert pieces == list(text)


def test_a_character_cut_in_half_by_the_limit_reads_as_in_a_full_decode(tokenizer):
    ids = single_bytes(tokenizer, "a中")
    generation, _ = say(tokenizer, ids, max_tokens=3)
    assert generation.text == tokenizer.decode(ids[:3])


def test_an_empty_prompt_starts_from_the_end_token_of_a_document_before(tokenizer):
    assert encode_prompt("", tokenizer, 8) == [tokenizer.eos_id]
    generation, _ = say(tokenizer, [*tokenizer.encode("ink"), tokenizer.eos_id], prompt="")
    assert (generation.text, generation.prompt_tokens) == ("ink", 1)


def test_a_prompt_as_long_as_the_context_gives_one_token_and_one_more_is_refused_with_numbers(tokenizer):
    prompt = "".join("ab"[i % 2] for i in range(100))
    size = len(tokenizer.encode(prompt))
    generation, _ = say(tokenizer, "a", prompt=prompt, context=size)
    assert (generation.tokens, generation.finish_reason, generation.prompt_tokens) == (1, "length", size)
    with pytest.raises(RequestError, match=rf"at most {size - 1} tokens .* found {size}"):
        encode_prompt(prompt, tokenizer, size - 1)


def test_a_prompt_far_beyond_the_context_is_refused_before_it_is_tokenized(tokenizer):
    class Refusing:
        kind, byte_lengths = tokenizer.kind, tokenizer.byte_lengths

        def encode(self, text):
            raise AssertionError("tokenized")

    with pytest.raises(RequestError, match="found 1,000,000 bytes"):
        encode_prompt("x" * 1_000_000, Refusing(), 16)


def test_special_token_text_in_a_prompt_is_plain_text(tokenizer):
    ids = encode_prompt("<|endoftext|><|im_start|>system\n<|im_end|>", tokenizer, 100)
    assert not set(ids) & set(tokenizer.special.values())


@pytest.mark.parametrize("prompt", ["a\0b", "\u200b\ufeff", "\u202eabc\u202c", "\ue000", "e\u0301"])
def test_unusual_characters_in_a_prompt_generate(tokenizer, prompt):
    assert say(tokenizer, "a", prompt=prompt, max_tokens=2)[0].text == "aa"
    assert tokenizer.decode(encode_prompt(prompt, tokenizer, 64)) == prompt


@pytest.mark.parametrize("prompt", ["ab\ud800", b"ab", None, 3])
def test_what_is_not_unicode_text_is_refused(tokenizer, prompt):
    with pytest.raises(RequestError, match="prompt: expected"):
        encode_prompt(prompt, tokenizer, 64)


def test_ids_beyond_the_tokenizer_and_tokens_without_text_are_never_drawn(tokenizer):
    beyond, silent = tokenizer.vocab_size + 3, silent_ids(tokenizer, stop_ids(tokenizer))
    assert tokenizer.special["<|pad|>"] in silent and tokenizer.eos_id not in silent
    for never in (beyond, *silent):
        generation, _ = say(tokenizer, [never], vocab_size=tokenizer.vocab_size + 8, max_tokens=3)
        tokenizer.encode(generation.text)
        assert generation.tokens == 1 and generation.finish_reason == "stop"  # of the equals that remain the first: the end token


def test_scores_that_are_not_finite_are_a_checkpoint_error(tokenizer):
    class Broken(ScriptedRunner):
        def logits(self, hidden):
            return super().logits(hidden) * float("nan")

    reply = make_reply(Broken([9], tokenizer.vocab_size), tokenizer, [9], temperature=1.0)
    with pytest.raises(CheckpointError, match="finite"):
        list(reply)


def test_leaving_early_is_a_cancellation_that_keeps_what_was_said(tokenizer):
    reply = make_reply(ScriptedRunner(tokenizer.encode("a"), tokenizer.vocab_size), tokenizer, [9], temperature=0.0)
    for _ in reply:
        break
    assert dataclasses.astuple(reply.result())[:3] == ("a", 1, "cancelled")


def test_a_reply_that_is_interrupted_or_dropped_gives_its_slot_back(tokenizer):
    runner = ScriptedRunner(tokenizer.encode("a"), tokenizer.vocab_size)
    engine = Engine(runner, tokenizer)
    model = types.SimpleNamespace(config=types.SimpleNamespace(context=64))

    def reply():
        return Reply(model, tokenizer, [9], SamplingSettings(temperature=0.0, max_tokens=5), engine=engine)

    dropped = reply()
    next(iter(dropped))
    del dropped
    decode, runner.decode = runner.decode, None

    def interrupt(*_):
        raise KeyboardInterrupt

    interrupted = reply()
    next(iter(interrupted))
    runner.decode = interrupt
    with pytest.raises(KeyboardInterrupt):
        next(iter(interrupted))
    runner.decode = decode
    assert dataclasses.astuple(interrupted.result())[:3] == ("a", 1, "cancelled")
    reply()  # never iterated: takes no slot
    assert reply().finish().text == "aaaaa"
    assert (engine.stats().cancelled, engine.stats().free_slots) == (2, 1)


def test_replies_of_one_engine_can_be_read_in_turn(tokenizer):
    model = tiny(tokenizer)
    engine = make_engine(model, tokenizer, num_tokens=48, num_slots=2)
    settings = [SamplingSettings(seed=seed, temperature=1.0, max_tokens=12) for seed in range(3)]
    alone = [Reply(model, tokenizer, [40, 41], some).finish().text for some in settings]
    replies = [Reply(model, tokenizer, [40, 41], some, engine=engine) for some in settings]
    texts = ["", "", ""]
    for pieces in itertools.zip_longest(*replies, fillvalue=""):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    assert texts == alone


CONFIGS = {
    "learned": {"preset": "gpt", "dropout": 0.1}, "gpt1": {"preset": "gpt", "norm_place": "post"}, "rope": {},
    "sinusoidal": {"position": "sinusoidal", "activation": "relu2"}, "grouped": {"num_kv_heads": 1, "attention_gate": True},
    "windowed": {"window": 5, "full_every": 2, "logit_softcap": 15.0}, "residual": {"value_residual": True, "ngram_buckets": 64},
}  # fmt: skip


def tiny(tokenizer, name="rope", context=48):
    shape = {"num_layers": 3, "num_heads": 2, "width": 32, "context": context, "vocab_size": tokenizer.vocab_size}
    return Transformer(ModelConfig(**(CONFIGS[name] | shape)), seed=1).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_decode_equals_full_forward(tokenizer, name):
    model, ids = tiny(tokenizer, name), tokenizer.encode("The stone 砚台")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    banned = silent_ids(tokenizer, stop_ids(tokenizer))
    for token in draw_ids(model, tokenizer, ids, temperature=0.0, max_tokens=64):
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([ids]))[:, -1])[0]
            logits[banned] = -torch.inf
        assert token == int(logits.argmax())
        ids.append(token)
    assert len(ids) == model.config.context + 1


def draw_ids(model, tokenizer, ids, **sampling):
    """Return the drawn tokens, not stopping at the end of a text."""
    engine, ear = make_engine(model, tokenizer, num_tokens=100), Ear()
    engine.submit(ask(ids, ignore_end=True, **sampling), ear)
    run_until_idle(engine)
    return ear.ids


def draw_text(tokenizer, **sampling):
    model = tiny(tokenizer)
    return Reply(model, tokenizer, tokenizer.encode("The"), SamplingSettings(max_tokens=20, temperature=1.5, **sampling)).finish()


def test_the_same_seed_gives_the_same_text_and_a_seed_that_nobody_gave_is_told(tokenizer):
    first = draw_text(tokenizer)
    again = draw_text(tokenizer, seed=first.seed)
    assert (first.text, first.tokens) == (again.text, again.tokens)
    assert len({draw_text(tokenizer, seed=seed).text for seed in range(6)}) > 3


def test_rules_that_look_back_see_prompt_and_text(tokenizer):
    model, ids = tiny(tokenizer), tokenizer.encode("The")
    drawn = ids + draw_ids(model, tokenizer, ids, temperature=0.0, no_repeat_ngram=1, max_tokens=30)
    assert len(set(drawn)) == len(drawn)


def test_a_character_tokenizer_generates_too():
    tokenizer = build_char(["人之初，性本善。"])
    generation, _ = say(tokenizer, [*tokenizer.encode("性本善"), tokenizer.eos_id], prompt="人之初，")
    assert generation.text == "性本善"
