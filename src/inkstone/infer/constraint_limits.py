"""What a caller may ask a text to look like: sizes that are refused before anything is compiled, each with its numbers."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from inkstone.base.errors import RequestError
from inkstone.infer.prompt import check_text

MAX_SCHEMA_BYTES = 32_768
MAX_SCHEMA_DEPTH = 100  # arrays and objects inside each other; the library's reader ends at 128
MAX_ENUM_VALUES = 1_000  # of a whole schema, as in the OpenAI API
MAX_REGEX_CHARACTERS = 4_096
MAX_REGEX_POSITIONS = 100_000  # with its counted repetitions written out
MAX_CHOICES = 1_000
MAX_CHOICE_BYTES = 32_768  # of all choices

_ESCAPE = re.compile(r"\\(?:[pPxuU]\{[^}]*\}|.)", re.DOTALL)  # the braces of \p{Han} and \x{4e2d} are no repetition
_COUNT = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}")
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")  # what JSON can write only as \u00XX


def check_schema(schema: Any, name: str = "json_schema") -> str:
    """Return a JSON schema as text. Raises: RequestError when it is no schema, too large, or asks for what cannot be promised."""
    if not isinstance(schema, dict):
        raise RequestError(f"{name}: expected an object, found {type(schema).__name__}")
    num_enum_values = 0
    for key, value in _walk(schema, name):
        if isinstance(value, str):
            _check_written(value, name)
        if key == "enum" and isinstance(value, list):
            num_enum_values += len(value)
            if num_enum_values > MAX_ENUM_VALUES:
                raise RequestError(f"{name}: expected at most {MAX_ENUM_VALUES:,} enum values, found {num_enum_values:,}")
        elif key == "pattern" and isinstance(value, str):
            check_regex(value, f"{name}: pattern")
        elif key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                check_regex(pattern, f"{name}: patternProperties")
        elif key == "minProperties" and isinstance(value, int) and value > 1:
            # A grammar cannot count distinct keys: {"a": 1, "a": 2} has one property.
            raise RequestError(f"{name}: minProperties: expected at most 1, found {value} — name the properties and require them")
    return _as_text(schema, name)


def check_regex(pattern: Any, name: str = "regex") -> str:
    """Return a regular expression. Raises: RequestError when it is too long, or too large with its repetitions written out."""
    if len(check_text(pattern, name)) > MAX_REGEX_CHARACTERS:
        raise RequestError(f"{name}: expected at most {MAX_REGEX_CHARACTERS:,} characters, found {len(pattern):,}")
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise RequestError(f"{name}: expected a character behind its last backslash")
    positions = count_positions(pattern)
    if positions > MAX_REGEX_POSITIONS:
        raise RequestError(
            f"{name}: expected at most {MAX_REGEX_POSITIONS:,} positions with its repetitions written out, found {positions:,} — "
            "lower the counts in {…}"
        )
    return pattern


def check_choices(choices: Any, name: str = "choice") -> list[str]:
    """Return the choices without repetitions. Raises: RequestError when they are no list of texts, or too many."""
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise RequestError(f"{name}: expected a list of texts, found {choices!r:.80}")
    if len(choices) > MAX_CHOICES:
        raise RequestError(f"{name}: expected at most {MAX_CHOICES:,} choices, found {len(choices):,}")
    num_bytes = 0
    for i, choice in enumerate(choices):
        num_bytes += len(check_text(choice, f"{name}[{i}]").encode())
        if not choice:
            raise RequestError(f"{name}[{i}]: expected text, found none")
    if num_bytes > MAX_CHOICE_BYTES:
        raise RequestError(f"{name}: expected at most {MAX_CHOICE_BYTES:,} bytes in all, found {num_bytes:,}")
    return list(dict.fromkeys(choices))


def count_positions(pattern: str) -> int:
    """Return how many characters a regular expression has with its counted repetitions written out; a class counts as one.

    >>> count_positions("a{2,3}(b[cd]){10}")
    23
    """
    sizes, last, at = [0], 0, 0  # of each open group; of what a repetition would repeat
    while at < len(pattern):
        if escape := _ESCAPE.match(pattern, at):
            last, at = 1, escape.end()
        elif count := _COUNT.match(pattern, at):
            sizes[-1] += last * max(0, int(count[2] or count[1]) - 1)
            last *= max(1, int(count[2] or count[1]))
            at = count.end()
            continue
        elif pattern[at] == "[":
            last, at = 1, _end_of_class(pattern, at)
        elif pattern[at] == "(":
            sizes.append(0)
            last, at = 0, at + 1
        elif pattern[at] == ")":
            last, at = sizes.pop() if len(sizes) > 1 else 0, at + 1
        elif pattern[at] in "*+?|":
            at += 1
            continue
        else:
            last, at = 1, at + 1
        sizes[-1] += last
    return sum(sizes)


def _end_of_class(pattern: str, at: int) -> int:
    depth = 0
    while at < len(pattern):
        depth += {"[": 1, "]": -1}.get(pattern[at], 0)
        at += 2 if pattern[at] == "\\" else 1
        if depth == 0:
            break
    return at


def _walk(schema: Any, name: str) -> Iterator[tuple[str | None, Any]]:
    """Yield (key, value) of every value, and every key as a value of its own; without recursion, and never deeper than allowed."""
    todo: list[tuple[str | None, Any, int]] = [(None, schema, 1)]
    num_values = 0
    while todo:
        key, value, depth = todo.pop()
        yield key, value
        if not isinstance(value, dict | list):
            continue
        num_values += len(value)
        if num_values > MAX_SCHEMA_BYTES:  # each takes a byte at least
            raise RequestError(f"{name}: expected at most {MAX_SCHEMA_BYTES:,} bytes of JSON, found more")
        if depth > MAX_SCHEMA_DEPTH:
            raise RequestError(f"{name}: expected at most {MAX_SCHEMA_DEPTH} levels, found more")
        if isinstance(value, dict):
            todo += [(None, inner, depth + 1) for inner in value]
            todo += [(inner, value[inner], depth + 1) for inner in value]
        else:
            todo += [(None, inner, depth + 1) for inner in value]


def _check_written(text: str, name: str) -> None:
    if found := _CONTROL.search(text):
        raise RequestError(f"{name}: expected no control characters, found U+{ord(found[0]):04X}")


def _as_text(schema: dict[str, Any], name: str) -> str:
    ours = {key: value for key, value in schema.items() if key != "x-guidance"}  # the library's own switches
    try:
        text = json.dumps(ours, ensure_ascii=False, allow_nan=False)
        num_bytes = len(text.encode())
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise RequestError(f"{name}: expected JSON: {error}") from error
    if num_bytes > MAX_SCHEMA_BYTES:
        raise RequestError(f"{name}: expected at most {MAX_SCHEMA_BYTES:,} bytes of JSON, found {num_bytes:,}")
    return text
