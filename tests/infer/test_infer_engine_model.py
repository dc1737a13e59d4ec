"""The engine over real models: with the kernels for processors, the same request alone and among others gives the same tokens."""

import random

import pytest
import torch
from fake_runner import Ear, ask, run_until_idle

from inkstone.infer.engine import Engine
from inkstone.infer.native_runner import NativeRunner
from inkstone.infer.runners import make_runner
from inkstone.infer.speculate import DraftModel, PromptLookup
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import Tokenizer, train_bpe

torch.set_num_threads(1)
NUM_REQUESTS = 48


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["The stone 砚台 and the ink 墨。\n", "a b c d e f g 你好"] * 3, 300)


def make(tokenizer, num_layers=2):
    config = ModelConfig(num_layers=num_layers, num_heads=2, width=64, context=600, vocab_size=tokenizer.vocab_size)
    return Transformer(config, seed=1).eval()


def make_requests(tokenizer):
    rng = random.Random(5)
    shared = [rng.randrange(20, tokenizer.vocab_size) for _ in range(520)]  # two whole chunks and a little
    made = []
    for i in range(NUM_REQUESTS):
        prompt = shared[: rng.choice([0, 0, 300, 520])] + [
            rng.randrange(20, tokenizer.vocab_size) for _ in range(rng.randrange(1, 40))
        ]
        made.append(ask(prompt, seed=i, temperature=rng.choice([0.0, 1.0]), max_tokens=16, ignore_end=True, top_logprobs=2))
    return made


@pytest.mark.parametrize("guesses_with", ["nothing", "look-up", "draft"])
def test_the_same_request_alone_and_among_others_gives_the_same_tokens_and_log_probabilities(tokenizer, guesses_with):
    network = make(tokenizer)
    runner = make_runner(network, num_slots=8)
    if not isinstance(runner, NativeRunner):
        pytest.skip("rows are equal to the bit only with the kernels, and there is no compiler for them")
    speculator = {
        "nothing": lambda: None,
        "look-up": PromptLookup,
        "draft": lambda: DraftModel(make_runner(make(tokenizer, 1), num_slots=8), tokenizer),
    }[guesses_with]()
    requests = make_requests(tokenizer)
    engine, ears = Engine(runner, tokenizer, speculator=speculator), [Ear() for _ in requests]
    for request, ear in zip(requests, ears, strict=True):
        engine.submit(request, ear)
        engine.step()
    run_until_idle(engine)
    alone = Engine(make_runner(network, num_slots=1), tokenizer, reuses_prefixes=False)
    for request, ear in zip(requests, ears, strict=True):
        lone = Ear()
        alone.submit(request, lone)
        run_until_idle(alone)
        assert lone.tokens == ear.tokens and len(ear.tokens) == 16
    assert engine.stats().reused_tokens > 0
