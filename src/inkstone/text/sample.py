"""A sample of bounded size from a stream of texts of any length, the same for the same texts and seed."""

import heapq
from collections.abc import Iterable, Iterator

import xxhash

PIECE_CHARACTERS = 16_384


def sample_texts(texts: Iterable[str], max_bytes: int, *, seed: int = 0) -> list[str]:
    """Return pieces of `texts`, each equally likely, in order, of at most `max_bytes` UTF-8 bytes together.

    Long texts count as pieces of about 16,384 characters that end at a line end where there is one. Memory is bounded by
    `max_bytes` and one text, since every piece draws a number and those with the largest leave first.
    """
    kept: list[tuple[int, int, str, int]] = []
    total = 0
    for index, piece in enumerate(piece for text in texts for piece in cut_pieces(text, PIECE_CHARACTERS)):
        size = len(piece.encode("utf-8", "surrogatepass"))
        heapq.heappush(kept, (-_draw(seed, index), index, piece, size))
        total += size
        while total > max_bytes:
            total -= heapq.heappop(kept)[3]
    return [piece for _, _, piece, _ in sorted(kept, key=lambda entry: entry[1])]


def cut_pieces(text: str, max_characters: int) -> Iterator[str]:
    """Yield `text` in pieces of at most `max_characters`, after the last line end in each where there is one."""
    start = 0
    while len(text) - start > max_characters:
        stop = text.rfind("\n", start, start + max_characters) + 1 or start + max_characters
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def _draw(seed: int, index: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed}/{index}".encode())
