"""Beam search: the likeliest whole texts instead of drawn ones, for answers with one right wording (translation, summaries)."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from inkstone.base.errors import CheckpointError, RequestError
from inkstone.infer.prompt import silent_ids, stop_ids
from inkstone.infer.runner import Runner
from inkstone.infer.runners import make_runner
from inkstone.infer.sampling import BANNED, History, ban_repeated_ngrams

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

MAX_BEAMS = 64


@dataclasses.dataclass(frozen=True)
class BeamSettings:
    """How to search.

    A text's score is its log-probability divided by its number of tokens (the end token counts) to the power of `length_penalty`:
    0 compares log-probabilities, 1 means a token, more prefers longer texts.
    `early_stopping`: True ends with the first `num_beams` finished texts; False when the best unfinished one, were it to end now, would
    not be among them; "never" when it could not be, however long it became.
    """

    num_beams: int = 4
    max_tokens: int = 256
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_results: int = 1
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_beams <= MAX_BEAMS:
            raise RequestError(f"num_beams: expected 1 to {MAX_BEAMS}, found {self.num_beams}")
        if not 1 <= self.num_results <= self.num_beams:
            raise RequestError(f"num_results: expected 1 to {self.num_beams} (num_beams), found {self.num_results}")
        if self.max_tokens < 1:
            raise RequestError(f"max_tokens: expected at least 1, found {self.max_tokens}")


@dataclasses.dataclass(frozen=True)
class Beam:
    """A found text. `ids` are without the end token; `logprob` (nats, under the model's own distribution) is with it."""

    ids: tuple[int, ...]
    logprob: float
    score: float
    finish_reason: Literal["stop", "length"]


@dataclasses.dataclass(frozen=True)
class BeamText:
    """A found text with its figures; `tokens` counts the end token too."""

    text: str
    tokens: int
    logprob: float
    score: float
    finish_reason: Literal["stop", "length"]


class _Live(NamedTuple):
    ids: tuple[int, ...]
    logprob: float
    slot: int


class _Candidate(NamedTuple):
    parent: int
    token: int
    logprob: float


def beam_search(
    runner: Runner, prompt_ids: Sequence[int], settings: BeamSettings, *, end_ids: Collection[int], banned: Sequence[int] = (),
    vocab_size: int | None = None, slots: Sequence[int] | None = None,
) -> list[Beam]:  # fmt: skip
    """Return the best `num_results` texts after a prompt, best first.

    `slots` (at least `num_beams`, by default all) are written over. Tokens in `banned`, and from `vocab_size` on, are in no text.
    Raises: RequestError when the prompt is empty or does not fit, or there are too few slots; CheckpointError when scores are not finite.

    Source: Wu et al. 2016, section 7, with the plain power of the length in place of ((5 + length) / 6)**a, as in transformers.
    """
    slots = range(runner.num_slots) if slots is None else slots
    room = min(settings.max_tokens, runner.max_tokens - len(prompt_ids) + 1)
    _check(prompt_ids, runner.max_tokens, len(slots), settings)
    live, finished = [_Live((), 0.0, slots[0])], list[Beam]()
    logits_LV = runner.logits(_prefill(runner, prompt_ids, slots[0]))
    for length in range(1, room + 1):
        log_p_LV = _log_probabilities(logits_LV, prompt_ids, live, settings, banned, vocab_size)
        # With so many, `num_beams` are left to go on even if all others end here.
        candidates = _best(log_p_LV, live, settings.num_beams * (1 + max(1, len(end_ids))))
        finished = _finish(finished, candidates, live, length, end_ids, is_last=length == room, settings=settings)
        running = [candidate for candidate in candidates if candidate.token not in end_ids][: settings.num_beams]
        if length == room or not running or _is_settled(finished, running[0].logprob, length, room, settings):
            break
        num_written = len(prompt_ids) + length - 1
        live = _branch(runner, live, running, slots, num_written)
        logits_LV = runner.logits(
            runner.decode([one.ids[-1] for one in live], [one.slot for one in live], [num_written] * len(live))
        )
    return finished[: settings.num_results]


def beam_texts(
    network: "Transformer", tokenizer: "Tokenizer", prompt_ids: Sequence[int], settings: BeamSettings
) -> list[BeamText]:  # fmt: skip
    """Return the best texts of a model after a prompt, best first. Raises: as `beam_search`."""
    num_tokens = min(network.config.context, len(prompt_ids) + settings.max_tokens)
    runner = make_runner(network, num_slots=settings.num_beams, max_tokens=num_tokens)
    ends = stop_ids(tokenizer)
    beams = beam_search(
        runner, prompt_ids, settings, end_ids=ends, banned=silent_ids(tokenizer, ends), vocab_size=tokenizer.vocab_size
    )
    return [
        BeamText(
            tokenizer.decode(beam.ids), len(beam.ids) + (beam.finish_reason == "stop"), beam.logprob, beam.score, beam.finish_reason
        )
        for beam in beams
    ]


def _check(prompt_ids: Sequence[int], max_tokens: int, num_slots: int, settings: BeamSettings) -> None:
    if not prompt_ids:
        raise RequestError("prompt: expected at least one token, found none")
    if len(prompt_ids) > max_tokens:
        raise RequestError(f"prompt: expected at most {max_tokens:,} tokens, found {len(prompt_ids):,} — shorten it")
    if num_slots < settings.num_beams:
        raise RequestError(f"num_beams: expected at most {num_slots} (as many as there are free slots), found {settings.num_beams}")


def _prefill(runner: Runner, prompt_ids: Sequence[int], slot: int) -> Tensor:
    """Return hidden_1D of the prompt's last token."""
    for start in range(0, len(prompt_ids), runner.chunk_tokens):
        hidden_TD = runner.prefill(slot, prompt_ids[start : start + runner.chunk_tokens], start)
    return hidden_TD[-1:]


def _log_probabilities(
    logits_LV: Tensor, prompt_ids: Sequence[int], live: list[_Live], settings: BeamSettings, banned: Sequence[int], vocab_size: int | None
) -> Tensor:  # fmt: skip
    """Return the model's own log-probabilities, float64, with what may not be written at -inf."""
    if not bool(logits_LV.isfinite().all()):
        raise CheckpointError("expected finite scores for the next token, found NaN or infinity: the model's weights are damaged")
    log_p_LV = logits_LV.log_softmax(1)[:, :vocab_size]
    log_p_LV[:, list(banned)] = BANNED
    if settings.no_repeat_ngram:
        tokens_LT = torch.tensor([[*prompt_ids, *one.ids] for one in live], device=log_p_LV.device)
        length_L = torch.full((len(live),), tokens_LT.shape[1], device=log_p_LV.device)
        log_p_LV = ban_repeated_ngrams(log_p_LV, settings.no_repeat_ngram, History(tokens_LT, length_L, length_L))
    return log_p_LV.double()


def _best(log_p_LV: Tensor, live: list[_Live], num: int) -> list[_Candidate]:
    """Return the likeliest continuations of all live texts, best first."""
    so_far_L1 = torch.tensor([[one.logprob] for one in live], dtype=torch.float64, device=log_p_LV.device)
    total_N = (so_far_L1 + log_p_LV).flatten()
    values_K, places_K = total_N.topk(min(num, len(total_N)))
    size = log_p_LV.shape[1]
    pairs = zip(values_K.tolist(), places_K.tolist(), strict=True)
    return [_Candidate(place // size, place % size, value) for value, place in pairs if value > BANNED]


def _finish(
    finished: list[Beam], candidates: list[_Candidate], live: list[_Live], length: int, end_ids: Collection[int], *, is_last: bool,
    settings: BeamSettings,
) -> list[Beam]:  # fmt: skip
    """Return the best finished texts, those of this step included: an end outside the first `num_beams` candidates does not count."""
    made = list(finished)
    for parent, token, logprob in candidates[: settings.num_beams]:
        ids, score = live[parent].ids, logprob / length**settings.length_penalty
        if token in end_ids:
            made.append(Beam(ids, logprob, score, "stop"))
        elif is_last:
            made.append(Beam((*ids, token), logprob, score, "length"))
    return sorted(made, key=lambda beam: beam.score, reverse=True)[: settings.num_beams]


def _is_settled(finished: list[Beam], best_running: float, length: int, room: int, settings: BeamSettings) -> bool:
    """Whether no running text is to replace a finished one."""
    if len(finished) < settings.num_beams:
        return False
    if settings.early_stopping is True or settings.num_beams == 1:  # of one beam, the rest is not what greedy decoding writes
        return True
    reaches = room if settings.early_stopping == "never" and settings.length_penalty > 0 else length
    return best_running / reaches**settings.length_penalty <= finished[-1].score


def _branch(
    runner: Runner, live: list[_Live], running: list[_Candidate], slots: Sequence[int], num_written: int
) -> list[_Live]:  # fmt: skip
    """Return the running texts in slots of their own: the first child of a text goes on in its slot, the others in copies."""
    kept = {live[candidate.parent].slot for candidate in running}
    free = [slot for slot in slots if slot not in kept]
    taken: set[int] = set()
    branched = []
    for parent, token, logprob in running:
        ids, _, slot = live[parent]
        if slot in taken:
            source, slot = slot, free.pop()
            runner.copy(source, slot, num_written)
        taken.add(slot)
        branched.append(_Live((*ids, token), logprob, slot))
    return branched
