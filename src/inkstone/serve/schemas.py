"""What a caller may ask, as strict models: every field with its type and bounds. What is wrong becomes one 400 with the field's path."""

import functools
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field, StringConstraints

from inkstone.infer.config import MAX_SEED, SamplingSettings
from inkstone.serve.errors import ApiError
from inkstone.serve.fields import Biases, Content, Ids, Inputs, JsonSchema, Prompts, Stops, describe
from inkstone.serve.logs import NAME, escape

MAX_CHOICES = 128  # n, as in the OpenAI API
MAX_BEST_OF = 20
MAX_TOKENS = 2**20
MAX_TEXT_LOGPROBS = 5
MAX_CHAT_LOGPROBS = 20
MAX_MESSAGES = 10_000
_MAX_PROBLEMS = 10  # told; the others are counted
_NEVER = (None,)
_WORDS = {  # of pydantic's kinds of problem, as the rest of our messages say it
    "missing": "this field is required", "greater_than_equal": "expected at least {ge}", "less_than_equal": "expected at most {le}",
    "model_type": "expected an object", "string_type": "expected a text", "int_type": "expected an integer",
    "float_type": "expected a number", "bool_type": "expected true or false", "list_type": "expected a list",
    "literal_error": "expected {expected}", "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length:,} characters", "too_short": "expected at least {min_length} items",
    "too_long": "expected at most {max_length:,} items", "string_pattern_mismatch": "expected text like {pattern}",
    "value_error": "{error}", "wrong": "{problem}",
}  # fmt: skip
_SAY_WHAT_THEY_FOUND = ("missing", "value_error", "wrong")

# Fields of the OpenAI API whose meaning we cannot give, with the values at which they mean nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []), "tool_choice": (None, "none"), "functions": (None, []), "function_call": (None, "none"), "audio": _NEVER,
    "modalities": (None, ["text"]), "prediction": _NEVER, "web_search_options": _NEVER, "chat_template": _NEVER,
    "chat_template_kwargs": _NEVER, "suffix": (None, ""), "dimensions": _NEVER,
}  # fmt: skip
# Fields that change nothing in an answer of ours.
IGNORED = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls",
    "reasoning_effort", "verbosity",
})  # fmt: skip
# What OpenAI's API does without being told. The fields of ours that it does not know are as the model's folder recommends.
OPENAI_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_SHAPED_BY_HAND = ("max_tokens", "seed", "stop", "logit_bias")  # whose form or default differs between the API and the settings


class Body(pydantic.BaseModel):
    """The base of all: types are strict, null is the same as nothing, fields that we do not know are left out."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True, protected_namespaces=())

    @pydantic.model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        return {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values


ModelName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
B = TypeVar("B", bound=Body)


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: bool = Field(False, description="send the figures in one more chunk at the end")
    include_obfuscation: bool = Field(False, description="accepted; nothing is obfuscated")


class NamedSchema(Body):
    """A JSON schema as OpenAI's API wraps it."""

    name: str = Field("", description="ignored", max_length=64, pattern="^[a-zA-Z0-9_-]*$")
    description: str = Field("", description="ignored")
    json_schema: JsonSchema = Field(description="what the text will be valid against", alias="schema")
    strict: bool = Field(False, description="accepted; the schema is always kept")


class ResponseFormat(Body):
    """What the text will be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @pydantic.model_validator(mode="after")
    def _needs_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("expected json_schema beside the type 'json_schema'")
        return self


class Sampled(Body):
    """What completions and chats have in common; the rules of sampling are added below."""

    model: ModelName = Field(description="one of GET /v1/models")
    n: int = Field(1, description="choices for each prompt", ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, description="the same seed gives the same text; left out = a new one", ge=0, le=MAX_SEED)
    stop: Stops | None = Field(None, description="end before this text")
    logit_bias: Biases | None = Field(None, description="raise or lower single tokens' scores")
    stream: bool = Field(False, description="send the text as it comes, as server-sent events")
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    regex: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="not OpenAI's: the whole text will match this regular expression"
    )
    choice: Annotated[list[Annotated[str, StringConstraints(min_length=1)]], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="not OpenAI's: the text will be one of these"
    )

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its figures."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionFields(Sampled):
    """POST /v1/completions, without the rules of sampling."""

    prompt: Prompts = Field(description="text or token ids, one prompt or several; an empty text begins a new document")
    max_tokens: int = Field(16, description="most tokens to generate", ge=0, le=MAX_TOKENS)
    best_of: int | None = Field(None, description="draw so many and return the n likeliest for each token", ge=1, le=MAX_BEST_OF)
    echo: bool = Field(False, description="put the prompt before the text")
    logprobs: int | None = Field(
        None, description="log-probabilities of the tokens and of this many others", ge=0, le=MAX_TEXT_LOGPROBS
    )


class Message(Body):
    """One turn of a conversation. `name` is read by nobody."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="developer = system; tools are not supported")
    content: Content = Field(description="text, or parts of type text")
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="not supported")
    function_call: None = Field(None, description="not supported")


class ChatFields(Sampled):
    """POST /v1/chat/completions, without the rules of sampling."""

    messages: list[Message] = Field(
        description="the conversation; the last turn is the user's", min_length=1, max_length=MAX_MESSAGES
    )
    max_tokens: int | None = Field(
        None, description="most tokens to generate; left out = what the context holds", ge=1, le=MAX_TOKENS
    )
    max_completion_tokens: int | None = Field(None, description="the new name of max_tokens", ge=1, le=MAX_TOKENS)
    logprobs: bool = Field(False, description="return log-probabilities")
    top_logprobs: int | None = Field(None, description="of this many tokens at each position", ge=0, le=MAX_CHAT_LOGPROBS)
    continue_final_message: bool = Field(False, description="not OpenAI's: the last turn is the assistant's, and is continued")


class EmbeddingRequest(Body):
    """POST /v1/embeddings."""

    model: ModelName = Field(description="one of GET /v1/models")
    input: Inputs = Field(description="text or token ids, one or several")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64 = little-endian float32")


class TokenizeRequest(Body):
    """POST /tokenize: of a prompt, or of a conversation with the opening of its answer."""

    model: ModelName | None = Field(None, description="one of GET /v1/models; left out = the first")
    prompt: str | None = Field(None, description="a text")
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = Field(
        None, description="a conversation, instead of a prompt"
    )
    return_token_strs: bool = Field(False, description="say what each token stands for")


class DetokenizeRequest(Body):
    """POST /detokenize."""

    model: ModelName | None = Field(None, description="one of GET /v1/models; left out = the first")
    tokens: Ids = Field(description="token ids")


def _sampling_fields() -> dict[str, Any]:
    """Return the fields of SamplingSettings with their bounds, each of which may be left out: a new rule needs no line here."""
    fields = {}
    for name, field in SamplingSettings.model_fields.items():
        if name not in _SHAPED_BY_HAND:
            bounded = Annotated[field.annotation, *field.metadata]  # type: ignore[name-defined]
            whose = (
                "" if name in OPENAI_DEFAULTS else f"not OpenAI's; left out = as the model's folder says, else {field.default}: "
            )
            fields[name] = (bounded | None, Field(OPENAI_DEFAULTS.get(name), description=whose + (field.description or "")))
    return fields


# Annotate with the `…Fields`; these two have the fields of `_sampling_fields` besides, which only `sampling_settings` reads.
CompletionRequest = pydantic.create_model(
    "CompletionRequest", __base__=CompletionFields, __doc__="POST /v1/completions.", **_sampling_fields()
)
ChatRequest = pydantic.create_model("ChatRequest", __base__=ChatFields, __doc__="POST /v1/chat/completions.", **_sampling_fields())


def sampling_settings(asked: Sampled, *, recommended: Mapping[str, Any], max_tokens: int) -> SamplingSettings:
    """Return how a text is drawn: as asked, else as OpenAI's API has it, else as the model's folder recommends."""
    names = [name for name in SamplingSettings.model_fields if name not in _SHAPED_BY_HAND]
    values = {name: recommended[name] for name in names if name not in OPENAI_DEFAULTS and name in recommended}
    values |= {name: value for name in names if (value := getattr(asked, name)) is not None}
    return SamplingSettings(max_tokens=max_tokens, stop=asked.stop or None, logit_bias=asked.logit_bias or None, **values)


def parse(kind: type[B], body: dict[str, Any]) -> B:
    """Return the body as one of the models above.

    Raises: ApiError 400 that lists what is wrong; its `param` is the path of the first, as in messages.2.role.
    """
    _refuse_unsupported(kind, body)
    try:
        asked = kind.model_validate(body)
    except pydantic.ValidationError as error:
        raise _explain(error) from None
    for name in body.keys() - kind.model_fields.keys() - IGNORED - UNSUPPORTED.keys():
        _note_unknown(escape(name))
    return asked


def refuse(param: str, message: str, code: str | None = None) -> ApiError:
    """Return the 400 of one field."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)


def _refuse_unsupported(kind: type[Body], body: dict[str, Any]) -> None:
    for name, neutral in UNSUPPORTED.items():
        if name in body and name not in kind.model_fields and body[name] not in neutral:
            raise refuse(name, "not supported by this server", "unsupported_parameter")


@functools.lru_cache(maxsize=1024)
def _note_unknown(name: str) -> None:
    """Log a field that is ignored; the cache makes it once a name."""
    logging.getLogger(NAME).info("a request has the unknown field %s, which is ignored; said once", name)


def _explain(error: pydantic.ValidationError) -> ApiError:
    details = error.errors(include_url=False)
    lines = [_explain_one(detail) for detail in details[:_MAX_PROBLEMS]]
    if len(details) > _MAX_PROBLEMS:
        lines.append(f"… and {len(details) - _MAX_PROBLEMS:,} more")
    return ApiError(400, "\n".join(lines), param=_path(details[0]))


def _path(detail: Any) -> str:
    return ".".join(map(str, detail["loc"]))


def _explain_one(detail: Any) -> str:
    kind = detail["type"]
    message = _WORDS[kind].format(**detail.get("ctx", {})) if kind in _WORDS else detail["msg"]
    found = "" if kind in _SAY_WHAT_THEY_FOUND else f", found {describe(detail['input'])}"
    return f"{_path(detail)}: {message}{found}"
