"""Kinds of fields that JSON types alone do not say: prompts, message contents, stop strings, biases; each checked in one pass.

A checker returns the one form that the rest of the server works with. It speaks of what it found, never of how it was checked, and the
JSON schema beside it says the same to programs.
"""

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from inkstone.infer.config import MAX_BIAS, MAX_BIASED_TOKENS, MAX_STOP_CHARACTERS, MAX_STOPS
from inkstone.serve.errors import echo

MAX_PROMPTS = 2048  # as many as OpenAI's embeddings take
MAX_PARTS = 1024  # of one message
_MAX_ID = 2**31 - 1  # of any tokenizer; that of the model is asked later
_MAX_ID_DIGITS = 10

_IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": _MAX_ID}, "minItems": 1}
_TEXTS_SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS}
_ROWS_SCHEMA = {"type": "array", "items": _IDS_SCHEMA, "minItems": 1, "maxItems": MAX_PROMPTS}
_STOP_SCHEMA = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
_PART_SCHEMA = {
    "type": "object", "properties": {"type": {"const": "text"}, "text": {"type": "string"}}, "required": ["type", "text"],
}  # fmt: skip


def wrong(message: str) -> PydanticCustomError:
    """Return what a checker raises; braces in what a caller sent are no placeholders."""
    return PydanticCustomError("wrong", "{problem}", {"problem": message})


def describe(value: Any) -> str:
    """Return what was found, for a message: values as they are, of containers only the kind."""
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    return "an object" if isinstance(value, dict) else "null" if value is None else echo(value)


def read_prompts(value: Any) -> list[str | list[int]]:
    """Return the prompts of "text", ["text", …], [id, …] or [[id, …], …] as a list of texts or ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong(f"expected a text, a list of texts, a list of token ids or a list of such lists, found {describe(value)}")
    if not value:
        raise wrong("expected at least one prompt, found an empty list")
    kinds = set(map(type, value))
    if kinds == {int}:
        return [_check_ids(value, "")]
    if len(value) > MAX_PROMPTS:
        raise wrong(f"expected at most {MAX_PROMPTS:,} prompts, found {len(value):,}")
    if kinds == {str}:
        return value
    if kinds == {list}:
        return [_check_ids(ids, f"[{i}]") for i, ids in enumerate(value)]
    odd = next((item for item in value if type(item) not in (str, int, list)), None)
    raise wrong(
        f"expected all texts, all token ids or all lists of token ids, found {'a mixture' if odd is None else describe(odd)}"
    )


def _check_ids(ids: list[Any], where: str) -> list[int]:
    if not ids:
        raise wrong(f"expected at least one token id{' at ' + where if where else ''}, found none")
    if set(map(type, ids)) != {int}:
        odd = next(item for item in ids if type(item) is not int)
        raise wrong(f"expected token ids{' at ' + where if where else ''}, found {describe(odd)}")
    if min(ids) < 0 or max(ids) > _MAX_ID:
        raise wrong(f"expected token ids from 0 to {_MAX_ID:,}, found {min(ids) if min(ids) < 0 else max(ids)}")
    return ids


def read_inputs(value: Any) -> list[str | list[int]]:
    """Return what is to be embedded; an empty text has no tokens whose mean could be taken."""
    inputs = read_prompts(value)
    if "" in inputs:
        raise wrong("expected texts that are not empty")
    return inputs


def read_ids(value: Any) -> list[int]:
    """Return a list of token ids, which may be empty."""
    if not isinstance(value, list):
        raise wrong(f"expected a list of token ids, found {describe(value)}")
    return _check_ids(value, "") if value else value


def read_content(value: Any) -> str:
    """Return the text of a message: a text, or a list of parts {"type": "text", "text": …}, which are joined."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(f"expected a text or a list of text parts, found {describe(value)}")
    if not 1 <= len(value) <= MAX_PARTS:
        raise wrong(f"expected 1 to {MAX_PARTS:,} parts, found {len(value):,}")
    return "".join([_read_part(i, part) for i, part in enumerate(value)])


def _read_part(index: int, part: Any) -> str:
    if not isinstance(part, dict):
        raise wrong(f"expected parts that are objects, found {describe(part)} at part {index}")
    if part.get("type") != "text":
        raise wrong(f"expected parts of type 'text', found {describe(part.get('type'))} at part {index}; others are not supported")
    if not isinstance(part.get("text"), str):
        raise wrong(f"expected a text at part {index}, found {describe(part.get('text'))}")
    return part["text"]


def read_stops(value: Any) -> list[str]:
    """Return the stop strings of a text or a list of up to four."""
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise wrong(f"expected a text or a list of texts, found {describe(value)}")
    if len(stops) > MAX_STOPS:
        raise wrong(f"expected at most {MAX_STOPS} stop strings, found {len(stops):,}")
    for stop in stops:
        if not isinstance(stop, str):
            raise wrong(f"expected texts, found {describe(stop)}")
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            raise wrong(f"expected stop strings of 1 to {MAX_STOP_CHARACTERS} characters, found one of {len(stop):,}")
    return stops


def read_biases(value: Any) -> dict[int, float]:
    """Return {"token id": bias} with numbers as keys."""
    if not isinstance(value, dict):
        raise wrong(f"expected an object of token ids and biases, found {describe(value)}")
    if len(value) > MAX_BIASED_TOKENS:
        raise wrong(f"expected at most {MAX_BIASED_TOKENS:,} tokens, found {len(value):,}")
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) <= _MAX_ID_DIGITS and str(int(key)) == key and int(key) <= _MAX_ID):
            raise wrong(f"expected token ids as keys, found {echo(key)}")
        if type(bias) not in (int, float) or not -MAX_BIAS <= bias <= MAX_BIAS:
            raise wrong(f"expected biases from -{MAX_BIAS} to {MAX_BIAS}, found {describe(bias)} for token {key}")
    return {int(key): float(bias) for key, bias in value.items()}


def read_schema(value: Any) -> dict[str, Any]:
    """Return a JSON schema; whether it can be followed is asked when it is compiled."""
    if not isinstance(value, dict):
        raise wrong(f"expected a JSON schema, found {describe(value)}")
    return value


Prompts = Annotated[
    list[str | list[int]], PlainValidator(read_prompts),
    WithJsonSchema({"anyOf": [{"type": "string"}, _TEXTS_SCHEMA, _IDS_SCHEMA, _ROWS_SCHEMA]}),
]  # fmt: skip
Inputs = Annotated[
    list[str | list[int]], PlainValidator(read_inputs),
    WithJsonSchema({"anyOf": [
        {"type": "string", "minLength": 1}, {**_TEXTS_SCHEMA, "items": {"type": "string", "minLength": 1}}, _IDS_SCHEMA, _ROWS_SCHEMA,
    ]}),
]  # fmt: skip
Ids = Annotated[list[int], PlainValidator(read_ids), WithJsonSchema({**_IDS_SCHEMA, "minItems": 0})]
Content = Annotated[
    str, PlainValidator(read_content),
    WithJsonSchema({"anyOf": [
        {"type": "string"}, {"type": "array", "items": _PART_SCHEMA, "minItems": 1, "maxItems": MAX_PARTS},
    ]}),
]  # fmt: skip
Stops = Annotated[
    list[str], PlainValidator(read_stops),
    WithJsonSchema({"anyOf": [_STOP_SCHEMA, {"type": "array", "items": _STOP_SCHEMA, "maxItems": MAX_STOPS}]}),
]  # fmt: skip
Biases = Annotated[
    dict[int, float], PlainValidator(read_biases),
    WithJsonSchema({
        "type": "object", "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"}, "maxProperties": MAX_BIASED_TOKENS,
        "additionalProperties": {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS},
    }),
]  # fmt: skip
JsonSchema = Annotated[dict[str, Any], PlainValidator(read_schema), WithJsonSchema({"type": "object"})]
