"""One document on its way from a source to the shards."""

from dataclasses import dataclass

Message = dict[str, str]


@dataclass(frozen=True)
class Document:
    """A text with its origin.

    `source` names where it came from (a file, or `builtin:microworld/story/zh`), `index` is its position there, counted from 0.
    `messages` are the turns (`role`, `content`) of a chat document, None for plain text.
    """

    text: str
    source: str
    index: int
    messages: tuple[Message, ...] | None = None
