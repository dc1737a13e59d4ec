"""OpenAI's objects, and how tokens are spelled in them; what is not OpenAI's is said to be ours."""

import functools
import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import (
    TYPE_CHECKING,
    Any,
    NotRequired,  # pydantic reads these before Python 3.12
)

from typing_extensions import TypedDict

from inkstone.infer.request import Usage
from inkstone.serve.deltas import ScoredToken

if TYPE_CHECKING:
    from inkstone.serve.models import ServedModel
    from inkstone.text.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0  # JSON has no word for -inf


class PromptDetails(TypedDict):
    """How much of the prompts did not have to be computed."""

    cached_tokens: int


class UsageObject(TypedDict):
    """What a request took, in tokens: each prompt once, every text that was drawn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Timings(TypedDict):
    """Not OpenAI's: how fast the request was answered."""

    first_token_seconds: float
    tokens_per_second: float


class Head(TypedDict):
    """What a reply and each chunk of a stream begin with."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str


class TextLogprobs(TypedDict):
    """Log-probabilities as /v1/completions has them: lists of equal length, offsets in characters of the text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TopLogprob(TypedDict):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(TopLogprob):
    """A token that does stand there, and the likeliest at its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities as /v1/chat/completions has them."""

    content: list[ChatLogprob]
    refusal: None


class Spelling:
    """What tokens look like in a reply: their text, or `bytes:\\xe5\\xa2` where they are no whole characters."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._special = {index: text for text, index in tokenizer.special.items()}

    def text(self, token_id: int) -> str:
        """Return a token as text; special tokens have their names."""
        if token_id in self._special:
            return self._special[token_id]
        raw = self._tokenizer.bytes_of(token_id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def as_text_logprobs(self, tokens: Iterable[ScoredToken]) -> TextLogprobs:
        """Return the tokens as /v1/completions has them."""
        found = TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for token in tokens:
            found["tokens"].append(self.text(token.token_id))
            found["token_logprobs"].append(None if token.logprob is None else _finite(token.logprob))
            found["top_logprobs"].append(self._top_texts(token))
            found["text_offset"].append(token.offset)
        return found

    def _top_texts(self, token: ScoredToken) -> dict[str, float] | None:
        if token.logprob is None:
            return None
        top: dict[str, float] = {}
        for token_id, logprob in (*token.top, (token.token_id, token.logprob)):
            top.setdefault(self.text(token_id), _finite(logprob))  # two tokens can look the same: the likelier one is told
        return top

    def as_chat_logprobs(self, tokens: Iterable[ScoredToken]) -> ChatLogprobs:
        """Return the tokens as /v1/chat/completions has them."""
        content = [
            ChatLogprob(**self._top(token.token_id, token.logprob or 0.0), top_logprobs=[self._top(*top) for top in token.top])
            for token in tokens
        ]
        return ChatLogprobs(content=content, refusal=None)

    def _top(self, token_id: int, logprob: float) -> TopLogprob:
        raw = None if token_id in self._special else list(self._tokenizer.bytes_of(token_id))
        return TopLogprob(token=self.text(token_id), logprob=_finite(logprob), bytes=raw)


def _finite(logprob: float) -> float:
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB  # also of NaN


def make_head(model: "ServedModel", *, prefix: str, kind: str) -> Head:
    """Return a new id and what else all parts of one reply have in common."""
    return Head(
        id=f"{prefix}-{secrets.token_hex(12)}", object=kind, created=int(time.time()), model=model.name,
        system_fingerprint=_fingerprint(model.name, model.created, model.tokenizer.fingerprint),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _fingerprint(name: str, created: int, tokenizer: str) -> str:
    """Return what changes when the same seed may give another text."""
    made_of = "/".join([version("inkstone"), name, str(created), tokenizer])
    return "fp_" + hashlib.sha256(made_of.encode()).hexdigest()[:12]


def sum_usage(usages: Sequence[Usage], *, each: int) -> UsageObject:
    """Return the sum over the texts of a request, of which `each` share a prompt."""
    prompts = usages[::each]
    read, drawn = sum(usage.prompt_tokens for usage in prompts), sum(usage.completion_tokens for usage in usages)
    return UsageObject(
        prompt_tokens=read, completion_tokens=drawn, total_tokens=read + drawn,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(usage.cached_tokens for usage in prompts)),
    )  # fmt: skip


def sum_timings(usages: Sequence[Usage]) -> Timings:
    """Return the time to the first token of all, and the rate of those behind the first of each text."""
    first = min(usage.first_token_seconds for usage in usages)
    seconds = max(usage.total_seconds for usage in usages) - first
    num_timed = sum(max(0, usage.completion_tokens - 1) for usage in usages)
    return Timings(first_token_seconds=round(first, 6), tokens_per_second=round(num_timed / seconds, 3) if seconds > 0 else 0.0)


class TextChoice(TypedDict):
    """One text of /v1/completions, whole or a piece of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str | None


class TextReply(Head):
    """The answer of /v1/completions; the chunks of its stream look the same, but for the usage."""

    choices: list[TextChoice]
    usage: UsageObject
    timings: Timings


class ChatMessage(TypedDict):
    """An answer."""

    role: str
    content: str
    refusal: None


class ChatChoice(TypedDict):
    """One answer of /v1/chat/completions."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatReply(Head):
    """The answer of /v1/chat/completions."""

    choices: list[ChatChoice]
    usage: UsageObject
    timings: Timings


class ModelObject(TypedDict):
    """One model; from `context` on the fields are not OpenAI's."""

    id: str
    object: str
    created: int
    owned_by: str
    context: int
    chat: bool
    sampling: dict[str, Any]
    card: str


class ModelList(TypedDict):
    """All models."""

    object: str
    data: list[ModelObject]


class Curves(TypedDict):
    """Loss by step, as [step, loss], in training and on the validation split."""

    train: list[tuple[int, float]]
    val: list[tuple[int, float]]


class Embedding(TypedDict):
    """The embedding of one input: numbers, or base64 of little-endian float32."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """What the inputs took."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingReply(TypedDict):
    """The answer of /v1/embeddings."""

    object: str
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class TokenizeReply(TypedDict):
    """The answer of /tokenize; `token_strs` only where it was asked for."""

    model: str
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: NotRequired[list[str]]


class DetokenizeReply(TypedDict):
    """The answer of /detokenize."""

    model: str
    prompt: str
