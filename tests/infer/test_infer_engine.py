"""The engine over a runner whose scores are a pure hash: whatever the schedule, each request gets what a lone one gets."""

import math
import random

import numpy as np
import pytest
import torch
from fake_runner import Ear, HashRunner, ask, run_until_idle

from inkstone.base.errors import CheckpointError, RequestError
from inkstone.infer.config import SamplingSettings
from inkstone.infer.draw import Sampler
from inkstone.infer.engine import Engine, EngineClosed, QueueFull
from inkstone.infer.prompt import silent_ids, stop_ids
from inkstone.infer.sampling import BANNED, History
from inkstone.infer.speculate import DraftModel, PromptLookup
from inkstone.text.tokenizer import Tokenizer, train_bpe

torch.set_num_threads(1)
TEXTS = ["The stone 砚台 and the ink 墨。\n", "a b c d e f g 你好 <|im_end|>"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 300)


def answer_slowly(tokenizer, request, *, habit, chunk_tokens, max_tokens):
    """Return (ids, text, finish) of a request with a runner of its own, written to be obviously right."""
    runner = HashRunner(tokenizer.vocab_size + 3, num_slots=1, max_tokens=max_tokens, chunk_tokens=chunk_tokens, habit=habit)
    prompt, settings = list(request.prompt_ids), request.settings
    for start in range(0, len(prompt), chunk_tokens):
        hidden = runner.prefill(0, prompt[start : start + chunk_tokens], start)[-1:]
    drawn = []
    while True:
        logits = runner.logits(hidden)[:, : tokenizer.vocab_size]
        logits[:, silent_ids(tokenizer, stop_ids(tokenizer))] = BANNED
        ids = prompt + drawn
        history = History(torch.tensor([ids]), torch.tensor([len(ids)]), torch.tensor([len(prompt)]))
        token = int(Sampler(settings)(logits, history, [request.seed], [len(ids)]))
        drawn.append(token)
        text = tokenizer.decode(drawn)
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in settings.stop or [] if stop in text]
        if token in stop_ids(tokenizer) and not request.ignore_end:
            return drawn, text, "stop"
        if found:
            return drawn, text[: min(found)[1]], "stop"
        if len(drawn) == settings.max_tokens or len(prompt) + len(drawn) > max_tokens:
            return drawn, text, "length"
        hidden = runner.decode([token], [0], [len(prompt) + len(drawn) - 1])


SETTINGS = [
    {"temperature": 0.0}, {"temperature": 1.0, "top_p": 1.0}, {"temperature": 0.8}, {"temperature": 0.5, "top_k": 3, "min_p": 0.01},
    {"temperature": 0.0, "no_repeat_ngram": 2}, {"temperature": 0.9, "repetition_penalty": 1.3, "frequency_penalty": 0.5},
    {"temperature": 0.7, "presence_penalty": 1.0, "logit_bias": {70: 3.0, 90: -50.0}}, {"temperature": 0.6, "typical_p": 0.8},
]  # fmt: skip


def random_request(rng, tokenizer, context):
    shared = [40 + i * 7 % 30 for i in range(context)]  # many prompts begin alike
    own = [rng.randrange(20, tokenizer.vocab_size) for _ in range(rng.choice([0, 1, 3, 9]))]
    prompt = (shared[: rng.choice([0, 3, 8, 12, context // 2])] + own or [33])[:context]
    if rng.random() < 0.1:
        prompt = (shared + own)[:context]
    stops = rng.choice([None, None, ["e"], ["a", "ab", "the"], ["你"]])
    return ask(
        prompt, seed=rng.randrange(5), max_tokens=rng.choice([1, 2, 6, 20, 99]), stop=stops, ignore_end=rng.random() < 0.2,
        top_logprobs=rng.choice([None, None, 0, 3]), prompt_logprobs=rng.random() < 0.1, **rng.choice(SETTINGS),
    )  # fmt: skip


def check_against_reference(ear, ids, text, finish, request):
    assert ear.is_over and ear.last.error is None
    if ear.last.finish == "cancelled":
        assert text.startswith(ear.text) and ids[: len(ear.ids)] == ear.ids
    else:
        assert (ear.ids, ear.text, ear.last.finish) == (ids, text, finish)
    assert ear.last.usage.completion_tokens == len(ear.ids)
    assert ear.last.usage.prompt_tokens == len(request.prompt_ids)
    if ear.ids and request.prompt_logprobs:
        explained = [token for piece in ear.pieces for token in piece.prompt_tokens]
        assert [token.token_id for token in explained] == list(request.prompt_ids[1:])


@pytest.mark.parametrize("block", range(10))
def test_any_schedule_gives_each_request_what_it_gets_alone(tokenizer, block):
    seen = {"reused": 0, "accepted": 0, "cancelled": 0}
    for schedule in range(block * 20, block * 20 + 20):
        rng = random.Random(schedule)
        shape = {
            "habit": rng.choice([0.0, 9.0]),
            "chunk_tokens": rng.choice([1, 2, 3, 4, 7]),
            "max_tokens": rng.choice([16, 24, 40]),
        }
        runner = HashRunner(tokenizer.vocab_size + 3, num_slots=rng.choice([1, 2, 3, 5]), **shape)
        draft = HashRunner(tokenizer.vocab_size, num_slots=5, max_tokens=30, chunk_tokens=9, habit=shape["habit"], is_exact=False)
        speculator = rng.choice([None, PromptLookup(rng.choice([1, 3, 8])), DraftModel(draft, tokenizer, rng.choice([1, 4]))])
        engine = Engine(runner, tokenizer, speculator=speculator, reuses_prefixes=rng.random() < 0.7)
        asked = []
        while len(asked) < 8 or engine.has_work:
            if len(asked) < 8 and rng.random() < 0.4:
                request, ear = random_request(rng, tokenizer, runner.max_tokens), Ear()
                asked.append((request, ear, engine.submit(request, ear)))
            if asked and rng.random() < 0.03:
                rng.choice(asked)[2].cancel()
            engine.step()
        for request, ear, _ in asked:
            check_against_reference(ear, *answer_slowly(tokenizer, request, **shape), request)
        stats = engine.stats()
        assert (stats.running, stats.waiting, stats.free_slots, stats.failed) == (0, 0, runner.num_slots, 0)
        assert stats.completion_tokens == sum(len(ear.ids) for _, ear, _ in asked)
        assert stats.finished + stats.cancelled == len(asked)
        seen["reused"] += stats.reused_tokens
        seen["accepted"] += stats.accepted_tokens
        seen["cancelled"] += stats.cancelled
    assert all(seen.values()), seen


def test_a_batch_draws_the_same_bits_as_each_row_alone():
    generator = torch.Generator().manual_seed(1)
    logits = (
        torch.randn(24, 5003, generator=generator) * torch.linspace(0.5, 6, 24)[:, None]
    )  # flat and steep: few or many are kept
    ids = torch.randint(0, 5000, (24, 60), generator=generator)
    full = torch.full((24,), 60)
    seeds, positions = list(range(24)), list(range(100, 124))
    for sampling in SETTINGS:
        sampler = Sampler(SamplingSettings(**sampling))
        together = sampler(logits, History(ids, full, full // 2), seeds, positions).tolist()
        for i, token in enumerate(together):
            alone = History(ids[i, None], full[:1], full[:1] // 2)
            assert sampler(logits[i, None].clone(), alone, seeds[i : i + 1], positions[i : i + 1]).tolist() == [token]


def start(tokenizer, *requests, **shape):
    options = {name: shape.pop(name) for name in ("max_waiting", "speculator", "clock") if name in shape}
    runner = HashRunner(tokenizer.vocab_size, **shape)
    engine = Engine(runner, tokenizer, **options)
    ears = [Ear() for _ in requests]
    tickets = [engine.submit(request, ear) for request, ear in zip(requests, ears, strict=True)]
    return engine, runner, ears, tickets


def many(num, **sampling):
    sampling = {"temperature": 1.0, "max_tokens": 12, "ignore_end": True} | sampling
    return [ask([30 + i, 41, 42, 43, 44, 45 + i], seed=i, **sampling) for i in range(num)]


def healthy(tokenizer, requests):
    """Return what each request gets when nothing fails."""
    engine, _, ears, _ = start(tokenizer, *requests, num_slots=8)
    run_until_idle(engine)
    return [(ear.ids, ear.text) for ear in ears]


class Scripted:
    """A constraint that allows single tokens in turn, and fails where its script says so."""

    def __init__(self, script, vocab_size):
        self.script, self.vocab_size, self.at, self.seen = script, vocab_size, 0, []

    def allowed(self):
        wanted = self.script[self.at]
        if wanted == "raise":
            raise ValueError("no such rule")
        mask = torch.zeros(self.vocab_size, dtype=torch.bool)
        if wanted is not None:
            mask[wanted] = True
        return mask

    def advance(self, token_id):
        if self.script[self.at + 1] == "raise in advance":
            raise ValueError("no such state")
        self.seen.append(token_id)
        self.at += 1


@pytest.mark.parametrize(
    ("script", "error"),
    [([50, 51, "raise"], "no such rule"), ([50, "raise in advance"], "no such state"), ([50, None], "cannot go on in the form")],
)
def test_a_constraint_that_fails_fails_its_own_sequence_only(tokenizer, script, error):
    requests = many(8)
    expected = healthy(tokenizer, requests)
    requests[3] = ask([33, 40], constraint=Scripted(script, tokenizer.vocab_size), temperature=1.0)
    engine, _, ears, _ = start(tokenizer, *requests, num_slots=8)
    run_until_idle(engine)
    assert error in str(ears[3].last.error) and ears[3].last.finish is None
    for i in set(range(8)) - {3}:
        assert (ears[i].ids, ears[i].text) == expected[i]
    assert engine.stats().free_slots == 8 and engine.stats().failed == 1


def test_a_constraint_decides_what_is_drawn_and_is_never_speculated_with(tokenizer):
    script = [50, 50, 50, 50, 50, 50, tokenizer.eos_id, 50]
    constraint = Scripted(script, tokenizer.vocab_size)
    engine, _, (ear,), _ = start(tokenizer, ask([50, 50, 50], constraint=constraint, temperature=1.0), speculator=PromptLookup())
    run_until_idle(engine)
    assert ear.ids == constraint.seen == script[:7] and ear.last.finish == "stop"
    assert ear.last.usage.proposed_tokens == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_fail_their_own_row_only(tokenizer, temperature, bad):
    class Broken(HashRunner):
        def logits(self, hidden_RD):
            logits_RV = super().logits(hidden_RD)
            logits_RV[hidden_RD[:, 1] == 299] = bad
            return logits_RV

    requests = many(8, temperature=temperature)
    expected = healthy(tokenizer, requests)
    requests[5] = ask([30, 299], temperature=temperature)
    engine = Engine(Broken(tokenizer.vocab_size, num_slots=8), tokenizer)
    ears = [Ear() for _ in requests]
    for request, ear in zip(requests, ears, strict=True):
        engine.submit(request, ear)
    run_until_idle(engine)
    assert isinstance(ears[5].last.error, CheckpointError)
    assert all((ears[i].ids, ears[i].text) == expected[i] for i in range(8) if i != 5)


@pytest.mark.parametrize("name", ["prefill", "decode", "copy"])
def test_a_runner_that_fails_for_one_slot_fails_one_request_and_goes_on(tokenizer, name):
    requests = [ask([40, 41, 42, 43, 44, 60 + i], seed=i, temperature=1.0, max_tokens=9, ignore_end=True) for i in range(8)]
    expected = healthy(tokenizer, requests)
    engine, runner, ears, _ = start(tokenizer, *requests, num_slots=8)
    runner.broken[name] = [4]
    run_until_idle(engine)
    assert [isinstance(ear.last.error, MemoryError) for ear in ears] == [i == 4 for i in range(8)]
    assert all((ears[i].ids, ears[i].text) == expected[i] for i in range(8) if i != 4)
    runner.broken.clear()
    ear = Ear()
    engine.submit(requests[4], ear)
    run_until_idle(engine)
    assert (ear.ids, ear.text) == expected[4] and engine.stats().free_slots == 8


def test_a_failing_speculator_is_switched_off_and_changes_nothing(tokenizer, capsys):
    class Failing:
        def propose(self, sequences, room):
            raise RuntimeError("no idea")

    requests = many(3)
    engine, _, ears, _ = start(tokenizer, *requests, num_slots=4, speculator=Failing())
    run_until_idle(engine)
    assert [(ear.ids, ear.text) for ear in ears] == healthy(tokenizer, requests)
    assert capsys.readouterr().err.count("no idea") == 1


def test_a_listener_that_raises_cancels_its_own_sequence_only(tokenizer, capsys):
    requests = many(4)
    expected = healthy(tokenizer, requests)
    engine = Engine(HashRunner(tokenizer.vocab_size, num_slots=4), tokenizer)
    heard, ears = [], [Ear() for _ in requests]

    def deaf(piece):
        heard.append(piece)
        raise RuntimeError("hung up")

    for request, listener in zip(requests, [*ears[:3], deaf], strict=True):
        engine.submit(request, listener)
    run_until_idle(engine)
    assert [(ear.ids, ear.text) for ear in ears[:3]] == expected[:3]
    assert [piece.finish for piece in heard] == [None, "cancelled"] and "hung up" in capsys.readouterr().err
    assert engine.stats().free_slots == 4


def test_a_cancelled_request_ends_at_the_next_step_wherever_it_is(tokenizer):
    long = ask(range(30, 60), temperature=1.0, ignore_end=True)
    drawing, reading, waiting = many(1)[0], long, long
    engine, _, ears, tickets = start(tokenizer, drawing, reading, waiting, num_slots=2)
    for _ in range(4):
        engine.step()
    assert engine.stats().waiting == 1 and ears[0].ids and not ears[1].pieces
    for ticket in [*tickets, *tickets]:
        ticket.cancel()
    assert not engine.step()
    assert [ear.last.finish for ear in ears] == ["cancelled"] * 3
    assert engine.stats().free_slots == 2 and engine.stats().cancelled == 3 and not engine.has_work
    tickets[0].cancel()  # after the end: nothing
    assert not engine.step()


def test_the_waiting_line_is_bounded_and_says_when_to_come_again(tokenizer):
    engine, _, ears, _ = start(tokenizer, *many(5), num_slots=2, max_waiting=3)
    with pytest.raises(QueueFull, match="try again in") as refused:
        engine.submit(many(1)[0], Ear())
    assert 1 <= refused.value.retry_after_seconds <= 60
    engine.step()
    assert (engine.stats().running, engine.stats().waiting) == (2, 3)
    with pytest.raises(QueueFull):
        engine.submit(many(1)[0], Ear())
    run_until_idle(engine)
    assert all(ear.last.finish == "length" for ear in ears)
    engine.submit(many(1)[0], Ear())


def test_a_closed_engine_finishes_what_it_took_and_an_aborted_one_says_why(tokenizer):
    engine, _, ears, _ = start(tokenizer, *many(3), num_slots=2)
    engine.step()
    engine.stop_accepting()
    with pytest.raises(EngineClosed):
        engine.submit(many(1)[0], Ear())
    run_until_idle(engine)
    assert [ear.last.finish for ear in ears] == ["length"] * 3
    engine, _, ears, _ = start(tokenizer, *many(3), num_slots=2)
    engine.step()
    engine.abort(EngineClosed("out of order"))
    assert [str(ear.last.error) for ear in ears] == ["out of order"] * 3 and engine.stats().free_slots == 2
    with pytest.raises(EngineClosed, match="out of order"):
        engine.submit(many(1)[0], Ear())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask([]), "at least one token"), (ask([30] * 33), "at most 32 tokens .* found 33"), (ask([30, 999]), "ids from 0 to 299"),
        (ask([-1]), "ids from 0 to 299"), (ask([30], logit_bias={300: 1.0}), "logit_bias: expected ids from 0 to 299, found 300"),
        (ask([30], top_logprobs=-1), "top_logprobs"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_numbers(tokenizer, request_, message):
    engine, *_ = start(tokenizer)
    with pytest.raises(RequestError, match=message):
        engine.submit(request_, Ear())
    assert not engine.has_work


def test_a_prompt_as_long_as_a_slot_gives_exactly_one_token(tokenizer):
    engine, runner, (ear,), _ = start(tokenizer, ask([30] * 32, temperature=1.0, ignore_end=True))
    run_until_idle(engine)
    assert (len(ear.ids), ear.last.finish, runner.decoded) == (1, "length", 0)


def test_log_probabilities_are_those_of_the_model_before_any_rule(tokenizer):
    request = ask([30, 31, 32, 33, 34, 35], seed=3, temperature=0.7, top_k=2, logit_bias={90: 50.0}, top_logprobs=5, prompt_logprobs=True,
                  max_tokens=4, ignore_end=True)  # fmt: skip
    engine, _, (ear,), _ = start(tokenizer, request)
    run_until_idle(engine)
    runner, ids = HashRunner(tokenizer.vocab_size), list(request.prompt_ids)
    hidden = torch.cat([runner.prefill(0, ids[:4], 0), runner.prefill(0, ids[4:], 4)])
    for i, token in enumerate(ear.ids[:-1]):
        hidden = torch.cat([hidden, runner.decode([token], [0], [6 + i])])
    log_p = runner.logits(hidden).double().log_softmax(1)
    explained = [token for piece in ear.pieces for token in (*piece.prompt_tokens, *piece.tokens)]
    assert [token.token_id for token in explained] == [*ids[1:], *ear.ids]
    for row, token in zip(log_p, explained, strict=True):
        assert token.logprob == pytest.approx(float(row[token.token_id]), abs=1e-5)
        assert [i for i, _ in token.top] == row.topk(5).indices.tolist()
        assert np.allclose([p for _, p in token.top], row.topk(5).values, atol=1e-5)


def test_without_log_probabilities_none_are_computed_and_zero_alternatives_are_possible(tokenizer):
    engine, _, (plain, own), _ = start(
        tokenizer, ask([30], max_tokens=3, ignore_end=True), ask([30], max_tokens=3, ignore_end=True, top_logprobs=0)
    )
    run_until_idle(engine)
    assert plain.ids == own.ids
    assert {token.logprob for token in plain.tokens} == {0.0} and not any(token.top for token in own.tokens)
    assert all(token.logprob < 0 for token in own.tokens)


def test_usage_tells_the_time_to_the_first_token_and_in_all(tokenizer):
    ticks = iter(range(1000))
    engine, _, (ear,), _ = start(tokenizer, many(1)[0], clock=lambda: float(next(ticks)))
    run_until_idle(engine)
    assert 0 < ear.last.usage.queue_seconds < ear.last.usage.first_token_seconds < ear.last.usage.total_seconds


def test_equal_prompts_are_read_once_even_when_they_come_together(tokenizer):
    prompt = list(range(30, 56))
    engine, runner, ears, _ = start(tokenizer, *[ask(prompt, seed=i, temperature=1.0, max_tokens=3) for i in range(4)], num_slots=4)
    run_until_idle(engine)
    assert (runner.prefilled, runner.copied) == (26 + 3 * 2, 3 * 24)
    assert sorted(ear.last.usage.cached_tokens for ear in ears) == [0, 24, 24, 24]


def test_who_waits_for_anothers_reading_goes_on_alone_when_that_is_cancelled(tokenizer):
    prompt = list(range(30, 56))
    engine, runner, ears, tickets = start(tokenizer, *[ask(prompt, max_tokens=2, ignore_end=True)] * 2, num_slots=2)
    engine.step()
    engine.step()
    tickets[0].cancel()
    run_until_idle(engine)
    assert [ear.last.finish for ear in ears] == ["cancelled", "length"]
    assert (runner.prefilled, ears[1].last.usage.cached_tokens) == (26, 8)


def test_a_short_prompt_is_not_kept_waiting_by_a_long_one_nor_the_long_one_by_many_short(tokenizer):
    """Row S-25, counted in steps: a 4,000-token prompt in chunks of 128, then 20 short ones."""
    shape = {"num_slots": 24, "max_tokens": 4096, "chunk_tokens": 128}
    alone, _, (ear,), _ = start(tokenizer, ask([30, 31, 32], max_tokens=1), **shape)
    alone.step()
    assert ear.is_over  # an idle engine gives the first token of a short prompt in its first step
    engine, _, (long,), _ = start(tokenizer, ask([30 + i % 50 for i in range(4000)], max_tokens=1), **shape)
    engine.step()
    shorts = [Ear() for _ in range(20)]
    for i, short in enumerate(shorts):
        engine.submit(ask([60 + i, 31, 32], max_tokens=1), short)
    for _ in range(2 * 1 + 1):
        engine.step()
    assert all(short.is_over for short in shorts) and not long.is_over
    steps = 0
    while not long.is_over:  # more short ones than can be served, so that every slot is always taken
        engine.submit(ask([70 + steps % 9] * 100, max_tokens=1), Ear())
        engine.step()
        steps += 1
    assert steps <= 32 * 24  # a chunk each time that every other slot had its own


def test_a_step_reads_one_chunk_at_most_and_decodes_beside_it(tokenizer):
    talking, long = many(1)[0], ask([50] * 30, max_tokens=1)
    engine, runner, (talks, reads), _ = start(tokenizer, talking, long, num_slots=2)
    while not reads.is_over:
        prefilled, drawn = runner.prefilled, len(talks.ids)
        engine.step()
        assert runner.prefilled - prefilled <= runner.chunk_tokens
    assert drawn > 3
