"""A conversation inside a model's context: which turns still fit, and the reply to the last of them."""

from typing import TYPE_CHECKING

from inkstone.base.errors import ConfigError, DataError, RequestError
from inkstone.infer.prompt import check_text
from inkstone.text.chat import check_messages, render_chat
from inkstone.text.special import IM_END, IM_START

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

Message = dict[str, str]
_REPLY_SHARE = 4  # a reply gets at least 1/4 of the context


def require_chat_tokens(tokenizer: "Tokenizer") -> None:
    """Raises: ConfigError when the tokenizer has no tokens that mark the turns of a conversation."""
    missing = [name for name in (IM_START, IM_END) if name not in tokenizer.special]
    if missing:
        raise ConfigError(
            f"chat needs a tokenizer with {' and '.join(missing)}, and this model's ({tokenizer.kind}) has none — "
            "use `inkstone generate` with it, or train a model with a byte-level BPE tokenizer"
        )


def require_answerable(messages: list[Message]) -> None:
    """Raises: RequestError that lists what keeps the messages from being answered, one a line."""
    try:
        check_messages(messages)
    except DataError as error:
        raise RequestError(str(error)) from error
    for i, message in enumerate(messages):
        check_text(message["content"], f"messages[{i}].content")
    if messages[-1]["role"] != "user":
        raise RequestError(f"messages: expected the user's turn at the end, found the {messages[-1]['role']}'s")


def fit_conversation(messages: list[Message], tokenizer: "Tokenizer", *, context: int, max_tokens: int) -> tuple[list[int], int]:
    """Return (prompt ids, how many of the oldest messages were left out so that a reply fits).

    A leading system message stays; what remains begins with a user's turn. A reply is given `max_tokens`, or a quarter of the
    context where that is less.
    Raises: RequestError with the numbers when the last message alone does not fit.
    """
    room = context - min(max_tokens, max(1, context // _REPLY_SHARE))
    head = messages[:1] if messages[0]["role"] == "system" else []
    turns = messages[len(head) :]
    starts = [i for i, turn in enumerate(turns) if i == 0 or turn["role"] == "user"]
    for start in starts:
        ids, _ = render_chat([*head, *turns[start:]], tokenizer, add_generation_prompt=True)
        if len(ids) <= room:
            return ids, start
    raise RequestError(
        f"the last message{' and the system message' if head else ''} take {len(ids):,} tokens, and {room:,} of the model's "
        f"{context:,} are left beside a reply — shorten {'them' if head else 'it'}"
    )
