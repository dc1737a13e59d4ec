"""Guesses: found where an obvious search finds them, accepted where they are right, and never seen in the text."""

from array import array

import pytest
import torch
from fake_runner import Ear, HashRunner, ask, run_until_idle
from hypothesis import given
from hypothesis import strategies as st

from inkstone.base.errors import ConfigError
from inkstone.infer.engine import Engine
from inkstone.infer.speculate import DraftModel, PromptLookup, look_up
from inkstone.text.tokenizer import Tokenizer, train_bpe

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)


def look_up_slowly(ids, num, longest, shortest):
    for size in range(longest, shortest - 1, -1):
        for start in range(len(ids) - size - 1, -1, -1):
            if size < len(ids) and ids[start : start + size] == ids[-size:]:
                text = list(ids)
                for i in range(num):
                    text.append(text[start + size + i])
                return text[len(ids) :]
    return []


@given(st.lists(st.sampled_from([0, 1, 256, 2**40 + 1]), min_size=1, max_size=30), st.integers(0, 6), st.integers(1, 4))
def test_a_look_up_equals_an_obvious_search(ids, num, longest):
    found = look_up(array("q", ids), num, longest=longest, shortest=1)
    assert found == (look_up_slowly(ids, num, longest, 1) if num else [])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_a_look_up_guesses_nothing_where_nothing_repeats(ids):
    assert look_up(array("q", list(dict.fromkeys(ids))), 4) == []


def answers(tokenizer, speculator, *, is_exact=True, **sampling):
    runner = HashRunner(tokenizer.vocab_size, num_slots=3, max_tokens=96, habit=9.0, is_exact=is_exact)
    engine = Engine(runner, tokenizer, speculator=speculator)
    requests = [ask([30 + i, 40, 41], seed=i, ignore_end=True, max_tokens=60, **sampling) for i in range(4)]
    ears = [Ear() for _ in requests]
    for request, ear in zip(requests, ears, strict=True):
        engine.submit(request, ear)
    run_until_idle(engine)
    return [(ear.text, ear.tokens) for ear in ears], engine.stats(), runner


class Oracle:
    """Guesses from what was said without it, and every third token wrongly."""

    def __init__(self, right):
        self.right = right

    def propose(self, sequences, room):
        made = []
        for sequence in sequences:
            ids = next(ids for ids in self.right if ids[: len(sequence.ids)] == sequence.ids.tolist())
            made.append([token + (at % 3 == 0) for at, token in list(enumerate(ids))[len(sequence.ids) :][:9]])
        return made


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "frequency_penalty": 0.3}])
def test_speculation_changes_no_token_and_takes_fewer_passes(tokenizer, sampling):
    plain, _, runner = answers(tokenizer, None, **sampling)
    guessed, stats, faster = answers(tokenizer, PromptLookup(), **sampling)
    assert guessed == plain
    assert 0 < stats.accepted_tokens <= stats.proposed_tokens
    assert faster.decoded < runner.decoded
    right = [[30 + i, 40, 41] + [token.token_id for token in tokens] for i, (_, tokens) in enumerate(plain)]
    assert answers(tokenizer, Oracle(right), **sampling)[0] == plain


def test_no_guess_reaches_beyond_what_a_sequence_may_draw(tokenizer):
    class Eager:
        def propose(self, sequences, room):
            assert all(most >= 0 for most in room)
            return [[50] * 100 for _ in sequences]

    plain, *_ = answers(tokenizer, None, temperature=1.0)
    assert answers(tokenizer, Eager(), temperature=1.0)[0] == plain  # the runner asserts its positions


SAMPLINGS = [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.0, "repetition_penalty": 1.2, "no_repeat_ngram": 3}]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_draft_that_is_the_model_itself_is_always_right_for_it_draws_with_the_same_numbers(tokenizer, sampling):
    draft = DraftModel(HashRunner(tokenizer.vocab_size, num_slots=3, max_tokens=96, habit=9.0, is_exact=False), tokenizer)
    plain, *_ = answers(tokenizer, None, is_exact=False, **sampling)
    guessed, stats, _ = answers(tokenizer, draft, is_exact=False, **sampling)
    assert guessed == plain
    assert stats.accepted_tokens == stats.proposed_tokens > 100


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_draft_that_differs_costs_guesses_and_no_token(tokenizer, sampling):
    draft = HashRunner(tokenizer.vocab_size + 2, num_slots=3, max_tokens=50, chunk_tokens=5, habit=7.0, is_exact=False)
    plain, *_ = answers(tokenizer, None, **sampling)
    guessed, stats, _ = answers(tokenizer, DraftModel(draft, tokenizer, 3), **sampling)
    assert guessed == plain
    assert 0 < stats.accepted_tokens < stats.proposed_tokens


def test_a_drafts_slot_holds_exactly_what_its_sequence_says_even_when_another_had_it_before(tokenizer):
    runner = HashRunner(tokenizer.vocab_size, num_slots=1, max_tokens=96, chunk_tokens=5, is_exact=False)
    engine = Engine(
        HashRunner(tokenizer.vocab_size, num_slots=1, max_tokens=96), tokenizer, speculator=DraftModel(runner, tokenizer)
    )
    for prompt in (range(30, 60), range(30, 45), [30], range(40, 90)):
        ear = Ear()
        engine.submit(ask(prompt, temperature=1.0, max_tokens=4, ignore_end=True), ear)
        run_until_idle(engine)
        ids = [*prompt, *ear.ids]
        held = [token for token, _ in runner.slots[0]]
        assert held[: len(prompt)] == ids[: len(prompt)] and len(held) >= len(prompt)


def test_a_draft_with_fewer_tokens_than_the_tokenizer_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=f"the draft model has 99 tokens and the tokenizer {tokenizer.vocab_size}"):
        DraftModel(HashRunner(99), tokenizer)
