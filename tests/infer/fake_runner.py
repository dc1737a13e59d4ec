"""A runner without a model: its scores are a pure hash of a slot's tokens and of how each of them was written."""

import numpy as np
import torch

from inkstone.infer.config import SamplingSettings
from inkstone.infer.request import Piece, Request

MASK = 2**52 - 1
DECODED = (0, 0)


class HashRunner:
    """Keeps for each position a hash of all that was written up to it: the token, and in which chunk (start, length) or by decoding.

    So a position that was written in another way than in a lone sequence changes everything behind it. `habit` makes token t be
    followed by the same one most of the time, so that guesses are sometimes right. With `is_exact` false it does not matter how a
    position was written, and a prefill may begin anywhere, as in a draft model.
    """

    def __init__(self, vocab_size, *, num_slots=2, max_tokens=32, chunk_tokens=4, habit=0.0, is_exact=True):
        self.vocab_size, self.num_slots, self.max_tokens, self.chunk_tokens = vocab_size, num_slots, max_tokens, chunk_tokens
        self.habit, self.is_exact = habit, is_exact
        self.slots = [[] for _ in range(num_slots)]  # (token, hash) of each position
        self.prefilled, self.decoded, self.copied, self.broken = 0, 0, 0, {}

    def write(self, slot, position, token, how):
        held = self.slots[slot]
        assert 0 <= position <= len(held) and position < self.max_tokens, (position, len(held))
        before = held[position - 1][1] if position else 7
        del held[position:]
        held.append((token, hash((before, token, *(how if self.is_exact else DECODED))) & MASK))

    def hidden(self, slot):
        token, found = self.slots[slot][-1]
        return [float(found), float(token)]

    def fail(self, name, slots):
        if any(slot in self.broken.get(name, ()) for slot in slots):
            raise MemoryError(f"{name} is broken")

    def prefill(self, slot, ids, start):
        assert 0 < len(ids) <= self.chunk_tokens and (start % self.chunk_tokens == 0 or not self.is_exact)
        self.fail("prefill", [slot])
        rows = []
        for i, token in enumerate(ids):
            self.write(slot, start + i, token, (start + 1, len(ids)))
            rows.append(self.hidden(slot))
        self.prefilled += len(ids)
        return torch.tensor(rows, dtype=torch.float64)

    def decode(self, ids, slots, positions):
        self.fail("decode", slots)
        rows = []
        for token, slot, position in zip(ids, slots, positions, strict=True):
            self.write(slot, position, token, DECODED)
            rows.append(self.hidden(slot))
        self.decoded += 1
        return torch.tensor(rows, dtype=torch.float64)

    def logits(self, hidden_RD):
        state_R1 = hidden_RD[:, :1].numpy().astype(np.uint64)
        with np.errstate(over="ignore"):
            x_RV = (state_R1 + np.arange(1, self.vocab_size + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            x_RV = (x_RV ^ (x_RV >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        logits_RV = torch.from_numpy(((x_RV >> np.uint64(40)).astype(np.float64) / 2**24 * 8).astype(np.float32))
        likely_R1 = (hidden_RD[:, 1:].long() % 11 * 5 + 20) % self.vocab_size
        return logits_RV.scatter_add_(1, likely_R1, torch.full((len(logits_RV), 1), self.habit))

    def copy(self, source, target, num_tokens):
        assert source != target and 0 < num_tokens <= len(self.slots[source]) and num_tokens % self.chunk_tokens == 0
        self.fail("copy", [target])
        self.slots[target] = self.slots[source][:num_tokens]
        self.copied += num_tokens


class Ear:
    """A listener that remembers, and that checks what holds of every row of pieces."""

    def __init__(self):
        self.pieces: list[Piece] = []

    def __call__(self, piece):
        assert not self.is_over, "a piece after the last"
        assert piece.is_last == (piece.usage is not None)
        assert piece.is_last or piece.text or piece.prompt_tokens
        self.pieces.append(piece)

    @property
    def is_over(self):
        return bool(self.pieces) and self.pieces[-1].is_last

    @property
    def last(self):
        assert self.is_over
        return self.pieces[-1]

    @property
    def text(self):
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self):
        return [token for piece in self.pieces for token in piece.tokens]

    @property
    def ids(self):
        return [token.token_id for token in self.tokens]


def ask(ids, *, seed=0, constraint=None, top_logprobs=None, prompt_logprobs=False, ignore_end=False, **sampling):
    return Request(
        prompt_ids=tuple(ids), settings=SamplingSettings(**sampling), seed=seed, top_logprobs=top_logprobs, constraint=constraint,
        prompt_logprobs=prompt_logprobs, ignore_end=ignore_end,
    )  # fmt: skip


def run_until_idle(engine, max_steps=10_000):
    for _ in range(max_steps):
        if not engine.step():
            return
    raise AssertionError("the engine never comes to rest")
