"""One request for text as a plan: which sequences it needs, and how their texts become OpenAI's objects."""

import asyncio
import dataclasses
import functools
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp

from inkstone.base.errors import RequestError
from inkstone.base.seeds import derive_seed
from inkstone.infer.constraint_compile import ConstraintCompiler
from inkstone.infer.request import Constraint, Piece, Request
from inkstone.serve.deltas import ChoiceText, Delta, Echo
from inkstone.serve.errors import ApiError
from inkstone.serve.replies import ChatLogprobs, Head, Spelling, TextLogprobs, Timings, UsageObject, sum_timings, sum_usage
from inkstone.serve.schemas import Sampled, refuse, sampling_settings
from inkstone.serve.sequences import Mailbox, Sequences
from inkstone.serve.streaming import StreamedReply, WholeReply

if TYPE_CHECKING:
    from inkstone.infer.config import SamplingSettings
    from inkstone.serve.models import ServedModel
    from inkstone.text.tokenizer import Tokenizer

_SEED_BITS = 31  # of a seed that nobody gave
_MAX_COMPILERS = 64


class Form(Protocol):
    """How a choice looks: whole, and in the chunks of a stream."""

    prefix: str  # of the reply's id
    reply_kind: str
    chunk_kind: str

    def choice(self, index: int, delta: Delta, logprobs: Any) -> dict[str, Any]:
        """Return a whole choice."""

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return the first chunk's choice, or None where there is none."""

    def pieces(self, index: int, delta: Delta, logprobs: Any) -> list[dict[str, Any]]:
        """Return the chunks' choices of one delta."""

    def logprobs(self, spelling: Spelling, delta: Delta) -> TextLogprobs | ChatLogprobs:
        """Return the log-probabilities of a delta."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a request comes to: `requests` are those of the first prompt, then of the second …, `each` a prompt.

    Of each prompt's texts the `kept` likeliest are returned; `echoes` has one prompt each, or is empty. `is_empty`: no text is wanted.
    """

    model: "ServedModel"
    form: Form
    head: Head
    requests: list[Request]
    each: int
    kept: int
    is_scored: bool
    echoes: list[Echo]
    is_empty: bool = False

    def begin(self) -> "Texts":
        """Return the texts, none of which has begun."""
        return Texts(self)


class Texts:
    """Guards the texts of one request as they grow."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._spelling = Spelling(plan.model.tokenizer)
        self._choices = [
            ChoiceText(
                plan.model.tokenizer, is_scored=plan.is_scored, echo=plan.echoes[i // plan.each] if plan.echoes else None,
                is_empty=plan.is_empty,
            )
            for i in range(len(plan.requests))
        ]  # fmt: skip

    def push(self, index: int, piece: Piece) -> Delta:
        """Return what a piece adds to the text of its sequence."""
        return self._choices[index].push(piece)

    def logprobs(self, delta: Delta) -> TextLogprobs | ChatLogprobs | None:
        """Return a delta's log-probabilities, where they are wanted."""
        return self.plan.form.logprobs(self._spelling, delta) if self.plan.is_scored else None

    def choose(self) -> list[int]:
        """Return the sequences whose texts are returned, the likeliest of a prompt first where there is a choice."""
        each, kept = self.plan.each, self.plan.kept
        chosen: list[int] = []
        for first in range(0, len(self._choices), each):
            indices = range(first, first + each)
            best = sorted(indices, key=lambda i: -self._choices[i].mean_logprob) if kept < each else indices
            chosen += best[:kept]
        return chosen

    def usage(self) -> UsageObject:
        """Return what the texts took."""
        return sum_usage([choice.usage for choice in self._choices if choice.usage is not None], each=self.plan.each)

    def timings(self) -> Timings:
        """Return how fast they came."""
        return sum_timings([choice.usage for choice in self._choices if choice.usage is not None])


def make_requests(
    asked: Sampled, model: "ServedModel", prompts: Sequence[Sequence[int]], *, max_tokens: Sequence[int], each: int,
    top_logprobs: int | None, prompt_logprobs: bool = False, constraints: Sequence[Constraint | None],
) -> list[Request]:  # fmt: skip
    """Return `each` requests for every prompt: the first draws with the seed, the others with seeds derived from it.

    A prompt's texts do not depend on the prompts beside it.
    """
    seed = secrets.randbits(_SEED_BITS) if asked.seed is None else asked.seed
    seeds = [seed, *(derive_seed(seed, "choice", i) for i in range(1, each))]
    settings = [_settings(asked, model, room) for room in max_tokens]
    left = iter(constraints)
    return [
        Request(
            prompt_ids=tuple(ids), settings=prompt_settings, seed=seed, top_logprobs=top_logprobs, constraint=next(left),
            prompt_logprobs=prompt_logprobs,
        )
        for ids, prompt_settings in zip(prompts, settings, strict=True)
        for seed in seeds
    ]  # fmt: skip


def _settings(asked: Sampled, model: "ServedModel", max_tokens: int) -> "SamplingSettings":
    return sampling_settings(asked, recommended=model.sampling, max_tokens=max(1, max_tokens))


def check_common(asked: Sampled, model: "ServedModel") -> None:
    """Raises: ApiError 400 for fields that do not go together, or not with this model."""
    if asked.stream_options is not None and not asked.stream:
        raise refuse("stream_options", "expected only together with stream")
    size = model.tokenizer.vocab_size
    if asked.logit_bias and max(asked.logit_bias) >= size:
        raise refuse("logit_bias", f"expected token ids from 0 to {size - 1:,}, found {max(asked.logit_bias):,}")
    wanted = [name for name, value in (("regex", asked.regex), ("choice", asked.choice)) if value is not None]
    if asked.response_format is not None and asked.response_format.type != "text":
        wanted.append("response_format")
    if len(wanted) > 1:
        raise refuse(wanted[0], f"expected one form of the text, found {' and '.join(wanted)}")


async def make_constraints(asked: Sampled, model: "ServedModel", count: int) -> list[Constraint | None]:
    """Return a constraint for each of `count` sequences; compiled beside the event loop. Raises: ApiError 400."""
    shape = asked.response_format
    is_free = (shape is None or shape.type == "text") and asked.regex is None and asked.choice is None
    return [None] * count if is_free else list(await asyncio.to_thread(_compile, asked, model.tokenizer, count))


def _compile(asked: Sampled, tokenizer: "Tokenizer", count: int) -> list[Constraint]:
    compiler = _compiler(tokenizer)
    shape = asked.response_format
    try:
        if asked.regex is not None:
            param, pattern = "regex", asked.regex
            return [compiler.regex(pattern) for _ in range(count)]
        if asked.choice is not None:
            param, choices = "choice", asked.choice
            return [compiler.choice(choices) for _ in range(count)]
        param = "response_format"
        if shape is None or shape.json_schema is None or shape.type == "json_object":
            return [compiler.json_object() for _ in range(count)]
        return [compiler.json_schema(shape.json_schema.json_schema) for _ in range(count)]
    except RequestError as error:
        raise ApiError(400, str(error), param=param) from None


@functools.lru_cache(maxsize=_MAX_COMPILERS)
def _compiler(tokenizer: "Tokenizer") -> ConstraintCompiler:
    """Return the one of a model: it keeps what it compiled."""
    return ConstraintCompiler(tokenizer)


def answer(request: HttpRequest, plan: Plan, asked: Sampled) -> ASGIApp:
    """Submit the plan's sequences and return the response that hears them. Raises: ApiError 429, 503."""
    sequences = Sequences(plan.model, plan.requests, Mailbox.of(request.app))
    seconds = request.app.state.settings.timeout
    if asked.stream:
        return StreamedReply(plan, sequences, seconds=seconds, includes_usage=asked.includes_usage)
    return WholeReply(plan, sequences, seconds=seconds)
