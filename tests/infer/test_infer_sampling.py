"""Laws over the table of sampling rules, their borders, and transformers' processors as the oracle."""

import math

import pytest
import torch

from inkstone.base.errors import CheckpointError
from inkstone.infer import sampling
from inkstone.infer.config import SamplingSettings
from inkstone.infer.draw import Sampler, draw, uniform
from inkstone.infer.sampling import BANNED, RULES, History, active_rules

torch.set_num_threads(1)
V = 600


@pytest.fixture(autouse=True)
def short_head(monkeypatch):
    """Let some nuclei not lie within the tokens that top-p sorts first."""
    monkeypatch.setattr(sampling, "_HEAD", 256)


def make_history(rows, prompt_lengths=None, padding=3):
    width = max(map(len, rows)) + padding
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return History(tokens, lengths, lengths if prompt_lengths is None else torch.tensor(prompt_lengths))


def make_logits(rows=3, scale=3.0, seed=0):
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * scale


HISTORY = make_history([[5, 6, 5, 6, 5], [1, 2, 3], [9]])
UNUSUAL = {  # a setting at which each rule does change something
    "logit_bias": {3: 5.0, 7: -100.0}, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5, "no_repeat_ngram": 2, "temperature": 0.5,
    "top_k": 5, "top_p": 0.5, "min_p": 0.2, "typical_p": 0.5,
}  # fmt: skip


def kept(logits):
    return [sorted(torch.nonzero(row > BANNED)[:, 0].tolist()) for row in logits]


@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_the_identity_at_its_neutral_setting(name):
    assert torch.equal(RULES[name].apply(make_logits(), RULES[name].neutral, HISTORY), make_logits())


@pytest.mark.parametrize("name", RULES)
def test_each_rule_has_a_setting_of_its_name_and_does_something(name):
    neutral = SamplingSettings(**{rule: RULES[rule].neutral for rule in RULES})
    assert active_rules(neutral) == []
    assert active_rules(neutral.model_copy(update={name: UNUSUAL[name]})) == [(RULES[name].apply, UNUSUAL[name])]
    history = make_history([[5, 6, 5, 6, 5], [1, 2, 1], [9, 9, 9]], prompt_lengths=[1, 1, 1])
    assert not torch.equal(RULES[name].apply(make_logits(), UNUSUAL[name], history), make_logits())


@pytest.mark.parametrize("name", RULES)
def test_a_rule_changes_neither_its_argument_nor_a_neighbours_row(name):
    logits, history = make_logits(), make_history([[5, 6, 5, 6, 5], [1, 2, 1], [9, 9, 9]], prompt_lengths=[1, 1, 1])
    before = logits.clone()
    together = RULES[name].apply(logits, UNUSUAL[name], history)
    assert torch.equal(logits, before)
    for row in range(3):
        alone = History(history.tokens[row, None], history.length[row, None], history.prompt_length[row, None])
        assert torch.equal(RULES[name].apply(logits[row, None], UNUSUAL[name], alone)[0], together[row])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 1e-9),
        ("top_k", 1),
        ("top_p", 0.0),
        ("top_p", 1e-9),
        ("min_p", 1.0),
        ("typical_p", 0.0),
        ("no_repeat_ngram", 1),
    ],
)
def test_the_hardest_cut_leaves_a_token_in_every_row(name, value):
    history = make_history([list(range(V))] * 3)
    for logits in (make_logits(), torch.zeros(3, V)):
        assert all(kept(RULES[name].apply(logits, value, history)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.3, 3.0, 12.0])
def test_rules_equal_the_processors_of_transformers(seed, scale):
    oracle = pytest.importorskip("transformers.generation.logits_process")
    logits = make_logits(scale=scale, seed=seed)
    tokens = torch.randint(0, 6, (3, 40), generator=torch.Generator().manual_seed(seed))
    history = make_history(tokens.tolist())
    pairs = [
        ("repetition_penalty", 1.3, oracle.RepetitionPenaltyLogitsProcessor(1.3)),
        ("no_repeat_ngram", 1, oracle.NoRepeatNGramLogitsProcessor(1)),
        ("no_repeat_ngram", 2, oracle.NoRepeatNGramLogitsProcessor(2)),
        ("no_repeat_ngram", 4, oracle.NoRepeatNGramLogitsProcessor(4)),
        ("temperature", 0.7, oracle.TemperatureLogitsWarper(0.7)),
        ("top_k", 7, oracle.TopKLogitsWarper(7)),
        ("top_p", 0.3, oracle.TopPLogitsWarper(0.3)),
        ("top_p", 0.97, oracle.TopPLogitsWarper(0.97)),
        ("min_p", 0.05, oracle.MinPLogitsWarper(0.05)),
        ("typical_p", 0.4, oracle.TypicalLogitsWarper(0.4)),
    ]
    for name, value, processor in pairs:
        ours, theirs = RULES[name].apply(logits, value, history), processor(tokens, logits.clone())
        assert kept(ours) == kept(theirs), (name, value)
        assert torch.allclose(ours.softmax(1), theirs.softmax(1), atol=1e-6), (name, value)


def test_top_p_keeps_exactly_one_token_that_alone_exceeds_p():
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    assert kept(RULES["top_p"].apply(logits, 0.5, HISTORY)) == [[0]]
    assert kept(RULES["top_p"].apply(logits, 0.0, HISTORY)) == [[0]]
    assert kept(RULES["top_p"].apply(logits, 0.7, HISTORY)) == [[0, 1]]


def test_tokens_that_tie_at_the_border_all_stay():
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert kept(RULES["top_k"].apply(logits, 2, HISTORY)) == [[0, 1, 2, 3]]
    assert kept(RULES["top_p"].apply(logits, 0.6, HISTORY)) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("value", [-0.0, 0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, BANNED])
def test_the_border_itself_is_kept_and_the_number_before_it_is_not(value):
    border = torch.tensor(value)
    logits = torch.stack([border, border.nextafter(torch.tensor(-3.4e38)), torch.tensor(BANNED)])[None]
    kept_of_one = RULES["top_k"].apply(logits, 1, HISTORY)
    assert kept_of_one.tolist()[0] == logits.masked_fill(logits < logits.max(), BANNED).tolist()[0]


@pytest.mark.parametrize("k", [V, V + 1, 2**24])
def test_top_k_of_the_vocabulary_or_more_keeps_all(k):
    assert torch.equal(RULES["top_k"].apply(make_logits(), k, HISTORY), make_logits())


def test_penalties_count_generated_tokens_and_not_the_prompt():
    logits, history = torch.zeros(1, 8), make_history([[1, 1, 2, 3, 3]], prompt_lengths=[2])
    assert RULES["presence_penalty"].apply(logits, 1.0, history).tolist() == [[0, 0, -1, -1, 0, 0, 0, 0]]
    assert RULES["frequency_penalty"].apply(logits, 1.0, history).tolist() == [[0, 0, -1, -2, 0, 0, 0, 0]]


def test_a_bias_moves_only_its_tokens_and_lifts_no_ban():
    logits = torch.tensor([[0.0, 1.0, BANNED, 3.0]])
    assert RULES["logit_bias"].apply(logits, {0: -100, 2: 100.0}, HISTORY).tolist() == [[-100, 1, BANNED, 3]]


def test_a_row_in_which_every_token_is_a_repetition_is_left_alone():
    logits = torch.zeros(1, 4)
    assert torch.equal(RULES["no_repeat_ngram"].apply(logits, 1, make_history([[0, 1, 2, 3]])), logits)


@pytest.mark.parametrize("temperature", [0.0, -0.0])
def test_temperature_zero_is_greedy_and_of_equals_the_first(temperature):
    logits = torch.tensor([[0.0, 5.0, 5.0], [3.0, 1.0, 2.0]])
    settings = SamplingSettings(temperature=temperature)
    assert Sampler(settings)(logits, HISTORY, [1, 2], [0, 0]).tolist() == [1, 0]
    assert kept(RULES["temperature"].apply(logits, 0.0, HISTORY)) == [[1], [0]]


def test_the_coldest_temperature_stays_finite_and_picks_the_likeliest():
    sample = Sampler(SamplingSettings(temperature=1e-300, top_p=1.0))
    assert sample(torch.tensor([[1000.0, 1001.0, -1000.0]]), HISTORY, [7], [0]).tolist() == [1]


@pytest.mark.parametrize("temperature", [0, 0.8, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(temperature, bad):
    logits = torch.zeros(1, V)
    logits[0, 3] = bad
    for cut in ({}, {"top_k": 5}, {"typical_p": 0.9}, {"min_p": 0.1}):
        with pytest.raises(CheckpointError, match="finite"):
            Sampler(SamplingSettings(temperature=temperature, **cut))(logits, HISTORY, [0], [0])


def test_a_draw_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.0, 0.1, 0.2, 0.0, 0.7, 0.0]).log().repeat(5, 1)
    points = torch.tensor([0.0, 0.0999, 0.1001, 0.3001, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, points).tolist() == [1, 1, 2, 4, 4]


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.25, 0.2, 0.05])
    points = torch.tensor([uniform(3, t) for t in range(10_000)], dtype=torch.float64)
    counts = torch.bincount(draw(probabilities.log().repeat(10_000, 1), points), minlength=4) / 10_000
    assert torch.allclose(counts, probabilities, atol=0.015)


def test_a_rows_token_depends_on_its_seed_and_position_and_not_on_its_neighbours():
    sample, logits = Sampler(SamplingSettings(temperature=1.0)), make_logits(rows=1).repeat(3, 1)
    together = sample(logits, HISTORY, [11, 12, 13], [4, 5, 6]).tolist()
    alone = [sample(logits[:1], HISTORY, [seed], [position]).item() for seed, position in ((11, 4), (12, 5), (13, 6))]
    assert together == alone
    assert len({uniform(seed, position) for seed in range(20) for position in range(20)}) == 400
