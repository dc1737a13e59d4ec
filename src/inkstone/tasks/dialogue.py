"""Conversations out of plain text, for a chat model of a text that holds none: the user says a passage, the reply is what follows it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

_SENTENCE = re.compile(r"[^。！？!?.\n]+[。！？!?.]*[”’」』\"')]*\s*")
MIN_CHARACTERS, MAX_CHARACTERS = 4, 160
TURNS = 3  # exchanges in one conversation


def conversations_of(texts: Iterable[str], limit: int) -> Iterator[list[dict[str, Any]]]:
    """Yield up to `limit` conversations of consecutive sentences: user, assistant, user, assistant, …

    >>> next(conversations_of(["One day it rained. We stayed at home."], 1))
    [{'role': 'user', 'content': 'One day it rained.'}, {'role': 'assistant', 'content': 'We stayed at home.'}]
    """
    made = 0
    for text in texts:
        sentences = [s.strip() for s in _SENTENCE.findall(text)]
        sentences = [s for s in sentences if MIN_CHARACTERS <= len(s) <= MAX_CHARACTERS]
        for start in range(0, len(sentences) - 1, 2 * TURNS):
            turns = sentences[start : start + 2 * TURNS]
            turns = turns[: len(turns) // 2 * 2]
            if not turns:
                break
            yield [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
            made += 1
            if made >= limit:
                return
