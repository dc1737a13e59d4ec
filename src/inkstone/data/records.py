"""What a record of a JSON, CSV or Parquet file says: plain text, or the messages of a chat."""

from collections.abc import Mapping, Sequence
from typing import Any

from inkstone.data.document import Message

ROLES = ("system", "user", "assistant")
Meaning = tuple[str, tuple[Message, ...] | None]


class RecordError(Exception):
    """A record that cannot be used; the message says why, the reader knows where."""


def read_record(record: Any, text_field: str | None = None) -> Meaning:
    """Return (text, messages or None) of one record: a string, or an object with one of the known sets of fields.

    Known are `text`, `messages`, `prompt`/`completion` and `instruction`/`input`/`output`; `text_field` names another one.
    Raises: RecordError.
    """
    if isinstance(record, str):
        return record, None
    if not isinstance(record, Mapping):
        raise RecordError(f"expected an object or a string, found {_kind(record)}")
    if text_field is not None:
        return _string(record, text_field), None
    if "text" in record:
        return _string(record, "text"), None
    if "messages" in record:
        return _chat(check_messages(record["messages"]))
    if "prompt" in record and "completion" in record:
        return _chat(_turns(_string(record, "prompt"), _string(record, "completion")))
    if "instruction" in record and "output" in record:
        request = _string(record, "instruction")
        extra = _string(record, "input") if record.get("input") is not None else ""
        return _chat(_turns(f"{request}\n{extra}" if extra else request, _string(record, "output")))
    raise missing_field("text", record)


def missing_field(field: str, names: Mapping[str, Any] | Sequence[str]) -> RecordError:
    """Return the error that names the fields there are."""
    fields = ", ".join(str(name) for name in list(names)[:20]) or "none"
    return RecordError(f"no field '{field}'; fields are: {fields} (choose one with --text-field)")


def check_messages(messages: Any) -> tuple[Message, ...]:
    """Return the messages with only role and content: an optional system turn, then user and assistant in turn.

    Raises: RecordError with the path of what is wrong, such as `messages[2].role`.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise RecordError(f"messages: expected a list of at least one message, found {_kind(messages) if messages else 'none'}")
    checked = [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    turns = [i for i, message in enumerate(checked) if message["role"] != "system"]
    if not any(message["role"] == "assistant" for message in checked):
        raise RecordError("messages: no turn of the assistant, so there is nothing to learn")
    for i in range(1, len(checked)):
        if checked[i]["role"] == "system":
            raise RecordError(f"messages[{i}].role: 'system' is allowed only at the beginning")
    for place, i in enumerate(turns):
        expected = ("user", "assistant")[place % 2]
        if checked[i]["role"] != expected:
            raise RecordError(
                f"messages[{i}].role: expected '{expected}', found '{checked[i]['role']}' (user and assistant take turns)"
            )
    return tuple(checked)


def _message(message: Any, path: str) -> Message:
    if not isinstance(message, Mapping):
        raise RecordError(f"{path}: expected an object with role and content, found {_kind(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RecordError(f"{path}.role: expected one of {', '.join(ROLES)}, found {role!r}")
    if message.get("tool_calls"):
        raise RecordError(f"{path}.tool_calls: tool calls are not supported")
    if not isinstance(content, str):
        raise RecordError(f"{path}.content: expected a string, found {_kind(content)}")
    return {"role": role, "content": content}


def _turns(prompt: str, completion: str) -> tuple[Message, ...]:
    return {"role": "user", "content": prompt}, {"role": "assistant", "content": completion}


def _chat(messages: tuple[Message, ...]) -> Meaning:
    return "\n".join(message["content"] for message in messages), messages


def _string(record: Mapping[str, Any], field: str) -> str:
    if field not in record:
        raise missing_field(field, record)
    value = record[field]
    if not isinstance(value, str):
        raise RecordError(f"field '{field}' is {_kind(value)}, expected a string")
    return value


def _kind(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
