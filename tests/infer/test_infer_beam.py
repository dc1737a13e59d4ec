"""Beam search against transformers' on the same weights, against all texts of a tiny vocabulary, and against greedy decoding."""

import itertools

import pytest
import torch

from inkstone.base.errors import CheckpointError, RequestError
from inkstone.checkpoint.huggingface import to_huggingface
from inkstone.infer.batch import continue_greedily
from inkstone.infer.beam import MAX_BEAMS, BeamSettings, beam_search
from inkstone.infer.torch_runner import TorchRunner
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer

torch.set_num_threads(1)
PROMPT = [3, 1, 4, 1, 5]
END = 2


def random_model(vocab_size=40, context=24, spread=0.3, **shape):
    config = ModelConfig(preset="gpt", num_layers=2, num_heads=2, width=16, context=context, vocab_size=vocab_size, **shape)
    model = Transformer(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm.weight" in name else 0.0, spread, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def network():
    return random_model()


def search(network, prompt=PROMPT, *, end_ids=(END,), banned=(), num_slots=None, **settings):
    chosen = BeamSettings(**settings)
    runner = TorchRunner(network, num_slots=num_slots or chosen.num_beams, chunk_tokens=2)
    return beam_search(runner, prompt, chosen, end_ids=end_ids, banned=banned)


@pytest.fixture(scope="module")
def theirs(network):
    transformers = pytest.importorskip("transformers")
    config_json, tensors = to_huggingface(network.config, network.state_dict())
    names = {name: value for name, value in config_json.items() if name != "model_type"}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**names)).eval()
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    return model


SEARCHES = [
    {"num_beams": 2}, {"num_beams": 5, "length_penalty": 0.0}, {"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 4, "length_penalty": -1.0},
    {"num_beams": 3, "early_stopping": True}, {"num_beams": 3, "early_stopping": "never"}, {"num_beams": 8, "early_stopping": True, "length_penalty": 2.0},
    {"num_beams": 6, "early_stopping": "never", "length_penalty": 0.5}, {"num_beams": 4, "no_repeat_ngram": 2}, {"num_beams": 4, "max_tokens": 1},
]  # fmt: skip


@pytest.mark.parametrize("settings", SEARCHES, ids=str)
@pytest.mark.parametrize("ends", [(END,), (7, 11, 13)], ids=["one end", "three ends"])
def test_texts_and_scores_are_those_of_transformers(network, theirs, settings, ends):
    settings = {"max_tokens": 12, "num_results": settings["num_beams"]} | settings
    names = {"max_tokens": "max_new_tokens", "num_results": "num_return_sequences", "no_repeat_ngram": "no_repeat_ngram_size"}
    for prompt in (PROMPT, [9], [6, 6, 30]):
        ours = search(network, prompt, end_ids=ends, **settings)
        found = theirs.generate(
            torch.tensor([prompt]), do_sample=False, eos_token_id=list(ends), pad_token_id=END, return_dict_in_generate=True,
            output_scores=True, **{names.get(name, name): value for name, value in settings.items()},
        )  # fmt: skip
        texts = [row[len(prompt) :].tolist() for row in found.sequences]
        lengths = [(row >= 0).sum() for row in found.beam_indices]
        expected = [
            tuple(token for token in text[:length] if token not in ends) for text, length in zip(texts, lengths, strict=True)
        ]
        assert [beam.ids for beam in ours] == expected
        torch.testing.assert_close(torch.tensor([beam.score for beam in ours]), found.sequences_scores, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_with_beams_for_all_texts_the_search_is_exhaustive(length_penalty):
    network, steps = random_model(vocab_size=3, context=8), 3
    expected = []
    for length in range(steps):
        for ids in itertools.product((0, 1), repeat=length):
            expected.append((ids, (*ids, END), "stop"))
    expected += [(ids, ids, "length") for ids in itertools.product((0, 1), repeat=steps)]
    scored = []
    for ids, written, finish in expected:
        whole = [1, 0, *written]
        with torch.inference_mode():
            log_p_TV = network.logits(network(torch.tensor([whole])))[0].double().log_softmax(1)
        logprob = sum(float(log_p_TV[t + 1, token]) for t, token in enumerate(written))
        scored.append((logprob / len(written) ** length_penalty, logprob, ids, finish))
    scored.sort(reverse=True)
    found = search(
        network, [1, 0], num_beams=32, num_results=32, max_tokens=steps, length_penalty=length_penalty, early_stopping="never"
    )
    assert [(beam.ids, beam.finish_reason) for beam in found] == [(ids, finish) for _, _, ids, finish in scored]
    for beam, (score, logprob, _, _) in zip(found, scored, strict=True):
        assert beam.score == pytest.approx(score, abs=1e-5) and beam.logprob == pytest.approx(logprob, abs=1e-5)


@pytest.mark.parametrize("end", range(0, 40, 5))
def test_one_beam_is_greedy_decoding(network, end):
    (beam,) = search(network, num_beams=1, max_tokens=15, end_ids=(end,))
    assert list(beam.ids) == continue_greedily(network, [PROMPT], stop_ids={end}, max_tokens=15)[0]
    assert beam.finish_reason == ("length" if len(beam.ids) == 15 else "stop")


def test_a_beam_before_the_end_keeps_its_own_cache(network):
    """Each found text has the log-probability that a whole forward gives it, so no beam read another's positions."""
    for beam in search(network, num_beams=6, num_results=6, max_tokens=14, early_stopping="never"):
        written = [*beam.ids, END] if beam.finish_reason == "stop" else list(beam.ids)
        with torch.inference_mode():
            log_p_TV = network.logits(network(torch.tensor([PROMPT + written])))[0].log_softmax(1)
        expected = sum(float(log_p_TV[len(PROMPT) - 1 + t, token]) for t, token in enumerate(written))
        assert beam.logprob == pytest.approx(expected, abs=1e-4)
        assert beam.score == pytest.approx(expected / len(written), abs=1e-4)


def test_only_the_given_slots_are_written(network):
    runner = TorchRunner(network, num_slots=6)
    runner.prefill(1, [8, 9, 10], 0)
    before = runner.store.clone()
    settings = BeamSettings(num_beams=3, max_tokens=8)
    found = beam_search(runner, PROMPT, settings, end_ids=(END,), slots=[5, 0, 3])
    same = [torch.equal(runner.store[:, :, slot], before[:, :, slot]) for slot in range(6)]
    assert same == [False, True, True, False, True, False]
    assert [beam.ids for beam in found] == [beam.ids for beam in search(network, num_beams=3, max_tokens=8)]


def test_banned_and_unknown_tokens_are_in_no_text(network):
    first = search(network, num_beams=4, num_results=4, max_tokens=8)
    banned = sorted({token for beam in first for token in beam.ids})[:3]
    again = search(network, num_beams=4, num_results=4, max_tokens=8, banned=banned)
    assert not {token for beam in again for token in beam.ids} & set(banned)
    runner = TorchRunner(network, num_slots=4)
    small = beam_search(runner, PROMPT, BeamSettings(num_beams=4, num_results=4, max_tokens=8), end_ids=(END,), vocab_size=20)
    assert all(token < 20 for beam in small for token in beam.ids)


def test_more_beams_than_tokens_are_as_many_as_there_are():
    found = search(random_model(vocab_size=3), [1, 0], num_beams=8, num_results=8, max_tokens=1)
    assert sorted(beam.ids for beam in found) == [(), (0,), (1,)]


def test_a_full_context_ends_the_search(network):
    prompt = [1] * network.config.context
    (beam,) = search(network, prompt, num_beams=2, max_tokens=50, end_ids=())
    assert (len(beam.ids), beam.finish_reason) == (1, "length")
    (beam,) = search(network, prompt[:20], num_beams=2, max_tokens=50, end_ids=())
    assert len(beam.ids) == 5
    with pytest.raises(RequestError, match="at most 24 tokens, found 25"):
        search(network, [*prompt, 1], num_beams=2)
    with pytest.raises(RequestError, match="at least one token"):
        search(network, [], num_beams=2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_beams": 0}, "num_beams: expected 1 to"), ({"num_beams": MAX_BEAMS + 1}, "num_beams"), ({"num_results": 5}, "num_results: expected 1 to 4"),
        ({"num_results": 0}, "num_results"), ({"max_tokens": 0}, "max_tokens"),
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(settings, expected):
    with pytest.raises(RequestError, match=expected):
        BeamSettings(**settings)


def test_too_few_slots_are_refused(network):
    with pytest.raises(RequestError, match=r"at most 3 .* found 4"):
        search(network, num_beams=4, num_slots=3)


def test_scores_that_are_not_finite_are_a_checkpoint_error():
    broken = random_model()
    with torch.no_grad():
        broken.final_norm.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="finite"):
        search(broken)
