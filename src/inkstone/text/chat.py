"""Chat as ids: ChatML, where only special ids mark a turn, so that no text of a user can open or close one."""

from collections.abc import Mapping, Sequence
from typing import Any

from inkstone.base.errors import DataError, RequestError
from inkstone.base.family import nearest
from inkstone.text.special import IM_END, IM_START
from inkstone.text.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
# The same layout for other programs (tokenizer_config.json). A template joins strings, so there a user's "<|im_end|>" is
# a special token unless that program escapes it; `render_chat` below has no such hole.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def render_chat(
    messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, *, add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """Return the ids of a chat and, for each id, whether training counts its loss.

    Each message is `<|im_start|>role⏎content<|im_end|>⏎`; the loss counts an assistant's content and its <|im_end|>.
    `add_generation_prompt` ends the ids with `<|im_start|>assistant⏎`, where a reply goes on.

    Raises: DataError for messages that are no chat (see `check_messages`), RequestError when the tokenizer has no marks of turns.
    """
    check_messages(messages)
    start, end = _marks(tokenizer)
    newline = tokenizer.encode("\n")
    texts = []
    for message in messages:
        # An assistant's header and content are apart, as they are when a reply is generated after its header.
        head = f"{message['role']}\n"
        texts += [head, message["content"]] if message["role"] == "assistant" else [head + message["content"], ""]
    encoded = tokenizer.encode_batch(texts)
    ids: list[int] = []
    mask: list[bool] = []
    for message, head_ids, content_ids in zip(messages, encoded[::2], encoded[1::2], strict=True):
        is_target = message["role"] == "assistant"
        ids += [start, *head_ids, *content_ids, end, *newline]
        mask += [False] * (1 + len(head_ids)) + [is_target] * (len(content_ids) + 1) + [False] * len(newline)
    if add_generation_prompt:
        prompt = [start, *tokenizer.encode("assistant\n")]
        ids += prompt
        mask += [False] * len(prompt)
    return ids, mask


def check_messages(messages: Sequence[Mapping[str, Any]], *, is_training: bool = False) -> None:
    """Check that `messages` are a chat: an optional system message, then user and assistant turns with text.

    `is_training` asks for what an example needs besides: a user before the first assistant, and an assistant's turn at all.

    Raises: DataError with one line per problem, each with its path, as in `messages[2].role`.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise DataError(f"messages: expected a list of messages, found {type(messages).__name__}")
    if not messages:
        raise DataError("messages: expected at least one message, found none")
    problems = [problem for index, message in enumerate(messages) for problem in _message_problems(index, message)]
    if not problems and is_training:
        roles = [message["role"] for message in messages if message["role"] != "system"]
        if "assistant" not in roles:
            problems.append("messages: no assistant turn, so there is nothing to learn from it")
        elif roles[0] != "user":
            problems.append("messages: the assistant speaks before the user")
    if problems:
        raise DataError("\n".join(problems))


def _message_problems(index: int, message: Any) -> list[str]:
    if not isinstance(message, Mapping):
        return [f"messages[{index}]: expected an object with role and content, found {type(message).__name__}"]
    problems = []
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        hint = nearest(role, ROLES) if isinstance(role, str) else ""
        problems.append(f"messages[{index}].role: expected one of {', '.join(ROLES)}, found {role!r}{hint}")
    elif role == "system" and index:
        problems.append(f"messages[{index}].role: a system message stands only at the beginning")
    if not isinstance(content, str):
        found = "nothing" if content is None else type(content).__name__
        problems.append(f"messages[{index}].content: expected a text, found {found}")
    if message.get("tool_calls"):
        problems.append(f"messages[{index}].tool_calls: tool calls are not supported")
    return problems


def _marks(tokenizer: Tokenizer) -> tuple[int, int]:
    missing = [mark for mark in (IM_START, IM_END) if mark not in tokenizer.special]
    if missing:
        raise RequestError(
            f"chat needs the special tokens {IM_START} and {IM_END}; this tokenizer (kind '{tokenizer.kind}') lacks "
            f"{' and '.join(missing)} — use a model with a byte-level tokenizer trained here"
        )
    return tokenizer.special[IM_START], tokenizer.special[IM_END]
