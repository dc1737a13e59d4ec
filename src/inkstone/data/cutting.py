"""Cutting text that streams by: into lines, into documents of bounded size, into pieces for the tokenizer."""

from collections.abc import Iterable, Iterator

FORM_FEED = "\f"


def split_documents(pieces: Iterable[str], max_chars: int) -> Iterator[str]:
    """Yield the documents of a text file: one, unless it has form feeds (a document each) or is longer than `max_chars`.

    A longer one is cut at the last paragraph end within the limit, else line end, else sentence end or space, else at the limit.
    Nothing but form feeds is lost. Memory: a few times `max_chars`.
    """
    held: list[str] = []
    size = 0
    for piece in pieces:
        first, *rest = piece.split(FORM_FEED)
        held.append(first)
        size += len(first)
        for part in rest:
            yield from _cut("".join(held), max_chars)
            held, size = [part], len(part)
        if size > 2 * max_chars:
            *done, last = _cut("".join(held), max_chars)
            yield from done
            held, size = [last], len(last)
    yield from _cut("".join(held), max_chars)


def iter_lines(pieces: Iterable[str], max_chars: int) -> Iterator[tuple[int, str, bool]]:
    """Yield (number from 1, line with its `\\n`, whether it is whole); one longer than `max_chars` is not whole and the last."""
    number, held = 1, ""
    for piece in pieces:
        *lines, held = (held + piece).split("\n")
        for line in lines:
            yield number, line + "\n", len(line) <= max_chars
            number += 1
        if len(held) > max_chars:
            yield number, held, False
            return
    if held:
        yield number, held, True


def cut_text(text: str, max_chars: int) -> list[str]:
    """Return pieces of at most `max_chars` that concatenate to `text`, cut so that a word or a run of blanks is rarely divided."""
    return list(_cut(text, max_chars))


def _cut(text: str, max_chars: int) -> Iterator[str]:
    start = 0
    while len(text) - start > max_chars:
        stop = _best_cut(text, start, start + max_chars)
        yield text[start:stop]
        start = stop
    yield text[start:]


def _best_cut(text: str, start: int, limit: int) -> int:
    half = (start + limit) // 2
    for mark in ("\n\n", "\n", "。", ". ", " "):
        at = text.rfind(mark, half, limit)
        if at > start:
            return at + len(mark)
    return limit
