"""The light cleaning of every document. The text is otherwise kept as it is: no Unicode normalization, no trimming.

1. Line ends `\\r\\n` and `\\r` become `\\n`.
2. Control characters are removed, except tab and line feed: U+0000-001F, U+007F-009F.
3. Lone surrogates (as JSON's `"\\ud800"` gives) become U+FFFD.
4. A document without a visible character is dropped.
"""

import re
from collections import Counter

from inkstone.data.document import Document

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPECIAL = re.compile(r"<\|[a-z_]{2,20}\|>")


def clean_text(text: str, counts: Counter[str]) -> str:
    """Return the cleaned text; `counts` of what was changed is added to."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, removed = _CONTROLS.subn("", text)
    text, replaced = _SURROGATES.subn("\ufffd", text)
    for name, count in (("control characters removed", removed), ("lone surrogates replaced", replaced)):
        if count:
            counts[name] += count
    if "<|" in text and (special := len(_SPECIAL.findall(text))):
        counts["special-token texts kept as plain text"] += special
    return text


def clean_document(document: Document, counts: Counter[str]) -> Document | None:
    """Return the cleaned document, or None when nothing visible is left of it."""
    messages = None
    if document.messages is not None:
        messages = tuple({**message, "content": clean_text(message["content"], counts)} for message in document.messages)
        text = "\n".join(message["content"] for message in messages)
    else:
        text = clean_text(document.text, counts)
    if not text or text.isspace():
        return None
    return Document(text, document.source, document.index, messages)
